//! Where things are on this node, and what stands in the kubelet's manifest directory.

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

/// How long a kubelet may take that is asked for its manifest directory.
const KUBELET_LIMIT: Duration = Duration::from_secs(2);

/// The node's directories, as real paths and as the host calls them.
pub struct Places {
    root: HostRoot,
    /// Checkpoints.
    pub store: Store,
    /// What is in force.
    pub run: RunDir,
    /// The kubelet's manifest directory.
    pub manifests: PathBuf,
    /// As the host calls it.
    pub manifests_host_path: PathBuf,
}

/// A symbolic link of ours in the kubelet's directory.
pub struct Link {
    /// `<namespace>_<pod>`.
    pub key: String,
    /// The link.
    pub path: PathBuf,
    /// What it points to.
    pub target: PathBuf,
}

/// What has a name of ours in the kubelet's directory.
#[derive(Default)]
pub struct Manifests {
    /// Links to what is in force.
    pub links: Vec<Link>,
    /// The supervisor's manifest is there.
    pub supervisor: bool,
    /// Named like ours, but not ours: never touched.
    pub foreign: Vec<PathBuf>,
    /// Left by a crash between making a file and renaming it.
    pub leftovers: Vec<PathBuf>,
}

impl Places {
    /// Finds the directories; looks into none of them.
    pub fn find(arguments: &HostArguments) -> anyhow::Result<Self> {
        let root = arguments.root().context("cannot reach the host's files")?;
        let manifests_host_path = arguments
            .manifest_dir
            .clone()
            .or_else(|| ask_kubelet(&root, &arguments.kubelet_dir))
            .unwrap_or_else(|| PathBuf::from(kubelet::MANIFEST_DIR));
        let keys = KeyFiles::new(root.clone(), arguments.key_files.clone());
        let node = Self::at(root, &arguments.state_dir, &arguments.run_dir, &manifests_host_path)?;
        Ok(Self { store: node.store.with_keys(keys), ..node })
    }

    /// With these directories, host paths.
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

    /// Pods with a link to a manifest in force: twins that run or are about to.
    pub fn in_force(&self, manifests: &Manifests) -> Vec<String> {
        let linked = manifests.links.iter().filter(|link| self.run.active(&link.key).is_file());
        linked.map(|link| link.key.replace('_', "/")).collect()
    }

    /// The host's files.
    pub fn root(&self) -> &HostRoot {
        &self.root
    }

    /// What keeps keys from being used, for people. Who only looks goes on with those that can be.
    pub fn key_problems(&self) -> Vec<String> {
        self.store.keys_given().load().errors().map(|error| chain(error)).collect()
    }

    /// A path as the host calls it, for people: from a container the real one goes through a process.
    pub fn shown(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(self.root.path()) {
            Ok(below) => Path::new("/").join(below),
            Err(_) => path.to_owned(),
        }
    }

    /// Looks at what has a name of ours in the kubelet's directory; nothing if there is no such directory.
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

    /// Does somebody hold this lock? No file means no.
    pub fn is_locked(path: &Path) -> anyhow::Result<bool> {
        lock::is_locked(path).with_context(|| format!("cannot open {}", path.display()))
    }

    /// The agent's lock.
    pub fn agent_lock(&self) -> PathBuf {
        self.store.directory().join("agent.lock")
    }

    /// The supervisor's lock.
    pub fn supervisor_lock(&self) -> PathBuf {
        self.run.path().join(SUPERVISOR_LOCK)
    }
}

/// Removes what is ours of a store's directory and a run directory; what is not is named in the log, and left.
pub fn clear(store: &Path, run: &Path) -> Result<(), write::Error> {
    for (directory, names) in [(store, store::NAMES), (run, run::NAMES)] {
        for path in write::remove_named(directory, names)? {
            tracing::warn!(path = %path.display(), "left: it is not ours");
        }
    }
    Ok(())
}

/// The static pod directory of the kubelet that runs, if one does.
fn ask_kubelet(root: &HostRoot, kubelet_dir: &Path) -> Option<PathBuf> {
    let socket = root.resolve(kubelet_dir.join("pod-resources/kubelet.sock")).ok()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let owned = runtime.block_on(Kubelet::new(socket, KUBELET_LIMIT).owned()).ok()?;
    kubelet::settings(root, owned.pid).ok()?.static_pod_path
}
