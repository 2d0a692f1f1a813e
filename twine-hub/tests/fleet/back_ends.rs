//! The Redis of a fleet, as it may be set up, and what can be done to it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::ledger::ROOMS;
use crate::scenario::Layout;
use crate::server::{Server, cluster};

/// So late that only what hangs is not done by then.
const PATIENCE: Duration = Duration::from_mins(1);
/// Before somebody asks again what nobody announces.
const PAUSE: Duration = Duration::from_millis(20);
/// The master's name for sentinels.
const MASTER: &str = "main";
/// As whom replicas come to the master; without that user the master has none.
const REPLICA: &str = "replica";
/// For how many milliseconds a master is silent until its sentinel takes it for dead: a busy machine is
/// not to make it so. A replica that has lost it is good enough for ten times as long.
const DOWN_AFTER: &str = "2000";

/// The servers. What its methods do they have done when they return; they block until then.
pub(crate) struct Redis {
    layout: Layout,
    /// The one to which things happen comes first; in a cluster it has the first of the rooms.
    servers: Vec<Server>,
    replica: Option<Server>,
    sentinel: Option<Server>,
    /// Whether the first server is gone for good.
    is_succeeded: bool,
}

impl Redis {
    /// Starts it, also at `address`, where that is another than this machine's own.
    pub(crate) fn start(layout: Layout, address: Ipv4Addr) -> Self {
        let mut redis =
            Self { layout, servers: Vec::new(), replica: None, sentinel: None, is_succeeded: false };
        let bind = ["--bind", "127.0.0.1", &address.to_string(), "--protected-mode", "no"];
        let elsewhere = if address.is_loopback() { &[][..] } else { &bind[..] };
        match layout {
            Layout::Alone => redis.servers.push(Server::with(elsewhere)),
            Layout::Durable => {
                redis.servers.push(Server::with(&[&["--appendonly", "yes"], elsewhere].concat()));
            }
            Layout::Sentinel => {
                let (master, replica) = (Server::start(), Server::start());
                admit(&master, &replica);
                replica.admin::<()>(&["REPLICAOF", "127.0.0.1", &master.port.to_string()]);
                until_it_says(&replica, &["INFO", "replication"], "master_link_status:up");
                let sentinel = Server::sentinel(&master, MASTER);
                sentinel.admin::<()>(&["SENTINEL", "SET", MASTER, "down-after-milliseconds", DOWN_AFTER]);
                until_it_says(&sentinel, &["SENTINEL", "REPLICAS", MASTER], &replica.port.to_string());
                redis.servers.push(master);
                redis.replica = Some(replica);
                redis.sentinel = Some(sentinel);
            }
            Layout::Cluster | Layout::ClusterWithReplica => {
                redis.servers = cluster();
                let slot: usize = redis.servers[0].admin(&["CLUSTER", "KEYSLOT", ROOMS[0]]);
                redis.servers.swap(0, slot * 3 / 16_384);
                if layout == Layout::ClusterWithReplica {
                    redis.replica = Some(join(&redis.servers));
                }
            }
        }
        redis
    }

    /// The one server, where it is one.
    pub(crate) fn port(&self) -> Option<u16> {
        matches!(self.layout, Layout::Alone | Layout::Durable).then(|| self.servers[0].port)
    }

    /// What hubs ask first, where that is one: the one server, or the sentinel.
    pub(crate) fn entrance(&self) -> Option<u16> {
        self.sentinel.as_ref().map(|sentinel| sentinel.port).or(self.port())
    }

    /// Where hubs find it; the entrance, by this address.
    pub(crate) fn url(&self, entrance: Option<SocketAddr>) -> String {
        match (&self.sentinel, entrance) {
            (Some(_), Some(entrance)) => format!("redis-sentinel://{entrance}/{MASTER}"),
            (None, Some(entrance)) => format!("redis://{entrance}"),
            (_, None) => {
                let hosts: Vec<_> =
                    self.servers.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
                format!("redis-cluster://{}", hosts.join(","))
            }
        }
    }

    /// The server to which things happen.
    fn first(&mut self) -> &mut Server {
        match &mut self.replica {
            Some(replica) if self.is_succeeded => replica,
            _ => &mut self.servers[0],
        }
    }

    pub(crate) fn flush(&mut self) {
        self.first().admin::<()>(&["FLUSHALL"]);
    }

    pub(crate) fn save(&mut self) {
        self.first().admin::<()>(&["SAVE"]);
    }

    pub(crate) fn kill(&mut self) {
        self.first().kill();
    }

    pub(crate) fn restart(&mut self) {
        self.first().restart();
    }

    pub(crate) fn pause(&mut self) {
        self.first().pause();
    }

    pub(crate) fn resume(&mut self) {
        self.first().resume();
    }

    /// Whether there is a replica that has not taken its master's place yet.
    pub(crate) fn can_fail_over(&self) -> bool {
        self.replica.is_some() && !self.is_succeeded
    }

    /// From now on the replica gets nothing of what happens, and keeps what it has.
    pub(crate) fn cut_replica(&self) {
        // Redis ends the connections of a user who is no more.
        assert_eq!(self.servers[0].admin::<usize>(&["ACL", "DELUSER", REPLICA]), 1);
        until_it_says(self.replica(), &["INFO", "replication"], "master_link_status:down");
    }

    /// Returns once the replica has taken its master's place.
    pub(crate) fn until_succeeded(&mut self) {
        until_it_says(self.replica(), &["INFO", "replication"], "role:master");
        if let Some(sentinel) = &self.sentinel {
            let command = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER];
            until_it_says(sentinel, &command, &self.replica().port.to_string());
        }
        self.is_succeeded = true;
    }

    /// Makes the replica a master beside the old one, which the sentinel knows no more.
    pub(crate) fn split(&mut self) {
        let (sentinel, port) = (self.sentinel.as_ref().expect("a sentinel"), self.replica().port.to_string());
        self.replica().admin::<()>(&["REPLICAOF", "NO", "ONE"]);
        sentinel.admin::<()>(&["SENTINEL", "REMOVE", MASTER]);
        sentinel.admin::<()>(&["SENTINEL", "MONITOR", MASTER, "127.0.0.1", &port, "1"]);
        self.is_succeeded = true;
    }

    /// Ends the old master, which somebody may still take for the one.
    pub(crate) fn end_old_master(&mut self) {
        self.servers[0].kill();
    }

    /// Returns once the old master and the new one agree on who it is: the new one mostly, but a sentinel
    /// may think better of it meanwhile.
    pub(crate) fn resume_superseded(&mut self) {
        self.servers[0].resume();
        let deadline = Instant::now() + PATIENCE;
        let follows = |server| says(server, &["INFO", "replication"], "role:slave");
        loop {
            let (old, new) = (follows(&self.servers[0]), follows(self.replica()));
            if old != new {
                self.is_succeeded = old;
                return;
            }
            assert!(Instant::now() < deadline, "there is not one master after {PATIENCE:?}");
            std::thread::sleep(PAUSE);
        }
    }

    fn replica(&self) -> &Server {
        self.replica.as_ref().expect("the scenario's Redis has a replica")
    }
}

/// Lets a server be the other's replica, as a user that can be taken away from it.
fn admit(master: &Server, replica: &Server) {
    let password = format!(">{REPLICA}");
    master.admin::<()>(&["ACL", "SETUSER", REPLICA, "on", &password, "+psync", "+replconf", "+ping"]);
    replica.admin::<()>(&["CONFIG", "SET", "masteruser", REPLICA, "masterauth", REPLICA]);
}

/// Has one more join a cluster, as the replica of the first of these.
fn join(nodes: &[Server]) -> Server {
    let replica = Server::cluster_node();
    admit(&nodes[0], &replica);
    let master: String = nodes[0].admin(&["CLUSTER", "MYID"]);
    let bus: (String, String) = replica.admin(&["CONFIG", "GET", "cluster-port"]);
    nodes[0].admin::<()>(&["CLUSTER", "MEET", "127.0.0.1", &replica.port.to_string(), &bus.1]);
    until_it_says(&replica, &["CLUSTER", "NODES"], &master);
    until_it_says(&replica, &["CLUSTER", "INFO"], "cluster_state:ok");
    replica.admin::<()>(&["CLUSTER", "REPLICATE", &master]);
    until_it_says(&replica, &["INFO", "replication"], "master_link_status:up");
    // All of them vote for it later.
    for node in nodes {
        until_it_says(node, &["CLUSTER", "REPLICAS", &master], &replica.port.to_string());
    }
    replica
}

/// Returns once a server answers so. Nobody announces it.
fn until_it_says(server: &Server, command: &[&str], what: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !says(server, command, what) {
        assert!(Instant::now() < deadline, "no {what} after {PATIENCE:?}");
        std::thread::sleep(PAUSE);
    }
}

/// Whether a server answers, and so.
fn says(server: &Server, command: &[&str], what: &str) -> bool {
    server.try_admin(command).is_ok_and(|answer| format!("{answer:?}").contains(what))
}
