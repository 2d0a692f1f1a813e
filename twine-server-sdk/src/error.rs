//! The one error of this crate: what failed, whether to try again, and what became of the message.

use std::fmt;
use std::time::Duration;

use twine_protocol::{ErrorCode, InvalidId, InvalidRoomName};

/// Why a call failed.
///
/// [`kind`](Self::kind) is what to decide on, [`stored`](Self::stored) says what became of the
/// message, [`source`](std::error::Error::source) is the cause below.
///
/// ```no_run
/// use twine_server_sdk::{Stored, Twine};
///
/// # async fn example(twine: Twine) {
/// if let Err(error) = twine.publish("chat", "hello").await {
///     match error.stored() {
///         Stored::No => eprintln!("not sent: {error}"),
///         Stored::Maybe => eprintln!("perhaps sent: {error}"),
///         Stored::Yes => eprintln!("sent, but its position is unknown: {error}"),
///     }
/// }
/// # }
/// ```
pub struct Error(Box<Inner>);

type Source = Box<dyn std::error::Error + Send + Sync>;

struct Inner {
    kind: ErrorKind,
    what: String,
    stored: Stored,
    code: Option<ErrorCode>,
    index: Option<usize>,
    retry_after: Option<Duration>,
    attempts: u32,
    source: Option<Source>,
}

/// What went wrong, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is wrong: the hub's URL, the key, a timeout, a proxy, a certificate.
    Config,
    /// The message can't be published as it is: a bad room name, id or sender, or data that does not
    /// serialize. Found before anything was sent.
    InvalidMessage,
    /// No connection to the hub: the name, the port, a proxy, or the hub is down.
    Connect,
    /// The hub's certificate is not trusted, has expired, or is another host's.
    Certificate,
    /// The connection broke before the whole answer had come.
    Interrupted,
    /// The answer did not come in time.
    Timeout,
    /// The hub, or what stands before it, is busy, failing or restarting (408, 429, 5xx).
    Unavailable,
    /// The hub does not take the API key (401, 403).
    Unauthorized,
    /// The hub refused the message; [`Error::code`] says why.
    Rejected,
    /// The answer is none that a hub gives: the URL may be another server's.
    BadAnswer,
    /// A [`Publisher`](crate::Publisher)'s queue is full.
    QueueFull,
    /// The [`Publisher`](crate::Publisher) is closed.
    Closed,
}

impl ErrorKind {
    const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::Connect | Self::Interrupted | Self::Timeout | Self::Unavailable | Self::QueueFull
        )
    }
}

/// What became of the message of a failed publish. Of a batch: of all its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stored {
    /// It was not stored, and nobody receives it.
    No,
    /// It may have been stored: it was sent, and no answer says. Publishing the same
    /// [`Message`](crate::Message) again is safe, for it keeps its id.
    Maybe,
    /// It is stored; only its position was lost on the way back.
    Yes,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            what: what.into(),
            stored: Stored::No,
            code: None,
            index: None,
            retry_after: None,
            attempts: 0,
            source: None,
        }))
    }

    pub(crate) fn config(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, what)
    }

    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidMessage, what)
    }

    pub(crate) fn because(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(crate) fn leaving(mut self, stored: Stored) -> Self {
        self.0.stored = stored;
        self
    }

    pub(crate) fn answered(mut self, code: ErrorCode, index: Option<usize>) -> Self {
        self.0.code = Some(code);
        self.0.index = index;
        self
    }

    pub(crate) fn asking_for(mut self, retry_after: Option<Duration>) -> Self {
        self.0.retry_after = retry_after;
        self
    }

    /// Takes into account what earlier attempts to publish the same message left behind.
    pub(crate) fn after(mut self, attempts: u32, earlier: Stored) -> Self {
        self.0.attempts = attempts;
        self.0.stored = self.0.stored.max(earlier);
        self
    }

    /// What went wrong, for programs.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call may succeed later, unchanged.
    ///
    /// Where it came from the hub or the way to it, the SDK has retried it already, until the deadline
    /// or the [`RetryPolicy`](crate::RetryPolicy) ended that.
    pub fn is_retryable(&self) -> bool {
        self.0.kind.is_retryable()
    }

    /// What became of the message, all attempts taken together.
    pub fn stored(&self) -> Stored {
        self.0.stored
    }

    /// The code of the hub's answer, where it gave one.
    pub fn code(&self) -> Option<ErrorCode> {
        self.0.code
    }

    /// Which message of a batch the hub refused, counted from 0. None of the batch is stored.
    pub fn index(&self) -> Option<usize> {
        self.0.index
    }

    /// How long the hub asked to wait before the next try.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// How often the request was sent, or a connection for it was tried; 0 where it never came to that.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        match self.0.stored {
            Stored::Maybe => f.write_str(" (the message may have been stored)"),
            Stored::Yes => f.write_str(" (the message is stored)"),
            Stored::No if self.0.attempts > 0 => f.write_str(" (the message was not stored)"),
            Stored::No => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, what, stored, code, index, retry_after, attempts, source } = &*self.0;
        let mut out = f.debug_struct("Error");
        out.field("kind", kind).field("what", what).field("stored", stored).field("attempts", attempts);
        if let Some(code) = code {
            out.field("code", code);
        }
        if let Some(index) = index {
            out.field("index", index);
        }
        if let Some(retry_after) = retry_after {
            out.field("retry_after", retry_after);
        }
        if let Some(source) = source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<InvalidRoomName> for Error {
    fn from(source: InvalidRoomName) -> Self {
        Self::invalid("not the name of a room").because(source)
    }
}

impl From<InvalidId> for Error {
    fn from(source: InvalidId) -> Self {
        Self::invalid("not a message's id").because(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_became_of_the_message_once_it_was_on_its_way() {
        let refused = || Error::new(ErrorKind::Unavailable, "the hub is down");
        assert_eq!(refused().to_string(), "the hub is down");
        assert_eq!(
            refused().after(1, Stored::No).to_string(),
            "the hub is down (the message was not stored)"
        );
        assert_eq!(
            refused().after(2, Stored::Maybe).to_string(),
            "the hub is down (the message may have been stored)"
        );
    }

    #[test]
    fn an_earlier_attempt_that_may_have_succeeded_is_not_forgotten() {
        let error = Error::new(ErrorKind::Connect, "refused").leaving(Stored::No).after(2, Stored::Maybe);
        assert_eq!((error.stored(), error.attempts()), (Stored::Maybe, 2));
    }
}
