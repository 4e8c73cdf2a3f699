//! Every call by which the writer changes a disk: the plain system call, repeated when a signal
//! interrupted it.
//!
//! It is a layer of its own so that tests can see each call and make it fail (`watch`):
//! `crash_tests` and `fault_tests` try out a power cut or a failing disk between any two calls.
//! Outside tests nothing of that is compiled.

#![cfg_attr(not(test), allow(unused_variables))] // paths that only a watcher uses

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, FallocateFlags};
use rustix::io::Errno;

/// One call, with what a model of a disk must know about it.
#[cfg(test)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call<'a> {
    /// Ask how much space is free.
    Space(&'a Path),
    /// Create an empty file that does not exist yet.
    Create(&'a Path, u32),
    /// Reserve blocks for this many bytes.
    Reserve(&'a Path, u64),
    /// Write at the end. The kernel may write fewer bytes.
    Write(&'a Path, &'a [u8]),
    /// Set a mode.
    Chmod(&'a Path, u32),
    /// Make content, size and mode durable.
    Sync(&'a Path),
    /// Rename a file within its directory, replacing what has the new name.
    Rename(&'a Path, &'a Path),
    /// Create a symbolic link.
    Link(&'a Path),
    /// Remove a name that does not belong to a directory.
    Unlink(&'a Path),
    /// Create a directory.
    Mkdir(&'a Path, u32),
    /// Remove an empty directory.
    Rmdir(&'a Path),
    /// Open a directory, to sync it.
    OpenDirectory(&'a Path),
    /// Make the entries of a directory durable.
    SyncDirectory(&'a Path),
}

/// What a watcher lets a call do.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Let {
    /// What it does on a healthy disk.
    Pass,
    /// Nothing; it fails with this error.
    Fail(Errno),
    /// Write at most this many bytes.
    Short(usize),
}

#[cfg(test)]
type Watcher = Box<dyn FnMut(&Call<'_>) -> Let>;

#[cfg(test)]
thread_local! {
    static WATCHER: std::cell::RefCell<Option<Watcher>> = const { std::cell::RefCell::new(None) };
}

/// Runs something while a watcher decides on the calls of this thread.
#[cfg(test)]
pub(crate) fn watch<T>(
    watcher: impl FnMut(&Call<'_>) -> Let + 'static,
    run: impl FnOnce() -> T,
) -> T {
    WATCHER.set(Some(Box::new(watcher)));
    let result = run();
    WATCHER.set(None);
    result
}

#[cfg(test)]
fn ask(call: &Call<'_>) -> Let {
    WATCHER.with_borrow_mut(|watcher| watcher.as_mut().map_or(Let::Pass, |watcher| watcher(call)))
}

/// Runs a system call until no signal interrupts it, and under test only if the watcher lets it
/// pass.
macro_rules! attempt {
    ($call:expr, $act:expr) => {
        loop {
            #[cfg(test)]
            let result = match ask(&$call) {
                Let::Fail(errno) => Err(io::Error::from(errno)),
                Let::Pass | Let::Short(_) => $act,
            };
            #[cfg(not(test))]
            let result = $act;
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        }
    };
}

/// Free bytes on the file system of a directory.
pub(crate) fn space(directory: &Path) -> io::Result<u64> {
    attempt!(Call::Space(directory), fs2::available_space(directory))
}

/// Creates a file that does not exist yet, open for writing.
pub(crate) fn create(path: &Path, mode: u32) -> io::Result<File> {
    attempt!(
        Call::Create(path, mode),
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)
    )
}

/// Reserves blocks; the size stays the same. A file system that cannot do so is accepted: it
/// reports a lack of space while writing.
pub(crate) fn reserve(file: &File, path: &Path, length: u64) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    let result: io::Result<()> = attempt!(
        Call::Reserve(path, length),
        rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, length).map_err(io::Error::from)
    );
    match result {
        Err(error)
            if matches!(
                Errno::from_io_error(&error),
                Some(Errno::OPNOTSUPP | Errno::NOSYS)
            ) =>
        {
            Ok(())
        }
        result => result,
    }
}

/// Writes all bytes at the end of the file.
pub(crate) fn write_all(file: &File, path: &Path, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match write(file, path, bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(written) => match bytes.get(written..) {
                Some(rest) if written > 0 => bytes = rest,
                _ => return Err(io::ErrorKind::WriteZero.into()),
            },
        }
    }
    Ok(())
}

fn write(mut file: &File, path: &Path, bytes: &[u8]) -> io::Result<usize> {
    #[cfg(test)]
    let bytes = match ask(&Call::Write(path, bytes)) {
        Let::Pass => bytes,
        Let::Short(length) => bytes.get(..length).unwrap_or(bytes),
        Let::Fail(errno) => return Err(errno.into()),
    };
    file.write(bytes)
}

/// Sets a file's mode, whatever the umask was.
pub(crate) fn chmod(file: &File, path: &Path, mode: u32) -> io::Result<()> {
    attempt!(
        Call::Chmod(path, mode),
        file.set_permissions(Permissions::from_mode(mode))
    )
}

/// Makes a file's content, size and mode durable. Never repeated after an error: the kernel may
/// have dropped what it could not write, and would then report success.
pub(crate) fn sync(file: &File, path: &Path) -> io::Result<()> {
    attempt!(Call::Sync(path), file.sync_all())
}

/// Renames within a directory.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    attempt!(Call::Rename(from, to), fs::rename(from, to))
}

/// Creates a symbolic link.
pub(crate) fn symlink(target: &Path, path: &Path) -> io::Result<()> {
    attempt!(Call::Link(path), std::os::unix::fs::symlink(target, path))
}

/// Removes a file or link.
pub(crate) fn unlink(path: &Path) -> io::Result<()> {
    attempt!(Call::Unlink(path), fs::remove_file(path))
}

/// Removes a file or link in an open directory; `path` is its whole path.
pub(crate) fn unlink_at(directory: BorrowedFd<'_>, name: &OsStr, path: &Path) -> io::Result<()> {
    attempt!(
        Call::Unlink(path),
        rustix::fs::unlinkat(directory, name, AtFlags::empty()).map_err(io::Error::from)
    )
}

/// Creates a directory.
pub(crate) fn mkdir(path: &Path, mode: u32) -> io::Result<()> {
    attempt!(
        Call::Mkdir(path, mode),
        DirBuilder::new().mode(mode).create(path)
    )
}

/// Removes an empty directory.
pub(crate) fn rmdir(path: &Path) -> io::Result<()> {
    attempt!(Call::Rmdir(path), fs::remove_dir(path))
}

/// Removes an empty directory in an open directory; `path` is its whole path.
pub(crate) fn rmdir_at(directory: BorrowedFd<'_>, name: &OsStr, path: &Path) -> io::Result<()> {
    attempt!(
        Call::Rmdir(path),
        rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR).map_err(io::Error::from)
    )
}

/// Makes the entries of a directory last.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = attempt!(Call::OpenDirectory(path), File::open(path))?;
    attempt!(Call::SyncDirectory(path), directory.sync_all())
}
