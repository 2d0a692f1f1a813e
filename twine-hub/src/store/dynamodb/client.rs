//! The connection to DynamoDB: credentials, region, TLS.

use std::sync::OnceLock;

use aws_config::{BehaviorVersion, ConfigLoader, Region};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::SharedHttpClient;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Location, TableError};

/// What AWS's tools would go by here: the environment, the profile, a web identity, the metadata of
/// the container or of the instance. Credentials are asked for with the first call.
pub(super) fn settings() -> ConfigLoader {
    aws_config::defaults(BehaviorVersion::latest())
}

/// A client for this location, with these settings otherwise.
pub(super) async fn load(settings: ConfigLoader, location: &Location) -> Result<Client, TableError> {
    let mut settings = settings
        .http_client(http()?)
        // `call` bounds and repeats what is asked; twice would be once too often.
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::disabled());
    if let Some(region) = &location.region {
        settings = settings.region(Region::new(region.clone()));
    }
    if let Some(endpoint) = &location.endpoint {
        settings = settings.endpoint_url(endpoint);
    }
    let config = settings.load().await;
    if config.region().is_none() {
        return Err(TableError::Region);
    }
    Ok(Client::new(&config))
}

/// HTTP with TLS by rustls, which also goes without.
pub(super) fn http() -> Result<SharedHttpClient, TableError> {
    let tls = TlsContext::builder()
        .with_trust_store(TrustStore::empty().with_pem_certificate(roots()))
        .build()
        .map_err(|source| TableError::Connection { source: source.into() })?;
    Ok(aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(tls)
        .build_https())
}

/// Mozilla's roots, in the form that the SDK takes: a container may have none of its own.
fn roots() -> &'static [u8] {
    static ROOTS: OnceLock<String> = OnceLock::new();
    let pem = ROOTS.get_or_init(|| {
        let mut pem = String::new();
        for certificate in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
            pem.push_str("-----BEGIN CERTIFICATE-----\n");
            STANDARD.encode_string(certificate, &mut pem);
            pem.push_str("\n-----END CERTIFICATE-----\n");
        }
        pem
    });
    pem.as_bytes()
}
