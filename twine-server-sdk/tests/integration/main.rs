//! The SDK over real sockets: against a real hub, and against what can stand in its way.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used)]

mod a_publisher_never_waits;
#[cfg(feature = "blocking")]
mod blocking_code_can_publish;
mod errors_say_what_became_of_the_message;
mod failures_are_retried_under_one_id;
mod publishes_reach_a_hub;
mod settings_reach_the_wire;
mod support;
mod tls_is_checked_and_http_2_is_used;
