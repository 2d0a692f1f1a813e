//! A message before it is sent: checked, serialized, and with its id.

use std::fmt;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use twine_protocol::api::Publish;
use twine_protocol::{MessageId, RoomName};

use crate::Error;

const MAX_SENDER_BYTES: usize = Publish::<()>::MAX_SENDER_BYTES;

/// A message that is ready to be published, to one room.
///
/// It has its id from the start, so that publishing the same `Message` again, also after an error
/// that says [`Stored::Maybe`](crate::Stored::Maybe), stores and delivers it once. (A hub remembers
/// ids for ten minutes by default.)
///
/// ```
/// use twine_server_sdk::Message;
///
/// let message = Message::new("orders", &serde_json::json!({ "paid": true }))?
///     .with_id("order-4711-paid")?
///     .with_sender("shop")?;
/// assert_eq!(message.data(), r#"{"paid":true}"#);
/// # Ok::<(), twine_server_sdk::Error>(())
/// ```
#[derive(Clone)]
pub struct Message {
    room: RoomName,
    data: Box<RawValue>,
    id: MessageId,
    sender: Option<String>,
}

impl Message {
    /// Makes a message for `room` with anything that serializes as its payload, and gives it a random
    /// id (a UUID v4).
    ///
    /// # Errors
    /// [`InvalidMessage`](crate::ErrorKind::InvalidMessage) where the room's name is none, or `data`
    /// does not serialize to JSON (a map with keys that are no strings).
    pub fn new<T: Serialize + ?Sized>(room: impl IntoRoom, data: &T) -> Result<Self, Error> {
        Ok(Self { room: room.into_room()?, data: to_data(data)?, id: random_id(), sender: None })
    }

    /// The same message under an id of your own: 1 to 128 bytes of UTF-8 without control characters.
    ///
    /// An id that names the event (`order-4711-paid`) also holds where your backend itself starts
    /// over: published again within the hub's window, it is stored once.
    ///
    /// # Errors
    /// [`InvalidMessage`](crate::ErrorKind::InvalidMessage) where the id is none.
    pub fn with_id(self, id: &str) -> Result<Self, Error> {
        Ok(Self { id: MessageId::new(id)?, ..self })
    }

    /// Says who publishes; handed to subscribers as it is. At most 255 bytes of UTF-8.
    ///
    /// # Errors
    /// [`InvalidMessage`](crate::ErrorKind::InvalidMessage) where it is longer.
    pub fn with_sender(self, sender: impl Into<String>) -> Result<Self, Error> {
        let sender = sender.into();
        if sender.len() > MAX_SENDER_BYTES {
            return Err(Error::invalid(format!(
                "a sender has at most {MAX_SENDER_BYTES} bytes, this one has {}",
                sender.len()
            )));
        }
        Ok(Self { sender: Some(sender), ..self })
    }

    /// The room it goes to.
    pub fn room(&self) -> &RoomName {
        &self.room
    }

    /// Its payload, as JSON.
    pub fn data(&self) -> &str {
        self.data.get()
    }

    /// Its id: publishing it to the same room again within the hub's window stores nothing.
    pub fn id(&self) -> &MessageId {
        &self.id
    }

    /// Who publishes it, if said.
    pub fn sender(&self) -> Option<&str> {
        self.sender.as_deref()
    }

    /// About how many bytes it takes, in memory and in a request.
    pub(crate) fn size(&self) -> usize {
        // The names of the fields, quotes and commas.
        const FRAME: usize = 64;
        let sender = self.sender.as_ref().map_or(0, String::len);
        FRAME + self.room.as_str().len() + self.data.get().len() + self.id.as_str().len() + sender
    }

    pub(crate) fn to_wire(&self) -> Publish<&RawValue> {
        Publish {
            room: Some(self.room.clone()),
            rooms: None,
            data: &self.data,
            id: Some(self.id.clone()),
            sender: self.sender.clone(),
        }
    }
}

// A payload is the app's users' business and does not belong in a log.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("room", &self.room)
            .field("id", &self.id)
            .field("sender", &self.sender)
            .field("data", &format_args!("{} bytes", self.data.get().len()))
            .finish()
    }
}

/// What names a room: a text that is checked, or a [`RoomName`] that was.
///
/// Sealed: the crate may add to it.
pub trait IntoRoom: sealed::Sealed {
    /// Checks the name.
    ///
    /// # Errors
    /// [`InvalidMessage`](crate::ErrorKind::InvalidMessage) where it is not 1 to 255 bytes of UTF-8
    /// without control characters; [`source`](std::error::Error::source) says what is wrong with it.
    fn into_room(self) -> Result<RoomName, Error>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for &str {}
    impl Sealed for &String {}
    impl Sealed for String {}
    impl Sealed for super::RoomName {}
    impl Sealed for &super::RoomName {}
}

impl IntoRoom for &str {
    fn into_room(self) -> Result<RoomName, Error> {
        Ok(RoomName::new(self)?)
    }
}

impl IntoRoom for &String {
    fn into_room(self) -> Result<RoomName, Error> {
        self.as_str().into_room()
    }
}

impl IntoRoom for String {
    fn into_room(self) -> Result<RoomName, Error> {
        self.as_str().into_room()
    }
}

impl IntoRoom for RoomName {
    fn into_room(self) -> Result<RoomName, Error> {
        Ok(self)
    }
}

impl IntoRoom for &RoomName {
    fn into_room(self) -> Result<RoomName, Error> {
        Ok(self.clone())
    }
}

pub(crate) fn to_data<T: Serialize + ?Sized>(data: &T) -> Result<Box<RawValue>, Error> {
    to_raw_value(data).map_err(|source| Error::invalid("the data does not serialize to JSON").because(source))
}

pub(crate) fn random_id() -> MessageId {
    let mut text = uuid::Uuid::encode_buffer();
    let text = uuid::Uuid::new_v4().hyphenated().encode_lower(&mut text);
    // 36 hexadecimal digits and hyphens: short enough, and no control character among them.
    #[allow(clippy::expect_used)]
    MessageId::new(text).expect("a UUID is a message's id")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::error::Error as _;

    use twine_protocol::InvalidRoomName;

    use super::*;
    use crate::{ErrorKind, Stored};

    #[test]
    fn a_bad_room_is_refused_with_its_reason() {
        let error = Message::new("", &1).unwrap_err();
        assert_eq!((error.kind(), error.stored()), (ErrorKind::InvalidMessage, Stored::No));
        let reason = error.source().and_then(|source| source.downcast_ref::<InvalidRoomName>());
        assert_eq!(reason, Some(&InvalidRoomName::Empty));
        assert!(!error.is_retryable());
    }

    #[test]
    fn data_that_is_no_json_is_refused() {
        let keyed_by_pairs = BTreeMap::from([((1, 2), 3)]);
        assert_eq!(Message::new("chat", &keyed_by_pairs).unwrap_err().kind(), ErrorKind::InvalidMessage);
    }

    #[test]
    fn every_message_has_an_id_of_its_own_and_keeps_it() {
        let one = Message::new("chat", "hi").unwrap();
        let other = Message::new("chat", "hi").unwrap();
        assert_ne!(one.id(), other.id());
        assert_eq!(one.clone().id(), one.id());
        assert_eq!(one.with_id("mine").unwrap().id().as_str(), "mine");
        assert_eq!(other.with_id("").unwrap_err().kind(), ErrorKind::InvalidMessage);
    }

    #[test]
    fn a_sender_is_bounded() {
        let message = Message::new("chat", "hi").unwrap().with_sender("é".repeat(127)).unwrap();
        let error = message.with_sender("é".repeat(128)).unwrap_err();
        assert_eq!(error.to_string(), "a sender has at most 255 bytes, this one has 256");
    }

    #[test]
    fn a_payload_stays_out_of_debug_output() {
        let message = Message::new("chat", "secret").unwrap();
        assert!(!format!("{message:?}").contains("secret"));
    }
}
