//! The embedded store: one `SQLite` file, written by one thread, in a folder of its own.
//!
//! Every commit is synced before it returns (`synchronous=FULL` on a write-ahead log), so that what
//! was acknowledged survives `kill -9` and a power cut. Rows have ascending numbers in the order of
//! their commits: appends go to the end of the file, and retention cuts at its beginning.

mod damage;
mod place;
mod reader;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};
use twine_protocol::{Epoch, Offset};

use self::place::Place;
use self::reader::SqliteReader;
use self::writer::SqliteWriter;
use super::{Opened, StoreError, epoch};

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
    damage::check_emptied(&path, data_dir)?;
    let is_new = !path.exists();
    let (connection, epoch_id, epoch) = set_up(&path).inspect_err(|_| {
        // The next start must not take it for one that was emptied.
        if is_new && damage::is_empty(&path) {
            drop(fs::remove_file(&path));
        }
    })?;
    let last_time = last_time(&connection)?;
    let reader = connect(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let place = Place::of(&path)?;
    let writer = SqliteWriter::new(connection, epoch_id, epoch, last_time, place, lock);
    Ok((writer, SqliteReader::new(reader)))
}

/// Opens the database, which is made if missing, and begins an epoch in it.
fn set_up(path: &Path) -> Result<(Connection, i64, Epoch), StoreError> {
    // SQLite would make it readable for all; what it puts beside the file later has the file's mode.
    drop(private(path)?);
    damage::check_files(path)?;
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
    let (epoch_id, epoch) = begin(&mut connection, path).map_err(|error| damaged(error, path))?;
    Ok((connection, epoch_id, epoch))
}

/// Checks the database, brings it up to date and begins an epoch in it.
fn begin(connection: &mut Connection, path: &Path) -> Result<(i64, Epoch), StoreError> {
    let action = "setting it up";
    // Files that are refused stay as they are: closing them moves no log into a damaged database.
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(StoreError::database(action))?;
    schema::check(connection, path)?;
    damage::check_pages(connection, path)?;
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
        .map_err(StoreError::database(action))?;
    // On macOS a plain sync leaves the data in the drive's cache; elsewhere `fullfsync` does nothing.
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA fullfsync = 1;
             PRAGMA wal_autocheckpoint = 4000;",
        )
        .map_err(StoreError::database(action))?;
    schema::migrate(connection, path)?;
    begin_epoch(connection)
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
pub(crate) fn private(path: &Path) -> Result<File, StoreError> {
    let open = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    open.map_err(|source| StoreError::Folder { path: path.to_owned(), source })
}

pub(crate) fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(StoreError::database("opening it"))?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.busy_timeout(Duration::from_secs(5)).map_err(StoreError::database("opening it"))?;
    // One plan for a statement, whatever is bound to it. Without this SQLite compiles those with a bound
    // `LIMIT` or an indexed equality anew for other values: 40 % of the time of claiming a session.
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map_err(StoreError::database("opening it"))?;
    Ok(connection)
}

/// What SQLite says of a file that is none of its own, told as what to do about it.
pub(crate) fn damaged(error: StoreError, path: &Path) -> StoreError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase, Unknown};
    let is_damage = |source: &rusqlite::Error| match source.sqlite_error_code() {
        // Statements that are right make a "logic error" only over a header or a schema that is not.
        None => matches!(source, rusqlite::Error::SqlInputError { .. }),
        Some(code) => matches!(code, DatabaseCorrupt | NotADatabase | Unknown),
    };
    match error {
        StoreError::Database { source, .. } if is_damage(&source) => {
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
pub(crate) fn unreadable(
    index: usize,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(error))
}
