//! One WebSocket: opened, read and written without ever blocking the task that owns it.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig, frame::coding};
use tokio_tungstenite::tungstenite::{Error as WsError, Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use twine_protocol::{CloseCode, SUBPROTOCOL};

use super::endpoint::Endpoint;
use super::headers::Headers;
#[cfg(feature = "rustls")]
use super::tls::Tls;

/// Bytes of the buffers of a connection: a frame is small, and a load test holds many connections. A
/// large frame takes a read of the socket for each so many bytes.
const READ_BUFFER: usize = 4 << 10;
const WRITE_BUFFER: usize = 4 << 10;
/// The greatest frame taken from the hub, in bytes.
const FRAME_MAX: usize = 16 << 20;
/// How long the closing handshake may take.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// The close code of a connection that ended without any (RFC 6455, 7.1.5).
const ABNORMAL: u16 = 1006;

/// How to get to the hub.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) endpoint: Endpoint,
    pub(super) headers: Headers,
    /// Where connections come from; where the system likes, without it.
    pub(super) local: Option<IpAddr>,
    /// For an endpoint that has TLS.
    #[cfg(feature = "rustls")]
    pub(super) tls: Option<Tls>,
}

impl Way {
    async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        match self.local {
            None => TcpStream::connect((host, port)).await,
            Some(local) => connect_from(local, host, port).await,
        }
    }
}

/// Tries the host's addresses of the same kind, one after the other.
async fn connect_from(local: IpAddr, host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(
        io::ErrorKind::AddrNotAvailable,
        format!("{host} has no address that can be reached from {local}"),
    );
    for address in lookup_host((host, port)).await? {
        let socket = match (local, address.ip()) {
            (IpAddr::V4(_), IpAddr::V4(_)) => TcpSocket::new_v4()?,
            (IpAddr::V6(_), IpAddr::V6(_)) => TcpSocket::new_v6()?,
            _ => continue,
        };
        socket.bind((local, 0).into())?;
        match socket.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// TCP, or TLS over it.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// An open WebSocket.
pub(super) struct Socket {
    stream: WebSocketStream<Box<dyn Wire>>,
    /// Whether something is written and not flushed.
    dirty: bool,
}

/// What a socket has to say.
#[derive(Debug)]
pub(super) enum Incoming {
    Text(Utf8Bytes),
    /// A ping or pong of the WebSocket itself.
    Alive,
    /// Something that this protocol has no use for.
    Alien,
    Closed {
        code: u16,
        reason: String,
    },
}

impl Socket {
    /// Opens one; `query` is added to the address.
    pub(super) async fn open(way: Way, query: String) -> Result<Self, WsError> {
        let (host, port) = way.endpoint.host_and_port();
        let stream = way.connect(&host, port).await?;
        // Frames are small and each is written whole: waiting for more only delays them.
        stream.set_nodelay(true)?;
        #[cfg(feature = "rustls")]
        let stream: Box<dyn Wire> = match &way.tls {
            Some(tls) => Box::new(tls.wrap(host, stream).await?),
            None => Box::new(stream),
        };
        #[cfg(not(feature = "rustls"))]
        let stream: Box<dyn Wire> = Box::new(stream);
        let mut request = way.endpoint.with_query(&query)?.into_client_request()?;
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        way.headers.add_to(request.headers_mut());
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_frame_size(Some(FRAME_MAX))
            .max_message_size(Some(FRAME_MAX));
        let (stream, _) = client_async_with_config(request, stream, Some(config)).await?;
        Ok(Self { stream, dirty: false })
    }

    /// Queues a frame; [`Socket::incoming`] and [`Socket::flush`] write it.
    ///
    /// The queue is bounded by what the core lets an app ask for. A failure shows when reading.
    pub(super) fn send(&mut self, text: String) {
        self.dirty = true;
        if let Err(error) = Pin::new(&mut self.stream).start_send(Message::text(text)) {
            tracing::debug!(%error, "frame not sent");
        }
    }

    /// The next thing the hub says, while what is queued is written.
    ///
    /// # Cancel safety
    /// Nothing is lost: progress is in the socket.
    pub(super) async fn incoming(&mut self) -> Incoming {
        std::future::poll_fn(|cx| self.poll_incoming(cx)).await
    }

    /// Writes what is queued, and never completes.
    ///
    /// # Cancel safety
    /// Nothing is lost: progress is in the socket.
    pub(super) async fn flush<T>(&mut self) -> T {
        std::future::poll_fn(|cx| {
            self.poll_flush(cx);
            Poll::Pending
        })
        .await
    }

    /// Says goodbye, and waits for the hub to do so, within [`CLOSE_WAIT`].
    pub(super) async fn close(mut self, code: CloseCode) {
        let frame = CloseFrame { code: coding::CloseCode::from(code.as_u16()), reason: "".into() };
        let handshake = async {
            // The connection is given up: how its end fails makes no difference.
            let _ = self.stream.close(Some(frame)).await;
            self.finish().await;
        };
        let _ = tokio::time::timeout(CLOSE_WAIT, handshake).await;
    }

    /// Answers the hub's goodbye, and waits for the end, within [`CLOSE_WAIT`].
    pub(super) async fn answer_close(mut self) {
        let _ = tokio::time::timeout(CLOSE_WAIT, self.finish()).await;
    }

    async fn finish(&mut self) {
        while std::future::poll_fn(|cx| Pin::new(&mut self.stream).poll_next(cx)).await.is_some() {}
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) {
        // A failure to write shows when reading, with the hub's close frame where there is one.
        if self.dirty && Pin::new(&mut self.stream).poll_flush(cx).is_ready() {
            self.dirty = false;
        }
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Incoming> {
        self.poll_flush(cx);
        Poll::Ready(match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
            Some(Ok(Message::Text(text))) => Incoming::Text(text),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Incoming::Alive,
            Some(Ok(Message::Binary(_) | Message::Frame(_))) => Incoming::Alien,
            Some(Ok(Message::Close(Some(frame)))) => {
                Incoming::Closed { code: frame.code.into(), reason: frame.reason.as_str().to_owned() }
            }
            Some(Err(error)) => Incoming::Closed { code: ABNORMAL, reason: error.to_string() },
            Some(Ok(Message::Close(None))) | None => {
                Incoming::Closed { code: ABNORMAL, reason: String::new() }
            }
        })
    }
}
