//! Waking threads that wait, once for all that one has for them.
//!
//! Whoever is woken may have the core at once, and see the first of several things: it would do them one after the other,
//! and be woken for each. Where one thread has more for others than one thing, it says so.

use std::cell::RefCell;
use std::task::Waker;

thread_local!(static PUT_OFF: RefCell<Option<Vec<Waker>>> = const { RefCell::new(None) });

/// Wakes somebody: at once, or once what this thread does [together] is done.
pub(crate) fn wake(waker: Waker) {
    let at_once = PUT_OFF.with_borrow_mut(|put_off| match put_off {
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

/// Does something that wakes nobody before it is done. It must not wait for those it wakes.
pub(crate) fn together<T>(work: impl FnOnce() -> T) -> T {
    let is_within = PUT_OFF.with_borrow_mut(|put_off| {
        let is_within = put_off.is_some();
        put_off.get_or_insert_default();
        is_within
    });
    let _putting_off = (!is_within).then(|| PuttingOff);
    work()
}

/// Ends with the work, also where that panics.
struct PuttingOff;

impl Drop for PuttingOff {
    fn drop(&mut self) {
        for waker in PUT_OFF.take().unwrap_or_default() {
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
            together(|| wake(other.clone().into()));
            assert_eq!((one.woken(), other.woken()), (1, 0), "nor by what is within");
            "done"
        });
        assert_eq!((done, one.woken(), other.woken()), ("done", 2, 1));
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
