//! What a checkpoint is: its format and digest ([`mod@format`]), how it is sealed ([`seal`]) and with which keys ([`keys`]),
//! the twin made from it ([`twin`]), where it is kept ([`store`]) and how it moves to another node ([`transfer`]), what is in
//! force ([`run`]), and the one way to read ([`mod@read`], [`yaml`]) and the one to write ([`mod@write`], with the system calls
//! that it makes in `disk`) that all of them use.
//!
//! Nothing here talks to the API server, the kubelet or the runtime.

#[cfg(test)]
mod crash_tests;
mod disk;
#[cfg(test)]
mod fault_tests;
pub mod format;
pub mod keys;
pub mod read;
pub mod run;
pub mod seal;
pub mod store;
#[cfg(test)]
pub mod testing;
pub mod transfer;
pub mod twin;
pub mod write;
pub mod yaml;

use std::path::Path;

/// Removes what is ours of a store's directory and a run directory; what is not is named in the log, and left.
pub fn clear(store: &Path, run: &Path) -> Result<(), write::Error> {
    for (directory, names) in [(store, store::NAMES), (run, run::NAMES)] {
        for path in write::remove_named(directory, names)? {
            tracing::warn!(path = %path.display(), "left: it is not ours");
        }
    }
    Ok(())
}

pub use format::{Captured, Entry, Handover, Image, NodeCheckpoint, Owner, Parent, Policy, Volume};
