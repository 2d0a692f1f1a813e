//! The one definition of every setting.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::value::{
    self, BrokerKind, LogFormat, Refused, Role, StoreKind, list, one, optional, optional_list, parsed,
};
use crate::auth::{ApiKey, Origin};
use crate::store::dynamodb::MAX_DATA;
use crate::store::page::Recovery;
use crate::store::{self, Retention};
use crate::{connection, rooms, session};

/// What is known of a setting beside its type.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The key in `twine.toml`. The flag and the environment variable are spelled after it.
    pub(crate) name: &'static str,
    /// What it means, in a sentence or two.
    pub(crate) help: &'static str,
    /// The value where nothing is set, as one would write it; `None` where there is none.
    pub(crate) default: Option<&'static str>,
    /// What a value may be.
    pub(crate) allowed: &'static str,
    /// How many values it takes, and whether they may be shown.
    pub(crate) form: Form,
    apply: fn(&mut Config, &[String]) -> Result<(), Refused>,
}

/// The form of a setting's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One value.
    One,
    /// Any number of values.
    List,
    /// One value, which is shown to nobody where it holds a password.
    Secret,
    /// Any number of values that are shown to nobody.
    Secrets,
}

impl Form {
    /// Whether what it holds is shown to nobody.
    pub(crate) fn is_secret(self) -> bool {
        matches!(self, Self::Secret | Self::Secrets)
    }
}

impl Setting {
    /// The environment variable, `TWINE_MAX_DATA`.
    pub(crate) fn variable(&self) -> String {
        format!("TWINE_{}", self.name.to_ascii_uppercase())
    }

    /// The flag without its dashes, `max-data`.
    pub(crate) fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// Puts a value into `config`, or names the text that is none.
    pub(super) fn apply(&self, config: &mut Config, values: &[String]) -> Result<(), Refused> {
        (self.apply)(config, values)
    }
}

macro_rules! settings {
    ($(
        $(#[doc = $help:literal])+
        $name:ident: $type:ty = $default:tt, $form:ident, $parse:expr, $allowed:literal;
    )*) => {
        /// What a hub is told at its start: every setting of `docs/CONFIGURATION.md`, checked.
        ///
        /// ```
        /// use twine_hub::Config;
        ///
        /// let mut config = Config::default();
        /// config.max_data = 16 << 10;
        /// assert_eq!(config.listen.port(), 7070);
        /// ```
        #[derive(Debug, Clone)]
        #[non_exhaustive]
        pub struct Config {
            $($(#[doc = $help])+ pub $name: $type,)*
        }

        /// Every setting, in the order of `docs/CONFIGURATION.md`.
        pub(crate) const SETTINGS: &[Setting] = &[$(Setting {
            name: stringify!($name),
            help: concat!($($help),+),
            default: settings!(@text $default),
            allowed: $allowed,
            form: Form::$form,
            apply: |config, values| {
                config.$name = $parse(values)?;
                Ok(())
            },
        }),*];

        impl Default for Config {
            // The defaults are constants of this file, and a unit test reads them all.
            #[allow(clippy::expect_used)]
            fn default() -> Self {
                Self { $($name: settings!(@value $default, $parse),)* }
            }
        }
    };
    (@text none) => { None };
    (@text $default:literal) => { Some($default) };
    (@value none, $parse:expr) => { Default::default() };
    (@value $default:literal, $parse:expr) => {
        $parse(&[$default.to_owned()]).expect("defaults are valid")
    };
}

settings! {
    /// Where the hub listens. Port 0 takes a free one.
    listen: SocketAddr = "127.0.0.1:7070", One, one(parsed),
        "an IP address and a port, like 127.0.0.1:7070 or [::]:7070";
    /// Where the hub tells HAProxy how much it can take (`agent-check`). Without it, nowhere.
    agent_listen: Option<SocketAddr> = none, One, optional(parsed),
        "an IP address and a port, like 10.0.0.7:7071";
    /// What this hub does: `publish` takes publishes, `edge` holds connections, `all` does both.
    role: Role = "all", One, one(value::role), "all, publish or edge";
    /// The folder that the hub keeps its files in; made if missing.
    data_dir: PathBuf = "./twine-data", One, one(value::path), "a folder";
    /// Keys that backends publish with. Without any, one is made and kept in `data_dir`/api-key.
    api_key: Vec<ApiKey> = none, Secrets, list(parsed),
        "keys of 1 to 255 visible ASCII characters without commas";
    /// A file with further keys, one a line: for secrets that are mounted as files.
    api_key_file: Option<PathBuf> = none, One, optional(value::path), "a file";
    /// Origins of pages that may connect. When set, no other may.
    allowed_origins: Option<Vec<Origin>> = none, List, optional_list(parsed),
        "origins like https://app.example.com or http://localhost:3000, without a path";
    /// The address that browsers reach the hub at. An https one makes its cookies secure.
    public_url: Option<Origin> = none, One, optional(Origin::parse_web),
        "an address like https://rt.example.com, without a path";
    /// Who orders messages: `local`, this hub, which is alone then; or a Redis (version 7 or later, or Valkey) that the hubs of a fleet share.
    broker: BrokerKind = "local", Secret, one(value::broker_kind),
        "local, redis://host:port, redis-cluster://host1,host2 or redis-sentinel://host1,host2/master; rediss for TLS, user:password@ before the hosts";
    /// How long a message stays in Redis after it was stored, for hubs to read there; never longer than `store_retention` and `recovery_max_age`.
    broker_log_age: Duration = "2m", One, one(value::duration), "a time like 2m";
    /// Messages of a room that stay in Redis after they were stored, at most; about, for they go 16 at a time.
    broker_log_messages: usize = "10000", One, one(value::count), "a number from 1";
    /// What keeps messages and sessions: `sqlite`, databases in `data_dir`; `memory`, gone at a restart; or, for a fleet, a table in DynamoDB, beside which sessions are in the broker's Redis.
    store: StoreKind = "sqlite", One, one(value::store_kind),
        "sqlite, memory or dynamodb:TABLE?region=...&endpoint=...";
    /// How long messages are kept.
    store_retention: Retention = "24h", One, one(value::retention), "a time like 24h or 7d, or forever";
    /// Messages, ids and rooms that the store `memory` keeps in all; the oldest messages go first.
    store_memory: usize = "256MiB", One, one(value::size), "a size like 256MiB";
    /// How long a publish with the same id is recognised; never longer than `store_retention`.
    idempotency_window: Duration = "10m", One, one(value::duration), "a time like 10m";
    /// Recent messages kept in memory, all rooms together.
    tail_bytes: usize = "256MiB", One, one(value::size), "a size like 256MiB";
    /// How long a message stays in memory; never longer than `store_retention` and `recovery_max_age`.
    tail_age: Duration = "2m", One, one(value::duration), "a time like 2m";
    /// Publishes that may wait for the store, in bytes; more are refused.
    max_pending_bytes: usize = "64MiB", One, one(value::size), "a size like 64MiB";
    /// Messages of so many bytes go compressed to clients that take it (`permessage-deflate`); `off` for none.
    compress_from: Option<usize> = "1KiB", One, one(value::size_or_off), "a size like 1KiB, or off";
    /// WebSocket connections at once; more are refused.
    max_connections: usize = "100000", One, one(value::count), "a number from 1";
    /// WebSocket connections that may wait for their sessions or for the store; while so many do, new ones are told to come later.
    max_waiting: usize = "10000", One, one(value::count), "a number from 1";
    /// HTTP connections at once, beside those of `/ws`; more wait to be accepted.
    max_http_connections: usize = "4096", One, one(value::count), "a number from 1";
    /// Rooms that one connection may be subscribed to.
    max_rooms_per_connection: usize = "1000", One, one(value::count), "a number from 1";
    /// The largest frame that a client may send.
    max_frame: usize = "64KiB", One, one(value::size), "a size like 64KiB";
    /// The largest `data` of a message.
    max_data: usize = "64KiB", One, one(value::size), "a size like 64KiB";
    /// The largest body of a request.
    max_body: usize = "1MiB", One, one(value::size), "a size like 1MiB";
    /// Messages of one batch, and rooms of one publish.
    max_batch: usize = "1000", One, one(value::count), "a number from 1";
    /// Messages that one request for history, or `history` of a subscribe, may ask for.
    max_history: u32 = "1000", One, one(value::count), "a number from 1";
    /// Messages that a subscriber who comes back is brought, at most; it is told what lies before.
    recovery_max_messages: u64 = "100000", One, one(value::count), "a number from 1";
    /// How old the messages may be that a subscriber who comes back is brought; it is told what lies before.
    recovery_max_age: Duration = "24h", One, one(value::duration), "a time like 24h";
    /// How long a session is kept after its connection has ended.
    session_lifetime: Duration = "24h", One, one(value::duration), "a time like 24h";
    /// Sessions kept in all, by a fleet together; those that ended longest ago go first.
    max_sessions: usize = "250000", One, one(value::count), "a number from 1";
    /// Sessions kept of one cookie; those that ended longest ago go first, then the oldest.
    max_sessions_per_cookie: usize = "50", One, one(value::count), "a number from 1";
    /// Rooms kept of one session; the oldest go first.
    max_rooms_per_session: usize = "256", One, one(value::count), "a number from 1";
    /// New sessions kept of one public address in a minute; 0 stands for any number.
    max_new_sessions: u32 = "600", One, one(parsed), "a number; 0 for no limit";
    /// How long a client has for its `connect` frame.
    connect_timeout: Duration = "10s", One, one(value::duration), "a time like 10s";
    /// Time between two pings.
    heartbeat: Duration = "25s", One, one(value::duration), "a time like 25s";
    /// How long a socket may take no byte before it is closed.
    write_timeout: Duration = "30s", One, one(value::duration), "a time like 30s";
    /// How long the head of a request may take, and how long an idle HTTP connection stays open.
    header_timeout: Duration = "30s", One, one(value::duration), "a time like 30s";
    /// How long the body of a request may take.
    request_timeout: Duration = "30s", One, one(value::duration), "a time like 30s";
    /// Time over which the clients of a stopping hub are told to go, each at a random moment of it; `0s` tells all at once.
    drain_window: Duration = "0s", One, one(value::duration_or_none), "a time like 5s; 0s for none";
    /// How long a stopping hub waits for requests and connections to end, `drain_window` included.
    shutdown_grace: Duration = "8s", One, one(value::duration), "a time like 8s";
    /// Memory that this hub may use, for `/load`. Without it, what the container or the machine has.
    memory_limit: Option<usize> = none, One, optional(value::size), "a size like 2GiB";
    /// Threads that own connections; 0 stands for one a core.
    shards: usize = "0", One, one(parsed), "a number; 0 for one a core";
    /// What is logged: a level, or levels by module.
    log: String = "info", One, one(value::log_filter),
        "error, warn, info, debug or trace, or a filter like info,twine_hub::http=debug";
    /// How log lines look.
    log_format: LogFormat = "text", One, one(value::log_format), "text or json";
}

/// Two settings that exclude each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Conflict {
    /// No body could hold the largest `data`.
    #[error(
        "`max_body` ({max_body} bytes) is below `max_data` ({max_data} bytes): raise it, or lower `max_data`"
    )]
    BodyBelowData {
        /// The setting `max_body`.
        max_body: usize,
        /// The setting `max_data`.
        max_data: usize,
    },
    /// An id can't be recognised longer than its message is kept.
    #[error(
        "`idempotency_window` ({window:?}) is longer than `store_retention` ({retention:?}): lower it, or raise \
         `store_retention`"
    )]
    WindowBeyondRetention {
        /// The setting `idempotency_window`.
        window: Duration,
        /// The setting `store_retention`.
        retention: Duration,
    },
    /// A hub that is the only one has to do everything.
    #[error(
        "`role` is `{}`, and nobody does the rest: with a broker of its own a hub is the only one; set `role` to \
         `all`, or have several hubs share a broker",
        role.as_str()
    )]
    RoleAlone {
        /// The setting `role`.
        role: Role,
    },
    /// Clients would be told to go until the hub has ended, and requests would have no time.
    #[error(
        "`drain_window` ({window:?}) leaves nothing of `shutdown_grace` ({grace:?}): lower it, or raise \
         `shutdown_grace`"
    )]
    DrainBeyondGrace {
        /// The setting `drain_window`.
        window: Duration,
        /// The setting `shutdown_grace`.
        grace: Duration,
    },
    /// Hubs that share a Redis have to share what keeps the messages.
    #[error("`broker` is a Redis, and `store` is this hub's own: set it to dynamodb:TABLE")]
    StoreNotShared,
    /// A table's item holds no larger message.
    #[error("`max_data` ({max_data} bytes) is more than DynamoDB can keep: lower it to {} or less", MAX_DATA)]
    DataBeyondItem {
        /// The setting `max_data`.
        max_data: usize,
    },
    /// Hubs that share a table have to agree on an order.
    #[error("`store` is a table in DynamoDB, and `broker` is local: set it to the Redis of the fleet")]
    BrokerNotShared,
}

impl Config {
    /// Checks what no setting can say by itself.
    pub(crate) fn conflicts(&self) -> Vec<Conflict> {
        let &Self { max_body, max_data, idempotency_window: window, .. } = self;
        let mut conflicts = Vec::new();
        if max_body < max_data {
            conflicts.push(Conflict::BodyBelowData { max_body, max_data });
        }
        if let Retention::For(retention) = self.store_retention
            && window > retention
        {
            conflicts.push(Conflict::WindowBeyondRetention { window, retention });
        }
        if self.role != Role::All && self.broker == BrokerKind::Local {
            conflicts.push(Conflict::RoleAlone { role: self.role });
        }
        let &Self { drain_window: window, shutdown_grace: grace, .. } = self;
        if !window.is_zero() && window >= grace {
            conflicts.push(Conflict::DrainBeyondGrace { window, grace });
        }
        match (&self.broker, &self.store) {
            (BrokerKind::Local, StoreKind::DynamoDb(_)) => conflicts.push(Conflict::BrokerNotShared),
            (BrokerKind::Redis(_), StoreKind::Memory | StoreKind::Sqlite) => {
                conflicts.push(Conflict::StoreNotShared);
            }
            (BrokerKind::Local, _) | (BrokerKind::Redis(_), StoreKind::DynamoDb(_)) => {}
        }
        if matches!(self.store, StoreKind::DynamoDb(_)) && max_data > MAX_DATA {
            conflicts.push(Conflict::DataBeyondItem { max_data });
        }
        conflicts
    }

    /// What `rooms` needs to know.
    pub(crate) fn rooms(&self) -> rooms::Options {
        let kept = match self.store_retention {
            Retention::For(kept) => kept,
            Retention::Forever => Duration::MAX,
        };
        rooms::Options {
            tail_bytes: self.tail_bytes,
            // What is in memory is delivered from there without a look at its age.
            tail_age: self.tail_age.min(self.recovery_max_age).min(kept),
            log_age: self.broker_log_age.min(self.recovery_max_age).min(kept),
            log_messages: self.broker_log_messages,
            idempotency_window: self.idempotency_window,
            max_pending_bytes: self.max_pending_bytes,
            compress_from: self.compress_from.unwrap_or(usize::MAX),
        }
    }

    /// What `connection` needs to know.
    pub(crate) fn connections(&self) -> connection::Options {
        connection::Options {
            shards: self.shards,
            max_connections: self.max_connections,
            max_waiting: self.max_waiting,
            connect_timeout: self.connect_timeout,
            heartbeat: self.heartbeat,
            max_frame: self.max_frame,
            max_rooms: self.max_rooms_per_connection,
            max_history: self.max_history,
            recovery: Recovery { max_messages: self.recovery_max_messages, max_age: self.recovery_max_age },
            write_timeout: self.write_timeout,
            max_session_rooms: self.max_rooms_per_session,
        }
    }

    /// What `session` needs to know.
    pub(crate) fn sessions(&self) -> session::Options {
        session::Options {
            lifetime: self.session_lifetime,
            max_sessions: self.max_sessions,
            max_per_cookie: self.max_sessions_per_cookie,
            max_rooms: self.max_rooms_per_session,
            max_new_per_minute: self.max_new_sessions,
        }
    }

    /// What `store` needs to know.
    pub(crate) fn store(&self) -> store::Options {
        let kind = match &self.store {
            // What a fleet does not share, a hub has to itself and may lose.
            StoreKind::Memory | StoreKind::DynamoDb(_) => {
                store::Kind::Memory { max_bytes: self.store_memory }
            }
            StoreKind::Sqlite => store::Kind::Sqlite { data_dir: self.data_dir.clone() },
        };
        store::Options { kind, retention: self.store_retention }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_of_its_setting() {
        let mut config = Config::default();
        for setting in SETTINGS {
            if let Some(default) = setting.default {
                setting.apply(&mut config, &[default.to_owned()]).unwrap();
            }
        }
    }

    #[test]
    fn the_documentation_lists_every_setting_as_it_is() {
        let page = include_str!("../../../docs/CONFIGURATION.md");
        let listed: Vec<_> = page.lines().filter(|line| line.starts_with("| `")).collect();
        let expected: Vec<_> = SETTINGS
            .iter()
            .map(|setting| {
                let default = setting.default.map(|default| format!("`{default}`")).unwrap_or_default();
                format!("| `{}` | {default} | {} | {} |", setting.name, setting.help.trim(), setting.allowed)
            })
            .collect();
        assert_eq!(listed, expected, "write this:\n{}", expected.join("\n"));
    }

    #[test]
    fn memory_and_redis_keep_nothing_longer_than_the_store_and_recovery_do() {
        let minutes = Duration::from_mins;
        let kept = Retention::For(minutes(1));
        let ages = |store_retention, recovery_max_age| {
            let config = Config { store_retention, recovery_max_age, ..Config::default() };
            let rooms::Options { tail_age, log_age, .. } = config.rooms();
            [tail_age, log_age]
        };
        assert_eq!(ages(kept, minutes(9)), [minutes(1); 2]);
        assert_eq!(ages(Retention::Forever, minutes(1)), [minutes(1); 2]);
        assert_eq!(ages(Retention::Forever, minutes(9)), [minutes(2); 2], "their default");
    }

    #[test]
    fn names_are_spelled_three_ways() {
        let setting = SETTINGS.iter().find(|setting| setting.name == "max_data").unwrap();
        assert_eq!((setting.variable().as_str(), setting.flag().as_str()), ("TWINE_MAX_DATA", "max-data"));
    }
}
