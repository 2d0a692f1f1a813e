//! The subscribers: connect, shake hands, say what the target wants to hear, and check the
//! sequence of what comes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use memchr::memmem;

use crate::Load;
use crate::socket::{errno, http_answer, send_all, send_frame, set, sockaddr};
use crate::stats::now;
use crate::storm::Kept;
use crate::target::{Step, fill};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const MARK: usize = 2 + 16 + 8 + 8 + 1;

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum State {
    Connecting,
    Handshake,
    Talking(u8),
    Subscribed,
    Closed,
}

pub(crate) struct Client {
    pub(crate) fd: i32,
    pub(crate) state: State,
    pub(crate) room: u32,               // its first one
    pub(crate) since: u64,              // when it began to connect
    pub(crate) said: u32,               // rooms that it has said all for
    pub(crate) part: Vec<u8>,           // an incomplete frame
    pub(crate) kept: Option<Box<Kept>>, // for those that come back
}

/// How far a client is in one of its rooms.
#[derive(Clone, Copy)]
pub(crate) struct Cursor {
    pub(crate) next: u32, // the sequence number that is due
    pub(crate) seen: u64, // bit k: number next-1-k has come
}

impl Load {
    /// The `k`th room of a client.
    pub(crate) fn room_of(&self, i: usize, k: usize) -> usize {
        (i * self.per_conn + k) % self.rooms.len()
    }

    /// Where the cursor of a client in a room is, if it is one of its rooms.
    fn cursor_of(&self, i: usize, room: u32) -> Option<usize> {
        let (room, first, rooms) = (room as usize, self.clients[i].room as usize, self.rooms.len());
        // Mostly it has one room, and a division is more than the rest of this.
        let k = match room.checked_sub(first) {
            Some(k) => k,
            None => room + rooms - first,
        };
        (k < self.per_conn && room < rooms).then_some(i * self.per_conn + k)
    }

    pub(crate) fn connect(&mut self) {
        let i = self.clients.len();
        let room = self.room_of(i, 0);
        let kept = self.t.resume.as_ref().filter(|_| self.keeps).map(|_| Box::default());
        self.clients.push(Client {
            fd: -1,
            state: State::Closed,
            room: room as u32,
            since: 0,
            said: 0,
            part: Vec::new(),
            kept,
        });
        self.cursors.extend(std::iter::repeat_n(Cursor { next: 0, seen: u64::MAX }, self.per_conn));
        self.open(i);
    }

    /// Opens the socket of a client that has none.
    pub(crate) fn open(&mut self, i: usize) {
        let fd = unsafe {
            libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0)
        };
        assert!(fd >= 0, "socket: {}", std::io::Error::last_os_error());
        set(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT);
        set(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY);
        let from = sockaddr([127, 0, 0, 2 + (i % 249) as u8], 0);
        let to = sockaddr(self.ip(), self.port_of(i));
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
        let c = &mut self.clients[i];
        (c.fd, c.state, c.since, c.said, c.part) = (fd, State::Connecting, now(), 0, Vec::new());
        self.in_flight += 1;
        self.epoll(libc::EPOLL_CTL_ADD, fd, libc::EPOLLOUT, i as u64);
    }

    fn port_of(&self, i: usize) -> u16 {
        self.t.port_of(i, self.clients[i].room as usize, self.rooms.len())
    }

    /// Ends the connection of a subscribed client without a word.
    pub(crate) fn cut(&mut self, i: usize) {
        self.c.subscribed -= 1;
        for k in 0..self.per_conn {
            let room = self.room_of(i, k);
            self.rooms[room].subs -= 1;
        }
        self.clients[i].state = State::Closed;
        unsafe { libc::close(self.clients[i].fd) };
    }

    fn drop_client(&mut self, i: usize, why: &str) {
        let c = &mut self.clients[i];
        if c.state == State::Closed {
            return;
        }
        let was_subscribed = c.state == State::Subscribed;
        if was_subscribed {
            self.cut(i);
        } else {
            self.in_flight -= 1;
            c.state = State::Closed;
            unsafe { libc::close(c.fd) };
        }
        if self.storm.is_some() {
            self.come_back(i, why);
        } else if was_subscribed {
            self.c.closed += 1;
        } else {
            self.c.failed += 1;
            if self.c.failed <= 3 {
                eprintln!("client {i} failed: {why}: {}", String::from_utf8_lossy(&self.clients[i].part));
            }
        }
    }

    /// What the target wants to hear.
    fn script(&self) -> &[Step] {
        let resume = self.t.resume.as_ref().filter(|_| self.storm.is_some());
        resume.map_or(&self.t.subscribe, |resume| &resume.talk)
    }

    /// Sends what the subscribe script has to say at `step`; stops where it must wait. What is about a
    /// room is said for each room of the client.
    fn talk(&mut self, i: usize, mut step: usize) {
        let fd = self.clients[i].fd;
        let opcode = if self.t.binary { 2 } else { 1 };
        loop {
            let room = self.room_of(i, self.clients[i].said as usize);
            if !self.say(i, &mut step, room, fd, opcode) {
                return;
            }
            self.clients[i].said += 1;
            if self.clients[i].said as usize >= self.per_conn {
                break;
            }
            step = self.t.about_rooms();
            // What came was about the room before: the next one has an answer of its own.
            self.clients[i].state = State::Talking(step as u8);
        }
        self.clients[i].state = State::Subscribed;
        self.in_flight -= 1;
        self.connecting.add(now() - self.clients[i].since);
        self.c.subscribed += 1;
        for k in 0..self.per_conn {
            let room = self.room_of(i, k);
            self.rooms[room].subs += 1;
        }
    }

    /// Says from `step` on what there is to say for one room; false where it must wait.
    fn say(&mut self, i: usize, step: &mut usize, room: usize, fd: i32, opcode: u8) -> bool {
        while let Some(s) = self.script().get(*step) {
            if s.once && self.clients[i].said > 0 {
                *step += 1;
                continue;
            }
            if s.expect.is_some() && self.clients[i].state != State::Talking(*step as u8 | 128) {
                self.clients[i].state = State::Talking(*step as u8);
                return false;
            }
            if let Some(text) = &s.send {
                let text = self.with_kept(i, fill(text, room, i));
                send_frame(fd, opcode, &self.t.bytes(&text));
            }
            *step += 1;
        }
        true
    }

    /// The steps of the talk that go with the handshake.
    fn said_early(&self) -> usize {
        let at_once = self.script().iter().take_while(|step| step.expect.is_none());
        if self.t.ws_early.is_some() { at_once.count() } else { 0 }
    }

    pub(crate) fn connected(&mut self, i: usize) {
        let c = &self.clients[i];
        let (fd, room) = (c.fd, c.room as usize);
        let again = self.t.resume.as_ref().filter(|_| self.storm.is_some());
        let path = again.and_then(|resume| resume.ws_path.as_ref()).unwrap_or(&self.t.ws_path);
        let mut path = fill(path, room, i);
        if let Some(parameter) = &self.t.ws_early {
            let said = self.script().iter().take(self.said_early()).filter_map(|step| step.send.as_deref());
            let said: Vec<_> = said.map(|text| self.with_kept(i, fill(text, room, i))).collect();
            path += if path.contains('?') { "&" } else { "?" };
            path += &format!("{parameter}={}", URL_SAFE_NO_PAD.encode(said.join("\n")));
        }
        let mut req = format!(
            "GET {} HTTP/1.1\r\nHost: {}:{}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n",
            self.with_kept(i, path),
            self.t.host,
            self.port_of(i)
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

    pub(crate) fn readable(&mut self, i: usize) {
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
            let step = self.said_early();
            self.talk(i, step);
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
        if self.clients[i].kept.is_some() {
            self.keep(i, payload);
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
            let want = self.script()[step as usize].expect.as_deref().unwrap_or("");
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
        let Some(cursor) = self.cursor_of(i, room) else {
            self.c.misrouted += 1;
            return;
        };
        let c = &mut self.cursors[cursor];
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
        self.c.unique += 1;
        self.latency.add(at.saturating_sub(sent));
        self.last = at;
        if self.storm.is_some() {
            self.recovered(i, at);
        }
    }

    pub(crate) fn fetch_cookies(&mut self, n: usize) {
        use std::io::{Read, Write};
        let Some(c) = &self.t.cookie else { return };
        let want = if c.per_client { n } else { 1 };
        let port = c.port.unwrap_or(self.t.port);
        let mut s: Option<std::net::TcpStream> = None;
        for i in self.cookies.len()..want {
            let mut conn = s.take().unwrap_or_else(|| {
                std::net::TcpStream::connect((self.t.host.as_str(), port)).expect("cookie port")
            });
            conn.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
            let path = fill(&c.path, i % self.rooms.len(), i);
            // In one piece: what is sent in several waits for acknowledgements.
            let request = format!("GET {path} HTTP/1.1\r\nHost: {}:{port}\r\n\r\n", self.t.host);
            conn.write_all(request.as_bytes()).unwrap();
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
