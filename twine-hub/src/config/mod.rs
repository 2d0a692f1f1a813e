//! Configuration: raw texts from flags, environment and file become one checked [`Config`].
//!
//! `settings` is the one definition of every setting: flags, environment names, file keys, defaults
//! and `docs/CONFIGURATION.md` follow from it. `load` puts the sources in order and reports every
//! problem at once. The rest of the hub sees a [`Config`] only and asks no environment.

mod load;
mod settings;
mod value;

pub use self::settings::{Config, Conflict};
pub use self::value::{BrokerKind, LogFormat, RedisTarget, Role, StoreKind};
pub use crate::auth::{ApiKey, Origin};
pub use crate::store::Retention;

pub(crate) use self::load::{CONFIG_VARIABLE, Loaded, Sources, URL_VARIABLE, load};
pub(crate) use self::settings::{Form, SETTINGS};
pub(crate) use self::value::{duration, duration_or_none, size};
