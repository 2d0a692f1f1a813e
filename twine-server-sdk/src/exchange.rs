//! A request to the hub, sent as often as it takes.

use std::error::Error as StdError;
use std::io;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Response, Url};
use serde::Serialize;
use tokio::time::Instant;
use tracing::debug;

use crate::answer::{self, Answer, Head};
use crate::retry::parse_retry_after;
use crate::{Error, ErrorKind, RetryPolicy, Stored};

/// A hub, as seen from here: where it is, the key, and how long to insist.
pub(crate) struct Hub {
    pub(crate) http: reqwest::Client,
    /// Ends in a slash.
    pub(crate) url: Url,
    /// Marked as sensitive, so that nothing below prints it.
    pub(crate) authorization: HeaderValue,
    pub(crate) request_timeout: Duration,
    pub(crate) deadline: Duration,
    pub(crate) retry: RetryPolicy,
}

/// What is sent. The bytes are shared by all attempts, and so is the id in them: that is what makes
/// a second attempt safe.
pub(crate) struct Request {
    url: Url,
    body: Bytes,
    n_results: usize,
}

impl Request {
    /// The most bytes that are read of an answer.
    fn answer_limit(&self) -> usize {
        // A result has a room of 255 bytes (as JSON up to twice as many), an epoch, and little else; a
        // problem may explain itself at some length.
        const RESULT: usize = 1024;
        const PROBLEM: usize = 64 * 1024;
        self.n_results.saturating_mul(RESULT).max(PROBLEM)
    }
}

impl Hub {
    /// Prepares a request to `path` that is owed so many results.
    pub(crate) fn request<B: Serialize>(
        &self,
        path: &str,
        body: &B,
        n_results: usize,
    ) -> Result<Request, Error> {
        let url = self
            .url
            .join(path)
            .map_err(|source| Error::config("the hub's URL can't be extended").because(source))?;
        let body = serde_json::to_vec(body)
            .map_err(|source| Error::invalid("the message does not serialize to JSON").because(source))?;
        Ok(Request { url, body: body.into(), n_results })
    }

    /// Sends `request` until it is answered for good, the retry policy gives up, or `deadline` passes.
    pub(crate) async fn send<A: Answer>(&self, request: &Request, deadline: Duration) -> Result<A, Error> {
        let start = Instant::now();
        let left = || deadline.saturating_sub(start.elapsed());
        let mut stored = Stored::No;
        let mut retries = 0;
        loop {
            let error = match self.attempt(request, self.request_timeout.min(left())).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error.after(retries + 1, stored),
            };
            let Some(delay) = self.retry.delay(&error, retries, left()) else {
                return Err(error);
            };
            debug!(%error, ?delay, "publish is tried again");
            tokio::time::sleep(delay).await;
            stored = error.stored();
            retries += 1;
        }
    }

    async fn attempt<A: Answer>(&self, request: &Request, timeout: Duration) -> Result<A, Error> {
        let mut response = self
            .http
            .post(request.url.clone())
            .header(AUTHORIZATION, self.authorization.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .timeout(timeout)
            .body(request.body.clone())
            .send()
            .await
            .map_err(|error| self.failure(error))?;
        let head = head(&response);
        match body(&mut response, request.answer_limit()).await {
            Ok(Some(body)) => answer::read(&head, &body, request.n_results),
            Ok(None) => Err(answer::too_long(&head)),
            Err(error) => Err(answer::cut(&head, self.failure(error))),
        }
    }

    /// Understands why no answer came.
    fn failure(&self, error: reqwest::Error) -> Error {
        let hub = self.url.host_str().unwrap_or_default();
        let error = error.without_url();
        let (kind, what, stored) = if is_bad_certificate(&error) {
            (ErrorKind::Certificate, format!("the certificate of {hub} is not to be trusted"), Stored::No)
        } else if error.is_connect() {
            (ErrorKind::Connect, format!("no connection to {hub}"), Stored::No)
        } else if error.is_builder() {
            (ErrorKind::Config, "the HTTP client can't send this request".to_owned(), Stored::No)
        } else if error.is_timeout() {
            (ErrorKind::Timeout, format!("{hub} did not answer in time"), Stored::Maybe)
        } else if error.is_redirect() {
            (ErrorKind::BadAnswer, format!("{hub} redirects without end"), Stored::No)
        } else {
            (ErrorKind::Interrupted, format!("the connection to {hub} broke"), Stored::Maybe)
        };
        Error::new(kind, what).leaving(stored).because(error)
    }
}

fn head(response: &Response) -> Head {
    let text = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let media_type = text(CONTENT_TYPE).and_then(|value| value.split(';').next()).unwrap_or_default();
    Head {
        status: response.status(),
        media_type: media_type.trim().to_ascii_lowercase(),
        retry_after: text(RETRY_AFTER).and_then(|value| parse_retry_after(value, SystemTime::now())),
    }
}

/// Reads the body, or `None` of one that is longer than `limit`.
async fn body(response: &mut Response, limit: usize) -> reqwest::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// Whether the hub showed a certificate that can't be trusted: trying again won't help.
fn is_bad_certificate(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        // An `io::Error`'s `source` is the source of what it wraps; what it wraps is behind `get_ref`.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    false
}
