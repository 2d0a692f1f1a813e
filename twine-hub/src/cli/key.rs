//! The API key of the commands that publish.

use super::{Failure, chain};
use crate::auth;
use crate::config::Config;

/// The key that a hub of the same configuration takes.
pub(super) fn key(config: &Config) -> Result<String, Failure> {
    let first = match (&config.api_key.first(), &config.api_key_file) {
        (Some(key), _) => return Ok(key.expose().to_owned()),
        (None, Some(path)) => auth::keys_of_file(path),
        (None, None) => auth::keys_of_file(&config.data_dir.join("api-key")),
    };
    let keys = first.map_err(|error| {
        Failure::Failed(format!("no API key: {}; set TWINE_API_KEY or --api-key", chain(&error)))
    })?;
    Ok(keys.first().map(|key| key.expose().to_owned()).unwrap_or_default())
}
