//! The hubs of a fleet, and the ways between them and what they need.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::time::sleep;

use crate::back_ends::Redis;
use crate::faulty_proxy::FaultyProxy;
use crate::hub::Hub;
use crate::namespaces::Network;
use crate::proxy::{Port, Proxy, Server};
use crate::scenario::{BackEnd, Scenario};
use crate::wire::Wire;

/// So late that only what hangs is not done by then, on whatever machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
/// Before somebody asks again what nobody announces.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);
const DAY: u64 = 24 * 3_600;
/// For how long a hub behind a balancer, whose agent is asked every second, lets its clients go.
const DRAIN_WINDOW: &str = "3s";

/// The processes of a scenario.
pub(crate) struct Fleet {
    pub(crate) members: Vec<Member>,
    pub(crate) redis: Redis,
    /// What answers for the table, to all hubs.
    pub(crate) table: FaultyProxy,
    pub(crate) balancer: Option<Proxy>,
}

/// A hub and what is its own.
pub(crate) struct Member {
    pub(crate) hub: Hub,
    pub(crate) role: String,
    /// To the one server or the sentinel, where there is one and the hub in the same network.
    to_redis: Option<Wire>,
    to_table: Wire,
    pub(crate) network: Option<Network>,
    agent: Option<Port>,
}

impl Fleet {
    /// Starts all of it, and returns when the hubs are ready.
    pub(crate) async fn start(scenario: &Scenario, n: usize, table: FaultyProxy) -> Self {
        // Where hubs find what is in the network of this process.
        let here = if scenario.apart { Network::HERE } else { Ipv4Addr::LOCALHOST };
        let redis = tokio::task::block_in_place(|| Redis::start(scenario.redis, here));
        let location = |endpoint: SocketAddr| {
            format!("dynamodb:scenario-{n}?region=eu-central-1&endpoint=http://{endpoint}")
        };
        let behind = SocketAddr::from((Ipv4Addr::LOCALHOST, table.port()));
        init_store(&redis.url(redis.entrance().map(local)), &location(behind));
        let mut members = Vec::new();
        for (at, role) in scenario.roles.iter().enumerate() {
            let to_table = Wire::start(here, behind);
            let to_redis =
                redis.entrance().filter(|_| !scenario.apart).map(|port| Wire::start(here, local(port)));
            let entrance = redis.entrance().map(|port| match &to_redis {
                Some(wire) => wire.address(),
                None => (here, port).into(),
            });
            let (broker, store) = (redis.url(entrance), location(to_table.address()));
            let mut settings = vec!["--broker", &broker, "--store", &store, "--role", role];
            let agent = scenario.balanced.then(Port::reserve);
            let agent_listen = agent.as_ref().map(|agent| agent.address().to_string());
            if let Some(agent_listen) = &agent_listen {
                settings.extend(["--agent-listen", agent_listen, "--drain-window", DRAIN_WINDOW]);
            }
            let mut hub = Hub::new(&settings);
            let network = scenario.apart.then(|| Network::new(at));
            if let Some(network) = &network {
                hub.move_to(network.name(), network.address());
            }
            if let Some(seconds) = scenario.clocks.get(at).filter(|seconds| **seconds != 0) {
                set_clock(&mut hub, *seconds);
            }
            hub.start().await;
            assert_clock(&hub, scenario.clocks.get(at).copied().unwrap_or(0)).await;
            members.push(Member { hub, role: role.clone(), to_redis, to_table, network, agent });
        }
        let mut fleet = Self { members, redis, table, balancer: None };
        for at in 0..fleet.members.len() {
            fleet.until_ready(at).await;
        }
        if scenario.balanced {
            fleet.balance().await;
        }
        fleet
    }

    /// Puts HAProxy in front of the hubs.
    async fn balance(&mut self) {
        assert!(self.members.iter().all(|member| member.role == "all"), "HAProxy takes each for the other");
        let addresses = self.members.iter().map(|member| {
            (member.hub.address(), member.agent.as_ref().expect("a balanced hub has an agent").address())
        });
        let addresses: Vec<_> = addresses.collect();
        let balancer = tokio::task::block_in_place(|| Proxy::start(&addresses));
        self.balancer = Some(balancer);
        for at in 0..self.members.len() {
            self.until_balanced(at).await;
        }
    }

    /// Returns when the balancer, if there is one, sends clients to a hub.
    pub(crate) async fn until_balanced(&self, at: usize) {
        if let Some(balancer) = &self.balancer {
            let name = format!("hub-{}", at + 1);
            let up = balancer.until(&name, Server::is_up);
            tokio::time::timeout(PATIENCE, up).await.expect("the balancer finds the hub again");
        }
    }

    /// The addresses for those who come to hubs of other roles than this.
    pub(crate) fn urls_without(&self, role: &str) -> Vec<String> {
        if let Some(balancer) = &self.balancer {
            return vec![format!("http://{}", balancer.address())];
        }
        let fitting = self.members.iter().filter(|member| member.role != role);
        fitting.map(|member| member.hub.url()).collect()
    }

    pub(crate) async fn until_ready(&self, at: usize) {
        self.until_readiness(at, true).await;
    }

    pub(crate) async fn until_not_ready(&self, at: usize) {
        self.until_readiness(at, false).await;
    }

    async fn until_readiness(&self, at: usize, is_ready: bool) {
        let deadline = Instant::now() + PATIENCE;
        while self.members[at].hub.is_ready().await != is_ready {
            assert!(
                Instant::now() < deadline,
                "after {PATIENCE:?} it is not so that hub {at} is ready: {is_ready}"
            );
            sleep(PAUSE).await;
        }
    }
}

impl Member {
    /// The way to a back end.
    pub(crate) fn wire(&self, to: BackEnd) -> &Wire {
        match to {
            BackEnd::Redis => self.to_redis.as_ref().expect("one entrance, in the hub's network"),
            BackEnd::Table => &self.to_table,
        }
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Has a hub start with a clock that is wrong by so many seconds. The one that only goes on is right.
fn set_clock(hub: &mut Hub, seconds: i64) {
    // Who knows where it is put says so.
    let mut faketime = Command::new("faketime");
    faketime.args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"]).stdin(Stdio::null());
    let library = faketime.output().expect("faketime is installed (make setup)").stdout;
    hub.set("LD_PRELOAD", String::from_utf8(library).unwrap().trim());
    hub.set("FAKETIME", &format!("{seconds:+}"));
    for name in ["FAKETIME_DONT_FAKE_MONOTONIC", "DONT_FAKE_MONOTONIC"] {
        hub.set(name, "1");
    }
}

/// That a hub's clock is wrong by so many seconds, give or take what a busy machine needs.
async fn assert_clock(hub: &Hub, seconds: i64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let off = hub.seconds_of_day().await - i64::try_from(now % DAY).unwrap() - seconds;
    let day = i64::try_from(DAY).unwrap();
    // It may be another day already, or still.
    let off = (off + day / 2).rem_euclid(day) - day / 2;
    assert!(off.abs() < 30, "the clock of a hub is off by {off} s");
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
