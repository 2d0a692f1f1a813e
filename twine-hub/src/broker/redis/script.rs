//! A script that runs on a server, and its answer taken apart.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Value;
use twine_protocol::{Epoch, Offset};

use super::error::RedisError;
use super::link::{Link, Request};

/// A script, and the name that a server knows it by once it has seen it.
pub(crate) struct Script {
    source: &'static str,
    hash: LazyLock<String, fn() -> String>,
}

impl Script {
    pub(crate) const fn new(source: &'static str, hash: fn() -> String) -> Self {
        Self { source, hash: LazyLock::new(hash) }
    }

    /// The name of a script of this text.
    pub(crate) fn hash(source: &str) -> String {
        redis::Script::new(source).get_hash().to_owned()
    }
}

/// `static` scripts, each the text of a file, with another before it where there is one.
macro_rules! scripts {
    ($first:expr; $($name:ident = $file:literal;)*) => {
        $(static $name: $crate::broker::redis::Script = {
            const SOURCE: &str = concat!($first, include_str!($file));
            $crate::broker::redis::Script::new(SOURCE, || $crate::broker::redis::Script::hash(SOURCE))
        };)*
    };
}
pub(crate) use scripts;

/// A script's arguments, gathered.
pub(crate) struct Call {
    slot: u16,
    script: &'static Script,
    /// What follows the script: the number of keys, the keys, the arguments.
    args: Vec<Vec<u8>>,
}

impl Call {
    /// A script on keys of one slot.
    pub(crate) fn new(script: &'static Script, slot: u16, keys: impl IntoIterator<Item = String>) -> Self {
        let mut args: Vec<_> = keys.into_iter().map(String::into_bytes).collect();
        args.insert(0, args.len().to_string().into_bytes());
        Self { slot, script, args }
    }

    pub(crate) fn arg(mut self, arg: impl redis::ToRedisArgs) -> Self {
        self.args.extend(arg.to_redis_args());
        self
    }

    /// Runs it; `name` is what an error says.
    ///
    /// # Errors
    /// [`RedisError`].
    pub(crate) async fn run(self, link: &Link, name: &'static str) -> Result<Answer, RedisError> {
        let request = Request::script(&self.script.hash, self.script.source, self.args);
        let value = link.ask(self.slot, &request).await?;
        Ok(Answer { to: name, value })
    }
}

/// What a script said.
pub(crate) struct Answer {
    to: &'static str,
    value: Value,
}

impl Answer {
    /// Takes the answer apart: its kind, and what follows it.
    ///
    /// # Errors
    /// What `read` says; [`Fields`] has one for an answer of another form.
    pub(crate) fn read<T>(
        self,
        read: impl FnOnce(&str, &mut Fields) -> Result<T, RedisError>,
    ) -> Result<T, RedisError> {
        let values = match self.value {
            Value::Array(values) => values,
            other => vec![other],
        };
        let mut fields = Fields { to: self.to, values: values.into_iter() };
        let kind = fields.text()?;
        read(&kind, &mut fields)
    }
}

/// The fields of an answer that were not read yet.
pub(crate) struct Fields {
    to: &'static str,
    values: std::vec::IntoIter<Value>,
}

impl Fields {
    pub(crate) fn value<T: redis::FromRedisValue>(&mut self) -> Result<T, RedisError> {
        let value = self.values.next().unwrap_or_default();
        redis::from_redis_value(value).map_err(|error| self.unexpected(error))
    }

    pub(crate) fn text(&mut self) -> Result<String, RedisError> {
        self.value()
    }

    pub(crate) fn number(&mut self) -> Result<u64, RedisError> {
        self.value()
    }

    pub(crate) fn list(&mut self) -> Result<Vec<Value>, RedisError> {
        self.value()
    }

    pub(crate) fn millis(&mut self) -> Result<Duration, RedisError> {
        Ok(Duration::from_millis(self.number()?))
    }

    pub(crate) fn epoch(&mut self) -> Result<Epoch, RedisError> {
        let text = self.text()?;
        Epoch::new(&text).map_err(|error| self.unexpected(error))
    }

    pub(crate) fn offset(&mut self) -> Result<Offset, RedisError> {
        let number = self.number()?;
        Offset::new(number).map_err(|error| self.unexpected(error))
    }

    pub(crate) fn kind(&self, kind: &str) -> RedisError {
        self.unexpected(format_args!("it begins with {kind:?}"))
    }

    pub(crate) fn unexpected(&self, what: impl std::fmt::Display) -> RedisError {
        RedisError::Unexpected { to: self.to, what: what.to_string() }
    }
}
