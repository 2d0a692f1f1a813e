//! What the table is asked to do, in the units that AWS bills.

use std::sync::atomic::AtomicU64;

use aws_sdk_dynamodb::types::ConsumedCapacity;
use prometheus_client::metrics::counter::Counter;

/// Units that this hub has used. What was refused is not counted, though some of that is billed too.
#[derive(Debug, Clone, Default)]
pub(crate) struct Usage {
    /// Read units: one for each 4 KB that is read consistently.
    pub(crate) read_units: Counter<f64, AtomicU64>,
    /// Write units: one for each KB of an item.
    pub(crate) write_units: Counter<f64, AtomicU64>,
}

impl Usage {
    pub(super) fn read(&self, capacity: Option<&ConsumedCapacity>) {
        self.read_units.inc_by(units(capacity));
    }

    pub(super) fn wrote(&self, capacity: Option<&ConsumedCapacity>) {
        self.write_units.inc_by(units(capacity));
    }
}

fn units(capacity: Option<&ConsumedCapacity>) -> f64 {
    capacity.and_then(ConsumedCapacity::capacity_units).unwrap_or_default()
}
