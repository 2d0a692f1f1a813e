//! Who orders messages and commits them, before anyone sees one.

mod committer;
mod local;
#[cfg(test)]
mod tests;

pub(crate) use committer::Committer;
pub(crate) use local::LocalBroker;

use std::sync::Arc;

use twine_protocol::ErrorCode;

use crate::store::StoreError;

/// Why nothing was published. A publisher may retry with the same id.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum PublishError {
    #[error("the store refused it: {0}")]
    Store(Arc<StoreError>),
    #[error("more publishes are waiting for the store than it may keep waiting")]
    Overloaded,
    #[error("the hub is shutting down")]
    Draining,
}

impl PublishError {
    /// What the publisher is answered.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Store(error) => error.code(),
            Self::Overloaded => ErrorCode::Unavailable,
            Self::Draining => ErrorCode::Draining,
        }
    }
}
