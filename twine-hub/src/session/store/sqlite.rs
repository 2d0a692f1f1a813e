//! Sessions in an `SQLite` file of their own, `sessions.db`.
//!
//! Beside the messages, not among them: a message is synced before it is acknowledged, a session
//! need not be. It is written with `synchronous=NORMAL`, so that a commit is a write into the
//! system's memory. That survives the end of the hub however it comes; only a power cut may take the
//! last seconds along, and then a client still has its own cursors. The folder is held by the lock of
//! the message store, which is opened first.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, Row, params};
use twine_protocol::{InstanceId, SessionId};

use super::{Session, Store};
use crate::seldom::Seldom;
use crate::session::{CookieHash, Cursors, cursors};
use crate::store::StoreError;
use crate::store::sqlite::{connect, damaged, private, unreadable};

/// The schema that this version writes, in `PRAGMA user_version`.
const SCHEMA: i64 = 2;
/// Marks the file as Twine's sessions, in `PRAGMA application_id`: "Twis".
const APPLICATION_ID: i64 = 0x5477_6973;

const TABLES: &str = "
    CREATE TABLE sessions (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        cookie BLOB NOT NULL,
        origin TEXT NOT NULL,
        subject TEXT,
        scope TEXT NOT NULL,
        instance TEXT,
        -- NULL while it has a connection.
        detached INTEGER,
        -- [[room, epoch, offset], ...]
        rooms TEXT NOT NULL
    );
    CREATE INDEX sessions_by_cookie ON sessions (cookie);
";

/// Of those alone that are detached: most are not, and come and go without it.
const INDEX: &str = "CREATE INDEX sessions_by_detached ON sessions (detached) WHERE detached IS NOT NULL;";

const COLUMNS: &str = "id, cookie, origin, subject, scope, instance, detached";

pub(super) struct SqliteStore {
    connection: Connection,
    /// How many there are, the open transaction included, and how many there were before it: counting
    /// them takes a look at each.
    len: usize,
    len_before: usize,
    unreadable: Seldom,
}

impl SqliteStore {
    /// Opens `data_dir/sessions.db`, makes it if missing, and notes every session in it as detached,
    /// at `time` those that still had a connection.
    pub(super) fn open(data_dir: &Path, time: u64) -> Result<Self, StoreError> {
        let path = data_dir.join("sessions.db");
        drop(private(&path)?);
        let connection = connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        prepare(&connection, &path).map_err(|error| damaged(error, &path))?;
        let mut store = Self { connection, len: 0, len_before: 0, unreadable: Seldom::default() };
        store.detach_all(time).map_err(|error| damaged(error, &path))?;
        Ok(store)
    }

    #[cfg(test)]
    pub(super) fn impatient(self) -> Self {
        self.connection.busy_timeout(std::time::Duration::ZERO).unwrap();
        self
    }

    fn detach_all(&mut self, time: u64) -> Result<(), StoreError> {
        self.execute(
            "detaching sessions",
            "UPDATE sessions SET detached = ?1 WHERE detached IS NULL",
            [time],
        )?;
        self.len = self
            .connection
            .query_row("SELECT count(*) FROM sessions", [], |row| row.get(0))
            .map_err(StoreError::database("counting sessions"))?;
        self.len_before = self.len;
        Ok(())
    }

    /// Removes a row that can't be read: it must not cost others their sessions, round after round.
    fn discard(&mut self, seq: i64, error: &rusqlite::Error) -> Result<(), StoreError> {
        self.unreadable.say(|unsaid| {
            tracing::warn!(%error, unsaid, "a stored session can't be read, and is removed");
        });
        let removed = self.execute("removing a session", "DELETE FROM sessions WHERE seq = ?1", [seq])?;
        self.removed(removed);
        Ok(())
    }

    /// Adds a row; says whether there was none of that id.
    fn add(&self, session: &Session, rooms: &str) -> Result<bool, StoreError> {
        let added = self.execute(
            "storing a session",
            "INSERT INTO sessions (id, cookie, origin, subject, scope, instance, detached, rooms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (id) DO NOTHING",
            params![
                session.id.as_str(),
                session.cookie.0,
                session.origin,
                session.subject,
                session.scope,
                session.instance.as_ref().map(InstanceId::as_str),
                session.detached,
                rooms,
            ],
        )?;
        Ok(added > 0)
    }

    fn removed(&mut self, n: usize) {
        // There are more than were counted where somebody else has written into the file.
        self.len = self.len.saturating_sub(n);
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

    fn query<T>(
        &self,
        action: &'static str,
        sql: &str,
        params: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let mut statement = self.connection.prepare_cached(sql).map_err(StoreError::database(action))?;
        let rows = statement.query_map(params, read).and_then(Iterator::collect);
        rows.map_err(StoreError::database(action))
    }
}

/// Checks whose file it is and makes its tables.
fn prepare(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let database = StoreError::database;
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let found = pragma("user_version").map_err(database("reading its schema"))?;
    let owner = pragma("application_id").map_err(database("reading its schema"))?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(database("reading its schema"))?;
    if tables > 0 && owner != APPLICATION_ID {
        return Err(StoreError::Foreign { path: path.to_owned() });
    }
    if found > SCHEMA {
        return Err(StoreError::Newer { path: path.to_owned(), found, known: SCHEMA });
    }
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 4000;",
        )
        .map_err(database("setting it up"))?;
    if tables == 0 {
        let create = format!(
            "BEGIN; {TABLES} {INDEX} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA}; COMMIT;"
        );
        connection.execute_batch(&create).map_err(database("creating its tables"))?;
    } else if found < SCHEMA {
        // Of the first version its index had all sessions in it.
        let update = format!(
            "BEGIN; DROP INDEX IF EXISTS sessions_by_detached; {INDEX} PRAGMA user_version = {SCHEMA}; COMMIT;"
        );
        connection.execute_batch(&update).map_err(database("updating its schema"))?;
    }
    Ok(())
}

impl Store for SqliteStore {
    fn begin(&mut self) -> Result<(), StoreError> {
        // Whatever an earlier failure left open must not stand in the way for ever.
        if !self.connection.is_autocommit() {
            self.rollback();
        }
        self.execute("beginning a transaction", "BEGIN IMMEDIATE", [])?;
        self.len_before = self.len;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let committed = self.execute("committing sessions", "COMMIT", []);
        match committed {
            Ok(_) => self.len_before = self.len,
            Err(_) => self.rollback(),
        }
        committed.map(drop)
    }

    fn rollback(&mut self) {
        // SQLite may have rolled back by itself already (a full disk, for one).
        let is_over = self.connection.is_autocommit();
        let rolled_back = if is_over { Ok(0) } else { self.execute("rolling back", "ROLLBACK", []) };
        // Where it is still open, nothing is done in it but this again.
        self.len = self.len_before;
        if let Err(error) = rolled_back {
            tracing::error!(%error, "a failed transaction of sessions could not be rolled back");
        }
    }

    fn len(&self) -> usize {
        self.len
    }

    fn of_cookie(&mut self, cookie: CookieHash) -> Result<Vec<Session>, StoreError> {
        let sql = format!("SELECT {COLUMNS}, seq FROM sessions WHERE cookie = ?1 ORDER BY seq");
        let rows = self
            .query("reading sessions", &sql, [cookie.0], |row| Ok((row.get::<_, i64>(7)?, session(row))))?;
        let mut sessions = Vec::with_capacity(rows.len());
        for (seq, session) in rows {
            match session {
                Ok(session) => sessions.push(session),
                Err(error) => self.discard(seq, &error)?,
            }
        }
        Ok(sessions)
    }

    fn rooms(&mut self, id: &SessionId) -> Result<Option<Cursors>, StoreError> {
        let sql = "SELECT seq, rooms FROM sessions WHERE id = ?1";
        let rows = self
            .query("reading a session", sql, [id.as_str()], |row| Ok((row.get::<_, i64>(0)?, read(row))))?;
        match rows.into_iter().next() {
            None => Ok(None),
            Some((_, Ok(rooms))) => Ok(Some(rooms)),
            Some((seq, Err(error))) => self.discard(seq, &error).map(|()| None),
        }
    }

    fn insert(&mut self, session: &Session, rooms: &Cursors) -> Result<(), StoreError> {
        let rooms = cursors::write(rooms);
        // As a rule there is none of that id.
        if !self.add(session, &rooms)? {
            self.remove(&session.id)?;
            self.add(session, &rooms)?;
        }
        self.len += 1;
        Ok(())
    }

    fn attach(&mut self, id: &SessionId, instance: Option<&InstanceId>) -> Result<(), StoreError> {
        let instance = instance.map(InstanceId::as_str);
        let sql = "UPDATE sessions SET detached = NULL, instance = ?2 WHERE id = ?1";
        self.execute("attaching a session", sql, params![id.as_str(), instance]).map(drop)
    }

    fn detach(&mut self, id: &SessionId, time: u64) -> Result<(), StoreError> {
        let sql = "UPDATE sessions SET detached = ?2 WHERE id = ?1";
        self.execute("detaching a session", sql, params![id.as_str(), time]).map(drop)
    }

    fn save(&mut self, id: &SessionId, rooms: &Cursors) -> Result<(), StoreError> {
        let sql = "UPDATE sessions SET rooms = ?2 WHERE id = ?1";
        self.execute("saving a session", sql, params![id.as_str(), cursors::write(rooms)]).map(drop)
    }

    fn take(&mut self, id: &SessionId) -> Result<Option<Session>, StoreError> {
        let sql = format!("DELETE FROM sessions WHERE id = ?1 RETURNING {COLUMNS}");
        // One that can't be read is gone just as well.
        let taken = self.query("removing a session", &sql, [id.as_str()], |row| Ok(session(row).ok()))?;
        self.removed(taken.len());
        Ok(taken.into_iter().next().flatten())
    }

    fn remove(&mut self, id: &SessionId) -> Result<(), StoreError> {
        let sql = "DELETE FROM sessions WHERE id = ?1";
        let removed = self.execute("removing a session", sql, [id.as_str()])?;
        self.removed(removed);
        Ok(())
    }

    fn remove_longest_detached(&mut self) -> Result<bool, StoreError> {
        let removed = self.execute(
            "removing an old session",
            "DELETE FROM sessions WHERE seq =
               (SELECT seq FROM sessions WHERE detached IS NOT NULL ORDER BY detached LIMIT 1)",
            [],
        )?;
        self.removed(removed);
        Ok(removed > 0)
    }

    fn expire(&mut self, cut: u64, limit: usize) -> Result<usize, StoreError> {
        let removed = self.execute(
            "removing old sessions",
            "DELETE FROM sessions WHERE seq IN
               (SELECT seq FROM sessions WHERE detached < ?1 ORDER BY detached LIMIT ?2)",
            params![cut, i64::try_from(limit).unwrap_or(i64::MAX)],
        )?;
        self.removed(removed);
        Ok(removed)
    }
}

/// Reads [`COLUMNS`].
fn session(row: &Row<'_>) -> rusqlite::Result<Session> {
    let instance: Option<String> = row.get(5)?;
    let instance = instance.map(|text| InstanceId::new(&text)).transpose();
    Ok(Session {
        id: session_id(row)?,
        cookie: CookieHash(row.get(1)?),
        origin: row.get(2)?,
        subject: row.get(3)?,
        scope: row.get(4)?,
        instance: instance.map_err(|error| unreadable(5, error))?,
        detached: row.get(6)?,
    })
}

fn session_id(row: &Row<'_>) -> rusqlite::Result<SessionId> {
    SessionId::new(row.get_ref(0)?.as_str()?).map_err(|error| unreadable(0, error))
}

/// The second column.
fn read(row: &Row<'_>) -> rusqlite::Result<Cursors> {
    cursors::read(row.get_ref(1)?.as_bytes()?).map_err(|error| unreadable(1, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rolled_back_is_not_counted_even_where_nothing_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(folder.path(), 0).unwrap();
        let session = |name: &str| Session {
            id: SessionId::new(name).unwrap(),
            cookie: CookieHash::of(uuid::Uuid::nil()),
            origin: "".into(),
            subject: None,
            scope: "/".into(),
            instance: None,
            detached: Some(1),
        };
        store.begin().unwrap();
        store.insert(&session("kept"), &Cursors::new()).unwrap();
        store.commit().unwrap();
        store.begin().unwrap();
        store.insert(&session("undone"), &Cursors::new()).unwrap();
        store.remove(&session("kept").id).unwrap();
        store.insert(&session("undone_too"), &Cursors::new()).unwrap();
        assert_eq!(store.len(), 2);
        // SQLite itself has ended the transaction, as it does where the disk is full.
        store.connection.execute_batch("ROLLBACK; ALTER TABLE sessions RENAME TO away").unwrap();
        store.rollback();
        store.connection.execute_batch("ALTER TABLE away RENAME TO sessions").unwrap();
        assert_eq!(store.len(), 1);
        store.begin().unwrap();
        assert_eq!(store.expire(9, 9).unwrap(), 1);
        store.commit().unwrap();
        assert_eq!(store.len(), 0);
        store.begin().unwrap();
        store.rollback();
        assert_eq!(store.len(), 0);
    }
}
