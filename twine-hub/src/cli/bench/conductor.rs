//! A run from beginning to end: all arrive, then all publish, then all wait for what is under way.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::super::signals::Signals;
use super::crew::{Crew, Event, What};
use super::error::BenchError;
use super::orders::{Order, Report, Runs};
use super::pace::{micros, unix_micros};
use super::progress::Progress;
use super::tally::Tally;

/// How often the progress is shown, and whether all processes live is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A process that has said nothing for so long hangs: it has something to say every second.
const SILENCE: Duration = Duration::from_mins(1);
/// From the order to publish until the clock begins, so that all processes have it in time.
const HEADSTART: Duration = Duration::from_millis(300);

/// What a run is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Arriving,
    Delivering,
    Settling,
}

/// What came of a run.
pub(super) struct Outcome {
    pub(super) tally: Tally,
    pub(super) arriving: Duration,
    pub(super) delivering: Duration,
    /// Processor time while messages were delivered.
    pub(super) delivering_cpu: Duration,
    pub(super) elapsed: Duration,
    /// Messages that subscribers had when all was published.
    pub(super) delivered: u64,
    /// A signal has ended it early.
    pub(super) stopped: bool,
}

/// Leads the processes of a run.
pub(super) struct Conductor {
    crew: Crew,
    events: mpsc::Receiver<Event>,
    signals: Signals,
    progress: Progress,
    looks: Interval,
    stages: Vec<Stage>,
    tally: Tally,
    phase: Phase,
    /// When it was last looked whether all processes live.
    looked: Instant,
    signalled: bool,
    /// There was a signal before all was published.
    stopped: bool,
}

/// How far a process is.
struct Stage {
    heard: Instant,
    arrived: bool,
    published: Option<Runs>,
    done: bool,
}

impl Conductor {
    pub(super) fn new(
        (crew, events): (Crew, mpsc::Receiver<Event>),
        signals: Signals,
        progress: Progress,
    ) -> Self {
        let stage = || Stage { heard: Instant::now(), arrived: false, published: None, done: false };
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            stages: std::iter::repeat_with(stage).take(crew.len()).collect(),
            crew,
            events,
            signals,
            progress,
            looks,
            tally: Tally::default(),
            phase: Phase::Arriving,
            looked: Instant::now(),
            signalled: false,
            stopped: false,
        }
    }

    /// # Errors
    /// Where a process dies or hangs, or a second signal comes. All processes are ended then.
    pub(super) async fn run(mut self) -> Result<Outcome, BenchError> {
        let start = Instant::now();
        self.until(|stage| stage.arrived).await?;
        let arriving = start.elapsed();

        let (publishing, cpu) = (Instant::now(), self.tally.cpu);
        let mut acknowledged = Runs::default();
        if !self.stopped {
            self.phase = Phase::Delivering;
            self.crew.tell(&Order::Publish { start: unix_micros() + micros(HEADSTART) });
            self.until(|stage| stage.published.is_some()).await?;
            self.stages
                .iter()
                .filter_map(|stage| stage.published.as_ref())
                .for_each(|part| acknowledged.append(part));
        }
        let delivering = publishing.elapsed().saturating_sub(HEADSTART);
        let delivering_cpu = self.tally.cpu.saturating_sub(cpu);
        let delivered = self.tally.received;

        self.phase = Phase::Settling;
        self.crew.tell(&Order::Settle(acknowledged));
        self.until(|stage| stage.done).await?;
        Ok(Outcome {
            tally: self.tally,
            arriving,
            delivering,
            delivering_cpu,
            delivered,
            elapsed: start.elapsed(),
            stopped: self.stopped,
        })
    }

    async fn until(&mut self, done: impl Fn(&Stage) -> bool) -> Result<(), BenchError> {
        while !self.stages.iter().all(&done) {
            tokio::select! {
                // What processes have said is heard before any of them counts as silent.
                biased;
                _ = self.signals.next() => self.on_signal()?,
                Some(event) = self.events.recv() => self.on_event(event)?,
                _ = self.looks.tick() => self.look()?,
            }
        }
        Ok(())
    }

    fn on_signal(&mut self) -> Result<(), BenchError> {
        if self.signalled {
            return Err(BenchError::Interrupted);
        }
        self.signalled = true;
        // Once all is published, there is nothing left to stop.
        self.stopped = self.phase != Phase::Settling;
        self.crew.tell(&Order::Stop);
        self.progress.say("begins nothing new; a second signal ends it at once");
        Ok(())
    }

    fn on_event(&mut self, Event { process, what }: Event) -> Result<(), BenchError> {
        let Some(stage) = self.stages.get_mut(process) else { return Ok(()) };
        stage.heard = Instant::now();
        match what {
            What::Said(Report::Progress(tally)) => self.tally.merge(*tally),
            What::Said(Report::Arrived) => stage.arrived = true,
            What::Said(Report::Published(acknowledged)) => stage.published = Some(acknowledged),
            What::Said(Report::Done) => stage.done = true,
            What::Garbled(source) => return Err(BenchError::Garbled { process, source }),
            What::Ended if stage.done => {}
            What::Ended => {
                return Err(self.crew.ended(process));
            }
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), BenchError> {
        // This process was stopped meanwhile (SIGSTOP), and what others said then may not be here yet.
        if self.looked.elapsed() > SILENCE / 2 {
            self.stages.iter_mut().for_each(|stage| stage.heard = Instant::now());
        }
        self.looked = Instant::now();
        let silent = |stage: &Stage| !stage.done && stage.heard.elapsed() > SILENCE;
        if let Some(process) = self.stages.iter().position(silent) {
            return Err(BenchError::Silent { process, seconds: SILENCE.as_secs() });
        }
        self.progress.show(self.phase, &self.tally);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Plan, Scenario};
    use super::*;

    #[tokio::test]
    async fn what_could_not_be_heard_is_no_silence() {
        let plan = Plan {
            scenario: Scenario::Fanout,
            urls: Vec::new(),
            connections: 1,
            rooms: 1,
            messages: 1,
            interval: Duration::from_secs(1),
            size: 1,
            ramp: Duration::ZERO,
            processes: 1,
            sources: Vec::new(),
        };
        let crew = Crew::start(std::iter::empty()).unwrap();
        let mut conductor = Conductor::new(crew, Signals::listen().unwrap(), Progress::new(&plan));
        let long_ago = Instant::now().checked_sub(SILENCE * 2).unwrap();
        let stage = || Stage { heard: long_ago, arrived: false, published: None, done: false };
        conductor.stages = vec![stage()];
        conductor.looked = long_ago;
        assert!(conductor.look().is_ok());
        conductor.stages = vec![stage()];
        assert!(matches!(conductor.look(), Err(BenchError::Silent { process: 0, .. })));
    }
}
