//! Publishing from code that is not asynchronous.

use std::sync::Arc;

use serde::Serialize;
use tokio::runtime::{self, Runtime};
use twine_protocol::api::Published;

use crate::{Error, IntoRoom, Message};

/// Publishes to a hub and blocks the calling thread until it has answered.
///
/// It is [`twine_server_sdk::Twine`](crate::Twine) on a thread of its own, with the same retries and
/// errors. Clones share that thread and cost nothing.
///
/// # Panics
/// Every publish does where it would block an asynchronous task: use
/// [`twine_server_sdk::Twine`](crate::Twine) there.
///
/// ```no_run
/// use twine_server_sdk::blocking::Twine;
///
/// let twine = Twine::new("https://rt.example.com", "API_KEY")?;
/// twine.publish("chat", "hello")?;
/// # Ok::<(), twine_server_sdk::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Twine {
    twine: crate::Twine,
    thread: Arc<Thread>,
}

impl Twine {
    /// As [`Twine::new`](crate::Twine::new).
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config), also where no thread can be started.
    pub fn new(url: impl Into<String>, api_key: impl Into<String>) -> Result<Self, Error> {
        Self::from_async(crate::Twine::new(url, api_key)?)
    }

    /// Publishes as `twine` does: for settings other than the defaults.
    ///
    /// ```
    /// use std::time::Duration;
    /// use twine_server_sdk::{Twine, blocking};
    ///
    /// let twine = Twine::builder("https://rt.example.com", "API_KEY")
    ///     .deadline(Duration::from_secs(5))
    ///     .build()?;
    /// let twine = blocking::Twine::from_async(twine)?;
    /// # Ok::<(), twine_server_sdk::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) where no thread can be started.
    pub fn from_async(twine: crate::Twine) -> Result<Self, Error> {
        // A thread of its own, rather than the callers', tends the idle connections.
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("twine")
            .enable_all()
            .build()
            .map_err(|source| Error::config("no thread could be started").because(source))?;
        Ok(Self { twine, thread: Arc::new(Thread(Some(runtime))) })
    }

    /// As [`Twine::publish`](crate::Twine::publish).
    ///
    /// # Errors
    /// As there.
    pub fn publish<T>(&self, room: impl IntoRoom, data: &T) -> Result<Published, Error>
    where
        T: Serialize + ?Sized,
    {
        self.thread.block_on(self.twine.publish(room, data))
    }

    /// As [`Twine::publish_message`](crate::Twine::publish_message).
    ///
    /// # Errors
    /// As there.
    pub fn publish_message(&self, message: &Message) -> Result<Published, Error> {
        self.thread.block_on(self.twine.publish_message(message))
    }

    /// As [`Twine::publish_to_rooms`](crate::Twine::publish_to_rooms).
    ///
    /// # Errors
    /// As there.
    pub fn publish_to_rooms<R, T>(
        &self,
        rooms: impl IntoIterator<Item = R>,
        data: &T,
    ) -> Result<Vec<Published>, Error>
    where
        R: IntoRoom,
        T: Serialize + ?Sized,
    {
        self.thread.block_on(self.twine.publish_to_rooms(rooms, data))
    }

    /// As [`Twine::publish_batch`](crate::Twine::publish_batch).
    ///
    /// # Errors
    /// As there.
    pub fn publish_batch(&self, messages: &[Message]) -> Result<Vec<Published>, Error> {
        self.thread.block_on(self.twine.publish_batch(messages))
    }
}

/// A runtime that may be dropped anywhere.
#[derive(Debug)]
struct Thread(Option<Runtime>);

impl Thread {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        // It is taken in `drop` alone.
        #[allow(clippy::expect_used)]
        self.0.as_ref().expect("the runtime is there until it is dropped").block_on(future)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // A runtime's own `drop` waits for its thread, and panics where waiting is not allowed. There is
        // nothing to wait for: only idle connections are left.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
