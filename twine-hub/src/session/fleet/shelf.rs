//! Sessions in Redis: the scripts, typed. What is to be done is decided elsewhere.
//!
//! Sessions are kept by cookie, and cookies in 256 buckets by the first byte of their hash; a bucket is one
//! slot of a cluster (K is `twine:sessions:{BUCKET}`):
//!
//! | key | holds |
//! | --- | --- |
//! | `K` | sorted set: the bucket's sessions, `COOKIE/ID`, by the time of the last word of each; also the channel on which hubs hear which cookie was forgotten |
//! | `K:COOKIE` | hash: a [`Row`] for each session of the cookie, and a `version` that changes with who holds what; once forgotten, for a while, `forgotten` |
//! | `K:COOKIE:rooms` | hash: each session's rooms and cursors, as JSON, and the number of the save that they are of |
//! | `twine:hub:{HUB}` | a hub's lease; also its channel |
//!
//! All of it expires by itself. Invariants: what was read and decided upon has not changed when it is done
//! ([`Decided::Stale`]); whoever does not hold a session any more can't write it ([`Saved::Lost`]), nor put it
//! back ([`Decided::Taken`]); and of two that both believe to hold one, for Redis has lost who does, the
//! later one does.

use std::collections::HashMap;
use std::time::Duration;

use redis::Cmd;
use twine_protocol::SessionId;
use uuid::Uuid;

use super::row::{About, Claimed, HubId, Row};
use crate::broker::redis::{Call, Link, RedisError, Request, Script, Tagged, scripts};
use crate::clock::millis;
use crate::session::{CookieHash, Cursors, cursors};

/// For how long it is known that a cookie's sessions were forgotten: longer than a hub that holds one
/// leaves it unsaved.
const FORGOTTEN_FOR: Duration = Duration::from_mins(20);
/// The same where there were none: longer than it takes to store one.
const NONE_FORGOTTEN_FOR: Duration = Duration::from_mins(1);
/// Buckets: cookies by the first byte of their hash.
const BUCKETS: usize = 256;

scripts! {
    concat!(include_str!("scripts/bucket.lua"), "\n");
    READ = "scripts/read.lua";
    DECIDE = "scripts/decide.lua";
    SAVE = "scripts/save.lua";
    FORGET = "scripts/forget.lua";
}

/// Where sessions are kept.
#[derive(Clone)]
pub(super) struct Shelf {
    link: Link,
    /// How long a session is kept of which nothing is heard.
    ttl: Duration,
    /// How long a holder may say nothing.
    silent: Duration,
    /// Sessions of a bucket.
    max: usize,
}

/// The sessions of a cookie, oldest first, as they were at a moment.
#[derive(Debug, Clone)]
pub(super) struct Book {
    cookie: CookieHash,
    version: String,
    /// The moment, in milliseconds by Redis' clock.
    pub(super) now: u64,
    pub(super) rows: Vec<Row>,
}

/// What is to be done to a cookie's sessions.
#[derive(Debug)]
pub(super) enum Change<'a> {
    /// A new one, or one that Redis has lost, of this attachment; to be said before all others.
    Add { about: &'a About, of: &'a Claimed, has_ended: bool, rooms: &'a Cursors, number: u64 },
    /// It is held by this attachment.
    Hold { about: &'a About, of: &'a Claimed },
    /// Nobody holds it any more.
    End(&'a SessionId),
    /// It is gone.
    Remove(&'a SessionId),
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Decided {
    /// It is done.
    Done {
        /// The rooms that were wanted; `None` where there are none, or they can't be read.
        rooms: Option<Cursors>,
        /// Sessions that had to go for a new one.
        n_evicted: u64,
    },
    /// Nothing was done, for the book is not what it was.
    Stale,
    /// Nothing was done, for a later attachment has the session that was to be put back.
    Taken,
    /// Nothing was done, for there is no place for a new one.
    Full,
    /// Nothing was done, for the cookie's sessions were forgotten.
    Forgotten,
}

/// What an attachment saves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Saving<'a> {
    pub(super) cookie: CookieHash,
    pub(super) session: &'a SessionId,
    pub(super) of: &'a Claimed,
    pub(super) rooms: &'a Cursors,
    /// Later saves of an attachment have greater ones.
    pub(super) number: u64,
    pub(super) has_ended: bool,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Saved {
    Done,
    /// Somebody else holds the session, or it was ended.
    Lost,
    /// There is no such session, or only an earlier attachment is known: a bound has cost it, or Redis has
    /// lost it.
    Gone,
    /// It was forgotten.
    Forgotten,
}

impl Book {
    pub(super) fn cookie(&self) -> CookieHash {
        self.cookie
    }
}

impl Shelf {
    /// What is held is heard of every `refresh` at the latest.
    pub(super) fn new(link: Link, lifetime: Duration, refresh: Duration, max_sessions: usize) -> Self {
        let silent = 2 * refresh;
        Self { link, ttl: lifetime + silent, silent, max: max_sessions.div_ceil(BUCKETS).max(1) }
    }

    /// Whether a row's holder says nothing any more, at a moment by Redis' clock.
    pub(super) fn is_silent(&self, row: &Row, now: u64) -> bool {
        now.saturating_sub(row.touched) > millis(self.silent)
    }

    /// All sessions of a cookie.
    ///
    /// # Errors
    /// [`RedisError`].
    pub(super) async fn read(&self, cookie: CookieHash) -> Result<Book, RedisError> {
        let answer = Keys::of(cookie).call(&READ).run(&self.link, "reading sessions").await?;
        answer.read(|kind, fields| match kind {
            "ok" => {
                let (now, fields) = (fields.number()?, fields.value::<HashMap<String, Vec<u8>>>()?);
                let version = fields.get("version").map(|version| String::from_utf8_lossy(version).into());
                Ok(Book { cookie, now, version: version.unwrap_or_default(), rows: rows(cookie, &fields) })
            }
            _ => Err(fields.kind(kind)),
        })
    }

    /// Does what was decided by a book, and gives the rooms of one session of it.
    ///
    /// # Errors
    /// [`RedisError`]; it may be done all the same.
    pub(super) async fn decide(
        &self,
        book: &Book,
        changes: &[Change<'_>],
        wanted: Option<&SessionId>,
    ) -> Result<Decided, RedisError> {
        let mut call = Keys::of(book.cookie)
            .call(&DECIDE)
            .arg(&book.version)
            .arg(book.now)
            .arg(version())
            .arg(millis(self.ttl))
            .arg(millis(self.silent))
            .arg(self.max)
            .arg(hex(book.cookie))
            .arg(wanted.map_or("", SessionId::as_str));
        for change in changes {
            call = match change {
                Change::Add { about, of, has_ended, rooms, number } => call
                    .arg("add")
                    .arg(about.session.id.as_str())
                    .arg(of.generation)
                    .arg(of.by.to_string())
                    .arg(flag(*has_ended))
                    .arg(about.write())
                    .arg(cursors::write(rooms))
                    .arg(number),
                Change::Hold { about, of } => call
                    .arg("put")
                    .arg(about.session.id.as_str())
                    .arg(of.generation)
                    .arg(of.by.to_string())
                    .arg(about.write()),
                Change::End(id) => call.arg("end").arg(id.as_str()),
                Change::Remove(id) => call.arg("del").arg(id.as_str()),
            };
        }
        call.run(&self.link, "deciding about sessions").await?.read(|kind, fields| {
            Ok(match kind {
                "ok" => {
                    let (n_evicted, rooms) = (fields.number()?, fields.value::<Vec<u8>>()?);
                    Decided::Done { rooms: cursors::read(&rooms).ok(), n_evicted }
                }
                "stale" => Decided::Stale,
                "taken" => Decided::Taken,
                "full" => Decided::Full,
                "forgotten" => Decided::Forgotten,
                _ => return Err(fields.kind(kind)),
            })
        })
    }

    /// The rooms of some sessions of a cookie; of one that is gone or can't be read, none.
    ///
    /// # Errors
    /// [`RedisError`].
    pub(super) async fn rooms(
        &self,
        cookie: CookieHash,
        ids: impl Iterator<Item = &SessionId>,
    ) -> Result<Vec<Option<Cursors>>, RedisError> {
        let keys = Keys::of(cookie);
        let mut command = Cmd::new();
        command.arg("HMGET").arg(keys.rooms());
        for id in ids {
            command.arg(id.as_str());
        }
        let answer = self.link.ask(keys.bucket.slot(), &Request::plain(command)).await?;
        let rooms: Vec<Option<Vec<u8>>> = redis::from_redis_value(answer).map_err(|error| {
            RedisError::Unexpected { to: "reading the rooms of sessions", what: error.to_string() }
        })?;
        Ok(rooms.into_iter().map(|rooms| rooms.and_then(|rooms| cursors::read(&rooms).ok())).collect())
    }

    /// Saves sessions of one bucket.
    ///
    /// # Errors
    /// [`RedisError`]; some may be saved all the same.
    pub(super) async fn save(&self, saves: &[Saving<'_>]) -> Result<Vec<Saved>, RedisError> {
        let Some(first) = saves.first() else { return Ok(Vec::new()) };
        let bucket = Keys::of(first.cookie).bucket;
        let mut keys = vec![bucket.name().to_owned()];
        for save in saves {
            let of_cookie = Keys::of(save.cookie);
            keys.extend([of_cookie.rows(), of_cookie.rooms()]);
        }
        let mut call = Call::new(&SAVE, bucket.slot(), keys).arg(millis(self.ttl)).arg(version());
        for Saving { cookie, session, of, rooms, number, has_ended } in saves {
            let rooms = if rooms.is_empty() { String::new() } else { cursors::write(rooms) };
            call = call
                .arg(hex(*cookie))
                .arg(session.as_str())
                .arg(of.generation)
                .arg(of.by.to_string())
                .arg(rooms)
                .arg(number)
                .arg(flag(*has_ended));
        }
        call.run(&self.link, "saving sessions").await?.read(|kind, fields| {
            let results: Vec<String> = match kind {
                "ok" => fields.value()?,
                _ => return Err(fields.kind(kind)),
            };
            if results.len() != saves.len() {
                return Err(fields.unexpected("a result for each is wanted"));
            }
            let results = results.iter().map(|result| match result.as_str() {
                "ok" => Ok(Saved::Done),
                "lost" => Ok(Saved::Lost),
                "gone" => Ok(Saved::Gone),
                "forgotten" => Ok(Saved::Forgotten),
                other => Err(fields.kind(other)),
            });
            results.collect()
        })
    }

    /// Removes all sessions of a cookie, and tells all hubs.
    ///
    /// # Errors
    /// [`RedisError`]; they may be gone all the same.
    pub(super) async fn forget(&self, cookie: CookieHash) -> Result<(), RedisError> {
        let call = Keys::of(cookie)
            .call(&FORGET)
            .arg(millis(FORGOTTEN_FOR))
            .arg(version())
            .arg(hex(cookie))
            .arg(millis(NONE_FORGOTTEN_FOR));
        call.run(&self.link, "forgetting sessions").await?.read(|kind, fields| match kind {
            "ok" => Ok(()),
            _ => Err(fields.kind(kind)),
        })
    }

    /// Says that a hub lives, for so long. Says whether that was still known from the last time.
    ///
    /// # Errors
    /// [`RedisError`].
    pub(super) async fn renew(&self, hub: &HubId, lease: Duration) -> Result<bool, RedisError> {
        let place = lease_of(hub);
        let mut command = Cmd::new();
        command.arg("PEXPIRE").arg(place.name()).arg(millis(lease));
        let answer = self.link.ask(place.slot(), &Request::plain(command)).await?;
        let was_known = redis::from_redis_value::<bool>(answer)
            .map_err(|error| RedisError::Unexpected { to: "renewing a lease", what: error.to_string() })?;
        if !was_known {
            let mut command = Cmd::new();
            command.arg("SET").arg(place.name()).arg("").arg("PX").arg(millis(lease));
            self.link.ask(place.slot(), &Request::plain(command)).await?;
        }
        Ok(was_known)
    }

    /// Says that a hub lives no more.
    ///
    /// # Errors
    /// [`RedisError`].
    pub(super) async fn end(&self, hub: &HubId) -> Result<(), RedisError> {
        let place = lease_of(hub);
        let mut command = Cmd::new();
        command.arg("DEL").arg(place.name());
        self.link.ask(place.slot(), &Request::plain(command)).await.map(drop)
    }

    /// Whether a hub has said lately that it lives.
    ///
    /// # Errors
    /// [`RedisError`].
    pub(super) async fn lives(&self, hub: &HubId) -> Result<bool, RedisError> {
        let place = lease_of(hub);
        let mut command = Cmd::new();
        command.arg("EXISTS").arg(place.name());
        let answer = self.link.ask(place.slot(), &Request::plain(command)).await?;
        redis::from_redis_value(answer)
            .map_err(|error| RedisError::Unexpected { to: "asking for a lease", what: error.to_string() })
    }
}

/// Where a hub's lease is, and the channel on which others tell it something.
pub(super) fn lease_of(hub: &HubId) -> Tagged {
    Tagged::new("twine:hub:", hub.as_str())
}

/// The bucket of a cookie: saves of one go together.
pub(super) fn bucket(CookieHash([first, ..]): CookieHash) -> u8 {
    first
}

/// The channels on which hubs hear which cookies were forgotten: on a cluster, of every server.
pub(super) fn channels() -> impl Iterator<Item = Tagged> {
    (0..=u8::MAX).map(channel)
}

fn channel(bucket: u8) -> Tagged {
    Tagged::new("twine:sessions:", &format!("{bucket:02x}"))
}

/// The keys that belong to a cookie.
struct Keys {
    bucket: Tagged,
    cookie: String,
}

impl Keys {
    fn of(cookie: CookieHash) -> Self {
        Self { bucket: channel(bucket(cookie)), cookie: hex(cookie) }
    }

    fn rows(&self) -> String {
        format!("{}:{}", self.bucket.name(), self.cookie)
    }

    fn rooms(&self) -> String {
        format!("{}:{}:rooms", self.bucket.name(), self.cookie)
    }

    fn call(&self, script: &'static Script) -> Call {
        let keys = [self.bucket.name().to_owned(), self.rows(), self.rooms()];
        Call::new(script, self.bucket.slot(), keys)
    }
}

/// The rows among the fields of a hash, oldest first.
fn rows(cookie: CookieHash, fields: &HashMap<String, Vec<u8>>) -> Vec<Row> {
    let mut rows: Vec<_> = fields.iter().filter_map(|(id, row)| Row::read(cookie, id, row)).collect();
    rows.sort_by(|a, b| {
        let place = |row: &Row| (row.about.created, row.about.session.id.as_str().to_owned());
        place(a).cmp(&place(b))
    });
    rows
}

/// A cookie in keys and letters.
pub(super) fn hex(CookieHash(hash): CookieHash) -> String {
    format!("{:032x}", u128::from_be_bytes(hash))
}

/// Reads what [`hex`] wrote; `None` where it is not that.
pub(super) fn cookie_of(hex: &str) -> Option<CookieHash> {
    let hash = u128::from_str_radix(hex, 16).ok().filter(|_| hex.len() == 32)?;
    Some(CookieHash(hash.to_be_bytes()))
}

fn flag(is_so: bool) -> &'static str {
    if is_so { "1" } else { "" }
}

/// A version that there never was.
fn version() -> String {
    Uuid::new_v4().simple().to_string()
}
