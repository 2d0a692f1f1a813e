//! Whether the database is still where it was opened.
//!
//! A file that is deleted or moved away stays open, and SQLite goes on writing to it: what is
//! acknowledged then is gone with the process. So before each commit the names are looked up again.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::StoreError;
use super::damage::log_of;

/// The files that are open, by name and by what the file system calls them.
pub(super) struct Place {
    files: [(PathBuf, Identity); 2],
}

#[derive(Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Place {
    /// Of the database at `path`, once its log is there.
    pub(super) fn of(path: &Path) -> Result<Self, StoreError> {
        let named = |path: PathBuf| match identity(&path) {
            Ok(identity) => Ok((path, identity)),
            Err(source) => Err(StoreError::Folder { path, source }),
        };
        Ok(Self { files: [named(path.to_owned())?, named(log_of(path))?] })
    }

    /// Refuses where a name stands for another file by now, or for none.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        for (path, opened) in &self.files {
            if !identity(path).is_ok_and(|found| found == *opened) {
                return Err(StoreError::Moved { path: path.clone() });
            }
        }
        Ok(())
    }
}

fn identity(path: &Path) -> io::Result<Identity> {
    let file = fs::metadata(path)?;
    Ok(Identity { device: file.dev(), inode: file.ino() })
}
