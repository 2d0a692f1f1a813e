//! One question to DynamoDB: bounded in time and in number, asked again where that may help.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::TableError;

/// Questions under way at once. Each holds a connection; an answer takes some milliseconds, so that
/// this many carry tens of thousands a second.
const MAX_IN_FLIGHT: usize = 128;

/// How long one attempt may take. DynamoDB answers within tens of milliseconds, or it is in trouble,
/// and another connection may do better.
const ATTEMPT: Duration = Duration::from_secs(2);

/// The longest wait before the second attempt; it doubles with each further one. The wait is random,
/// so that hubs that were refused together don't come back together.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);

/// The longest wait between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// What DynamoDB answers where the same question may be answered otherwise a moment later.
const PASSING: [&str; 10] = [
    "ContinuousBackupsUnavailableException",
    "InternalServerError",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestTimeout",
    "ServiceUnavailable",
    "ThrottlingException",
    "TransactionInProgressException",
    "TransactionConflictException",
];

/// Why there is no answer that helps.
pub(super) enum CallError<E> {
    /// DynamoDB answered, and would answer the same again.
    Refused(E),
    /// All else.
    Failed(TableError),
}

/// Asks, within bounds.
pub(super) struct Caller {
    in_flight: Semaphore,
    closed: CancellationToken,
}

impl Default for Caller {
    fn default() -> Self {
        Self { in_flight: Semaphore::new(MAX_IN_FLIGHT), closed: CancellationToken::new() }
    }
}

impl Caller {
    /// Fails what is under way, and whatever is asked from now on, at once.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    /// Sends what `request` makes until there is an answer, or the deadline leaves no time for another
    /// attempt. Each attempt sends the same, so it must be something that may be done twice.
    ///
    /// # Cancel safety
    /// Where the future is dropped, DynamoDB may have done it all the same.
    pub(super) async fn call<T, E, F>(
        &self,
        action: &'static str,
        deadline: Instant,
        request: impl Fn() -> F,
    ) -> Result<T, CallError<E>>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        // The SDK's futures are large, and callers hold several.
        let asked = Box::pin(self.ask(action, deadline, request));
        let answered = self.closed.run_until_cancelled(asked).await;
        answered.unwrap_or(Err(CallError::Failed(TableError::Closed)))
    }

    async fn ask<T, E, F>(
        &self,
        action: &'static str,
        deadline: Instant,
        request: impl Fn() -> F,
    ) -> Result<T, CallError<E>>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let mut attempts = 0;
        loop {
            let Ok(permit) = timeout_at(deadline, self.in_flight.acquire()).await else {
                return Err(CallError::Failed(TableError::Overloaded { action }));
            };
            let end = deadline.min(Instant::now() + ATTEMPT);
            let answer = timeout_at(end, request()).await;
            drop(permit);
            attempts += 1;
            let source: Box<dyn Error + Send + Sync> = match answer {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(SdkError::ServiceError(error))) if !is_passing(error.err(), error.raw()) => {
                    return Err(CallError::Refused(error.into_err()));
                }
                Ok(Err(error)) if is_unsent(&error) => {
                    return Err(CallError::Failed(TableError::NotSent { action, source: error.into() }));
                }
                Ok(Err(error)) => error.into(),
                Err(elapsed) => elapsed.into(),
            };
            let next = Instant::now() + backoff(attempts);
            if next >= deadline {
                return Err(CallError::Failed(TableError::Unavailable { action, attempts, source }));
            }
            tracing::debug!(action, attempts, error = %source, "DynamoDB is asked again");
            sleep_until(next).await;
        }
    }
}

/// Whether nothing was sent, and nothing will be until somebody changes something: a request that can't
/// be made, or credentials that are nowhere. That they can't be had at present passes.
fn is_unsent<E, R>(error: &SdkError<E, R>) -> bool {
    match error {
        SdkError::ConstructionFailure(_) => true,
        SdkError::DispatchFailure(failure) => {
            let source = failure.as_connector_error().and_then(Error::source);
            matches!(
                source.and_then(<dyn Error>::downcast_ref),
                Some(CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_))
            )
        }
        _ => false,
    }
}

/// Whether an error goes away by itself.
fn is_passing(error: &impl ProvideErrorMetadata, response: &HttpResponse) -> bool {
    response.status().is_server_error() || error.code().is_some_and(|code| PASSING.contains(&code))
}

/// How long to wait after so many attempts.
fn backoff(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    let longest = MAX_BACKOFF.min(FIRST_BACKOFF.saturating_mul(1 << doublings));
    longest.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_bounded() {
        for attempts in 1..100 {
            let longest = FIRST_BACKOFF * 2_u32.pow(attempts.min(6) - 1);
            assert!(backoff(attempts) <= longest.min(MAX_BACKOFF), "{attempts}");
        }
    }
}
