//! The sockets below HTTP: accepting them, bounding what they may take, ending them.
//!
//! hyper's own `axum::serve` sets no limits; here a connection has a place among
//! `max_http_connections`, a time for each request's head, and an owner that ends it.

use std::net::{self, IpAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tracing::debug;

use super::express::{Publisher, Rest, Talk, Then};
use super::{App, express, router};
use crate::accept::{Acceptor, Place};

/// The head of a request, and what is read ahead, in bytes at most.
const MAX_READ_BUFFER: usize = 64 << 10;
/// The head of an HTTP/2 request, in bytes at most.
const MAX_HEADER_LIST: u32 = 32 << 10;
/// Requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;

/// Connections that are accepted in one go.
const MAX_ACCEPTED: usize = 64;

/// Who is at the other end; in every request's extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// The tasks of one hub: all are waited for, and end at once when told so.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    end: CancellationToken,
}

impl Tasks {
    /// Runs `task` until it is done or [`Tasks::end`] drops it where it waits.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let end = self.end.clone();
        self.tracker.spawn(async move {
            end.run_until_cancelled(task).await;
        });
    }

    /// The same, for whoever is on no thread of the runtime.
    pub(crate) fn spawn_on(&self, runtime: &Handle, task: impl Future<Output = ()> + Send + 'static) {
        let _within = runtime.enter();
        self.spawn(task);
    }

    /// Drops all tasks where they wait; those spawned later end before they start.
    pub(crate) fn end(&self) {
        self.end.cancel();
    }

    /// Returns when every task is done.
    pub(crate) async fn wait(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// HTTP/2 spawns a task a request: it belongs to the hub like every other.
impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}

/// What a connection may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) header_timeout: Duration,
    pub(crate) write_timeout: Duration,
}

/// What accepts connections, at most `max` at a time.
///
/// # Errors
/// Where the listener can't be set up.
pub(crate) fn acceptor(listener: net::TcpListener, max: usize) -> std::io::Result<Acceptor> {
    // What it accepts has this from it.
    socket2::SockRef::from(&listener).set_tcp_nodelay(true)?;
    Acceptor::new(listener, max)
}

/// Accepts connections until `stop`, and serves each in a task of its own. The listener is closed
/// on return; connections are then told to end after the request they are at.
pub(crate) async fn serve(mut acceptor: Acceptor, app: Arc<App>, limits: Limits, stop: CancellationToken) {
    let tasks = app.tasks.clone();
    let server = Arc::new(Server {
        builder: builder(limits, tasks.clone()),
        router: router(app.clone()),
        app,
        limits,
        stop: stop.clone(),
    });
    let mut accepted = Vec::with_capacity(MAX_ACCEPTED);
    while let Some(next) = stop.run_until_cancelled(acceptor.next()).await {
        // All that wait, and then to the first again, which will have said by now what it wants: it needs no task
        // that waits for that.
        accepted.push(next);
        while accepted.len() < MAX_ACCEPTED
            && let Some(next) = acceptor.try_next()
        {
            accepted.push(next);
        }
        for (place, socket, peer) in accepted.drain(..) {
            let peer = Peer(peer.ip());
            let Some((socket, read)) = express::admit_at_once(socket, peer, &server.app) else { continue };
            let talk = Talk::begin(read, &server.app, limits);
            tasks.spawn(server.clone().connection(socket, talk, peer, place));
        }
    }
}

/// What all connections share.
pub(super) struct Server {
    builder: auto::Builder<Tasks>,
    router: Router,
    pub(super) app: Arc<App>,
    pub(super) limits: Limits,
    stop: CancellationToken,
}

impl Server {
    /// Serves a connection, which has its place for as long as it lasts.
    pub(super) async fn connection(
        self: Arc<Self>,
        socket: net::TcpStream,
        talk: Talk,
        peer: Peer,
        place: Place,
    ) {
        let socket = match TcpStream::from_std(socket) {
            Ok(socket) => socket,
            Err(error) => return debug!(%error, "a connection can't be watched and is dropped"),
        };
        let Self { builder, router, app, limits, stop } = &*self;
        match express::serve(socket, talk, peer, app, *limits, stop).await {
            Then::Nothing => {}
            Then::Moves(socket, talk) => Publisher::move_out(socket, talk, &self, peer, place),
            Then::Hyper(rest) => {
                // Apart, so that those who don't need it have no room for it in their tasks.
                Box::pin(by_hyper(rest, peer, router.clone(), builder, *limits, stop.clone())).await;
            }
        }
    }
}

fn builder(limits: Limits, tasks: Tasks) -> auto::Builder<Tasks> {
    let mut builder = auto::Builder::new(tasks);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(MAX_READ_BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST)
        .keep_alive_interval(limits.header_timeout)
        .keep_alive_timeout(limits.header_timeout);
    builder
}

/// A request under way, counted among those of its connection until dropped.
struct UnderWay(Arc<watch::Sender<usize>>);

impl UnderWay {
    fn begin(count: &Arc<watch::Sender<usize>>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Serves whatever comes, in HTTP/1.1 or HTTP/2.
async fn by_hyper(
    rest: Rest,
    peer: Peer,
    router: Router,
    builder: &auto::Builder<Tasks>,
    limits: Limits,
    stop: CancellationToken,
) {
    let (count, mut under_way) = watch::channel(0);
    let count = Arc::new(count);
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        let under_way = UnderWay::begin(&count);
        request.extensions_mut().insert(peer);
        let answer = router.clone().oneshot(request.map(Body::new));
        async move {
            let answer = answer.await;
            drop(under_way);
            answer
        }
    });
    let Rest { socket, until } = rest;
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(socket), service));
    // hyper's own timeout begins when it knows the HTTP version, and is for HTTP/1 only; one that
    // answers the pings of HTTP/2 could be silent for good.
    let mut silence = pin!(tokio::time::sleep_until(until));
    let (mut stopping, mut started, mut idle) = (false, false, true);
    loop {
        tokio::select! {
            // What has come in time counts, also where this task gets its turn late.
            biased;
            result = connection.as_mut() => {
                if let Err(error) = result {
                    debug!(error = %error, "an HTTP connection failed");
                }
                return;
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            Ok(()) = under_way.changed() => {
                started = true;
                idle = *under_way.borrow_and_update() == 0;
                silence.as_mut().reset(Instant::now() + limits.header_timeout);
            }
            () = silence.as_mut(), if idle && !stopping => {
                if !started {
                    debug!("a connection sent no request in time");
                    return;
                }
                // Answers on their way are finished, and a request that comes right now is told to
                // come again.
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_accepted_holds_nothing_back_and_does_not_block() {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let mut acceptor = acceptor(listener, 1).unwrap();
        let _clients =
            [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
        let (place, first, _) = acceptor.next().await;
        assert!(acceptor.try_next().is_none(), "there is one place");
        drop(place);
        let (_, second, _) = acceptor.try_next().unwrap();
        for socket in [first, second] {
            assert!(socket.nodelay().unwrap());
            let read = std::io::Read::read(&mut &socket, &mut [0]);
            assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        }
        assert!(acceptor.try_next().is_none(), "nobody waits");
    }
}
