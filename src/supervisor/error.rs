//! Why a supervisor cannot start.

use std::io;
use std::path::PathBuf;

use crate::args::Invalid;
use crate::files::{lock, write};

/// Why a supervisor cannot start. Every other fault is reported and retried.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Invalid settings.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The host's files cannot be reached.
    #[error("cannot reach the host's files")]
    Host(#[source] io::Error),
    /// A host path does not exist.
    #[error("cannot find {} on the host", .0.display())]
    Path(PathBuf, #[source] io::Error),
    /// The run directory cannot be created.
    #[error(transparent)]
    Write(#[from] write::Error),
    /// The lock cannot be taken.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// The CA that `--apiserver-ca` names cannot be read.
    #[error("cannot read {}", .0.display())]
    Ca(PathBuf, #[source] io::Error),
}
