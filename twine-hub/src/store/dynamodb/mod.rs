//! The store of a fleet: one DynamoDB table, written and read by all hubs.
//!
//! It keeps two kinds of items: messages ([`item`]), many in one, and a fence a room ([`fence`]),
//! which says which epoch is open and how earlier ones ended, with items beside it where those are many
//! ([`seals`]). The table knows no order of its own:
//! Redis gives each message its offset, hubs write what they were given, items may overlap, and
//! readers make one log of them again ([`merge`]).
//!
//! Invariants:
//! - an item is never changed, so that what was read once stays; a write that arrives late adds
//!   another, and where its epoch has ended by then, no reader looks at it;
//! - every read is consistent: a hole is told as a loss, and must not be a write that has not come
//!   through to the replica that was asked;
//! - every call has a deadline of its caller, and there are no more under way than
//!   [`call`] allows.
//!
//! A hub does, for what its publishers send: [`Table::write`], then [`Table::confirm`]; a new epoch
//! takes [`Table::advance`], [`Table::tail`], [`Table::seal`], [`Table::ids`]. [`TableReader`] is the
//! [`Reader`](super::Reader) of the rest.

mod call;
mod client;
mod error;
mod fence;
mod init;
mod item;
mod location;
mod merge;
mod offsets;
mod read;
mod reader;
mod seals;
#[cfg(test)]
pub(crate) mod tests;
mod usage;
mod write;

pub use self::error::TableError;
pub(crate) use self::fence::Fence;
pub(crate) use self::init::Initialized;
pub(crate) use self::item::MAX_DATA;
pub use self::location::{InvalidLocation, Location};
pub(crate) use self::merge::Amount;
pub(crate) use self::offsets::Offsets;
pub(crate) use self::read::StoredId;
pub(crate) use self::reader::TableReader;
pub(crate) use self::seals::Seal;
pub(crate) use self::usage::Usage;

use std::ops::Deref;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::describe_table::DescribeTableError;
use aws_sdk_dynamodb::types::{
    AttributeValue, KeyType, ReturnConsumedCapacity, TableDescription, TableStatus,
};
use tokio::time::Instant;
use twine_protocol::RoomName;

use self::call::{CallError, Caller};
use super::Retention;
use super::packed::Unreadable;

/// A handle to the table; clones share the connections, and the bound on calls under way.
#[derive(Clone)]
pub(crate) struct Table(Arc<Shared>);

/// What the handles share.
pub(crate) struct Shared {
    client: Client,
    name: String,
    retention: Retention,
    caller: Caller,
    usage: Usage,
}

impl Deref for Table {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Table {
    /// Connects to a table that is there and ready. Messages written through it are kept for
    /// `retention`; all hubs of a fleet must agree on it. What it is asked is counted in `usage`.
    ///
    /// # Errors
    /// [`TableError`]; [`TableError::Missing`] where it must be made first, by [`Table::init`].
    pub(crate) async fn open(
        location: &Location,
        retention: Retention,
        usage: Usage,
        deadline: Instant,
    ) -> Result<Self, TableError> {
        let table = Self::connect(location, retention, usage).await?;
        let described = table.describe(deadline).await?;
        table.check_ready(&described.ok_or_else(|| table.missing())?)?;
        Ok(table)
    }

    /// A handle to a table that may not be there.
    async fn connect(location: &Location, retention: Retention, usage: Usage) -> Result<Self, TableError> {
        let client = client::load(client::settings(), location).await?;
        Ok(Self::with_client(client, location, retention, usage))
    }

    fn with_client(client: Client, location: &Location, retention: Retention, usage: Usage) -> Self {
        let name = location.table.clone();
        Self(Arc::new(Shared { client, name, retention, caller: Caller::default(), usage }))
    }

    /// How long it keeps messages.
    pub(crate) fn retention(&self) -> Retention {
        self.retention
    }

    /// Fails what is under way through any of the handles, and whatever is asked from now on, at once.
    pub(crate) fn close(&self) {
        self.caller.close();
    }

    /// Asks for something small, to learn whether a table that failed works again.
    ///
    /// # Errors
    /// [`TableError`].
    pub(crate) async fn probe(&self, deadline: Instant) -> Result<(), TableError> {
        let action = "asking whether the table answers";
        let request = self
            .client
            .get_item()
            .table_name(&self.name)
            // No room has such a name.
            .key("room", AttributeValue::S("\u{1}".into()))
            .key("at", AttributeValue::S(String::from("!")))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        match self.caller.call(action, deadline, || request.clone().send()).await {
            Ok(answer) => {
                self.usage.read(answer.consumed_capacity.as_ref());
                Ok(())
            }
            Err(error) => Err(self.failed(action, error)),
        }
    }

    #[cfg(test)]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What DynamoDB knows of the table; `None` where there is none.
    async fn describe(&self, deadline: Instant) -> Result<Option<TableDescription>, TableError> {
        let action = "looking at the table";
        let request = self.client.describe_table().table_name(&self.name);
        match self.caller.call(action, deadline, || request.clone().send()).await {
            Ok(answer) => Ok(answer.table),
            Err(CallError::Refused(DescribeTableError::ResourceNotFoundException(_))) => Ok(None),
            Err(error) => Err(self.failed(action, error)),
        }
    }

    fn check_keys(&self, table: &TableDescription) -> Result<(), TableError> {
        let keys = table.key_schema().iter().map(|key| (key.attribute_name(), key.key_type()));
        let ours = [("room", &KeyType::Hash), ("at", &KeyType::Range)];
        let are_ours = keys.eq(ours);
        are_ours.then_some(()).ok_or_else(|| TableError::Foreign { table: self.name.clone() })
    }

    fn check_ready(&self, table: &TableDescription) -> Result<(), TableError> {
        self.check_keys(table)?;
        match table.table_status() {
            // One that is being changed serves all the while.
            Some(TableStatus::Active | TableStatus::Updating) | None => Ok(()),
            Some(status) => {
                Err(TableError::NotActive { table: self.name.clone(), status: status.as_str().to_owned() })
            }
        }
    }

    /// What a refusal means that nobody waits for: that the table is gone, or something for an
    /// operator.
    fn failed<E>(&self, action: &'static str, error: CallError<E>) -> TableError
    where
        E: aws_sdk_dynamodb::error::ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        match error {
            CallError::Refused(error) if error.code() == Some("ResourceNotFoundException") => self.missing(),
            CallError::Refused(source) => TableError::Refused { action, source: source.into() },
            CallError::Failed(error) => error,
        }
    }

    fn missing(&self) -> TableError {
        TableError::Missing { table: self.name.clone() }
    }

    fn unreadable(&self, room: &RoomName, at: impl Into<String>, reason: Unreadable) -> TableError {
        let (table, room) = (self.name.clone(), room.as_str().to_owned());
        TableError::Unreadable { table, room, at: at.into(), reason: reason.0 }
    }
}
