//! The thread that reads the store, so that no connection waits for a disk.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::oneshot;
use twine_protocol::{Epoch, EpochChange, Offset, Position, RoomName, ServerFrame};

use super::{frames, locked};
use crate::store::history::{self, Part, Range};
use crate::store::page::{self, Item, Limit, Loss, Page, Recovery, Start};
use crate::store::{Reader, StoreError};

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
}

/// A page as frames to write.
#[derive(Debug)]
pub(crate) struct Steps {
    /// The cursor that the steps come after.
    pub(crate) start: Position,
    /// What is missing before `start`.
    pub(crate) loss: Option<Loss>,
    /// What to write, in order.
    pub(crate) all: Vec<Step>,
}

/// One frame, and where the cursor is once it is written.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) frame: Bytes,
    pub(crate) cursor: Position,
    /// Whether the frame is a message, or tells of a new epoch.
    pub(crate) is_message: bool,
}

/// What [`Rooms::read`](super::Rooms::read) calls.
type Done<T> = Box<dyn FnOnce(Result<T, Arc<StoreError>>) + Send>;

enum Request {
    Page { request: PageRequest, asker: Asker<Steps> },
    History { room: RoomName, range: Range, head: Position, limit: Limit, asker: Asker<Part> },
    Head { room: RoomName, epoch: Epoch, asker: Asker<Offset> },
}

/// Whoever waits for an answer, and gets one whatever happens: a request that is dropped, because the
/// thread has ended, is answered by that.
struct Asker<T>(Option<Done<T>>);

/// A handle to the reading thread. What may ask bounds what waits: a connection has one read under
/// way, an HTTP request two after each other.
pub(super) struct Reading {
    requests: Mutex<Option<Sender<Request>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Reading {
    pub(super) fn start(reader: Box<dyn Reader>) -> Result<Self, StoreError> {
        let (requests, waiting) = channel();
        let thread = std::thread::Builder::new()
            .name("twine-reader".into())
            .spawn(move || serve(reader, &waiting))
            .map_err(|source| StoreError::Thread { source })?;
        Ok(Self { requests: Mutex::new(Some(requests)), thread: Mutex::new(Some(thread)) })
    }

    pub(super) fn read(
        &self,
        request: PageRequest,
        done: impl FnOnce(Result<Steps, Arc<StoreError>>) + Send + 'static,
    ) {
        self.submit(Request::Page { request, asker: Asker::new(done) });
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

    pub(super) async fn head(&self, room: RoomName, epoch: Epoch) -> Result<Offset, Arc<StoreError>> {
        let (asker, head) = waiting();
        self.submit(Request::Head { room, epoch, asker });
        head.await.unwrap_or_else(|_| Err(Arc::new(StoreError::Ended)))
    }

    fn submit(&self, request: Request) {
        let refused = match &*locked(&self.requests) {
            // What the thread takes no more is dropped, and so answered.
            Some(requests) => requests.send(request).err().map(drop).and(None),
            None => Some(request),
        };
        if let Some(request) = refused {
            request.refuse();
        }
    }

    /// Whether the thread is there.
    pub(super) fn health(&self) -> Result<(), Arc<StoreError>> {
        match &*locked(&self.thread) {
            Some(thread) if thread.is_finished() => Err(Arc::new(StoreError::Ended)),
            _ => Ok(()),
        }
    }

    /// Answers what waits, then ends the thread.
    pub(super) fn close(&self) {
        drop(locked(&self.requests).take());
        let thread = locked(&self.thread).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that reads the store had panicked");
        }
    }
}

impl Request {
    fn refuse(self) {
        let error = Arc::new(StoreError::Closed);
        match self {
            Self::Page { asker, .. } => asker.answer(Err(error)),
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

fn serve(mut reader: Box<dyn Reader>, waiting: &Receiver<Request>) {
    while let Ok(request) = waiting.recv() {
        match request {
            Request::Page { request, asker } => {
                let PageRequest { room, start, until, limit, recovery } = request;
                let page = page::read(&mut *reader, &room, &start, &until, limit, recovery.as_ref());
                asker.answer(page.map(|page| steps(&room, page)).map_err(Arc::new));
            }
            Request::History { room, range, head, limit, asker } => {
                asker.answer(history::read(&mut *reader, &room, &range, &head, limit).map_err(Arc::new));
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

/// Makes frames of a page.
fn steps(room: &RoomName, page: Page) -> Steps {
    let step = |item| match item {
        Item::Message { epoch, record } => {
            let cursor = Position { epoch, offset: record.offset };
            Step { frame: frames::message(room, &record), cursor, is_message: true }
        }
        Item::Crossing { epoch, prev } => Step {
            cursor: Position { epoch: epoch.clone(), offset: Offset::ZERO },
            is_message: false,
            frame: frames::frame(&ServerFrame::Epoch(EpochChange { room: room.clone(), epoch, prev })),
        },
    };
    Steps { start: page.start, loss: page.loss, all: page.items.into_iter().map(step).collect() }
}
