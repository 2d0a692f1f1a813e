//! A set of offsets that lie together mostly: as ranges, in memory and in the table.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use twine_protocol::Offset;

use crate::store::packed::Unreadable;

/// Some offsets, as ranges in order that neither touch nor overlap. As text `3 5-9`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Offsets(Vec<RangeInclusive<u64>>);

impl Offsets {
    /// What lies after `after`, up to and with `last`, and is none of `present`, which are in order.
    pub(crate) fn missing(after: Offset, last: Offset, present: impl IntoIterator<Item = Offset>) -> Self {
        let mut ranges = Vec::new();
        let mut next = after.get() + 1;
        for offset in present.into_iter().map(Offset::get).filter(|offset| *offset > after.get()) {
            if offset > next {
                ranges.push(next..=offset - 1);
            }
            next = next.max(offset + 1);
        }
        if next <= last.get() {
            ranges.push(next..=last.get());
        }
        Self(ranges)
    }

    /// Whether `offset` is one of them.
    pub(crate) fn contains(&self, offset: Offset) -> bool {
        let index = self.0.partition_point(|range| *range.end() < offset.get());
        self.0.get(index).is_some_and(|range| range.contains(&offset.get()))
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Offsets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, range) in self.0.iter().enumerate() {
            let separator = if n == 0 { "" } else { " " };
            let (first, last) = (range.start(), range.end());
            if first == last {
                write!(f, "{separator}{first}")?;
            } else {
                write!(f, "{separator}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Offsets {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let mut ranges: Vec<RangeInclusive<u64>> = Vec::new();
        for part in text.split_ascii_whitespace() {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.parse().map_err(|_| Unreadable("an offset is no number"));
            let range: RangeInclusive<u64> = number(first)?..=number(last)?;
            let is_later = ranges.last().is_none_or(|before| before.end() < range.start());
            if range.is_empty() || !is_later {
                return Err(Unreadable("its offsets are in disorder"));
            }
            ranges.push(range);
        }
        Ok(Self(ranges))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn offset(n: u64) -> Offset {
        Offset::new(n).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_not_present_is_missing(
            after in 0u64..10,
            length in 0u64..40,
            present in prop::collection::btree_set(1u64..50, 0..40),
        ) {
            let last = after + length;
            let present: BTreeSet<_> = present.into_iter().filter(|n| *n <= last).collect();
            let missing = Offsets::missing(offset(after), offset(last), present.iter().copied().map(offset));
            for n in 0..60 {
                let expected = n > after && n <= last && !present.contains(&n);
                prop_assert_eq!(missing.contains(offset(n)), expected, "{} in {}", n, missing);
            }
            prop_assert_eq!(missing.to_string().parse::<Offsets>().unwrap(), missing);
        }
    }

    #[test]
    fn a_set_is_a_short_text() {
        let present = [2, 3, 7].map(offset);
        let missing = Offsets::missing(offset(0), offset(9), present);
        assert_eq!(missing.to_string(), "1 4-6 8-9");
        assert!("".parse::<Offsets>().unwrap().is_empty());
        for bad in ["x", "1-", "3-2", "2 1", "1-5 5"] {
            assert!(bad.parse::<Offsets>().is_err(), "{bad}");
        }
    }
}
