//! A tab: pages one after the other, each with the client's own core, and what the browser keeps for
//! them.

use std::collections::BTreeMap;

use twine_client::core::{
    CallId, Config, Core, Delivery, DeliveryId, Effect, Error, Outcome, SubscribeOptions,
};
use twine_protocol::{
    ClientFrame, CloseCode, Connect, Connected, Data, ErrorCode, InstanceId, Position, RoomName, ServerFrame,
    SessionId, json,
};

use super::log;
use super::network::{Incoming, Link};
use super::oracle::{Listener, Promise};
use super::world::World;
use crate::rooms::locked;

/// A page, among all there ever were.
pub(super) type PageId = u64;

/// What a browser keeps for a tab.
#[derive(Debug, Clone, Default)]
pub(super) struct Storage {
    pub(super) session: Option<SessionId>,
    pub(super) cursors: BTreeMap<RoomName, Position>,
    pub(super) prev: Option<InstanceId>,
}

pub(super) struct Tab {
    pub(super) browser: usize,
    /// `None` where the browser allows none.
    pub(super) storage: Option<Storage>,
    pub(super) page: PageId,
    pub(super) core: Core<Data>,
    pub(super) instance: InstanceId,
    pub(super) listeners: BTreeMap<RoomName, Listener>,
    /// Deliveries whose listeners gave a promise that is not settled.
    pub(super) promises: Vec<(RoomName, DeliveryId)>,
    pub(super) calls: BTreeMap<CallId, RoomName>,
    /// Whether the cookie is being fetched.
    pub(super) fetches: bool,
    /// The rooms that the session held when the page connected last.
    held: Vec<RoomName>,
    /// The rooms that it has left on this connection.
    left: Vec<RoomName>,
    /// Those that it has asked for without saying where to start.
    asked: Vec<RoomName>,
}

/// How far the pages of a session were, each by itself.
#[derive(Default)]
pub(super) struct Seen(BTreeMap<SessionId, SeenIn>);

#[derive(Clone, Default)]
struct SeenIn {
    browser: usize,
    places: BTreeMap<(RoomName, PageId), Position>,
}

impl Seen {
    fn notes(&mut self, session: &SessionId, room: &RoomName, tab: &Tab, at: &Position) {
        let of_session = self.0.entry(session.clone()).or_default();
        of_session.browser = tab.browser;
        of_session.places.insert((room.clone(), tab.page), at.clone());
    }

    /// A session was begun as a copy of another.
    fn copies(&mut self, from: &SessionId, to: &SessionId) {
        if let Some(seen) = self.0.get(from).cloned() {
            self.0.entry(to.clone()).or_insert(seen);
        }
    }

    /// A room was left: what was seen of it is no promise any more.
    pub(super) fn forgets(&mut self, session: &SessionId, room: &RoomName) {
        if let Some(of_session) = self.0.get_mut(session) {
            of_session.places.retain(|(of, _), _| of != room);
        }
    }

    /// The same, in a session of this browser that the page does not know yet, and may never.
    fn forgets_somewhere(&mut self, browser: usize, room: &RoomName) {
        for of_session in self.0.values_mut().filter(|of_session| of_session.browser == browser) {
            of_session.places.retain(|(of, _), _| of != room);
        }
    }

    fn of(&self, session: &SessionId, room: &RoomName) -> Vec<Position> {
        let places = self.0.get(session).into_iter().flat_map(|of_session| &of_session.places);
        places.filter(|((of, _), _)| of == room).map(|(_, at)| at.clone()).collect()
    }
}

impl World {
    /// A page is loaded into a tab, with these rooms, and goes on where an earlier page of the tab was.
    pub(super) fn load(
        &mut self,
        browser: usize,
        mut storage: Option<Storage>,
        rooms: &[RoomName],
        mut seen: BTreeMap<RoomName, Vec<Position>>,
        history: Option<u32>,
    ) -> Tab {
        self.n_pages += 1;
        let page = self.n_pages;
        let instance = InstanceId::new(&format!("i_{page}")).unwrap();
        let kept = storage.as_mut();
        let (session, prev) = kept.map(|kept| (kept.session.clone(), kept.prev.take())).unwrap_or_default();
        let scope = Some("/".to_owned());
        let connect = Connect { session, instance: Some(instance.clone()), prev, scope, token: None };
        let cookie = self.browsers[browser].is_some();
        let mut core = Core::new(Config { connect, cookie, seed: self.random.u64(..) });
        let (mut listeners, mut calls) = (BTreeMap::new(), BTreeMap::new());
        for room in rooms {
            let mut promise = Promise::default();
            if let Some(cursor) = storage.as_ref().and_then(|kept| kept.cursors.get(room)) {
                core.restore(room, cursor.clone());
                let seen = seen.remove(room).unwrap_or_else(|| vec![cursor.clone()]);
                promise = Promise { from: history.is_none().then(|| cursor.clone()), seen };
            }
            let asks_history = history.is_some();
            listeners.insert(room.clone(), Listener { promise, asks_history, ..Listener::default() });
            core.attach(self.now, room).unwrap();
            let options = SubscribeOptions { history, ..SubscribeOptions::default() };
            calls.insert(core.subscribe(self.now, room, options), room.clone());
        }
        core.connect(self.now);
        Tab {
            browser,
            storage,
            page,
            core,
            instance,
            listeners,
            promises: Vec::new(),
            calls,
            fetches: false,
            held: Vec::new(),
            left: Vec::new(),
            asked: Vec::new(),
        }
    }

    /// A page goes: with a last word, or without.
    pub(super) fn unload(&mut self, at: usize, is_clean: bool) {
        if is_clean {
            let now = self.now;
            self.tabs[at].core.acknowledge(now);
            self.drain(at, None);
            let tab = &mut self.tabs[at];
            if let Some(storage) = &mut tab.storage {
                storage.prev = Some(tab.instance.clone());
            }
        }
        self.ends_unanswered(at);
        let page = self.tabs[at].page;
        for link in self.links.iter_mut().filter(|link| link.page == page) {
            if is_clean { link.close(CloseCode::Normal) } else { link.abandon() }
        }
    }

    /// A connection ends on which a page was not answered. Its hub may all the same have begun what was asked for, at
    /// the head, where the session did not hold the room any more, and that is where the session is now.
    fn ends_unanswered(&mut self, at: usize) {
        let Tab { browser, calls, asked, core, .. } = &self.tabs[at];
        for room in calls.values().filter(|room| asked.contains(room)) {
            match core.session() {
                Some(session) => self.seen.forgets(session, room),
                None => self.seen.forgets_somewhere(*browser, room),
            }
        }
    }

    /// What has come for a page on one of its connections.
    pub(super) fn receive(&mut self, link: usize, incoming: Incoming) {
        let Link { page, socket, boot, is_abandoned, .. } = self.links[link];
        let Some(at) = self.tabs.iter().position(|tab| tab.page == page && !is_abandoned) else { return };
        let now = self.now;
        let core = &mut self.tabs[at].core;
        match incoming {
            Incoming::Text(text) => {
                let frame = json::decode_server(&text).expect("the hub sends frames");
                if let ServerFrame::Connected(connected) = &frame {
                    let named = core.session().cloned();
                    self.connected(at, named.as_ref(), connected);
                }
                self.tabs[at].core.frame(now, socket, frame);
            }
            Incoming::Closed(with) => {
                core.closed(now, socket, with, "");
                self.ends_unanswered(at);
                self.links[link].abandon();
            }
        }
        self.drain(at, boot);
        let machine = locked(&self.machine);
        let Tab { core, listeners, .. } = &mut self.tabs[at];
        for (room, listener) in listeners {
            if let (Some(boot), Some(cursor)) = (boot, core.cursor(room)) {
                listener.crosses(machine.log(boot), room, cursor);
            }
        }
    }

    fn connected(&mut self, at: usize, named: Option<&SessionId>, connected: &Connected) {
        let Connected { session, resumed, adopted, rooms, .. } = connected;
        let holds: Vec<_> = rooms.iter().map(RoomName::as_str).collect();
        self.note(format!("tab {at} is connected: resumed {resumed}, adopted {adopted}, {holds:?}"));
        if let (true, Some(from), Some(to)) = (*resumed, named, session) {
            self.seen.copies(from, to);
        }
        // A copy, for one, is of what was before.
        for room in &self.tabs[at].left {
            if let Some(session) = session {
                self.seen.forgets(session, room);
            }
        }
        self.tabs[at].held.clone_from(rooms);
    }

    /// Does what a page's core wants done; `boot` is the hub that it heard.
    pub(super) fn drain(&mut self, at: usize, boot: Option<usize>) {
        while let Some(effect) = self.tabs[at].core.poll_effect() {
            self.perform(at, boot, effect);
        }
        let now = self.now;
        let Tab { core, storage, .. } = &mut self.tabs[at];
        if core.take_moved()
            && let Some(storage) = storage
        {
            storage.session = core.session().cloned();
            storage.cursors = core.settled(now).into_iter().collect();
        }
    }

    fn perform(&mut self, at: usize, boot: Option<usize>, effect: Effect<Data>) {
        let page = self.tabs[at].page;
        match effect {
            Effect::FetchCookie => self.tabs[at].fetches = true,
            Effect::Open { socket, early } => self.links.push(Link::new(page, socket, early)),
            Effect::Send(socket, frame) => {
                self.note(format!("tab {at} says {}", said(&frame)));
                match &frame {
                    ClientFrame::Connect(_) => {
                        self.tabs[at].left.clear();
                        self.tabs[at].asked.clear();
                    }
                    ClientFrame::Subscribe(ask) if ask.after.is_none() => {
                        self.tabs[at].asked.push(ask.room.clone());
                    }
                    ClientFrame::Unsubscribe(left) => {
                        let tab = &mut self.tabs[at];
                        tab.left.push(left.room.clone());
                        if tab.core.session().is_none() {
                            self.seen.forgets_somewhere(tab.browser, &left.room);
                        }
                    }
                    _ => {}
                }
                if let Some(link) = self.link(page, socket) {
                    link.send(frame.to_json());
                }
            }
            Effect::Close(socket, code) => {
                self.ends_unanswered(at);
                if let Some(link) = self.link(page, socket) {
                    link.close(code);
                }
            }
            Effect::Deliver(delivery) => self.deliver(at, boot.expect("a hub spoke"), delivery),
            Effect::Gap(gap) => {
                self.note(format!("tab {at} loses {} to {} of {}", gap.from, gap.to, gap.room));
                self.expect_start(at, &gap.room);
                let bounds = self.bounds();
                let machine = locked(&self.machine);
                if let Some(listener) = self.tabs[at].listeners.get_mut(&gap.room) {
                    listener.loses(machine.log(boot.expect("a hub spoke")), &gap.room, &gap, bounds);
                }
                drop(machine);
                self.note_seen(at, &gap.room);
            }
            // A store that failed, and a network that was too slow.
            Effect::State(_)
            | Effect::Error(Error::Refused {
                code: ErrorCode::Unavailable | ErrorCode::ConnectTimeout | ErrorCode::HeartbeatTimeout,
                ..
            }) => {}
            Effect::Error(error) => panic!("tab {at} is told: {error}"),
            Effect::Done(call, result) => {
                let room = self.tabs[at].calls.remove(&call);
                if let (Some(room), Ok(Outcome::Subscribed { position, .. })) = (room, &result) {
                    self.note(format!("tab {at} starts {room} at {position}"));
                    self.expect_start(at, &room);
                    let machine = locked(&self.machine);
                    let log = machine.log(boot.unwrap_or(machine.boot()));
                    let tab = &mut self.tabs[at];
                    if let Some(listener) = tab.listeners.get_mut(&room) {
                        if listener.at.is_none() && listener.asks_history && tab.held.contains(&room) {
                            listener.before_session = Some(log.head(&room));
                        }
                        listener.starts(log, &room, position);
                    }
                    drop(machine);
                    self.note_seen(at, &room);
                }
            }
            other => panic!("{other:?} is not known here"),
        }
    }

    /// A page that knows no position of its own goes on where its session was.
    fn expect_start(&mut self, at: usize, room: &RoomName) {
        let tab = &mut self.tabs[at];
        let Some(session) = tab.core.session() else { return };
        if let Some(listener) = tab.listeners.get_mut(room)
            && listener.at.is_none()
            && listener.promise.seen.is_empty()
            && tab.held.contains(room)
        {
            listener.promise.seen = self.seen.of(session, room);
        }
    }

    fn note_seen(&mut self, at: usize, room: &RoomName) {
        let tab = &self.tabs[at];
        if let Some(session) = tab.core.session()
            && let Some(Listener { at: Some(place), before_session, .. }) = tab.listeners.get(room)
        {
            let machine = locked(&self.machine);
            let rank = machine.log(machine.boot()).rank(room, place);
            if before_session.is_none_or(|head| rank.is_some_and(|rank| head <= rank)) {
                self.seen.notes(session, room, tab, place);
            } else {
                // Where the session is, it may tell from now on.
                self.seen.forgets(session, room);
            }
        }
    }

    fn deliver(&mut self, at: usize, boot: usize, delivery: Delivery<Data>) {
        let Delivery { delivery, room, position, data, .. } = delivery;
        let serial = log::serial(&data);
        self.note(format!("tab {at} sees {serial} of {room} at {position}"));
        let machine = locked(&self.machine);
        let listener = self.tabs[at].listeners.get_mut(&room).expect("somebody listens");
        listener.sees(machine.log(boot), &room, &position, serial);
        drop(machine);
        self.note_seen(at, &room);
        let (now, gives_promise) = (self.now, self.random.u8(..) < 20);
        let tab = &mut self.tabs[at];
        if gives_promise {
            tab.core.pending(now, &room, delivery);
            tab.promises.push((room, delivery));
        } else {
            tab.core.delivered(now, &room, delivery);
        }
    }
}

/// A frame without what differs each time.
fn said(frame: &ClientFrame) -> String {
    match frame {
        ClientFrame::Connect(Connect { session, instance, prev, .. }) => {
            format!("connect as {instance:?}, before {prev:?}, with a session: {}", session.is_some())
        }
        other => other.to_json(),
    }
}
