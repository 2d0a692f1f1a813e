//! What `JSON.parse` made of a frame, to the core's typed frames.
//!
//! The strictness is that of `twine_protocol::json`: unknown fields and types are ignored, an
//! optional field may be `null`, and everything else has to be as PROTOCOL.md has it.

use std::cell::Cell;

use js_sys::Array;
use twine_protocol::{
    Connected, Disconnect, Epoch, EpochChange, ErrorCode, ErrorFrame, Gap, GapReason, Lost, Message,
    MessageId, Offset, Position, RoomName, ServerFrame, SessionId, Subscribed, Unsubscribed,
};
use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    /// A JSON object.
    type Object;

    #[wasm_bindgen(method, structural, indexing_getter)]
    fn field(this: &Object, name: &str) -> JsValue;
}

/// Reads a frame of the hub, from what [`super::Driver::received`] takes; `None` is a frame of a type
/// that this version does not know.
///
/// A message's payload is the whole object: its strings need not cross into WebAssembly and back.
///
/// # Errors
/// What is wrong: the name of a field, `JSON`, or `a binary frame`.
pub(super) fn decode(frame: JsValue) -> Result<Option<ServerFrame<JsValue>>, &'static str> {
    if frame.is_undefined() {
        return Err("a binary frame");
    }
    let object = object(frame).ok_or("JSON")?;
    let kind = object.field("type").as_string().ok_or("type")?;
    // Read before anything else, since it has no value to go on with where it is invalid.
    let room = RoomName::new(&object.field("room").as_string().unwrap_or_default()).map_err(|_| "room");
    let fault = Cell::new(None);
    let reader = Reader { object, fault: &fault };
    let frame = match kind.as_str() {
        "message" => ServerFrame::Message(Message {
            room: room?,
            offset: reader.offset(),
            time: reader.number("time"),
            id: reader.optional_text("id").and_then(|id| reader.valid("id", MessageId::new(&id).ok())),
            sender: reader.optional_text("sender"),
            data: reader.payload(),
        }),
        "connected" => ServerFrame::Connected(Connected {
            session: reader
                .optional_text("session")
                .and_then(|id| reader.valid("session", SessionId::new(&id).ok())),
            resumed: reader.flag("resumed").unwrap_or_else(|| reader.fail("resumed")),
            adopted: reader.flag("adopted").unwrap_or_else(|| reader.fail("adopted")),
            heartbeat: reader.number("heartbeat"),
            rooms: reader.rooms(),
        }),
        "subscribed" => ServerFrame::Subscribed(Subscribed {
            room: room?,
            id: reader.number("id"),
            epoch: reader.epoch(),
            offset: reader.offset(),
            head: reader.position("head"),
            recovered: reader.flag("recovered"),
            reason: reader.optional_text("reason").map(|reason| GapReason::from_wire(&reason)),
            lost: reader.lost(),
        }),
        "unsubscribed" => ServerFrame::Unsubscribed(Unsubscribed { room: room?, id: reader.number("id") }),
        "epoch" => ServerFrame::Epoch(EpochChange {
            room: room?,
            epoch: reader.epoch(),
            prev: reader.position("prev"),
        }),
        "gap" => ServerFrame::Gap(Gap {
            room: room?,
            from: reader.position("from"),
            to: reader.position("to"),
            count: reader.optional_number("count"),
            reason: GapReason::from_wire(&reader.text("reason")),
        }),
        "ping" => ServerFrame::Ping,
        "error" => ServerFrame::Error(ErrorFrame {
            id: reader.optional_number("id"),
            code: ErrorCode::from_wire(&reader.text("code")),
            message: reader.text("message"),
        }),
        "disconnect" => ServerFrame::Disconnect(Disconnect {
            code: ErrorCode::from_wire(&reader.text("code")),
            retry: reader.number("retry"),
        }),
        _ => return Ok(None),
    };
    match fault.get() {
        None => Ok(Some(frame)),
        Some(field) => Err(field),
    }
}

/// Reads the fields of an object and remembers the last one that was not as it has to be.
///
/// Reading goes on with some value then: a way out at each field, with all to be dropped that was
/// read before it, would double the size of this module.
struct Reader<'a> {
    object: Object,
    fault: &'a Cell<Option<&'static str>>,
}

impl Reader<'_> {
    fn fail<T: Default>(&self, name: &'static str) -> T {
        self.fault.set(Some(name));
        T::default()
    }

    fn valid<T>(&self, name: &'static str, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.fault.set(Some(name));
        }
        value
    }

    /// A field that is neither absent nor `null`.
    fn present(&self, name: &'static str) -> Option<JsValue> {
        let value = self.object.field(name);
        (!value.is_undefined() && !value.is_null()).then_some(value)
    }

    fn optional_text(&self, name: &'static str) -> Option<String> {
        self.present(name).and_then(|value| self.valid(name, value.as_string()))
    }

    fn text(&self, name: &'static str) -> String {
        self.optional_text(name).unwrap_or_else(|| self.fail(name))
    }

    fn optional_number(&self, name: &'static str) -> Option<u64> {
        self.present(name).and_then(|value| self.valid(name, integer(&value)))
    }

    fn number(&self, name: &'static str) -> u64 {
        self.optional_number(name).unwrap_or_else(|| self.fail(name))
    }

    fn flag(&self, name: &'static str) -> Option<bool> {
        self.present(name).and_then(|value| self.valid(name, value.as_bool()))
    }

    fn offset(&self) -> Offset {
        Offset::new(self.number("offset")).unwrap_or_else(|_| self.fail("offset"))
    }

    fn epoch(&self) -> Epoch {
        Epoch::new(&self.text("epoch")).unwrap_or_else(|_| self.fail("epoch"))
    }

    fn position(&self, name: &'static str) -> Position {
        self.object(name).map_or_else(|| self.fail(name), |reader| reader.this_position())
    }

    fn this_position(&self) -> Position {
        Position { epoch: self.epoch(), offset: self.offset() }
    }

    fn lost(&self) -> Option<Lost> {
        self.present("lost")?;
        let reader = self.object("lost")?;
        Some(Lost {
            from: reader.position("from"),
            to: reader.position("to"),
            count: reader.optional_number("count"),
        })
    }

    fn object(&self, name: &'static str) -> Option<Reader<'_>> {
        let object = self.valid(name, object(self.object.field(name)))?;
        Some(Reader { object, fault: self.fault })
    }

    fn rooms(&self) -> Vec<RoomName> {
        let rooms = self.object.field("rooms");
        let mut names = Vec::new();
        if Array::is_array(&rooms) {
            for name in rooms.unchecked_into::<Array>().iter() {
                let name = RoomName::new(&name.as_string().unwrap_or_default()).ok();
                names.extend(self.valid("rooms", name));
            }
        } else {
            self.fault.set(Some("rooms"));
        }
        names
    }

    /// A message's payload; see [`decode`].
    fn payload(self) -> JsValue {
        if self.object.field("data").is_undefined() {
            self.fault.set(Some("data"));
        }
        self.object.into()
    }
}

/// An integer that is exact as a JavaScript number.
fn integer(value: &JsValue) -> Option<u64> {
    let number = value.as_f64()?;
    super::host::integer(number).filter(|integer| super::number(*integer).total_cmp(&number).is_eq())
}

/// Neither `null` nor a primitive, whose fields can't be asked for.
fn object(value: JsValue) -> Option<Object> {
    value.is_object().then(|| value.unchecked_into())
}
