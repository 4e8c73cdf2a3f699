//! Regularly removes what a crash or a drill left on the node.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use crate::node::clock;
use crate::places::drill::Place;
use crate::problems::Problems;
use crate::supervisor::core::pace::QUIET;
use crate::supervisor::twin_files::TwinFiles;
use crate::text::chain;

/// Interval between sweeps.
const SWEEP: Duration = Duration::from_hours(1);

/// When the next sweep is due.
pub struct Upkeep {
    next: Instant,
    /// What the last sweep saw and kept, because another process may have been writing it.
    swept: Option<Vec<PathBuf>>,
}

impl Upkeep {
    /// The first sweep is due at once.
    pub fn new() -> Self {
        Self {
            next: Instant::now(),
            swept: None,
        }
    }

    /// A twin's files were removed: the next sweep comes soon, in case anything is left of them.
    pub fn hasten(&mut self) {
        self.next = self.next.min(Instant::now() + QUIET);
    }

    /// Removes what a crash left, at the start, a minute later, and then every hour.
    pub fn sweep(&mut self, files: &TwinFiles, problems: &mut Problems) {
        if Instant::now() < self.next {
            return;
        }
        let pause = if self.swept.is_none() { QUIET } else { SWEEP };
        self.next = Instant::now() + pause;
        match files.sweep(self.swept.as_deref().unwrap_or_default()) {
            Ok(seen) => {
                self.swept = Some(seen);
                problems.set("leftovers", None);
            }
            Err(error) => problems.set("leftovers", Some(chain(&error))),
        }
    }

    /// Removes what a drill left, above all its routes, if it has ended or its time is over.
    pub fn tidy_drill(&self, files: &TwinFiles, problems: &mut Problems) {
        let tidied =
            Place::new(files.manifests.clone()).tidy(clock::boot_time(), self.swept.is_none());
        problems.set("drill", tidied.err().map(|error| chain(&error)));
    }
}
