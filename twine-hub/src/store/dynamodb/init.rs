//! Making the table.

use std::time::Duration;

use aws_sdk_dynamodb::error::ProvideErrorMetadata as _;
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::operation::update_continuous_backups::UpdateContinuousBackupsError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, PointInTimeRecoverySpecification,
    PointInTimeRecoveryStatus, ScalarAttributeType, TableStatus, TimeToLiveSpecification, TimeToLiveStatus,
};
use tokio::time::{Instant, sleep_until};

use super::call::CallError;
use super::{Location, Table, TableError, Usage};
use crate::store::Retention;

/// How often it is asked whether the table is ready.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What [`Table::init`] found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Initialized {
    /// Whether there was no table before.
    pub(crate) created: bool,
    /// Whether point-in-time recovery is on. DynamoDB Local has none.
    pub(crate) recoverable: bool,
}

impl Table {
    /// Makes the table, billed by what is asked of it, with time to live and point-in-time recovery;
    /// of one that is there already, adds what is missing. Waits until it can be used.
    ///
    /// # Errors
    /// [`TableError`]. It may be repeated.
    pub(crate) async fn init(location: &Location, deadline: Instant) -> Result<Initialized, TableError> {
        let table = Self::connect(location, Retention::Forever, Usage::default()).await?;
        table.make(deadline).await
    }

    pub(super) async fn make(&self, deadline: Instant) -> Result<Initialized, TableError> {
        let created = match self.describe(deadline).await? {
            Some(_) => false,
            None => self.create(deadline).await?,
        };
        self.wait_until_active(deadline).await?;
        self.let_items_expire(deadline).await?;
        let recoverable = self.make_recoverable(deadline).await?;
        Ok(Initialized { created, recoverable })
    }

    /// Whether this call made it, and no other.
    async fn create(&self, deadline: Instant) -> Result<bool, TableError> {
        let action = "making the table";
        let wrong = |source: aws_sdk_dynamodb::error::BuildError| TableError::Refused {
            action,
            source: source.into(),
        };
        let mut request =
            self.client.create_table().table_name(&self.name).billing_mode(BillingMode::PayPerRequest);
        for (name, role) in [("room", KeyType::Hash), ("at", KeyType::Range)] {
            let key = KeySchemaElement::builder().attribute_name(name).key_type(role);
            let attribute =
                AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S);
            request = request
                .key_schema(key.build().map_err(wrong)?)
                .attribute_definitions(attribute.build().map_err(wrong)?);
        }
        match self.caller.call(action, deadline, || request.clone().send()).await {
            Ok(_) => Ok(true),
            // Another call did, or an earlier attempt of this one.
            Err(CallError::Refused(CreateTableError::ResourceInUseException(_))) => Ok(false),
            Err(error) => Err(self.failed(action, error)),
        }
    }

    async fn wait_until_active(&self, deadline: Instant) -> Result<(), TableError> {
        let started = Instant::now();
        loop {
            let next = Instant::now() + LOOK_EVERY;
            if let Some(table) = self.describe(deadline).await? {
                self.check_keys(&table)?;
                match table.table_status() {
                    Some(TableStatus::Active) => return Ok(()),
                    Some(TableStatus::Creating | TableStatus::Updating) | None => {}
                    Some(_) => self.check_ready(&table)?,
                }
            }
            if next >= deadline {
                let (table, after) = (self.name.clone(), deadline - started);
                return Err(TableError::NotReady { table, after });
            }
            sleep_until(next).await;
        }
    }

    async fn let_items_expire(&self, deadline: Instant) -> Result<(), TableError> {
        let action = "looking at the table's time to live";
        let request = self.client.describe_time_to_live().table_name(&self.name);
        let present = match self.caller.call(action, deadline, || request.clone().send()).await {
            Ok(answer) => answer.time_to_live_description,
            Err(error) => return Err(self.failed(action, error)),
        };
        let status = present.and_then(|present| present.time_to_live_status);
        if let Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling) = status {
            return Ok(());
        }
        let action = "setting the table's time to live";
        let ttl = TimeToLiveSpecification::builder().enabled(true).attribute_name("expires");
        let ttl = ttl.build().map_err(|source| TableError::Refused { action, source: source.into() })?;
        let request =
            self.client.update_time_to_live().table_name(&self.name).time_to_live_specification(ttl);
        match self.caller.call(action, deadline, || request.clone().send()).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed(action, error)),
        }
    }

    /// Whether it is; `false` where there is no such thing.
    async fn make_recoverable(&self, deadline: Instant) -> Result<bool, TableError> {
        let action = "looking at the table's backups";
        let request = self.client.describe_continuous_backups().table_name(&self.name);
        let present = match self.caller.call(action, deadline, || request.clone().send()).await {
            Ok(answer) => answer.continuous_backups_description,
            // DynamoDB Local.
            Err(CallError::Refused(error)) if error.code() == Some(UNKNOWN_OPERATION) => return Ok(false),
            Err(error) => return Err(self.failed(action, error)),
        };
        let recovery = present.and_then(|present| present.point_in_time_recovery_description);
        let status = recovery.and_then(|recovery| recovery.point_in_time_recovery_status);
        if status == Some(PointInTimeRecoveryStatus::Enabled) {
            return Ok(true);
        }
        let action = "turning the table's point-in-time recovery on";
        let recovery = PointInTimeRecoverySpecification::builder().point_in_time_recovery_enabled(true);
        let recovery =
            recovery.build().map_err(|source| TableError::Refused { action, source: source.into() })?;
        let request = self
            .client
            .update_continuous_backups()
            .table_name(&self.name)
            .point_in_time_recovery_specification(recovery);
        match self.caller.call(action, deadline, || request.clone().send()).await {
            Ok(_) => Ok(true),
            Err(error) => Err(self.failed::<UpdateContinuousBackupsError>(action, error)),
        }
    }
}

/// What a DynamoDB without an operation says of it.
const UNKNOWN_OPERATION: &str = "UnknownOperationException";
