//! A socket that is written to directly, and the little that waits when it takes no more.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::time::Instant;

use bytes::{Buf, Bytes};
use mio::net::TcpStream;

use crate::clock;

/// Bytes of answers that may wait for a socket, besides the rest of one message. A connection at
/// this bound is not read any further until it takes some.
pub(super) const MAX_QUEUED: usize = 64 << 10;
/// Frames of one system call at most.
const MAX_SLICES: usize = 64;

/// A connection's socket.
pub(super) struct Socket {
    stream: TcpStream,
    waiting: Option<Box<Waiting>>,
}

/// What the socket did not take.
struct Waiting {
    /// What is left of a message; comes first.
    rest: Bytes,
    answers: VecDeque<Bytes>,
    /// Of the answers.
    bytes: usize,
    /// When the socket last took something.
    since: Instant,
}

impl Waiting {
    fn new(rest: Bytes) -> Self {
        Self { rest, answers: VecDeque::new(), bytes: 0, since: clock::now() }
    }
}

/// How much of a run of frames a socket took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    /// Frames that are on their way; of the last, a rest may wait here.
    pub(super) frames: usize,
    /// Whether it takes no more for now.
    pub(super) is_blocked: bool,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, waiting: None }
    }

    pub(super) fn stream_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Whether something waits to be written.
    pub(super) fn is_blocked(&self) -> bool {
        self.waiting.is_some()
    }

    /// Whether more answers wait than may.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.bytes > MAX_QUEUED)
    }

    /// Since when the socket took nothing, if something waits.
    pub(super) fn blocked_since(&self) -> Option<Instant> {
        self.waiting.as_ref().map(|waiting| waiting.since)
    }

    /// Reads what is there; 0 is the end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Writes an answer, behind whatever waits.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn answer(&mut self, frame: Bytes) -> io::Result<()> {
        if self.waiting.is_none() && self.send(std::slice::from_ref(&frame))?.frames == 1 {
            return Ok(());
        }
        if let Some(waiting) = &mut self.waiting {
            waiting.bytes += frame.len();
            waiting.answers.push_back(frame);
        }
        Ok(())
    }

    /// Writes frames of a room, as far as the socket takes them. Of a frame that it took in part,
    /// the rest waits here; of those after it, nothing is kept.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn send(&mut self, frames: &[Bytes]) -> io::Result<Sent> {
        if self.waiting.is_some() {
            return Ok(Sent { frames: 0, is_blocked: true });
        }
        let mut sent = 0;
        for run in frames.chunks(MAX_SLICES) {
            let mut written = match self.write(run) {
                Ok(written) => written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            for frame in run {
                if written >= frame.len() {
                    written -= frame.len();
                    sent += 1;
                } else {
                    // That nothing was left over also says "blocked": the write event that ends it
                    // is to come.
                    let rest = if written > 0 { frame.slice(written..) } else { Bytes::new() };
                    sent += usize::from(written > 0);
                    self.waiting = Some(Box::new(Waiting::new(rest)));
                    return Ok(Sent { frames: sent, is_blocked: true });
                }
            }
        }
        Ok(Sent { frames: sent, is_blocked: false })
    }

    fn write(&mut self, frames: &[Bytes]) -> io::Result<usize> {
        loop {
            let result = if let [frame] = frames {
                self.stream.write(frame)
            } else {
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                for (slice, frame) in slices.iter_mut().zip(frames) {
                    *slice = IoSlice::new(frame);
                }
                self.stream.write_vectored(slices.get(..frames.len()).unwrap_or_default())
            };
            match result {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Writes what waits; true when nothing does any more.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        let Some(waiting) = &mut self.waiting else { return Ok(true) };
        loop {
            if waiting.rest.is_empty() {
                let Some(next) = waiting.answers.pop_front() else { break };
                waiting.bytes -= next.len();
                waiting.rest = next;
            }
            match self.stream.write(&waiting.rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    waiting.since = clock::now();
                    waiting.rest.advance(written);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.waiting = None;
        Ok(true)
    }

    /// Says that nothing more will be written, once all is.
    pub(super) fn finish(&mut self) {
        // A socket that can't be shut down is broken already and about to be dropped.
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }
}
