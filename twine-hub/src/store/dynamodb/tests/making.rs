//! Making the table, and finding it.

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TimeToLiveStatus,
};

use super::{Bench, soon};
use crate::store::dynamodb::{Initialized, Table, TableError, Usage, client};
use crate::store::{Retention, StoreError};

pub(super) async fn once(bench: Bench) {
    let table = bench.unmade(Retention::Forever).await;
    // DynamoDB Local has no point-in-time recovery.
    let made = table.make(soon()).await.unwrap();
    assert_eq!(made, Initialized { created: true, recoverable: false });
    let again = table.make(soon()).await.unwrap();
    assert_eq!(again, Initialized { created: false, recoverable: false });

    let described = table.describe(soon()).await.unwrap().unwrap();
    table.check_ready(&described).unwrap();
    let billing = described.billing_mode_summary.unwrap().billing_mode;
    assert_eq!(billing, Some(BillingMode::PayPerRequest));
    let ttl = table.client.describe_time_to_live().table_name(&table.name).send().await.unwrap();
    let ttl = ttl.time_to_live_description.unwrap();
    assert_eq!(ttl.time_to_live_status, Some(TimeToLiveStatus::Enabled));
    assert_eq!(ttl.attribute_name.as_deref(), Some("expires"));
    table.probe(soon()).await.unwrap();
}

pub(super) async fn missing(bench: Bench) {
    let table = bench.unmade(Retention::Forever).await;
    assert!(table.describe(soon()).await.unwrap().is_none());
    let error = table.probe(soon()).await.unwrap_err();
    assert!(matches!(error, TableError::Missing { .. }), "{error:?}");
    let error = StoreError::from(error);
    assert!(error.to_string().contains("twine-hub init-store"), "{error}");
}

/// The profile that is to have them is not there.
pub(super) async fn no_credentials(bench: Bench) {
    let location = bench.location();
    let provider = ProviderConfig::without_region().with_http_client(client::http().unwrap());
    let profile = ProfileFileCredentialsProvider::builder().configure(&provider).profile_name("of-nobody");
    let settings = client::settings().credentials_provider(profile.build());
    let client = client::load(settings, &location).await.unwrap();
    let table = Table::with_client(client, &location, Retention::Forever, Usage::default());
    let error = table.probe(soon()).await.unwrap_err();
    assert!(matches!(error, TableError::NotSent { .. }), "{error:?}");
}

pub(super) async fn foreign(bench: Bench) {
    let table = bench.unmade(Retention::Forever).await;
    let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash).build().unwrap();
    let attribute =
        AttributeDefinition::builder().attribute_name("id").attribute_type(ScalarAttributeType::N);
    let request = table.client.create_table().table_name(&table.name).key_schema(key);
    let request = request.attribute_definitions(attribute.build().unwrap());
    request.billing_mode(BillingMode::PayPerRequest).send().await.unwrap();
    let error = table.make(soon()).await.unwrap_err();
    assert!(matches!(error, TableError::Foreign { .. }), "{error:?}");
}
