//! A process of a run: it does its share, as it is told over its standard input, and says over its
//! standard output what came of it. It ends when its standard input does.

use std::io::BufRead as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::super::{Failure, chain};
use super::arrival::Guests;
use super::audience::Audience;
use super::orders::{Job, Order, Report, say};
use super::publisher::publish;
use crate::load::Process;

/// How often it says what it has counted.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How long the next message may take once all are acknowledged, and all of them together.
const GRACE: Duration = Duration::from_secs(30);
const GRACE_AT_MOST: Duration = Duration::from_mins(10);
/// How long it listens on when all is there: something may come twice.
const LINGER: Duration = Duration::from_secs(1);
/// How long goodbyes may take.
const GOODBYE: Duration = Duration::from_secs(5);
/// Orders that wait; there are three in all.
const ORDERS_MAX: usize = 8;

/// What it is told after its job.
struct Orders {
    rest: mpsc::Receiver<Order>,
    stop: CancellationToken,
}

/// Runs it, to the end or until nobody tells it anything any more.
pub(in crate::cli) fn run() -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::Failed(chain(error));
    // Where it can't be raised the plan was made for what there is.
    let _ = rlimit::increase_nofile_limit(rlimit::INFINITY);
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|error| failed(&error))?;
    let job: Job = serde_json::from_str(&line).map_err(|error| failed(&error))?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| failed(&error))?;
    let (orders, alone) = Orders::listen().map_err(|error| failed(&error))?;
    runtime.block_on(async {
        tokio::select! {
            done = work(Arc::new(job), orders) => done,
            // Whoever has started it is gone.
            () = alone.cancelled() => Ok(()),
        }
    })
}

impl Orders {
    /// Reads them by a thread; the token says that there will be no more.
    fn listen() -> std::io::Result<(Self, CancellationToken)> {
        let (sender, rest) = mpsc::channel(ORDERS_MAX);
        let (stop, alone) = (CancellationToken::new(), CancellationToken::new());
        let (stopped, gone) = (stop.clone(), alone.clone().drop_guard());
        // It is left behind when the process ends, for nothing wakes it.
        crate::threads::spawn("bench-orders", move || {
            let _gone = gone;
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                let Ok(order) = serde_json::from_str(&line) else { return };
                if let Order::Stop = order {
                    stopped.cancel();
                } else if sender.blocking_send(order).is_err() {
                    return;
                }
            }
        })?;
        Ok((Self { rest, stop }, alone))
    }
}

async fn work(job: Arc<Job>, mut orders: Orders) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::Failed(chain(error));
    let connections = job.plan.connections_of(job.process);
    let audience = Arc::new(Audience::new(connections.len()));
    let mut guests = Guests::new(Arc::clone(&job), Arc::clone(&audience)).map_err(|error| failed(&error))?;
    let mut meter = Meter::new(Arc::clone(&audience));
    meter.during(guests.arrive(&orders.stop)).await?;
    meter.report()?;
    tell(&Report::Arrived)?;
    loop {
        match meter.during(orders.rest.recv()).await? {
            Some(Order::Publish { start }) => {
                let published = meter.during(publish(&job, start, &orders.stop, &audience)).await?;
                let acknowledged = published.map_err(|error| failed(&error))?;
                meter.report()?;
                tell(&Report::Published(acknowledged))?;
            }
            Some(Order::Settle(messages)) => {
                let messages: Vec<_> = messages.numbers().collect();
                let end =
                    |connection| messages.get(job.plan.room_of(connection)).copied().unwrap_or_default();
                let settling = async {
                    // Who has not seen the end by then is counted as such.
                    audience.settle(connections.map(end), GRACE, GRACE_AT_MOST).await;
                    sleep(LINGER).await;
                };
                meter.during(settling).await?;
                audience.lock().close();
                meter.report()?;
                guests.leave(GOODBYE).await;
                return tell(&Report::Done);
            }
            Some(Order::Stop) => {}
            None => return Ok(()),
        }
    }
}

fn tell(report: &Report) -> Result<(), Failure> {
    say(std::io::stdout().lock(), report).map_err(|error| Failure::Failed(format!("can't report: {error}")))
}

/// Says regularly what was counted, and how busy the process was.
struct Meter {
    audience: Arc<Audience>,
    process: Process,
    reported: Instant,
    cpu: Duration,
}

impl Meter {
    fn new(audience: Arc<Audience>) -> Self {
        Self { audience, process: Process::open(), reported: Instant::now(), cpu: Duration::ZERO }
    }

    /// Reports until `work` is done.
    async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::pin!(work);
        let mut ticks = interval(REPORT_EVERY);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                _ = ticks.tick() => self.report()?,
            }
        }
    }

    fn report(&mut self) -> Result<(), Failure> {
        let mut tally = Box::new(std::mem::take(&mut self.audience.lock().tally));
        let cpu = self.process.cpu_time().unwrap_or_default();
        tally.cpu = cpu.saturating_sub(self.cpu);
        let elapsed = self.reported.elapsed();
        // Shorter than that, the clock of processor time is too coarse.
        if elapsed >= REPORT_EVERY / 2 {
            tally.busiest = tally.cpu.as_secs_f64() / elapsed.as_secs_f64();
        }
        (self.cpu, self.reported) = (cpu, Instant::now());
        tell(&Report::Progress(tally))
    }
}
