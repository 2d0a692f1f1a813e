//! floor: the least work a one-send-per-subscriber hub can do.
//!
//! One thread, one epoll. `GET /ws/ROOM` upgrades to a WebSocket in ROOM;
//! `POST /publish/ROOM` builds one unmasked text frame and sends it to every
//! socket of ROOM with one non-blocking send(2) each. There is no routing, no
//! authentication, no history: whatever a hub spends above this is its own.
//!
//!   --port N     listen on 127.0.0.1:N (default 7000)
//!   --log        a room keeps its frames; `GET /ws/ROOM?after=N` sends those after the Nth
//!                behind the 101, in one send
//!   --batch      frames published in one loop turn leave in one send per socket
//!   --uring      send through io_uring, up to 1024 sends a system call
//!   --shared-fds a second, sleeping thread: each system call then counts references
//!                on its file, as it does in every multi-threaded server
//!   --lossy N    drop every Nth delivery     (to test the generator)
//!   --dup N      send every Nth delivery twice          (likewise)
//!   --swap N     exchange every Nth delivery with the next one to that socket

use base64::Engine;
use io_uring::{IoUring, opcode, types};
use sha1::{Digest, Sha1};
use std::collections::HashMap;
use std::net::TcpListener;
use std::os::fd::IntoRawFd;

#[derive(Default)]
struct Conn {
    input: Vec<u8>,
    output: Vec<u8>,
    held: Vec<u8>,
    room: Option<usize>,
    slot: usize,
}

#[derive(Default)]
struct Room {
    members: Vec<i32>,
    pending: Vec<u8>,
    log: Vec<u8>,
    ends: Vec<usize>,
}

#[derive(Default)]
struct Faults {
    lossy: u64,
    dup: u64,
    swap: u64,
    n: u64,
}

struct Floor {
    ep: i32,
    conns: Vec<Option<Conn>>,
    names: HashMap<Vec<u8>, usize>,
    rooms: Vec<Room>,
    dirty: Vec<usize>,
    batch: bool,
    log: bool,
    ring: Option<IoUring>,
    faults: Option<Faults>,
}

fn epoll(ep: i32, op: i32, fd: i32, events: i32) {
    let mut ev = libc::epoll_event { events: events as u32, u64: fd as u64 };
    unsafe { libc::epoll_ctl(ep, op, fd, &mut ev) };
}

fn frame(payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x81);
    match payload.len() {
        n if n < 126 => out.push(n as u8),
        n if n < 65536 => {
            out.push(126);
            out.extend((n as u16).to_be_bytes());
        }
        n => {
            out.push(127);
            out.extend((n as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|w| w == needle)
}

fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let text = std::str::from_utf8(head).ok()?;
    text.split("\r\n").skip(1).find_map(|l| {
        let (k, v) = l.split_once(':')?;
        k.eq_ignore_ascii_case(name).then(|| v.trim())
    })
}

/// One non-blocking send. What the kernel does not take is kept for EPOLLOUT.
fn send(ep: i32, fd: i32, conn: &mut Conn, data: &[u8]) {
    if conn.output.is_empty() {
        let n = unsafe {
            libc::send(fd, data.as_ptr().cast(), data.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
        };
        keep_rest(ep, fd, conn, data, n);
    } else {
        conn.output.extend_from_slice(data);
    }
}

fn keep_rest(ep: i32, fd: i32, conn: &mut Conn, data: &[u8], sent: isize) {
    let sent = sent.max(0) as usize;
    if sent < data.len() {
        conn.output.extend_from_slice(&data[sent..]);
        epoll(ep, libc::EPOLL_CTL_MOD, fd, libc::EPOLLIN | libc::EPOLLOUT);
    }
}

impl Floor {
    fn room(&mut self, name: &[u8]) -> usize {
        if let Some(&r) = self.names.get(name) {
            return r;
        }
        self.rooms.push(Room::default());
        self.names.insert(name.to_vec(), self.rooms.len() - 1);
        self.rooms.len() - 1
    }

    fn fan_out(&mut self, room: usize, data: &[u8]) {
        let members = std::mem::take(&mut self.rooms[room].members);
        if self.faults.is_some() {
            self.fan_out_faulty(&members, data);
        } else if self.ring.is_some() {
            self.fan_out_uring(&members, data);
        } else {
            for &fd in &members {
                if let Some(c) = self.conns[fd as usize].as_mut() {
                    send(self.ep, fd, c, data);
                }
            }
        }
        self.rooms[room].members = members;
    }

    fn fan_out_faulty(&mut self, members: &[i32], data: &[u8]) {
        let f = self.faults.as_mut().unwrap();
        for &fd in members {
            let Some(c) = self.conns[fd as usize].as_mut() else { continue };
            f.n += 1;
            let due = |every: u64| every > 0 && f.n.is_multiple_of(every);
            if due(f.lossy) {
                continue;
            }
            if due(f.swap) && c.held.is_empty() {
                c.held = data.to_vec();
                continue;
            }
            send(self.ep, fd, c, data);
            if due(f.dup) {
                send(self.ep, fd, c, data);
            }
            let held = std::mem::take(&mut c.held);
            if !held.is_empty() {
                send(self.ep, fd, c, &held);
            }
        }
    }

    fn fan_out_uring(&mut self, members: &[i32], data: &[u8]) {
        let ring = self.ring.as_mut().unwrap();
        for chunk in members.chunks(1024) {
            let mut queued = 0;
            for &fd in chunk {
                let Some(c) = self.conns[fd as usize].as_mut() else { continue };
                if !c.output.is_empty() {
                    c.output.extend_from_slice(data);
                    continue;
                }
                let e = opcode::Send::new(types::Fd(fd), data.as_ptr(), data.len() as u32)
                    .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
                    .build()
                    .user_data(fd as u64);
                unsafe { ring.submission().push(&e).expect("ring holds a chunk") };
                queued += 1;
            }
            ring.submit_and_wait(queued).expect("io_uring_enter");
            for cqe in ring.completion() {
                let fd = cqe.user_data() as i32;
                if let Some(c) = self.conns[fd as usize].as_mut() {
                    keep_rest(self.ep, fd, c, data, cqe.result() as isize);
                }
            }
        }
    }

    /// The 101, and behind it what the room has kept after the `after`th frame.
    fn replay(&mut self, fd: i32, room: usize, after: usize, reply: &str) {
        let Room { log, ends, .. } = &self.rooms[room];
        let start = |n: usize| n.checked_sub(1).map_or(0, |last| ends[last]);
        let missed = after.min(ends.len())..ends.len();
        let c = self.conns[fd as usize].as_mut().unwrap();
        let Some(f) = &mut self.faults else {
            let mut data = Vec::with_capacity(reply.len() + log.len() - start(missed.start));
            data.extend_from_slice(reply.as_bytes());
            data.extend_from_slice(&log[start(missed.start)..]);
            return send(self.ep, fd, c, &data);
        };
        send(self.ep, fd, c, reply.as_bytes());
        let mut order: Vec<usize> = Vec::new();
        for n in missed {
            f.n += 1;
            let due = |every: u64| every > 0 && f.n.is_multiple_of(every);
            if !due(f.lossy) {
                let at = order.len() - usize::from(due(f.swap) && !order.is_empty());
                order.insert(at, n);
            }
            if due(f.dup) {
                order.push(n);
            }
        }
        for n in order {
            send(self.ep, fd, c, &log[start(n)..ends[n]]);
        }
    }

    fn close(&mut self, fd: i32) {
        if let Some(c) = self.conns[fd as usize].take() {
            if let Some(r) = c.room {
                let members = &mut self.rooms[r].members;
                members.swap_remove(c.slot);
                if let Some(&moved) = members.get(c.slot) {
                    self.conns[moved as usize].as_mut().unwrap().slot = c.slot;
                }
            }
            unsafe { libc::close(fd) };
        }
    }

    /// Serves every complete request in the connection's input.
    fn requests(&mut self, fd: i32) {
        while let Some(c) = self.conns[fd as usize].as_mut() {
            let Some(end) = find(&c.input, b"\r\n\r\n") else { return };
            let head = &c.input[..end];
            let len: usize = header(head, "content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
            if c.input.len() < end + 4 + len {
                return;
            }
            let path = head.split(|&b| b == b' ').nth(1).unwrap_or(b"").to_vec();
            if let Some(name) = path.strip_prefix(b"/ws/") {
                let (name, after) = match find(name, b"?after=") {
                    Some(at) => (&name[..at], std::str::from_utf8(&name[at + 7..]).ok()),
                    None => (name, None),
                };
                let after = after.map(|n| n.parse().expect("a number"));
                let key = header(head, "sec-websocket-key").unwrap_or("");
                let mut h = Sha1::new();
                h.update(key);
                h.update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
                let accept = base64::engine::general_purpose::STANDARD.encode(h.finalize());
                let reply = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
                );
                let room = self.room(name);
                let members = &mut self.rooms[room].members;
                members.push(fd);
                let slot = members.len() - 1;
                let c = self.conns[fd as usize].as_mut().unwrap();
                c.room = Some(room);
                c.slot = slot;
                c.input = Vec::new();
                match after {
                    Some(after) => self.replay(fd, room, after, &reply),
                    None => send(self.ep, fd, c, reply.as_bytes()),
                }
                return;
            }
            let body = c.input[end + 4..end + 4 + len].to_vec();
            c.input.drain(..end + 4 + len);
            if let Some(name) = path.strip_prefix(b"/publish/") {
                let room = self.room(name);
                if self.log {
                    let Room { log, ends, .. } = &mut self.rooms[room];
                    frame(&body, log);
                    ends.push(log.len());
                }
                if self.batch {
                    if self.rooms[room].pending.is_empty() {
                        self.dirty.push(room);
                    }
                    frame(&body, &mut self.rooms[room].pending);
                } else {
                    let mut data = Vec::with_capacity(body.len() + 10);
                    frame(&body, &mut data);
                    self.fan_out(room, &data);
                }
            }
            if let Some(c) = self.conns[fd as usize].as_mut() {
                send(self.ep, fd, c, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        }
    }

    fn readable(&mut self, fd: i32, buf: &mut [u8]) {
        let n = unsafe { libc::recv(fd, buf.as_mut_ptr().cast(), buf.len(), libc::MSG_DONTWAIT) };
        if n <= 0 {
            if n == 0 || std::io::Error::last_os_error().kind() != std::io::ErrorKind::WouldBlock {
                self.close(fd);
            }
            return;
        }
        let c = self.conns[fd as usize].as_mut().unwrap();
        if c.room.is_none() {
            c.input.extend_from_slice(&buf[..n as usize]);
            self.requests(fd);
        } // a subscriber's frames are ignored
    }

    fn writable(&mut self, fd: i32) {
        let c = self.conns[fd as usize].as_mut().unwrap();
        let n = unsafe {
            libc::send(fd, c.output.as_ptr().cast(), c.output.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
        };
        c.output.drain(..n.max(0) as usize);
        if c.output.is_empty() {
            c.output = Vec::new();
            epoll(self.ep, libc::EPOLL_CTL_MOD, fd, libc::EPOLLIN);
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let flag = |name: &str| args.iter().any(|a| a == name);
    let num = |name: &str| -> u64 {
        args.iter()
            .position(|a| a == name)
            .and_then(|i| args.get(i + 1))
            .map_or(0, |v| v.parse().expect("a number"))
    };
    let port = match num("--port") {
        0 => 7000,
        p => p as u16,
    };
    unsafe {
        let mut lim = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut lim);
        lim.rlim_cur = lim.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &lim);
    }
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("bind").into_raw_fd();
    let ep = unsafe {
        libc::listen(listener, 4096);
        libc::fcntl(listener, libc::F_SETFL, libc::O_NONBLOCK);
        libc::epoll_create1(libc::EPOLL_CLOEXEC)
    };
    epoll(ep, libc::EPOLL_CTL_ADD, listener, libc::EPOLLIN);
    let faults = Faults { lossy: num("--lossy"), dup: num("--dup"), swap: num("--swap"), n: 0 };
    let mut s = Floor {
        ep,
        conns: Vec::new(),
        names: HashMap::new(),
        rooms: Vec::new(),
        dirty: Vec::new(),
        batch: flag("--batch"),
        log: flag("--log"),
        ring: flag("--uring").then(|| {
            IoUring::builder()
                .setup_single_issuer()
                .setup_defer_taskrun()
                .build(1024)
                .expect("io_uring_setup")
        }),
        faults: (faults.lossy + faults.dup + faults.swap > 0).then_some(faults),
    };
    if flag("--shared-fds") {
        std::thread::spawn(|| {
            loop {
                std::thread::park();
            }
        });
    }
    let mut buf = vec![0u8; 1 << 16];
    let mut events: Vec<libc::epoll_event> = vec![libc::epoll_event { events: 0, u64: 0 }; 1024];
    loop {
        let n = unsafe { libc::epoll_wait(ep, events.as_mut_ptr(), events.len() as i32, -1) };
        for ev in &events[..n.max(0) as usize] {
            let (fd, what) = (ev.u64 as i32, ev.events as i32);
            if fd == listener {
                for _ in 0..64 {
                    let fd = unsafe {
                        libc::accept4(
                            listener,
                            std::ptr::null_mut(),
                            std::ptr::null_mut(),
                            libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
                        )
                    };
                    if fd < 0 {
                        break;
                    }
                    let one: i32 = 1;
                    unsafe {
                        libc::setsockopt(
                            fd,
                            libc::IPPROTO_TCP,
                            libc::TCP_NODELAY,
                            (&raw const one).cast(),
                            4,
                        );
                    }
                    if s.conns.len() <= fd as usize {
                        s.conns.resize_with(fd as usize + 1024, || None);
                    }
                    s.conns[fd as usize] = Some(Conn::default());
                    epoll(ep, libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN);
                }
                continue;
            }
            if what & libc::EPOLLOUT != 0 && s.conns[fd as usize].is_some() {
                s.writable(fd);
            }
            if what & !libc::EPOLLOUT != 0 && s.conns[fd as usize].is_some() {
                s.readable(fd, &mut buf);
            }
        }
        for room in std::mem::take(&mut s.dirty) {
            let data = std::mem::take(&mut s.rooms[room].pending);
            s.fan_out(room, &data);
        }
    }
}
