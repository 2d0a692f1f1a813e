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
pub(super) struct Ends {
    rooms: Mutex<HashMap<RoomName, (Position, Instant)>>,
    /// Where nothing is ever deleted, the messages tell where a room ends.
    is_needed: bool,
}

impl Ends {
    /// Those of a table that keeps messages for so long.
    pub(super) fn of(retention: Retention) -> Self {
        Self { rooms: Mutex::default(), is_needed: retention != Retention::Forever }
    }

    /// What a room has durable without a hole goes up to here.
    pub(super) fn moved(&self, room: &RoomName, done: &Position) {
        if !self.is_needed || done.offset == Offset::ZERO {
            return;
        }
        let mut rooms = locked(&self.rooms);
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
        let mut rooms = locked(&self.rooms);
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
            // Those that were taken are noted to the end, or as long as there is time at the end.
            let out_of_time = async {
                self.stop.cancelled().await;
                tokio::time::sleep(FINISH).await;
            };
            tokio::select! {
                () = Box::pin(self.note_silent(silent, Instant::now() + PATIENCE)) => {}
                () = out_of_time => return,
            }
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
