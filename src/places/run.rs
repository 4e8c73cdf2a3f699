//! The run directory: everything that is currently active, in memory only, and gone after a reboot.
//!
//! ```text
//! <run dir>/boot                 ID of the boot it belongs to
//! <run dir>/supervisor.lock
//! <run dir>/active/<namespace>_<pod>.yaml
//! <run dir>/volumes/<namespace>_<pod>/<twin uid>/<volume>/…
//! <run dir>/agent.yaml           the agent's report: heartbeat, which parents are Ready
//! <run dir>/status.yaml  outages.yaml
//! <run dir>/drill.lock  drill.yaml  drill/…     see [`crate::places::drill`]
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::files::{is_absent, read, write};
use crate::names::{DRILL, DRILL_LOCK, DRILL_RECORD, SUPERVISOR_LOCK};
use crate::places::reports;
use crate::pod::id::PodId;

/// Names of all files and directories that the program creates in the run directory.
pub const NAMES: &[&str] = &[
    "active",
    "volumes",
    "boot",
    reports::AGENT,
    reports::STATUS,
    reports::OUTAGES,
    SUPERVISOR_LOCK,
    DRILL,
    DRILL_LOCK,
    DRILL_RECORD,
];
/// Largest file in bytes that is read: the kubelet's own limit for a manifest
/// (pkg/kubelet/config/file.go, `maxConfigLength`).
pub const MOST_BYTES: u64 = 10 << 20;
/// `TMPFS_MAGIC` and `RAMFS_MAGIC` (linux/magic.h).
const MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// Why the run directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory is not in memory, where alone unsealed checkpoints may be.
    #[error("run directory {} is not memory-backed: mount a tmpfs there", .0.display())]
    NotMemory(PathBuf),
    /// Reading failed.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// The directory, or a file in it, is not trusted.
    #[error(transparent)]
    Untrusted(#[from] read::Error),
    /// A file in the directory does not have the expected content.
    #[error("cannot parse {}", .0.display())]
    Syntax(PathBuf, #[source] serde_yaml::Error),
    /// Writing failed.
    #[error(transparent)]
    Write(#[from] write::Error),
}

/// A run directory: `path` is its real path for this process, `host_path` that for the kubelet.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
    host_path: PathBuf,
}

impl RunDir {
    /// The run directory at this real path, which is `host_path` on the host. Reads nothing yet.
    pub fn new(path: impl Into<PathBuf>, host_path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            host_path: host_path.into(),
        }
    }

    /// Creates the directory if necessary, checks that it is in memory, and empties it if it is
    /// from another boot. What cannot be removed keeps nothing else from being removed, and is
    /// tried again at the next call.
    pub fn open(&self, boot_id: &str) -> Result<(), Error> {
        write::directory(&self.path)?;
        self.keep_private()?;
        let statfs = rustix::fs::statfs(&self.path)
            .map_err(|error| Error::Read(self.path.clone(), error.into()))?;
        #[allow(clippy::unnecessary_cast, clippy::cast_lossless)]
        // the type differs between architectures
        if !MEMORY.contains(&(statfs.f_type as i64)) {
            return Err(Error::NotMemory(self.path.clone()));
        }
        let boot = self.path.join("boot");
        let known = fs::read_to_string(&boot).unwrap_or_default();
        if known.trim() != boot_id {
            let mut removed = Ok(());
            for entry in Self::entries(&self.path)? {
                // the lock is held by a running process or not at all, never by one of another boot
                if entry == SUPERVISOR_LOCK {
                    continue;
                }
                let path = self.path.join(&entry);
                removed = removed.and(if path.is_dir() && !path.is_symlink() {
                    write::remove_tree(&path)
                } else {
                    write::remove(&path)
                });
            }
            removed?;
            write::file(&boot, boot_id.as_bytes(), 0o600)?;
        }
        write::directory(&self.path.join("active"))?;
        write::directory(&self.path.join("volumes"))?;
        Ok(())
    }

    /// It contains unsealed checkpoints, so it must not be a link, must belong to this user, and is
    /// made inaccessible to others.
    fn keep_private(&self) -> Result<(), Error> {
        let failed = |source| Error::Read(self.path.clone(), source);
        let metadata = fs::symlink_metadata(&self.path).map_err(failed)?;
        if !metadata.is_dir() || metadata.uid() != rustix::process::geteuid().as_raw() {
            let why = format!("owner {}, or not a directory", metadata.uid());
            return Err(read::Error::Untrusted {
                path: self.path.clone(),
                why,
            }
            .into());
        }
        Ok(write::make_private(&self.path)?)
    }

    /// Real path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Host path of the directory.
    pub fn host_path(&self) -> &Path {
        &self.host_path
    }

    /// Path of the active manifest of a pod.
    pub fn active(&self, key: &PodId) -> PathBuf {
        self.path
            .join("active")
            .join(format!("{}.yaml", key.file_form()))
    }

    /// Target of a pod's link in the kubelet's manifest directory.
    pub fn link_target(&self, key: &PodId) -> PathBuf {
        self.host_path
            .join("active")
            .join(format!("{}.yaml", key.file_form()))
    }

    /// Keys of the pods that have an active manifest or unpacked files.
    pub fn keys(&self) -> Result<Vec<PodId>, Error> {
        let active = Self::entries(&self.path.join("active"))?;
        let active = active
            .iter()
            .filter_map(|name| name.strip_suffix(".yaml")?.parse().ok());
        let volumes = Self::entries(&self.path.join("volumes"))?;
        let mut keys: Vec<PodId> = active
            .chain(volumes.iter().filter_map(|name| name.parse().ok()))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        Ok(keys)
    }

    /// Removes what a crash left behind: unfinished files, and unpacked volumes that no active
    /// manifest names. Only for the supervisor, which writes these. What fails for one name is done
    /// for the others; the first error is returned.
    pub fn sweep(&self) -> Result<(), Error> {
        let (active, volumes) = (self.path.join("active"), self.path.join("volumes"));
        let mut swept = Ok(());
        // not in the run directory itself, where the agent may be writing its report
        for name in Self::entries(&active)?
            .iter()
            .filter(|name| name.starts_with(write::TEMPORARY))
        {
            swept = swept.and(write::remove(&active.join(name)).map_err(Error::from));
        }
        for key in Self::entries(&volumes)?
            .iter()
            .filter_map(|name| name.parse::<PodId>().ok())
        {
            let used = match read::file(&self.active(&key), MOST_BYTES) {
                Ok(bytes) => match serde_json::from_slice::<serde_json::Value>(&bytes) {
                    Ok(manifest) => manifest
                        .pointer("/metadata/uid")
                        .and_then(|uid| uid.as_str())
                        .map(str::to_owned),
                    // the manifest was overwritten, so it is unknown which files it needs
                    Err(_) => continue,
                },
                Err(error) if error.is_absent() => None,
                Err(_) => continue,
            };
            swept = swept.and(Self::sweep_volumes(&volumes, &key, used.as_deref()));
        }
        swept
    }

    /// Removes the unpacked files of a pod, except those of the twin with the UID `used`.
    fn sweep_volumes(volumes: &Path, key: &PodId, used: Option<&str>) -> Result<(), Error> {
        let directory = volumes.join(key.file_form());
        let mut swept = Ok(());
        for uid in Self::entries(&directory)? {
            if used != Some(&uid) {
                tracing::info!(pod = %key, uid, "removing unpacked files that no manifest names");
                swept = swept.and(write::remove_tree(&directory.join(uid)));
            }
        }
        swept?;
        if used.is_none() {
            write::remove_tree(&directory)?;
        }
        Ok(())
    }

    /// Removes everything of a pod from the run directory.
    pub fn remove(&self, key: &PodId) -> Result<(), Error> {
        write::remove(&self.active(key))?;
        Ok(write::remove_tree(
            &self.path.join("volumes").join(key.file_form()),
        )?)
    }

    /// Reads one of the YAML files; `None` if it does not exist.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let path = self.path.join(name);
        match read::file(&path, MOST_BYTES) {
            Ok(bytes) => serde_yaml::from_slice(&bytes)
                .map(Some)
                .map_err(|source| Error::Syntax(path, source)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes one of the YAML files.
    pub fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        let path = self.path.join(name);
        let text =
            serde_yaml::to_string(value).map_err(|source| Error::Syntax(path.clone(), source))?;
        Ok(write::file(&path, text.as_bytes(), 0o600)?)
    }

    fn entries(directory: &Path) -> Result<Vec<String>, Error> {
        let failed = |source| Error::Read(directory.to_owned(), source);
        match fs::read_dir(directory) {
            Err(error) if is_absent(&error) => Ok(Vec::new()),
            entries => entries
                .map_err(failed)?
                .map(|entry| {
                    entry
                        .map(|entry| entry.file_name().to_string_lossy().into_owned())
                        .map_err(failed)
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::id::id;

    /// A directory in memory, as every Linux has one.
    fn memory() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").unwrap()
    }

    #[test]
    fn a_run_directory_on_a_disk_is_refused() {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let run = RunDir::new(directory.path().join("run"), "/run/pod-checkpointer");
        assert!(matches!(run.open("boot-1"), Err(Error::NotMemory(_))));
    }

    #[test]
    fn a_run_directory_of_another_boot_is_emptied_and_one_of_this_boot_is_kept() {
        let directory = memory();
        let run = RunDir::new(directory.path().join("run"), "/run/pod-checkpointer");
        run.open("boot-1").unwrap();
        fs::write(run.active(&id("shop_till")), "{}").unwrap();
        fs::create_dir_all(run.path().join("volumes/shop_other/uid")).unwrap();
        run.open("boot-1").unwrap();
        assert_eq!(run.keys().unwrap(), [id("shop_other"), id("shop_till")]);
        run.open("boot-2").unwrap();
        assert!(run.keys().unwrap().is_empty());
    }
    #[test]
    fn a_name_that_cannot_be_removed_keeps_no_other_from_being_swept() {
        let directory = memory();
        let run = RunDir::new(directory.path().join("run"), "/run/pod-checkpointer");
        run.open("boot-1").unwrap();
        let stray = run
            .path()
            .join("active")
            .join(format!("{}x", write::TEMPORARY));
        fs::create_dir(&stray).unwrap();
        let unpacked = run.path().join("volumes/shop_till");
        fs::create_dir_all(unpacked.join("uid")).unwrap();
        let error = run.sweep().unwrap_err();
        assert!(
            matches!(&error, Error::Write(write::Error::Step { path, .. }) if *path == stray),
            "{error}"
        );
        assert!(!unpacked.exists());
    }
}
