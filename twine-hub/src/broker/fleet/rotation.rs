//! Opening a room's next epoch: Redis does not know the room, or is not the server that its epoch was
//! installed on, so that what it assigned last may be lost.
//!
//! The fence in the table decides. It advances first, so that nobody acknowledges anything in the
//! epoch before any more; then that one's end is read and sealed; then the ids of its messages are
//! remembered, so that a publish that is repeated finds the first; and only then Redis learns of the
//! new epoch, and gives out places in it. A hub that dies in between leaves a fence that says how far it
//! was, and the next one goes on from there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::{Instant, timeout_at};
use twine_protocol::{Epoch, Offset, Position, RoomName};

use super::{Fleet, FleetError};
use crate::broker::redis::{Installed, Looked};
use crate::clock;
use crate::rooms::locked;
use crate::store::dynamodb::{Fence, Seal, StoredId};
use crate::store::epoch;

/// Servers that may change while a room is being rotated, until it is given up for now.
const MAX_ATTEMPTS: usize = 8;
/// Ids that are on their way to Redis at once.
const IDS_IN_FLIGHT: usize = 256;

/// The rooms that this hub rotates now, so that it does each once.
#[derive(Default)]
pub(super) struct Rotations(Mutex<HashMap<RoomName, Arc<tokio::sync::Mutex<()>>>>);

impl Rotations {
    fn of(&self, room: &RoomName) -> Arc<tokio::sync::Mutex<()>> {
        locked(&self.0).entry(room.clone()).or_default().clone()
    }

    /// Forgets a room that nobody waits for any more.
    fn done(&self, room: &RoomName, own: Arc<tokio::sync::Mutex<()>>) {
        let mut rooms = locked(&self.0);
        drop(own);
        if rooms.get(room).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            rooms.remove(room);
        }
    }
}

impl Fleet {
    /// Sees to it that Redis knows the room, in an epoch that the fence has open, and says how far the
    /// room is.
    ///
    /// # Errors
    /// Where Redis or the table is not to be had until the deadline. It may be repeated.
    pub(super) async fn look(&self, room: &RoomName, deadline: Instant) -> Result<Found, FleetError> {
        match self.link.look(room).await? {
            Looked::Known { done, stalled, .. } => Ok(Found { done, stalled }),
            Looked::Rotate(_) => {
                let lock = self.rotations.of(room);
                let found = match timeout_at(deadline, lock.lock()).await {
                    Ok(_alone) => self.rotate(room, deadline).await,
                    Err(_) => Err(FleetError::Deadline),
                };
                self.rotations.done(room, lock);
                found
            }
        }
    }

    async fn rotate(&self, room: &RoomName, deadline: Instant) -> Result<Found, FleetError> {
        for _ in 0..MAX_ATTEMPTS {
            // Whoever has waited for another to do it finds it done.
            let rotate = match self.link.look(room).await? {
                Looked::Known { done, stalled, .. } => return Ok(Found { done, stalled }),
                Looked::Rotate(rotate) => rotate,
            };
            let fence = self.open_next(room, deadline).await?;
            let last_time = self.remember(room, &fence, deadline).await?;
            match self.link.install(room, &rotate.server, &fence.epoch, last_time).await? {
                Installed::Yes => {
                    tracing::info!(%room, epoch = %fence.epoch, "a room goes on in a new epoch");
                }
                // Another hub was quicker, or the server has changed again.
                Installed::Later(_) | Installed::OtherServer(_) => {}
            }
        }
        Err(FleetError::Restless)
    }

    /// Advances the fence to an epoch that was never installed anywhere, and seals the one before.
    async fn open_next(&self, room: &RoomName, deadline: Instant) -> Result<Fence, FleetError> {
        let fence = self.table.fence(room, deadline).await?;
        let from = match fence {
            // Somebody was interrupted before the new epoch was installed: it is as good as a newer one.
            Some(fence) if fence.closing.is_some() => return self.seal(room, fence, deadline).await,
            fence => fence.map(|fence| fence.epoch),
        };
        let fence = self.table.advance(room, from.as_ref(), &epoch::mint(from.as_ref()), deadline).await?;
        // Where another hub was quicker this is its epoch, which both install.
        self.seal(room, fence, deadline).await
    }

    async fn seal(&self, room: &RoomName, fence: Fence, deadline: Instant) -> Result<Fence, FleetError> {
        let Some(closing) = &fence.closing else { return Ok(fence) };
        let end = self.table.end(room, closing, deadline).await?.unwrap_or(Offset::ZERO);
        // What is further back than may be pending is durable without a hole.
        let safe = end.get().saturating_sub(self.limits.max_pending);
        let safe = Offset::new(safe).unwrap_or(Offset::ZERO);
        let tail = self.table.tail(room, closing, safe, deadline).await?;
        let seal = Seal { epoch: closing.clone(), last: tail.last, missing: tail.missing };
        Ok(self.table.seal(room, &fence, seal, deadline).await?)
    }

    /// Has Redis remember the ids of the last messages, and says when the last of them was published.
    async fn remember(&self, room: &RoomName, fence: &Fence, deadline: Instant) -> Result<u64, FleetError> {
        let now = clock::unix_millis();
        let window = self.limits.window;
        let since = now.saturating_sub(u64::try_from(window.as_millis()).unwrap_or(u64::MAX));
        let mut last_time = 0;
        let mut ids = self.table.ids(room, fence, since);
        while let Some(page) = ids.next(deadline).await? {
            last_time = page.iter().map(|stored| stored.time).max().unwrap_or(0).max(last_time);
            let remembered = page.into_iter().map(|StoredId { id, position, time }| async move {
                let left = window.saturating_sub(Duration::from_millis(now.saturating_sub(time)));
                self.link.remember(room, &id, &position, left).await
            });
            stream::iter(remembered).buffer_unordered(IDS_IN_FLIGHT).try_collect::<()>().await?;
        }
        Ok(last_time)
    }
}

/// How far a room is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// What may be shown.
    pub(super) done: Position,
    /// For how long that has stood still though messages are pending.
    pub(super) stalled: Duration,
}

impl Found {
    pub(super) fn epoch(&self) -> &Epoch {
        &self.done.epoch
    }
}
