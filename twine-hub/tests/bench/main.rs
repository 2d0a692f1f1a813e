//! `twine-hub bench` as whoever runs it meets it: real hubs, real processes, and servers that really
//! lose, repeat and turn around.

// Clippy knows a test by its attribute, and a test's helpers have none.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used)]

mod faults_are_counted;
#[path = "../torture/hub.rs"]
#[allow(dead_code, reason = "it has more than is needed here")]
mod hub;
mod processes_end_together;
mod run;
mod runs_count_everything;
mod tampering;
mod what_can_not_run_says_why;
