//! What one server carries, and what it costs: a measurement, not a test. It prints a table.
//!
//! ```sh
//! cargo test --release -p twine-hub --lib what_a_server_carries -- --ignored --nocapture
//! ```

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::task::JoinSet;

use super::server::{Server, cpu};
use super::*;

const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(4);
/// Characters of a message's `data`: when it was published, and zeros.
const DATA: usize = 128;
const EPOCH: &str = "e1";
const LOOKS: usize = 100_000;
/// Rooms, and messages in each, whose memory is measured.
const KEPT: (usize, usize) = (1_000, 20);

/// How a server is used.
#[derive(Clone, Copy)]
struct Use {
    /// Publishers, each of whom waits for its commit before it goes on.
    publishers: usize,
    /// Messages that each publishes at once, and commits as one.
    batch: usize,
    /// Publishes a second by the clock, whoever waits; `None`: as many as there can be.
    rate: Option<u32>,
    rooms: usize,
    /// Hubs that watch all rooms.
    hubs: usize,
}

const MANY: Use = Use { publishers: 256, batch: 1, rate: None, rooms: 100, hubs: 1 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, for a machine that has nothing else to do"]
async fn what_a_server_carries() {
    let uses = [
        ("publishers", [1, 16, 256].map(|publishers| Use { publishers, ..MANY }).to_vec()),
        ("hubs", [0, 1, 2, 3].map(|hubs| Use { hubs, ..MANY }).to_vec()),
        ("rooms", [1, 10, 1000].map(|rooms| Use { rooms, ..MANY }).to_vec()),
        ("a commit", [1, 8, 64].map(|batch| Use { publishers: 16, rooms: 16, batch, ..MANY }).to_vec()),
        ("by the clock", [100, 1000, 5000].map(|rate| Use { rate: Some(rate), ..MANY }).to_vec()),
    ];
    println!(
        "| | publishers | messages a commit | rooms | hubs | publishes/s | server us | own us | scripts | \
         heard p50 us | heard p99 us |\n|{}",
        " --- |".repeat(11)
    );
    for (what, uses) in uses {
        for how in uses {
            println!("| {what} {}", measure(how).await);
        }
    }
    println!("\na look at a room: {:.1} us of the server's CPU", look().await);
    let (of_room, of_message) = memory().await;
    println!("a room: {of_room:.0} bytes of the server's memory, a message {of_message:.0}");
}

/// What publishers and the hubs that watch share.
struct Run {
    epoch: Epoch,
    rooms: Vec<RoomName>,
    start: Instant,
    is_over: AtomicBool,
    published: AtomicU64,
    /// Times from a publish until a hub heard of it, in nanoseconds.
    heard: Mutex<Vec<u64>>,
}

impl Run {
    /// With so many rooms, none of which has a message.
    async fn begin(hub: &Hub, n_rooms: usize) -> Self {
        let rooms: Vec<RoomName> = (0..n_rooms).map(|n| room(&format!("room-{n}"))).collect();
        for room in &rooms {
            hub.rotate(room, EPOCH).await;
        }
        Self {
            epoch: Epoch::new(EPOCH).unwrap(),
            rooms,
            start: Instant::now(),
            is_over: AtomicBool::new(false),
            published: AtomicU64::new(0),
            heard: Mutex::default(),
        }
    }

    fn n_published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    /// Nanoseconds.
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap()
    }

    /// Publishes messages at once, then commits them.
    async fn publish(&self, hub: &Hub, nth_room: usize, batch: usize) {
        let room = &self.rooms[nth_room % self.rooms.len()];
        let data = format!("\"{:020}{}\"", self.now(), "0".repeat(DATA - 22));
        let published = join_all((0..batch).map(|_| async {
            let id = MessageId::new(&uuid::Uuid::new_v4().to_string()).unwrap();
            match hub.link.publish(room, &id, None, &data, None, &hub.limits).await.unwrap() {
                Published::Assigned { position, .. } => position.offset,
                other => panic!("{other:?}"),
            }
        }));
        hub.link.commit(room, &self.epoch, &published.await, &hub.limits).await.unwrap();
        self.published.fetch_add(batch as u64, Ordering::Relaxed);
    }

    async fn listen(&self, mut hub: Hub) {
        while let Some(event) = hub.bus.next().await {
            if let BusEvent::Said { chunk: Chunk::Messages { records, .. }, .. } = event {
                let at = |record: &crate::store::Record| record.data.get()[1..21].parse::<u64>().unwrap();
                let now = self.now();
                self.heard.lock().unwrap().extend(records.iter().map(|record| now - at(record)));
            }
        }
    }
}

/// One row of the table.
async fn measure(how: Use) -> String {
    let server = Server::start();
    let hub = Arc::new(Hub::at(&server.url()));
    let run = Arc::new(Run::begin(&hub, how.rooms).await);
    let mut listening = JoinSet::new();
    for _ in 0..how.hubs {
        let (run, hub) = (Arc::clone(&run), Hub::at(&server.url()));
        for watched in join_all(run.rooms.iter().map(|room| hub.link.watch(room))).await {
            watched.unwrap();
        }
        listening.spawn(async move { run.listen(hub).await });
    }

    let mut publishing = JoinSet::new();
    for nth in 0..if how.rate.is_some() { 1 } else { how.publishers } {
        let (run, hub) = (Arc::clone(&run), Arc::clone(&hub));
        publishing.spawn(async move {
            let mut clock = how.rate.map(|rate| tokio::time::interval(Duration::from_secs(1) / rate));
            let mut under_way = JoinSet::new();
            for n in nth.. {
                if run.is_over.load(Ordering::Relaxed) {
                    break;
                } else if let Some(clock) = &mut clock {
                    clock.tick().await;
                    let (run, hub) = (Arc::clone(&run), Arc::clone(&hub));
                    under_way.spawn(async move { run.publish(&hub, n, how.batch).await });
                } else {
                    run.publish(&hub, nth, how.batch).await;
                }
            }
            under_way.join_all().await;
        });
    }

    tokio::time::sleep(WARM_UP).await;
    let process = server.process();
    server.admin::<()>(&["CONFIG", "RESETSTAT"]);
    run.heard.lock().unwrap().clear();
    let (since, published) = (Instant::now(), run.n_published());
    let (of_server, own) = (cpu(&process), cpu("self"));
    tokio::time::sleep(MEASURED).await;
    let seconds = since.elapsed().as_secs_f64();
    let (of_server, own) = (cpu(&process) - of_server, cpu("self") - own);
    let scripts: u64 =
        field(&server.admin::<String>(&["INFO", "commandstats"]), "cmdstat_evalsha:calls=").parse().unwrap();
    let published = run.n_published() - published;
    let mut heard = std::mem::take(&mut *run.heard.lock().unwrap());
    run.is_over.store(true, Ordering::Relaxed);
    publishing.join_all().await;
    heard.sort_unstable();
    let quantile = |percent: usize| heard.get(heard.len() * percent / 100).map_or(0, |nanos| nanos / 1000);
    let each = |of: u64| float(of) / float(published);
    format!(
        "| {} | {} | {} | {} | {:.0} | {:.1} | {:.1} | {:.2} | {} | {} |",
        how.rate.map_or(how.publishers.to_string(), |rate| format!("{rate}/s")),
        how.batch,
        how.rooms,
        how.hubs,
        float(published) / seconds,
        each(of_server) / 1e3,
        each(own) / 1e3,
        each(scripts),
        quantile(50),
        quantile(99),
    )
}

/// Microseconds of the server's CPU for each of many looks at rooms.
async fn look() -> f64 {
    let server = Server::start();
    let hub = Hub::at(&server.url());
    hub.rotate(&room("chat"), "e1").await;
    let process = server.process();
    let before = cpu(&process);
    for _ in 0..LOOKS / 250 {
        let chat = room("chat");
        for looked in join_all((0..250).map(|_| hub.link.look(&chat))).await {
            assert!(matches!(looked.unwrap(), Looked::Known { .. }));
        }
    }
    float(cpu(&process) - before) / 1e3 / float(LOOKS as u64)
}

/// Bytes of the server's memory for each of many rooms, and for each message in them.
async fn memory() -> (f64, f64) {
    let server = Server::start();
    let hub = Hub::at(&server.url());
    let used = || field(&server.admin::<String>(&["INFO", "memory"]), "used_memory:").parse::<u64>().unwrap();
    let (n_rooms, n_messages) = KEPT;
    let empty = used();
    let run = Run::begin(&hub, n_rooms).await;
    let with_rooms = used();
    for nth in 0..n_rooms {
        run.publish(&hub, nth, n_messages).await;
    }
    let of_messages = float(used() - with_rooms) / float((n_rooms * n_messages) as u64);
    (float(with_rooms - empty) / float(n_rooms as u64), of_messages)
}

/// What a line of `INFO` says, up to its first comma.
fn field(info: &str, name: &str) -> String {
    let line = info.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
    line.split(',').next().unwrap().trim().to_owned()
}

// Far below 2^53.
#[allow(clippy::cast_precision_loss)]
fn float(n: u64) -> f64 {
    n as f64
}
