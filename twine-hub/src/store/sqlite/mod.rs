//! The embedded store: one `SQLite` file, written by one thread, in a folder of its own.
//!
//! Every commit is synced before it returns (`synchronous=FULL` on a write-ahead log), so that what
//! was acknowledged survives `kill -9` and a power cut. Rows have ascending numbers in the order of
//! their commits: appends go to the end of the file, and retention cuts at its beginning.

mod reader;
mod writer;

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};
use twine_protocol::{Epoch, Offset};

use self::reader::SqliteReader;
use self::writer::SqliteWriter;
use super::{Opened, StoreError, epoch};

/// The schema that this version writes, in `PRAGMA user_version`.
const SCHEMA: i64 = 1;
/// Marks the file as Twine's, in `PRAGMA application_id`: "Twin".
const APPLICATION_ID: i64 = 0x5477_696e;

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
    Ok((SqliteWriter::new(connection, epoch_id, epoch, last_time, lock), SqliteReader::new(reader)))
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
