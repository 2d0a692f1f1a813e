//! What the hub counts.
#![allow(missing_docs)]

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// Every metric of the hub; one for all its parts.
#[derive(Debug)]
pub(crate) struct Telemetry {
    /// Open WebSocket connections.
    pub(crate) connections: Gauge,
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
    /// Seconds from a publish's arrival to its frame's last write in a fan-out pass.
    pub(crate) publish_to_socket: Histogram,
}

/// The label of [`Telemetry::errors`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Code {
    pub(crate) code: &'static str,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            connections: Gauge::default(),
            rooms: Gauge::default(),
            subscriptions: Gauge::default(),
            published: Counter::default(),
            delivered: Counter::default(),
            errors: Family::default(),
            publish_to_socket: Histogram::new(exponential_buckets(0.000_05, 2.0, 18)),
        }
    }
}
