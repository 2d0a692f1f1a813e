//! The table in Amazon's DynamoDB Local. It takes seconds and 200 MB to start, so that one test runs
//! all cases with one of it, each on a table of its own.

#[path = "../../../tests/support/dynamodb_local.rs"]
pub(crate) mod dynamodb_local;
#[path = "../../../tests/support/faulty_proxy.rs"]
pub(crate) mod faulty_proxy;

mod cost;
mod epochs;
mod faults;
mod log;
mod making;

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::config::Credentials;
use serde_json::value::RawValue;
use tokio::time::Instant;
use twine_protocol::{Epoch, MessageId, Offset, Position, RoomName};

use self::dynamodb_local::DynamoDbLocal;
use super::fence::FENCE;
use super::{Location, Table, Usage, client, item};
use crate::store::{Record, Retention};

#[test]
fn all_of_it_against_dynamodb_local() {
    let cases: [(&str, Case); 17] = [
        ("making: a table is made once, and found", |bench| Box::pin(making::once(bench))),
        ("making: a missing table is said to be made by a command", |bench| Box::pin(making::missing(bench))),
        ("making: a hub without credentials is told so", |bench| Box::pin(making::no_credentials(bench))),
        ("making: the table of something else is left alone", |bench| Box::pin(making::foreign(bench))),
        ("log: what is written is read, in parts", |bench| Box::pin(log::parts(bench))),
        ("log: random items are one log", |bench| Box::pin(log::random(bench))),
        ("log: what is too old is told as lost", |bench| Box::pin(log::retention(bench))),
        ("epochs: of many hubs one opens an epoch, and one seals it", |bench| Box::pin(epochs::race(bench))),
        ("epochs: only an open epoch is confirmed", |bench| Box::pin(epochs::confirm(bench))),
        ("epochs: a fence in use does not expire", |bench| Box::pin(epochs::renewal(bench))),
        ("epochs: a silent room's end is noted", |bench| Box::pin(epochs::notes(bench))),
        ("epochs: none of very many is forgotten", |bench| Box::pin(epochs::many(bench))),
        ("epochs: ids come from the log only", |bench| Box::pin(epochs::ids(bench))),
        ("faults: what passes is asked again", |bench| Box::pin(faults::passing(bench))),
        ("faults: a lost answer does no harm", |bench| Box::pin(faults::lost_answers(bench))),
        ("faults: what stays is told in time, and heals", |bench| Box::pin(faults::staying(bench))),
        ("cost: write units are as documented", |bench| Box::pin(cost::write_units(bench))),
    ];
    let local = DynamoDbLocal::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let failed: Vec<_> = cases
        .into_iter()
        .filter(|(name, case)| {
            let bench = Bench { port: local.port() };
            let started = std::time::Instant::now();
            let has_failed = runtime.block_on(runtime.spawn(case(bench))).is_err();
            let result = if has_failed { "FAILED, see above" } else { "ok" };
            println!("{name}: {result} ({:.1} s)", started.elapsed().as_secs_f32());
            has_failed
        })
        .map(|(name, _)| name)
        .collect();
    assert!(failed.is_empty(), "failed: {failed:#?}");
}

type Case = fn(Bench) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where a case finds DynamoDB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bench {
    pub(crate) port: u16,
}

impl Bench {
    /// A table of its own.
    pub(crate) async fn table(self, retention: Retention) -> Table {
        let table = self.unmade(retention).await;
        // On a busy machine it may have been made by an attempt that was given up.
        table.make(soon()).await.unwrap();
        table
    }

    /// A handle to a table that is not there.
    async fn unmade(self, retention: Retention) -> Table {
        connect(&self.location(), retention).await
    }

    /// A table that is not there.
    fn location(self) -> Location {
        static TABLES: AtomicUsize = AtomicUsize::new(0);
        location(self.port, &format!("table-{}", TABLES.fetch_add(1, Ordering::Relaxed)))
    }
}

/// The table of this name at this port.
pub(crate) fn location(port: u16, name: &str) -> Location {
    format!("dynamodb:{name}?region=eu-test-1&endpoint=http://127.0.0.1:{port}").parse().unwrap()
}

/// A handle to a table, with connections of its own.
pub(crate) async fn connect(location: &Location, retention: Retention) -> Table {
    let settings = client::settings().credentials_provider(Credentials::for_tests());
    Table::with_client(client::load(settings, location).await.unwrap(), location, retention, Usage::default())
}

/// Deletes a room's messages, as the table does some time after they are too old.
pub(crate) async fn delete_messages(table: &Table, room: &RoomName) {
    let request = table.client.query().table_name(&table.name).consistent_read(true);
    let request = request.key_condition_expression("room = :room AND #at > :fences");
    let request = request.expression_attribute_names("#at", "at").projection_expression("room, #at");
    let request = request.expression_attribute_values(":room", item::text(room.as_str()));
    let found = request.expression_attribute_values(":fences", item::text("#")).send().await.unwrap();
    for key in found.items.unwrap() {
        table.client.delete_item().table_name(&table.name).set_key(Some(key)).send().await.unwrap();
    }
}

/// Deletes a room's fence, as the table does with one that was not renewed.
pub(crate) async fn delete_fence(table: &Table, room: &RoomName) {
    let request = table.client.delete_item().table_name(&table.name);
    let request = request.key("room", item::text(room.as_str())).key("at", item::text(FENCE));
    request.send().await.unwrap();
}

/// A deadline that nothing misses but by hanging.
fn soon() -> Instant {
    Instant::now() + Duration::from_mins(1)
}

fn room() -> RoomName {
    "chat/1".parse().unwrap()
}

/// The `n`th epoch of a room.
fn epoch(n: u64) -> Epoch {
    Epoch::new(&format!("{n:012x}-0badcafe")).unwrap()
}

fn offset(n: u64) -> Offset {
    Offset::new(n).unwrap()
}

fn place(of: &Epoch, n: u64) -> Position {
    Position { epoch: of.clone(), offset: offset(n) }
}

/// The message with this offset, which is also its data and its id.
fn record(n: u64, time: u64) -> Record {
    let data = RawValue::from_string(n.to_string()).unwrap();
    let id = Some(MessageId::new(&format!("id-{n}")).unwrap());
    Record { offset: offset(n), time, id, sender: None, data }
}

fn offsets<'a>(records: impl IntoIterator<Item = &'a Record>) -> Vec<u64> {
    records.into_iter().map(|record| record.offset.get()).collect()
}
