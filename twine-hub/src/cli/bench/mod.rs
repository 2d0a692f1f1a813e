//! `twine-hub bench`: a load test of one's own deployment.
//!
//! The process that is started (`conductor`) has others of the same binary do the work (`worker`), for
//! one may hold only so many connections. Each makes its share of the connections (`arrival`), reads
//! what comes (`subscriber`) and publishes to its share of the rooms (`publisher`), by the clock
//! (`pace`). What they count (`tally`) adds up. They say lines of JSON to each other (`orders`).
//! The clients are those that an app would use: `twine-client` and `twine-server-sdk`.

mod arrival;
mod audience;
mod conductor;
mod cookie;
mod crew;
mod error;
mod histogram;
mod orders;
mod pace;
mod payload;
mod plan;
mod preflight;
mod progress;
mod publisher;
mod report;
mod sequence;
mod share;
mod sources;
mod subscriber;
mod tally;
pub(super) mod worker;

use std::net::IpAddr;
use std::time::Duration;

use clap::Args;

use self::conductor::Conductor;
use self::crew::Crew;
use self::error::BenchError;
use self::orders::Job;
use self::plan::{Plan, Scenario};
use self::progress::Progress;
use self::report::Summary;
use super::key::key;
use super::signals::Signals;
use super::{Failure, print};
use crate::config::{self, Config};
use crate::hub;

/// The command that the processes of a run are started with.
pub(super) const WORKER: &str = "bench-worker";

/// Bytes of a message's data, at most: its frame is far below what the client takes.
const SIZE_MAX: usize = 8 << 20;

/// What its help ends with.
const HELP: &str = "A small run, to begin with:
  twine-hub bench --connections 100 --rooms 10 --duration 5s --ramp 1s

It ends with 0 where all is well; with 1 where a connection or a publish failed, or a delivery was lost, repeated or \
out of order; with 2 where the flags don't fit. Ctrl-C ends it early, with its report.";

/// How the run is to be.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct Bench {
    /// The hubs' addresses, repeated or with commas; without it the one that `listen` names on this machine.
    /// Room N is at address N modulo their number, so they may be doors of one fleet, or share nothing.
    #[arg(long, value_name = "URL", env = config::URL_VARIABLE, value_delimiter = ',')]
    url: Vec<String>,
    /// What the defaults of all others are.
    #[arg(long, value_enum, default_value = "fanout")]
    scenario: Scenario,
    /// Connections, each with a cookie of its own and one room.
    #[arg(long, value_name = "N", value_parser = positive)]
    connections: Option<usize>,
    /// Rooms, over which connections are spread evenly; without it one for each connection.
    #[arg(long, value_name = "N", value_parser = positive)]
    rooms: Option<usize>,
    /// Messages a second and room, like 1 or 0.1.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    rate: Option<f64>,
    /// Bytes of a message's data, 8MiB at most.
    #[arg(long, value_name = "BYTES", default_value = "128", value_parser = size)]
    size: usize,
    /// How long messages are published, like 60s; with `ramp`, the time over which each room gets its one.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// How long connecting takes, evenly, like 2m; 0s is as fast as it goes.
    #[arg(long, value_name = "TIME", value_parser = duration_or_none)]
    ramp: Option<Duration>,
    /// Processes that share the work; without it as many as open files and 20,000 connections each ask for.
    #[arg(long, value_name = "N", value_parser = positive)]
    processes: Option<usize>,
    /// Addresses of this machine to connect from in turn, for each has ports for some 28,000 connections, to
    /// all servers together; without them there are as many to each server. To hubs on loopback, 127.0.0.2
    /// and further ones are taken.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    source: Vec<IpAddr>,
    /// Prints the report as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs it and prints its report.
pub(super) fn run(bench: &Bench, config: &Config) -> Result<(), Failure> {
    let urls = if bench.url.is_empty() {
        vec![format!("http://{}", hub::reachable(config.listen))]
    } else {
        bench.url.clone()
    };
    let files = rlimit::Resource::NOFILE.get_hard().map_err(BenchError::Start)?;
    let plan = Plan::new(bench, urls, files)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(BenchError::Start)?;
    let summary = runtime.block_on(carry_out(plan, &bench.source, &key(config)?));
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    let summary = summary?;
    let text = if bench.json {
        serde_json::to_string(&summary).map_err(|error| Failure::Failed(error.to_string()))?
    } else {
        summary.to_string()
    };
    print(&text)?;
    if summary.faults.is_empty() { Ok(()) } else { Err(Failure::Failed(summary.faults.join("\n"))) }
}

async fn carry_out(mut plan: Plan, sources: &[IpAddr], key: &str) -> Result<Summary, BenchError> {
    // Before any process is started, so that no signal leaves one behind.
    let mut signals = Signals::listen().map_err(BenchError::Start)?;
    let run = format!("{:08x}", fastrand::u32(..));
    tokio::select! {
        checked = preflight::check(&mut plan, sources, &run, key) => checked?,
        _ = signals.next() => return Err(BenchError::TooEarly),
    }
    let job = |process| Job { plan: plan.clone(), process, run: run.clone(), key: key.to_owned() };
    let crew = Crew::start((0..plan.processes).map(job))?;
    let outcome = Conductor::new(crew, signals, Progress::new(&plan)).run().await?;
    Ok(Summary::new(&plan, &outcome))
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "it is no number from 1".to_owned())
}

fn size(text: &str) -> Result<usize, String> {
    let size = config::size(text).ok_or_else(|| "it is no size like 128 or 4KiB".to_owned())?;
    if size <= SIZE_MAX { Ok(size) } else { Err("it is above 8MiB".to_owned()) }
}

fn duration(text: &str) -> Result<Duration, String> {
    config::duration(text).ok_or_else(|| "it is no time like 30s or 20m".to_owned())
}

fn duration_or_none(text: &str) -> Result<Duration, String> {
    config::duration_or_none(text).ok_or_else(|| "it is no time like 30s or 20m, or 0s".to_owned())
}
