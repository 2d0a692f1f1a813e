//! Keys in files: the one that a hub makes for itself, and those that are mounted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::key::ApiKey;

/// Why a file gave no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file can't be read or made.
    #[error("can't use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The file is there, but what it holds is no key.
    #[error("{} does not hold API keys, one a line: write one, or remove the file", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
}

/// A key and the file it is in.
#[derive(Debug)]
pub(crate) struct KeyOfFolder {
    pub(crate) key: ApiKey,
    pub(crate) path: PathBuf,
    /// Others than the file's owner may read or change it.
    pub(crate) exposed: bool,
}

/// The key that the hub of this folder has made for itself; the first start makes it.
///
/// The file has mode 0600 and is there as a whole or not at all, also after a crash.
pub(crate) fn key_of_folder(data_dir: &Path) -> Result<KeyOfFolder, KeyFileError> {
    let path = data_dir.join("api-key");
    let failed = |source| KeyFileError::Io { path: path.clone(), source };
    let key = match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| KeyFileError::NoKey { path: path.clone() })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = ApiKey::random().map_err(failed)?;
            create(data_dir, &path, &key).map_err(failed)?;
            key
        }
        Err(error) => return Err(failed(error)),
    };
    let mode = fs::metadata(&path).map_err(failed)?.permissions().mode();
    Ok(KeyOfFolder { key, exposed: mode & 0o077 != 0, path })
}

fn create(data_dir: &Path, path: &Path, key: &ApiKey) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir)?;
    // The process id keeps hubs apart that start at once by mistake; the later rename wins whole.
    let unfinished = data_dir.join(format!("api-key.{}", std::process::id()));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(format!("{}\n", key.expose()).as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    File::open(data_dir)?.sync_all()
}

/// The keys of a mounted file, one a line; empty lines are skipped.
pub(crate) fn keys_of_file(path: &Path) -> Result<Vec<ApiKey>, KeyFileError> {
    let text =
        fs::read_to_string(path).map_err(|source| KeyFileError::Io { path: path.to_owned(), source })?;
    let no_key = || KeyFileError::NoKey { path: path.to_owned() };
    let keys = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let keys = keys.map(|line| line.parse().map_err(|_| no_key())).collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() { Err(no_key()) } else { Ok(keys) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_start_makes_the_key_for_its_owner_only_and_later_ones_reuse_it() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("not/there/yet");
        let first = key_of_folder(&data_dir).unwrap();
        let second = key_of_folder(&data_dir).unwrap();
        assert_eq!(first.key.expose(), second.key.expose());
        assert!(!first.exposed);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&first.path), mode(&data_dir)), (0o600, 0o700));
        let names: Vec<_> =
            fs::read_dir(&data_dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["api-key"]);
    }

    #[test]
    fn a_file_that_others_may_read_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = key_of_folder(folder.path()).unwrap().path;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(key_of_folder(folder.path()).unwrap().exposed);
    }

    #[test]
    fn a_file_without_a_key_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("api-key"), "\n").unwrap();
        let error = key_of_folder(folder.path()).unwrap_err();
        assert!(error.to_string().contains("api-key does not hold API keys"), "{error}");
    }

    #[test]
    fn a_mounted_file_holds_a_key_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        fs::write(&path, "one\n\n  two \r\n").unwrap();
        let keys = keys_of_file(&path).unwrap();
        assert_eq!(keys.iter().map(ApiKey::expose).collect::<Vec<_>>(), ["one", "two"]);
        fs::write(&path, "one, two\n").unwrap();
        assert!(matches!(keys_of_file(&path), Err(KeyFileError::NoKey { .. })));
    }
}
