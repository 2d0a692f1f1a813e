//! Rooms with and without a listener.

use super::*;

#[test]
fn a_room_without_a_listener_is_not_read_past_its_cursor() {
    let (mut bench, socket) = Bench::online();
    bench.core.subscribe(bench.now, &room("chat"), SubscribeOptions::default());
    let ask = asked(&bench.effects());
    bench.frame(socket, subscribed(ask.id, "e1", 4, ("e1", 4), None));
    assert_eq!(bench.frame(socket, message(5)), []);
    assert_eq!(bench.frame(socket, message(6)), []);
    bench.core.attach(bench.now, &room("chat")).unwrap();
    let ask = asked(&bench.effects());
    assert_eq!(ask.after, Some(at("e1", 4)));
}

#[test]
fn a_room_without_a_listener_waits_for_one_after_a_reconnection() {
    let (mut bench, socket) = Bench::subscribed(4);
    bench.core.detach(bench.now, &room("chat"));
    bench.core.closed(bench.now, socket, 1006, "");
    bench.wait_for_retry();
    bench.get_online();
    assert_eq!(bench.effects(), []);
    bench.core.attach(bench.now, &room("chat")).unwrap();
    assert_eq!(asked(&bench.effects()).after, Some(at("e1", 4)));
}

#[test]
fn messages_queued_for_a_listener_that_leaves_come_again() {
    let (mut bench, socket) = Bench::subscribed(4);
    for offset in 5..=7 {
        bench.core.frame(bench.now, socket, message(offset));
    }
    let Some(Effect::Deliver(first)) = bench.core.poll_effect() else { panic!("nothing is delivered") };
    assert_eq!(first.position, at("e1", 5));
    // Its listener removes itself while it is called.
    bench.core.detach(bench.now, &room("chat"));
    bench.core.delivered(bench.now, &room("chat"), first.delivery);
    assert_eq!(bench.effects(), []);
    bench.core.attach(bench.now, &room("chat")).unwrap();
    assert_eq!(asked(&bench.effects()).after, Some(at("e1", 5)));
}

/// 5, 6 and 8 came at once, so that 7 is asked for after 6; 5 is handed out, the rest is queued.
fn with_a_hole_in_the_queue() -> (Bench, SocketId) {
    let (mut bench, socket) = Bench::subscribed(4);
    for offset in [5, 6, 8] {
        bench.core.frame(bench.now, socket, message(offset));
    }
    let first = bench.core.poll_effect();
    assert!(matches!(first, Some(Effect::Deliver(delivery)) if delivery.position == at("e1", 5)));
    (bench, socket)
}

#[test]
fn a_listener_that_leaves_while_a_hole_is_filled_loses_nothing() {
    let (mut bench, socket) = with_a_hole_in_the_queue();
    bench.core.detach(bench.now, &room("chat"));
    let void = asked(&bench.effects());
    assert_eq!(void.after, Some(at("e1", 6)));
    assert_eq!(bench.frame(socket, subscribed(void.id, "e1", 6, ("e1", 8), Some(true))), []);
    bench.core.attach(bench.now, &room("chat")).unwrap();
    assert_eq!(asked(&bench.effects()).after, Some(at("e1", 5)));
}

#[test]
fn a_call_that_waits_while_its_listener_leaves_is_answered() {
    let (mut bench, socket) = with_a_hole_in_the_queue();
    let history = SubscribeOptions { history: Some(1), ..SubscribeOptions::default() };
    let call = bench.core.subscribe(bench.now, &room("chat"), history);
    bench.core.detach(bench.now, &room("chat"));
    let Some(Effect::Send(_, ClientFrame::Subscribe(ask))) = bench.effects().pop() else {
        panic!("nothing is asked for")
    };
    assert_eq!((ask.after, ask.history), (Some(at("e1", 5)), Some(1)));
    let effects = bench.frame(socket, subscribed(ask.id, "e1", 5, ("e1", 8), Some(true)));
    assert!(matches!(&effects[..], [Effect::Done(done, Ok(_))] if *done == call));
}

#[test]
fn a_loss_that_was_queued_behind_a_listener_that_leaves_is_told_once() {
    let (mut bench, socket) = Bench::subscribed(4);
    let lost = gap(at("e1", 5), at("e1", 8));
    bench.core.frame(bench.now, socket, message(5));
    bench.core.frame(bench.now, socket, ServerFrame::Gap(lost.clone()));
    bench.core.detach(bench.now, &room("chat"));
    assert_eq!(bench.effects(), []);
    bench.core.attach(bench.now, &room("chat")).unwrap();
    let ask = asked(&bench.effects());
    assert_eq!(ask.after, Some(at("e1", 4)));
    bench.frame(socket, subscribed(ask.id, "e1", 4, ("e1", 8), Some(true)));
    bench.frame(socket, message(5));
    assert_eq!(bench.frame(socket, ServerFrame::Gap(lost.clone())), [Effect::Gap(lost)]);

    // One that is told before a message stays told.
    let lost = gap(at("e1", 8), at("e1", 9));
    bench.core.frame(bench.now, socket, ServerFrame::Gap(lost.clone()));
    bench.core.frame(bench.now, socket, message(10));
    bench.core.detach(bench.now, &room("chat"));
    assert_eq!(bench.effects(), [Effect::Gap(lost)]);
    bench.core.attach(bench.now, &room("chat")).unwrap();
    assert_eq!(asked(&bench.effects()).after, Some(at("e1", 9)));
}
