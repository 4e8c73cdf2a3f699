//! Where a drill keeps its files, and how all of them are removed again.
//!
//! ```text
//! <run dir>/drill.lock                           held while a drill runs
//! <run dir>/drill.yaml                           its end at the latest, and its routes: written before they are made
//! <run dir>/drill/<namespace>_<pod>/pod.yaml     a rehearsal's manifest
//! <run dir>/drill/<namespace>_<pod>/volumes/…    its unpacked volumes
//! <manifest dir>/pod-checkpointer-drill_<namespace>_<pod>.yaml -> …/pod.yaml
//! ```
//!
//! All of it is in memory: after a reboot the links dangle, and the kubelet skips them. While the
//! node is up, the supervisor removes what a drill left behind if its lock is free or its time is
//! over.

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

/// Why a drill's files or routes could not be created or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A failure in the run directory.
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

/// `drill.yaml`: what must be undone, and by when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// When everything must be undone, in milliseconds since boot.
    pub until: u64,
    /// Addresses that the drill's routes make unreachable.
    pub cut: Vec<IpAddr>,
}

/// A drill's directories on a node.
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
        Self {
            run: manifests.run().clone(),
            manifests,
        }
    }

    /// Takes the lock; `None` if another drill runs.
    pub fn lock(&self) -> Result<Option<File>, lock::Error> {
        match lock::lock(&self.run.path().join(DRILL_LOCK)) {
            Err(lock::Error::Held(_)) => Ok(None),
            lock => lock.map(Some),
        }
    }

    /// Directory of a pod, a real path.
    pub fn directory(&self, key: &PodId) -> PathBuf {
        self.run.path().join(DRILL).join(key.file_form())
    }

    /// The same as a host path.
    pub fn host_directory(&self, key: &PodId) -> PathBuf {
        self.run.host_path().join(DRILL).join(key.file_form())
    }

    /// Link of a pod in the kubelet's manifest directory.
    pub fn link(&self, key: &PodId) -> PathBuf {
        self.manifests.rehearsal_path(key)
    }

    /// Target of a pod's link, a host path.
    pub fn target(&self, key: &PodId) -> PathBuf {
        self.manifests.rehearsal_target(key)
    }

    /// Writes down what must be undone and by when. To be called before it is done.
    pub fn record(&self, record: &Record) -> Result<(), Error> {
        Ok(self.run.write(DRILL_RECORD, record)?)
    }

    /// The record of a drill; `None` if there is nothing to undo.
    pub fn recorded(&self) -> Result<Option<Record>, Error> {
        Ok(self.run.read(DRILL_RECORD)?)
    }

    /// Links of rehearsals, of this boot or an earlier one. Files with such a name that do not
    /// belong to a drill are left out.
    pub fn links(&self) -> Result<Vec<PathBuf>, Error> {
        Ok(self.manifests.read()?.rehearsals)
    }

    /// Removes the routes that cut the node off. May be repeated. A route that cannot be removed
    /// keeps no other from being removed; the first error is returned.
    pub fn restore(&self, record: &Record) -> Result<(), Error> {
        let mut restored = Ok(());
        for address in &record.cut {
            match routes::restore(*address) {
                Ok(true) => tracing::warn!(%address, "removed the route that cut this node off"),
                Ok(false) => {}
                Err(source) => restored = restored.and(Err(Error::Route(*address, source))),
            }
        }
        restored
    }

    /// Removes everything of a drill: routes first, links before their targets, the record last.
    /// May be repeated.
    pub fn clear(&self) -> Result<(), Error> {
        if let Some(record) = self.recorded()? {
            self.restore(&record)?;
        }
        let mut removed = Ok(());
        for link in self.links()? {
            removed = removed.and(write::remove(&link));
        }
        removed?;
        write::remove_tree(&self.run.path().join(DRILL))?;
        Ok(write::remove(&self.run.path().join(DRILL_RECORD))?)
    }

    /// Removes what a drill left behind that has died or whose time is over (`now` is the time
    /// since boot). Returns whether there was anything. Without `thorough`, a missing record counts
    /// as nothing left, which is true except after a reboot.
    pub fn tidy(&self, now: Duration, thorough: bool) -> Result<bool, Error> {
        let record = self.recorded()?;
        let is_there = record.is_some()
            || thorough && (self.run.path().join(DRILL).exists() || !self.links()?.is_empty());
        if !is_there {
            return Ok(false);
        }
        let lock = self.run.path().join(DRILL_LOCK);
        let is_held = lock::is_locked(&lock).map_err(|source| Error::Read(lock, source))?;
        if is_held && record.is_none_or(|record| now < Duration::from_millis(record.until)) {
            return Ok(false);
        }
        tracing::info!("removing what a drill left behind");
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
        Place::new(ManifestDir::new(
            manifests,
            RunDir::new(directory.join("run"), "/run/pod-checkpointer"),
        ))
    }

    /// A drill in the middle of a rehearsal.
    fn drilling(place: &Place, until: u64) {
        place
            .record(&Record {
                until,
                cut: Vec::new(),
            })
            .unwrap();
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
    fn what_a_killed_drill_left_is_removed_and_a_running_one_is_left_alone() {
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
    fn links_from_before_a_reboot_are_removed_by_a_thorough_look() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path());
        symlink(place.target(&id("shop_till")), place.link(&id("shop_till"))).unwrap();
        assert!(!place.tidy(NOW, false).unwrap());
        assert!(place.tidy(NOW, true).unwrap() && is_clean(&place));
    }

    #[test]
    fn files_of_others_are_never_touched() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path());
        drilling(&place, 0);
        fs::write(place.link(&id("shop_other")), "another program's").unwrap();
        symlink("/somewhere/else", place.link(&id("shop_third"))).unwrap();
        place.clear().unwrap();
        assert!(is_clean(&place));
        assert_eq!(
            fs::read_to_string(place.link(&id("shop_other"))).unwrap(),
            "another program's"
        );
        assert!(place.link(&id("shop_third")).is_symlink());
    }
}
