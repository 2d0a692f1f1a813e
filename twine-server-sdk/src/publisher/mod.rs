//! Publishing without waiting: a bounded queue, and a task of its own that empties it in batches.
//!
//! [`Publisher`] is the handle, [`queue`] the state that it shares with the [`worker`].

mod queue;
mod worker;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::runtime;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use self::queue::Queue;
use self::worker::Worker;
use crate::{Error, IntoRoom, Message, Twine};

/// Publishes in the background, for backends that must never wait for the hub.
///
/// [`publish`](Self::publish) only puts the message into a queue, bounded in messages and bytes, and
/// fails at once where it is full. A task sends what has gathered, a batch at a time, so that messages
/// keep their order and batches grow under load. While the hub is away the batch is retried, and the
/// queue fills.
///
/// Clones share the queue and cost nothing. When the last one is dropped the task ends, and messages
/// that still wait are lost (and logged): [`close`](Self::close) it on shutdown.
///
/// ```no_run
/// # async fn example(twine: twine_server_sdk::Twine) -> Result<(), twine_server_sdk::Error> {
/// let publisher = twine.publisher().start()?;
/// publisher.publish("chat", "hello")?;
///
/// let stats = publisher.close().await;
/// assert_eq!((stats.published, stats.dropped), (1, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Publisher {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    /// How many messages are done with, counted in whole batches; its sender lives in the task.
    settled: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// There is something to do: a message, or the end.
    work: Notify,
}

/// What a [`Publisher`] has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublisherStats {
    /// Messages taken into the queue: published, dropped, or still in it.
    pub accepted: u64,
    /// Messages stored by the hub.
    pub published: u64,
    /// Messages refused because the queue was full; each caller got
    /// [`QueueFull`](crate::ErrorKind::QueueFull).
    pub refused: u64,
    /// Messages given up after they were accepted: the hub refused them, or was away for longer than
    /// [`retry_for`](PublisherBuilder::retry_for). The log says why. One given up for lack of an answer
    /// may have been stored all the same.
    pub dropped: u64,
    /// Messages in the queue now, on their way included.
    pub queued: usize,
    /// The bytes of these messages.
    pub queued_bytes: usize,
}

impl Publisher {
    /// Queues `data`, as JSON, for `room`. Never waits, and may be called from any thread.
    ///
    /// # Errors
    /// [`QueueFull`](crate::ErrorKind::QueueFull) where there is no room left,
    /// [`Closed`](crate::ErrorKind::Closed) after [`close`](Self::close) or the end of the runtime,
    /// [`InvalidMessage`](crate::ErrorKind::InvalidMessage) where the message can't be published, for
    /// being larger than the whole queue among others.
    pub fn publish<T>(&self, room: impl IntoRoom, data: &T) -> Result<(), Error>
    where
        T: Serialize + ?Sized,
    {
        self.publish_message(Message::new(room, data)?)
    }

    /// Queues a message that was made before, with its id and sender.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn publish_message(&self, message: Message) -> Result<(), Error> {
        self.handle.shared.lock().push(message)?;
        self.handle.shared.work.notify_one();
        Ok(())
    }

    /// Waits until every message queued before this call is published or dropped.
    ///
    /// # Cancel safety
    /// Giving up waiting changes nothing: the messages stay queued.
    pub async fn flush(&self) {
        let target = self.stats().accepted;
        // An error means that the task has ended, and then nothing is left to wait for.
        let _ = self.handle.settled.clone().wait_for(|settled| *settled >= target).await;
    }

    /// Takes no more messages, publishes those that wait, ends the task, and says what became of all.
    ///
    /// While the hub is away this may take [`retry_for`](PublisherBuilder::retry_for) a batch. To wait
    /// for less, put a timeout around it, and drop the publisher then.
    ///
    /// # Cancel safety
    /// Once begun, the closing goes on; call it again to go on waiting.
    pub async fn close(&self) -> PublisherStats {
        self.handle.shared.lock().close();
        self.handle.shared.work.notify_one();
        let mut settled = self.handle.settled.clone();
        // The task takes the sender with it when it ends.
        while settled.changed().await.is_ok() {}
        self.stats()
    }

    /// What has been done so far.
    pub fn stats(&self) -> PublisherStats {
        self.handle.shared.lock().stats()
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing under the lock panics half-way; and what would have, must not take callers with it.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Settings of a [`Publisher`]; made by [`Twine::publisher`].
#[must_use = "a builder does nothing until `start`"]
#[derive(Debug, Clone)]
pub struct PublisherBuilder {
    twine: Twine,
    max_messages: usize,
    max_bytes: usize,
    retry_for: Duration,
}

impl PublisherBuilder {
    const MAX_MESSAGES: usize = 10_000;
    const MAX_BYTES: usize = 8 * 1024 * 1024;
    const RETRY_FOR: Duration = Duration::from_secs(5 * 60);

    pub(crate) fn new(twine: Twine) -> Self {
        Self {
            twine,
            max_messages: Self::MAX_MESSAGES,
            max_bytes: Self::MAX_BYTES,
            retry_for: Self::RETRY_FOR,
        }
    }

    /// How many messages the queue holds at most; 10,000 by default.
    pub fn max_messages(self, max_messages: usize) -> Self {
        Self { max_messages, ..self }
    }

    /// How many bytes the queue's messages take at most, payloads as JSON; 8 MiB by default.
    pub fn max_bytes(self, max_bytes: usize) -> Self {
        Self { max_bytes, ..self }
    }

    /// For how long a batch is retried before it is dropped; 5 min by default. It takes the place of
    /// the [deadline](crate::TwineBuilder::deadline). Keep it below the hub's idempotency window (10 min
    /// by default), or a late retry may store a message twice.
    pub fn retry_for(self, retry_for: Duration) -> Self {
        Self { retry_for, ..self }
    }

    /// Starts the task on the current tokio runtime.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) outside of a runtime, or where a limit is zero.
    pub fn start(self) -> Result<Publisher, Error> {
        if self.max_messages == 0 || self.max_bytes == 0 || self.retry_for.is_zero() {
            return Err(Error::config("a publisher's limit is zero"));
        }
        let runtime = runtime::Handle::try_current()
            .map_err(|source| Error::config("a publisher starts in a tokio runtime").because(source))?;
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::new(self.max_messages, self.max_bytes)),
            work: Notify::new(),
        });
        let (settled_sender, settled) = watch::channel(0);
        let worker = Worker::new(self.twine, self.retry_for, Arc::clone(&shared), settled_sender);
        let task = runtime.spawn(worker.run());
        Ok(Publisher { handle: Arc::new(Handle { shared, settled, task }) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_handle_takes_the_task_with_it() {
        let twine = Twine::builder("http://127.0.0.1:1", "key").build().unwrap();
        let publisher = twine.publisher().start().unwrap();
        let mut settled = publisher.handle.settled.clone();
        let other = publisher.clone();
        drop(publisher);
        other.flush().await;
        assert!(settled.has_changed().is_ok(), "one handle is left");
        drop(other);
        // The task had the sender.
        assert!(settled.changed().await.is_err());
    }
}
