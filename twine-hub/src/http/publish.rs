//! `POST /api/publish` and `POST /api/publish/batch`: the way into a room.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use twine_protocol::api::{Publish, PublishedList};
use twine_protocol::json::{self, PublishError};
use twine_protocol::{Data, ErrorCode};

use super::problem::Refusal;
use super::{App, body};
use crate::broker;
use crate::config::Config;
use crate::rooms::{NewMessage, Payload};

/// One message, to one room or to several.
pub(super) async fn one(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let body = body::json(request, &app.config).await?;
    let publish = json::decode_publish(&body)?;
    check_data(&publish, &app.config, None)?;
    let Publish { room, rooms, data, id, sender } = publish;
    let message = Payload { data, id, sender };
    if let Some(rooms) = rooms {
        check_count("rooms", rooms.len(), &app.config)?;
        let results = app.rooms.publish_to_each(rooms, message).await?;
        return Ok(super::json(&PublishedList { results }));
    }
    // Decoding gives one of the two, and the store one answer a message.
    let messages = room.map(|room| message.to(room)).into_iter().collect();
    match app.rooms.publish(messages).await?.first() {
        Some(published) => Ok(super::json(published)),
        None => Err(Refusal::new(ErrorCode::Internal, "the store gave no position")),
    }
}

/// Several messages: all are stored, or none.
pub(super) async fn batch(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let body = body::json(request, &app.config).await?;
    let batch = json::decode_publish_batch(&body)?;
    check_count("messages", batch.messages.len(), &app.config)?;
    for (index, publish) in batch.messages.iter().enumerate() {
        check_data(publish, &app.config, Some(index))?;
    }
    let messages = batch
        .messages
        .into_iter()
        // Decoding gives each its room.
        .filter_map(|Publish { room, data, id, sender, .. }| {
            Some(NewMessage { room: room?, data, id, sender })
        })
        .collect();
    Ok(super::json(&PublishedList { results: app.rooms.publish(messages).await? }))
}

fn check_data(publish: &Publish<Data>, config: &Config, index: Option<usize>) -> Result<(), Refusal> {
    let (len, limit) = (publish.data.get().len(), config.max_data);
    if len <= limit {
        return Ok(());
    }
    let detail = format!("`data` has {len} bytes, at most {limit} are allowed (`max_data`)");
    Err(Refusal::new(ErrorCode::DataTooBig, detail).at(index))
}

fn check_count(field: &str, len: usize, config: &Config) -> Result<(), Refusal> {
    let limit = config.max_batch;
    if len <= limit {
        return Ok(());
    }
    let detail = format!("`{field}` has {len} items, at most {limit} are allowed (`max_batch`)");
    Err(Refusal::new(ErrorCode::BadRequest, detail))
}

impl From<PublishError> for Refusal {
    fn from(error: PublishError) -> Self {
        Self::new(error.code(), error.to_string()).at(error.index)
    }
}

impl From<broker::PublishError> for Refusal {
    fn from(error: broker::PublishError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Body;
    use http::StatusCode;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::auth::ApiKey;
    use crate::http::router;
    use crate::rooms::Rooms;
    use crate::store::{Retention, sqlite};
    use crate::telemetry::Telemetry;

    /// Status, and code of a problem, of a publish of many bytes under an id.
    async fn publish(app: &Arc<App>, key: &ApiKey, id: &str) -> (StatusCode, String) {
        let body = format!(r#"{{"room":"chat","id":"{id}","data":"{}"}}"#, "x".repeat(60_000));
        let request = Request::post("/api/publish")
            .header("authorization", format!("Bearer {}", key.expose()))
            .header("content-type", "application/json")
            .body(Body::from(body))
            .unwrap();
        let answer = router(app.clone()).oneshot(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let shown = if status.is_success() { &body["duplicate"] } else { &body["code"] };
        (status, shown.as_str().map_or_else(|| shown.to_string(), str::to_owned))
    }

    #[tokio::test]
    async fn a_full_store_refuses_publishes_until_there_is_space_again() {
        let folder = tempfile::tempdir().unwrap();
        let telemetry = Arc::new(Telemetry::default());
        let config = Config::default();
        let opened = sqlite::open_small(folder.path(), 100).unwrap();
        // Short enough that space comes back in the test, by the only way there is.
        let retention = Retention::For(Duration::from_secs(1));
        let rooms = Rooms::start(opened, retention, &config.rooms(), telemetry.clone()).unwrap();
        let key = ApiKey::random().unwrap();
        let app = App::of(rooms, config, telemetry, &key);
        let mut published = 0;
        let refused = loop {
            let (status, said) = publish(&app, &key, &format!("filler-{published}")).await;
            if status != StatusCode::OK {
                break (status, said);
            }
            published += 1;
        };
        assert_eq!(refused, (StatusCode::INSUFFICIENT_STORAGE, "store_full".to_owned()));
        let retried = format!("filler-{published}");
        let said = loop {
            let (status, said) = publish(&app, &key, &retried).await;
            if status == StatusCode::OK {
                break said;
            }
        };
        assert_eq!(said, "false", "what was refused is no duplicate");
        let head = app.rooms.info(&"chat".parse().unwrap()).await.unwrap().head.offset;
        assert_eq!(head.get(), published + 1, "what was refused has taken no offset");
        assert!(app.rooms.health().is_ok());
        app.rooms.close().await;
    }
}
