//! Accepting connections, no more than a number at a time, also where the system gives none.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpListener;
use tokio::io::Interest;
use tokio::net::TcpSocket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

/// Waits after a failed accept, for example where no file descriptor is left.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// Connections that the system may hold until the hub accepts them: what comes at once after a
/// restart. More than any system allows by itself, so that the administrator decides (on Linux
/// `net.core.somaxconn`); what finds no room tries again after a second.
const BACKLOG: u32 = 65_535;

/// A listener with places for its connections.
pub(crate) struct Acceptor {
    /// What it accepts does not block, without another system call.
    listener: TcpListener,
    /// The same socket, to learn when somebody waits: tokio's own listener watches what it accepts, whether
    /// or not that stays with it.
    readiness: tokio::net::TcpStream,
    places: Arc<Semaphore>,
    backoff: Duration,
}

/// A connection's place; free again once dropped.
pub(crate) type Place = OwnedSemaphorePermit;

/// Listens at an address, without blocking.
///
/// # Errors
/// Where it is in use, not of this machine, or needs privileges.
pub(crate) fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A restart must not wait until the last connections of the hub before are forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

impl Acceptor {
    /// Accepts as long as fewer than `max` connections hold their places. The listener must not block.
    ///
    /// # Errors
    /// Where the runtime can't watch it.
    pub(crate) fn new(listener: std::net::TcpListener, max: usize) -> io::Result<Self> {
        let places = Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
        let same = std::net::TcpStream::from(OwnedFd::from(listener.try_clone()?));
        let readiness = tokio::net::TcpStream::from_std(same)?;
        Ok(Self { listener: TcpListener::from_std(listener), readiness, places, backoff: BACKOFF.0 })
    }

    /// One more connection, if one waits and there is a place for it. Why none can be accepted is for
    /// [`Acceptor::next`] to say.
    pub(crate) fn try_next(&mut self) -> Option<(Place, TcpStream, SocketAddr)> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        let (socket, peer) = self.readiness.try_io(Interest::READABLE, || accept(&self.listener)).ok()?;
        Some((place, socket, peer))
    }

    /// The next connection, once there is a place for it. Where none can be accepted it waits, longer
    /// each time, and tries again. The socket does not block, and nobody watches it yet: one that is
    /// handed on at once has cost no more.
    ///
    /// # Cancel safety
    /// A connection that was accepted is returned; nothing else is lost.
    pub(crate) async fn next(&mut self) -> (Place, TcpStream, SocketAddr) {
        loop {
            // A place first: what has none waits in the system's queue.
            let Ok(place) = self.places.clone().acquire_owned().await else {
                // The semaphore is never closed.
                return std::future::pending().await;
            };
            let accepted = self.readiness.async_io(Interest::READABLE, || accept(&self.listener));
            match accepted.await {
                Ok((socket, peer)) => {
                    self.backoff = BACKOFF.0;
                    return (place, socket, peer);
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    warn!(%error, wait = ?self.backoff, "no connection can be accepted");
                    tokio::time::sleep(self.backoff).await;
                    self.backoff = (self.backoff * 2).min(BACKOFF.1);
                }
            }
        }
    }
}

fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (socket, peer) = listener.accept()?;
    Ok((OwnedFd::from(socket).into(), peer))
}

fn is_about_one_connection(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
