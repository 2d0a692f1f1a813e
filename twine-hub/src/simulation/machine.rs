//! The machine that a hub runs on: a disk that outlives it, and the moment at which it dies.
//!
//! A crash is a copy of the files as they are at that moment: what `kill -9` leaves. The hub that is
//! killed runs on to the end of its step, but nothing it does there counts.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use twine_protocol::{Epoch, InstanceId, MessageId, Offset, Position, RoomName, SessionId};

use super::log::Log;
use crate::rooms::locked;
use crate::session::store::{Session, Store};
use crate::session::{CookieHash, Cursors};
use crate::store::{Record, StoreError, Writer};

/// What is on a disk: the folder, and what is true of the messages in it.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) folder: PathBuf,
    pub(super) log: Log,
}

/// The machine, shared by the world and the hub's stores.
pub(super) type Shared = Arc<Mutex<Machine>>;

#[derive(Debug)]
pub(super) struct Machine {
    root: TempDir,
    n_folders: u32,
    /// The folder of the present hub.
    folder: PathBuf,
    /// What was true of each hub's messages when it died; the last one is the present hub's.
    logs: Vec<Log>,
    /// Calls of the stores until the hub dies.
    fuse: Option<u32>,
    /// What was on the disk when it died.
    left: Option<Disk>,
    /// Whether the next commit of messages fails.
    pub(super) is_full: bool,
    /// How long a publish with the same id is recognised, in milliseconds.
    pub(super) window: u64,
}

/// A folder in memory, where the system has one: a simulation syncs often, and trusts its disk.
fn root() -> TempDir {
    let shm = Path::new("/dev/shm");
    let place = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
    tempfile::tempdir_in(place).unwrap()
}

impl Machine {
    pub(super) fn new(window: u64) -> Self {
        let mut machine = Self {
            root: root(),
            n_folders: 0,
            folder: PathBuf::new(),
            logs: Vec::new(),
            fuse: None,
            left: None,
            is_full: false,
            window,
        };
        machine.start(Disk { folder: machine.root.path().join("new"), log: Log::default() });
        machine
    }

    /// Takes a disk for the next hub.
    pub(super) fn start(&mut self, disk: Disk) {
        let Disk { folder, log } = disk;
        self.folder = folder;
        self.logs.push(log);
        self.fuse = None;
        self.left = None;
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The number of the present hub.
    pub(super) fn boot(&self) -> usize {
        self.logs.len() - 1
    }

    /// What is true, or was when that hub died.
    pub(super) fn log(&self, boot: usize) -> &Log {
        &self.logs[boot]
    }

    pub(super) fn present(&mut self) -> &mut Log {
        self.logs.last_mut().expect("there is a disk")
    }

    /// A copy of what is on the disk now, without some of the files.
    pub(super) fn copy(&mut self) -> Disk {
        let (from, log) = (self.folder.clone(), self.present().clone());
        let folder = self.mix(&from, &from, |_| true);
        Disk { folder, log }
    }

    /// A new folder with these files of one folder, and the others of another.
    pub(super) fn mix(&mut self, some: &Path, others: &Path, is_of_some: impl Fn(&str) -> bool) -> PathBuf {
        self.n_folders += 1;
        let folder = self.root.path().join(self.n_folders.to_string());
        fs::create_dir(&folder).unwrap();
        copy_files(some, &folder, &is_of_some);
        copy_files(others, &folder, |name| !is_of_some(name));
        folder
    }

    /// The hub dies at this many more calls of its stores.
    pub(super) fn light(&mut self, fuse: u32) {
        self.fuse = Some(fuse);
    }

    /// The hub lives, and its disk has room.
    pub(super) fn heal(&mut self) {
        self.fuse = None;
        self.is_full = false;
    }

    pub(super) fn is_dead(&self) -> bool {
        self.left.is_some()
    }

    /// What is on the disk when the hub dies now, or did already.
    pub(super) fn die(&mut self) -> Disk {
        match self.left.take() {
            Some(left) => left,
            None => self.copy(),
        }
    }

    /// A store is called: perhaps too late.
    fn burn(&mut self) {
        self.fuse = match self.fuse {
            Some(0) => {
                self.left = Some(self.copy());
                None
            }
            fuse => fuse.map(|left| left - 1),
        };
    }
}

/// What a hub keeps.
const DATABASES: [&str; 2] = ["twine.db", "sessions.db"];

/// Copies databases and their write-ahead logs.
fn copy_files(from: &Path, to: &Path, is_wanted: impl Fn(&str) -> bool) {
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        // What else there is a hub makes anew: its lock, and what it shares of the log.
        let is_data = DATABASES
            .iter()
            .any(|of| name.strip_prefix(of).is_some_and(|end| end.is_empty() || end == "-wal"));
        if is_data && is_wanted(&name) {
            fs::copy(file.path(), to.join(name)).unwrap();
        }
    }
}

/// A store's writer, whose every call may be the hub's last, and who writes down what is committed.
pub(super) struct Witness {
    writer: Box<dyn Writer>,
    machine: Shared,
    /// What the open transaction adds.
    added: Vec<(RoomName, Record)>,
}

impl Witness {
    pub(super) fn new(writer: Box<dyn Writer>, machine: Shared) -> Self {
        Self { writer, machine, added: Vec::new() }
    }

    fn burn(&self) {
        locked(&self.machine).burn();
    }
}

impl Writer for Witness {
    fn epoch(&self) -> &Epoch {
        self.writer.epoch()
    }

    fn last_time(&self) -> u64 {
        self.writer.last_time()
    }

    fn head(&mut self, room: &RoomName) -> Result<Offset, StoreError> {
        self.writer.head(room)
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        self.burn();
        self.added.clear();
        self.writer.begin()
    }

    fn find_id(
        &mut self,
        room: &RoomName,
        id: &MessageId,
        since: u64,
    ) -> Result<Option<Position>, StoreError> {
        self.writer.find_id(room, id, since)
    }

    fn append(&mut self, room: &RoomName, record: &Record) -> Result<(), StoreError> {
        self.burn();
        self.added.push((room.clone(), record.clone()));
        self.writer.append(room, record)
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.burn();
        if std::mem::take(&mut locked(&self.machine).is_full) {
            self.writer.rollback();
            return Err(StoreError::Ended);
        }
        self.writer.commit()?;
        let mut machine = locked(&self.machine);
        if !machine.is_dead() {
            let window = machine.window;
            for (room, record) in &self.added {
                machine.present().commits(room, record, window);
            }
        }
        machine.burn();
        Ok(())
    }

    fn rollback(&mut self) {
        self.writer.rollback();
    }

    fn probe(&mut self) -> Result<(), StoreError> {
        self.writer.probe()
    }

    fn expire(&mut self, cut: u64, limit: usize) -> Result<usize, StoreError> {
        let removed = self.writer.expire(cut, limit)?;
        let mut machine = locked(&self.machine);
        if !machine.is_dead() {
            machine.present().expires(removed);
        }
        Ok(removed)
    }
}

/// A store of sessions, whose every call may be the hub's last.
pub(super) struct Mortal {
    store: Box<dyn Store>,
    machine: Shared,
}

impl Mortal {
    pub(super) fn new(store: Box<dyn Store>, machine: Shared) -> Self {
        Self { store, machine }
    }

    fn burn(&mut self) -> &mut dyn Store {
        locked(&self.machine).burn();
        &mut *self.store
    }
}

impl Store for Mortal {
    fn begin(&mut self) -> Result<(), StoreError> {
        self.store.begin()
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.burn().commit()?;
        self.burn();
        Ok(())
    }

    fn rollback(&mut self) {
        self.store.rollback();
    }

    fn len(&self) -> usize {
        self.store.len()
    }

    fn of_cookie(&mut self, cookie: CookieHash) -> Result<Vec<Session>, StoreError> {
        self.store.of_cookie(cookie)
    }

    fn rooms(&mut self, id: &SessionId) -> Result<Option<Cursors>, StoreError> {
        self.store.rooms(id)
    }

    fn insert(&mut self, session: &Session, rooms: &Cursors) -> Result<(), StoreError> {
        self.burn().insert(session, rooms)
    }

    fn attach(&mut self, id: &SessionId, instance: Option<&InstanceId>) -> Result<(), StoreError> {
        self.burn().attach(id, instance)
    }

    fn detach(&mut self, id: &SessionId, time: u64) -> Result<(), StoreError> {
        self.burn().detach(id, time)
    }

    fn save(&mut self, id: &SessionId, rooms: &Cursors) -> Result<(), StoreError> {
        self.burn().save(id, rooms)
    }

    fn take(&mut self, id: &SessionId) -> Result<Option<Session>, StoreError> {
        self.burn().take(id)
    }

    fn remove(&mut self, id: &SessionId) -> Result<(), StoreError> {
        self.burn().remove(id)
    }

    fn remove_longest_detached(&mut self) -> Result<bool, StoreError> {
        self.burn().remove_longest_detached()
    }

    fn expire(&mut self, cut: u64, limit: usize) -> Result<usize, StoreError> {
        self.burn().expire(cut, limit)
    }
}
