//! Arrivals: clients come one by one, by the clock, while messages are published. Who comes finds
//! out what the others of the server cost it.

use crate::Load;
use crate::stats::{Histogram, now};
use crate::traffic::Plan;

/// How long the last ones may take to be subscribed.
const PATIENCE: u64 = 30_000_000_000;

impl Load {
    /// Has `n` clients arrive, `per_s` a second; returns the latencies of what they got meanwhile.
    /// What a client that is about to subscribe gets or misses is not counted as lost.
    pub(crate) fn arrive(&mut self, n: usize, per_s: f64, rate: f64, pub_conns: usize) -> serde_json::Value {
        self.open_publishers(pub_conns);
        let start = now();
        let rate = (rate > 0.0).then_some(rate);
        let end = start + (n as f64 / per_s * 1e9) as u64 + PATIENCE;
        self.plan = Some(Plan { start, end, rate, window: 4, k: 0, late: Histogram::new() });
        let due = |i: usize| start + (i as f64 / per_s * 1e9) as u64;
        while (self.clients.len() < n || self.in_flight > 0) && now() < end {
            let t = now();
            while self.clients.len() < n && due(self.clients.len()) <= t {
                self.connect();
            }
            self.publish_due();
            // Often enough for both clocks.
            self.pump(1_000_000);
        }
        self.plan = None;
        let us = |h: &Histogram| serde_json::json!({"p50": h.us(0.5), "p99": h.us(0.99), "p99.9": h.us(0.999), "max": h.max as f64 / 1000.0});
        let out = serde_json::json!({"per_s": per_s, "arriving_latency_us": us(&self.latency), "arriving_ack_us": us(&self.ack)});
        // What is still on its way is none of the next window's.
        loop {
            let before = (self.c.unique, self.c.acked);
            self.idle(0.5);
            if (self.c.unique, self.c.acked) == before {
                break;
            }
        }
        for p in &mut self.pubs {
            p.queue.clear();
        }
        self.reset();
        out
    }
}
