//! What the app asks of rooms, and what the hub answers.

use super::*;

#[test]
fn what_calls_ask_for_before_the_connection_is_asked_for_together() {
    let mut bench = Bench::new();
    let after = SubscribeOptions { after: Some(at("e1", 3)), ..SubscribeOptions::default() };
    let history = |n| SubscribeOptions { history: Some(n), ..SubscribeOptions::default() };
    for options in [after.clone(), after, history(20), history(2)] {
        bench.core.subscribe(bench.now, &room("chat"), options);
    }
    bench.core.connect(bench.now);
    bench.get_online();
    let ask = asked(&bench.effects());
    assert_eq!((ask.after, ask.history), (Some(at("e1", 3)), Some(20)));
}

#[test]
fn a_room_is_not_moved_away_from_under_its_listeners() {
    let elsewhere = SubscribeOptions { after: Some(at("e1", 9)), ..SubscribeOptions::default() };
    let refused = |call| [Effect::Done(call, Err(Error::AlreadySubscribed { room: room("chat") }))];

    let (mut bench, socket) = Bench::subscribed(7);
    let call = bench.core.subscribe(bench.now, &room("chat"), elsewhere.clone());
    assert_eq!(bench.effects(), refused(call));
    assert_eq!(delivered(&bench.frame(socket, message(8))), [(at("e1", 8), false)]);
    // Where it is already, it may be asked for.
    let here = SubscribeOptions { after: Some(at("e1", 8)), ..SubscribeOptions::default() };
    bench.core.subscribe(bench.now, &room("chat"), here);
    assert!(matches!(bench.effects()[..], [Effect::Done(_, Ok(Outcome::Subscribed { .. }))]));

    let (mut bench, _) = Bench::online();
    let first = SubscribeOptions { after: Some(at("e1", 3)), ..SubscribeOptions::default() };
    bench.core.subscribe(bench.now, &room("chat"), first);
    bench.effects();
    let call = bench.core.subscribe(bench.now, &room("chat"), elsewhere);
    assert_eq!(bench.effects(), refused(call));
}

#[test]
fn history_of_a_room_in_force_is_asked_for_with_its_cursor() {
    let (mut bench, _) = Bench::subscribed(7);
    let options = SubscribeOptions { history: Some(2), ..SubscribeOptions::default() };
    bench.core.subscribe(bench.now, &room("chat"), options);
    let ask = asked(&bench.effects());
    assert_eq!((ask.after, ask.history), (Some(at("e1", 7)), Some(2)));
}

#[test]
fn a_request_that_a_later_one_has_overtaken_is_no_error() {
    let (mut bench, socket) = Bench::online();
    bench.core.subscribe(bench.now, &room("chat"), SubscribeOptions::default());
    let overtaken = asked(&bench.effects());
    bench.core.unsubscribe(bench.now, &room("chat"));
    bench.core.subscribe(bench.now, &room("chat"), SubscribeOptions::default());
    bench.effects();
    assert_eq!(bench.frame(socket, refusal(Some(overtaken.id), ErrorCode::NotSubscribed)), []);
}

#[test]
fn a_room_may_be_subscribed_before_the_connection_is_up() {
    let mut bench = Bench::new();
    let options = SubscribeOptions { history: Some(20), ..SubscribeOptions::default() };
    let call = bench.core.subscribe(bench.now, &room("chat"), options);
    assert_eq!(bench.effects(), []);
    bench.core.connect(bench.now);
    let socket = bench.get_online();
    let ask = asked(&bench.effects());
    assert_eq!((ask.after, ask.history), (None, Some(20)));
    let effects = bench.frame(socket, subscribed(ask.id, "e1", 3, ("e1", 23), None));
    let outcome = Outcome::Subscribed { position: at("e1", 3), recovered: None };
    assert_eq!(effects, [Effect::Done(call, Ok(outcome))]);
}

#[test]
fn history_is_asked_for_until_it_is_answered_and_not_again() {
    let (mut bench, socket) = Bench::online();
    bench.core.attach(bench.now, &room("chat")).unwrap();
    let options = SubscribeOptions { history: Some(20), token: Some("t".to_owned()), after: None };
    bench.core.subscribe(bench.now, &room("chat"), options);
    bench.effects();
    bench.core.closed(bench.now, socket, 1006, "");
    bench.wait_for_retry();
    let socket = bench.get_online();
    let ask = asked(&bench.effects());
    assert_eq!(ask.history, Some(20));
    bench.frame(socket, subscribed(ask.id, "e1", 3, ("e1", 23), None));
    bench.core.closed(bench.now, socket, 1006, "");
    bench.wait_for_retry();
    bench.get_online();
    let ask = asked(&bench.effects());
    assert_eq!((ask.history, ask.after, ask.token), (None, Some(at("e1", 3)), Some("t".to_owned())));
}

#[test]
fn subscribing_again_is_answered_at_once_or_with_the_request_under_way() {
    let (mut bench, socket) = Bench::online();
    let first = bench.core.subscribe(bench.now, &room("chat"), SubscribeOptions::default());
    let second = bench.core.subscribe(bench.now, &room("chat"), SubscribeOptions::default());
    let ask = asked(&bench.effects());
    let effects = bench.frame(socket, subscribed(ask.id, "e1", 3, ("e1", 3), None));
    let outcome = Outcome::Subscribed { position: at("e1", 3), recovered: None };
    assert_eq!(
        effects,
        [Effect::Done(first, Ok(outcome.clone())), Effect::Done(second, Ok(outcome.clone()))]
    );
    let third = bench.core.subscribe(bench.now, &room("chat"), SubscribeOptions::default());
    assert_eq!(bench.effects(), [Effect::Done(third, Ok(outcome))]);
}

#[test]
fn a_subscription_refused_for_good_fails_its_call() {
    let (mut bench, socket) = Bench::online();
    let call = bench.core.subscribe(bench.now, &room("chat"), SubscribeOptions::default());
    let ask = asked(&bench.effects());
    let effects = bench.frame(socket, refusal(Some(ask.id), ErrorCode::Forbidden));
    let error =
        Error::Refused { code: ErrorCode::Forbidden, message: String::new(), room: Some(room("chat")) };
    assert_eq!(effects, [Effect::Done(call, Err(error))]);
    assert_eq!(bench.core.cursor(&room("chat")), None);
}

#[test]
fn a_subscription_refused_for_now_is_asked_for_again() {
    let (mut bench, socket) = Bench::online();
    bench.core.subscribe(bench.now, &room("chat"), SubscribeOptions::default());
    let ask = asked(&bench.effects());
    let effects = bench.frame(socket, refusal(Some(ask.id), ErrorCode::Unavailable));
    assert!(matches!(effects[..], [Effect::Error(Error::Refused { code: ErrorCode::Unavailable, .. })]));
    let again = bench.core.deadline().unwrap();
    assert!(again <= bench.now + 2_000);
    bench.now = again;
    bench.core.timer(bench.now);
    asked(&bench.effects());
}

#[test]
fn an_error_without_a_request_is_told() {
    let (mut bench, socket) = Bench::online();
    let effects = bench.frame(socket, refusal(None, ErrorCode::TooMany));
    assert!(matches!(
        effects[..],
        [Effect::Error(Error::Refused { code: ErrorCode::TooMany, room: None, .. })]
    ));
}

#[test]
fn a_request_without_an_answer_replaces_the_connection() {
    let (mut bench, socket) = Bench::online();
    bench.core.subscribe(bench.now, &room("chat"), SubscribeOptions::default());
    bench.effects();
    bench.now += limits::REQUEST_WAIT;
    bench.core.heard(bench.now, socket);
    bench.core.timer(bench.now);
    assert_eq!(bench.core.poll_effect(), Some(Effect::Close(socket, CloseCode::Normal)));
}

#[test]
fn unsubscribing_stops_delivery_at_once_and_completes_with_the_answer() {
    let (mut bench, socket) = Bench::subscribed(0);
    bench.core.frame(bench.now, socket, message(1));
    let call = bench.core.unsubscribe(bench.now, &room("chat"));
    let effects = bench.effects();
    let [Effect::Send(_, ClientFrame::Unsubscribe(frame))] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(bench.frame(socket, message(2)), []);
    let answer = ServerFrame::Unsubscribed(Unsubscribed { id: frame.id, room: room("chat") });
    assert_eq!(bench.frame(socket, answer), [Effect::Done(call, Ok(Outcome::Unsubscribed))]);
    // The listener is still there: a new subscription delivers to it, from the head.
    bench.core.subscribe(bench.now, &room("chat"), SubscribeOptions::default());
    assert_eq!(asked(&bench.effects()).after, None);
}

#[test]
fn unsubscribing_withdraws_a_subscription_under_way() {
    let (mut bench, _) = Bench::online();
    let waiting = bench.core.subscribe(bench.now, &room("chat"), SubscribeOptions::default());
    bench.effects();
    bench.core.unsubscribe(bench.now, &room("chat"));
    let effects = bench.effects();
    assert_eq!(effects[0], Effect::Done(waiting, Err(Error::Withdrawn { room: room("chat") })));
    assert!(matches!(effects[1], Effect::Send(_, ClientFrame::Unsubscribe(_))));
}

#[test]
fn unsubscribing_what_is_not_subscribed_is_done_at_once() {
    let (mut bench, _) = Bench::online();
    let call = bench.core.unsubscribe(bench.now, &room("chat"));
    assert_eq!(bench.effects(), [Effect::Done(call, Ok(Outcome::Unsubscribed))]);
}

#[test]
fn a_room_left_while_offline_is_taken_out_of_the_session_later() {
    let (mut bench, socket) = Bench::subscribed(0);
    bench.core.closed(bench.now, socket, 1006, "");
    let call = bench.core.unsubscribe(bench.now, &room("chat"));
    let effects = bench.effects();
    assert_eq!(effects.last(), Some(&Effect::Done(call, Ok(Outcome::Unsubscribed))));
    bench.core.wake(bench.now);
    let socket = bench.open();
    let effects = bench.effects();
    let [Effect::Send(_, ClientFrame::Connect(_)), Effect::Send(_, ClientFrame::Unsubscribe(left))] =
        &effects[..]
    else {
        panic!("{effects:?}");
    };
    assert_eq!(left.room, room("chat"));
    let frame = connected(Some("s1"), &["chat", "news"]);
    assert_eq!(bench.frame(socket, frame), [Effect::State(State::Connected)]);
    bench.core.attach(bench.now, &room("chat")).unwrap();
    assert_eq!(bench.effects(), [], "the session holds it no longer");
    bench.core.attach(bench.now, &room("news")).unwrap();
    assert_eq!(asked(&bench.effects()).room, room("news"));
}

#[test]
fn what_is_left_and_wanted_again_while_offline_is_left_first() {
    let (mut bench, socket) = Bench::subscribed(0);
    bench.core.closed(bench.now, socket, 1006, "");
    bench.core.unsubscribe(bench.now, &room("chat"));
    bench.core.subscribe(bench.now, &room("chat"), SubscribeOptions::default());
    bench.core.wake(bench.now);
    bench.open();
    let effects = bench.effects();
    assert!(matches!(
        &effects[1..],
        [Effect::Send(_, ClientFrame::Unsubscribe(_)), Effect::Send(_, ClientFrame::Subscribe(_))]
    ));
}

#[test]
fn rooms_are_asked_for_without_waiting_for_connected_and_once() {
    let mut bench = Bench::new();
    bench.core.subscribe(bench.now, &room("chat"), SubscribeOptions::default());
    bench.core.connect(bench.now);
    let socket = bench.open();
    let ask = asked(&bench.effects());
    let effects = bench.frame(socket, connected(Some("s1"), &["chat"]));
    assert_eq!(effects, [Effect::State(State::Connected)], "not again where the session holds it");
    bench.core.attach(bench.now, &room("chat")).unwrap();
    bench.frame(socket, subscribed(ask.id, "e1", 0, ("e1", 0), None));
    assert_eq!(delivered(&bench.frame(socket, message(1))), [(at("e1", 1), false)]);
}

#[test]
fn what_is_asked_for_while_the_socket_opens_is_said_at_once() {
    let mut bench = Bench::new();
    bench.core.subscribe(bench.now, &room("chat"), SubscribeOptions::default());
    bench.core.connect(bench.now);
    let effects = bench.effects();
    let socket = opened_socket(&effects);
    // `connect` comes first, and all of it to the socket that was just asked for.
    let sent: Vec<_> = effects
        .into_iter()
        .skip_while(|effect| *effect != Effect::Open { socket, early: true })
        .skip(1)
        .map(|effect| match effect {
            Effect::Send(to, frame) if to == socket => frame,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(matches!(sent[..], [ClientFrame::Connect(_), ClientFrame::Subscribe(_)]), "{sent:?}");
    bench.core.subscribe(bench.now, &room("news"), SubscribeOptions::default());
    assert_eq!(asked(&bench.effects()).room, room("news"));
    bench.core.opened(bench.now, socket);
    assert_eq!(bench.effects(), [], "nothing is said twice");
}

#[test]
fn a_room_left_before_connected_is_left_then() {
    let (mut bench, socket, ask) = Bench::asking();
    bench.core.unsubscribe(bench.now, &room("chat"));
    assert!(bench.effects().iter().all(|effect| matches!(effect, Effect::Done(..))));
    // What was asked for may have got through on an earlier connection, or on this one.
    let effects = bench.frame(socket, connected(Some("s1"), &["chat"]));
    let [Effect::State(State::Connected), Effect::Send(_, ClientFrame::Unsubscribe(left))] = &effects[..]
    else {
        panic!("{effects:?}");
    };
    assert_eq!(left.room, room("chat"));
    assert_eq!(bench.frame(socket, subscribed(ask.id, "e1", 0, ("e1", 1), None)), []);
    assert_eq!(bench.frame(socket, message(1)), []);
}

#[test]
fn a_room_in_force_that_is_left_and_wanted_again_before_connected_is_left_first() {
    let (mut bench, socket) = Bench::subscribed(0);
    bench.core.closed(bench.now, socket, 1006, "");
    bench.wait_for_retry();
    let socket = bench.open();
    assert!(asked(&bench.effects()).after.is_some());
    bench.core.unsubscribe(bench.now, &room("chat"));
    bench.core.subscribe(bench.now, &room("chat"), SubscribeOptions::default());
    let effects = bench.effects();
    let [Effect::Send(_, ClientFrame::Unsubscribe(_)), Effect::Send(_, ClientFrame::Subscribe(ask))] =
        &effects[..]
    else {
        panic!("{effects:?}");
    };
    let connected = bench.frame(socket, connected(Some("s1"), &["chat"]));
    assert_eq!(connected, [Effect::State(State::Connected)]);
    bench.frame(socket, subscribed(ask.id, "e1", 3, ("e1", 3), None));
    assert_eq!(delivered(&bench.frame(socket, message(4))), [(at("e1", 4), false)]);
}

#[test]
fn a_room_that_is_left_and_wanted_again_before_connected_is_asked_for_once() {
    let (mut bench, socket, ask) = Bench::asking();
    bench.core.unsubscribe(bench.now, &room("chat"));
    bench.core.subscribe(bench.now, &room("chat"), SubscribeOptions::default());
    assert!(bench.effects().iter().all(|effect| matches!(effect, Effect::Done(..))));
    // A second request would be answered by where the first has come to.
    assert_eq!(bench.frame(socket, connected(Some("s1"), &["chat"])), [Effect::State(State::Connected)]);
    bench.frame(socket, subscribed(ask.id, "e1", 0, ("e1", 1), Some(true)));
    assert_eq!(delivered(&bench.frame(socket, message(1))), [(at("e1", 1), true)]);
}

#[test]
fn a_room_that_was_asked_for_on_a_connection_that_is_gone_does_not_come_back() {
    let (mut bench, socket, _) = Bench::asking();
    bench.core.closed(bench.now, socket, 1006, "");
    bench.core.unsubscribe(bench.now, &room("chat"));
    bench.core.wake(bench.now);
    let socket = bench.open();
    assert!(matches!(bench.effects()[..], [Effect::Send(_, ClientFrame::Connect(_))]));
    let effects = bench.frame(socket, connected(Some("s1"), &["chat"]));
    assert!(matches!(effects[..], [Effect::State(_), Effect::Send(_, ClientFrame::Unsubscribe(_))]));
}

#[test]
fn what_only_the_session_can_hold_is_left_once_that_is_known() {
    let mut bench = Bench::new();
    bench.core.connect(bench.now);
    let call = bench.core.unsubscribe(bench.now, &room("chat"));
    let effects = bench.effects();
    assert_eq!(effects.last(), Some(&Effect::Done(call, Ok(Outcome::Unsubscribed))));
    let socket = opened_socket(&effects);
    bench.core.opened(bench.now, socket);
    bench.effects();
    let effects = bench.frame(socket, connected(Some("s1"), &["chat"]));
    assert!(matches!(effects[..], [Effect::State(_), Effect::Send(_, ClientFrame::Unsubscribe(_))]));
}

#[test]
fn a_component_that_is_mounted_twice_leaves_its_room_in_the_session() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        bench.core.unsubscribe(bench.now, &room("chat"));
        bench.core.subscribe(bench.now, &room("chat"), SubscribeOptions::default());
    }
    bench.core.connect(bench.now);
    bench.get_online_with(&["chat"]);
    let effects = bench.effects();
    assert!(matches!(effects[..], [Effect::Send(_, ClientFrame::Subscribe(_))]), "{effects:?}");
}

#[test]
fn a_room_left_several_times_while_offline_is_left_once() {
    let (mut bench, socket) = Bench::subscribed(0);
    bench.core.closed(bench.now, socket, 1006, "");
    for _ in 0..3 {
        bench.core.unsubscribe(bench.now, &room("chat"));
        bench.core.subscribe(bench.now, &room("chat"), SubscribeOptions::default());
    }
    bench.core.unsubscribe(bench.now, &room("chat"));
    bench.core.wake(bench.now);
    bench.open();
    let effects = bench.effects();
    assert!(matches!(effects[1..], [Effect::Send(_, ClientFrame::Unsubscribe(_))]), "{effects:?}");
}

#[test]
fn what_was_asked_for_early_is_waited_for_from_connected_on() {
    let mut bench = Bench::new();
    bench.core.subscribe(bench.now, &room("chat"), SubscribeOptions::default());
    bench.core.connect(bench.now);
    let socket = opened_socket(&bench.effects());
    bench.now += limits::CONNECT_WAIT - 1;
    bench.core.opened(bench.now, socket);
    bench.now += limits::CONNECT_WAIT - 1;
    bench.frame(socket, connected(None, &[]));
    bench.core.heard(bench.now + limits::REQUEST_WAIT, socket);
    assert_eq!(bench.tick(limits::REQUEST_WAIT), []);
    assert_eq!(bench.tick(1)[0], Effect::Close(socket, CloseCode::Normal));
}

#[test]
fn rooms_of_the_session_are_subscribed_when_someone_listens() {
    let mut bench = Bench::new();
    bench.core.attach(bench.now, &room("chat")).unwrap();
    bench.core.connect(bench.now);
    bench.get_online_with(&["chat", "news"]);
    assert_eq!(asked(&bench.effects()).room, room("chat"));
    bench.core.attach(bench.now, &room("news")).unwrap();
    assert_eq!(asked(&bench.effects()).room, room("news"));
}

#[test]
fn rooms_and_calls_are_bounded() {
    let mut bench = Bench::new();
    for n in 0..limits::ROOMS_MAX {
        bench.core.attach(bench.now, &room(&n.to_string())).unwrap();
    }
    let limit = limits::ROOMS_MAX;
    assert_eq!(bench.core.attach(bench.now, &room("one more")), Err(Error::TooManyRooms { limit }));
    let call = bench.core.subscribe(bench.now, &room("one more"), SubscribeOptions::default());
    assert_eq!(bench.effects(), [Effect::Done(call, Err(Error::TooManyRooms { limit }))]);
    for _ in 0..limits::CALLS_MAX {
        bench.core.subscribe(bench.now, &room("1"), SubscribeOptions::default());
    }
    assert_eq!(bench.effects(), []);
    let call = bench.core.subscribe(bench.now, &room("1"), SubscribeOptions::default());
    let limit = limits::CALLS_MAX;
    assert_eq!(bench.effects(), [Effect::Done(call, Err(Error::TooManyCalls { limit }))]);
}

#[test]
fn history_that_is_not_wanted_any_more_does_not_come() {
    let (mut bench, socket) = Bench::subscribed(7);
    let options = SubscribeOptions { history: Some(5), ..SubscribeOptions::default() };
    let call = bench.core.subscribe(bench.now, &room("chat"), options.clone());
    let void = asked(&bench.effects());
    bench.core.withdraw(bench.now, call);
    let effects = bench.effects();
    let ask = asked(&effects);
    assert_eq!((ask.after, ask.history), (Some(at("e1", 7)), None));
    assert_eq!(effects.last(), Some(&Effect::Done(call, Err(Error::Withdrawn { room: room("chat") }))));
    // The hub had answered the first request already.
    bench.frame(socket, subscribed(void.id, "e1", 2, ("e1", 7), Some(true)));
    assert_eq!(bench.frame(socket, message(3)), []);
    bench.frame(socket, subscribed(ask.id, "e1", 7, ("e1", 7), Some(true)));
    assert_eq!(delivered(&bench.frame(socket, message(8))), [(at("e1", 8), false)]);

    // Where another call wants it as well, it comes.
    let other = bench.core.subscribe(bench.now, &room("chat"), options.clone());
    let call = bench.core.subscribe(bench.now, &room("chat"), options);
    bench.effects();
    bench.core.withdraw(bench.now, call);
    assert_eq!(bench.effects(), [Effect::Done(call, Err(Error::Withdrawn { room: room("chat") }))]);
    // A call that is complete is not withdrawn.
    bench.core.unsubscribe(bench.now, &room("chat"));
    bench.effects();
    bench.core.withdraw(bench.now, other);
    assert_eq!(bench.effects(), []);
}

#[test]
fn history_that_is_not_wanted_any_more_does_not_come_to_a_later_listener() {
    let (mut bench, socket) = Bench::subscribed(7);
    bench.core.detach(bench.now, &room("chat"));
    let options = SubscribeOptions { history: Some(5), ..SubscribeOptions::default() };
    let call = bench.core.subscribe(bench.now, &room("chat"), options);
    let void = asked(&bench.effects());
    bench.core.withdraw(bench.now, call);
    bench.effects();
    bench.frame(socket, subscribed(void.id, "e1", 2, ("e1", 7), Some(true)));
    bench.core.attach(bench.now, &room("chat")).unwrap();
    let ask = asked(&bench.effects());
    assert_eq!((ask.after, ask.history), (Some(at("e1", 7)), None));
}
