//! Saves: what connections give back of their sessions, and what of it is owed to the store.

use std::net::IpAddr;

use super::held::Fresh;
use super::{Command, Keeper, Now};
use crate::session::store::Session;
use crate::session::{Bound, Cursors, Lost, Save, Ticket};
use crate::store::StoreError;

/// How many of what is owed are found bad, until the others have to wait for the next round: where the
/// store fails at all of them, nobody should wait for that.
pub(super) const MAX_BAD: usize = 4;

impl Keeper {
    /// Saves what is owed, before anything else is done: whoever claims a session must find it. Where
    /// `max_bad` have failed, the others stay owed.
    ///
    /// # Errors
    /// Where no transaction can be had at all: then there is no use in trying anything else.
    pub(super) fn repay(&mut self, max_bad: usize, now: Now) -> Result<(), StoreError> {
        let all = std::mem::take(&mut self.owed);
        if all.is_empty() || self.transact(all.into_values(), now)? {
            return Ok(());
        }
        let mut turns: Vec<Ticket> = self.owed.keys().copied().collect();
        let first = turns.partition_point(|ticket| *ticket <= self.last_tried);
        turns.rotate_left(first);
        let mut n_bad = 0;
        for ticket in turns {
            let Some(command) = self.owed.remove(&ticket) else { continue };
            self.last_tried = ticket;
            n_bad += usize::from(!self.transact(std::iter::once(command), now)?);
            if n_bad == max_bad {
                break;
            }
        }
        Ok(())
    }

    /// Saves these in a transaction of their own, or owes them still. Says whether that went well.
    ///
    /// # Errors
    /// Where no transaction can be had.
    fn transact(&mut self, saves: impl Iterator<Item = Command>, now: Now) -> Result<bool, StoreError> {
        let mut saves = saves.fuse();
        if let Err(error) = self.store.begin() {
            saves.for_each(|save| self.owe(save));
            return Err(error);
        }
        let done = saves.try_for_each(|save| self.obey(save, now)).and_then(|()| self.store.commit());
        let Err(error) = done else {
            self.tell();
            return Ok(true);
        };
        self.failures.say(|unsaid| {
            tracing::error!(%error, unsaid, "a session can't be saved, which is tried again and again");
        });
        self.fail(error, saves, now);
        Ok(false)
    }

    /// Keeps a save for later, unless its attachment is over.
    pub(super) fn owe(&mut self, command: Command) {
        if let Command::Save(Save { session, ticket, .. }) | Command::Detach(Save { session, ticket, .. }) =
            &command
            && let ticket = *ticket
            && self.held.current(session, ticket).is_some()
        {
            self.owed.insert(ticket, command);
        }
    }

    /// What an attachment saves that has something owed already would fail again, and all others with
    /// it: that is owed from now on. Also where the attachment is over, for the round that ended it may
    /// still be undone; if it is not, the save has no effect.
    pub(super) fn obey_unless_owed(&mut self, command: Command, now: Now) -> Result<(), StoreError> {
        if let Command::Save(Save { ticket, .. }) | Command::Detach(Save { ticket, .. }) = &command
            && let Some(owed) = self.owed.get_mut(ticket)
        {
            *owed = command;
            return Ok(());
        }
        self.obey(command, now)
    }

    pub(super) fn save(&mut self, save: &Save, now: Now) -> Result<(), StoreError> {
        let Save { session: id, ticket, rooms } = save;
        let Some(attachment) = self.held.current(id, *ticket) else { return Ok(()) };
        match attachment.fresh.clone() {
            Some(_) if rooms.is_empty() => Ok(()),
            Some(fresh) => {
                // One that is refused stays fresh: it is tried again whenever its connection has
                // something to save, and at its end.
                if self.store_new(&fresh.session, rooms, fresh.newcomer, now)?.is_ok() {
                    self.held.set_stored(id);
                }
                Ok(())
            }
            None if rooms.is_empty() => {
                match self.store.take(id)? {
                    Some(session) => {
                        self.held.set_fresh(id, Box::new(Fresh { session, newcomer: None }));
                    }
                    // It could not be read.
                    None => drop(self.release(id, Some(Lost::Forgotten))),
                }
                Ok(())
            }
            None => self.store.save(id, rooms),
        }
    }

    pub(super) fn detach(&mut self, save: &Save, now: Now) -> Result<(), StoreError> {
        let Save { session: id, ticket, rooms } = save;
        if self.held.current(id, *ticket).is_none() {
            return Ok(());
        }
        let fresh = self.release(id, None);
        match fresh {
            Some(_) if rooms.is_empty() => Ok(()),
            Some(fresh) => {
                let session = Session { detached: Some(now.time), ..fresh.session };
                let stored = self.store_new(&session, rooms, fresh.newcomer, now)?;
                self.round.dropped.extend(stored.err());
                Ok(())
            }
            None if rooms.is_empty() => self.store.remove(id),
            None => {
                self.store.save(id, rooms)?;
                self.store.detach(id, now.time)
            }
        }
    }

    /// Puts a session into the store where the bounds allow it, and others out for that.
    fn store_new(
        &mut self,
        session: &Session,
        rooms: &Cursors,
        newcomer: Option<IpAddr>,
        now: Now,
    ) -> Result<Result<(), Bound>, StoreError> {
        if let Some(address) = newcomer {
            if !self.newcomers.admit(address, now.instant) {
                return Ok(Err(Bound::Address));
            }
            self.round.admitted.push(address);
        }
        let mut others = self.store.of_cookie(session.cookie)?;
        // Those detached longest first, then the oldest of those attached.
        others.sort_by_key(|other| (other.detached.is_none(), other.detached));
        let surplus = (others.len() + 1).saturating_sub(self.options.max_per_cookie);
        for other in others.into_iter().take(surplus) {
            self.release(&other.id, Some(Lost::Forgotten));
            self.store.remove(&other.id)?;
            self.round.dropped.push(Bound::Cookie);
        }
        if self.store.len() >= self.options.max_sessions {
            if !self.store.remove_longest_detached()? {
                return Ok(Err(Bound::Hub));
            }
            self.round.dropped.push(Bound::Hub);
        }
        self.store.insert(session, rooms)?;
        Ok(Ok(()))
    }
}
