//! A shard's guests, and when they are read.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Instant;

use super::by_hand::ByHand;
use crate::connection::Guest;
use crate::rooms::locked;
use crate::telemetry::Telemetry;
use crate::wakes;

/// One who has somebody else rung when it is rung, and notes that; or one who notes how many were when it is read.
struct Ringer {
    waker: Arc<Mutex<Option<Waker>>>,
    next: Option<Arc<Mutex<Option<Waker>>>>,
    rung: Arc<AtomicUsize>,
    found: Arc<Mutex<Vec<usize>>>,
    output: Vec<u8>,
}

impl Guest for Ringer {
    fn turn(&mut self, read: &[u8], cx: &mut Context<'_>) -> bool {
        *locked(&self.waker) = Some(cx.waker().clone());
        if read.is_empty() {
            self.rung.fetch_add(1, Ordering::SeqCst);
            if let Some(next) = self.next.as_ref().and_then(|next| locked(next).take()) {
                next.wake();
            }
        } else {
            locked(&self.found).push(self.rung.load(Ordering::SeqCst));
        }
        true
    }

    fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    fn is_late(&self, _: Instant) -> bool {
        false
    }

    fn leave(self: Box<Self>, _: TcpStream) {}
}

#[test]
fn what_comes_of_news_is_heard_too_before_guests_are_read() {
    let mut hub = ByHand::new(usize::MAX);
    let (rung, found) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<_>>>::default());
    let wakers: [Arc<Mutex<Option<Waker>>>; 3] = Default::default();
    let mut guests: Vec<_> = (0..3)
        .map(|n| {
            let (waker, next) = (wakers[n].clone(), wakers.get(n + 1).cloned());
            let (rung, found, output) = (rung.clone(), found.clone(), Vec::new());
            hub.host(Box::new(Ringer { waker, next, rung, found, output }))
        })
        .collect();
    // Each says something, and so has a waker.
    for (n, guest) in guests.iter_mut().enumerate() {
        guest.write_all(b"x").unwrap();
        while locked(&found).len() <= n {
            hub.shard.turn();
        }
    }
    guests[0].write_all(b"x").unwrap();
    locked(&wakers[0]).take().unwrap().wake();
    while locked(&found).len() < 4 {
        hub.shard.turn();
    }
    assert_eq!(*locked(&found), [0, 0, 0, 3]);
}

/// Notes what was delivered by the time that it is read.
struct Reader {
    telemetry: Arc<Telemetry>,
    delivered: Arc<Mutex<Vec<u64>>>,
    output: Vec<u8>,
}

impl Guest for Reader {
    fn turn(&mut self, _: &[u8], _: &mut Context<'_>) -> bool {
        locked(&self.delivered).push(self.telemetry.delivered.get());
        true
    }

    fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    fn is_late(&self, _: Instant) -> bool {
        false
    }

    fn leave(self: Box<Self>, _: TcpStream) {}
}

/// A committer that is woken for what guests publish. Notes how many have been read by then.
#[derive(Default)]
struct Committer {
    read: AtomicUsize,
    found: Mutex<Vec<usize>>,
}

impl Wake for Committer {
    fn wake(self: Arc<Self>) {
        locked(&self.found).push(self.read.load(Ordering::SeqCst));
    }
}

struct Publisher(Arc<Committer>, Vec<u8>);

impl Guest for Publisher {
    fn turn(&mut self, read: &[u8], _: &mut Context<'_>) -> bool {
        if !read.is_empty() && self.0.read.fetch_add(1, Ordering::SeqCst) == 0 {
            wakes::wake(self.0.clone().into());
        }
        true
    }

    fn output(&mut self) -> &mut Vec<u8> {
        &mut self.1
    }

    fn is_late(&self, _: Instant) -> bool {
        false
    }

    fn leave(self: Box<Self>, _: TcpStream) {}
}

#[test]
fn a_committer_is_woken_for_what_all_guests_of_a_turn_publish() {
    let mut hub = ByHand::new(usize::MAX);
    let committer = Arc::<Committer>::default();
    let mut guests: Vec<_> =
        (0..4).map(|_| hub.host(Box::new(Publisher(committer.clone(), Vec::new())))).collect();
    hub.work();
    let mut most = 0;
    // The system may take its time to show what was written.
    while most < 2 {
        committer.read.store(0, Ordering::SeqCst);
        for guest in &mut guests {
            guest.write_all(b"x").unwrap();
        }
        while locked(&committer.found).is_empty() {
            hub.shard.turn();
        }
        let found = std::mem::take(&mut *locked(&committer.found));
        // Those of the turn that woke it.
        assert_eq!(found, [committer.read.load(Ordering::SeqCst)]);
        most = most.max(found[0]);
        while committer.read.load(Ordering::SeqCst) < guests.len() {
            hub.shard.turn();
        }
    }
}

#[test]
fn what_is_committed_is_delivered_before_guests_are_read() {
    let mut hub = ByHand::new(usize::MAX);
    let mut client = hub.live(1);
    let delivered = Arc::<Mutex<Vec<_>>>::default();
    let reader =
        Reader { telemetry: hub.telemetry.clone(), delivered: delivered.clone(), output: Vec::new() };
    let mut guest = hub.host(Box::new(reader));
    for n in 1..=20 {
        hub.publish(&n.to_string());
        guest.write_all(b"x").unwrap();
        while locked(&delivered).len() < n {
            hub.work();
        }
        client.gets(&mut hub, &[&n.to_string()]);
    }
    assert_eq!(*locked(&delivered), (1..=20).collect::<Vec<_>>());
}
