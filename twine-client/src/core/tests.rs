//! Each transition of the core, event by event.
