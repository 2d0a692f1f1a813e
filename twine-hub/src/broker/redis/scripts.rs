//! The scripts, typed. Each is atomic, may be run again, and reads in itself which server it runs on.

use std::time::Duration;

use redis::{Cmd, Value};
use twine_protocol::{Epoch, MessageId, Offset, Position, RoomName};

use super::error::RedisError;
use super::keys::Keys;
use super::link::{Link, Request};
use super::script::{Call, Fields, Script, scripts};
use crate::clock::millis;
use crate::store::{Record, packed};

/// Bounds of what a room keeps in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RoomLimits {
    /// For how long a publish with the same id stores nothing.
    pub(crate) window: Duration,
    /// Durable messages younger than this stay in the log...
    pub(crate) trim_age: Duration,
    /// ...but no more than about so many.
    pub(crate) max_length: u64,
    /// How far what is assigned may be ahead of what is durable without a hole; publishes above are
    /// refused. So whoever seals an epoch knows how far back a hole may be.
    pub(crate) max_pending: u64,
}

impl Default for RoomLimits {
    fn default() -> Self {
        Self {
            window: Duration::from_mins(10),
            trim_age: Duration::from_mins(2),
            max_length: 10_000,
            max_pending: 10_000,
        }
    }
}

/// How long a room without messages, readers and writers stays known.
const KEEP: Duration = Duration::from_hours(25);

/// Offsets that one run of a script takes.
const MAX_COMMIT: usize = 1024;

/// The room must be rotated: Redis does not know it, or it is not known to be whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rotate {
    /// The epoch and head that this server remembers, if any. Not more than a hint.
    pub(crate) last: Option<Position>,
    /// The server to install the next epoch on.
    pub(crate) server: String,
}

/// What became of a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Published {
    /// It has a place, and is to be made durable.
    Assigned {
        position: Position,
        /// The message's time, milliseconds since 1970.
        time: u64,
        /// What is durable without a hole.
        done: Offset,
        /// For how long that has stood still though messages are pending.
        stalled: Duration,
    },
    /// It had one already.
    Duplicate {
        position: Position,
        /// Whether it may not be durable yet.
        is_pending: bool,
    },
    /// The room is in another epoch than the one that it was to be published in.
    OtherEpoch,
    /// Too many messages of the room wait to become durable.
    Busy,
    Rotate(Rotate),
}

/// How far a room is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Looked {
    Known {
        /// What is durable without a hole.
        done: Position,
        /// The last offset that was assigned.
        head: Offset,
        /// For how long `done` has stood still though messages are pending.
        stalled: Duration,
        /// The server that says so.
        server: String,
    },
    Rotate(Rotate),
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Committed {
    /// What is durable without a hole now.
    Done(Offset),
    /// The epoch has ended, or its server is another. The messages are where the store has them.
    Rotated,
}

/// What became of an epoch's beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Installed {
    /// It has begun, now or by an earlier attempt.
    Yes,
    /// The server is this one now: rotate again.
    OtherServer(String),
    /// This epoch has begun, which is not earlier.
    Later(Epoch),
}

/// What the log of an epoch still has.
#[derive(Debug, Clone)]
pub(crate) enum Tail {
    /// Dense, in order. The first may not be the one after what was asked for: older ones were trimmed.
    Messages(Vec<Record>),
    /// The room is in another epoch, or must be rotated.
    Elsewhere,
}

/// Messages that whoever assigned them did not make durable.
#[derive(Debug, Clone)]
pub(crate) enum Overdue {
    /// In order, with holes.
    Messages(Vec<Record>),
    /// The room is in another epoch, or must be rotated.
    Elsewhere,
}

scripts! {
    concat!(include_str!("scripts/room.lua"), "\n");
    PUBLISH = "scripts/publish.lua";
    COMMIT = "scripts/commit.lua";
    LOOK = "scripts/look.lua";
    INSTALL = "scripts/install.lua";
    READ = "scripts/read.lua";
    OVERDUE = "scripts/overdue.lua";
}

impl Link {
    /// Gives a message its place and puts it into the log: in `epoch`, or in whichever the room is. Nobody
    /// sees it before it is committed.
    ///
    /// # Errors
    /// [`RedisError`]; it may have a place all the same, which publishing again with the same id finds.
    pub(crate) async fn publish(
        &self,
        room: &RoomName,
        id: &MessageId,
        sender: Option<&str>,
        data: &str,
        epoch: Option<&Epoch>,
        limits: &RoomLimits,
    ) -> Result<Published, RedisError> {
        let keys = Keys::new(room);
        let mut bytes = Vec::with_capacity(data.len() + 64);
        packed::pack_untimed(Some(id), sender, data, &mut bytes);
        let answer = call(&PUBLISH, &keys, Some(keys.id(id.as_str())))
            .arg(bytes)
            .arg(millis(limits.window))
            .arg(millis(limits.trim_age))
            .arg(limits.max_length)
            .arg(limits.max_pending)
            .arg(millis(KEEP))
            .arg(epoch.map_or("", Epoch::as_str))
            .run(self, "publish")
            .await?;
        answer.read(|kind, fields| {
            Ok(match kind {
                "ok" => Published::Assigned {
                    position: Position { epoch: fields.epoch()?, offset: fields.offset()? },
                    time: fields.number()?,
                    done: fields.offset()?,
                    stalled: fields.millis()?,
                },
                "duplicate" => Published::Duplicate {
                    position: Position { epoch: fields.epoch()?, offset: fields.offset()? },
                    is_pending: fields.number()? == 1,
                },
                "other" => Published::OtherEpoch,
                "busy" => Published::Busy,
                "rotate" => Published::Rotate(fields.rotate()?),
                _ => return Err(fields.kind(kind)),
            })
        })
    }

    /// Says that the messages at these offsets are durable. What is so without a hole before it is said to
    /// the hubs that watch the room.
    ///
    /// # Errors
    /// [`RedisError`]; commit again, or leave it to whoever completes what is overdue.
    pub(crate) async fn commit(
        &self,
        room: &RoomName,
        epoch: &Epoch,
        offsets: &[Offset],
        limits: &RoomLimits,
    ) -> Result<Committed, RedisError> {
        let keys = Keys::new(room);
        let mut committed = Committed::Rotated;
        for offsets in offsets.chunks(MAX_COMMIT) {
            let mut call = call(&COMMIT, &keys, Some(keys.channel().name().to_owned()))
                .arg(epoch.as_str())
                .arg(millis(limits.trim_age * 2));
            for offset in offsets {
                call = call.arg(offset.get());
            }
            committed = call.run(self, "commit").await?.read(|kind, fields| {
                Ok(match kind {
                    "ok" => Committed::Done(fields.offset()?),
                    "rotated" => Committed::Rotated,
                    _ => return Err(fields.kind(kind)),
                })
            })?;
            if committed == Committed::Rotated {
                break;
            }
        }
        Ok(committed)
    }

    /// How far a room is. The room stays known for a day more.
    ///
    /// # Errors
    /// [`RedisError`].
    pub(crate) async fn look(&self, room: &RoomName) -> Result<Looked, RedisError> {
        let keys = Keys::new(room);
        call(&LOOK, &keys, None).arg(millis(KEEP)).run(self, "look").await?.read(|kind, fields| {
            Ok(match kind {
                "ok" => Looked::Known {
                    done: Position { epoch: fields.epoch()?, offset: fields.offset()? },
                    head: fields.offset()?,
                    stalled: fields.millis()?,
                    server: fields.text()?,
                },
                "rotate" => Looked::Rotate(fields.rotate()?),
                _ => return Err(fields.kind(kind)),
            })
        })
    }

    /// Begins an epoch, where the server still is `server` and the room's epoch is an earlier one; tells the
    /// hubs. What the room had in the log and pending is gone then.
    ///
    /// # Errors
    /// [`RedisError`]; install again.
    pub(crate) async fn install(
        &self,
        room: &RoomName,
        server: &str,
        epoch: &Epoch,
        least_time: u64,
    ) -> Result<Installed, RedisError> {
        let keys = Keys::new(room);
        call(&INSTALL, &keys, Some(keys.channel().name().to_owned()))
            .arg(server)
            .arg(epoch.as_str())
            .arg(least_time)
            .arg(millis(KEEP))
            .run(self, "install")
            .await?
            .read(|kind, fields| {
                Ok(match kind {
                    "ok" => Installed::Yes,
                    "server" => Installed::OtherServer(fields.text()?),
                    "later" => Installed::Later(fields.epoch()?),
                    _ => return Err(fields.kind(kind)),
                })
            })
    }

    /// Remembers where messages of earlier epochs are, which are durable, so that publishing them again
    /// stores nothing. To be called before [`Link::install`], for ids that are not `left` long are forgotten.
    ///
    /// # Errors
    /// [`RedisError`]; call again.
    pub(crate) async fn remember(
        &self,
        room: &RoomName,
        id: &MessageId,
        position: &Position,
        left: Duration,
    ) -> Result<(), RedisError> {
        let keys = Keys::new(room);
        let mut command = Cmd::new();
        command
            .arg("SET")
            .arg(keys.id(id.as_str()))
            .arg(format!("={} {}", position.epoch, position.offset.get()))
            .arg("PX")
            .arg(millis(left).max(1));
        self.ask(keys.slot(), &Request::plain(command)).await?;
        Ok(())
    }

    /// Durable messages of an epoch after an offset, as far as the log still has them.
    ///
    /// # Errors
    /// [`RedisError`].
    pub(crate) async fn read(
        &self,
        room: &RoomName,
        after: &Position,
        limit: usize,
        bytes: usize,
    ) -> Result<Tail, RedisError> {
        let keys = Keys::new(room);
        call(&READ, &keys, None)
            .arg(after.epoch.as_str())
            .arg(after.offset.get())
            .arg(limit)
            .arg(bytes)
            .run(self, "read")
            .await?
            .read(|kind, fields| {
                Ok(match kind {
                    "ok" => {
                        let mut offset = fields.offset()?;
                        let mut records = Vec::new();
                        for message in fields.list()? {
                            records.push(fields.record(offset, message)?);
                            offset = offset.next();
                        }
                        Tail::Messages(records)
                    }
                    "other" | "rotate" => Tail::Elsewhere,
                    _ => return Err(fields.kind(kind)),
                })
            })
    }

    /// Messages of an epoch that have been pending for at least so long, the oldest first.
    ///
    /// # Errors
    /// [`RedisError`].
    pub(crate) async fn overdue(
        &self,
        room: &RoomName,
        epoch: &Epoch,
        age: Duration,
        limit: usize,
        bytes: usize,
    ) -> Result<Overdue, RedisError> {
        let keys = Keys::new(room);
        call(&OVERDUE, &keys, None)
            .arg(epoch.as_str())
            .arg(millis(age))
            .arg(limit)
            .arg(bytes)
            .run(self, "overdue")
            .await?
            .read(|kind, fields| {
                Ok(match kind {
                    "ok" => {
                        let mut records = Vec::new();
                        let mut list = fields.list()?.into_iter();
                        while let (Some(offset), Some(message)) = (list.next(), list.next()) {
                            records.push(fields.record(fields.as_offset(offset)?, message)?);
                        }
                        Overdue::Messages(records)
                    }
                    "other" | "rotate" => Overdue::Elsewhere,
                    _ => return Err(fields.kind(kind)),
                })
            })
    }
}

/// A script on a room's keys, and perhaps a fourth one.
fn call(script: &'static Script, keys: &Keys, fourth: Option<String>) -> Call {
    let keys_of_room = [Some(keys.room()), Some(keys.log()), Some(keys.pending()), fourth];
    Call::new(script, keys.slot(), keys_of_room.into_iter().flatten())
}

/// What only the answers about rooms have.
impl Fields {
    fn rotate(&mut self) -> Result<Rotate, RedisError> {
        let last = Position { epoch: self.epoch()?, offset: self.offset()? };
        Ok(Rotate { last: Some(last).filter(|last| !last.epoch.is_empty()), server: self.text()? })
    }

    fn record(&self, offset: Offset, message: Value) -> Result<Record, RedisError> {
        match message {
            Value::BulkString(bytes) => {
                packed::unpack(offset, &bytes).map_err(|error| self.unexpected(error))
            }
            other => Err(self.unexpected(format_args!("{other:?} in place of a message"))),
        }
    }

    fn as_offset(&self, value: Value) -> Result<Offset, RedisError> {
        let number: u64 = redis::from_redis_value(value).map_err(|error| self.unexpected(error))?;
        Offset::new(number).map_err(|error| self.unexpected(error))
    }
}
