//! The way to the hub as it stands: none, being made, or open.

use std::future::pending;

use futures_util::future::BoxFuture;
use tokio_tungstenite::tungstenite::Error as WsError;
use twine_protocol::ClientFrame;

use super::early::Early;
use super::socket::{Incoming, Socket, Way};
use crate::core::SocketId;

pub(super) enum Transport {
    None,
    /// To be made, once all is known that is said with its handshake.
    Wanted(SocketId, Early),
    /// What waits is said once it is open.
    Opening(SocketId, BoxFuture<'static, Result<Socket, WsError>>, Vec<String>),
    Open(SocketId, Box<Socket>),
}

/// What came of the socket.
pub(super) enum Happened {
    Opened(SocketId, Box<Socket>),
    Failed(SocketId, WsError),
    Said(SocketId, Incoming),
}

impl Transport {
    /// Sends a frame, or has it go with the handshake or wait for its end.
    pub(super) fn send(&mut self, socket: SocketId, frame: &ClientFrame) {
        match self {
            Self::Wanted(ours, early) if *ours == socket => early.push(frame),
            Self::Opening(ours, _, waiting) if *ours == socket => waiting.push(frame.to_json()),
            Self::Open(ours, stream) if *ours == socket => stream.send(frame.to_json()),
            _ => {}
        }
    }

    /// Begins to open what is wanted.
    pub(super) fn open(&mut self, way: &Way) {
        if let Self::Wanted(socket, early) = self {
            let (query, waiting) = std::mem::take(early).into_parts();
            *self = Self::Opening(*socket, Box::pin(Socket::open(way.clone(), query)), waiting);
        }
    }

    /// The next thing that happens. Without `reading`, what is queued is written and nothing happens.
    ///
    /// # Cancel safety
    /// Progress is in `self`: nothing is lost.
    pub(super) async fn next(&mut self, reading: bool) -> Happened {
        match self {
            Self::Opening(socket, opening, waiting) if reading => match opening.await {
                Ok(mut stream) => {
                    waiting.drain(..).for_each(|frame| stream.send(frame));
                    Happened::Opened(*socket, Box::new(stream))
                }
                Err(error) => Happened::Failed(*socket, error),
            },
            Self::Open(socket, stream) if reading => Happened::Said(*socket, stream.incoming().await),
            Self::Open(_, stream) => stream.flush().await,
            Self::None | Self::Wanted(..) | Self::Opening(..) => pending().await,
        }
    }
}
