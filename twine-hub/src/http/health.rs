//! Whether the hub lives, whether it takes work, and what it counts.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde::Serialize;

use super::{App, json};
use crate::config::StoreKind;

/// `GET /healthz`: the process answers.
pub(super) async fn live() -> impl IntoResponse {
    ([(CACHE_CONTROL, "no-store")], "ok\n")
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    version: &'static str,
    draining: bool,
    store: Store,
}

#[derive(Serialize)]
struct Store {
    kind: &'static str,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// `GET /readyz`: whether the hub takes work, and what it is connected to.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    let health = app.rooms.health();
    let draining = app.stop.is_cancelled();
    let ready = health.is_ok() && !draining;
    let store = Store {
        kind: match app.config.store {
            StoreKind::Memory => "memory",
            StoreKind::Sqlite => "sqlite",
        },
        ok: health.is_ok(),
        error: health.err().map(|error| error.to_string()),
    };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = Readiness { ready, version: crate::VERSION, draining, store };
    (status, [(CACHE_CONTROL, "no-store")], json(&body)).into_response()
}

/// `GET /metrics`: OpenMetrics text.
pub(super) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
    ];
    (headers, app.telemetry.open_metrics())
}
