//! What people and apps do with pages: open, reload and duplicate them, come and go in rooms.

use std::collections::BTreeMap;

use twine_client::core::SubscribeOptions;
use twine_protocol::{Position, RoomName};

use super::oracle::Listener;
use super::tab::{Storage, Tab};
use super::world::World;

const MAX_TABS: usize = 4;

impl World {
    /// What an app does with its rooms.
    pub(super) fn app(&mut self) {
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
                // Promises of before may still settle: they count for nothing.
                let tab = &mut self.tabs[at];
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

    pub(super) fn page_fault(&mut self) {
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

    pub(super) fn open_tab(&mut self) {
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

    pub(super) fn rooms_of(&self, at: usize) -> Vec<RoomName> {
        self.tabs[at].listeners.keys().cloned().collect()
    }

    /// A promise that a listener gave is settled.
    pub(super) fn settle(&mut self) {
        let now = self.now;
        let Some(at) = self.pick_tab(|tab| !tab.promises.is_empty()) else { return };
        let tab = &mut self.tabs[at];
        let which = self.random.usize(..tab.promises.len());
        let (room, delivery) = tab.promises.remove(which);
        tab.core.delivered(now, &room, delivery);
        self.drain(at, None);
    }
}
