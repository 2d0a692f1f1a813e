//! What every store of sessions must do, run on each of them; and files that are refused.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rusqlite::Connection;
use twine_protocol::{InstanceId, Position, SessionId};

use super::sqlite::SqliteStore;
use super::{Session, Store, memory};
use crate::session::{CookieHash, Cursors};
use crate::store::StoreError;

fn id(text: &str) -> SessionId {
    SessionId::new(text).unwrap()
}

fn rooms(offset: u64) -> Cursors {
    ["chat", "a \"quoted\" room ✓"].map(|room| (room.parse().unwrap(), at(offset))).into()
}

fn at(offset: u64) -> Position {
    Position::new("0000018bcfe56800-7f3a", offset).unwrap()
}

fn session(name: &str, cookie: u8, detached: Option<u64>) -> Session {
    Session {
        id: id(name),
        cookie: CookieHash([cookie; 16]),
        origin: "https://app.example.com".into(),
        subject: Some("alice".into()),
        scope: "/inbox".into(),
        instance: Some(InstanceId::new("i").unwrap()),
        detached,
    }
}

fn sqlite(folder: &Path) -> SqliteStore {
    SqliteStore::open(folder, 1_000).unwrap()
}

/// Runs a test on each store.
fn on_each(test: fn(&mut dyn Store)) {
    test(&mut memory::MemoryStore::default());
    test(&mut sqlite(tempfile::tempdir().unwrap().path()));
}

fn ids(sessions: &[Session]) -> Vec<&str> {
    sessions.iter().map(|session| session.id.as_str()).collect()
}

#[test]
fn a_cookie_has_its_sessions_as_they_were_written() {
    on_each(|store| {
        store.begin().unwrap();
        let sparse = Session { subject: None, instance: None, ..session("b", 1, None) };
        let all = [session("c", 1, Some(5)), sparse, session("a", 1, Some(3))];
        for session in &all {
            store.insert(session, &rooms(7)).unwrap();
        }
        store.insert(&session("other", 2, Some(4)), &Cursors::new()).unwrap();
        assert_eq!(store.rooms(&id("a")).unwrap(), Some(rooms(7)));
        assert_eq!(store.rooms(&id("other")).unwrap(), Some(vec![]));
        assert_eq!(store.rooms(&id("nobody")).unwrap(), None);
        assert_eq!(store.of_cookie(CookieHash([1; 16])).unwrap(), all, "in the order of their creation");
        assert_eq!(store.of_cookie(CookieHash([3; 16])).unwrap(), []);
        store.commit().unwrap();
        assert_eq!(store.of_cookie(CookieHash([1; 16])).unwrap(), all);
        assert_eq!(store.len(), 4);
    });
}

#[test]
fn a_session_is_attached_saved_and_detached() {
    on_each(|store| {
        store.begin().unwrap();
        store.insert(&session("a", 1, Some(5)), &rooms(7)).unwrap();
        let other = InstanceId::new("other").unwrap();
        store.attach(&id("a"), Some(&other)).unwrap();
        assert!(!store.remove_longest_detached().unwrap(), "it is attached");
        store.save(&id("a"), &rooms(8)).unwrap();
        let attached = Session { instance: Some(other), ..session("a", 1, None) };
        assert_eq!(store.rooms(&id("a")).unwrap(), Some(rooms(8)));
        assert_eq!(store.of_cookie(CookieHash([1; 16])).unwrap(), std::slice::from_ref(&attached));
        store.detach(&id("a"), 9).unwrap();
        let detached = Session { detached: Some(9), ..attached };
        assert_eq!(store.take(&id("a")).unwrap(), Some(detached));
        assert_eq!(store.take(&id("a")).unwrap(), None);
        assert_eq!(store.len(), 0);
        // What is said of one that is gone brings nothing back.
        store.save(&id("a"), &rooms(8)).unwrap();
        store.detach(&id("a"), 9).unwrap();
        store.attach(&id("a"), None).unwrap();
        assert_eq!(store.of_cookie(CookieHash([1; 16])).unwrap(), []);
        store.commit().unwrap();
    });
}

#[test]
fn a_session_of_the_same_id_is_replaced() {
    on_each(|store| {
        store.begin().unwrap();
        store.insert(&session("a", 1, Some(5)), &rooms(7)).unwrap();
        let again = session("a", 1, None);
        store.insert(&again, &rooms(9)).unwrap();
        assert_eq!(store.of_cookie(CookieHash([1; 16])).unwrap(), [again]);
        assert_eq!(store.rooms(&id("a")).unwrap(), Some(rooms(9)));
        assert_eq!((store.len(), store.remove_longest_detached().unwrap()), (1, false));
        store.commit().unwrap();
    });
}

#[test]
fn the_longest_detached_go_first() {
    on_each(|store| {
        store.begin().unwrap();
        let all = [("c", Some(30)), ("live", None), ("a", Some(10)), ("first", Some(1)), ("b", Some(20))];
        for (name, detached) in all {
            store.insert(&session(name, 1, detached), &rooms(7)).unwrap();
        }
        assert!(store.remove_longest_detached().unwrap());
        assert_eq!(ids(&store.of_cookie(CookieHash([1; 16])).unwrap()), ["c", "live", "a", "b"]);
        assert_eq!(store.expire(10, 100).unwrap(), 0, "not the one detached at the cut itself");
        assert_eq!(store.expire(31, 2).unwrap(), 2);
        assert_eq!(ids(&store.of_cookie(CookieHash([1; 16])).unwrap()), ["c", "live"]);
        assert_eq!(store.expire(u64::MAX >> 1, 2).unwrap(), 1);
        assert_eq!((ids(&store.of_cookie(CookieHash([1; 16])).unwrap()), store.len()), (vec!["live"], 1));
        store.commit().unwrap();
    });
}

#[test]
fn what_can_not_be_read_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = sqlite(folder.path());
    let other = Connection::open(folder.path().join("sessions.db")).unwrap();
    store.begin().unwrap();
    for name in ["fine", "rooms", "instance", "id", "taken"] {
        store.insert(&session(name, 1, Some(5)), &rooms(7)).unwrap();
    }
    store.commit().unwrap();
    let spoil = "UPDATE sessions SET rooms = 'x' WHERE id = 'rooms';
        UPDATE sessions SET instance = '' WHERE id IN ('instance', 'taken');
        UPDATE sessions SET id = '' WHERE id = 'id';";
    other.execute_batch(spoil).unwrap();
    store.begin().unwrap();
    assert_eq!(store.take(&id("taken")).unwrap(), None);
    assert_eq!(store.len(), 4);
    assert_eq!(ids(&store.of_cookie(CookieHash([1; 16])).unwrap()), ["fine", "rooms"]);
    assert_eq!(store.rooms(&id("rooms")).unwrap(), None);
    assert_eq!(ids(&store.of_cookie(CookieHash([1; 16])).unwrap()), ["fine"]);
    assert_eq!(store.len(), 1);
    store.commit().unwrap();
    let left: usize = other.query_row("SELECT count(*) FROM sessions", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 1);
}

#[test]
fn what_is_rolled_back_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = sqlite(folder.path());
    store.begin().unwrap();
    store.insert(&session("kept", 1, Some(5)), &rooms(7)).unwrap();
    store.commit().unwrap();
    store.begin().unwrap();
    store.insert(&session("lost", 1, Some(5)), &rooms(7)).unwrap();
    store.remove(&id("kept")).unwrap();
    store.rollback();
    assert_eq!((ids(&store.of_cookie(CookieHash([1; 16])).unwrap()), store.len()), (vec!["kept"], 1));
    // One that was left open, as by a panic, ends with the next one.
    store.begin().unwrap();
    store.remove(&id("kept")).unwrap();
    store.begin().unwrap();
    store.commit().unwrap();
    assert_eq!(store.len(), 1);
}

#[test]
fn a_killed_hub_leaves_its_sessions_detached() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = sqlite(folder.path());
    store.begin().unwrap();
    store.insert(&session("live", 1, None), &rooms(7)).unwrap();
    store.insert(&session("gone", 1, Some(5)), &rooms(7)).unwrap();
    store.commit().unwrap();
    store.begin().unwrap();
    store.insert(&session("uncommitted", 1, None), &rooms(7)).unwrap();
    // What a killed process leaves is what its files hold now.
    let killed = tempfile::tempdir().unwrap();
    for name in ["sessions.db", "sessions.db-wal"] {
        fs::copy(folder.path().join(name), killed.path().join(name)).unwrap();
    }
    let mut store = sqlite(killed.path());
    let expected = [session("live", 1, Some(1_000)), session("gone", 1, Some(5))];
    assert_eq!(store.of_cookie(CookieHash([1; 16])).unwrap(), expected);
    assert_eq!(store.len(), 2);
}

#[test]
fn the_file_is_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = sqlite(folder.path());
    store.begin().unwrap();
    store.insert(&session("a", 1, None), &rooms(7)).unwrap();
    store.commit().unwrap();
    for name in ["sessions.db", "sessions.db-wal", "sessions.db-shm"] {
        let mode = fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_damaged_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    fs::write(&path, b"this is no database, though it is long enough to be looked at as one. ".repeat(20))
        .unwrap();
    let refused = SqliteStore::open(folder.path(), 0).err().unwrap();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    let mut store = sqlite(folder.path());
    store.begin().unwrap();
    for n in 0..500 {
        store.insert(&session(&format!("s{n}"), 1, None), &rooms(7)).unwrap();
    }
    store.commit().unwrap();
    drop(store);
    let len = fs::metadata(&path).unwrap().len();
    fs::File::options().write(true).open(&path).unwrap().set_len(len / 2).unwrap();
    let refused = SqliteStore::open(folder.path(), 0).err().unwrap();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
}

#[test]
fn a_file_of_another_program_or_of_a_later_version_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE sessions (theirs)").unwrap();
    let refused = SqliteStore::open(folder.path(), 0).err().unwrap();
    assert!(matches!(refused, StoreError::Foreign { .. }), "{refused}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    drop(sqlite(folder.path()));
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 3").unwrap();
    let refused = SqliteStore::open(folder.path(), 0).err().unwrap();
    assert!(matches!(refused, StoreError::Newer { found: 3, known: 2, .. }), "{refused}");
}

#[test]
fn a_file_of_the_first_version_keeps_its_sessions() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = sqlite(folder.path());
    store.begin().unwrap();
    store.insert(&session("away", 1, Some(5)), &rooms(7)).unwrap();
    store.insert(&session("here", 1, None), &rooms(8)).unwrap();
    store.commit().unwrap();
    drop(store);
    let before = "DROP INDEX sessions_by_detached;
        CREATE INDEX sessions_by_detached ON sessions (detached);
        PRAGMA user_version = 1;";
    Connection::open(folder.path().join("sessions.db")).unwrap().execute_batch(before).unwrap();

    for _ in 0..2 {
        let mut store = SqliteStore::open(folder.path(), 6).unwrap();
        assert_eq!(store.len(), 2);
        store.begin().unwrap();
        let found: Vec<_> = store.of_cookie(CookieHash([1; 16])).unwrap();
        let found: Vec<_> = found.iter().map(|session| (session.id.as_str(), session.detached)).collect();
        assert_eq!(found, [("away", Some(5)), ("here", Some(6))]);
        store.commit().unwrap();
    }
    let connection = Connection::open(folder.path().join("sessions.db")).unwrap();
    let sql = "SELECT sql FROM sqlite_schema WHERE name = 'sessions_by_detached'";
    let index: String = connection.query_row(sql, [], |row| row.get(0)).unwrap();
    assert!(index.ends_with("WHERE detached IS NOT NULL"), "{index}");
}

#[test]
fn the_cookie_itself_is_not_in_the_file() {
    let cookie = uuid::Uuid::parse_str("936da01f-9abd-4d9d-80c7-02af85c822a8").unwrap();
    let hash = CookieHash::of(cookie);
    assert_eq!(hash, CookieHash::of(cookie));
    assert_ne!(hash, CookieHash::of(uuid::Uuid::nil()));
    let folder = tempfile::tempdir().unwrap();
    let mut store = sqlite(folder.path());
    store.begin().unwrap();
    store.insert(&Session { cookie: hash, ..session("a", 1, None) }, &rooms(7)).unwrap();
    store.commit().unwrap();
    let mut file = fs::read(folder.path().join("sessions.db")).unwrap();
    file.extend(fs::read(folder.path().join("sessions.db-wal")).unwrap());
    let holds = |bytes: &[u8]| file.windows(bytes.len()).any(|window| window == bytes);
    assert!(holds(&hash.0));
    for shown in
        [&cookie.as_bytes()[..], cookie.to_string().as_bytes(), cookie.simple().to_string().as_bytes()]
    {
        assert!(!holds(shown));
    }
}
