//! The two requests that make up nearly all, publishes and WebSocket handshakes, without a general server.
//!
//! What comes plain and whole, as clients send it, is answered here: for it hyper and a router cost several times what
//! the hub itself does. Everything else, from a header that is not expected here to a key that is wrong, goes to hyper
//! with all bytes that came, and the connection with it: so each refusal is worded in one place, and nothing
//! here has to understand what it does not answer.
//!
//! Publishes that a client sends without waiting (HTTP pipelining) are handed on together, and answered, in
//! their order. SQLite commits them together; a fleet's are made one after the other. A client that goes on
//! publishing moves to a shard ([`publisher`]).

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::net;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::page::Page;
use super::problem::Refusal;
use super::publish::{self, Kind, Shape};
use super::server::{Limits, Peer};
use super::stall::Impatient;
use super::ws::{self, Admission};
use super::{App, early};
use crate::broker::Publishing;
use crate::config::Role;
use crate::connection::Handover;
use crate::telemetry::Code;

mod answer;
mod publisher;

pub(super) use publisher::Publisher;

/// The head of a request that is answered here: its bytes, and its headers.
const MAX_HEAD: usize = 8 << 10;
const MAX_HEADERS: usize = 48;
/// The body of one; larger ones go to hyper, where the rest costs more than that.
const MAX_BODY: usize = 64 << 10;
/// A request that takes more reads goes to hyper: parsing it anew each time would cost whoever sends
/// single bytes less than the hub.
const MAX_READS: usize = 8;
/// How long the rest of a body is waited for here: it follows its head at once, or goes to hyper.
const BODY_WAIT: Duration = Duration::from_millis(50);
/// How long a client may go on sending that was told that its connection ends.
const LINGER: Duration = Duration::from_secs(1);
/// What a read takes at least.
const READ: usize = 4 << 10;
/// Answers that are put together for one write: no more once they have so many bytes.
const MAX_OUTPUT: usize = 64 << 10;
/// Publishes of one connection that are under way together.
const MAX_UNDER_WAY: usize = 64;
/// Writes of answers after which a connection is one that goes on, and worth the move to a shard. One that comes back
/// needs twice as many each time, so that moving costs little however often it does: these at most.
const MOVES_AFTER: u32 = 4;
const MOVES_AFTER_AT_MOST: u32 = 1_024;

/// What the bytes of a connection begin with.
#[derive(Debug)]
enum Request {
    /// Nothing: there is none, or no room for one more.
    Nothing,
    /// A head that has not come whole.
    Head,
    /// A publish that may be made and lacks so many bytes of its body.
    Body(usize),
    /// A publish that may be made: where its body is; ends with it. Nothing comes after it if it is
    /// the `last`.
    Publish {
        kind: Kind,
        body: Range<usize>,
        last: bool,
    },
    /// Nothing: the publish before was the last.
    Last,
    Handshake(Handshake),
    /// Something for hyper.
    Other,
}

/// A request for a WebSocket.
#[derive(Debug)]
struct Handshake {
    headers: HeaderMap,
    /// Frames that it brings.
    early: Vec<u8>,
    /// Where it ends.
    end: usize,
}

/// Publishes that are not answered yet, oldest first.
type Publishes = VecDeque<(Shape, Publishing)>;

/// How far the talk with a client has come.
pub(super) struct Talk {
    /// What was read and not looked at.
    input: BytesMut,
    /// Answers that are not written.
    output: Vec<u8>,
    publishes: Publishes,
    /// Nothing comes after its publishes.
    is_last: bool,
    /// Nothing has been asked on it yet.
    is_fresh: bool,
    /// Until when the next request's head has to have come.
    until: Instant,
    /// Writes of answers after which a shard takes the connection; `None` where that is not to be.
    moves_after: Option<u32>,
}

impl Talk {
    /// One that begins now; `read` is what was read already.
    pub(super) fn begin(read: BytesMut, app: &App, limits: Limits) -> Self {
        // A fleet's publishes need the runtime.
        let moves_after = app.rooms.are_this_hubs_own().then_some(MOVES_AFTER);
        let until = Instant::now() + limits.header_timeout;
        let (output, publishes) = (Vec::new(), Publishes::new());
        Self { input: read, output, publishes, is_last: false, is_fresh: true, until, moves_after }
    }

    /// One that a shard goes on with, and whoever it goes back to; it has moved after so many answers.
    fn moved(input: BytesMut, output: Vec<u8>, publishes: Publishes, until: Instant, after: u32) -> Self {
        let moves_after = Some(after.saturating_mul(2).min(MOVES_AFTER_AT_MOST));
        Self { input, output, publishes, is_last: false, is_fresh: false, until, moves_after }
    }
}

/// What becomes of a connection.
pub(super) enum Then {
    /// It has ended.
    Nothing,
    /// A shard is to take it.
    Moves(net::TcpStream, Talk),
    /// Hyper has to go on.
    Hyper(Rest),
}

/// What is left to hyper.
pub(super) struct Rest {
    pub(super) socket: Impatient,
    /// Until when a whole head has to have come.
    pub(super) until: Instant,
}

/// Answers a handshake that has come whole with its connection, as it may where many come at once: its
/// socket goes where it belongs, and no task or poll ever knew it. Any other is given back, with what was read.
pub(super) fn admit_at_once(
    mut socket: net::TcpStream,
    peer: Peer,
    app: &Arc<App>,
) -> Option<(net::TcpStream, BytesMut)> {
    let mut buffer = [0; READ];
    let read = match socket.read(&mut buffer) {
        Ok(0) => return None,
        Ok(n) => buffer.get(..n).unwrap_or_default(),
        // As a rule it has not come yet. Where the socket is broken, whoever reads next will learn it.
        Err(_) => return Some((socket, BytesMut::new())),
    };
    // Whoever accepts connections looks at nothing else.
    if read.starts_with(b"GET /ws")
        && let Request::Handshake(Handshake { headers, early, end }) = parse(read, app)
        && let Some(admission) = admit(headers, peer, app)
    {
        upgrade(socket, early, read.get(end..).unwrap_or_default(), admission, app);
        return None;
    }
    Some((socket, BytesMut::from(read)))
}

/// Lets in who may come; who may not is told so by the router.
fn admit(headers: HeaderMap, peer: Peer, app: &App) -> Option<Admission> {
    let page = Page::new(None, headers, Some(peer));
    let accept = ws::accept_key(Version::HTTP_11, page.headers()).ok()?;
    let may_ask = page.may_ask(app).unwrap_or_default();
    may_ask.then(|| ws::admit(app, &page, accept).ok()).flatten()
}

/// Answers what is answered here, and says who goes on.
pub(super) async fn serve(
    mut socket: TcpStream,
    talk: Talk,
    peer: Peer,
    app: &Arc<App>,
    limits: Limits,
    stop: &CancellationToken,
) -> Then {
    let Talk { mut input, mut output, mut publishes, is_last, mut is_fresh, mut until, moves_after } = talk;
    if !send_answers(&socket, &mut output, limits).await {
        return Then::Nothing;
    }
    let mut stopped = pin!(stop.cancelled());
    let mut patience = pin!(sleep_until(until));
    // `is_through` where nothing more is read here.
    let (mut reads, mut is_through, mut answered) = (0, is_last, 0);
    loop {
        let mut missing = 0;
        // Who is about to be told that the connection ends makes no more publishes.
        let may_begin = publishes.is_empty() || !stop.is_cancelled();
        if !is_through && may_begin {
            let n_before = publishes.len();
            let (used, next) = begin(&input, &mut publishes, app);
            input.advance(used);
            if publishes.len() > n_before {
                reads = 0;
            }
            match next {
                Request::Head | Request::Body(_) if reads == MAX_READS => is_through = true,
                Request::Nothing | Request::Head => {}
                Request::Body(n) => {
                    missing = n;
                    // How long a body may take is known to the router.
                    let soon = Instant::now() + BODY_WAIT;
                    if publishes.is_empty() && soon < until {
                        patience.as_mut().reset(soon);
                    }
                }
                // On a socket that is used already the answer may have to wait.
                Request::Handshake(Handshake { headers, early, end }) if is_fresh => {
                    let Some(admission) = admit(headers, peer, app) else {
                        is_through = true;
                        continue;
                    };
                    if let Some(socket) = unwatched(socket) {
                        upgrade(socket, early, input.get(end..).unwrap_or_default(), admission, app);
                    }
                    return Then::Nothing;
                }
                Request::Last => {
                    input.clear();
                    is_through = true;
                }
                // Those before it are answered first.
                Request::Handshake(..) | Request::Publish { .. } | Request::Other => is_through = true,
            }
        }
        if is_through && publishes.is_empty() {
            if input.is_empty() {
                return Then::Nothing;
            }
            let socket = Impatient::new(socket, input.freeze(), limits.write_timeout);
            return Then::Hyper(Rest { socket, until });
        }
        is_fresh &= publishes.is_empty();
        if input.is_empty() {
            // An idle connection holds no buffer.
            input = BytesMut::new();
        }
        let is_last = is_through && input.is_empty();
        // What is not looked at is not read either.
        let may_read = !is_through && may_begin && publishes.len() < MAX_UNDER_WAY;
        tokio::select! {
            biased;
            closes = std::future::poll_fn(|cx| {
                finish(&mut publishes, &mut output, app, is_last || stop.is_cancelled(), cx)
            }), if !publishes.is_empty() => {
                if !send_answers(&socket, &mut output, limits).await {
                    return Then::Nothing;
                }
                if closes {
                    leave(socket).await;
                    return Then::Nothing;
                }
                until = Instant::now() + limits.header_timeout;
                answered += 1;
                let is_quiet = publishes.is_empty() && input.is_empty() && !is_through;
                let may_move = is_quiet && !app.draining.is_cancelled();
                if let Some(after) = moves_after.filter(|after| may_move && answered >= *after) {
                    let talk = Talk::moved(input, output, publishes, until, after);
                    return unwatched(socket).map_or(Then::Nothing, |socket| Then::Moves(socket, talk));
                }
            }
            read = read(&mut socket, &mut input, missing), if may_read => {
                match read {
                    Ok(1..) => reads += 1,
                    // Its publishes are answered all the same: it may only have closed its side.
                    Ok(0) => is_through = true,
                    Err(_) => return Then::Nothing,
                }
            }
            () = stopped.as_mut(), if publishes.is_empty() => is_through = true,
            () = patience.as_mut(), if publishes.is_empty() => {
                if missing > 0 {
                    is_through = true;
                } else if Instant::now() < until {
                    patience.as_mut().reset(until);
                } else {
                    debug!("a connection sent no request in time");
                    return Then::Nothing;
                }
            }
        }
    }
}

/// Sets all publishes on their way that have come whole. Says how much of the input that was, and what comes after
/// them.
fn begin(input: &[u8], publishes: &mut Publishes, app: &App) -> (usize, Request) {
    let mut used = 0;
    loop {
        let rest = input.get(used..).unwrap_or_default();
        if rest.is_empty() || publishes.len() == MAX_UNDER_WAY {
            return (used, Request::Nothing);
        }
        match parse(rest, app) {
            Request::Publish { kind, body, last } => {
                let end = body.end;
                let Some(Ok(order)) = rest.get(body).map(|body| publish::read(kind, body, &app.config))
                else {
                    return (used, Request::Other);
                };
                publishes.push_back((order.shape(), order.place(&app.rooms)));
                used += end;
                if last {
                    return (used, Request::Last);
                }
            }
            other => return (used, other),
        }
    }
}

/// Looks at what comes first.
fn parse(input: &[u8], app: &App) -> Request {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let head = match request.parse_with_uninit_headers(input, &mut headers) {
        Ok(httparse::Status::Complete(head)) if head <= MAX_HEAD => head,
        Ok(httparse::Status::Partial) if input.len() < MAX_HEAD => return Request::Head,
        _ => return Request::Other,
    };
    let kind = match (request.method, request.path, request.version) {
        (Some("POST"), Some("/api/publish"), Some(1)) => Kind::One,
        (Some("POST"), Some("/api/publish/batch"), Some(1)) => Kind::Batch,
        (Some("GET"), Some(path), Some(1)) if path == "/ws" || path.starts_with("/ws?") => {
            return handshake(request.headers, path, head, app);
        }
        _ => return Request::Other,
    };
    let Some((len, last)) = body_of_publish(request.headers, app) else { return Request::Other };
    let body = head..head + len;
    match body.end.checked_sub(input.len()) {
        Some(missing @ 1..) => Request::Body(missing),
        _ => Request::Publish { kind, body, last },
    }
}

/// How long the body of a publish is that may be made, as its headers say, and whether it is the last.
fn body_of_publish(headers: &[httparse::Header<'_>], app: &App) -> Option<(usize, bool)> {
    if app.config.role == Role::Edge {
        return None;
    }
    let (mut len, mut key, mut kind, mut last) = (None, None, None, false);
    for header in headers {
        let once = |place: &mut Option<_>| place.replace(header.value).is_none();
        let is_plain = match header.name {
            name if name.eq_ignore_ascii_case("content-length") => once(&mut len),
            name if name.eq_ignore_ascii_case("authorization") => once(&mut key),
            name if name.eq_ignore_ascii_case("content-type") => once(&mut kind),
            name if name.eq_ignore_ascii_case("connection") => {
                let closes = header.value.eq_ignore_ascii_case(b"close");
                last |= closes;
                closes || header.value.eq_ignore_ascii_case(b"keep-alive")
            }
            name => !["transfer-encoding", "expect", "upgrade"]
                .iter()
                .any(|other| name.eq_ignore_ascii_case(other)),
        };
        if !is_plain {
            return None;
        }
    }
    let len = length(len?).filter(|len| *len <= MAX_BODY.min(app.config.max_body))?;
    let may = super::body::names_json(kind?) && app.keys.check_value(key?).is_ok();
    may.then_some((len, last))
}

/// A `Content-Length`: digits and nothing else.
fn length(value: &[u8]) -> Option<usize> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten()
}

/// A request for a WebSocket that has no body.
fn handshake(headers: &[httparse::Header<'_>], path: &str, end: usize, app: &App) -> Request {
    // What is not allowed in an address is for who knows what to say about it.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&byte);
    if app.config.role == Role::Publish || !path.bytes().all(is_plain) {
        return Request::Other;
    }
    let query = path.split_once('?').map(|(_, query)| query);
    let Ok(early) = early::frames(query) else { return Request::Other };
    let mut map = HeaderMap::with_capacity(headers.len());
    for header in headers {
        let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(header.name.as_bytes()), HeaderValue::from_bytes(header.value))
        else {
            return Request::Other;
        };
        map.append(name, value);
    }
    let has_body =
        map.contains_key(http::header::CONTENT_LENGTH) || map.contains_key(http::header::TRANSFER_ENCODING);
    if has_body { Request::Other } else { Request::Handshake(Handshake { headers: map, early, end }) }
}

/// Answers the publishes that are done, as long as those before them are; ready once any is. The last one
/// is told where the connection `closes` after it; says whether it was.
fn finish(
    publishes: &mut Publishes,
    output: &mut Vec<u8>,
    app: &App,
    closes: bool,
    cx: &mut Context<'_>,
) -> Poll<bool> {
    let mut is_told = false;
    while output.len() < MAX_OUTPUT
        && let Some((shape, publishing)) = publishes.front_mut()
    {
        let Poll::Ready(outcome) = pin!(publishing).poll(cx) else { break };
        let body = outcome.map_err(Refusal::from).and_then(|published| publish::word(*shape, published));
        publishes.pop_front();
        is_told = publishes.is_empty() && closes;
        match body {
            Ok(body) => answer::put_json(output, &body, is_told),
            Err(refusal) => {
                app.telemetry.errors.get_or_create(&Code { code: refusal.code().as_str() }).inc();
                let (status, headers, body) = refusal.into_parts();
                answer::put(output, status, &headers, &body, is_told);
            }
        }
    }
    if output.is_empty() { Poll::Pending } else { Poll::Ready(is_told) }
}

/// Ends a connection whose client was told so. What it sent meanwhile is read: a socket that is closed with
/// something unread in it takes its last answers back.
async fn leave(mut socket: TcpStream) {
    // Not in the task, which every connection has, and few come here.
    let mut discarded = vec![0; READ];
    let leaving = async {
        socket.shutdown().await?;
        while socket.read(&mut discarded).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    // Whoever goes on sending has heard it, or never will.
    let _ = timeout(LINGER, leaving).await;
}

/// Reads what there is, once there is something. 0 is the end.
async fn read(socket: &mut TcpStream, input: &mut BytesMut, missing: usize) -> io::Result<usize> {
    // The buffer is made when there is something for it.
    socket.readable().await?;
    input.reserve(READ.max(missing));
    socket.read_buf(input).await
}

/// Writes answers; false where they are not taken.
async fn send_answers(socket: &TcpStream, output: &mut Vec<u8>, limits: Limits) -> bool {
    if let Err(error) = write(socket, output, limits.write_timeout).await {
        debug!(%error, "a publisher did not take its answer");
        return false;
    }
    output.clear();
    output.shrink_to(READ);
    true
}

/// The socket, for whoever watches it from now on.
fn unwatched(socket: TcpStream) -> Option<net::TcpStream> {
    let unwatched = socket.into_std();
    unwatched.inspect_err(|error| debug!(%error, "a connection can't be handed on and is dropped")).ok()
}

/// Writes all, to a socket that may take no byte for as long as `patience`.
async fn write(socket: &TcpStream, mut output: &[u8], patience: Duration) -> io::Result<()> {
    while !output.is_empty() {
        match socket.try_write(output) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => output = output.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                timeout(patience, socket.writable()).await.map_err(|_| io::ErrorKind::TimedOut)??;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Hands the socket over, whose first bytes are the answer to its handshake. `read` is what came after it.
fn upgrade(socket: net::TcpStream, early: Vec<u8>, read: &[u8], admission: Admission, app: &App) {
    let Admission { place, caller, is_compressed, answer: headers } = admission;
    let mut answer = Vec::with_capacity(256);
    answer::put_head(&mut answer, StatusCode::SWITCHING_PROTOCOLS, &headers);
    answer.extend_from_slice(b"\r\n");
    let mut frames = early;
    frames.extend_from_slice(read);
    let handover = Handover { socket, answer: answer.into(), read: frames, is_compressed, caller };
    app.connections.adopt(place, handover);
}
