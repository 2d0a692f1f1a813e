//! The texts of settings and what they stand for.

use std::path::PathBuf;
use std::time::Duration;

use crate::broker::redis::Target;
use crate::store::{Retention, TableLocation};

/// Which store keeps messages.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreKind {
    /// In this process only: a restart loses everything.
    Memory,
    /// An embedded database in `data_dir`.
    Sqlite,
    /// A table in DynamoDB, which a fleet's hubs share.
    DynamoDb(TableLocation),
}

/// What a hub does of a fleet's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// It takes publishes and holds connections.
    All,
    /// It takes publishes.
    Publish,
    /// It holds connections.
    Edge,
}

impl Role {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Publish => "publish",
            Self::Edge => "edge",
        }
    }
}

/// Who orders messages.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BrokerKind {
    /// This process: the hub is alone.
    Local,
    /// A Redis that a fleet's hubs share.
    Redis(RedisTarget),
}

/// Where a fleet's Redis is, as the setting `broker` says it. It may hold a password, and shows none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisTarget(pub(crate) Target);

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A text that is no value of its setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused(pub(super) String);

/// A setting with one value.
pub(super) fn one<T>(parse: impl Fn(&str) -> Option<T>) -> impl Fn(&[String]) -> Result<T, Refused> {
    move |values| match values {
        [value] => parse(value).ok_or_else(|| Refused(value.clone())),
        several => Err(Refused(several.join(","))),
    }
}

/// A setting that may be left out and then has no value.
pub(super) fn optional<T>(
    parse: impl Fn(&str) -> Option<T>,
) -> impl Fn(&[String]) -> Result<Option<T>, Refused> {
    let parse = one(parse);
    move |values| parse(values).map(Some)
}

/// A setting with any number of values.
pub(super) fn list<T>(parse: impl Fn(&str) -> Option<T>) -> impl Fn(&[String]) -> Result<Vec<T>, Refused> {
    move |values| values.iter().map(|value| parse(value).ok_or_else(|| Refused(value.clone()))).collect()
}

/// A setting with any number of values for which "none" differs from "not set".
pub(super) fn optional_list<T>(
    parse: impl Fn(&str) -> Option<T>,
) -> impl Fn(&[String]) -> Result<Option<Vec<T>>, Refused> {
    let parse = list(parse);
    move |values| parse(values).map(Some)
}

/// Anything that has a `FromStr`.
pub(super) fn parsed<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

pub(super) fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

pub(super) fn store_kind(text: &str) -> Option<StoreKind> {
    match text {
        "sqlite" => Some(StoreKind::Sqlite),
        "memory" => Some(StoreKind::Memory),
        _ => text.parse().ok().map(StoreKind::DynamoDb),
    }
}

pub(super) fn broker_kind(text: &str) -> Option<BrokerKind> {
    match text {
        "local" => Some(BrokerKind::Local),
        _ => Target::parse(text).ok().map(|target| BrokerKind::Redis(RedisTarget(target))),
    }
}

pub(super) fn role(text: &str) -> Option<Role> {
    [Role::All, Role::Publish, Role::Edge].into_iter().find(|role| role.as_str() == text)
}

pub(super) fn log_format(text: &str) -> Option<LogFormat> {
    match text {
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        _ => None,
    }
}

/// A filter as `tracing-subscriber` reads it.
pub(super) fn log_filter(text: &str) -> Option<String> {
    tracing_subscriber::EnvFilter::try_new(text).ok().map(|_| text.to_owned())
}

/// A number of things, at least one.
pub(super) fn count<T: std::str::FromStr + Default + PartialEq>(text: &str) -> Option<T> {
    text.parse().ok().filter(|count| *count != T::default())
}

/// Bytes, at least one: `512B`, `64KiB`, `16MiB`, `2GiB`; a bare number counts bytes.
pub(crate) fn size(text: &str) -> Option<usize> {
    let (number, unit) = split_unit(text);
    let factor: usize = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(factor).filter(|bytes| *bytes > 0)
}

/// A size, or none at all: `off`.
#[expect(clippy::option_option, reason = "whether the text is a value, and which")]
pub(super) fn size_or_off(text: &str) -> Option<Option<usize>> {
    if text == "off" { Some(None) } else { size(text).map(Some) }
}

/// A time, longer than none: `250ms`, `10s`, `2m`, `24h`, `7d`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60 * 1_000,
        "h" => 60 * 60 * 1_000,
        "d" => 24 * 60 * 60 * 1_000,
        _ => return None,
    };
    // A hundred years: far enough, and sums of such times stay far from overflow.
    let longest = Duration::from_hours(100 * 366 * 24);
    let duration = Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(milliseconds)?);
    (!duration.is_zero() && duration <= longest).then_some(duration)
}

/// A time that may also be none: `0s`.
pub(crate) fn duration_or_none(text: &str) -> Option<Duration> {
    if text == "0s" { Some(Duration::ZERO) } else { duration(text) }
}

/// How long a store keeps messages.
pub(super) fn retention(text: &str) -> Option<Retention> {
    if text == "forever" { Some(Retention::Forever) } else { duration(text).map(Retention::For) }
}

fn split_unit(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(size("512"), Some(512));
        assert_eq!(size("512B"), Some(512));
        assert_eq!(size("64KiB"), Some(65_536));
        assert_eq!(size("2GiB"), Some(2 << 30));
        for bad in
            ["", "0", "KiB", "64 KiB", "64KB", "-1", "1.5MiB", "99999999999999999999", "99999999999GiB"]
        {
            assert_eq!(size(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn times_name_their_unit() {
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("24h"), Some(Duration::from_hours(24)));
        assert_eq!(duration("7d"), Some(Duration::from_hours(7 * 24)));
        for bad in ["", "10", "0s", "h", "1 h", "-1s", "1.5h", "10sec", "99999999999d"] {
            assert_eq!(duration(bad), None, "{bad:?}");
        }
        assert_eq!(duration_or_none("0s"), Some(Duration::ZERO));
        assert_eq!(duration_or_none("1s"), Some(Duration::from_secs(1)));
        assert_eq!(duration_or_none("0"), None);
        assert_eq!(retention("forever"), Some(Retention::Forever));
        assert_eq!(retention("1h"), Some(Retention::For(Duration::from_hours(1))));
    }

    #[test]
    fn counts_start_at_one() {
        assert_eq!(count::<usize>("1"), Some(1));
        assert_eq!(count::<u32>("0"), None);
        assert_eq!(count::<u32>("-1"), None);
    }
}
