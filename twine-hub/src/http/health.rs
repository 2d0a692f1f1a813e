//! Whether the hub lives, whether it takes work, and what it counts.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde::Serialize;

use super::{App, json};
use crate::config::StoreKind;
use crate::load::Parts;
use crate::load::agent::Word;
use crate::store::StoreError;

/// `GET /healthz`: the process answers.
pub(super) async fn live() -> impl IntoResponse {
    ([(CACHE_CONTROL, "no-store")], "ok\n")
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    version: &'static str,
    role: &'static str,
    draining: bool,
    store: Store,
    connections: Connections,
}

#[derive(Serialize)]
struct Store {
    kind: &'static str,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct Connections {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// `GET /readyz`: whether the hub takes work, and what it is connected to.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    let stored = stored(&app);
    let served = app.connections.health();
    let draining = app.draining.is_cancelled();
    let ready = stored.is_ok() && served.is_ok() && !draining;
    let store = Store {
        kind: match app.config.store {
            StoreKind::Memory => "memory",
            StoreKind::Sqlite => "sqlite",
            StoreKind::DynamoDb(_) => "dynamodb",
        },
        ok: stored.is_ok(),
        error: stored.err().map(|error| error.to_string()),
    };
    let connections = Connections { ok: served.is_ok(), error: served.err().map(|error| error.to_string()) };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let role = app.config.role.as_str();
    let body = Readiness { ready, version: crate::VERSION, role, draining, store, connections };
    (status, [(CACHE_CONTROL, "no-store")], json(&body)).into_response()
}

/// Whether messages and sessions can be kept.
fn stored(app: &App) -> Result<(), Arc<StoreError>> {
    app.rooms.health().and_then(|()| app.sessions.health())
}

/// What a load balancer's agent is told.
pub(crate) fn word(app: &App) -> Word {
    if app.draining.is_cancelled() {
        return Word::Drain;
    }
    let stored = stored(app).map_err(|error| error.to_string());
    let served = || app.connections.health().map_err(|error| error.to_string());
    match stored.and_then(|()| served()) {
        Ok(()) => Word::Up(app.load.parts().weight()),
        Err(why) => Word::Down(why),
    }
}

#[derive(Serialize)]
struct Fullness {
    load: u8,
    role: &'static str,
    draining: bool,
    parts: Parts,
}

/// `GET /load`: how full the hub is, and of what.
pub(super) async fn load(State(app): State<Arc<App>>) -> impl IntoResponse {
    let parts = app.load.parts();
    let draining = app.draining.is_cancelled();
    let body = Fullness { load: parts.load(), role: app.config.role.as_str(), draining, parts };
    ([(CACHE_CONTROL, "no-store")], json(&body))
}

/// `GET /metrics`: OpenMetrics text.
pub(super) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
    ];
    (headers, app.telemetry.open_metrics())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;
    use twine_protocol::{Epoch, Offset, Position, RoomName};

    use super::*;
    use crate::auth::ApiKey;
    use crate::config::Config;
    use crate::http::router;
    use crate::rooms::Rooms;
    use crate::session::Sessions;
    use crate::store::{self, Opened, Reader, Record, Retention, Segment};
    use crate::telemetry::Telemetry;

    /// A reader with a fault.
    struct Faulty;

    impl Reader for Faulty {
        fn knows_epoch(&mut self, _: &RoomName, _: &Epoch) -> Result<bool, StoreError> {
            panic!("a test wants the reader to panic")
        }

        fn segments(&mut self, _: &RoomName) -> Result<Vec<Segment>, StoreError> {
            panic!("a test wants the reader to panic")
        }

        fn records(
            &mut self,
            _: &RoomName,
            _: &Epoch,
            _: Offset,
            _: usize,
            _: usize,
        ) -> Result<Vec<Record>, StoreError> {
            panic!("a test wants the reader to panic")
        }

        fn nth_last(
            &mut self,
            _: &RoomName,
            _: u32,
            _: &Position,
            _: usize,
        ) -> Result<Option<Position>, StoreError> {
            panic!("a test wants the reader to panic")
        }

        fn next_time(&mut self, _: &RoomName, _: &Epoch, _: Offset) -> Result<Option<u64>, StoreError> {
            panic!("a test wants the reader to panic")
        }
    }

    async fn get(app: &Arc<App>, path: &str, key: &ApiKey) -> (StatusCode, serde_json::Value) {
        let authorization = format!("Bearer {}", key.expose());
        let request = Request::get(path).header("authorization", authorization).body(Body::empty()).unwrap();
        let answer = router(app.clone()).oneshot(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn a_reader_that_panicked_answers_who_waits_and_shows_with_what_to_do() {
        let telemetry = Arc::new(Telemetry::default());
        let config = Config::default();
        let Opened { writer, .. } = store::memory::open(usize::MAX);
        let opened = Opened { writer, reader: Box::new(Faulty) };
        let rooms = Rooms::start(opened, Retention::Forever, &config.rooms(), telemetry.clone()).unwrap();
        let key = ApiKey::random().unwrap();
        let app = App::of(rooms, config, telemetry, &key);
        assert_eq!(get(&app, "/readyz", &key).await.0, StatusCode::OK);

        // The second waits in the thread's queue, or finds that there is none any more.
        let (first, second) =
            tokio::join!(get(&app, "/api/rooms/chat", &key), get(&app, "/api/rooms/news", &key));
        let later = get(&app, "/api/rooms/chat/messages", &key).await;
        for (status, problem) in [first, second, later] {
            assert_eq!((status, &problem["code"]), (StatusCode::SERVICE_UNAVAILABLE, &"unavailable".into()));
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains("restart the hub"), "{detail}");
        }
        // The answer comes while the thread unwinds, which takes it a little longer.
        let shown = loop {
            let (status, body) = get(&app, "/readyz", &key).await;
            if status == StatusCode::SERVICE_UNAVAILABLE {
                break body;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!((&shown["ready"], &shown["store"]["ok"]), (&false.into(), &false.into()));
        let error = shown["store"]["error"].as_str().unwrap();
        assert!(error.contains("restart the hub"), "{error}");
        // The end of the hub is none of a fault.
        app.rooms.close().await;
        let (_, problem) = get(&app, "/api/rooms/chat", &key).await;
        assert!(problem["detail"].as_str().unwrap().contains("shutting down"), "{problem}");
    }

    #[tokio::test]
    async fn a_keeper_of_sessions_that_panicked_shows_with_what_to_do() {
        let (telemetry, config) = (Arc::new(Telemetry::default()), Config::default());
        let opened = store::memory::open(usize::MAX);
        let rooms = Rooms::start(opened, Retention::Forever, &config.rooms(), telemetry.clone()).unwrap();
        let key = ApiKey::random().unwrap();
        let mut app = App::of(rooms, config, telemetry, &key);
        let folder = tempfile::tempdir().unwrap();
        let kind = store::Kind::Sqlite { data_dir: folder.path().to_owned() };
        let sessions = Sessions::open(&kind, app.config.sessions(), app.telemetry.clone()).unwrap();
        Arc::get_mut(&mut app).unwrap().sessions = sessions;
        assert_eq!(get(&app, "/readyz", &key).await.0, StatusCode::OK);
        assert!(matches!(word(&app), Word::Up(1..)));
        crate::session::tests::end_by_panic(&app.sessions);
        let shown = loop {
            let (status, body) = get(&app, "/readyz", &key).await;
            if status == StatusCode::SERVICE_UNAVAILABLE {
                break body;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!((&shown["ready"], &shown["store"]["ok"]), (&false.into(), &false.into()));
        let error = shown["store"]["error"].as_str().unwrap();
        assert!(error.contains("restart the hub"), "{error}");
        assert!(matches!(word(&app), Word::Down(why) if why == error));
        app.draining.cancel();
        assert_eq!(word(&app), Word::Drain);
    }
}
