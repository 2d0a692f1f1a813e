//! The thread that reads the store, so that no connection waits for a disk.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::oneshot;
use twine_protocol::{Epoch, EpochChange, Offset, Position, RoomName, ServerFrame};

use super::{frames, locked};
use crate::store::page::{self, Item, Limit, Loss, Page, Start};
use crate::store::{Reader, StoreError};

/// A run of a room's log, asked for by a subscription.
#[derive(Debug, Clone)]
pub(crate) struct PageRequest {
    pub(crate) room: RoomName,
    pub(crate) start: Start,
    /// The end: a position of the present epoch that the asker knows to be committed.
    pub(crate) until: Position,
    pub(crate) limit: Limit,
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
    Page { room: RoomName, start: Start, until: Position, limit: Limit, done: Done<Page> },
    Head { room: RoomName, epoch: Epoch, done: Done<Offset> },
}

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

    pub(super) fn read(&self, request: PageRequest, done: Done<Steps>) {
        let PageRequest { room, start, until, limit } = request;
        let name = room.clone();
        let done: Done<Page> = Box::new(move |page| done(page.map(|page| steps(&name, page))));
        self.submit(Request::Page { room, start, until, limit, done });
    }

    pub(super) async fn page(
        &self,
        room: RoomName,
        start: Start,
        until: Position,
        limit: Limit,
    ) -> Result<Page, Arc<StoreError>> {
        let (done, page) = answer();
        self.submit(Request::Page { room, start, until, limit, done });
        page.await.unwrap_or_else(|_| Err(Arc::new(StoreError::Closed)))
    }

    pub(super) async fn head(&self, room: RoomName, epoch: Epoch) -> Result<Offset, Arc<StoreError>> {
        let (done, head) = answer();
        self.submit(Request::Head { room, epoch, done });
        head.await.unwrap_or_else(|_| Err(Arc::new(StoreError::Closed)))
    }

    fn submit(&self, request: Request) {
        let refused = match &*locked(&self.requests) {
            Some(requests) => requests.send(request).err().map(|refused| refused.0),
            None => Some(request),
        };
        if let Some(request) = refused {
            request.refuse();
        }
    }

    /// Answers what waits, then ends the thread.
    pub(super) fn close(&self) {
        drop(locked(&self.requests).take());
        if let Some(thread) = locked(&self.thread).take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that reads the store had panicked");
        }
    }
}

impl Request {
    fn refuse(self) {
        let error = Arc::new(StoreError::Closed);
        match self {
            Self::Page { done, .. } => done(Err(error)),
            Self::Head { done, .. } => done(Err(error)),
        }
    }
}

fn answer<T: Send + 'static>() -> (Done<T>, oneshot::Receiver<Result<T, Arc<StoreError>>>) {
    let (sender, receiver) = oneshot::channel();
    // Whoever asked may be gone by now; then nobody wants the answer.
    (Box::new(move |answer| drop(sender.send(answer))), receiver)
}

fn serve(mut reader: Box<dyn Reader>, waiting: &Receiver<Request>) {
    while let Ok(request) = waiting.recv() {
        match request {
            Request::Page { room, start, until, limit, done } => {
                done(page::read(&mut *reader, &room, &start, &until, limit).map_err(Arc::new));
            }
            Request::Head { room, epoch, done } => {
                let segments = reader.segments(&room).map_err(Arc::new);
                let last = |segments: Vec<crate::store::Segment>| {
                    segments.into_iter().rfind(|s| s.epoch == epoch).map_or(Offset::ZERO, |s| s.last)
                };
                done(segments.map(last));
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
