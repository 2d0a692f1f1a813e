//! The hub's connections to Redis: commands out, answers and bus messages in.
//!
//! All commands of all rooms of a server go over one connection, many under way at once. Every one has a
//! deadline, and how many may be under way is bounded. A command fails at once while its server is known to
//! be unreachable; nothing waits for a reconnect.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::{Cmd, ErrorKind, ServerErrorKind, Value};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;
use twine_protocol::RoomName;

use super::Limits;
use super::bus::Bus;
use super::connect::Connector;
use super::directory::{Directory, Map};
use super::error::RedisError;
use super::keys::{Keys, Tagged};
use super::node::Node;
use super::subscriptions::Subscriptions;
use super::target::{Address, Target};

/// Servers that one command may be sent on to.
const MAX_REDIRECTIONS: usize = 5;
/// Before a command is sent again whose slot is on the move.
const TRY_AGAIN: Duration = Duration::from_millis(20);
/// Before the directory is asked again, however much it is doubted.
const LEAST_DIRECTORY_INTERVAL: Duration = Duration::from_millis(100);

/// A handle; clones share the connections.
#[derive(Clone)]
pub(crate) struct Link {
    shared: Arc<Shared>,
}

/// Whether Redis can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// Every server that has rooms is connected.
    Connected,
    /// Some or all are not.
    Disconnected {
        /// Since then.
        since: Instant,
        /// Which, and why.
        reason: String,
    },
}

/// What the handles and the tasks share.
pub(super) struct Shared {
    pub(super) connector: Arc<Connector>,
    pub(super) limits: Limits,
    pub(super) subscriptions: Subscriptions,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
    map: watch::Sender<Arc<Map>>,
    nodes: Mutex<HashMap<Address, Arc<Node>>>,
    /// Whether the map is asked for again now.
    doubted: Notify,
    in_flight: Semaphore,
}

/// A command, and what to send instead where the server does not know the script of the first.
pub(crate) struct Request {
    command: Cmd,
    script: Option<(&'static str, Vec<Vec<u8>>)>,
}

impl Request {
    /// A command that every server knows.
    pub(crate) fn plain(command: Cmd) -> Self {
        Self { command, script: None }
    }

    /// A script by its name; with its source and what follows either, in case.
    pub(super) fn script(hash: &str, source: &'static str, args: Vec<Vec<u8>>) -> Self {
        let mut command = Cmd::new();
        command.arg("EVALSHA").arg(hash).arg(&args);
        Self { command, script: Some((source, args)) }
    }

    fn with_source(&self) -> Option<Cmd> {
        let (source, args) = self.script.as_ref()?;
        let mut command = Cmd::new();
        command.arg("EVAL").arg(*source).arg(args);
        Some(command)
    }
}

impl Link {
    /// Starts connecting and returns at once. The bus is for the one consumer of what other hubs say.
    ///
    /// The owner must [`Link::close`] it.
    ///
    /// # Errors
    /// Where TLS can't be set up.
    pub(crate) fn start(target: &Target, limits: Limits) -> Result<(Self, Bus), rustls::Error> {
        let connector = Arc::new(Connector::new(target, limits)?);
        let (queue, receiver) = mpsc::channel(limits.bus_messages);
        let unknown = Map::Unknown { since: Instant::now(), reason: None };
        let shared = Arc::new(Shared {
            connector: Arc::clone(&connector),
            limits,
            subscriptions: Subscriptions::new(queue, limits.bus_bytes),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            map: watch::Sender::new(Arc::new(unknown)),
            nodes: Mutex::default(),
            doubted: Notify::new(),
            in_flight: Semaphore::new(limits.in_flight),
        });
        let directory = Directory::new(target.layout.clone(), connector);
        let (keeper, stop) = (Arc::clone(&shared), shared.stop.clone());
        shared.tasks.spawn(async move { stop.run_until_cancelled(keeper.keep_map(directory)).await });
        let bus = Bus::new(receiver, Arc::clone(&shared));
        Ok((Self { shared }, bus))
    }

    /// Wants what other hubs say about a room. Returns once the subscription is in force; it comes back by
    /// itself whenever it was lost, until [`Link::unwatch`].
    ///
    /// # Errors
    /// Where it is not in force within the deadline. It is still wanted then, and the bus says
    /// [`super::BusEvent::Interrupted`] once it is.
    ///
    /// # Cancel safety
    /// Dropped early, it is as after an error.
    pub(crate) async fn watch(&self, room: &RoomName) -> Result<(), RedisError> {
        self.watch_channel(Keys::new(room).channel()).await
    }

    /// The same for any channel.
    pub(crate) async fn watch_channel(&self, channel: &Tagged) -> Result<(), RedisError> {
        let in_force = self.shared.subscriptions.watch(channel);
        let deadline = self.shared.limits.deadline;
        tokio::select! {
            biased;
            () = self.shared.stop.cancelled() => Err(RedisError::Closed),
            in_force = tokio::time::timeout(deadline, in_force) => match in_force {
                Ok(in_force) => in_force.map_err(|_| RedisError::Closed),
                Err(_) => Err(RedisError::Deadline { after: deadline }),
            },
        }
    }

    /// Wants no more of a room. What is on its way may still arrive.
    pub(crate) fn unwatch(&self, room: &RoomName) {
        self.shared.subscriptions.unwatch(Keys::new(room).channel());
    }

    /// Whether Redis can be used, and since when not.
    pub(crate) fn state(&self) -> State {
        if let Map::Unknown { since, reason } = &*self.shared.map() {
            let reason = reason.clone().unwrap_or_else(|| "asking which redis serves".to_owned());
            return State::Disconnected { since: *since, reason };
        }
        let nodes: Vec<_> = self.shared.nodes().values().cloned().collect();
        match nodes.iter().filter_map(|node| node.trouble()).min() {
            Some((since, reason)) => State::Disconnected { since, reason },
            None => State::Connected,
        }
    }

    /// Sends a command to the server that has the slot and waits for the answer, until the deadline.
    ///
    /// # Errors
    /// [`RedisError`].
    pub(crate) async fn ask(&self, slot: u16, request: &Request) -> Result<Value, RedisError> {
        let after = self.shared.limits.deadline;
        tokio::select! {
            biased;
            () = self.shared.stop.cancelled() => Err(RedisError::Closed),
            answer = tokio::time::timeout(after, self.shared.ask(slot, request)) => {
                answer.unwrap_or(Err(RedisError::Deadline { after }))
            }
        }
    }

    /// Ends all connections. What is under way fails.
    pub(crate) async fn close(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Shared {
    pub(super) fn map(&self) -> Arc<Map> {
        Arc::clone(&self.map.borrow())
    }

    /// Asks soon for what may have changed.
    pub(super) fn doubt_map(&self) {
        self.doubted.notify_one();
    }

    async fn ask(&self, slot: u16, request: &Request) -> Result<Value, RedisError> {
        let _permit = self.in_flight.acquire().await.map_err(|_| RedisError::Closed)?;
        let mut with_source = None;
        // Where the last server sent us to, and whether only for this once.
        let mut redirected: Option<(Address, bool)> = None;
        let mut redirections = 0;
        while redirections <= MAX_REDIRECTIONS {
            let (node, once) = match redirected.take() {
                Some((address, once)) => (self.node_at(&address).await?, once),
                None => (self.node_of(slot).await?, false),
            };
            let mut connection = node.commands.connection(&node.address).await?;
            let answer = if once {
                let mut both = redis::pipe();
                both.cmd("ASKING").add_command(with_source.as_ref().unwrap_or(&request.command).clone());
                connection
                    .send_packed_commands(&both, 1, 1)
                    .await
                    .map(|mut answers| answers.pop().unwrap_or_default())
            } else {
                connection.send_packed_command(with_source.as_ref().unwrap_or(&request.command)).await
            };
            let error = match answer.and_then(Value::extract_error) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let unreachable =
                |reason: String| RedisError::Unreachable { address: node.address.clone(), reason };
            let ErrorKind::Server(kind) = error.kind() else {
                return Err(if error.is_io_error() || error.is_connection_dropped() {
                    RedisError::Ended { address: node.address.clone(), reason: error.to_string() }
                } else {
                    RedisError::Refused { reason: error.to_string() }
                });
            };
            match kind {
                ServerErrorKind::Moved | ServerErrorKind::Ask => {
                    let (to, _) = error.redirect_node().unwrap_or_default();
                    let to = Address::of_server(to, &node.address)
                        .ok_or_else(|| unreachable(format!("it sends elsewhere, but not where: {error}")))?;
                    if kind == ServerErrorKind::Moved {
                        self.doubt_map();
                    }
                    redirected = Some((to, kind == ServerErrorKind::Ask));
                    redirections += 1;
                }
                // While a slot moves, neither server has all of the room's keys. That is soon over.
                ServerErrorKind::TryAgain => {
                    tokio::time::sleep(TRY_AGAIN).await;
                    redirections = 0;
                }
                ServerErrorKind::NoScript => {
                    with_source = request.with_source();
                    if with_source.is_none() {
                        return Err(RedisError::Refused { reason: error.to_string() });
                    }
                    redirections += 1;
                }
                ServerErrorKind::ReadOnly
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::BusyLoading => {
                    node.doubt();
                    self.doubt_map();
                    return Err(unreachable(error.to_string()));
                }
                _ => return Err(RedisError::Refused { reason: error.to_string() }),
            }
        }
        Err(RedisError::NoServer { reason: "the servers send each other what was asked".to_owned() })
    }

    /// The server that has the slot. Waits only where nobody was asked yet.
    async fn node_of(&self, slot: u16) -> Result<Arc<Node>, RedisError> {
        let mut map = self.map.subscribe();
        let map = map.wait_for(|map| !matches!(**map, Map::Unknown { reason: None, .. })).await;
        let map = Arc::clone(&*map.map_err(|_| RedisError::Closed)?);
        if let Some(address) = map.address(slot) {
            return self.node_at(address).await;
        }
        self.doubt_map();
        let reason = match &*map {
            Map::Unknown { reason, .. } => reason.clone().unwrap_or_default(),
            _ => "no server of the cluster has its slot".to_owned(),
        };
        Err(RedisError::NoServer { reason })
    }

    /// The server at this address. One that the map does not know yet is waited for: the command that was
    /// sent to it has a deadline.
    async fn node_at(&self, address: &Address) -> Result<Arc<Node>, RedisError> {
        let mut map = self.map.subscribe();
        loop {
            if let Some(node) = self.nodes().get(address) {
                return Ok(Arc::clone(node));
            }
            map.changed().await.map_err(|_| RedisError::Closed)?;
        }
    }

    /// Keeps the map and the nodes on it true.
    async fn keep_map(self: Arc<Self>, mut directory: Directory) {
        let mut doubted = false;
        loop {
            let known = self.map();
            match directory.ask(doubted, &known).await {
                Ok(map) if map == *known => {}
                Ok(map) => {
                    self.set_nodes(&map);
                    self.map.send_replace(Arc::new(map));
                    let map = self.map();
                    self.subscriptions.remap(|slot| map.address(slot));
                }
                Err(reason) => {
                    // What was known is still the best guess: servers may be up where sentinels are not.
                    if let Map::Unknown { since, .. } = &*known {
                        self.map.send_replace(Arc::new(Map::Unknown {
                            since: *since,
                            reason: Some(reason.clone()),
                        }));
                    }
                    warn!(reason, "nobody says which redis serves");
                }
            }
            tokio::time::sleep(LEAST_DIRECTORY_INTERVAL).await;
            let again = self.doubted.notified();
            doubted = match directory.interval() {
                Some(interval) => tokio::time::timeout(interval, again).await.is_ok(),
                // The answer can't change.
                None => return,
            };
        }
    }

    /// Starts the nodes of a new map, and stops those that are not on it.
    fn set_nodes(self: &Arc<Self>, map: &Map) {
        let mut nodes = self.nodes();
        let addresses = map.addresses();
        nodes.retain(|address, _| addresses.contains(&address));
        for address in addresses {
            nodes.entry(address.clone()).or_insert_with(|| Node::start(self, address.clone()));
        }
    }

    /// Nothing that panics runs while the nodes are locked.
    fn nodes(&self) -> std::sync::MutexGuard<'_, HashMap<Address, Arc<Node>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
