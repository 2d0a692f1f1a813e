//! What can go wrong for a caller.

use twine_protocol::{InvalidRoomName, RoomName};

use crate::core::{self, ClosedReason};

/// Why a call failed, or a subscription ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not the address of a hub: the caller's mistake.
    #[error("{url:?} is not the address of a hub: {problem}")]
    Url {
        /// The address as it was given.
        url: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Not the name of a room: the caller's mistake.
    #[error("bad room name: {0}")]
    Room(#[from] InvalidRoomName),
    /// The room is subscribed by this client already; read its [`crate::Subscription`], or drop it first.
    #[error("room {room} is subscribed already")]
    AlreadySubscribed {
        /// The room.
        room: RoomName,
    },
    /// The first connection could not be made. The hub is not there, or does not want this client.
    #[error("the hub can't be reached: {problem}")]
    Connect {
        /// What the attempt came to.
        problem: String,
    },
    /// A header that can't be sent with a handshake: the caller's mistake.
    #[error("bad header {name:?}: {problem}")]
    Header {
        /// Its name, as it was given.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A root certificate that can't be read: the caller's mistake.
    #[error("bad root certificate: {problem}")]
    Certificate {
        /// What is wrong with it.
        problem: String,
    },
    /// The hub refused, or the call was overtaken by another one.
    #[error(transparent)]
    Call(core::Error),
    /// The client has ended.
    #[error("the client is closed: {}", closed_text(.0))]
    Closed(ClosedReason),
}

impl Error {
    /// Whether the same call may succeed later, unchanged.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { .. } => true,
            Self::Call(error) => error.is_retryable(),
            Self::Url { .. }
            | Self::Room(_)
            | Self::AlreadySubscribed { .. }
            | Self::Header { .. }
            | Self::Certificate { .. }
            | Self::Closed(_) => false,
        }
    }
}

fn closed_text(reason: &ClosedReason) -> String {
    match reason {
        ClosedReason::Disconnected => "it was disconnected".to_owned(),
        ClosedReason::Refused { code, reason } => format!("the hub closed with {code} {reason}"),
    }
}
