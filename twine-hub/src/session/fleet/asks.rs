//! Waiting for signs of life: a claim without a session's name may have one that is attached only once it is
//! known that its connection does not answer any more.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, timeout_at};
use twine_protocol::SessionId;

use super::row::Holding;

/// How long a connection has for a sign of life. A claim waits no longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// What is heard of an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// Its connection is alive.
    Alive,
    /// There is no such attachment any more.
    Gone,
}

/// An attachment of a session.
pub(super) type Asked = (SessionId, Holding);

type Heard = (Asked, Sign);

/// Who waits for a sign of which attachment.
#[derive(Default)]
pub(super) struct Asks(HashMap<Asked, Vec<UnboundedSender<Heard>>>);

/// The sessions that one claim waits for. It hears one sign of each at most from each hub.
pub(super) struct Waiting {
    signs: UnboundedReceiver<Heard>,
    silent: Vec<Asked>,
}

impl Asks {
    /// Waits for signs of these. What says them is to be asked afterwards.
    pub(super) fn wait(&mut self, silent: Vec<Asked>) -> Waiting {
        let (say, signs) = unbounded_channel();
        for asked in &silent {
            let waiting = self.0.entry(asked.clone()).or_default();
            waiting.retain(|other| !other.is_closed());
            waiting.push(say.clone());
        }
        Waiting { signs, silent }
    }

    /// Tells whoever waits for a sign of this attachment.
    pub(super) fn say(&mut self, asked: &Asked, sign: Sign) {
        for waiting in self.0.remove(asked).into_iter().flatten() {
            // Who has waited long enough is gone.
            drop(waiting.send((asked.clone(), sign)));
        }
    }

    /// Forgets those who wait no more.
    pub(super) fn tidy(&mut self) {
        self.0.retain(|_, waiting| {
            waiting.retain(|other| !other.is_closed());
            !waiting.is_empty()
        });
    }
}

impl Waiting {
    /// Gives back the attachments that are as good as over: those that are gone, and, once its time is over,
    /// those that nothing was heard of.
    pub(super) async fn finish(mut self, deadline: Instant) -> Vec<Asked> {
        let mut gone = Vec::new();
        while !self.silent.is_empty() {
            let Ok(Some((asked, sign))) = timeout_at(deadline, self.signs.recv()).await else { break };
            let heard = self.silent.extract_if(.., |other| *other == asked);
            let heard: Vec<_> = heard.collect();
            if sign == Sign::Gone {
                gone.extend(heard);
            }
        }
        gone.extend(self.silent);
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::HubId;
    use super::*;
    use crate::session::Ticket;

    #[tokio::test]
    async fn who_is_silent_or_gone_is_given_back_and_who_answers_is_not() {
        let hub = HubId::new();
        let of = |name: &str, ticket| {
            (SessionId::new(name).unwrap(), Holding { hub: hub.clone(), ticket: Ticket(ticket) })
        };
        let mut asks = Asks::default();
        let waiting = asks.wait(vec![of("alive", 2), of("gone", 1), of("silent", 1)]);
        asks.say(&of("alive", 1), Sign::Gone);
        asks.say(&of("alive", 2), Sign::Alive);
        asks.say(&of("gone", 1), Sign::Gone);
        asks.say(&of("stranger", 1), Sign::Gone);
        assert_eq!(waiting.finish(Instant::now()).await, [of("gone", 1), of("silent", 1)]);
        asks.tidy();
        assert!(asks.0.is_empty());
    }

    #[tokio::test]
    async fn nobody_waits_once_all_have_answered() {
        let alive = (SessionId::new("alive").unwrap(), Holding { hub: HubId::new(), ticket: Ticket(1) });
        let mut asks = Asks::default();
        let waiting = asks.wait(vec![alive.clone()]);
        asks.say(&alive, Sign::Alive);
        let never = Instant::now() + Duration::from_hours(1);
        assert!(waiting.finish(never).await.is_empty());
    }
}
