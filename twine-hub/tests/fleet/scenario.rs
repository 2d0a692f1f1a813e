//! What a scenario says. It has a text (JSON), by which it can be carried out again.

use serde::{Deserialize, Serialize};

use crate::faulty_proxy::Fault as Trouble;
use crate::wire::Fault;

/// Who takes part in a fleet, what happens to them, and what may come of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    /// The role of each hub.
    pub(crate) roles: Vec<String>,
    /// By how many seconds the clock of each hub is wrong; those of later hubs are right.
    pub(crate) clocks: Vec<i64>,
    pub(crate) redis: Layout,
    /// Whether all clients and publishers come through HAProxy, which sends each to the next hub.
    pub(crate) balanced: bool,
    /// Whether each hub is in a network of its own (see [`namespaces`](crate::namespaces)).
    pub(crate) apart: bool,
    /// What happens, one after the other; each time under load, and until it was felt.
    pub(crate) events: Vec<Event>,
    pub(crate) losses: Losses,
}

impl Default for Scenario {
    /// Two hubs and a Redis, to which nothing happens.
    fn default() -> Self {
        Self {
            name: String::new(),
            roles: roles(&["all", "all"]),
            clocks: Vec::new(),
            redis: Layout::Alone,
            balanced: false,
            apart: false,
            events: Vec::new(),
            losses: Losses::Never,
        }
    }
}

/// The roles of hubs.
pub(crate) fn roles(roles: &[&str]) -> Vec<String> {
    roles.iter().map(|&role| role.to_owned()).collect()
}

/// How Redis is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Layout {
    /// One server that keeps nothing on its disk, unless it is asked to.
    Alone,
    /// One server that writes all that it does to its disk.
    Durable,
    /// A master, a replica, and a sentinel that decides which is which.
    Sentinel,
    /// Three masters that share the rooms.
    Cluster,
    /// Three masters, the first with a replica that may take its place.
    ClusterWithReplica,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Event {
    /// One of the hubs is killed amid its work, and later started again.
    KillHub,
    /// Each hub is asked to stop, and started again, while the others go on.
    RestartHubs,
    /// `FLUSHALL`.
    FlushRedis,
    /// `SAVE`: what Redis has now is what it starts with later.
    SaveRedis,
    /// Redis is killed, and starts with what is on its disk once publishes were refused.
    RestartRedis,
    /// Redis stops (`SIGSTOP`) and keeps its connections, until publishes were refused.
    PauseRedis,
    /// The master is killed for good, and its replica takes its place.
    KillMaster,
    /// The same, after the replica has got nothing more of what happened for a while.
    KillMasterAheadOfReplica,
    /// The master stops until its replica has taken its place, and then believes that it still is it.
    SupersedeMaster,
    /// The replica becomes a master and is named as such, while the old one goes on, and a hub with it
    /// that can't ask the sentinel; until some publishes were acknowledged, and for so long at least.
    SplitMasters { seconds: u64 },
    /// All requests to the table go wrong, until publishes were refused.
    Table(Trouble),
    /// Something is wrong between hubs and a back end, for so long at least, and until it was felt.
    Between { hubs: Hubs, and: BackEnd, fault: Fault, seconds: u64 },
    /// Packets between hubs and Redis don't arrive, for so long at least. Only where hubs are apart.
    Packets { hubs: Hubs, fault: PacketFault, seconds: u64 },
}

/// To which hubs it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Hubs {
    /// To one of them, whichever is drawn.
    One,
    All,
}

/// What hubs need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum BackEnd {
    Redis,
    Table,
}

/// What becomes of packets between a hub and Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum PacketFault {
    /// None arrives.
    Partition,
    /// None of the hub's arrives at Redis.
    Unheard,
    /// None of Redis's arrives at the hub.
    Deaf,
    /// So many of a hundred are lost, each way.
    Loss { percent: u8 },
    /// The hub sends no more than so many kilobits a second, to whomever.
    Rate { kbit: u32 },
}

impl Event {
    /// Whether Redis may have lost by it what it had.
    pub(crate) fn loses_redis(self) -> bool {
        matches!(
            self,
            Self::FlushRedis
                | Self::RestartRedis
                | Self::KillMaster
                | Self::KillMasterAheadOfReplica
                | Self::SupersedeMaster
                | Self::SplitMasters { .. }
        )
    }

    /// Whether hubs end by it, and with them their clients' connections.
    pub(crate) fn ends_hubs(self) -> bool {
        matches!(self, Self::KillHub | Self::RestartHubs)
    }
}

/// What subscribers may be told that they can't get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Losses {
    Never,
    /// Places that were given out, for which no publisher was told that its message is stored.
    OfWhatWasNotAcknowledged,
}

impl Scenario {
    /// Reads the text of a scenario, or of the file that it names.
    pub(crate) fn read(text: &str) -> Self {
        if !text.trim_start().starts_with('{') {
            let file = std::fs::read_to_string(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            return serde_json::from_str(&file).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
        serde_json::from_str(text).unwrap_or_else(|error| panic!("the scenario can't be read: {error}"))
    }

    /// Its text, in one line.
    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_is_read_as_it_was_written() {
        let scenario = Scenario {
            name: "it's one".to_owned(),
            clocks: vec![-300, 0],
            redis: Layout::ClusterWithReplica,
            events: vec![
                Event::KillHub,
                Event::Table(Trouble::Slow { millis: 5_000 }),
                Event::Between {
                    hubs: Hubs::One,
                    and: BackEnd::Redis,
                    fault: Fault::Narrow { bytes: 1_000 },
                    seconds: 3,
                },
                Event::Packets { hubs: Hubs::All, fault: PacketFault::Loss { percent: 20 }, seconds: 3 },
            ],
            losses: Losses::OfWhatWasNotAcknowledged,
            ..Scenario::default()
        };
        assert_eq!(Scenario::read(&scenario.text()), scenario);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), scenario.text()).unwrap();
        assert_eq!(Scenario::read(file.path().to_str().unwrap()), scenario);
        let short = Scenario::read(r#"{"events": ["kill-hub", {"table": "throttle"}]}"#);
        assert_eq!(short.events, [Event::KillHub, Event::Table(Trouble::Throttle)]);
    }

    #[test]
    #[should_panic(expected = "unknown variant `kill-hubs`")]
    fn an_event_that_does_not_exist_is_told() {
        Scenario::read(r#"{"events": ["kill-hubs"]}"#);
    }
}
