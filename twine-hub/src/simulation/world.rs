//! The world: what there is, and what happens next, drawn from a seed.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use twine_client::core::SocketId;
use twine_protocol::RoomName;
use uuid::Uuid;

use super::hub::{Hub, Settings};
use super::machine::{Disk, Machine, Shared};
use super::network::Link;
use super::oracle::Bounds;
use super::publisher::Outgoing;
use super::tab::{PageId, Seen, Tab};
use crate::clock::manual;
use crate::rooms::locked;
use crate::session::CookieHash;
use crate::store::Retention;
use crate::{Config, connection::Caller};

/// When a world begins, by the wall's clock: in 2023.
const BEGINNING: u64 = 1_700_000_000_000;
const RETENTION: Duration = Duration::from_hours(24);

pub(super) struct World {
    seed: u64,
    pub(super) random: Rng,
    /// Milliseconds since the world began.
    pub(super) now: u64,
    began: Instant,
    /// What the wall's clock shows, less `now`.
    pub(super) wall: u64,
    latest: u64,
    pub(super) n_jumps: u32,
    pub(super) settings: Settings,
    pub(super) machine: Shared,
    /// `None` while it is down.
    pub(super) hub: Option<Hub>,
    pub(super) backup: Option<Disk>,
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
    pub(super) fn pass(&mut self, millis: u64) {
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

    pub(super) fn down(&mut self, at: usize, max: usize) {
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

    pub(super) fn open_link(&mut self, at: usize, shard: Option<usize>) {
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
        let is_early = self.random.bool();
        hub.adopt(shard, self.links[at].open(boot, caller, is_early));
        self.note(format!("link {at} of tab {tab} is open"));
        self.tabs[tab].core.opened(self.now, socket);
        self.drain(tab, Some(boot));
    }

    pub(super) fn pick_tab(&mut self, is_meant: impl Fn(&Tab) -> bool) -> Option<usize> {
        let meant: Vec<_> = (0..self.tabs.len()).filter(|at| is_meant(&self.tabs[*at])).collect();
        self.random.choice(meant)
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
