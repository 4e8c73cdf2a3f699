//! The only way to read files on which decisions are based: bounded, and only files that no other
//! user could have written.
//!
//! A directory or file is trusted if this process's user owns it and no other user may write it. No
//! symbolic link, hard link, FIFO or device is followed or waited for, whatever its name. Files are
//! opened relative to the directory that was checked, so that nothing can be replaced in between.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Why something was not read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system reported an error.
    #[error("cannot read {}", .0.display())]
    Io(PathBuf, #[source] io::Error),
    /// The file or directory is not trusted, whatever its content.
    #[error("{} is not trusted: {why}", .path.display())]
    Untrusted {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl Error {
    /// Whether nothing has this name.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Io(_, error) if super::is_absent(error))
    }
}

/// An open directory that is trusted.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    fd: OwnedFd,
}

impl Directory {
    /// Opens a directory and checks that it is trusted. Symbolic links above it are followed, but
    /// it must not be one itself.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_at(CWD, path, path.to_owned())
    }

    /// Opens a directory in this one, with the same checks.
    pub fn directory(&self, name: &str) -> Result<Self, Error> {
        Self::open_at(&self.fd, Path::new(name), self.path.join(name))
    }

    fn open_at(at: impl AsFd, name: &Path, path: PathBuf) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match open_at(at, name, flags) {
            Err(Errno::LOOP | Errno::NOTDIR) => {
                return Err(Error::Untrusted {
                    path,
                    why: "it is not a directory; remove it, or move it elsewhere".into(),
                });
            }
            fd => fd.map_err(|error| Error::Io(path.clone(), error.into()))?,
        };
        let stat = rustix::fs::fstat(&fd).map_err(|error| Error::Io(path.clone(), error.into()))?;
        let mode = stat.st_mode & 0o7777;
        if stat.st_uid != rustix::process::geteuid().as_raw() || mode & 0o022 != 0 {
            let why = format!(
                "owner {} and mode {mode:04o}: other users may write to it; check what is in it, then \
                 make it belong to this process's user, with mode 0700",
                stat.st_uid
            );
            return Err(Error::Untrusted { path, why });
        }
        Ok(Self { path, fd })
    }

    /// Path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names in the directory, unordered. A name that is not UTF-8 has replacement characters, so
    /// that it can be shown.
    pub fn names(&self) -> Result<Vec<String>, Error> {
        let failed = |error: Errno| Error::Io(self.path.clone(), error.into());
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(failed)? {
            let name = entry
                .map_err(failed)?
                .file_name()
                .to_string_lossy()
                .into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Whether this name belongs to a directory. No link is followed.
    pub fn has_directory(&self, name: &str) -> bool {
        let stat = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW);
        stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    /// Reads a file in the directory, like [`file()`].
    pub fn file(&self, name: &str, limit: u64) -> Result<Vec<u8>, Error> {
        read_at(&self.fd, Path::new(name), &self.path.join(name), limit)
    }
}

/// Reads a regular file that has only one name, belongs to this process's user, is not accessible
/// to others, and has at most `limit` bytes.
pub fn file(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    read_at(CWD, path, path, limit)
}

/// Opens without updating the access time: a node that reads its store every hour for years would
/// otherwise write each time. Files of other users do not allow that.
fn open_at(at: impl AsFd, name: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    match rustix::fs::openat(&at, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(at, name, flags, Mode::empty()),
        opened => opened,
    }
}

fn read_at(at: impl AsFd, name: &Path, path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let untrusted = |why: String| Error::Untrusted {
        path: path.to_owned(),
        why,
    };
    let failed = |error: io::Error| Error::Io(path.to_owned(), error);
    // NONBLOCK: a FIFO is opened without waiting for its other end
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match open_at(at, name, flags) {
        Err(Errno::LOOP) => return Err(untrusted("it is a symbolic link".into())),
        Err(Errno::NXIO) => return Err(untrusted("it is not a regular file".into())),
        file => File::from(file.map_err(|error| failed(error.into()))?),
    };
    let metadata = file.metadata().map_err(failed)?;
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    if !metadata.is_file() {
        return Err(untrusted("it is not a regular file".into()));
    }
    if metadata.nlink() != 1 {
        return Err(untrusted(
            "it has another name elsewhere (a hard link)".into(),
        ));
    }
    if owner != rustix::process::geteuid().as_raw() || mode & 0o077 != 0 {
        return Err(untrusted(format!(
            "owner {owner} and mode {mode:04o}: it must belong to this process's user and have mode 0600"
        )));
    }
    if metadata.len() > limit {
        return Err(untrusted(format!(
            "{} bytes, more than {limit}",
            metadata.len()
        )));
    }
    // with enough capacity from the start: a growing buffer would leave copies of a key in memory
    let mut bytes = Vec::with_capacity(
        usize::try_from(metadata.len())
            .unwrap_or_default()
            .saturating_add(1),
    );
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(untrusted(format!("more than {limit} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn private(path: &Path, bytes: &[u8]) {
        fs::write(path, bytes).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }

    #[test]
    fn reading_leaves_no_access_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        private(&path, b"12345");
        let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_hours(1);
        let times = fs::FileTimes::new().set_accessed(long_ago);
        for one in [path.as_path(), directory.path()] {
            File::open(one).unwrap().set_times(times).unwrap();
        }
        let ours = Directory::open(directory.path()).unwrap();
        assert_eq!(
            (ours.names().unwrap(), ours.file("file", 5).unwrap()),
            (vec!["file".into()], b"12345".to_vec())
        );
        for one in [path.as_path(), directory.path()] {
            assert_eq!(
                fs::metadata(one).unwrap().accessed().unwrap(),
                long_ago,
                "{}",
                one.display()
            );
        }
    }

    #[test]
    fn only_a_private_regular_file_with_one_name_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        private(&path("good"), b"12345");
        assert_eq!(file(&path("good"), 5).unwrap(), b"12345");
        assert!(
            file(&path("good"), 4)
                .unwrap_err()
                .to_string()
                .contains("more than 4")
        );
        symlink(path("good"), path("link")).unwrap();
        private(&path("one"), b"x");
        fs::hard_link(path("one"), path("two")).unwrap();
        private(&path("open"), b"x");
        fs::set_permissions(path("open"), Permissions::from_mode(0o640)).unwrap();
        fs::create_dir(path("directory")).unwrap();
        rustix::fs::mknodat(
            CWD,
            path("fifo"),
            FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        for name in ["link", "one", "two", "open", "directory", "fifo", "socket"] {
            let error = file(&path(name), 100).unwrap_err();
            assert!(
                matches!(error, Error::Untrusted { .. }),
                "{name}: {error:?}"
            );
        }
        assert!(file(&path("none"), 100).unwrap_err().is_absent());
    }

    #[test]
    fn a_directory_that_others_may_write_to_or_that_is_a_link_is_not_trusted() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("good")).unwrap();
        private(&path("good/file"), b"x");
        let good = Directory::open(&path("good")).unwrap();
        assert_eq!(good.names().unwrap(), ["file"]);
        assert_eq!(good.file("file", 1).unwrap(), b"x");
        symlink(path("good"), path("link")).unwrap();
        fs::create_dir(path("open")).unwrap();
        fs::set_permissions(path("open"), Permissions::from_mode(0o777)).unwrap();
        let outer = Directory::open(directory.path()).unwrap();
        for name in ["link", "open", "good/file"] {
            assert!(
                matches!(outer.directory(name), Err(Error::Untrusted { .. })),
                "{name}"
            );
        }
        assert!(outer.directory("none").unwrap_err().is_absent());
    }
}
