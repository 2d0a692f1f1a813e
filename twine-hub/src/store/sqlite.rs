//! The embedded store: one `SQLite` file, written by one thread, in a folder of its own.
//!
//! Every commit is synced before it returns (`synchronous=FULL` on a write-ahead log), so that what
//! was acknowledged survives `kill -9` and a power cut. Rows have ascending numbers in the order of
//! their commits: appends go to the end of the file, and retention cuts at its beginning.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};
use serde_json::value::RawValue;
use twine_protocol::{Epoch, MessageId, Offset, Position, RoomName};

use super::{Opened, Reader, Record, Segment, StoreError, Writer, epoch};

/// The schema that this version writes, in `PRAGMA user_version`.
const SCHEMA: i64 = 1;
/// Marks the file as Twine's, in `PRAGMA application_id`: "Twin".
const APPLICATION_ID: i64 = 0x5477_696e;
/// Ends and names of epochs are kept this long after the last message of theirs may be asked for.
const SEALS_OUTLIVE: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often old ones are looked for. Where there are any, that reads a row for each room and epoch.
const SEALS_EVERY: Duration = Duration::from_secs(3600);

/// No foreign keys: each epoch and end that retention removes would be looked for among all messages.
const TABLES: &str = "
    CREATE TABLE epochs (
        id INTEGER PRIMARY KEY,
        epoch TEXT NOT NULL UNIQUE,
        opened INTEGER NOT NULL
    );
    CREATE TABLE rooms (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    );
    -- The last offset of each room in each epoch; outlives the messages.
    CREATE TABLE ends (
        room INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        last INTEGER NOT NULL,
        PRIMARY KEY (room, epoch)
    ) WITHOUT ROWID;
    CREATE TABLE messages (
        seq INTEGER PRIMARY KEY,
        room INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        offset INTEGER NOT NULL,
        time INTEGER NOT NULL,
        id TEXT,
        sender TEXT,
        data TEXT NOT NULL
    );
    CREATE UNIQUE INDEX messages_by_position ON messages (room, epoch, offset);
    CREATE INDEX messages_by_id ON messages (room, id) WHERE id IS NOT NULL;
";

/// Opens `data_dir/twine.db`, makes it if missing, and begins a new epoch in it.
pub(crate) fn open(data_dir: &Path) -> Result<Opened, StoreError> {
    let (writer, reader) = open_both(data_dir)?;
    Ok(Opened { writer: Box::new(writer), reader: Box::new(reader) })
}

fn open_both(data_dir: &Path) -> Result<(SqliteWriter, SqliteReader), StoreError> {
    // Messages are for this user's eyes, whatever the umask says.
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(|source| StoreError::Folder { path: data_dir.to_owned(), source })?;
    let lock = lock(data_dir)?;
    let path = data_dir.join("twine.db");
    // SQLite would make it readable for all; what it puts beside the file later has the file's mode.
    drop(private(&path)?);
    let connection = connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
    prepare(&connection, &path).map_err(|error| damaged(error, &path))?;
    let (epoch_id, epoch) = begin_epoch(&connection).map_err(|error| damaged(error, &path))?;
    let last_time = last_time(&connection)?;
    let reader = connect(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let writer = SqliteWriter {
        connection,
        epoch_id,
        epoch,
        last_time,
        touched: HashMap::new(),
        next_seals: Instant::now(),
        _lock: lock,
    };
    Ok((writer, SqliteReader { connection: reader }))
}

/// Opens it with a bound on its size: what is full then is as full as a disk.
#[cfg(test)]
pub(crate) fn open_small(data_dir: &Path, pages: u32) -> Result<Opened, StoreError> {
    let (writer, reader) = open_both(data_dir)?;
    let limit = |_: &Row<'_>| Ok(());
    writer
        .connection
        .pragma_update_and_check(None, "max_page_count", pages, limit)
        .map_err(StoreError::database("bounding it"))?;
    Ok(Opened { writer: Box::new(writer), reader: Box::new(reader) })
}

/// Holds the folder for this process; the lock goes with the file, also when the process dies.
fn lock(data_dir: &Path) -> Result<File, StoreError> {
    let path = data_dir.join("lock");
    let file = private(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: data_dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(StoreError::Folder { path, source }),
    }
}

/// Opens a file, or makes one that its owner alone may read.
fn private(path: &Path) -> Result<File, StoreError> {
    let open = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    open.map_err(|source| StoreError::Folder { path: path.to_owned(), source })
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(StoreError::database("opening it"))?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.busy_timeout(Duration::from_secs(5)).map_err(StoreError::database("opening it"))?;
    Ok(connection)
}

/// Checks whose file it is, and makes or migrates the schema.
fn prepare(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let database = StoreError::database;
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let found = pragma("user_version").map_err(database("reading its schema"))?;
    let owner = pragma("application_id").map_err(database("reading its schema"))?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(database("reading its schema"))?;
    if tables > 0 && owner != APPLICATION_ID {
        return Err(StoreError::Corrupt { path: path.to_owned(), source: None });
    }
    if found > SCHEMA {
        return Err(StoreError::Newer { path: path.to_owned(), found, known: SCHEMA });
    }
    // On macOS a plain sync leaves the data in the drive's cache; elsewhere `fullfsync` does nothing.
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA fullfsync = 1;
             PRAGMA wal_autocheckpoint = 4000;",
        )
        .map_err(database("setting it up"))?;
    if tables == 0 {
        let create = format!(
            "BEGIN; {TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA}; COMMIT;"
        );
        connection.execute_batch(&create).map_err(database("creating its tables"))?;
    }
    Ok(())
}

/// What SQLite says of a file that is none of its own, told as what to do about it.
fn damaged(error: StoreError, path: &Path) -> StoreError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error {
        StoreError::Database { source, .. }
            if matches!(source.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase)) =>
        {
            StoreError::Corrupt { path: path.to_owned(), source: Some(source) }
        }
        other => other,
    }
}

fn begin_epoch(connection: &Connection) -> Result<(i64, Epoch), StoreError> {
    let last: Option<String> = connection
        .query_row("SELECT epoch FROM epochs ORDER BY id DESC LIMIT 1", [], |row| row.get(0))
        .optional()
        .map_err(StoreError::database("reading the last epoch"))?;
    let epoch = epoch::mint(last.and_then(|text| Epoch::new(&text).ok()).as_ref());
    connection
        .execute("INSERT INTO epochs (epoch, opened) VALUES (?1, ?2)", params![epoch.as_str(), epoch::now()])
        .map_err(StoreError::database("beginning a new epoch"))?;
    Ok((connection.last_insert_rowid(), epoch))
}

/// The time of the last message, so that no later one is older.
fn last_time(connection: &Connection) -> Result<u64, StoreError> {
    let time = connection
        .query_row("SELECT time FROM messages ORDER BY seq DESC LIMIT 1", [], |row| row.get(0))
        .optional()
        .map_err(StoreError::database("reading the last message"))?;
    Ok(time.unwrap_or_default())
}

struct SqliteWriter {
    connection: Connection,
    epoch_id: i64,
    epoch: Epoch,
    last_time: u64,
    /// The rooms that the open transaction has met.
    touched: HashMap<RoomName, Touched>,
    next_seals: Instant,
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
        self.execute("committing", "COMMIT", []).map(drop)
    }

    /// Forgets epochs, ends and rooms that no cursor worth recovering can name any more.
    fn expire_seals(&mut self, cut: u64) -> Result<(), StoreError> {
        let cut = cut.saturating_sub(u64::try_from(SEALS_OUTLIVE.as_millis()).unwrap_or(u64::MAX));
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
        if removed < limit && self.next_seals <= Instant::now() {
            self.next_seals = Instant::now() + SEALS_EVERY;
            self.expire_seals(cut)?;
        }
        Ok(removed)
    }
}

struct SqliteReader {
    connection: Connection,
}

impl Reader for SqliteReader {
    fn knows_epoch(&mut self, epoch: &Epoch) -> Result<bool, StoreError> {
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
                 ORDER BY offset LIMIT ?4",
            )
            .map_err(StoreError::database(action))?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = statement
            .query(params![room.as_str(), epoch.as_str(), after.get(), limit])
            .map_err(StoreError::database(action))?;
        let mut records = Vec::new();
        let mut total = 0;
        while let Some(row) = rows.next().map_err(StoreError::database(action))? {
            let record = record(row).map_err(StoreError::database(action))?;
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
    ) -> Result<Option<Position>, StoreError> {
        let action = "counting back";
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT e.epoch, t.offset FROM
                   (SELECT epoch, offset FROM messages
                    WHERE room = (SELECT id FROM rooms WHERE name = ?1)
                      AND (epoch, offset) <= ((SELECT id FROM epochs WHERE epoch = ?2), ?3)
                    ORDER BY epoch DESC, offset DESC LIMIT ?4) t
                 JOIN epochs e ON e.id = t.epoch ORDER BY t.epoch, t.offset LIMIT 1",
            )
            .map_err(StoreError::database(action))?;
        statement
            .query_row(params![room.as_str(), until.epoch.as_str(), until.offset.get(), n], |row| {
                Ok(Position { epoch: epoch_name(row, 0)?, offset: offset(row, 1)? })
            })
            .optional()
            .map_err(StoreError::database(action))
    }
}

fn room_id(connection: &Connection, room: &RoomName) -> Result<Option<i64>, StoreError> {
    let action = "looking a room up";
    let mut statement = connection
        .prepare_cached("SELECT id FROM rooms WHERE name = ?1")
        .map_err(StoreError::database(action))?;
    statement.query_row([room.as_str()], |row| row.get(0)).optional().map_err(StoreError::database(action))
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

fn offset(row: &Row<'_>, index: usize) -> rusqlite::Result<Offset> {
    Offset::new(row.get(index)?).map_err(|error| unreadable(index, error))
}

fn epoch_name(row: &Row<'_>, index: usize) -> rusqlite::Result<Epoch> {
    let text: String = row.get(index)?;
    Epoch::new(&text).map_err(|error| unreadable(index, error))
}

/// A value in the file that no hub wrote so.
fn unreadable(index: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(error))
}
