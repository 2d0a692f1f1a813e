//! Puts the browser client into the hub, where there is one.
//!
//! `assets/twine.js` is what the build of `npm/` leaves there and what a published crate carries;
//! `TWINE_JS` names another file. Without either the hub builds all the same, and says at
//! `/twine.js` what to do.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    // The folder, not the file: cargo would build the hub anew each time while that is missing.
    println!("cargo::rerun-if-changed=assets");
    println!("cargo::rerun-if-env-changed=TWINE_JS");
    println!("cargo::rustc-check-cfg=cfg(client_script)");
    let script = match env::var_os("TWINE_JS") {
        Some(path) => {
            let path = PathBuf::from(path);
            println!("cargo::rerun-if-changed={}", path.display());
            Some(path)
        }
        None => Some(Path::new("assets/twine.js").to_owned()).filter(|path| path.exists()),
    };
    if let Some(path) = script {
        let out = env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?;
        let copied = fs::copy(&path, Path::new(&out).join("twine.js"));
        copied.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        println!("cargo::rustc-cfg=client_script");
    }
    Ok(())
}
