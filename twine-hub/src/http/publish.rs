//! `POST /api/publish` and `POST /api/publish/batch`: the way into a room.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_TYPE;
use twine_protocol::api::{Publish, Published, PublishedList};
use twine_protocol::json::{self, PublishError};
use twine_protocol::{Data, ErrorCode, RoomName};

use super::problem::Refusal;
use super::{App, body};
use crate::broker::{self, Publishing};
use crate::config::Config;
use crate::rooms::{NewMessage, Payload, Rooms};

/// The paths here, and what their bodies hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `/api/publish`: one message, to one room or to several.
    One,
    /// `/api/publish/batch`: several messages; all are stored, or none.
    Batch,
}

/// How a publish is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// With one position.
    One,
    /// With a list of them.
    List,
}

/// What a body asks for, checked.
#[derive(Debug)]
pub(super) enum Order {
    One(NewMessage),
    Each(Vec<RoomName>, Payload),
    All(Vec<NewMessage>),
}

/// `POST /api/publish`.
pub(super) async fn one(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    answer(&app, Kind::One, request).await
}

/// `POST /api/publish/batch`.
pub(super) async fn batch(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    answer(&app, Kind::Batch, request).await
}

async fn answer(app: &App, kind: Kind, request: Request) -> Result<Response, Refusal> {
    let body = body::json(request, &app.config).await?;
    let order = read(kind, &body, &app.config)?;
    let shape = order.shape();
    let published = order.place(&app.rooms).await?;
    Ok(([(CONTENT_TYPE, "application/json")], word(shape, published)?).into_response())
}

/// Reads a body.
///
/// # Errors
/// [`Refusal`] where it asks for nothing that can be done.
pub(super) fn read(kind: Kind, body: &[u8], config: &Config) -> Result<Order, Refusal> {
    if kind == Kind::Batch {
        let batch = json::decode_publish_batch(body)?;
        check_count("messages", batch.messages.len(), config)?;
        for (index, publish) in batch.messages.iter().enumerate() {
            check_data(publish, config, Some(index))?;
        }
        let messages = batch.messages.into_iter();
        // Decoding gives each its room.
        let messages = messages.filter_map(|Publish { room, data, id, sender, .. }| {
            Some(NewMessage { room: room?, data, id, sender })
        });
        return Ok(Order::All(messages.collect()));
    }
    let publish = json::decode_publish(body)?;
    check_data(&publish, config, None)?;
    let Publish { room, rooms, data, id, sender } = publish;
    match (room, rooms) {
        (Some(room), _) => Ok(Order::One(NewMessage { room, data, id, sender })),
        // Decoding gives one of the two.
        (None, rooms) => {
            let rooms = rooms.unwrap_or_default();
            check_count("rooms", rooms.len(), config)?;
            Ok(Order::Each(rooms, Payload { data, id, sender }))
        }
    }
}

impl Order {
    pub(super) fn shape(&self) -> Shape {
        if matches!(self, Self::One(_)) { Shape::One } else { Shape::List }
    }

    pub(super) fn place(self, rooms: &Rooms) -> Publishing {
        match self {
            Self::One(message) => rooms.publish(vec![message]),
            Self::Each(names, payload) => rooms.publish_to_each(names, &payload),
            Self::All(messages) => rooms.publish(messages),
        }
    }
}

/// The body of the answer. It holds texts and numbers only, which always serialize.
///
/// # Errors
/// [`Refusal`] where the store gave no position.
pub(super) fn word(shape: Shape, results: Vec<Published>) -> Result<Vec<u8>, Refusal> {
    let body = match (shape, results.first()) {
        (Shape::List, _) => serde_json::to_vec(&PublishedList { results }),
        (Shape::One, Some(published)) => serde_json::to_vec(published),
        // The store gives one answer a message.
        (Shape::One, None) => return Err(Refusal::new(ErrorCode::Internal, "the store gave no position")),
    };
    Ok(body.unwrap_or_default())
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
