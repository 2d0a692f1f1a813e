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

type Heard = (SessionId, Sign);

/// Who waits for a sign of which session.
#[derive(Default)]
pub(super) struct Asks(HashMap<SessionId, Vec<UnboundedSender<Heard>>>);

/// The sessions that one claim waits for. It hears one sign of each at most from each hub.
pub(super) struct Waiting {
    signs: UnboundedReceiver<Heard>,
    silent: Vec<(SessionId, Holding)>,
}

impl Asks {
    /// Waits for signs of these. What says them is to be asked afterwards.
    pub(super) fn wait(&mut self, silent: Vec<(SessionId, Holding)>) -> Waiting {
        let (say, signs) = unbounded_channel();
        for (id, _) in &silent {
            let waiting = self.0.entry(id.clone()).or_default();
            waiting.retain(|other| !other.is_closed());
            waiting.push(say.clone());
        }
        Waiting { signs, silent }
    }

    /// Tells whoever waits for a sign of this session.
    pub(super) fn say(&mut self, id: &SessionId, sign: Sign) {
        for waiting in self.0.remove(id).into_iter().flatten() {
            // Who has waited long enough is gone.
            drop(waiting.send((id.clone(), sign)));
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
    pub(super) async fn finish(mut self, deadline: Instant) -> Vec<(SessionId, Holding)> {
        let mut gone = Vec::new();
        while !self.silent.is_empty() {
            let Ok(Some((id, sign))) = timeout_at(deadline, self.signs.recv()).await else { break };
            let heard = self.silent.extract_if(.., |(other, _)| *other == id);
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
        let id = |name: &str| SessionId::new(name).unwrap();
        let holding = Holding { hub: HubId::new(), ticket: Ticket(1) };
        let names = ["alive", "gone", "silent"];
        let mut asks = Asks::default();
        let waiting = asks.wait(names.map(|name| (id(name), holding.clone())).to_vec());
        asks.say(&id("alive"), Sign::Alive);
        asks.say(&id("gone"), Sign::Gone);
        asks.say(&id("stranger"), Sign::Gone);
        let over: Vec<_> = waiting.finish(Instant::now()).await.into_iter().map(|(id, _)| id).collect();
        assert_eq!(over, [id("gone"), id("silent")]);
        asks.tidy();
        assert!(asks.0.is_empty());
    }

    #[tokio::test]
    async fn nobody_waits_once_all_have_answered() {
        let id = SessionId::new("alive").unwrap();
        let mut asks = Asks::default();
        let waiting = asks.wait(vec![(id.clone(), Holding { hub: HubId::new(), ticket: Ticket(1) })]);
        asks.say(&id, Sign::Alive);
        let never = Instant::now() + Duration::from_hours(1);
        assert!(waiting.finish(never).await.is_empty());
    }
}
