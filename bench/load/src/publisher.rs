//! The publishing connections: requests out, answers in, by HTTP, NATS or MQTT.

use std::collections::VecDeque;
use std::io::Write;

use memchr::memmem;

use crate::Load;
use crate::socket::{errno, http_answer};
use crate::stats::now;
use crate::target::Kind;

/// Marks a publisher's events; a subscriber's have its number.
pub(crate) const PUBLISHER: u64 = 1 << 40;

pub(crate) struct Publisher {
    pub(crate) fd: i32,
    pub(crate) output: Vec<u8>,
    pub(crate) input: Vec<u8>,
    pub(crate) queue: VecDeque<(usize, u64)>, // room and scheduled time
    pub(crate) sent: VecDeque<u64>,
    pub(crate) cursor: usize,
}

impl Load {
    pub(crate) fn open_publishers(&mut self, n: usize) {
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

    /// Closes them, with nothing under way.
    pub(crate) fn close_publishers(&mut self) {
        for p in self.pubs.drain(..) {
            unsafe { libc::close(p.fd) };
        }
    }

    fn open_publisher(&self, k: usize) -> i32 {
        use std::os::fd::IntoRawFd;
        let ports = &self.t.publish.ports;
        let port = ports[k % ports.len()];
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

    pub(crate) fn publish(&mut self, k: usize, room: usize, at: u64) {
        let r = &mut self.rooms[room];
        let mut payload = format!("~~{at:016x}{:08x}{room:08x}~", r.seq);
        payload.extend(std::iter::repeat_n('x', self.payload.saturating_sub(payload.len())));
        r.seq += 1;
        self.c.expected += r.subs;
        self.c.published += 1;
        let (n, copies) = (self.pubs.len(), if self.t.publish.each { self.pubs.len() } else { 1 });
        for k in (k..k + copies).map(|k| k % n) {
            let p = &mut self.pubs[k];
            self.t.publish_request(room, &payload, &mut p.output);
            p.sent.push_back(now());
            self.flush(k);
        }
    }

    pub(crate) fn flush(&mut self, k: usize) {
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

    pub(crate) fn answered(&mut self, k: usize) {
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
                if self.clients.is_empty() {
                    self.last = now(); // nobody will get it: this is its end
                }
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
}
