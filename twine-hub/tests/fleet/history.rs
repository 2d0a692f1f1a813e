//! What one reader was given of one room, and whether that was right.

use std::fmt;

use twine_protocol::{Epoch, Position};

use crate::ledger::{Number, Place};
use crate::scenario::Losses;

/// All that a reader was given, in the order in which it came.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) reader: &'static str,
    pub(crate) room: &'static str,
    /// The place before the first.
    start: Position,
    given: Vec<Given>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Given {
    Message(Position, Number),
    /// What is after the one and up to the other can't be had.
    Gap(Position, Position),
    /// It subscribed again, and was told that it goes on from here, with nothing lost.
    Again(Position),
}

/// Why a history is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// The message that was given at a place of the history, and the one that was due.
    Given(usize, Option<Place>, Option<Place>),
    /// A place was passed over, and nobody said so.
    Silent { after: Position, came: Position },
    /// A gap began elsewhere than where the reader was, or led back.
    Misplaced { at: Position, from: Position, to: Position },
    /// It was at the one place, and was told to go on from the other.
    Moved { at: Position, to: Position },
    /// So many losses were told where there may be none.
    Lost(usize),
}

impl History {
    pub(crate) fn new(reader: &'static str, room: &'static str, start: Position) -> Self {
        Self { reader, room, start, given: Vec::new() }
    }

    pub(crate) fn message(&mut self, position: Position, number: Number) {
        self.given.push(Given::Message(position, number));
    }

    pub(crate) fn gap(&mut self, from: Position, to: Position) {
        self.given.push(Given::Gap(from, to));
    }

    /// It subscribed again after its cursor, and goes on from here, with nothing lost: a loss comes as a gap.
    pub(crate) fn again(&mut self, next: Position) {
        self.given.push(Given::Again(next));
    }

    /// Where it goes on.
    pub(crate) fn cursor(&self) -> Position {
        let last = self.given.last().map(|given| match given {
            Given::Message(at, _) | Given::Gap(_, at) | Given::Again(at) => at,
        });
        last.unwrap_or(&self.start).clone()
    }

    /// It has every message of the room's log after its start, once and in order; so what it was told
    /// to be lost is nowhere. What it was not given within an epoch it was told to be lost, and that
    /// may be only where the scenario allows it.
    ///
    /// What an epoch ended with is not known here, so that the last places of one are not looked at.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(crate) fn check(&self, log: &[Place], losses: Losses) -> Result<(), Wrong> {
        let mut due = log[log.partition_point(|(position, _)| *position <= self.start)..].iter();
        let (mut at, mut n_gaps) = (self.start.clone(), 0);
        for (nth, given) in self.given.iter().enumerate() {
            match given {
                Given::Message(position, number) => {
                    let (came, due) = ((position.clone(), *number), due.next().cloned());
                    if Some(&came) != due.as_ref() {
                        return Err(Wrong::Given(nth, Some(came), due));
                    }
                    if position.offset.get() != next(&at, &position.epoch) {
                        return Err(Wrong::Silent { after: at, came: position.clone() });
                    }
                    at = position.clone();
                }
                Given::Gap(from, to) => {
                    // At the start of an epoch that nobody has mentioned yet it begins at nothing.
                    if *from < at || from.offset.get() + 1 != next(&at, &from.epoch) || from >= to {
                        let (from, to) = (from.clone(), to.clone());
                        return Err(Wrong::Misplaced { at, from, to });
                    }
                    n_gaps += 1;
                    at = to.clone();
                }
                Given::Again(next) if *next != at => return Err(Wrong::Moved { at, to: next.clone() }),
                Given::Again(_) => {}
            }
        }
        if let Some(missed) = due.next() {
            return Err(Wrong::Given(self.given.len(), None, Some(missed.clone())));
        }
        if n_gaps > 0 && losses == Losses::Never { Err(Wrong::Lost(n_gaps)) } else { Ok(()) }
    }
}

/// The offset that comes after a place, in an epoch.
fn next(at: &Position, epoch: &Epoch) -> u64 {
    if at.epoch == *epoch { at.offset.get() + 1 } else { 1 }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(nth, came, due) => write!(f, "the {nth}th event was {came:?}, and {due:?} was due"),
            Self::Silent { after, came } => write!(f, "{came} came after {after}, and nothing in between"),
            Self::Misplaced { at, from, to } => write!(f, "a gap from {from} to {to} was told at {at}"),
            Self::Moved { at, to } => write!(f, "it was at {at}, and was told to go on from {to}"),
            Self::Lost(n) => write!(f, "{n} losses were told"),
        }
    }
}

#[cfg(test)]
mod tests {
    use twine_protocol::Offset;

    use super::*;

    fn at(epoch: &str, offset: u64) -> Position {
        Position { epoch: Epoch::new(epoch).unwrap(), offset: Offset::new(offset).unwrap() }
    }

    /// Messages 1 to 3 at the first places of epoch 1, 5 and 6 at those of epoch 2.
    fn log() -> Vec<Place> {
        vec![(at("1", 1), 1), (at("1", 2), 2), (at("1", 3), 3), (at("2", 1), 5), (at("2", 2), 6)]
    }

    /// What is wrong with a reader that got these from the start on.
    fn wrong(given: &[Given], log: &[Place]) -> Option<Wrong> {
        let history = History { given: given.to_vec(), ..History::new("a", "red", at("1", 0)) };
        history.check(log, Losses::OfWhatWasNotAcknowledged).err()
    }

    fn all() -> Vec<Given> {
        log().into_iter().map(|(position, number)| Given::Message(position, number)).collect()
    }

    #[test]
    fn a_reader_that_got_all_once_and_in_order_is_right() {
        assert_eq!(wrong(&all(), &log()), None);
        // One that came later owes nothing of what was before.
        let history = History { given: all()[2..].to_vec(), ..History::new("a", "red", at("1", 2)) };
        assert_eq!(history.check(&log(), Losses::Never), Ok(()));
    }

    #[test]
    fn a_message_that_is_lost_is_found() {
        for missing in 0..all().len() {
            let mut given = all();
            given.remove(missing);
            assert!(matches!(wrong(&given, &log()), Some(Wrong::Given(nth, _, Some(_))) if nth == missing));
        }
    }

    #[test]
    fn a_message_that_is_repeated_or_comes_too_early_or_is_another_is_found() {
        for nth in 0..all().len() {
            let mut repeated = all();
            repeated.insert(nth, repeated[nth].clone());
            assert!(wrong(&repeated, &log()).is_some(), "{nth} is repeated");
            let mut changed = all();
            let Given::Message(_, number) = &mut changed[nth] else { unreachable!() };
            *number = 99;
            assert!(wrong(&changed, &log()).is_some(), "{nth} is another");
            let mut reordered = all();
            if nth > 0 {
                reordered.swap(nth - 1, nth);
                assert!(wrong(&reordered, &log()).is_some(), "{nth} comes too early");
            }
        }
    }

    #[test]
    fn a_message_that_is_nowhere_else_is_found() {
        let mut given = all();
        given.push(Given::Message(at("2", 3), 7));
        assert_eq!(wrong(&given, &log()), Some(Wrong::Given(5, Some((at("2", 3), 7)), None)));
    }

    #[test]
    fn a_place_that_nothing_has_is_to_be_announced() {
        let mut log = log();
        log.remove(1);
        let mut given = all();
        given.remove(1);
        let silent = Wrong::Silent { after: at("1", 1), came: at("1", 3) };
        assert_eq!(wrong(&given, &log), Some(silent));
        given.insert(1, Given::Gap(at("1", 1), at("1", 2)));
        assert_eq!(wrong(&given, &log), None);
        // So is one at the start of an epoch.
        log.remove(2);
        given.remove(3);
        assert_eq!(wrong(&given, &log), Some(Wrong::Silent { after: at("1", 3), came: at("2", 2) }));
        given.insert(3, Given::Gap(at("2", 0), at("2", 1)));
        assert_eq!(wrong(&given, &log), None);
        let history = History { given, ..History::new("a", "red", at("1", 0)) };
        assert_eq!(history.check(&log, Losses::Never), Err(Wrong::Lost(2)));
    }

    #[test]
    fn a_loss_of_what_is_stored_is_found_though_it_was_announced() {
        let mut given = all();
        given[1] = Given::Gap(at("1", 1), at("1", 2));
        assert!(matches!(wrong(&given, &log()), Some(Wrong::Given(2, ..))));
    }

    #[test]
    fn a_reader_that_goes_on_elsewhere_than_it_was_is_found() {
        let mut given = all();
        given.insert(1, Given::Again(at("1", 1)));
        assert_eq!(wrong(&given, &log()), None);
        given[1] = Given::Again(at("1", 0));
        assert_eq!(wrong(&given, &log()), Some(Wrong::Moved { at: at("1", 1), to: at("1", 0) }));
    }

    #[test]
    fn a_gap_that_begins_elsewhere_is_found() {
        for (from, to) in [(at("1", 0), at("1", 2)), (at("1", 2), at("1", 4)), (at("1", 1), at("1", 1))] {
            let mut given = all();
            given.insert(1, Given::Gap(from, to));
            assert!(matches!(wrong(&given, &log()), Some(Wrong::Misplaced { .. })));
        }
    }
}
