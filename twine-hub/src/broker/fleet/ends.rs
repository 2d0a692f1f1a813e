//! Where rooms end that have fallen silent.
//!
//! What a room's log ends with is told by its last messages in the table, and the table deletes them. So
//! each hub that publishes in a room or watches it notes its end in the fence, once, when the room has
//! been silent for some time: whoever seals the epoch later knows it from there. A room that is never
//! silent costs nothing.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::time::Instant;
use twine_protocol::{Offset, Position, RoomName};

use super::{FINISH, Fleet};
use crate::rooms::locked;
use crate::store::Retention;

/// How long a room is silent before its end is noted, at most...
const SILENT: Duration = Duration::from_mins(10);
/// ...and which part of the retention at most, whose rest is for trying again.
const PART: u32 = 4;
/// How often rooms are looked for that have fallen silent.
const EVERY: Duration = Duration::from_secs(5);
/// How long noting all that are found may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Ends that are being noted at once.
const IN_FLIGHT: usize = 16;
/// Rooms whose ends are to be noted. Of more, whoever watches or opens one later notes it.
const MAX_ROOMS: usize = 100_000;

/// Rooms that have moved on since their ends were noted: where to, and when.
#[derive(Default)]
pub(super) struct Ends(Mutex<HashMap<RoomName, (Position, Instant)>>);

impl Ends {
    /// What a room has durable without a hole goes up to here.
    pub(super) fn moved(&self, room: &RoomName, done: &Position) {
        if done.offset == Offset::ZERO {
            return;
        }
        let mut rooms = locked(&self.0);
        let (done, now) = (done.clone(), Instant::now());
        if let Some(end) = rooms.get_mut(room) {
            if end.0 < done {
                *end = (done, now);
            }
        } else if rooms.len() < MAX_ROOMS {
            rooms.insert(room.clone(), (done, now));
        }
    }

    /// Takes the rooms that have been silent for so long.
    pub(super) fn take(&self, silent: Duration) -> Vec<(RoomName, Position)> {
        let mut rooms = locked(&self.0);
        let due = rooms.extract_if(|_, (_, since)| since.elapsed() >= silent);
        due.map(|(room, (done, _))| (room, done)).collect()
    }
}

impl Fleet {
    /// Notes the ends of rooms that fall silent, and of all when the broker stops.
    pub(super) async fn note_ends(&self) {
        let Retention::For(kept) = self.table.retention() else {
            // Nothing is ever deleted.
            return;
        };
        let silent = SILENT.min(kept / PART);
        while self.stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            let noted = self.note_silent(silent, Instant::now() + PATIENCE);
            self.stop.run_until_cancelled(Box::pin(noted)).await;
        }
        // Nobody else may be there who knows. Beyond this time the connections end.
        self.note_silent(Duration::ZERO, Instant::now() + FINISH).await;
    }

    /// Notes the ends of rooms that have been silent for so long.
    pub(super) async fn note_silent(&self, silent: Duration, deadline: Instant) {
        let noted = self.ends.take(silent).into_iter().map(|(room, done)| async move {
            if let Err(error) = self.table.note(&room, &done, deadline).await {
                tracing::debug!(%room, %error, "where a silent room ends could not be noted yet");
                // It is tried again after the same time.
                self.ends.moved(&room, &done);
            }
        });
        stream::iter(noted).buffer_unordered(IN_FLIGHT).collect::<()>().await;
    }
}
