//! What moves a cursor.

use super::*;

#[test]
fn messages_are_delivered_in_order_and_once() {
    let (mut bench, socket) = Bench::subscribed(4);
    assert_eq!(bench.frame(socket, message(4)), []);
    assert_eq!(delivered(&bench.frame(socket, message(5))), [(at("e1", 5), false)]);
    assert_eq!(bench.frame(socket, message(5)), []);
    assert_eq!(delivered(&bench.frame(socket, message(6))), [(at("e1", 6), false)]);
}

#[test]
fn a_hole_is_refused_and_asked_for_from_the_cursor() {
    let (mut bench, socket) = Bench::subscribed(4);
    let ask = asked(&bench.frame(socket, message(6)));
    assert_eq!(ask.after, Some(at("e1", 4)));
    // What was under way before the answer is of the old subscription.
    assert_eq!(bench.frame(socket, message(5)), []);
    assert_eq!(bench.frame(socket, subscribed(ask.id + 1, "e1", 9, ("e1", 9), None)), []);
    assert_eq!(bench.frame(socket, subscribed(ask.id, "e1", 4, ("e1", 6), Some(true))), []);
    assert_eq!(delivered(&bench.frame(socket, message(5))), [(at("e1", 5), true)]);
    assert_eq!(delivered(&bench.frame(socket, message(6))), [(at("e1", 6), true)]);
    assert_eq!(delivered(&bench.frame(socket, message(7))), [(at("e1", 7), false)]);
}

#[test]
fn a_hub_that_goes_on_leaving_holes_is_left() {
    let (mut bench, socket) = Bench::subscribed(4);
    for _ in 0..limits::SETBACKS_MAX {
        let ask = asked(&bench.frame(socket, message(6)));
        bench.frame(socket, subscribed(ask.id, "e1", 4, ("e1", 6), Some(true)));
    }
    assert_eq!(bench.frame(socket, message(6))[0], Effect::Close(socket, CloseCode::Normal));
}

#[test]
fn an_epoch_is_entered_only_from_the_end_of_the_one_before() {
    let (mut bench, socket) = Bench::subscribed(4);
    assert_eq!(bench.frame(socket, epoch("e2", at("e1", 4))), []);
    assert_eq!(delivered(&bench.frame(socket, message(1))), [(at("e2", 1), false)]);
    let ask = asked(&bench.frame(socket, epoch("e3", at("e2", 2))));
    assert_eq!(ask.after, Some(at("e2", 1)));
}

#[test]
fn a_seam_that_no_one_listens_to_is_asked_for_when_someone_does() {
    let (mut bench, socket) = Bench::subscribed(4);
    bench.core.detach(bench.now, &room("chat"));
    assert_eq!(bench.frame(socket, epoch("e2", at("e1", 9))), []);
    bench.core.attach(bench.now, &room("chat")).unwrap();
    assert_eq!(asked(&bench.effects()).after, Some(at("e1", 4)));
}

#[test]
fn recovered_means_up_to_the_head_across_epochs() {
    // Names of epochs that sort against their order: a clock was set back.
    let (mut bench, socket) = Bench::subscribed(4);
    bench.core.closed(bench.now, socket, 1006, "");
    bench.wait_for_retry();
    let socket = bench.get_online();
    let ask = asked(&bench.effects());
    bench.frame(socket, subscribed(ask.id, "e1", 4, ("e0", 1), Some(true)));
    assert_eq!(delivered(&bench.frame(socket, message(5))), [(at("e1", 5), true)]);
    bench.frame(socket, epoch("e0", at("e1", 5)));
    assert_eq!(delivered(&bench.frame(socket, message(1))), [(at("e0", 1), true)]);
    assert_eq!(delivered(&bench.frame(socket, message(2))), [(at("e0", 2), false)]);
    bench.frame(socket, epoch("e2", at("e0", 2)));
    assert_eq!(delivered(&bench.frame(socket, message(1))), [(at("e2", 1), false)]);
}

#[test]
fn a_new_epoch_after_the_head_is_live() {
    let (mut bench, socket) = Bench::subscribed(4);
    bench.frame(socket, epoch("e2", at("e1", 4)));
    assert_eq!(delivered(&bench.frame(socket, message(1))), [(at("e2", 1), false)]);
}

#[test]
fn a_gap_moves_the_cursor_and_is_told() {
    let (mut bench, socket) = Bench::subscribed(4);
    let loss = gap(at("e1", 4), at("e1", 9));
    assert_eq!(bench.frame(socket, ServerFrame::Gap(loss.clone())), [Effect::Gap(loss.clone())]);
    assert_eq!(bench.frame(socket, ServerFrame::Gap(loss)), []);
    assert_eq!(delivered(&bench.frame(socket, message(10))), [(at("e1", 10), false)]);
    let ask = asked(&bench.frame(socket, ServerFrame::Gap(gap(at("e1", 12), at("e1", 15)))));
    assert_eq!(ask.after, Some(at("e1", 10)));
}

#[test]
fn a_subscription_that_could_not_recover_tells_the_loss() {
    let (mut bench, socket) = Bench::subscribed(4);
    bench.core.closed(bench.now, socket, 1006, "");
    bench.wait_for_retry();
    let socket = bench.get_online();
    let ask = asked(&bench.effects());
    let frame = Subscribed {
        id: ask.id,
        room: room("chat"),
        epoch: Epoch::new("e2").unwrap(),
        offset: Offset::new(7).unwrap(),
        head: at("e2", 7),
        recovered: Some(false),
        reason: Some(GapReason::Expired),
        lost: Some(Lost { from: at("e1", 4), to: at("e2", 7), count: None }),
    };
    let effects = bench.frame(socket, ServerFrame::Subscribed(frame));
    assert_eq!(effects, [Effect::Gap(gap(at("e1", 4), at("e2", 7)))]);
    assert_eq!(bench.core.cursor(&room("chat")), Some(&at("e2", 7)));
}

#[test]
fn a_position_that_the_hub_does_not_know_is_told_as_a_loss_from_there() {
    let (mut bench, socket) = Bench::online();
    let options = SubscribeOptions { after: Some(at("e0", 9)), ..SubscribeOptions::default() };
    bench.core.subscribe(bench.now, &room("chat"), options);
    let ask = asked(&bench.effects());
    assert_eq!(ask.after, Some(at("e0", 9)));
    let effects = bench.frame(socket, subscribed(ask.id, "e1", 4, ("e1", 4), Some(false)));
    let Effect::Gap(gap) = &effects[0] else { panic!("{effects:?}") };
    assert_eq!((&gap.from, &gap.to, gap.reason), (&at("e0", 9), &at("e1", 4), GapReason::Unknown));
}
