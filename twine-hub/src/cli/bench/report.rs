//! What a run comes to, for people and for programs.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use super::conductor::Outcome;
use super::histogram::{Percentiles, Times};
use super::plan::{Plan, Scenario};
use crate::clock;

/// As `--json` prints it. Names stay; there may be more. Times are in seconds.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    /// The version of `twine-hub` that has measured.
    version: &'static str,
    /// When it ended, in milliseconds since 1970.
    time: u64,
    scenario: Scenario,
    urls: Vec<String>,
    rooms: usize,
    load: Load,
    connections: Connections,
    publishes: Publishes,
    deliveries: Deliveries,
    generator: Generator,
    elapsed: Elapsed,
    /// A signal has ended it early.
    stopped: bool,
    passed: bool,
    /// What is wrong; empty where it has passed.
    pub(super) faults: Vec<String>,
}

/// What was asked for, with the scenario's own where flags said nothing.
#[derive(Debug, Serialize)]
struct Load {
    /// Messages of each room.
    messages: u32,
    /// From one of them to the next.
    interval: f64,
    /// Bytes of one's data.
    size: usize,
    ramp: f64,
    sources: Vec<IpAddr>,
}

#[derive(Debug, Serialize)]
struct Connections {
    asked: usize,
    made: u64,
    failed: u64,
    retries: u64,
    reconnects: u64,
    ended: u64,
    time: Option<Percentiles>,
}

#[derive(Debug, Serialize)]
struct Publishes {
    acknowledged: u64,
    failed: u64,
    given_up: u64,
    late: u64,
    lateness: Option<Percentiles>,
    round_trip: Option<Percentiles>,
    rate: f64,
}

#[derive(Debug, Serialize)]
struct Deliveries {
    expected: u64,
    received: u64,
    lost: i64,
    repeated: u64,
    out_of_order: u64,
    gaps: u64,
    unfinished: u64,
    latency: Option<Percentiles>,
    rate: f64,
}

#[derive(Debug, Serialize)]
struct Generator {
    processes: usize,
    cpu: f64,
    cpu_while_delivering: f64,
    cpu_per_delivery: Option<f64>,
    busiest: f64,
}

#[derive(Debug, Serialize)]
struct Elapsed {
    arriving: f64,
    delivering: f64,
    total: f64,
}

impl Summary {
    #[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
    pub(super) fn new(plan: &Plan, outcome: &Outcome) -> Self {
        let Outcome { tally, .. } = outcome;
        let delivering = outcome.delivering.as_secs_f64();
        let rate = |n: u64| if n == 0 { 0.0 } else { n as f64 / delivering };
        let delivered = outcome.delivered;
        let cpu = outcome.delivering_cpu.as_secs_f64();
        let times = Times::percentiles;
        let mut faults = tally.faults();
        if !outcome.stopped {
            faults.extend(
                tally.uncounted(plan.connections as u64, plan.rooms as u64 * u64::from(plan.messages)),
            );
        }
        Self {
            version: crate::VERSION,
            time: clock::unix_millis(),
            scenario: plan.scenario,
            urls: plan.urls.clone(),
            rooms: plan.rooms,
            load: Load {
                messages: plan.messages,
                interval: plan.interval.as_secs_f64(),
                size: plan.size,
                ramp: plan.ramp.as_secs_f64(),
                sources: plan.sources.clone(),
            },
            connections: Connections {
                asked: plan.connections,
                made: tally.connected,
                failed: tally.failed,
                retries: tally.retries,
                reconnects: tally.reconnects,
                ended: tally.ended,
                time: times(&tally.connect),
            },
            publishes: Publishes {
                acknowledged: tally.acknowledged,
                failed: tally.refused,
                given_up: tally.given_up,
                late: tally.late,
                lateness: times(&tally.lateness),
                round_trip: times(&tally.publish),
                rate: rate(tally.acknowledged),
            },
            deliveries: Deliveries {
                expected: tally.expected,
                received: tally.received,
                lost: tally.lost,
                repeated: tally.repeated,
                out_of_order: tally.out_of_order,
                gaps: tally.gaps,
                unfinished: tally.unfinished,
                latency: times(&tally.delivery),
                rate: rate(delivered),
            },
            generator: Generator {
                processes: plan.processes,
                cpu: tally.cpu.as_secs_f64(),
                cpu_while_delivering: cpu,
                cpu_per_delivery: (delivered > 0).then(|| cpu / delivered as f64),
                busiest: tally.busiest,
            },
            elapsed: Elapsed {
                arriving: outcome.arriving.as_secs_f64(),
                delivering,
                total: outcome.elapsed.as_secs_f64(),
            },
            stopped: outcome.stopped,
            passed: faults.is_empty(),
            faults,
        }
    }
}

/// For people.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, publishes, deliveries, generator, elapsed, .. } = self;
        let stopped = if self.stopped { ", stopped by a signal" } else { "" };
        writeln!(
            f,
            "elapsed       {:.1} s, of it {:.1} s arriving, {:.1} s delivering{stopped}",
            elapsed.total, elapsed.arriving, elapsed.delivering
        )?;
        let Connections { asked, made, failed, retries, reconnects, .. } = connections;
        writeln!(
            f,
            "connections   {made} of {asked} made, {failed} failed, {retries} tried again, {reconnects} reconnects"
        )?;
        percentiles(f, "made in", connections.time.as_ref())?;
        let Publishes { acknowledged, failed, given_up, late, .. } = publishes;
        writeln!(
            f,
            "publishes     {acknowledged} acknowledged, {failed} failed, {given_up} given up, {late} late; {:.0}/s",
            publishes.rate
        )?;
        percentiles(f, "acknowledged", publishes.round_trip.as_ref())?;
        percentiles(f, "late by", publishes.lateness.as_ref())?;
        let Deliveries { expected, received, lost, repeated, out_of_order, gaps, unfinished, .. } =
            deliveries;
        writeln!(
            f,
            "deliveries    {received} of {expected}, {lost} lost, {repeated} repeated, {out_of_order} out of order; {:.0}/s",
            deliveries.rate
        )?;
        if *gaps > 0 || *unfinished > 0 {
            writeln!(
                f,
                "              {gaps} gaps told by the hub, {unfinished} subscribers never saw the end"
            )?;
        }
        percentiles(f, "delivered", deliveries.latency.as_ref())?;
        write!(
            f,
            "generator     {} processes, {:.1} s of CPU; the busiest used {:.0} % of a core",
            generator.processes,
            generator.cpu,
            generator.busiest * 100.0
        )?;
        if let Some(each) = generator.cpu_per_delivery {
            write!(f, ", {} a delivery", time(each))?;
        }
        let verdict = if self.passed { "passed" } else { "failed" };
        write!(f, "\nverdict       {verdict}")
    }
}

fn percentiles(f: &mut fmt::Formatter<'_>, name: &str, times: Option<&Percentiles>) -> fmt::Result {
    let Some(Percentiles { p50, p90, p99, p999, max }) = times else { return Ok(()) };
    let [p50, p90, p99, p999, max] = [p50, p90, p99, p999, max].map(|&seconds| time(seconds));
    writeln!(f, "  {name:<13} p50 {p50}  p90 {p90}  p99 {p99}  p99.9 {p999}  max {max}")
}

/// A time with a unit that suits it.
pub(super) fn time(seconds: f64) -> String {
    match seconds {
        s if s >= 10.0 => format!("{s:.1} s"),
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 0.01 => format!("{:.0} ms", s * 1e3),
        s if s >= 0.001 => format!("{:.1} ms", s * 1e3),
        s => format!("{:.0} µs", s * 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_that_suits_them() {
        let all = [0.0, 0.000_042, 0.00131, 0.0421, 0.9, 1.234, 12.34].map(time);
        assert_eq!(all, ["0 µs", "42 µs", "1.3 ms", "42 ms", "900 ms", "1.23 s", "12.3 s"]);
    }
}
