//! What is in the file: whose it is, which version of the schema it has, and how it gets to ours.
//!
//! A schema's version is the number of migrations that made it, kept in `PRAGMA user_version`. Each
//! migration is one transaction together with its version, so that a hub that is killed in between
//! leaves the old schema or the new one, and the next start goes on from there. They run before
//! anything else is written: an epoch is never opened in a schema that this version does not know.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;

/// Marks the file as Twine's, in `PRAGMA application_id`: "Twin".
const APPLICATION_ID: i64 = 0x5477_696e;

/// Every migration there ever was, in order. One that was released is never changed: what is to be
/// different comes as another one at the end, with a test that starts from the one before.
const MIGRATIONS: &[&str] = &[MESSAGES];

/// No foreign keys: each epoch and end that retention removes would be looked for among all messages.
const MESSAGES: &str = "
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

/// Refuses a file that is another program's, or a later version's.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let action = "reading its schema";
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(StoreError::database(action))?;
    let owner = pragma(connection, "application_id").map_err(StoreError::database(action))?;
    if tables > 0 && owner != APPLICATION_ID {
        return Err(StoreError::Foreign { path: path.to_owned() });
    }
    let found = pragma(connection, "user_version").map_err(StoreError::database(action))?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(StoreError::Newer { path: path.to_owned(), found, known });
    }
    Ok(())
}

/// Brings an older file, or an empty one, to the present schema.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    run(connection, path, MIGRATIONS)
}

/// Runs those of `migrations` that the file has not had yet.
fn run(connection: &mut Connection, path: &Path, migrations: &[&str]) -> Result<(), StoreError> {
    let action = "migrating its schema";
    let found = pragma(connection, "user_version").map_err(StoreError::database(action))?;
    for (version, migration) in (1..).zip(migrations).filter(|(version, _)| *version > found) {
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(StoreError::database(action))?;
        transaction
            .execute_batch(&format!(
                "{migration}; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version};"
            ))
            .and_then(|()| transaction.commit())
            .map_err(StoreError::database(action))?;
        if found > 0 {
            tracing::info!(path = %path.display(), version, "the database has a new schema");
        }
    }
    Ok(())
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The second of these fails in its second statement.
    const HALF: &[&str] = &[MESSAGES, "CREATE TABLE half (x); CREATE TABLE messages (x);"];
    const WHOLE: &[&str] = &[
        MESSAGES,
        "CREATE TABLE half (x); UPDATE epochs SET opened = opened + 1;",
        "CREATE TABLE third (x)",
    ];

    /// A file as the first version of the schema left it, with an epoch in it.
    fn version_1(path: &Path) -> Connection {
        let mut connection = Connection::open(path).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL").unwrap();
        run(&mut connection, path, &[MESSAGES]).unwrap();
        connection.execute("INSERT INTO epochs (epoch, opened) VALUES ('e', 1)", []).unwrap();
        connection
    }

    fn tables(connection: &Connection) -> Vec<String> {
        let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name";
        let mut statement = connection.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn an_older_schema_is_migrated_step_by_step_and_only_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("twine.db");
        let mut connection = version_1(&path);
        for _ in 0..2 {
            run(&mut connection, &path, WHOLE).unwrap();
            assert_eq!(pragma(&connection, "user_version").unwrap(), 3);
            assert_eq!(tables(&connection), ["ends", "epochs", "half", "messages", "rooms", "third"]);
            let opened: i64 =
                connection.query_row("SELECT opened FROM epochs", [], |row| row.get(0)).unwrap();
            assert_eq!(opened, 2);
        }
    }

    #[test]
    fn a_migration_that_fails_leaves_the_old_schema() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("twine.db");
        let mut connection = version_1(&path);
        assert!(run(&mut connection, &path, HALF).is_err());
        assert_eq!(pragma(&connection, "user_version").unwrap(), 1);
        assert_eq!(tables(&connection), ["ends", "epochs", "messages", "rooms"]);
        run(&mut connection, &path, WHOLE).unwrap();
        assert_eq!(pragma(&connection, "user_version").unwrap(), 3);
    }

    #[test]
    fn a_migration_that_is_killed_leaves_the_old_schema() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("twine.db");
        let connection = version_1(&path);
        // So small a cache that pages of the open transaction are on the disk already.
        connection.execute_batch("PRAGMA cache_size = 1; BEGIN IMMEDIATE; CREATE TABLE half (x);").unwrap();
        let grow = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1000)
                    INSERT INTO half SELECT randomblob(1000) FROM n";
        connection.execute(grow, []).unwrap();
        connection.execute_batch("PRAGMA user_version = 2").unwrap();
        assert!(fs::metadata(folder.path().join("twine.db-wal")).unwrap().len() > 100_000);
        // What a killed process leaves is what its files hold now.
        let killed = tempfile::tempdir().unwrap();
        for name in ["twine.db", "twine.db-wal"] {
            fs::copy(folder.path().join(name), killed.path().join(name)).unwrap();
        }
        let path = killed.path().join("twine.db");
        let mut connection = Connection::open(&path).unwrap();
        assert_eq!(pragma(&connection, "user_version").unwrap(), 1);
        assert_eq!(tables(&connection), ["ends", "epochs", "messages", "rooms"]);
        run(&mut connection, &path, WHOLE).unwrap();
        assert_eq!(pragma(&connection, "user_version").unwrap(), 3);
    }

    #[test]
    fn a_newer_schema_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("twine.db");
        let mut connection = version_1(&path);
        run(&mut connection, &path, WHOLE).unwrap();
        let refused = check(&connection, &path).unwrap_err();
        assert!(matches!(refused, StoreError::Newer { found: 3, known: 1, .. }), "{refused}");
        assert_eq!(pragma(&connection, "user_version").unwrap(), 3);
    }
}
