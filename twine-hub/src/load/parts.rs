//! The formula: the load is the greatest of its parts, and a part what is used of a limit.

use serde::Serialize;

/// A 99th percentile of the time from publish to socket, in seconds, at which a hub counts as full.
pub(super) const SLOW: f64 = 1.0;
/// How many seconds late a full hub's threads are.
pub(super) const LATE: f64 = 0.25;

/// How much of one thing is used up.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub(crate) struct Part {
    /// 0 to 100.
    pub(crate) load: u8,
    /// In the unit of the thing.
    pub(crate) used: f64,
    /// Where it counts as used up.
    pub(crate) limit: f64,
}

impl Part {
    /// `used` of `limit`.
    pub(crate) fn of(used: f64, limit: f64) -> Self {
        let share = if limit > 0.0 { used / limit } else { 1.0 };
        Self { load: percent(share), used, limit }
    }
}

/// What may run out. `None` is not known, and does not count.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub(crate) struct Parts {
    /// Cores.
    pub(crate) cpu: Option<Part>,
    /// WebSocket connections.
    pub(crate) connections: Part,
    /// Bytes.
    pub(crate) memory: Option<Part>,
    /// Seconds, of the slowest hundredth.
    pub(crate) publish_to_socket: Option<Part>,
    /// Seconds that the latest of the hub's threads is late by.
    pub(crate) delay: Part,
}

impl Parts {
    /// The parts that are known, by name.
    pub(crate) fn known(&self) -> impl Iterator<Item = (&'static str, Part)> {
        let Self { cpu, connections, memory, publish_to_socket, delay } = *self;
        let all = [
            ("cpu", cpu),
            ("connections", Some(connections)),
            ("memory", memory),
            ("publish_to_socket", publish_to_socket),
            ("delay", Some(delay)),
        ];
        all.into_iter().filter_map(|(name, part)| Some((name, part?)))
    }

    /// How full the hub is, 0 to 100: whatever runs out first decides.
    pub(crate) fn load(&self) -> u8 {
        self.known().map(|(_, part)| part.load).max().unwrap_or_default()
    }

    /// What share of the new connections it should get, in percent: never none, which only a hub that
    /// is not ready gets.
    pub(crate) fn weight(&self) -> u8 {
        100_u8.saturating_sub(self.load()).max(1)
    }
}

// Between 0 and 100, as `clamp` says.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn percent(share: f64) -> u8 {
    (share * 100.0).round().clamp(0.0, 100.0) as u8
}

// The numbers of this module tell how full a hub is; what is lost of them beyond 2^53 is nothing.
#[allow(clippy::cast_precision_loss)]
pub(super) fn bytes(n: u64) -> f64 {
    n as f64
}

#[allow(clippy::cast_precision_loss)]
pub(super) fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 12 by the processor, nothing by the rest.
    fn quiet() -> Parts {
        Parts {
            cpu: Some(Part::of(0.24, 2.0)),
            connections: Part::of(0.0, 100.0),
            memory: None,
            publish_to_socket: None,
            delay: Part::of(0.001, LATE),
        }
    }

    #[test]
    fn a_part_is_what_is_used_of_its_limit_and_never_more_than_all() {
        let loads = [(0.0, 2.0), (0.24, 2.0), (1.0, 3.0), (2.0, 2.0), (9.0, 2.0), (1.0, 0.0)]
            .map(|(used, limit)| Part::of(used, limit).load);
        assert_eq!(loads, [0, 12, 33, 100, 100, 100]);
    }

    #[test]
    fn the_load_is_its_greatest_part() {
        let loads = [
            quiet(),
            Parts { connections: Part::of(75.0, 100.0), ..quiet() },
            Parts { memory: Some(Part::of(90.0, 100.0)), ..quiet() },
            Parts { publish_to_socket: Some(Part::of(0.5, SLOW)), ..quiet() },
            Parts { delay: Part::of(0.1, LATE), ..quiet() },
            Parts { cpu: None, ..quiet() },
        ]
        .map(|parts| parts.load());
        assert_eq!(loads, [12, 75, 90, 50, 40, 0]);
    }

    #[test]
    fn who_is_full_gets_little_and_never_nothing() {
        let weights = [0.0, 25.0, 99.0, 100.0].map(|used| {
            let connections = Part::of(used, 100.0);
            Parts { cpu: None, connections, ..quiet() }.weight()
        });
        assert_eq!(weights, [100, 75, 1, 1]);
    }
}
