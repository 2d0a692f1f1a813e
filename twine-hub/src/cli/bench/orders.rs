//! What the processes of a run say to each other: a line of JSON each.

use std::io::Write;

use serde::{Deserialize, Serialize};

use super::plan::Plan;
use super::tally::Tally;

/// What a process is to do; the first line it is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) plan: Plan,
    /// Which of the plan's processes it is.
    pub(super) process: usize,
    /// Makes the names of rooms this run's own.
    pub(super) run: String,
    /// Here rather than in an argument, which every user of the machine could see.
    pub(super) key: String,
}

/// What a process is told then.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Order {
    /// All are there: publish, by a clock that begins then (microseconds since 1970-01-01 UTC).
    Publish { start: u64 },
    /// Begin nothing new.
    Stop,
    /// So many messages of each room, in the rooms' order, were acknowledged: wait for them, say what
    /// came, and end.
    Settle(Runs),
}

/// What a process says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Report {
    /// What was counted since the last report.
    Progress(Box<Tally>),
    /// Each of its connections is there, or has failed.
    Arrived,
    /// So many messages of each of its rooms were acknowledged.
    Published(Runs),
    /// The last word.
    Done,
}

/// Numbers of which many in a row are equal: each, and how often it comes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Runs(Vec<(u32, usize)>);

impl Job {
    pub(super) fn room(&self, room: usize) -> String {
        format!("bench-{}-{room}", self.run)
    }
}

impl Runs {
    pub(super) fn push(&mut self, number: u32, times: usize) {
        match self.0.last_mut() {
            Some((last, n)) if *last == number => *n += times,
            _ => self.0.push((number, times)),
        }
    }

    pub(super) fn append(&mut self, more: &Self) {
        more.0.iter().for_each(|&(number, times)| self.push(number, times));
    }

    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> {
        self.0.iter().flat_map(|&(number, times)| std::iter::repeat_n(number, times))
    }
}

impl FromIterator<u32> for Runs {
    fn from_iter<I: IntoIterator<Item = u32>>(numbers: I) -> Self {
        let mut runs = Self::default();
        numbers.into_iter().for_each(|number| runs.push(number, 1));
        runs
    }
}

/// Writes one line, at once.
pub(super) fn say<T: Serialize>(mut output: impl Write, what: &T) -> std::io::Result<()> {
    output.write_all(&line(what)?)?;
    output.flush()
}

/// As it is written.
pub(super) fn line<T: Serialize>(what: &T) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_equal_are_said_once() {
        let (mut runs, more) = ([3, 3, 2].into_iter().collect::<Runs>(), [2, 2].into_iter().collect());
        runs.append(&more);
        assert_eq!(runs.numbers().collect::<Vec<_>>(), [3, 3, 2, 2, 2]);
        assert_eq!(serde_json::to_string(&Order::Settle(runs)).unwrap(), r#"{"settle":[[3,2],[2,3]]}"#);
    }
}
