//! A fleet of real processes, treated badly: hubs, Redis, DynamoDB's engine and what lies between them
//! fail under load, and what holds then is counted message by message.
//!
//! A [`Scenario`](scenario::Scenario) says who takes part and what happens to them. Whatever it is, no
//! message that was acknowledged may be missing, none may come twice, every subscriber sees a room in
//! the same order, publishes are refused soon and clearly while they can't be stored, and everybody is
//! current again once the faults are over, without a restart.
//!
//! `TWINE_FLEET_ROUNDS` says how often the faults of each scenario happen, `TWINE_FLEET_SEED` repeats
//! the draws of an earlier run, and `replay` carries out what `TWINE_FLEET_SCENARIO` says; a failure
//! shows all three.

// Clippy knows a test by its attribute, and a test's helpers have none.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used)]

mod back_ends;
#[path = "../support/dynamodb_local.rs"]
mod dynamodb_local;
mod events;
#[allow(dead_code, reason = "other tests share this file")]
#[path = "../support/faulty_proxy.rs"]
mod faulty_proxy;
mod history;
#[allow(dead_code, reason = "other tests share this file")]
#[path = "../torture/hub.rs"]
mod hub;
#[allow(dead_code, reason = "other tests share this file")]
#[path = "../torture/ledger.rs"]
mod ledger;
mod ledger_checks;
mod members;
mod namespaces;
#[allow(dead_code, reason = "other tests share this file")]
#[path = "../haproxy/proxy.rs"]
mod proxy;
mod publishers;
mod random;
mod readers;
mod runner;
mod scenario;
mod scenarios;
#[allow(dead_code, reason = "other tests share this file")]
#[path = "../../src/broker/redis/tests/server.rs"]
mod server;
mod sessions;
#[path = "../http/support.rs"]
#[allow(dead_code, reason = "other tests share this file")]
mod support;
#[path = "../support/tab.rs"]
#[allow(dead_code, reason = "other tests share this file")]
mod tab;
#[path = "../support/wire.rs"]
mod wire;

use crate::runner::run;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hubs_come_and_go() {
    run(&scenarios::hubs_come_and_go()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hubs_are_restarted_behind_a_balancer() {
    run(&scenarios::hubs_are_restarted_behind_a_balancer()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_differ() {
    run(&scenarios::clocks_differ()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_fails() {
    run(&scenarios::redis_fails()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_many() {
    run(&scenarios::redis_is_many()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_cannot_be_reached() {
    run(&scenarios::redis_cannot_be_reached()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_fails() {
    run(&scenarios::the_table_fails()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_is_slow_or_down() {
    run(&scenarios::the_table_is_slow_or_down()).await;
}

#[test]
fn packets_are_lost() {
    namespaces::within("packets_are_lost", || block_on(run(&scenarios::packets_are_lost())));
}

#[test]
#[ignore = "carries out what TWINE_FLEET_SCENARIO says"]
fn replay() {
    let text = std::env::var("TWINE_FLEET_SCENARIO");
    let scenario = scenario::Scenario::read(&text.expect("a scenario, or the name of a file that has one"));
    let replay = || block_on(run(std::slice::from_ref(&scenario)));
    if scenario.apart {
        namespaces::within("replay", replay);
    } else {
        replay();
    }
}

#[test]
#[ignore = "goes on for as long as TWINE_FLEET_MINUTES says: make torture"]
fn torture() {
    let torture = || block_on(runner::torture());
    if !namespaces::within("torture", torture) {
        torture();
    }
}

/// Runs as the other tests do.
fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.unwrap().block_on(test);
}
