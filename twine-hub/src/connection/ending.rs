//! How a connection ends: told why where it can be told, and forgotten.

use std::time::Duration;

use twine_protocol::{CloseCode, Disconnect, ErrorCode, ErrorFrame, ServerFrame};

use super::shard::Shard;
use super::state::{Key, Phase};
use super::websocket;
use crate::rooms::frames;
use crate::telemetry::Code;

/// How long a closed connection may take to close its side.
const LINGER: Duration = Duration::from_secs(2);
/// A client that is told to go comes back after a random time up to this, and up to a second of its own.
const MAX_RETRY: Duration = Duration::from_secs(3);
/// The same where the hub stops: another one takes the client, or this one once it is back. Nobody is
/// to be away for more than a couple of seconds, and the window spreads them already.
const MAX_RETRY_DRAINING: Duration = Duration::from_secs(1);

impl Shard {
    /// Refuses one request; the connection goes on.
    pub(super) fn refuse(&mut self, key: Key, id: Option<u64>, code: ErrorCode, message: String) {
        self.count_error(code);
        self.answer(key, frames::frame(&ServerFrame::Error(ErrorFrame { id, code, message })));
    }

    /// Ends a connection for an error, and tells it why.
    pub(super) fn end(&mut self, key: Key, code: ErrorCode, message: &str) {
        self.refuse(key, None, code, format!("{message}; {}", code.remedy()));
        self.close(key, code.close_code().map_or(1011, CloseCode::as_u16), code.as_str());
    }

    /// Sends a close frame and nothing after it; the connection is removed when the client closes
    /// its side, or soon.
    pub(super) fn close(&mut self, key: Key, code: u16, reason: &str) {
        self.leave_all(key);
        self.answer(key, websocket::close(code, reason));
        self.write_answers();
        let Some(connection) = self.connection(key) else { return };
        connection.enter(Phase::Closing, LINGER);
        connection.input = None;
        if self.sockets.get(key.slot).is_some_and(|socket| !socket.is_blocked()) {
            self.finish(key);
        }
        self.look_in(key, LINGER);
    }

    /// Forgets a connection.
    pub(super) fn remove(&mut self, key: Key) {
        self.write_answers();
        self.leave_all(key);
        if self.connection(key).is_none() {
            return;
        }
        // Closing it takes it out of the poll.
        self.sockets.remove(key.slot);
        self.connections.remove(key.slot as usize);
        self.telemetry.connections.dec();
    }

    fn leave_all(&mut self, key: Key) {
        let Some(connection) = self.connection(key) else { return };
        let session = connection.session.take();
        for subscription in std::mem::take(&mut connection.subscriptions) {
            self.leave(&subscription);
        }
        if let Some(session) = session {
            self.sessions.detach(session.into_save());
        }
    }

    /// Asks a client to come back elsewhere or later, not all at once.
    pub(super) fn send_away(&mut self, key: Key, code: ErrorCode) {
        let max = if code == ErrorCode::Draining { MAX_RETRY_DRAINING } else { MAX_RETRY };
        let retry = u64::try_from(max.mul_f64(fastrand::f64()).as_millis()).unwrap_or_default();
        self.answer(key, frames::frame(&ServerFrame::Disconnect(Disconnect { code, retry })));
        let close = code.close_code().unwrap_or(CloseCode::Restart);
        self.close(key, close.as_u16(), code.as_str());
    }

    pub(super) fn count_error(&self, code: ErrorCode) {
        self.telemetry.errors.get_or_create(&Code { code: code.as_str() }).inc();
    }
}
