//! Frames as they go to sockets: the JSON of the wire inside a WebSocket's text frame.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes};
use serde::Serialize;
use twine_protocol::{Data, Message, RoomName, ServerFrame};

use crate::deflate::Deflater;
use crate::store::Record;

/// FIN and the opcode of text.
const TEXT: u8 = 0x81;
/// The same for a message that is compressed (RFC 7692, section 6).
const COMPRESSED_TEXT: u8 = TEXT | 0x40;
/// The longest header of a frame that a server sends: two bytes and a 64 bit length.
const MAX_HEADER: usize = 10;
/// What a message takes in a tail beside its bytes: an entry there and one in the order of all, of vectors that grow by
/// doubling, and what counts its owners.
const PLACES: usize = 160;
/// What a `message` frame has around what it tells, up to the longest numbers.
const AROUND: usize = 128;

/// A frame for many sockets: made once, and the same bytes go to everyone.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    plain: Bytes,
    /// For those that take it: compressed when the first of them is sent it, and kept. `None` inside where
    /// that saves nothing; no place for it at all where it is not worth trying.
    compressed: Option<Arc<OnceLock<Option<Bytes>>>>,
}

impl Frame {
    /// The bytes as they are.
    pub(crate) fn plain(&self) -> &Bytes {
        &self.plain
    }

    /// Whether it may differ for sockets that take it compressed.
    pub(crate) fn may_be_compressed(&self) -> bool {
        self.compressed.is_some()
    }

    /// The bytes for a socket that takes them compressed, or does not.
    pub(crate) fn bytes(&self, is_compressed: bool, deflater: &mut Deflater) -> &Bytes {
        if is_compressed { self.compressed(deflater) } else { &self.plain }
    }

    /// The bytes for a socket that takes them compressed.
    pub(crate) fn compressed(&self, deflater: &mut Deflater) -> &Bytes {
        let Some(place) = &self.compressed else { return &self.plain };
        // Shards come to it at the same moment. Who waits for another would do the same work meanwhile.
        place.get_or_init(|| compress(&self.plain, deflater)).as_ref().unwrap_or(&self.plain)
    }

    /// Bytes of memory that it may come to take in a tail, with its places there.
    pub(crate) fn footprint(&self) -> usize {
        // What is compressed is the smaller one, but not known before.
        PLACES + self.plain.len() * if self.may_be_compressed() { 2 } else { 1 }
    }
}

/// Frames that are never compressed.
impl From<Bytes> for Frame {
    fn from(plain: Bytes) -> Self {
        Self { plain, compressed: None }
    }
}

/// The frame of a message. From `compress_from` bytes on it is worth compressing.
pub(crate) fn message(room: &RoomName, record: &Record, compress_from: usize) -> Frame {
    #[derive(Serialize)]
    #[serde(tag = "type", rename_all = "snake_case")]
    enum Borrowed<'a> {
        Message(Message<&'a serde_json::value::RawValue>),
    }
    let id = record.id.as_ref().map_or(0, |id| id.as_str().len());
    let sender = record.sender.as_ref().map_or(0, String::len);
    let size = AROUND + room.as_str().len() + id + sender + record.data.get().len();
    let plain = encode(
        size,
        &Borrowed::Message(Message {
            room: room.clone(),
            offset: record.offset,
            time: record.time,
            id: record.id.clone(),
            sender: record.sender.clone(),
            data: &record.data,
        }),
    );
    let compressed = (plain.len() >= compress_from).then(Arc::default);
    Frame { plain, compressed }
}

/// Any other frame to a client.
pub(crate) fn frame(frame: &ServerFrame<Data>) -> Bytes {
    encode(160, frame)
}

fn encode(size: usize, frame: &impl Serialize) -> Bytes {
    // What serde_json writes in many small pieces a vector takes with the least ado.
    let mut buffer = Vec::with_capacity(MAX_HEADER + size);
    buffer.resize(MAX_HEADER, 0);
    // serde_json fails only where a writer does, a `Serialize` does or a map's key is no string:
    // the writer is memory, the frames derive theirs, and `cursors` has names of rooms as keys.
    #[allow(clippy::expect_used)]
    serde_json::to_writer(&mut buffer, frame).expect("frames always serialize");
    let start = put_header(&mut buffer, TEXT);
    Bytes::from(buffer).slice(start..)
}

/// A frame that compressed sockets get in place of a plain one, where it is worth it.
fn compress(plain: &[u8], deflater: &mut Deflater) -> Option<Bytes> {
    // How long the header is is told by the length's first byte (RFC 6455, section 5.2).
    let header = match plain.get(1)? {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let mut buffer = vec![0; MAX_HEADER];
    if !deflater.deflate(plain.get(header..)?, &mut buffer) {
        return None;
    }
    // It is kept as long as the plain one, and took room for the worst.
    buffer.shrink_to_fit();
    let start = put_header(&mut buffer, COMPRESSED_TEXT);
    Some(Bytes::from(buffer).slice(start..))
}

/// Puts a header into the end of the `MAX_HEADER` bytes before a payload; says where it begins.
fn put_header(buffer: &mut [u8], first: u8) -> usize {
    let (header, len) = header(buffer.len() - MAX_HEADER, first);
    let start = MAX_HEADER - len;
    // `len` is at most MAX_HEADER, and the buffer begins with that many bytes.
    #[allow(clippy::indexing_slicing)]
    buffer[start..MAX_HEADER].copy_from_slice(&header[..len]);
    start
}

/// The header of an unmasked frame and how many bytes of it count.
fn header(payload: usize, first: u8) -> ([u8; MAX_HEADER], usize) {
    let mut header = [0; MAX_HEADER];
    let mut fields = &mut header[..];
    fields.put_u8(first);
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

    use crate::deflate::Inflater;

    fn record(text: &str) -> Record {
        Record {
            offset: Offset::new(7).unwrap(),
            time: 1_700_000_000_000,
            id: Some("a".parse().unwrap()),
            sender: Some("\"s\"".into()),
            data: RawValue::from_string(format!("\"{text}\"")).unwrap(),
        }
    }

    /// What a client reads of the one frame in `bytes`, and whether it came compressed.
    fn read(bytes: &[u8]) -> (String, bool) {
        let mut cursor = Cursor::new(bytes);
        let (header, payload) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
        assert!(header.is_final && header.mask.is_none() && !header.rsv2 && !header.rsv3);
        let at = usize::try_from(cursor.position()).unwrap();
        assert_eq!(bytes.len(), at + usize::try_from(payload).unwrap());
        let payload = if header.rsv1 {
            Inflater::default().inflate(&bytes[at..], 1 << 20).unwrap()
        } else {
            bytes[at..].to_vec()
        };
        (String::from_utf8(payload).unwrap(), header.rsv1)
    }

    #[test]
    fn of_shards_that_come_to_it_at_once_one_compresses_and_all_send_that() {
        const SHARDS: usize = 4;
        for _ in 0..50 {
            let data = RawValue::from_string(format!("\"{}\"", "a".repeat(50_000))).unwrap();
            let record = Record { offset: Offset::MAX, time: 0, id: None, sender: None, data };
            let frame = message(&"chat".parse().unwrap(), &record, 1_000);
            let barrier = std::sync::Barrier::new(SHARDS);
            let send = || {
                let mut deflater = Deflater::default();
                barrier.wait();
                let sent = frame.compressed(&mut deflater).as_ptr() as usize;
                (sent, deflater.is_used())
            };
            let shards: Vec<_> = std::thread::scope(|scope| {
                let shards: Vec<_> = (0..SHARDS).map(|_| scope.spawn(send)).collect();
                shards.into_iter().map(|shard| shard.join().unwrap()).collect()
            });
            assert!(shards.iter().all(|(sent, _)| *sent == shards[0].0));
            assert_eq!(shards.iter().filter(|(_, worked)| *worked).count(), 1);
        }
    }

    #[test]
    fn who_takes_it_gets_the_same_message_compressed_where_that_is_worth_it() {
        let room: RoomName = "chat".parse().unwrap();
        let mut deflater = Deflater::default();
        for len in [0, 100, 500, 1000, 65_400, 70_000] {
            let numbers: String = (0..).map(|n: u64| (n * n).to_string() + " ").take(len / 6).collect();
            let frame = message(&room, &record(&numbers), 400);
            let (plain, is_compressed) = read(frame.plain());
            assert!(!is_compressed);
            let compressed = frame.compressed(&mut deflater).clone();
            let is_long = len >= 500;
            assert_eq!(is_long, frame.may_be_compressed());
            assert_eq!(read(&compressed), (plain, is_long), "{len}");
            assert!(!is_long || compressed.len() + frame.plain().len() <= frame.footprint());
            // It is not compressed again.
            assert_eq!(frame.clone().compressed(&mut deflater).as_ptr(), compressed.as_ptr());
        }
    }

    #[test]
    fn a_message_is_one_text_frame_that_clients_decode_whatever_its_length() {
        for len in [0, 20, 60, 125, 126, 1000, 65_400, 65_536, 70_000] {
            let record = record(&"x".repeat(len));
            let frame = message(&"chat".parse().unwrap(), &record, usize::MAX);
            let (text, _) = read(frame.plain());
            let ServerFrame::Message(decoded) = json::decode_server(&text).unwrap() else { panic!("{text}") };
            assert_eq!((decoded.offset, decoded.data.get().len()), (record.offset, len + 2));
            assert!(
                text.starts_with(
                    r#"{"type":"message","room":"chat","offset":7,"time":1700000000000,"id":"a","#
                )
            );
        }
    }
}
