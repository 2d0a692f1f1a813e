//! Why a run could not be carried out.

use std::process::ExitStatus;

use super::super::{Failure, chain};

/// What stops a run, and what to do about it. What a run finds out is no error but its report.
#[derive(Debug, thiserror::Error)]
pub(super) enum BenchError {
    /// Flags that don't fit: the caller's mistake.
    #[error("{0}")]
    Flags(String),
    #[error("{url} is not the address of a hub; use http://host:port or https://host")]
    Url { url: String },
    #[error("can't start")]
    Start(#[source] std::io::Error),
    #[error("{url} gives no cookie; is a hub there, and does it take clients?")]
    Cookie {
        url: String,
        #[source]
        source: CookieError,
    },
    #[error("{url} takes no publish; the key is TWINE_API_KEY, --api-key, or what the hub's data_dir has")]
    Publish {
        url: String,
        #[source]
        source: twine_server_sdk::Error,
    },
    #[error("process {process} of the run ended before it was done ({status})")]
    Ended { process: usize, status: ExitStatus },
    #[error("process {process} of the run ended before it was done ({status}); is there memory enough?")]
    Killed { process: usize, status: ExitStatus },
    #[error("process {process} of the run has been silent for {seconds} s; is the machine overloaded?")]
    Silent { process: usize, seconds: u64 },
    #[error("process {process} of the run said what no such process says; is it another version?")]
    Garbled {
        process: usize,
        #[source]
        source: serde_json::Error,
    },
    #[error("ended by a signal before any connection was made")]
    TooEarly,
    #[error("ended by a second signal")]
    Interrupted,
}

/// Why there is no cookie.
#[derive(Debug, thiserror::Error)]
pub(super) enum CookieError {
    #[error("no answer")]
    Request(#[from] twine_server_sdk::reqwest::Error),
    #[error("it answers {0}")]
    Status(twine_server_sdk::reqwest::StatusCode),
    #[error("its answer sets none")]
    Missing,
}

/// Why a connection was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArrivalError {
    #[error("no cookie")]
    Cookie(#[from] CookieError),
    #[error(transparent)]
    Client(#[from] twine_client::Error),
    #[error("the hub did not agree to the subscription in time")]
    Timeout,
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Flags(_) | BenchError::Url { .. } => Self::Usage(chain(&error)),
            _ => Self::Failed(chain(&error)),
        }
    }
}
