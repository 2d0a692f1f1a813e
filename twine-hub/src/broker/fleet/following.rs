//! How a hub keeps up with a room that others publish to as well, without a socket.
//!
//! What comes over the bus may come twice, late, or not at all. A room's log is dense, so each piece
//! says where it belongs: what continues the head is delivered, what the hub has already is left
//! aside, and what would leave a hole waits until the hole is filled from the log. A message that the
//! bus lost is thus delivered late, and never lost. What the log has no more, for it became too old
//! meanwhile, is skipped: whoever is behind it reads on from the store, and is told there.

use std::collections::BTreeMap;

use twine_protocol::{Epoch, Offset, Position};

use crate::store::Record;

/// Bytes of messages that wait for a hole to be filled. What is beyond that is read from the log
/// again, like the hole.
const MAX_HELD: usize = 1 << 20;

/// A room that this hub follows: the place that it has come to, and what it has heard of beyond.
#[derive(Debug)]
pub(super) struct Following {
    head: Position,
    /// The furthest place of the head's epoch that was heard of.
    heard: Offset,
    /// Pieces that come after a hole, by the offset of their first message.
    held: BTreeMap<Offset, Vec<Record>>,
    held_bytes: usize,
    /// The hole that is being read: after this offset, up to and with the other.
    filling: Option<(Offset, Offset)>,
}

/// What is to be done about the room.
#[derive(Debug, Default)]
pub(super) struct Steps {
    /// Go on after this offset, to which nobody delivers anything any more.
    pub(super) skip: Option<Offset>,
    /// Then, these continue the log: deliver them.
    pub(super) deliver: Vec<Record>,
    /// Read what comes after this offset of the head's epoch, up to and with the other, and tell by
    /// [`Following::filled`].
    pub(super) fill: Option<(Offset, Offset)>,
    /// The room goes on in a later epoch: find out which, and where this one ended.
    pub(super) is_rotated: bool,
}

impl Following {
    /// A room whose log was shown up to `head`.
    pub(super) fn new(head: Position) -> Self {
        Self { heard: head.offset, head, held: BTreeMap::new(), held_bytes: 0, filling: None }
    }

    /// What was delivered up to.
    pub(super) fn head(&self) -> &Position {
        &self.head
    }

    /// Takes a piece of the log as the bus brought it: messages without a hole between them.
    pub(super) fn piece(&mut self, epoch: &Epoch, records: Vec<Record>) -> Steps {
        if *epoch != self.head.epoch {
            return self.other_epoch(epoch);
        }
        if let (Some(first), Some(last)) = (records.first(), records.last()) {
            self.heard = self.heard.max(last.offset);
            self.hold(first.offset, records);
        }
        self.go_on()
    }

    /// Takes what the log's end is said to be.
    pub(super) fn looked(&mut self, epoch: &Epoch, done: Offset) -> Steps {
        if *epoch != self.head.epoch {
            return self.other_epoch(epoch);
        }
        self.heard = self.heard.max(done);
        self.go_on()
    }

    /// Takes what the log has of a hole, from its beginning on; what lies before that the log has no more.
    pub(super) fn filled(&mut self, epoch: &Epoch, records: Vec<Record>) -> Steps {
        if *epoch != self.head.epoch {
            // It was asked for before the room went on in another epoch.
            return Steps::default();
        }
        let Some((_, until)) = self.filling.take() else { return Steps::default() };
        // What was heard of is durable, and the log has all that is, until it is too old.
        let gone = records.first().map_or(until, |first| one_less(first.offset).min(until));
        let gone = self.held.keys().next().map_or(gone, |held| one_less(*held).min(gone));
        let skip = (gone > self.head.offset).then_some(gone);
        self.head.offset = skip.unwrap_or(self.head.offset);
        if let Some(first) = records.first().map(|record| record.offset) {
            self.hold(first, records);
        }
        Steps { skip, ..self.go_on() }
    }

    /// A hole could not be read. It is asked for again at the next occasion.
    pub(super) fn unfilled(&mut self, epoch: &Epoch) {
        if *epoch == self.head.epoch {
            self.filling = None;
        }
    }

    /// The room goes on at the start of a later epoch.
    pub(super) fn cross(&mut self, epoch: Epoch) {
        *self = Self::new(Position { epoch, offset: Offset::ZERO });
    }

    fn other_epoch(&self, epoch: &Epoch) -> Steps {
        Steps { is_rotated: *epoch > self.head.epoch, ..Steps::default() }
    }

    fn hold(&mut self, first: Offset, records: Vec<Record>) {
        let is_next = first <= self.head.offset.next();
        let bytes: usize = records.iter().map(Record::size).sum();
        // What is delivered at once takes no room.
        if !is_next && self.held_bytes + bytes > MAX_HELD {
            return;
        }
        self.held_bytes += bytes;
        if let Some(other) = self.held.insert(first, records) {
            let other_bytes: usize = other.iter().map(Record::size).sum();
            // Of two pieces that begin alike the longer one counts.
            if self.held.get(&first).is_some_and(|kept| kept.len() < other.len()) {
                self.held_bytes -= bytes;
                self.held.insert(first, other);
            } else {
                self.held_bytes -= other_bytes;
            }
        }
    }

    /// Delivers what continues the head, and asks for what is missing.
    fn go_on(&mut self) -> Steps {
        let mut deliver = Vec::new();
        while let Some(entry) = self.held.first_entry()
            && *entry.key() <= self.head.offset.next()
        {
            let records = entry.remove();
            self.held_bytes -= records.iter().map(Record::size).sum::<usize>();
            let had = self.head.offset;
            for record in records.into_iter().skip_while(|record| record.offset <= had) {
                self.head.offset = record.offset;
                deliver.push(record);
            }
        }
        let fill = (self.head.offset < self.heard && self.filling.is_none()).then(|| {
            let held = self.held.keys().next().map(|first| one_less(*first));
            *self.filling.insert((self.head.offset, held.unwrap_or(self.heard)))
        });
        Steps { skip: None, deliver, fill, is_rotated: false }
    }
}

fn one_less(offset: Offset) -> Offset {
    // An offset less one is an offset.
    Offset::new(offset.get().saturating_sub(1)).unwrap_or(Offset::ZERO)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    fn at(offset: u64) -> Offset {
        Offset::new(offset).unwrap()
    }

    fn epoch(name: &str) -> Epoch {
        Epoch::new(name).unwrap()
    }

    fn records(offsets: std::ops::RangeInclusive<u64>) -> Vec<Record> {
        let record = |n: u64| Record {
            offset: at(n),
            time: n,
            id: None,
            sender: None,
            data: RawValue::from_string(n.to_string()).unwrap(),
        };
        offsets.map(record).collect()
    }

    fn offsets(records: &[Record]) -> Vec<u64> {
        records.iter().map(|record| record.offset.get()).collect()
    }

    fn following(offset: u64) -> Following {
        Following::new(Position { epoch: epoch("a"), offset: at(offset) })
    }

    #[test]
    fn what_continues_the_head_is_delivered_and_what_it_has_is_left_aside() {
        let mut room = following(3);
        let steps = room.piece(&epoch("a"), records(4..=5));
        assert_eq!((offsets(&steps.deliver), steps.fill), (vec![4, 5], None));
        let steps = room.piece(&epoch("a"), records(2..=6));
        assert_eq!((offsets(&steps.deliver), steps.fill), (vec![6], None));
        let steps = room.piece(&epoch("a"), records(1..=3));
        assert_eq!((offsets(&steps.deliver), steps.fill), (vec![], None));
    }

    #[test]
    fn a_hole_is_asked_for_once_and_what_came_after_it_waits() {
        let mut room = following(3);
        let steps = room.piece(&epoch("a"), records(7..=8));
        assert_eq!((offsets(&steps.deliver), steps.fill), (vec![], Some((at(3), at(6)))));
        let steps = room.piece(&epoch("a"), records(9..=9));
        assert_eq!((offsets(&steps.deliver), steps.fill), (vec![], None));
        let steps = room.filled(&epoch("a"), records(4..=5));
        assert_eq!((offsets(&steps.deliver), steps.fill), (vec![4, 5], Some((at(5), at(6)))));
        let steps = room.filled(&epoch("a"), records(6..=6));
        assert_eq!((offsets(&steps.deliver), steps.fill), (vec![6, 7, 8, 9], None));
    }

    #[test]
    fn what_could_not_be_read_is_asked_for_again_when_there_is_news() {
        let mut room = following(0);
        assert_eq!(room.looked(&epoch("a"), at(2)).fill, Some((at(0), at(2))));
        room.unfilled(&epoch("a"));
        assert_eq!(room.looked(&epoch("a"), at(2)).fill, Some((at(0), at(2))));
        // Of an epoch that the room has left.
        room.unfilled(&epoch("A"));
        assert_eq!(room.looked(&epoch("a"), at(2)).fill, None);
    }

    #[test]
    fn what_the_log_has_no_more_is_skipped() {
        let mut room = following(3);
        assert_eq!(room.looked(&epoch("a"), at(9)).fill, Some((at(3), at(9))));
        let steps = room.filled(&epoch("a"), records(6..=7));
        assert_eq!((steps.skip, offsets(&steps.deliver)), (Some(at(5)), vec![6, 7]));
        assert_eq!(steps.fill, Some((at(7), at(9))));
        let steps = room.filled(&epoch("a"), Vec::new());
        assert_eq!((steps.skip, offsets(&steps.deliver), steps.fill), (Some(at(9)), vec![], None));
        // What the bus brought meanwhile is there all the same.
        assert_eq!(room.looked(&epoch("a"), at(14)).fill, Some((at(9), at(14))));
        let steps = room.piece(&epoch("a"), records(12..=13));
        assert_eq!((steps.skip, steps.fill), (None, None));
        let steps = room.filled(&epoch("a"), Vec::new());
        assert_eq!((steps.skip, offsets(&steps.deliver)), (Some(at(11)), vec![12, 13]));
        assert_eq!(steps.fill, Some((at(13), at(14))));
        let steps = room.filled(&epoch("a"), records(14..=14));
        assert_eq!((steps.skip, offsets(&steps.deliver), steps.fill), (None, vec![14], None));
    }

    #[test]
    fn a_later_epoch_is_told_of_and_an_earlier_one_is_not() {
        let mut room = following(3);
        assert!(room.piece(&epoch("b"), records(1..=1)).is_rotated);
        assert!(room.looked(&epoch("b"), at(1)).is_rotated);
        assert!(!room.piece(&epoch("A"), records(4..=4)).is_rotated);
        room.cross(epoch("b"));
        assert_eq!(offsets(&room.piece(&epoch("b"), records(1..=1)).deliver), [1]);
        // Asked for before it crossed.
        assert!(room.filled(&epoch("a"), records(4..=6)).deliver.is_empty());
    }

    /// What a bus does with a piece, and what else happens.
    #[derive(Debug, Clone)]
    enum Event {
        /// It brings a piece of the log.
        Piece(u64, u64),
        /// Somebody looks at the log's end.
        Look(u64),
        /// The hole that was asked for is read, to some length.
        Fill(usize),
        /// It can't be read.
        Fail,
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            (1u64..60, 1u64..12).prop_map(|(first, n)| Event::Piece(first, n)),
            (0u64..60).prop_map(Event::Look),
            (1usize..20).prop_map(Event::Fill),
            Just(Event::Fail),
        ];
        prop::collection::vec(event, 0..80)
    }

    proptest! {
        /// However the pieces come, each message is delivered once and in order; and once the bus is
        /// quiet, a look and what is asked for bring the rest. What the log has no more is skipped, and
        /// nothing else is.
        #[test]
        fn each_message_is_delivered_once_and_in_order(
            events in events(),
            gone in prop::collection::btree_set(1u64..=72, 0..20),
        ) {
            let mut room = following(0);
            let log = |after: Offset, last: u64| {
                let kept = (after.get() + 1..=last).skip_while(|n| gone.contains(n));
                let run: Vec<u64> = kept.take_while(|n| !gone.contains(n)).collect();
                run.into_iter().flat_map(|n| records(n..=n)).collect::<Vec<_>>()
            };
            let (mut delivered, mut asked) = (Vec::new(), None::<(Offset, Offset)>);
            let take = |steps: Steps, delivered: &mut Vec<u64>, asked: &mut Option<(Offset, Offset)>| {
                if let Some(to) = steps.skip {
                    let from = delivered.last().copied().unwrap_or_default() + 1;
                    assert!((from..=to.get()).all(|n| gone.contains(&n)), "{from} to {to} of {gone:?}");
                    delivered.extend(from..=to.get());
                }
                delivered.extend(offsets(&steps.deliver));
                if let Some(fill) = steps.fill {
                    assert!(asked.replace(fill).is_none(), "one at a time");
                }
            };
            for event in events {
                let steps = match event {
                    Event::Piece(first, n) => room.piece(&epoch("a"), records(first..=first + n)),
                    Event::Look(done) => room.looked(&epoch("a"), at(done)),
                    Event::Fill(n) => {
                        let Some((after, until)) = asked.take() else { continue };
                        let found = log(after, until.get());
                        room.filled(&epoch("a"), found.into_iter().take(n).collect())
                    }
                    Event::Fail => {
                        asked = None;
                        room.unfilled(&epoch("a"));
                        continue;
                    }
                };
                take(steps, &mut delivered, &mut asked);
            }
            take(room.looked(&epoch("a"), at(72)), &mut delivered, &mut asked);
            while let Some((after, until)) = asked.take() {
                let steps = room.filled(&epoch("a"), log(after, until.get()));
                take(steps, &mut delivered, &mut asked);
            }
            prop_assert_eq!(delivered, (1..=72).collect::<Vec<_>>());
        }
    }
}
