//! `GET /api/rooms…`: which rooms are in use here, and what was said in them.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde::Deserialize;
use twine_protocol::{Epoch, ErrorCode, InvalidPosition, Offset, Position, RoomName};

use super::problem::Refusal;
use super::{App, json};
use crate::store::StoreError;

/// Rooms, or messages, of an answer where the request names no `limit`.
const DEFAULT_LIMIT: u32 = 100;
/// Rooms of an answer at most.
const MAX_ROOMS: u32 = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    after: Option<String>,
    limit: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    after: Option<u64>,
    epoch: Option<String>,
    limit: Option<u32>,
}

/// `GET /api/rooms`
pub(super) async fn list(
    State(app): State<Arc<App>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(query) = query?;
    let after = query.after.as_deref().map(room).transpose()?;
    let limit = limit(query.limit, MAX_ROOMS)?;
    Ok(json(&app.rooms.list(after.as_ref(), limit as usize)))
}

/// `GET /api/rooms/{room}`
pub(super) async fn info(
    State(app): State<Arc<App>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    Ok(json(&app.rooms.info(&in_path(name)?).await?))
}

/// `GET /api/rooms/{room}/messages`
pub(super) async fn history(
    State(app): State<Arc<App>>,
    name: Result<Path<String>, PathRejection>,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let room = in_path(name)?;
    let Query(query) = query?;
    let after = match (query.epoch, query.after) {
        (Some(epoch), Some(offset)) => {
            Some(Position { epoch: Epoch::new(&epoch)?, offset: Offset::new(offset)? })
        }
        (None, None) => None,
        _ => return Err(Refusal::new(ErrorCode::BadRequest, "`after` and `epoch` belong together")),
    };
    let limit = limit(query.limit, app.config.max_history)?;
    Ok(json(&app.rooms.history(&room, after, limit).await?))
}

fn limit(asked: Option<u32>, most: u32) -> Result<u32, Refusal> {
    match asked {
        None => Ok(DEFAULT_LIMIT.min(most)),
        Some(limit) if (1..=most).contains(&limit) => Ok(limit),
        Some(limit) => {
            Err(Refusal::new(ErrorCode::BadRequest, format!("`limit` is 1 to {most}, and not {limit}")))
        }
    }
}

fn in_path(name: Result<Path<String>, PathRejection>) -> Result<RoomName, Refusal> {
    match name {
        Ok(Path(name)) => room(&name),
        // Percent-encoded bytes that are no UTF-8: the only way a path's one text can be refused.
        Err(rejection) => Err(Refusal::new(ErrorCode::BadRoom, rejection.body_text())),
    }
}

fn room(name: &str) -> Result<RoomName, Refusal> {
    RoomName::new(name).map_err(|error| Refusal::new(ErrorCode::BadRoom, error.to_string()))
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(ErrorCode::BadRequest, rejection.body_text())
    }
}

impl From<InvalidPosition> for Refusal {
    fn from(error: InvalidPosition) -> Self {
        Self::new(ErrorCode::BadRequest, error.to_string())
    }
}

impl From<Arc<StoreError>> for Refusal {
    fn from(error: Arc<StoreError>) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
