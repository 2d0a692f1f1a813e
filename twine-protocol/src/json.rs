//! The encoding `twine.v1.json`: frames to text and back, with raw payloads.
//!
//! Fields that a version does not know are ignored both ways (PROTOCOL.md, "Versions"). The bodies
//! of a publish are read here too.

mod publish;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::Error as _;
use serde_json::value::RawValue;

pub use self::publish::{PublishError, PublishErrorReason, decode_publish, decode_publish_batch};
use crate::object::Object;
use crate::{
    ClientFrame, Connect, Connected, Disconnect, Epoch, EpochChange, ErrorCode, ErrorFrame, Gap, GapReason,
    InstanceId, InvalidRoomName, Lost, Message, MessageId, Offset, Pong, Position, RoomName, ServerFrame,
    SessionId, Subscribe, Subscribed, Unsubscribe, Unsubscribed,
};

/// A payload as it came: valid JSON that nobody took apart.
pub type Data = Box<RawValue>;

/// Why a text is no frame.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON, not an object, without `type`, or with a field that is missing or of a wrong kind.
    /// The sender broke the protocol; the hub closes with 4400.
    #[error("not a frame of {SUBPROTOCOL}: {0}", SUBPROTOCOL = crate::SUBPROTOCOL)]
    Malformed(#[from] serde_json::Error),
    /// A well-formed frame of a type this version does not know. A client ignores it, the hub
    /// answers `unknown_frame`.
    #[error("no frame has the type {kind:?}")]
    UnknownType {
        /// The `type`, cut at 32 characters.
        kind: String,
        /// The frame's `id`, if it has one.
        id: Option<u64>,
    },
    /// A request that names no valid room. The hub answers `bad_room`.
    #[error("bad room name: {source}")]
    Room {
        /// The frame's `id`.
        id: u64,
        /// Which rule the name breaks.
        source: InvalidRoomName,
    },
}

impl DecodeError {
    /// The error code of the hub's answer.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Malformed(_) => ErrorCode::BadFrame,
            Self::UnknownType { .. } => ErrorCode::UnknownFrame,
            Self::Room { .. } => ErrorCode::BadRoom,
        }
    }

    /// The `id` of the refused request, where it could be read.
    pub fn id(&self) -> Option<u64> {
        match self {
            Self::Malformed(_) => None,
            Self::UnknownType { id, .. } => *id,
            Self::Room { id, .. } => Some(*id),
        }
    }
}

/// Reads a frame that a client sent.
///
/// ```
/// use twine_protocol::{ClientFrame, json};
///
/// let frame = json::decode_client(r#"{"type":"subscribe","id":1,"room":"chat"}"#)?;
/// assert!(matches!(frame, ClientFrame::Subscribe(s) if s.room.as_str() == "chat"));
/// # Ok::<(), json::DecodeError>(())
/// ```
///
/// # Errors
/// [`DecodeError`] says what to answer.
pub fn decode_client(text: &str) -> Result<ClientFrame, DecodeError> {
    let tag: Tag<'_> = object(text)?;
    Ok(match tag.kind.as_ref() {
        "connect" => {
            let raw: RawConnect = object(text)?;
            if let Some(len) =
                raw.scope.as_ref().map(String::len).filter(|len| *len > Connect::MAX_SCOPE_BYTES)
            {
                let limit = Connect::MAX_SCOPE_BYTES;
                return Err(serde_json::Error::custom(format_args!(
                    "`scope` has {len} bytes, at most {limit} are allowed"
                ))
                .into());
            }
            ClientFrame::Connect(Connect {
                session: raw.session,
                instance: raw.instance,
                prev: raw.prev,
                scope: raw.scope,
                token: raw.token,
            })
        }
        "subscribe" => {
            let raw: RawSubscribe = object(text)?;
            ClientFrame::Subscribe(Subscribe {
                id: raw.id.get(),
                room: room(raw.id, &raw.room)?,
                after: raw.after,
                stored: raw.stored.unwrap_or_default(),
                history: raw.history,
                token: raw.token,
            })
        }
        "unsubscribe" => {
            let raw: RawUnsubscribe<'_> = object(text)?;
            ClientFrame::Unsubscribe(Unsubscribe { id: raw.id.get(), room: room(raw.id, &raw.room)? })
        }
        "pong" => {
            let cursors = object::<RawPong>(text)?.cursors.unwrap_or_default();
            ClientFrame::Pong(Pong { cursors: cursors.into_iter().collect() })
        }
        _ => return Err(unknown(&tag, text)),
    })
}

/// Reads a frame that the hub sent.
///
/// # Errors
/// [`DecodeError`]; clients ignore [`DecodeError::UnknownType`].
pub fn decode_server(text: &str) -> Result<ServerFrame<Data>, DecodeError> {
    let tag: Tag<'_> = object(text)?;
    Ok(match tag.kind.as_ref() {
        "message" => {
            let raw: RawMessage = object(text)?;
            ServerFrame::Message(Message {
                room: raw.room,
                offset: raw.offset,
                time: raw.time,
                id: raw.id,
                sender: raw.sender,
                data: raw.data,
            })
        }
        "connected" => {
            let raw: RawConnected = object(text)?;
            ServerFrame::Connected(Connected {
                session: raw.session,
                resumed: raw.resumed,
                adopted: raw.adopted,
                heartbeat: raw.heartbeat,
                rooms: raw.rooms,
            })
        }
        "subscribed" => {
            let raw: RawSubscribed = object(text)?;
            ServerFrame::Subscribed(Subscribed {
                id: raw.id,
                room: raw.room,
                epoch: raw.epoch,
                offset: raw.offset,
                head: raw.head,
                recovered: raw.recovered,
                reason: raw.reason.map(|text| GapReason::from_wire(&text)),
                lost: raw.lost,
            })
        }
        "unsubscribed" => {
            let raw: RawUnsubscribed = object(text)?;
            ServerFrame::Unsubscribed(Unsubscribed { id: raw.id, room: raw.room })
        }
        "epoch" => {
            let raw: RawEpoch = object(text)?;
            ServerFrame::Epoch(EpochChange { room: raw.room, epoch: raw.epoch, prev: raw.prev })
        }
        "gap" => {
            let raw: RawGap = object(text)?;
            ServerFrame::Gap(Gap {
                room: raw.room,
                from: raw.from,
                to: raw.to,
                count: raw.count,
                reason: GapReason::from_wire(&raw.reason),
            })
        }
        "ping" => ServerFrame::Ping,
        "error" => {
            let raw: RawError = object(text)?;
            ServerFrame::Error(ErrorFrame { id: raw.id, code: raw.code, message: raw.message })
        }
        "disconnect" => {
            let raw: RawDisconnect = object(text)?;
            ServerFrame::Disconnect(Disconnect { code: raw.code, retry: raw.retry })
        }
        _ => return Err(unknown(&tag, text)),
    })
}

impl ClientFrame {
    /// The frame as the wire has it.
    pub fn to_json(&self) -> String {
        to_json(self)
    }
}

impl ServerFrame<Data> {
    /// The frame as the wire has it.
    pub fn to_json(&self) -> String {
        to_json(self)
    }
}

fn to_json<T: serde::Serialize>(frame: &T) -> String {
    // serde_json fails only where a `Serialize` fails or a map's keys are no strings. The frames'
    // implementations are derived, and `Pong::cursors` has names of rooms as keys.
    #[allow(clippy::expect_used)]
    serde_json::to_string(frame).expect("frames always serialize")
}

fn object<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = T::deserialize(Object(&mut deserializer))?;
    deserializer.end()?;
    Ok(value)
}

fn object_from_slice<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = T::deserialize(Object(&mut deserializer))?;
    deserializer.end()?;
    Ok(value)
}

fn room(id: Offset, name: &str) -> Result<RoomName, DecodeError> {
    RoomName::new(name).map_err(|source| DecodeError::Room { id: id.get(), source })
}

fn unknown(tag: &Tag<'_>, text: &str) -> DecodeError {
    #[derive(Deserialize)]
    struct Id {
        id: Option<Offset>,
    }
    let kind = tag.kind.chars().take(32).collect();
    DecodeError::UnknownType { kind, id: object::<Id>(text).ok().and_then(|frame| frame.id).map(Offset::get) }
}

#[derive(Deserialize)]
struct Tag<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
}

#[derive(Deserialize)]
struct RawConnect {
    session: Option<SessionId>,
    instance: Option<InstanceId>,
    prev: Option<InstanceId>,
    scope: Option<String>,
    token: Option<String>,
}

// A request's `id` has the range of an offset: what is exact as a JavaScript number.
#[derive(Deserialize)]
struct RawSubscribe {
    id: Offset,
    room: String,
    after: Option<Position>,
    stored: Option<bool>,
    history: Option<u32>,
    token: Option<String>,
}

#[derive(Deserialize)]
struct RawUnsubscribe<'a> {
    id: Offset,
    #[serde(borrow)]
    room: std::borrow::Cow<'a, str>,
}

#[derive(Deserialize)]
struct RawPong {
    cursors: Option<BTreeMap<RoomName, Position>>,
}

#[derive(Deserialize)]
struct RawMessage {
    room: RoomName,
    offset: Offset,
    time: u64,
    id: Option<MessageId>,
    sender: Option<String>,
    data: Data,
}

#[derive(Deserialize)]
struct RawConnected {
    session: Option<SessionId>,
    resumed: bool,
    adopted: bool,
    heartbeat: u64,
    rooms: Vec<RoomName>,
}

#[derive(Deserialize)]
struct RawSubscribed {
    id: u64,
    room: RoomName,
    epoch: Epoch,
    offset: Offset,
    head: Position,
    recovered: Option<bool>,
    reason: Option<String>,
    lost: Option<Lost>,
}

#[derive(Deserialize)]
struct RawUnsubscribed {
    id: u64,
    room: RoomName,
}

#[derive(Deserialize)]
struct RawEpoch {
    room: RoomName,
    epoch: Epoch,
    prev: Position,
}

#[derive(Deserialize)]
struct RawGap {
    room: RoomName,
    from: Position,
    to: Position,
    count: Option<u64>,
    reason: String,
}

#[derive(Deserialize)]
struct RawError {
    id: Option<u64>,
    code: ErrorCode,
    message: String,
}

#[derive(Deserialize)]
struct RawDisconnect {
    code: ErrorCode,
    retry: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_keeps_its_payload_byte_for_byte() {
        let text =
            r#"{"type":"message","room":"chat","offset":42,"time":1700000000000,"data":{"a" : [1.0, 1e2]}}"#;
        let frame = decode_server(text).unwrap();
        assert!(matches!(&frame, ServerFrame::Message(m) if m.data.get() == r#"{"a" : [1.0, 1e2]}"#));
        assert_eq!(frame.to_json(), text);
    }

    #[test]
    fn a_list_is_no_object() {
        for text in
            [r#"["ping"]"#, r#"{"type":"gap","room":"a","from":["e",1],"to":["e",2],"reason":"limit"}"#]
        {
            assert_eq!(decode_server(text).unwrap_err().code(), ErrorCode::BadFrame, "{text}");
        }
    }

    #[test]
    fn a_bad_room_name_is_answered_by_id_and_does_not_end_the_connection() {
        let error = decode_client(r#"{"type":"subscribe","id":7,"room":""}"#).unwrap_err();
        assert_eq!((error.code(), error.id()), (ErrorCode::BadRoom, Some(7)));
        let error = decode_client(r#"{"type":"publish","id":8}"#).unwrap_err();
        assert_eq!((error.code(), error.id()), (ErrorCode::UnknownFrame, Some(8)));
    }
}
