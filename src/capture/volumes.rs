//! Copies a volume as the kubelet wrote it for the running pod.
//!
//! The directory belongs to the kubelet, and its contents come from users who may write the Secret
//! or ConfigMap, so nothing in it is trusted. Every step is relative to an open directory, no link
//! is followed, nothing but files is opened, and bytes, entries and depth are limited.
//!
//! The kubelet writes a new directory `..<time>`, then swaps the link `..data` to it, then removes
//! the old one (pkg/volume/util/atomic_writer.go). Only the directory that `..data` names is
//! copied; [`stamp`] detects a swap in the meantime.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::checkpoint::encoding;
use crate::checkpoint::{Entry, Volume};

/// The most bytes in all volumes of a pod together: sixteen objects as large as the API server
/// allows.
pub const MOST_BYTES: u64 = 16 << 20;
/// The most entries in all volumes of a pod together.
pub const MOST_ENTRIES: usize = 20_000;
/// The deepest nesting of directories. The kubelet makes them from `items[].path`, which is at most
/// 4096 bytes long.
const DEEPEST: usize = 64;

/// Link to the current directory.
const DATA: &str = "..data";

/// What remains of the limits for a pod.
#[derive(Clone, Debug)]
pub struct Budget {
    bytes: u64,
    entries: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            bytes: MOST_BYTES,
            entries: MOST_ENTRIES,
        }
    }
}

/// Why a volume was not copied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The volume vanished or changed while it was copied.
    #[error("it changed while it was copied")]
    Gone,
    /// The volume contains something that a checkpoint cannot hold.
    #[error("{path:?} is {what}")]
    Foreign {
        /// The path in the volume.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// The volumes exceed the limits.
    #[error("the pod's volumes have more than {MOST_BYTES} bytes or {MOST_ENTRIES} files")]
    TooLarge,
    /// Reading failed.
    #[error("cannot read {path:?}")]
    Io {
        /// The path in the volume.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// The state of a volume: if it is the same before and after, the volume did not change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    data: Option<Vec<u8>>,
}

/// Copies the volume in this directory.
pub fn copy(directory: &Path, budget: &mut Budget) -> Result<(Volume, Stamp), Error> {
    let root = open_root(directory)?;
    let before = stamp_of(&root)?;
    let mut copy = Copy {
        entries: Vec::new(),
        budget,
    };
    copy.walk(&root, "", 0, before.data.as_deref())?;
    // the directory itself may have been replaced, so it is looked up again
    if stamp(directory)? != before {
        return Err(Error::Gone);
    }
    Ok((
        Volume {
            entries: copy.entries,
        },
        before,
    ))
}

/// The state of the volume in this directory.
pub fn stamp(directory: &Path) -> Result<Stamp, Error> {
    stamp_of(&open_root(directory)?)
}

fn open_root(directory: &Path) -> Result<OwnedFd, Error> {
    rustix::fs::openat(CWD, directory, flags(OFlags::DIRECTORY), Mode::empty())
        .map_err(|error| failed("", error))
}

fn flags(more: OFlags) -> OFlags {
    OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY | more
}

/// Opens an entry of a directory, but not a mount on top of it: the kubelet mounts nothing into a
/// volume. Comparing device numbers would not work, because on an overlay files may have another
/// one than their directory.
fn open_inside(directory: &OwnedFd, name: &str, more: OFlags) -> Result<OwnedFd, Errno> {
    match rustix::fs::openat2(
        directory,
        name,
        flags(more),
        Mode::empty(),
        ResolveFlags::NO_XDEV,
    ) {
        // a kernel before 5.6
        Err(Errno::NOSYS) => rustix::fs::openat(directory, name, flags(more), Mode::empty()),
        result => result,
    }
}

fn stamp_of(root: &OwnedFd) -> Result<Stamp, Error> {
    let stat = rustix::fs::fstat(root).map_err(|error| failed("", error))?;
    let data = match rustix::fs::readlinkat(root, DATA, Vec::new()) {
        Ok(target) => Some(target.into_bytes()),
        Err(Errno::NOENT | Errno::INVAL) => None,
        Err(error) => return Err(failed(DATA, error)),
    };
    Ok(Stamp {
        device: stat.st_dev,
        inode: stat.st_ino,
        data,
    })
}

/// An entry that existed a moment ago and is now missing or of another type has been swapped.
fn failed(path: &str, error: Errno) -> Error {
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE => Error::Gone,
        Errno::XDEV => Error::Foreign {
            path: path.to_owned(),
            what: "mounted over",
        },
        error => Error::Io {
            path: path.to_owned(),
            source: error.into(),
        },
    }
}

struct Copy<'a> {
    entries: Vec<Entry>,
    budget: &'a mut Budget,
}

impl Copy<'_> {
    fn walk(
        &mut self,
        directory: &OwnedFd,
        path: &str,
        depth: usize,
        data: Option<&[u8]>,
    ) -> Result<(), Error> {
        if depth > DEEPEST {
            return Err(Error::Foreign {
                path: path.to_owned(),
                what: "nested too deeply",
            });
        }
        let stat = rustix::fs::fstat(directory).map_err(|error| failed(path, error))?;
        self.push(path, &stat, None, None)?;
        for name in names(directory, path)? {
            let is_stale = depth == 0
                && name.starts_with("..")
                && name != DATA
                && data != Some(name.as_bytes());
            if data.is_some() && is_stale {
                continue;
            }
            let below = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}/{name}")
            };
            let stat = rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| failed(&below, error))?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let inner = open_inside(directory, &name, OFlags::DIRECTORY)
                        .map_err(|error| failed(&below, error))?;
                    self.walk(&inner, &below, depth + 1, None)?;
                }
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(directory, &name, Vec::new())
                        .map_err(|error| failed(&below, error))?;
                    let target = text(target.as_bytes(), &below)?;
                    if !stays_inside(depth, &target) {
                        return Err(Error::Foreign {
                            path: below,
                            what: "a link that leaves the volume",
                        });
                    }
                    self.push(&below, &stat, None, Some(target))?;
                }
                FileType::RegularFile => self.file(directory, &name, &below)?,
                FileType::Socket => {
                    return Err(Error::Foreign {
                        path: below,
                        what: "a socket",
                    });
                }
                FileType::Fifo => {
                    return Err(Error::Foreign {
                        path: below,
                        what: "a FIFO",
                    });
                }
                _ => {
                    return Err(Error::Foreign {
                        path: below,
                        what: "neither a file, a directory nor a link",
                    });
                }
            }
        }
        Ok(())
    }

    fn file(&mut self, directory: &OwnedFd, name: &str, path: &str) -> Result<(), Error> {
        let file =
            open_inside(directory, name, OFlags::empty()).map_err(|error| failed(path, error))?;
        let stat = rustix::fs::fstat(&file).map_err(|error| failed(path, error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::Gone);
        }
        let mut bytes = Vec::new();
        // reads one byte more than allowed, so that a file that grows meanwhile is detected
        File::from(file)
            .take(self.budget.bytes.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|source| Error::Io {
                path: path.to_owned(),
                source,
            })?;
        self.budget.bytes = u64::try_from(bytes.len())
            .ok()
            .and_then(|long| self.budget.bytes.checked_sub(long))
            .ok_or(Error::TooLarge)?;
        self.push(path, &stat, Some(encoding::encode(&bytes)), None)
    }

    fn push(
        &mut self,
        path: &str,
        stat: &rustix::fs::Stat,
        data: Option<String>,
        link: Option<String>,
    ) -> Result<(), Error> {
        self.budget.entries = self.budget.entries.checked_sub(1).ok_or(Error::TooLarge)?;
        self.entries.push(Entry {
            path: path.to_owned(),
            mode: format!("{:04o}", stat.st_mode & 0o3777),
            uid: stat.st_uid,
            gid: stat.st_gid,
            data,
            link,
        });
        Ok(())
    }
}

fn names(directory: &OwnedFd, path: &str) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory).map_err(|error| failed(path, error))? {
        let entry = entry.map_err(|error| failed(path, error))?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(text(name, path)?);
        }
        if names.len() > MOST_ENTRIES {
            return Err(Error::TooLarge);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn text(bytes: &[u8], path: &str) -> Result<String, Error> {
    let text = std::str::from_utf8(bytes);
    text.map(str::to_owned).map_err(|_| Error::Foreign {
        path: path.to_owned(),
        what: "not named in UTF-8",
    })
}

/// Whether a link in a directory of this depth leads to a path within the volume, judging by its
/// text.
fn stays_inside(depth: usize, target: &str) -> bool {
    if target.is_empty() || target.starts_with('/') {
        return false;
    }
    let mut depth = depth;
    for part in Path::new(target).components() {
        match part {
            std::path::Component::Normal(name) if !name.as_bytes().is_empty() => depth += 1,
            std::path::Component::ParentDir => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return false,
            },
            _ => {}
        }
    }
    true
}

#[cfg(test)]
#[path = "volumes_tests.rs"]
mod tests;
