//! The keeper held against a simple model: pages of several users open, reload, are duplicated and
//! cut off, the hub is killed, its store fails, clocks jump.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;
use twine_protocol::{InstanceId, SessionId};

use super::desk::{Answer, Desk, Forgotten, START, Told, at, claim, cookie, options, room};
use super::faults::{Faults, FaultyStore};
use crate::session::choice::MAX_PROBES;
use crate::session::store;
use crate::session::{Attached, Claim, Cursors, How, Lost, Options, Ticket};
use crate::store::Kind;

/// Who may have sessions. Two of each, all combined: what must be equal is bits of a number.
const USERS: usize = 8;
const SCOPES: usize = 2;
/// Cursors of a user lie above this times the user's number, so that one shows whose it is.
const STRIDE: u64 = 1_000_000;

#[derive(Debug, Clone, Copy)]
enum Op {
    /// A page opens: by whom, as which object, with which of the sessions there were.
    Open {
        user: usize,
        scope: usize,
        instance: u8,
        prev: u8,
        session: Option<usize>,
    },
    /// A connection acknowledges a message of a room.
    Save {
        connection: usize,
        room: u8,
    },
    /// A connection leaves all rooms.
    Leave {
        connection: usize,
    },
    /// A connection ends.
    End {
        connection: usize,
    },
    /// A connection is cut off, which the hub does not notice.
    Cut {
        connection: usize,
    },
    /// The page that opens next does so in one round with another.
    Together,
    /// The so many-th call of the store fails, from when the next thing is done.
    Fail {
        nth: usize,
    },
    Wait {
        seconds: u64,
    },
    /// The wall's clock is set.
    Set {
        forward: bool,
        seconds: u64,
    },
    Forget {
        cookie: usize,
    },
    /// The hub is killed and starts again.
    Kill,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let which = 0..64_usize;
    let open = (0..USERS, 0..SCOPES, 0..6_u8, 0..6_u8, proptest::option::of(which.clone()))
        .prop_map(|(user, scope, instance, prev, session)| Op::Open { user, scope, instance, prev, session });
    let op = prop_oneof![
        8 => open,
        8 => (which.clone(), 0..4_u8).prop_map(|(connection, room)| Op::Save { connection, room }),
        4 => which.clone().prop_map(|connection| Op::Leave { connection }),
        4 => which.clone().prop_map(|connection| Op::End { connection }),
        2 => which.prop_map(|connection| Op::Cut { connection }),
        3 => Just(Op::Together),
        8 => (1..6_usize).prop_map(|nth| Op::Fail { nth }),
        2 => (0..5_u64).prop_map(|seconds| Op::Wait { seconds }),
        1 => (3_600..30 * 3_600_u64).prop_map(|seconds| Op::Wait { seconds }),
        1 => (any::<bool>(), 0..30 * 3_600_u64).prop_map(|(forward, seconds)| Op::Set { forward, seconds }),
        1 => (0..2_usize).prop_map(|cookie| Op::Forget { cookie }),
        1 => Just(Op::Kill),
    ];
    proptest::collection::vec(op, 1..60)
}

/// A session as it should be.
#[derive(Debug, Clone)]
struct Expected {
    user: usize,
    scope: usize,
    instance: Option<InstanceId>,
    /// Whom its connection came after.
    prev: Option<InstanceId>,
    rooms: Cursors,
    detached: Option<u64>,
    /// Whether it has been older than it may get, at some time: then it may be gone.
    is_old: bool,
}

impl Expected {
    /// Whether the page that claims it is the one that has it, reloaded or not.
    fn is_of_page(&self, claim: &Claim) -> bool {
        let is = |held: &Option<InstanceId>, said: &Option<InstanceId>| held.is_some() && held == said;
        is(&self.instance, &claim.instance) || is(&self.instance, &claim.prev) || is(&self.prev, &claim.prev)
    }
}

/// A connection that holds a session.
struct Holding {
    attached: Attached,
    user: usize,
    rooms: Cursors,
    is_cut: bool,
}

/// An opened page that has no answer yet.
struct Opening {
    claim: Claim,
    user: usize,
    scope: usize,
    answer: Answer,
    /// Connections of its user that were cut off when it asked.
    silent: Vec<Ticket>,
}

struct World {
    options: Options,
    folder: TempDir,
    faults: Faults,
    desk: Desk,
    sessions: HashMap<SessionId, Expected>,
    /// Every session there ever was.
    ids: Vec<SessionId>,
    holding: Vec<Holding>,
    opening: HashMap<usize, Opening>,
    /// Who has logged out, and whether that went well.
    forgetting: Option<(usize, Forgotten)>,
    /// The session that a connection was just told it has lost to another.
    taken: Option<SessionId>,
    n_opened: usize,
    last_offset: u64,
    /// Whether no bound is ever reached, so that nothing may be missing.
    is_wide: bool,
}

fn identity(user: usize, scope: usize) -> Claim {
    let mut claim = claim(u8::try_from(user & 1).unwrap(), "unset");
    if user & 2 != 0 {
        claim.identity.visitor.origin = "https://other.example".into();
    }
    claim.identity.subject = (user & 4 != 0).then(|| "alice".into());
    claim.identity.scope = ["/", "/other"][scope].into();
    claim
}

fn instance(n: u8) -> Option<InstanceId> {
    InstanceId::new(&format!("i{n}")).ok().filter(|_| n > 0)
}

fn open(folder: &TempDir, faults: &Faults, time: u64, options: &Options) -> Desk {
    let kind = Kind::Sqlite { data_dir: folder.path().to_owned() };
    let store = FaultyStore::new(store::open(&kind, time).unwrap(), faults.clone());
    Desk::new(Box::new(store), options.clone())
}

impl World {
    fn new(options: Options, is_wide: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let faults = Faults::default();
        let desk = open(&folder, &faults, START, &options);
        Self {
            options,
            folder,
            faults,
            desk,
            sessions: HashMap::new(),
            ids: Vec::new(),
            holding: Vec::new(),
            opening: HashMap::new(),
            forgetting: None,
            taken: None,
            n_opened: 0,
            last_offset: 0,
            is_wide,
        }
    }

    fn run(&mut self, ops: Vec<Op>) {
        let (mut together, mut fails_at) = (false, None);
        for op in ops {
            match op {
                Op::Together => together = true,
                Op::Fail { nth } => fails_at = Some(nth),
                op => {
                    if !matches!(op, Op::Open { .. }) {
                        self.settle();
                    }
                    if let Some(nth) = fails_at.take() {
                        self.faults.fail_at(nth);
                    }
                    self.act(op);
                    if !together {
                        self.settle();
                    }
                    together = false;
                }
            }
        }
    }

    /// Does one thing, and says what must come of it, also where the store fails meanwhile.
    fn act(&mut self, op: Op) {
        match op {
            Op::Together | Op::Fail { .. } => {}
            Op::Open { user, scope, instance: n, prev, session } => {
                let session = session.and_then(|n| self.ids.get(n % self.ids.len().max(1)).cloned());
                let claim =
                    Claim { session, instance: instance(n), prev: instance(prev), ..identity(user, scope) };
                let answer = self.desk.ask_numbered(self.n_opened, claim.clone());
                let silent = if claim.session.is_none() { self.silent(user) } else { vec![] };
                self.opening.insert(self.n_opened, Opening { claim, user, scope, answer, silent });
                self.n_opened += 1;
            }
            Op::Save { connection, room: n } => {
                let Some(holding) = pick(&mut self.holding, connection) else { return };
                self.last_offset += 1;
                let position = at(u64::try_from(holding.user).unwrap() * STRIDE + self.last_offset);
                let room = room(&format!("r{n}"));
                holding.rooms.retain(|(other, _)| *other != room);
                holding.rooms.push((room, position));
                let surplus = holding.rooms.len().saturating_sub(self.options.max_rooms);
                holding.rooms.drain(..surplus);
                self.save(connection);
            }
            Op::Leave { connection } => {
                let Some(holding) = pick(&mut self.holding, connection) else { return };
                holding.rooms.clear();
                self.save(connection);
            }
            Op::End { connection } => {
                if self.holding.is_empty() {
                    return;
                }
                let holding = self.holding.remove(connection % self.holding.len());
                self.desk.ask_detach(&holding.attached, holding.rooms.clone());
                let now = self.desk.now.time;
                let session = self.expect(&holding.attached.session);
                (session.rooms, session.detached) = (holding.rooms, Some(now));
            }
            Op::Cut { connection } => {
                if let Some(holding) = pick(&mut self.holding, connection) {
                    holding.is_cut = true;
                }
            }
            Op::Wait { seconds } => {
                self.settle();
                // In steps, so that who is asked for a sign of life has time to give it.
                for _ in 0..seconds.min(5) {
                    self.desk.later(Duration::from_secs(1));
                    self.settle();
                }
                self.desk.sleep(Duration::from_secs(seconds.saturating_sub(5)));
            }
            Op::Set { forward, seconds } => {
                let time = &mut self.desk.now.time;
                *time = if forward { *time + seconds * 1_000 } else { *time - seconds * 1_000 };
            }
            Op::Forget { cookie: n } => {
                self.forgetting = Some((n, self.desk.ask_forget(cookie(u8::try_from(n).unwrap()))));
            }
            Op::Kill => self.kill(),
        }
    }

    /// Connections of a user that hold rooms and are cut off; none where so many are not all asked.
    fn silent(&self, user: usize) -> Vec<Ticket> {
        let has_rooms = |holding: &&Holding| {
            let session = self.sessions.get(&holding.attached.session);
            holding.user == user && session.is_some_and(|session| !session.rooms.is_empty())
        };
        let held: Vec<_> = self.holding.iter().filter(has_rooms).collect();
        let is_asked = |holding: &&&Holding| holding.is_cut && held.len() <= MAX_PROBES;
        held.iter().filter(is_asked).map(|holding| holding.attached.ticket).collect()
    }

    fn save(&mut self, connection: usize) {
        let holding = pick(&mut self.holding, connection).unwrap();
        let (session, rooms) = (holding.attached.session.clone(), holding.rooms.clone());
        self.desk.ask_save(&holding.attached, rooms.clone());
        self.expect(&session).rooms = rooms;
    }

    /// The session, which may have gone to a bound.
    fn expect(&mut self, id: &SessionId) -> &mut Expected {
        let gone = Expected {
            user: 0,
            scope: 0,
            instance: None,
            prev: None,
            rooms: vec![],
            detached: None,
            is_old: true,
        };
        assert!(!self.is_wide || self.sessions.contains_key(id));
        self.sessions.entry(id.clone()).or_insert(gone)
    }

    /// What is left is what the files hold now.
    fn kill(&mut self) {
        self.settle();
        let folder = tempfile::tempdir().unwrap();
        for name in ["sessions.db", "sessions.db-wal"] {
            fs::copy(self.folder.path().join(name), folder.path().join(name)).unwrap();
        }
        let now = self.desk.now;
        self.desk = open(&folder, &self.faults, now.time, &self.options);
        self.desk.now = now;
        self.folder = folder;
        self.holding.clear();
        self.opening.clear();
        for session in self.sessions.values_mut() {
            session.detached.get_or_insert(now.time);
        }
        self.forget_empty();
    }

    /// Has the keeper do what it was asked, and checks what it told and stored.
    fn settle(&mut self) {
        // Time may have passed since the last round, and passes in this one.
        self.age();
        self.listen();
        self.forget_empty();
        self.age();
        self.check_store();
    }

    /// Notes which sessions have had their time: they may be gone from now on, also if the clock is set
    /// back.
    fn age(&mut self) {
        let oldest = self.desk.now.time - u64::try_from(self.options.lifetime.as_millis()).unwrap();
        for session in self.sessions.values_mut() {
            session.is_old |= session.detached.is_some_and(|time| time < oldest);
        }
    }

    /// Has the keeper do what it was asked, checks what it told, and has live connections answer.
    fn listen(&mut self) {
        loop {
            let was_armed = self.faults.is_armed();
            self.desk.round();
            // What a round that fails has not done, the next one does.
            if !was_armed || self.faults.is_armed() {
                break;
            }
        }
        if let Some((n, mut forgotten)) = self.forgetting.take()
            && forgotten.try_recv().unwrap().is_ok()
        {
            self.sessions.retain(|_, session| session.user & 1 != n);
        }
        self.taken = None;
        loop {
            let told = self.desk.told();
            if told.is_empty() {
                break;
            }
            let mut probed = Vec::new();
            for told in told {
                match told {
                    Told::Lost(ticket, why) => self.lost(ticket, why),
                    Told::Probed(ticket) => probed.push(ticket),
                    Told::Answered(n) => {
                        let opening = self.opening.remove(&n).unwrap();
                        if let Some(attached) = opening.answer.take() {
                            self.check_inherited(&opening, &attached);
                            self.check(opening.claim, opening.user, opening.scope, attached);
                        }
                    }
                }
            }
            for ticket in probed {
                let holding = self.holding.iter().find(|holding| holding.attached.ticket == ticket);
                if let Some(holding) = holding.filter(|holding| !holding.is_cut) {
                    self.desk.alive(&holding.attached);
                }
            }
        }
    }

    fn forget_empty(&mut self) {
        self.sessions.retain(|_, session| session.detached.is_none() || !session.rooms.is_empty());
    }

    fn lost(&mut self, ticket: Ticket, why: Lost) {
        // One that ended in the same round is told as well.
        let Some(n) = self.holding.iter().position(|holding| holding.attached.ticket == ticket) else {
            return;
        };
        let session = self.holding.remove(n).attached.session;
        match why {
            Lost::Forgotten => drop(self.sessions.remove(&session)),
            Lost::TakenOver => {
                let now = self.desk.now.time;
                self.taken = Some(session.clone());
                self.expect(&session).detached = Some(now);
            }
        }
    }

    /// Checks that an answer brings the latest that its user's sessions without a connection know, and
    /// that those count as such whose connections were asked and are cut off.
    fn check_inherited(&self, opening: &Opening, attached: &Attached) {
        if !self.is_wide {
            return;
        }
        let Opening { claim, user, silent, .. } = opening;
        let before = self.sessions.get(&attached.session);
        // One that asks again is answered at once.
        let is_again =
            claim.instance.is_some() && before.is_some_and(|before| before.instance == claim.instance);
        let held: Vec<_> = self.holding.iter().map(|holding| holding.attached.ticket).collect();
        assert!(is_again || !silent.iter().any(|ticket| held.contains(ticket)), "who is gone was not asked");
        let oldest = self.desk.now.time - u64::try_from(self.options.lifetime.as_millis()).unwrap();
        for (id, session) in &self.sessions {
            let is_due = session.detached.is_some_and(|time| time >= oldest) && !session.is_old;
            if session.user != *user || *id == attached.session || !is_due {
                continue;
            }
            for (room, position) in &session.rooms {
                let mut known = attached.rooms.iter().map(|(own, _)| (own, true)).chain(
                    attached.inherited.iter().map(|(inherited, latest)| (inherited, latest >= position)),
                );
                assert!(known.any(|(of, is_right)| of == room && is_right), "{room} at {position} is lost");
            }
        }
    }

    /// Checks one answer against the model, and takes it over there.
    fn check(&mut self, claim: Claim, user: usize, scope: usize, attached: Attached) {
        let held: Vec<_> = self.holding.iter().map(|holding| &holding.attached.session).collect();
        assert!(!held.contains(&&attached.session), "a session has two connections");
        for (room, position) in attached.rooms.iter().chain(&attached.inherited) {
            let owner = position.offset.get() / STRIDE;
            assert_eq!(owner, u64::try_from(user).unwrap(), "a cursor of another user: {room}");
        }
        let own: HashSet<_> = attached.rooms.iter().map(|(room, _)| room).collect();
        assert!(attached.inherited.iter().all(|(room, _)| !own.contains(room)));

        let is_own = |session: &&Expected| (session.user, session.scope) == (user, scope);
        let known = self.sessions.get(&attached.session);
        let named = claim.session.as_ref().and_then(|id| self.sessions.get(id)).filter(is_own);
        match attached.how {
            How::Resumed | How::Adopted => {
                let known = known.filter(is_own).expect("somebody else's session, or none");
                assert_eq!(attached.rooms, known.rooms, "what was saved last, no more and no less");
                let is_named = claim.session.as_ref() == Some(&attached.session);
                assert_eq!(is_named, attached.how == How::Resumed);
                let is_taken = self.taken.take().as_ref() == Some(&attached.session);
                assert!(!is_named || !is_taken || known.is_of_page(&claim), "taken from another page");
            }
            How::Copied => {
                assert!(known.is_none());
                // Its own place may have cost the one that it is a copy of.
                assert!(named.is_some() || !self.is_wide, "a copy of nothing");
                if let Some(named) = named {
                    assert!(named.detached.is_none());
                    assert!(!named.is_of_page(&claim), "the page that has it gets a copy");
                    assert_eq!(attached.rooms, named.rooms);
                }
            }
            How::New => {
                let again = known.is_some_and(|known| known.instance == claim.instance);
                assert!(known.is_none() || again && known.is_some_and(|known| known.rooms.is_empty()));
                assert_eq!(attached.rooms, vec![]);
            }
        }
        if self.is_wide {
            // One without rooms goes with its connection.
            let is_due = |session: &Expected| !session.is_old && !session.rooms.is_empty();
            let none_is_lost = match (&claim.session, attached.how) {
                (Some(_), How::New) => !named.is_some_and(is_due),
                (None, How::New) if known.is_none() => !self
                    .sessions
                    .values()
                    .any(|session| is_own(&session) && session.detached.is_some() && is_due(session)),
                _ => true,
            };
            assert!(none_is_lost, "a session was lost before its time");
        }
        let expected = Expected {
            user,
            scope,
            instance: claim.instance,
            prev: claim.prev,
            // A copy has no rooms of its own yet.
            rooms: if attached.how == How::Copied { vec![] } else { attached.rooms.clone() },
            detached: None,
            is_old: false,
        };
        self.sessions.insert(attached.session.clone(), expected);
        self.ids.push(attached.session.clone());
        let rooms = attached.rooms.clone();
        self.holding.push(Holding { attached, user, rooms, is_cut: false });
    }

    /// Checks the store against the model.
    fn check_store(&mut self) {
        let stored: Vec<_> = (0..2).flat_map(|n| self.desk.in_store(cookie(n))).collect();
        for n in 0..2 {
            assert!(self.desk.in_store(cookie(n)).len() <= self.options.max_per_cookie);
        }
        assert!(stored.len() <= self.options.max_sessions);
        for session in &stored {
            let saved = self.desk.saved(session.cookie, &session.id);
            let expected = self.sessions.get(&session.id).expect("a session that nobody has");
            assert_eq!(saved.as_ref(), Some(&expected.rooms));
            assert_eq!(session.detached, expected.detached);
        }
        if self.is_wide {
            let ids: HashSet<_> = stored.iter().map(|session| &session.id).collect();
            let due =
                self.sessions.iter().filter(|(_, session)| !session.rooms.is_empty() && !session.is_old);
            for (id, session) in due {
                assert!(ids.contains(id), "lost: {session:?}");
            }
        }
    }
}

fn pick(holding: &mut [Holding], n: usize) -> Option<&mut Holding> {
    let n = n % holding.len().max(1);
    holding.get_mut(n)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn sessions_are_kept_apart_and_none_is_lost(ops in ops()) {
        World::new(Options { max_new_per_minute: 0, max_per_cookie: 1_000, ..options() }, true).run(ops);
    }

    #[test]
    fn bounds_hold_and_keep_sessions_apart(ops in ops()) {
        let tight = Options { max_sessions: 5, max_per_cookie: 3, max_rooms: 2, max_new_per_minute: 20, ..options() };
        World::new(tight, false).run(ops);
    }
}
