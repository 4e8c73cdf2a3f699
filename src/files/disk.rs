//! Every call by which the writer changes a disk: the plain system call, tried again when a signal interrupted it.
//!
//! A layer of its own so that tests can see each call and let it fail (`watch`): what a power cut or a failing
//! disk does between any two of them is tried out in `crash_tests` and `fault_tests`. Outside tests nothing watches, and
//! nothing of that is compiled.

#![cfg_attr(not(test), allow(unused_variables))] // paths that only a watcher looks at

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, FallocateFlags};
use rustix::io::Errno;

/// One call, with what a model of a disk must know of it.
#[cfg(test)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call<'a> {
    /// Look how much is free.
    Space(&'a Path),
    /// Create an empty file that is not there yet.
    Create(&'a Path, u32),
    /// Reserve blocks for so many bytes.
    Reserve(&'a Path, u64),
    /// Write at the end. The kernel may take fewer bytes.
    Write(&'a Path, &'a [u8]),
    /// Set a mode.
    Chmod(&'a Path, u32),
    /// Make content, size and mode last.
    Sync(&'a Path),
    /// Give a file another name in the same directory, over what has it.
    Rename(&'a Path, &'a Path),
    /// Create a symbolic link.
    Link(&'a Path),
    /// Remove a name that is not a directory's.
    Unlink(&'a Path),
    /// Create a directory.
    Mkdir(&'a Path, u32),
    /// Remove an empty directory.
    Rmdir(&'a Path),
    /// Open a directory, to sync it.
    OpenDirectory(&'a Path),
    /// Make the entries of a directory last.
    SyncDirectory(&'a Path),
}

/// What a watcher lets a call do.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Let {
    /// What it does on a healthy disk.
    Pass,
    /// Nothing, with this error.
    Fail(Errno),
    /// Write this many bytes at most.
    Short(usize),
}

#[cfg(test)]
type Watcher = Box<dyn FnMut(&Call<'_>) -> Let>;

#[cfg(test)]
thread_local! {
    static WATCHER: std::cell::RefCell<Option<Watcher>> = const { std::cell::RefCell::new(None) };
}

/// Runs something with a watcher over the calls of this thread.
#[cfg(test)]
pub(crate) fn watch<T>(watcher: impl FnMut(&Call<'_>) -> Let + 'static, run: impl FnOnce() -> T) -> T {
    WATCHER.set(Some(Box::new(watcher)));
    let result = run();
    WATCHER.set(None);
    result
}

#[cfg(test)]
fn ask(call: &Call<'_>) -> Let {
    WATCHER.with_borrow_mut(|watcher| watcher.as_mut().map_or(Let::Pass, |watcher| watcher(call)))
}

/// Runs a system call until no signal interrupts it, and under test only if the watcher lets it pass.
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

/// Bytes that are free on the file system of a directory.
pub(crate) fn space(directory: &Path) -> io::Result<u64> {
    attempt!(Call::Space(directory), fs2::available_space(directory))
}

/// Creates a file that is not there yet, open for writing.
pub(crate) fn create(path: &Path, mode: u32) -> io::Result<File> {
    attempt!(Call::Create(path, mode), OpenOptions::new().write(true).create_new(true).mode(mode).open(path))
}

/// Reserves blocks; the size stays what it is. A file system that cannot do so is one that finds out as it writes.
pub(crate) fn reserve(file: &File, path: &Path, length: u64) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    let result: io::Result<()> = attempt!(
        Call::Reserve(path, length),
        rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, length).map_err(io::Error::from)
    );
    match result {
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::OPNOTSUPP | Errno::NOSYS)) => Ok(()),
        result => result,
    }
}

/// Writes all of it at the end of what was written.
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
    attempt!(Call::Chmod(path, mode), file.set_permissions(Permissions::from_mode(mode)))
}

/// Makes a file's content, size and mode last. Never repeated after an error: the kernel may have dropped what it could
/// not write, and would then say that all is well.
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

/// Removes a file or link of an open directory, whose path is `path` without its last part.
pub(crate) fn unlink_at(directory: BorrowedFd<'_>, name: &OsStr, path: &Path) -> io::Result<()> {
    attempt!(Call::Unlink(path), rustix::fs::unlinkat(directory, name, AtFlags::empty()).map_err(io::Error::from))
}

/// Creates a directory.
pub(crate) fn mkdir(path: &Path, mode: u32) -> io::Result<()> {
    attempt!(Call::Mkdir(path, mode), DirBuilder::new().mode(mode).create(path))
}

/// Removes an empty directory.
pub(crate) fn rmdir(path: &Path) -> io::Result<()> {
    attempt!(Call::Rmdir(path), fs::remove_dir(path))
}

/// Removes an empty directory of an open directory, as [`unlink_at`].
pub(crate) fn rmdir_at(directory: BorrowedFd<'_>, name: &OsStr, path: &Path) -> io::Result<()> {
    attempt!(Call::Rmdir(path), rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR).map_err(io::Error::from))
}

/// Makes the entries of a directory last.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = attempt!(Call::OpenDirectory(path), File::open(path))?;
    attempt!(Call::SyncDirectory(path), directory.sync_all())
}
