//! Why an agent ends.

use std::io;

use crate::args::Invalid;
use crate::places::store;

/// Why the agent cannot start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Invalid settings.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The host's files cannot be reached.
    #[error("cannot reach the host's files")]
    Host(#[source] io::Error),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The credentials for the API server cannot be read.
    #[error("cannot tell how to reach the API server")]
    Credentials(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A client of the API server cannot be made.
    #[error("cannot make a client of the API server")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Changes of files cannot be watched.
    #[error("cannot watch for changes of files (inotify)")]
    Follow(#[source] io::Error),
    /// A watch that never ends by itself has ended.
    #[error("the watch of pods ended")]
    Ended,
}
