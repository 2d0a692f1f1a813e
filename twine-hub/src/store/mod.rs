//! Where messages are kept.
#![allow(dead_code, missing_docs)]

use std::path::PathBuf;
use std::time::Duration;

/// Which store, and for how long it keeps messages.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which one.
    pub kind: Kind,
    /// How long messages are kept.
    pub retention: Retention,
}

/// The kinds of store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// In this process only: a restart loses everything.
    Memory,
    /// An embedded database in this folder.
    Sqlite {
        /// The folder; made if missing.
        data_dir: PathBuf,
    },
}

/// How long a store keeps messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// At least this long.
    For(Duration),
    /// For good.
    Forever,
}

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk is full.
    #[error("the store has no room left: {0}")]
    Full(String),
    /// Anything else.
    #[error("the store failed: {0}")]
    Failed(String),
}
