//! Properties of the codec and of the types that check themselves.
#![cfg(feature = "json")]
// The exception of clippy.toml covers test functions, not what they share.
#![allow(clippy::unwrap_used)]

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use twine_protocol::api::{Publish, PublishBatch};
use twine_protocol::json::{decode_client, decode_publish, decode_publish_batch, decode_server};
use twine_protocol::{
    ClientFrame, Connect, Connected, Data, Disconnect, Epoch, EpochChange, ErrorCode, ErrorFrame, Gap,
    GapReason, InstanceId, Lost, Message, MessageId, Offset, Pong, Position, RoomName, ServerFrame,
    SessionId, Subscribe, Subscribed, Unsubscribe, Unsubscribed,
};

/// 2^53: offsets and request ids stay below it.
const EXACT: u64 = 1 << 53;

fn config() -> ProptestConfig {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/properties.proptest-regressions");
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(seeds))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_client_frame_comes_back_as_it_was_sent(frame in client_frame()) {
        prop_assert_eq!(decode_client(&frame.to_json()).unwrap(), frame);
    }

    #[test]
    fn a_hub_frame_comes_back_as_it_was_sent(frame in server_frame()) {
        let text = frame.to_json();
        let decoded = decode_server(&text).unwrap();
        prop_assert_eq!(decoded.to_json(), text);
        prop_assert_eq!(comparable(decoded), comparable(frame));
    }

    #[test]
    fn a_publish_comes_back_as_it_was_sent(messages in vec(publish(), 1..4)) {
        for message in &messages {
            let text = serde_json::to_string(message).unwrap();
            let decoded = decode_publish(text.as_bytes()).unwrap();
            prop_assert_eq!(serde_json::to_string(&decoded).unwrap(), text);
        }
        let one_room_each = messages.iter().all(|message| message.room.is_some());
        let batch = serde_json::to_string(&PublishBatch { messages }).unwrap();
        match decode_publish_batch(batch.as_bytes()) {
            Ok(decoded) => prop_assert_eq!(serde_json::to_string(&decoded).unwrap(), batch),
            Err(error) => prop_assert!(!one_room_each && error.index.is_some(), "{}", error),
        }
    }

    #[test]
    fn a_payload_keeps_every_byte_from_publish_to_delivery(json in json(), pad in "[ \t\r\n]{0,3}") {
        let body = format!(r#"{{"data":{pad}{json}{pad},"room":"r"}}"#);
        let data = decode_publish(body.as_bytes()).unwrap().data;
        prop_assert_eq!(data.get(), &json);
        let message = message(RoomName::new("r").unwrap(), Offset::ZERO, data);
        match decode_server(&ServerFrame::Message(message).to_json()).unwrap() {
            ServerFrame::Message(message) => prop_assert_eq!(message.data.get(), &json),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in any_text()) {
        decode_all(text.as_bytes());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..256)) {
        decode_all(&bytes);
    }

    #[test]
    fn arbitrary_json_never_panics(json in json(), kind in "(connect|subscribe|unsubscribe|pong|message|gap|epoch|ping|[a-z]*)") {
        decode_all(json.as_bytes());
        decode_all(format!(r#"{{"type":"{kind}","id":{json},"room":{json},"after":{json},"data":{json}}}"#).as_bytes());
    }

    #[test]
    fn a_damaged_frame_never_panics_and_what_it_says_is_stable(
        frame in prop_oneof![client_frame().prop_map(|f| f.to_json()), server_frame().prop_map(|f| f.to_json())],
        damage in vec((any::<prop::sample::Index>(), 0..3_u8, any::<u8>()), 1..6),
    ) {
        let mut bytes = frame.into_bytes();
        for (at, kind, byte) in damage {
            let at = at.index(bytes.len().max(1));
            match kind {
                0 if at < bytes.len() => bytes.splice(at..=at, [byte]).for_each(drop),
                1 if at < bytes.len() => drop(bytes.remove(at)),
                _ => bytes.insert(at, byte),
            }
        }
        decode_all(&bytes);
    }

    #[test]
    fn a_frame_cut_short_is_no_frame(frame in client_frame(), at in any::<prop::sample::Index>()) {
        let text = frame.to_json();
        let cut: String = text.chars().take(at.index(text.chars().count())).collect();
        prop_assert_eq!(decode_client(&cut).unwrap_err().code(), ErrorCode::BadFrame);
    }

    #[test]
    fn unknown_fields_change_nothing(frame in client_frame(), name in "x[a-z]{0,8}", value in json()) {
        let text = frame.to_json();
        let more = format!(r#"{{"{name}":{value},{}"#, text.strip_prefix('{').unwrap());
        prop_assert_eq!(decode_client(&more).unwrap(), frame);
    }

    #[test]
    fn a_room_name_is_short_and_holds_no_control_character(text in text(255)) {
        let model = !text.is_empty() && text.len() <= 255 && !text.chars().any(char::is_control);
        prop_assert_eq!(RoomName::new(&text).map(String::from).ok(), model.then_some(text));
    }

    #[test]
    fn a_message_id_is_short_and_holds_no_control_character(text in text(128)) {
        let model = !text.is_empty() && text.len() <= 128 && !text.chars().any(char::is_control);
        prop_assert_eq!(MessageId::new(&text).map(String::from).ok(), model.then_some(text));
    }

    #[test]
    fn ids_and_epochs_are_plain(text in prop_oneof![text(64), "[A-Za-z0-9_.-]{0,66}", "[A-Za-z0-9_-]{0,66}"]) {
        let plain = |more: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c));
        let id = !text.is_empty() && text.len() <= 64 && plain("_-");
        prop_assert_eq!(SessionId::new(&text).is_ok(), id);
        prop_assert_eq!(InstanceId::new(&text).is_ok(), id);
        prop_assert_eq!(Epoch::new(&text).is_ok(), text.len() <= 64 && plain("._-"));
    }

    #[test]
    fn an_offset_is_exact_as_a_double(number in prop_oneof![any::<u64>(), EXACT - 9..EXACT + 9, 0..9_u64]) {
        prop_assert_eq!(Offset::new(number).map(Offset::get).ok(), (number < EXACT).then_some(number));
    }

    #[test]
    fn positions_order_as_pairs(a in ("[a-c]{0,2}", 0..3_u64), b in ("[a-c]{0,2}", 0..3_u64)) {
        let position = |(epoch, offset): &(String, u64)| Position::new(epoch, *offset).unwrap();
        prop_assert_eq!(position(&a).cmp(&position(&b)), a.cmp(&b));
    }
}

/// Decodes `bytes` as everything there is. What is taken says the same when written and read again.
fn decode_all(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(frame) = decode_client(&text) {
        assert_eq!(decode_client(&frame.to_json()).unwrap(), frame);
    }
    if let Ok(frame) = decode_server(&text) {
        let written = frame.to_json();
        assert_eq!(decode_server(&written).unwrap().to_json(), written);
    }
    if let Ok(publish) = decode_publish(bytes) {
        let written = serde_json::to_string(&publish).unwrap();
        assert_eq!(serde_json::to_string(&decode_publish(written.as_bytes()).unwrap()).unwrap(), written);
    }
    if let Ok(batch) = decode_publish_batch(bytes) {
        assert!(!batch.messages.is_empty());
    }
}

/// The frame with its payload as text: raw JSON can't be compared.
fn comparable(frame: ServerFrame<Data>) -> ServerFrame<String> {
    match frame {
        ServerFrame::Message(Message { room, offset, time, id, sender, data }) => {
            ServerFrame::Message(Message { room, offset, time, id, sender, data: data.get().to_owned() })
        }
        ServerFrame::Connected(frame) => ServerFrame::Connected(frame),
        ServerFrame::Subscribed(frame) => ServerFrame::Subscribed(frame),
        ServerFrame::Unsubscribed(frame) => ServerFrame::Unsubscribed(frame),
        ServerFrame::Epoch(frame) => ServerFrame::Epoch(frame),
        ServerFrame::Gap(frame) => ServerFrame::Gap(frame),
        ServerFrame::Ping => ServerFrame::Ping,
        ServerFrame::Error(frame) => ServerFrame::Error(frame),
        ServerFrame::Disconnect(frame) => ServerFrame::Disconnect(frame),
        other => panic!("no property covers {other:?}"),
    }
}

fn message(room: RoomName, offset: Offset, data: Data) -> Message<Data> {
    Message { room, offset, time: 0, id: None, sender: None, data }
}

/// Any text at all, control characters included.
fn any_text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..24).prop_map(String::from_iter)
}

/// Text around a limit in bytes, with and without what is refused.
fn text(limit: usize) -> impl Strategy<Value = String> {
    prop_oneof![
        any_text(),
        r"\PC{0,8}",
        (limit - 4..limit + 4).prop_map(|len| "x".repeat(len)),
        (limit / 2 - 2..limit / 2 + 2).prop_map(|len| "é".repeat(len)),
        (r"\PC{0,4}", prop::char::range('\0', '\u{a0}')).prop_map(|(text, c)| format!("{text}{c}")),
    ]
}

/// Any JSON, as someone may have written it: white space, escapes, long numbers, repeated members.
fn json() -> impl Strategy<Value = String> {
    let string = prop_oneof![
        any_text().prop_map(|text| serde_json::to_string(&text).unwrap()),
        r#""(\\u[0-9a-fA-F]{4}|\\["\\/bfnrt]|[a-z ])*""#,
    ];
    let leaf = prop_oneof![
        "(null|true|false)",
        r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,24})?([eE][+-]?[0-9]{1,4})?",
        string,
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let padded =
            ("[ \t\r\n]{0,2}", inner, "[ \t\r\n]{0,2}").prop_map(|(a, json, b)| format!("{a}{json}{b}"));
        let member = ("[a-c]?", padded.clone()).prop_map(|(name, value)| format!("\"{name}\":{value}"));
        prop_oneof![
            vec(padded, 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            vec(member, 0..4).prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    })
}

fn data() -> impl Strategy<Value = Data> {
    json().prop_map(|text| serde_json::from_str(&text).unwrap())
}

fn room() -> impl Strategy<Value = RoomName> {
    r"\PC{1,40}".prop_map(|name| RoomName::new(&name).unwrap())
}

fn position() -> impl Strategy<Value = Position> {
    (epoch(), offset()).prop_map(|(epoch, offset)| Position { epoch, offset })
}

fn epoch() -> impl Strategy<Value = Epoch> {
    "[A-Za-z0-9._-]{0,64}".prop_map(|text| Epoch::new(&text).unwrap())
}

fn offset() -> impl Strategy<Value = Offset> {
    (0..EXACT).prop_map(|offset| Offset::new(offset).unwrap())
}

fn message_id() -> impl Strategy<Value = MessageId> {
    r"\PC{1,32}".prop_map(|id| MessageId::new(&id).unwrap())
}

fn session_id() -> impl Strategy<Value = SessionId> {
    "[A-Za-z0-9_-]{1,64}".prop_map(|id| SessionId::new(&id).unwrap())
}

fn instance_id() -> impl Strategy<Value = InstanceId> {
    "[A-Za-z0-9_-]{1,64}".prop_map(|id| InstanceId::new(&id).unwrap())
}

fn reason() -> impl Strategy<Value = GapReason> {
    prop::sample::select(&GapReason::ALL[..])
}

fn code() -> impl Strategy<Value = ErrorCode> {
    prop::sample::select(ErrorCode::ALL)
}

fn client_frame() -> impl Strategy<Value = ClientFrame> {
    let connect = (
        option::of(session_id()),
        option::of(instance_id()),
        option::of(instance_id()),
        option::of(r"\PC{0,200}"),
        option::of(any_text()),
    );
    let subscribe = (
        0..EXACT,
        room(),
        option::of(position()),
        any::<bool>(),
        option::of(any::<u32>()),
        option::of(any_text()),
    );
    prop_oneof![
        connect.prop_map(|(session, instance, prev, scope, token)| {
            ClientFrame::Connect(Connect { session, instance, prev, scope, token })
        }),
        subscribe.prop_map(|(id, room, after, stored, history, token)| {
            ClientFrame::Subscribe(Subscribe { id, room, after, stored, history, token })
        }),
        (0..EXACT, room()).prop_map(|(id, room)| ClientFrame::Unsubscribe(Unsubscribe { id, room })),
        btree_map(room(), position(), 0..5)
            .prop_map(|cursors| ClientFrame::Pong(Pong { cursors: cursors.into_iter().collect() })),
    ]
}

fn server_frame() -> impl Strategy<Value = ServerFrame<Data>> {
    let connected = (option::of(session_id()), any::<bool>(), any::<bool>(), any::<u64>(), vec(room(), 0..4))
        .prop_map(|(session, resumed, adopted, heartbeat, rooms)| {
            ServerFrame::Connected(Connected { session, resumed, adopted, heartbeat, rooms })
        });
    let lost = (position(), position(), option::of(any::<u64>())).prop_map(|(from, to, count)| Lost {
        from,
        to,
        count,
    });
    let outcome = (option::of(any::<bool>()), option::of(reason()), option::of(lost));
    let subscribed = (0..EXACT, room(), epoch(), offset(), position(), outcome).prop_map(
        |(id, room, epoch, offset, head, (recovered, reason, lost))| {
            ServerFrame::Subscribed(Subscribed { id, room, epoch, offset, head, recovered, reason, lost })
        },
    );
    let message = (room(), offset(), any::<u64>(), option::of(message_id()), option::of(any_text()), data())
        .prop_map(|(room, offset, time, id, sender, data)| {
            ServerFrame::Message(Message { room, offset, time, id, sender, data })
        });
    let gap = (room(), position(), position(), option::of(any::<u64>()), reason());
    prop_oneof![
        connected,
        subscribed,
        message,
        (0..EXACT, room()).prop_map(|(id, room)| ServerFrame::Unsubscribed(Unsubscribed { id, room })),
        (room(), epoch(), position()).prop_map(|(room, epoch, prev)| ServerFrame::Epoch(EpochChange {
            room,
            epoch,
            prev
        })),
        gap.prop_map(|(room, from, to, count, reason)| {
            ServerFrame::Gap(Gap { room, from, to, count, reason })
        }),
        Just(ServerFrame::Ping),
        (option::of(0..EXACT), code(), any_text())
            .prop_map(|(id, code, message)| ServerFrame::Error(ErrorFrame { id, code, message })),
        (code(), any::<u64>()).prop_map(|(code, retry)| ServerFrame::Disconnect(Disconnect { code, retry })),
    ]
}

fn publish() -> impl Strategy<Value = Publish<Data>> {
    let target = prop_oneof![
        3 => room().prop_map(|room| (Some(room), None)),
        1 => vec(room(), 1..4).prop_map(|rooms| (None, Some(rooms))),
    ];
    (target, data(), option::of(message_id()), option::of(r"\PC{0,60}"))
        .prop_map(|((room, rooms), data, id, sender)| Publish { room, rooms, data, id, sender })
}
