//! What breaks: the network, the hub's process, its disk, the clock.

use super::hub::Hub;
use super::machine::Disk;
use super::world::World;
use crate::rooms::locked;

const HOUR: u64 = 3_600_000;
/// Jumps of the wall's clock at most: the ends of epochs are kept for some days only.
const MAX_JUMPS: u32 = 4;

impl World {
    pub(super) fn network_fault(&mut self) {
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

    pub(super) fn machine_fault(&mut self) {
        match self.random.u8(..15) {
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
            10..13 => self.cross(),
            _ => self.jump(),
        }
    }

    /// The rooms go on in a new epoch, as they do in a fleet that has lost their order.
    fn cross(&mut self) {
        let Some(hub) = &mut self.hub else { return };
        hub.cross(&self.machine);
        self.note("all rooms cross into a new epoch");
    }

    /// The hub is killed, and starts again on what it left.
    pub(super) fn crash(&mut self) {
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
}
