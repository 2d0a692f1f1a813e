//! What a run shows of itself while it goes on, on standard error.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::conductor::Phase;
use super::plan::Plan;
use super::report::time;
use super::tally::Tally;

/// Without a terminal, a line comes this often.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Rates are of about so long.
const RATE_OVER: Duration = Duration::from_secs(1);

/// A bar on a terminal, else lines.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    connections: u64,
    deliveries: u64,
    phase: Phase,
    line: Instant,
    /// What was received when the rate was last taken, and the rate.
    before: (Instant, u64),
    rate: f64,
}

impl Progress {
    pub(super) fn new(plan: &Plan) -> Self {
        let connections = u64::try_from(plan.connections).unwrap_or(u64::MAX);
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(connections);
            // Without a template that can be read it is the default.
            if let Ok(style) = ProgressStyle::with_template("[{elapsed_precise}] {bar:30} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self {
            bar,
            connections,
            deliveries: connections.saturating_mul(plan.messages.into()),
            phase: Phase::Arriving,
            line: Instant::now(),
            before: (Instant::now(), 0),
            rate: 0.0,
        }
    }

    pub(super) fn show(&mut self, phase: Phase, tally: &Tally) {
        let elapsed = self.before.0.elapsed();
        if elapsed >= RATE_OVER {
            let more = tally.received.saturating_sub(self.before.1);
            #[expect(clippy::cast_precision_loss, reason = "deliveries of about a second")]
            let more = more as f64;
            self.rate = more / elapsed.as_secs_f64();
            self.before = (Instant::now(), tally.received);
        }
        let is_new = std::mem::replace(&mut self.phase, phase) != phase;
        if let Some(bar) = &self.bar {
            let (length, position) = match phase {
                Phase::Arriving => (self.connections, tally.connected),
                Phase::Delivering | Phase::Settling => (self.deliveries, tally.received),
            };
            bar.set_length(length);
            bar.set_position(position);
            bar.set_message(self.text(tally));
        } else if is_new || self.line.elapsed() >= LINE_EVERY {
            self.line = Instant::now();
            eprintln!("{}", self.text(tally));
        }
    }

    /// Says something that stays.
    pub(super) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    fn text(&self, tally: &Tally) -> String {
        if self.phase == Phase::Arriving {
            return format!("arriving {}/{}, {} failed", tally.connected, self.connections, tally.failed);
        }
        let name = if self.phase == Phase::Delivering { "delivering" } else { "waiting for the last" };
        let times = tally.delivery.percentiles();
        let times =
            times.map_or(String::new(), |all| format!(", p50 {}, p99 {}", time(all.p50), time(all.p99)));
        let Tally { received, lost, .. } = tally;
        format!("{name} {received}/{}, {:.0}/s{times}, lost {lost}", self.deliveries, self.rate)
    }
}

impl Drop for Progress {
    /// Leaves the screen to the report, or to what went wrong.
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
