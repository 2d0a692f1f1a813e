//! The Twine hub: backends publish to rooms over HTTP, browsers subscribe over WebSocket.
//!
//! A room is a log of messages and a subscription is a cursor into it. The way of a message, and
//! the only way: `http` → `rooms` → the broker (order, commit) → `rooms` (append to the tail,
//! encoded once) → `connection` (fan-out: every cursor of the room advances) → socket.
//! `docs/ARCHITECTURE.md` is the map.
//!
//! The binary is this library with a command line. [`Hub::builder`] starts a hub inside a test:
//!
//! ```
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let hub = twine_hub::Hub::builder().ephemeral().start().await?;
//! assert!(hub.url().starts_with("http://127.0.0.1:"));
//! hub.shutdown().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(not(unix))]
compile_error!("the hub needs a Unix: its key file has a mode, and it stops on SIGTERM");

mod accept;
mod assets;
mod auth;
mod broker;
#[doc(hidden)]
pub mod cli;
mod clock;
pub mod config;
mod connection;
mod deflate;
mod http;
mod hub;
mod load;
mod rooms;
mod rounds;
mod seldom;
mod session;
#[cfg(test)]
mod simulation;
mod store;
mod telemetry;
mod threads;
mod wakes;

pub use auth::{ApiKey, InvalidKey, InvalidOrigin, KeyFileError, Origin, Subscriber};
pub use config::Config;
pub use hub::{Builder, Hub, Running, StartError};
pub use store::{InvalidLocation, StoreError, TableError, TableLocation};

/// The examples of the README, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The version of this hub.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
