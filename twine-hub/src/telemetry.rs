//! What the hub counts: every metric, defined here and listed in `docs/OPERATIONS.md`.

mod histogram;

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub(crate) use self::histogram::{Counts, Histogram};
use crate::store::dynamodb::Usage;

/// Every metric of the hub; one for all its parts.
#[derive(Debug)]
pub(crate) struct Telemetry {
    /// Open WebSocket connections.
    pub(crate) connections: Gauge,
    /// Connections that wait for their sessions or for the store.
    pub(crate) waiting: Gauge,
    /// Publishers whose connections shards look after.
    pub(crate) publishers: Gauge,
    /// Rooms in memory.
    pub(crate) rooms: Gauge,
    /// Subscriptions of all connections.
    pub(crate) subscriptions: Gauge,
    /// Messages committed, duplicates not counted.
    pub(crate) published: Counter,
    /// Messages written to sockets.
    pub(crate) delivered: Counter,
    /// Refusals and failures by error code.
    pub(crate) errors: Family<Code, Counter>,
    /// Time from a publish's arrival to its frame's last write in a fan-out pass.
    pub(crate) publish_to_socket: Histogram,
    /// Sessions that a connection holds.
    pub(crate) sessions: Gauge,
    /// Sessions given to connections, by how they came by them.
    pub(crate) session_attaches: Family<How, Counter>,
    /// Sessions that a bound has cost, by which.
    pub(crate) sessions_dropped: Family<Bound, Counter>,
    /// How full the hub is, 1 being as full as it may get.
    pub(crate) load: Gauge<f64, AtomicU64>,
    /// The same of each thing that makes it full.
    pub(crate) load_parts: Family<Part, Gauge<f64, AtomicU64>>,
    /// What the table of a fleet was asked.
    pub(crate) table: Usage,
    registry: Registry,
}

/// The label of [`Telemetry::session_attaches`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct How {
    pub(crate) how: &'static str,
}

/// The label of [`Telemetry::sessions_dropped`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Bound {
    pub(crate) bound: &'static str,
}

/// The label of [`Telemetry::load_parts`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Part {
    pub(crate) part: &'static str,
}

/// The label of [`Telemetry::errors`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Code {
    pub(crate) code: &'static str,
}

impl Default for Telemetry {
    fn default() -> Self {
        let mut telemetry = Self {
            connections: Gauge::default(),
            waiting: Gauge::default(),
            publishers: Gauge::default(),
            rooms: Gauge::default(),
            subscriptions: Gauge::default(),
            published: Counter::default(),
            delivered: Counter::default(),
            errors: Family::default(),
            publish_to_socket: Histogram::default(),
            sessions: Gauge::default(),
            session_attaches: Family::default(),
            sessions_dropped: Family::default(),
            load: Gauge::default(),
            load_parts: Family::default(),
            table: Usage::default(),
            registry: Registry::with_prefix("twine"),
        };
        telemetry.register();
        telemetry
    }
}

impl Telemetry {
    /// Names and help texts. The encoder adds `_total` to counters and `_info` to facts.
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("connections", "Open WebSocket connections", self.connections.clone());
        registry.register(
            "connections_waiting",
            "Connections that wait for their sessions or for the store",
            self.waiting.clone(),
        );
        registry.register(
            "publishers",
            "Connections of publishers that shards look after, for they go on with whole requests",
            self.publishers.clone(),
        );
        registry.register("rooms", "Rooms in memory", self.rooms.clone());
        registry.register("subscriptions", "Subscriptions of all connections", self.subscriptions.clone());
        registry.register(
            "messages_published",
            "Messages committed, duplicates not counted",
            self.published.clone(),
        );
        registry.register("messages_delivered", "Messages written to sockets", self.delivered.clone());
        registry.register("errors", "Refusals and failures by error code", self.errors.clone());
        registry.register_with_unit(
            "publish_to_socket",
            "Time from a publish's arrival to the last write of its frame",
            Unit::Seconds,
            self.publish_to_socket.clone(),
        );
        registry.register("sessions", "Sessions that a connection holds", self.sessions.clone());
        registry.register(
            "session_attaches",
            "Sessions given to connections, by how they came by them",
            self.session_attaches.clone(),
        );
        registry.register(
            "sessions_dropped",
            "Sessions that a bound has cost, by which",
            self.sessions_dropped.clone(),
        );
        registry.register("load_ratio", "How full the hub is: the greatest of its parts", self.load.clone());
        registry.register(
            "load_part_ratio",
            "How full the hub is by one thing that makes it so",
            self.load_parts.clone(),
        );
        registry.register(
            "dynamodb_read_units",
            "Read units that the table of a fleet has cost",
            self.table.read_units.clone(),
        );
        registry.register(
            "dynamodb_write_units",
            "Write units that the table of a fleet has cost",
            self.table.write_units.clone(),
        );
        registry.register("build", "What is running", Info::new([("version", crate::VERSION)]));
    }

    /// All metrics as OpenMetrics text.
    pub(crate) fn open_metrics(&self) -> String {
        let mut text = String::new();
        // Writing to a `String` does not fail, and no metric does.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_lists_every_metric_as_it_is() {
        let telemetry = Telemetry::default();
        telemetry.errors.get_or_create(&Code { code: "bad_room" }).inc();
        telemetry.session_attaches.get_or_create(&How { how: "new" }).inc();
        telemetry.sessions_dropped.get_or_create(&Bound { bound: "hub" }).inc();
        telemetry.load_parts.get_or_create(&Part { part: "cpu" }).set(0.5);
        let text = telemetry.open_metrics();
        let mut expected = Vec::new();
        for line in text.lines() {
            let mut words = line.splitn(4, ' ');
            match (words.next(), words.next(), words.next(), words.next()) {
                (Some("#"), Some("HELP"), Some(name), Some(help)) => {
                    expected.push((name.to_owned(), help.trim_end_matches('.').to_owned()));
                }
                (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                    let (found, help) = expected.pop().unwrap();
                    assert_eq!(found, name);
                    let (suffix, labels) = match (kind, name) {
                        ("counter", "twine_errors") => ("_total", "`code`"),
                        ("counter", "twine_session_attaches") => ("_total", "`how`"),
                        ("counter", "twine_sessions_dropped") => ("_total", "`bound`"),
                        ("counter", _) => ("_total", ""),
                        ("gauge", "twine_load_part_ratio") => ("", "`part`"),
                        ("info", _) => ("_info", "`version`"),
                        _ => ("", ""),
                    };
                    expected
                        .push((format!("| `{name}{suffix}` | {kind} | {labels} | {help} |"), String::new()));
                }
                _ => {}
            }
        }
        let expected: Vec<_> = expected.into_iter().map(|(row, _)| row).collect();
        let page = include_str!("../../docs/OPERATIONS.md");
        let listed: Vec<_> = page.lines().filter(|line| line.starts_with("| `twine_")).collect();
        assert_eq!(listed, expected, "write this:\n{}", expected.join("\n"));
    }
}
