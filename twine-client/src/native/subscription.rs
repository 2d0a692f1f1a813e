//! A room's messages, as an app reads them.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio::sync::mpsc;
use twine_protocol::{Data, Gap, Position, RoomName};

use super::Error;
use crate::core::Delivery;

/// Events of a room that wait for the app; when there are so many, the socket is not read any more.
pub const QUEUE_MAX: usize = 64;

/// A message of a room, with its payload as raw JSON.
pub type Message = Delivery<Data>;

/// What happens in a room.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A message.
    Message(Message),
    /// Messages that can no longer be delivered.
    Gap(Gap),
}

/// A room's messages, in order and once, across lost connections.
///
/// Read it with [`Subscription::recv`] or as a `Stream`. Dropping it ends the subscription.
#[derive(Debug)]
#[must_use = "a subscription that is dropped ends"]
pub struct Subscription {
    position: Position,
    recovered: Option<bool>,
    // Closed before the notice below is sent: fields are dropped in their order.
    events: mpsc::Receiver<Event>,
    ended: Ended,
    dropped: Dropped,
}

/// Which of the subscriptions that a room had one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation(pub(super) u64);

/// Why a subscription ended by itself; empty where the app ended it.
#[derive(Debug, Clone, Default)]
pub(super) struct Ended(Arc<Mutex<Option<Error>>>);

/// Tells the driver that the app has dropped its subscription.
///
/// Not bounded, for a drop can't wait; each subscription sends once.
#[derive(Debug)]
pub(super) struct Dropped {
    pub(super) room: RoomName,
    pub(super) generation: Generation,
    pub(super) notices: mpsc::UnboundedSender<(RoomName, Generation)>,
}

impl Subscription {
    pub(super) fn new(
        position: Position,
        recovered: Option<bool>,
        events: mpsc::Receiver<Event>,
        ended: Ended,
        dropped: Dropped,
    ) -> Self {
        Self { position, recovered, events, ended, dropped }
    }

    /// The room.
    pub fn room(&self) -> &RoomName {
        &self.dropped.room
    }

    /// Where it started: the first message is the one after this position.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Whether nothing was known to be lost when it started; `None` where there was nothing to
    /// recover from.
    pub fn recovered(&self) -> Option<bool> {
        self.recovered
    }

    /// The next event. `None` after the subscription has ended; an error says why, where the app did
    /// not end it itself, and is the last item.
    ///
    /// # Errors
    /// [`Error::Call`] where the hub refuses the room from now on, [`Error::Closed`] where it refuses
    /// the client.
    ///
    /// # Cancel safety
    /// No event is lost where this is dropped before it completes.
    pub async fn recv(&mut self) -> Option<Result<Event, Error>> {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Event, Error>>> {
        self.events.poll_recv(cx).map(|event| match event {
            Some(event) => Some(Ok(event)),
            None => self.ended.take().map(Err),
        })
    }
}

impl Stream for Subscription {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_recv(cx)
    }
}

impl Ended {
    pub(super) fn set(&self, error: Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    fn take(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Dropped {
    fn drop(&mut self) {
        // Without a driver there is nothing to end.
        let _ = self.notices.send((self.room.clone(), self.generation));
    }
}
