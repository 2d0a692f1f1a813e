//! The way to the hub as it stands: none, being made, or open.

use std::future::pending;

use futures_util::future::BoxFuture;
use tokio_tungstenite::tungstenite::Error as WsError;

use super::socket::{Incoming, Socket};
use crate::core::SocketId;

pub(super) enum Transport {
    None,
    Opening(SocketId, BoxFuture<'static, Result<Socket, WsError>>),
    Open(SocketId, Box<Socket>),
}

/// What came of the socket.
pub(super) enum Happened {
    Opened(SocketId, Box<Socket>),
    Failed(SocketId, WsError),
    Said(SocketId, Incoming),
}

impl Transport {
    /// The next thing that happens. Without `reading`, what is queued is written and nothing happens.
    ///
    /// # Cancel safety
    /// Progress is in `self`: nothing is lost.
    pub(super) async fn next(&mut self, reading: bool) -> Happened {
        match self {
            Self::Opening(socket, opening) if reading => match opening.await {
                Ok(stream) => Happened::Opened(*socket, Box::new(stream)),
                Err(error) => Happened::Failed(*socket, error),
            },
            Self::Open(socket, stream) if reading => Happened::Said(*socket, stream.incoming().await),
            Self::Open(_, stream) => stream.flush().await,
            Self::None | Self::Opening(..) => pending().await,
        }
    }
}
