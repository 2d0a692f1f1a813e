//! Sessions over real sockets: what comes back to whom.

use std::sync::atomic::{AtomicBool, Ordering};

use twine_protocol::{Connected, Subscribed};

use super::*;
use crate::auth::Permissions;
use crate::connection::Caller;
use crate::rounds::Rounds as _;
use crate::session::CookieHash;
use crate::store::page::Recovery;

const ORIGIN: &str = "https://app.example";

fn hash(cookie: u8) -> CookieHash {
    CookieHash::of(uuid::Uuid::from_bytes([cookie; 16]))
}

fn caller(cookie: u8, origin: &str) -> Caller {
    Caller { cookie: Some(hash(cookie)), origin: origin.into(), address: LOCAL }
}

impl Bench {
    /// The same with sessions of another keeper.
    fn with_sessions(self, sessions: Sessions) -> Self {
        let Self { rooms, options, telemetry, .. } = &self;
        let connections = Connections::start(rooms, &sessions, None, options, telemetry).unwrap();
        Self { sessions, connections, ..self }
    }

    /// A connection with a cookie that has said `connect` with these fields.
    async fn visitor(&self, cookie: u8, origin: &str, fields: &str) -> Client {
        let socket = self.socket_of(caller(cookie, origin), |_, _| ());
        let mut client = Client(WebSocketStream::from_raw_socket(socket, Role::Client, None).await);
        let comma = if fields.is_empty() { "" } else { "," };
        client.say(&format!(r#"{{"type":"connect"{comma}{fields}}}"#)).await;
        client
    }

    /// The same, which has been answered.
    async fn visit(&self, cookie: u8, origin: &str, fields: &str) -> (Client, Connected) {
        let mut client = self.visitor(cookie, origin, fields).await;
        let Frame::Connected(connected) = client.next().await else { panic!("not connected") };
        (client, connected)
    }

    /// A session that holds `chat`, has had four messages of it and acknowledged two, and has come to
    /// its end.
    async fn detached(&self, fields: &str) -> String {
        let (mut client, connected) = self.visit(1, ORIGIN, fields).await;
        client.subscribe("chat").await;
        for n in 1..=4 {
            let position = self.publish("chat", &n.to_string()).await;
            assert_eq!(client.data().await, n.to_string());
            if n == 2 {
                client.acknowledge("chat", &position).await;
            }
        }
        self.leave(client).await;
        connected.session.unwrap().to_string()
    }

    /// Ends the only connection; its session is given back when this returns.
    async fn leave(&self, client: Client) {
        drop(client);
        while self.telemetry.connections.get() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

impl Client {
    async fn subscribe(&mut self, room: &str) -> Subscribed {
        self.ask(room, "").await
    }

    async fn ask(&mut self, room: &str, fields: &str) -> Subscribed {
        self.say(&format!(r#"{{"type":"subscribe","id":1,"room":"{room}"{fields}}}"#)).await;
        loop {
            match self.next().await {
                Frame::Subscribed(subscribed) => return subscribed,
                // What was on its way before.
                Frame::Ping | Frame::Message(_) => {}
                other => panic!("not subscribed: {other:?}"),
            }
        }
    }

    async fn acknowledge(&mut self, room: &str, Position { epoch, offset }: &Position) {
        let cursors = format!(r#"{{"{room}":{{"epoch":"{epoch}","offset":{offset}}}}}"#);
        self.say(&format!(r#"{{"type":"pong","cursors":{cursors}}}"#)).await;
        self.settle().await;
    }

    /// Has the hub take all that was said before: it answers what is said after it.
    async fn settle(&mut self) {
        self.say(r#"{"type":"unsubscribe","id":9,"room":"none"}"#).await;
        while !matches!(self.next().await, Frame::Error(error) if error.id == Some(9)) {}
    }
}

#[tokio::test]
async fn a_session_is_resumed_by_its_id_where_it_has_acknowledged() {
    let bench = Bench::in_memory(&Options::default());
    let session = bench.detached("").await;
    bench.publish("chat", "5").await;
    let (mut client, connected) = bench.visit(1, ORIGIN, &format!(r#""session":"{session}""#)).await;
    assert_eq!((connected.resumed, connected.adopted), (true, false));
    assert_eq!(connected.session.unwrap().as_str(), session);
    assert_eq!(connected.rooms, ["chat".parse().unwrap()]);
    let subscribed = client.subscribe("chat").await;
    assert_eq!((subscribed.offset.get(), subscribed.recovered), (2, Some(true)));
    for n in 3..=5 {
        assert_eq!(client.data().await, n.to_string());
    }
    bench.end().await;
}

#[tokio::test]
async fn a_room_that_only_the_session_holds_is_left_like_any_other() {
    let bench = Bench::in_memory(&Options::default());
    let session = bench.detached("").await;
    let resume = format!(r#""session":"{session}""#);
    let (mut client, connected) = bench.visit(1, ORIGIN, &resume).await;
    assert_eq!(connected.rooms, ["chat".parse().unwrap()]);
    client.subscribe("news").await;
    client.say(r#"{"type":"unsubscribe","id":4,"room":"chat"}"#).await;
    assert!(matches!(client.next().await, Frame::Unsubscribed(left) if left.id == 4));
    bench.leave(client).await;
    let (_, connected) = bench.visit(1, ORIGIN, &resume).await;
    assert_eq!(connected.rooms, ["news".parse().unwrap()]);
    bench.end().await;
}

#[tokio::test]
async fn a_session_is_adopted_by_the_cookie_alone_and_once() {
    let bench = Bench::in_memory(&Options::default());
    let session = bench.detached("").await;
    let (mut client, connected) = bench.visit(1, ORIGIN, r#""instance":"morning""#).await;
    assert_eq!((connected.resumed, connected.adopted), (false, true));
    assert_eq!(connected.session.unwrap().as_str(), session);
    assert_eq!(client.subscribe("chat").await.offset.get(), 2);
    assert_eq!((client.data().await, client.data().await), ("3".into(), "4".into()));
    // A reply that was lost does not burn it.
    let (mut again, connected) = bench.visit(1, ORIGIN, r#""instance":"morning""#).await;
    assert_eq!(connected.session.unwrap().as_str(), session);
    assert_eq!(client.closed().await, 1012);
    // Another tab gets its own once this one has answered a ping.
    let open = tokio::spawn(async move {
        assert!(matches!(again.next().await, Frame::Ping));
        again.say(r#"{"type":"pong"}"#).await;
        again
    });
    let (_, connected) = bench.visit(1, ORIGIN, r#""instance":"second-tab""#).await;
    assert_eq!((connected.resumed, connected.adopted), (false, false));
    assert_ne!(connected.session.unwrap().as_str(), session);
    drop(open.await.unwrap());
    bench.end().await;
}

#[tokio::test]
async fn a_session_id_is_worthless_without_all_that_it_belongs_to() {
    let bench = Bench::in_memory(&Options::default());
    let session = bench.detached(r#""scope":"/inbox""#).await;
    let stolen = format!(r#""session":"{session}","scope":"/inbox""#);
    for (cookie, origin, fields) in [
        (2, ORIGIN, stolen.clone()),
        (1, "https://evil.example", stolen.clone()),
        (1, "", stolen.clone()),
        (1, ORIGIN, format!(r#""session":"{session}","scope":"/other""#)),
        (1, ORIGIN, format!(r#""session":"{session}""#)),
        (2, ORIGIN, r#""scope":"/inbox""#.to_owned()),
    ] {
        let (client, connected) = bench.visit(cookie, origin, &fields).await;
        assert_eq!((connected.resumed, connected.adopted), (false, false), "{cookie} {origin} {fields}");
        assert_ne!(connected.session.unwrap().as_str(), session);
        assert!(connected.rooms.is_empty());
        bench.leave(client).await;
    }
    // Nor for a program that sends no cookie.
    let mut client = bench.client().await;
    client.say(&format!(r#"{{"type":"connect",{stolen}}}"#)).await;
    assert!(matches!(client.next().await, Frame::Connected(c) if c.session.is_none() && c.rooms.is_empty()));
    let (_, connected) = bench.visit(1, ORIGIN, &stolen).await;
    assert!(connected.resumed, "and it is there for whom it belongs to");
    bench.end().await;
}

#[tokio::test]
async fn a_page_of_another_path_starts_where_the_last_one_left_a_room() {
    let bench = Bench::in_memory(&Options::default());
    bench.detached(r#""scope":"/inbox""#).await;
    let (mut client, connected) = bench.visit(1, ORIGIN, r#""scope":"/archive""#).await;
    assert_eq!((connected.adopted, connected.rooms.len()), (false, 0));
    assert_eq!(client.subscribe("chat").await.offset.get(), 2);
    let (mut stranger, _) = bench.visit(2, ORIGIN, r#""scope":"/archive""#).await;
    assert_eq!(stranger.subscribe("chat").await.offset.get(), 4);
    bench.end().await;
}

#[tokio::test]
async fn a_duplicated_tab_gets_a_copy_and_a_reloaded_page_takes_over() {
    let bench = Bench::in_memory(&Options::default());
    let session = bench.detached("").await;
    let (mut tab, _) = bench.visit(1, ORIGIN, &format!(r#""session":"{session}","instance":"tab""#)).await;
    tab.subscribe("chat").await;
    let fields = format!(r#""session":"{session}","instance":"copy""#);
    let (mut copy, connected) = bench.visit(1, ORIGIN, &fields).await;
    assert!(connected.resumed);
    assert_ne!(connected.session.unwrap().as_str(), session);
    assert_eq!(connected.rooms, ["chat".parse().unwrap()]);
    assert_eq!(copy.subscribe("chat").await.offset.get(), 2);
    // The first connection has noticed nothing.
    assert_eq!((tab.data().await, tab.data().await), ("3".into(), "4".into()));
    let fields = format!(r#""session":"{session}","instance":"reloaded","prev":"tab""#);
    let (_, connected) = bench.visit(1, ORIGIN, &fields).await;
    assert_eq!(connected.session.unwrap().as_str(), session);
    assert_eq!(tab.closed().await, 1012);
    bench.end().await;
}

#[tokio::test]
async fn who_is_half_open_counts_as_gone_when_somebody_comes_for_the_session() {
    let bench = Bench::in_memory(&Options::default());
    let session = bench.detached("").await;
    // It is open and says nothing any more, not even to a ping.
    let (half_open, _) = bench.visit(1, ORIGIN, &format!(r#""session":"{session}","instance":"tab""#)).await;
    let (mut client, connected) = bench.visit(1, ORIGIN, r#""instance":"morning""#).await;
    assert!(connected.adopted);
    assert_eq!(connected.session.unwrap().as_str(), session);
    assert_eq!(client.subscribe("chat").await.offset.get(), 2);
    drop(half_open);
    bench.end().await;
}

/// A page goes on where it was, whatever a duplicate of it, which took its session up meanwhile, or
/// another page of the same browser has seen.
#[tokio::test]
async fn a_page_that_knows_its_cursor_goes_on_there_whatever_others_have_seen() {
    let bench = Bench::in_memory(&Options::default());
    let session = bench.detached(r#""instance":"i_duplicate""#).await;
    for (session, offset) in [(&*session, 1), (&*session, 3), ("gone", 1)] {
        let reloaded = format!(r#""session":"{session}","instance":"i_2","prev":"i_1""#);
        let (mut client, _) = bench.visit(1, ORIGIN, &reloaded).await;
        let epoch = bench.epoch("chat").await;
        let after = format!(r#","after":{{"epoch":"{epoch}","offset":{offset}}},"stored":true"#);
        assert_eq!(client.ask("chat", &after).await.offset.get(), offset);
        for n in offset + 1..=4 {
            assert_eq!(client.data().await, n.to_string());
        }
        bench.leave(client).await;
    }
    bench.end().await;
}

/// The answer that tells a loss may get lost itself.
#[tokio::test]
async fn a_loss_is_told_until_it_is_acknowledged() {
    let recovery = Recovery { max_messages: 1, ..Options::default().recovery };
    let bench = Bench::in_memory(&Options { recovery, ..Options::default() });
    let session = bench.detached(r#""instance":"i_1""#).await;
    let again = format!(r#""session":"{session}","instance":"i_1""#);
    for (is_told, acknowledges) in [(true, false), (true, true), (false, true)] {
        let (mut client, _) = bench.visit(1, ORIGIN, &again).await;
        let subscribed = client.subscribe("chat").await;
        assert_eq!((subscribed.recovered, subscribed.lost.is_some()), (Some(!is_told), is_told));
        assert_eq!(subscribed.offset.get(), 3);
        assert_eq!(client.data().await, "4");
        if acknowledges {
            let start = Position { epoch: subscribed.epoch, offset: subscribed.offset };
            client.acknowledge("chat", &start).await;
        }
        bench.leave(client).await;
    }
    bench.end().await;
}

#[tokio::test]
async fn a_page_that_asks_for_history_gets_it_and_all_that_it_has_missed() {
    let bench = Bench::in_memory(&Options::default());
    let session = bench.detached("").await;
    for (history, starts) in [(1, 2), (3, 1), (20, 0)] {
        let (mut client, _) = bench.visit(1, ORIGIN, &format!(r#""session":"{session}""#)).await;
        let subscribed = client.ask("chat", &format!(r#","history":{history}"#)).await;
        assert_eq!((subscribed.offset.get(), subscribed.recovered), (starts, Some(true)));
        for n in starts + 1..=4 {
            assert_eq!(client.data().await, n.to_string());
        }
        // Nothing is acknowledged, and what was so before still is.
        bench.leave(client).await;
    }
    bench.end().await;
}

#[tokio::test]
async fn a_room_that_is_left_is_not_in_the_session_and_one_that_waits_is() {
    let bench = Bench::in_memory(&Options { max_session_rooms: 2, ..Options::default() });
    let (mut client, connected) = bench.visit(1, ORIGIN, "").await;
    for room in ["a", "b", "c", "d"] {
        client.subscribe(room).await;
    }
    client.say(r#"{"type":"unsubscribe","id":1,"room":"d"}"#).await;
    assert!(matches!(client.next().await, Frame::Unsubscribed(_)));
    bench.leave(client).await;
    let session = connected.session.unwrap();
    for _ in 0..2 {
        let (client, connected) = bench.visit(1, ORIGIN, &format!(r#""session":"{session}""#)).await;
        assert_eq!(connected.rooms, ["c".parse().unwrap()], "the oldest had to go for later ones");
        bench.leave(client).await;
    }
    bench.end().await;
}

#[tokio::test]
async fn a_resumed_room_passes_the_same_check_as_a_subscribe() {
    let staff = Permissions::new(|who, room| room != "staff" || who.origin == ORIGIN);
    let bench = Bench::in_memory(&Options::default()).with_permissions(&staff);
    let (mut client, connected) = bench.visit(1, ORIGIN, "").await;
    client.subscribe("staff").await;
    client.subscribe("chat").await;
    bench.leave(client).await;
    let session = connected.session.unwrap();
    let nobody = Permissions::new(|_, room| room != "staff");
    let bench = bench.with_permissions(&nobody);
    let (mut client, connected) = bench.visit(1, ORIGIN, &format!(r#""session":"{session}""#)).await;
    assert!(connected.resumed);
    assert_eq!(connected.rooms, ["chat".parse().unwrap()]);
    client.say(r#"{"type":"subscribe","id":7,"room":"staff"}"#).await;
    assert_eq!(client.error().await, (Some(7), "forbidden"));
    bench.publish("staff", "1").await;
    bench.publish("chat", "2").await;
    client.subscribe("chat").await;
    assert_eq!(client.data().await, "2");
    bench.end().await;
}

#[tokio::test]
async fn who_is_forgotten_goes_on_as_a_stranger() {
    let bench = Bench::in_memory(&Options::default());
    let session = bench.detached("").await;
    let (mut client, _) = bench.visit(1, ORIGIN, &format!(r#""session":"{session}""#)).await;
    client.subscribe("chat").await;
    assert_eq!((client.data().await, client.data().await), ("3".into(), "4".into()));
    bench.sessions.forget(hash(1)).await.unwrap();
    bench.publish("chat", "5").await;
    assert_eq!(client.data().await, "5");
    bench.leave(client).await;
    for fields in [format!(r#""session":"{session}""#), String::new()] {
        let (mut client, connected) = bench.visit(1, ORIGIN, &fields).await;
        assert_eq!((connected.resumed, connected.adopted), (false, false));
        assert_eq!(client.subscribe("chat").await.offset.get(), 5);
        client.say(r#"{"type":"unsubscribe","id":1,"room":"chat"}"#).await;
        assert!(matches!(client.next().await, Frame::Unsubscribed(_)));
        bench.leave(client).await;
    }
    bench.end().await;
}

#[tokio::test]
async fn another_page_goes_on_from_its_own_storage_whatever_the_session_has_had_since() {
    let bench = Bench::in_memory(&Options::default());
    let session = bench.detached(r#""instance":"tab""#).await;
    let epoch = bench.epoch("chat").await;
    let stored = format!(r#","after":{{"epoch":"{epoch}","offset":1}},"stored":true"#);
    // One that resumes it while the tab is away, and one that gets a copy while it is there.
    for instance in ["twin", "tab"] {
        let fields = format!(r#""session":"{session}","instance":"{instance}""#);
        let (_open, connected) = bench.visit(1, ORIGIN, &fields).await;
        assert!(connected.resumed);
        let fields = format!(r#""session":"{session}","instance":"copy-of-{instance}""#);
        let (mut copy, connected) = bench.visit(1, ORIGIN, &fields).await;
        assert_ne!(connected.session.unwrap().as_str(), session);
        assert_eq!(copy.ask("chat", &stored).await.offset.get(), 1, "2 has never reached this page");
    }
    bench.end().await;
}

#[tokio::test]
async fn only_acknowledgements_move_a_room_of_the_session_forward() {
    let bench = Bench::in_memory(&Options::default());
    let session = bench.detached("").await;
    let epoch = bench.epoch("chat").await;
    // Its listeners may not be through with what it has had.
    let (mut client, _) = bench.visit(1, ORIGIN, &format!(r#""session":"{session}""#)).await;
    let after = format!(r#","after":{{"epoch":"{epoch}","offset":4}}"#);
    assert_eq!(client.ask("chat", &after).await.offset.get(), 4);
    bench.leave(client).await;
    let (mut client, _) = bench.visit(1, ORIGIN, "").await;
    assert_eq!(client.subscribe("chat").await.offset.get(), 2);
    bench.end().await;
}

#[tokio::test]
async fn a_room_that_was_just_subscribed_is_in_the_session() {
    let bench = Bench::in_memory(&Options::default());
    // Its network is gone at once; the browser is opened again.
    let (mut half_open, _) = bench.visit(1, ORIGIN, r#""instance":"tab""#).await;
    assert_eq!(half_open.subscribe("chat").await.offset.get(), 0);
    bench.publish("chat", "1").await;
    // The answer goes out before the session is saved, at the end of the same turn: this comes after.
    half_open.settle().await;
    let (mut client, connected) = bench.visit(1, ORIGIN, r#""instance":"again""#).await;
    let subscribed = client.subscribe("chat").await;
    assert_eq!((connected.adopted, subscribed.offset.get()), (true, 0));
    assert_eq!(client.data().await, "1");
    bench.end().await;
}

#[tokio::test]
async fn a_cursor_that_moves_back_is_saved_at_once() {
    let bench = Bench::in_memory(&Options { shards: 1, ..Options::default() });
    let session = bench.detached("").await;
    let tab = format!(r#""session":"{session}","instance":"tab""#);
    let (mut tab, _) = bench.visit(1, ORIGIN, &tab).await;
    let epoch = bench.epoch("chat").await;
    let at = |offset| Position::new(epoch.as_str(), offset).unwrap();
    let after = |offset| format!(r#","after":{{"epoch":"{epoch}","offset":{offset}}}"#);
    // A copy has what is stored: nobody is asked for anything later.
    let stored = async || {
        let copy = format!(r#""session":"{session}","instance":"copy""#);
        bench.visit(1, ORIGIN, &copy).await.0.subscribe("chat").await.offset.get()
    };
    assert_eq!(stored().await, 2);
    for (fields, start) in [(format!(r#"{},"history":1"#, after(1)), 1), (after(0), 0)] {
        assert_eq!(tab.ask("chat", &fields).await.offset.get(), start);
        tab.settle().await;
        assert_eq!(stored().await, start, "{fields}");
    }
    // With history it does not move forward either; another room has all of the session saved.
    tab.ask("chat", &format!(r#"{},"history":1"#, after(3))).await;
    tab.subscribe("news").await;
    tab.settle().await;
    assert_eq!(stored().await, 0);
    tab.acknowledge("chat", &at(4)).await;
    tab.acknowledge("chat", &at(3)).await;
    assert_eq!(stored().await, 3);
    bench.end().await;
}

#[tokio::test]
async fn claims_that_a_stalled_keeper_has_are_bounded_also_where_their_connections_went_on() {
    let store = crate::session::store::open(&Kind::Memory { max_bytes: 0 }, 0).unwrap();
    let (sessions, mut keeping) = Sessions::new(store, crate::Config::default().sessions(), Arc::default());
    let options = Options { max_waiting: 2, ..Options::default() };
    let bench = Bench::in_memory(&options).with_sessions(sessions);
    let mut clients = [bench.visitor(1, ORIGIN, "").await, bench.visitor(2, ORIGIN, "").await];
    for client in &mut clients {
        assert!(matches!(client.next().await, Frame::Connected(c) if c.session.is_none()));
    }
    let mut late = bench.visitor(3, ORIGIN, "").await;
    assert!(matches!(late.next().await, Frame::Disconnect(told) if told.code == ErrorCode::Full));
    assert_eq!(late.closed().await, 1013);
    // When it goes on, so do they who come then.
    let (is_over, over) = (Arc::new(AtomicBool::new(false)), Ordering::SeqCst);
    let keeper = std::thread::spawn({
        let is_over = is_over.clone();
        move || {
            while !is_over.load(over) {
                keeping.round();
                std::thread::yield_now();
            }
        }
    });
    while bench.telemetry.waiting.get() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(bench.visit(3, ORIGIN, "").await.1.session.is_some());
    drop(clients);
    bench.end().await;
    is_over.store(true, over);
    keeper.join().unwrap();
}
