//! What a crash or a drill left on the node: looked for now and then, and removed.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use crate::node::clock;
use crate::places::drill::Place;
use crate::problems::Problems;
use crate::supervisor::core::pace::QUIET;
use crate::supervisor::twin_files::TwinFiles;
use crate::text::chain;

/// Between looks for what a crash left.
const SWEEP: Duration = Duration::from_hours(1);

/// When it is looked for next.
pub struct Upkeep {
    next: Instant,
    /// What the last sweep saw and left, because it may still have been being written.
    swept: Option<Vec<PathBuf>>,
}

impl Upkeep {
    /// At once.
    pub fn new() -> Self {
        Self {
            next: Instant::now(),
            swept: None,
        }
    }

    /// A twin's files were removed: see soon whether anything is left of them.
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

    /// Removes what a drill left that is gone or whose time is over: its routes above all.
    pub fn tidy_drill(&self, files: &TwinFiles, problems: &mut Problems) {
        let tidied =
            Place::new(files.manifests.clone()).tidy(clock::boot_time(), self.swept.is_none());
        problems.set("drill", tidied.err().map(|error| chain(&error)));
    }
}
