//! Why Redis did not do it.

use std::time::Duration;

use super::target::Address;

/// Why a request was not answered. Unless said otherwise it may have been carried out all the same; every
/// script may be run again.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum RedisError {
    /// No connection to the server, or none that is a master. The hub connects again by itself.
    #[error("redis at {address} can't be used: {reason}")]
    Unreachable { address: Address, reason: String },
    /// No server is known to have the room: sentinels or cluster nodes gave no answer yet.
    #[error("no redis server is known for the room: {reason}")]
    NoServer { reason: String },
    /// No answer in time. The server may be busy, paused or cut off.
    #[error("redis gave no answer within {after:?}")]
    Deadline { after: Duration },
    /// The connection ended before the answer.
    #[error("the connection to redis at {address} ended before the answer: {reason}")]
    Ended { address: Address, reason: String },
    /// The server says no; look at its log, its memory and the hub's permissions there.
    #[error("redis refuses: {reason}")]
    Refused { reason: String },
    /// An answer of another form than the script gives: another program has changed the room's keys.
    #[error("redis gave an answer to {to} that is none: {what}")]
    Unexpected { to: &'static str, what: String },
    /// The hub is shutting down.
    #[error("the connection to redis is closed, for the hub is shutting down")]
    Closed,
}
