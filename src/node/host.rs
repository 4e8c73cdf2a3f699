//! The host's files, from wherever the program runs.
//!
//! A container that shares the host's processes reaches the host's root through its parent process, the runtime's shim,
//! without any volume. Links on the host are absolute in the host's own view, so they are followed here, not by the
//! kernel, which would look them up in the container's root.

use std::io;
use std::path::{Path, PathBuf};

/// Where the host's root directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRoot(PathBuf);

impl HostRoot {
    /// The given directory.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    /// `/proc/<parent pid>/root` when the parent is in another mount namespace (we run in a container with the host's
    /// processes), else `/`.
    pub fn detect() -> io::Result<Self> {
        todo!("node helper")
    }

    /// The real path of a host path, every link followed inside the root; parts that do not exist are kept as they are.
    pub fn resolve(&self, _path: impl AsRef<Path>) -> io::Result<PathBuf> {
        todo!("node helper")
    }

    /// The root directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }
}
