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
use crate::store::history::{Direction, Range};

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
    before: Option<u64>,
    epoch: Option<String>,
    since: Option<u64>,
    until: Option<u64>,
    direction: Option<Way>,
    limit: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Way {
    Forwards,
    Backwards,
}

impl HistoryQuery {
    fn range(self) -> Result<Range, Refusal> {
        let refuse = |why| Err(Refusal::new(ErrorCode::BadRequest, why));
        let position = |epoch: &str, offset| -> Result<_, InvalidPosition> {
            Ok(Position { epoch: Epoch::new(epoch)?, offset: Offset::new(offset)? })
        };
        let (after, before) = match (self.epoch, self.after, self.before) {
            (None, None, None) => (None, None),
            (Some(epoch), Some(offset), None) => (Some(position(&epoch, offset)?), None),
            (Some(epoch), None, Some(offset)) => (None, Some(position(&epoch, offset)?)),
            (_, Some(_), Some(_)) => return refuse("`after` and `before` exclude each other"),
            _ => return refuse("`epoch` belongs together with `after` or `before`"),
        };
        if let (Some(since), Some(until)) = (self.since, self.until)
            && since >= until
        {
            return refuse("`until` must be later than `since`");
        }
        let direction = match self.direction {
            Some(Way::Forwards) if before.is_some() => return refuse("`before` reads `backwards`"),
            Some(Way::Backwards) if after.is_some() => return refuse("`after` reads `forwards`"),
            Some(Way::Forwards) => Direction::Forwards,
            None if before.is_none() && (after.is_some() || self.since.is_some()) => Direction::Forwards,
            _ => Direction::Backwards,
        };
        Ok(Range { after, before, since: self.since, until: self.until, direction })
    }
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
    let limit = limit(query.limit, app.config.max_history)?;
    Ok(json(&app.rooms.history(&room, query.range()?, limit).await?))
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
