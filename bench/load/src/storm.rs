//! The storm: all clients are cut, messages are published that they miss, and all come back at once
//! with what they kept. Ends when each has everything, once and in order, or when time is up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use memchr::memmem;

use crate::stats::{Cpu, Histogram, Processes, forget_peak, memory, now, peak};
use crate::subscriber::State;
use crate::{Args, Counts, Load, ask_runner, round};

/// How long all may take to be current again; and how long nothing may come once all are there.
const PATIENCE: u64 = 180_000_000_000;
const QUIET: u64 = 3_000_000_000;
/// The waits of a client that was refused, before full jitter: the first, and the longest.
const BACKOFF: (u64, u64) = (1_000_000_000, 30_000_000_000);

/// What a client needs to come back, and how far it is.
#[derive(Default)]
pub(crate) struct Kept {
    epoch: String,
    offset: u64,
    session: String,
    /// Milliseconds that the server asked it to stay away.
    retry: u64,
    /// Times that it came back in vain.
    attempts: u32,
    /// Messages to come until it is current.
    missed: u32,
}

/// Where a storm stands.
pub(crate) struct Storm {
    start: u64,
    /// Who comes back when.
    due: BinaryHeap<Reverse<(u64, usize)>>,
    current: usize,
    /// Time from the start until each was current.
    took: Histogram,
    /// Connections that ended, so that their clients came back once more.
    again: u64,
    random: u64,
}

impl Storm {
    /// A random time below `bound` (SplitMix64).
    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

/// The value behind `before` in a frame.
fn value<'a>(frame: &'a [u8], before: Option<&String>) -> Option<&'a str> {
    let before = before?.as_bytes();
    let rest = &frame[memmem::find(frame, before)? + before.len()..];
    let end = rest.iter().position(|b| matches!(b, b'"' | b',' | b'}'))?;
    std::str::from_utf8(&rest[..end]).ok()
}

impl Load {
    /// Fills in what the client kept.
    pub(crate) fn with_kept(&self, i: usize, text: String) -> String {
        let c = &self.clients[i];
        let Some(kept) = &c.kept else { return text };
        text.replace("{epoch}", &kept.epoch)
            .replace("{offset}", &kept.offset.to_string())
            .replace("{session}", &kept.session)
            .replace("{next}", &self.cursors[i].next.to_string())
    }

    /// Takes from a frame what a client keeps.
    pub(crate) fn keep(&mut self, i: usize, frame: &[u8]) {
        let c = &mut self.clients[i];
        let (Some(kept), Some(resume)) = (&mut c.kept, &self.t.resume) else { return };
        let epoch = value(frame, resume.keep.epoch.as_ref());
        let crosses = c.state == State::Subscribed && epoch.is_some_and(|epoch| epoch != kept.epoch);
        if let Some(epoch) = epoch.filter(|epoch| *epoch != kept.epoch) {
            kept.epoch = epoch.to_string();
        }
        if crosses {
            // A frame that tells of a new epoch names offsets of the old one.
            kept.offset = 0;
        } else if let Some(offset) = value(frame, resume.keep.offset.as_ref()) {
            kept.offset = offset.parse().expect("an offset");
        }
        if let Some(session) = value(frame, resume.keep.session.as_ref()) {
            kept.session = session.to_string();
        }
        if let Some(retry) = value(frame, resume.keep.retry.as_ref()) {
            kept.retry = retry.parse().expect("milliseconds");
        }
    }

    /// A message that a client had not had.
    pub(crate) fn recovered(&mut self, i: usize, at: u64) {
        let (Some(storm), Some(kept)) = (&mut self.storm, &mut self.clients[i].kept) else { return };
        if kept.missed > 0 {
            kept.missed -= 1;
            if kept.missed == 0 {
                storm.current += 1;
                storm.took.add(at - storm.start);
            }
        }
    }

    /// A client whose connection ended waits as a good client does: for what the server asked, and
    /// a random time on top that grows with each attempt.
    pub(crate) fn come_back(&mut self, i: usize, why: &str) {
        let (Some(storm), Some(kept)) = (&mut self.storm, &mut self.clients[i].kept) else { return };
        storm.again += 1;
        if storm.again <= 3 {
            eprintln!("client {i} comes back once more: {why}");
        }
        let bound = BACKOFF.0.saturating_mul(1 << kept.attempts.min(16)).min(BACKOFF.1);
        kept.attempts += 1;
        let wait = std::mem::take(&mut kept.retry) * 1_000_000 + storm.below(bound);
        storm.due.push(Reverse((now() + wait, i)));
    }

    /// Has the runner kill the server and start it anew.
    fn restart(&mut self) {
        self.close_publishers();
        ask_runner("restart", "restarted");
    }

    /// The scenario, and what it measured.
    pub(crate) fn storm(&mut self, args: &Args, pub_conns: usize) -> serde_json::Value {
        assert!(self.t.resume.is_some(), "{}: no [resume] in its file", self.t.name);
        assert!(self.per_conn == 1, "a storm's clients have one room each: leave --rooms-per-conn out");
        let n = self.clients.len();
        let missed = args.num("missed", 100.0) as usize;
        // Cut in so many groups, one after the other while messages are published: each has a cursor
        // of its own, and they miss `missed` in the mean.
        let groups = args.num("groups", 1.0) as usize;
        let published = missed * 2 * groups / (groups + 1);
        let over = (args.num("over", 0.0) * 1e9) as u64;
        self.open_publishers(pub_conns);
        self.reset();
        for g in 0..groups {
            for i in g * n / groups..(g + 1) * n / groups {
                if self.clients[i].state == State::Subscribed {
                    self.cut(i);
                }
            }
            self.idle(if groups > 1 { 0.1 } else { 0.5 });
            let due = published * (g + 1) / groups - published * g / groups;
            self.publish_in_each(0..self.rooms.len(), due);
        }
        let fresh = Counts { subscribed: self.c.subscribed, failed: self.c.failed, ..Counts::default() };
        let before = std::mem::replace(&mut self.c, fresh);
        let is_restarted = args.get("restart").is_some();
        if is_restarted {
            self.restart();
        }
        // The server's own work of taking leave is not that of coming back.
        self.idle(args.num("settle", 1.0));

        let pids = Processes::read(args.get("pids")).server;
        for i in 0..n {
            let room = self.clients[i].room as usize;
            let missed = self.rooms[room].seq - self.cursors[i].next;
            self.clients[i].kept.as_mut().expect("kept in this scenario").missed = missed;
            self.c.expected += u64::from(missed);
        }
        let recovered = self.c.expected as f64;
        forget_peak(&pids);
        let (rss, own) = (memory(&pids).rss, [std::process::id() as i32]);
        let (cpu, gen_cpu) = (Cpu::of(&pids), Cpu::of(&own));
        let start = now();
        let due = (0..n).map(|i| Reverse((start + over * i as u64 / n as u64, i))).collect();
        self.storm = Some(Storm { start, due, current: 0, took: Histogram::new(), again: 0, random: 1 });
        let subscribed_after = self.until_all_are_current();
        let (spent, own) = (Cpu::of(&pids).since(&cpu), Cpu::of(&own).since(&gen_cpu));
        let wall = self.last.max(start + 1) - start;
        let peak = peak(&pids);

        // All are live: one more for each, once. It makes nobody current any more.
        let storm = self.storm.take().expect("begun above");
        if self.pubs.is_empty() {
            self.open_publishers(pub_conns);
        }
        self.publish_in_each(0..self.rooms.len(), 1);
        let (clients, c) = (n as f64, &self.c);
        let ms = |q: f64| (storm.took.us(q) / 1000.0).round();
        let lost = c.expected as i64 - c.unique as i64;
        eprintln!(
            "{:<16} storm     {n} clients, {recovered} messages | {} current after {} ms, lost {lost} dup {} reorder {} | {:.1} us/client, {:.2} us/message | {} came again | peak {} MB",
            self.t.name,
            storm.current,
            wall / 1_000_000,
            c.dup + before.dup,
            c.reorder + before.reorder,
            spent.total_us / clients,
            spent.total_us / recovered,
            storm.again,
            peak / 1_000_000,
        );
        serde_json::json!({
            "missed": missed, "groups": groups, "over": over as f64 / 1e9, "restarted": is_restarted, "payload": self.payload,
            "recovered": recovered, "current": storm.current, "current_ms": {"p50": ms(0.5), "p99": ms(0.99), "max": ms(1.0)},
            "subscribed_ms": subscribed_after / 1_000_000, "came_again": storm.again, "refused": before.refused + c.refused,
            "expected": c.expected, "delivered": c.unique, "lost": lost + before.expected as i64 - before.unique as i64,
            "dup": c.dup + before.dup, "reorder": c.reorder + before.reorder, "misrouted": c.misrouted + before.misrouted,
            "closed": n - self.c.subscribed,
            "storm_server_us_per_client": round(spent.total_us / clients),
            "storm_server_us_per_message": round(spent.total_us / recovered),
            "storm_server_user_us_per_client": round(spent.user_us / clients),
            "storm_server_sys_us_per_client": round(spent.sys_us / clients),
            "storm_server_cpu_percent": round(100.0 * spent.total_us * 1000.0 / wall as f64),
            "storm_load_us_per_client": round(own.total_us / clients),
            "rss_before": rss, "rss_peak": peak,
        })
    }

    /// Has the clients come back when they are due; returns how long it took until all were
    /// subscribed, the last time.
    fn until_all_are_current(&mut self) -> u64 {
        let n = self.clients.len();
        let mut all_subscribed = 0;
        loop {
            let t = now();
            let Some(storm) = &mut self.storm else { return 0 };
            let next = storm.due.peek().map(|Reverse((due, _))| *due);
            let is_quiet = next.is_none() && self.in_flight == 0 && t > self.last.max(storm.start) + QUIET;
            if storm.current == n || is_quiet || t > storm.start + PATIENCE {
                return all_subscribed;
            }
            if let Some(due) = next
                && due <= t
            {
                // A few, and then a look at what has come.
                for _ in 0..32 {
                    let Some(storm) = &mut self.storm else { return 0 };
                    if storm.due.peek().is_none_or(|Reverse((due, _))| *due > t) {
                        break;
                    }
                    let Some(Reverse((_, i))) = storm.due.pop() else { break };
                    self.open(i);
                }
                self.pump(0);
            } else {
                self.pump(next.map_or(100_000_000, |due| due - t).min(100_000_000));
            }
            let start = self.storm.as_ref().map_or(0, |storm| storm.start);
            if self.c.subscribed < n {
                all_subscribed = 0;
            } else if all_subscribed == 0 {
                all_subscribed = now() - start;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn values_end_where_json_ends_them() {
        let frame =
            br#"{"type":"subscribed","epoch":"0a-b","offset":41,"head":{"epoch":"0a-c","offset":45}}"#;
        let after = |before: &str| value(frame, Some(&before.to_string()));
        assert_eq!(after(r#""epoch":""#), Some("0a-b"));
        assert_eq!(after(r#""offset":"#), Some("41"));
        assert_eq!(after(r#""offset":45"#), Some(""));
        assert_eq!(after(r#""session":""#), None);
        assert_eq!(value(frame, None), None);
    }
}
