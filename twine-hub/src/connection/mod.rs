//! WebSocket connections: shards, each a thread that owns its connections and writes to them directly.
#![allow(dead_code, unused_variables, missing_docs, clippy::todo, clippy::unused_async)]

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::rooms::Rooms;
use crate::telemetry::Telemetry;

/// What a connection may do and for how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// Threads that own connections; 0 stands for one a core.
    pub shards: usize,
    /// Connections of this hub at most.
    pub max_connections: usize,
    /// How long a client has for its `connect` frame.
    pub connect_timeout: Duration,
    /// Time between two pings.
    pub heartbeat: Duration,
    /// The largest frame a client may send, in bytes.
    pub max_frame: usize,
    /// Rooms that one connection may be subscribed to.
    pub max_rooms: usize,
    /// Messages that `history` may ask for.
    pub max_history: u32,
    /// How long a socket may take no byte before its connection is closed.
    pub write_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            shards: 0,
            max_connections: 100_000,
            connect_timeout: Duration::from_secs(10),
            heartbeat: Duration::from_secs(25),
            max_frame: 64 << 10,
            max_rooms: 1_000,
            max_history: 1_000,
            write_timeout: Duration::from_secs(30),
        }
    }
}

/// A socket after its HTTP upgrade was answered with 101.
pub(crate) struct Handover {
    /// The socket; made non-blocking by the shard.
    pub(crate) socket: TcpStream,
    /// What was read past the HTTP request.
    pub(crate) read: Bytes,
}

/// A handle to all connections of this hub.
#[derive(Clone)]
pub(crate) struct Connections(Arc<()>);

impl Connections {
    /// Starts the shards' threads.
    pub(crate) fn start(rooms: Rooms, options: Options, telemetry: Arc<Telemetry>) -> std::io::Result<Self> {
        todo!()
    }

    /// Takes a place for a connection; `None` when the hub is full. Asked before the upgrade is
    /// answered; the place is freed when dropped, or with the connection it was given to.
    pub(crate) fn reserve(&self) -> Option<Place> {
        todo!()
    }

    /// Gives the socket to a shard.
    pub(crate) fn adopt(&self, place: Place, handover: Handover) {
        todo!()
    }

    /// Tells every client to come back elsewhere, flushes within `grace`, closes all and ends the
    /// shards' threads.
    pub(crate) async fn drain(&self, grace: Duration) {
        todo!()
    }
}

/// Room for one connection.
pub(crate) struct Place(Arc<()>);
