//! Frames to text. They hold a few names and numbers: a writer of their own is a fraction of what
//! `serde_json` weighs in a browser.

use twine_protocol::{ClientFrame, Connect, InstanceId, Pong, Position, SessionId, Subscribe, Unsubscribe};

/// The frame as the wire has it.
pub(super) fn encode(frame: &ClientFrame) -> String {
    let mut out = String::new();
    match frame {
        ClientFrame::Connect(frame) => connect(&mut out, frame),
        ClientFrame::Subscribe(frame) => subscribe(&mut out, frame),
        ClientFrame::Unsubscribe(frame) => unsubscribe(&mut out, frame),
        ClientFrame::Pong(frame) => pong(&mut out, frame),
        // A frame of a later version, which no core of this one makes.
        _ => {}
    }
    out
}

fn connect(out: &mut String, frame: &Connect) {
    out.push_str(r#"{"type":"connect""#);
    text_field(out, "session", frame.session.as_ref().map(SessionId::as_str));
    text_field(out, "instance", frame.instance.as_ref().map(InstanceId::as_str));
    text_field(out, "prev", frame.prev.as_ref().map(InstanceId::as_str));
    text_field(out, "scope", frame.scope.as_deref());
    text_field(out, "token", frame.token.as_deref());
    out.push('}');
}

fn subscribe(out: &mut String, frame: &Subscribe) {
    out.push_str(r#"{"type":"subscribe""#);
    number_field(out, "id", frame.id);
    text_field(out, "room", Some(frame.room.as_str()));
    if let Some(after) = &frame.after {
        key(out, "after");
        position(out, after);
    }
    if frame.stored {
        key(out, "stored");
        out.push_str("true");
    }
    if let Some(history) = frame.history {
        number_field(out, "history", history.into());
    }
    text_field(out, "token", frame.token.as_deref());
    out.push('}');
}

fn unsubscribe(out: &mut String, frame: &Unsubscribe) {
    out.push_str(r#"{"type":"unsubscribe""#);
    number_field(out, "id", frame.id);
    text_field(out, "room", Some(frame.room.as_str()));
    out.push('}');
}

fn pong(out: &mut String, frame: &Pong) {
    out.push_str(r#"{"type":"pong""#);
    if !frame.cursors.is_empty() {
        key(out, "cursors");
        let mut before = '{';
        for (room, cursor) in &frame.cursors {
            out.push(before);
            text(out, room.as_str());
            out.push(':');
            position(out, cursor);
            before = ',';
        }
        out.push('}');
    }
    out.push('}');
}

fn position(out: &mut String, position: &Position) {
    out.push_str(r#"{"epoch":"#);
    text(out, position.epoch.as_str());
    number_field(out, "offset", position.offset.get());
    out.push('}');
}

/// A field after the first one.
fn key(out: &mut String, name: &str) {
    out.push(',');
    text(out, name);
    out.push(':');
}

fn text_field(out: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        key(out, name);
        text(out, value);
    }
}

fn number_field(out: &mut String, name: &str, value: u64) {
    key(out, name);
    digits(out, value);
}

// `fmt` would be the only use of a machinery of 2 KB.
#[allow(clippy::cast_possible_truncation)] // a digit
fn digits(out: &mut String, value: u64) {
    if value >= 10 {
        digits(out, value / 10);
    }
    out.push(char::from(b'0' + (value % 10) as u8));
}

fn text(out: &mut String, value: &str) {
    out.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\0'..='\x1f' => {
                let hex = |digit: u32| char::from_digit(digit, 16).unwrap_or('0');
                out.push_str("\\u00");
                out.extend([hex(u32::from(c) >> 4), hex(u32::from(c) & 15)]);
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}
