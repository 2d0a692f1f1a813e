//! What time it is for a connection: its pings, its deadlines.

use std::time::{Duration, Instant};

use twine_protocol::ErrorCode;

use super::Options;
use super::shard::Shard;
use super::socket::Socket;
use super::state::{Key, Phase};

impl Shard {
    /// Has a connection looked at then at the latest.
    pub(super) fn look_in(&mut self, key: Key, delay: Duration) {
        // Not by `connection`, which would have the wheel as well.
        let connection = self.connections.get_mut(key.slot as usize);
        if let Some(connection) = connection.filter(|connection| connection.key(key.slot) == key) {
            self.wheel.put(key, &mut connection.alarm, delay);
        }
    }

    /// Makes sure that a socket that takes no more is looked at when that has lasted too long.
    pub(super) fn look_when_stuck(&mut self, key: Key) {
        self.look_in(key, self.options.write_timeout);
    }

    /// A connection's alarm has gone off, or one that it once had.
    pub(super) fn goes_off(&mut self, key: Key, now: Instant) {
        let tick = self.wheel.at();
        if self.connection(key).is_some_and(|connection| connection.alarm == tick) {
            self.look(key, now);
        }
    }

    /// Does what it is time for, if anything.
    fn look(&mut self, key: Key, now: Instant) {
        let Options { heartbeat, write_timeout, .. } = self.options;
        let ping = self.ping.clone();
        let blocked_since = self.sockets.get(key.slot).and_then(Socket::blocked_since);
        let Some(connection) = self.connection(key) else { return };
        let silent = now.duration_since(connection.heard);
        let is_due = now >= connection.due;
        let next = match connection.phase {
            Phase::New if is_due => {
                return self.end(key, ErrorCode::ConnectTimeout, "no `connect` frame came in time");
            }
            Phase::Attaching if is_due => return self.go_on_without_session(key),
            Phase::Closing if is_due => return self.remove(key),
            Phase::New | Phase::Attaching | Phase::Closing => connection.due,
            Phase::Open => {
                if let Some(since) = blocked_since
                    && now.duration_since(since) >= write_timeout
                {
                    // It takes no byte, so no frame could tell it why.
                    self.count_error(ErrorCode::TooSlow);
                    return self.remove(key);
                }
                if silent >= heartbeat * 2 {
                    return self.end(
                        key,
                        ErrorCode::HeartbeatTimeout,
                        "nothing was heard for two heartbeats",
                    );
                }
                if is_due {
                    connection.due = now + heartbeat;
                    if self.sockets.get(key.slot).is_some_and(|socket| !socket.is_full()) {
                        self.answer(key, ping);
                    }
                }
                self.try_again(key);
                let blocked_since = self.sockets.get(key.slot).and_then(Socket::blocked_since);
                let Some(connection) = self.connection(key) else { return };
                let blocked = blocked_since.map(|since| since + write_timeout);
                blocked.map_or(connection.due, |at| at.min(connection.due))
            }
        };
        self.look_in(key, next.saturating_duration_since(now));
    }
}
