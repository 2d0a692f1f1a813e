//! `GET /twine.js`: the browser client of the hub's own version.

use std::hash::{DefaultHasher, Hasher as _};
use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, StatusCode};
use twine_protocol::ErrorCode;

use super::problem::Refusal;
use crate::assets::CLIENT_SCRIPT;

/// Changes with the script: what browsers ask by whether theirs is still the one.
static TAG: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = DefaultHasher::new();
    hasher.write(CLIENT_SCRIPT.unwrap_or_default());
    format!("\"{:016x}\"", hasher.finish())
});

/// Pages of any site may load it: it holds no secret, and what it may do is checked at `/ws`.
pub(super) async fn script(headers: HeaderMap) -> Response {
    let Some(script) = CLIENT_SCRIPT else {
        let detail = "this hub was built without the browser client: run `make client`, and build it again";
        return Refusal::new(ErrorCode::NotFound, detail).into_response();
    };
    let answer = [
        (CONTENT_TYPE, "text/javascript; charset=utf-8"),
        // Short: after an update of the hub, pages have its client soon.
        (CACHE_CONTROL, "public, max-age=300"),
        (ETAG, TAG.as_str()),
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (HeaderName::from_static("cross-origin-resource-policy"), "cross-origin"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    if is_known(&headers, &TAG) {
        (StatusCode::NOT_MODIFIED, answer).into_response()
    } else {
        (answer, script).into_response()
    }
}

/// Whether the client has what `tag` names already (RFC 9110, section 13.1.2).
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|item| item.trim().trim_start_matches("W/"))
        .any(|item| item == "*" || item == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_is_there_already_is_not_sent_again() {
        let known = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, value.parse().unwrap());
            is_known(&headers, "\"a\"")
        };
        // A proxy that compresses makes the tag a weak one.
        for value in ["\"a\"", "W/\"a\"", "\"b\", \"a\"", "*"] {
            assert!(known(value), "{value}");
        }
        assert!(!known("\"b\"") && !known("a") && !is_known(&HeaderMap::new(), "\"a\""));
    }
}
