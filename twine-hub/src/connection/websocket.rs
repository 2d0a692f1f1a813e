//! Frames of RFC 6455 as a client sends them, read from a buffer.
//!
//! tungstenite parses headers; what stands here puts messages together without owning a buffer
//! while a connection is idle, and inflates those that were compressed (RFC 7692).

use std::io::Cursor;

use bytes::{BufMut, Bytes, BytesMut};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::deflate::{InflateError, Inflater};

/// The opcodes of control frames that the hub sends, with FIN.
const CLOSE: u8 = 0x88;
const PONG: u8 = 0x8a;
/// The longest payload of a control frame.
const MAX_CONTROL: usize = 125;

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A whole text message.
    Text(String),
    /// A whole binary message, which this protocol has no use for.
    Binary,
    /// A ping of the WebSocket layer, to be answered with the same payload.
    Ping(Bytes),
    /// A pong of the WebSocket layer.
    Pong,
    /// The client closes, with this code if it named one.
    Close(Option<u16>),
}

/// Why the stream can't be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error("a message over the limit of {limit} bytes")]
    TooBig { limit: usize },
    #[error("a compressed message that is too much work for its length")]
    TooDense,
    #[error("a frame that RFC 6455 does not allow here: {0}")]
    Protocol(&'static str),
    #[error("a text message that is not UTF-8")]
    NotUtf8,
    #[error("a compressed message that can't be inflated")]
    NotCompressed,
}

impl Violation {
    /// The close code that RFC 6455 has for it.
    pub(super) fn close_code(self) -> u16 {
        match self {
            Self::TooBig { .. } | Self::TooDense => 1009,
            Self::Protocol(_) => 1002,
            Self::NotUtf8 | Self::NotCompressed => 1007,
        }
    }
}

/// A message whose last fragment has not come.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    kind: Option<Data>,
    /// Whether the message is compressed: its first fragment says so.
    is_compressed: bool,
    payload: Vec<u8>,
}

/// Reads the first frame of `buffer`, whose payload is unmasked in place. Gives what it completes,
/// if anything, and how many bytes it took; `None` when the frame has not arrived whole. Messages may
/// be compressed where there is an `inflater`. None has more than `max` bytes, on the wire or inflated.
///
/// # Errors
/// [`Violation`]; the connection can't be read any further.
pub(super) fn decode(
    buffer: &mut [u8],
    fragments: &mut Fragments,
    max: usize,
    inflater: Option<&mut Inflater>,
) -> Result<Option<(Option<Incoming>, usize)>, Violation> {
    let mut cursor = Cursor::new(&*buffer);
    let parsed = FrameHeader::parse(&mut cursor).map_err(|_| Violation::Protocol("a reserved opcode"))?;
    let Some((header, len)) = parsed else { return Ok(None) };
    let start = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
    let may_be_compressed =
        inflater.is_some() && matches!(header.opcode, OpCode::Data(Data::Text | Data::Binary));
    if (header.rsv1 && !may_be_compressed) || header.rsv2 || header.rsv3 {
        return Err(Violation::Protocol("a reserved bit"));
    }
    let Some(mask) = header.mask else { return Err(Violation::Protocol("an unmasked frame")) };
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let is_control = matches!(header.opcode, OpCode::Control(_));
    if is_control && (len > MAX_CONTROL || !header.is_final) {
        return Err(Violation::Protocol("a control frame that is long or in fragments"));
    }
    if len.saturating_add(fragments.payload.len()) > max && !is_control {
        return Err(Violation::TooBig { limit: max });
    }
    let Some(payload) = buffer.get_mut(start..start.saturating_add(len)) else { return Ok(None) };
    unmask(payload, mask);
    let incoming = match header.opcode {
        OpCode::Control(control) => Some(control_frame(control, payload)?),
        OpCode::Data(kind) => {
            let whole = fragments.add(kind, header.rsv1, payload, header.is_final)?;
            whole.map(|message| message.read(max, inflater)).transpose()?
        }
    };
    Ok(Some((incoming, start + len)))
}

fn control_frame(control: Control, payload: &[u8]) -> Result<Incoming, Violation> {
    match control {
        Control::Ping => Ok(Incoming::Ping(Bytes::copy_from_slice(payload))),
        Control::Pong => Ok(Incoming::Pong),
        Control::Close => match payload {
            [] => Ok(Incoming::Close(None)),
            [high, low, reason @ ..] => {
                let code = u16::from_be_bytes([*high, *low]);
                if !tungstenite::protocol::frame::coding::CloseCode::from(code).is_allowed() {
                    return Err(Violation::Protocol("a close code that may not be sent"));
                }
                std::str::from_utf8(reason).map_err(|_| Violation::NotUtf8)?;
                Ok(Incoming::Close(Some(code)))
            }
            [_] => Err(Violation::Protocol("half a close code")),
        },
        Control::Reserved(_) => Err(Violation::Protocol("a reserved opcode")),
    }
}

/// A message that is there in all its fragments.
struct Whole {
    kind: Data,
    is_compressed: bool,
    payload: Vec<u8>,
}

impl Whole {
    fn read(self, max: usize, inflater: Option<&mut Inflater>) -> Result<Incoming, Violation> {
        if self.kind != Data::Text {
            return Ok(Incoming::Binary);
        }
        let text = match inflater {
            Some(inflater) if self.is_compressed => {
                inflater.inflate(&self.payload, max).map_err(|error| match error {
                    InflateError::TooBig => Violation::TooBig { limit: max },
                    InflateError::TooDense => Violation::TooDense,
                    InflateError::Corrupt => Violation::NotCompressed,
                })?
            }
            _ => self.payload,
        };
        String::from_utf8(text).map(Incoming::Text).map_err(|_| Violation::NotUtf8)
    }
}

impl Fragments {
    /// Whether nothing is waiting for its last fragment.
    pub(super) fn is_empty(&self) -> bool {
        self.kind.is_none()
    }

    fn add(
        &mut self,
        kind: Data,
        is_compressed: bool,
        payload: &[u8],
        is_final: bool,
    ) -> Result<Option<Whole>, Violation> {
        let is_first = self.kind.is_none();
        let kind = match (self.kind, kind) {
            (None, Data::Continue) => return Err(Violation::Protocol("a continuation of nothing")),
            (Some(_), Data::Text | Data::Binary) => {
                return Err(Violation::Protocol("a new message inside a fragmented one"));
            }
            (Some(kind), _) | (None, kind) => kind,
        };
        if is_first {
            self.is_compressed = is_compressed;
        }
        self.payload.extend_from_slice(payload);
        if !is_final {
            self.kind = Some(kind);
            return Ok(None);
        }
        self.kind = None;
        let payload = std::mem::take(&mut self.payload);
        Ok(Some(Whole { kind, is_compressed: self.is_compressed, payload }))
    }
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let twice = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = payload.as_chunks_mut();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ twice).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= key;
    }
}

/// Adds a text as the frame that a client would send, masked with zeros.
pub(crate) fn put_frame(into: &mut Vec<u8>, text: &str) {
    let header =
        FrameHeader { opcode: OpCode::Data(Data::Text), mask: Some([0; 4]), ..FrameHeader::default() };
    // Memory takes all that is written.
    let _ = header.format(text.len() as u64, into);
    into.extend_from_slice(text.as_bytes());
}

/// The answer to a ping.
pub(super) fn pong(payload: &[u8]) -> Bytes {
    control(PONG, payload)
}

/// A close frame with a code and a reason of at most 123 bytes, cut if longer.
pub(super) fn close(code: u16, reason: &str) -> Bytes {
    let mut end = reason.len().min(MAX_CONTROL - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut payload = BytesMut::with_capacity(2 + end);
    payload.put_u16(code);
    payload.put_slice(reason.get(..end).unwrap_or_default().as_bytes());
    control(CLOSE, &payload)
}

fn control(opcode: u8, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(2 + payload.len());
    frame.put_u8(opcode);
    // Callers give at most MAX_CONTROL bytes: a decoded ping's, or a cut close reason.
    frame.put_u8(u8::try_from(payload.len()).unwrap_or_default());
    frame.put_slice(payload);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deflate::Deflater;
    use proptest::prelude::*;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut bytes = vec![first];
        match payload.len() {
            len @ 0..126 => bytes.push(0x80 | u8::try_from(len).unwrap()),
            len => {
                bytes.push(0x80 | 0x7e);
                bytes.extend(u16::try_from(len).unwrap().to_be_bytes());
            }
        }
        bytes.extend(mask);
        let start = bytes.len();
        bytes.extend_from_slice(payload);
        unmask(&mut bytes[start..], mask);
        bytes
    }

    #[test]
    fn each_byte_is_unmasked_by_its_own_of_the_mask() {
        for len in 0..40 {
            let mask = [0x37, 0xfa, 0x21, 0x3d];
            let masked: Vec<u8> = (0..len).collect();
            let mut payload = masked.clone();
            unmask(&mut payload, mask);
            let expected = masked.iter().enumerate().map(|(n, byte)| byte ^ mask[n % 4]);
            assert!(payload.into_iter().eq(expected), "{len} bytes");
        }
    }

    fn all(bytes: Vec<u8>, max: usize) -> Result<Vec<Incoming>, Violation> {
        decode_all(bytes, max, None)
    }

    /// The same for a client that may compress.
    fn inflated(bytes: Vec<u8>, max: usize) -> Result<Vec<Incoming>, Violation> {
        decode_all(bytes, max, Some(&mut Inflater::default()))
    }

    fn decode_all(
        mut bytes: Vec<u8>,
        max: usize,
        mut inflater: Option<&mut Inflater>,
    ) -> Result<Vec<Incoming>, Violation> {
        let mut fragments = Fragments::default();
        let mut incoming = Vec::new();
        let mut at = 0;
        while let Some((one, used)) = decode(&mut bytes[at..], &mut fragments, max, inflater.as_deref_mut())?
        {
            incoming.extend(one);
            at += used;
        }
        Ok(incoming)
    }

    #[test]
    fn messages_come_whole_also_in_fragments_with_a_ping_between() {
        let mut bytes = frame(0x81, b"one");
        bytes.extend(frame(0x01, b"tw"));
        bytes.extend(frame(0x89, b"?"));
        bytes.extend(frame(0x80, b"o"));
        bytes.extend(frame(0x88, &[0x03, 0xe8]));
        let text = |text: &str| Incoming::Text(text.into());
        let expected =
            [text("one"), Incoming::Ping(Bytes::from_static(b"?")), text("two"), Incoming::Close(Some(1000))];
        assert_eq!(all(bytes, 100).unwrap(), expected);
    }

    #[test]
    fn what_the_rfc_forbids_ends_the_connection_with_its_code() {
        let code = |bytes, max| all(bytes, max).unwrap_err().close_code();
        assert_eq!(code(frame(0x81, &[b'x'; 200]), 199), 1009);
        assert_eq!(code([frame(0x01, b"12"), frame(0x80, b"34")].concat(), 3), 1009);
        assert_eq!(code(frame(0x81, &[0xff]), 100), 1007);
        assert_eq!(code(frame(0xc1, b""), 100), 1002);
        assert_eq!(code(frame(0x83, b""), 100), 1002);
        assert_eq!(code(frame(0x80, b""), 100), 1002);
        assert_eq!(code([frame(0x01, b""), frame(0x81, b"")].concat(), 100), 1002);
        assert_eq!(code(frame(0x09, b""), 100), 1002);
        assert_eq!(code(frame(0x88, &[0x03]), 100), 1002);
        assert_eq!(code(frame(0x88, &[0x03, 0xed]), 100), 1002);
        assert_eq!(code(vec![0x81, 0x00], 100), 1002);
    }

    // "Hello" (RFC 7692, section 7.2.3.1).
    const COMPRESSED: [u8; 7] = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];

    #[test]
    fn what_was_negotiated_may_be_compressed_and_need_not() {
        let hello = || Incoming::Text("Hello".into());
        let mut bytes = frame(0xc1, &COMPRESSED);
        bytes.extend(frame(0x81, b"Hello"));
        // In fragments, with a ping between; the first says that it is compressed.
        bytes.extend(frame(0x41, &COMPRESSED[..3]));
        bytes.extend(frame(0x89, b"?"));
        bytes.extend(frame(0x80, &COMPRESSED[3..]));
        bytes.extend(frame(0x01, b"Hel"));
        bytes.extend(frame(0x80, b"lo"));
        bytes.extend(frame(0xc2, &COMPRESSED));
        let ping = Incoming::Ping(Bytes::from_static(b"?"));
        let expected = [hello(), hello(), ping, hello(), hello(), Incoming::Binary];
        assert_eq!(inflated(bytes, 100).unwrap(), expected);
    }

    #[test]
    fn what_can_not_be_inflated_ends_the_connection_with_its_code() {
        let code = |bytes, max| inflated(bytes, max).unwrap_err().close_code();
        assert_eq!(code(frame(0xc1, &COMPRESSED), 6), 1009, "too long on the wire");
        let mut long = Vec::new();
        assert!(Deflater::default().deflate(&[b'x'; 1001], &mut long));
        assert_eq!(code(frame(0xc1, &long), 1000), 1009);
        assert_eq!(code(frame(0xc1, &[0x03, 0x00].repeat(50)), 1000), 1009);
        assert_eq!(code(frame(0xc1, &[0xff; 9]), 100), 1007);
        let mut no_text = Vec::new();
        assert!(Deflater::default().deflate(&[0xff; 100], &mut no_text));
        assert_eq!(code(frame(0xc1, &no_text), 1000), 1007);
        // Only the first fragment may say it, and no control frame.
        assert_eq!(code([frame(0x41, &COMPRESSED[..3]), frame(0xc0, &COMPRESSED[3..])].concat(), 100), 1002);
        assert_eq!(code(frame(0xc9, b""), 100), 1002);
        assert_eq!(code(frame(0xa1, b""), 100), 1002);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _: Result<_, Violation> = all(bytes.clone(), 64);
            let _: Result<_, Violation> = inflated(bytes, 64);
        }

        #[test]
        fn a_message_is_the_same_however_it_is_cut(text in ".{0,80}", cuts in proptest::collection::vec(0usize..80, 0..4)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            let mut from = 0;
            let mut bytes = Vec::new();
            for (n, cut) in cuts.iter().enumerate() {
                bytes.extend(frame(u8::from(n == 0), &text.as_bytes()[from..*cut]));
                from = *cut;
            }
            bytes.extend(frame(if cuts.is_empty() { 0x81 } else { 0x80 }, &text.as_bytes()[from..]));
            prop_assert_eq!(all(bytes, 1000).unwrap(), [Incoming::Text(text)]);
        }
    }
}
