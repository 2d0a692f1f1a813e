//! The threads that read the store, so that no connection waits for a disk.
//!
//! A room is always read by the same thread, so that those who wait for the same part of it share
//! one read. How many threads there are is the store's to say: one that waits for a network does more
//! at once.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::sync::oneshot;
use twine_protocol::{Epoch, EpochChange, Offset, Position, RoomName, ServerFrame};

use super::frames::{self, Frame};
use super::locked;
use super::shared::SharedPages;
use crate::deflate::Deflater;
use crate::store::history::{self, Part, Range};
use crate::store::page::{self, Item, Limit, Loss, Page, Recovery, Start};
use crate::store::{Reader, StoreError};
use crate::threads;

/// A run of a room's log, asked for by a subscription.
#[derive(Debug, Clone)]
pub(crate) struct PageRequest {
    pub(crate) room: RoomName,
    pub(crate) start: Start,
    /// The end: a position of the present epoch that the asker knows to be committed.
    pub(crate) until: Position,
    pub(crate) limit: Limit,
    /// What bounds the recovery that begins with this page; `None` for its later ones.
    pub(crate) recovery: Option<Recovery>,
    /// Whether its frames are wanted compressed: that is done here, where it holds up no connection.
    pub(crate) is_compressed: bool,
}

/// A page as frames to write, or a part of one that is shared with others.
#[derive(Debug)]
pub(crate) struct Steps {
    /// The cursor that the steps come after.
    pub(crate) start: Position,
    /// What is missing before `start`.
    pub(crate) loss: Option<Loss>,
    pub(super) page: Arc<[Step]>,
    /// Which of them are meant; always within the page.
    pub(super) range: std::ops::Range<usize>,
}

impl Steps {
    /// What to write, in order.
    pub(crate) fn all(&self) -> &[Step] {
        self.page.get(self.range.clone()).unwrap_or_default()
    }
}

/// One frame, and where the cursor is once it is written.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) frame: Frame,
    pub(crate) cursor: Position,
    /// Whether the frame is a message, or tells of a new epoch.
    pub(crate) is_message: bool,
}

/// What [`Rooms::read`](super::Rooms::read) calls.
type Done<T> = Box<dyn FnOnce(Result<T, Arc<StoreError>>) + Send>;

enum Request {
    Steps { request: PageRequest, asker: Asker<Steps> },
    History { room: RoomName, range: Range, head: Position, limit: Limit, asker: Asker<Part> },
    Head { room: RoomName, epoch: Epoch, asker: Asker<Offset> },
}

/// Whoever waits for an answer, and gets one whatever happens: a request that is dropped, because the
/// thread has ended, is answered by that.
struct Asker<T>(Option<Done<T>>);

/// A handle to the reading threads. What may ask bounds what waits: a connection has one read under
/// way, an HTTP request two after each other.
pub(crate) struct Reading {
    /// One for each thread; `None` once closed.
    requests: Mutex<Option<Vec<Sender<Request>>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    hasher: RandomState,
}

impl Reading {
    /// A handle, and what has to be run for it: each of these on a thread of its own.
    pub(super) fn new(readers: Vec<Box<dyn Reader>>, compress_from: usize) -> (Self, Vec<Serving>) {
        let serve = |reader| {
            let (requests, waiting) = channel();
            (requests, Serving::new(reader, waiting, compress_from))
        };
        let (requests, serving) = readers.into_iter().map(serve).unzip();
        let requests = Mutex::new(Some(requests));
        (Self { requests, threads: Mutex::default(), hasher: RandomState::new() }, serving)
    }

    /// Reads with each of these on a thread of its own. Messages of `compress_from` bytes are worth compressing.
    ///
    /// # Errors
    /// Where the system gives none.
    pub(crate) fn start(readers: Vec<Box<dyn Reader>>, compress_from: usize) -> Result<Self, StoreError> {
        let (reading, all) = Self::new(readers, compress_from);
        for (n, serving) in all.into_iter().enumerate() {
            let thread = threads::spawn(&format!("twine-reader-{n}"), move || serving.run())
                .map_err(|source| StoreError::Thread { source })?;
            locked(&reading.threads).push(thread);
        }
        Ok(reading)
    }

    pub(super) fn read(
        &self,
        request: PageRequest,
        done: impl FnOnce(Result<Steps, Arc<StoreError>>) + Send + 'static,
    ) {
        self.submit(Request::Steps { request, asker: Asker::new(done) });
    }

    pub(super) async fn history(
        &self,
        room: RoomName,
        range: Range,
        head: Position,
        limit: Limit,
    ) -> Result<Part, Arc<StoreError>> {
        let (asker, part) = waiting();
        self.submit(Request::History { room, range, head, limit, asker });
        part.await.unwrap_or_else(|_| Err(Arc::new(StoreError::Ended)))
    }

    /// The offset of the room's last message in an epoch.
    pub(crate) async fn head(&self, room: RoomName, epoch: Epoch) -> Result<Offset, Arc<StoreError>> {
        let (asker, head) = waiting();
        self.submit(Request::Head { room, epoch, asker });
        head.await.unwrap_or_else(|_| Err(Arc::new(StoreError::Ended)))
    }

    fn submit(&self, request: Request) {
        let refused = match &*locked(&self.requests) {
            Some(all) => {
                let turn = self.hasher.hash_one(request.room()) % (all.len().max(1) as u64);
                // What the thread takes no more is dropped, and so answered.
                if let Some(thread) = usize::try_from(turn).ok().and_then(|turn| all.get(turn)) {
                    drop(thread.send(request));
                }
                None
            }
            None => Some(request),
        };
        if let Some(request) = refused {
            request.refuse();
        }
    }

    /// Whether the threads are there.
    pub(super) fn health(&self) -> Result<(), Arc<StoreError>> {
        let is_whole = !locked(&self.threads).iter().any(JoinHandle::is_finished);
        if is_whole { Ok(()) } else { Err(Arc::new(StoreError::Ended)) }
    }

    /// Answers what waits, then ends the threads.
    pub(crate) fn close(&self) {
        drop(locked(&self.requests).take());
        for thread in std::mem::take(&mut *locked(&self.threads)) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Request {
    fn room(&self) -> &RoomName {
        match self {
            Self::Steps { request: PageRequest { room, .. }, .. }
            | Self::History { room, .. }
            | Self::Head { room, .. } => room,
        }
    }

    fn refuse(self) {
        let error = Arc::new(StoreError::Closed);
        match self {
            Self::Steps { asker, .. } => asker.answer(Err(error)),
            Self::History { asker, .. } => asker.answer(Err(error)),
            Self::Head { asker, .. } => asker.answer(Err(error)),
        }
    }
}

impl<T> Asker<T> {
    fn new(done: impl FnOnce(Result<T, Arc<StoreError>>) + Send + 'static) -> Self {
        Self(Some(Box::new(done)))
    }

    fn answer(mut self, answer: Result<T, Arc<StoreError>>) {
        if let Some(done) = self.0.take() {
            done(answer);
        }
    }
}

impl<T> Drop for Asker<T> {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err(Arc::new(StoreError::Ended)));
        }
    }
}

/// One who waits in a task.
fn waiting<T: Send + 'static>() -> (Asker<T>, oneshot::Receiver<Result<T, Arc<StoreError>>>) {
    let (sender, receiver) = oneshot::channel();
    // Whoever asked may be gone by now; then nobody wants the answer.
    (Asker::new(move |answer| drop(sender.send(answer))), receiver)
}

/// What a thread owns: it answers requests, one after the other.
pub(crate) struct Serving {
    reader: Box<dyn Reader>,
    shared: SharedPages,
    waiting: Receiver<Request>,
    compress_from: usize,
    deflater: Deflater,
}

impl Serving {
    fn new(reader: Box<dyn Reader>, waiting: Receiver<Request>, compress_from: usize) -> Self {
        let (shared, deflater) = (SharedPages::default(), Deflater::default());
        Self { reader, shared, waiting, compress_from, deflater }
    }

    /// Answers until nobody can ask any more.
    fn run(mut self) {
        loop {
            while self.step() {}
            let Ok(request) = self.waiting.recv() else { return };
            self.answer(request);
        }
    }

    /// Answers one request; false where none waits.
    pub(crate) fn step(&mut self) -> bool {
        let Ok(request) = self.waiting.try_recv() else {
            self.shared.clear();
            return false;
        };
        self.answer(request);
        true
    }

    fn answer(&mut self, request: Request) {
        let &mut Self { ref mut reader, ref mut shared, compress_from, ref mut deflater, .. } = self;
        match request {
            Request::Steps { request, asker } => {
                let is_compressed = request.is_compressed;
                let shared_steps = shared.find(&request);
                let steps =
                    shared_steps.map_or_else(|| read(&mut **reader, request, shared, compress_from), Ok);
                if is_compressed && let Ok(steps) = &steps {
                    for step in steps.all() {
                        step.frame.compressed(deflater);
                    }
                }
                asker.answer(steps);
            }
            Request::History { room, range, head, limit, asker } => {
                asker.answer(history::read(&mut **reader, &room, &range, &head, limit).map_err(Arc::new));
            }
            Request::Head { room, epoch, asker } => {
                let segments = reader.segments(&room).map_err(Arc::new);
                let last = |segments: Vec<crate::store::Segment>| {
                    segments.into_iter().rfind(|s| s.epoch == epoch).map_or(Offset::ZERO, |s| s.last)
                };
                asker.answer(segments.map(last));
            }
        }
    }
}

/// Reads a page for one subscription and keeps it for others.
fn read(
    reader: &mut dyn Reader,
    request: PageRequest,
    shared: &mut SharedPages,
    compress_from: usize,
) -> Result<Steps, Arc<StoreError>> {
    let PageRequest { room, start, until, limit, recovery, .. } = &request;
    let page = page::read(reader, room, start, until, *limit, recovery.as_ref()).map_err(Arc::new)?;
    let steps = steps(room, page, compress_from);
    shared.keep(request, &steps);
    Ok(steps)
}

/// Makes frames of a page.
fn steps(room: &RoomName, page: Page, compress_from: usize) -> Steps {
    let step = |item| match item {
        Item::Message { epoch, record } => {
            let cursor = Position { epoch, offset: record.offset };
            Step { frame: frames::message(room, &record, compress_from), cursor, is_message: true }
        }
        Item::Crossing { epoch, prev } => Step {
            cursor: Position { epoch: epoch.clone(), offset: Offset::ZERO },
            is_message: false,
            frame: frames::frame(&ServerFrame::Epoch(EpochChange { room: room.clone(), epoch, prev })).into(),
        },
    };
    let all: Arc<[Step]> = page.items.into_iter().map(step).collect();
    Steps { start: page.start, loss: page.loss, range: 0..all.len(), page: all }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::value::RawValue;

    use super::*;
    use crate::store::observed::Observed;
    use crate::store::{Record, memory};

    #[test]
    fn those_who_wait_for_the_same_part_of_a_log_share_one_read() {
        const LIMIT: Limit = Limit { messages: 100, bytes: 1 << 20 };
        let room: RoomName = "chat".parse().unwrap();
        let crate::store::Opened { mut writer, reader } = memory::open(usize::MAX);
        writer.begin().unwrap();
        for n in 1..=300 {
            let data = RawValue::from_string(n.to_string()).unwrap();
            let record = Record { offset: Offset::new(n).unwrap(), time: n, id: None, sender: None, data };
            writer.append(&room, &record).unwrap();
        }
        writer.commit().unwrap();
        let at = |n| Position { epoch: writer.epoch().clone(), offset: Offset::new(n).unwrap() };
        let reads = Arc::new(AtomicUsize::new(0));
        let recovery = Recovery { max_messages: 1_000, max_age: std::time::Duration::MAX };
        let (requests, waiting) = channel();
        let (answers, answered) = channel();
        // All wait before the first is served. Their cursors differ, and the head moves 40 times.
        let cases: Vec<(u64, u64)> = (0..1_000)
            .map(|n| (n % 50, 60 + n / 25))
            .chain([(250, 300), (100, 100), (99, 100), (120, 110)])
            .collect();
        for (case, (after, until)) in cases.iter().enumerate() {
            let request = PageRequest {
                room: room.clone(),
                start: Start::After(at(*after)),
                until: at(*until),
                limit: LIMIT,
                recovery: (case % 2 == 0).then_some(recovery.clone()),
                is_compressed: false,
            };
            let answers = answers.clone();
            let done = move |steps| answers.send((case, steps)).unwrap();
            requests.send(Request::Steps { request, asker: Asker::new(done) }).unwrap();
        }
        drop((requests, answers));
        let counted = reads.clone();
        let count = move |_: &[Record]| {
            counted.fetch_add(1, Ordering::Relaxed);
        };
        let reader = Box::new(Observed { reader, observe: count });
        Serving::new(reader, waiting, usize::MAX).run();
        for (case, steps) in answered {
            let steps: Steps = steps.unwrap();
            let (after, until) = cases[case];
            if after > until {
                // Of a later end than its own this request knows nothing.
                assert!(steps.loss.is_some());
                continue;
            }
            assert_eq!((steps.start.clone(), steps.loss.is_none()), (at(after), true));
            let brought: Vec<_> = steps.all().iter().map(|step| step.cursor.clone()).collect();
            let expected: Vec<_> = (after + 1..=until).map(at).take(brought.len()).collect();
            assert_eq!(brought, expected);
            assert!(!brought.is_empty() || after == until);
        }
        assert!(reads.load(Ordering::Relaxed) <= 50, "{reads:?} reads for {} requests", cases.len());
    }

    #[test]
    fn a_page_of_history_is_no_recovery_within_its_limits() {
        let room: RoomName = "chat".parse().unwrap();
        let crate::store::Opened { mut writer, reader } = memory::open(usize::MAX);
        writer.begin().unwrap();
        for n in 1..=100 {
            let data = RawValue::from_string(n.to_string()).unwrap();
            let offset = Offset::new(n).unwrap();
            let record = Record { offset, time: crate::clock::unix_millis(), id: None, sender: None, data };
            writer.append(&room, &record).unwrap();
        }
        writer.commit().unwrap();
        let at = |n| Position { epoch: writer.epoch().clone(), offset: Offset::new(n).unwrap() };
        let recovery = Recovery { max_messages: 10, max_age: std::time::Duration::from_hours(1) };
        let (requests, waiting) = channel();
        let (answers, answered) = channel();
        for start in [Start::Last(90), Start::After(at(20))] {
            let request = PageRequest {
                room: room.clone(),
                start,
                until: at(100),
                limit: Limit { messages: 100, bytes: 1 << 20 },
                recovery: Some(recovery.clone()),
                is_compressed: false,
            };
            let answers = answers.clone();
            let done = move |steps| answers.send(steps).unwrap();
            requests.send(Request::Steps { request, asker: Asker::new(done) }).unwrap();
        }
        drop((requests, answers));
        Serving::new(reader, waiting, usize::MAX).run();
        let _history: Steps = answered.recv().unwrap().unwrap();
        let recovered: Steps = answered.recv().unwrap().unwrap();
        assert_eq!(recovered.start, at(90), "10 messages at most");
        assert!(recovered.loss.is_some());
    }
}
