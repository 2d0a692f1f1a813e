//! The connection: cookie, socket, greeting, heartbeat, and coming back.

use super::*;

#[test]
fn the_cookie_is_fetched_before_the_socket_is_opened() {
    let mut core = Core::<u32>::new(Config { cookie: true, ..Config::default() });
    core.connect(0);
    assert_eq!(core.poll_effect(), Some(Effect::State(State::Connecting)));
    assert_eq!(core.poll_effect(), Some(Effect::FetchCookie));
    assert_eq!(core.poll_effect(), None);
    core.cookie_settled(10);
    assert!(matches!(core.poll_effect(), Some(Effect::Open { .. })));
}

#[test]
fn a_cookie_that_does_not_come_is_waited_for_three_seconds() {
    let mut core = Core::<u32>::new(Config { cookie: true, ..Config::default() });
    core.connect(0);
    while core.poll_effect().is_some() {}
    assert_eq!(core.deadline(), Some(3_000));
    core.timer(2_999);
    assert_eq!(core.poll_effect(), None);
    core.timer(3_000);
    assert!(matches!(core.poll_effect(), Some(Effect::Open { .. })));
    assert!(matches!(core.poll_effect(), Some(Effect::Send(_, ClientFrame::Connect(_)))));
    core.cookie_settled(3_001);
    assert_eq!(core.poll_effect(), None);
}

#[test]
fn the_cookie_is_renewed_while_connected() {
    let mut bench = Bench::new();
    bench.core = Core::new(Config { cookie: true, ..Config::default() });
    bench.core.connect(bench.now);
    bench.core.cookie_settled(bench.now);
    let socket = bench.get_online();
    bench.now += limits::COOKIE_EVERY;
    bench.core.heard(bench.now, socket);
    bench.core.timer(bench.now);
    assert_eq!(bench.effects(), [Effect::FetchCookie]);
    bench.core.cookie_settled(bench.now);
    bench.core.timer(bench.now);
    assert_eq!(bench.effects(), []);
}

#[test]
fn the_session_is_remembered_and_named_when_coming_back() {
    let (mut bench, socket) = Bench::online();
    bench.core.closed(bench.now, socket, 1006, "");
    bench.wait_for_retry();
    bench.open();
    let effects = bench.effects();
    let [Effect::Send(_, ClientFrame::Connect(connect))] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(connect.session, SessionId::new("s1").ok());
}

#[test]
fn a_socket_that_does_not_get_anywhere_is_replaced() {
    let mut bench = Bench::new();
    bench.core.connect(bench.now);
    let socket = opened_socket(&bench.effects());
    bench.now += limits::CONNECT_WAIT;
    bench.core.timer(bench.now);
    assert_eq!(bench.core.poll_effect(), Some(Effect::Close(socket, CloseCode::Normal)));
    bench.wait_for_retry();
    let next = opened_socket(&bench.effects());
    assert_ne!(socket, next);
    bench.core.opened(bench.now, next);
    bench.effects();
    bench.now += limits::CONNECT_WAIT;
    bench.core.timer(bench.now);
    assert_eq!(bench.core.poll_effect(), Some(Effect::Close(next, CloseCode::Normal)));
}

#[test]
fn an_attempt_is_early_as_long_as_that_works() {
    let early = |effects: &[Effect<u32>]| {
        effects.iter().find_map(|effect| match effect {
            Effect::Open { early, .. } => Some(*early),
            _ => None,
        })
    };
    let mut bench = Bench::new();
    bench.core.connect(bench.now);
    let mut tried = Vec::new();
    for _ in 0..3 {
        let effects = bench.effects();
        tried.extend(early(&effects));
        let socket = opened_socket(&effects);
        bench.core.closed(bench.now, socket, 1006, "");
        bench.wait_for_retry();
    }
    assert_eq!(tried, [true, false, true]);
    // What worked last is tried first.
    let effects = bench.effects();
    assert_eq!(early(&effects), Some(false));
    let socket = opened_socket(&effects);
    bench.frame(socket, connected(None, &[]));
    bench.core.closed(bench.now, socket, 1006, "");
    bench.wait_for_retry();
    let effects = bench.effects();
    assert_eq!(early(&effects), Some(false));
    // After a connection that held it is tried once more.
    let socket = opened_socket(&effects);
    bench.frame(socket, connected(None, &[]));
    bench.now += limits::STABLE;
    bench.core.closed(bench.now, socket, 1006, "");
    bench.wait_for_retry();
    let effects = bench.effects();
    assert_eq!(early(&effects), Some(true));
    // Nor is it doubted where the hub has answered.
    let socket = opened_socket(&effects);
    let full = ServerFrame::Disconnect(Disconnect { code: ErrorCode::Full, retry: 0 });
    bench.core.frame(bench.now, socket, full);
    bench.wait_for_retry();
    assert_eq!(early(&bench.effects()), Some(true));
}

#[test]
fn what_was_refused_of_an_early_attempt_is_said_once_more_on_the_socket() {
    let mut bench = Bench::new();
    bench.core.connect(bench.now);
    let socket = opened_socket(&bench.effects());
    bench.core.closed(bench.now, socket, 4400, "bad_frame");
    bench.wait_for_retry();
    let effects = bench.effects();
    let socket = opened_socket(&effects);
    assert!(effects.contains(&Effect::Open { socket, early: false }));
    bench.core.closed(bench.now, socket, 4400, "bad_frame");
    assert!(matches!(bench.effects()[..], [Effect::State(State::Closed(ClosedReason::Refused { .. }))]));
}

#[test]
fn silence_beyond_the_heartbeat_replaces_the_socket() {
    let (mut bench, socket) = Bench::online();
    assert_eq!(bench.core.deadline(), Some(bench.now + 35_000));
    bench.now += 34_000;
    assert_eq!(bench.frame(socket, ServerFrame::Ping).len(), 1);
    bench.now += 34_999;
    bench.core.timer(bench.now);
    assert_eq!(bench.effects(), []);
    bench.now += 1;
    bench.core.timer(bench.now);
    assert_eq!(bench.core.poll_effect(), Some(Effect::Close(socket, CloseCode::Normal)));
    assert!(bench.wait_for_retry() < 1_000);
}

#[test]
fn what_an_abandoned_socket_still_says_does_not_count() {
    let (mut bench, old) = Bench::subscribed(0);
    bench.core.closed(bench.now, old, 1006, "");
    bench.wait_for_retry();
    let socket = bench.get_online();
    let ask = asked(&bench.effects());
    assert_eq!(bench.frame(old, message(1)), []);
    bench.frame(socket, subscribed(ask.id, "e1", 0, ("e1", 1), Some(true)));
    assert_eq!(bench.frame(old, message(1)), []);
    bench.core.closed(bench.now, old, 4400, "");
    assert_eq!(bench.effects(), []);
    assert_eq!(delivered(&bench.frame(socket, message(1))), [(at("e1", 1), true)]);
}

#[test]
fn waiting_times_grow_until_a_connection_was_stable() {
    let (mut bench, mut socket) = Bench::online();
    let mut cap = 1_000;
    for _ in 0..8 {
        bench.core.closed(bench.now, socket, 1006, "");
        assert!(bench.wait_for_retry() < cap);
        cap = (2 * cap).min(30_000);
        socket = bench.get_online();
    }
    bench.now += limits::STABLE;
    bench.core.closed(bench.now, socket, 1006, "");
    assert!(bench.wait_for_retry() < 1_000);
}

#[test]
fn a_wait_that_the_hub_asks_for_is_kept() {
    let (mut bench, socket) = Bench::online();
    let frame = ServerFrame::Disconnect(Disconnect { code: ErrorCode::Draining, retry: 1_500 });
    bench.core.frame(bench.now, socket, frame);
    assert_eq!(bench.core.poll_effect(), Some(Effect::Close(socket, CloseCode::Normal)));
    assert!((1_500..2_500).contains(&bench.wait_for_retry()));
}

#[test]
fn whoever_is_sent_from_hub_to_hub_by_a_rolling_restart_waits_no_longer_each_time() {
    let disconnect = |code| ServerFrame::Disconnect(Disconnect { code, retry: 0 });
    let (mut bench, mut socket) = Bench::online();
    for _ in 0..20 {
        bench.core.frame(bench.now, socket, disconnect(ErrorCode::Draining));
        assert!(bench.wait_for_retry() < 1_000);
        socket = bench.get_online();
    }
    // One that turns clients away because it is full has not served them.
    let mut longest = 0;
    for _ in 0..20 {
        bench.core.frame(bench.now, socket, disconnect(ErrorCode::Full));
        longest = bench.wait_for_retry().max(longest);
        socket = bench.get_online();
    }
    assert!(longest > 1_000);
}

#[test]
fn a_hint_of_the_network_or_the_app_ends_the_waiting() {
    for hint in [Core::wake, Core::connect] {
        let (mut bench, socket) = Bench::online();
        bench.core.closed(bench.now, socket, 1006, "");
        bench.effects();
        hint(&mut bench.core, bench.now);
        assert!(matches!(
            bench.effects()[..],
            [Effect::State(State::Connecting), Effect::Open { .. }, Effect::Send(_, ClientFrame::Connect(_))]
        ));
        hint(&mut bench.core, bench.now);
        assert_eq!(bench.effects(), []);
    }
}

#[test]
fn a_close_code_that_would_come_again_ends_it_with_the_reason() {
    for code in [4400, 1009] {
        let (mut bench, socket) = Bench::online();
        bench.core.closed(bench.now, socket, code, "frame too big");
        let reason = ClosedReason::Refused { code, reason: "frame too big".to_owned() };
        assert_eq!(bench.effects(), [Effect::State(State::Closed(reason))]);
        assert_eq!(bench.core.deadline(), None);
        bench.core.wake(bench.now);
        assert_eq!(bench.effects(), []);
        bench.core.connect(bench.now);
        opened_socket(&bench.effects());
    }
}

#[test]
fn every_other_close_code_is_come_back_from() {
    for code in [1000, 1001, 1006, 1011, 1012, 1013, 4401, 4408, 4429, 4999] {
        let (mut bench, socket) = Bench::online();
        bench.core.closed(bench.now, socket, code, "");
        bench.wait_for_retry();
    }
}

#[test]
fn what_is_no_frame_is_told_and_the_socket_replaced() {
    let (mut bench, socket) = Bench::online();
    bench.core.garbled(bench.now, socket, "no JSON");
    assert_eq!(
        bench.core.poll_effect(),
        Some(Effect::Error(Error::Garbled { detail: "no JSON".to_owned() }))
    );
    assert_eq!(bench.core.poll_effect(), Some(Effect::Close(socket, CloseCode::BadFrame)));
    bench.wait_for_retry();
}

#[test]
fn disconnecting_ends_waiting_calls_and_keeps_what_was_subscribed() {
    let (mut bench, socket) = Bench::subscribed(7);
    let call = bench.core.subscribe(bench.now, &room("news"), SubscribeOptions::default());
    bench.effects();
    bench.core.disconnect();
    assert_eq!(
        bench.effects(),
        [
            Effect::Close(socket, CloseCode::Normal),
            Effect::State(State::Closed(ClosedReason::Disconnected)),
            Effect::Done(call, Err(Error::Closed)),
        ]
    );
    bench.core.disconnect();
    assert_eq!(bench.effects(), []);
    bench.core.connect(bench.now);
    bench.get_online();
    let ask = asked(&bench.effects());
    assert_eq!((ask.room, ask.after), (room("chat"), Some(at("e1", 7))));
}

#[test]
fn a_hint_on_a_connection_that_is_dead_brings_the_next_at_once() {
    let (mut bench, socket) = Bench::online();
    bench.now += 25_000 + limits::SILENCE;
    bench.core.wake(bench.now);
    let effects = bench.effects();
    assert_eq!(effects[0], Effect::Close(socket, CloseCode::Normal));
    assert_ne!(opened_socket(&effects), socket);
}

#[test]
fn a_hint_on_a_connection_that_is_well_does_nothing() {
    let (mut bench, _) = Bench::online();
    bench.now += 25_000;
    bench.core.wake(bench.now);
    assert_eq!(bench.effects(), []);
}

#[test]
fn a_hint_replaces_a_socket_that_has_been_opening_for_a_while() {
    for greeting in [false, true] {
        let mut bench = Bench::new();
        bench.core.connect(bench.now);
        let socket = opened_socket(&bench.effects());
        if greeting {
            bench.core.opened(bench.now, socket);
            bench.effects();
        }
        bench.now += limits::WAKE_PATIENCE;
        bench.core.wake(bench.now);
        assert_eq!(bench.effects(), []);
        bench.now += 1;
        bench.core.wake(bench.now);
        let effects = bench.effects();
        assert_eq!(effects[0], Effect::Close(socket, CloseCode::Normal));
        assert_ne!(opened_socket(&effects), socket);
        // The next one is given its time again.
        bench.core.wake(bench.now);
        assert_eq!(bench.effects(), []);
    }
}

#[test]
fn a_hint_does_not_hurry_the_cookie_and_wakes_no_one_who_sleeps() {
    let mut bench = Bench::new();
    bench.core = Core::new(Config { cookie: true, ..Config::default() });
    bench.core.wake(bench.now);
    assert_eq!(bench.effects(), []);
    bench.core.connect(bench.now);
    assert_eq!(bench.effects(), [Effect::State(State::Connecting), Effect::FetchCookie]);
    bench.core.wake(bench.now + limits::COOKIE_WAIT - 1);
    assert_eq!(bench.effects(), []);
    bench.core.wake(bench.now + limits::COOKIE_WAIT);
    opened_socket(&bench.effects());
}

#[test]
fn what_a_failed_call_asked_for_is_not_asked_for_later() {
    let (mut bench, _) = Bench::subscribed(7);
    let options = SubscribeOptions { history: Some(5), ..SubscribeOptions::default() };
    let call = bench.core.subscribe(bench.now, &room("chat"), options);
    assert_eq!(asked(&bench.effects()).history, Some(5));
    bench.core.disconnect();
    assert_eq!(bench.effects().last(), Some(&Effect::Done(call, Err(Error::Closed))));
    bench.core.connect(bench.now);
    bench.get_online();
    let ask = asked(&bench.effects());
    assert_eq!((ask.after, ask.history), (Some(at("e1", 7)), None));
}
