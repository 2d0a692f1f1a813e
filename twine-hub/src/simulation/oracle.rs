//! What one room's listener in one page may see: each message once, in order, and no loss that was
//! not announced.
//!
//! A position is judged by the log of the hub that the connection was opened to, as it is or as it
//! was when that hub died.

use twine_protocol::{Gap, GapReason, Position, RoomName};

use super::log::{Log, Serial};

/// Where a page's first subscription of a room has to start.
#[derive(Debug, Clone, Default)]
pub(super) struct Promise {
    /// Not before this: that was delivered, and said to be.
    pub(super) from: Option<Position>,
    /// Not after the last of these, which was seen.
    pub(super) seen: Vec<Position>,
}

/// What bounds a recovery.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) max_messages: u64,
    /// Messages from before this are too old.
    pub(super) oldest: u64,
}

/// One room of one page.
#[derive(Debug, Default)]
pub(super) struct Listener {
    pub(super) promise: Promise,
    /// Up to here everything was delivered, or announced as lost; `None` until it is in force.
    pub(super) at: Option<Position>,
    /// Whether it asks for messages again.
    pub(super) asks_history: bool,
    /// So many messages the room had when such a one started: up to there it may be before its session.
    pub(super) before_session: Option<u64>,
}

impl Listener {
    /// The subscription is in force from `position` on.
    pub(super) fn starts(&mut self, log: &Log, room: &RoomName, position: &Position) {
        match &self.at {
            None => {
                self.promise.is_kept(log, room, position);
                let rank = log.rank(room, position);
                assert!(rank.is_some(), "{room} starts at {position}, which is no place of its log");
                self.at = Some(position.clone());
            }
            // After a loss, or asked for again.
            Some(at) => assert_eq!(
                log.rank(room, at),
                log.rank(room, position),
                "{room} is said to start at {position} and is at {at}"
            ),
        }
    }

    pub(super) fn sees(&mut self, log: &Log, room: &RoomName, position: &Position, serial: Serial) {
        let at = self.at.as_ref().expect("a message came before the subscription was in force");
        let entry = log.entry(room, position);
        let entry = entry.unwrap_or_else(|| panic!("{room} has no message at {position}, yet {serial} came"));
        assert_eq!(entry.serial, serial, "the message of {room} at {position}");
        let Some(rank) = log.rank(room, at) else {
            panic!("{room} goes on at {position}, after {at}, which is lost, without a word");
        };
        let next = log.rank(room, position);
        assert_eq!(next, Some(rank + 1), "{room} goes on at {position} after {at}: no more than one further");
        self.at = Some(position.clone());
    }

    /// A loss is announced, which must be one.
    pub(super) fn loses(&mut self, log: &Log, room: &RoomName, gap: &Gap, bounds: Bounds) {
        let Gap { from, to, count, reason, .. } = gap;
        match &self.at {
            Some(at) => assert_eq!(at, from, "a loss of {room} from elsewhere"),
            None => self.promise.is_kept_by_loss(log, room, from),
        }
        let known = log.rank(room, from);
        let end = log.rank(room, to).unwrap_or_else(|| panic!("{to} is no place of {room}"));
        let start = known.unwrap_or_else(|| log.count_to_epoch(room, &from.epoch));
        let too_many = log.head(room).saturating_sub(start) > bounds.max_messages;
        for entry in log.between(room, start, end) {
            let is_lost = !entry.is_kept || too_many || entry.time < bounds.oldest;
            assert!(is_lost, "message {} of {room} was announced as lost: {gap:?}", entry.serial);
        }
        match reason {
            GapReason::Unknown => assert!(known.is_none(), "{from} of {room} is known: {gap:?}"),
            GapReason::Expired | GapReason::Limit => {
                let start = known.unwrap_or_else(|| panic!("{from} of {room} is not known: {gap:?}"));
                assert_eq!(*count, Some(end - start), "messages lost of {room}: {gap:?}");
            }
            other => panic!("{other:?} is no reason"),
        }
        self.at = Some(to.clone());
    }

    /// The page's cursor is at `cursor`: perhaps in a later epoch, with nothing in between.
    pub(super) fn crosses(&mut self, log: &Log, room: &RoomName, cursor: &Position) {
        if let Some(at) = &mut self.at
            && at != cursor
            && log.rank(room, at).is_some_and(|rank| log.rank(room, cursor) == Some(rank))
        {
            *at = cursor.clone();
        }
    }

    /// All is quiet: nothing is left to come.
    pub(super) fn is_current(&self, log: &Log, room: &RoomName) -> bool {
        self.at.as_ref().is_some_and(|at| log.rank(room, at) == Some(log.head(room)))
    }
}

impl Promise {
    fn is_kept(&self, log: &Log, room: &RoomName, start: &Position) {
        let rank = log.rank(room, start);
        if let Some(from) = &self.from {
            let known = log.rank(room, from);
            assert!(known.is_some(), "{room} starts at {start}: {from} is lost, without a word");
            assert!(known <= rank, "{room} starts at {start}, and was through with {from}: a repeat");
        }
        self.is_not_after_seen(log, room, start);
    }

    /// The same where a loss `from` somewhere is announced at the start.
    fn is_kept_by_loss(&self, log: &Log, room: &RoomName, from: &Position) {
        self.is_not_after_seen(log, room, from);
    }

    fn is_not_after_seen(&self, log: &Log, room: &RoomName, start: &Position) {
        let seen: Option<Vec<u64>> = self.seen.iter().map(|seen| log.rank(room, seen)).collect();
        if let Some(last) = seen.and_then(|seen| seen.into_iter().max())
            && let Some(rank) = log.rank(room, start)
        {
            assert!(rank <= last, "{room} starts at {start}, and only {last} messages were seen: lost");
        }
    }
}
