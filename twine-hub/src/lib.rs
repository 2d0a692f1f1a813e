//! The Twine hub: backends publish to rooms over HTTP, browsers subscribe over WebSocket.
//!
//! A room is a log of messages and a subscription is a cursor into it. The way of a message, and
//! the only way: [`http`] → [`rooms`] → the broker (order, commit) → [`rooms`] (append to the tail,
//! encoded once) → [`connection`] (fan-out: every cursor of the room advances) → socket.
//! `docs/ARCHITECTURE.md` is the map.

pub(crate) mod connection;
pub(crate) mod rooms;
pub(crate) mod store;
pub(crate) mod telemetry;
