//! What hubs say to each other about sessions: that they live, what became of an attachment, and which cookies
//! were forgotten.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use twine_protocol::SessionId;

use super::Shared;
use super::asks::{Asked, Sign};
use super::held::Attachment;
use super::letters::Letter;
use super::row::{Holding, HubId};
use super::shelf::{self, lease_of};
use crate::broker::redis::{Arrival, Bus};
use crate::rooms::locked;
use crate::session::store::Session;
use crate::session::{CookieHash, Lost};

/// For how long a hub has said that it lives when it says so, and how often it does.
pub(super) const LEASE: Duration = Duration::from_secs(15);
const RENEW_EVERY: Duration = Duration::from_secs(4);

impl Shared {
    /// Says again and again that this hub lives.
    pub(super) async fn keep_lease(&self) {
        loop {
            let renewed = self.shelf.renew(&self.hub, LEASE).await;
            {
                let mut steady_since = locked(&self.steady_since);
                *steady_since = match renewed {
                    Ok(true) => steady_since.or_else(|| Some(Instant::now())),
                    // Whoever finds its own lease gone would find those of others gone.
                    Ok(false) => Some(Instant::now()),
                    Err(_) => None,
                };
            }
            if let Err(error) = renewed {
                self.say(&error.into());
            }
            tokio::time::sleep(RENEW_EVERY).await;
        }
    }

    /// Reads this hub's letters, and what was forgotten.
    pub(super) async fn hear(self: &Arc<Self>, mut bus: Bus) {
        let own = lease_of(&self.hub);
        let channels = shelf::channels().chain([own.clone()]);
        // What is not in force in time comes later.
        let watching = join_all(channels.map(|channel| async move {
            drop(self.link.watch_channel(&channel).await);
        }));
        let reading = async {
            while let Some(arrival) = bus.arrival().await {
                match arrival {
                    Arrival::Pushed(pushed) if pushed.channel == own.name().as_bytes() => {
                        if let Some(letter) = Letter::read(&pushed.payload) {
                            self.take(letter);
                        } else {
                            tracing::debug!("a letter of another hub can't be read");
                        }
                    }
                    Arrival::Pushed(pushed) => {
                        let cookie = std::str::from_utf8(&pushed.payload).ok().and_then(shelf::cookie_of);
                        if let Some(cookie) = cookie {
                            self.hear_forgotten(cookie);
                        }
                    }
                    // This hub was cut off: letters may be lost, and what was in Redis as well.
                    Arrival::Interrupted => {
                        *locked(&self.steady_since) = None;
                        self.refresh(Duration::ZERO);
                    }
                }
            }
        };
        tokio::join!(watching, reading);
    }

    /// A cookie's sessions were forgotten, by this hub or another.
    pub(super) fn hear_forgotten(self: &Arc<Self>, cookie: CookieHash) {
        locked(&self.owed).forget(cookie);
        let theirs: Vec<_> = {
            let held = locked(&self.held);
            let theirs = held.of_cookie(cookie);
            theirs.map(|attachment| (attachment.about.session.id.clone(), attachment.ticket)).collect()
        };
        for (id, ticket) in theirs {
            self.lose(&id, ticket, Lost::Forgotten);
        }
    }

    fn take(self: &Arc<Self>, letter: Letter) {
        match letter {
            Letter::Lose { session, ticket, why } => self.lose(&session, ticket, why),
            Letter::Probe { session, cookie, ticket, from } => {
                let mut held = locked(&self.held);
                if let Some(attachment) = held.current(&session, ticket) {
                    if !attachment.asked_by.contains(&from) {
                        attachment.asked_by.push(from);
                    }
                    attachment.holder.probe(attachment.key, ticket);
                } else {
                    // Who is just being answered is there.
                    let sign = if held.expects(&session, ticket) { Sign::Alive } else { Sign::Gone };
                    drop(held);
                    self.tell_others((session, self.holding(ticket)), cookie, vec![from], sign);
                }
            }
            Letter::Answer { session, by, sign } => locked(&self.asks).say(&(session, by), sign),
        }
    }

    /// Sends a letter. One that can't be sent is lost.
    pub(super) fn post(self: &Arc<Self>, to: HubId, letter: Letter) {
        let shared = self.clone();
        self.spawn(async move {
            if let Err(error) = letter.post(&shared.link, &to).await {
                tracing::debug!(%error, ?to, "another hub could not be told of a session");
            }
        });
    }

    /// Tells whoever waits for a sign of an attachment that is over: claims here, and other hubs.
    pub(super) fn tell_of(self: &Arc<Self>, attachment: Attachment, sign: Sign) {
        let Session { id, cookie, .. } = &attachment.about.session;
        let asked = (id.clone(), self.holding(attachment.ticket));
        locked(&self.asks).say(&asked, sign);
        self.tell_others(asked, *cookie, attachment.asked_by, sign);
    }

    /// Tells other hubs. What is gone is so once what it leaves is there for them.
    pub(super) fn tell_others(
        self: &Arc<Self>,
        asked: Asked,
        cookie: CookieHash,
        hubs: Vec<HubId>,
        sign: Sign,
    ) {
        if hubs.is_empty() {
            return;
        }
        let shared = self.clone();
        self.spawn(async move {
            if sign == Sign::Gone && !shared.saved(cookie).await {
                return;
            }
            let (session, by) = asked;
            for hub in hubs {
                let answer = Letter::Answer { session: session.clone(), by: by.clone(), sign };
                shared.post(hub, answer);
            }
        });
    }

    /// Tells the holder of a session, wherever it is, that it is so no more.
    pub(super) fn tell_lost(self: &Arc<Self>, session: &SessionId, held_by: &Holding, why: Lost) {
        if held_by.hub != self.hub {
            let letter = Letter::Lose { session: session.clone(), ticket: held_by.ticket, why };
            return self.post(held_by.hub.clone(), letter);
        }
        self.lose(session, held_by.ticket, why);
    }
}
