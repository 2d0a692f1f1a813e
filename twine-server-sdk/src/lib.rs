#![doc = include_str!("../README.md")]

mod answer;
#[cfg(feature = "blocking")]
pub mod blocking;
mod builder;
mod error;
mod exchange;
mod message;
mod publisher;
mod retry;
mod tls;
mod twine;

pub use builder::TwineBuilder;
pub use error::{Error, ErrorKind, Stored};
pub use message::{IntoRoom, Message};
pub use publisher::{Publisher, PublisherBuilder, PublisherStats};
pub use retry::RetryPolicy;
pub use twine::Twine;

/// The HTTP client below, for [`TwineBuilder::client`].
pub use reqwest;
pub use twine_protocol::api::Published;
pub use twine_protocol::{Epoch, ErrorCode, InvalidId, InvalidRoomName, MessageId, Offset, RoomName};

// What is handed between tasks and threads must be made for it.
const _: () = {
    const fn is_shareable<T: Send + Sync + 'static>() {}
    is_shareable::<Twine>();
    is_shareable::<TwineBuilder>();
    is_shareable::<Publisher>();
    is_shareable::<PublisherBuilder>();
    is_shareable::<Message>();
    is_shareable::<Error>();
    #[cfg(feature = "blocking")]
    is_shareable::<blocking::Twine>();
};

const _: fn(&Twine, &Message, &Publisher) = |twine, message, publisher| {
    const fn is_sendable<T: Send>(_: &T) {}
    is_sendable(&twine.publish("chat", "hello"));
    is_sendable(&twine.publish_message(message));
    is_sendable(&twine.publish_to_rooms(["chat"], "hello"));
    is_sendable(&twine.publish_batch(&[]));
    is_sendable(&publisher.flush());
    is_sendable(&publisher.close());
};
