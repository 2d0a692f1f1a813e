//! The Twine client: messages of rooms, once and in order, across lost connections.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod core;
#[cfg(all(feature = "wasm", target_arch = "wasm32"))]
pub mod wasm;
