//! A publish under way.

use std::future::Ready;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;
use twine_protocol::api::Published;

use super::PublishError;
use crate::store::StoreError;

/// What becomes of a publish: where each of its messages is, in their order.
pub(super) type Outcome = Result<Vec<Published>, PublishError>;

/// A publish that was handed over; a future that is ready once it is durable, or refused.
///
/// What is handed to an embedded store is on its way from then on, also where this is dropped, so that
/// several one after the other share a commit and keep their order. A fleet's begins when it is first
/// polled: who awaits one before polling the next keeps the order there too.
#[must_use = "nobody is told what became of it"]
pub(crate) struct Publishing(Way);

enum Way {
    Refused(Ready<Outcome>),
    Committer(oneshot::Receiver<Outcome>),
    Fleet(Pin<Box<dyn Future<Output = Outcome> + Send>>),
}

impl Publishing {
    pub(super) fn refused(error: PublishError) -> Self {
        Self(Way::Refused(std::future::ready(Err(error))))
    }

    /// Will be answered by the committer.
    pub(super) fn answered_by(answer: oneshot::Receiver<Outcome>) -> Self {
        Self(Way::Committer(answer))
    }

    /// Is done by polling this.
    pub(super) fn by(fleet: impl Future<Output = Outcome> + Send + 'static) -> Self {
        Self(Way::Fleet(Box::pin(fleet)))
    }
}

impl Future for Publishing {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        match &mut self.0 {
            Way::Refused(outcome) => Pin::new(outcome).poll(context),
            // The committer answers all that it was given, unless it panics.
            Way::Committer(answer) => Pin::new(answer).poll(context).map(|answer| {
                answer.unwrap_or_else(|_| Err(PublishError::Store(Arc::new(StoreError::Ended))))
            }),
            Way::Fleet(fleet) => fleet.as_mut().poll(context),
        }
    }
}
