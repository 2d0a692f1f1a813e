//! The Twine client: messages of rooms, once and in order, across lost connections.
//!
//! [`core`] is the client without its I/O, a state machine that both drivers run: `native`, on tokio,
//! whose `Client` is re-exported here, and `wasm`, in a browser, which the npm package wraps.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod core;
#[cfg(feature = "native")]
pub mod native;
#[cfg(all(feature = "wasm", target_arch = "wasm32"))]
pub mod wasm;

pub use core::{ClosedReason, State, SubscribeOptions};
#[cfg(feature = "native")]
pub use native::{Builder, Client, Error, Event, Message, States, Subscription};
pub use twine_protocol as protocol;

/// The README's example, compiled.
#[cfg(all(doctest, feature = "native"))]
#[doc = include_str!("../README.md")]
struct Readme;
