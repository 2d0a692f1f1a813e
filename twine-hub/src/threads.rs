//! The hub's own threads. Tasks have owners of their own ([`crate::http`]).

use std::io;
use std::thread::{Builder, JoinHandle, panicking};

/// Starts a thread. One that panics says so in the log, besides what the panic itself says on standard
/// error; whoever keeps the handle shows it on `/readyz`. Where panics abort, as in the released
/// binary, the hub ends with the thread.
///
/// # Errors
/// Where the system gives none.
pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let mourner = Mourner { thread: name.to_owned() };
    Builder::new().name(name.to_owned()).spawn(move || {
        let _mourner = mourner;
        run();
    })
}

/// Lives as long as its thread.
struct Mourner {
    thread: String,
}

impl Drop for Mourner {
    fn drop(&mut self) {
        if panicking() {
            tracing::error!(thread = self.thread, "a thread has panicked, a fault of the hub; restart it");
        }
    }
}
