//! Every failure that a fleet is to bear, one by one.

use std::time::Duration;

use crate::faulty_proxy::Fault as Trouble;
use crate::scenario::{BackEnd, Event, Hubs, Layout, Losses, PacketFault, Scenario, roles};
use crate::wire::Fault;

/// For how long Redis can't be reached where everyone is to wait for the test, in seconds. Everything
/// that a hub waits for is over before: a command after 5 s, the completion of what another left
/// after 10 s.
const OUTAGE: u64 = 12;
/// ...and where nobody does.
const LONG_OUTAGE: u64 = 30;

/// A fault between hubs and a back end.
fn between(hubs: Hubs, and: BackEnd, fault: Fault, seconds: u64) -> Event {
    Event::Between { hubs, and, fault, seconds }
}

fn packets(hubs: Hubs, fault: PacketFault, seconds: u64) -> Event {
    Event::Packets { hubs, fault, seconds }
}

/// Whether nobody waits for the tests: `make torture`.
pub(crate) fn torture_time() -> Option<Duration> {
    let minutes = std::env::var("TWINE_FLEET_MINUTES").ok()?;
    let minutes = minutes.parse().unwrap_or_else(|_| panic!("TWINE_FLEET_MINUTES is no number: {minutes:?}"));
    Some(Duration::from_mins(minutes))
}

pub(crate) fn hubs_come_and_go() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "a hub is killed, and started again".into(),
            events: vec![Event::KillHub, Event::KillHub],
            ..Scenario::default()
        },
        Scenario {
            name: "all hubs are restarted, one after the other".into(),
            roles: roles(&["all", "all", "all"]),
            events: vec![Event::RestartHubs],
            ..Scenario::default()
        },
        Scenario {
            name: "publishing and holding connections apart".into(),
            roles: roles(&["publish", "edge", "edge"]),
            events: vec![Event::KillHub],
            ..Scenario::default()
        },
    ]
}

pub(crate) fn hubs_are_restarted_behind_a_balancer() -> Vec<Scenario> {
    vec![Scenario {
        name: "three hubs behind HAProxy are restarted, one is killed, and Redis stands still".into(),
        roles: roles(&["all", "all", "all"]),
        balanced: true,
        events: vec![Event::RestartHubs, Event::KillHub, Event::PauseRedis],
        ..Scenario::default()
    }]
}

pub(crate) fn clocks_differ() -> Vec<Scenario> {
    vec![Scenario {
        name: "the clocks of three hubs are five minutes apart".into(),
        roles: roles(&["all", "all", "all"]),
        clocks: vec![-300, 0, 300],
        events: vec![Event::KillHub, Event::RestartRedis, Event::FlushRedis],
        losses: Losses::OfWhatWasNotAcknowledged,
        ..Scenario::default()
    }]
}

pub(crate) fn redis_fails() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "Redis forgets everything".into(),
            events: vec![Event::FlushRedis, Event::RestartRedis],
            losses: Losses::OfWhatWasNotAcknowledged,
            ..Scenario::default()
        },
        Scenario {
            name: "Redis stands still with connections open".into(),
            events: vec![Event::PauseRedis],
            ..Scenario::default()
        },
        Scenario {
            name: "Redis is restarted with its data".into(),
            redis: Layout::Durable,
            events: vec![Event::RestartRedis],
            losses: Losses::OfWhatWasNotAcknowledged,
            ..Scenario::default()
        },
        Scenario {
            name: "Redis is restarted with what it had a while before".into(),
            events: vec![Event::SaveRedis, Event::RestartRedis],
            losses: Losses::OfWhatWasNotAcknowledged,
            ..Scenario::default()
        },
    ]
}

pub(crate) fn redis_is_many() -> Vec<Scenario> {
    let lossy = |name: &str, redis, events| Scenario {
        name: name.into(),
        redis,
        events,
        losses: Losses::OfWhatWasNotAcknowledged,
        ..Scenario::default()
    };
    vec![
        lossy("a sentinel makes the replica the master", Layout::Sentinel, vec![Event::KillMaster]),
        lossy(
            "a sentinel makes a replica the master that lags behind",
            Layout::Sentinel,
            vec![Event::KillMasterAheadOfReplica],
        ),
        lossy("a master comes back that has a successor", Layout::Sentinel, vec![Event::SupersedeMaster]),
        lossy(
            "a hub stays with a master that has a successor",
            Layout::Sentinel,
            vec![Event::SplitMasters { seconds: 0 }],
        ),
        Scenario {
            name: "a cluster of three masters".into(),
            redis: Layout::Cluster,
            events: vec![Event::KillHub],
            ..Scenario::default()
        },
        lossy(
            "one of a cluster's masters stands still, and then starts with nothing",
            Layout::Cluster,
            vec![Event::PauseRedis, Event::RestartRedis],
        ),
        lossy(
            "a cluster makes a replica a master that lags behind",
            Layout::ClusterWithReplica,
            vec![Event::KillMasterAheadOfReplica],
        ),
    ]
}

pub(crate) fn redis_cannot_be_reached() -> Vec<Scenario> {
    let outage = if torture_time().is_some() { LONG_OUTAGE } else { OUTAGE };
    let from_redis = |hubs, fault| between(hubs, BackEnd::Redis, fault, 0);
    vec![
        Scenario {
            name: "no hub reaches Redis for long, and connections stay open".into(),
            events: vec![between(Hubs::All, BackEnd::Redis, Fault::Stall, outage)],
            ..Scenario::default()
        },
        Scenario {
            name: "a hub is cut off from Redis, and not from its clients".into(),
            events: vec![
                between(Hubs::One, BackEnd::Redis, Fault::Stall, outage),
                from_redis(Hubs::One, Fault::Refuse),
            ],
            ..Scenario::default()
        },
        Scenario {
            name: "the ways to Redis are cut, half closed, slow and narrow".into(),
            roles: roles(&["all", "publish", "edge"]),
            events: vec![
                from_redis(Hubs::All, Fault::Cut),
                from_redis(Hubs::One, Fault::HalfClose),
                from_redis(Hubs::One, Fault::Slow { millis: 300 }),
                from_redis(Hubs::All, Fault::Narrow { bytes: 200_000 }),
            ],
            ..Scenario::default()
        },
    ]
}

pub(crate) fn the_table_fails() -> Vec<Scenario> {
    vec![Scenario {
        name: "DynamoDB throttles, loses answers, and is silent".into(),
        events: vec![
            Event::Table(Trouble::Throttle),
            Event::Table(Trouble::LoseAnswer),
            Event::Table(Trouble::Hang),
        ],
        ..Scenario::default()
    }]
}

pub(crate) fn the_table_is_slow_or_down() -> Vec<Scenario> {
    let from_table = |hubs, fault| between(hubs, BackEnd::Table, fault, 0);
    vec![
        Scenario {
            name: "DynamoDB takes a second for an answer, and then five".into(),
            events: vec![
                Event::Table(Trouble::Slow { millis: 1_000 }),
                Event::Table(Trouble::Slow { millis: 5_000 }),
                Event::Table(Trouble::Error),
            ],
            ..Scenario::default()
        },
        Scenario {
            name: "DynamoDB is down, for all hubs and for one".into(),
            events: vec![
                from_table(Hubs::All, Fault::Refuse),
                from_table(Hubs::One, Fault::Stall),
                from_table(Hubs::One, Fault::Cut),
            ],
            ..Scenario::default()
        },
    ]
}

/// What takes networks of its own.
pub(crate) fn packets_are_lost() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "packets between hubs and Redis are lost, one in five".into(),
            apart: true,
            events: vec![
                packets(Hubs::All, PacketFault::Loss { percent: 20 }, 5),
                packets(Hubs::One, PacketFault::Rate { kbit: 2_000 }, 5),
            ],
            ..Scenario::default()
        },
        Scenario {
            name: "a hub and Redis hear nothing of each other, or one hears nothing".into(),
            apart: true,
            events: vec![
                packets(Hubs::One, PacketFault::Partition, 5),
                packets(Hubs::One, PacketFault::Deaf, 0),
                packets(Hubs::One, PacketFault::Unheard, 0),
            ],
            ..Scenario::default()
        },
    ]
}

/// All that need no networks of their own.
pub(crate) fn all() -> Vec<Scenario> {
    [
        hubs_come_and_go(),
        hubs_are_restarted_behind_a_balancer(),
        clocks_differ(),
        redis_fails(),
        redis_is_many(),
        redis_cannot_be_reached(),
        the_table_fails(),
        the_table_is_slow_or_down(),
    ]
    .concat()
}
