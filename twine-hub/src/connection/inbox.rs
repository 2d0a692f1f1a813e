//! What other threads tell a shard.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use twine_protocol::Position;

use super::guest::Visit;
use super::knock::Knock;
use super::state::Key;
use super::{Handover, Place};
use crate::rooms::{Room, Steps, Watch, locked};
use crate::session::{Attached, Holder, Lost, Ticket};
use crate::store::StoreError;
use crate::wakes;

/// News for a shard.
pub(super) enum Event {
    /// A new connection.
    Adopt(Place, Handover),
    /// A new guest.
    Visit(Visit),
    /// A guest has an answer.
    Rings(Key),
    /// The room in this slot has moved its head.
    Moved(u32),
    /// The room for this slot is in memory and watched, its head at that moment; or it can't be.
    Opened { room: u32, result: Result<(Arc<Room>, Position), Arc<StoreError>> },
    /// What a subscription asked the store for.
    Steps { connection: Key, room: u32, ticket: NonZeroU64, result: Result<Steps, Arc<StoreError>> },
    /// A room has now what was committed when a subscription showed a later position than it had.
    Refreshed { connection: Key, room: u32, ticket: NonZeroU64, result: Result<(), Arc<StoreError>> },
    /// The session of a connection that said `connect`; none can be had where there is no result.
    Attached { connection: Key, result: Option<Attached> },
    /// A connection's session is no longer its own.
    Lose { connection: Key, ticket: Ticket, why: Lost },
    /// Somebody wants to know whether this connection is still there.
    Probe { connection: Key, ticket: Ticket },
    /// A connection's session is to be saved, changed or not.
    Refresh { connection: Key, ticket: Ticket },
    /// Somebody wants to know how late the shard is.
    Knock(Arc<Knock>),
    /// Close all connections, one after the other over `window` and by force at `until`, and end.
    Drain { window: Duration, until: Instant },
}

/// A shard's mailbox. What can send to it bounds it: a room in memory has told at most once that it
/// moved ([`crate::rooms::Watcher`]), a connection has one read, a few rooms and one session under way, a
/// guest rings once an answer, and there is one knock at a time.
pub(super) struct Inbox {
    /// `None` once the shard has ended.
    events: Mutex<Option<Vec<Event>>>,
    /// Whether the shard waits in its poll and needs to be woken.
    asleep: AtomicBool,
    waker: Waker,
}

impl Inbox {
    /// For the shard whose poll `waker` ends.
    pub(super) fn new(waker: mio::Waker) -> Self {
        let waker = Arc::new(PollWaker(waker)).into();
        Self { events: Mutex::new(Some(Vec::new())), asleep: AtomicBool::new(false), waker }
    }

    pub(super) fn push(&self, event: Event) {
        match &mut *locked(&self.events) {
            Some(events) => events.push(event),
            // A connection that comes too late is closed by being dropped.
            None => return,
        }
        // The shard sets `asleep` before it looks into the mailbox for the last time: either it
        // sees this event there, or this sees `asleep`. A wake costs a system call; a busy shard
        // needs none.
        if self.asleep.swap(false, Ordering::SeqCst) {
            wakes::wake(self.waker.clone());
        }
    }

    /// All events so far; `into` comes back as the empty mailbox's memory.
    pub(super) fn take(&self, into: &mut Vec<Event>) {
        if let Some(events) = &mut *locked(&self.events) {
            std::mem::swap(events, into);
        }
    }

    /// Says that the shard is about to wait; true if it may, false if there is news.
    pub(super) fn fall_asleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        let is_quiet = self.is_quiet();
        if !is_quiet {
            self.asleep.store(false, Ordering::SeqCst);
        }
        is_quiet
    }

    /// Whether there is no news.
    pub(super) fn is_quiet(&self) -> bool {
        locked(&self.events).as_ref().is_none_or(Vec::is_empty)
    }

    /// Takes no more: the shard has ended.
    pub(super) fn close(&self) {
        // Not under the lock: what becomes of them may be more news.
        let left = locked(&self.events).take();
        drop(left);
    }

    /// Says that the shard looks into its mailbox again.
    pub(super) fn wake_up(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }
}

/// Ends the wait of a shard's poll.
struct PollWaker(mio::Waker);

impl Wake for PollWaker {
    fn wake(self: Arc<Self>) {
        if let Err(error) = self.0.wake() {
            tracing::error!(%error, "a shard could not be woken");
        }
    }
}

impl Holder for Inbox {
    fn lose(&self, connection: Key, ticket: Ticket, why: Lost) {
        self.push(Event::Lose { connection, ticket, why });
    }

    fn probe(&self, connection: Key, ticket: Ticket) {
        self.push(Event::Probe { connection, ticket });
    }

    fn refresh(&self, connection: Key, ticket: Ticket) {
        self.push(Event::Refresh { connection, ticket });
    }
}

impl Watch for Inbox {
    fn moved(&self, room: u32) {
        self.push(Event::Moved(room));
    }
}
