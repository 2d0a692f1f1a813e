//! sdk: what publishing costs a backend that uses twine-server-sdk, as a line of JSON.
//!
//!   sdk URL KEY MODE [--secs 3] [--rate N] [--payload 128]
//!
//! MODE: `background` gives messages to a `Publisher` with its default settings, `await-N` has N tasks
//! that each await one publish after the other. Without `--rate` as fast as it goes; a full queue is
//! waited for as a backend would that may not lose a message.

use std::error::Error;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};
use twine_server_sdk::{ErrorKind, Publisher, Twine};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// How often the clock gives what is due.
const TICK: Duration = Duration::from_millis(5);
/// How long a producer waits for the queue to have room.
const FULL: Duration = Duration::from_millis(1);
const ROOMS: u64 = 1000;
const WARMUP: Duration = Duration::from_secs(1);

struct Args {
    url: String,
    key: String,
    mode: String,
    secs: f64,
    rate: Option<f64>,
    payload: usize,
}

fn args() -> Outcome<Args> {
    let mut words = std::env::args().skip(1);
    let mut next =
        || words.next().ok_or("usage: sdk URL KEY background|await-N [--secs N] [--rate N] [--payload N]");
    let mut args = Args { url: next()?, key: next()?, mode: next()?, secs: 3.0, rate: None, payload: 128 };
    while let Ok(flag) = next() {
        match flag.as_str() {
            "--secs" => args.secs = next()?.parse()?,
            "--rate" => args.rate = Some(next()?.parse()?),
            "--payload" => args.payload = next()?.parse()?,
            other => return Err(format!("no flag {other}: --secs --rate --payload").into()),
        }
    }
    Ok(args)
}

/// Scheduler time of all threads so far; no thread of this program ends before it does.
fn cpu() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").expect("Linux");
    let spent = |path: std::path::PathBuf| -> Option<u64> {
        fs::read_to_string(path.join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    Duration::from_nanos(tasks.flatten().filter_map(|t| spent(t.path())).sum())
}

/// How many messages are due by the clock; all there can be where there is no rate.
fn due(rate: Option<f64>, start: Instant) -> u64 {
    rate.map_or(u64::MAX, |rate| (start.elapsed().as_secs_f64() * rate) as u64)
}

fn room(n: u64) -> String {
    format!("r{:06}", n % ROOMS)
}

/// Queues until `end`; returns how many messages, and how often the queue was full.
async fn produce(publisher: &Publisher, args: &Args, text: &str, secs: Duration) -> Outcome<(u64, u64)> {
    let (start, mut sent, mut full) = (Instant::now(), 0, 0);
    let mut tick = interval(TICK);
    while start.elapsed() < secs {
        if sent >= due(args.rate, start) {
            tick.tick().await;
            continue;
        }
        match publisher.publish(room(sent), text) {
            Ok(()) => sent += 1,
            Err(error) if error.kind() == ErrorKind::QueueFull => {
                full += 1;
                sleep(FULL).await;
            }
            Err(error) => return Err(error.into()),
        }
        // The worker shares the core: let it have its turn now and then.
        if sent % 256 == 0 {
            tokio::task::yield_now().await;
        }
    }
    Ok((sent, full))
}

async fn background(twine: &Twine, args: &Args, text: &str) -> Outcome<serde_json::Value> {
    let publisher = twine.publisher().start()?;
    produce(&publisher, args, text, WARMUP).await?;
    publisher.flush().await;
    let before = publisher.stats();
    let (start, spent) = (Instant::now(), cpu());
    let (sent, full) = produce(&publisher, args, text, Duration::from_secs_f64(args.secs)).await?;
    publisher.flush().await;
    let (took, spent) = (start.elapsed(), cpu() - spent);
    let stats = publisher.close().await;
    let published = stats.published - before.published;
    Ok(result(args, published, took, spent, json!({"queued": sent, "full": full, "dropped": stats.dropped})))
}

/// Each of `tasks` awaits one publish after the other until `secs` are over; how many there were.
async fn each_awaits(twine: &Twine, args: &Args, text: &str, tasks: u64, secs: Duration) -> Outcome<u64> {
    let (start, next) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let mut set: JoinSet<Outcome<u64>> = JoinSet::new();
    for _ in 0..tasks {
        let (twine, text, next, rate) = (twine.clone(), text.to_owned(), next.clone(), args.rate);
        set.spawn(async move {
            let mut published = 0;
            while start.elapsed() < secs {
                let n = next.fetch_add(1, Ordering::Relaxed);
                while n >= due(rate, start) && start.elapsed() < secs {
                    sleep(TICK).await;
                }
                twine.publish(room(n), &text).await?;
                published += 1;
            }
            Ok(published)
        });
    }
    let mut published = 0;
    while let Some(task) = set.join_next().await {
        published += task??;
    }
    Ok(published)
}

async fn awaiting(twine: &Twine, args: &Args, text: &str, tasks: u64) -> Outcome<serde_json::Value> {
    each_awaits(twine, args, text, tasks, WARMUP).await?;
    let (start, spent) = (Instant::now(), cpu());
    let published = each_awaits(twine, args, text, tasks, Duration::from_secs_f64(args.secs)).await?;
    Ok(result(args, published, start.elapsed(), cpu() - spent, json!({})))
}

fn result(
    args: &Args,
    published: u64,
    took: Duration,
    spent: Duration,
    more: serde_json::Value,
) -> serde_json::Value {
    let mut out = json!({
        "mode": args.mode, "rate": args.rate, "payload": args.payload, "published": published, "secs": took.as_secs_f64(),
        "messages_per_s": (published as f64 / took.as_secs_f64()).round(),
        "sdk_us_per_message": spent.as_secs_f64() * 1e6 / published.max(1) as f64,
        "sdk_cpu_percent": 100.0 * spent.as_secs_f64() / took.as_secs_f64(),
    });
    if let (Some(out), Some(more)) = (out.as_object_mut(), more.as_object()) {
        out.extend(more.clone());
    }
    out
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let args = args()?;
    let twine = Twine::builder(args.url.as_str(), args.key.as_str()).no_proxy().build()?;
    let text = "x".repeat(args.payload);
    let out = match args.mode.strip_prefix("await-") {
        Some(tasks) => awaiting(&twine, &args, &text, tasks.parse()?).await?,
        None if args.mode == "background" => background(&twine, &args, &text).await?,
        None => return Err(format!("no mode {}: background, await-N", args.mode).into()),
    };
    println!("{out}");
    Ok(())
}
