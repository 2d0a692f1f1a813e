//! The world: what there is, and what happens next, drawn from a seed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use twine_client::core::{SocketId, SubscribeOptions};
use twine_protocol::{Position, RoomName};
use uuid::Uuid;

use super::hub::{Hub, Settings};
use super::log::Log;
use super::machine::{Disk, Machine, Shared};
use super::network::Link;
use super::oracle::{Bounds, Listener};
use super::publisher::Outgoing;
use super::tab::{PageId, Seen, Storage, Tab};
use crate::clock::manual;
use crate::rooms::locked;
use crate::session::CookieHash;
use crate::store::Retention;
use crate::{Config, connection::Caller};

const HOUR: u64 = 3_600_000;
/// When a world begins, by the wall's clock: in 2023.
const BEGINNING: u64 = 1_700_000_000_000;
const RETENTION: Duration = Duration::from_secs(24 * 3_600);
/// Jumps of the wall's clock at most: the ends of epochs are kept for some days only.
const MAX_JUMPS: u32 = 4;
const MAX_TABS: usize = 4;

pub(super) struct World {
    seed: u64,
    pub(super) random: Rng,
    /// Milliseconds since the world began.
    pub(super) now: u64,
    began: Instant,
    /// What the wall's clock shows, less `now`.
    wall: u64,
    latest: u64,
    n_jumps: u32,
    settings: Settings,
    pub(super) machine: Shared,
    /// `None` while it is down.
    pub(super) hub: Option<Hub>,
    backup: Option<Disk>,
    pub(super) rooms: Vec<RoomName>,
    /// Each browser's cookie, where it takes any.
    pub(super) browsers: Vec<Option<CookieHash>>,
    pub(super) tabs: Vec<Tab>,
    pub(super) n_pages: PageId,
    pub(super) links: Vec<Link>,
    pub(super) outgoing: Vec<Outgoing>,
    pub(super) n_messages: u64,
    pub(super) seen: Seen,
    trace: Vec<String>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        // The hub's own draws: epochs' names, when it pings.
        fastrand::seed(seed);
        let mut random = Rng::with_seed(seed);
        let began = Instant::now();
        manual::set(Some(manual::Set { now: began, unix_millis: BEGINNING }));
        let mut settings = settings();
        settings.rooms.tail_bytes = [0, 1_000, 100_000][random.usize(..3)];
        if random.bool() {
            settings.connections.recovery.max_messages = 5;
        }
        let window = u64::try_from(settings.rooms.idempotency_window.as_millis()).unwrap();
        let machine = Arc::new(Mutex::new(Machine::new(window)));
        let cookie = |n| Some(CookieHash::of(Uuid::from_u128(n)));
        let mut world = Self {
            seed,
            random,
            now: 0,
            began,
            wall: BEGINNING,
            latest: BEGINNING,
            n_jumps: 0,
            hub: Some(Hub::start(&machine, &settings)),
            settings,
            machine,
            backup: None,
            rooms: ["a", "b", "c"].map(|name| name.parse().unwrap()).into(),
            browsers: vec![cookie(1), cookie(2), None],
            tabs: Vec::new(),
            n_pages: 0,
            links: Vec::new(),
            outgoing: Vec::new(),
            n_messages: 0,
            seen: Seen::default(),
            trace: Vec::new(),
        };
        world.open_tab();
        world.open_tab();
        world
    }

    /// Everything that happened, in words.
    pub(super) fn trace(&self) -> &[String] {
        &self.trace
    }

    pub(super) fn note(&mut self, what: impl std::fmt::Display) {
        let now = self.now;
        self.trace.push(format!("{now:>8} {what}"));
    }

    pub(super) fn link(&mut self, page: PageId, socket: SocketId) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.page == page && link.socket == socket)
    }

    /// What bounds recoveries now.
    pub(super) fn bounds(&self) -> Bounds {
        let recovery = &self.settings.connections.recovery;
        let max_age = u64::try_from(recovery.max_age.as_millis()).unwrap();
        Bounds { max_messages: recovery.max_messages, oldest: self.latest.saturating_sub(max_age) }
    }

    /// Time passes.
    fn pass(&mut self, millis: u64) {
        self.now += millis;
        let unix_millis = self.wall + self.now;
        self.latest = self.latest.max(unix_millis);
        manual::set(Some(manual::Set { now: self.began + Duration::from_millis(self.now), unix_millis }));
    }

    /// One thing happens.
    pub(super) fn step(&mut self) {
        match self.random.u32(..1_000) {
            0..60 => self.publish(),
            60..110 => self.hear_publishers(true),
            110..200 => self.hub_does("commits", Hub::commit),
            200..280 => self.hub_does("reads", Hub::read),
            280..360 => self.hub_does("keeps sessions", Hub::keep),
            360..500 => self.turn(),
            500..680 => self.network(),
            680..790 => self.flow(),
            790..830 => self.wait(),
            830..870 => self.tick(),
            870..900 => self.cookie(),
            900..940 => self.dial(),
            940..955 => self.network_fault(),
            955..967 => self.app(),
            967..979 => self.page_fault(),
            979..988 => self.machine_fault(),
            _ => self.settle(),
        }
        if locked(&self.machine).is_dead() {
            self.note("the hub died in the middle of that");
            self.crash();
        }
    }

    fn hub_does(&mut self, what: &str, act: impl FnOnce(&mut Hub)) {
        if let Some(hub) = &mut self.hub {
            act(hub);
            self.note(format!("the hub {what}"));
        }
    }

    fn turn(&mut self) {
        let Some(hub) = &mut self.hub else { return };
        let shard = self.random.usize(..hub.n_shards());
        hub.turn(shard);
        self.note(format!("shard {shard} has its turn"));
    }

    /// Bytes go some way.
    fn network(&mut self) {
        if self.links.is_empty() {
            return;
        }
        let at = self.random.usize(..self.links.len());
        let max = if self.random.bool() { 64 << 10 } else { self.random.usize(1..200) };
        let (is_up_held, is_down_held) = self.links[at].is_held;
        if self.random.bool() {
            if !is_up_held {
                let n = self.links[at].up(max);
                self.note(format!("{n} bytes up link {at}"));
            }
        } else if !is_down_held {
            self.down(at, max);
        }
        self.links.retain(|link| !link.is_over());
    }

    fn down(&mut self, at: usize, max: usize) {
        let (n, incoming) = self.links[at].down(max);
        self.note(format!("{n} bytes down link {at}"));
        for incoming in incoming {
            self.receive(at, incoming);
        }
    }

    /// A connection is quick, and the hub not busy.
    fn flow(&mut self) {
        if self.links.is_empty() {
            return;
        }
        let at = self.random.usize(..self.links.len());
        let (is_up_held, is_down_held) = self.links[at].is_held;
        let n = if is_up_held { 0 } else { self.links[at].up(usize::MAX) };
        self.note(format!("{n} bytes up link {at}, at once"));
        if let Some(hub) = &mut self.hub {
            let all: [fn(&mut Hub); 5] = [Hub::turn_all, Hub::keep, Hub::commit, Hub::read, Hub::turn_all];
            // What a hub does that has died does not count.
            all.into_iter().take_while(|_| !locked(&self.machine).is_dead()).for_each(|act| act(hub));
        }
        if !is_down_held && !locked(&self.machine).is_dead() {
            self.down(at, 64 << 10);
        }
        self.links.retain(|link| !link.is_over());
    }

    fn wait(&mut self) {
        let millis = match self.random.u8(..10) {
            0 => self.random.u64(..40_000),
            1..4 => self.random.u64(..3_000),
            _ => self.random.u64(..100),
        };
        self.pass(millis);
        self.note(format!("{millis} ms pass"));
    }

    /// A page's timer goes off, perhaps late.
    fn tick(&mut self) {
        let now = self.now;
        let due = |tab: &Tab| tab.core.deadline().is_some_and(|deadline| deadline <= now);
        if let Some(at) = self.pick_tab(due) {
            self.note(format!("the timer of tab {at}"));
            self.tabs[at].core.timer(now);
            self.drain(at, None);
        }
    }

    fn cookie(&mut self) {
        let now = self.now;
        if let Some(at) = self.pick_tab(|tab| tab.fetches) {
            self.note(format!("the cookie of tab {at}"));
            self.tabs[at].fetches = false;
            self.tabs[at].core.cookie_settled(now);
            self.drain(at, None);
        }
    }

    /// A socket that is being opened is open, or can't be.
    fn dial(&mut self) {
        let dialing: Vec<_> = (0..self.links.len()).filter(|at| self.links[*at].boot.is_none()).collect();
        let Some(at) = self.random.choice(dialing) else { return };
        let shard = self.hub.as_ref().map(|hub| self.random.usize(..hub.n_shards()));
        // A proxy may be in the way.
        let shard = shard.filter(|_| self.random.u8(..10) > 0);
        self.open_link(at, shard);
    }

    fn open_link(&mut self, at: usize, shard: Option<usize>) {
        let (page, socket) = (self.links[at].page, self.links[at].socket);
        let tab = self.tabs.iter().position(|tab| tab.page == page);
        let (Some(tab), Some(hub), Some(shard), false) = (tab, &self.hub, shard, self.links[at].is_abandoned)
        else {
            let closed = self.links.swap_remove(at);
            if let (Some(tab), false) = (tab, closed.is_abandoned) {
                self.note(format!("tab {tab} can't connect"));
                self.tabs[tab].core.closed(self.now, socket, 1006, "");
                self.drain(tab, None);
            }
            return;
        };
        let browser = self.tabs[tab].browser;
        let caller = Caller {
            cookie: self.browsers[browser],
            origin: "https://app".into(),
            address: [127, 0, 0, 1].into(),
        };
        let boot = locked(&self.machine).boot();
        hub.adopt(shard, self.links[at].open(boot, caller));
        self.note(format!("link {at} of tab {tab} is open"));
        self.tabs[tab].core.opened(self.now, socket);
        self.drain(tab, Some(boot));
    }

    fn network_fault(&mut self) {
        let open: Vec<_> = (0..self.links.len()).filter(|at| self.links[*at].boot.is_some()).collect();
        let Some(at) = self.random.choice(open) else { return };
        let what = self.random.u8(..8);
        self.note(format!("link {at} has fault {what}"));
        let link = &mut self.links[at];
        match what {
            // Both ends notice.
            0 | 1 => {
                link.cut();
                for incoming in self.links[at].incoming() {
                    self.receive(at, incoming);
                }
            }
            2 => link.cut_from_hub(),
            // The page notices, the hub does not.
            3 => {
                let (page, socket) = (link.page, link.socket);
                link.is_held = (true, true);
                if let Some(tab) = self.tabs.iter().position(|tab| tab.page == page)
                    && !link.is_abandoned
                {
                    link.abandon();
                    self.tabs[tab].core.closed(self.now, socket, 1006, "");
                    self.drain(tab, None);
                }
            }
            4 => link.is_held.0 = true,
            5 => link.is_held.1 = true,
            _ => link.is_held = (false, false),
        }
        self.links.retain(|link| !link.is_over());
    }

    /// What an app does with its rooms.
    fn app(&mut self) {
        let Some(at) = self.pick_tab(|_| true) else { return };
        let (now, room) = (self.now, self.rooms[self.random.usize(..self.rooms.len())].clone());
        if !self.tabs[at].listeners.contains_key(&room) {
            return;
        }
        let tab = &mut self.tabs[at];
        match self.random.u8(..6) {
            0 => {
                self.note(format!("tab {at} leaves {room}, and comes back"));
                if let Some(session) = self.tabs[at].core.session().cloned() {
                    self.seen.forgets(&session, &room);
                }
                let tab = &mut self.tabs[at];
                tab.promises.retain(|(of, _)| *of != room);
                let _ = tab.core.unsubscribe(now, &room);
                tab.calls.retain(|_, of| *of != room);
                tab.listeners.insert(room.clone(), Listener::default());
                let call = tab.core.subscribe(now, &room, SubscribeOptions::default());
                tab.calls.insert(call, room);
            }
            1 | 2 => {
                tab.core.detach(now, &room);
                self.note(format!("tab {at} listens to {room} no longer"));
            }
            3 | 4 => {
                tab.core.attach(now, &room).unwrap();
                self.note(format!("tab {at} listens to {room}"));
            }
            _ => {
                tab.core.wake(now);
                self.note(format!("tab {at} wakes"));
            }
        }
        self.drain(at, None);
    }

    fn page_fault(&mut self) {
        match self.random.u8(..8) {
            0..4 => self.reload(),
            4 | 5 => self.duplicate(),
            6 => self.reopen(),
            _ if self.tabs.len() < MAX_TABS => self.open_tab(),
            _ => {}
        }
    }

    /// How far a tab's page is in each room, or was promised to be.
    fn places(&self, at: usize) -> BTreeMap<RoomName, Vec<Position>> {
        let listeners = self.tabs[at].listeners.iter();
        let place = |listener: &Listener| match &listener.at {
            Some(at) => vec![at.clone()],
            None => listener.promise.seen.clone(),
        };
        let places = listeners.map(|(room, listener)| (room.clone(), place(listener)));
        places.filter(|(_, seen)| !seen.is_empty()).collect()
    }

    fn reload(&mut self) {
        let Some(at) = self.pick_tab(|_| true) else { return };
        let is_clean = self.random.u8(..4) > 0;
        let history = (self.random.u8(..8) == 0).then_some(3);
        self.note(format!("tab {at} is reloaded, clean {is_clean}, history {history:?}"));
        self.unload(at, is_clean);
        let (seen, rooms) = (self.places(at), self.rooms_of(at));
        let Tab { browser, storage, .. } = &self.tabs[at];
        let (browser, storage) = (*browser, storage.clone());
        self.tabs[at] = self.load(browser, storage, &rooms, seen, history);
        self.drain(at, None);
    }

    fn duplicate(&mut self) {
        if self.tabs.len() == MAX_TABS {
            return;
        }
        let Some(at) = self.pick_tab(|tab| tab.storage.is_some()) else { return };
        self.note(format!("tab {at} is duplicated"));
        let (seen, rooms) = (self.places(at), self.rooms_of(at));
        let Tab { browser, storage, .. } = &self.tabs[at];
        let (browser, storage) = (*browser, storage.clone());
        let tab = self.load(browser, storage, &rooms, seen, None);
        self.tabs.push(tab);
        self.drain(self.tabs.len() - 1, None);
    }

    /// A browser ends and comes back with one tab, and nothing but its cookie.
    fn reopen(&mut self) {
        let browser = self.random.usize(..self.browsers.len());
        let is_clean = self.random.bool();
        self.note(format!("browser {browser} is reopened, clean {is_clean}"));
        while let Some(at) = self.tabs.iter().position(|tab| tab.browser == browser) {
            self.unload(at, is_clean);
            self.tabs.remove(at);
        }
        self.open_tab_of(browser);
    }

    fn open_tab(&mut self) {
        let browser = self.random.usize(..self.browsers.len());
        self.open_tab_of(browser);
    }

    fn open_tab_of(&mut self, browser: usize) {
        let storage = self.random.bool().then(Storage::default);
        let n = self.random.usize(1..=self.rooms.len());
        let rooms = self.rooms[..n].to_vec();
        let history = (self.random.u8(..4) == 0).then_some(2);
        let tab = self.load(browser, storage, &rooms, BTreeMap::default(), history);
        self.tabs.push(tab);
        let at = self.tabs.len() - 1;
        self.note(format!("tab {at} of browser {browser} is opened, {n} rooms, history {history:?}"));
        self.drain(at, None);
    }

    fn rooms_of(&self, at: usize) -> Vec<RoomName> {
        self.tabs[at].listeners.keys().cloned().collect()
    }

    fn machine_fault(&mut self) {
        match self.random.u8(..12) {
            0..4 => {
                let fuse = self.random.u32(..12);
                self.note(format!("the hub has {fuse} calls of its stores to live"));
                locked(&self.machine).light(fuse);
            }
            4..6 => {
                self.note("the hub is killed");
                self.crash();
            }
            6 => {
                self.note("the disk is full");
                locked(&self.machine).is_full = true;
            }
            7 | 8 => {
                self.note("the disk is backed up");
                let disk = locked(&self.machine).copy();
                self.backup = Some(disk);
            }
            9 => self.restore(),
            _ => self.jump(),
        }
    }

    /// The hub is killed, and starts again on what it left.
    fn crash(&mut self) {
        let disk = locked(&self.machine).die();
        self.restart(disk);
    }

    fn restart(&mut self, disk: Disk) {
        self.lose_publishes();
        self.hub = None;
        locked(&self.machine).start(disk);
        self.hub = Some(Hub::start(&self.machine, &self.settings));
    }

    /// The hub is killed, and starts again on yesterday's copy: of all of it, or of one database.
    fn restore(&mut self) {
        let Some(backup) = &self.backup else { return };
        let (old, log) = (backup.folder.clone(), backup.log.clone());
        let what = self.random.u8(..4);
        self.note(format!("the backup is restored, part {what}"));
        let mut machine = locked(&self.machine);
        let left = machine.die();
        let messages = |name: &str| name.starts_with("twine.");
        let disk = match what {
            0 => Disk { folder: machine.mix(&left.folder, &old, messages), log: left.log },
            1 => Disk { folder: machine.mix(&old, &left.folder, messages), log },
            _ => Disk { folder: machine.mix(&old, &old, messages), log },
        };
        drop(machine);
        self.restart(disk);
    }

    /// The wall's clock is set.
    fn jump(&mut self) {
        if self.n_jumps == MAX_JUMPS {
            return;
        }
        self.n_jumps += 1;
        let by = self.random.u64(..30 * HOUR);
        let is_ahead = self.random.bool();
        self.wall = if is_ahead { self.wall + by } else { self.wall - by };
        self.note(format!("the wall's clock jumps by {by} ms, ahead {is_ahead}"));
        self.pass(0);
    }

    /// A promise that a listener gave is settled.
    fn settle(&mut self) {
        let now = self.now;
        let Some(at) = self.pick_tab(|tab| !tab.promises.is_empty()) else { return };
        let tab = &mut self.tabs[at];
        let which = self.random.usize(..tab.promises.len());
        let (room, position) = tab.promises.remove(which);
        tab.core.delivered(now, &room, &position);
        self.drain(at, None);
    }

    fn pick_tab(&mut self, is_meant: impl Fn(&Tab) -> bool) -> Option<usize> {
        let meant: Vec<_> = (0..self.tabs.len()).filter(|at| is_meant(&self.tabs[*at])).collect();
        self.random.choice(meant)
    }

    /// Everything goes well from now on: nobody may be left behind.
    pub(super) fn heal(&mut self) {
        self.note("all is well from now on");
        locked(&self.machine).heal();
        for link in &mut self.links {
            link.is_held = (false, false);
        }
        for at in 0..self.tabs.len() {
            for room in self.rooms_of(at) {
                self.tabs[at].core.attach(self.now, &room).unwrap();
            }
            self.drain(at, None);
        }
        for _ in 0..400 {
            self.well();
            if self.is_quiet() {
                return;
            }
        }
        let log = self.present();
        for (at, tab) in self.tabs.iter().enumerate() {
            for (room, listener) in &tab.listeners {
                let place = (&listener.at, log.head(room));
                assert!(listener.is_current(&log, room), "tab {at} is stuck in {room}: {place:?}");
            }
        }
        assert!(self.outgoing.is_empty(), "a publish was never acknowledged");
    }

    fn present(&self) -> Log {
        let machine = locked(&self.machine);
        machine.log(machine.boot()).clone()
    }

    fn is_quiet(&self) -> bool {
        let machine = locked(&self.machine);
        let log = machine.log(machine.boot());
        let is_current =
            |tab: &Tab| tab.listeners.iter().all(|(room, listener)| listener.is_current(log, room));
        self.outgoing.is_empty() && self.tabs.iter().all(is_current)
    }

    /// Everybody has their turn, and a second passes.
    fn well(&mut self) {
        self.hear_publishers(false);
        let now = self.now;
        for at in 0..self.tabs.len() {
            if std::mem::take(&mut self.tabs[at].fetches) {
                self.tabs[at].core.cookie_settled(now);
            }
            self.tabs[at].core.timer(now);
            self.drain(at, None);
        }
        while let Some(at) = self.links.iter().position(|link| link.boot.is_none()) {
            self.open_link(at, Some(0));
        }
        for _ in 0..4 {
            for at in 0..self.links.len() {
                self.links[at].up(usize::MAX);
            }
            if let Some(hub) = &mut self.hub {
                hub.commit();
                hub.read();
                hub.keep();
                hub.turn_all();
            }
            for at in 0..self.links.len() {
                self.down(at, 256 << 10);
            }
        }
        self.links.retain(|link| !link.is_over());
        self.pass(1_000);
    }
}

/// The defaults, but for what makes a small world interesting.
fn settings() -> Settings {
    let config = Config::default();
    let mut connections = config.connections();
    connections.shards = 2;
    Settings {
        retention: Retention::For(RETENTION),
        rooms: config.rooms(),
        connections,
        sessions: config.sessions(),
    }
}

impl Drop for World {
    fn drop(&mut self) {
        manual::set(None);
        if std::thread::panicking() {
            // Who replays wants to see all.
            let n_told = if std::env::var_os("TWINE_SIM_SEED").is_some() { usize::MAX } else { 80 };
            let first = self.trace.len().saturating_sub(n_told);
            eprintln!("{}", self.trace[first..].join("\n"));
            eprintln!(
                "replay it: TWINE_SIM_SEED={} cargo test -p twine-hub simulation -- --nocapture",
                self.seed
            );
        }
    }
}
