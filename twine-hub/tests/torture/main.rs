//! The real binary with its real store, treated badly: killed amid publishing, again and again, and
//! read by clients that stay, that come and go, that read slowly and that lose their sockets. What
//! holds then is counted message by message.
//!
//! `TWINE_TORTURE_ROUNDS` says how often the hub is killed, `TWINE_TORTURE_SEED` repeats the draws of
//! an earlier run, which a failure shows.

// Clippy knows a test by its attribute, and a test's helpers have none.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used)]

mod hub;
mod killed_again_and_again;
mod ledger;
mod network;
mod publishers;
mod readers;
mod slow_readers;
