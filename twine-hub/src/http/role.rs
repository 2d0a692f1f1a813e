//! What a hub of a fleet leaves to others, and who they are.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use twine_protocol::ErrorCode;

use super::problem::Refusal;
use super::{App, refuse};
use crate::config::Role;

/// Refuses publishes where other hubs take them.
pub(super) async fn check_publishes(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if app.config.role != Role::Edge {
        return next.run(request).await;
    }
    let detail = "this hub's `role` is edge: publish to one whose role is publish or all";
    refuse(&app.config, request, Refusal::new(ErrorCode::WrongRole, detail)).await
}

/// Refuses clients where other hubs hold connections.
pub(super) async fn check_clients(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if app.config.role != Role::Publish {
        return next.run(request).await;
    }
    let detail = "this hub's `role` is publish: connect to one whose role is edge or all";
    refuse(&app.config, request, Refusal::new(ErrorCode::WrongRole, detail)).await
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::{Method, StatusCode};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::auth::ApiKey;
    use crate::config::Config;
    use crate::http::router;
    use crate::rooms::Rooms;
    use crate::store::{Retention, memory};
    use crate::telemetry::Telemetry;

    const PUBLISH: &str = r#"{"room":"chat","data":1}"#;

    /// A hub of a fleet, as far as roles go.
    fn hub(role: Role, key: &ApiKey) -> Arc<App> {
        let telemetry = Arc::new(Telemetry::default());
        let config = Config { role, ..Config::default() };
        let opened = memory::open(usize::MAX);
        let rooms = Rooms::start(opened, Retention::Forever, &config.rooms(), telemetry.clone()).unwrap();
        App::of(rooms, config, telemetry, key)
    }

    async fn ask(
        app: &Arc<App>,
        key: &ApiKey,
        method: Method,
        path: &str,
    ) -> (StatusCode, serde_json::Value) {
        let body = if method == Method::POST { PUBLISH } else { "" };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {}", key.expose()))
            .header("content-type", "application/json")
            .body(Body::from(body))
            .unwrap();
        let answer = router(app.clone()).oneshot(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn each_hub_does_what_its_role_says_and_names_who_does_the_rest() {
        let key = ApiKey::random().unwrap();
        let publishing = [(Method::POST, "/api/publish"), (Method::POST, "/api/publish/batch")];
        let connecting =
            [(Method::GET, "/ws"), (Method::GET, "/set-cookie"), (Method::DELETE, "/set-cookie")];
        for (role, refused, taken, others) in [
            (Role::Edge, &publishing[..], &connecting[..], "publish or all"),
            (Role::Publish, &connecting[..], &publishing[..], "edge or all"),
            (Role::All, &[], &[&publishing[..], &connecting[..]].concat()[..], ""),
        ] {
            let app = hub(role, &key);
            for (method, path) in refused {
                let (status, problem) = ask(&app, &key, method.clone(), path).await;
                assert_eq!(
                    (status, &problem["code"]),
                    (StatusCode::MISDIRECTED_REQUEST, &"wrong_role".into())
                );
                assert!(problem["detail"].as_str().unwrap().contains(others), "{problem}");
            }
            for (method, path) in taken {
                let (status, _) = ask(&app, &key, method.clone(), path).await;
                assert_ne!(status, StatusCode::MISDIRECTED_REQUEST, "{role:?} {path}");
            }
            for path in ["/readyz", "/load"] {
                assert_eq!(ask(&app, &key, Method::GET, path).await.1["role"], role.as_str());
            }
            // Reading needs no role, and a stranger is told of no roles.
            assert_eq!(ask(&app, &key, Method::GET, "/api/rooms").await.0, StatusCode::OK);
            let stranger = ApiKey::random().unwrap();
            assert_eq!(ask(&app, &stranger, Method::POST, "/api/publish").await.0, StatusCode::UNAUTHORIZED);
            app.rooms.close().await;
        }
    }
}
