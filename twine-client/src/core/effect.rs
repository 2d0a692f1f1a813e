//! What the core wants done, and the values in it.

use twine_protocol::{ClientFrame, CloseCode, ErrorCode, Gap, MessageId, Position, RoomName};

/// One thing for the driver to do; [`super::Core::poll_effect`] hands them out in order.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[must_use]
pub enum Effect<P> {
    /// Fetch the hub's cookie, then call [`super::Core::cookie_settled`] whatever came of it.
    FetchCookie,
    /// Open a socket once there are no more effects for now, then call [`super::Core::opened`] or
    /// [`super::Core::closed`].
    Open {
        /// The socket.
        socket: SocketId,
        /// Whether what is to be sent on it by then may go with its handshake (PROTOCOL.md, "Early frames").
        early: bool,
    },
    /// Send a frame on this socket. Before it is open that is with its handshake, as far as there is room and it may be
    /// `early`, or else once it is open, in the order of these effects.
    Send(SocketId, ClientFrame),
    /// Close this socket. What it still reports is ignored.
    Close(SocketId, CloseCode),
    /// Hand a message to the room's listeners, then call [`super::Core::delivered`]
    /// or [`super::Core::pending`].
    Deliver(Delivery<P>),
    /// Tell the app of a loss.
    Gap(Gap),
    /// Tell the app that the state has changed.
    State(State),
    /// Tell the app of an error that no call of it is answered by.
    Error(Error),
    /// An app's call is complete.
    Done(CallId, Result<Outcome, Error>),
}

/// One socket among those that the driver opens in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub(super) u64);

/// One call of the app that completes later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub(super) u64);

/// One delivery of a message: the same message may be delivered again, where the app asks for
/// history. These are counted, and begin anew after 2^32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(pub(crate) u32);

/// A message for a room's listeners.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Delivery<P> {
    /// Which delivery this is, among all of this client.
    pub delivery: DeliveryId,
    /// The room.
    pub room: RoomName,
    /// Its place in the room's log.
    pub position: Position,
    /// When the hub took it, in milliseconds since 1970-01-01 UTC.
    pub time: u64,
    /// The id its publisher gave it, if any.
    pub id: Option<MessageId>,
    /// Who published it, where known.
    pub sender: Option<String>,
    /// Whether it is from before the (re)subscription: caught up, not live.
    pub recovered: bool,
    /// The payload.
    pub data: P,
}

/// How a connection stands, as the app sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Not asked to connect yet.
    Idle,
    /// A connection is being made.
    Connecting,
    /// The hub has answered.
    Connected,
    /// The connection is lost, or could not be made; the next attempt comes after `delay`.
    Reconnecting {
        /// Milliseconds until the next attempt.
        delay: u64,
    },
    /// Ended; only `connect` starts again.
    Closed(ClosedReason),
}

/// Why a client does not connect again by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClosedReason {
    /// The app called `disconnect`.
    Disconnected,
    /// The hub closed with a code after which the same would happen again.
    Refused {
        /// The WebSocket close code.
        code: u16,
        /// What the hub said about it.
        reason: String,
    },
}

impl State {
    /// The state's name: `idle`, `connecting`, `connected`, `reconnecting`, `closed`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Reconnecting { .. } => "reconnecting",
            Self::Closed(_) => "closed",
        }
    }
}

impl ClosedReason {
    /// The reason's name: `disconnected`, `refused`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Refused { .. } => "refused",
        }
    }
}

/// What a call came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The subscription is in force.
    Subscribed {
        /// Delivery goes on after this position.
        position: Position,
        /// Whether nothing is known to be lost; absent where there was nothing to recover from.
        recovered: Option<bool>,
    },
    /// The subscription has ended.
    Unsubscribed,
}

/// Why a call failed, or what went wrong by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The hub refused. Its message says what to do.
    #[error("{code}: {message}")]
    Refused {
        /// What went wrong, for programs.
        code: ErrorCode,
        /// What went wrong and what to do, for people.
        message: String,
        /// The room it is about, where it is about one.
        room: Option<RoomName>,
    },
    /// The room was unsubscribed while its subscription was still being made.
    #[error("room {room} was unsubscribed before it was subscribed")]
    Withdrawn {
        /// The room.
        room: RoomName,
    },
    /// The room is subscribed already, and its cursor is not at the `after` that was asked for.
    #[error("room {room} is subscribed already, from another position: unsubscribe it first")]
    AlreadySubscribed {
        /// The room.
        room: RoomName,
    },
    /// The client was closed before the call was complete.
    #[error("the client was closed before the call was complete")]
    Closed,
    /// More rooms than [`super::limits::ROOMS_MAX`].
    #[error("a client holds at most {limit} rooms")]
    TooManyRooms {
        /// The most rooms.
        limit: usize,
    },
    /// More waiting calls than [`super::limits::CALLS_MAX`].
    #[error("at most {limit} calls may wait for the hub")]
    TooManyCalls {
        /// The most calls.
        limit: usize,
    },
    /// The hub sent something that is no frame; the connection is replaced.
    #[error("the hub sent something that is no frame: {detail}")]
    Garbled {
        /// What is wrong with it.
        detail: String,
    },
}

impl Error {
    /// The error's name: the hub's code where the hub refused, else one of `withdrawn`,
    /// `already_subscribed`, `closed`, `too_many_rooms`, `too_many_calls`, `garbled`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Refused { code, .. } => code.as_str(),
            Self::Withdrawn { .. } => "withdrawn",
            Self::AlreadySubscribed { .. } => "already_subscribed",
            Self::Closed => "closed",
            Self::TooManyRooms { .. } => "too_many_rooms",
            Self::TooManyCalls { .. } => "too_many_calls",
            Self::Garbled { .. } => "garbled",
        }
    }

    /// Whether the same may succeed later, unchanged.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Refused { code, .. } => code.is_retryable(),
            Self::TooManyCalls { .. } | Self::Garbled { .. } => true,
            Self::Withdrawn { .. }
            | Self::AlreadySubscribed { .. }
            | Self::Closed
            | Self::TooManyRooms { .. } => false,
        }
    }
}
