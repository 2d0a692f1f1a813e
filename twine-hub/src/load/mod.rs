//! How full this hub is: what a load balancer sends new connections by.
//!
//! A [`Sampler`] looks once a second at what may run out ([`parts`] has the formula), and leaves what
//! it found with [`Load`], where `/load`, the metrics and the [`agent`] take it from. Nothing of it is
//! on a message's way: processor time and memory are read from the system ([`machine`]), how late the
//! threads are by knocking at their doors, and the time from publish to socket from a histogram.

pub(crate) mod agent;
mod machine;
mod parts;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use self::machine::Process;
pub(crate) use self::parts::{Part, Parts};
use crate::connection::{Connections, Knocks};
use crate::rooms::locked;
use crate::telemetry::{self, Counts, Telemetry};

/// The time between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Looks back, over which the time from publish to socket is taken.
const WINDOW: usize = 10;
/// What the newest look counts for, where one by itself says little.
const NEWEST: f64 = 0.25;

/// How full the hub was when the sampler looked last. A clone tells the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Load(Arc<Mutex<Parts>>);

impl Load {
    /// What makes it full, and how much.
    pub(crate) fn parts(&self) -> Parts {
        *locked(&self.0)
    }
}

/// Looks at the hub again and again.
pub(crate) struct Sampler {
    load: Load,
    connections: Connections,
    telemetry: Arc<Telemetry>,
    process: Process,
    cores: f64,
    /// In bytes; `None` where nobody knows.
    memory_limit: Option<f64>,
    /// When it looked last, and the processor time used until then.
    cpu_before: Option<(Instant, Duration)>,
    cpu: Option<f64>,
    knocks: Option<Knocks>,
    delay: f64,
    /// What the histogram had counted at the last looks, oldest first.
    counted: VecDeque<Counts>,
}

impl Sampler {
    /// A sampler of this hub, and where it leaves what it finds. Without a `memory_limit` the
    /// system's counts.
    pub(crate) fn new(
        connections: Connections,
        telemetry: Arc<Telemetry>,
        memory_limit: Option<usize>,
    ) -> (Self, Load) {
        let load = Load::default();
        let given = memory_limit.and_then(|limit| u64::try_from(limit).ok());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut sampler = Self {
            load: load.clone(),
            connections,
            telemetry,
            process: Process::open(),
            cores: parts::count(cores),
            memory_limit: given.or_else(machine::memory_limit).map(parts::bytes),
            cpu_before: None,
            cpu: None,
            knocks: None,
            delay: 0.0,
            counted: VecDeque::with_capacity(WINDOW + 1),
        };
        // Before anybody asks.
        sampler.look(Duration::ZERO);
        (sampler, load)
    }

    /// Looks for as long as it is polled.
    pub(crate) async fn run(mut self) {
        let mut next = Instant::now() + EVERY;
        loop {
            tokio::time::sleep_until(next).await;
            // The timer wakes this task on a thread that has others to run: that is the runtime's delay.
            let now = Instant::now();
            self.look(now - next);
            // After a pause of the whole machine no look is made up for.
            next = (next + EVERY).max(now);
        }
    }

    fn look(&mut self, late: Duration) {
        let parts = Parts {
            cpu: self.cpu().map(|cores| Part::of(cores, self.cores)),
            connections: Part::of(
                parts::count(self.connections.n_open()),
                parts::count(self.connections.max()),
            ),
            memory: self.memory(),
            publish_to_socket: self.publish_to_socket().map(|p99| Part::of(p99, parts::SLOW)),
            delay: Part::of(self.delay(late), parts::LATE),
        };
        *locked(&self.load.0) = parts;
        self.telemetry.load.set(f64::from(parts.load()) / 100.0);
        for (part, Part { load, .. }) in parts.known() {
            self.telemetry.load_parts.get_or_create(&telemetry::Part { part }).set(f64::from(load) / 100.0);
        }
    }

    /// Cores that the process kept busy; `None` at the first look, and where the system does not say.
    fn cpu(&mut self) -> Option<f64> {
        let (now, time) = (Instant::now(), self.process.cpu_time()?);
        let (then, before) = self.cpu_before.replace((now, time))?;
        let passed = now.duration_since(then).as_secs_f64();
        if passed > 0.0 {
            let busy = time.saturating_sub(before).as_secs_f64() / passed;
            self.cpu = Some(self.cpu.map_or(busy, |cpu| smoothed(cpu, busy)));
        }
        self.cpu
    }

    fn memory(&self) -> Option<Part> {
        Some(Part::of(parts::bytes(self.process.memory()?), self.memory_limit?))
    }

    /// The 99th percentile over the window, in seconds; `None` where nothing was published.
    fn publish_to_socket(&mut self) -> Option<f64> {
        let now = self.telemetry.publish_to_socket.counts();
        self.counted.push_back(now);
        if self.counted.len() > WINDOW + 1 {
            self.counted.pop_front();
        }
        now.since(self.counted.front()?).quantile(0.99)
    }

    /// Seconds that the latest of all threads is late by.
    fn delay(&mut self, late: Duration) -> f64 {
        let heard = self.knocks.as_ref().map_or(Duration::ZERO, Knocks::delay);
        // Who has not answered yet is not asked anew: the first question grows older.
        if self.knocks.as_ref().is_none_or(Knocks::is_answered) {
            self.knocks = Some(self.connections.knock());
        }
        self.delay = smoothed(self.delay, heard.max(late).as_secs_f64());
        self.delay
    }
}

fn smoothed(before: f64, newest: f64) -> f64 {
    before + (newest - before) * NEWEST
}
