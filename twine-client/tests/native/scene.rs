//! A hub, a way to it that can be disturbed, and a backend that publishes.

use twine_client::{Client, Event, Message, Subscription};
use twine_hub::{Hub, Running};
use twine_server_sdk::Twine;

use crate::proxy::Proxy;

pub(crate) struct Scene {
    pub(crate) hub: Running,
    pub(crate) proxy: Proxy,
    pub(crate) backend: Twine,
}

impl Scene {
    pub(crate) async fn start() -> Self {
        Self::with(Hub::builder().ephemeral().start().await.unwrap())
    }

    pub(crate) fn with(hub: Running) -> Self {
        let proxy = Proxy::start(hub.address());
        let backend = backend(&hub);
        Self { hub, proxy, backend }
    }

    /// A client that comes through the proxy.
    pub(crate) async fn client(&self) -> Client {
        Client::builder(&self.proxy.url()).connect().await.unwrap()
    }

    pub(crate) async fn publish(&self, room: &str, numbers: impl IntoIterator<Item = u32>) {
        for number in numbers {
            self.backend.publish(room, &number).await.unwrap();
        }
    }
}

/// A backend of this hub.
pub(crate) fn backend(hub: &Running) -> Twine {
    Twine::new(hub.url(), hub.api_key().expose()).unwrap()
}

/// The next message; a gap is a failure.
pub(crate) async fn next(subscription: &mut Subscription) -> Message {
    match subscription.recv().await {
        Some(Ok(Event::Message(message))) => message,
        other => panic!("no message but {other:?}"),
    }
}

/// The next messages are these numbers.
pub(crate) async fn expect(subscription: &mut Subscription, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        assert_eq!(next(subscription).await.data.get(), number.to_string());
    }
}
