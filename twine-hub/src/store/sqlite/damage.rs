//! What can be told of damaged files before anything is written to them.
//!
//! SQLite opens more than it should: a write-ahead log that it can't read is left aside, with every
//! message that was acknowledged into it, and a page that is no page is found when it is needed. So
//! the log's checksums are looked through first, and the pages of a database that is not too large.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::StoreError;

/// The largest database whose pages are all looked at when it is opened, in bytes: so much is read
/// in about a second.
const MAX_CHECKED: u64 = 512 << 20;

/// Refuses a database that was cut off to nothing. An empty file is what a hub leaves that is killed in
/// the first moment of its life, but sessions are only kept once the database has its schema. Where it
/// was moved away on purpose, there is no file.
pub(super) fn check_emptied(path: &Path, data_dir: &Path) -> Result<(), StoreError> {
    let has_sessions = data_dir.join("sessions.db").metadata().is_ok_and(|file| file.len() > 0);
    if is_empty(path) && has_sessions {
        return Err(StoreError::Corrupt { path: path.to_owned(), source: None });
    }
    Ok(())
}

/// Whether there is a file, and nothing in it.
pub(super) fn is_empty(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.len() == 0)
}

/// Checks the database at `path` and its log, as far as their files show it.
///
/// An empty database is a new one, but for a log beside it, which is left of another one.
pub(super) fn check_files(path: &Path) -> Result<(), StoreError> {
    let unusable = |path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::Folder { path, source }
    };
    let mut database = File::open(path).map_err(unusable(path))?;
    let len = database.metadata().map_err(unusable(path))?.len();
    let log = log_of(path);
    let with_content = |file: File| Ok((file.metadata()?.len() > 0).then_some(file));
    match File::open(&log).and_then(with_content) {
        Ok(Some(_)) if len == 0 => Err(StoreError::Orphaned { log, database: path.to_owned() }),
        Ok(Some(file)) => match unreadable_commits(BufReader::new(file)).map_err(unusable(&log))? {
            Unreadable::None => Ok(()),
            Unreadable::Commits | Unreadable::All => Err(StoreError::DamagedLog { path: log }),
        },
        Ok(None) => check_length(&mut database, len, path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => check_length(&mut database, len, path),
        Err(error) => Err(unusable(&log)(error)),
    }
}

/// Refuses a database that ends within a page: SQLite would take zeros for the rest. With a log, the
/// whole page may still be in there. And one of another version of the format: SQLite would read it only.
fn check_length(database: &mut File, len: u64, path: &Path) -> Result<(), StoreError> {
    let mut start = [0; 20];
    let n =
        read(database, &mut start).map_err(|source| StoreError::Folder { path: path.to_owned(), source })?;
    let [.., high, low, to_write, to_read] = start;
    // The number that stands for 65,536 does not fit into its field.
    let page_size = match u16::from_be_bytes([high, low]) {
        1 => 1 << 16,
        size => u64::from(size),
    };
    let is_known = [to_write, to_read].iter().all(|version| (1..=2).contains(version));
    if n == 0 || len.checked_rem(page_size) == Some(0) && is_known {
        return Ok(());
    }
    Err(StoreError::Corrupt { path: path.to_owned(), source: None })
}

/// Looks through all pages, unless there are too many.
pub(super) fn check_pages(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let action = "checking its pages";
    if path.metadata().is_ok_and(|file| file.len() > MAX_CHECKED) {
        tracing::info!(path = %path.display(), "the database is too large to be checked whole at a start");
        return Ok(());
    }
    let found: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(StoreError::database(action))?;
    if found == "ok" {
        return Ok(());
    }
    tracing::error!(path = %path.display(), found, "the database is damaged");
    Err(StoreError::Corrupt { path: path.to_owned(), source: None })
}

/// `twine.db-wal` of `twine.db`.
pub(super) fn log_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// What of a write-ahead log can't be read any more, though it was committed.
#[derive(Debug, PartialEq, Eq)]
enum Unreadable {
    None,
    /// What comes after the damage.
    Commits,
    /// Everything: its header is damaged.
    All,
}

/// A log's header, and what a frame has before its page: <https://www.sqlite.org/fileformat2.html>.
const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// The header's first field; its last bit is the byte order of checksums.
const MAGIC: u32 = 0x377f_0682;

/// Finds commits that the log has and SQLite would not find.
///
/// It reads up to the first frame whose checksum is wrong. One unfinished transaction may be there:
/// what was being written when the process or the machine died, and acknowledged to nobody. Each
/// commit was synced before the next began, so where two follow, what is wrong was right before.
fn unreadable_commits(mut log: impl Read) -> io::Result<Unreadable> {
    let mut header = [0; HEADER];
    if read(&mut log, &mut header)? < HEADER {
        return Ok(Unreadable::None);
    }
    let [magic, _, page_size, _, salt_1, salt_2, sum_1, sum_2] = words(&header, u32::from_be_bytes);
    let big_endian = magic & 1 == 1;
    let mut sum = Sum { big_endian, sums: (0, 0) };
    sum.add(header.get(..HEADER - 8).unwrap_or_default());
    let mut frame = vec![0; FRAME_HEADER + usize::try_from(page_size).unwrap_or_default().min(1 << 16)];
    if magic & !1 != MAGIC || sum.sums != (sum_1, sum_2) {
        // Synced before the first frame was written: with no frame it may be half there.
        let has_frames = read(&mut log, &mut frame)? > 0;
        return Ok(if has_frames { Unreadable::All } else { Unreadable::None });
    }
    let mut readable = true;
    let mut commits_behind = 0;
    while read(&mut log, &mut frame)? == frame.len() {
        let (head, page) = frame.split_at(FRAME_HEADER);
        let [_, commit, frame_salt_1, frame_salt_2, sum_1, sum_2] = words(head, u32::from_be_bytes);
        // Other salts are those of an earlier round through the file.
        let is_of_this_round = (frame_salt_1, frame_salt_2) == (salt_1, salt_2);
        if readable {
            sum.add(head.get(..8).unwrap_or_default());
            sum.add(page);
            readable = is_of_this_round && sum.sums == (sum_1, sum_2);
        }
        if !readable && is_of_this_round && commit != 0 {
            commits_behind += 1;
        }
    }
    Ok(if commits_behind > 1 { Unreadable::Commits } else { Unreadable::None })
}

/// The checksum that runs through a log.
struct Sum {
    big_endian: bool,
    sums: (u32, u32),
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        let word = if self.big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
        for pair in bytes.chunks_exact(8) {
            let [first, second] = words(pair, word);
            let (a, b) = self.sums;
            let a = a.wrapping_add(first).wrapping_add(b);
            let b = b.wrapping_add(second).wrapping_add(a);
            self.sums = (a, b);
        }
    }
}

/// The first `N` numbers of four bytes each; 0 for what is not there.
fn words<const N: usize>(bytes: &[u8], word: fn([u8; 4]) -> u32) -> [u32; N] {
    let mut chunks = bytes.chunks_exact(4).map(|chunk| chunk.try_into().map_or(0, word));
    std::array::from_fn(|_| chunks.next().unwrap_or(0))
}

/// Fills `buffer`, but for where the file ends; says how many bytes it read.
fn read(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log of five commits of one page each, after what an earlier round left in the file.
    fn log() -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("twine.db");
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (x)")
            .unwrap();
        for _ in 0..20 {
            connection.execute("INSERT INTO t VALUES (1)", []).unwrap();
        }
        connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
        for _ in 0..5 {
            connection.execute("INSERT INTO t VALUES (1)", []).unwrap();
        }
        std::fs::read(log_of(&path)).unwrap()
    }

    const FRAME: usize = FRAME_HEADER + 4096;

    #[test]
    fn a_whole_log_and_one_that_was_cut_off_are_readable() {
        let log = log();
        assert!(log.len() > HEADER + 20 * FRAME);
        assert_eq!(unreadable_commits(&log[..]).unwrap(), Unreadable::None);
        for len in [0, 7, HEADER, HEADER + 5, HEADER + 2 * FRAME, HEADER + 4 * FRAME + 1000] {
            assert_eq!(unreadable_commits(&log[..len]).unwrap(), Unreadable::None, "{len} bytes");
        }
    }

    #[test]
    fn damage_that_hides_commits_is_found_wherever_it_is() {
        let log = log();
        let damaged = |at: usize| {
            let mut log = log.clone();
            log[at] ^= 0x10;
            unreadable_commits(&log[..]).unwrap()
        };
        for at in 0..HEADER {
            assert_eq!(damaged(at), Unreadable::All, "byte {at}");
        }
        // Every byte of a frame's header, and some of its page, in each frame but the last: that one
        // may as well have been under way.
        for frame in 0..4 {
            for at in (0..FRAME_HEADER).chain([FRAME_HEADER, 1000, FRAME - 1]) {
                let found = damaged(HEADER + frame * FRAME + at);
                // What hides its own frame leaves one commit less behind it.
                let hides_itself = frame == 3 && (4..16).contains(&at);
                assert!(found == Unreadable::Commits || hides_itself, "byte {at} of frame {frame}");
            }
        }
    }
}
