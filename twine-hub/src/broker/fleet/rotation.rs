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

use futures_util::future::{BoxFuture, FutureExt as _, Shared};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::{Instant, sleep, timeout_at};
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

/// How long a rotation may take: the last ids of a busy room are many.
const PATIENCE: Duration = Duration::from_mins(1);
/// How far the clocks of hubs and servers may be apart before a hub takes the time of a room's last message
/// for longer ago than it is.
const CLOCKS_DIFFER: Duration = Duration::from_hours(1);
/// How long a hub lets another one finish, on average, that was quicker; and how long it waits before it
/// ends the epoch of a server that believes itself to be sound.
const GIVE_WAY: Duration = Duration::from_millis(150);

/// What those who wait for a rotation share.
type Rotating = Shared<BoxFuture<'static, Result<Found, FleetError>>>;

/// The rooms that this hub rotates now: each once, whoever asks, and for as long as it takes.
#[derive(Default)]
pub(super) struct Rotations(Mutex<HashMap<RoomName, Rotating>>);

impl Fleet {
    /// Sees to it that Redis knows the room, and says how far the room is.
    ///
    /// # Errors
    /// Where Redis or the table is not to be had until the deadline. It may be repeated.
    pub(super) async fn look(
        self: &Arc<Self>,
        room: &RoomName,
        deadline: Instant,
    ) -> Result<Found, FleetError> {
        match self.link.look(room).await? {
            Looked::Known { done, head, stalled, .. } => Ok(Found { done, head, stalled }),
            Looked::Rotate(_) => self.rotated(room, None, deadline).await,
        }
    }

    /// Has the room go on in a later epoch than `ended`, which the fence has open no more or whose log
    /// is lost, though Redis may not know.
    ///
    /// # Errors
    /// As [`Fleet::look`].
    pub(super) async fn rotated(
        self: &Arc<Self>,
        room: &RoomName,
        ended: Option<Epoch>,
        deadline: Instant,
    ) -> Result<Found, FleetError> {
        let rotating = {
            let mut rooms = locked(&self.rotations.0);
            if let Some(rotating) = rooms.get(room).filter(|rotating| rotating.peek().is_none()) {
                rotating.clone()
            } else {
                let (fleet, name) = (self.clone(), room.clone());
                let task = self.tasks.spawn(async move {
                    let rotate = Box::pin(fleet.rotate(&name, ended.as_ref(), Instant::now() + PATIENCE));
                    // It may be left at any point: the fence says where the next hub goes on.
                    let found = fleet.stop.run_until_cancelled(rotate).await;
                    locked(&fleet.rotations.0).remove(&name);
                    found.unwrap_or(Err(FleetError::Closed))
                });
                let rotating = task.map(|found| found.unwrap_or(Err(FleetError::Closed))).boxed().shared();
                rooms.insert(room.clone(), rotating.clone());
                rotating
            }
        };
        timeout_at(deadline, rotating).await.unwrap_or(Err(FleetError::Deadline))
    }

    async fn rotate(
        &self,
        room: &RoomName,
        ended: Option<&Epoch>,
        deadline: Instant,
    ) -> Result<Found, FleetError> {
        for _ in 0..MAX_ATTEMPTS {
            // Another hub may have done it meanwhile.
            let (server, begun) = match self.link.look(room).await? {
                Looked::Known { done, head, stalled, server } => {
                    if ended != Some(&done.epoch) {
                        return Ok(Found { done, head, stalled });
                    }
                    // One that was cut off learns so soon, and others are about to do this.
                    sleep(GIVE_WAY.mul_f64(2.0 * fastrand::f64())).await;
                    (server, Some(done.epoch))
                }
                Looked::Rotate(rotate) => (rotate.server, rotate.last.map(|last| last.epoch)),
            };
            let Some(fence) = self.open_next(room, begun.as_ref(), deadline).await? else {
                sleep(GIVE_WAY.mul_f64(2.0 * fastrand::f64())).await;
                continue;
            };
            let last_time = self.remember(room, &fence, deadline).await?;
            match self.link.install(room, &server, &fence.epoch, last_time).await? {
                Installed::Yes => {
                    tracing::info!(%room, epoch = %fence.epoch, "a room goes on in a new epoch");
                }
                // Another hub was quicker, or the server has changed again.
                Installed::Later(_) | Installed::OtherServer(_) => {}
            }
        }
        Err(FleetError::Restless)
    }

    /// Advances the fence to an epoch of this hub's own and seals the one before; `None` where another hub
    /// was quicker. Only who opened an epoch installs it, so that it never begins on two servers, or
    /// twice on one. It is later than `begun` too, the one that Redis knows: the fence may have been
    /// forgotten, or the table restored, and a hub's clock be behind that of who opened that one.
    pub(super) async fn open_next(
        &self,
        room: &RoomName,
        begun: Option<&Epoch>,
        deadline: Instant,
    ) -> Result<Option<Fence>, FleetError> {
        let fence = self.table.fence(room, deadline).await?;
        let from = match fence {
            Some(fence) if fence.closing.is_some() => {
                // Whoever opened its epoch may have been interrupted.
                self.seal(room, fence, deadline).await?;
                return Ok(None);
            }
            fence => fence.map(|fence| fence.epoch),
        };
        let own = epoch::mint(from.as_ref().max(begun));
        let fence = self.table.advance(room, from.as_ref(), &own, deadline).await?;
        let fence = self.seal(room, fence, deadline).await?;
        Ok((fence.epoch == own).then_some(fence))
    }

    pub(super) async fn seal(
        &self,
        room: &RoomName,
        fence: Fence,
        deadline: Instant,
    ) -> Result<Fence, FleetError> {
        let Some(closing) = &fence.closing else { return Ok(fence) };
        let end = self.table.end(room, closing, deadline).await?.unwrap_or(Offset::ZERO);
        // What is further back than may be pending is durable without a hole, and so is what was noted to be,
        // whatever the table still has of it.
        let safe = end.get().saturating_sub(self.limits.max_pending);
        let safe = Offset::new(safe).unwrap_or(Offset::ZERO).max(fence.noted);
        let tail = self.table.tail(room, closing, safe, deadline).await?;
        let seal = Seal { epoch: closing.clone(), last: tail.last, missing: tail.missing };
        Ok(self.table.seal(room, &fence, seal, deadline).await?)
    }

    /// Has Redis remember the ids of the last messages, and says when the last of them was published.
    pub(super) async fn remember(
        &self,
        room: &RoomName,
        fence: &Fence,
        deadline: Instant,
    ) -> Result<u64, FleetError> {
        let window = self.limits.window;
        let fence = self.table.whole(room, fence.clone(), deadline).await?;
        let mut ids = self.table.ids(room, &fence, window);
        while let Some(page) = ids.next(deadline).await? {
            let Some(last_time) = ids.last_time() else { continue };
            if clock::unix_millis().saturating_sub(last_time) > clock::millis(window + CLOCKS_DIFFER) {
                // Nobody repeats any of these any more.
                break;
            }
            let remembered = page.into_iter().map(|StoredId { id, position, time }| async move {
                let left = window.saturating_sub(Duration::from_millis(last_time.saturating_sub(time)));
                self.link.remember(room, &id, &position, left).await
            });
            stream::iter(remembered).buffer_unordered(IDS_IN_FLIGHT).try_collect::<()>().await?;
        }
        Ok(ids.last_time().unwrap_or_default())
    }
}

/// How far a room is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// What may be shown.
    pub(super) done: Position,
    /// The last offset that was assigned.
    pub(super) head: Offset,
    /// For how long that has stood still though messages are pending.
    pub(super) stalled: Duration,
}

impl Found {
    pub(super) fn epoch(&self) -> &Epoch {
        &self.done.epoch
    }
}
