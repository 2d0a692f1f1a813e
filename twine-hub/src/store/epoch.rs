//! Names for epochs: greater than every one before, and never the same twice.

use twine_protocol::Epoch;

use crate::clock;

/// Digits of the part that orders epochs: milliseconds since 1970 last beyond the year 10,000.
const ORDER_DIGITS: usize = 12;

/// Makes an epoch that compares greater than `last`, also where the clock was set back since.
///
/// The random end tells two histories apart that began at the same moment: a database and the
/// copy of it that was restored elsewhere.
pub(crate) fn mint(last: Option<&Epoch>) -> Epoch {
    let floor = last.and_then(order).map_or(0, |order| order + 1);
    let order = now().max(floor);
    let random = fastrand::u32(..);
    // Hexadecimal digits and a dash, 21 bytes: always an epoch.
    #[allow(clippy::expect_used)]
    Epoch::new(&format!("{order:0ORDER_DIGITS$x}-{random:08x}")).expect("short and plain")
}

/// The milliseconds that `epoch` starts with.
fn order(epoch: &Epoch) -> Option<u64> {
    u64::from_str_radix(epoch.as_str().get(..ORDER_DIGITS)?, 16).ok()
}

/// Milliseconds since 1970-01-01 UTC.
pub(crate) fn now() -> u64 {
    clock::unix_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_epoch_is_greater_even_when_the_clock_was_set_back() {
        let first = mint(None);
        clock::manual::set(Some(clock::manual::Set { now: clock::now(), unix_millis: 0 }));
        assert!(mint(Some(&first)) > first);
        clock::manual::set(None);
        let of_tomorrow = Epoch::new("0fffffffffff-00000000").unwrap();
        let next = mint(Some(&of_tomorrow));
        assert!(next > of_tomorrow, "{next}");
        assert!(next.as_str().starts_with("100000000000-"));
    }
}
