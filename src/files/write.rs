//! The only way to write durable files, and to create links where the kubelet reads them.
//!
//! It relies only on this: a rename within a directory is atomic, and what was fsynced (file first,
//! then its directory) survives a power cut. A reader therefore sees either the old content or the
//! new one, never a part. Leftovers of a crash have names that begin with [`TEMPORARY`]; the
//! kubelet ignores names that begin with a dot (pkg/kubelet/config/file.go). `docs/durability.md`
//! says which file systems guarantee this, and how each step is tested.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::files::disk;

/// Start of the name of an unfinished file.
pub const TEMPORARY: &str = ".pod-checkpointer-tmp-";
/// Bytes that are always left free on the file system: a full disk does more harm to others than a
/// stale checkpoint does here.
const RESERVE: u64 = 4 << 20;

/// Directories whose last fsync failed. Their entries may be gone after a power cut, so they must
/// not be taken for durable: see [`settle`]. Known only to this process; a new process syncs its
/// directories when it starts.
static UNSETTLED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Which step of writing failed, and on what.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system has too little space.
    #[error("no space for {need} bytes at {}: {free} bytes are free, of which {RESERVE} are reserved", .path.display())]
    Full {
        /// The file to be written.
        path: PathBuf,
        /// Its size in bytes.
        need: u64,
        /// Free bytes on the file system.
        free: u64,
    },
    /// A step failed.
    #[error("cannot {step} {}", .path.display())]
    Step {
        /// The step, as a verb.
        step: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl Error {
    fn step(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Step { step, path, source }
    }

    /// Whether the cause is a lack of space, quota or inodes.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Full { .. } => true,
            Self::Step { source, .. } => {
                matches!(
                    source.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                )
            }
        }
    }
}

/// Replaces or creates a file. After success the new content is durable; after an error the old one
/// is. If only the last step failed, the fsync of the directory, it may be either.
pub fn file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let directory = parent(path)?;
    let free = disk::space(directory).map_err(Error::step("check the free space for", path))?;
    let need = bytes.len() as u64;
    if free < need.saturating_add(RESERVE) {
        return Err(Error::Full {
            path: path.to_owned(),
            need,
            free,
        });
    }
    let (temporary, file) = unused(directory, |temporary| disk::create(temporary, mode))
        .map_err(Error::step("create a temporary file next to", path))?;
    let result = fill(&file, &temporary, path, bytes, mode);
    drop(file);
    let result = result.and_then(|()| {
        disk::rename(&temporary, path).map_err(Error::step("rename a temporary file to", path))
    });
    if result.is_err() {
        // if this also fails, the next start removes the file
        let _ = disk::unlink(&temporary);
        return result;
    }
    sync(directory)
}

/// Writes content and mode of a new file to the disk. `path` is its final name.
fn fill(file: &File, temporary: &Path, path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    disk::reserve(file, temporary, bytes.len() as u64)
        .map_err(Error::step("reserve space for", path))?;
    disk::write_all(file, temporary, bytes).map_err(Error::step("write", path))?;
    disk::chmod(file, temporary, mode).map_err(Error::step("set the mode of", path))?;
    disk::sync(file, temporary).map_err(Error::step("fsync", path))
}

/// Creates a symbolic link at `path`, or replaces one: the kubelet sees one event with a complete
/// link. It need not be durable, because after a power cut it points to nothing anyway.
pub fn link(target: &Path, path: &Path) -> Result<(), Error> {
    let (temporary, ()) = unused(parent(path)?, |temporary| disk::symlink(target, temporary))
        .map_err(Error::step("create a temporary link next to", path))?;
    disk::rename(&temporary, path).map_err(|source| {
        let _ = disk::unlink(&temporary);
        Error::step("rename a link to", path)(source)
    })
}

/// Creates something under an unused temporary name.
fn unused<T>(
    directory: &Path,
    mut make: impl FnMut(&Path) -> io::Result<T>,
) -> io::Result<(PathBuf, T)> {
    // renaming a directory reports an existing name with other errors
    let make = |path: &Path| {
        make(path).map_err(|error| match error.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory => {
                io::ErrorKind::AlreadyExists.into()
            }
            _ => error,
        })
    };
    let (made, path) = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .make_in(directory, make)?
        .into_parts();
    Ok((path.keep()?, made))
}

/// Removes a file or link durably.
pub fn remove(path: &Path) -> Result<(), Error> {
    remove_if_there(path)?;
    sync(parent(path)?)
}

/// Removes a directory with everything in it, in one step: after a power cut it exists unchanged or
/// not at all. What a crash leaves of it has a temporary name.
pub fn remove_directory(path: &Path) -> Result<(), Error> {
    let above = parent(path)?;
    match unused(above, |temporary| disk::rename(path, temporary)) {
        Err(source) if super::is_absent(&source) => sync(above),
        moved => {
            let (temporary, ()) = moved.map_err(Error::step("rename to a temporary name", path))?;
            sync(above)?;
            remove_tree(&temporary)
        }
    }
}

/// Removes an empty directory durably.
pub fn remove_empty(path: &Path) -> Result<(), Error> {
    disk::rmdir(path).map_err(Error::step("remove", path))?;
    sync(parent(path)?)
}

/// Removes a directory with everything in it, if it exists. Links in it are removed, not followed.
/// A power cut may leave any part of it.
pub fn remove_tree(path: &Path) -> Result<(), Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => remove_if_there(path),
        Err(errno) => Err(Error::step("open", path)(errno.into())),
        Ok(directory) => {
            empty(&directory, path)?;
            disk::rmdir(path).map_err(Error::step("remove", path))
        }
    }
}

/// Removes everything in an open directory. It uses only names relative to open directories, so
/// that another user who may write to one of them cannot redirect it.
fn empty(directory: &OwnedFd, path: &Path) -> Result<(), Error> {
    let read = |errno: Errno| Error::step("read", path)(errno.into());
    for entry in Dir::read_from(directory)
        .map_err(read)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(read)?
    {
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let inner = path.join(name);
        let failed = |step| Error::step(step, &inner);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match entry.file_type() {
            FileType::Directory | FileType::Unknown => {
                rustix::fs::openat(directory, name, flags, Mode::empty())
            }
            _ => Err(Errno::NOTDIR),
        };
        match opened {
            Ok(opened) => {
                empty(&opened, &inner)?;
                disk::rmdir_at(directory.as_fd(), name, &inner).map_err(failed("remove"))?;
            }
            Err(Errno::NOTDIR | Errno::LOOP) => {
                disk::unlink_at(directory.as_fd(), name, &inner).map_err(failed("remove"))?;
            }
            Err(errno) => return Err(failed("open")(errno.into())),
        }
    }
    Ok(())
}

/// Removes everything with one of these names in a directory, and temporary files, then the
/// directory if it is empty (unless a file system is mounted there). Returns what was not removed
/// because it has another name: a mistyped directory must not destroy any files. What cannot be
/// removed keeps nothing else from being removed; the first such error is returned.
pub fn remove_named(directory: &Path, names: &[&str]) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(directory) {
        Err(error) if super::is_absent(&error) => return Ok(Vec::new()),
        entries => entries.map_err(Error::step("read", directory))?,
    };
    let mut others = Vec::new();
    let mut removed = Ok(());
    for entry in entries {
        let entry = entry.map_err(Error::step("read", directory))?;
        let (path, name) = (
            entry.path(),
            entry.file_name().to_string_lossy().into_owned(),
        );
        if !names.contains(&name.as_str()) && !name.starts_with(TEMPORARY) {
            others.push(path);
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            removed = removed.and(remove_tree(&path));
        } else {
            removed = removed.and(remove(&path));
        }
    }
    removed?;
    if others.is_empty() {
        match disk::rmdir(directory) {
            Err(error) if error.kind() != io::ErrorKind::ResourceBusy => {
                return Err(Error::step("remove", directory)(error));
            }
            _ => {}
        }
    }
    Ok(others)
}

/// Creates a directory and missing ones above it durably, accessible to this user only.
pub fn directory(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        return path.parent().map_or(Ok(()), settle);
    }
    let made = match disk::mkdir(path, 0o700) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            directory(parent(path)?)?;
            disk::mkdir(path, 0o700)
        }
        made => made,
    };
    match made {
        // another process was faster
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        made => made.map_err(Error::step("create directory", path))?,
    }
    sync(parent(path)?)
}

/// Makes a directory of this user inaccessible to others, durably. Anything else is left unchanged;
/// reading it will report an error.
pub fn make_private(path: &Path) -> Result<(), Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        directory => {
            File::from(directory.map_err(|errno| Error::step("open", path)(errno.into()))?)
        }
    };
    let metadata = directory.metadata().map_err(Error::step("examine", path))?;
    if metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o077 != 0 {
        disk::chmod(&directory, path, 0o700).map_err(Error::step("set the mode of", path))?;
        sync(path)?;
    }
    Ok(())
}

/// Makes what was created, renamed or removed in a directory durable.
pub fn sync(directory: &Path) -> Result<(), Error> {
    let result = disk::sync_directory(directory);
    let mut unsettled = UNSETTLED.lock().unwrap_or_else(PoisonError::into_inner);
    if result.is_ok() {
        unsettled.remove(directory);
    } else {
        unsettled.insert(directory.to_owned());
    }
    result.map_err(Error::step("fsync directory", directory))
}

/// Makes sure that the visible entries of a directory are durable, before they are relied on. Does
/// something only if the last [`sync`] of it failed.
pub fn settle(directory: &Path) -> Result<(), Error> {
    let is_unsettled = UNSETTLED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .contains(directory);
    if is_unsettled {
        sync(directory)
    } else {
        Ok(())
    }
}

fn remove_if_there(path: &Path) -> Result<(), Error> {
    match disk::unlink(path) {
        Err(source) if !super::is_absent(&source) => Err(Error::step("remove", path)(source)),
        _ => Ok(()),
    }
}

fn parent(path: &Path) -> Result<&Path, Error> {
    path.parent().ok_or_else(|| {
        Error::step("find the directory of", path)(io::ErrorKind::InvalidInput.into())
    })
}

/// Removes files of one directory durably, with a single fsync. This is needed because a file that
/// reappears after a power cut may be damaged, on a file system that reuses blocks too early (ext4
/// with `data=writeback`). Does nothing without files. A file that cannot be removed keeps no other
/// from being removed; the first error is returned.
pub fn remove_each(directory: &Path, paths: &[PathBuf]) -> Result<(), Error> {
    let mut removed = Ok(());
    for path in paths {
        removed = removed.and(remove_if_there(path));
    }
    if paths.is_empty() {
        Ok(())
    } else {
        removed.and(sync(directory))
    }
}

/// Renames within a directory durably. Returns whether the file existed.
pub fn rename(from: &Path, to: &Path) -> Result<bool, Error> {
    match disk::rename(from, to) {
        Err(source) if super::is_absent(&source) => return Ok(false),
        renamed => renamed.map_err(Error::step("rename", from))?,
    }
    sync(parent(to)?)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_with_its_mode_and_no_leftover() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        file(&path, b"old", 0o600).unwrap();
        file(&path, b"new", 0o640).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
            0o640
        );
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_write_that_fails_names_the_file_and_leaves_the_old_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("taken");
        fs::create_dir_all(path.join("by-a-directory")).unwrap();
        let error = file(&path, b"new", 0o600).unwrap_err();
        assert!(error.to_string().contains("taken"), "{error}");
        assert!(path.join("by-a-directory").is_dir());
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            1,
            "no temporary file stays"
        );
    }

    #[test]
    fn a_link_is_replaced_without_a_moment_without_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("link");
        link(Path::new("/one"), &path).unwrap();
        link(Path::new("/two"), &path).unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("/two"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn removing_something_that_does_not_exist_succeeds() {
        let directory = tempfile::tempdir().unwrap();
        remove(&directory.path().join("nothing")).unwrap();
        remove_tree(&directory.path().join("nothing")).unwrap();
    }
}
