//! Watches files with inotify: the kubelet's swap of a volume's `..data`, and the supervisor's
//! reports.
//!
//! The kubelet writes new content of a Secret, ConfigMap, projected or downward-API volume next to
//! the old and renames a link over `..data` (pkg/volume/util/atomic_writer.go): one event in the
//! volume's own directory, whatever changed.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use inotify::{EventMask, EventStream, Inotify, WatchDescriptor, WatchMask};

use crate::places::reports;
use crate::pod::id::PodId;

/// Room for a few dozen events at a time; an overflow of the kernel's own queue is reported as
/// [`Change::All`].
const BUFFER: usize = 4096;

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A volume of this pod.
    Volume(PodId),
    /// The supervisor's reports.
    Reports,
    /// Perhaps everything: events were lost.
    All,
}

#[derive(Debug)]
enum Subject {
    Volume {
        key: PodId,
        uid: String,
        path: PathBuf,
    },
    Reports,
}

/// The directories that are followed.
pub(crate) struct Swaps {
    /// `None`: the kernel has no instance left, so nothing is watched.
    stream: Option<EventStream<[u8; BUFFER]>>,
    subjects: HashMap<WatchDescriptor, Subject>,
}

impl Swaps {
    /// Watches nothing yet. If the kernel has no instance left (fs.inotify.max_user_instances,
    /// which all programs of root share), [`Swaps::follow`] fails and everything else works.
    pub(crate) fn new() -> Self {
        let stream = Inotify::init()
            .and_then(|inotify| inotify.into_event_stream([0; BUFFER]))
            .ok();
        Self {
            stream,
            subjects: HashMap::new(),
        }
    }

    fn add(&mut self, path: &Path, mask: WatchMask) -> io::Result<WatchDescriptor> {
        let none =
            || io::Error::other("no inotify instance is left (fs.inotify.max_user_instances)");
        self.stream
            .as_ref()
            .ok_or_else(none)?
            .watches()
            .add(path, mask)
    }

    /// Watches the volumes of a pod. An absent one is not an error: the capture reports what is
    /// missing.
    pub(crate) fn follow(
        &mut self,
        key: &PodId,
        uid: &str,
        directories: &[PathBuf],
    ) -> io::Result<()> {
        for path in directories {
            if self
                .subjects
                .values()
                .any(|subject| subject.is_volume(uid, path))
            {
                continue;
            }
            let mask = WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::ONLYDIR;
            match self.add(path, mask) {
                Ok(watch) => {
                    let subject = Subject::Volume {
                        key: key.to_owned(),
                        uid: uid.to_owned(),
                        path: path.clone(),
                    };
                    self.subjects.insert(watch, subject);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Stops watching the volumes of all other pods than these.
    pub(crate) fn retain(&mut self, is_wanted: impl Fn(&PodId, &str) -> bool) {
        let Some(mut watches) = self.stream.as_ref().map(EventStream::watches) else {
            return;
        };
        self.subjects.retain(|watch, subject| match subject {
            Subject::Volume { key, uid, .. } if !is_wanted(key, uid) => {
                // usually gone with its directory already
                let _ = watches.remove(watch.clone());
                false
            }
            _ => true,
        });
    }

    /// Follows the supervisor's reports in the run directory.
    pub(crate) fn follow_reports(&mut self, run_dir: &Path) -> io::Result<()> {
        let watch = self.add(run_dir, WatchMask::MOVED_TO | WatchMask::ONLYDIR)?;
        self.subjects.insert(watch, Subject::Reports);
        Ok(())
    }

    /// The next change. May be dropped and called again without losing one.
    pub(crate) async fn next(&mut self) -> io::Result<Change> {
        loop {
            let Some(stream) = &mut self.stream else {
                return std::future::pending().await;
            };
            let event = stream.next().await.ok_or(io::ErrorKind::UnexpectedEof)??;
            if event.mask.contains(EventMask::Q_OVERFLOW) {
                return Ok(Change::All);
            }
            if event.mask.contains(EventMask::IGNORED) {
                self.subjects.remove(&event.wd);
                continue;
            }
            let name = event
                .name
                .as_deref()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            match self.subjects.get(&event.wd) {
                Some(Subject::Volume { key, .. }) if name == "..data" => {
                    return Ok(Change::Volume(key.clone()));
                }
                Some(Subject::Reports) if name == reports::STATUS || name == reports::OUTAGES => {
                    return Ok(Change::Reports);
                }
                _ => {}
            }
        }
    }
}

impl Default for Swaps {
    fn default() -> Self {
        Self::new()
    }
}

impl Subject {
    fn is_volume(&self, pod_uid: &str, directory: &Path) -> bool {
        matches!(self, Self::Volume { uid, path, .. } if uid == pod_uid && path == directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::write;
    use crate::pod::id::id;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[tokio::test]
    async fn a_swap_is_reported_and_other_changes_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        fs::create_dir(&one).unwrap();
        fs::create_dir(&two).unwrap();
        let mut swaps = Swaps::new();
        swaps
            .follow(
                &id("shop_till"),
                "uid-1",
                &[one.clone(), directory.path().join("absent")],
            )
            .unwrap();
        swaps
            .follow(&id("shop_other"), "uid-2", std::slice::from_ref(&two))
            .unwrap();
        fs::create_dir(one.join("..2026_11_21")).unwrap();
        symlink("..2026_11_21", one.join("..data_tmp")).unwrap();
        fs::rename(one.join("..data_tmp"), one.join("..data")).unwrap();
        assert_eq!(swaps.next().await.unwrap(), Change::Volume(id("shop_till")));
        swaps.retain(|key, _| *key != id("shop_till"));
        symlink("x", one.join("..data_tmp")).unwrap();
        fs::rename(one.join("..data_tmp"), one.join("..data")).unwrap();
        symlink("x", two.join("..data")).unwrap();
        assert_eq!(
            swaps.next().await.unwrap(),
            Change::Volume(id("shop_other"))
        );
    }

    #[tokio::test]
    async fn changes_of_the_supervisors_reports_are_noticed_and_of_the_agents_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let mut swaps = Swaps::new();
        swaps.follow_reports(directory.path()).unwrap();
        write::file(&directory.path().join(reports::AGENT), b"{}", 0o600).unwrap();
        write::file(&directory.path().join(reports::STATUS), b"{}", 0o600).unwrap();
        write::file(&directory.path().join(reports::OUTAGES), b"{}", 0o600).unwrap();
        assert_eq!(swaps.next().await.unwrap(), Change::Reports);
        assert_eq!(swaps.next().await.unwrap(), Change::Reports);
    }
}
