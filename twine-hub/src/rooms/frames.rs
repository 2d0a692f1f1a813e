//! Frames as they go to sockets: the JSON of the wire inside a WebSocket's text frame.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use twine_protocol::{Data, Message, RoomName, ServerFrame};

use crate::store::Record;

/// FIN and the opcode of text.
const TEXT: u8 = 0x81;
/// The longest header of a frame that a server sends: two bytes and a 64 bit length.
const MAX_HEADER: usize = 10;

/// The frame of a message; made once, the same bytes go to everyone.
pub(crate) fn message(room: &RoomName, record: &Record) -> Bytes {
    #[derive(Serialize)]
    #[serde(tag = "type", rename_all = "snake_case")]
    enum Borrowed<'a> {
        Message(Message<&'a serde_json::value::RawValue>),
    }
    let size = record.size() + room.as_str().len() + 96;
    encode(
        size,
        &Borrowed::Message(Message {
            room: room.clone(),
            offset: record.offset,
            time: record.time,
            id: record.id.clone(),
            sender: record.sender.clone(),
            data: &record.data,
        }),
    )
}

/// Any other frame to a client.
pub(crate) fn frame(frame: &ServerFrame<Data>) -> Bytes {
    encode(160, frame)
}

fn encode(size: usize, frame: &impl Serialize) -> Bytes {
    let mut buffer = BytesMut::with_capacity(MAX_HEADER + size);
    buffer.put_bytes(0, MAX_HEADER);
    // serde_json fails only where a writer does, a `Serialize` does or a map's key is no string:
    // the writer is memory, the frames derive theirs, and `cursors` has names of rooms as keys.
    #[allow(clippy::expect_used)]
    serde_json::to_writer((&mut buffer).writer(), frame).expect("frames always serialize");
    let (header, len) = header(buffer.len() - MAX_HEADER);
    let start = MAX_HEADER - len;
    // `len` is at most MAX_HEADER, and the buffer begins with that many bytes.
    #[allow(clippy::indexing_slicing)]
    buffer[start..MAX_HEADER].copy_from_slice(&header[..len]);
    buffer.freeze().slice(start..)
}

/// The header of an unmasked text frame and how many bytes of it count.
fn header(payload: usize) -> ([u8; MAX_HEADER], usize) {
    let mut header = [0; MAX_HEADER];
    let mut fields = &mut header[..];
    fields.put_u8(TEXT);
    // Each cast is of a value that its arm says fits.
    #[allow(clippy::cast_possible_truncation)]
    match payload {
        0..126 => fields.put_u8(payload as u8),
        126..65_536 => {
            fields.put_u8(126);
            fields.put_u16(payload as u16);
        }
        _ => {
            fields.put_u8(127);
            fields.put_u64(payload as u64);
        }
    }
    let left = fields.len();
    (header, MAX_HEADER - left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;
    use std::io::Cursor;
    use tungstenite::protocol::frame::FrameHeader;
    use twine_protocol::{Offset, json};

    #[test]
    fn a_message_is_one_text_frame_that_clients_decode_whatever_its_length() {
        for len in [0, 20, 60, 125, 126, 1000, 65_400, 65_536, 70_000] {
            let data = RawValue::from_string(format!("\"{}\"", "x".repeat(len))).unwrap();
            let record = Record {
                offset: Offset::new(7).unwrap(),
                time: 1_700_000_000_000,
                id: Some("a".parse().unwrap()),
                sender: Some("\"s\"".into()),
                data,
            };
            let bytes = message(&"chat".parse().unwrap(), &record);
            let mut cursor = Cursor::new(&bytes[..]);
            let (header, payload) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
            assert!(header.is_final && header.mask.is_none());
            let at = usize::try_from(cursor.position()).unwrap();
            assert_eq!(bytes.len(), at + usize::try_from(payload).unwrap());
            let text = std::str::from_utf8(&bytes[at..]).unwrap();
            let ServerFrame::Message(decoded) = json::decode_server(text).unwrap() else { panic!("{text}") };
            assert_eq!((decoded.offset, decoded.data.get().len()), (record.offset, len + 2));
            assert!(
                text.starts_with(
                    r#"{"type":"message","room":"chat","offset":7,"time":1700000000000,"id":"a","#
                )
            );
        }
    }
}
