//! In a real browser: the two encodings against the golden vectors, and the driver's own things.

use js_sys::JSON;
use serde_json::Value;
use twine_protocol::{RoomName, ServerFrame, json};
use wasm_bindgen::prelude::*;
use wasm_bindgen_test::{wasm_bindgen_test, wasm_bindgen_test_configure};

use super::{Driver, decode::decode, encode::encode};

wasm_bindgen_test_configure!(run_in_browser);

fn vectors(file: &str, list: &str) -> Vec<Value> {
    let mut file: Value = serde_json::from_str(file).unwrap();
    serde_json::from_value(file[list].take()).unwrap()
}

const HUB_FRAMES: &str = include_str!("../../../twine-protocol/vectors/hub-frames.json");
const CLIENT_FRAMES: &str = include_str!("../../../twine-protocol/vectors/client-frames.json");

/// The frame without its payload, and without what this driver leaves in the payload.
fn bare<D>(frame: ServerFrame<D>) -> String {
    match frame {
        ServerFrame::Message(message) => {
            format!("{} {} {} {:?}", message.room, message.offset, message.time, message.id)
        }
        ServerFrame::Connected(frame) => format!("{frame:?}"),
        ServerFrame::Subscribed(frame) => format!("{frame:?}"),
        ServerFrame::Unsubscribed(frame) => format!("{frame:?}"),
        ServerFrame::Epoch(frame) => format!("{frame:?}"),
        ServerFrame::Gap(frame) => format!("{frame:?}"),
        ServerFrame::Error(frame) => format!("{frame:?}"),
        ServerFrame::Disconnect(frame) => format!("{frame:?}"),
        _ => "ping".to_owned(),
    }
}

#[wasm_bindgen_test]
fn frames_of_the_hub_say_here_what_they_say_natively() {
    let vectors = vectors(HUB_FRAMES, "good");
    assert!(!vectors.is_empty());
    for vector in vectors {
        let text = vector["text"].as_str().unwrap();
        let here = decode(JSON::parse(text).unwrap()).unwrap().map(bare);
        let there = bare(json::decode_server(text).unwrap());
        assert_eq!(here, Some(there), "{}", vector["name"]);
    }
}

#[wasm_bindgen_test]
fn what_is_no_frame_is_refused_and_what_is_of_a_later_version_ignored() {
    for vector in vectors(HUB_FRAMES, "bad") {
        // `JSON.parse` keeps the last of two fields of one name, and tells nobody.
        if vector["name"] == "message, data twice" {
            continue;
        }
        let decoded = decode(JSON::parse(vector["text"].as_str().unwrap()).unwrap_or(JsValue::NULL));
        let outcome = match decoded {
            Ok(Some(_)) => "taken",
            Ok(None) => "ignored",
            Err(_) => "refused",
        };
        assert_eq!(outcome, vector["outcome"], "{}", vector["name"]);
    }
}

#[wasm_bindgen_test]
fn frames_of_the_client_are_written_as_the_wire_has_them() {
    for vector in vectors(CLIENT_FRAMES, "good") {
        let frame = json::decode_client(vector["text"].as_str().unwrap()).unwrap();
        assert_eq!(encode(&frame), vector["canonical"], "{}", vector["name"]);
    }
}

// A page that calls the driver from within each call of the driver's, and keeps a diary. Its room has
// the handle 1.
#[wasm_bindgen(inline_js = r#"export const page = () => ({
  diary: [],
  start(driver) {
    this.driver = driver;
    driver.connect();
    driver.opened();
    this.hub({ type: "connected", resumed: false, adopted: false, heartbeat: 25000, rooms: [] });
    driver.listening("r", 1, true);
    driver.subscribe("call", "r", undefined, 0);
    const at = { epoch: "e", offset: 0 };
    this.hub({ type: "subscribed", id: this.sent.id, room: "r", ...at, head: at });
  },
  play(driver) {
    this.start(driver);
    driver.received({ type: "message", room: "r", offset: 1, time: 0, data: "one" }, 1, 1);
    this.hub({ type: "message", room: "r", offset: 2, time: 0, data: "of a socket that is closed" });
    return JSON.stringify(this.diary);
  },
  hear(driver, text, room, offset) {
    this.deliver = ({ data }, epoch) => this.diary.push([data, epoch]) < 0;
    this.state = () => {};
    this.start(driver);
    this.diary = [];
    driver.received(JSON.parse(text), room, offset);
    return JSON.stringify(this.diary);
  },
  hub(frame) { this.driver.received(frame, 0, 0); },
  open() { return true; },
  send(text) {
    this.sent = JSON.parse(text);
    this.diary.push(this.sent.type);
  },
  close() { this.diary.push("close"); },
  timer() {},
  fetchCookie() { this.driver.cookieSettled(); },
  moved() { this.driver.save(); },
  store(session, pong) { this.stored = pong; },
  state(state) { this.diary.push(state); this.driver.wake(); },
  subscribed(call) { this.diary.push(call); },
  unsubscribed(call) { this.diary.push(call); },
  failed(call, code) { this.diary.push(code); },
  deliver({ data }) {
    this.diary.push(data);
    this.driver.unsubscribe("left", "r");
    this.driver.subscribe("again", "r", undefined, 0);
    this.driver.disconnect();
    this.diary.push("returned");
    return false;
  },
});"#)]
extern "C" {
    type Page;
    fn page() -> Page;
    #[wasm_bindgen(method)]
    fn play(this: &Page, driver: Driver) -> String;
    #[wasm_bindgen(method)]
    fn hear(this: &Page, driver: Driver, text: &str, room: usize, offset: f64) -> String;
}

fn driver(page: &Page) -> Driver {
    let host = AsRef::<JsValue>::as_ref(page).clone().unchecked_into();
    Driver::new(host, "i", "", "", None, None, 0.5)
}

#[wasm_bindgen_test]
fn each_call_of_the_page_may_call_the_driver() {
    let page = page();
    let diary = page.play(driver(&page));
    let before = ["connecting", "connect", "connected", "subscribe", "call", "one", "returned"];
    // What the callback asked for comes after it, in the order it was asked for: the socket is
    // closed, `again` fails, and the client is closed.
    let after = ["unsubscribe", "subscribe", "close", "left", "closed", "closed"];
    let expected = [&before[..], &after].concat();
    assert_eq!(serde_json::from_str::<Vec<String>>(&diary).unwrap(), expected);
}

#[wasm_bindgen_test]
fn only_a_room_and_an_offset_spare_a_frame_a_closer_look() {
    let heard = |text, room, offset| {
        let page = page();
        page.hear(driver(&page), text, room, offset)
    };
    let good = r#"{"type":"message","room":"r","offset":1,"time":0,"data":"d"}"#;
    let bad = r#"{"type":"message","room":"r","offset":1.5,"time":0,"data":"d"}"#;
    for (room, offset) in [(1, 1.0), (0, 1.0), (2, 1.0), (usize::MAX, 1.0)] {
        assert_eq!(heard(good, room, offset), r#"[["d","e"]]"#, "{room}");
    }
    for offset in [0.0, -1.0, f64::NAN, f64::INFINITY, 9_007_199_254_740_992.0] {
        assert_eq!(heard(good, 1, offset), r#"[["d","e"]]"#, "{offset}");
        assert_eq!(heard(bad, 1, offset), r#"["garbled","close"]"#, "{offset}");
    }
}

#[wasm_bindgen_test]
fn a_handle_is_its_rooms_while_that_has_listeners() {
    let driver = driver(&page());
    let rooms = || {
        let rooms = driver.rooms.borrow();
        rooms.iter().map(|room| room.as_ref().map_or("", RoomName::as_str)).collect::<Vec<_>>().join(" ")
    };
    driver.listening("a", 1, true);
    driver.listening("b", 2, true);
    driver.listening("", 3, true);
    assert_eq!(rooms(), " a b");
    driver.listening("a", 1, false);
    assert_eq!(rooms(), "  b");
    driver.listening("c", 1, true);
    driver.listening("b", 2, false);
    assert_eq!(rooms(), " c ");
}
