//! A socket that is written to directly, and the little that waits when it takes no more.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use mio::net::TcpStream;

use crate::clock;
use crate::deflate::Deflater;
use crate::rooms::frames::Frame;

/// Bytes of answers that may wait for a socket, besides the rest of one message. A connection at
/// this bound is not read any further until it takes some.
pub(super) const MAX_QUEUED: usize = 64 << 10;
/// What an answer takes beside its bytes, while it waits.
const ANSWER: usize = size_of::<Bytes>() + 32;

/// A connection's socket.
pub(super) struct Socket {
    stream: TcpStream,
    /// Whether the client takes messages compressed, and may send them so.
    is_compressed: bool,
    waiting: Option<Box<Waiting>>,
}

/// What the socket did not take.
struct Waiting {
    /// What is left of a message; comes first.
    rest: Bytes,
    answers: VecDeque<Bytes>,
    /// Of the answers.
    bytes: usize,
    /// When the socket last took something.
    since: Instant,
}

impl Waiting {
    fn new(rest: Bytes) -> Self {
        Self { rest, answers: VecDeque::new(), bytes: 0, since: clock::now() }
    }
}

/// How much of a run of frames a socket took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    /// Frames that are on their way; of the last, a rest may wait here.
    pub(super) frames: usize,
    /// Whether it takes no more for now.
    pub(super) is_blocked: bool,
}

/// The sockets of a shard's connections, by their slots. Apart from all else that is known of a connection: a
/// pass over a room touches each of its sockets and nothing more, and finds four of them in a line of the
/// cache.
#[derive(Default)]
pub(super) struct Sockets(Vec<Option<Socket>>);

impl Sockets {
    /// Puts a socket into a slot.
    pub(super) fn insert(&mut self, slot: usize, socket: Socket) {
        if self.0.len() <= slot {
            self.0.resize_with(slot + 1, || None);
        }
        if let Some(place) = self.0.get_mut(slot) {
            *place = Some(socket);
        }
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Socket> {
        self.0.get(slot as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Socket> {
        self.0.get_mut(slot as usize)?.as_mut()
    }

    /// Closes the socket of a slot.
    pub(super) fn remove(&mut self, slot: u32) {
        if let Some(place) = self.0.get_mut(slot as usize) {
            *place = None;
        }
    }
}

/// Frames that follow each other, for any number of sockets.
pub(super) struct Run {
    frames: Vec<Frame>,
    /// All of them in one piece, for sockets that take nothing compressed and for the others: put together for the
    /// first of them, where a vectored write has the kernel gather them for each.
    plain: OnceCell<Bytes>,
    compressed: OnceCell<Bytes>,
}

impl Run {
    pub(super) fn new(frames: impl IntoIterator<Item = Frame>) -> Self {
        Self { frames: frames.into_iter().collect(), plain: OnceCell::new(), compressed: OnceCell::new() }
    }

    /// The bytes for a socket that takes them compressed, or does not.
    #[inline]
    fn bytes(&self, is_compressed: bool, deflater: &mut Deflater) -> &Bytes {
        let is_compressed = is_compressed && self.frames.iter().any(Frame::may_be_compressed);
        let place = if is_compressed { &self.compressed } else { &self.plain };
        match place.get() {
            Some(bytes) => bytes,
            None => place.get_or_init(|| self.join(is_compressed, deflater)),
        }
    }

    // Once a run, where the rest is for each socket.
    #[cold]
    fn join(&self, is_compressed: bool, deflater: &mut Deflater) -> Bytes {
        let [one] = &self.frames[..] else {
            let len = self.frames.iter().map(|frame| frame.bytes(is_compressed, deflater).len()).sum();
            let mut all = BytesMut::with_capacity(len);
            for frame in &self.frames {
                all.extend_from_slice(frame.bytes(is_compressed, deflater));
            }
            return all.freeze();
        };
        one.bytes(is_compressed, deflater).clone()
    }

    /// Whether it was compressed for anyone, which takes longer than all else that is done with it.
    pub(super) fn took_long(&self) -> bool {
        self.compressed.get().is_some()
    }

    /// How many frames there are.
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

impl Socket {
    pub(super) fn new(stream: TcpStream, is_compressed: bool) -> Self {
        Self { stream, is_compressed, waiting: None }
    }

    /// Whether compression was negotiated.
    pub(super) fn is_compressed(&self) -> bool {
        self.is_compressed
    }

    pub(super) fn stream_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Whether something waits to be written.
    pub(super) fn is_blocked(&self) -> bool {
        self.waiting.is_some()
    }

    /// Whether more answers wait than may.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.bytes > MAX_QUEUED)
    }

    /// Since when the socket took nothing, if something waits.
    pub(super) fn blocked_since(&self) -> Option<Instant> {
        self.waiting.as_ref().map(|waiting| waiting.since)
    }

    /// Reads what is there; 0 is the end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Writes an answer, behind whatever waits.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn answer(&mut self, frame: Bytes) -> io::Result<()> {
        if let Some(waiting) = &mut self.waiting {
            waiting.bytes += frame.len() + ANSWER;
            waiting.answers.push_back(frame);
            return Ok(());
        }
        let written = self.write(&frame)?;
        if written < frame.len() {
            let mut waiting = Waiting::new(Bytes::new());
            waiting.bytes = frame.len() - written + ANSWER;
            waiting.answers.push_back(frame.slice(written..));
            self.waiting = Some(Box::new(waiting));
        }
        Ok(())
    }

    /// Writes frames of a room, as far as the socket takes them. Of a frame that it took in part,
    /// the rest waits here; of those after it, nothing is kept.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn send(&mut self, run: &Run, deflater: &mut Deflater) -> io::Result<Sent> {
        if self.waiting.is_some() {
            return Ok(Sent { frames: 0, is_blocked: true });
        }
        let bytes = run.bytes(self.is_compressed, deflater);
        let mut written = self.write(bytes)?;
        if written == bytes.len() {
            return Ok(Sent { frames: run.frames.len(), is_blocked: false });
        }
        let mut frames = 0;
        let mut rest = Bytes::new();
        for frame in &run.frames {
            let frame = frame.bytes(self.is_compressed, deflater);
            if written >= frame.len() {
                written -= frame.len();
                frames += 1;
                continue;
            }
            if written > 0 {
                rest = frame.slice(written..);
                frames += 1;
            }
            break;
        }
        // That nothing was left over also says "blocked": the write event that ends it is to come.
        self.waiting = Some(Box::new(Waiting::new(rest)));
        Ok(Sent { frames, is_blocked: true })
    }

    /// Writes what the socket takes at once; 0 where it takes nothing.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.stream.write(bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
                result => return result,
            }
        }
    }

    /// Writes what waits; true when nothing does any more.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        let Some(waiting) = &mut self.waiting else { return Ok(true) };
        loop {
            if waiting.rest.is_empty() {
                let Some(next) = waiting.answers.pop_front() else { break };
                waiting.bytes -= next.len() + ANSWER;
                waiting.rest = next;
            }
            match self.stream.write(&waiting.rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    waiting.since = clock::now();
                    waiting.rest.advance(written);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.waiting = None;
        Ok(true)
    }

    /// Says that nothing more will be written, once all is.
    pub(super) fn finish(&mut self) {
        // A socket that can't be shut down is broken already and about to be dropped.
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;
    use twine_protocol::Offset;

    use super::*;
    use crate::rooms::frames;
    use crate::store::Record;

    /// A socket that takes little, and its other end.
    fn pair(is_compressed: bool) -> (Socket, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let theirs = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        socket2::SockRef::from(&ours).set_send_buffer_size(4096).unwrap();
        socket2::SockRef::from(&theirs).set_recv_buffer_size(4096).unwrap();
        (Socket::new(TcpStream::from_std(ours), is_compressed), theirs)
    }

    #[test]
    fn small_answers_that_wait_count_for_what_they_take() {
        let (mut socket, _theirs) = pair(false);
        let large = Bytes::from(vec![0; 1 << 10]);
        while !socket.is_blocked() {
            socket.answer(large.clone()).unwrap();
        }
        let mut n = 0;
        while !socket.is_full() {
            socket.answer(Bytes::from_static(b"12")).unwrap();
            n += 1;
        }
        assert!(n <= MAX_QUEUED / size_of::<Bytes>() / 2, "{n}");
    }

    /// Frames of messages with so many bytes each: some of them shrink to little when they are compressed, others hardly.
    fn frames(len: usize, n: usize) -> Vec<Frame> {
        let mut random = fastrand::Rng::with_seed(1);
        let mut frame = |n: usize| {
            let letters = if n.is_multiple_of(3) { 'a'..='b' } else { '#'..='[' };
            let text: String = (0..len).map(|_| random.char(letters.clone())).collect();
            let record = Record {
                offset: Offset::new(n as u64 + 1).unwrap(),
                time: 0,
                id: None,
                sender: None,
                data: RawValue::from_string(format!("\"{text}\"")).unwrap(),
            };
            frames::message(&"chat".parse().unwrap(), &record, 1000)
        };
        (0..n).map(&mut frame).collect()
    }

    #[test]
    fn of_a_run_that_is_cut_whole_frames_arrive_and_nothing_else() {
        // Whatever the system takes at once, some of these are cut within a frame, and some between two.
        let lens = [1, 7, 1000, 4096, 70_000];
        for (len, is_compressed) in lens.into_iter().flat_map(|len| [(len, false), (len, true)]) {
            let frames = frames(len, 400_000 / (len + 60));
            let run = Run::new(frames.iter().cloned());
            assert_eq!(run.len(), frames.len());
            let (mut socket, mut theirs) = pair(is_compressed);
            let mut deflater = Deflater::default();
            let sent = socket.send(&run, &mut deflater).unwrap();
            assert!(sent.is_blocked && sent.frames < run.len() && socket.is_blocked());
            assert_eq!(socket.send(&run, &mut deflater).unwrap(), Sent { frames: 0, is_blocked: true });
            let bytes = |frame: &Frame, deflater: &mut Deflater| frame.bytes(is_compressed, deflater).clone();
            let expected: Vec<Bytes> =
                frames[..sent.frames].iter().map(|frame| bytes(frame, &mut deflater)).collect();
            assert_eq!(expected.iter().any(|bytes| bytes[0] == 0xc1), is_compressed && len >= 1000);
            let reader = std::thread::spawn(move || {
                let mut read = Vec::new();
                theirs.read_to_end(&mut read).unwrap();
                read
            });
            while !socket.flush().unwrap() {
                std::thread::yield_now();
            }
            socket.finish();
            assert!(reader.join().unwrap() == expected.concat(), "frames of {len} bytes, {is_compressed}");
        }
    }

    #[test]
    fn a_run_that_is_taken_whole_leaves_nothing() {
        let (mut socket, mut theirs) = pair(false);
        let run = Run::new(["one", "two"].map(|text| Bytes::from_static(text.as_bytes()).into()));
        assert_eq!(
            socket.send(&run, &mut Deflater::default()).unwrap(),
            Sent { frames: 2, is_blocked: false }
        );
        socket.finish();
        let mut read = String::new();
        theirs.read_to_string(&mut read).unwrap();
        assert_eq!(read, "onetwo");
    }

    #[test]
    fn answers_that_were_gathered_count_like_those_that_come_one_by_one() {
        let (mut socket, _theirs) = pair(false);
        // More than the system takes of it.
        socket.answer(vec![0; 8 << 20].into()).unwrap();
        assert!(socket.is_full());
    }
}
