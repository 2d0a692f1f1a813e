//! Names in Redis: the keys of a room, all in one slot, and its channel.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use twine_protocol::RoomName;

/// What must not stand inside the braces that name a slot.
const RESERVED: &AsciiSet = &CONTROLS.add(b'{').add(b'}').add(b'%');
const OPEN: &str = "twine:{";
const SLOTS: u16 = 16_384;

/// The names that belong to a room.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    /// `twine:{ROOM}`: the channel, and the start of every key.
    channel: String,
    slot: u16,
}

impl Keys {
    pub(crate) fn new(room: &RoomName) -> Self {
        let tag = utf8_percent_encode(room.as_str(), RESERVED).to_string();
        let slot = slot(tag.as_bytes());
        Self { channel: format!("{OPEN}{tag}}}"), slot }
    }

    /// Of a cluster's 16,384 slots, the one that all of the room's keys are in.
    pub(crate) fn slot(&self) -> u16 {
        self.slot
    }

    pub(crate) fn channel(&self) -> &str {
        &self.channel
    }

    pub(crate) fn room(&self) -> String {
        format!("{}:room", self.channel)
    }

    pub(crate) fn log(&self) -> String {
        format!("{}:log", self.channel)
    }

    pub(crate) fn pending(&self) -> String {
        format!("{}:pending", self.channel)
    }

    pub(crate) fn id(&self, id: &str) -> String {
        format!("{}:id:{id}", self.channel)
    }
}

/// The room whose channel this is.
pub(super) fn room_of(channel: &[u8]) -> Option<RoomName> {
    let tag = std::str::from_utf8(channel).ok()?.strip_prefix(OPEN)?.strip_suffix('}')?;
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
        assert_eq!(keys.channel(), "twine:{a%7D%7Bb%25}");
        assert_eq!(keys.id("}"), "twine:{a%7D%7Bb%25}:id:}");
    }

    proptest! {
        #[test]
        fn a_channel_names_its_room(name in "[^\\p{Cc}]{1,60}") {
            let room = RoomName::new(&name).unwrap();
            prop_assert_eq!(room_of(Keys::new(&room).channel().as_bytes()), Some(room));
        }

        #[test]
        fn any_channel_is_a_rooms_or_nobodys(channel: Vec<u8>) {
            let _room_or_none = room_of(&channel);
        }
    }
}
