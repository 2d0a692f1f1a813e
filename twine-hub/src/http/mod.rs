//! HTTP: what is at which path, and who may ask.
//!
//! A handler checks its request, calls `rooms` or `connection`, and words the answer. Limits and
//! policy (keys, origins, sizes) live here; rooms know none of it. Every refusal is a
//! [`problem::Refusal`].

mod body;
mod client;
mod cookie;
mod early;
mod express;
mod extensions;
mod health;
mod page;
mod problem;
mod publish;
mod role;
mod rooms;
mod server;
mod stall;
mod ws;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::Uri;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use twine_protocol::ErrorCode;

use self::problem::{Refusal, Refused};
use crate::auth::{ApiKeys, KeyRefusal, Origins};
use crate::config::Config;
use crate::connection::Connections;
use crate::load::Load;
use crate::rooms::Rooms;
use crate::session::Sessions;
use crate::telemetry::{Code, Telemetry};

pub(crate) use self::health::word;
pub(crate) use self::server::{Limits, Tasks, acceptor, serve};

/// What requests work with.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) rooms: Rooms,
    pub(crate) sessions: Sessions,
    pub(crate) connections: Connections,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) keys: ApiKeys,
    pub(crate) origins: Origins,
    pub(crate) tasks: Tasks,
    pub(crate) load: Load,
    /// Cancelled when the hub begins to stop: it is no longer ready, and takes no new WebSocket.
    pub(crate) draining: CancellationToken,
    /// Cancelled when its listeners close.
    pub(crate) stop: CancellationToken,
    /// Says that a page was refused.
    pub(crate) refused_pages: crate::seldom::Seldom,
}

#[cfg(test)]
impl App {
    /// What requests of a test work with: these rooms, and nothing that was configured beside `config`.
    fn of(rooms: Rooms, config: Config, telemetry: Arc<Telemetry>, key: &crate::auth::ApiKey) -> Arc<Self> {
        let memory = crate::store::Kind::Memory { max_bytes: 0 };
        let sessions = Sessions::open(&memory, config.sessions(), telemetry.clone()).unwrap();
        let options = config.connections();
        Arc::new(Self {
            connections: Connections::start(&rooms, &sessions, None, &options, &telemetry).unwrap(),
            keys: ApiKeys::new([key]),
            origins: Origins::new(None, None),
            tasks: Tasks::default(),
            load: Load::default(),
            draining: CancellationToken::new(),
            stop: CancellationToken::new(),
            refused_pages: crate::seldom::Seldom::default(),
            rooms,
            sessions,
            telemetry,
            config,
        })
    }
}

/// Every path of the hub.
pub(crate) fn router(app: Arc<App>) -> Router {
    let publishing = Router::new()
        .route("/api/publish", post(publish::one))
        .route("/api/publish/batch", post(publish::batch))
        .route_layer(middleware::from_fn_with_state(app.clone(), role::check_publishes));
    let connecting = Router::new()
        .route("/ws", get(ws::open))
        .route("/set-cookie", get(cookie::set).delete(cookie::forget).options(cookie::preflight))
        .route_layer(middleware::from_fn_with_state(app.clone(), role::check_clients));
    let api = Router::new()
        .merge(publishing)
        .route("/api/rooms", get(rooms::list))
        .route("/api/rooms/{room}", get(rooms::info))
        .route("/api/rooms/{room}/messages", get(rooms::history))
        // Methods and keys are looked at in this order: a wrong method tells no secret.
        .route_layer(middleware::from_fn_with_state(app.clone(), check_key));
    Router::new()
        .merge(api)
        .route("/", get(about))
        .merge(connecting)
        .route("/twine.js", get(client::script))
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/load", get(health::load))
        .route("/metrics", get(health::metrics))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(app.clone(), count_refusals))
        .with_state(app)
}

/// `GET /`: what this is, for whoever opens the address in a browser.
async fn about() -> Response {
    json(&serde_json::json!({
        "name": "twine-hub",
        "version": crate::VERSION,
        "paths": ["/ws", "/set-cookie", "/api/publish", "/api/rooms", "/twine.js", "/healthz", "/readyz", "/load", "/metrics"],
    }))
}

/// Lets in who shows one of the hub's keys. Nothing of the body is looked at before.
async fn check_key(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let refusal = match app.keys.check(request.headers()) {
        Ok(()) => return next.run(request).await,
        Err(KeyRefusal::Missing) => Refusal::new(ErrorCode::KeyMissing, "the request shows no API key"),
        Err(KeyRefusal::Invalid) => Refusal::new(ErrorCode::KeyInvalid, "the API key is none of this hub's"),
    };
    refuse(&app.config, request, refusal).await
}

/// Refuses a request whose body nobody has looked at: it is read, so that the answer arrives.
async fn refuse(config: &Config, request: Request, refusal: Refusal) -> Response {
    body::discard(request, config.max_body, Instant::now() + config.request_timeout).await;
    refusal.into_response()
}

/// A body of JSON. What the hub answers with holds texts and numbers, which always serialize.
fn json(body: &impl Serialize) -> Response {
    ([(CONTENT_TYPE, "application/json")], serde_json::to_vec(body).unwrap_or_default()).into_response()
}

async fn not_found(uri: Uri) -> Refusal {
    Refusal::new(ErrorCode::NotFound, format!("nothing is at {}", uri.path()))
}

async fn method_not_allowed(request: Request) -> Refusal {
    let (method, path) = (request.method(), request.uri().path());
    Refusal::new(ErrorCode::MethodNotAllowed, format!("{path} does not take {method}"))
}

async fn count_refusals(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if let Some(Refused(code)) = response.extensions().get() {
        app.telemetry.errors.get_or_create(&Code { code: code.as_str() }).inc();
    }
    response
}
