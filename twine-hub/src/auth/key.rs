//! API keys: what backends publish with.

use std::fmt;
use std::str::FromStr;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// A secret that a backend shows to publish: 1 to 255 visible ASCII characters, no comma.
///
/// Compared in constant time, and shown neither by `Debug` nor in any log.
///
/// ```
/// use twine_hub::ApiKey;
///
/// let key: ApiKey = "correct-horse-battery-staple".parse()?;
/// assert_eq!(format!("{key:?}"), "ApiKey(********)");
/// assert!("with space".parse::<ApiKey>().is_err());
/// # Ok::<(), twine_hub::InvalidKey>(())
/// ```
#[derive(Clone)]
pub struct ApiKey(String);

/// Why a text is no API key. It does not repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an API key has 1 to 255 visible ASCII characters and no comma")]
pub struct InvalidKey;

/// All keys of a hub.
#[derive(Debug, Clone)]
pub(crate) struct ApiKeys(Vec<Digest>);

/// Why a request may not use `/api`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyRefusal {
    /// It shows no key.
    Missing,
    /// It shows one that is not a key of this hub.
    Invalid,
}

impl ApiKey {
    /// The longest key, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// A fresh key of 256 random bits.
    ///
    /// # Errors
    /// Where the operating system gives no random bytes.
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).map_err(std::io::Error::from)?;
        let mut text = String::from("twine_");
        for byte in bytes {
            text.push(hex(byte >> 4));
            text.push(hex(byte & 15));
        }
        Ok(Self(text))
    }

    /// The secret itself, to hand it to a client.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

fn hex(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0')
}

impl FromStr for ApiKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let fits = (1..=Self::MAX_BYTES).contains(&text.len());
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
        if fits && plain { Ok(Self(text.to_owned())) } else { Err(InvalidKey) }
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(********)")
    }
}

impl ApiKeys {
    pub(crate) fn new<'a>(keys: impl IntoIterator<Item = &'a ApiKey>) -> Self {
        Self(keys.into_iter().map(|key| Digest::of(key.0.as_bytes())).collect())
    }

    /// Checks `Authorization: Bearer KEY`.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), KeyRefusal> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => self.check_value(value.as_bytes()),
            _ => Err(KeyRefusal::Missing),
        }
    }

    /// Checks the value of the one `Authorization` header.
    pub(crate) fn check_value(&self, value: &[u8]) -> Result<(), KeyRefusal> {
        let (scheme, key) = match value.iter().position(|byte| *byte == b' ') {
            Some(space) => value.split_at(space),
            None => return Err(KeyRefusal::Missing),
        };
        if !scheme.eq_ignore_ascii_case(b"bearer") {
            return Err(KeyRefusal::Missing);
        }
        let shown = key.trim_ascii();
        if shown.len() > ApiKey::MAX_BYTES {
            return Err(KeyRefusal::Invalid);
        }
        // Every key is compared, and each in full, so that time tells nothing about any of them.
        let shown = Digest::of(shown);
        let found = self.0.iter().fold(Choice::from(0), |found, key| found | key.0.ct_eq(&shown.0));
        if bool::from(found) { Ok(()) } else { Err(KeyRefusal::Invalid) }
    }
}

/// The SHA-256 of a key: comparing two tells neither what a key is nor how long.
#[derive(Clone)]
struct Digest([u8; 32]);

impl Digest {
    fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("********")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: Option<&str>) -> Result<(), KeyRefusal> {
        let keys: Vec<ApiKey> = vec!["first-key".parse().unwrap(), "second-key".parse().unwrap()];
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(AUTHORIZATION, header.parse().unwrap());
        }
        ApiKeys::new(&keys).check(&headers)
    }

    #[test]
    fn any_key_of_the_hub_opens_and_nothing_else_does() {
        assert_eq!(check(Some("Bearer first-key")), Ok(()));
        assert_eq!(check(Some("bearer  second-key ")), Ok(()));
        for missing in [None, Some(""), Some("first-key"), Some("Basic first-key")] {
            assert_eq!(check(missing), Err(KeyRefusal::Missing), "{missing:?}");
        }
        let long = format!("Bearer first-key{}", "x".repeat(400));
        for invalid in ["Bearer ", "Bearer first", "Bearer first-keyx", "Bearer FIRST-KEY", long.as_str()] {
            assert_eq!(check(Some(invalid)), Err(KeyRefusal::Invalid), "{invalid:?}");
        }
    }

    #[test]
    fn two_authorizations_are_none() {
        let key: ApiKey = "first-key".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.append(AUTHORIZATION, "Bearer first-key".parse().unwrap());
        headers.append(AUTHORIZATION, "Bearer first-key".parse().unwrap());
        assert_eq!(ApiKeys::new([&key]).check(&headers), Err(KeyRefusal::Missing));
    }

    #[test]
    fn a_random_key_is_a_key_and_new_each_time() {
        let (one, two) = (ApiKey::random().unwrap(), ApiKey::random().unwrap());
        assert_ne!(one.expose(), two.expose());
        assert_eq!(one.expose().len(), "twine_".len() + 64);
        assert!(one.expose().parse::<ApiKey>().is_ok());
    }
}
