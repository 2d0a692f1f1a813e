//! When a shard's guests are read.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Instant;

use super::by_hand::ByHand;
use crate::connection::Guest;
use crate::rooms::locked;
use crate::wakes;

/// Does this in its turn, and says nothing.
struct Silent<F>(F, Vec<u8>);

impl<F: FnMut(&[u8], &mut Context<'_>) + Send> Guest for Silent<F> {
    fn turn(&mut self, read: &[u8], cx: &mut Context<'_>) -> bool {
        (self.0)(read, cx);
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

/// Has a shard host such a guest; the other end of its socket.
fn host(hub: &ByHand, turn: impl FnMut(&[u8], &mut Context<'_>) + Send + 'static) -> TcpStream {
    hub.host(Box::new(Silent(turn, Vec::new())))
}

#[test]
fn what_is_committed_is_delivered_before_guests_are_read() {
    let mut hub = ByHand::new(usize::MAX);
    let mut client = hub.live(1);
    let (telemetry, delivered) = (hub.telemetry.clone(), Arc::<Mutex<Vec<_>>>::default());
    let notes = delivered.clone();
    let mut guest = host(&hub, move |_, _| locked(&notes).push(telemetry.delivered.get()));
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

#[test]
fn what_comes_of_news_is_heard_too_before_guests_are_read() {
    let mut hub = ByHand::new(usize::MAX);
    let (rung, found) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<_>>>::default());
    let wakers: [Arc<Mutex<Option<Waker>>>; 3] = Default::default();
    // Whoever is rung has the next one rung; whoever is read notes how many were.
    let mut guests: Vec<_> = (0..3)
        .map(|n| {
            let (waker, next) = (wakers[n].clone(), wakers.get(n + 1).cloned());
            let (rung, found) = (rung.clone(), found.clone());
            host(&hub, move |read, cx| {
                *locked(&waker) = Some(cx.waker().clone());
                if !read.is_empty() {
                    return locked(&found).push(rung.load(Ordering::SeqCst));
                }
                rung.fetch_add(1, Ordering::SeqCst);
                if let Some(next) = next.as_ref().and_then(|next| locked(next).take()) {
                    next.wake();
                }
            })
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

#[test]
fn a_committer_is_woken_for_what_all_guests_of_a_turn_publish() {
    let mut hub = ByHand::new(usize::MAX);
    let committer = Arc::<Committer>::default();
    let publisher = |_| {
        let committer = committer.clone();
        host(&hub, move |read, _| {
            if !read.is_empty() && committer.read.fetch_add(1, Ordering::SeqCst) == 0 {
                wakes::wake(committer.clone().into());
            }
        })
    };
    let mut guests: Vec<_> = (0..4).map(publisher).collect();
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
