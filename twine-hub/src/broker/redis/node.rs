//! One server: a connection for commands and one for the bus, both kept up by a task.
//!
//! They are two, for a server that gives a slot away says `sunsubscribe` unasked, which the client crate
//! takes for the answer to the oldest command under way: on a shared connection every later command would
//! get its predecessor's answer. A bus connection that hears it is given up and made anew.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use tokio::sync::{Notify, watch};
use tokio_util::sync::DropGuard;
use tracing::{info, warn};

use super::connect::{Backoff, OnPush, Peer};
use super::error::RedisError;
use super::link::Shared;
use super::target::Address;

/// How often a server must prove that it lives and is a master.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A server, as long as the directory names it.
pub(super) struct Node {
    pub(super) address: Address,
    pub(super) commands: Line,
    pub(super) bus: Line,
    /// Whether the server is asked at once for what it is, instead of at the next heartbeat.
    doubted: Arc<Notify>,
    _stop: DropGuard,
}

/// A connection that is kept up.
pub(super) struct Line {
    state: watch::Sender<LineState>,
}

/// Whether there is a connection.
#[derive(Clone)]
pub(super) enum LineState {
    /// It was not tried yet, since then.
    New(Instant),
    Up(MultiplexedConnection),
    Down {
        since: Instant,
        reason: String,
    },
}

/// What a line is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Commands,
    Bus,
}

impl Node {
    /// Connects, and keeps connected until the node is dropped.
    pub(super) fn start(shared: &Arc<Shared>, address: Address) -> Arc<Self> {
        let stop = shared.stop.child_token();
        let line = || Line { state: watch::Sender::new(LineState::New(Instant::now())) };
        let node = Arc::new(Self {
            address,
            commands: line(),
            bus: line(),
            doubted: Arc::default(),
            _stop: stop.clone().drop_guard(),
        });
        for purpose in [Purpose::Commands, Purpose::Bus] {
            // The task must not keep the node: its end is what stops the task.
            let (keeper, stop) = (Keeper { node: Arc::downgrade(&node), purpose }, stop.clone());
            let shared = Arc::clone(shared);
            shared.tasks.clone().spawn(async move { stop.run_until_cancelled(keeper.run(&shared)).await });
        }
        node
    }

    /// Asks the server at once whether it still is a master.
    pub(super) fn doubt(&self) {
        self.doubted.notify_waiters();
    }
}

impl Line {
    pub(super) fn state(&self) -> LineState {
        self.state.borrow().clone()
    }

    /// The connection. Waits only where it is being made for the first time.
    pub(super) async fn connection(&self, address: &Address) -> Result<MultiplexedConnection, RedisError> {
        let mut state = self.state.subscribe();
        let state = state.wait_for(|state| !matches!(state, LineState::New(_))).await;
        match state.as_deref() {
            Ok(LineState::Up(connection)) => Ok(connection.clone()),
            Ok(LineState::Down { reason, .. }) => {
                Err(RedisError::Unreachable { address: address.clone(), reason: reason.clone() })
            }
            Ok(LineState::New(_)) | Err(_) => Err(RedisError::Closed),
        }
    }

    fn is_up(&self) -> bool {
        matches!(*self.state.borrow(), LineState::Up(_))
    }

    fn set_down(&self, reason: &str) {
        self.state.send_modify(|state| {
            let since = match state {
                LineState::New(since) | LineState::Down { since, .. } => *since,
                LineState::Up(_) => Instant::now(),
            };
            *state = LineState::Down { since, reason: reason.to_owned() };
        });
    }
}

/// Keeps one line of a node up.
struct Keeper {
    node: std::sync::Weak<Node>,
    purpose: Purpose,
}

impl Keeper {
    async fn run(&self, shared: &Arc<Shared>) {
        let mut backoff = Backoff::new();
        // `None`: the node is gone, and with it this task's reason.
        while let Some(was_up) = self.connect_and_keep(shared).await {
            if was_up {
                backoff = Backoff::new();
            }
            // Another server may have taken over.
            shared.doubt_map();
            tokio::time::sleep(backoff.wait()).await;
        }
    }

    /// Returns once there is no connection, or no more: whether there was one.
    async fn connect_and_keep(&self, shared: &Arc<Shared>) -> Option<bool> {
        let address = self.node.upgrade()?.address.clone();
        let lost = Arc::new(Notify::new());
        let on_push: Option<OnPush> = match self.purpose {
            Purpose::Commands => None,
            Purpose::Bus => {
                let (shared, lost) = (Arc::clone(shared), Arc::clone(&lost));
                Some(Arc::new(move |push| shared.subscriptions.take_push(push, &lost)))
            }
        };
        let opened = match shared.connector.open(&address, Peer::Server, on_push).await {
            Ok(opened) => shared.connector.check_master(&opened.connection).await.map(|()| opened),
            Err(reason) => Err(reason),
        };
        let mut opened = match opened {
            Ok(opened) => opened,
            Err(reason) => {
                let node = self.node.upgrade()?;
                if !matches!(self.line(&node).state(), LineState::Down { .. }) {
                    warn!(%address, purpose = ?self.purpose, reason, "no connection to redis");
                }
                self.line(&node).set_down(&reason);
                return Some(false);
            }
        };
        {
            let node = self.node.upgrade()?;
            info!(%address, purpose = ?self.purpose, "connected to redis");
            self.line(&node).state.send_replace(LineState::Up(opened.connection.clone()));
        }
        let serving = async {
            match self.purpose {
                Purpose::Commands => std::future::pending().await,
                Purpose::Bus => shared.subscriptions.keep(shared, &address, opened.connection.clone()).await,
            }
        };
        let reason = tokio::select! {
            _ = &mut opened.driver => "the connection ended".to_owned(),
            () = lost.notified() => "the server gave slots away".to_owned(),
            reason = serving => reason,
            reason = self.heartbeat(shared, &opened.connection) => reason,
        };
        let node = self.node.upgrade()?;
        warn!(%address, purpose = ?self.purpose, reason, "lost the connection to redis");
        self.line(&node).set_down(&reason);
        Some(true)
    }

    /// Returns why the connection is not to be used any more.
    async fn heartbeat(&self, shared: &Shared, connection: &MultiplexedConnection) -> String {
        let Some(doubted) = self.node.upgrade().map(|node| Arc::clone(&node.doubted)) else {
            return "the server is not used any more".to_owned();
        };
        loop {
            let _elapsed_or_doubted = tokio::time::timeout(HEARTBEAT, doubted.notified()).await;
            if let Err(reason) = shared.connector.check_master(connection).await {
                return reason;
            }
        }
    }

    fn line<'a>(&self, node: &'a Node) -> &'a Line {
        match self.purpose {
            Purpose::Commands => &node.commands,
            Purpose::Bus => &node.bus,
        }
    }
}

impl Node {
    /// Why the node can't be used, and since when; `None` where it can.
    pub(super) fn trouble(&self) -> Option<(Instant, String)> {
        [&self.commands, &self.bus].into_iter().filter(|line| !line.is_up()).find_map(|line| {
            match line.state() {
                LineState::New(since) => Some((since, format!("connecting to redis at {}", self.address))),
                LineState::Down { since, reason } => {
                    Some((since, format!("redis at {}: {reason}", self.address)))
                }
                LineState::Up(_) => None,
            }
        })
    }
}
