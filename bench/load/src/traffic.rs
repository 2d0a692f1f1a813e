//! When what is published: by the clock, or as fast as it is delivered.

use crate::stats::{Histogram, now};
use crate::subscriber::Cursor;
use crate::{Counts, Load};

/// What is to be published, and how fast.
pub(crate) struct Plan {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) rate: Option<f64>, // open loop: so many a second, by the clock
    pub(crate) window: u64,       // closed loop: so many messages ahead of their deliveries
    pub(crate) k: u64,
    pub(crate) late: Histogram,
}

impl Load {
    /// Starts a window: everything before it is forgotten.
    pub(crate) fn reset(&mut self) {
        for j in 0..self.cursors.len() {
            let room = self.room_of(j / self.per_conn, j % self.per_conn);
            self.cursors[j] = Cursor { next: self.rooms[room].seq, seen: u64::MAX };
        }
        self.latency = Histogram::new();
        self.ack = Histogram::new();
        self.c = Counts { subscribed: self.c.subscribed, failed: self.c.failed, ..Default::default() };
        self.last = now();
    }

    /// Publishes what the plan has due; called every few events, so that
    /// reading a large fan-out does not hold up the clock.
    pub(crate) fn publish_due(&mut self) {
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
            let ahead = plan.window.saturating_mul(self.cursors.len().div_ceil(rooms).max(1) as u64);
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
    pub(crate) fn traffic(&mut self, secs: f64, rate: Option<f64>, window: u64) -> Histogram {
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

    /// Publishes `n` messages in each of these rooms and waits until all are acknowledged and delivered
    /// to whoever is there.
    pub(crate) fn publish_in_each(&mut self, rooms: std::ops::Range<usize>, n: usize) {
        let pubs = self.pubs.len();
        for _ in 0..n {
            for room in rooms.clone() {
                self.pubs[room % pubs].queue.push_back((room, now()));
            }
        }
        let mut quiet = now();
        let mut seen = (self.c.acked, self.c.unique);
        loop {
            for p in 0..pubs {
                while self.pubs[p].sent.len() < self.pipeline {
                    let Some((room, _)) = self.pubs[p].queue.pop_front() else { break };
                    self.publish(p, room, now());
                }
            }
            let waits = self.pubs.iter().any(|p| !p.sent.is_empty() || !p.queue.is_empty());
            if (!waits && self.c.unique >= self.c.expected) || now() > quiet + 5_000_000_000 {
                return;
            }
            self.pump(5_000_000);
            if (self.c.acked, self.c.unique) != seen {
                (seen, quiet) = ((self.c.acked, self.c.unique), now());
            }
        }
    }
}
