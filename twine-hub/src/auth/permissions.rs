//! What an app that embeds the hub says of who may subscribe.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use twine_protocol::RoomName;

/// Who wants to subscribe; see [`Builder::permissions`](crate::Builder::permissions).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subscriber<'a> {
    /// The page's origin, like `https://app.example.com`; empty for a program that sends none.
    pub origin: &'a str,
    /// The other end of the connection: a proxy's, where there is one.
    pub address: IpAddr,
}

/// Decides whether somebody may subscribe to a room.
type Decide = dyn Fn(Subscriber<'_>, &str) -> bool + Send + Sync;

/// The decision, asked for each subscribe and each room that a session resumes.
#[derive(Clone)]
pub(crate) struct Permissions(Arc<Decide>);

impl Permissions {
    pub(crate) fn new(decide: impl Fn(Subscriber<'_>, &str) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(decide))
    }

    pub(crate) fn allow(&self, subscriber: Subscriber<'_>, room: &RoomName) -> bool {
        (self.0)(subscriber, room.as_str())
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permissions")
    }
}
