//! Several hubs' sessions on real servers.

mod away;
mod back;
mod bounds;
mod cost;
mod moving;
mod random;
mod silence;

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};

use tokio::sync::{oneshot, watch};
use twine_protocol::InstanceId;
use uuid::Uuid;

use super::shelf::lease_of;
use super::talk::LEASE;
use super::*;
use crate::broker::redis::tests::server::{self, PATIENCE, Server};
use crate::connection::Key;
use crate::session::keeper::desk::{self, claim, cookie, rooms};
use crate::session::store::Session;
use crate::session::{Attached, Claim, Cursors, Holder, How, Sessions};

/// As the keeper's tests have it, but for what an address may have.
fn options() -> Options {
    Options { max_sessions: 250_000, max_new_per_minute: 0, ..desk::options() }
}

fn naming(claim: Claim, attached: &Attached) -> Claim {
    Claim { session: Some(attached.session.clone()), ..claim }
}

/// What connections were told.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Lost(Ticket, Lost),
    Probed(Ticket),
    Refresh(Ticket),
}

/// The connections of a hub: they remember what they are told, and may answer.
struct Record {
    told: watch::Sender<Vec<Told>>,
    /// What answers a ping, and for whom; nothing for connections that are gone without a word.
    answers: OnceLock<(Sessions, Mutex<BTreeMap<Ticket, SessionId>>)>,
}

impl Holder for Record {
    fn lose(&self, _: Key, ticket: Ticket, why: Lost) {
        self.told.send_modify(|told| told.push(Told::Lost(ticket, why)));
    }

    fn probe(&self, _: Key, ticket: Ticket) {
        self.told.send_modify(|told| told.push(Told::Probed(ticket)));
        if let Some((sessions, held)) = self.answers.get() {
            let session = held.lock().unwrap().get(&ticket).cloned();
            let sessions = sessions.clone();
            // From elsewhere, as a shard does.
            std::thread::spawn(move || sessions.alive(session.unwrap(), ticket));
        }
    }

    fn refresh(&self, _: Key, ticket: Ticket) {
        self.told.send_modify(|told| told.push(Told::Refresh(ticket)));
    }
}

/// One of the hubs.
struct Hub {
    sessions: Sessions,
    record: Arc<Record>,
}

impl Hub {
    /// One whose connections do not answer.
    async fn join(url: &str) -> Self {
        Self::with(url, options()).await
    }

    async fn with(url: &str, options: Options) -> Self {
        let sessions = Sessions::join(&Target::parse(url).unwrap(), options, Arc::default()).unwrap();
        let record = Record { told: watch::Sender::new(Vec::new()), answers: OnceLock::new() };
        let hub = Self { sessions, record: Arc::new(record) };
        // Its letters arrive from now on, and others know that it lives.
        let fleet = hub.fleet();
        fleet.link.watch_channel(&lease_of(&fleet.hub)).await.unwrap();
        fleet.shelf.renew(&fleet.hub, LEASE).await.unwrap();
        hub
    }

    /// One whose connections answer.
    async fn lively(url: &str) -> Self {
        let hub = Self::join(url).await;
        assert!(hub.record.answers.set((hub.sessions.clone(), Mutex::default())).is_ok());
        hub
    }

    fn fleet(&self) -> &Arc<Shared> {
        match &self.sessions {
            Sessions::Fleet(FleetSessions(shared)) => shared,
            Sessions::Local(_) => panic!("it is one of a fleet"),
        }
    }

    fn start_attach(&self, claim: Claim) -> oneshot::Receiver<Option<Attached>> {
        let (done, attached) = oneshot::channel();
        let record = self.record.clone();
        let note = move |result: Option<Attached>| {
            if let (Some((_, held)), Some(attached)) = (record.answers.get(), &result) {
                held.lock().unwrap().insert(attached.ticket, attached.session.clone());
            }
            drop(done.send(result));
        };
        self.sessions.attach(claim, self.record.clone(), Key::of_slot(1), Box::new(note));
        attached
    }

    async fn try_attach(&self, claim: Claim) -> Option<Attached> {
        let answer = self.start_attach(claim);
        tokio::time::timeout(PATIENCE, answer).await.expect("each claim is answered").unwrap()
    }

    async fn attach(&self, claim: Claim) -> Attached {
        self.try_attach(claim).await.expect("a session")
    }

    /// Saves, and waits until that is done.
    async fn save(&self, of: &Attached, rooms: Cursors) {
        self.sessions.save(vec![Save { session: of.session.clone(), ticket: of.ticket, rooms }]);
        self.is_saved().await;
    }

    async fn detach(&self, of: &Attached, rooms: Cursors) {
        self.sessions.detach(Save { session: of.session.clone(), ticket: of.ticket, rooms });
        self.is_saved().await;
    }

    /// Waits until nothing is owed.
    async fn is_saved(&self) {
        let shared = self.fleet();
        let mut rounds = shared.rounds.subscribe();
        let saved = async {
            while !locked(&shared.owed).is_settled() {
                rounds.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, saved).await.expect("what is owed is saved");
    }

    /// A session that is attached here and in Redis.
    async fn shared(&self, claim: Claim, rooms: Cursors) -> Attached {
        let attached = self.attach(claim).await;
        self.save(&attached, rooms).await;
        attached
    }

    /// Waits until a connection was told this.
    async fn was_told(&self, wanted: Told) {
        let mut told = self.record.told.subscribe();
        let is_told = told.wait_for(|told| told.contains(&wanted));
        let is_told = tokio::time::timeout(PATIENCE, is_told).await;
        is_told.unwrap_or_else(|_| panic!("{wanted:?} was not told")).unwrap();
    }

    fn told(&self) -> Vec<Told> {
        self.record.told.borrow().clone()
    }

    /// Ends it as `kill -9` does.
    async fn kill(&self) {
        let shared = self.fleet();
        shared.link.close().await;
        shared.stop.cancel();
    }

    /// Makes its lease lapse, as it does some time after a hub was killed.
    async fn lapse(&self, by: &Self) {
        by.fleet().shelf.end(&self.fleet().hub).await.unwrap();
    }

    /// Lets it hear nothing of others any more, and save nothing by itself.
    fn is_deaf(&self) {
        self.fleet().stop.cancel();
    }

    /// Saves all the same.
    fn save_deaf(&self, of: &Attached, rooms: Cursors) {
        self.sessions.save(vec![Save { session: of.session.clone(), ticket: of.ticket, rooms }]);
        tokio::spawn(self.fleet().clone().keep_saving());
    }

    /// Has it believe that it has had Redis for long.
    fn is_steady(&self) {
        *locked(&self.fleet().steady_since) = Instant::now().checked_sub(LEASE);
    }

    /// The rooms that Redis has of a session.
    async fn stored(&self, of: u8, session: &SessionId) -> Option<Cursors> {
        self.fleet().shelf.rooms(cookie(of), std::iter::once(session)).await.unwrap().pop().unwrap()
    }

    /// How many sessions Redis has of a cookie.
    async fn n_stored(&self, of: u8) -> usize {
        self.fleet().shelf.read(cookie(of)).await.unwrap().rows.len()
    }
}
