//! What clients are answered: gathered over a turn, and written to each in one piece, unless something else has to be
//! written before.

use bytes::{Bytes, BytesMut};

use super::shard::Shard;
use super::state::Key;

/// Answers that are gathered at most. They do not count among those that wait for their sockets
/// ([`super::socket::MAX_QUEUED`]), where a client that takes none is left alone.
const MAX: usize = 64;

impl Shard {
    /// Answers a client, at the end of the turn at the latest. Who asks for several things at once gets one write as a rule.
    pub(super) fn answer(&mut self, key: Key, frame: Bytes) {
        self.answers.push((key, frame));
        if self.answers.len() >= MAX {
            self.write_answers();
        }
    }

    /// Writes all answers: before anything else is written to a client, and before it goes.
    pub(super) fn write_answers(&mut self) {
        if self.answers.is_empty() {
            return;
        }
        let mut answers = std::mem::take(&mut self.answers);
        // Of one client they stay in their order.
        answers.sort_by_key(|(key, _)| *key);
        for of_one in answers.chunk_by(|(one, _), (other, _)| one == other) {
            let Some((key, first)) = of_one.first() else { continue };
            if self.connection(*key).is_none() {
                continue;
            }
            let mut frames = first.clone();
            if of_one.len() > 1 {
                let mut all = BytesMut::with_capacity(of_one.iter().map(|(_, frame)| frame.len()).sum());
                for (_, frame) in of_one {
                    all.extend_from_slice(frame);
                }
                frames = all.freeze();
            }
            if let Some(socket) = self.sockets.get_mut(key.slot)
                && socket.answer(frames).is_err()
            {
                self.broken.push(*key);
            }
        }
        answers.clear();
        self.answers = answers;
    }
}
