//! The paths of the chat, and how a refusal is worded.

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use tracing::warn;
use twine_server_sdk::ErrorKind;

use crate::chat::Chat;
use crate::page::{self, Page};
use crate::post::{PostedMessage, PostedTyping};

/// The largest body: 2,000 characters of four bytes, escaped at worst, fit well.
const MAX_BODY: usize = 32 << 10;

#[derive(Clone)]
struct App {
    chat: Chat,
    page: Arc<Page>,
}

/// Every path.
///
/// Posts have to be declared as JSON. A form of a foreign site can't do that, so that no page but
/// this one posts in a visitor's name.
pub(crate) fn router(chat: Chat, page: Page) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/page/{file}", get(async |Path(file): Path<String>| page::file(&file)))
        .route("/messages", post(say))
        .route("/typing", post(typing))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(App { chat, page: Arc::new(page) })
}

async fn index(State(app): State<App>) -> Response {
    app.page.html()
}

async fn say(
    State(app): State<App>,
    posted: Result<Json<PostedMessage>, JsonRejection>,
) -> Result<StatusCode, Refusal> {
    let Json(posted) = posted?;
    app.chat.say(posted).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn typing(
    State(app): State<App>,
    posted: Result<Json<PostedTyping>, JsonRejection>,
) -> Result<StatusCode, Refusal> {
    let Json(posted) = posted?;
    app.chat.typing(posted)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Why a post was not taken.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// The post is at fault; the text says how.
    #[error(transparent)]
    Post(#[from] JsonRejection),
    /// The hub, or this backend's key or address, is at fault: nothing that a visitor can mend.
    #[error(transparent)]
    Publish(#[from] twine_server_sdk::Error),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, error) = match &self {
            Self::Post(rejection) => (rejection.status(), rejection.body_text()),
            Self::Publish(error) => {
                warn!(%error, kind = ?error.kind(), "not published");
                let status = match error.kind() {
                    ErrorKind::InvalidMessage => StatusCode::UNPROCESSABLE_ENTITY,
                    ErrorKind::QueueFull => StatusCode::TOO_MANY_REQUESTS,
                    _ => StatusCode::SERVICE_UNAVAILABLE,
                };
                (status, "the message could not be published".to_owned())
            }
        };
        (status, Json(json!({ "error": error }))).into_response()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use axum::http::header::CONTENT_TYPE;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;
    use twine_hub::Hub;
    use twine_server_sdk::Twine;

    use super::*;

    async fn chat() -> (twine_hub::Running, Router) {
        let hub = Hub::builder().ephemeral().start().await.unwrap();
        let twine = Twine::builder(hub.url(), hub.api_key().expose()).no_proxy().build().unwrap();
        let page = Page::new(&hub.url().parse().unwrap());
        (hub, router(Chat::start(twine).unwrap(), page))
    }

    async fn ask(router: &Router, request: Request<Body>) -> (StatusCode, String) {
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn post_json(router: &Router, path: &str, body: impl Into<Body>) -> (StatusCode, String) {
        let request = Request::post(path).header(CONTENT_TYPE, "application/json").body(body.into());
        ask(router, request.unwrap()).await
    }

    #[tokio::test]
    async fn a_message_is_published() {
        let (hub, router) = chat().await;
        for body in [
            r#"{"name":"Ada","text":"hello"}"#,
            r#"{"id":"m1","author":"a1","name":"Ada","text":"two\nlines"}"#,
        ] {
            assert_eq!(post_json(&router, "/messages", body).await, (StatusCode::NO_CONTENT, String::new()));
        }
        let (status, _) = post_json(&router, "/typing", r#"{"author":"a1","name":"Ada"}"#).await;
        assert_eq!(status, StatusCode::NO_CONTENT);
        hub.shutdown().await;
    }

    #[tokio::test]
    async fn a_bad_post_is_refused_with_a_reason() {
        let (hub, router) = chat().await;
        let long = format!(r#"{{"name":"Ada","text":"{}"}}"#, "x".repeat(2_001));
        let huge = format!(r#"{{"name":"Ada","text":"{}"}}"#, "x".repeat(MAX_BODY));
        for (body, status, reason) in [
            ("{", StatusCode::BAD_REQUEST, "EOF while parsing"),
            ("\"text\"", StatusCode::UNPROCESSABLE_ENTITY, "invalid type"),
            (r#"{"name":"Ada"}"#, StatusCode::UNPROCESSABLE_ENTITY, "missing field `text`"),
            (r#"{"name":"Ada","text":7}"#, StatusCode::UNPROCESSABLE_ENTITY, "text: invalid type"),
            (r#"{"name":"Ada","text":" "}"#, StatusCode::UNPROCESSABLE_ENTITY, "a text is empty"),
            (r#"{"name":"","text":"hi"}"#, StatusCode::UNPROCESSABLE_ENTITY, "a name is empty"),
            (r#"{"name":"A\u0000","text":"hi"}"#, StatusCode::UNPROCESSABLE_ENTITY, "a control character"),
            (r#"{"id":"","name":"Ada","text":"hi"}"#, StatusCode::UNPROCESSABLE_ENTITY, "id"),
            (
                r#"{"name":"Ada","text":"hi","room":"other"}"#,
                StatusCode::UNPROCESSABLE_ENTITY,
                "unknown field",
            ),
            (&long, StatusCode::UNPROCESSABLE_ENTITY, "at most 2000"),
            (&huge, StatusCode::PAYLOAD_TOO_LARGE, "limit"),
        ] {
            let (answered, text) = post_json(&router, "/messages", body.to_owned()).await;
            assert_eq!(answered, status, "{body:.60}: {text}");
            let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(answer["error"].as_str().unwrap().contains(reason), "{body:.60}: {text}");
        }
        hub.shutdown().await;
    }

    #[tokio::test]
    async fn a_post_that_a_foreign_form_could_make_is_refused() {
        let (hub, router) = chat().await;
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
            let body = r#"{"name":"Ada","text":"hello"}"#;
            let request = Request::post("/messages").header(CONTENT_TYPE, kind).body(body.into()).unwrap();
            assert_eq!(ask(&router, request).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind}");
        }
        hub.shutdown().await;
    }

    #[tokio::test]
    async fn a_key_that_the_hub_does_not_take_is_no_fault_of_the_visitor() {
        let hub = Hub::builder().ephemeral().start().await.unwrap();
        let twine = Twine::builder(hub.url(), "another-key").no_proxy().build().unwrap();
        let page = Page::new(&hub.url().parse().unwrap());
        let router = router(Chat::start(twine).unwrap(), page);
        let (status, text) = post_json(&router, "/messages", r#"{"name":"Ada","text":"hello"}"#).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(!text.contains("key"), "{text}");
        hub.shutdown().await;
    }

    #[tokio::test]
    async fn the_page_has_all_its_files() {
        let (hub, router) = chat().await;
        let get = |path: &str| Request::get(path).body(Body::empty()).unwrap();
        let (status, html) = ask(&router, get("/")).await;
        assert_eq!(status, StatusCode::OK);
        assert!(html.contains(&format!("src=\"{}/twine.js\"", hub.url())), "{html}");
        let mut n_files = 0;
        for quoted in html.split('"').filter(|part| part.starts_with("/page/")) {
            assert_eq!(ask(&router, get(quoted)).await.0, StatusCode::OK, "{quoted}");
            n_files += 1;
        }
        assert!(n_files >= 3);
        assert_eq!(ask(&router, get("/page/main.rs")).await.0, StatusCode::NOT_FOUND);
        hub.shutdown().await;
    }
}
