//! Why the table did not do it.

use std::error::Error;
use std::time::Duration;

/// Why DynamoDB, or the table in it, did not do what it was asked. Publishers are told to come back:
/// with the same id a publish may be repeated after any of these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// It can't be reached, is slow, throttles, or fails. It was asked again until the time was up;
    /// hubs go on asking, and go on by themselves.
    #[error("DynamoDB was not to be had while {action}, in {attempts} attempts")]
    Unavailable {
        /// What the hub was doing.
        action: &'static str,
        /// How often it was asked.
        attempts: u32,
        /// What came of the last attempt.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The hub waits for as many answers as it may, and none came in time.
    #[error("DynamoDB answers more slowly than it is asked, while {action}")]
    Overloaded {
        /// What the hub was doing.
        action: &'static str,
    },
    /// It refused, and would again: the hub may not do it, or the account's limits are reached.
    #[error("DynamoDB refused it while {action}; see what it says, and what the hub's role may do")]
    Refused {
        /// What the hub was doing.
        action: &'static str,
        /// What it said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Nothing could be sent: there are no credentials, or they can't be had at present.
    #[error("nothing could be asked of DynamoDB while {action}; are there AWS credentials for the hub?")]
    NotSent {
        /// What the hub was doing.
        action: &'static str,
        /// What is missing.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The hub is shutting down.
    #[error("the connection to DynamoDB is closed, for the hub is shutting down")]
    Closed,
    /// No region is known.
    #[error("no AWS region is set; add `?region=...` to the store, or set AWS_REGION")]
    Region,
    /// The connection can't be set up on this machine.
    #[error("the connection to DynamoDB can't be set up")]
    Connection {
        /// What is wrong.
        source: Box<dyn Error + Send + Sync>,
    },
    /// There is no such table.
    #[error("there is no table {table}; `twine-hub init-store` makes it")]
    Missing {
        /// Its name.
        table: String,
    },
    /// The table belongs to something else.
    #[error(
        "the table {table} has other keys than Twine's (`room` and `at`, both texts); name another table"
    )]
    Foreign {
        /// Its name.
        table: String,
    },
    /// The table is being made or deleted.
    #[error("the table {table} is {status} and can't be used; wait, or look at it in the console")]
    NotActive {
        /// Its name.
        table: String,
        /// What DynamoDB calls its state.
        status: String,
    },
    /// It took too long until the table was ready.
    #[error("the table {table} was not ready within {after:?}; run `twine-hub init-store` again")]
    NotReady {
        /// Its name.
        table: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// An item that no hub wrote so. Remove it, or run a newer hub where one has written it.
    #[error("the item {at} of room {room} in the table {table} can't be read: {reason}")]
    Unreadable {
        /// The table's name.
        table: String,
        /// The item's partition key.
        room: String,
        /// The item's sort key.
        at: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}
