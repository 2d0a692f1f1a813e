//! Runs the golden vectors (`vectors/README.md` has their format).
#![cfg(feature = "json")]
// The exception of clippy.toml covers test functions, not what they share.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use twine_protocol::api::{
    History, Problem, Publish, PublishBatch, Published, PublishedList, RoomInfo, RoomList, StoredMessage,
};
use twine_protocol::json::{DecodeError, decode_client, decode_publish, decode_publish_batch, decode_server};
use twine_protocol::{
    ClientFrame, CloseCode, Connect, Connected, Data, Disconnect, Epoch, EpochChange, ErrorCode, ErrorFrame,
    Gap, GapReason, InstanceId, Lost, Message, MessageId, Offset, Pong, RoomName, ServerFrame, SessionId,
    Subscribe, Subscribed, Unsubscribe, Unsubscribed,
};

#[derive(Deserialize)]
struct File<G, B> {
    format: u32,
    good: Vec<G>,
    bad: Vec<B>,
}

#[derive(Deserialize)]
struct Good {
    name: String,
    #[serde(default)]
    body: String,
    text: String,
    canonical: String,
    decoded: Value,
}

fn read<G: DeserializeOwned, B: DeserializeOwned>(text: &str) -> File<G, B> {
    let file: File<G, B> = serde_json::from_str(text).unwrap();
    assert_eq!(file.format, 1);
    file
}

#[test]
fn client_frames() {
    #[derive(Deserialize)]
    struct Bad {
        name: String,
        text: String,
        code: String,
        id: Option<u64>,
    }
    let file: File<Good, Bad> = read(include_str!("../vectors/client-frames.json"));
    let mut types = BTreeSet::new();
    for good in file.good {
        for text in [&good.text, &good.canonical] {
            let frame = decode_client(text).unwrap_or_else(|error| panic!("{}: {error}", good.name));
            assert_eq!(frame.to_json(), good.canonical, "{}", good.name);
            assert_eq!(client_fields(frame), good.decoded, "{}", good.name);
        }
        types.insert(good.decoded["type"].as_str().unwrap().to_owned());
    }
    assert_eq!(types.into_iter().collect::<Vec<_>>(), ["connect", "pong", "subscribe", "unsubscribe"]);
    for bad in file.bad {
        let error = decode_client(&bad.text).expect_err(&bad.name);
        assert_eq!((error.code().as_str(), error.id()), (bad.code.as_str(), bad.id), "{}: {error}", bad.name);
    }
}

#[test]
fn hub_frames() {
    #[derive(Deserialize)]
    struct Bad {
        name: String,
        text: String,
        outcome: String,
    }
    let file: File<Good, Bad> = read(include_str!("../vectors/hub-frames.json"));
    let mut types = BTreeSet::new();
    for good in file.good {
        for text in [&good.text, &good.canonical] {
            let frame = decode_server(text).unwrap_or_else(|error| panic!("{}: {error}", good.name));
            assert_eq!(frame.to_json(), good.canonical, "{}", good.name);
            assert_eq!(server_fields(frame), good.decoded, "{}", good.name);
        }
        types.insert(good.decoded["type"].as_str().unwrap().to_owned());
    }
    let all = "connected disconnect epoch error gap message ping subscribed unsubscribed";
    assert_eq!(types.into_iter().collect::<Vec<_>>().join(" "), all);
    for bad in file.bad {
        let outcome = match decode_server(&bad.text).expect_err(&bad.name) {
            DecodeError::UnknownType { .. } => "ignored",
            _ => "refused",
        };
        assert_eq!(outcome, bad.outcome, "{}", bad.name);
    }
}

#[test]
fn bodies() {
    #[derive(Deserialize)]
    struct Bad {
        name: String,
        body: String,
        text: String,
        code: String,
        index: Option<usize>,
    }
    let file: File<Good, Bad> = read(include_str!("../vectors/bodies.json"));
    for good in file.good {
        for text in [&good.text, &good.canonical] {
            let (canonical, decoded) = body(&good.body, text);
            assert_eq!((canonical, decoded), (good.canonical.clone(), good.decoded.clone()), "{}", good.name);
        }
    }
    for bad in file.bad {
        let error = match bad.body.as_str() {
            "publish" => decode_publish(bad.text.as_bytes()).map(drop),
            _ => decode_publish_batch(bad.text.as_bytes()).map(drop),
        }
        .expect_err(&bad.name);
        assert_eq!((error.code().as_str(), error.index), (&*bad.code, bad.index), "{}: {error}", bad.name);
    }
}

#[test]
fn values() {
    let file: Value = serde_json::from_str(include_str!("../vectors/values.json")).unwrap();
    for (kind, lists) in file["values"].as_object().unwrap() {
        let valid = |value: &Value| match kind.as_str() {
            "room" => RoomName::deserialize(value).is_ok(),
            "message_id" => MessageId::deserialize(value).is_ok(),
            "session_id" => SessionId::deserialize(value).is_ok(),
            "instance_id" => InstanceId::deserialize(value).is_ok(),
            "epoch" => Epoch::deserialize(value).is_ok(),
            "offset" => Offset::deserialize(value).is_ok(),
            other => panic!("no values are called {other}"),
        };
        for value in lists["good"].as_array().unwrap() {
            assert!(valid(value), "{kind} refused {value}");
        }
        for value in lists["bad"].as_array().unwrap() {
            assert!(!valid(value), "{kind} took {value}");
        }
    }
}

#[test]
fn codes() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Error {
        code: ErrorCode,
        http: u16,
        close: Option<u16>,
        retry: bool,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct Close {
        code: u16,
        retry: bool,
    }
    #[derive(Deserialize)]
    struct Codes {
        errors: Vec<Error>,
        closes: Vec<Close>,
        reasons: Vec<GapReason>,
    }
    let file: Codes = serde_json::from_str(include_str!("../vectors/codes.json")).unwrap();
    let errors = ErrorCode::ALL.iter().map(|&code| Error {
        code,
        http: code.http_status(),
        close: code.close_code().map(CloseCode::as_u16),
        retry: code.is_retryable(),
    });
    assert_eq!(file.errors, errors.collect::<Vec<_>>());
    let closes = CloseCode::ALL.map(CloseCode::as_u16);
    let closes = closes.map(|code| Close { code, retry: CloseCode::is_retryable(code) });
    assert_eq!(file.closes, closes);
    assert_eq!(file.reasons, GapReason::ALL);
}

// The structs are taken apart field by field, so that a new field does not compile without a vector.

fn client_fields(frame: ClientFrame) -> Value {
    match frame {
        ClientFrame::Connect(Connect { session, instance, prev, scope, token }) => json!({
            "type": "connect", "session": session, "instance": instance, "prev": prev, "scope": scope,
            "token": token,
        }),
        ClientFrame::Subscribe(Subscribe { id, room, after, stored, history, token }) => json!({
            "type": "subscribe", "id": id, "room": room, "after": after, "stored": stored,
            "history": history, "token": token,
        }),
        ClientFrame::Unsubscribe(Unsubscribe { id, room }) => {
            json!({ "type": "unsubscribe", "id": id, "room": room })
        }
        ClientFrame::Pong(Pong { cursors }) => {
            let cursors: BTreeMap<_, _> = cursors.iter().map(|(room, cursor)| (room, cursor)).collect();
            json!({ "type": "pong", "cursors": cursors })
        }
        other => panic!("no vectors for {other:?}"),
    }
}

fn server_fields(frame: ServerFrame<Data>) -> Value {
    match frame {
        ServerFrame::Connected(Connected { session, resumed, adopted, heartbeat, rooms }) => json!({
            "type": "connected", "session": session, "resumed": resumed, "adopted": adopted,
            "heartbeat": heartbeat, "rooms": rooms,
        }),
        ServerFrame::Subscribed(Subscribed { id, room, epoch, offset, head, recovered, reason, lost }) => {
            let lost = lost.map(|Lost { from, to, count }| json!({ "from": from, "to": to, "count": count }));
            json!({
                "type": "subscribed", "id": id, "room": room, "epoch": epoch, "offset": offset, "head": head,
                "recovered": recovered, "reason": reason, "lost": lost,
            })
        }
        ServerFrame::Message(Message { room, offset, time, id, sender, data }) => json!({
            "type": "message", "room": room, "offset": offset, "time": time, "id": id, "sender": sender,
            "data_text": data.get(),
        }),
        ServerFrame::Unsubscribed(Unsubscribed { id, room }) => {
            json!({ "type": "unsubscribed", "id": id, "room": room })
        }
        ServerFrame::Epoch(EpochChange { room, epoch, prev }) => {
            json!({ "type": "epoch", "room": room, "epoch": epoch, "prev": prev })
        }
        ServerFrame::Gap(Gap { room, from, to, count, reason }) => json!({
            "type": "gap", "room": room, "from": from, "to": to, "count": count, "reason": reason,
        }),
        ServerFrame::Ping => json!({ "type": "ping" }),
        ServerFrame::Error(ErrorFrame { id, code, message }) => {
            json!({ "type": "error", "id": id, "code": code, "message": message })
        }
        ServerFrame::Disconnect(Disconnect { code, retry }) => {
            json!({ "type": "disconnect", "code": code, "retry": retry })
        }
        other => panic!("no vectors for {other:?}"),
    }
}

/// Decodes a body; gives its canonical text and its fields.
fn body(kind: &str, text: &str) -> (String, Value) {
    match kind {
        "publish" => {
            let body = decode_publish(text.as_bytes()).unwrap();
            (to_json(&body), publish_fields(body))
        }
        "publish_batch" => {
            let body = decode_publish_batch(text.as_bytes()).unwrap();
            let canonical = to_json(&body);
            let PublishBatch { messages } = body;
            (canonical, json!({ "messages": messages.into_iter().map(publish_fields).collect::<Vec<_>>() }))
        }
        "published" => answer(text, published_fields),
        "published_list" => answer(
            text,
            |PublishedList { results }| json!({ "results": results.into_iter().map(published_fields).collect::<Vec<_>>() }),
        ),
        "history" => answer(text, |History::<Data> { room, epoch, offset, messages, next }| {
            let messages: Vec<_> = messages.into_iter().map(stored_fields).collect();
            json!({ "room": room, "epoch": epoch, "offset": offset, "messages": messages, "next": next })
        }),
        "room_info" => answer(text, room_fields),
        "room_list" => answer(
            text,
            |RoomList { rooms, next }| json!({ "rooms": rooms.into_iter().map(room_fields).collect::<Vec<_>>(), "next": next }),
        ),
        "problem" => answer(text, |Problem { kind, title, status, code, detail, index }| {
            json!({
                "type": kind, "title": title, "status": status, "code": code, "detail": detail,
                "index": index,
            })
        }),
        other => panic!("no body is called {other}"),
    }
}

fn answer<T: DeserializeOwned + serde::Serialize>(text: &str, fields: fn(T) -> Value) -> (String, Value) {
    let body: T = serde_json::from_str(text).unwrap();
    (to_json(&body), fields(body))
}

fn to_json<T: serde::Serialize>(body: &T) -> String {
    serde_json::to_string(body).unwrap()
}

fn publish_fields(Publish { room, rooms, data, id, sender }: Publish<Data>) -> Value {
    json!({ "room": room, "rooms": rooms, "data_text": data.get(), "id": id, "sender": sender })
}

fn published_fields(Published { room, epoch, offset, duplicate }: Published) -> Value {
    json!({ "room": room, "epoch": epoch, "offset": offset, "duplicate": duplicate })
}

fn stored_fields(StoredMessage { epoch, offset, time, id, sender, data }: StoredMessage<Data>) -> Value {
    json!({
        "epoch": epoch, "offset": offset, "time": time, "id": id, "sender": sender, "data_text": data.get(),
    })
}

fn room_fields(RoomInfo { room, head, subscribers }: RoomInfo) -> Value {
    json!({ "room": room, "head": head, "subscribers": subscribers })
}
