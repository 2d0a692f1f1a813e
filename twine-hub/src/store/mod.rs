//! Where messages are kept: the traits of a store, and what it says when it can't.
//!
//! A store keeps rows and knows which epochs there were; it decides nothing. What a reader with
//! some cursor gets is worked out in [`page`], once for all stores.
//!
//! Invariants every store keeps, checked by [`conformance`]:
//! - what [`Writer::commit`] returned `Ok` for is there after a crash (as far as the store is
//!   durable at all), and what was rolled back is not;
//! - retention removes messages in the order they were committed, and never the ends of epochs
//!   whose cursors may still come back.

#[cfg(test)]
mod conformance;
pub(crate) mod dynamodb;
pub(crate) mod epoch;
pub(crate) mod history;
mod log;
pub(crate) mod memory;
#[cfg(test)]
pub(crate) mod observed;
pub(crate) mod packed;
pub(crate) mod page;
pub(crate) mod sqlite;

pub use dynamodb::{InvalidLocation, Location as TableLocation, TableError};

use std::path::PathBuf;
use std::time::Duration;

use twine_protocol::{Data, Epoch, ErrorCode, MessageId, Offset, Position, RoomName};

/// Which store, and for how long it keeps messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// Which one.
    pub kind: Kind,
    /// How long messages are kept.
    pub retention: Retention,
}

/// The kinds of store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// In this process only: a restart loses everything.
    Memory {
        /// Bytes of messages, and of what is kept for their sake, at most; the oldest go first.
        max_bytes: usize,
    },
    /// An embedded database in this folder.
    Sqlite {
        /// The folder; made if missing.
        data_dir: PathBuf,
    },
}

/// How long a store keeps messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// At least this long.
    For(Duration),
    /// For good.
    Forever,
}

/// A message as a store keeps it; its room and epoch are said beside it.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) offset: Offset,
    /// Milliseconds since 1970-01-01 UTC; never goes back in a room.
    pub(crate) time: u64,
    pub(crate) id: Option<MessageId>,
    pub(crate) sender: Option<String>,
    pub(crate) data: Data,
}

impl Record {
    /// Bytes that this record counts for against a bound.
    pub(crate) fn size(&self) -> usize {
        std::mem::size_of::<Self>()
            + self.data.get().len()
            + self.id.as_ref().map_or(0, |id| id.as_str().len())
            + self.sender.as_ref().map_or(0, String::len)
    }
}

/// The part of a room's log that lies in one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) epoch: Epoch,
    /// Offset of its last message, kept or not.
    pub(crate) last: Offset,
}

/// The writing side; the committer owns it.
pub(crate) trait Writer: Send {
    /// Whether writing may wait for a disk, so that it needs a thread of its own.
    fn waits(&self) -> bool {
        true
    }

    /// The epoch that this opening of the store began; all that is appended belongs to it.
    fn epoch(&self) -> &Epoch;

    /// The time of the last message that an earlier opening stored, 0 without one.
    fn last_time(&self) -> u64;

    /// The last offset of `room` in the present epoch, without what an open transaction adds.
    fn head(&mut self, room: &RoomName) -> Result<Offset, StoreError>;

    /// Opens a transaction.
    fn begin(&mut self) -> Result<(), StoreError>;

    /// Where a message with this id was stored at or after `since` (milliseconds), in this
    /// transaction or before.
    fn find_id(
        &mut self,
        room: &RoomName,
        id: &MessageId,
        since: u64,
    ) -> Result<Option<Position>, StoreError>;

    /// Adds a message to the transaction; its offset is the one after the room's last.
    fn append(&mut self, room: &RoomName, record: &Record) -> Result<(), StoreError>;

    /// Makes the transaction durable. After an error nothing of it is kept.
    fn commit(&mut self) -> Result<(), StoreError>;

    /// Gives the transaction up.
    fn rollback(&mut self);

    /// Writes something small that changes nothing, as durably as a commit: to learn whether a store
    /// that failed works again.
    fn probe(&mut self) -> Result<(), StoreError>;

    /// Removes messages older than `cut` (milliseconds), at most `limit` of them; says how many.
    fn expire(&mut self, cut: u64, limit: usize) -> Result<usize, StoreError>;
}

/// The reading side; as many as there are reading threads.
pub(crate) trait Reader: Send {
    /// Whether there was such an epoch of the room; the room need not have had a message in it.
    fn knows_epoch(&mut self, room: &RoomName, epoch: &Epoch) -> Result<bool, StoreError>;

    /// The parts of the room's log that had messages, in order of epochs.
    fn segments(&mut self, room: &RoomName) -> Result<Vec<Segment>, StoreError>;

    /// Messages of one epoch after `after`, in order, at most `limit`, cut short once they have
    /// `bytes` bytes (but never empty for that).
    fn records(
        &mut self,
        room: &RoomName,
        epoch: &Epoch,
        after: Offset,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<Record>, StoreError>;

    /// The position of the `n`th last message kept at or before `until`, `n` counted from 1; of a
    /// later one where those after it have `bytes` bytes already, of the first where fewer are kept.
    fn nth_last(
        &mut self,
        room: &RoomName,
        n: u32,
        until: &Position,
        bytes: usize,
    ) -> Result<Option<Position>, StoreError>;

    /// The time of the first message kept in this epoch after `after`.
    fn next_time(&mut self, room: &RoomName, epoch: &Epoch, after: Offset)
    -> Result<Option<u64>, StoreError>;
}

/// An embedded store, opened.
pub(crate) struct Opened {
    pub(crate) writer: Box<dyn Writer>,
    pub(crate) reader: Box<dyn Reader>,
}

/// Opens the store and begins a new epoch in it.
///
/// # Errors
/// Where it is not to be had, in use by another hub, or made by a later version.
pub(crate) fn open(options: &Options) -> Result<Opened, StoreError> {
    match &options.kind {
        Kind::Memory { max_bytes } => Ok(memory::open(*max_bytes)),
        Kind::Sqlite { data_dir } => sqlite::open(data_dir),
    }
}

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No room on the disk. Free some; publishing goes on by itself.
    #[error("no room left for the database; free disk space")]
    Full(#[source] rusqlite::Error),
    /// The database can't be read or written.
    #[error("the database failed while {action}")]
    Database {
        /// What the hub was doing.
        action: &'static str,
        /// What the database said.
        source: rusqlite::Error,
    },
    /// The hub is shutting down.
    #[error("the database is closed, for the hub is shutting down")]
    Closed,
    /// A thread that writes or reads has panicked: a fault of the hub. Restart it.
    #[error("a thread that the database needs has ended; restart the hub")]
    Ended,
    /// No thread could be started.
    #[error("no thread could be started for the database")]
    Thread {
        /// What the system said.
        source: std::io::Error,
    },
    /// The folder can't be made or written.
    #[error("the data folder {} can't be used; make it writable or set `data_dir`", path.display())]
    Folder {
        /// The folder, or the file in it.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another hub has it open. Two hubs can't share a folder.
    #[error("another hub uses the data folder {}; stop it or set another `data_dir`", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The file is no database, or a damaged one.
    #[error(
        "{path} is damaged; restore a backup, or move it and {path}-wal away to start with an empty one",
        path = path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What the database said.
        #[source]
        source: Option<rusqlite::Error>,
    },
    /// The database of another program.
    #[error("{} is the database of another program; move it away, or set another `data_dir`", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The write-ahead log has messages that were acknowledged and can't be read any more.
    #[error(
        "{} is damaged, and acknowledged messages in it can't be read; restore a backup, or see \
         \"A database that is refused\" in docs/OPERATIONS.md to go on without them",
        path.display()
    )]
    DamagedLog {
        /// The log.
        path: PathBuf,
    },
    /// There is a write-ahead log, but no database that it belongs to.
    #[error(
        "{} is left of a database that is gone; put that one back as {}, or move the log away to start with an \
         empty one",
        log.display(), database.display()
    )]
    Orphaned {
        /// The log.
        log: PathBuf,
        /// Where its database was.
        database: PathBuf,
    },
    /// A file was deleted, moved or replaced while the hub has it open. Nothing that is written is
    /// kept; it goes on where the file comes back.
    #[error("{} was moved or deleted while in use; put it back, or restart the hub", path.display())]
    Moved {
        /// The file.
        path: PathBuf,
    },
    /// The Redis or the table of a fleet can't be used at present. The hub goes on by itself once they
    /// can.
    #[error("{0}")]
    Fleet(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The table of a fleet did not do it.
    #[error(transparent)]
    Table(#[from] dynamodb::TableError),
    /// Written by a later version.
    #[error("{} has schema {found}, this version knows {known}; run a newer twine-hub", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema that this version knows.
        known: i64,
    },
}

impl StoreError {
    /// What a publisher is answered.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Full(_) => ErrorCode::StoreFull,
            _ => ErrorCode::Unavailable,
        }
    }

    pub(crate) fn database(action: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full(source),
            _ => Self::Database { action, source },
        }
    }
}
