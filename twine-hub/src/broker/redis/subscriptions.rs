//! The channels whose messages this hub wants, and what arrives on them.
//!
//! Each bus connection makes what is subscribed on it equal to what is wanted of its server: at first,
//! after a reconnect and after slots moved, by the same loop. Where a subscription comes into force *again*,
//! messages may have been missed meanwhile, and the consumer is told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tracing::debug;

use super::keys::Tagged;
use super::link::Shared;
use super::target::Address;

/// Subscriptions that are changed in one go.
const BATCH: usize = 512;
/// Between attempts to subscribe at a server that says the slot is another's.
const RETRY: Duration = Duration::from_millis(100);

/// A message of the bus, undecoded.
#[derive(Debug)]
pub(crate) struct Pushed {
    pub(crate) channel: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

/// What is wanted, and the queue of what came.
pub(super) struct Subscriptions {
    table: Mutex<Table>,
    /// Says that something is dirty.
    changed: watch::Sender<()>,
    queue: mpsc::Sender<Pushed>,
    queued_bytes: AtomicUsize,
    max_bytes: usize,
    missed: AtomicBool,
    /// Says that `missed` was set.
    woken: Notify,
}

#[derive(Default)]
struct Table {
    wanted: HashMap<Arc<str>, Wanted>,
    /// Channels, with their slots, whose subscription may not be what it should.
    dirty: HashMap<Arc<str>, u16>,
}

struct Wanted {
    slot: u16,
    /// Where the subscription is in force.
    at: Option<Address>,
    /// Whether it was before, here or elsewhere.
    was: bool,
    waiters: Vec<oneshot::Sender<()>>,
}

impl Subscriptions {
    pub(super) fn new(queue: mpsc::Sender<Pushed>, max_bytes: usize) -> Self {
        Self {
            table: Mutex::default(),
            changed: watch::Sender::new(()),
            queue,
            queued_bytes: AtomicUsize::new(0),
            max_bytes,
            missed: AtomicBool::new(false),
            woken: Notify::new(),
        }
    }

    /// Wants a channel's messages. What is returned ends once the subscription is in force.
    pub(super) fn watch(&self, channel: &Tagged) -> oneshot::Receiver<()> {
        let (in_force, waiter) = oneshot::channel();
        let name: Arc<str> = channel.name().into();
        let mut table = self.table();
        let wanted = table.wanted.entry(Arc::clone(&name)).or_insert_with(|| Wanted {
            slot: channel.slot(),
            at: None,
            was: false,
            waiters: Vec::new(),
        });
        if wanted.at.is_some() {
            // The receiver is at hand.
            let _never_fails = in_force.send(());
            return waiter;
        }
        // Who gave up waiting leaves nothing behind.
        wanted.waiters.retain(|waiter| !waiter.is_closed());
        wanted.waiters.push(in_force);
        table.dirty.insert(name, channel.slot());
        drop(table);
        self.changed.send_replace(());
        waiter
    }

    /// Wants a channel's messages no more.
    pub(super) fn unwatch(&self, channel: &Tagged) {
        let mut table = self.table();
        if let Some((name, wanted)) = table.wanted.remove_entry(channel.name()) {
            table.dirty.insert(name, wanted.slot);
            drop(table);
            self.changed.send_replace(());
        }
    }

    /// Lets go of subscriptions at servers that don't have their slots any more.
    pub(super) fn remap<'a>(&self, address: impl Fn(u16) -> Option<&'a Address>) {
        self.lose(|wanted| wanted.at.as_ref() != address(wanted.slot));
        self.changed.send_replace(());
    }

    /// Marks subscriptions as not in force.
    fn lose(&self, is_lost: impl Fn(&Wanted) -> bool) {
        let mut table = self.table();
        let Table { wanted, dirty } = &mut *table;
        for (channel, wanted) in
            wanted.iter_mut().filter(|(_, wanted)| wanted.at.is_some() && is_lost(wanted))
        {
            wanted.at = None;
            dirty.insert(Arc::clone(channel), wanted.slot);
        }
    }

    /// Keeps subscribed on this connection what is wanted of this server. Returns why the connection is
    /// not to be used any more.
    pub(super) async fn keep(
        &self,
        shared: &Shared,
        address: &Address,
        mut connection: MultiplexedConnection,
    ) -> String {
        let mut changed = self.changed.subscribe();
        // This connection is new and has none.
        self.lose(|wanted| wanted.at.as_ref() == Some(address));
        let mut again = false;
        loop {
            let batch = self.take_dirty(|slot| shared.map().address(slot) == Some(address));
            if batch.is_empty() {
                if std::mem::take(&mut again) {
                    self.miss();
                }
                // The sender is in `self`.
                let _never_closed = changed.changed().await;
                continue;
            }
            let mut pipeline = redis::pipe();
            for change in &batch {
                pipeline
                    .cmd(if change.is_wanted { "SSUBSCRIBE" } else { "SUNSUBSCRIBE" })
                    .arg(&*change.channel);
            }
            let answers = connection.send_packed_commands(&pipeline, 0, batch.len());
            let answers = match tokio::time::timeout(shared.limits.deadline, answers).await {
                Ok(Ok(answers)) => answers,
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return "no answer to a subscription".to_owned(),
            };
            match self.settle(batch, answers, address) {
                Ok(settled) => {
                    again |= settled.again;
                    if let Some(error) = settled.refused {
                        debug!(%address, %error, "a subscription was refused");
                        shared.doubt_map();
                        tokio::time::sleep(RETRY).await;
                    }
                }
                Err(reason) => return reason,
            }
        }
    }

    /// Notes what a server answered to a batch.
    fn settle(&self, batch: Vec<Change>, answers: Vec<Value>, address: &Address) -> Result<Settled, String> {
        let mut settled = Settled { again: false, refused: None };
        let mut table = self.table();
        for (change, answer) in batch.into_iter().zip(answers) {
            match answer {
                Value::ServerError(error) => {
                    settled.refused = Some(error.to_string());
                    table.dirty.insert(change.channel, change.slot);
                }
                Value::Push { kind, data } if change.is_answered_by(&kind, &data) => {
                    if change.is_wanted
                        && let Some(wanted) = table.wanted.get_mut(&change.channel)
                    {
                        wanted.at = Some(address.clone());
                        let mut is_awaited = false;
                        for waiter in wanted.waiters.drain(..) {
                            is_awaited |= waiter.send(()).is_ok();
                        }
                        // Whoever gave up waiting looks again, as one who was cut off.
                        settled.again |= std::mem::replace(&mut wanted.was, true) || !is_awaited;
                    }
                }
                _ => return Err("an answer to a subscription was none".to_owned()),
            }
        }
        Ok(settled)
    }

    /// Takes channels of this server that are to be looked at, and whether they are wanted.
    fn take_dirty(&self, is_ours: impl Fn(u16) -> bool) -> Vec<Change> {
        let mut table = self.table();
        let Table { wanted, dirty } = &mut *table;
        dirty
            .extract_if(|_, slot| is_ours(*slot))
            .take(BATCH)
            .map(|(channel, slot)| Change { is_wanted: wanted.contains_key(&channel), channel, slot })
            .collect()
    }

    /// Takes what a bus connection received. Called between reading and reading: must not wait.
    pub(super) fn take_push(&self, push: PushInfo, lost: &Notify) {
        match push.kind {
            PushKind::SMessage => {
                let mut data = push.data.into_iter();
                if let (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) =
                    (data.next(), data.next())
                {
                    self.enqueue(Pushed { channel, payload });
                }
            }
            // Of a channel that is in force nobody has asked for the end: its slot moved.
            PushKind::SUnsubscribe => {
                let Some(Value::BulkString(channel)) = push.data.first() else { return };
                let Ok(channel) = std::str::from_utf8(channel) else { return };
                if self.table().wanted.get(channel).is_some_and(|wanted| wanted.at.is_some()) {
                    lost.notify_one();
                }
            }
            _ => {}
        }
    }

    fn enqueue(&self, pushed: Pushed) {
        let len = pushed.payload.len();
        let before = self.queued_bytes.fetch_add(len, Ordering::Relaxed);
        // One message always fits, however large.
        if (before > 0 && before + len > self.max_bytes) || self.queue.try_send(pushed).is_err() {
            self.queued_bytes.fetch_sub(len, Ordering::Relaxed);
            self.miss();
        }
    }

    /// Frees the place of a message that was taken from the queue.
    pub(super) fn taken(&self, pushed: &Pushed) {
        self.queued_bytes.fetch_sub(pushed.payload.len(), Ordering::Relaxed);
    }

    /// Notes that messages may have been missed.
    fn miss(&self) {
        self.missed.store(true, Ordering::Release);
        self.woken.notify_one();
    }

    /// Whether messages may have been missed since this was asked last.
    pub(super) fn take_missed(&self) -> bool {
        self.missed.swap(false, Ordering::AcqRel)
    }

    /// Waits until messages may have been missed.
    pub(super) async fn missed(&self) {
        while !self.missed.load(Ordering::Acquire) {
            self.woken.notified().await;
        }
    }

    /// Nothing that panics runs while the table is locked.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A subscription that begins or ends.
struct Change {
    channel: Arc<str>,
    slot: u16,
    is_wanted: bool,
}

/// What came of a batch of changes.
struct Settled {
    /// Whether a subscription came into force that was before, or that nobody waits for any more.
    again: bool,
    refused: Option<String>,
}

impl Change {
    fn is_answered_by(&self, kind: &PushKind, data: &[Value]) -> bool {
        let expected = if self.is_wanted { PushKind::SSubscribe } else { PushKind::SUnsubscribe };
        *kind == expected
            && matches!(data.first(), Some(Value::BulkString(of)) if of == self.channel.as_bytes())
    }
}
