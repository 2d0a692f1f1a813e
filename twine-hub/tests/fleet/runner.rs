//! Carries a scenario out, and counts.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::dynamodb_local::DynamoDbLocal;
use crate::faulty_proxy::FaultyProxy;
use crate::hub::Hub;
use crate::ledger::{ROOMS, places};
use crate::publishers::Load;
use crate::readers::{Sequence, Staying, wander};
use crate::scenario::{Event, Layout, Scenario};
use crate::server::{Server, cluster};

/// So late that only what hangs is not done by then, on whatever machine; of one round.
const PATIENCE: Duration = Duration::from_mins(3);
const N_INSISTENT: usize = 8;
/// Acknowledgements before something happens, at most.
const BETWEEN: usize = 200;
const MASTER: &str = "main";

fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text:?}")))
}

/// Carries scenarios out, one after the other.
pub(crate) async fn run(scenarios: &[Scenario]) {
    let seed = from_environment("TWINE_FLEET_SEED").unwrap_or_else(|| fastrand::u64(..));
    let rounds: u32 = from_environment("TWINE_FLEET_ROUNDS").unwrap_or(1);
    // Shown where the test fails.
    println!("TWINE_FLEET_SEED={seed} TWINE_FLEET_ROUNDS={rounds} draws the same again");
    let mut draw = fastrand::Rng::with_seed(seed);
    let dynamodb = tokio::task::spawn_blocking(DynamoDbLocal::start).await.unwrap();
    for (n, scenario) in scenarios.iter().enumerate() {
        println!("{}", scenario.name);
        let table = FaultyProxy::start(dynamodb.port()).await;
        let mut fleet = Fleet::start(scenario, n, table).await;
        let carried_out = fleet.carry_out(scenario, draw.fork(), rounds);
        let patience = PATIENCE * rounds;
        tokio::time::timeout(patience, carried_out).await.expect("all are current again");
    }
}

/// The processes of a scenario.
struct Fleet {
    hubs: Vec<Hub>,
    redis: Vec<Server>,
    table: FaultyProxy,
}

impl Fleet {
    async fn start(scenario: &Scenario, n: usize, table: FaultyProxy) -> Self {
        let (redis, broker) = start_redis(scenario.redis);
        let store =
            format!("dynamodb:scenario-{n}?region=eu-central-1&endpoint=http://127.0.0.1:{}", table.port());
        let mut hubs = Vec::new();
        init_store(&broker, &store);
        for role in scenario.roles {
            let mut hub = Hub::new(&["--broker", &broker, "--store", &store, "--role", role]);
            hub.start().await;
            hubs.push(hub);
        }
        Self { hubs, redis, table }
    }

    async fn carry_out(&mut self, scenario: &Scenario, mut draw: fastrand::Rng, rounds: u32) {
        let with = |other: &str| {
            let fitting = self.hubs.iter().zip(scenario.roles).filter(move |(_, role)| **role != other);
            fitting.map(|(hub, _)| hub).collect::<Vec<_>>()
        };
        let (publish, edge) = (with("edge"), with("publish"));
        let (say_over, is_over) = watch::channel(false);
        let load = Load::new(publish.iter().copied(), is_over);

        // They are there before the first message, and so have to get all.
        let mut readers = JoinSet::new();
        let mut ends = Vec::new();
        let mut urls: Vec<_> = edge.iter().map(|hub| hub.url()).collect();
        for room in ROOMS {
            let (say_last, last) = watch::channel(None);
            for url in &urls {
                readers.spawn(Staying::subscribe(url, room).await.read(last.clone()));
            }
            readers.spawn(wander(urls.clone(), room, draw.fork(), last));
            urls.rotate_left(1);
            ends.push(say_last);
        }
        let mut publishers = JoinSet::new();
        for by in 0..N_INSISTENT {
            publishers.spawn(load.clone().insist(by, draw.fork()));
        }
        publishers.spawn(load.clone().give_up_easily(draw.fork()));

        let events = async {
            for event in (0..rounds).flat_map(|_| scenario.events) {
                load.ledger.until_more(draw.usize(..BETWEEN)).await;
                self.happen(*event, scenario, &load, &mut draw).await;
                load.ledger.until_more(1).await;
            }
        };
        tokio::select! {
            () = events => {}
            early = readers.join_next() => panic!("a reader ended: {early:?}"),
            early = publishers.join_next() => panic!("a publisher ended: {early:?}"),
        }
        say_over.send_replace(true);
        publishers.join_all().await;
        for (at, (room, last)) in ROOMS.into_iter().zip(ends).enumerate() {
            let number = load.ledger.begin(N_INSISTENT, room);
            last.send_replace(Some(number));
            load.finish(number, room, at).await;
        }
        let sequences: Vec<Sequence> = readers.join_all().await;

        println!("{}; {} refusals", load.ledger.summary(), load.refused());
        for room in ROOMS {
            let log = places(self.hubs[0].history(room).await);
            load.ledger.check(room, &log);
            for hub in &self.hubs[1..] {
                assert_eq!(places(hub.history(room).await), log, "hubs differ about {room}");
            }
            for sequence in sequences.iter().filter(|sequence| sequence.room == room) {
                sequence.check(&log, scenario.losses);
            }
        }
    }

    /// Lets it happen, and returns once it was felt and is over.
    async fn happen(&mut self, event: Event, scenario: &Scenario, load: &Load, draw: &mut fastrand::Rng) {
        match event {
            Event::KillHub => {
                let hub = draw.usize(..self.hubs.len());
                self.hubs[hub].kill();
                let mut others = scenario.roles.iter().enumerate().filter(|(other, _)| *other != hub);
                if others.any(|(_, role)| *role != "edge") {
                    load.ledger.until_more(draw.usize(..BETWEEN)).await;
                }
                self.hubs[hub].start().await;
            }
            Event::RestartHubs => {
                for hub in &mut self.hubs {
                    hub.stop().await;
                    load.ledger.until_more(1).await;
                    hub.start().await;
                }
            }
            Event::FlushRedis => self.redis[0].admin(&["FLUSHALL"]),
            Event::RestartRedis => {
                self.redis[0].kill();
                load.until_refused(1).await;
                tokio::task::block_in_place(|| self.redis[0].restart());
            }
            Event::PauseRedis => {
                self.redis[0].pause();
                load.until_refused(1).await;
                self.redis[0].resume();
            }
            Event::KillMaster => self.redis[0].kill(),
            Event::Table(trouble) => {
                self.table.then(Some(trouble));
                load.until_refused(1).await;
                self.table.then(None);
            }
        }
    }
}

/// Starts the servers, and says where hubs find them.
fn start_redis(layout: Layout) -> (Vec<Server>, String) {
    tokio::task::block_in_place(|| match layout {
        Layout::Alone => {
            let server = Server::start();
            let url = server.url();
            (vec![server], url)
        }
        Layout::Sentinel => {
            let master = Server::start();
            let replica = Server::with(&["--replicaof", "127.0.0.1", &master.port.to_string()]);
            let sentinel = Server::sentinel(&master, MASTER);
            let knows = |server: &Server, command: &[&str], what: &str| {
                // Nobody announces it.
                let deadline = Instant::now() + PATIENCE;
                while !format!("{:?}", server.admin::<redis::Value>(command)).contains(what) {
                    assert!(Instant::now() < deadline, "no {what} after {PATIENCE:?}");
                    std::thread::sleep(Duration::from_millis(20));
                }
            };
            knows(&replica, &["INFO", "replication"], "master_link_status:up");
            knows(&sentinel, &["SENTINEL", "REPLICAS", MASTER], &replica.port.to_string());
            let url = format!("redis-sentinel://127.0.0.1:{}/{MASTER}", sentinel.port);
            (vec![master, replica, sentinel], url)
        }
        Layout::Cluster => {
            let nodes = cluster();
            let hosts: Vec<_> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
            (nodes, format!("redis-cluster://{}", hosts.join(",")))
        }
    })
}

/// Makes the table as an operator does.
fn init_store(broker: &str, store: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twine-hub"));
    command.env_clear().env("AWS_ACCESS_KEY_ID", "tests").env("AWS_SECRET_ACCESS_KEY", "tests");
    command
        .args(["init-store", "--broker", broker, "--store", store])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    // The proxy before the table is a task of this process.
    assert!(tokio::task::block_in_place(|| command.status()).unwrap().success());
}
