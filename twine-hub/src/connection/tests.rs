//! Connections over real sockets, below HTTP: what each frame is answered, and that no client's
//! doing is another's undoing.

mod by_hand;
mod crossing;
mod cursors;
mod ends;
mod frames;
mod guests;
mod model;
mod opening;
mod recovery;
mod saving;
mod sessions;
mod slow;
mod storm;
mod time;

use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde_json::value::RawValue;
use tokio_tungstenite::WebSocketStream;
use tungstenite::Message as Ws;
use tungstenite::protocol::Role;
use twine_protocol::{Epoch, ErrorCode, GapReason, Position, ServerFrame, json};

use super::{Caller, Connections, Handover, Options};
use crate::auth::Permissions;
use crate::rooms::{self, NewMessage, Rooms};
use crate::session::Sessions;
use crate::store::{self, Kind, Retention};
use crate::telemetry::{Code, Telemetry};

type Frame = ServerFrame<twine_protocol::Data>;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Rooms and connections without HTTP around them.
struct Bench {
    rooms: Rooms,
    sessions: Sessions,
    options: Options,
    connections: Connections,
    telemetry: Arc<Telemetry>,
    listener: TcpListener,
}

struct Client(WebSocketStream<tokio::net::TcpStream>);

impl Bench {
    fn new(kind: Kind, rooms: &rooms::Options, options: &Options) -> Self {
        let telemetry = Arc::new(Telemetry::default());
        let store = store::Options { kind, retention: Retention::Forever };
        let rooms = Rooms::open(&store, rooms, telemetry.clone()).unwrap();
        Self::over(rooms, &store.kind, options, telemetry)
    }

    /// Connections over rooms that are open already.
    fn over(rooms: Rooms, sessions: &Kind, options: &Options, telemetry: Arc<Telemetry>) -> Self {
        let sessions =
            Sessions::open(sessions, crate::Config::default().sessions(), telemetry.clone()).unwrap();
        let connections = Connections::start(&rooms, &sessions, None, options, &telemetry).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { rooms, sessions, options: options.clone(), connections, telemetry, listener }
    }

    /// The same with connections of their own, for which this says what they may.
    fn with_permissions(self, permissions: &Permissions) -> Self {
        let Self { rooms, sessions, options, telemetry, .. } = &self;
        let connections = Connections::start(rooms, sessions, Some(permissions), options, telemetry).unwrap();
        Self { connections, ..self }
    }

    fn in_memory(options: &Options) -> Self {
        Self::new(Kind::Memory { max_bytes: usize::MAX }, &rooms::Options::default(), options)
    }

    /// A socket of the hub's, and the client's end of it.
    fn socket(&self) -> tokio::net::TcpStream {
        self.socket_with(|_, _| ())
    }

    /// The same, after `set` has set both ends.
    fn socket_with(&self, set: impl FnOnce(&TcpStream, &TcpStream)) -> tokio::net::TcpStream {
        self.socket_of(Caller { cookie: None, origin: "".into(), address: LOCAL }, set)
    }

    /// The same for somebody in particular.
    fn socket_of(&self, caller: Caller, set: impl FnOnce(&TcpStream, &TcpStream)) -> tokio::net::TcpStream {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        let (socket, _) = self.listener.accept().unwrap();
        set(&socket, &client);
        socket.set_nonblocking(true).unwrap();
        client.set_nonblocking(true).unwrap();
        let place = self.connections.reserve().unwrap();
        self.connections.adopt(
            place,
            Handover { socket, answer: Bytes::new(), read: Vec::new(), is_compressed: false, caller },
        );
        tokio::net::TcpStream::from_std(client).unwrap()
    }

    async fn client(&self) -> Client {
        Client(WebSocketStream::from_raw_socket(self.socket(), Role::Client, None).await)
    }

    /// A client that has said `connect` and subscribed to a room.
    async fn subscriber(&self, room: &str) -> Client {
        let mut client = self.client().await;
        client.connect().await;
        client.say(&format!(r#"{{"type":"subscribe","id":1,"room":"{room}"}}"#)).await;
        assert!(matches!(client.next().await, Frame::Subscribed(s) if s.recovered.is_none()));
        client
    }

    async fn epoch(&self, room: &str) -> Epoch {
        self.rooms.info(&room.parse().unwrap()).await.unwrap().head.epoch
    }

    async fn publish(&self, room: &str, data: &str) -> Position {
        let data = RawValue::from_string(data.to_owned()).unwrap();
        let message = NewMessage { room: room.parse().unwrap(), data, id: None, sender: None };
        let published = self.rooms.publish(vec![message]).await.unwrap().remove(0);
        Position { epoch: published.epoch, offset: published.offset }
    }

    /// Publishes that many messages of the same data at once.
    async fn publish_many(&self, room: &str, n: u64, text: &str) {
        let data = RawValue::from_string(format!("\"{text}\"")).unwrap();
        let message =
            || NewMessage { room: room.parse().unwrap(), data: data.clone(), id: None, sender: None };
        self.rooms.publish((0..n).map(|_| message()).collect()).await.unwrap();
    }

    fn errors(&self, code: ErrorCode) -> u64 {
        self.telemetry.errors.get_or_create(&Code { code: code.as_str() }).get()
    }

    /// Ends the hub and gives what it counted: a message is counted after it is written, so a client
    /// may have it before.
    async fn end(self) -> Arc<Telemetry> {
        self.connections.drain(Duration::ZERO, Duration::from_secs(5)).await;
        self.sessions.close().await;
        self.rooms.close().await;
        self.telemetry
    }
}

/// Short, for what waits on it, and so shorter than a busy machine may stand still: what then ends
/// too early proves nothing, and is tried again, so many times.
const SHORT_HEARTBEAT: Duration = Duration::from_millis(300);
const ATTEMPTS: usize = 5;

/// So small that little can be on its way.
fn small_buffers(hub: &TcpStream, client: &TcpStream) {
    socket2::SockRef::from(hub).set_send_buffer_size(4096).unwrap();
    socket2::SockRef::from(client).set_recv_buffer_size(4096).unwrap();
}

/// A text frame as a client sends it, masked with zeros.
fn masked(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
    frame.extend(text.as_bytes());
    frame
}

impl Client {
    async fn say(&mut self, text: &str) {
        self.0.send(Ws::text(text)).await.unwrap();
    }

    async fn connect(&mut self) {
        self.say(r#"{"type":"connect"}"#).await;
        assert!(matches!(self.next().await, Frame::Connected(c) if !c.resumed && c.rooms.is_empty()));
    }

    async fn subscribe_after(&mut self, room: &str, after: &Position) {
        let Position { epoch, offset } = after;
        let after = format!(r#"{{"epoch":"{epoch}","offset":{offset}}}"#);
        self.say(&format!(r#"{{"type":"subscribe","id":1,"room":"{room}","after":{after}}}"#)).await;
    }

    /// The next frame of the protocol.
    async fn next(&mut self) -> Frame {
        loop {
            match self.0.next().await.unwrap().unwrap() {
                Ws::Text(text) => return json::decode_server(&text).unwrap(),
                Ws::Close(frame) => panic!("closed: {frame:?}"),
                _ => {}
            }
        }
    }

    /// The data of the next frame, which is a message.
    async fn data(&mut self) -> String {
        match self.next().await {
            Frame::Message(message) => message.data.get().to_owned(),
            other => panic!("no message: {other:?}"),
        }
    }

    async fn error(&mut self) -> (Option<u64>, &'static str) {
        match self.next().await {
            Frame::Error(error) => (error.id, error.code.as_str()),
            other => panic!("no error: {other:?}"),
        }
    }

    /// The code that the connection ends with.
    async fn closed(&mut self) -> u16 {
        loop {
            match self.0.next().await {
                Some(Ok(Ws::Close(Some(frame)))) => return frame.code.into(),
                Some(Ok(_)) => {}
                other => panic!("no close frame: {other:?}"),
            }
        }
    }
}
