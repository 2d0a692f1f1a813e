//! Sharing things out.

use std::ops::Range;

/// The things of the part `index` of `parts`: neighbours, and of none more than one above any other.
pub(super) fn share(things: usize, parts: usize, index: usize) -> Range<usize> {
    let (each, more) = (things / parts.max(1), things % parts.max(1));
    let start = index * each + index.min(more);
    start..start + each + usize::from(index < more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_given_out_once_and_evenly() {
        for (things, parts) in [(0, 3), (1, 3), (10, 3), (40_800, 7), (5, 5), (3, 4)] {
            let shares: Vec<_> = (0..parts).map(|index| share(things, parts, index)).collect();
            assert!(shares.iter().cloned().flatten().eq(0..things), "{shares:?}");
            let sizes = shares.iter().map(ExactSizeIterator::len);
            assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1, "{shares:?}");
        }
    }
}
