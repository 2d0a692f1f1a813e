//! Bodies of the HTTP interface (PROTOCOL.md, "HTTP").

use serde::{Deserialize, Serialize};

use crate::{Epoch, ErrorCode, MessageId, Offset, Position, RoomName};

/// The body of `POST /api/publish`, and one message of a batch.
///
/// Exactly one of `room` and `rooms` is there. The hub reads it with `json::decode_publish`, which
/// checks that and names what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish<D> {
    /// The room to publish to.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub room: Option<RoomName>,
    /// Several rooms that each get the message; not in a batch.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub rooms: Option<Vec<RoomName>>,
    /// The payload: any JSON.
    pub data: D,
    /// Publishing the same id to the same room again within the window stores nothing.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub id: Option<MessageId>,
    /// Who publishes: handed to subscribers as it is. At most 255 bytes.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
}

impl<D> Publish<D> {
    /// The longest `sender`, in bytes of UTF-8.
    pub const MAX_SENDER_BYTES: usize = 255;
}

// `#[serde(default)]` alone would ask for `D: Default`.
fn none<T>() -> Option<T> {
    None
}

/// The body of `POST /api/publish/batch`. All messages are stored, or none is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishBatch<D> {
    /// The messages, each to one room. They keep this order in their rooms.
    pub messages: Vec<Publish<D>>,
}

/// Where a message is stored: the answer to a publish, one per room or message.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Published {
    /// The room.
    pub room: RoomName,
    /// With `offset`: the message's position.
    pub epoch: Epoch,
    /// See `epoch`.
    pub offset: Offset,
    /// Whether it was there already, under the same id.
    pub duplicate: bool,
}

/// The answer to a publish to several rooms or of a batch: one result each, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedList {
    /// The results.
    pub results: Vec<Published>,
}

/// A page of a room's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct History<D> {
    /// The room.
    pub room: RoomName,
    /// With `offset`: the room's head.
    pub epoch: Epoch,
    /// See `epoch`.
    pub offset: Offset,
    /// The messages, oldest first, whichever way pages follow each other.
    pub messages: Vec<StoredMessage<D>>,
    /// Where there are more: pass it as `after`, or `before` where pages go backwards, to get the next
    /// page; absent on the last one.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub next: Option<Position>,
}

/// A message as history shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredMessage<D> {
    /// With `offset`: its position.
    pub epoch: Epoch,
    /// See `epoch`.
    pub offset: Offset,
    /// When the hub took it, in milliseconds since 1970-01-01 UTC.
    pub time: u64,
    /// The id its publisher gave it, if any.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub id: Option<MessageId>,
    /// Who published it, where known.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// The payload.
    pub data: D,
}

/// A room in use: one of the answer to `GET /api/rooms`, or the answer to `GET /api/rooms/{room}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomInfo {
    /// The room.
    pub room: RoomName,
    /// Its last position.
    pub head: Position,
    /// Subscriptions on this hub.
    pub subscribers: u64,
}

/// The answer to `GET /api/rooms`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomList {
    /// The rooms in use here, by name.
    pub rooms: Vec<RoomInfo>,
    /// Pass it as `after` to get the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<RoomName>,
}

/// An error's body, `application/problem+json` (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The code's page in PROTOCOL.md.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What to do first.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong, for programs.
    pub code: ErrorCode,
    /// What went wrong here, for people.
    pub detail: String,
    /// Which message of a batch, counted from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
}
