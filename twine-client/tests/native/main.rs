//! The native driver over real sockets, against a real hub.

#![cfg(feature = "native")]
// Clippy knows a test by its attribute, and a test's helpers have none.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used)]

mod a_client_ends_when_it_is_told_to;
mod a_handshake_is_as_it_was_asked_for;
mod a_silent_hub_is_replaced;
mod a_slow_reader_holds_the_socket;
mod cut_sockets_lose_and_repeat_nothing;
mod proxy;
mod scene;
mod subscriptions_give_what_was_asked_for;
mod the_hub_may_restart;
#[cfg(feature = "rustls")]
mod tls_is_checked;
