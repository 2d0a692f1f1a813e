//! A subscriber: reads what comes, and has it counted.

use std::sync::Arc;
use std::time::Duration;

use twine_client::{Event, State, States, Subscription};

use super::audience::Audience;
use super::pace::unix_micros;
use super::payload::Read;
use crate::cli::chain;

/// Reads until the client has gone.
pub(super) async fn listen(
    mut states: States,
    mut subscription: Subscription,
    place: usize,
    audience: Arc<Audience>,
) {
    loop {
        tokio::select! {
            biased;
            event = subscription.recv() => match event {
                Some(Ok(Event::Message(message))) => {
                    // What nobody of this run has published does not count as received.
                    let Ok(Read { n, t }) = serde_json::from_str(message.data.get()) else { continue };
                    audience.see(place, n, Duration::from_micros(unix_micros().saturating_sub(t)));
                }
                // What is missing shows by the next number.
                Some(Ok(Event::Gap(_))) => audience.lock().tally.gaps += 1,
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    let tally = &mut audience.lock().tally;
                    tally.ended += 1;
                    tally.end_problem.get_or_insert_with(|| chain(&error));
                }
                None => return,
            },
            state = states.next() => match state {
                Some(State::Connected) => audience.lock().tally.reconnects += 1,
                Some(_) => {}
                None => return,
            },
        }
    }
}
