//! What a room's callback may see: each message once, in order, and no loss that was not announced.

use std::collections::BTreeSet;

use twine_client::core::DeliveryId;

use crate::hub::Serial;

/// One subscription of a room, from the app's call to its end.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// The last message at or before the position the subscription started after; `None`: not yet
    /// in force.
    start: Option<Serial>,
    /// What the app has asked to start after.
    asked: Option<Serial>,
    last: Serial,
    /// Up to here, what is missing was announced as lost.
    announced: Serial,
    /// The head of the latest `subscribed`.
    head: Serial,
    /// A gap has led into another epoch since: whether that is beyond the head, a client can only guess.
    head_unsure: bool,
    /// The page was reloaded, from a position behind this message: what came after may come once more.
    again: Option<Serial>,
    /// Messages whose callback gave a promise that is not settled: their delivery, and since when.
    pending: Vec<(Serial, DeliveryId, u64)>,
}

impl Oracle {
    pub(crate) fn is_in_force(&self) -> bool {
        self.start.is_some()
    }

    /// The app wants what comes after there; only the first time counts, and before it is in force.
    pub(crate) fn asks(&mut self, after: Serial) {
        if self.start.is_none() && self.asked.is_none() {
            self.asked = Some(after);
        }
    }

    /// The subscription is in force; only the first time counts. What is between the place that was
    /// asked for and this one must be announced as lost.
    pub(crate) fn starts(&mut self, after: Serial) {
        if self.start.is_none() {
            self.start = Some(after);
            self.last = self.asked.map_or(after, |asked| asked.min(after));
        }
    }

    /// The hub has agreed, with its head there.
    pub(crate) fn heads(&mut self, head: Serial) {
        self.head = head;
        self.head_unsure = false;
    }

    /// The hub has put the cursor elsewhere: what was before counts no more.
    pub(crate) fn moves(&mut self) {
        self.pending.clear();
    }

    /// The page is reloaded, and goes on behind this message. Listeners that were not through with a
    /// later one, or a page that crashed before it was stored, see that again.
    pub(crate) fn reloads(&mut self, stored: Serial) {
        self.pending.clear();
        self.again = Some(self.again.map_or(stored, |again| again.min(stored)));
    }

    pub(crate) fn loses(&mut self, to: Serial, crosses: bool) {
        self.head_unsure |= crosses;
        self.announced = self.announced.max(to);
    }

    pub(crate) fn sees(&mut self, serial: Serial, recovered: bool, log: &BTreeSet<Serial>) {
        assert!(self.is_in_force(), "message {serial} came before the subscription was in force");
        if let Some(stored) = self.again.take() {
            assert!(serial > stored, "message {serial} was stored as seen, up to {stored}");
            self.last = self.last.min(serial - 1);
        }
        assert!(serial > self.last, "message {serial} came after message {}", self.last);
        self.misses_nothing_before(serial, log);
        if !self.head_unsure {
            assert_eq!(recovered, serial <= self.head, "message {serial}, head at {}", self.head);
        }
        self.last = serial;
    }

    pub(crate) fn is_pending(&mut self, serial: Serial, delivery: DeliveryId, now: u64) {
        self.pending.push((serial, delivery, now));
    }

    pub(crate) fn settles(&mut self) -> Option<DeliveryId> {
        (!self.pending.is_empty()).then(|| self.pending.remove(0).1)
    }

    /// The client tells the hub that it is through with everything up to there.
    pub(crate) fn acknowledges(&self, serial: Serial, now: u64, hold: u64) {
        assert!(serial <= self.last.max(self.announced), "message {serial} was not delivered yet");
        for (pending, _, since) in &self.pending {
            assert!(serial < *pending || now - since >= hold, "message {pending} is not settled yet");
        }
    }

    /// All is quiet: the last message of the log is the last one seen.
    pub(crate) fn is_current(&self, log: &BTreeSet<Serial>) {
        assert!(self.is_in_force(), "the subscription never came into force");
        self.misses_nothing_before(Serial::MAX, log);
        assert_eq!(log.last(), Some(&self.last), "the last message was not seen");
    }

    fn misses_nothing_before(&self, serial: Serial, log: &BTreeSet<Serial>) {
        let missed = log.range(self.last + 1..serial).find(|missed| **missed > self.announced);
        assert_eq!(missed, None, "lost without a word, between {} and {serial}", self.last);
    }
}
