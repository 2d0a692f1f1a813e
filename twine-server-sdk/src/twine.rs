//! Publishing, and waiting for the hub's word.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use twine_protocol::RoomName;
use twine_protocol::api::{Publish, PublishBatch, Published, PublishedList};

use crate::exchange::Hub;
use crate::message::{random_id, to_data};
use crate::{Error, IntoRoom, Message, PublisherBuilder, TwineBuilder};

/// Publishes to a hub.
///
/// It keeps its connections and shares them with its clones, which cost nothing: make one per
/// process, and clone it. Every call needs a tokio runtime with time and I/O enabled; the feature
/// `blocking` has a `blocking::Twine` for everyone else.
///
/// A publish that fails for a passing reason (no connection, a broken one, 408, 429, 5xx) is repeated
/// until the [deadline](TwineBuilder::deadline) with the same message id, so that the hub stores and
/// delivers it once.
///
/// # Cancel safety
/// A publish whose future is dropped may have been stored, or not.
#[derive(Clone)]
pub struct Twine {
    pub(crate) hub: Arc<Hub>,
}

impl Twine {
    /// A publisher to the hub at `url`, with defaults for everything else.
    ///
    /// Use `https`, for the API key travels with every request; `http` is for a hub on the same
    /// machine or in the same private network.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), twine_server_sdk::Error> {
    /// use twine_server_sdk::Twine;
    ///
    /// let twine = Twine::new("https://rt.example.com", "API_KEY")?;
    /// twine.publish("chat", "hello").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) where the URL or the key can't be one, or the system's
    /// root certificates can't be read. Nothing is connected yet.
    pub fn new(url: impl Into<String>, api_key: impl Into<String>) -> Result<Self, Error> {
        Self::builder(url, api_key).build()
    }

    /// Starts with the defaults, to change some of them.
    pub fn builder(url: impl Into<String>, api_key: impl Into<String>) -> TwineBuilder {
        TwineBuilder::new(url.into(), api_key.into())
    }

    /// Publishes `data`, as JSON, to `room`. Once this returns `Ok`, the message is stored durably.
    ///
    /// # Errors
    /// [`Error::kind`] says what went wrong, [`Error::stored`] what became of the message. To be able
    /// to publish it again under the same id, make it a [`Message`] first.
    pub async fn publish<T>(&self, room: impl IntoRoom, data: &T) -> Result<Published, Error>
    where
        T: Serialize + ?Sized,
    {
        self.publish_message(&Message::new(room, data)?).await
    }

    /// Publishes a message that was made before, with its id and sender.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub async fn publish_message(&self, message: &Message) -> Result<Published, Error> {
        let request = self.hub.request("api/publish", &message.to_wire(), 1)?;
        self.hub.send(&request, self.hub.deadline).await
    }

    /// Publishes the same `data` to several rooms by one request. The results are in the rooms' order;
    /// no room gives none.
    ///
    /// # Errors
    /// As [`publish`](Self::publish). All rooms get the message, or none does.
    pub async fn publish_to_rooms<R, T>(
        &self,
        rooms: impl IntoIterator<Item = R>,
        data: &T,
    ) -> Result<Vec<Published>, Error>
    where
        R: IntoRoom,
        T: Serialize + ?Sized,
    {
        let rooms: Vec<RoomName> = rooms.into_iter().map(R::into_room).collect::<Result<_, _>>()?;
        let n_rooms = rooms.len();
        if n_rooms == 0 {
            return Ok(Vec::new());
        }
        let body = Publish {
            room: None,
            rooms: Some(rooms),
            data: to_data(data)?,
            id: Some(random_id()),
            sender: None,
        };
        let request = self.hub.request("api/publish", &body, n_rooms)?;
        let list: PublishedList = self.hub.send(&request, self.hub.deadline).await?;
        Ok(list.results)
    }

    /// Publishes several messages by one request, which costs the hub one write to its disk. The
    /// results are in the messages' order, which they keep in their rooms; no message gives none.
    ///
    /// # Errors
    /// As [`publish`](Self::publish). All messages are stored, or none is; where the hub refuses one,
    /// [`Error::index`] says which.
    pub async fn publish_batch(&self, messages: &[Message]) -> Result<Vec<Published>, Error> {
        self.send_batch(messages, self.hub.deadline).await
    }

    /// A queue to publish through without ever waiting for the hub; see [`Publisher`](crate::Publisher).
    pub fn publisher(&self) -> PublisherBuilder {
        PublisherBuilder::new(self.clone())
    }

    pub(crate) async fn send_batch(
        &self,
        messages: &[Message],
        deadline: Duration,
    ) -> Result<Vec<Published>, Error> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let body = PublishBatch { messages: messages.iter().map(Message::to_wire).collect() };
        let request = self.hub.request("api/publish/batch", &body, messages.len())?;
        let list: PublishedList = self.hub.send(&request, deadline).await?;
        Ok(list.results)
    }
}

impl fmt::Debug for Twine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key stays out.
        f.debug_struct("Twine")
            .field("url", &self.hub.url.as_str())
            .field("request_timeout", &self.hub.request_timeout)
            .field("deadline", &self.hub.deadline)
            .field("retry", &self.hub.retry)
            .finish_non_exhaustive()
    }
}
