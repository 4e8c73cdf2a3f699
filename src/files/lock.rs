//! Advisory locks: only one agent, one supervisor and one drill run on a node at a time.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process holds it.
    #[error("cannot lock {}: another process holds it; only one agent, one supervisor and one drill run on a node", .0.display())]
    Held(PathBuf),
    /// The file of the lock cannot be opened.
    #[error("cannot open lock file {}", .0.display())]
    Open(PathBuf, #[source] io::Error),
}

/// Takes an advisory lock on a file, which is created if necessary, for as long as the returned
/// file is open. On a file system that is full or has become read-only, an existing file is enough.
pub fn lock(path: &Path) -> Result<File, Error> {
    let options = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .clone();
    let file = options.open(path).or_else(|error| {
        let kind = error.kind();
        let is_disk = matches!(
            kind,
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::StorageFull
        );
        if is_disk {
            File::open(path).map_err(|_| error)
        } else {
            Err(error)
        }
    });
    let file = file.map_err(|source| Error::Open(path.to_owned(), source))?;
    fs2::FileExt::try_lock_exclusive(&file).map_err(|_| Error::Held(path.to_owned()))?;
    Ok(file)
}

/// Whether a process holds this lock; no, if the file does not exist. Another process that only
/// asks at the same moment does not count.
pub fn is_locked(path: &Path) -> io::Result<bool> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        file => Ok(fs2::FileExt::try_lock_shared(&file?).is_err()),
    }
}
