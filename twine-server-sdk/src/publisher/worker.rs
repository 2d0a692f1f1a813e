//! The task that empties the queue: one batch at a time, so that messages keep their order.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::warn;

use super::Shared;
use super::queue::{Next, Settled};
use crate::{Error, ErrorCode, Message, Twine};

pub(super) struct Worker {
    twine: Twine,
    retry_for: Duration,
    shared: Arc<Shared>,
    settled: watch::Sender<u64>,
}

impl Worker {
    pub(super) fn new(
        twine: Twine,
        retry_for: Duration,
        shared: Arc<Shared>,
        settled: watch::Sender<u64>,
    ) -> Self {
        Self { twine, retry_for, shared, settled }
    }

    pub(super) async fn run(self) {
        loop {
            let next = self.shared.lock().next();
            match next {
                Next::Batch(batch) => {
                    let n_messages = batch.len() as u64;
                    self.publish(batch).await;
                    // Told of whole batches only: within one, a refused message is settled before
                    // those it held up, and `flush` counts on the order.
                    self.settled.send_modify(|settled| *settled += n_messages);
                }
                // A message pushed since then has left a permit.
                Next::Wait => self.shared.work.notified().await,
                Next::End => return,
            }
        }
    }

    /// Publishes a batch, without those messages that the hub refuses.
    async fn publish(&self, batch: Vec<Message>) {
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            let Err(error) = self.twine.send_batch(&part, self.retry_for).await else {
                self.shared.lock().settle(&part, Settled::Published);
                continue;
            };
            match error.index() {
                // One bad message must not take the others with it: none of them is stored yet.
                Some(index) if index < part.len() => {
                    let refused = part.remove(index);
                    if !part.is_empty() {
                        parts.push(part);
                    }
                    self.drop_messages(&[refused], &error);
                }
                // The request as such is refused, perhaps for its size: in halves, first things first.
                None if is_about_size(&error) && part.len() > 1 => {
                    let second = part.split_off(part.len() / 2);
                    parts.push(second);
                    parts.push(part);
                }
                _ => self.drop_messages(&part, &error),
            }
        }
    }

    fn drop_messages(&self, messages: &[Message], error: &Error) {
        self.shared.lock().settle(messages, Settled::Dropped);
        if let Some(first) = messages.first() {
            warn!(%error, n_messages = messages.len(), room = %first.room(), id = %first.id(), "messages dropped");
        }
    }
}

/// Whether the hub may take the same messages in smaller batches: too many bytes, or too many of them.
fn is_about_size(error: &Error) -> bool {
    matches!(error.code(), Some(ErrorCode::BodyTooBig | ErrorCode::BadRequest))
}

// However the task ends: by itself, by the last handle, or with its runtime.
impl Drop for Worker {
    fn drop(&mut self) {
        let n_messages = self.shared.lock().abandon();
        if n_messages > 0 {
            warn!(n_messages, "messages dropped: the publisher was dropped before it was closed");
        }
    }
}
