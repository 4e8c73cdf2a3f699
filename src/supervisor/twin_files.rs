//! A twin's files on the node: its manifest and volumes in the run directory, and the link that
//! gives it to the kubelet.

use std::fs;
use std::path::{Path, PathBuf};

use crate::checkpoint::{NodeCheckpoint, twin};
use crate::files::write;
use crate::node::host::HostRoot;
use crate::node::selinux;
use crate::places;
use crate::places::manifests::{self, Link, ManifestDir};
use crate::places::run::{self, MOST_BYTES, RunDir};
use crate::places::store::Store;
use crate::reasons::Blocked;
use crate::supervisor::core::facts::Key;
use crate::supervisor::core::{FoundTwin, Refused};
use crate::text::chain;

/// Why leftovers could not be removed or twins could not be found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// In the kubelet's manifest directory.
    #[error(transparent)]
    Manifests(#[from] manifests::Error),
    /// In the run directory.
    #[error(transparent)]
    Run(#[from] run::Error),
    /// A file could not be removed.
    #[error(transparent)]
    Write(#[from] write::Error),
}

/// Where twins' files are.
#[derive(Clone, Debug)]
pub struct TwinFiles {
    /// The kubelet's manifest directory, with the run directory that its links point to.
    pub manifests: ManifestDir,
    root: HostRoot,
}

impl TwinFiles {
    /// In this manifest directory of this host.
    pub fn new(manifests: ManifestDir, root: HostRoot) -> Self {
        Self { manifests, root }
    }

    fn run(&self) -> &RunDir {
        self.manifests.run()
    }

    /// The twins that are on the node. First removes files that no manifest names, which were being
    /// unpacked when an earlier supervisor ended, and links from before a reboot, whose files were
    /// in memory.
    pub fn find(&self) -> Result<Vec<FoundTwin>, Error> {
        self.run().sweep()?;
        let linked = self.manifests.linked()?;
        let mut keys = self.run().keys()?;
        keys.extend(linked.iter().cloned());
        keys.sort_unstable();
        keys.dedup();
        let mut found = Vec::new();
        for key in keys {
            let is_linked = linked.contains(&key);
            let manifest = match read_manifest(&self.run().active(&key)) {
                Ok(Some(manifest)) => manifest,
                Ok(None) if is_linked => {
                    tracing::info!(pod = %key, "removing a link from before the reboot");
                    write::remove(&self.manifests.link_path(&key))?;
                    continue;
                }
                Ok(None) | Err(_) => serde_json::Value::Null,
            };
            tracing::info!(pod = %key, linked = is_linked, "found a twin of an earlier supervisor");
            found.push(FoundTwin {
                key,
                is_linked,
                manifest,
            });
        }
        Ok(found)
    }

    /// Removes what a crash left in the kubelet's directory and in the run directory: dangling
    /// links of this program, and what [`RunDir::sweep`] finds. An unfinished file may be one that
    /// the agent is writing, so it is removed only if the previous sweep has `seen` it. Returns
    /// what it saw and did not remove.
    pub fn sweep(&self, seen: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
        let found = self.manifests.read()?;
        let dangling = found
            .links
            .into_iter()
            .filter(|link| !self.run().active(&link.key).exists());
        let (old, fresh): (Vec<_>, Vec<_>) = found
            .leftovers
            .into_iter()
            .partition(|path| seen.contains(path));
        for path in dangling.map(|link| link.path).chain(old) {
            tracing::info!(path = %path.display(), "removing what a crash left");
            write::remove(&path)?;
        }
        self.run().sweep()?;
        Ok(fresh)
    }

    /// Unpacks and links a twin under a new UID, which is returned. Files of an earlier twin of the
    /// pod are removed first.
    pub fn activate(
        &self,
        checkpoint: &NodeCheckpoint,
        key: &Key,
        nonce: &str,
    ) -> Result<String, Refused> {
        let made = twin::make(checkpoint, key, nonce, self.run().host_path());
        let volumes = twin::volumes_dir(self.run().path(), key, &made.uid);
        let result = self.put(checkpoint, key, &made, &volumes);
        if result.is_err() {
            let _ = write::remove_tree(&volumes);
        }
        result.map(|()| made.uid)
    }

    fn put(
        &self,
        checkpoint: &NodeCheckpoint,
        key: &Key,
        made: &twin::Twin,
        volumes: &Path,
    ) -> Result<(), Refused> {
        let failed =
            |error: &dyn std::error::Error| Refused::new(Blocked::WriteFailed, chain(error));
        // a linked manifest is never rewritten in place: the old link is removed first
        if self.manifests.link(key) == Link::Ours {
            write::remove(&self.manifests.link_path(key)).map_err(|error| failed(&error))?;
        }
        self.unpack(checkpoint, volumes)?;
        write::file(
            &self.run().active(key),
            made.manifest.to_string().as_bytes(),
            0o600,
        )
        .map_err(|error| failed(&error))?;
        self.relink(key).map_err(|error| failed(&error))?;
        self.drop_other_volumes(key, &made.uid);
        Ok(())
    }

    /// Unpacks the volumes of a checkpoint into a directory that does not exist yet, with labels if
    /// the host's SELinux is in force.
    pub fn unpack(&self, checkpoint: &NodeCheckpoint, volumes: &Path) -> Result<(), Refused> {
        let labelled = selinux::is_in_force(&self.root).map_err(|error| {
            let text = format!("cannot find out whether SELinux is in force: {error}");
            Refused::new(Blocked::NotLabelled, text)
        })?;
        twin::unpack(checkpoint, volumes, labelled).map_err(|error| {
            let reason = match error {
                twin::Error::Label(..) => Blocked::NotLabelled,
                _ => Blocked::WriteFailed,
            };
            Refused::new(reason, chain(&error))
        })
    }

    /// Replaces the twin's link by an equal one, so that the kubelet notices the manifest now.
    pub fn relink(&self, key: &Key) -> Result<(), write::Error> {
        write::link(&self.run().link_target(key), &self.manifests.link_path(key))
    }

    /// Removes the link, if this program created it.
    pub fn release(&self, key: &Key) -> Result<(), write::Error> {
        if self.manifests.link(key) == Link::Ours {
            write::remove(&self.manifests.link_path(key))
        } else {
            Ok(())
        }
    }

    /// Deletes what was unpacked.
    pub fn forget(&self, key: &Key) -> Result<(), run::Error> {
        self.run().remove(key)
    }

    /// Removes unpacked files of earlier UIDs, which no manifest names any more.
    fn drop_other_volumes(&self, key: &Key, uid: &str) {
        let directory = self.run().path().join("volumes").join(key.file_form());
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy() != uid
                && let Err(error) = write::remove_tree(&entry.path())
            {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot remove old unpacked files"
                );
            }
        }
    }

    /// Removes everything of this program from the node, the supervisor's own manifest last.
    pub fn retire(&self, store: &Store) -> Result<(), write::Error> {
        for link in self.manifests.read().unwrap_or_default().links {
            self.release(&link.key)?;
        }
        places::clear(store.directory(), self.run().path())?;
        write::remove(&self.manifests.supervisor_path())
    }
}

/// Reads a linked or unpacked manifest; `None`: there is none.
pub fn read_manifest(path: &Path) -> std::io::Result<Option<serde_json::Value>> {
    use std::io::Read as _;
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(Some(serde_json::from_slice(&bytes)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::testing::checkpoint;
    use crate::pod::id::id;
    use std::os::unix::fs::symlink;

    fn files(directory: &Path) -> TwinFiles {
        let manifests = directory.join("manifests");
        fs::create_dir_all(&manifests).unwrap();
        fs::create_dir_all(directory.join("run/active")).unwrap();
        let run = RunDir::new(directory.join("run"), "/run/pod-checkpointer");
        TwinFiles::new(ManifestDir::new(manifests, run), HostRoot::new("/"))
    }

    #[test]
    fn where_the_hosts_selinux_is_in_force_a_twin_has_labels_or_a_reason() {
        let directory = tempfile::tempdir().unwrap();
        let host = directory.path().join("host");
        fs::create_dir_all(host.join("proc/1")).unwrap();
        fs::create_dir_all(host.join("sys/fs/selinux")).unwrap();
        let table = "30 22 0:21 / /sys/fs/selinux rw - selinuxfs selinuxfs rw\n";
        fs::write(host.join("proc/1/mountinfo"), table).unwrap();
        let files = TwinFiles {
            root: HostRoot::new(&host),
            ..files(directory.path())
        };
        let activate = || files.activate(&checkpoint("shop", "till"), &key(), "boot/1");

        // whether it is in force is not known
        let refused = activate().unwrap_err();
        assert_eq!(refused.reason, Blocked::NotLabelled);
        assert_eq!(files.manifests.link(&key()), Link::None);

        fs::write(host.join("sys/fs/selinux/enforce"), "1").unwrap();
        match activate() {
            Ok(uid) => {
                let volume = format!("run/volumes/shop_till/{uid}/credentials");
                let file = directory.path().join(volume).join("password");
                let mut label = [0; 128];
                let length =
                    rustix::fs::lgetxattr(&file, "security.selinux", &mut label[..]).unwrap();
                let label = String::from_utf8_lossy(&label[..length]).into_owned();
                assert!(label.contains(":container_file_t:"), "{label}");
            }
            // without the right to set a label
            Err(refused) => assert_eq!(refused.reason, Blocked::NotLabelled),
        }
    }

    fn key() -> Key {
        id("shop_till")
    }

    fn links(files: &TwinFiles) -> Vec<Key> {
        files
            .manifests
            .read()
            .unwrap()
            .links
            .into_iter()
            .map(|link| link.key)
            .collect()
    }

    #[test]
    fn a_twin_is_linked_released_and_forgotten_without_a_trace() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        let uid = files
            .activate(&checkpoint("shop", "till"), &id("shop_till"), "boot/1")
            .unwrap();
        assert_eq!(files.manifests.link(&key()), Link::Ours);
        assert_eq!(links(&files), [id("shop_till")]);
        assert!(
            directory
                .path()
                .join(format!("run/volumes/shop_till/{uid}/credentials/password"))
                .exists()
        );
        files.release(&key()).unwrap();
        assert_eq!(files.manifests.link(&key()), Link::None);
        assert!(
            files.run().active(&key()).exists(),
            "the files stay while the twin runs"
        );
        files.forget(&key()).unwrap();
        assert!(files.run().keys().unwrap().is_empty());
        assert_eq!(fs::read_dir(files.manifests.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_new_activation_leaves_nothing_of_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        let one = files
            .activate(&checkpoint("shop", "till"), &id("shop_till"), "boot/1")
            .unwrap();
        let two = files
            .activate(&checkpoint("shop", "till"), &id("shop_till"), "boot/2")
            .unwrap();
        assert_ne!(one, two);
        let volumes = directory.path().join("run/volumes/shop_till");
        let names: Vec<_> = fs::read_dir(volumes)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, [two.as_str()]);
    }

    #[test]
    fn files_of_others_in_the_kubelets_directory_are_never_touched() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        let path = files.manifests.link_path(&key());
        fs::write(&path, "somebody's").unwrap();
        assert_eq!(files.manifests.link(&key()), Link::Foreign);
        files.release(&key()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's");
        fs::remove_file(&path).unwrap();
        symlink("/somewhere/else", &path).unwrap();
        assert_eq!(files.manifests.link(&key()), Link::Foreign);
        files.release(&key()).unwrap();
        assert!(path.is_symlink());
        assert!(links(&files).is_empty());
    }

    #[test]
    fn retiring_leaves_the_node_as_it_was_and_keeps_files_of_others() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        let store = Store::new(directory.path().join("state"));
        store.create().unwrap();
        store.put(&checkpoint("shop", "till")).unwrap();
        files
            .activate(&checkpoint("shop", "till"), &id("shop_till"), "boot/1")
            .unwrap();
        fs::write(
            files
                .manifests
                .path()
                .join("pod-checkpointer-supervisor.yaml"),
            "{}",
        )
        .unwrap();
        fs::write(files.manifests.path().join("etcd.yaml"), "somebody's").unwrap();
        fs::write(store.directory().join("notes"), "somebody's").unwrap();
        files.retire(&store).unwrap();
        let names = |path: &Path| {
            let entries = fs::read_dir(path).unwrap();
            entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(files.manifests.path()), ["etcd.yaml"]);
        assert_eq!(names(store.directory()), ["notes"]);
        assert!(!files.run().path().exists());
    }
}
