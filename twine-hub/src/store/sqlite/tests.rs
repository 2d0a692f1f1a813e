//! What only a store in files can suffer: damage, foreign hands, and yesterday's copy.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::{OpenFlags, StatementStatus, params};
use tempfile::TempDir;
use twine_protocol::GapReason;

use crate::store::conformance::{append, at, read, record, room, shown, sqlite};
use crate::store::page::Start;
use crate::store::{Kind, Opened, Options, Retention, StoreError, open};

fn try_to_open(folder: &TempDir) -> Result<Opened, StoreError> {
    let kind = Kind::Sqlite { data_dir: folder.path().to_owned() };
    open(&Options { kind, retention: Retention::Forever })
}

fn refused(folder: &TempDir) -> StoreError {
    match try_to_open(folder) {
        Err(error) => error,
        Ok(_) => panic!("opened"),
    }
}

fn database(folder: &TempDir) -> PathBuf {
    folder.path().join("twine.db")
}

fn log(folder: &TempDir) -> PathBuf {
    folder.path().join("twine.db-wal")
}

/// A folder whose hub has stored 300 messages and was stopped.
fn used() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    append(&mut sqlite(&folder), "a", 1..301, 10);
    assert!(!log(&folder).exists());
    folder
}

/// The files of a hub that is killed now, after `n` more commits than [`used`] has.
fn killed(n: u64) -> TempDir {
    let folder = used();
    let mut store = sqlite(&folder);
    for n in 1..=n {
        append(&mut store, "a", n..n + 1, 20);
    }
    copy(&folder)
}

/// What the files hold at this moment.
fn copy(folder: &TempDir) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in [database(folder), log(folder)] {
        if file.exists() {
            fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
        }
    }
    copy
}

fn overwrite(path: &Path, at: usize, bytes: &[u8]) {
    let mut content = fs::read(path).unwrap();
    content[at..at + bytes.len()].copy_from_slice(bytes);
    fs::write(path, content).unwrap();
}

#[test]
fn a_file_that_is_no_database_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    for content in [vec![0xa5; 100], vec![0xa5; 100_000], b"SQLite format 3\0".to_vec(), vec![0; 4096]] {
        fs::write(database(&folder), &content).unwrap();
        let error = refused(&folder);
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
        assert!(error.to_string().contains("restore a backup, or move it"), "{error}");
        assert_eq!(fs::read(database(&folder)).unwrap(), content, "it was left as it is");
    }
}

#[test]
fn a_truncated_database_is_refused_wherever_it_ends() {
    let folder = used();
    let whole = fs::read(database(&folder)).unwrap();
    let pages = whole.len() / 4096;
    assert!(pages > 8, "{pages}");
    for len in (1..pages).map(|page| page * 4096).chain([50, 5000, whole.len() - 1]) {
        fs::write(database(&folder), &whole[..len]).unwrap();
        let error = refused(&folder);
        assert!(matches!(error, StoreError::Corrupt { .. }), "{len} bytes: {error:?}");
    }
    fs::write(database(&folder), whole).unwrap();
    assert!(try_to_open(&folder).is_ok());
}

#[test]
fn a_page_that_is_none_is_found_at_the_start() {
    let folder = used();
    let whole = fs::read(database(&folder)).unwrap();
    for page in 0..whole.len() / 4096 {
        fs::write(database(&folder), &whole).unwrap();
        overwrite(&database(&folder), page * 4096, &[0xa5; 4096]);
        let error = refused(&folder);
        assert!(matches!(error, StoreError::Corrupt { .. }), "page {page}: {error:?}");
    }
}

#[test]
fn a_database_that_a_killed_hub_left_is_refused_when_it_is_damaged_and_kept_as_it_is() {
    let folder = killed(3);
    let before = (fs::read(database(&folder)).unwrap(), fs::read(log(&folder)).unwrap());
    let cut = before.0.len() / 2 / 4096 * 4096;
    File::options().write(true).open(database(&folder)).unwrap().set_len(cut as u64).unwrap();
    let error = refused(&folder);
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    assert_eq!(fs::read(database(&folder)).unwrap(), before.0[..cut]);
    assert_eq!(fs::read(log(&folder)).unwrap(), before.1);
}

#[test]
fn a_damaged_log_is_refused_where_acknowledged_messages_are_in_it() {
    for at in [0, 20, 32 + 8, 32 + 24 + 100] {
        let folder = killed(5);
        let byte = fs::read(log(&folder)).unwrap()[at];
        overwrite(&log(&folder), at, &[!byte]);
        let content = fs::read(log(&folder)).unwrap();
        let error = refused(&folder);
        assert!(matches!(error, StoreError::DamagedLog { .. }), "byte {at}: {error:?}");
        assert!(error.to_string().contains("OPERATIONS.md"), "{error}");
        assert_eq!(fs::read(log(&folder)).unwrap(), content, "it was left as it is");
        // What OPERATIONS.md says to do.
        let by_hand = rusqlite::Connection::open(database(&folder)).unwrap();
        by_hand.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        drop(by_hand);
        assert!(try_to_open(&folder).is_ok(), "byte {at}");
    }
}

#[test]
fn a_backup_that_is_made_while_the_hub_runs_is_a_whole_database() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = sqlite(&folder);
    append(&mut store, "a", 1..4, 10);
    let backup = tempfile::tempdir().unwrap();
    rusqlite::Connection::open(database(&folder))
        .unwrap()
        .execute("VACUUM INTO ?1", [database(&backup).to_str().unwrap()])
        .unwrap();
    append(&mut store, "a", 4..5, 10);
    let mut restored = try_to_open(&backup).unwrap();
    let until = at(restored.writer.epoch(), 0);
    let page = read(&mut restored, "a", &Start::After(at(store.writer.epoch(), 1)), &until);
    assert_eq!(shown(&page), ["2", "3", "crossing after 3"]);
}

#[test]
fn what_a_killed_hub_was_writing_is_left_aside_and_the_rest_is_there() {
    let folder = killed(5);
    // Its last commit is half there.
    let log = File::options().write(true).open(log(&folder)).unwrap();
    log.set_len(log.metadata().unwrap().len() - 100).unwrap();
    drop(log);
    let mut store = try_to_open(&folder).unwrap();
    let until = at(store.writer.epoch(), 0);
    let page = read(&mut store, "a", &Start::Last(4), &until);
    assert_eq!(shown(&page), ["1", "2", "3", "4", "crossing after 4"]);
}

#[test]
fn an_empty_file_is_a_new_database() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(database(&folder), []).unwrap();
    append(&mut try_to_open(&folder).unwrap(), "a", 1..2, 10);
    assert!(try_to_open(&folder).is_ok());
}

#[test]
fn a_log_without_its_database_is_not_thrown_away() {
    let folder = killed(3);
    let content = fs::read(log(&folder)).unwrap();
    let elsewhere = folder.path().join("moved");
    fs::rename(database(&folder), &elsewhere).unwrap();
    for _ in 0..2 {
        let error = refused(&folder);
        assert!(matches!(error, StoreError::Orphaned { .. }), "{error:?}");
        assert_eq!(fs::read(log(&folder)).unwrap(), content);
    }
    fs::rename(&elsewhere, database(&folder)).unwrap();
    assert!(try_to_open(&folder).is_ok());
}

#[test]
fn a_database_of_another_program_is_refused_and_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let other = rusqlite::Connection::open(database(&folder)).unwrap();
    other.execute_batch("CREATE TABLE theirs (x); PRAGMA user_version = 1;").unwrap();
    drop(other);
    let before = fs::read(database(&folder)).unwrap();
    let error = refused(&folder);
    assert!(matches!(error, StoreError::Foreign { .. }), "{error:?}");
    assert!(error.to_string().contains("set another `data_dir`"), "{error}");
    assert_eq!(fs::read(database(&folder)).unwrap(), before);
}

#[test]
fn a_database_of_a_later_version_is_refused_and_not_touched() {
    let folder = used();
    rusqlite::Connection::open(database(&folder)).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = fs::read(database(&folder)).unwrap();
    let error = refused(&folder);
    assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error:?}");
    assert!(error.to_string().contains("run a newer twine-hub"), "{error}");
    assert_eq!(fs::read(database(&folder)).unwrap(), before);
}

/// The process would write on into a file without a name, and acknowledge it.
#[test]
fn nothing_is_acknowledged_into_a_file_that_was_moved_away() {
    for file in [database, log] {
        let folder = tempfile::tempdir().unwrap();
        let mut store = sqlite(&folder);
        append(&mut store, "a", 1..2, 10);
        let elsewhere = folder.path().join("moved");
        fs::rename(file(&folder), &elsewhere).unwrap();
        store.writer.begin().unwrap();
        store.writer.append(&room("a"), &record(2, 10, Some("x"))).unwrap();
        let error = store.writer.commit().unwrap_err();
        assert!(matches!(error, StoreError::Moved { .. }), "{error:?}");
        assert!(matches!(store.writer.probe(), Err(StoreError::Moved { .. })));
        // Another file by that name does not do.
        fs::copy(&elsewhere, file(&folder)).unwrap();
        assert!(matches!(store.writer.probe(), Err(StoreError::Moved { .. })));
        fs::rename(&elsewhere, file(&folder)).unwrap();
        store.writer.probe().unwrap();
        append(&mut store, "a", 2..3, 10);
        drop(store);
        let mut store = sqlite(&folder);
        let until = at(store.writer.epoch(), 0);
        assert_eq!(shown(&read(&mut store, "a", &Start::Last(9), &until)), ["1", "2", "crossing after 2"]);
    }
}

/// It came as a gap after an answer that said all was recovered, and ended a page of history.
#[test]
fn a_loss_right_behind_a_crossing_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let cursor = at(sqlite(&folder).writer.epoch(), 0);
    let mut store = sqlite(&folder);
    append(&mut store, "a", 1..3, 10);
    assert_eq!(store.writer.expire(20, 1).unwrap(), 1);
    let until = at(store.writer.epoch(), 2);
    let page = read(&mut store, "a", &Start::After(cursor.clone()), &until);
    assert_eq!((shown(&page), page.complete), (vec!["2".to_owned()], true));
    let lost = page.loss.unwrap().lost;
    assert_eq!((lost.from, lost.to, lost.count), (cursor, at(store.writer.epoch(), 1), Some(1)));
}

/// The copy of yesterday knows nothing of today: who comes from there is told so, and no position is
/// given to two messages.
#[test]
fn a_restored_copy_of_yesterday_reuses_no_position_and_tells_who_comes_from_the_lost_future() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = sqlite(&folder);
    let first = store.writer.epoch().clone();
    append(&mut store, "a", 1..4, 10);
    // A copy of a running hub's files, as a snapshot of the file system takes it.
    let yesterday = copy(&folder);
    append(&mut store, "a", 4..7, 20);
    drop(store);
    let mut store = sqlite(&folder);
    let second = store.writer.epoch().clone();
    append(&mut store, "a", 1..3, 30);
    drop(store);

    let mut store = sqlite(&yesterday);
    let restored = store.writer.epoch().clone();
    assert!(restored > first && restored != second);
    append(&mut store, "a", 1..3, 40);
    let until = at(&restored, 2);
    // What the copy has goes on as if nothing had been.
    let page = read(&mut store, "a", &Start::After(at(&first, 2)), &until);
    assert_eq!(shown(&page), ["3", "crossing after 3", "1", "2"]);
    assert_eq!((page.loss, page.complete), (None, true));
    // What only the lost files had does not.
    for lost in [at(&first, 4), at(&first, 6), at(&second, 0), at(&second, 2)] {
        let page = read(&mut store, "a", &Start::After(lost.clone()), &until);
        let loss = page.loss.unwrap_or_else(|| panic!("{lost:?} is a place in the restored log"));
        assert_eq!((loss.reason, loss.lost.from), (GapReason::Unknown, lost));
        assert_eq!(loss.lost.to, page.start);
        assert!([at(&restored, 0), until.clone()].contains(&page.start), "{:?}", page.start);
    }
}

#[test]
fn a_statement_is_compiled_once_whatever_is_bound_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let connection = super::connect(&folder.path().join("any.db"), flags).unwrap();
    connection.execute_batch("CREATE TABLE logs (room TEXT, offset INTEGER)").unwrap();
    let mut statement = connection.prepare("SELECT offset FROM logs WHERE room = ?1 LIMIT ?2").unwrap();
    for limit in 1..100 {
        assert!(!statement.exists(params![limit.to_string(), limit]).unwrap());
    }
    assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
}
