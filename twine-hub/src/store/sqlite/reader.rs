//! The reading side, on a thread and a connection of its own: reads never wait for the writer.

use rusqlite::{Connection, Row, params};
use serde_json::value::RawValue;
use twine_protocol::{Epoch, MessageId, Offset, Position, RoomName};

use super::{epoch_name, offset, unreadable};
use crate::seldom::Seldom;
use crate::store::{Reader, Record, Segment, StoreError};

pub(super) struct SqliteReader {
    connection: Connection,
    damage: Seldom,
}

impl SqliteReader {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, damage: Seldom::default() }
    }

    /// What a row holds; `None` where no hub wrote it so. Damage within a row is not found at a start,
    /// and must cost no more than its message: whoever reads on finds that one missing, and tells it.
    fn intact<T>(&self, room: &RoomName, read: rusqlite::Result<T>) -> Result<Option<T>, StoreError> {
        use rusqlite::Error::{
            FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error,
        };
        match read {
            Ok(held) => Ok(Some(held)),
            Err(
                error @ (FromSqlConversionFailure(..)
                | IntegralValueOutOfRange(..)
                | InvalidColumnType(..)
                | Utf8Error(..)),
            ) => {
                self.damage.say(|unsaid| {
                    tracing::error!(%room, %error, unsaid, "the database is damaged: a message can't be read");
                });
                Ok(None)
            }
            Err(error) => Err(StoreError::database("reading messages")(error)),
        }
    }
}

impl Reader for SqliteReader {
    // Here one epoch is all rooms'.
    fn knows_epoch(&mut self, _: &RoomName, epoch: &Epoch) -> Result<bool, StoreError> {
        let action = "looking an epoch up";
        let mut statement = self
            .connection
            .prepare_cached("SELECT 1 FROM epochs WHERE epoch = ?1")
            .map_err(StoreError::database(action))?;
        statement.exists([epoch.as_str()]).map_err(StoreError::database(action))
    }

    fn segments(&mut self, room: &RoomName) -> Result<Vec<Segment>, StoreError> {
        let action = "reading a room's epochs";
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT e.epoch, s.last FROM ends s JOIN epochs e ON e.id = s.epoch
                 WHERE s.room = (SELECT id FROM rooms WHERE name = ?1) ORDER BY s.epoch",
            )
            .map_err(StoreError::database(action))?;
        let rows = statement
            .query_map([room.as_str()], |row| {
                Ok(Segment { epoch: epoch_name(row, 0)?, last: offset(row, 1)? })
            })
            .map_err(StoreError::database(action))?;
        rows.collect::<Result<_, _>>().map_err(StoreError::database(action))
    }

    fn records(
        &mut self,
        room: &RoomName,
        epoch: &Epoch,
        after: Offset,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let action = "reading messages";
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT offset, time, id, sender, data FROM messages
                 WHERE room = (SELECT id FROM rooms WHERE name = ?1)
                   AND epoch = (SELECT id FROM epochs WHERE epoch = ?2) AND offset > ?3
                 ORDER BY offset",
            )
            .map_err(StoreError::database(action))?;
        let mut rows = statement
            .query(params![room.as_str(), epoch.as_str(), after.get()])
            .map_err(StoreError::database(action))?;
        let mut records = Vec::new();
        let mut total = 0;
        while records.len() < limit
            && let Some(row) = rows.next().map_err(StoreError::database(action))?
        {
            let Some(record) = self.intact(room, record(row))? else { continue };
            total += record.size();
            if total > bytes && !records.is_empty() {
                break;
            }
            records.push(record);
        }
        Ok(records)
    }

    fn nth_last(
        &mut self,
        room: &RoomName,
        n: u32,
        until: &Position,
        bytes: usize,
    ) -> Result<Option<Position>, StoreError> {
        let action = "counting back";
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT (SELECT epoch FROM epochs WHERE id = m.epoch), m.offset, octet_length(m.data)
                 FROM messages m
                 WHERE m.room = (SELECT id FROM rooms WHERE name = ?1)
                   AND (m.epoch, m.offset) <= ((SELECT id FROM epochs WHERE epoch = ?2), ?3)
                 ORDER BY m.epoch DESC, m.offset DESC",
            )
            .map_err(StoreError::database(action))?;
        let mut rows = statement
            .query(params![room.as_str(), until.epoch.as_str(), until.offset.get()])
            .map_err(StoreError::database(action))?;
        let mut found = None;
        let (mut counted, mut total) = (0, 0_usize);
        while counted < n
            && let Some(row) = rows.next().map_err(StoreError::database(action))?
        {
            let Some((position, size)) = self.intact(room, place(row))? else { continue };
            counted += 1;
            total = total.saturating_add(size);
            if total > bytes && found.is_some() {
                break;
            }
            found = Some(position);
        }
        Ok(found)
    }

    fn next_time(
        &mut self,
        room: &RoomName,
        epoch: &Epoch,
        after: Offset,
    ) -> Result<Option<u64>, StoreError> {
        let action = "looking a time up";
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT time FROM messages
                 WHERE room = (SELECT id FROM rooms WHERE name = ?1)
                   AND epoch = (SELECT id FROM epochs WHERE epoch = ?2) AND offset > ?3
                 ORDER BY offset",
            )
            .map_err(StoreError::database(action))?;
        let mut rows = statement
            .query(params![room.as_str(), epoch.as_str(), after.get()])
            .map_err(StoreError::database(action))?;
        while let Some(row) = rows.next().map_err(StoreError::database(action))? {
            if let Some(time) = self.intact(room, row.get(0))? {
                return Ok(Some(time));
            }
        }
        Ok(None)
    }
}

/// Where a message is, and how much data it has.
fn place(row: &Row<'_>) -> rusqlite::Result<(Position, usize)> {
    Ok((Position { epoch: epoch_name(row, 0)?, offset: offset(row, 1)? }, row.get(2)?))
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let id: Option<String> = row.get(2)?;
    let data: String = row.get(4)?;
    Ok(Record {
        offset: offset(row, 0)?,
        time: row.get(1)?,
        id: id.map(|id| MessageId::new(&id).map_err(|error| unreadable(2, error))).transpose()?,
        sender: row.get(3)?,
        data: RawValue::from_string(data).map_err(|error| unreadable(4, error))?,
    })
}
