//! When publishers and watchers are told of a commit.

use std::task::{Context, Wake, Waker};

use super::*;
use crate::broker::Publishing;
use crate::wakes;

/// Notes after how many commits watchers are told of which room. They look at once.
struct Diary {
    is_told: [Arc<AtomicBool>; 2],
    n_commits: Arc<AtomicUsize>,
    told: UnboundedSender<(u32, usize)>,
}

impl Watch for Diary {
    fn moved(&self, room: u32) {
        self.is_told[room as usize].store(false, Ordering::SeqCst);
        let _ = self.told.send((room, self.n_commits.load(Ordering::SeqCst)));
    }
}

/// Publishes into a room during each of the first three commits.
fn during_commits(rooms: Rooms, script: &Arc<Script>, n_commits: Arc<AtomicUsize>) {
    let during = script.clone();
    *script.during_commit.lock().unwrap() = Some(Box::new(move || {
        if n_commits.fetch_add(1, Ordering::SeqCst) < 3 {
            drop(rooms.publish(vec![message("busy", "1", None)]));
        }
        during_commits(rooms, &during, n_commits);
    }));
}

#[tokio::test]
async fn what_comes_into_a_room_during_a_commit_is_told_with_it_and_no_later_than_the_next() {
    const BUSY: u32 = 0;
    const OTHER: u32 = 1;
    let bench = Bench::forever();
    let (told, mut all_told) = unbounded_channel();
    let n_commits = Arc::<AtomicUsize>::default();
    let is_told: [Arc<AtomicBool>; 2] = Default::default();
    let watch = Arc::new(Diary { is_told: is_told.clone(), n_commits: n_commits.clone(), told });
    for ((name, room_number), is_told) in [("busy", BUSY), ("other", OTHER)].into_iter().zip(is_told) {
        let watcher = Watcher { watch: watch.clone(), room: room_number, is_told };
        let (done, opened) = oneshot::channel();
        bench.rooms.watch(&room(name), watcher, Box::new(|room| done.send(room.is_ok()).unwrap()));
        assert!(opened.await.unwrap());
    }
    during_commits(bench.rooms.clone(), &bench.script, n_commits.clone());
    let both = vec![message("busy", "1", None), message("other", "1", None)];
    bench.rooms.publish(both).await.unwrap();
    let mut found = Vec::new();
    while found.last() != Some(&(BUSY, 4)) {
        found.push(all_told.recv().await.unwrap());
    }
    assert_eq!(found, [(OTHER, 1), (BUSY, 2), (BUSY, 4)]);
    bench.script.during_commit.lock().unwrap().take();
    bench.rooms.close().await;
}

/// The publisher of several messages, who sleeps until the first of them is answered.
struct Publisher {
    last: Mutex<Option<Publishing>>,
    is_told: Arc<AtomicBool>,
    /// Whether the last was answered, and the room's watcher told, when it was woken.
    found: Mutex<Option<(bool, bool)>>,
}

/// What a shard's guest gives to a publish: it wakes its shard, if that sleeps.
struct Bell(Arc<Publisher>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        wakes::wake(self.0.clone().into());
    }
}

impl Wake for Publisher {
    fn wake(self: Arc<Self>) {
        let last = self.last.lock().unwrap().take().unwrap();
        let found = (last.now_or_never().is_some(), self.is_told.load(Ordering::SeqCst));
        *self.found.lock().unwrap() = Some(found);
    }
}

#[tokio::test]
async fn who_is_woken_by_a_commit_finds_all_of_it() {
    let bench = Bench::forever();
    let (watcher, _moves) = watcher();
    let is_told = watcher.is_told.clone();
    let (done, opened) = oneshot::channel();
    bench.rooms.watch(&room("chat"), watcher, Box::new(|room| done.send(room.is_ok()).unwrap()));
    assert!(opened.await.unwrap());
    let go_on = bench.stop();
    let mut publishes: Vec<_> =
        ["1", "2", "3"].map(|data| bench.rooms.publish(vec![message("chat", data, None)])).into();
    let (last, mut first) = (publishes.pop(), publishes.remove(0));
    let sleeper = Arc::new(Publisher { last: Mutex::new(last), is_told, found: Mutex::default() });
    let bell = Waker::from(Arc::new(Bell(sleeper.clone())));
    assert!(first.poll_unpin(&mut Context::from_waker(&bell)).is_pending());
    drop(go_on);
    // Joins the committer.
    bench.rooms.close().await;
    assert_eq!(*sleeper.found.lock().unwrap(), Some((true, true)));
    first.await.unwrap();
}
