//! What outlives a client in its tab: the session, and positions that were stored.

use super::*;

fn after(position: Position) -> SubscribeOptions {
    SubscribeOptions { after: Some(position), ..SubscribeOptions::default() }
}

/// A client that knows where an earlier one of its tab was in `chat`.
fn restored() -> (Bench, SocketId) {
    let (mut bench, socket) = Bench::online();
    bench.core.restore(&room("chat"), at("e1", 7));
    bench.core.attach(bench.now, &room("chat")).unwrap();
    (bench, socket)
}

#[test]
fn a_stored_position_is_asked_for_as_such_until_the_hub_has_answered() {
    let (mut bench, socket) = restored();
    assert_eq!(bench.effects(), []);
    let history = SubscribeOptions { history: Some(3), ..SubscribeOptions::default() };
    bench.core.subscribe(bench.now, &room("chat"), history);
    let ask = asked(&bench.effects());
    assert_eq!((ask.after, ask.stored, ask.history), (Some(at("e1", 7)), true, Some(3)));
    bench.core.closed(bench.now, socket, 1006, "");
    bench.wait_for_retry();
    let socket = bench.get_online();
    let ask = asked(&bench.effects());
    assert!(ask.stored);
    bench.frame(socket, subscribed(ask.id, "e1", 9, ("e1", 9), Some(true)));
    bench.core.closed(bench.now, socket, 1006, "");
    bench.wait_for_retry();
    bench.get_online();
    let ask = asked(&bench.effects());
    assert_eq!((ask.after, ask.stored), (Some(at("e1", 9)), false));
}

#[test]
fn a_loss_since_the_stored_position_is_told() {
    let (mut bench, socket) = restored();
    bench.core.subscribe(bench.now, &room("chat"), SubscribeOptions::default());
    let ask = asked(&bench.effects());
    let effects = bench.frame(socket, subscribed(ask.id, "e2", 3, ("e2", 3), Some(false)));
    let lost = Gap { reason: GapReason::Unknown, ..gap(at("e1", 7), at("e2", 3)) };
    assert_eq!(effects.first(), Some(&Effect::Gap(lost)));
}

#[test]
fn what_the_app_asks_for_goes_before_what_was_stored() {
    let (mut bench, _) = restored();
    bench.core.subscribe(bench.now, &room("chat"), after(at("e1", 3)));
    let ask = asked(&bench.effects());
    assert_eq!((ask.after, ask.stored), (Some(at("e1", 3)), false));
}

#[test]
fn what_is_in_force_is_not_moved_by_what_was_stored() {
    let (mut bench, socket) = Bench::subscribed(4);
    bench.core.restore(&room("chat"), at("e1", 2));
    assert_eq!(bench.core.cursor(&room("chat")), Some(&at("e1", 4)));
    assert_eq!(delivered(&bench.frame(socket, message(5))), [(at("e1", 5), false)]);
}

#[test]
fn a_stored_position_outlives_what_never_came_into_force() {
    let (mut bench, _) = restored();
    let settled = [(room("chat"), at("e1", 7))];
    // Its only call is taken back, as by a component that is mounted twice.
    bench.core.subscribe(bench.now, &room("chat"), SubscribeOptions::default());
    bench.core.unsubscribe(bench.now, &room("chat"));
    bench.core.detach(bench.now, &room("chat"));
    assert_eq!(bench.core.settled(bench.now), settled);
    // The client is closed first.
    bench.core.subscribe(bench.now, &room("chat"), SubscribeOptions::default());
    bench.core.disconnect();
    assert_eq!(bench.core.settled(bench.now), settled);
    bench.effects();
    bench.core.connect(bench.now);
    bench.get_online();
    assert_eq!(bench.effects(), []);
    // Nobody waits for it, and nobody wants it any more.
    bench.core.unsubscribe(bench.now, &room("chat"));
    assert_eq!(bench.core.settled(bench.now), []);
}

#[test]
fn what_is_to_be_stored_is_before_the_first_callback_that_is_not_through() {
    let (mut bench, socket) = Bench::subscribed(4);
    assert!(bench.core.take_moved());
    assert!(!bench.core.take_moved());
    bench.frame(socket, message(5));
    assert_eq!(bench.core.settled(bench.now), [(room("chat"), at("e1", 4))]);
    bench.promise(5);
    bench.deliver(socket, 6);
    assert_eq!(bench.core.settled(bench.now), [(room("chat"), at("e1", 4))]);
    bench.through(5);
    assert!(bench.core.take_moved());
    assert_eq!(bench.core.settled(bench.now), [(room("chat"), at("e1", 6))]);
    // Also without a connection.
    bench.core.closed(bench.now, socket, 1006, "");
    assert_eq!(bench.core.settled(bench.now), [(room("chat"), at("e1", 6))]);
    bench.frame(socket, epoch("e2", at("e1", 6)));
    bench.core.unsubscribe(bench.now, &room("chat"));
    assert!(bench.core.take_moved());
    assert_eq!(bench.core.settled(bench.now), []);
}

#[test]
fn a_promise_that_never_settles_holds_back_what_is_stored_for_a_while() {
    let (mut bench, socket) = Bench::subscribed(4);
    bench.frame(socket, message(5));
    bench.promise(5);
    bench.now += limits::SETTLE_WAIT;
    assert_eq!(bench.core.settled(bench.now), [(room("chat"), at("e1", 5))]);
}

#[test]
fn another_session_takes_the_place_of_the_one_before() {
    let (mut bench, socket) = Bench::online();
    assert_eq!(bench.core.session().map(SessionId::as_str), Some("s1"));
    assert!(bench.core.take_moved());
    for session in [Some("s2"), None] {
        bench.core.closed(bench.now, bench.core.socket().unwrap_or(socket), 1006, "");
        bench.wait_for_retry();
        bench.get_online_as(session, &[]);
        assert_eq!(bench.core.session().map(SessionId::as_str), session);
        assert!(bench.core.take_moved());
    }
}

#[test]
fn who_leaves_takes_everything_along() {
    let (mut bench, socket) = Bench::subscribed(4);
    bench.core.restore(&room("other"), at("e1", 1));
    bench.core.frame(bench.now, socket, message(5));
    let waiting = bench.core.subscribe(bench.now, &room("third"), SubscribeOptions::default());
    bench.core.forget();
    let effects = bench.effects();
    assert_eq!(delivered(&effects), []);
    assert!(effects.contains(&Effect::Close(socket, CloseCode::Normal)));
    assert_eq!(effects.last(), Some(&Effect::Done(waiting, Err(Error::Closed))));
    assert_eq!(bench.core.session(), None);
    assert_eq!(bench.core.settled(bench.now), []);
    // Whoever connects next starts at the head, also where a listener has stayed.
    bench.core.connect(bench.now);
    bench.get_online();
    assert_eq!(bench.effects(), []);
    bench.core.subscribe(bench.now, &room("chat"), SubscribeOptions::default());
    let ask = asked(&bench.effects());
    assert_eq!((ask.after, ask.stored), (None, false));
}

#[test]
fn a_call_of_a_closed_client_fails_when_it_is_forgotten() {
    let (mut bench, _) = Bench::online();
    bench.core.disconnect();
    bench.effects();
    let waiting = bench.core.subscribe(bench.now, &room("chat"), SubscribeOptions::default());
    assert_eq!(bench.effects(), []);
    bench.core.forget();
    assert_eq!(bench.effects(), [Effect::Done(waiting, Err(Error::Closed))]);
}
