//! Reading a request's body: how much, how long, of which kind.

use axum::body::HttpBody as _;
use axum::extract::Request;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, EXPECT};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::time::Instant;
use twine_protocol::ErrorCode;

use super::problem::Refusal;
use crate::config::Config;

/// How many times `max_body` is read and thrown away before a body that is too big is refused.
/// An answer sent while the client still writes is often lost: its system sees the socket closed
/// with data unread and tells the client of a reset instead.
const DISCARD_FACTOR: usize = 8;

/// The body of a request that says it is JSON. Nothing is parsed here.
pub(super) async fn json(mut request: Request, config: &Config) -> Result<Bytes, Refusal> {
    let deadline = Instant::now() + config.request_timeout;
    if !is_json(request.headers()) {
        discard(request, config.max_body, deadline).await;
        let detail = "the body is not declared as `application/json`";
        return Err(Refusal::new(ErrorCode::UnsupportedMediaType, detail));
    }
    let too_big = || {
        let detail = format!("a body has {} bytes at most (`max_body`)", config.max_body);
        Refusal::new(ErrorCode::BodyTooBig, detail)
    };
    if request.body().size_hint().lower() > u64::try_from(config.max_body).unwrap_or(u64::MAX) {
        discard(request, config.max_body, deadline).await;
        return Err(too_big());
    }
    let collected = Limited::new(request.body_mut(), config.max_body).collect();
    match tokio::time::timeout_at(deadline, collected).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            discard(request, config.max_body, deadline).await;
            Err(too_big())
        }
        Ok(Err(error)) => {
            Err(Refusal::new(ErrorCode::BadRequest, format!("the body can't be read: {error}")))
        }
        Err(_) => {
            let detail = format!("the body did not arrive within {:?}", config.request_timeout);
            Err(Refusal::new(ErrorCode::RequestTimeout, detail))
        }
    }
}

/// Reads what is left of a refused request's body, within bounds, so that the answer arrives.
pub(super) async fn discard(request: Request, max_body: usize, deadline: Instant) {
    // Who asked whether to send the body has not sent it.
    if request.headers().contains_key(EXPECT) {
        return;
    }
    let mut body = request.into_body();
    let discarded = async {
        let mut left = max_body.saturating_mul(DISCARD_FACTOR);
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    };
    // What is still missing then is the client's loss: the answer is the same.
    let _ = tokio::time::timeout_at(deadline, discarded).await;
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| names_json(kind.as_bytes()))
}

/// Whether the value of a `Content-Type` says JSON, with or without parameters.
pub(super) fn names_json(kind: &[u8]) -> bool {
    let essence = kind.split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_declared_with_or_without_parameters() {
        let declared = |kind: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, kind.parse().unwrap());
            is_json(&headers)
        };
        assert!(declared("application/json") && declared("Application/JSON ; charset=utf-8"));
        for other in ["", "text/plain", "application/json2", "application/problem+json", "text/json"] {
            assert!(!declared(other), "{other}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
