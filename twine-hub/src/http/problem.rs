//! How a request is refused: `application/problem+json` with a stable code.

use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use twine_protocol::ErrorCode;
use twine_protocol::api::Problem;

/// A refused request.
#[derive(Debug)]
pub(super) struct Refusal {
    code: ErrorCode,
    detail: String,
    index: Option<usize>,
    headers: Vec<(HeaderName, &'static str)>,
}

/// Marks a response as a refusal, for the count of errors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused(pub(super) ErrorCode);

impl Refusal {
    /// `detail` says what went wrong here; what to do about it comes with the code.
    pub(super) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), index: None, headers: Vec::new() }
    }

    /// Names the message of a batch that it is about.
    #[must_use]
    pub(super) fn at(mut self, index: Option<usize>) -> Self {
        self.index = index;
        self
    }

    #[must_use]
    pub(super) fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl Refusal {
    pub(super) fn code(&self) -> ErrorCode {
        self.code
    }

    /// What is sent.
    pub(super) fn into_parts(self) -> (StatusCode, HeaderMap, Vec<u8>) {
        let status =
            StatusCode::from_u16(self.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let problem = Problem {
            kind: None,
            title: self.code.remedy().to_owned(),
            status: status.as_u16(),
            code: self.code,
            detail: self.detail,
            index: self.index,
        };
        // The struct holds texts and numbers only, which always serialize.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let given = self.headers.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value)));
        let mut headers: HeaderMap = given.collect();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        (status, headers, body)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let code = self.code;
        let mut response = self.into_parts().into_response();
        response.extensions_mut().insert(Refused(code));
        response
    }
}
