//! A room's log as its epochs' ends tell it: where a position is in it, and what comes before what.

use twine_protocol::{Epoch, Offset, Position, RoomName};

use super::{Reader, Segment, StoreError, page};

/// The parts of a room's log up to some position; at least one.
#[derive(Debug)]
pub(super) struct Log {
    segments: Vec<Segment>,
}

impl Log {
    /// The log up to `until`, a position of the present epoch.
    pub(super) fn load(
        reader: &mut dyn Reader,
        room: &RoomName,
        until: &Position,
    ) -> Result<Self, StoreError> {
        let mut segments = reader.segments(room)?;
        segments.push(Segment { epoch: until.epoch.clone(), last: until.offset });
        let mut log = Self { segments };
        log.end_at(until);
        Ok(log)
    }

    /// Leaves aside what comes after `end`, a place of this log.
    pub(super) fn end_at(&mut self, end: &Position) {
        self.segments.retain(|segment| segment.epoch < end.epoch);
        self.segments.push(Segment { epoch: end.epoch.clone(), last: end.offset });
    }

    /// The place before everything.
    pub(super) fn start(&self) -> Position {
        let first = self.segments.first().map(|segment| segment.epoch.clone());
        Position { epoch: first.unwrap_or_default(), offset: Offset::ZERO }
    }

    fn end(&self) -> Position {
        self.segments.last().map(end_of).unwrap_or_default()
    }

    /// The segments of this epoch and later.
    pub(super) fn from<'a>(&'a self, epoch: &Epoch) -> impl Iterator<Item = &'a Segment> + use<'a> {
        self.segments.iter().skip(self.index(epoch))
    }

    fn index(&self, epoch: &Epoch) -> usize {
        self.segments.partition_point(|segment| segment.epoch < *epoch)
    }

    /// Whether the log ever was at this position. An epoch in which the room had no message lies in
    /// the crossing to the next that had.
    pub(super) fn has(
        &self,
        reader: &mut dyn Reader,
        room: &RoomName,
        position: &Position,
    ) -> Result<bool, StoreError> {
        Ok(match self.from(&position.epoch).next() {
            Some(segment) if segment.epoch == position.epoch => position.offset <= segment.last,
            Some(_) => position.offset == Offset::ZERO && reader.knows_epoch(room, &position.epoch)?,
            None => false,
        })
    }

    /// Where the log goes on for who comes from a position of another one: in the first epoch after
    /// that position's, for what lies in later epochs it can't have seen.
    pub(super) fn later_than(&self, position: &Position) -> Position {
        let later = self.segments.iter().find(|segment| segment.epoch > position.epoch);
        later.map_or_else(
            || self.end(),
            |segment| Position { epoch: segment.epoch.clone(), offset: Offset::ZERO },
        )
    }

    /// The last place of the log before `position`, which need not be of this log.
    pub(super) fn earlier_than(&self, position: &Position) -> Position {
        let index = self.index(&position.epoch);
        match self.segments.get(index) {
            Some(segment) if segment.epoch == position.epoch && position.offset > Offset::ZERO => {
                let place = page::before(position.clone());
                place.min(end_of(segment))
            }
            _ => self.segments.iter().take(index).next_back().map_or_else(|| self.start(), end_of),
        }
    }

    /// How many messages there ever were in this log.
    pub(super) fn count(&self) -> u64 {
        self.count_to(&self.end())
    }

    /// How many of them come up to `place`.
    pub(super) fn count_to(&self, place: &Position) -> u64 {
        let counted = self.segments.iter().take_while(|segment| segment.epoch <= place.epoch);
        counted
            .map(|segment| if segment.epoch == place.epoch { place.offset } else { segment.last }.get())
            .sum()
    }

    /// The first place that `count` of them come up to.
    pub(super) fn place(&self, count: u64) -> Position {
        let mut left = count;
        for segment in &self.segments {
            if let Ok(offset) = Offset::new(left)
                && offset <= segment.last
            {
                return Position { epoch: segment.epoch.clone(), offset };
            }
            left = left.saturating_sub(segment.last.get());
        }
        self.end()
    }

    /// The last place at or after `from` with only messages older than `time` between the two.
    pub(super) fn since(
        &self,
        reader: &mut dyn Reader,
        room: &RoomName,
        from: Position,
        time: u64,
    ) -> Result<Position, StoreError> {
        let mut place = from;
        for segment in self.from(&place.epoch.clone()) {
            let mut low = if segment.epoch == place.epoch { place.offset } else { Offset::ZERO };
            let mut is_older = |after: Offset| {
                let next = reader.next_time(room, &segment.epoch, after)?;
                Ok::<_, StoreError>(next.map(|next| next < time))
            };
            match is_older(low)? {
                // None of it is kept, or there was none.
                None => continue,
                Some(false) => break,
                Some(true) => {}
            }
            // What is right after `low` is older, and after `high` nothing is: times never go back.
            let mut high = segment.last;
            while low.next() < high {
                let middle = Offset::new(u64::midpoint(low.get(), high.get())).unwrap_or(high);
                if is_older(middle)? == Some(true) { low = middle } else { high = middle }
            }
            place = Position { epoch: segment.epoch.clone(), offset: high };
            if high < segment.last {
                break;
            }
        }
        Ok(place)
    }
}

fn end_of(segment: &Segment) -> Position {
    Position { epoch: segment.epoch.clone(), offset: segment.last }
}
