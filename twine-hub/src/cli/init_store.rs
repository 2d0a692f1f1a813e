//! `twine-hub init-store`: makes the table that a fleet keeps its messages in.

use std::time::Duration;

use tokio::time::Instant;

use super::{Failure, chain, print};
use crate::config::{Config, StoreKind};
use crate::store::dynamodb::{Initialized, Table};

/// How long DynamoDB may take to make a table: half a minute as a rule.
const PATIENCE: Duration = Duration::from_mins(3);

pub(super) fn run(config: &Config) -> Result<(), Failure> {
    let StoreKind::DynamoDb(location) = &config.store else {
        return Err(Failure::Usage(
            "`store` is no table in DynamoDB, and needs no making; set it to dynamodb:TABLE".into(),
        ));
    };
    let failed = |error: &dyn std::error::Error| Failure::Failed(chain(error));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| failed(&error))?;
    let made = runtime.block_on(async { Table::init(location, Instant::now() + PATIENCE).await });
    let Initialized { created, recoverable } = made.map_err(|error| failed(&error))?;
    print(if created { "made the table" } else { "the table is there" })?;
    if !recoverable {
        print("it has no point-in-time recovery: this DynamoDB offers none")?;
    }
    Ok(())
}
