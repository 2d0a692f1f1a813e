//! The end of a world: everything goes well, and nobody may be left behind.

use super::log::Log;
use super::tab::Tab;
use super::world::World;
use crate::rooms::locked;

impl World {
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
