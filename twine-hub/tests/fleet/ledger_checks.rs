//! What the [`Ledger`] finds wrong with a hub's log. A check that can't fail is none.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::json;
use twine_protocol::Position;
use twine_server_sdk::Published;

use crate::ledger::{Ledger, Place};

fn at(offset: u64) -> Position {
    Position::new("1", offset).unwrap()
}

/// A ledger of three messages to the room `red`, acknowledged at the places 1 to 3; the first two are of
/// one publisher.
fn ledger() -> (Ledger, Vec<Place>) {
    let ledger = Ledger::new();
    let log: Vec<Place> = [(1, 1), (2, 1), (3, 2)]
        .map(|(offset, by)| {
            let number = ledger.begin(by, "red");
            acknowledge(&ledger, number, offset);
            (at(offset), number)
        })
        .into();
    (ledger, log)
}

fn acknowledge(ledger: &Ledger, number: usize, offset: u64) {
    let published: Published =
        serde_json::from_value(json!({"room": "red", "epoch": "1", "offset": offset, "duplicate": false}))
            .unwrap();
    ledger.acknowledge(number, &published);
}

/// What the check says about this log. It is the last that the ledger is asked.
fn complaint(ledger: &Ledger, log: &[Place]) -> Option<String> {
    let checked = catch_unwind(AssertUnwindSafe(|| ledger.check("red", log)));
    checked.err().map(|panic| *panic.downcast::<String>().unwrap())
}

#[track_caller]
fn assert_complains(ledger: &Ledger, log: &[Place], about: &str) {
    let complaint = complaint(ledger, log).unwrap_or_default();
    assert!(complaint.contains(about), "{complaint:?}");
}

#[test]
fn a_log_that_has_all_as_it_was_acknowledged_is_right() {
    let (ledger, log) = ledger();
    assert_eq!(complaint(&ledger, &log), None);
}

#[test]
fn an_acknowledged_message_that_is_lost_is_found() {
    for missing in 0..3 {
        let (ledger, mut log) = ledger();
        log.remove(missing);
        assert_complains(&ledger, &log, "is lost");
    }
}

#[test]
fn a_message_that_is_stored_twice_is_found() {
    let (ledger, mut log) = ledger();
    log.push((at(4), 0));
    assert_complains(&ledger, &log, "stored twice");
}

#[test]
fn a_message_that_is_elsewhere_than_its_publisher_was_told_is_found() {
    for wrong in [[(at(1), 0), (at(2), 1), (at(4), 2)], [(at(1), 1), (at(2), 0), (at(3), 2)]] {
        assert_complains(&ledger().0, &wrong, "is not where it was said");
    }
}

#[test]
fn messages_of_a_publisher_that_are_out_of_order_are_found() {
    let ledger = Ledger::new();
    let (first, second) = (ledger.begin(1, "red"), ledger.begin(1, "red"));
    acknowledge(&ledger, first, 2);
    acknowledge(&ledger, second, 1);
    assert_complains(&ledger, &[(at(1), second), (at(2), first)], "came after");
}

#[test]
fn a_message_that_is_stored_though_its_publisher_still_waits_is_found() {
    let (ledger, mut log) = ledger();
    log.push((at(4), ledger.begin(3, "red")));
    assert_complains(&ledger, &log, "UnderWay");
}

#[test]
fn a_message_that_is_in_another_room_is_found() {
    let (ledger, mut log) = ledger();
    log.push((at(4), ledger.begin(3, "blue")));
    assert_complains(&ledger, &log, "in another room");
}
