//! The committer over real stores whose writer the tests can stop, and make fail.

mod telling;

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use serde_json::value::RawValue;
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use twine_protocol::{Epoch, MessageId, Offset, Position, RoomName};

use super::PublishError;
use crate::rooms::{NewMessage, Options, Payload, Rooms, Watch, Watcher};
use crate::store::history::{Direction, Range};
use crate::store::{self, Kind, Opened, Record, Retention, StoreError, Writer};
use crate::telemetry::Telemetry;

/// A store's writer that does as it is told and says what it is asked.
struct Scripted {
    writer: Box<dyn Writer>,
    script: Arc<Script>,
    said: UnboundedSender<Said>,
}

#[derive(Default)]
struct Script {
    /// Commits and probes fail.
    fails: AtomicBool,
    /// The next commit panics.
    panics: AtomicBool,
    /// After its first batch retention waits for a word, or for the sender to be gone.
    gate: Mutex<Option<mpsc::Receiver<()>>>,
    /// How often a room's head was read.
    heads: AtomicUsize,
    /// Done in the next commit.
    during_commit: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

#[derive(Debug)]
enum Said {
    Committed { heads_before: usize },
    Probed { ok: bool },
    Expired { limit: usize, removed: usize },
}

impl Scripted {
    fn say(&self, said: Said) {
        // A test that has seen enough listens no more.
        let _ = self.said.send(said);
    }

    fn fails(&self) -> bool {
        self.script.fails.load(Ordering::SeqCst)
    }
}

impl Writer for Scripted {
    fn epoch(&self) -> &Epoch {
        self.writer.epoch()
    }

    fn last_time(&self) -> u64 {
        self.writer.last_time()
    }

    fn head(&mut self, room: &RoomName) -> Result<Offset, StoreError> {
        self.script.heads.fetch_add(1, Ordering::SeqCst);
        self.writer.head(room)
    }

    fn begin(&mut self) -> Result<(), StoreError> {
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
        self.writer.append(room, record)
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        assert!(!self.script.panics.load(Ordering::SeqCst), "a test wants the committer to panic");
        if self.fails() {
            self.writer.rollback();
            return Err(as_told());
        }
        self.say(Said::Committed { heads_before: self.script.heads.load(Ordering::SeqCst) });
        let during_commit = self.script.during_commit.lock().unwrap().take();
        if let Some(during_commit) = during_commit {
            during_commit();
        }
        self.writer.commit()
    }

    fn rollback(&mut self) {
        self.writer.rollback();
    }

    fn probe(&mut self) -> Result<(), StoreError> {
        let result = if self.fails() { Err(as_told()) } else { self.writer.probe() };
        self.say(Said::Probed { ok: result.is_ok() });
        result
    }

    fn expire(&mut self, cut: u64, limit: usize) -> Result<usize, StoreError> {
        let removed = self.writer.expire(cut, limit)?;
        self.say(Said::Expired { limit, removed });
        if let Some(gate) = self.script.gate.lock().unwrap().take() {
            let _ = gate.recv();
        }
        Ok(removed)
    }
}

fn as_told() -> StoreError {
    StoreError::Database { action: "failing as told", source: rusqlite::Error::InvalidQuery }
}

struct Bench {
    rooms: Rooms,
    script: Arc<Script>,
    said: UnboundedReceiver<Said>,
    folder: TempDir,
}

impl Bench {
    fn new(retention: Retention, options: &Options) -> Self {
        Self::open_in(tempfile::tempdir().unwrap(), retention, options)
    }

    /// The same in a folder that a hub may have used before.
    fn open_in(folder: TempDir, retention: Retention, options: &Options) -> Self {
        Self::open_with(folder, retention, options, Script::default())
    }

    fn open_with(folder: TempDir, retention: Retention, options: &Options, script: Script) -> Self {
        let kind = Kind::Sqlite { data_dir: folder.path().to_owned() };
        let Opened { writer, reader } = store::open(&store::Options { kind, retention }).unwrap();
        let (say, said) = unbounded_channel();
        let script = Arc::new(script);
        let writer = Box::new(Scripted { writer, script: script.clone(), said: say });
        let telemetry = Arc::new(Telemetry::default());
        let rooms = Rooms::start(Opened { writer, reader }, retention, options, telemetry).unwrap();
        Self { rooms, script, said, folder }
    }

    fn forever() -> Self {
        Self::new(Retention::Forever, &Options::default())
    }

    /// Closes the hub and opens it again over the same files.
    async fn restart(self, options: &Options) -> Self {
        self.rooms.close().await;
        let Self { rooms, folder, .. } = self;
        drop(rooms);
        Self::open_in(folder, Retention::Forever, options)
    }

    fn fail(&self, fails: bool) {
        self.script.fails.store(fails, Ordering::SeqCst);
    }

    /// Stops the committer's thread until what this returns is dropped.
    fn stop(&self) -> mpsc::Sender<()> {
        let (go_on, stopped) = mpsc::channel::<()>();
        // An error is what it waits for: the sender is gone.
        let opened = Box::new(move |_| {
            let _ = stopped.recv();
        });
        self.rooms.watch(&room("of-the-one-who-stops-it"), watcher().0, opened);
        go_on
    }

    /// Watches a room; says when its head moved.
    async fn watch(&self, name: &str) -> UnboundedReceiver<()> {
        let (watcher, moves) = watcher();
        let (done, opened) = oneshot::channel();
        let opened_room = Box::new(move |room: Result<_, _>| done.send(room.is_ok()).unwrap());
        self.rooms.watch(&room(name), watcher, opened_room);
        assert!(opened.await.unwrap());
        moves
    }

    /// The messages of a room, as JSON.
    async fn messages(&self, name: &str) -> Vec<String> {
        let all =
            Range { after: None, before: None, since: None, until: None, direction: Direction::Backwards };
        let history = self.rooms.history(&room(name), all, 1_000).await.unwrap();
        history.messages.iter().map(|message| message.data.get().to_owned()).collect()
    }
}

struct Moves(UnboundedSender<()>);

impl Watch for Moves {
    fn moved(&self, _: u32) {
        let _ = self.0.send(());
    }
}

fn watcher() -> (Watcher, UnboundedReceiver<()>) {
    let (say, moves) = unbounded_channel();
    (Watcher { watch: Arc::new(Moves(say)), room: 0, is_told: Arc::default() }, moves)
}

fn room(name: &str) -> RoomName {
    name.parse().unwrap()
}

fn message(room_name: &str, data: &str, id: Option<&str>) -> NewMessage {
    NewMessage {
        room: room(room_name),
        data: RawValue::from_string(data.to_owned()).unwrap(),
        id: id.map(|id| MessageId::new(id).unwrap()),
        sender: None,
    }
}

/// Waits until what is stored by now is older than what comes.
async fn later_by_the_clock() {
    let now = SystemTime::now();
    while SystemTime::now().duration_since(now).unwrap_or_default() < Duration::from_millis(2) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_failed_commit_delivers_nothing_and_its_id_is_free_again() {
    let bench = Bench::forever();
    let mut moves = bench.watch("chat").await;
    bench.fail(true);
    let failed = bench.rooms.publish(vec![message("chat", "1", Some("x"))]).await;
    assert!(matches!(failed, Err(PublishError::Store(_))), "{failed:?}");
    assert!(bench.rooms.health().is_err());
    assert!(bench.messages("chat").await.is_empty());
    assert!(moves.try_recv().is_err(), "nothing was delivered");

    bench.fail(false);
    let published = bench.rooms.publish(vec![message("chat", "2", Some("x"))]).await.unwrap();
    assert_eq!((published[0].offset.get(), published[0].duplicate), (1, false));
    assert!(bench.rooms.health().is_ok());
    assert_eq!(bench.messages("chat").await, ["2"]);
    moves.recv().await.unwrap();
    assert!(moves.try_recv().is_err(), "one message, told once");
    bench.rooms.close().await;
}

#[tokio::test]
async fn a_store_that_works_again_is_noticed_without_a_publish() {
    let mut bench = Bench::forever();
    bench.fail(true);
    assert!(bench.rooms.publish(vec![message("chat", "1", None)]).await.is_err());
    while !matches!(bench.said.recv().await.unwrap(), Said::Probed { ok: false }) {}
    assert!(bench.rooms.health().is_err());
    bench.fail(false);
    while !matches!(bench.said.recv().await.unwrap(), Said::Probed { ok: true }) {}
    // The thread takes its next command when it has noted what the probe said.
    bench.watch("another").await;
    assert!(bench.rooms.health().is_ok());
    bench.rooms.close().await;
}

#[tokio::test]
async fn publishes_that_wait_together_are_one_commit() {
    let mut bench = Bench::forever();
    let go_on = bench.stop();
    let mut waiting: Vec<_> = (0..100)
        .map(|n| Box::pin(bench.rooms.publish(vec![message(&format!("r{}", n % 3), "1", None)])))
        .collect();
    for publish in &mut waiting {
        assert!(publish.as_mut().now_or_never().is_none());
    }
    drop(go_on);
    for publish in waiting {
        publish.await.unwrap();
    }
    bench.rooms.close().await;
    let mut commits = 0;
    while let Ok(said) = bench.said.try_recv() {
        commits += usize::from(matches!(said, Said::Committed { .. }));
    }
    assert_eq!(commits, 1);
}

#[tokio::test]
async fn opening_rooms_does_not_hold_up_a_publish() {
    let mut bench = Bench::forever();
    let go_on = bench.stop();
    let mut publishing = pin!(bench.rooms.publish(vec![message("chat", "1", None)]));
    assert!((&mut publishing).now_or_never().is_none());
    for n in 0..5_000 {
        bench.rooms.watch(&room(&n.to_string()), watcher().0, Box::new(drop));
    }
    drop(go_on);
    publishing.await.unwrap();
    let Some(Said::Committed { heads_before }) = bench.said.recv().await else { panic!("no commit") };
    assert!(heads_before < 1_500, "{heads_before} rooms were opened before the publish that came first");
    bench.rooms.close().await;
}

#[tokio::test]
async fn publishes_beyond_what_may_wait_are_refused_until_the_store_has_caught_up() {
    let options = Options { max_pending_bytes: 1_000, ..Options::default() };
    let bench = Bench::new(Retention::Forever, &options);
    let go_on = bench.stop();
    let large = format!("\"{}\"", "x".repeat(500));
    let publish = || bench.rooms.publish(vec![message("chat", &large, None)]);
    let mut waiting = pin!(publish());
    assert!((&mut waiting).now_or_never().is_none());
    assert!(matches!(publish().await, Err(PublishError::Overloaded)));
    drop(go_on);
    waiting.await.unwrap();
    publish().await.unwrap();
    assert_eq!(bench.messages("chat").await.len(), 2);

    let payload = || Payload { data: RawValue::from_string(large.clone()).unwrap(), id: None, sender: None };
    let to_each = |names: &[&str]| {
        let rooms = names.iter().map(|name| room(name)).collect();
        bench.rooms.publish_to_each(rooms, &payload())
    };
    assert!(matches!(to_each(&["a", "b"]).await, Err(PublishError::Overloaded)), "each room counts");
    assert!(bench.messages("a").await.is_empty());
    assert_eq!(to_each(&["a"]).await.unwrap().len(), 1);
    bench.rooms.close().await;
}

#[tokio::test]
async fn two_publishes_at_once_with_one_id_make_one_message() {
    let bench = Bench::forever();
    let go_on = bench.stop();
    let publish = |data| bench.rooms.publish(vec![message("chat", data, Some("x"))]);
    let (mut first, mut second) = (pin!(publish("1")), pin!(publish("2")));
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none());
    drop(go_on);
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!((first[0].offset, first[0].duplicate), (second[0].offset, false));
    assert!(second[0].duplicate);
    assert_eq!(bench.messages("chat").await, ["1"]);
    bench.rooms.close().await;
}

#[tokio::test]
async fn a_duplicate_is_told_only_once_the_first_is_durable_and_fails_with_it() {
    let bench = Bench::forever();
    bench.fail(true);
    let go_on = bench.stop();
    let publish = |data| bench.rooms.publish(vec![message("chat", data, Some("x"))]);
    let (mut first, mut second) = (pin!(publish("1")), pin!(publish("2")));
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none());
    drop(go_on);
    let (first, second) = (first.await, second.await);
    assert!(matches!(first, Err(PublishError::Store(_))), "{first:?}");
    assert!(matches!(second, Err(PublishError::Store(_))), "{second:?}");
    bench.fail(false);
    let (retried, again) = (publish("1").await.unwrap(), publish("1").await.unwrap());
    assert_eq!((retried[0].offset.get(), retried[0].duplicate), (1, false));
    assert_eq!((again[0].offset.get(), again[0].duplicate), (1, true));
    assert_eq!(bench.messages("chat").await, ["1"]);
    bench.rooms.close().await;
}

#[tokio::test]
async fn one_id_twice_in_a_batch_makes_one_message() {
    let bench = Bench::forever();
    let batch = ["1", "2", "3"].map(|data| message("chat", data, Some("x"))).into();
    let published = bench.rooms.publish(batch).await.unwrap();
    let told: Vec<_> = published.iter().map(|p| (p.offset.get(), p.duplicate)).collect();
    assert_eq!(told, [(1, false), (1, true), (1, true)]);
    assert_eq!(bench.messages("chat").await, ["1"]);
    bench.rooms.close().await;
}

#[tokio::test]
async fn an_id_is_recognised_after_a_restart_with_its_first_position() {
    let options = Options::default();
    let bench = Bench::forever();
    let first = bench.rooms.publish(vec![message("chat", "1", Some("x"))]).await.unwrap().remove(0);
    let bench = bench.restart(&options).await;
    let again = bench.rooms.publish(vec![message("chat", "2", Some("x"))]).await.unwrap().remove(0);
    assert_eq!((&again.epoch, again.offset, again.duplicate), (&first.epoch, first.offset, true));
    let other = bench.rooms.publish(vec![message("news", "3", Some("x"))]).await.unwrap().remove(0);
    assert!(!other.duplicate, "ids of different rooms do not meet");
    assert_eq!(bench.messages("chat").await, ["1"]);
    // Beyond the window it is an id like any other.
    let bench = bench.restart(&Options { idempotency_window: Duration::ZERO, ..options }).await;
    later_by_the_clock().await;
    let late = bench.rooms.publish(vec![message("chat", "4", Some("x"))]).await.unwrap().remove(0);
    assert_eq!((late.offset.get(), late.duplicate), (1, false));
    assert_eq!(bench.messages("chat").await, ["1", "4"]);
    bench.rooms.close().await;
}

#[tokio::test]
async fn what_is_kept_forever_is_read_from_its_first_message_over_restarts() {
    let options = Options { tail_bytes: 0, ..Options::default() };
    let mut bench = Bench::new(Retention::Forever, &options);
    let mut expected = Vec::new();
    for run in 0..3 {
        let batch = (0..300).map(|n| message("chat", &(run * 300 + n).to_string(), None)).collect::<Vec<_>>();
        expected.extend(batch.iter().map(|message| message.data.get().to_owned()));
        bench.rooms.publish(batch).await.unwrap();
        bench = bench.restart(&options).await;
    }
    assert_eq!(bench.messages("chat").await, expected);
    // Nothing was ever asked to go.
    bench.watch("another").await;
    while let Ok(said) = bench.said.try_recv() {
        assert!(!matches!(said, Said::Expired { .. }), "{said:?}");
    }
    bench.rooms.close().await;
}

/// Retention and publishes share one thread: a publish that comes while there is much to remove waits
/// for one batch of it.
#[tokio::test]
async fn retention_stalls_a_publish_for_one_batch_at_most() {
    let options = Options::default();
    let bench = Bench::forever();
    let many = (0..2_000).map(|n| message("old", &n.to_string(), None)).collect();
    bench.rooms.publish(many).await.unwrap();
    bench.rooms.close().await;
    let Bench { folder, rooms, .. } = bench;
    drop(rooms);
    later_by_the_clock().await;
    let (go_on, gate) = mpsc::channel();
    let script = Script { gate: Mutex::new(Some(gate)), ..Script::default() };
    let mut bench = Bench::open_with(folder, Retention::For(Duration::ZERO), &options, script);
    let Some(Said::Expired { limit: 500, removed: 500 }) = bench.said.recv().await else {
        panic!("no batch of its own size")
    };
    let mut publishing = pin!(bench.rooms.publish(vec![message("new", "1", None)]));
    assert!((&mut publishing).now_or_never().is_none());
    go_on.send(()).unwrap();
    assert!(matches!(bench.said.recv().await, Some(Said::Committed { .. })), "the publish goes first");
    publishing.await.unwrap();
    assert!(matches!(bench.said.recv().await, Some(Said::Expired { limit: 500, removed: 500 })));
    bench.rooms.close().await;
}

#[tokio::test]
async fn retention_removes_as_much_at_once_as_a_group_adds() {
    let options = Options { tail_bytes: 0, ..Options::default() };
    let mut bench = Bench::new(Retention::For(Duration::ZERO), &options);
    let many = (0..2_000).map(|n| message("chat", &n.to_string(), None)).collect();
    bench.rooms.publish(many).await.unwrap();
    let (mut largest, mut gone) = (0, 0);
    while gone < 2_000 {
        if let Said::Expired { limit, removed } = bench.said.recv().await.unwrap() {
            largest = largest.max(limit);
            gone += removed;
        }
    }
    assert!(largest >= 2_000, "{largest} at once can't keep up with groups of 2,000");
    assert!(bench.messages("chat").await.is_empty());
    assert_eq!(bench.rooms.info(&room("chat")).await.unwrap().head.offset.get(), 2_000);
    bench.rooms.close().await;
}

#[tokio::test]
async fn what_is_in_memory_is_bounded_in_bytes_over_all_rooms_and_the_oldest_go_first() {
    let large = format!("\"{}\"", "x".repeat(900));
    // Some ten frames.
    let options = Options { tail_bytes: 10_000, ..Options::default() };
    let bench = Bench::new(Retention::Forever, &options);
    for n in 0..50 {
        bench.rooms.publish(vec![message(&n.to_string(), &large, None)]).await.unwrap();
    }
    // The thread trims when it has answered, and is through when it takes the next command.
    bench.watch("another").await;
    let in_memory: Vec<u32> =
        bench.rooms.list(None, 100).rooms.iter().filter_map(|info| info.room.as_str().parse().ok()).collect();
    let oldest = in_memory.iter().min().copied().unwrap();
    assert!((5..=10).contains(&in_memory.len()), "{in_memory:?}");
    assert_eq!(in_memory.len(), usize::try_from(50 - oldest).unwrap(), "the last ones: {in_memory:?}");
    assert_eq!(bench.messages("0").await.len(), 1, "it is in the store");
    bench.rooms.close().await;
}

#[tokio::test]
async fn messages_leave_memory_by_age_and_stay_in_the_store() {
    let options = Options { tail_age: Duration::from_millis(1), ..Options::default() };
    let bench = Bench::new(Retention::Forever, &options);
    bench.rooms.publish(vec![message("chat", "1", None)]).await.unwrap();
    while !bench.rooms.list(None, 1).rooms.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.messages("chat").await, ["1"]);
    bench.rooms.close().await;
}

#[tokio::test]
async fn a_committer_that_panicked_is_told_as_a_fault_and_not_as_a_shutdown() {
    let bench = Bench::forever();
    bench.script.panics.store(true, Ordering::SeqCst);
    let refused = bench.rooms.publish(vec![message("chat", "1", None)]).await;
    assert!(matches!(refused, Err(PublishError::Store(_))), "{refused:?}");
    while bench.rooms.health().is_ok() {
        tokio::task::yield_now().await;
    }
    let refused = bench.rooms.publish(vec![message("chat", "1", None)]).await.unwrap_err();
    assert!(refused.to_string().contains("restart the hub"), "{refused}");
    bench.rooms.close().await;
    let refused = bench.rooms.publish(vec![message("chat", "1", None)]).await;
    assert!(matches!(refused, Err(PublishError::Draining)), "{refused:?}");
}
