//! Where the program's files are on a node, and the files through which its parts exchange reports.

pub mod ages;
#[cfg(test)]
mod crash_tests;
pub mod drill;
#[cfg(test)]
mod fault_tests;
pub mod manifests;
pub mod node_record;
pub mod reports;
pub mod run;
pub mod store;
pub mod transfer;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::args::HostArguments;
use crate::checkpoint::keys::KeyFiles;
use crate::files::lock;
use crate::files::write;
use crate::names::SUPERVISOR_LOCK;
use crate::node::host::HostRoot;
use crate::node::kubelet;
use crate::places::manifests::{ManifestDir, Manifests};
use crate::places::run::RunDir;
use crate::places::store::Store;
use crate::text::chain;

/// How long to wait for a kubelet that is asked for its manifest directory.
const KUBELET_LIMIT: Duration = Duration::from_secs(2);

/// Why the node's directories cannot be found, or a lock cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host's root directory cannot be found.
    #[error("cannot find the host's root directory; see --host-root")]
    Host(#[source] io::Error),
    /// A host path cannot be resolved.
    #[error("cannot find {} on the host", .0.display())]
    Path(PathBuf, #[source] io::Error),
    /// The file of a lock cannot be opened.
    #[error("cannot open lock file {}", .0.display())]
    Lock(PathBuf, #[source] io::Error),
}

/// The program's directories on a node, as real paths (which may lead through `/proc`) and as host
/// paths.
pub struct Places {
    root: HostRoot,
    /// The store of checkpoints.
    pub store: Store,
    /// The run directory, with everything that is currently active.
    pub run: RunDir,
    /// The kubelet's manifest directory.
    pub manifests: ManifestDir,
    /// The same as a host path.
    pub manifests_host_path: PathBuf,
    /// Why the running kubelet starts no static pods, if it does not.
    pub no_static_pods: Option<manifests::Error>,
}

impl Places {
    /// Finds the directories without reading any of them. Asks the kubelet for its manifest
    /// directory if none is given, so it must not be called from asynchronous code.
    pub fn find(arguments: &HostArguments) -> Result<Self, Error> {
        let root = arguments.root().map_err(Error::Host)?;
        let given = arguments.manifest_dir.as_deref();
        let settings = if given.is_none() {
            ask_kubelet(&root, &arguments.kubelet_dir)
        } else {
            None
        };
        let (manifest_dir, no_static_pods) = match manifests::find(given, settings.as_ref()) {
            Ok(path) => (path, None),
            Err(error) => (PathBuf::from(kubelet::MANIFEST_DIR), Some(error)),
        };
        let keys = KeyFiles::new(root.clone(), arguments.key_files.clone());
        let node = Self::at(
            root,
            &arguments.state_dir,
            &arguments.run_dir,
            &manifest_dir,
        )?;
        Ok(Self {
            store: node.store.with_keys(keys),
            no_static_pods,
            ..node
        })
    }

    /// With these directories, which are host paths.
    pub fn at(
        root: HostRoot,
        state_dir: &Path,
        run_dir: &Path,
        manifest_dir: &Path,
    ) -> Result<Self, Error> {
        let resolve = |path: &Path| {
            root.resolve(path)
                .map_err(|error| Error::Path(path.to_owned(), error))
        };
        let run = RunDir::new(resolve(run_dir)?, run_dir);
        Ok(Self {
            store: Store::new(resolve(state_dir)?),
            manifests: ManifestDir::new(resolve(manifest_dir)?, run.clone()),
            run,
            manifests_host_path: manifest_dir.to_owned(),
            no_static_pods: None,
            root,
        })
    }

    /// Pods with a link to an existing manifest, as `<namespace>/<pod>`: their twins run or are
    /// about to.
    pub fn in_force(&self, manifests: &Manifests) -> Vec<String> {
        let linked = manifests
            .links
            .iter()
            .filter(|link| self.run.active(&link.key).is_file());
        linked.map(|link| link.key.to_string()).collect()
    }

    /// The host's root directory.
    pub fn root(&self) -> &HostRoot {
        &self.root
    }

    /// Why keys cannot be used, for people. Commands that only read go on with the other keys.
    pub fn key_problems(&self) -> Vec<String> {
        self.store
            .keys_given()
            .load()
            .errors()
            .map(|error| chain(error))
            .collect()
    }

    /// The host path of a real path, for people: in a container the real one may lead through
    /// `/proc`.
    pub fn shown(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(self.root.path()) {
            Ok(below) => Path::new("/").join(below),
            Err(_) => path.to_owned(),
        }
    }

    /// What is in the kubelet's manifest directory; nothing if there is no such directory.
    pub fn manifests(&self) -> Result<Manifests, manifests::Error> {
        match self.manifests.read() {
            Err(manifests::Error::NoDirectory(_)) => Ok(Manifests::default()),
            found => found,
        }
    }

    /// Whether a process holds this lock; no, if the file does not exist.
    pub fn is_locked(path: &Path) -> Result<bool, Error> {
        lock::is_locked(path).map_err(|error| Error::Lock(path.to_owned(), error))
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

/// How the kubelet that runs was started, if one does and that can be learned.
fn ask_kubelet(root: &HostRoot, kubelet_dir: &Path) -> Option<kubelet::Settings> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    let found = runtime.block_on(kubelet::find(root, kubelet_dir, KUBELET_LIMIT));
    found.ok().map(|(_, settings)| settings)
}
