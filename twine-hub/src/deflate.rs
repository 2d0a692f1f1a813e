//! Messages of `permessage-deflate` (RFC 7692), each by itself: without context takeover.
//!
//! What knows nothing of the messages before it can be compressed once for all who take it, and no state
//! stays with a connection.

use miniz_oxide::DataFormat;
use miniz_oxide::deflate::core::{CompressionStrategy, CompressorOxide, TDEFLFlush, TDEFLStatus, compress};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

/// What a flushed stream ends with, and a message on the wire does not (RFC 7692, section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// How hard it tries, of 10: twice the CPU would save a few percent more of JSON.
const LEVEL: u8 = 1;
const WINDOW_BITS: u8 = 15;
/// What an inflated message is given room for at first.
const ROOM: usize = 4 << 10;
/// One that is longer than that may have so many times the bytes that it took compressed. What clients say
/// shrinks to a tenth; without this, a few bytes would have the hub read as much as a frame may hold.
const MAX_RATIO: usize = 32;
/// Blocks that a message may have: so many, and one more for each so many bytes. Each begins with tables that
/// are made anew, and one that brings nothing takes ten bits.
const FREE_BLOCKS: usize = 8;
const BLOCK: usize = 1 << 10;

/// Compresses messages. It holds nothing until the first, and 300 KB from then on: one for a thread.
#[derive(Default)]
pub(crate) struct Deflater(Option<Box<CompressorOxide>>);

/// Restores messages that clients compressed.
#[derive(Default)]
pub(crate) struct Inflater(Box<DecompressorOxide>);

/// Why a message can't be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InflateError {
    /// It is longer than it may be.
    TooBig,
    /// It is more work than what it takes compressed may make.
    TooDense,
    /// It is nothing that a compressor makes.
    Corrupt,
}

impl Deflater {
    /// Appends the message to `output`, compressed. Where that saves less than an eighth, it says `false`, and
    /// what it appended is of no use.
    pub(crate) fn deflate(&mut self, message: &[u8], output: &mut Vec<u8>) -> bool {
        let new = || {
            let strategy = CompressionStrategy::Default;
            Box::new(CompressorOxide::with_params(DataFormat::Raw, LEVEL, strategy, WINDOW_BITS))
        };
        let state = self.0.get_or_insert_with(new);
        state.reset();
        let start = output.len();
        output.resize(start + message.len() - message.len() / 8 + TAIL.len(), 0);
        let room = output.get_mut(start..).unwrap_or_default();
        let (status, read, written) = compress(state, message, room, TDEFLFlush::Sync);
        // Where it filled all there is, more may have to come.
        let is_whole = status == TDEFLStatus::Okay && read == message.len() && written < room.len();
        output.truncate(start + written);
        if is_whole && output.ends_with(&TAIL) {
            output.truncate(output.len() - TAIL.len());
            return true;
        }
        false
    }
}

#[cfg(test)]
impl Deflater {
    pub(crate) fn is_used(&self) -> bool {
        self.0.is_some()
    }
}

impl Inflater {
    /// The message that was compressed, of at most `max` bytes and no more than [`MAX_RATIO`] allows: beyond
    /// that nothing is ever made of it.
    ///
    /// # Errors
    /// [`InflateError`].
    pub(crate) fn inflate(&mut self, compressed: &[u8], max: usize) -> Result<Vec<u8>, InflateError> {
        const FLAGS: u32 = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF | TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY;
        let dense = ROOM.max(compressed.len().saturating_mul(MAX_RATIO));
        let most = max.min(dense);
        // A byte more, for one that fills its room may have more to come.
        let room = most.saturating_add(1);
        let input = [compressed, &TAIL].concat();
        let mut input = &input[..];
        let mut output = vec![0; ROOM.min(room)];
        let (mut written, mut blocks) = (0, 0);
        self.0.init();
        loop {
            let (status, read, more) = decompress(&mut self.0, input, &mut output, written, FLAGS);
            input = input.get(read..).unwrap_or_default();
            written += more;
            if written > most {
                return Err(if written > max { InflateError::TooBig } else { InflateError::TooDense });
            }
            match status {
                TINFLStatus::HasMoreOutput => output.resize((2 * output.len()).min(room), 0),
                TINFLStatus::BlockBoundary | TINFLStatus::Done => {
                    blocks += 1;
                    if blocks > FREE_BLOCKS + written / BLOCK {
                        return Err(InflateError::TooDense);
                    }
                    if input.is_empty() {
                        break;
                    }
                    // A block that calls itself the last may be followed by others (section 7.2.3.4).
                    if status == TINFLStatus::Done {
                        self.0.init();
                    }
                }
                _ => return Err(InflateError::Corrupt),
            }
        }
        output.truncate(written);
        Ok(output)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn deflated(message: &[u8]) -> Option<Vec<u8>> {
        let mut output = b"before".to_vec();
        let saves = Deflater::default().deflate(message, &mut output);
        assert!(output.starts_with(b"before"));
        saves.then(|| output.split_off(6))
    }

    fn inflated(compressed: &[u8], max: usize) -> Result<String, InflateError> {
        Inflater::default().inflate(compressed, max).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        // Sections 7.2.3.1, 7.2.3.3 and 7.2.3.4; all are without context takeover.
        let fixed = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
        let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
        let two_blocks = [0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
        for example in [&fixed[..], &stored, &last, &two_blocks] {
            assert_eq!(inflated(example, 5), Ok("Hello".into()), "{example:x?}");
            assert_eq!(inflated(example, 4), Err(InflateError::TooBig), "{example:x?}");
        }
        assert_eq!(inflated(&[0], 0), Ok(String::new()));
    }

    #[test]
    fn a_bomb_is_given_up_at_the_bound() {
        let mut random = fastrand::Rng::with_seed(1);
        let text: String = (0..100_000).map(|_| random.char('a'..='d')).collect();
        let compressed = deflated(text.as_bytes()).unwrap();
        assert!(inflated(&compressed, 99_999) == Err(InflateError::TooBig));
        assert!(inflated(&compressed, 100_000) == Ok(text));
        for len in [ROOM + 1, 60_000, 16 << 20] {
            let bomb = deflated(&vec![b'x'; len]).unwrap();
            assert!(bomb.len() < len / 100, "{len}");
            assert!(inflated(&bomb, usize::MAX) == Err(InflateError::TooDense));
        }
        assert_eq!(inflated(&deflated(&[b'x'; ROOM]).unwrap(), usize::MAX).map(|all| all.len()), Ok(ROOM));
    }

    #[test]
    fn blocks_that_bring_nothing_are_given_up() {
        // Empty blocks with fixed codes, ten bits each: 4 of them in 5 bytes. Then those that call themselves the last.
        let fixed: Vec<u8> = [0x02, 0x08, 0x20, 0x80, 0x00].repeat(1_000);
        assert_eq!(inflated(&fixed, 1 << 20), Err(InflateError::TooDense));
        assert_eq!(inflated(&[0x03, 0x00].repeat(1_000), 1 << 20), Err(InflateError::TooDense));
        // A compressor that flushes often makes blocks too, with something in each.
        let stored: Vec<u8> =
            (0..60).flat_map(|_| [&[0x00, 0x00, 0x04, 0xff, 0xfb][..], &[b'x'; 1024]].concat()).collect();
        assert_eq!(inflated(&[&stored[..], &[0]].concat(), 1 << 20).map(|all| all.len()), Ok(60 * 1024));
    }

    #[test]
    fn a_message_that_was_cut_is_refused() {
        let whole = deflated("some text, and more of it, and some text again".repeat(9).as_bytes()).unwrap();
        for len in 0..whole.len() {
            assert!(inflated(&whole[..len], 1 << 20).is_err(), "{len} of {}", whole.len());
        }
    }

    #[test]
    fn what_no_compressor_makes_is_refused() {
        for garbage in [&[0xff; 9][..], b"plain text", &[0x07]] {
            assert_eq!(inflated(garbage, 1000), Err(InflateError::Corrupt), "{garbage:x?}");
        }
    }

    #[test]
    fn what_saves_nothing_is_not_compressed() {
        let mut random = fastrand::Rng::with_seed(1);
        let noise: Vec<u8> = (0..5000).map(|_| random.u8(..)).collect();
        assert_eq!(deflated(&noise), None);
        assert_eq!(deflated(b""), None);
    }

    proptest! {
        #[test]
        fn what_is_deflated_is_inflated_and_each_message_stands_for_itself(
            messages in proptest::collection::vec(("[a-p \"]{1,300}", 1usize..20), 1..4)
        ) {
            let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
            for (word, times) in messages {
                let message = word.repeat(times);
                let mut compressed = Vec::new();
                if deflater.deflate(message.as_bytes(), &mut compressed) {
                    prop_assert!(compressed.len() < message.len());
                    let restored = inflater.inflate(&compressed, message.len());
                    prop_assert_eq!(restored.as_deref(), Ok(message.as_bytes()));
                    prop_assert_eq!(deflated(message.as_bytes()), Some(compressed));
                }
            }
        }

        #[test]
        fn any_bytes_are_inflated_or_refused_within_the_bound(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(all) = Inflater::default().inflate(&bytes, 1000) {
                prop_assert!(all.len() <= 1000);
            }
        }
    }
}
