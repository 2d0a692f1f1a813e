//! Files that the hub carries inside: the browser client of its own version (`build.rs`).

/// The browser client as a classic script; `None` where the hub was built without it.
#[cfg(client_script)]
pub(crate) const CLIENT_SCRIPT: Option<&[u8]> = Some(include_bytes!(concat!(env!("OUT_DIR"), "/twine.js")));
#[cfg(not(client_script))]
pub(crate) const CLIENT_SCRIPT: Option<&[u8]> = None;
