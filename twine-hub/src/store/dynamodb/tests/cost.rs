//! What writing costs: the table in `docs/SCALING.md` is what DynamoDB Local counts.

use serde_json::value::RawValue;
use twine_protocol::{MessageId, RoomName};

use super::{Bench, epoch, offset, soon};
use crate::store::{Record, Retention};

/// Messages of 128 bytes as a backend may send them: JSON with numbers and words, an id that the SDK
/// made.
fn messages(count: u64) -> Vec<Record> {
    let mut random = fastrand::Rng::with_seed(128);
    let mut message = |n: u64| {
        let (user, price, amount) = (random.u32(..100_000), random.f64() * 1_000.0, random.u32(..10_000));
        let start = format!("{{\"user\":\"u{user}\",\"price\":{price:.4},\"amount\":{amount},\"text\":\"");
        let text = std::iter::repeat_with(|| random.lowercase()).take(126 - start.len());
        let data = format!("{start}{}\"}}", text.collect::<String>());
        assert_eq!(data.len(), 128);
        let id = uuid::Builder::from_random_bytes(random.u128(..).to_be_bytes()).into_uuid().to_string();
        Record {
            offset: offset(n),
            time: 1_767_225_600_000 + n,
            id: Some(MessageId::new(&id).unwrap()),
            sender: None,
            data: RawValue::from_string(data).unwrap(),
        }
    };
    (1..=count).map(&mut message).collect()
}

pub(super) async fn write_units(bench: Bench) {
    const MESSAGES: u64 = 400;
    let messages = messages(MESSAGES);
    let mut lines = Vec::new();
    for batch in [1, 2, 4, 8, 16, 50, 200] {
        // Long enough for the attribute that makes items expire, and each batch in a room of its own.
        let table = bench.table(Retention::For(std::time::Duration::from_hours(24 * 365 * 10))).await;
        let room: RoomName = "chat/general".parse().unwrap();
        let messages = if batch < 8 { &messages[..80] } else { &messages };
        for records in messages.chunks(batch) {
            table.write(&room, &epoch(1), records, soon()).await.unwrap();
        }
        let units = table.usage.write_units.get();
        let per_million = units * 1_000_000.0 / f64::from(u32::try_from(messages.len()).unwrap());
        lines.push(format!("| {batch} | {per_million:.0} |"));
    }
    let page = include_str!("../../../../../docs/SCALING.md");
    let documented: Vec<_> = page.lines().filter(|line| lines.contains(&(*line).to_owned())).collect();
    assert_eq!(documented, lines, "write this into docs/SCALING.md:\n{}", lines.join("\n"));
}
