//! `POST /api/publish` and `POST /api/publish/batch`: the way into a room.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use twine_protocol::api::{Publish, PublishedList};
use twine_protocol::json::{self, PublishError};
use twine_protocol::{Data, ErrorCode, RoomName};

use super::problem::Refusal;
use super::{App, body};
use crate::broker;
use crate::config::Config;
use crate::rooms::NewMessage;

/// One message, to one room or to several.
pub(super) async fn one(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let body = body::json(request, &app.config).await?;
    let publish = json::decode_publish(&body)?;
    check_data(&publish, &app.config, None)?;
    let Publish { room, rooms, data, id, sender } = publish;
    let message = |room, data| NewMessage { room, data, id: id.clone(), sender: sender.clone() };
    if let Some(rooms) = rooms {
        check_count("rooms", rooms.len(), &app.config)?;
        let messages = rooms.into_iter().map(|room| message(room, data.clone())).collect();
        return Ok(super::json(&PublishedList { results: app.rooms.publish(messages).await? }));
    }
    // Decoding gives one of the two, and the store one answer a message.
    let messages = room.map(|room: RoomName| message(room, data)).into_iter().collect();
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
