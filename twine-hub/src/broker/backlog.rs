//! The bound on publishes that wait to be durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use twine_protocol::Data;

use super::PublishError;

/// How many bytes may wait, and do.
#[derive(Debug, Clone)]
pub(crate) struct Backlog {
    waiting: Arc<AtomicUsize>,
    max_bytes: usize,
}

/// Bytes that wait to be committed; no longer once dropped.
#[derive(Debug)]
pub(super) struct Pending {
    all: Arc<AtomicUsize>,
    pub(super) bytes: usize,
}

/// Bytes that a message counts for while it waits.
pub(super) fn weight(data: &Data) -> usize {
    data.get().len() + 256
}

impl Backlog {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { waiting: Arc::default(), max_bytes }
    }

    /// Takes room among what waits.
    ///
    /// # Errors
    /// [`PublishError::Overloaded`] where there is none.
    pub(super) fn reserve(&self, bytes: usize) -> Result<Pending, PublishError> {
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let pending = Pending { all: self.waiting.clone(), bytes };
        if before.saturating_add(bytes) > self.max_bytes {
            return Err(PublishError::Overloaded);
        }
        Ok(pending)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
