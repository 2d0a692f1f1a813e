//! What one subscriber has seen of a room's messages, which are numbered 1, 2, 3.

/// Holes that are remembered. What is in an older one counts as lost for good.
const HOLES_MAX: usize = 1_000;

/// The numbers so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Sequence {
    /// The greatest number.
    last: u32,
    /// Numbers below it that have not come, as ranges, both ends included; nearly always none.
    holes: Vec<(u32, u32)>,
}

/// How a number fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// The one that was due.
    Next,
    /// So many are missing before it.
    After(u32),
    /// It was missing, and comes after a later one.
    Late,
    /// It was there already.
    Repeated,
}

impl Sequence {
    pub(super) fn see(&mut self, n: u32) -> Seen {
        if n > self.last {
            let missing = n - self.last - 1;
            if missing > 0 {
                if self.holes.len() == HOLES_MAX {
                    self.holes.remove(0);
                }
                self.holes.push((self.last + 1, n - 1));
            }
            self.last = n;
            return if missing == 0 { Seen::Next } else { Seen::After(missing) };
        }
        match self.holes.iter().position(|&(from, to)| (from..=to).contains(&n)) {
            Some(place) => {
                let (from, to) = self.holes.remove(place);
                let rest = [(from, n - 1), (n + 1, to)];
                let rest = rest.into_iter().filter(|(from, to)| from <= to);
                self.holes.splice(place..place, rest);
                Seen::Late
            }
            None => Seen::Repeated,
        }
    }

    /// How many are still to come after the greatest number so far, where `end` is the last.
    pub(super) fn left_until(&self, end: u32) -> u32 {
        end.saturating_sub(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(numbers: &[u32]) -> (Vec<Seen>, Sequence) {
        let mut sequence = Sequence::default();
        (numbers.iter().map(|&n| sequence.see(n)).collect(), sequence)
    }

    #[test]
    fn what_comes_in_order_is_next() {
        let (all, sequence) = seen(&[1, 2, 3]);
        assert_eq!(all, [Seen::Next; 3]);
        assert_eq!((sequence.left_until(3), sequence.left_until(5), sequence.left_until(2)), (0, 2, 0));
    }

    #[test]
    fn what_is_missing_may_still_come() {
        let (all, sequence) = seen(&[2, 6, 4, 1, 3, 5]);
        let after = [Seen::After(1), Seen::After(3)];
        assert_eq!(all, [after[0], after[1], Seen::Late, Seen::Late, Seen::Late, Seen::Late]);
        assert!(sequence.holes.is_empty());
    }

    #[test]
    fn what_was_there_is_repeated() {
        use Seen::{After, Late, Next, Repeated};
        let (all, _) = seen(&[1, 1, 3, 2, 2, 3, 0]);
        assert_eq!(all, [Next, Repeated, After(1), Late, Repeated, Repeated, Repeated]);
    }

    #[test]
    fn holes_without_end_take_no_memory_without_end() {
        let (_, mut sequence) = seen(&(1..3_000).map(|n| n * 2).collect::<Vec<_>>());
        assert_eq!(sequence.holes.len(), HOLES_MAX);
        assert_eq!((sequence.see(1), sequence.see(5_997)), (Seen::Repeated, Seen::Late));
    }

    #[test]
    fn the_greatest_number_there_is_does_no_harm() {
        let (all, sequence) = seen(&[u32::MAX, u32::MAX - 1, 1]);
        assert_eq!(all, [Seen::After(u32::MAX - 1), Seen::Late, Seen::Late]);
        assert_eq!(sequence.left_until(9), 0);
    }
}
