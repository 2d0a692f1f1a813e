//! The writing side, on the committer's thread.

use std::collections::HashMap;
use std::fs::File;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, params};
use twine_protocol::{Epoch, MessageId, Offset, Position, RoomName};

use super::place::Place;
use super::{epoch_name, offset};
use crate::clock;
use crate::store::{Record, StoreError, Writer};

/// Ends and names of epochs are kept this long after the last message of theirs may be asked for.
const SEALS_OUTLIVE: Duration = Duration::from_hours(7 * 24);
/// How often old ones are looked for. Where there are any, that reads a row for each room and epoch.
const SEALS_EVERY: Duration = Duration::from_hours(1);

pub(super) struct SqliteWriter {
    pub(super) connection: Connection,
    epoch_id: i64,
    epoch: Epoch,
    last_time: u64,
    /// The rooms that the open transaction has met.
    touched: HashMap<RoomName, Touched>,
    next_seals: Instant,
    place: Place,
    _lock: File,
}

/// A room in a transaction.
#[derive(Debug, Clone, Copy)]
struct Touched {
    id: i64,
    /// The last offset that the transaction has appended; written once, when it commits.
    last: Option<Offset>,
}

impl SqliteWriter {
    /// `lock` holds the folder for as long as the writer lives.
    pub(super) fn new(
        connection: Connection,
        epoch_id: i64,
        epoch: Epoch,
        last_time: u64,
        place: Place,
        lock: File,
    ) -> Self {
        Self {
            connection,
            epoch_id,
            epoch,
            last_time,
            touched: HashMap::new(),
            next_seals: clock::now(),
            place,
            _lock: lock,
        }
    }

    fn execute(
        &self,
        action: &'static str,
        sql: &str,
        params: impl rusqlite::Params,
    ) -> Result<usize, StoreError> {
        let mut statement = self.connection.prepare_cached(sql).map_err(StoreError::database(action))?;
        statement.execute(params).map_err(StoreError::database(action))
    }

    /// The room's number, looked up once in a transaction.
    fn room_id(&mut self, room: &RoomName) -> Result<Option<i64>, StoreError> {
        if let Some(touched) = self.touched.get(room) {
            return Ok(Some(touched.id));
        }
        let found = room_id(&self.connection, room)?;
        if let Some(id) = found {
            self.touched.insert(room.clone(), Touched { id, last: None });
        }
        Ok(found)
    }

    fn room_id_or_new(&mut self, room: &RoomName) -> Result<i64, StoreError> {
        if let Some(id) = self.room_id(room)? {
            return Ok(id);
        }
        self.execute("naming a room", "INSERT INTO rooms (name) VALUES (?1)", [room.as_str()])?;
        Ok(self.connection.last_insert_rowid())
    }

    /// Writes the ends of the rooms that the transaction has appended to, and makes it durable.
    fn finish(&self) -> Result<(), StoreError> {
        for Touched { id, last } in self.touched.values() {
            if let Some(last) = last {
                self.execute(
                    "storing a room's head",
                    "INSERT INTO ends (room, epoch, last) VALUES (?1, ?2, ?3)
                     ON CONFLICT (room, epoch) DO UPDATE SET last = excluded.last",
                    params![id, self.epoch_id, last.get()],
                )?;
            }
        }
        self.place.check()?;
        self.execute("committing", "COMMIT", []).map(drop)
    }

    /// Forgets epochs, ends and rooms that no cursor worth recovering can name any more.
    fn expire_seals(&mut self, cut: u64) -> Result<(), StoreError> {
        let cut = cut.saturating_sub(clock::millis(SEALS_OUTLIVE));
        self.begin()?;
        match self.delete_seals(cut) {
            Ok(()) => self.commit(),
            Err(error) => {
                self.rollback();
                Err(error)
            }
        }
    }

    fn delete_seals(&self, cut: u64) -> Result<(), StoreError> {
        let action = "removing old ends of epochs";
        // An epoch ends where the next one opens: the last that opened before the cut was still going
        // on then, and those before it had ended. Messages that are kept keep theirs.
        let removed = self.execute(
            action,
            "DELETE FROM epochs WHERE id < (SELECT max(id) FROM epochs WHERE opened < ?1)
               AND id < ifnull((SELECT epoch FROM messages ORDER BY seq LIMIT 1), ?2)",
            params![cut, self.epoch_id],
        )?;
        if removed > 0 {
            self.execute(action, "DELETE FROM ends WHERE epoch < (SELECT min(id) FROM epochs)", [])?;
            self.execute(action, "DELETE FROM rooms WHERE id NOT IN (SELECT room FROM ends)", [])?;
        }
        Ok(())
    }
}

impl Writer for SqliteWriter {
    fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    fn last_time(&self) -> u64 {
        self.last_time
    }

    fn head(&mut self, room: &RoomName) -> Result<Offset, StoreError> {
        let action = "reading a room's head";
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT last FROM ends WHERE epoch = ?1 AND room = (SELECT id FROM rooms WHERE name = ?2)",
            )
            .map_err(StoreError::database(action))?;
        let last = statement
            .query_row(params![self.epoch_id, room.as_str()], |row| offset(row, 0))
            .optional()
            .map_err(StoreError::database(action))?;
        Ok(last.unwrap_or_default())
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        // Whatever an earlier failure left open must not stand in the way for ever.
        self.rollback();
        self.execute("beginning a transaction", "BEGIN IMMEDIATE", []).map(drop)
    }

    fn find_id(
        &mut self,
        room: &RoomName,
        id: &MessageId,
        since: u64,
    ) -> Result<Option<Position>, StoreError> {
        let action = "looking an id up";
        let Some(room) = self.room_id(room)? else { return Ok(None) };
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT e.epoch, m.offset FROM messages m JOIN epochs e ON e.id = m.epoch
                 WHERE m.room = ?1 AND m.id = ?2 AND m.time >= ?3 ORDER BY m.seq LIMIT 1",
            )
            .map_err(StoreError::database(action))?;
        statement
            .query_row(params![room, id.as_str(), since], |row| {
                Ok(Position { epoch: epoch_name(row, 0)?, offset: offset(row, 1)? })
            })
            .optional()
            .map_err(StoreError::database(action))
    }

    fn append(&mut self, room: &RoomName, record: &Record) -> Result<(), StoreError> {
        let id = self.room_id_or_new(room)?;
        self.execute(
            "storing a message",
            "INSERT INTO messages (room, epoch, offset, time, id, sender, data)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                id,
                self.epoch_id,
                record.offset.get(),
                record.time,
                record.id.as_ref().map(MessageId::as_str),
                record.sender,
                record.data.get(),
            ],
        )?;
        self.touched.insert(room.clone(), Touched { id, last: Some(record.offset) });
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let committed = self.finish();
        if committed.is_err() {
            self.rollback();
        }
        self.touched.clear();
        committed
    }

    fn rollback(&mut self) {
        self.touched.clear();
        // SQLite may have rolled back by itself already (a full disk, for one); then there is no
        // transaction to end.
        if !self.connection.is_autocommit()
            && let Err(error) = self.execute("rolling back", "ROLLBACK", [])
        {
            tracing::error!(%error, "a failed transaction could not be rolled back");
        }
    }

    fn probe(&mut self) -> Result<(), StoreError> {
        self.rollback();
        self.place.check()?;
        // SQLite writes and syncs a row also where its values stay the same.
        let sql = "UPDATE epochs SET opened = opened WHERE id = ?1";
        self.execute("trying to write", sql, [self.epoch_id]).map(drop)
    }

    fn expire(&mut self, cut: u64, limit: usize) -> Result<usize, StoreError> {
        let action = "removing old messages";
        // Rows are in the order of their commits, so the oldest are the first: no index on the time
        // is needed, and a batch touches neighbouring pages only.
        let removed = self.execute(
            action,
            "DELETE FROM messages WHERE seq IN
               (SELECT seq FROM (SELECT seq, time FROM messages ORDER BY seq LIMIT ?2) WHERE time < ?1)",
            params![cut, i64::try_from(limit).unwrap_or(i64::MAX)],
        )?;
        if removed < limit && self.next_seals <= clock::now() {
            self.next_seals = clock::now() + SEALS_EVERY;
            self.expire_seals(cut)?;
        }
        Ok(removed)
    }
}

fn room_id(connection: &Connection, room: &RoomName) -> Result<Option<i64>, StoreError> {
    let action = "looking a room up";
    let mut statement = connection
        .prepare_cached("SELECT id FROM rooms WHERE name = ?1")
        .map_err(StoreError::database(action))?;
    statement.query_row([room.as_str()], |row| row.get(0)).optional().map_err(StoreError::database(action))
}
