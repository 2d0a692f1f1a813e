//! Where a table is: `dynamodb:TABLE?region=REGION&endpoint=URL`.

use std::fmt;
use std::str::FromStr;

use http::Uri;

/// A table, and how it is reached. What is not said is for the AWS configuration of this machine to
/// say: environment, profile, the container's or the instance's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    pub(super) table: String,
    pub(super) region: Option<String>,
    pub(super) endpoint: Option<String>,
}

/// Why a text is no [`Location`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidLocation {
    /// It is not about DynamoDB.
    #[error("it does not begin with `dynamodb:`")]
    Scheme,
    /// DynamoDB has no table of such a name.
    #[error("a table's name has 3 to 255 letters, digits, `_`, `-` and `.`, unlike {found:?}")]
    Table {
        /// What stands in its place.
        found: String,
    },
    /// Nothing else can be told than `region` and `endpoint`.
    #[error(
        "{found:?} is unknown; `region=...` and `endpoint=...` may follow the table, with `&` between them"
    )]
    Parameter {
        /// What stands there.
        found: String,
    },
    /// Twice the same parameter.
    #[error("`{name}` is given twice")]
    Twice {
        /// Which.
        name: &'static str,
    },
    /// No region has such a name.
    #[error("a region is a name like eu-central-1, unlike {found:?}")]
    Region {
        /// What stands in its place.
        found: String,
    },
    /// Not an address.
    #[error("an endpoint is an address like http://127.0.0.1:8000, without a path, unlike {found:?}")]
    Endpoint {
        /// What stands in its place.
        found: String,
    },
}

impl FromStr for Location {
    type Err = InvalidLocation;

    fn from_str(text: &str) -> Result<Self, InvalidLocation> {
        let rest = text.strip_prefix("dynamodb:").ok_or(InvalidLocation::Scheme)?;
        let (table, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if !(3..=255).contains(&table.len()) || !table.chars().all(is_name) {
            return Err(InvalidLocation::Table { found: table.to_owned() });
        }
        let mut location = Self { table: table.to_owned(), region: None, endpoint: None };
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, place, value) = match parameter.split_once('=') {
                Some(("region", value)) => ("region", &mut location.region, region(value)?),
                Some(("endpoint", value)) => ("endpoint", &mut location.endpoint, endpoint(value)?),
                _ => return Err(InvalidLocation::Parameter { found: parameter.to_owned() }),
            };
            if place.replace(value).is_some() {
                return Err(InvalidLocation::Twice { name });
            }
        }
        Ok(location)
    }
}

fn region(text: &str) -> Result<String, InvalidLocation> {
    let is_name = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    is_name.then(|| text.to_owned()).ok_or_else(|| InvalidLocation::Region { found: text.to_owned() })
}

fn endpoint(text: &str) -> Result<String, InvalidLocation> {
    let refused = || InvalidLocation::Endpoint { found: text.to_owned() };
    let uri: Uri = text.parse().map_err(|_| refused())?;
    let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
    let is_bare = uri.path() == "/" && uri.query().is_none();
    (is_web && is_bare && uri.host().is_some_and(|host| !host.is_empty()))
        .then(|| text.trim_end_matches('/').to_owned())
        .ok_or_else(refused)
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dynamodb:{}", self.table)?;
        let parameters = [("region", &self.region), ("endpoint", &self.endpoint)];
        let given = parameters.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        for ((name, value), separator) in given.zip(['?', '&']) {
            write!(f, "{separator}{name}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_may_say_its_region_and_its_endpoint() {
        for text in [
            "dynamodb:twine",
            "dynamodb:my.twine_table-2?region=eu-central-1",
            "dynamodb:twine?endpoint=http://127.0.0.1:8000",
            "dynamodb:twine?region=us-east-1&endpoint=https://vpce-1.dynamodb.us-east-1.vpce.amazonaws.com",
        ] {
            assert_eq!(text.parse::<Location>().unwrap().to_string(), text);
        }
        let same: Location = "dynamodb:twine?endpoint=http://[::1]:8000/&region=x".parse().unwrap();
        assert_eq!(same.to_string(), "dynamodb:twine?region=x&endpoint=http://[::1]:8000");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |text: &str| text.parse::<Location>().unwrap_err();
        assert_eq!(refused("sqlite"), InvalidLocation::Scheme);
        assert_eq!(refused("dynamodb:"), InvalidLocation::Table { found: String::new() });
        assert_eq!(refused("dynamodb:a b c"), InvalidLocation::Table { found: "a b c".into() });
        assert_eq!(refused("dynamodb:abc?regoin=x"), InvalidLocation::Parameter { found: "regoin=x".into() });
        assert_eq!(refused("dynamodb:abc?region=x&region=y"), InvalidLocation::Twice { name: "region" });
        assert_eq!(refused("dynamodb:abc?region="), InvalidLocation::Region { found: String::new() });
        for bad in ["localhost:8000", "ftp://x", "http://", "http://x/path", "http://x?y"] {
            assert_eq!(
                refused(&format!("dynamodb:abc?endpoint={bad}")),
                InvalidLocation::Endpoint { found: bad.into() }
            );
        }
    }
}
