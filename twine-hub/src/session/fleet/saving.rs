//! Saving: what connections have given back goes to Redis in rounds, many sessions a script.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::time::timeout;

use super::held::Kept;
use super::owed::{Ended, Entry, Owed};
use super::shelf::{Change, Decided, Saved, Saving, bucket};
use super::{SessionsError, Shared};
use crate::broker::redis::RedisError;
use crate::rooms::locked;
use crate::session::{Bound, Lost};

/// Before it is tried again to save what could not be saved.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long a hub that ends goes on trying.
const LAST_SAVES: Duration = Duration::from_secs(3);
/// Sessions that one script saves.
const MAX_BATCH: usize = 64;
/// Scripts and sessions that are on their way at once.
const IN_FLIGHT: usize = 64;
/// Rounds that one waits for whom something concerns: the one under way, and the one that has it.
const MAX_ROUNDS: usize = 2;
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
            // It is never left in the middle, and takes as long as Redis may.
            if self.save_owed().await.is_err() {
                self.is_due.notify_one();
                drop(timeout(RETRY_AFTER, self.stop.cancelled()).await);
            }
        }
        let deadline = Instant::now() + LAST_SAVES;
        while locked(&self.owed).len() > 0 && Instant::now() < deadline {
            if self.save_owed().await.is_err() {
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }

    /// Waits until enough of what this hub owes is in Redis, unless it can't be had.
    pub(super) async fn saved(&self, is_enough: impl Fn(&Owed) -> bool) {
        for _ in 0..MAX_ROUNDS {
            let mut rounds = self.rounds.subscribe();
            if is_enough(&locked(&self.owed)) {
                return;
            }
            self.is_due.notify_one();
            // The sender is in `self`.
            drop(timeout(super::DEADLINE, rounds.changed()).await);
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
        let mut batches: BTreeMap<u8, Vec<Entry>> = BTreeMap::new();
        let mut new = Vec::new();
        for entry in entries {
            match self.place(&entry) {
                Some(Kept::Here { newcomer }) => new.push((entry, newcomer)),
                Some(Kept::Shared) => batches.entry(bucket(entry.cookie())).or_default().push(entry),
                None => {}
            }
        }
        let batches: Vec<Vec<Entry>> = batches
            .into_values()
            .flat_map(|of_bucket| of_bucket.chunks(MAX_BATCH).map(<[Entry]>::to_vec).collect::<Vec<_>>())
            .collect();
        let saved = stream::iter(batches)
            .map(|batch| self.save_batch(batch))
            .buffer_unordered(IN_FLIGHT)
            .fold(Ok(()), |all, one| async move { all.and(one) });
        let (saved, mut stored) = (saved.await, Ok(()));
        // After those that are there: what was lost by then is among them the next time.
        let mut storing =
            stream::iter(new).map(|(entry, of)| self.store_new(entry, of)).buffer_unordered(IN_FLIGHT);
        while let Some(one) = storing.next().await {
            stored = stored.and(one);
        }
        drop(storing);
        locked(&self.owed).done();
        self.rounds.send_modify(|round| *round += 1);
        let result = saved.and(stored);
        if let Err(error) = &result {
            self.say(error);
        }
        result
    }

    /// Where the session of an entry is; `None` where its attachment is over, and nothing is to be saved of
    /// it.
    fn place(&self, entry: &Entry) -> Option<Kept> {
        entry.ended.map(|ended| ended.kept).or_else(|| {
            let mut held = locked(&self.held);
            held.current(&entry.about.session.id, entry.ticket).map(|attachment| attachment.kept)
        })
    }

    /// Saves sessions of one bucket that are there.
    async fn save_batch(self: &Arc<Self>, entries: Vec<Entry>) -> Result<(), SessionsError> {
        let holdings: Vec<_> = entries.iter().map(|entry| self.holding(entry.ticket)).collect();
        let all: Vec<_> = entries
            .iter()
            .zip(&holdings)
            .map(|(entry, held_by)| Saving {
                cookie: entry.cookie(),
                session: &entry.about.session.id,
                held_by,
                rooms: &entry.rooms,
                has_ended: entry.ended.is_some(),
            })
            .collect();
        let results = match self.shelf.save(&all).await {
            Ok(results) => results,
            Err(error) => {
                self.owe_again(entries);
                return Err(error.into());
            }
        };
        for (entry, result) in entries.into_iter().zip(results) {
            let (id, ticket) = (&entry.about.session.id, entry.ticket);
            match result {
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
                        locked(&self.owed).put_back(Entry { ended, ..entry });
                        self.is_due.notify_one();
                    }
                }
            }
        }
        Ok(())
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
        match stored {
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
            Ok(Decided::Stale) => {
                self.owe_again(vec![entry]);
                Err(SessionsError::Restless)
            }
            Err(error) => {
                self.owe_again(vec![entry]);
                Err(error.into())
            }
        }
    }

    /// Adds a session to those of its cookie, of which the oldest may have to go.
    async fn add(self: &Arc<Self>, entry: &Entry) -> Result<Decided, RedisError> {
        let held_by = self.holding(entry.ticket);
        let held_by = entry.ended.is_none().then_some(&held_by);
        for _ in 0..MAX_ATTEMPTS {
            let book = self.shelf.read(entry.cookie()).await?;
            let id = &entry.about.session.id;
            let mut others: Vec<_> = book.rows.iter().filter(|row| row.about.session.id != *id).collect();
            // Those detached longest first, then the oldest of those attached.
            others.sort_by_key(|row| match row.held_by {
                None => (false, row.touched),
                Some(_) => (true, row.about.created),
            });
            others.truncate((others.len() + 1).saturating_sub(self.options.max_per_cookie));
            let mut changes = vec![Change::Add { about: &entry.about, held_by, rooms: &entry.rooms }];
            changes.extend(others.iter().map(|row| Change::Remove(&row.about.session.id)));
            let decided = self.shelf.decide(&book, &changes, None).await?;
            match decided {
                Decided::Stale => continue,
                Decided::Done { .. } => {
                    for row in others {
                        if let Some(held_by) = &row.held_by {
                            self.tell_lost(&row.about.session.id, held_by, Lost::Forgotten);
                        }
                        self.count_dropped(Bound::Cookie, 1);
                    }
                }
                Decided::Full | Decided::Forgotten => {}
            }
            return Ok(decided);
        }
        Ok(Decided::Stale)
    }

    /// A bound keeps a session out of Redis. At the end of its connection that is the end of it.
    fn refuse(&self, entry: &Entry, bound: Bound) {
        if entry.ended.is_some() {
            self.count_dropped(bound, 1);
        }
    }

    fn owe_again(&self, entries: Vec<Entry>) {
        let mut owed = locked(&self.owed);
        for entry in entries {
            owed.put_back(entry);
        }
    }
}
