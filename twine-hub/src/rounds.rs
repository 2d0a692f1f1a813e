//! Work that one does for all, in rounds: whatever waits when a round begins is done together.
//!
//! Who asks leaves an order. Where a round waits for a disk, a thread of its own does it, and whoever asked goes on.
//! Where it does not, whoever asked does it at once, for all who did: that costs less than telling a thread, which only
//! has what is due by the clock then, and what a round has left.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError, TryLockError};
use std::task::{Wake, Waker};
use std::thread::{JoinHandle, panicking};
use std::time::Instant;

use crate::clock;
use crate::rooms::locked;
use crate::threads;
use crate::wakes;

/// What is done in rounds.
pub(crate) trait Rounds: Send + 'static {
    /// When the next round is due, whether anything waits or not.
    fn due(&self) -> Instant;

    /// Does what waits, or as much of it as one round may. What it calls must not wait either.
    fn round(&mut self);

    /// Nobody asks for anything any more, and nothing waits.
    fn end(&mut self) {}
}

/// Orders for whoever does the rounds. Who leaves them bounds them.
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
}

struct State<T> {
    orders: VecDeque<T>,
    phase: Phase,
    /// When the thread does a round by itself.
    due: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// What waits is done, and no more is taken.
    Closing,
    /// A round has panicked, and nobody does any more.
    Failed,
}

impl<T> Queue<T> {
    fn new() -> Self {
        let state = State { orders: VecDeque::new(), phase: Phase::Open, due: clock::now() };
        Self { state: Mutex::new(state), arrived: Condvar::new() }
    }

    /// Takes the oldest order that waits.
    pub(crate) fn pop(&self) -> Option<T> {
        locked(&self.state).orders.pop_front()
    }

    /// Whether an order waits.
    pub(crate) fn has_more(&self) -> bool {
        !locked(&self.state).orders.is_empty()
    }

    /// Puts an order behind those that wait. Says whether there was none.
    fn push(&self, order: T) -> Result<bool, T> {
        let mut state = locked(&self.state);
        if state.phase != Phase::Open {
            return Err(order);
        }
        state.orders.push_back(order);
        Ok(state.orders.len() == 1)
    }

    /// Waits until there is something to do, until `due` at the latest.
    fn wait(&self, due: Instant) {
        let state = locked(&self.state);
        let is_quiet =
            |state: &mut State<T>| state.phase == Phase::Open && state.orders.is_empty() && state.due >= due;
        let waited = self.arrived.wait_timeout_while(state, clock::until(due), is_quiet);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// A round was done elsewhere, after which the next is `due`: the thread has to see to that, and to what has come
    /// meanwhile.
    fn leave_rest(&self, due: Instant) {
        let mut state = locked(&self.state);
        if due < state.due || !state.orders.is_empty() {
            state.due = state.due.min(due);
            drop(state);
            self.arrived.notify_one();
        }
    }

    /// Whether nothing waits, and nothing more can come.
    fn is_over(&self) -> bool {
        let state = locked(&self.state);
        state.phase != Phase::Open && state.orders.is_empty()
    }

    /// Nobody does the rounds any more: nobody is to wait for what is never done.
    fn fail(&self) {
        let mut state = locked(&self.state);
        if state.phase == Phase::Open {
            state.phase = Phase::Failed;
        }
        let left = std::mem::take(&mut state.orders);
        // What becomes of those is not for this lock.
        drop(state);
        drop(left);
        self.arrived.notify_one();
    }
}

/// Wakes the thread that does the rounds.
impl<T: Send + 'static> Wake for Queue<T> {
    fn wake(self: Arc<Self>) {
        self.arrived.notify_one();
    }
}

/// Fails the queue if a round panics.
struct Round<'a, T>(&'a Queue<T>);

impl<T> Drop for Round<'_, T> {
    fn drop(&mut self) {
        if panicking() {
            self.0.fail();
        }
    }
}

/// Where orders are left, and who does them.
pub(crate) struct Orders<T> {
    queue: Arc<Queue<T>>,
    /// Who does the rounds, where whoever leaves an order is to have it done.
    at_once: Option<Arc<Mutex<dyn Rounds>>>,
    /// `None` where a test does the rounds, or once it has ended.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<T: Send + 'static> Orders<T> {
    /// With nobody yet who does the rounds.
    pub(crate) fn new() -> Self {
        Self { queue: Arc::new(Queue::new()), at_once: None, thread: Mutex::default() }
    }

    /// For whoever does the rounds.
    pub(crate) fn queue(&self) -> Arc<Queue<T>> {
        self.queue.clone()
    }

    /// From now on `work` is done. `waits` says whether its rounds may wait for a disk.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub(crate) fn start(&mut self, name: &str, waits: bool, work: impl Rounds) -> io::Result<()> {
        let work = Arc::new(Mutex::new(work));
        let queue = self.queue.clone();
        self.at_once = (!waits).then(|| work.clone() as Arc<Mutex<dyn Rounds>>);
        let thread = threads::spawn(name, move || {
            let _round = Round(&queue);
            // One that panicked elsewhere is not gone on with.
            while let Ok(mut working) = work.lock() {
                if queue.is_over() {
                    working.end();
                    break;
                }
                let due = working.due();
                // A round that is done elsewhere from now on may have the next one due sooner.
                locked(&queue.state).due = due;
                drop(working);
                queue.wait(due);
                let Ok(mut working) = work.lock() else { break };
                working.round();
            }
        })?;
        *locked(&self.thread) = Some(thread);
        Ok(())
    }

    /// Leaves an order. Where the work does not wait it may be done on return, with all that waited.
    ///
    /// # Errors
    /// The order, where none is taken any more.
    pub(crate) fn leave(&self, order: T) -> Result<(), T> {
        let is_first = self.queue.push(order)?;
        let Some(work) = &self.at_once else {
            // Whoever has been told of the first will see the rest.
            if is_first {
                wakes::wake(Waker::from(self.queue.clone()));
            }
            return Ok(());
        };
        match work.try_lock() {
            Ok(mut work) => {
                let _round = Round(&self.queue);
                work.round();
                let due = work.due();
                drop(work);
                self.queue.leave_rest(due);
            }
            // Whoever does a round sees to what has come meanwhile, as here.
            Err(TryLockError::WouldBlock) => {}
            // Somebody else's round has panicked.
            Err(TryLockError::Poisoned(_)) => self.queue.fail(),
        }
        Ok(())
    }

    /// No order is taken any more. Those that wait are done still.
    pub(crate) fn close(&self) {
        locked(&self.queue.state).phase = Phase::Closing;
        self.queue.arrived.notify_one();
    }

    /// Whether a round has panicked, so that no order is taken any more though nobody meant that.
    pub(crate) fn has_failed(&self) -> bool {
        locked(&self.queue.state).phase == Phase::Failed
    }

    /// Waits until all is done that was left before [`Orders::close`]. Blocks.
    pub(crate) fn join(&self) {
        let thread = locked(&self.thread).take();
        // One that panicked has said so.
        let _ = thread.map(JoinHandle::join);
    }
}

/// Nobody can leave an order any more.
impl<T> Drop for Orders<T> {
    fn drop(&mut self) {
        let mut state = locked(&self.queue.state);
        if state.phase == Phase::Open {
            state.phase = Phase::Closing;
        }
        drop(state);
        self.queue.arrived.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// The most that the tests' rounds take.
    const MAX: usize = 3;
    /// An order that makes them panic.
    const FATAL: u32 = 13;
    const SELDOM: Duration = Duration::from_hours(1);

    /// Says which orders each round had and who did it, and that it has ended.
    struct Diary {
        queue: Arc<Queue<u32>>,
        rounds: Sender<(thread::ThreadId, Vec<u32>)>,
        has_ended: Arc<AtomicBool>,
        n_rounds: Arc<AtomicUsize>,
        every: Arc<Mutex<Duration>>,
        /// A round with orders waits for a word, or for the sender to be gone.
        gate: Receiver<()>,
    }

    impl Rounds for Diary {
        fn due(&self) -> Instant {
            Instant::now() + *locked(&self.every)
        }

        fn round(&mut self) {
            self.n_rounds.fetch_add(1, Ordering::SeqCst);
            let orders: Vec<_> = std::iter::from_fn(|| self.queue.pop()).take(MAX).collect();
            assert!(!orders.contains(&FATAL), "a test wants a round to panic");
            if !orders.is_empty() {
                let _ = self.rounds.send((thread::current().id(), orders));
                let _ = self.gate.recv();
            }
        }

        fn end(&mut self) {
            self.has_ended.store(true, Ordering::SeqCst);
        }
    }

    struct Bench {
        orders: Arc<Orders<u32>>,
        rounds: Receiver<(thread::ThreadId, Vec<u32>)>,
        has_ended: Arc<AtomicBool>,
        n_rounds: Arc<AtomicUsize>,
        every: Arc<Mutex<Duration>>,
        gate: Option<Sender<()>>,
    }

    fn bench(waits: bool, every: Duration) -> Bench {
        let ((said, rounds), (opening, gate)) = (channel(), channel());
        let (has_ended, n_rounds) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (mut orders, every) = (Orders::new(), Arc::new(Mutex::new(every)));
        let diary = Diary {
            queue: orders.queue(),
            rounds: said,
            has_ended: has_ended.clone(),
            n_rounds: n_rounds.clone(),
            every: every.clone(),
            gate,
        };
        orders.start("twine-diary", waits, diary).unwrap();
        Bench { orders: Arc::new(orders), rounds, has_ended, n_rounds, every, gate: Some(opening) }
    }

    impl Bench {
        /// Rounds wait for nothing.
        fn open(mut self) -> Self {
            self.gate = None;
            self
        }
    }

    #[test]
    fn all_orders_are_done_in_their_order_and_the_last_of_them_before_the_end() {
        for waits in [true, false] {
            let bench = bench(waits, SELDOM).open();
            (20..30).for_each(|order| bench.orders.leave(order).unwrap());
            bench.orders.close();
            assert_eq!(bench.orders.leave(30), Err(30));
            assert!(!bench.orders.has_failed());
            bench.orders.join();
            assert!(bench.has_ended.load(Ordering::SeqCst));
            let rounds: Vec<_> = bench.rounds.try_iter().collect();
            assert!(rounds.iter().all(|(_, orders)| orders.len() <= MAX));
            let done: Vec<_> = rounds.into_iter().flat_map(|(_, orders)| orders).collect();
            assert_eq!(done, (20..30).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_waits_for_nothing_is_done_by_whoever_leaves_it_and_what_may_wait_by_another() {
        for waits in [true, false] {
            let bench = bench(waits, SELDOM).open();
            // The thread may be on its way to sleep still, and come first.
            let mut by_itself = 0;
            for order in 20.. {
                bench.orders.leave(order).unwrap();
                let (by, done) = bench.rounds.recv().unwrap();
                assert_eq!(done, [order]);
                by_itself += usize::from(by == thread::current().id());
                if by_itself == 5 || (waits && order == 25) {
                    break;
                }
            }
            assert_eq!(by_itself == 0, waits);
        }
    }

    #[test]
    fn what_is_left_during_a_round_is_done_after_it_and_nobody_waits_for_that() {
        let mut bench = bench(false, SELDOM);
        let orders = bench.orders.clone();
        let first = thread::spawn(move || orders.leave(20));
        assert_eq!(bench.rounds.recv().unwrap().1, [20], "which is under way now");
        (21..28).for_each(|order| bench.orders.leave(order).unwrap());
        assert!(bench.rounds.try_recv().is_err());
        bench.gate = None;
        first.join().unwrap().unwrap();
        let mut done = Vec::new();
        while done.len() < 7 {
            done.extend(bench.rounds.recv().unwrap().1);
        }
        assert_eq!(done, (21..28).collect::<Vec<_>>());
    }

    #[test]
    fn a_round_is_done_when_it_is_due_though_nobody_asks() {
        for waits in [true, false] {
            let bench = bench(waits, Duration::from_millis(1));
            while bench.n_rounds.load(Ordering::SeqCst) < 3 {
                thread::yield_now();
            }
            bench.orders.close();
            bench.orders.join();
        }
    }

    #[test]
    fn a_round_after_which_the_next_is_due_sooner_has_that_heeded_whoever_did_it() {
        for waits in [true, false] {
            let bench = bench(waits, SELDOM).open();
            bench.orders.leave(20).unwrap();
            bench.rounds.recv().unwrap();
            *locked(&bench.every) = Duration::from_millis(1);
            bench.orders.leave(21).unwrap();
            while bench.n_rounds.load(Ordering::SeqCst) < 5 {
                thread::yield_now();
            }
        }
    }

    #[test]
    fn with_a_round_that_panics_all_ends_and_nothing_waits_for_ever() {
        for waits in [true, false] {
            let bench = bench(waits, SELDOM);
            let orders = bench.orders.clone();
            let asking = thread::spawn(move || orders.leave(FATAL));
            // It falls on whoever does the round.
            assert!(asking.join().is_ok() || !waits);
            bench.orders.join();
            assert_eq!(bench.orders.leave(20), Err(20));
            assert!(bench.orders.has_failed());
            assert!(
                locked(&bench.orders.queue.state).orders.is_empty()
                    && !bench.has_ended.load(Ordering::SeqCst)
            );
        }
    }

    #[test]
    fn without_whoever_could_leave_one_it_ends_after_the_last() {
        for waits in [true, false] {
            let bench = bench(waits, SELDOM).open();
            bench.orders.leave(20).unwrap();
            let Bench { orders, rounds, has_ended, .. } = bench;
            drop(orders);
            // The thread is the last that has the sender.
            assert_eq!(rounds.iter().map(|(_, orders)| orders).collect::<Vec<_>>(), [[20]]);
            assert!(has_ended.load(Ordering::SeqCst));
        }
    }

    #[test]
    fn many_who_leave_orders_at_once_have_each_done_once_and_their_own_in_order() {
        const EACH: u32 = 500;
        for waits in [true, false] {
            let bench = bench(waits, SELDOM).open();
            thread::scope(|scope| {
                for asking in 0..4 {
                    let orders = &bench.orders;
                    scope.spawn(move || {
                        (0..EACH).for_each(|n| orders.leave(1_000 * (asking + 1) + n).unwrap());
                    });
                }
            });
            bench.orders.close();
            bench.orders.join();
            let done: Vec<_> = bench.rounds.try_iter().flat_map(|(_, orders)| orders).collect();
            assert_eq!(done.len(), 4 * EACH as usize);
            for asking in 1..=4 {
                let own: Vec<_> = done.iter().filter(|order| **order / 1_000 == asking).collect();
                assert!(own.len() == EACH as usize && own.is_sorted());
            }
        }
    }
}
