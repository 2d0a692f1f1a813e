//! What arrives on the channels that this hub watches: what other hubs say about rooms, mostly.

use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::warn;
use twine_protocol::RoomName;

use super::chunk::Chunk;
use super::keys;
use super::link::Shared;
use super::subscriptions::Pushed;
use crate::seldom::Seldom;

/// The receiving end, for one consumer. What it does not take in time is dropped, and it is told.
pub(crate) struct Bus {
    receiver: mpsc::Receiver<Pushed>,
    shared: Arc<Shared>,
    malformed: Seldom,
}

/// What arrived, unread.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// This.
    Pushed(Pushed),
    /// Something may have been missed, on any channel.
    Interrupted,
}

/// What happened.
#[derive(Debug, Clone)]
pub(crate) enum BusEvent {
    /// Something was said about a room.
    Said { room: RoomName, chunk: Chunk },
    /// What was said about this room can't be read: look at it.
    Unreadable(RoomName),
    /// Messages may have been missed: look at every watched room.
    Interrupted,
}

impl Bus {
    pub(super) fn new(receiver: mpsc::Receiver<Pushed>, shared: Arc<Shared>) -> Self {
        Self { receiver, shared, malformed: Seldom::default() }
    }

    /// Waits for what happens next; `None` once the link is closed.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn next(&mut self) -> Option<BusEvent> {
        loop {
            let pushed = match self.arrival().await? {
                Arrival::Pushed(pushed) => pushed,
                Arrival::Interrupted => return Some(BusEvent::Interrupted),
            };
            let Some(room) = keys::room_of(&pushed.channel) else { continue };
            return Some(match Chunk::decode(&pushed.payload) {
                Ok(chunk) => BusEvent::Said { room, chunk },
                Err(error) => {
                    self.malformed
                        .say(|unsaid| warn!(%room, %error, unsaid, "a message of the bus can't be read"));
                    BusEvent::Unreadable(room)
                }
            });
        }
    }

    /// The same, for whoever watches channels that are none of rooms.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn arrival(&mut self) -> Option<Arrival> {
        let subscriptions = &self.shared.subscriptions;
        let pushed = tokio::select! {
            biased;
            () = self.shared.stop.cancelled() => return None,
            // First, for looking at the rooms makes what is still queued superfluous.
            () = subscriptions.missed() => {
                subscriptions.take_missed();
                return Some(Arrival::Interrupted);
            }
            pushed = self.receiver.recv() => pushed?,
        };
        subscriptions.taken(&pushed);
        Some(Arrival::Pushed(pushed))
    }
}
