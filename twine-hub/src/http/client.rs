//! `GET /twine.js`: the browser client of the hub's own version.

use axum::response::{IntoResponse, Response};
use http::HeaderName;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use twine_protocol::ErrorCode;

use super::problem::Refusal;
use crate::assets::CLIENT_SCRIPT;

/// Pages of any site may load it: it holds no secret, and what it may do is checked at `/ws`.
pub(super) async fn script() -> Response {
    let Some(script) = CLIENT_SCRIPT else {
        let detail = "this hub was built without the browser client: run `make client`, and build it again";
        return Refusal::new(ErrorCode::NotFound, detail).into_response();
    };
    let headers = [
        (CONTENT_TYPE, "text/javascript; charset=utf-8"),
        // Short: after an update of the hub, pages have its client soon.
        (CACHE_CONTROL, "public, max-age=300"),
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (HeaderName::from_static("cross-origin-resource-policy"), "cross-origin"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, script).into_response()
}
