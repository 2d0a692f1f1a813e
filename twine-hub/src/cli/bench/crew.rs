//! The processes of a run, as the one that was started sees them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tokio::sync::mpsc;

use super::WORKER;
use super::error::BenchError;
use super::orders::{Job, Order, Report, line};

/// Reports that wait to be read; then processes wait.
const REPORTS_MAX: usize = 256;
/// Orders to a process that wait to be written; there are four in all, the job among them.
const ORDERS_MAX: usize = 8;

/// All of them; they are killed where this is dropped.
pub(super) struct Crew(Vec<Hand>);

struct Hand {
    child: Child,
    /// To a thread that writes them: a process that hangs reads nothing, and a pipe holds little.
    orders: SyncSender<Arc<[u8]>>,
}

/// What happened to which.
pub(super) struct Event {
    pub(super) process: usize,
    pub(super) what: What,
}

pub(super) enum What {
    Said(Report),
    Garbled(serde_json::Error),
    /// Its output has ended.
    Ended,
}

impl Crew {
    /// Starts one process for each job.
    ///
    /// # Errors
    /// [`BenchError::Start`] where the system does not let it.
    pub(super) fn start(
        jobs: impl Iterator<Item = Job>,
    ) -> Result<(Self, mpsc::Receiver<Event>), BenchError> {
        let (sender, events) = mpsc::channel(REPORTS_MAX);
        let binary = std::env::current_exe().map_err(BenchError::Start)?;
        let mut crew = Self(Vec::new());
        for job in jobs {
            let reports = crew.hire(Command::new(&binary).arg(WORKER)).map_err(BenchError::Start)?;
            let told = line(&job).map_err(|error| BenchError::Start(error.into()))?;
            if let Some(hand) = crew.0.last() {
                hand.tell(told.into());
            }
            let (sender, process) = (sender.clone(), job.process);
            if let Some(reports) = reports {
                let read = move || read(reports, process, &sender);
                crate::threads::spawn("bench-reports", read).map_err(BenchError::Start)?;
            }
        }
        Ok((crew, events))
    }

    /// Starts one more, and gives its output.
    fn hire(&mut self, command: &mut Command) -> std::io::Result<Option<ChildStdout>> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // A Ctrl-C is for the process that was started, which then tells all others.
        let mut child = command.process_group(0).spawn()?;
        let (input, reports) = (child.stdin.take(), child.stdout.take());
        let (orders, waiting) = sync_channel(ORDERS_MAX);
        self.0.push(Hand { child, orders });
        if let Some(input) = input {
            crate::threads::spawn("bench-orders", move || write(input, &waiting))?;
        }
        Ok(reports)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells all of them. One that hears nothing any more has ended, which shows by its output.
    pub(super) fn tell(&self, order: &Order) {
        // An order is numbers and names, which JSON always has a form for.
        let told: Arc<[u8]> = line(order).unwrap_or_default().into();
        self.0.iter().for_each(|hand| hand.tell(Arc::clone(&told)));
    }

    /// How one ended; waits for that.
    pub(super) fn ended(&mut self, process: usize) -> BenchError {
        let status = self.0.get_mut(process).and_then(|hand| hand.child.wait().ok()).unwrap_or_default();
        match status.signal() {
            Some(_) => BenchError::Killed { process, status },
            None => BenchError::Ended { process, status },
        }
    }
}

impl Hand {
    fn tell(&self, order: Arc<[u8]>) {
        // Where there is no place, it has ended: there are not so many orders.
        let _ = self.orders.try_send(order);
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for hand in &mut self.0 {
            // It may have ended.
            let _ = hand.child.kill();
            let _ = hand.child.wait();
        }
    }
}

/// Ends when the crew does, or the process.
fn write(mut input: ChildStdin, orders: &Receiver<Arc<[u8]>>) {
    while orders.recv().is_ok_and(|order| input.write_all(&order).is_ok()) {}
}

fn read(reports: ChildStdout, process: usize, events: &mpsc::Sender<Event>) {
    let tell = |what| events.blocking_send(Event { process, what });
    for line in BufReader::new(reports).lines().map_while(Result::ok) {
        let what = serde_json::from_str(&line).map_or_else(What::Garbled, What::Said);
        // Where nobody listens the run is over.
        if tell(what).is_err() {
            return;
        }
    }
    let _ = tell(What::Ended);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_reads_nothing_holds_nobody_up() {
        let mut crew = Crew(Vec::new());
        let _reports = crew.hire(Command::new("sleep").arg("1000")).unwrap();
        // Some 400 KB, where a pipe holds 64 KiB.
        let settle = Order::Settle((0..30_000).collect());
        for _ in 0..ORDERS_MAX + 2 {
            crew.tell(&settle);
        }
        drop(crew);
    }
}
