//! What the hub is told of cursors.

use super::*;

#[test]
fn a_pong_names_the_cursors_that_moved() {
    let (mut bench, socket) = Bench::subscribed(4);
    assert_eq!(acked(&bench.frame(socket, ServerFrame::Ping)), []);
    bench.frame(socket, message(5));
    bench.through(5);
    assert_eq!(acked(&bench.frame(socket, ServerFrame::Ping)), [at("e1", 5)]);
    assert_eq!(acked(&bench.frame(socket, ServerFrame::Ping)), []);
}

#[test]
fn an_unsettled_callback_holds_the_acknowledged_cursor_back_for_a_while() {
    let (mut bench, socket) = Bench::subscribed(4);
    for offset in 5..=7 {
        bench.frame(socket, message(offset));
    }
    bench.through(5);
    bench.promise(6);
    bench.through(7);
    assert_eq!(acked(&bench.frame(socket, ServerFrame::Ping)), [at("e1", 5)]);
    bench.through(6);
    assert_eq!(acked(&bench.frame(socket, ServerFrame::Ping)), [at("e1", 7)]);
    bench.frame(socket, message(8));
    bench.promise(8);
    assert_eq!(acked(&bench.frame(socket, ServerFrame::Ping)), []);
    bench.now += limits::SETTLE_WAIT;
    assert_eq!(acked(&bench.frame(socket, ServerFrame::Ping)), [at("e1", 8)]);
}

#[test]
fn cursors_are_told_in_the_first_quiet_second() {
    let (mut bench, socket) = Bench::subscribed(4);
    bench.deliver(socket, 5);
    assert_eq!(bench.core.deadline(), Some(bench.now + limits::ACK_QUIET));
    assert_eq!(bench.tick(limits::ACK_QUIET - 1), []);
    bench.deliver(socket, 6);
    // The timer that was set for the first of them finds nothing to do.
    assert_eq!(bench.tick(1), []);
    assert_eq!(acked(&bench.tick(limits::ACK_QUIET - 1)), [at("e1", 6)]);
    assert_eq!(bench.tick(limits::ACK_EVERY), []);
}

#[test]
fn cursors_are_told_every_five_seconds_while_messages_flow() {
    let (mut bench, socket) = Bench::subscribed(0);
    let mut told = Vec::new();
    for offset in 1..=40 {
        bench.deliver(socket, offset);
        let effects = bench.tick(limits::ACK_QUIET / 2);
        if !effects.is_empty() {
            told.extend(acked(&effects));
        }
    }
    assert_eq!(told, [at("e1", 10), at("e1", 20), at("e1", 30), at("e1", 40)]);
}

#[test]
fn a_pong_does_both_and_leaves_nothing_to_tell() {
    let (mut bench, socket) = Bench::subscribed(4);
    bench.deliver(socket, 5);
    assert_eq!(acked(&bench.frame(socket, ServerFrame::Ping)), [at("e1", 5)]);
    assert_eq!(bench.tick(limits::ACK_EVERY), []);
}

#[test]
fn a_promise_that_settles_late_is_told_then() {
    let (mut bench, socket) = Bench::subscribed(4);
    bench.frame(socket, message(5));
    bench.promise(5);
    assert_eq!(bench.tick(limits::ACK_EVERY), []);
    bench.through(5);
    assert_eq!(acked(&bench.tick(limits::ACK_QUIET)), [at("e1", 5)]);
}

#[test]
fn epochs_and_losses_move_cursors_too() {
    let (mut bench, socket) = Bench::subscribed(4);
    bench.frame(socket, epoch("e2", at("e1", 4)));
    assert_eq!(acked(&bench.tick(limits::ACK_QUIET)), [at("e2", 0)]);
    bench.frame(socket, ServerFrame::Gap(gap(at("e2", 0), at("e2", 7))));
    assert_eq!(acked(&bench.tick(limits::ACK_QUIET)), [at("e2", 7)]);
}

#[test]
fn a_page_that_is_about_to_go_tells_at_once() {
    let (mut bench, socket) = Bench::subscribed(4);
    bench.deliver(socket, 5);
    bench.core.acknowledge(bench.now);
    assert_eq!(acked(&bench.effects()), [at("e1", 5)]);
    bench.core.acknowledge(bench.now);
    assert_eq!(bench.effects(), []);
    bench.core.disconnect();
    bench.effects();
    bench.core.acknowledge(bench.now);
    assert_eq!(bench.effects(), []);
}

#[test]
fn a_hub_that_keeps_no_session_is_told_no_cursors() {
    let mut bench = Bench::new();
    bench.core.connect(bench.now);
    let socket = bench.get_online_as(None, &[]);
    bench.core.attach(bench.now, &room("chat")).unwrap();
    bench.core.subscribe(bench.now, &room("chat"), SubscribeOptions::default());
    let ask = asked(&bench.effects());
    bench.frame(socket, subscribed(ask.id, "e1", 4, ("e1", 4), None));
    bench.deliver(socket, 5);
    assert_eq!(bench.tick(limits::ACK_EVERY), []);
    assert_eq!(acked(&bench.frame(socket, ServerFrame::Ping)), []);
}

#[test]
fn a_pong_stays_below_a_hubs_limit_for_frames_however_many_rooms_there_are() {
    let (mut bench, socket) = Bench::online();
    let name = |n: usize| RoomName::new(&format!("{n:0>4}{}", "\"".repeat(251))).unwrap();
    let epoch = "e".repeat(64);
    for n in 0..250 {
        bench.core.attach(bench.now, &name(n)).unwrap();
        bench.core.subscribe(bench.now, &name(n), SubscribeOptions::default());
        let ask = asked(&bench.effects());
        let mut answer = subscribed(ask.id, &epoch, 0, (&epoch, 0), None);
        if let ServerFrame::Subscribed(answer) = &mut answer {
            answer.room = name(n);
        }
        bench.frame(socket, answer);
        let lost = Gap {
            room: name(n),
            from: at(&epoch, 0),
            to: at(&epoch, (1 << 53) - 2),
            ..gap(at("", 0), at("", 0))
        };
        bench.frame(socket, ServerFrame::Gap(lost));
    }
    let mut n_rooms = 0;
    for effect in bench.tick(limits::ACK_EVERY) {
        let Effect::Send(_, frame) = effect else { panic!("{effect:?}") };
        assert!(frame.to_json().len() < 64 * 1024);
        let ClientFrame::Pong(pong) = frame else { panic!("{frame:?}") };
        n_rooms += pong.cursors.len();
    }
    assert_eq!(n_rooms, 250);
}

/// Loses its connection and is online again; gives the request that it made.
fn reconnected(bench: &mut Bench, socket: SocketId) -> (SocketId, Subscribe) {
    bench.core.closed(bench.now, socket, 1006, "");
    bench.wait_for_retry();
    let socket = bench.get_online();
    let ask = asked(&bench.effects());
    (socket, ask)
}

#[test]
fn a_loss_told_at_the_start_is_acknowledged_although_nothing_follows() {
    let (mut bench, socket) = Bench::subscribed(4);
    let (socket, ask) = reconnected(&mut bench, socket);
    bench.frame(socket, subscribed(ask.id, "e1", 9, ("e1", 9), Some(false)));
    assert_eq!(acked(&bench.tick(limits::ACK_QUIET)), [at("e1", 9)]);
}

#[test]
fn after_a_reconnection_the_hub_is_told_how_far_the_listeners_are_and_no_further() {
    let (mut bench, socket) = Bench::subscribed(4);
    bench.deliver(socket, 5);
    bench.frame(socket, message(6));
    bench.promise(6);
    let (socket, ask) = reconnected(&mut bench, socket);
    assert_eq!(ask.after, Some(at("e1", 6)));
    bench.frame(socket, subscribed(ask.id, "e1", 6, ("e1", 6), Some(true)));
    assert_eq!(acked(&bench.tick(limits::ACK_QUIET)), [at("e1", 5)]);
    bench.through(6);
    assert_eq!(acked(&bench.tick(limits::ACK_QUIET)), [at("e1", 6)]);
}

#[test]
fn a_promise_of_an_earlier_delivery_does_not_settle_a_later_one_of_the_same_message() {
    let (mut bench, socket) = Bench::subscribed(4);
    bench.frame(socket, message(5));
    bench.promise(5);
    let early = bench.last_delivery(5);
    let history = SubscribeOptions { history: Some(1), ..SubscribeOptions::default() };
    bench.core.subscribe(bench.now, &room("chat"), history);
    let ask = asked(&bench.effects());
    bench.frame(socket, subscribed(ask.id, "e1", 4, ("e1", 5), Some(true)));
    bench.frame(socket, message(5));
    bench.promise(5);
    bench.core.delivered(bench.now, &room("chat"), early);
    assert_eq!(bench.core.settled(bench.now), [(room("chat"), at("e1", 4))]);
    bench.through(5);
    assert_eq!(bench.core.settled(bench.now), [(room("chat"), at("e1", 5))]);
}
