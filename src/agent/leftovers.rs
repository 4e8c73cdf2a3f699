//! What bootkube's checkpointer left on the node, and what it looks like itself.
//!
//! Its three directories hold Secrets in clear. They are removed once they cannot be needed any
//! more: the API server reports that it does not run here, none of its copies exists or runs, each
//! pod of this node that it protected has a checkpoint, and all of that has been so for a while.
//! Its copies in the kubelet's directory are named and never touched: one may be all that serves.
//! `docs/migration.md` says what to do.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::files::write;
use crate::node::host::HostRoot;
use crate::pod::id::PodId;
use crate::text::chain;

/// Where it kept what it needed, in clear (its `pkg/checkpoint`); the first holds a manifest for
/// each pod.
const DIRECTORIES: [&str; 3] = [
    "/etc/kubernetes/inactive-manifests",
    "/etc/kubernetes/checkpoint-secrets",
    "/etc/kubernetes/checkpoint-configmaps",
];
/// Its annotation on the copy of a pod: the pod's name.
pub(crate) const COPY: &str = "checkpointer.alpha.coreos.com/checkpoint-of";
/// A longer file is not one of its manifests.
const LONGEST: u64 = 1 << 20;
/// How long the directories must not be needed before they are removed: longer than a DaemonSet
/// takes to replace a pod.
const QUIET: Duration = Duration::from_mins(10);

/// Is this bootkube's checkpointer itself? It is marked like the pods that it protects, and must
/// not come back while this program runs.
pub(crate) fn is_checkpointer(pod: &Value) -> bool {
    let list = |path: &str| {
        pod.pointer(path)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
    };
    let mut paths =
        list("/spec/volumes").filter_map(|volume| volume.pointer("/hostPath/path")?.as_str());
    let mut commands =
        list("/spec/containers").filter_map(|container| container.pointer("/command/0")?.as_str());
    paths.any(|path| path.trim_end_matches('/') == "/etc/kubernetes")
        && commands.any(|command| {
            Path::new(command)
                .file_name()
                .is_some_and(|name| name == "checkpoint")
        })
}

/// What was found. Host paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its directories that have something in them.
    directories: Vec<PathBuf>,
    /// Active copies in the kubelet's directory; `None`: not known.
    copies: Option<Vec<PathBuf>>,
    /// Pods that it protected; `None`: not all of its manifests can be read.
    protected: Option<BTreeSet<PodId>>,
}

/// What is known about the pods that could need it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Neighbours {
    /// The API server's report on the pods of this node is current.
    pub is_heard: bool,
    /// Bootkube's checkpointer on this node.
    pub checkpointer: Option<PodId>,
    /// Pods of this node without a checkpoint.
    pub unprotected: BTreeSet<PodId>,
    /// The runtime runs a copy; `None`: not known.
    pub copy_runs: Option<bool>,
}

/// Since when the directories are not needed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Idle(Option<Instant>);

/// Looks for it; `manifest_dir` is the host path of the kubelet's directory, if it is known.
/// `None`: there is nothing.
pub(crate) fn find(root: &HostRoot, manifest_dir: Option<&Path>) -> Option<Found> {
    let is_filled = |path: &Path| {
        let entries = root.resolve(path).and_then(std::fs::read_dir);
        entries.is_ok_and(|mut entries| entries.next().is_some())
    };
    let directories: Vec<PathBuf> = DIRECTORIES
        .iter()
        .map(PathBuf::from)
        .filter(|path| is_filled(path))
        .collect();
    let copies = manifest_dir.and_then(|directory| copies(root, directory));
    let found = Found {
        directories,
        copies,
        protected: protected(root),
    };
    (!found.directories.is_empty()
        || found
            .copies
            .as_ref()
            .is_some_and(|copies| !copies.is_empty()))
    .then_some(found)
}

impl Found {
    /// Why it stays; `None`: it is not needed.
    fn needed(&self, neighbours: &Neighbours) -> Option<String> {
        let Neighbours {
            is_heard,
            checkpointer,
            unprotected,
            copy_runs,
        } = neighbours;
        match &self.copies {
            Some(copies) if copies.is_empty() => {}
            Some(_) => {
                return Some(
                    "its copies in the kubelet's directory may be serving; remove them when they are not".into(),
                );
            }
            None => {
                return Some(
                    "the kubelet's directory, where its copies would be, cannot be read".into(),
                );
            }
        }
        match copy_runs {
            Some(false) => {}
            Some(true) => return Some("one of its copies runs".into()),
            None => {
                return Some("the runtime does not report whether one of its copies runs".into());
            }
        }
        if !is_heard {
            return Some("the API server does not report whether it still runs here".into());
        }
        if let Some(key) = checkpointer {
            return Some(format!("it still runs here as {key}; delete its DaemonSet"));
        }
        let Some(protected) = &self.protected else {
            return Some(
                "not all of its manifests can be read; remove the directories by hand".into(),
            );
        };
        let first = protected.intersection(unprotected).next()?;
        Some(format!("nothing else protects {first} yet"))
    }

    fn names(&self) -> String {
        let names: Vec<String> = self
            .directories
            .iter()
            .chain(self.copies.iter().flatten())
            .map(|path| path.display().to_string())
            .collect();
        names.join(", ")
    }
}

/// Removes what has not been needed for a while. Returns what is left, and why.
pub(crate) fn tidy(
    root: &HostRoot,
    found: &Found,
    neighbours: &Neighbours,
    idle: &mut Idle,
    now: Instant,
) -> Option<String> {
    let stays = |why: &str| {
        Some(format!(
            "bootkube's checkpointer left {}: {why}",
            found.names()
        ))
    };
    if let Some(why) = found.needed(neighbours) {
        idle.0 = None;
        return stays(&format!("{why}. None of it is used"));
    }
    let since = *idle.0.get_or_insert(now);
    if now.duration_since(since) < QUIET {
        return stays("no longer needed; removed once that has been so for ten minutes");
    }
    let mut failed = Vec::new();
    for directory in &found.directories {
        // a link in the place of the directory is not followed
        let parent = directory.parent().map(|parent| root.resolve(parent));
        let (Some(Ok(parent)), Some(name)) = (parent, directory.file_name()) else {
            continue;
        };
        match write::remove_tree(&parent.join(name)) {
            Ok(()) => {
                tracing::info!(directory = %directory.display(), "removed what bootkube's checkpointer left");
            }
            Err(error) => failed.push(chain(&error)),
        }
    }
    if failed.is_empty() {
        None
    } else {
        stays(&failed.join("; "))
    }
}

/// The pods of its manifests; `None`: not all of them are understood.
fn protected(root: &HostRoot) -> Option<BTreeSet<PodId>> {
    let entries = match root.resolve(DIRECTORIES[0]).and_then(std::fs::read_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(BTreeSet::new()),
        Err(_) => return None,
    };
    let mut keys = BTreeSet::new();
    for entry in entries {
        let path = entry.ok()?.path();
        std::fs::symlink_metadata(&path)
            .ok()
            .filter(|file| file.is_file() && file.len() <= LONGEST)?;
        let pod: Value = serde_yaml::from_slice(&std::fs::read(&path).ok()?).ok()?;
        let name = pod.pointer("/metadata/annotations")?.get(COPY)?.as_str()?;
        keys.insert(PodId::new(pod.pointer("/metadata/namespace")?.as_str()?, name).ok()?);
    }
    Some(keys)
}

/// Its active manifests; `None`: the directory, or a file in it, cannot be read.
fn copies(root: &HostRoot, directory: &Path) -> Option<Vec<PathBuf>> {
    let mut copies = Vec::new();
    for entry in root.resolve(directory).and_then(std::fs::read_dir).ok()? {
        let entry = entry.ok()?;
        let file = match std::fs::symlink_metadata(entry.path()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(_) => return None,
        };
        if file.is_file() && file.len() <= LONGEST {
            let bytes = std::fs::read(entry.path()).ok()?;
            if String::from_utf8_lossy(&bytes).contains(COPY) {
                copies.push(directory.join(entry.file_name()));
            }
        }
    }
    copies.sort_unstable();
    Some(copies)
}

#[cfg(test)]
#[path = "leftovers_tests.rs"]
mod tests;
