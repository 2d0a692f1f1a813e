//! What a run does: the flags, and the scenario's defaults for those that are not given.

use std::net::IpAddr;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::Bench;
use super::error::BenchError;
use super::share::share;

/// Connections of one process, at most: it has one thread, and so a core.
const CONNECTIONS_PER_PROCESS: usize = 20_000;
/// Files of a process that are no connections.
const OTHER_FILES: usize = 1_000;
/// More processes than this are a mistake.
const PROCESSES_MAX: usize = 256;
/// Connections of a run, at most.
const CONNECTIONS_MAX: usize = 10_000_000;
/// Messages of a room, at most.
const MESSAGES_MAX: f64 = 100_000_000.0;

/// Defaults that go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Scenario {
    /// How many connections: 96,000 over 20 minutes, and one message to each in the end.
    Ramp,
    /// How many messages: 40,800 connections over 2 minutes, then one message a second to each, for a minute.
    Fanout,
}

/// A run, with nothing left open. Every process knows all of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) scenario: Scenario,
    /// Room `r` is at the URL `r` modulo their number.
    pub(super) urls: Vec<String>,
    pub(super) connections: usize,
    /// Connection `c` is in the room `c` modulo this.
    pub(super) rooms: usize,
    /// Messages of each room.
    pub(super) messages: u32,
    /// Time from one message of a room to its next.
    pub(super) interval: Duration,
    /// Bytes of a message's data.
    pub(super) size: usize,
    /// Time over which connections are made.
    pub(super) ramp: Duration,
    pub(super) processes: usize,
    /// Where connections come from, as [`Plan::source_of`] says; where the system likes, without any.
    pub(super) sources: Vec<IpAddr>,
}

impl Plan {
    /// Of a machine where a process may have so many open files.
    ///
    /// # Errors
    /// [`BenchError::Flags`] where flags don't fit each other, or this machine.
    pub(super) fn new(flags: &Bench, urls: Vec<String>, files: u64) -> Result<Self, BenchError> {
        let defaults = match flags.scenario {
            Scenario::Ramp => (96_000, Duration::from_mins(20)),
            Scenario::Fanout => (40_800, Duration::from_mins(2)),
        };
        let connections = flags.connections.unwrap_or(defaults.0);
        let rooms = flags.rooms.unwrap_or(connections);
        if connections > CONNECTIONS_MAX {
            return Err(BenchError::Flags(format!("--connections is {CONNECTIONS_MAX} at most")));
        }
        if rooms > connections {
            return Err(BenchError::Flags(format!(
                "with --rooms {rooms} and --connections {connections} nobody would be in some of the rooms"
            )));
        }
        let duration = flags.duration.unwrap_or(Duration::from_mins(1));
        let (messages, interval) = messages(flags, duration)?;
        Ok(Self {
            scenario: flags.scenario,
            connections,
            rooms,
            messages,
            interval,
            size: flags.size,
            ramp: flags.ramp.unwrap_or(defaults.1),
            processes: processes(flags.processes, connections, files)?,
            sources: Vec::new(),
            urls,
        })
    }

    pub(super) fn room_of(&self, connection: usize) -> usize {
        connection % self.rooms
    }

    /// The place of the room's server among [`Plan::urls`].
    pub(super) fn url_of(&self, room: usize) -> usize {
        room % self.urls.len()
    }

    /// The place of the connection's address among [`Plan::sources`]. Each address gets connections to
    /// each server.
    pub(super) fn source_of(&self, connection: usize) -> Option<usize> {
        connection.checked_div(self.urls.len())?.checked_rem(self.sources.len())
    }

    pub(super) fn connections_of(&self, process: usize) -> std::ops::Range<usize> {
        share(self.connections, self.processes, process)
    }

    /// The rooms that a process publishes to.
    pub(super) fn rooms_of(&self, process: usize) -> std::ops::Range<usize> {
        share(self.rooms, self.processes, process)
    }
}

/// How many messages a room gets, and how far they are apart.
fn messages(flags: &Bench, duration: Duration) -> Result<(u32, Duration), BenchError> {
    let rate = match (flags.rate, flags.scenario) {
        (Some(rate), _) => rate,
        (None, Scenario::Fanout) => 1.0,
        // One, at a moment of its own for each room.
        (None, Scenario::Ramp) => return Ok((1, duration)),
    };
    let interval = Some(rate)
        .filter(|rate| rate.is_finite() && *rate > 0.0)
        .and_then(|rate| Duration::try_from_secs_f64(1.0 / rate).ok())
        .filter(|interval| !interval.is_zero())
        .ok_or_else(|| BenchError::Flags(format!("--rate {rate}: that is no number of messages a second")))?;
    let messages = (rate * duration.as_secs_f64()).round().max(1.0);
    if messages > MESSAGES_MAX {
        return Err(BenchError::Flags(format!("{messages} messages a room are too many for one run")));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and MESSAGES_MAX")]
    Ok((messages as u32, interval))
}

/// How many processes, as asked or as it takes.
fn processes(asked: Option<usize>, connections: usize, files: u64) -> Result<usize, BenchError> {
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    let places = files.saturating_sub(OTHER_FILES.min(files / 2)).max(1);
    let least = connections.div_ceil(places);
    let processes = asked.unwrap_or(least.max(connections.div_ceil(CONNECTIONS_PER_PROCESS)));
    if processes < least || processes > PROCESSES_MAX {
        return Err(BenchError::Flags(format!(
            "{connections} connections take {least} processes or more, for each may have {files} open files \
             (ulimit -Hn), and {PROCESSES_MAX} processes at most: set --processes, or raise the limit"
        )));
    }
    Ok(processes.min(connections))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        bench: Bench,
    }

    fn plan(flags: &[&str]) -> Result<Plan, BenchError> {
        let line = Line::parse_from([&["bench"], flags].concat());
        Plan::new(&line.bench, vec!["a".to_owned(), "b".to_owned()], 20_000)
    }

    #[test]
    fn a_scenario_is_what_is_not_said_otherwise() {
        let fanout = plan(&[]).unwrap();
        assert_eq!((fanout.connections, fanout.rooms, fanout.messages), (40_800, 40_800, 60));
        assert_eq!((fanout.interval, fanout.ramp), (Duration::from_secs(1), Duration::from_mins(2)));
        let ramp = plan(&["--scenario", "ramp"]).unwrap();
        assert_eq!((ramp.connections, ramp.rooms, ramp.messages), (96_000, 96_000, 1));
        assert_eq!((ramp.interval, ramp.ramp), (Duration::from_mins(1), Duration::from_mins(20)));
        let mine = plan(&[
            "--scenario=ramp",
            "--connections=100",
            "--rooms=10",
            "--rate=0.5",
            "--duration=10s",
            "--ramp=0s",
        ]);
        let mine = mine.unwrap();
        assert_eq!((mine.connections, mine.rooms, mine.messages), (100, 10, 5));
        assert_eq!((mine.interval, mine.ramp), (Duration::from_secs(2), Duration::ZERO));
        assert_eq!(plan(&["--rate", "0.001", "--duration", "1s"]).unwrap().messages, 1);
    }

    #[test]
    fn there_are_as_many_processes_as_open_files_ask_for() {
        assert_eq!(plan(&[]).unwrap().processes, 3);
        assert_eq!(plan(&["--connections", "19000"]).unwrap().processes, 1);
        assert_eq!(plan(&["--connections", "19001"]).unwrap().processes, 2);
        assert_eq!(plan(&["--connections", "5", "--processes", "3"]).unwrap().processes, 3);
        assert_eq!(plan(&["--connections", "2", "--processes", "3"]).unwrap().processes, 2);
        assert!(plan(&["--processes", "2"]).is_err());
        assert_eq!(processes(None, 40_800, u64::MAX).unwrap(), 3);
        assert_eq!(processes(None, 1_000, 1_024).unwrap(), 2);
    }

    #[test]
    fn flags_that_do_not_fit_are_refused() {
        for bad in [
            &["--rooms", "11", "--connections", "10"][..],
            &["--rate", "0"],
            &["--rate=-1"],
            &["--rate", "inf"],
            &["--rate", "1e12"],
            &["--connections", "10000001"],
        ] {
            assert!(matches!(plan(bad), Err(BenchError::Flags(_))), "{bad:?}");
        }
    }

    #[test]
    fn a_room_has_one_server() {
        let plan = plan(&["--connections", "10", "--rooms", "3"]).unwrap();
        let places: Vec<_> = (0..6).map(|c| (plan.room_of(c), plan.url_of(plan.room_of(c)))).collect();
        assert_eq!(places, [(0, 0), (1, 1), (2, 0), (0, 0), (1, 1), (2, 0)]);
    }

    #[test]
    fn each_address_gets_connections_to_each_server() {
        let mut plan = plan(&["--connections", "24"]).unwrap();
        assert_eq!(plan.source_of(7), None);
        for (urls, sources) in [(2, 2), (2, 4), (4, 2), (3, 2), (1, 3)] {
            plan.urls = vec![String::new(); urls];
            plan.sources = vec![IpAddr::from([127, 0, 0, 2]); sources];
            let pairs =
                (0..plan.connections).map(|c| (plan.url_of(plan.room_of(c)), plan.source_of(c).unwrap()));
            assert_eq!(pairs.collect::<std::collections::HashSet<_>>().len(), urls * sources);
        }
    }
}
