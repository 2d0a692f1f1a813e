//! Who may do what: API keys for backends, origins for pages, permissions for subscribers.

mod key;
mod key_file;
mod origin;
mod permissions;

pub use self::key::{ApiKey, InvalidKey};
pub use self::key_file::KeyFileError;
pub use self::origin::{InvalidOrigin, Origin};
pub use self::permissions::Subscriber;

pub(crate) use self::key::{ApiKeys, KeyRefusal};
pub(crate) use self::key_file::{key_of_folder, keys_of_file};
pub(crate) use self::origin::{Asking, Origins, is_loopback};
pub(crate) use self::permissions::Permissions;
