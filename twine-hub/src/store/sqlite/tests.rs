//! What only a store in files can suffer: damage, foreign hands, and yesterday's copy.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{OpenFlags, StatementStatus, params};
use tempfile::TempDir;
use twine_protocol::{GapReason, Lost};

use crate::store::conformance::{append, at, read, record, room, shown, sqlite};
use crate::store::history::{self, Direction, Range};
use crate::store::page::{self, Limit, Loss, Recovery, Start};
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
fn a_header_that_is_damaged_is_refused_with_what_to_do_or_does_no_harm() {
    let folder = used();
    let whole = fs::read(database(&folder)).unwrap();
    let mut corrupt = 0;
    for (at, bytes) in (0..100).flat_map(|at| [(at, vec![!whole[at]]), (at, vec![0xa5; 8])]) {
        let damaged = tempfile::tempdir().unwrap();
        fs::write(database(&damaged), &whole).unwrap();
        overwrite(&database(&damaged), at, &bytes);
        match try_to_open(&damaged) {
            Ok(mut store) => append(&mut store, "a", 1..2, 20),
            Err(StoreError::Corrupt { .. }) => corrupt += 1,
            // What it is marked as is the header's too.
            Err(StoreError::Foreign { .. } | StoreError::Newer { .. }) if (54..72).contains(&at) => {}
            Err(error) => panic!("{bytes:?} at {at}: {error:?}"),
        }
    }
    assert!(corrupt > 80, "{corrupt}");
}

#[test]
fn a_message_whose_place_can_not_be_read_is_not_counted_and_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = sqlite(&folder);
    append(&mut store, "a", 1..10, 10);
    let by_hand = rusqlite::Connection::open(database(&folder)).unwrap();
    for damage in [
        "UPDATE messages SET epoch = -1 WHERE offset = 2",
        "UPDATE messages SET offset = -3 WHERE offset = 3",
        "UPDATE messages SET offset = 4.5 WHERE offset = 4",
    ] {
        by_hand.execute(damage, []).unwrap();
    }
    let (epoch, until) = (store.writer.epoch().clone(), at(store.writer.epoch(), 9));
    for (n, first) in [(1, 9), (5, 5), (6, 1), (7, 1)] {
        let found = store.reader.nth_last(&room("a"), n, &until, usize::MAX).unwrap();
        assert_eq!(found, Some(at(&epoch, first)), "the last {n}");
    }
}

#[test]
fn a_message_that_can_not_be_read_is_a_loss_and_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = sqlite(&folder);
    append(&mut store, "a", 1..10, 10);
    let by_hand = rusqlite::Connection::open(database(&folder)).unwrap();
    for damage in [
        "UPDATE messages SET data = CAST(x'22ff22' AS TEXT) WHERE offset = 3",
        "UPDATE messages SET data = 'no JSON' WHERE offset IN (4, 5)",
        "UPDATE messages SET time = -1 WHERE offset = 8",
    ] {
        by_hand.execute(damage, []).unwrap();
    }
    let (epoch, until) = (store.writer.epoch().clone(), at(store.writer.epoch(), 9));
    let page = read(&mut store, "a", &Start::After(at(&epoch, 0)), &until);
    assert_eq!((shown(&page), page.loss, page.complete), (vec!["1".into(), "2".into()], None, false));
    let page = read(&mut store, "a", &Start::After(at(&epoch, 2)), &until);
    assert_eq!((shown(&page), page.start), (vec!["6".into(), "7".into()], at(&epoch, 5)));
    let lost = Lost { from: at(&epoch, 2), to: at(&epoch, 5), count: Some(3) };
    assert_eq!(page.loss, Some(Loss { lost, reason: GapReason::Expired }));
    // Pages no longer than what is damaged.
    let one = Limit { messages: 1, bytes: usize::MAX };
    let page = page::read(&mut *store.reader, &room("a"), &Start::After(at(&epoch, 2)), &until, one, None);
    assert_eq!(shown(&page.unwrap()), ["6"]);
    let recovery = Recovery { max_messages: 100, max_age: Duration::MAX };
    let start = Start::After(at(&epoch, 7));
    let page = page::read(&mut *store.reader, &room("a"), &start, &until, one, Some(&recovery));
    assert_eq!(shown(&page.unwrap()), ["9"]);
    for direction in [Direction::Forwards, Direction::Backwards] {
        for messages in [1, 2, 3, 100] {
            let mut range = Range { after: None, before: None, since: None, until: None, direction };
            let mut seen = Vec::new();
            loop {
                let limit = Limit { messages, bytes: usize::MAX };
                let part = history::read(&mut *store.reader, &room("a"), &range, &until, limit).unwrap();
                seen.extend(part.messages.iter().map(|(_, record)| record.offset.get()));
                match direction {
                    Direction::Forwards => range.after.clone_from(&part.next),
                    Direction::Backwards => range.before.clone_from(&part.next),
                }
                if part.next.is_none() {
                    break;
                }
            }
            seen.sort_unstable();
            assert_eq!(seen, [1, 2, 6, 7, 9], "{direction:?}, {messages} a page");
        }
    }
}

#[test]
fn a_commit_is_synced_before_it_returns() {
    let folder = tempfile::tempdir().unwrap();
    let (writer, _) = super::open_both(folder.path()).unwrap();
    let pragma =
        |name| writer.connection.pragma_query_value(None, name, |row| row.get::<_, Value>(0)).unwrap();
    assert_eq!(pragma("journal_mode"), Value::Text("wal".into()));
    assert_eq!(pragma("synchronous"), Value::Integer(2), "FULL: the log is synced with each commit");
}

#[test]
fn a_database_that_was_cut_off_to_nothing_is_no_new_one() {
    let folder = used();
    let sessions = folder.path().join("sessions.db");
    let kind = Kind::Sqlite { data_dir: folder.path().to_owned() };
    drop(crate::session::store::open(&kind, 0).unwrap());
    fs::write(database(&folder), []).unwrap();
    let error = refused(&folder);
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    // What the error says to do.
    fs::rename(database(&folder), folder.path().join("moved")).unwrap();
    assert!(try_to_open(&folder).is_ok());
    assert!(sessions.exists());
    // By the time that there are sessions, there is more than nothing of the database.
    let new = tempfile::tempdir().unwrap();
    let store = sqlite(&new);
    assert!(fs::metadata(database(&new)).unwrap().len() > 0);
    drop(store);
}

#[test]
fn a_start_that_fails_leaves_no_empty_database_behind() {
    let folder = used();
    let kind = Kind::Sqlite { data_dir: folder.path().to_owned() };
    drop(crate::session::store::open(&kind, 0).unwrap());
    // Moved away, and its log was forgotten.
    fs::remove_file(database(&folder)).unwrap();
    fs::write(log(&folder), "a log").unwrap();
    let error = refused(&folder);
    assert!(matches!(error, StoreError::Orphaned { .. }), "{error:?}");
    assert!(!database(&folder).exists());
    fs::remove_file(log(&folder)).unwrap();
    assert!(try_to_open(&folder).is_ok());
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

/// That it waits for `fdatasync` can't be asked, but comes with this from `.cargo/config.toml`.
#[test]
fn sqlite_is_built_as_the_project_wants_it() {
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    let mut statement = connection.prepare("PRAGMA compile_options").unwrap();
    let options = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let options: Vec<_> = options.map(Result::unwrap).collect();
    assert!(options.iter().any(|option| option == "DEFAULT_MEMSTATUS=0"), "{options:?}");
}
