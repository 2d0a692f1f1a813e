//! Each transition of the core, event by event. What holds over whole histories is tested against a
//! model hub in `tests/exactly_once.rs`.

use twine_protocol::{
    ClientFrame, CloseCode, Connected, Disconnect, Epoch, EpochChange, ErrorCode, ErrorFrame, Gap, GapReason,
    Lost, Message, Offset, Position, RoomName, ServerFrame, SessionId, Subscribe, Subscribed, Unsubscribed,
};

use super::*;

/// A core at a time, and what it did last.
struct Bench {
    core: Core<u32>,
    now: u64,
}

impl Bench {
    fn new() -> Self {
        Self { core: Core::new(Config { seed: 1, ..Config::default() }), now: 1_000_000 }
    }

    /// Connected, with the greeting's effects taken.
    fn online() -> (Self, SocketId) {
        let mut bench = Self::new();
        bench.core.connect(bench.now);
        let socket = bench.get_online();
        (bench, socket)
    }

    fn get_online(&mut self) -> SocketId {
        self.get_online_with(&[])
    }

    /// From the request for a socket to `connected`; the effects that follow it stay queued.
    fn get_online_with(&mut self, rooms: &[&str]) -> SocketId {
        let socket = opened_socket(&self.effects());
        self.core.opened(self.now, socket);
        assert!(matches!(self.effects()[..], [Effect::Send(_, ClientFrame::Connect(_))]));
        let frame = Connected {
            session: Some(SessionId::new("s1").unwrap()),
            resumed: !rooms.is_empty(),
            adopted: false,
            heartbeat: 25_000,
            rooms: rooms.iter().map(|name| room(name)).collect(),
        };
        self.core.frame(self.now, socket, ServerFrame::Connected(frame));
        assert_eq!(self.core.poll_effect(), Some(Effect::State(State::Connected)));
        socket
    }

    /// Online, with one listener on `chat`, subscribed at `e1:offset`.
    fn subscribed(offset: u64) -> (Self, SocketId) {
        let (mut bench, socket) = Self::online();
        bench.core.attach(bench.now, &room("chat")).unwrap();
        bench.core.subscribe(bench.now, &room("chat"), SubscribeOptions::default());
        let ask = asked(&bench.effects());
        bench.core.frame(bench.now, socket, subscribed(ask.id, "e1", offset, ("e1", offset), None));
        assert!(matches!(bench.effects()[..], [Effect::Done(_, Ok(Outcome::Subscribed { .. }))]));
        (bench, socket)
    }

    fn effects(&mut self) -> Vec<Effect<u32>> {
        std::iter::from_fn(|| self.core.poll_effect()).collect()
    }

    fn frame(&mut self, socket: SocketId, frame: ServerFrame<u32>) -> Vec<Effect<u32>> {
        self.core.frame(self.now, socket, frame);
        self.effects()
    }

    /// The delay that the core announces when it loses its connection; time goes on by it.
    fn wait_for_retry(&mut self) -> u64 {
        let effects = self.effects();
        let delay = effects
            .iter()
            .find_map(|effect| match effect {
                Effect::State(State::Reconnecting { delay }) => Some(*delay),
                _ => None,
            })
            .unwrap_or_else(|| panic!("no reconnecting in {effects:?}"));
        assert_eq!(self.core.deadline(), Some(self.now + delay));
        self.now += delay;
        self.core.timer(self.now);
        delay
    }
}

fn room(name: &str) -> RoomName {
    RoomName::new(name).unwrap()
}

fn at(epoch: &str, offset: u64) -> Position {
    Position::new(epoch, offset).unwrap()
}

fn message(offset: u64) -> ServerFrame<u32> {
    ServerFrame::Message(Message {
        room: room("chat"),
        offset: Offset::new(offset).unwrap(),
        time: 0,
        id: None,
        sender: None,
        data: 0,
    })
}

fn subscribed(
    id: u64,
    epoch: &str,
    offset: u64,
    head: (&str, u64),
    recovered: Option<bool>,
) -> ServerFrame<u32> {
    ServerFrame::Subscribed(Subscribed {
        id,
        room: room("chat"),
        epoch: Epoch::new(epoch).unwrap(),
        offset: Offset::new(offset).unwrap(),
        head: at(head.0, head.1),
        recovered,
        reason: None,
        lost: None,
    })
}

fn epoch(next: &str, prev: Position) -> ServerFrame<u32> {
    ServerFrame::Epoch(EpochChange { room: room("chat"), epoch: Epoch::new(next).unwrap(), prev })
}

fn gap(from: Position, to: Position) -> Gap {
    Gap { room: room("chat"), from, to, count: None, reason: GapReason::Expired }
}

fn refusal(id: Option<u64>, code: ErrorCode) -> ServerFrame<u32> {
    ServerFrame::Error(ErrorFrame { id, code, message: String::new() })
}

fn opened_socket(effects: &[Effect<u32>]) -> SocketId {
    effects
        .iter()
        .find_map(|effect| match effect {
            Effect::Open(socket) => Some(*socket),
            _ => None,
        })
        .unwrap_or_else(|| panic!("no socket asked for in {effects:?}"))
}

/// The one `subscribe` among the effects.
fn asked(effects: &[Effect<u32>]) -> Subscribe {
    let asks: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send(_, ClientFrame::Subscribe(frame)) => Some(frame.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(asks.len(), 1, "{effects:?}");
    asks.into_iter().next().unwrap()
}

/// The positions delivered, and whether each counts as recovered.
fn delivered(effects: &[Effect<u32>]) -> Vec<(Position, bool)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Deliver(delivery) => Some((delivery.position.clone(), delivery.recovered)),
            _ => None,
        })
        .collect()
}

fn acked(effects: &[Effect<u32>]) -> Vec<Position> {
    match effects {
        [Effect::Send(_, ClientFrame::Pong(pong))] => {
            pong.cursors.iter().map(|(_, cursor)| cursor.clone()).collect()
        }
        other => panic!("no pong: {other:?}"),
    }
}

// The connection.

#[test]
fn the_cookie_is_fetched_before_the_socket_is_opened() {
    let mut core = Core::<u32>::new(Config { cookie: true, ..Config::default() });
    core.connect(0);
    assert_eq!(core.poll_effect(), Some(Effect::State(State::Connecting)));
    assert_eq!(core.poll_effect(), Some(Effect::FetchCookie));
    assert_eq!(core.poll_effect(), None);
    core.cookie_settled(10);
    assert!(matches!(core.poll_effect(), Some(Effect::Open(_))));
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
    assert!(matches!(core.poll_effect(), Some(Effect::Open(_))));
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
    let socket = opened_socket(&bench.effects());
    bench.core.opened(bench.now, socket);
    let Some(Effect::Send(_, ClientFrame::Connect(connect))) = bench.core.poll_effect() else {
        panic!("no connect frame")
    };
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
fn a_hint_of_the_network_or_the_app_ends_the_waiting() {
    for hint in [Core::wake, Core::connect] {
        let (mut bench, socket) = Bench::online();
        bench.core.closed(bench.now, socket, 1006, "");
        bench.effects();
        hint(&mut bench.core, bench.now);
        assert!(matches!(bench.effects()[..], [Effect::State(State::Connecting), Effect::Open(_)]));
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

// Subscribing.

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
    bench.wait_for_retry();
    let call = bench.core.unsubscribe(bench.now, &room("chat"));
    let effects = bench.effects();
    assert_eq!(effects.last(), Some(&Effect::Done(call, Ok(Outcome::Unsubscribed))));
    bench.core.opened(bench.now, opened_socket(&effects));
    bench.effects();
    let frame = Connected {
        session: SessionId::new("s1").ok(),
        resumed: true,
        adopted: false,
        heartbeat: 25_000,
        rooms: vec![room("chat"), room("news")],
    };
    let effects = bench.frame(opened_socket(&effects), ServerFrame::Connected(frame));
    assert!(
        matches!(&effects[..], [Effect::State(State::Connected), Effect::Send(_, ClientFrame::Unsubscribe(u))]
        if u.room == room("chat"))
    );
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

// The cursor.

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

// Listeners.

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
    let first = bench.core.poll_effect();
    assert!(matches!(first, Some(Effect::Deliver(d)) if d.position == at("e1", 5)));
    // Its listener removes itself while it is called.
    bench.core.detach(bench.now, &room("chat"));
    bench.core.delivered(&room("chat"), &at("e1", 5));
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

// Acknowledging.

#[test]
fn a_pong_names_the_cursors_that_moved() {
    let (mut bench, socket) = Bench::subscribed(4);
    assert_eq!(acked(&bench.frame(socket, ServerFrame::Ping)), []);
    bench.frame(socket, message(5));
    bench.core.delivered(&room("chat"), &at("e1", 5));
    assert_eq!(acked(&bench.frame(socket, ServerFrame::Ping)), [at("e1", 5)]);
    assert_eq!(acked(&bench.frame(socket, ServerFrame::Ping)), []);
}

#[test]
fn an_unsettled_callback_holds_the_acknowledged_cursor_back_for_a_while() {
    let (mut bench, socket) = Bench::subscribed(4);
    for offset in 5..=7 {
        bench.frame(socket, message(offset));
    }
    bench.core.delivered(&room("chat"), &at("e1", 5));
    bench.core.pending(bench.now, &room("chat"), &at("e1", 6));
    bench.core.delivered(&room("chat"), &at("e1", 7));
    assert_eq!(acked(&bench.frame(socket, ServerFrame::Ping)), [at("e1", 5)]);
    bench.core.delivered(&room("chat"), &at("e1", 6));
    assert_eq!(acked(&bench.frame(socket, ServerFrame::Ping)), [at("e1", 7)]);
    bench.frame(socket, message(8));
    bench.core.pending(bench.now, &room("chat"), &at("e1", 8));
    assert_eq!(acked(&bench.frame(socket, ServerFrame::Ping)), []);
    bench.now += limits::SETTLE_WAIT;
    assert_eq!(acked(&bench.frame(socket, ServerFrame::Ping)), [at("e1", 8)]);
}
