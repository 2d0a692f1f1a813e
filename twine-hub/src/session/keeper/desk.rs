//! A keeper on a test's desk: claims, saves and time by hand, and a record of what it told whom.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use twine_protocol::{InstanceId, Position, RoomName, SessionId};
use uuid::Uuid;

use super::{Command, Keeper, Now};
use crate::clock::manual;
use crate::connection::Key;
use crate::session::store::{self, Session, Store};
use crate::session::{
    Attached, Claim, CookieHash, Cursors, Done, Holder, Identity, Lost, Options, Request, Save, Ticket,
    Visitor,
};
use crate::store::{Kind, StoreError};
use crate::telemetry::Telemetry;

/// A moment in 2023.
pub(super) const START: u64 = 1_700_000_000_000;

pub(in crate::session) fn options() -> Options {
    Options {
        lifetime: Duration::from_hours(24),
        max_sessions: 1_000,
        max_per_cookie: 50,
        max_rooms: 256,
        max_new_per_minute: 600,
    }
}

pub(in crate::session) fn cookie(n: u8) -> CookieHash {
    CookieHash::of(Uuid::from_bytes([n; 16]))
}

pub(super) fn room(name: &str) -> RoomName {
    name.parse().unwrap()
}

pub(super) fn at(offset: u64) -> Position {
    Position::new("0000018bcfe56800-7f3a", offset).unwrap()
}

/// `[("chat", 7)]` as rooms and cursors.
pub(in crate::session) fn rooms(rooms: &[(&str, u64)]) -> Cursors {
    rooms.iter().map(|(name, offset)| (room(name), at(*offset))).collect()
}

/// A claim of a browser by this cookie, which names no session.
pub(in crate::session) fn claim(cookie_of: u8, instance: &str) -> Claim {
    let visitor = Visitor {
        cookie: cookie(cookie_of),
        origin: "https://app.example.com".into(),
        address: [192, 0, 2, 1].into(),
    };
    Claim {
        identity: Identity { visitor, subject: None, scope: "/".into() },
        session: None,
        instance: Some(InstanceId::new(instance).unwrap()),
        prev: None,
    }
}

impl Claim {
    pub(super) fn naming(self, attached: &Attached) -> Self {
        Self { session: Some(attached.session.clone()), ..self }
    }

    /// The same, naming a session that is not there: it gets a new one at once, whatever there is.
    pub(super) fn anew(self) -> Self {
        Self { session: SessionId::new("gone").ok(), ..self }
    }
}

/// What a connection was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    Lost(Ticket, Lost),
    Probed(Ticket),
    Answered(usize),
}

#[derive(Default)]
struct Record(Mutex<Vec<Told>>);

impl Holder for Record {
    fn lose(&self, _: Key, ticket: Ticket, why: Lost) {
        self.0.lock().unwrap().push(Told::Lost(ticket, why));
    }

    fn probe(&self, _: Key, ticket: Ticket) {
        self.0.lock().unwrap().push(Told::Probed(ticket));
    }

    fn refresh(&self, _: Key, _: Ticket) {
        unreachable!("the keeper has what it was told")
    }
}

/// An answer that may still be to come.
#[derive(Clone, Default)]
pub(super) struct Answer(Arc<Mutex<Vec<Option<Attached>>>>);

impl Answer {
    pub(super) fn is_there(&self) -> bool {
        !self.0.lock().unwrap().is_empty()
    }

    /// The answer, which must be there, `None` where it is one without a session.
    pub(super) fn take(&self) -> Option<Attached> {
        let answers = std::mem::take(&mut *self.0.lock().unwrap());
        let [answer] = answers.try_into().expect("one answer");
        answer
    }
}

/// The answer to a request to forget.
pub(super) type Forgotten = oneshot::Receiver<Result<(), Arc<StoreError>>>;

pub(super) struct Desk {
    keeper: Keeper,
    pub(super) now: Now,
    pub(super) telemetry: Arc<Telemetry>,
    record: Arc<Record>,
    queue: Vec<Command>,
    slots: u32,
}

impl Desk {
    pub(super) fn new(store: Box<dyn Store>, options: Options) -> Self {
        let telemetry = Arc::new(Telemetry::default());
        let now = Now { time: START, instant: Instant::now() };
        let keeper = Keeper::new(store, options, telemetry.clone(), now);
        Self { keeper, now, telemetry, record: Arc::default(), queue: Vec::new(), slots: 0 }
    }

    /// Runs a test on each store.
    pub(super) fn on_each(options: &Options, test: impl Fn(&mut Self)) {
        test(&mut Self::in_memory(options));
        let folder = tempfile::tempdir().unwrap();
        let kind = Kind::Sqlite { data_dir: folder.path().to_owned() };
        test(&mut Self::new(store::open(&kind, START).unwrap(), options.clone()));
    }

    pub(super) fn in_memory(options: &Options) -> Self {
        Self::new(store::open(&Kind::Memory { max_bytes: 0 }, START).unwrap(), options.clone())
    }

    /// Does in the next round what was asked since the last, as it goes when much is asked at once.
    pub(super) fn round(&mut self) {
        manual::set(Some(manual::Set { now: self.now.instant, unix_millis: self.now.time }));
        self.keeper.round(self.queue.drain(..), self.now);
        // A store may have taken its time.
        self.now = Now::read();
    }

    /// Nobody asks for anything any more.
    pub(super) fn close(&mut self) {
        self.keeper.close(self.now);
    }

    pub(super) fn ask_attach(&mut self, claim: Claim) -> Answer {
        let answer = Answer::default();
        let slot = answer.clone();
        self.ask(claim, Box::new(move |attached| slot.0.lock().unwrap().push(attached)));
        answer
    }

    /// The same for tests that count: the answer is noted among what connections were told.
    pub(super) fn ask_numbered(&mut self, n: usize, claim: Claim) -> Answer {
        let answer = Answer::default();
        let (slot, record) = (answer.clone(), self.record.clone());
        self.ask(
            claim,
            Box::new(move |attached| {
                slot.0.lock().unwrap().push(attached);
                record.0.lock().unwrap().push(Told::Answered(n));
            }),
        );
        answer
    }

    fn ask(&mut self, claim: Claim, done: Box<dyn FnOnce(Option<Attached>) + Send>) {
        self.slots += 1;
        let (holder, key, done) = (self.record.clone(), Key::of_slot(self.slots), Done::new(done));
        self.queue.push(Command::Attach(Request { claim, holder, key, done }));
    }

    pub(super) fn ask_save(&mut self, to: &Attached, rooms: Cursors) {
        self.queue.push(Command::Save(save(to, rooms)));
    }

    pub(super) fn ask_detach(&mut self, to: &Attached, rooms: Cursors) {
        self.queue.push(Command::Detach(save(to, rooms)));
    }

    pub(super) fn ask_forget(&mut self, cookie: CookieHash) -> Forgotten {
        let (done, forgotten) = oneshot::channel();
        self.queue.push(Command::Forget { cookie, done });
        forgotten
    }

    /// Claims in a round of its own.
    pub(super) fn start_attach(&mut self, claim: Claim) -> Answer {
        let answer = self.ask_attach(claim);
        self.round();
        answer
    }

    /// Claims what is answered at once.
    pub(super) fn attach(&mut self, claim: Claim) -> Attached {
        self.start_attach(claim).take().expect("no session")
    }

    pub(super) fn save(&mut self, to: &Attached, rooms: Cursors) {
        self.ask_save(to, rooms);
        self.round();
    }

    pub(super) fn detach(&mut self, to: &Attached, rooms: Cursors) {
        self.ask_detach(to, rooms);
        self.round();
    }

    pub(super) fn alive(&mut self, attached: &Attached) {
        let Attached { session, ticket, .. } = attached;
        self.queue.push(Command::Alive { session: session.clone(), ticket: *ticket });
        self.round();
    }

    /// A session that is attached and stored.
    pub(super) fn stored(&mut self, claim: Claim, rooms: Cursors) -> Attached {
        let attached = self.attach(claim);
        self.save(&attached, rooms);
        attached
    }

    /// A session that is detached and stored.
    pub(super) fn detached(&mut self, claim: Claim, rooms: Cursors) -> Attached {
        let attached = self.attach(claim);
        self.detach(&attached, rooms);
        attached
    }

    /// Lets time pass, and the keeper do whatever is due whenever it is.
    pub(super) fn later(&mut self, wait: Duration) {
        let until = self.now.instant + wait;
        loop {
            let next = self.keeper.deadline().clamp(self.now.instant, until);
            let step = next - self.now.instant;
            self.sleep(step);
            self.round();
            if self.now.instant == until {
                return;
            }
        }
    }

    /// The machine stands still meanwhile.
    pub(super) fn sleep(&mut self, wait: Duration) {
        self.now.instant += wait;
        self.now.time += u64::try_from(wait.as_millis()).unwrap();
    }

    /// What connections were told since this was last asked.
    pub(super) fn told(&self) -> Vec<Told> {
        std::mem::take(&mut self.record.0.lock().unwrap())
    }

    pub(super) fn in_store(&mut self, cookie: CookieHash) -> Vec<Session> {
        self.keeper.store.of_cookie(cookie).unwrap()
    }

    /// The rooms of a session in the store.
    pub(super) fn saved(&mut self, of: CookieHash, session: &SessionId) -> Option<Cursors> {
        let is_there = self.in_store(of).iter().any(|stored| stored.id == *session);
        is_there.then(|| self.keeper.store.rooms(session).unwrap().unwrap())
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        manual::set(None);
    }
}

fn save(to: &Attached, rooms: Cursors) -> Save {
    Save { session: to.session.clone(), ticket: to.ticket, rooms }
}
