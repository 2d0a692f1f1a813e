//! The wire of Twine, version 1: frames, room names, positions, error and close codes, HTTP bodies.
//!
//! The hub and every client share these types; nothing here does I/O or reads a clock. What can be
//! wrong about a value is checked where the value is made, so an invalid [`RoomName`] can't exist.
//! `docs/PROTOCOL.md` in the repository is the full text; items name their section of it.
//!
//! A payload (`data`) is generic: with the feature `json` it is raw JSON that no one parses on its
//! way ([`Data`]); a browser's client puts the value there that its own `JSON.parse` made.

pub mod api;
mod error;
mod frame;
mod ident;
#[cfg(feature = "json")]
pub mod json;
mod object;
mod position;
mod room;

pub use error::{CloseCode, ErrorCode};
pub use frame::{
    ClientFrame, Connect, Connected, Disconnect, EpochChange, ErrorFrame, Gap, GapReason, Lost, Message,
    Pong, ServerFrame, Subscribe, Subscribed, Unsubscribe, Unsubscribed,
};
pub use ident::{InstanceId, InvalidId, MessageId, SessionId};
#[cfg(feature = "json")]
pub use json::Data;
pub use position::{Epoch, InvalidPosition, Offset, Position};
pub use room::{InvalidRoomName, RoomName};

/// The WebSocket subprotocol of this version: offered by clients, not demanded by the hub
/// (PROTOCOL.md, "Opening"). Its last part names the encoding.
pub const SUBPROTOCOL: &str = "twine.v1.json";

/// The query parameter of `/ws` that has what a client says with its handshake: frames, each a line, in base64url
/// (PROTOCOL.md, "Early frames").
pub const EARLY_PARAMETER: &str = "early";

/// Runs the README's example.
#[cfg(all(doctest, feature = "json"))]
#[doc = include_str!("../README.md")]
struct Readme;
