//! The hub's HTTP side over real sockets: what is answered to good input, to bad, and to none.
// clippy allows these in functions marked as tests only, and here helpers are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod compression;
mod cookies;
mod express;
mod handshakes;
mod life;
mod load;
mod origins;
mod publishing;
mod reading;
mod requests;
mod sessions;
mod silence;
mod support;
#[path = "../support/tab.rs"]
mod tab;
mod websocket;
