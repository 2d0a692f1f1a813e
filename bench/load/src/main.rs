//! load: WebSocket pub/sub load generator. One thread, one epoll, a few dozen
//! bytes for each client, so that the server under test stays the bottleneck.
//! Every published payload carries "~~" + send time (16 hex digits, ns,
//! CLOCK_MONOTONIC) + sequence in its room (8) + room (8) + "~" and then
//! padding: subscribers find it in any framing without parsing JSON.

mod stats;
mod target;

use memchr::memmem;
use stats::{Cpu, Histogram, memory, now};
use std::collections::VecDeque;
use std::io::Write;
use target::{Kind, Target, fill};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const MARK: usize = 2 + 16 + 8 + 8 + 1;
const PUBLISHER: u64 = 1 << 40;

#[derive(Clone, Copy, PartialEq)]
enum State {
    Connecting,
    Handshake,
    Talking(u8),
    Subscribed,
    Closed,
}

struct Client {
    fd: i32,
    state: State,
    room: u32,
    next: u32,     // the sequence number that is due
    seen: u64,     // bit k: number next-1-k has come
    unique: u32,   // distinct messages in the measured window
    part: Vec<u8>, // an incomplete frame
}

#[derive(Default)]
struct Room {
    subs: u64,
    seq: u32,
}

struct Publisher {
    fd: i32,
    output: Vec<u8>,
    input: Vec<u8>,
    queue: VecDeque<(usize, u64)>, // room and scheduled time
    sent: VecDeque<u64>,
    cursor: usize,
}

#[derive(Default)]
struct Counts {
    published: u64,
    acked: u64,
    refused: u64,
    reopened: u64,
    expected: u64,
    unique: u64,
    dup: u64,
    reorder: u64,
    misrouted: u64,
    closed: u64,
    failed: u64,
    subscribed: usize,
    reads: u64,
    bytes: u64,
}

/// What is to be published, and how fast.
struct Plan {
    start: u64,
    end: u64,
    rate: Option<f64>, // open loop: so many a second, by the clock
    window: u64,       // closed loop: so many messages ahead of their deliveries
    k: u64,
    late: Histogram,
}

struct Args {
    pairs: Vec<(String, String)>,
}

impl Args {
    fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }
    fn num(&self, name: &str, default: f64) -> f64 {
        self.get(name).map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("--{name} {v}: not a number")))
    }
}

struct Load {
    t: Target,
    ep: i32,
    clients: Vec<Client>,
    rooms: Vec<Room>,
    pubs: Vec<Publisher>,
    cookies: Vec<String>,
    buf: Vec<u8>,
    events: Vec<libc::epoll_event>,
    c: Counts,
    latency: Histogram,
    ack: Histogram,
    payload: usize,
    pipeline: usize,
    in_flight: usize, // connections between connect() and subscribed
    last: u64,        // when the last message came
    plan: Option<Plan>,
    trace: bool,
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn send_all(fd: i32, data: &[u8]) -> bool {
    let n = unsafe { libc::send(fd, data.as_ptr().cast(), data.len(), libc::MSG_NOSIGNAL) };
    n == data.len() as isize
}

fn send_frame(fd: i32, opcode: u8, payload: &[u8]) -> bool {
    let mut out = vec![0x80 | opcode];
    if payload.len() < 126 {
        out.push(0x80 | payload.len() as u8);
    } else {
        out.push(0x80 | 126);
        out.extend((payload.len() as u16).to_be_bytes());
    }
    out.extend(MASK);
    out.extend(payload.iter().enumerate().map(|(i, b)| b ^ MASK[i & 3]));
    send_all(fd, &out)
}

fn sockaddr(ip: [u8; 4], port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(ip) },
        sin_zero: [0; 8],
    }
}

fn set(fd: i32, level: i32, option: i32) {
    let one: i32 = 1;
    unsafe { libc::setsockopt(fd, level, option, (&raw const one).cast(), 4) };
}

/// Length of the first whole HTTP answer in `b` and its status.
fn http_answer(b: &[u8]) -> Option<(usize, u16)> {
    let head = memmem::find(b, b"\r\n\r\n")?;
    let status: u16 = std::str::from_utf8(b.get(9..12)?).ok()?.parse().ok()?;
    let lower = String::from_utf8_lossy(&b[..head]).to_ascii_lowercase();
    let value = |k: &str| lower.split("\r\n").find_map(|l| l.strip_prefix(k)).map(|v| v.trim().to_string());
    if let Some(n) = value("content-length:") {
        let end = head + 4 + n.parse::<usize>().ok()?;
        (b.len() >= end).then_some((end, status))
    } else if value("transfer-encoding:").is_some_and(|v| v.contains("chunked")) {
        if b[head + 4..].starts_with(b"0\r\n\r\n") {
            return Some((head + 9, status));
        }
        memmem::find(&b[head + 4..], b"\r\n0\r\n\r\n").map(|p| (head + 4 + p + 7, status))
    } else {
        Some((head + 4, status))
    }
}

impl Load {
    fn epoll(&self, op: i32, fd: i32, events: i32, id: u64) {
        let mut ev = libc::epoll_event { events: events as u32, u64: id };
        let r = unsafe { libc::epoll_ctl(self.ep, op, fd, &mut ev) };
        assert!(r == 0, "epoll_ctl: {}", std::io::Error::last_os_error());
    }

    fn ip(&self) -> [u8; 4] {
        self.t.host.parse::<std::net::Ipv4Addr>().expect("an IPv4 host").octets()
    }

    fn connect(&mut self, room: usize) {
        let i = self.clients.len();
        let fd = unsafe {
            libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0)
        };
        assert!(fd >= 0, "socket: {}", std::io::Error::last_os_error());
        set(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT);
        set(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY);
        let from = sockaddr([127, 0, 0, 2 + (i % 249) as u8], 0);
        let to = sockaddr(self.ip(), self.t.port);
        let size = std::mem::size_of::<libc::sockaddr_in>() as u32;
        unsafe {
            assert!(
                libc::bind(fd, (&raw const from).cast(), size) == 0,
                "bind: {}",
                std::io::Error::last_os_error()
            );
            let r = libc::connect(fd, (&raw const to).cast(), size);
            assert!(r == 0 || errno() == libc::EINPROGRESS, "connect: {}", std::io::Error::last_os_error());
        }
        self.clients.push(Client {
            fd,
            state: State::Connecting,
            room: room as u32,
            next: 0,
            seen: u64::MAX,
            unique: 0,
            part: Vec::new(),
        });
        self.in_flight += 1;
        self.epoll(libc::EPOLL_CTL_ADD, fd, libc::EPOLLOUT, i as u64);
    }

    fn drop_client(&mut self, i: usize, why: &str) {
        let c = &mut self.clients[i];
        if c.state == State::Closed {
            return;
        }
        if c.state == State::Subscribed {
            self.c.closed += 1;
            self.c.subscribed -= 1;
            self.rooms[c.room as usize].subs -= 1;
        } else {
            self.in_flight -= 1;
            self.c.failed += 1;
            if self.c.failed <= 3 {
                eprintln!("client {i} failed: {why}: {}", String::from_utf8_lossy(&c.part));
            }
        }
        c.state = State::Closed;
        unsafe { libc::close(c.fd) };
    }

    /// Sends what the subscribe script has to say at `step`; stops where it must wait.
    fn talk(&mut self, i: usize, mut step: usize) {
        let (fd, room) = (self.clients[i].fd, self.clients[i].room as usize);
        let opcode = if self.t.binary { 2 } else { 1 };
        while let Some(s) = self.t.subscribe.get(step) {
            if s.expect.is_some() && self.clients[i].state != State::Talking(step as u8 | 128) {
                self.clients[i].state = State::Talking(step as u8);
                return;
            }
            if let Some(text) = &s.send {
                send_frame(fd, opcode, &self.t.bytes(&fill(text, room, i)));
            }
            step += 1;
        }
        self.clients[i].state = State::Subscribed;
        self.in_flight -= 1;
        self.c.subscribed += 1;
        self.rooms[room].subs += 1;
    }

    fn connected(&mut self, i: usize) {
        let c = &self.clients[i];
        let (fd, room) = (c.fd, c.room as usize);
        let mut req = format!(
            "GET {} HTTP/1.1\r\nHost: {}:{}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n",
            fill(&self.t.ws_path, room, i),
            self.t.host,
            self.t.port
        );
        for h in &self.t.ws_headers {
            req += &fill(h, room, i);
            req += "\r\n";
        }
        if !self.cookies.is_empty() {
            req += &format!("Cookie: {}\r\n", self.cookies[i % self.cookies.len()]);
        }
        req += "\r\n";
        if send_all(fd, req.as_bytes()) {
            self.clients[i].state = State::Handshake;
            // Edge-triggered: half the kernel's work of level-triggered.
            self.epoll(libc::EPOLL_CTL_MOD, fd, libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET, i as u64);
        } else {
            self.drop_client(i, "no connection");
        }
    }

    fn readable(&mut self, i: usize) {
        let mut buf = std::mem::take(&mut self.buf);
        let c = &mut self.clients[i];
        let kept = c.part.len();
        if buf.len() < kept + 65536 {
            buf.resize(kept + 65536, 0);
        }
        let room = buf.len() - kept;
        let n = unsafe { libc::recv(c.fd, buf.as_mut_ptr().add(kept).cast(), room, 0) };
        if n <= 0 {
            if n == 0 || errno() != libc::EAGAIN {
                self.drop_client(i, "closed by the server");
            }
            self.buf = buf;
            return;
        }
        self.c.reads += 1;
        self.c.bytes += n as u64;
        if kept > 0 {
            buf[..kept].copy_from_slice(&c.part);
            c.part = Vec::new();
        }
        let end = kept + n as usize;
        let used = self.consume(i, &buf[..end]);
        if used < end && self.clients[i].state != State::Closed {
            self.clients[i].part = buf[used..end].to_vec();
        }
        self.buf = buf;
        if n as usize == room && self.clients[i].state != State::Closed {
            self.readable(i);
        }
    }

    fn consume(&mut self, i: usize, data: &[u8]) -> usize {
        let mut pos = 0;
        if self.clients[i].state == State::Handshake {
            let Some(end) = memmem::find(data, b"\r\n\r\n") else { return 0 };
            let head = &data[..end];
            if !head.starts_with(b"HTTP/1.1 101") || memmem::find(head, ACCEPT).is_none() {
                self.clients[i].part = head.to_vec();
                self.drop_client(i, "handshake refused");
                return data.len();
            }
            pos = end + 4;
            self.talk(i, 0);
        }
        let at = now();
        while data.len() >= pos + 2 {
            let (mut head, mut len) = (2, (data[pos + 1] & 127) as usize);
            if len == 126 && data.len() >= pos + 4 {
                head = 4;
                len = u16::from_be_bytes([data[pos + 2], data[pos + 3]]) as usize;
            } else if len == 127 && data.len() >= pos + 10 {
                head = 10;
                len = u64::from_be_bytes(data[pos + 2..pos + 10].try_into().unwrap()) as usize;
            } else if len >= 126 {
                break;
            }
            if data.len() < pos + head + len {
                break;
            }
            let payload = &data[pos + head..pos + head + len];
            match data[pos] & 15 {
                8 => {
                    self.drop_client(i, "close frame");
                    return data.len();
                }
                9 => {
                    send_frame(self.clients[i].fd, 10, payload);
                }
                10 => {}
                _ => self.frame(i, payload, at),
            }
            pos += head + len;
        }
        pos
    }

    fn frame(&mut self, i: usize, payload: &[u8], at: u64) {
        if self.trace {
            eprintln!("< {i} {}", String::from_utf8_lossy(payload));
        }
        let mut rest = payload;
        let mut messages = 0;
        while let Some(p) = memmem::find(rest, b"~~") {
            if rest.len() < p + MARK {
                break;
            }
            self.message(i, &rest[p + 2..p + MARK], at);
            rest = &rest[p + MARK..];
            messages += 1;
        }
        if let State::Talking(step) = self.clients[i].state {
            let want = self.t.subscribe[step as usize].expect.as_deref().unwrap_or("");
            if memmem::find(payload, &self.t.bytes(want)).is_some() {
                self.clients[i].state = State::Talking(step | 128);
                self.talk(i, step as usize);
            }
        }
        if messages == 0 || self.t.binary {
            for r in &self.t.replies {
                let hit = if r.exact {
                    payload == r.starts.as_bytes()
                } else {
                    memmem::find(payload, r.starts.as_bytes()).is_some()
                };
                if hit {
                    send_frame(self.clients[i].fd, if self.t.binary { 2 } else { 1 }, r.send.as_bytes());
                }
            }
        }
    }

    fn message(&mut self, i: usize, mark: &[u8], at: u64) {
        let hex = |b: &[u8]| {
            b.iter().fold(0u64, |a, d| (a << 4) | ((d & 15) as u64 + if *d > b'9' { 9 } else { 0 }))
        };
        let (sent, seq, room) = (hex(&mark[..16]), hex(&mark[16..24]) as u32, hex(&mark[24..32]) as u32);
        let c = &mut self.clients[i];
        if room != c.room {
            self.c.misrouted += 1;
            return;
        }
        if seq >= c.next {
            let shift = seq - c.next + 1;
            c.seen = if shift < 64 { c.seen << shift } else { 0 } | 1;
            c.next = seq + 1;
        } else {
            let age = c.next - 1 - seq;
            if age >= 64 || (c.seen >> age) & 1 == 1 {
                self.c.dup += 1;
                return;
            }
            c.seen |= 1 << age;
            self.c.reorder += 1;
        }
        c.unique += 1;
        self.c.unique += 1;
        self.latency.add(at.saturating_sub(sent));
        self.last = at;
    }

    // ---- publishing

    fn open_publishers(&mut self, n: usize) {
        for k in 0..n {
            let fd = self.open_publisher(k);
            self.pubs.push(Publisher {
                fd,
                output: vec![],
                input: vec![],
                queue: VecDeque::new(),
                sent: VecDeque::new(),
                cursor: k,
            });
            self.epoll(libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN, PUBLISHER | k as u64);
        }
    }

    fn open_publisher(&self, k: usize) -> i32 {
        use std::os::fd::IntoRawFd;
        let port = self.t.publish.port.unwrap_or(self.t.port);
        let mut s =
            std::net::TcpStream::connect((self.t.host.as_str(), port)).expect("the publish port answers");
        s.set_nodelay(true).unwrap();
        match self.t.publish.kind {
            Kind::Nats => s.write_all(b"CONNECT {\"verbose\":false}\r\n").unwrap(),
            Kind::Mqtt => {
                s.write_all(format!("\x10\x11\0\x04MQTT\x04\x02\0\0\0\x05pub{k:02}").as_bytes()).unwrap();
            }
            Kind::Http => {}
        }
        s.set_nonblocking(true).unwrap();
        s.into_raw_fd()
    }

    fn publish(&mut self, k: usize, room: usize, at: u64) {
        let r = &mut self.rooms[room];
        let mut payload = format!("~~{at:016x}{:08x}{room:08x}~", r.seq);
        payload.extend(std::iter::repeat_n('x', self.payload.saturating_sub(payload.len())));
        r.seq += 1;
        self.c.expected += r.subs;
        self.c.published += 1;
        let p = &mut self.pubs[k];
        self.t.publish_request(room, &payload, &mut p.output);
        p.sent.push_back(now());
        self.flush(k);
    }

    fn flush(&mut self, k: usize) {
        let p = &mut self.pubs[k];
        if p.output.is_empty() {
            return;
        }
        let n = unsafe {
            libc::send(
                p.fd,
                p.output.as_ptr().cast(),
                p.output.len(),
                libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
            )
        };
        p.output.drain(..n.max(0) as usize);
        let (fd, want) =
            (p.fd, if p.output.is_empty() { libc::EPOLLIN } else { libc::EPOLLIN | libc::EPOLLOUT });
        self.epoll(libc::EPOLL_CTL_MOD, fd, want, PUBLISHER | k as u64);
    }

    fn answered(&mut self, k: usize) {
        let mut buf = std::mem::take(&mut self.buf);
        let n =
            unsafe { libc::recv(self.pubs[k].fd, buf.as_mut_ptr().cast(), buf.len(), libc::MSG_DONTWAIT) };
        let again = n < 0 && errno() == libc::EAGAIN;
        if n > 0 {
            self.pubs[k].input.extend_from_slice(&buf[..n as usize]);
        }
        self.buf = buf;
        if n <= 0 && !again {
            self.reopen(k);
            return;
        }
        let mut last = false;
        loop {
            let p = &mut self.pubs[k];
            let (used, acked, ok) = match self.t.publish.kind {
                Kind::Http => match http_answer(&p.input) {
                    Some((used, status)) => {
                        last |=
                            memmem::find(&p.input[..used].to_ascii_lowercase(), b"\r\nconnection: close\r")
                                .is_some();
                        (used, true, (200..300).contains(&status))
                    }
                    None => break,
                },
                Kind::Nats => match memchr::memchr(b'\n', &p.input) {
                    Some(e) => {
                        let line = &p.input[..e];
                        if line.starts_with(b"PING") {
                            p.output.extend(b"PONG\r\n");
                        }
                        (
                            e + 1,
                            line.starts_with(b"PONG") || line.starts_with(b"-ERR"),
                            line.starts_with(b"PONG"),
                        )
                    }
                    None => break,
                },
                Kind::Mqtt => match p.input.get(1) {
                    Some(&len) if p.input.len() >= 2 + len as usize => {
                        (2 + len as usize, p.input[0] == 0x40, true)
                    }
                    _ => break,
                },
            };
            if acked {
                if let Some(at) = p.sent.pop_front() {
                    self.ack.add(now() - at);
                }
                if ok {
                    self.c.acked += 1;
                } else {
                    self.c.refused += 1;
                    if self.c.refused == 1 {
                        eprintln!("publish refused: {}", String::from_utf8_lossy(&p.input[..used]));
                    }
                }
            }
            p.input.drain(..used);
        }
        if last {
            self.reopen(k);
        }
    }

    /// A server that does not keep the connection costs a new one for each
    /// publish. What was under way on the old one is refused.
    fn reopen(&mut self, k: usize) {
        self.c.refused += self.pubs[k].sent.len() as u64;
        self.c.reopened += 1;
        unsafe { libc::close(self.pubs[k].fd) };
        let fd = self.open_publisher(k);
        let p = &mut self.pubs[k];
        (p.fd, p.output, p.input, p.sent) = (fd, vec![], vec![], VecDeque::new());
        self.epoll(libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN, PUBLISHER | k as u64);
    }

    // ---- the loop

    fn pump(&mut self, wait_ns: u64) {
        let ts = libc::timespec {
            tv_sec: (wait_ns / 1_000_000_000) as i64,
            tv_nsec: (wait_ns % 1_000_000_000) as i64,
        };
        let mut events = std::mem::take(&mut self.events);
        let n = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.ep,
                events.as_mut_ptr(),
                events.len(),
                &raw const ts,
                0usize,
                8usize,
            )
        };
        for (j, ev) in events[..n.max(0) as usize].iter().enumerate() {
            if j % 32 == 31 && self.plan.is_some() {
                for k in 0..self.pubs.len().min(4) {
                    if !self.pubs[k].sent.is_empty() {
                        self.answered(k);
                    }
                }
                self.publish_due();
            }
            let (id, what) = (ev.u64, ev.events as i32);
            if id & PUBLISHER != 0 {
                let k = (id & !PUBLISHER) as usize;
                if what & !libc::EPOLLOUT != 0 {
                    self.answered(k);
                }
                self.flush(k);
                continue;
            }
            let i = id as usize;
            match self.clients[i].state {
                State::Connecting => self.connected(i),
                State::Closed => {}
                _ => {
                    self.readable(i);
                    while what & libc::EPOLLRDHUP != 0 && self.clients[i].state != State::Closed {
                        self.readable(i);
                    }
                }
            }
        }
        self.events = events;
    }

    fn ramp(&mut self, n: usize, rooms: usize, concurrency: usize) {
        let deadline = now() + 180_000_000_000;
        while self.clients.len() < n || self.in_flight > 0 {
            while self.clients.len() < n && self.in_flight < concurrency {
                self.connect(self.clients.len() % rooms);
            }
            self.pump(100_000_000);
            if now() > deadline || self.c.failed as usize > 100 + n / 10 {
                eprintln!(
                    "ramp given up: {} subscribed, {} failed, {} pending",
                    self.c.subscribed, self.c.failed, self.in_flight
                );
                break;
            }
        }
    }

    fn idle(&mut self, secs: f64) {
        let end = now() + (secs * 1e9) as u64;
        while now() < end {
            self.pump((end - now().min(end)).min(50_000_000));
        }
    }

    /// Starts a window: everything before it is forgotten.
    fn reset(&mut self) {
        for c in &mut self.clients {
            c.next = self.rooms[c.room as usize].seq;
            c.seen = u64::MAX;
            c.unique = 0;
        }
        self.latency = Histogram::new();
        self.ack = Histogram::new();
        self.c = Counts { subscribed: self.c.subscribed, failed: self.c.failed, ..Default::default() };
        self.last = now();
    }

    /// Publishes what the plan has due; called every few events, so that
    /// reading a large fan-out does not hold up the clock.
    fn publish_due(&mut self) {
        let Some(mut plan) = self.plan.take() else { return };
        let (t, pubs, rooms) = (now(), self.pubs.len(), self.rooms.len());
        if let Some(rate) = plan.rate {
            loop {
                let due = plan.start + (plan.k as f64 * 1e9 / rate) as u64;
                if due > t || due >= plan.end {
                    break;
                }
                let room = (plan.k as usize * 7919) % rooms;
                self.pubs[room % pubs].queue.push_back((room, due));
                plan.late.add(t - due);
                plan.k += 1;
            }
            for p in 0..pubs {
                while self.pubs[p].sent.len() < self.pipeline {
                    let Some((room, due)) = self.pubs[p].queue.pop_front() else { break };
                    self.publish(p, room, due);
                }
            }
        } else if t < plan.end {
            let ahead = plan.window.saturating_mul(self.clients.len().div_ceil(rooms) as u64);
            for p in 0..pubs {
                while self.pubs[p].sent.len() < self.pipeline
                    && self.c.expected.saturating_sub(self.c.unique) < ahead
                {
                    // Each room belongs to one connection, so that its order is defined.
                    let room = self.pubs[p].cursor % rooms;
                    self.pubs[p].cursor = if room + pubs < rooms { room + pubs } else { p };
                    self.publish(p, room, now());
                }
            }
        }
        self.plan = Some(plan);
    }

    /// Publishes for `secs`, then waits for what is still under way. Returns
    /// how late the clock was served.
    fn traffic(&mut self, secs: f64, rate: Option<f64>, window: u64) -> Histogram {
        let start = now();
        let end = start + (secs * 1e9) as u64;
        self.last = start;
        self.plan = Some(Plan { start, end, rate, window, k: 0, late: Histogram::new() });
        loop {
            self.publish_due();
            let t = now();
            if t >= end {
                break;
            }
            if t > self.last + 3_000_000_000 && self.c.expected > self.c.unique {
                eprintln!("no delivery for 3 s: stopped");
                break;
            }
            let next = rate
                .map_or(end, |r| (start + (self.plan.as_ref().unwrap().k as f64 * 1e9 / r) as u64).min(end));
            self.pump(next.saturating_sub(t).min(100_000_000));
        }
        let mut quiet = now();
        let (mut seen, mut acks) = (self.c.unique, self.c.acked);
        let waiting = |l: &Load| {
            l.c.unique < l.c.expected || l.pubs.iter().any(|p| !p.sent.is_empty() || !p.queue.is_empty())
        };
        while waiting(self) && now() < quiet + 2_000_000_000 && now() < end + 60_000_000_000 {
            self.pump(5_000_000);
            self.publish_due();
            if self.c.unique != seen || self.c.acked != acks {
                (seen, acks, quiet) = (self.c.unique, self.c.acked, now());
            }
        }
        for p in &mut self.pubs {
            p.queue.clear();
        }
        self.plan.take().unwrap().late
    }

    fn fetch_cookies(&mut self, n: usize) {
        use std::io::{Read, Write};
        let Some(c) = &self.t.cookie else { return };
        let want = if c.per_client { n } else { 1 };
        let port = c.port.unwrap_or(self.t.port);
        let mut s: Option<std::net::TcpStream> = None;
        for i in 0..want {
            let mut conn = s.take().unwrap_or_else(|| {
                std::net::TcpStream::connect((self.t.host.as_str(), port)).expect("cookie port")
            });
            conn.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
            let path = fill(&c.path, i % self.rooms.len(), i);
            write!(conn, "GET {path} HTTP/1.1\r\nHost: {}:{port}\r\n\r\n", self.t.host).unwrap();
            let mut data = Vec::new();
            let mut buf = [0; 4096];
            while http_answer(&data).is_none() {
                match conn.read(&mut buf).expect("a cookie answer within 5 s") {
                    0 => break,
                    n => data.extend_from_slice(&buf[..n]),
                }
            }
            let text = String::from_utf8_lossy(&data);
            let pairs: Vec<&str> = text
                .split("\r\n")
                .filter(|l| l.to_ascii_lowercase().starts_with("set-cookie:"))
                .filter_map(|l| l[11..].split(';').next().map(str::trim))
                .collect();
            assert!(!pairs.is_empty(), "no Set-Cookie in: {text}");
            self.cookies.push(pairs.join("; "));
            if !text.to_ascii_lowercase().contains("connection: close") {
                s = Some(conn);
            }
        }
    }
}

fn main() {
    let mut argv = std::env::args().skip(1).peekable();
    let mut args = Args { pairs: vec![] };
    while let Some(a) = argv.next() {
        let name =
            a.strip_prefix("--").unwrap_or_else(|| panic!("unexpected {a}; see README.md")).to_string();
        let value = argv.next_if(|v| !v.starts_with("--")).unwrap_or_default();
        args.pairs.push((name, value));
    }
    let scenario = args.get("scenario").unwrap_or("fanout").to_string();
    // connections, rooms, rate (0: closed loop), seconds, settle, publishing connections
    let (conns, rooms, rate, secs, settle, pub_conns) = match scenario.as_str() {
        "ramp" => (10_000, 1000, 0.0, 0.0, 0.0, 0),
        "idle" => (10_000, 1000, 0.0, 0.0, 5.0, 0),
        "fanout" => (1000, 1, 20.0, 5.0, 1.0, 1),
        "saturate" => (1000, 1, 0.0, 5.0, 1.0, 1),
        "manyrooms" => (10_000, 1000, 500.0, 5.0, 1.0, 4),
        "publish" => (1000, 1000, 0.0, 5.0, 1.0, 16),
        other => panic!("no scenario {other}: ramp idle fanout saturate manyrooms publish"),
    };
    let conns = args.num("conns", conns as f64) as usize;
    let rooms = args.num("rooms", rooms as f64) as usize;
    let rate = args.num("rate", rate);
    let secs = args.num("secs", secs).min(300.0);
    let settle = args.num("settle", settle);
    let pub_conns = args.num("pub-conns", pub_conns as f64) as usize;
    let window = args.num("window", if scenario == "publish" { 1e9 } else { 4.0 }) as u64;
    let warmup = args.num("warmup", if secs > 0.0 { 1.0 } else { 0.0 });
    let pids: Vec<i32> = args.get("pids").map_or(vec![], |f| {
        let text = std::fs::read_to_string(f).unwrap_or_else(|e| panic!("{f}: {e}"));
        text.split_whitespace().map(|p| p.parse().expect("a pid")).collect()
    });
    let t = Target::read(args.get("target").expect("--target FILE.toml"));
    unsafe {
        let lim = libc::rlimit { rlim_cur: 1_048_576, rlim_max: 1_048_576 };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &lim) != 0 {
            let mut own = lim;
            libc::getrlimit(libc::RLIMIT_NOFILE, &mut own);
            own.rlim_cur = own.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &own);
            assert!(
                conns as u64 + 100 < own.rlim_max,
                "this machine allows {} files a process",
                own.rlim_max
            );
        }
    }
    let ep = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    let mut l = Load {
        t,
        ep,
        clients: Vec::with_capacity(conns),
        rooms: (0..rooms).map(|_| Room::default()).collect(),
        pubs: vec![],
        cookies: vec![],
        buf: vec![0; 1 << 18],
        events: vec![libc::epoll_event { events: 0, u64: 0 }; 512],
        c: Counts::default(),
        latency: Histogram::new(),
        ack: Histogram::new(),
        payload: args.num("payload", 128.0) as usize,
        pipeline: args.num("pipeline", 1.0) as usize,
        in_flight: 0,
        last: 0,
        plan: None,
        trace: args.get("trace").is_some(),
    };
    let me = [std::process::id() as i32];
    l.fetch_cookies(conns);

    let (mem0, own0) = (memory(&pids), memory(&me));
    let (cpu0, gen0) = (Cpu::of(&pids), Cpu::of(&me));
    l.ramp(conns, rooms, args.num("concurrency", 128.0) as usize);
    let (ramp, ramp_gen) = (Cpu::of(&pids).since(&cpu0), Cpu::of(&me).since(&gen0));
    l.idle(settle);
    let (mem1, own1) = (memory(&pids), memory(&me));
    let n = l.c.subscribed.max(1) as f64;
    let per = |a: i64, b: i64| ((a - b) as f64 / n).round();

    let mut out = serde_json::json!({
        "target": l.t.name, "scenario": scenario, "conns": conns, "rooms": rooms,
        "subscribed": l.c.subscribed, "failed": l.c.failed,
        "ramp_conns_per_s": (n / (ramp.wall_us / 1e6)).round(),
        "ramp_server_us_per_conn": round(ramp.total_us / n), "ramp_server_sys_us_per_conn": round(ramp.sys_us / n),
        "ramp_load_us_per_conn": round(ramp_gen.total_us / n),
        "pss_per_conn": per(mem1.pss, mem0.pss), "rss_per_conn": per(mem1.rss, mem0.rss),
        "system_per_conn": per(mem0.available - mem1.available - (own1.rss - own0.rss), 0),
        "kernel_per_conn": per(mem1.slab, mem0.slab),
        "pss_empty": mem0.pss, "load_rss_per_conn": per(own1.rss, own0.rss),
    });
    let mut add = |v: serde_json::Value| out.as_object_mut().unwrap().extend(v.as_object().unwrap().clone());

    let hold = args.num("hold", if scenario == "idle" { 5.0 } else { 0.0 });
    if hold > 0.0 {
        let before = Cpu::of(&pids);
        l.idle(hold);
        let s = Cpu::of(&pids).since(&before);
        add(
            serde_json::json!({"idle_server_cpu_percent": round(100.0 * s.total_us / s.wall_us), "closed": l.c.closed}),
        );
    }
    if secs > 0.0 && l.c.subscribed > 0 {
        l.open_publishers(pub_conns);
        l.idle(0.2);
        let rate = (rate > 0.0).then_some(rate);
        if warmup > 0.0 {
            l.traffic(warmup, rate, window);
        }
        l.reset();
        let (before, own) = (Cpu::of(&pids), Cpu::of(&me));
        let started = now();
        let lag = l.traffic(secs, rate, window);
        let took = l.last.max(started + 1) - started;
        let (s, g) = (Cpu::of(&pids).since(&before), Cpu::of(&me).since(&own));
        let c = &l.c;
        let (d, p) = (c.unique.max(1) as f64, c.published.max(1) as f64);
        let h = &l.latency;
        add(serde_json::json!({
            "rate": rate, "window": window, "pub_conns": pub_conns, "pipeline": l.pipeline, "secs": secs, "payload": l.payload,
            "published": c.published, "acked": c.acked, "refused": c.refused, "reopened": c.reopened,
            "expected": c.expected, "delivered": c.unique, "lost": c.expected as i64 - c.unique as i64,
            "dup": c.dup, "reorder": c.reorder, "misrouted": c.misrouted, "closed": c.closed,
            "wall_ms": took / 1_000_000,
            "delivered_per_s": (c.unique as f64 / (took as f64 / 1e9)).round(),
            "published_per_s": (c.published as f64 / (took as f64 / 1e9)).round(),
            "server_us_per_delivered": round(s.total_us / d), "server_user_us_per_delivered": round(s.user_us / d),
            "server_sys_us_per_delivered": round(s.sys_us / d), "server_us_per_publish": round(s.total_us / p),
            "server_cpu_percent": round(100.0 * s.total_us * 1000.0 / took as f64),
            "ksoftirqd_us_per_delivered": round(s.ksoftirqd_us / d),
            "load_us_per_delivered": round(g.total_us / d), "load_cpu_percent": round(100.0 * g.total_us * 1000.0 / took as f64),
            "delivered_per_read": round(d / c.reads.max(1) as f64), "bytes_per_delivered": round(c.bytes as f64 / d),
            "latency_us": {"p50": h.us(0.5), "p99": h.us(0.99), "p99.9": h.us(0.999), "max": h.max as f64 / 1000.0},
            "ack_us": {"p50": l.ack.us(0.5), "p99": l.ack.us(0.99)},
            "publish_late_us": {"p99": lag.us(0.99), "max": lag.max as f64 / 1000.0},
            "pss_end": memory(&pids).pss,
        }));
    }
    println!("{out}");
    let g = |k: &str| out.get(k).and_then(|v| v.as_f64()).unwrap_or(f64::NAN);
    eprintln!(
        "{:<16} {:<9} {:>6} conns | ramp {:>6.0}/s {:>6.1} us | {:>6.0} B/conn (kernel {:>6.0}) | {:>8} msgs, lost {} dup {} reorder {} | {:>6.2} us/msg ({:.2} user) | {:>7.0} msg/s at {:>3.0} % (load {:>3.0} %) | p50 {:.0} p99 {:.0} us",
        l.t.name,
        scenario,
        l.c.subscribed,
        g("ramp_conns_per_s"),
        g("ramp_server_us_per_conn"),
        g("pss_per_conn"),
        g("kernel_per_conn"),
        g("delivered"),
        g("lost"),
        g("dup"),
        g("reorder"),
        g("server_us_per_delivered"),
        g("server_user_us_per_delivered"),
        g("delivered_per_s"),
        g("server_cpu_percent"),
        g("load_cpu_percent"),
        l.latency.us(0.5),
        l.latency.us(0.99)
    );
}

fn round(v: f64) -> f64 {
    (v * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::http_answer;

    #[test]
    fn http_answers_end_where_they_should() {
        let whole = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200";
        assert_eq!(http_answer(whole), Some((45, 201)));
        assert_eq!(http_answer(&whole[..44]), None);
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        assert_eq!(http_answer(chunked), Some((chunked.len(), 200)));
        assert_eq!(http_answer(&chunked[..chunked.len() - 3]), None);
        assert_eq!(http_answer(b"HTTP/1.1 204 No Content\r\n\r\n"), Some((27, 204)));
    }
}
