//! Waking threads that wait, once for all that one has for them.
//!
//! Whoever is woken may have the core at once, and see the first of several things: it would do them one after the other,
//! and be woken for each. Where one thread has more for others than one thing, it says so.

use std::cell::RefCell;
use std::task::Waker;

thread_local! {
    /// Whom to wake at the end of what is done together, innermost last.
    static PUT_OFF: RefCell<Vec<Vec<Waker>>> = const { RefCell::new(Vec::new()) };
}

/// Wakes somebody: at once, or once what this thread does [together] is done.
pub(crate) fn wake(waker: Waker) {
    let at_once = PUT_OFF.with_borrow_mut(|put_off| match put_off.last_mut() {
        Some(put_off) => {
            put_off.push(waker);
            None
        }
        None => Some(waker),
    });
    if let Some(waker) = at_once {
        waker.wake();
    }
}

/// Does something that wakes nobody before it is done. It must be short, and must not wait for those it wakes: others
/// take them for woken meanwhile.
pub(crate) fn together<T>(work: impl FnOnce() -> T) -> T {
    PUT_OFF.with_borrow_mut(|put_off| put_off.push(Vec::new()));
    let _putting_off = PuttingOff;
    work()
}

/// Ends with the work, also where that panics.
struct PuttingOff;

impl Drop for PuttingOff {
    fn drop(&mut self) {
        for waker in PUT_OFF.with_borrow_mut(Vec::pop).unwrap_or_default() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Sleeper(AtomicUsize);

    impl Wake for Sleeper {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Sleeper {
        fn woken(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn who_is_woken_within_what_is_done_together_is_woken_after_it() {
        let (one, other) = (Arc::<Sleeper>::default(), Arc::<Sleeper>::default());
        wake(one.clone().into());
        assert_eq!(one.woken(), 1, "nothing is put off");
        let done = together(|| {
            wake(one.clone().into());
            together(|| {
                wake(other.clone().into());
                assert_eq!(other.woken(), 0);
            });
            assert_eq!((one.woken(), other.woken()), (1, 1), "what is within has its own end");
            "done"
        });
        assert_eq!((done, one.woken()), ("done", 2));
        wake(other.clone().into());
        assert_eq!(other.woken(), 2);
    }

    #[test]
    fn a_panic_lets_nobody_sleep() {
        let sleeper = Arc::<Sleeper>::default();
        let panicking = std::panic::catch_unwind(|| {
            together(|| {
                wake(sleeper.clone().into());
                panic!("as a test wants");
            });
        });
        assert!(panicking.is_err());
        assert_eq!(sleeper.woken(), 1);
        wake(sleeper.clone().into());
        assert_eq!(sleeper.woken(), 2);
    }
}
