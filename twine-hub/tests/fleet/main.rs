//! A fleet of real processes, treated badly: hubs, Redis and DynamoDB's engine fail under load, and
//! what holds then is counted message by message.
//!
//! A [`Scenario`] says who takes part and what happens to them. Whatever it is, no message that was
//! acknowledged may be missing, none may come twice, every subscriber sees a room in the same order,
//! and everybody is current again once the faults are over, without a restart.
//!
//! `TWINE_FLEET_ROUNDS` says how often the faults of each scenario happen, `TWINE_FLEET_SEED` repeats
//! the draws of an earlier run, which a failure shows.

// Clippy knows a test by its attribute, and a test's helpers have none.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used)]

#[path = "../support/dynamodb_local.rs"]
mod dynamodb_local;
#[allow(dead_code, reason = "other tests share this file")]
#[path = "../support/faulty_proxy.rs"]
mod faulty_proxy;
#[allow(dead_code, reason = "other tests share this file")]
#[path = "../torture/hub.rs"]
mod hub;
#[allow(dead_code, reason = "other tests share this file")]
#[path = "../torture/ledger.rs"]
mod ledger;
mod publishers;
mod readers;
mod runner;
mod scenario;
#[allow(dead_code, reason = "other tests share this file")]
#[path = "../../src/broker/redis/tests/server.rs"]
mod server;

use crate::faulty_proxy::Fault as Trouble;
use crate::runner::run;
use crate::scenario::{Event, Layout, Losses, Scenario};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hubs_come_and_go() {
    run(&[
        Scenario {
            name: "a hub is killed, and started again",
            roles: &["all", "all"],
            redis: Layout::Alone,
            events: &[Event::KillHub, Event::KillHub],
            losses: Losses::Never,
        },
        Scenario {
            name: "all hubs are restarted, one after the other",
            roles: &["all", "all", "all"],
            redis: Layout::Alone,
            events: &[Event::RestartHubs],
            losses: Losses::Never,
        },
        Scenario {
            name: "publishing and holding connections apart",
            roles: &["publish", "edge", "edge"],
            redis: Layout::Alone,
            events: &[Event::KillHub],
            losses: Losses::Never,
        },
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_fails() {
    run(&[
        Scenario {
            name: "Redis forgets everything",
            roles: &["all", "all"],
            redis: Layout::Alone,
            events: &[Event::FlushRedis, Event::RestartRedis],
            losses: Losses::OfWhatWasNotAcknowledged,
        },
        Scenario {
            name: "Redis stands still with connections open",
            roles: &["all", "all"],
            redis: Layout::Alone,
            events: &[Event::PauseRedis],
            losses: Losses::Never,
        },
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_many() {
    run(&[
        Scenario {
            name: "a sentinel makes the replica the master",
            roles: &["all", "all"],
            redis: Layout::Sentinel,
            events: &[Event::KillMaster],
            losses: Losses::OfWhatWasNotAcknowledged,
        },
        Scenario {
            name: "a cluster of three masters",
            roles: &["all", "all"],
            redis: Layout::Cluster,
            events: &[Event::KillHub],
            losses: Losses::Never,
        },
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_fails() {
    run(&[Scenario {
        name: "DynamoDB throttles, loses answers, and is silent",
        roles: &["all", "all"],
        redis: Layout::Alone,
        events: &[
            Event::Table(Trouble::Throttle),
            Event::Table(Trouble::LoseAnswer),
            Event::Table(Trouble::Hang),
        ],
        losses: Losses::Never,
    }])
    .await;
}
