//! What an answer means: whether the message is stored, and whether to ask again.
//!
//! The hub explains an error in its body ([`Problem`]); what stands before a hub (a proxy, a load
//! balancer) does not, and then the status has to do.

use std::time::Duration;

use http::StatusCode;
use serde::de::DeserializeOwned;
use twine_protocol::ErrorCode;
use twine_protocol::api::{Problem, Published, PublishedList};

use crate::{Error, ErrorKind, Stored};

/// The part of an answer that comes first, and that is known also where the rest got lost.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    /// The media type without parameters, in lower case.
    pub(crate) media_type: String,
    pub(crate) retry_after: Option<Duration>,
}

/// What a hub answers a publish that succeeded.
pub(crate) trait Answer: DeserializeOwned {
    /// How many messages it says to be stored.
    fn n_results(&self) -> usize;
}

impl Answer for Published {
    fn n_results(&self) -> usize {
        1
    }
}

impl Answer for PublishedList {
    fn n_results(&self) -> usize {
        self.results.len()
    }
}

/// Reads a whole answer to a request that is owed so many results.
pub(crate) fn read<A: Answer>(head: &Head, body: &[u8], n_results: usize) -> Result<A, Error> {
    if !head.status.is_success() {
        return Err(refusal(head, body));
    }
    if head.media_type != "application/json" {
        return Err(not_a_hubs(format!("the answer is {:?}, not JSON", head.media_type)));
    }
    let answer: A = serde_json::from_slice(body)
        .map_err(|source| not_a_hubs("the answer is not what a hub gives".to_owned()).because(source))?;
    match answer.n_results() {
        found if found == n_results => Ok(answer),
        found => Err(not_a_hubs(format!("the answer has {found} results, not {n_results}"))),
    }
}

/// Understands an answer that is longer than a hub's ever is.
pub(crate) fn too_long(head: &Head) -> Error {
    if head.status.is_success() {
        return not_a_hubs("the answer is too long".to_owned());
    }
    refusal(head, b"")
}

/// Understands an answer whose body did not come, because of `failure`.
pub(crate) fn cut(head: &Head, failure: Error) -> Error {
    if !head.status.is_success() {
        // The status says enough.
        return refusal(head, b"");
    }
    if head.media_type == "application/json" {
        // A hub answers so only after the message is stored for good.
        return failure.leaving(Stored::Yes);
    }
    failure.leaving(Stored::Maybe)
}

fn refusal(head: &Head, body: &[u8]) -> Error {
    let problem = if head.media_type == "application/problem+json" {
        serde_json::from_slice::<Problem>(body).ok()
    } else {
        None
    };
    let error = if let Some(problem) = problem {
        Error::new(
            kind(head.status, Some(problem.code)),
            format!("the hub answered {} ({}): {}", head.status.as_u16(), problem.code, problem.detail),
        )
        .answered(problem.code, problem.index)
    } else {
        let error = Error::new(
            kind(head.status, None),
            format!("the answer was {}, without a hub's explanation", head.status),
        );
        // What a proxy with a lower limit says means the same.
        if head.status == StatusCode::PAYLOAD_TOO_LARGE {
            error.answered(ErrorCode::BodyTooBig, None)
        } else {
            error
        }
    }
    .leaving(left_by(head.status));
    error.asking_for(head.retry_after)
}

fn kind(status: StatusCode, code: Option<ErrorCode>) -> ErrorKind {
    let passing = match code {
        // A hub of a later version may have codes that this one doesn't know.
        None | Some(ErrorCode::Other) => {
            status.is_server_error()
                || status == StatusCode::REQUEST_TIMEOUT
                || status == StatusCode::TOO_MANY_REQUESTS
        }
        Some(code) => code.is_retryable(),
    };
    if passing {
        ErrorKind::Unavailable
    } else if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
        ErrorKind::Unauthorized
    } else if status.is_client_error() || code.is_some() {
        ErrorKind::Rejected
    } else {
        // A redirect: following it would carry the key and the message to who knows where.
        ErrorKind::BadAnswer
    }
}

/// What PROTOCOL.md promises ("Refusals"), whatever the code. A proxy gives these statuses also where it
/// has sent the request on and gave up waiting.
fn left_by(status: StatusCode) -> Stored {
    if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT { Stored::Maybe } else { Stored::No }
}

/// A success, but not a hub's: perhaps some page at a wrong URL, perhaps a later version's answer.
fn not_a_hubs(what: String) -> Error {
    Error::new(ErrorKind::BadAnswer, what).leaving(Stored::Maybe)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(status: u16, media_type: &str) -> Head {
        Head {
            status: StatusCode::from_u16(status).unwrap(),
            media_type: media_type.to_owned(),
            retry_after: None,
        }
    }

    fn problem(code: ErrorCode) -> Error {
        let body = Problem {
            kind: None,
            title: code.remedy().to_owned(),
            status: code.http_status(),
            code,
            detail: "because".to_owned(),
            index: None,
        };
        let body = serde_json::to_vec(&body).unwrap();
        read::<Published>(&head(code.http_status(), "application/problem+json"), &body, 1).unwrap_err()
    }

    fn bare(status: u16) -> Error {
        read::<Published>(&head(status, "text/html"), b"<html>", 1).unwrap_err()
    }

    #[test]
    fn every_code_of_the_wire_is_retried_where_its_table_says_so() {
        for code in ErrorCode::ALL {
            let error = problem(*code);
            assert_eq!(error.is_retryable(), code.is_retryable(), "{code}");
            assert_eq!(error.code(), Some(*code));
        }
    }

    #[test]
    fn only_a_fault_that_is_not_the_publishers_leaves_the_message_in_doubt() {
        for code in ErrorCode::ALL {
            let in_doubt = code.http_status() == 408 || code.http_status() >= 500;
            let expected = if in_doubt { Stored::Maybe } else { Stored::No };
            assert_eq!(problem(*code).stored(), expected, "{code}");
        }
    }

    #[test]
    fn an_unexplained_answer_is_judged_by_its_status() {
        use ErrorKind::{BadAnswer, Rejected, Unauthorized, Unavailable};
        for (status, kind, stored) in [
            (302, BadAnswer, Stored::No),
            (400, Rejected, Stored::No),
            (401, Unauthorized, Stored::No),
            (403, Unauthorized, Stored::No),
            (404, Rejected, Stored::No),
            (408, Unavailable, Stored::Maybe),
            (413, Rejected, Stored::No),
            (429, Unavailable, Stored::No),
            (500, Unavailable, Stored::Maybe),
            (502, Unavailable, Stored::Maybe),
            (503, Unavailable, Stored::Maybe),
            (504, Unavailable, Stored::Maybe),
        ] {
            let error = bare(status);
            assert_eq!((error.kind(), error.stored()), (kind, stored), "{status}");
            assert_eq!(error.is_retryable(), kind == Unavailable, "{status}");
        }
    }

    #[test]
    fn a_code_of_a_later_version_is_judged_by_its_status() {
        for (status, retryable) in [(422, false), (429, true), (503, true)] {
            let body = format!(r#"{{"title":"","status":{status},"code":"of_tomorrow","detail":""}}"#);
            let error = read::<Published>(&head(status, "application/problem+json"), body.as_bytes(), 1);
            assert_eq!(error.unwrap_err().is_retryable(), retryable, "{status}");
        }
    }

    #[test]
    fn a_page_at_a_wrong_url_is_no_success() {
        let error = bare(200);
        assert_eq!((error.kind(), error.stored()), (ErrorKind::BadAnswer, Stored::Maybe));
        for body in [&b"{}"[..], br#"{"results":[]}"#] {
            let error = read::<PublishedList>(&head(200, "application/json"), body, 1).unwrap_err();
            assert_eq!((error.kind(), error.stored()), (ErrorKind::BadAnswer, Stored::Maybe));
        }
        let error = too_long(&head(200, "application/json"));
        assert_eq!((error.kind(), error.stored()), (ErrorKind::BadAnswer, Stored::Maybe));
        assert_eq!(too_long(&head(413, "application/problem+json")).kind(), ErrorKind::Rejected);
    }

    #[test]
    fn a_success_that_was_cut_is_still_a_success() {
        let failure = || Error::new(ErrorKind::Interrupted, "cut");
        assert_eq!(cut(&head(200, "application/json"), failure()).stored(), Stored::Yes);
        assert_eq!(cut(&head(200, "text/html"), failure()).stored(), Stored::Maybe);
        assert_eq!(cut(&head(503, "application/problem+json"), failure()).kind(), ErrorKind::Unavailable);
        assert_eq!(cut(&head(400, "application/problem+json"), failure()).kind(), ErrorKind::Rejected);
    }
}
