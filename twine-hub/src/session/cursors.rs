//! Rooms and cursors, and how they are written where sessions are kept.

use twine_protocol::{Epoch, Offset, Position, RoomName};

/// Rooms and the cursors that were acknowledged for them, oldest room first.
pub(crate) type Cursors = Vec<(RoomName, Position)>;

/// As JSON: `[["chat","0000018bcfe56800-7f3a",42]]`.
pub(super) fn write(rooms: &Cursors) -> String {
    let rows: Vec<_> = rooms.iter().map(|(room, at)| (room, &at.epoch, at.offset)).collect();
    // Texts and numbers in lists: always JSON.
    #[allow(clippy::expect_used)]
    serde_json::to_string(&rows).expect("texts and numbers are JSON")
}

/// Reads what [`write`] wrote.
///
/// # Errors
/// Where it is not that: it is damaged, or of a later version.
pub(super) fn read(text: &[u8]) -> Result<Cursors, serde_json::Error> {
    let rooms: Vec<(RoomName, Epoch, Offset)> = serde_json::from_slice(text)?;
    Ok(rooms.into_iter().map(|(room, epoch, offset)| (room, Position { epoch, offset })).collect())
}
