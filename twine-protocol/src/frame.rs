//! The frames of the WebSocket, both ways (PROTOCOL.md, "Frames").
//!
//! Serializing gives the wire's JSON with `type` first. Decoding is in [`crate::json`]: a frame's
//! `type` picks what is read, so that `data` can stay raw.

use serde::{Serialize, Serializer};

use crate::{Epoch, ErrorCode, InstanceId, MessageId, Offset, Position, RoomName, SessionId};

/// A frame from a client to the hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ClientFrame {
    /// The first frame of a connection.
    Connect(Connect),
    /// Asks for the messages of a room.
    Subscribe(Subscribe),
    /// Ends a subscription.
    Unsubscribe(Unsubscribe),
    /// Answers a [`ServerFrame::Ping`].
    Pong(Pong),
}

/// Opens the conversation; must be the first frame, within 10 s.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Connect {
    /// The session to resume, as an earlier `connected` named it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// This client object; random, kept in memory only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// The client object that this page held before it was reloaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev: Option<InstanceId>,
    /// Keeps sessions of one origin apart; a page's path by default. At most 1,024 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// A room token, where the hub asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl Connect {
    /// The longest `scope`, in bytes of UTF-8.
    pub const MAX_SCOPE_BYTES: usize = 1024;
}

/// Asks for the messages of a room, from a position on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Subscribe {
    /// Named again by the answer; any number below 2^53, chosen by the client.
    pub id: u64,
    /// The room.
    pub room: RoomName,
    /// Deliver what comes after this position; absent: from the session's cursor, else from the head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Position>,
    /// `after` was read from storage by a fresh page. It counts like any other.
    #[serde(skip_serializing_if = "is_false")]
    pub stored: bool,
    /// Start at the earlier of the cursor and this many messages before the head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<u32>,
    /// A token for this room, where the hub asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// Ends a subscription and takes the room out of the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unsubscribe {
    /// Named again by the answer.
    pub id: u64,
    /// The room.
    pub room: RoomName,
}

/// Answers a ping and acknowledges what was received.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pong {
    /// The cursors that moved since the last `pong`, each room once. A list, for nobody looks a
    /// room up in it, and a map is a tenth of what a browser's client weighs.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_map")]
    pub cursors: Vec<(RoomName, Position)>,
}

/// A frame from the hub to a client; `D` is what a payload is here (see the crate's page).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ServerFrame<D> {
    /// Answers [`ClientFrame::Connect`].
    Connected(Connected),
    /// Answers [`ClientFrame::Subscribe`].
    Subscribed(Subscribed),
    /// A message of a room.
    Message(Message<D>),
    /// Answers [`ClientFrame::Unsubscribe`].
    Unsubscribed(Unsubscribed),
    /// The room's log goes on in a new epoch; offsets start again at 1 after this.
    Epoch(EpochChange),
    /// Messages that can no longer be delivered; the only frame that moves a cursor without a message.
    Gap(Gap),
    /// Asks for a [`ClientFrame::Pong`].
    Ping,
    /// A request was refused, or the connection is about to be closed.
    Error(ErrorFrame),
    /// The hub is about to close the connection; come back later.
    Disconnect(Disconnect),
}

/// The connection is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Connected {
    /// The session of this connection; absent where the hub keeps none for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The session named in `connect` goes on.
    pub resumed: bool,
    /// A detached session of the same cookie was taken up.
    pub adopted: bool,
    /// Milliseconds between two pings of the hub. A client that hears nothing for that long and
    /// 10 s more should connect anew.
    pub heartbeat: u64,
    /// The rooms that the session holds.
    pub rooms: Vec<RoomName>,
}

/// The subscription is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Subscribed {
    /// The `id` of the request.
    pub id: u64,
    /// The room.
    pub room: RoomName,
    /// With `offset`: the cursor that delivery starts after. Authoritative: the client's cursor
    /// becomes this position.
    pub epoch: Epoch,
    /// See `epoch`.
    pub offset: Offset,
    /// The room's last position at this moment: what is at or before it is recovered, not live.
    pub head: Position,
    /// Whether nothing is known to be lost; absent when there was nothing to recover from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovered: Option<bool>,
    /// Why something is lost, where `recovered` is false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<GapReason>,
    /// What is lost, where `recovered` is false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
}

/// A message of a room. Its epoch is the one of the last `subscribed` or `epoch` frame of the room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message<D> {
    /// The room.
    pub room: RoomName,
    /// Its place in the room's present epoch.
    pub offset: Offset,
    /// When the hub took it, in milliseconds since 1970-01-01 UTC.
    pub time: u64,
    /// The id its publisher gave it, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<MessageId>,
    /// Who published it, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// The payload.
    pub data: D,
}

/// The subscription has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unsubscribed {
    /// The `id` of the request.
    pub id: u64,
    /// The room.
    pub room: RoomName,
}

/// The room's log crossed into a new epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EpochChange {
    /// The room.
    pub room: RoomName,
    /// The new epoch.
    pub epoch: Epoch,
    /// The sealed end of the epoch before. A client whose cursor is not there has missed something
    /// and subscribes again from its cursor.
    pub prev: Position,
}

/// A loss, told as it is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The room.
    pub room: RoomName,
    /// The last position before the loss.
    pub from: Position,
    /// The last lost position; delivery goes on after it.
    pub to: Position,
    /// How many messages are lost, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Why.
    pub reason: GapReason,
}

/// What is lost between two positions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "json", derive(serde::Deserialize))]
pub struct Lost {
    /// The last position before the loss.
    pub from: Position,
    /// The last lost position; delivery goes on after it.
    pub to: Position,
    /// How many messages, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// Why messages are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "json", derive(serde::Deserialize))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GapReason {
    /// Not kept any more: older than the hub keeps messages, or damaged in its store.
    Expired,
    /// More than the hub recovers for one client.
    Limit,
    /// The position is not of any log the hub knows.
    Unknown,
}

impl GapReason {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Expired, Self::Limit, Self::Unknown];

    /// The reason as the wire spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Limit => "limit",
            Self::Unknown => "unknown",
        }
    }

    /// The reason that the wire spells so; [`GapReason::Unknown`] for one of a later version.
    pub fn from_wire(text: &str) -> Self {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text).unwrap_or(Self::Unknown)
    }
}

/// A request was refused, or the connection is about to be closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorFrame {
    /// The `id` of the refused request, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// What went wrong, for programs.
    pub code: ErrorCode,
    /// What went wrong and what to do, for people.
    pub message: String,
}

/// The hub is about to close the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Disconnect {
    /// Why.
    pub code: ErrorCode,
    /// Milliseconds to wait before connecting again.
    pub retry: u64,
}

// serde's `serialize_with` passes a reference to the field.
#[allow(clippy::ptr_arg)]
fn as_map<S: Serializer>(cursors: &Vec<(RoomName, Position)>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(cursors.iter().map(|(room, cursor)| (room, cursor)))
}

// serde's `skip_serializing_if` passes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(flag: &bool) -> bool {
    !*flag
}
