//! The messages that wait, and the accounts. Knows no task and no clock.

use std::collections::VecDeque;

use super::PublisherStats;
use crate::{Error, ErrorKind, Message};

/// The most messages of one request. A hub writes them at once; more would hold up others.
const BATCH_MESSAGES: usize = 256;
/// The most bytes of one request, unless a single message has more: well below a hub's `max_body`.
const BATCH_BYTES: usize = 256 * 1024;

pub(super) struct Queue {
    max_messages: usize,
    max_bytes: usize,
    waiting: VecDeque<Message>,
    closed: bool,
    /// `queued` and `queued_bytes` count what waits and what is on its way.
    stats: PublisherStats,
}

/// What the worker does next.
#[derive(Debug)]
pub(super) enum Next {
    /// Publish these, and then [`settle`](Queue::settle) each.
    Batch(Vec<Message>),
    /// Wait for a message.
    Wait,
    /// End: nothing waits, and nothing more will come.
    End,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    Published,
    Dropped,
}

impl Queue {
    pub(super) fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self {
            max_messages,
            max_bytes,
            waiting: VecDeque::new(),
            closed: false,
            stats: PublisherStats::default(),
        }
    }

    pub(super) fn push(&mut self, message: Message) -> Result<(), Error> {
        let size = message.size();
        if self.closed {
            return Err(Error::new(ErrorKind::Closed, "the publisher is closed"));
        }
        if size > self.max_bytes {
            return Err(Error::invalid(format!(
                "the message has {size} bytes, more than the queue of {} ever takes",
                self.max_bytes
            )));
        }
        if self.stats.queued >= self.max_messages || self.stats.queued_bytes + size > self.max_bytes {
            self.stats.refused += 1;
            return Err(Error::new(
                ErrorKind::QueueFull,
                format!(
                    "the publisher's queue is full: {} messages with {} bytes wait for the hub",
                    self.stats.queued, self.stats.queued_bytes
                ),
            ));
        }
        self.stats.accepted += 1;
        self.stats.queued += 1;
        self.stats.queued_bytes += size;
        self.waiting.push_back(message);
        Ok(())
    }

    pub(super) fn next(&mut self) -> Next {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH_MESSAGES {
            match self.waiting.front() {
                Some(message) if batch.is_empty() || bytes + message.size() <= BATCH_BYTES => {
                    bytes += message.size();
                    batch.extend(self.waiting.pop_front());
                }
                _ => break,
            }
        }
        if !batch.is_empty() {
            Next::Batch(batch)
        } else if self.closed {
            Next::End
        } else {
            Next::Wait
        }
    }

    /// Is done with messages of a batch, and frees their place.
    pub(super) fn settle(&mut self, messages: &[Message], settled: Settled) {
        match settled {
            Settled::Published => self.stats.published += messages.len() as u64,
            Settled::Dropped => self.stats.dropped += messages.len() as u64,
        }
        self.stats.queued -= messages.len();
        self.stats.queued_bytes -= messages.iter().map(Message::size).sum::<usize>();
    }

    /// Takes no more messages.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Closes, and drops what is left, on its way or waiting. Says how many messages that is.
    pub(super) fn abandon(&mut self) -> usize {
        let left = self.stats.queued;
        self.closed = true;
        self.waiting.clear();
        self.stats.dropped += left as u64;
        self.stats.queued = 0;
        self.stats.queued_bytes = 0;
        left
    }

    pub(super) fn stats(&self) -> PublisherStats {
        self.stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> Message {
        Message::new("chat", &"x".repeat(bytes)).unwrap()
    }

    fn batch(queue: &mut Queue) -> Vec<Message> {
        match queue.next() {
            Next::Batch(batch) => batch,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_full_queue_refuses_and_counts_until_messages_are_settled() {
        let mut queue = Queue::new(2, usize::MAX);
        queue.push(message(1)).unwrap();
        queue.push(message(1)).unwrap();
        let on_their_way = batch(&mut queue);
        assert_eq!(on_their_way.len(), 2);

        // On its way is not done: the bound holds for all the memory.
        let error = queue.push(message(1)).unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::QueueFull, true));

        queue.settle(&on_their_way[..1], Settled::Published);
        queue.push(message(1)).unwrap();
        queue.settle(&on_their_way[1..], Settled::Dropped);
        let expected = PublisherStats {
            accepted: 3,
            published: 1,
            refused: 1,
            dropped: 1,
            queued: 1,
            queued_bytes: message(1).size(),
        };
        assert_eq!(queue.stats(), expected);
    }

    #[test]
    fn bytes_are_bounded_too() {
        let mut queue = Queue::new(usize::MAX, 3000);
        queue.push(message(1500)).unwrap();
        assert_eq!(queue.push(message(1500)).unwrap_err().kind(), ErrorKind::QueueFull);
        queue.push(message(100)).unwrap();
        // Waiting would not help this one.
        let error = queue.push(message(3001)).unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::InvalidMessage, false));
        assert_eq!(queue.stats().refused, 1);
    }

    #[test]
    fn batches_keep_the_order_and_are_bounded() {
        let mut queue = Queue::new(usize::MAX, usize::MAX);
        let ids: Vec<_> = (0..=BATCH_MESSAGES)
            .map(|_| {
                let message = message(1);
                let id = message.id().clone();
                queue.push(message).unwrap();
                id
            })
            .collect();
        let first = batch(&mut queue);
        assert_eq!(first.len(), BATCH_MESSAGES);
        assert!(first.iter().map(Message::id).eq(&ids[..BATCH_MESSAGES]));
        assert_eq!(batch(&mut queue).len(), 1);
        assert!(matches!(queue.next(), Next::Wait));

        for size in [BATCH_BYTES / 2, BATCH_BYTES / 2, BATCH_BYTES * 2, 1] {
            queue.push(message(size)).unwrap();
        }
        // Too big for any batch is a batch by itself: the hub decides.
        assert_eq!([1, 1, 1, 1].map(|_| batch(&mut queue).len()), [1, 1, 1, 1]);
    }

    #[test]
    fn a_closed_queue_is_emptied_and_ends() {
        let mut queue = Queue::new(10, usize::MAX);
        queue.push(message(1)).unwrap();
        queue.close();
        assert_eq!(queue.push(message(1)).unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(batch(&mut queue).len(), 1);
        assert!(matches!(queue.next(), Next::End));
    }

    #[test]
    fn what_is_abandoned_counts_as_dropped() {
        let mut queue = Queue::new(10, usize::MAX);
        queue.push(message(1)).unwrap();
        let _on_its_way = batch(&mut queue);
        queue.push(message(1)).unwrap();
        assert_eq!(queue.abandon(), 2);
        let stats = queue.stats();
        assert_eq!((stats.accepted, stats.dropped, stats.queued, stats.queued_bytes), (2, 2, 0, 0));
        assert!(matches!(queue.next(), Next::End));
    }
}
