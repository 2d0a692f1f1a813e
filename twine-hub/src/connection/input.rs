//! Bytes that come in: read in turns, taken apart, and left in the socket where there is too much.

use std::io::ErrorKind;

use super::shard::{READ_BUFFER, Shard};
use super::socket::Socket;
use super::state::{Key, Phase};
use super::websocket;

/// A busy connection gets so many reads, and then others their turn.
const READS_A_TURN: usize = 4;

impl Shard {
    /// Reads a connection's frames.
    pub(super) fn readable(&mut self, key: Key) {
        let mut buffer = std::mem::take(&mut self.buffer);
        for turn in 1.. {
            let is_greedy = self.is_greedy(key);
            let Some(connection) = self.connection(key) else { break };
            if is_greedy {
                connection.is_paused = true;
                break;
            }
            let is_ending = connection.is_ending;
            let Some(socket) = self.sockets.get_mut(key.slot) else { break };
            match socket.read(&mut buffer) {
                Ok(0) => {
                    self.remove(key);
                    break;
                }
                Ok(n) => {
                    self.heard(key);
                    self.feed(key, buffer.get_mut(..n).unwrap_or_default());
                    // Less than asked for: there is no more for now, and the poll will tell when
                    // there is, unless it has told of the end already.
                    if n < READ_BUFFER && !is_ending {
                        break;
                    }
                    if turn == READS_A_TURN {
                        self.unread.push(key);
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.remove(key);
                    break;
                }
            }
        }
        self.buffer = buffer;
    }

    /// Takes apart what a client sent.
    pub(super) fn feed(&mut self, key: Key, bytes: &mut [u8]) {
        let max = self.options.max_frame;
        let Some(connection) = self.connection(key) else { return };
        let mut input = connection.input.take().unwrap_or_default();
        let mut joined = std::mem::take(&mut input.rest);
        let is_joined = !joined.is_empty();
        let bytes = if is_joined {
            joined.extend_from_slice(bytes);
            &mut joined[..]
        } else {
            bytes
        };
        let mut at = 0;
        loop {
            let is_greedy = self.is_greedy(key);
            let Some(connection) = self.connection(key) else { return };
            if connection.phase == Phase::Closing {
                return;
            }
            if is_greedy {
                connection.is_paused = true;
                break;
            }
            let may_be_compressed = self.sockets.get(key.slot).is_some_and(Socket::is_compressed);
            let inflater = may_be_compressed.then_some(&mut self.inflater);
            let rest = bytes.get_mut(at..).unwrap_or_default();
            match websocket::decode(rest, &mut input.fragments, max, inflater) {
                Ok(None) => break,
                Ok(Some((incoming, used))) => {
                    at += used;
                    if let Some(incoming) = incoming {
                        self.incoming(key, incoming);
                    }
                }
                Err(violation) => return self.violation(key, violation),
            }
        }
        // A frame that comes in drops is added to where it lies.
        input.rest = if is_joined {
            joined.drain(..at);
            joined
        } else {
            bytes.get(at..).unwrap_or_default().to_vec()
        };
        if !(input.rest.is_empty() && input.fragments.is_empty())
            && let Some(connection) = self.connection(key)
        {
            connection.input = Some(input);
        }
    }

    /// Whether a connection asks for more than it takes, and has to wait.
    fn is_greedy(&mut self, key: Key) -> bool {
        let Some(connection) = self.connection(key) else { return false };
        connection.is_waiting() || self.sockets.get(key.slot).is_some_and(Socket::is_full)
    }

    /// Reads on where a connection that was greedy is so no more.
    pub(super) fn resume(&mut self, key: Key) {
        let is_greedy = self.is_greedy(key);
        if let Some(connection) = self.connection(key)
            && connection.is_paused
            && !is_greedy
        {
            connection.is_paused = false;
            self.feed(key, &mut []);
            self.unread.push(key);
        }
    }
}
