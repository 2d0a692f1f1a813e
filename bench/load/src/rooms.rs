//! What a room costs in memory: many are subscribed to, get a message each, and are left again; and
//! that several times, each time with rooms of other names, so that what stays behind shows.

use std::io::{Read, Write};

use crate::socket::http_answer;
use crate::stats::{Cpu, Processes, memory, now};
use crate::subscriber::State;
use crate::target::Gauge;
use crate::{Args, Load, round};

/// How long rooms may take to leave memory once nobody is in them.
const PATIENCE: u64 = 60_000_000_000;
/// And how long memory is given after that, for what is freed in the background.
const SETTLE: f64 = 8.0;

impl Load {
    /// The scenario: `--rooms` in all, in `--cycles` parts, a connection for each `--rooms-per-conn`.
    pub(crate) fn fill_rooms(&mut self, args: &Args, pub_conns: usize) -> serde_json::Value {
        let pids = Processes::read(args.get("pids")).server;
        let cycles = args.num("cycles", 3.0) as usize;
        let part = self.rooms.len() / cycles;
        assert!(part.is_multiple_of(self.per_conn), "--rooms / --cycles: a multiple of --rooms-per-conn");
        let (empty, rooms_at_first) = (memory(&pids), self.rooms_in_memory());
        let per_room = |now: i64, before: i64| round((now - before) as f64 / part as f64);
        let (mut phases, mut before) = (vec![], empty);
        for cycle in 0..cycles {
            let cpu = Cpu::of(&pids);
            let first = self.clients.len();
            self.fetch_cookies(first + part / self.per_conn);
            self.ramp(first + part / self.per_conn, 128);
            let subscribing = Cpu::of(&pids).since(&cpu);
            self.idle(1.0);
            let (subscribed, rooms_subscribed) = (memory(&pids), self.rooms_in_memory());
            assert!(
                self.t.rooms_gauge.is_none() || rooms_subscribed >= part as u64,
                "{rooms_subscribed} rooms in memory, {part} were subscribed to"
            );

            // Anew, for a server closes those that were silent while all subscribed.
            self.close_publishers();
            self.open_publishers(pub_conns);
            let cpu = Cpu::of(&pids);
            self.publish_in_each(cycle * part..(cycle + 1) * part, 1);
            let publishing = Cpu::of(&pids).since(&cpu);
            let (written, rooms_written) = (memory(&pids), self.rooms_in_memory());

            let start = now();
            for i in first..self.clients.len() {
                if self.clients[i].state == State::Subscribed {
                    self.cut(i);
                }
            }
            while self.rooms_in_memory() > rooms_at_first && now() < start + PATIENCE {
                self.idle(0.5);
            }
            let took = now() - start;
            self.idle(SETTLE);
            let (left, rooms_left) = (memory(&pids), self.rooms_in_memory());
            phases.push(serde_json::json!({
                "subscribed_bytes": per_room(subscribed.pss, before.pss), "written_bytes": per_room(written.pss, before.pss),
                "left_bytes": per_room(left.pss, before.pss), "pss": {"subscribed": subscribed.pss, "written": written.pss, "left": left.pss},
                "rooms": {"subscribed": rooms_subscribed, "written": rooms_written, "left": rooms_left},
                "left_after_ms": took / 1_000_000,
                "server_us_per_subscribe": round(subscribing.total_us / part as f64),
                "server_us_per_publish": round(publishing.total_us / part as f64),
            }));
            before = left;
        }
        let c = &self.c;
        serde_json::json!({
            "pss_empty": empty.pss, "rooms_each_cycle": part, "cycles": phases, "published": c.published, "refused": c.refused,
            "expected": c.expected, "delivered": c.unique, "lost": c.expected as i64 - c.unique as i64,
            "dup": c.dup, "reorder": c.reorder, "misrouted": c.misrouted, "closed": c.closed,
        })
    }

    /// How many rooms the server says that it has in memory; 0 where it doesn't say.
    fn rooms_in_memory(&self) -> u64 {
        self.t.rooms_gauge.as_ref().map_or(0, |gauge| self.read_gauge(gauge))
    }

    fn read_gauge(&self, gauge: &Gauge) -> u64 {
        let mut s =
            std::net::TcpStream::connect((self.t.host.as_str(), self.t.port)).expect("the server answers");
        s.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("a time above zero");
        let request = format!("GET {} HTTP/1.1\r\nHost: {}:{}\r\n\r\n", gauge.path, self.t.host, self.t.port);
        s.write_all(request.as_bytes()).expect("the server reads");
        let (mut data, mut buf) = (Vec::new(), [0; 16384]);
        while http_answer(&data).is_none() {
            match s.read(&mut buf).expect("an answer within 10 s") {
                0 => break,
                n => data.extend_from_slice(&buf[..n]),
            }
        }
        let text = String::from_utf8_lossy(&data);
        let line = text.lines().find_map(|l| l.strip_prefix(gauge.name.as_str())?.strip_prefix(' '));
        let value = line.unwrap_or_else(|| panic!("{}: no {} in it", gauge.path, gauge.name));
        value.trim().parse().unwrap_or_else(|_| panic!("{} {value}: not a count", gauge.name))
    }
}
