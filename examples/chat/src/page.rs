//! What a browser loads: a page, its style and its modules, all inside this binary.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::settings::HubUrl;

const HTML: &str = include_str!("../page/index.html");

/// The files that the page asks for, with their types.
const FILES: &[(&str, &str, &str)] = &[
    ("chat.css", "text/css; charset=utf-8", include_str!("../page/chat.css")),
    ("chat.js", JAVASCRIPT, include_str!("../page/chat.js")),
    ("badge.js", JAVASCRIPT, include_str!("../page/badge.js")),
    ("composer.js", JAVASCRIPT, include_str!("../page/composer.js")),
    ("conversation.js", JAVASCRIPT, include_str!("../page/conversation.js")),
    ("person.js", JAVASCRIPT, include_str!("../page/person.js")),
    ("typing.js", JAVASCRIPT, include_str!("../page/typing.js")),
    ("icon.svg", "image/svg+xml", include_str!("../page/icon.svg")),
];
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// The page of one hub.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    html: String,
    policy: String,
}

impl Page {
    pub(crate) fn new(hub: &HubUrl) -> Self {
        Self { html: HTML.replace("{{hub}}", hub.as_str()), policy: policy(hub) }
    }

    pub(crate) fn html(&self) -> Response {
        let headers = [
            (CONTENT_TYPE, "text/html; charset=utf-8"),
            (CONTENT_SECURITY_POLICY, self.policy.as_str()),
            (REFERRER_POLICY, "no-referrer"),
        ];
        (headers, common(), self.html.clone()).into_response()
    }
}

/// One of the page's files.
pub(crate) fn file(name: &str) -> Response {
    match FILES.iter().find(|(file, ..)| *file == name) {
        Some((_, kind, text)) => ([(CONTENT_TYPE, *kind)], common(), *text).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn common() -> [(HeaderName, &'static str); 2] {
    [(CACHE_CONTROL, "no-cache"), (X_CONTENT_TYPE_OPTIONS, "nosniff")]
}

/// What the page may load and reach: itself and its hub. Even a text that found a way into the
/// page as HTML would run nothing.
fn policy(hub: &HubUrl) -> String {
    let socket = hub.socket();
    format!(
        "default-src 'none'; script-src 'self' {hub} 'wasm-unsafe-eval'; connect-src 'self' {hub} {socket}; \
         style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}
