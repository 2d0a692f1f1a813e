//! Sockets that a shard reads and writes for somebody else, beside those of its own clients: publishers'.
//!
//! A publish that a shard reads passes no other thread on its way to this shard's subscribers, unless its store waits
//! for a disk. The shard knows nothing of what is said. Whatever is out of the ordinary has it give the socket back.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Instant;

use mio::event::Source as _;
use mio::unix::SourceFd;
use mio::{Interest, Token};

use super::inbox::{Event, Inbox};
use super::shard::Shard;
use super::state::Key;
use crate::wakes;

/// The first of the guests' tokens.
pub(super) const GUESTS: usize = usize::MAX / 2;

/// Guests that are read in a turn: others wait for the next, so that what those have published is delivered first.
const MAX_SPEAKING: usize = 64;
/// Of these, so many together: a committer that waits for the disk is woken for what all of them publish, and what
/// anybody else has for it meanwhile waits no longer than that.
const TOGETHER: usize = 16;

/// What a guest keeps of the room for its answers.
const KEPT_OUTPUT: usize = 4 << 10;

/// What a guest's socket is for. It is called by the shard, and must not wait.
pub(crate) trait Guest: Send {
    /// Does what was `read` asks for, which may be nothing, goes on with what was asked before, and puts the answers that
    /// are there into its output; is woken for those that are not. False where it has to go back.
    fn turn(&mut self, read: &[u8], cx: &mut Context<'_>) -> bool;

    /// Answers that are not written yet.
    fn output(&mut self) -> &mut Vec<u8>;

    /// Whether it has said nothing for so long that it has to go back.
    fn is_late(&self, now: Instant) -> bool;

    /// Takes the socket back, with all that was read of it and not answered.
    fn leave(self: Box<Self>, socket: TcpStream);
}

/// A guest and its socket, which does not block. It goes back wherever this is dropped.
pub(super) struct Visit(Option<(Box<dyn Guest>, TcpStream)>);

impl Visit {
    pub(super) fn new(guest: Box<dyn Guest>, socket: TcpStream) -> Self {
        Self(Some((guest, socket)))
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some((guest, socket)) = self.0.take() {
            guest.leave(socket);
        }
    }
}

/// A guest of a shard.
pub(super) struct Hosted {
    visit: Visit,
    generation: u32,
    waker: Waker,
    /// Whether it is among those that are to be read.
    is_speaking: bool,
    /// Nothing comes after what there is to read.
    is_ending: bool,
}

/// Tells a guest's shard to go on with it.
struct Bell {
    inbox: Arc<Inbox>,
    key: Key,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.inbox.push(Event::Rings(self.key));
    }
}

impl Shard {
    /// Looks after a guest from now on.
    pub(super) fn welcome(&mut self, visit: Visit) {
        if self.draining.is_some() {
            return;
        }
        let inbox = self.inbox();
        let generation = self.new_generation();
        let entry = self.guests.vacant_entry();
        let slot = entry.key();
        let token = Token(GUESTS + slot);
        let Some((_, socket)) = &visit.0 else { return };
        // What has come already is told of too.
        if let Err(error) =
            SourceFd(&socket.as_raw_fd()).register(self.poll.registry(), token, Interest::READABLE)
        {
            tracing::warn!(%error, "a publisher could not be watched and is given back");
            return;
        }
        let key = Key { slot: u32::try_from(slot).unwrap_or(u32::MAX), generation };
        let waker = Arc::new(Bell { inbox, key }).into();
        entry.insert(Hosted { visit, generation, waker, is_speaking: false, is_ending: false });
        self.telemetry.publishers.inc();
    }

    /// The poll has told that there is something to read of a guest, perhaps its end.
    pub(super) fn note_guest(&mut self, slot: usize, is_ending: bool) {
        let Some(hosted) = self.guests.get_mut(slot) else { return };
        // It is told of once only.
        hosted.is_ending |= is_ending;
        if !std::mem::replace(&mut hosted.is_speaking, true) {
            let slot = u32::try_from(slot).unwrap_or(u32::MAX);
            self.speaking.push_back(Key { slot, generation: hosted.generation });
        }
    }

    /// Reads guests that have something to say, as many as a turn may.
    pub(super) fn guests_speak(&mut self) {
        for _ in 0..MAX_SPEAKING / TOGETHER {
            if self.speaking.is_empty() {
                break;
            }
            wakes::together(|| (0..TOGETHER).for_each(|_| self.next_guest_speaks()));
        }
    }

    fn next_guest_speaks(&mut self) {
        let Some(key) = self.speaking.pop_front() else { return };
        let slot = key.slot as usize;
        let hosted = self.guests.get_mut(slot).filter(|hosted| hosted.generation == key.generation);
        let Some(hosted) = hosted else { return };
        hosted.is_speaking = false;
        let is_ending = hosted.is_ending;
        self.guest_speaks(slot);
        if is_ending {
            self.see_off(slot);
        }
    }

    fn guest_speaks(&mut self, slot: usize) {
        let Some(Hosted { visit: Visit(Some((_, socket))), .. }) = self.guests.get_mut(slot) else { return };
        let read = loop {
            match socket.read(&mut self.buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        match read {
            // What fills the buffer is more than is served here.
            Ok(n) if n > 0 => {
                let has_all = n < self.buffer.len();
                let buffer = std::mem::take(&mut self.buffer);
                let stays = self.turn_of_guest(slot, buffer.get(..n).unwrap_or_default());
                self.buffer = buffer;
                if !(has_all && stays) {
                    self.see_off(slot);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => self.see_off(slot),
        }
    }

    /// A guest has an answer.
    pub(super) fn guest_rings(&mut self, key: Key) {
        let slot = key.slot as usize;
        let is_there = self.guests.get(slot).is_some_and(|hosted| hosted.generation == key.generation);
        if is_there && !self.turn_of_guest(slot, &[]) {
            self.see_off(slot);
        }
    }

    /// Has a guest go on, and writes what it answers; says whether it may stay.
    fn turn_of_guest(&mut self, slot: usize, read: &[u8]) -> bool {
        let Some(Hosted { visit: Visit(Some((guest, socket))), waker, .. }) = self.guests.get_mut(slot)
        else {
            return true;
        };
        let stays = guest.turn(read, &mut Context::from_waker(waker));
        let output = guest.output();
        if output.is_empty() {
            return stays;
        }
        // A socket that does not take all at once is none for here.
        let written = socket.write(output).unwrap_or_default();
        output.drain(..written);
        output.shrink_to(KEPT_OUTPUT);
        stays && output.is_empty()
    }

    /// Gives a guest back.
    fn see_off(&mut self, slot: usize) {
        let Some(Hosted { visit, .. }) = self.guests.try_remove(slot) else { return };
        self.telemetry.publishers.dec();
        if let Some((_, socket)) = &visit.0
            && let Err(error) = SourceFd(&socket.as_raw_fd()).deregister(self.poll.registry())
        {
            tracing::warn!(%error, "a publisher's socket could not be let go of");
        }
    }

    /// Gives those back that have been silent for too long.
    pub(super) fn see_late_guests_off(&mut self, now: Instant) {
        let is_late = |hosted: &Hosted| hosted.visit.0.as_ref().is_some_and(|(guest, _)| guest.is_late(now));
        let late: Vec<_> =
            self.guests.iter().filter(|(_, hosted)| is_late(hosted)).map(|(slot, _)| slot).collect();
        for slot in late {
            // It may have said something that nobody has come to read.
            self.guest_speaks(slot);
            if self.guests.get(slot).is_some_and(is_late) {
                self.see_off(slot);
            }
        }
    }

    /// Gives all back: the shard is about to end.
    pub(super) fn see_guests_off(&mut self) {
        let all: Vec<_> = self.guests.iter().map(|(slot, _)| slot).collect();
        for slot in all {
            self.see_off(slot);
        }
    }
}
