//! The processes of a run, as the one that was started sees them.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use tokio::sync::mpsc;

use super::WORKER;
use super::error::BenchError;
use super::orders::{Job, Order, Report, say};

/// Reports that wait to be read; then processes wait.
const REPORTS_MAX: usize = 256;

/// All of them; they are killed where this is dropped.
pub(super) struct Crew(Vec<Hand>);

struct Hand {
    child: Child,
    orders: Option<ChildStdin>,
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
            let mut child = Command::new(&binary)
                .arg(WORKER)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                // A Ctrl-C is for the process that was started, which then tells all others.
                .process_group(0)
                .spawn()
                .map_err(BenchError::Start)?;
            let (mut orders, reports) = (child.stdin.take(), child.stdout.take());
            let told = orders.as_mut().map_or(Ok(()), |orders| say(orders, &job));
            crew.0.push(Hand { child, orders });
            told.map_err(BenchError::Start)?;
            let (sender, process) = (sender.clone(), job.process);
            if let Some(reports) = reports {
                let read = move || read(reports, process, &sender);
                crate::threads::spawn("bench-reports", read).map_err(BenchError::Start)?;
            }
        }
        Ok((crew, events))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells all of them. One that hears nothing any more has ended, which shows by its output.
    pub(super) fn tell(&mut self, order: &Order) {
        for hand in &mut self.0 {
            if let Some(orders) = &mut hand.orders {
                let _ = say(orders, order);
            }
        }
    }

    /// How one ended; waits for that.
    pub(super) fn status(&mut self, process: usize) -> String {
        let Some(hand) = self.0.get_mut(process) else { return "unknown".to_owned() };
        hand.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string())
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
