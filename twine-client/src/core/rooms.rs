//! The rooms of a client, by name.

use twine_protocol::RoomName;

use super::limits;
use super::room::{Link, Room};

/// A sorted list: a client has few rooms, and this is a fraction of a map's code in a browser.
#[derive(Debug, Default)]
pub(super) struct Rooms(Vec<Room>);

impl Rooms {
    pub(super) fn get(&self, name: &RoomName) -> Option<&Room> {
        self.find(name).ok().and_then(|index| self.0.get(index))
    }

    pub(super) fn get_mut(&mut self, name: &RoomName) -> Option<&mut Room> {
        self.find(name).ok().and_then(|index| self.0.get_mut(index))
    }

    /// The room, new where it was not there; `None` where there are too many.
    pub(super) fn insert(&mut self, name: &RoomName) -> Option<&mut Room> {
        let index = match self.find(name) {
            Ok(index) => index,
            Err(_) if self.0.len() >= limits::ROOMS_MAX => return None,
            Err(index) => {
                self.0.insert(index, Room::new(name.clone()));
                index
            }
        };
        self.0.get_mut(index)
    }

    /// Drops the room if nothing is left to remember of it.
    pub(super) fn tidy(&mut self, name: &RoomName) {
        if let Ok(index) = self.find(name)
            && self.0.get(index).is_some_and(Room::is_idle)
        {
            self.0.remove(index);
        }
    }

    /// The room that request `id` asked for, while its answer is awaited.
    pub(super) fn asked(&self, id: u64) -> Option<RoomName> {
        let room =
            self.0.iter().find(|room| matches!(room.link, Link::Asked { id: ours, .. } if ours == id))?;
        Some(room.name.clone())
    }

    /// All names: for walks in which the core itself is needed.
    pub(super) fn names(&self) -> Vec<RoomName> {
        self.0.iter().map(|room| room.name.clone()).collect()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Room> {
        self.0.iter_mut()
    }

    fn find(&self, name: &RoomName) -> Result<usize, usize> {
        self.0.binary_search_by(|room| room.name.cmp(name))
    }
}
