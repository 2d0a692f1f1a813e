//! Names in Redis: what goes together is in one slot; the keys of a room, and its channel.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use twine_protocol::RoomName;

/// What must not stand inside the braces that name a slot.
const RESERVED: &AsciiSet = &CONTROLS.add(b'{').add(b'}').add(b'%');
const PREFIX: &str = "twine:";
const SLOTS: u16 = 16_384;

/// A name whose slot is known: a channel, or what the keys of one slot begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tagged {
    name: String,
    slot: u16,
}

impl Tagged {
    /// `PREFIX{TAG}`; neither may have braces.
    pub(crate) fn new(prefix: &str, tag: &str) -> Self {
        Self { name: format!("{prefix}{{{tag}}}"), slot: slot(tag.as_bytes()) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Of a cluster's 16,384 slots, the one that everything with this tag is in.
    pub(crate) fn slot(&self) -> u16 {
        self.slot
    }
}

/// The names that belong to a room.
#[derive(Debug, Clone)]
pub(crate) struct Keys(Tagged);

impl Keys {
    pub(crate) fn new(room: &RoomName) -> Self {
        Self(Tagged::new(PREFIX, &utf8_percent_encode(room.as_str(), RESERVED).to_string()))
    }

    /// The slot that all of the room's keys are in.
    pub(crate) fn slot(&self) -> u16 {
        self.0.slot()
    }

    /// `twine:{ROOM}`: the channel, and the start of every key.
    pub(crate) fn channel(&self) -> &Tagged {
        &self.0
    }

    pub(crate) fn room(&self) -> String {
        format!("{}:room", self.0.name())
    }

    pub(crate) fn log(&self) -> String {
        format!("{}:log", self.0.name())
    }

    pub(crate) fn pending(&self) -> String {
        format!("{}:pending", self.0.name())
    }

    pub(crate) fn id(&self, id: &str) -> String {
        format!("{}:id:{id}", self.0.name())
    }
}

/// The room whose channel this is.
pub(super) fn room_of(channel: &[u8]) -> Option<RoomName> {
    let tag =
        std::str::from_utf8(channel).ok()?.strip_prefix(PREFIX)?.strip_prefix('{')?.strip_suffix('}')?;
    RoomName::new(&percent_decode_str(tag).decode_utf8().ok()?).ok()
}

/// The slot of a hash tag: CRC-16/XMODEM, as the specification of Redis Cluster has it.
fn slot(tag: &[u8]) -> u16 {
    let crc = tag.iter().fold(0_u16, |crc, &byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_slot_is_the_one_that_the_specification_gives() {
        assert_eq!(slot(b"123456789"), 0x31c3);
        assert_eq!(slot(b"foo"), 12_182);
    }

    #[test]
    fn braces_of_a_room_do_not_move_its_slot() {
        let keys = Keys::new(&RoomName::new("a}{b%").unwrap());
        assert_eq!(keys.channel().name(), "twine:{a%7D%7Bb%25}");
        assert_eq!(keys.id("}"), "twine:{a%7D%7Bb%25}:id:}");
    }

    proptest! {
        #[test]
        fn a_channel_names_its_room(name in "[^\\p{Cc}]{1,60}") {
            let room = RoomName::new(&name).unwrap();
            prop_assert_eq!(room_of(Keys::new(&room).channel().name().as_bytes()), Some(room));
        }

        #[test]
        fn any_channel_is_a_rooms_or_nobodys(channel: Vec<u8>) {
            let _room_or_none = room_of(&channel);
        }
    }
}
