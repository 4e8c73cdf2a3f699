//! Parent pod to checkpoint.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::checkpoint::NodeCheckpoint;
use crate::names::{CHECKPOINT, CHECKPOINT_LEGACY, Refusal};
use crate::node::host::HostRoot;
use crate::node::kubelet::Settings;
use crate::node::runtime::Runtime;

/// One reason why a pod is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The machine-readable reason.
    pub refusal: Refusal,
    /// What of the pod it is about.
    pub detail: String,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.refusal, self.detail)
    }
}

/// Did somebody mark this pod?
pub fn is_marked(pod: &Value) -> bool {
    let annotations = pod.pointer("/metadata/annotations");
    [CHECKPOINT, CHECKPOINT_LEGACY]
        .iter()
        .any(|name| annotations.and_then(|all| all.get(name)).and_then(Value::as_str) == Some("true"))
}

/// Is its condition Ready true?
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| {
        condition.get("type").and_then(Value::as_str) == Some("Ready")
            && condition.get("status").and_then(Value::as_str) == Some("True")
    })
}

/// What a capture reads from.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The host's files.
    pub root: &'a HostRoot,
    /// The kubelet's directory, a host path.
    pub kubelet_dir: &'a Path,
    /// The run directory, a host path.
    pub run_dir: &'a Path,
    /// Name of this node.
    pub node_name: &'a str,
    /// The container runtime.
    pub runtime: &'a Runtime,
    /// How the kubelet was started.
    pub settings: &'a Settings,
}

/// Why there is no checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not come back correctly.
    #[error("refused")]
    Refused(Vec<Reason>),
}

impl Error {
    /// Is it worth trying again although the pod did not change?
    pub fn is_passing(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

/// Captures a pod.
#[allow(clippy::unused_async)]
pub async fn capture(_pod: &Value, _sources: &Sources<'_>) -> Result<NodeCheckpoint, Error> {
    todo!("branch capture")
}

/// The directories of a pod's captured volumes, by volume name, as host paths.
pub fn volume_dirs(_pod: &Value, _kubelet_dir: &Path) -> Vec<(String, PathBuf)> {
    todo!("branch capture")
}
