//! What the backend does: it publishes, to two rooms.
//!
//! People's messages are history, who is typing is not: a room of its own keeps it from filling the
//! first one's. A message is answered once it is stored; that someone types must never make anyone
//! wait, so it goes through a queue.

use std::time::Duration;

use serde::Serialize;
use tracing::info;
use twine_server_sdk::{Error, Message, Publisher, Twine};

use crate::post::{Name, PostedMessage, PostedTyping, Text};

/// The room of messages.
const MESSAGES: &str = "chat";
/// The room that tells who is typing.
const TYPING: &str = "chat.typing";

/// How long the hub may be away before a page is told that its message was not sent. Shorter than
/// the SDK's own default, for a person waits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Waiting to be published at most: old news by then.
const TYPING_QUEUE: usize = 100;
/// How long "is typing" is worth sending.
const TYPING_LASTS: Duration = Duration::from_secs(3);

/// Publishes what people do. Clones share its connections.
#[derive(Clone)]
pub(crate) struct Chat {
    twine: Twine,
    typing: Publisher,
}

#[derive(Serialize)]
struct Said {
    name: Name,
    text: Text,
}

#[derive(Serialize)]
struct Typing {
    name: Name,
}

impl Chat {
    /// Starts the queue, on the present runtime.
    pub(crate) fn start(twine: Twine) -> Result<Self, Error> {
        let typing = twine.publisher().max_messages(TYPING_QUEUE).retry_for(TYPING_LASTS).start()?;
        Ok(Self { twine, typing })
    }

    /// Publishes a message; it is stored when this returns.
    pub(crate) async fn say(&self, posted: PostedMessage) -> Result<(), Error> {
        let PostedMessage { id, author, name, text } = posted;
        let mut message = Message::new(MESSAGES, &Said { name, text })?;
        if let Some(id) = &id {
            message = message.with_id(id.as_str())?;
        }
        if let Some(author) = &author {
            message = message.with_sender(author.as_str())?;
        }
        self.twine.publish_message(&message).await?;
        Ok(())
    }

    /// Tells that someone is typing, as soon as may be.
    pub(crate) fn typing(&self, posted: PostedTyping) -> Result<(), Error> {
        let PostedTyping { author, name } = posted;
        let message = Message::new(TYPING, &Typing { name })?.with_sender(author.as_str())?;
        self.typing.publish_message(message)
    }

    /// Publishes what is still queued.
    pub(crate) async fn stop(self) {
        let stats = self.typing.close().await;
        info!(published = stats.published, dropped = stats.dropped, "stopped");
    }
}
