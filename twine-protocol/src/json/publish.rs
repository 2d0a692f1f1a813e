//! The bodies of a publish, checked as they are read (PROTOCOL.md, "Publishing").

use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::{Data, object_from_slice};
use crate::api::{Publish, PublishBatch};
use crate::{ErrorCode, InvalidRoomName, MessageId, RoomName};

/// Why a body is no publish, and which message of a batch it is about.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct PublishError {
    /// Which message of a batch, counted from 0; `None` where it is about the body as a whole.
    pub index: Option<usize>,
    /// What is wrong.
    pub reason: PublishErrorReason,
}

/// What is wrong with a publish.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishErrorReason {
    /// Not JSON.
    #[error("the body is not JSON: {0}")]
    Syntax(serde_json::Error),
    /// JSON, but no object of this form: a field is missing, unknown or of a wrong kind.
    #[error("{0}")]
    Form(serde_json::Error),
    /// A room name that breaks a rule.
    #[error("{0}")]
    Room(InvalidRoomName),
    /// No room is named.
    #[error("`room` is missing")]
    NoRoom,
    /// Both `room` and `rooms` are there.
    #[error("`room` and `rooms` exclude each other")]
    TwoRooms,
    /// `rooms` stands in a batch, whose messages go to one room each.
    #[error("`rooms` can't be used in a batch: give each room its own message")]
    RoomsInBatch,
    /// `messages` is empty.
    #[error("`messages` must hold at least one message")]
    NoMessages,
    /// `sender` is over [`Publish::MAX_SENDER_BYTES`].
    #[error("`sender` has {len} bytes, at most 255 are allowed")]
    SenderTooLong {
        /// Bytes of the refused text.
        len: usize,
    },
}

impl PublishError {
    /// The error code of the answer.
    pub fn code(&self) -> ErrorCode {
        match self.reason {
            PublishErrorReason::Syntax(_) => ErrorCode::BadJson,
            PublishErrorReason::Room(_) => ErrorCode::BadRoom,
            _ => ErrorCode::BadRequest,
        }
    }
}

/// Reads the body of `POST /api/publish`. On success exactly one of `room` and `rooms` is there.
///
/// ```
/// use twine_protocol::{ErrorCode, json};
///
/// let publish = json::decode_publish(br#"{"room":"chat","data":{"text" : 1.0}}"#)?;
/// assert_eq!(publish.data.get(), r#"{"text" : 1.0}"#);
///
/// let error = json::decode_publish(br#"{"room":"","data":1}"#).unwrap_err();
/// assert_eq!(error.code(), ErrorCode::BadRoom);
/// # Ok::<(), json::PublishError>(())
/// ```
///
/// # Errors
/// [`PublishError`] says what to answer.
pub fn decode_publish(body: &[u8]) -> Result<Publish<Data>, PublishError> {
    read_publish(body).map_err(|reason| PublishError { index: None, reason })
}

/// Reads the body of `POST /api/publish/batch`. On success each message has `room` and no `rooms`.
///
/// # Errors
/// [`PublishError`] says what to answer.
pub fn decode_publish_batch(body: &[u8]) -> Result<PublishBatch<Data>, PublishError> {
    let whole = |reason| PublishError { index: None, reason };
    let raw: RawBatch<'_> = object_from_slice(body).map_err(|error| whole(error.into()))?;
    if raw.messages.is_empty() {
        return Err(whole(PublishErrorReason::NoMessages));
    }
    let read = |(index, message): (usize, &&RawValue)| match read_publish(message.get().as_bytes()) {
        Ok(publish) if publish.rooms.is_none() => Ok(publish),
        Ok(_) => Err(PublishError { index: Some(index), reason: PublishErrorReason::RoomsInBatch }),
        Err(reason) => Err(PublishError { index: Some(index), reason }),
    };
    Ok(PublishBatch { messages: raw.messages.iter().enumerate().map(read).collect::<Result<_, _>>()? })
}

fn read_publish(body: &[u8]) -> Result<Publish<Data>, PublishErrorReason> {
    let raw: RawPublish = object_from_slice(body)?;
    match (&raw.room, raw.rooms.as_deref()) {
        (None, None | Some([])) => return Err(PublishErrorReason::NoRoom),
        (Some(_), Some(_)) => return Err(PublishErrorReason::TwoRooms),
        _ => {}
    }
    if let Some(len) =
        raw.sender.as_ref().map(String::len).filter(|len| *len > Publish::<Data>::MAX_SENDER_BYTES)
    {
        return Err(PublishErrorReason::SenderTooLong { len });
    }
    let name = |name: String| RoomName::try_from(name).map_err(PublishErrorReason::Room);
    Ok(Publish {
        room: raw.room.map(name).transpose()?,
        rooms: raw.rooms.map(|rooms| rooms.into_iter().map(name).collect()).transpose()?,
        data: raw.data,
        id: raw.id,
        sender: raw.sender,
    })
}

impl From<serde_json::Error> for PublishErrorReason {
    fn from(error: serde_json::Error) -> Self {
        match error.classify() {
            Category::Data => Self::Form(error),
            Category::Syntax | Category::Eof | Category::Io => Self::Syntax(error),
        }
    }
}

// Names are read as text first: a bad one has its own code.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPublish {
    room: Option<String>,
    rooms: Option<Vec<String>>,
    data: Data,
    id: Option<MessageId>,
    sender: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBatch<'a> {
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
}
