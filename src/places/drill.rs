//! Where a drill keeps what it needs, and how all of it goes again.
//!
//! ```text
//! <run dir>/drill.lock                           held as long as a drill runs
//! <run dir>/drill.yaml                           until when it may, and which routes it made: written before the first
//! <run dir>/drill/<namespace>_<pod>/pod.yaml     a rehearsal's manifest
//! <run dir>/drill/<namespace>_<pod>/volumes/…    its unpacked volumes
//! <manifest dir>/pod-checkpointer-drill_<namespace>_<pod>.yaml -> …/pod.yaml
//! ```
//!
//! All of it is in memory: after a reboot the links dangle, and the kubelet skips them. While the node is up, the supervisor
//! removes what a drill left whose lock nobody holds, or whose time is over.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::files::lock;
use crate::files::write;
use crate::names::{DRILL, DRILL_LOCK, DRILL_RECORD};
use crate::node::routes;
use crate::places::manifests::{self, ManifestDir};
use crate::places::run::{self, RunDir};
use crate::pod::id::PodId;

/// Why a drill's traces could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// In the run directory.
    #[error(transparent)]
    Run(#[from] run::Error),
    /// Writing failed.
    #[error(transparent)]
    Write(#[from] write::Error),
    /// In the kubelet's manifest directory.
    #[error(transparent)]
    Manifests(#[from] manifests::Error),
    /// The lock cannot be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// A route that cuts the node off is still there.
    #[error("cannot remove the route that cuts this node off from {0}")]
    Route(IpAddr, #[source] io::Error),
}

/// `drill.yaml`: what must be undone, and when at the latest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// When all of it must be gone: milliseconds since boot.
    pub until: u64,
    /// Addresses that routes of ours lead nowhere.
    pub cut: Vec<IpAddr>,
}

/// A drill's places on a node.
#[derive(Clone, Debug)]
pub struct Place {
    /// The run directory.
    pub run: RunDir,
    /// The kubelet's manifest directory.
    pub manifests: ManifestDir,
}

impl Place {
    /// Of the node with this manifest directory.
    pub fn new(manifests: ManifestDir) -> Self {
        Self { run: manifests.run().clone(), manifests }
    }

    /// Takes the lock. `None`: another drill runs.
    pub fn lock(&self) -> Result<Option<File>, lock::Error> {
        match lock::lock(&self.run.path().join(DRILL_LOCK)) {
            Err(lock::Error::Held(_)) => Ok(None),
            lock => lock.map(Some),
        }
    }

    /// A pod's directory.
    pub fn directory(&self, key: &PodId) -> PathBuf {
        self.run.path().join(DRILL).join(key.file_form())
    }

    /// The same as the host calls it.
    pub fn host_directory(&self, key: &PodId) -> PathBuf {
        self.run.host_path().join(DRILL).join(key.file_form())
    }

    /// A pod's link.
    pub fn link(&self, key: &PodId) -> PathBuf {
        self.manifests.rehearsal_path(key)
    }

    /// What a pod's link points to.
    pub fn target(&self, key: &PodId) -> PathBuf {
        self.manifests.rehearsal_target(key)
    }

    /// Says until when what follows may last. Before it is made.
    pub fn record(&self, record: &Record) -> Result<(), Error> {
        Ok(self.run.write(DRILL_RECORD, record)?)
    }

    /// What was recorded; `None`: no drill has anything to undo.
    pub fn recorded(&self) -> Result<Option<Record>, Error> {
        Ok(self.run.read(DRILL_RECORD)?)
    }

    /// Links of rehearsals, of this boot or of one before. What has such a name and is not ours is not among them.
    pub fn links(&self) -> Result<Vec<PathBuf>, Error> {
        Ok(self.manifests.read()?.rehearsals)
    }

    /// Gives the node its way back, and forgets the record of it when all is done. Can be done again.
    pub fn restore(&self, record: &Record) -> Result<(), Error> {
        for address in &record.cut {
            if routes::restore(*address).map_err(|source| Error::Route(*address, source))? {
                tracing::warn!(%address, "removed the route that cut this node off");
            }
        }
        Ok(())
    }

    /// Removes everything: the way back first, links before what they point to, the record last. Can be done again.
    pub fn clear(&self) -> Result<(), Error> {
        if let Some(record) = self.recorded()? {
            self.restore(&record)?;
        }
        for link in self.links()? {
            write::remove(&link)?;
        }
        write::remove_tree(&self.run.path().join(DRILL))?;
        Ok(write::remove(&self.run.path().join(DRILL_RECORD))?)
    }

    /// Removes what a drill left that is gone or whose time is over (`now`: time since boot); says whether there was
    /// anything. Without `thorough` one that left no record left nothing, which is so but for a reboot.
    pub fn tidy(&self, now: Duration, thorough: bool) -> Result<bool, Error> {
        let record = self.recorded()?;
        let is_there =
            record.is_some() || thorough && (self.run.path().join(DRILL).exists() || !self.links()?.is_empty());
        if !is_there {
            return Ok(false);
        }
        let lock = self.run.path().join(DRILL_LOCK);
        let is_held = lock::is_locked(&lock).map_err(|source| Error::Read(lock, source))?;
        if is_held && record.is_none_or(|record| now < Duration::from_millis(record.until)) {
            return Ok(false);
        }
        tracing::info!("removing what a drill left");
        self.clear()?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use crate::pod::id::id;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn place(directory: &Path) -> Place {
        let manifests = directory.join("manifests");
        fs::create_dir_all(&manifests).unwrap();
        fs::create_dir_all(directory.join("run")).unwrap();
        Place::new(ManifestDir::new(manifests, RunDir::new(directory.join("run"), "/run/pod-checkpointer")))
    }

    /// A drill in the middle of a rehearsal.
    fn drilling(place: &Place, until: u64) {
        place.record(&Record { until, cut: Vec::new() }).unwrap();
        fs::create_dir_all(place.directory(&id("shop_till")).join("volumes")).unwrap();
        fs::write(place.directory(&id("shop_till")).join("pod.yaml"), "{}").unwrap();
        symlink(place.target(&id("shop_till")), place.link(&id("shop_till"))).unwrap();
    }

    fn is_clean(place: &Place) -> bool {
        place.links().unwrap().is_empty()
            && !place.run.path().join(DRILL).exists()
            && place.recorded().unwrap().is_none()
    }

    #[test]
    fn what_a_killed_drill_left_goes_and_a_running_one_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path());
        assert!(!place.tidy(NOW, true).unwrap());
        drilling(&place, 200_000);
        let lock = place.lock().unwrap().unwrap();
        assert!(place.lock().unwrap().is_none(), "one at a time");
        assert!(!place.tidy(NOW, true).unwrap() && !is_clean(&place));
        drop(lock);
        assert!(place.tidy(NOW, false).unwrap() && is_clean(&place));
    }

    #[test]
    fn a_drill_that_hangs_is_cleared_when_its_time_is_over() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path());
        drilling(&place, 100_001);
        let _lock = place.lock().unwrap().unwrap();
        assert!(!place.tidy(NOW, false).unwrap());
        assert!(place.tidy(NOW + Duration::from_millis(1), false).unwrap() && is_clean(&place));
    }

    #[test]
    fn links_of_before_a_reboot_go_at_the_first_look() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path());
        symlink(place.target(&id("shop_till")), place.link(&id("shop_till"))).unwrap();
        assert!(!place.tidy(NOW, false).unwrap());
        assert!(place.tidy(NOW, true).unwrap() && is_clean(&place));
    }

    #[test]
    fn what_is_not_ours_is_never_touched() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path());
        drilling(&place, 0);
        fs::write(place.link(&id("shop_other")), "somebody's").unwrap();
        symlink("/somewhere/else", place.link(&id("shop_third"))).unwrap();
        place.clear().unwrap();
        assert!(is_clean(&place));
        assert_eq!(fs::read_to_string(place.link(&id("shop_other"))).unwrap(), "somebody's");
        assert!(place.link(&id("shop_third")).is_symlink());
    }
}
