//! Saving: what connections have given back goes to Redis in rounds, many sessions a script.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::time::timeout;

use super::held::Kept;
use super::owed::{Ended, Entry};
use super::row::{Claimed, Row};
use super::shelf::{Change, Decided, Saved, Saving, bucket};
use super::{SessionsError, Shared};
use crate::broker::redis::RedisError;
use crate::rooms::locked;
use crate::session::{Bound, CookieHash, Lost};

/// Before it is tried again to save what could not be saved.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long a hub that ends goes on trying.
const LAST_SAVES: Duration = Duration::from_secs(3);
/// Sessions that one script saves.
const MAX_BATCH: usize = 64;
/// Bytes of rooms that one script saves, unless one session alone has more.
const MAX_BATCH_BYTES: usize = 256 << 10;
/// Scripts and sessions that are on their way at once.
const IN_FLIGHT: usize = 64;
/// How often a new session is decided about anew.
const MAX_ATTEMPTS: usize = 32;

impl Shared {
    /// Saves whatever is owed, soon after it is; and when the hub ends what is left, for so long.
    pub(super) async fn keep_saving(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = self.is_due.notified() => {}
            }
            // It is never left in the middle while the hub goes on.
            let out_of_time = async {
                self.stop.cancelled().await;
                tokio::time::sleep(LAST_SAVES).await;
            };
            let saved = tokio::select! {
                saved = self.save_owed() => saved,
                () = out_of_time => return,
            };
            if saved.is_err() {
                self.is_due.notify_one();
                drop(timeout(RETRY_AFTER, self.stop.cancelled()).await);
            }
        }
        let last_saves = async {
            while locked(&self.owed).len() > 0 {
                if self.save_owed().await.is_err() {
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        };
        drop(timeout(LAST_SAVES, last_saves).await);
    }

    /// Waits until all that this hub owes of a cookie is in Redis; says whether it is.
    pub(super) async fn saved(&self, cookie: CookieHash) -> bool {
        let saved = async {
            let mut rounds = self.rounds.subscribe();
            while locked(&self.owed).has(cookie) {
                self.is_due.notify_one();
                // The sender is in `self`.
                drop(rounds.changed().await);
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => false,
            saved = timeout(super::DEADLINE, saved) => saved.is_ok(),
        }
    }

    /// Tries once to save all that is owed. What can't be saved stays owed.
    ///
    /// # Errors
    /// Where something can't be saved.
    ///
    /// # Cancel safety
    /// None: what is on its way would be forgotten.
    async fn save_owed(self: &Arc<Self>) -> Result<(), SessionsError> {
        let entries = locked(&self.owed).take();
        let mut by_bucket: BTreeMap<u8, Vec<Entry>> = BTreeMap::new();
        let mut new = Vec::new();
        for entry in entries {
            match self.place(&entry) {
                Some(Kept::Here { newcomer }) => new.push((entry, newcomer)),
                Some(Kept::Shared) => by_bucket.entry(bucket(entry.cookie())).or_default().push(entry),
                None => self.done(&[entry]),
            }
        }
        let mut result = Ok(());
        {
            let batches = by_bucket.into_values().flat_map(batches);
            let saving = stream::iter(batches).map(|batch| self.save_batch(batch));
            let mut saving = std::pin::pin!(saving.buffer_unordered(IN_FLIGHT));
            while let Some(one) = saving.next().await {
                result = result.and(one);
            }
        }
        let storing = stream::iter(new).map(|(entry, of)| self.store_new(entry, of));
        let mut storing = std::pin::pin!(storing.buffer_unordered(IN_FLIGHT));
        while let Some(one) = storing.next().await {
            result = result.and(one);
        }
        if let Err(error) = &result {
            self.say(error);
        }
        result
    }

    /// These are under way no more.
    fn done(&self, entries: &[Entry]) {
        {
            let mut owed = locked(&self.owed);
            for entry in entries {
                owed.done(entry.cookie());
            }
        }
        self.rounds.send_modify(|round| *round += 1);
    }

    /// Where the session of an entry is; `None` where its attachment is over, and nothing is to be saved of
    /// it.
    fn place(&self, entry: &Entry) -> Option<Kept> {
        entry.ended.map(|ended| ended.kept).or_else(|| {
            let mut held = locked(&self.held);
            held.current(&entry.about.session.id, entry.ticket).map(|attachment| attachment.kept)
        })
    }

    /// Saves sessions of one bucket that are there. What is wrong with one costs no other anything.
    async fn save_batch(self: &Arc<Self>, entries: Vec<Entry>) -> Result<(), SessionsError> {
        let results = match self.save_together(&entries).await {
            Err(RedisError::Refused { .. }) if entries.len() > 1 => {
                let mut results = Vec::with_capacity(entries.len());
                for entry in &entries {
                    let one = self.save_together(std::slice::from_ref(entry)).await;
                    results.push(one.map(|saved| saved.first().copied().unwrap_or(Saved::Done)));
                }
                results
            }
            Err(error) => vec![Err(error); entries.len()],
            Ok(saved) => saved.into_iter().map(Ok).collect(),
        };
        let mut all = Ok(());
        for (entry, result) in entries.iter().zip(results) {
            match result {
                Ok(saved) => self.settle(entry, saved),
                Err(error) => {
                    locked(&self.owed).put_back(entry.clone());
                    all = all.and(Err(error.into()));
                }
            }
        }
        self.done(&entries);
        all
    }

    async fn save_together(&self, entries: &[Entry]) -> Result<Vec<Saved>, RedisError> {
        let of: Vec<_> = entries.iter().map(|entry| self.claimed(entry)).collect();
        let saves: Vec<_> = entries
            .iter()
            .zip(&of)
            .map(|(entry, of)| Saving {
                cookie: entry.cookie(),
                session: &entry.about.session.id,
                of,
                rooms: &entry.rooms,
                number: entry.number,
                has_ended: entry.ended.is_some(),
            })
            .collect();
        self.shelf.save(&saves).await
    }

    /// Takes what became of a save.
    fn settle(self: &Arc<Self>, entry: &Entry, saved: Saved) {
        let (id, ticket) = (&entry.about.session.id, entry.ticket);
        match saved {
            // Without a room it is here only.
            Saved::Done if entry.rooms.is_empty() => {
                locked(&self.held).set_kept(id, ticket, Kept::Here { newcomer: None });
            }
            Saved::Done => {}
            Saved::Lost => self.lose(id, ticket, Lost::TakenOver),
            Saved::Forgotten => self.lose(id, ticket, Lost::Forgotten),
            Saved::Gone => {
                // Redis has lost it, or it had to go for others: it is put back, as a new one.
                let kept = Kept::Here { newcomer: None };
                locked(&self.held).set_kept(id, ticket, kept);
                let ended = entry.ended.map(|_| Ended { kept });
                if !entry.rooms.is_empty() {
                    locked(&self.owed).put_back(Entry { ended, ..entry.clone() });
                    self.is_due.notify_one();
                }
            }
        }
    }

    fn claimed(&self, entry: &Entry) -> Claimed {
        Claimed { by: self.holding(entry.ticket), generation: entry.generation }
    }

    /// Puts a session into Redis where the bounds allow it, and others out for that. One that is refused
    /// stays here: it is tried again whenever its connection has something to save, and at its end.
    async fn store_new(
        self: &Arc<Self>,
        entry: Entry,
        newcomer: Option<IpAddr>,
    ) -> Result<(), SessionsError> {
        let (id, ticket) = (entry.about.session.id.clone(), entry.ticket);
        if let Some(address) = newcomer
            && !locked(&self.newcomers).admit(address, Instant::now())
        {
            self.refuse(&entry, Bound::Address);
            self.done(&[entry]);
            return Ok(());
        }
        // Whatever ends it from here on finds it in Redis, or puts it there.
        locked(&self.held).set_kept(&id, ticket, Kept::Shared);
        let stored = self.add(&entry).await;
        if !matches!(stored, Ok(Decided::Done { .. })) {
            locked(&self.held).set_kept(&id, ticket, Kept::Here { newcomer });
            if let Some(address) = newcomer {
                locked(&self.newcomers).take_back(address);
            }
        }
        let result = match stored {
            Ok(Decided::Done { n_evicted, .. }) => {
                self.count_dropped(Bound::Hub, n_evicted);
                Ok(())
            }
            Ok(Decided::Full) => {
                self.refuse(&entry, Bound::Hub);
                Ok(())
            }
            Ok(Decided::Forgotten) => {
                self.lose(&id, ticket, Lost::Forgotten);
                Ok(())
            }
            Ok(Decided::Taken) => {
                self.lose(&id, ticket, Lost::TakenOver);
                Ok(())
            }
            Ok(Decided::Stale) => Err(SessionsError::Restless),
            Err(error) => Err(error.into()),
        };
        if result.is_err() {
            locked(&self.owed).put_back(entry.clone());
        }
        self.done(&[entry]);
        result
    }

    /// Adds a session to those of its cookie, of which the oldest may have to go.
    pub(super) async fn add(self: &Arc<Self>, entry: &Entry) -> Result<Decided, RedisError> {
        let of = self.claimed(entry);
        for _ in 0..MAX_ATTEMPTS {
            let book = self.shelf.read(entry.cookie()).await?;
            let is_held = |row: &Row| row.held_by.is_some() && !self.shelf.is_silent(row, book.now);
            let id = &entry.about.session.id;
            let mut others: Vec<_> = book.rows.iter().filter(|row| row.about.session.id != *id).collect();
            // Those whose time is over, those detached longest, then the oldest of those attached.
            others.sort_by_key(|row| {
                let is_held = is_held(row);
                (is_held, if is_held { row.about.created } else { row.touched })
            });
            let surplus = (others.len() + 1).saturating_sub(self.options.max_per_cookie);
            let cut = self.cut(&book);
            let n_over = others.iter().take_while(|row| !is_held(row) && row.touched < cut).count();
            others.truncate(surplus.max(n_over));
            let mut changes = vec![Change::Add {
                about: &entry.about,
                of: &of,
                has_ended: entry.ended.is_some(),
                rooms: &entry.rooms,
                number: entry.number,
            }];
            changes.extend(others.iter().map(|row| Change::Remove(&row.about.session.id)));
            match self.shelf.decide(&book, &changes, None).await? {
                Decided::Stale => {}
                done @ Decided::Done { .. } => {
                    for row in others {
                        if let Some(held_by) = &row.held_by {
                            self.tell_lost(&row.about.session.id, held_by, Lost::Forgotten);
                        }
                    }
                    self.count_dropped(Bound::Cookie, surplus.saturating_sub(n_over) as u64);
                    return Ok(done);
                }
                refused => return Ok(refused),
            }
        }
        Ok(Decided::Stale)
    }

    /// A bound keeps a session out of Redis. At the end of its connection that is the end of it.
    fn refuse(&self, entry: &Entry, bound: Bound) {
        if entry.ended.is_some() {
            self.count_dropped(bound, 1);
        }
    }
}

/// Saves of one bucket in bounded portions.
fn batches(entries: Vec<Entry>) -> Vec<Vec<Entry>> {
    let mut batches = Vec::new();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for entry in entries {
        let rooms = entry.rooms.iter();
        let size: usize = rooms.map(|(room, at)| room.as_str().len() + at.epoch.as_str().len() + 24).sum();
        if batch.len() == MAX_BATCH || (bytes + size > MAX_BATCH_BYTES && !batch.is_empty()) {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += size;
        batch.push(entry);
    }
    batches.extend((!batch.is_empty()).then_some(batch));
    batches
}
