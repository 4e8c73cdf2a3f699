//! Where the program's files are on this node, and which of them are in the kubelet's manifest
//! directory.

#[cfg(test)]
mod crash_tests;
pub mod drill;
#[cfg(test)]
mod fault_tests;
pub mod node_record;
pub mod reports;
pub mod run;
pub mod store;
pub mod transfer;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use crate::args::HostArguments;
use crate::checkpoint::keys::KeyFiles;
use crate::files::lock;
use crate::files::write;
use crate::names::{LINK_PREFIX, SUPERVISOR, SUPERVISOR_LOCK};
use crate::node::host::HostRoot;
use crate::node::kubelet::{self, Kubelet};
use crate::places::run::RunDir;
use crate::places::store::{Store, check_key};
use crate::text::chain;

/// How long to wait for a kubelet that is asked for its manifest directory.
const KUBELET_LIMIT: Duration = Duration::from_secs(2);

/// The program's directories on a node, as real paths (which may lead through `/proc`) and as host
/// paths.
pub struct Places {
    root: HostRoot,
    /// The store of checkpoints.
    pub store: Store,
    /// The run directory, with everything that is currently active.
    pub run: RunDir,
    /// The kubelet's manifest directory, a real path.
    pub manifests: PathBuf,
    /// The same as a host path.
    pub manifests_host_path: PathBuf,
}

/// A symbolic link of the supervisor in the kubelet's manifest directory.
pub struct Link {
    /// `<namespace>_<pod>`.
    pub key: String,
    /// Path of the link.
    pub path: PathBuf,
    /// What it points to.
    pub target: PathBuf,
}

/// Everything in the kubelet's manifest directory that has a name of this program.
#[derive(Default)]
pub struct Manifests {
    /// Links to manifests in the run directory.
    pub links: Vec<Link>,
    /// Whether the supervisor's manifest exists.
    pub supervisor: bool,
    /// Files with such a name that this program did not create; they are never touched.
    pub foreign: Vec<PathBuf>,
    /// Temporary files, left by a crash between creating a file and renaming it.
    pub leftovers: Vec<PathBuf>,
}

impl Places {
    /// Finds the directories without reading any of them.
    pub fn find(arguments: &HostArguments) -> anyhow::Result<Self> {
        let root = arguments.host_root.clone().map_or_else(HostRoot::detect, |root| Ok(HostRoot::new(root)));
        let root = root.context("cannot find the host's root directory; see --host-root")?;
        let manifests_host_path = arguments
            .manifest_dir
            .clone()
            .or_else(|| ask_kubelet(&root, &arguments.kubelet_dir))
            .unwrap_or_else(|| PathBuf::from(kubelet::MANIFEST_DIR));
        let keys = KeyFiles::new(root.clone(), arguments.key_files.clone());
        let node = Self::at(root, &arguments.state_dir, &arguments.run_dir, &manifests_host_path)?;
        Ok(Self { store: node.store.with_keys(keys), ..node })
    }

    /// With these directories, which are host paths.
    pub fn at(root: HostRoot, state_dir: &Path, run_dir: &Path, manifest_dir: &Path) -> anyhow::Result<Self> {
        let resolve =
            |path: &Path| root.resolve(path).with_context(|| format!("cannot find {} on the host", path.display()));
        Ok(Self {
            store: Store::new(resolve(state_dir)?),
            run: RunDir::new(resolve(run_dir)?, run_dir),
            manifests: resolve(manifest_dir)?,
            manifests_host_path: manifest_dir.to_owned(),
            root,
        })
    }

    /// Pods with a link to an existing manifest, as `<namespace>/<pod>`: their twins run or are
    /// about to.
    pub fn in_force(&self, manifests: &Manifests) -> Vec<String> {
        let linked = manifests.links.iter().filter(|link| self.run.active(&link.key).is_file());
        linked.map(|link| link.key.replace('_', "/")).collect()
    }

    /// The host's root directory.
    pub fn root(&self) -> &HostRoot {
        &self.root
    }

    /// Why keys cannot be used, for people. Commands that only read go on with the other keys.
    pub fn key_problems(&self) -> Vec<String> {
        self.store.keys_given().load().errors().map(|error| chain(error)).collect()
    }

    /// The host path of a real path, for people: in a container the real one may lead through
    /// `/proc`.
    pub fn shown(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(self.root.path()) {
            Ok(below) => Path::new("/").join(below),
            Err(_) => path.to_owned(),
        }
    }

    /// Finds everything in the kubelet's manifest directory that has a name of this program;
    /// nothing, if the directory does not exist.
    pub fn manifests(&self) -> anyhow::Result<Manifests> {
        let mut found = Manifests::default();
        let failed = || format!("cannot read {}", self.manifests.display());
        let entries = match fs::read_dir(&self.manifests) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            entries => entries.with_context(failed)?,
        };
        for entry in entries {
            let entry = entry.with_context(failed)?;
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let is_link = entry.file_type().with_context(failed)?.is_symlink();
            if name == format!("{SUPERVISOR}.yaml") {
                let ours = !is_link && fs::read(&path).is_ok_and(|text| crate::agent::install::is_ours(&text));
                if ours {
                    found.supervisor = true;
                } else {
                    found.foreign.push(path);
                }
            } else if name.starts_with(crate::files::write::TEMPORARY) {
                found.leftovers.push(path);
            } else if let Some(key) = name.strip_prefix(LINK_PREFIX) {
                let key = key.strip_suffix(".yaml").filter(|key| check_key(key).is_ok());
                let target = fs::read_link(&path).ok();
                match (key, target) {
                    (Some(key), Some(target)) if target == self.run.link_target(key) => {
                        found.links.push(Link { key: key.to_owned(), path, target });
                    }
                    _ => found.foreign.push(path),
                }
            }
        }
        found.links.sort_by(|one, other| one.key.cmp(&other.key));
        found.foreign.sort();
        Ok(found)
    }

    /// Whether a process holds this lock; no, if the file does not exist.
    pub fn is_locked(path: &Path) -> anyhow::Result<bool> {
        lock::is_locked(path).with_context(|| format!("cannot open {}", path.display()))
    }

    /// Path of the agent's lock.
    pub fn agent_lock(&self) -> PathBuf {
        self.store.directory().join("agent.lock")
    }

    /// Path of the supervisor's lock.
    pub fn supervisor_lock(&self) -> PathBuf {
        self.run.path().join(SUPERVISOR_LOCK)
    }
}

/// Removes the program's files from a state directory and a run directory. Other files stay and are
/// named in the log.
pub fn clear(store: &Path, run: &Path) -> Result<(), write::Error> {
    for (directory, names) in [(store, store::NAMES), (run, run::NAMES)] {
        for path in write::remove_named(directory, names)? {
            tracing::warn!(path = %path.display(), "not removed: it does not belong to pod-checkpointer");
        }
    }
    Ok(())
}

/// The static pod directory of the running kubelet, if there is one.
fn ask_kubelet(root: &HostRoot, kubelet_dir: &Path) -> Option<PathBuf> {
    let socket = root.resolve(kubelet_dir.join("pod-resources/kubelet.sock")).ok()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let owned = runtime.block_on(Kubelet::new(socket, KUBELET_LIMIT).owned()).ok()?;
    kubelet::settings(root, owned.pid).ok()?.static_pod_path
}
