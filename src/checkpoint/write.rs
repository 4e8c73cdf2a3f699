//! The one way to write what must last, and the one way to put a link where the kubelet looks.
//!
//! Relies on: rename within a directory is atomic, and what was fsynced (file first, then its directory) is there after a
//! power cut. A reader therefore sees the old content or the new, never a part. Leftovers of a crash are temporary files
//! whose names begin with [`TEMPORARY`]; the kubelet ignores names that begin with a dot (pkg/kubelet/config/file.go).

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// How the name of an unfinished file begins.
pub const TEMPORARY: &str = ".pod-checkpointer-tmp-";
/// Left free on the file system whatever we write: a full disk hurts others more than a stale checkpoint hurts us.
const RESERVE: u64 = 4 << 20;

/// What could not be written, and in which step.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system has too little space.
    #[error("no space for {need} bytes at {}: {free} bytes are free, {RESERVE} of them stay free", .path.display())]
    Full {
        /// What was to be written.
        path: PathBuf,
        /// Its size.
        need: u64,
        /// What is free.
        free: u64,
    },
    /// A step failed.
    #[error("cannot {step} {}", .path.display())]
    Step {
        /// The step, as a verb.
        step: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    fn step(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Step { step, path, source }
    }

    /// Is the disk the cause (full, read-only, failing), rather than the thing written?
    pub fn is_full(&self) -> bool {
        match self {
            Self::Full { .. } => true,
            Self::Step { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
        }
    }
}

/// Replaces or creates a file: after this returns, the content is on the disk; after an error, the old content is.
pub fn file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let directory = parent(path)?;
    let free = fs2::available_space(directory).map_err(Error::step("look for space for", path))?;
    let need = bytes.len() as u64;
    if free < need.saturating_add(RESERVE) {
        return Err(Error::Full { path: path.to_owned(), need, free });
    }
    let mut temporary = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(directory)
        .map_err(Error::step("create a temporary file beside", path))?;
    temporary.write_all(bytes).map_err(Error::step("write", path))?;
    temporary.as_file().set_permissions(Permissions::from_mode(mode)).map_err(Error::step("set the mode of", path))?;
    temporary.as_file().sync_all().map_err(Error::step("fsync", path))?;
    temporary.persist(path).map_err(|error| Error::step("rename a temporary file to", path)(error.error))?;
    sync(directory)
}

/// Puts a symbolic link at `path`, over whatever link was there: the kubelet sees one event with a complete link.
pub fn link(target: &Path, path: &Path) -> Result<(), Error> {
    let directory = parent(path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = directory.join(format!("{TEMPORARY}{name}"));
    remove_if_there(&temporary)?;
    symlink(target, &temporary).map_err(Error::step("create link", &temporary))?;
    fs::rename(&temporary, path).map_err(|source| {
        let _ = fs::remove_file(&temporary);
        Error::step("rename a link to", path)(source)
    })
}

/// Removes a file or link, and makes that last.
pub fn remove(path: &Path) -> Result<(), Error> {
    remove_if_there(path)?;
    sync(parent(path)?)
}

/// Removes a directory with all that is in it, if it is there. Links in it are removed, not followed.
pub fn remove_tree(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::step("remove", path)(source)),
        _ => Ok(()),
    }
}

/// Removes what has one of these names in a directory, and our temporary files, then the directory if nothing else is in
/// it (or nothing can be removed because a file system is mounted there). Says what stayed because it is somebody else's: a
/// mistyped directory must not cost anybody a file.
pub fn remove_named(directory: &Path, names: &[&str]) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::step("read", directory))?,
    };
    let mut others = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::step("read", directory))?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if !names.contains(&name.as_str()) && !name.starts_with(TEMPORARY) {
            others.push(path);
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&path)?;
        } else {
            remove(&path)?;
        }
    }
    if others.is_empty() {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::ResourceBusy => {
                return Err(Error::step("remove", directory)(error));
            }
            _ => {}
        }
    }
    Ok(others)
}

/// Makes a directory, and those above it, for root only.
pub fn directory(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::step("create directory", path))
}

/// Makes what was created, renamed or removed in a directory last.
pub fn sync(directory: &Path) -> Result<(), Error> {
    File::open(directory).and_then(|file| file.sync_all()).map_err(Error::step("fsync directory", directory))
}

fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::step("remove", path)(source)),
        _ => Ok(()),
    }
}

fn parent(path: &Path) -> Result<&Path, Error> {
    path.parent().ok_or_else(|| Error::step("find the directory of", path)(io::ErrorKind::InvalidInput.into()))
}

/// Removes files of one directory, and makes that last once. Nothing is done where there is none.
pub fn remove_each(directory: &Path, paths: &[PathBuf]) -> Result<(), Error> {
    for path in paths {
        remove_if_there(path)?;
    }
    if paths.is_empty() { Ok(()) } else { sync(directory) }
}

/// Renames within a directory, and makes that last. Says whether there was anything of that name.
pub fn rename(from: &Path, to: &Path) -> Result<bool, Error> {
    match fs::rename(from, to) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(false),
        renamed => renamed.map_err(Error::step("rename", from))?,
    }
    sync(parent(to)?)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_with_its_mode_and_no_leftover() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        file(&path, b"old", 0o600).unwrap();
        file(&path, b"new", 0o640).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
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
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file stays");
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
    fn what_is_not_there_is_removed_already() {
        let directory = tempfile::tempdir().unwrap();
        remove(&directory.path().join("nothing")).unwrap();
        remove_tree(&directory.path().join("nothing")).unwrap();
    }
}
