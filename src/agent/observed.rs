//! What the index needs of a pod that the watch reported: pure.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use kube::api::DynamicObject;
use serde_json::{Map, Value, json};

use crate::agent::leftovers;
use crate::agent::network::{Needs, Support};
use crate::names::CONFIG_MIRROR;
use crate::pod::id::PodId;
use crate::pod::mark;
use crate::pod::room::Demand;

/// What marks a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Marked {
    /// This, in words.
    By(String),
    /// Nothing does.
    No,
    /// Not known yet: the pod is not captured, and its checkpoint is not removed.
    Unknown,
}

/// A pod as the watch reported it.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)] // what a pod is, each by itself
pub(crate) struct Observed {
    /// The pod.
    pub key: PodId,
    /// Its UID.
    pub uid: String,
    /// What marks it.
    pub marked: Marked,
    /// Its condition Ready is true.
    pub ready: bool,
    /// It is being deleted, and not captured any more.
    pub ending: bool,
    /// The kubelet rejected it for good, and no controller replaces it.
    pub rejected: bool,
    /// What it takes of the node; `None`: nothing, or it is counted elsewhere.
    pub demand: Option<Demand>,
    /// What it does for the other pods of the node, and its owner's name.
    pub support: Option<(Support, String)>,
    /// What it needs of other pods.
    pub needs: Needs,
    /// It is bootkube's checkpointer.
    pub is_bootkubes: bool,
    /// Ids of its running containers, as the runtime knows them.
    pub containers: Vec<String>,
    /// Hash of everything that a checkpoint depends on: when it changes, the pod must be captured
    /// again.
    pub fingerprint: u64,
    /// The trimmed pod as JSON: a tenth of the memory of the parsed object.
    pub object: Arc<[u8]>,
}

impl Observed {
    /// From a trimmed pod, see [`trim`]. `bytes`: what is kept of it.
    pub(crate) fn new(
        key: PodId,
        uid: String,
        object: &Value,
        marked: Marked,
        bytes: Arc<[u8]>,
    ) -> Self {
        Self {
            key,
            uid,
            ready: mark::is_ready(object),
            ending: object.pointer("/metadata/deletionTimestamp").is_some(),
            rejected: is_rejected(object),
            demand: demand(object),
            support: Support::named(object),
            needs: Needs::of(object),
            is_bootkubes: leftovers::is_checkpointer(object),
            containers: if marked == Marked::No {
                Vec::new()
            } else {
                containers(object)
            },
            fingerprint: fingerprint(object),
            marked,
            object: bytes,
        }
    }
}

/// Namespace and name, and UID; `None`: one of them is missing or invalid.
pub(crate) fn identity(pod: &DynamicObject) -> Option<(PodId, String)> {
    let metadata = &pod.metadata;
    let key = PodId::new(metadata.namespace.as_deref()?, metadata.name.as_deref()?).ok()?;
    Some((key, metadata.uid.clone().filter(|uid| !uid.is_empty())?))
}

/// What the kubelet counts for it; `None`: it has ended, or it is the mirror of a static pod, which
/// is counted from its manifest.
fn demand(pod: &Value) -> Option<Demand> {
    let is_mirror = pod
        .pointer("/metadata/annotations")
        .is_some_and(|all| all.get(CONFIG_MIRROR).is_some());
    let phase = pod.pointer("/status/phase").and_then(Value::as_str);
    let counts = !is_mirror && !matches!(phase, Some("Failed" | "Succeeded"));
    pod.get("spec").filter(|_| counts).map(Demand::of)
}

/// Start of the status message of a pod that the kubelet rejected for good (pkg/kubelet/kubelet.go,
/// `rejectPod`).
const REJECTED: &str = "Pod was rejected";

/// The kubelet rejected it for good, and no controller replaces it.
fn is_rejected(pod: &Value) -> bool {
    let text = |path: &str| {
        pod.pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let owners = pod
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let is_alone = !owners
        .into_iter()
        .any(|owner| owner.get("controller") == Some(&Value::Bool(true)));
    is_alone && text("/status/phase") == "Failed" && text("/status/message") == REJECTED
}

/// The pod without fields that no capture reads, which would take memory for every pod.
pub(crate) fn trim(mut pod: DynamicObject) -> Value {
    pod.metadata.managed_fields = None;
    let mut data = pod.data;
    let status = data
        .get_mut("status")
        .and_then(Value::as_object_mut)
        .map(std::mem::take)
        .unwrap_or_default();
    let kept: Map<String, Value> = status
        .into_iter()
        .filter_map(|(name, value)| match name.as_str() {
            "conditions" => Some((name, conditions(value))),
            "message"
                if value
                    .as_str()
                    .is_some_and(|text| text.starts_with(REJECTED)) =>
            {
                Some((name, Value::from(REJECTED)))
            }
            "phase"
            | "hostIP"
            | "hostIPs"
            | "podIP"
            | "podIPs"
            | "qosClass"
            | "containerStatuses"
            | "initContainerStatuses" => Some((name, value)),
            _ => None,
        })
        .collect();
    let mut object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": pod.metadata});
    if let (Some(object), Value::Object(data)) = (object.as_object_mut(), data) {
        object.extend(data);
        object.insert("status".into(), Value::Object(kept));
    }
    object
}

/// Type and status only: times and messages change without meaning here.
fn conditions(conditions: Value) -> Value {
    let Value::Array(conditions) = conditions else {
        return Value::Null;
    };
    conditions
        .into_iter()
        .map(|condition| json!({"type": condition.get("type"), "status": condition.get("status")}))
        .collect()
}

/// Ids of the running containers, without the runtime's name before them.
fn containers(pod: &Value) -> Vec<String> {
    let statuses = pod
        .pointer("/status/containerStatuses")
        .and_then(Value::as_array);
    let running = statuses
        .into_iter()
        .flatten()
        .filter(|status| status.pointer("/state/running").is_some());
    let id = |status: &Value| {
        let id = status.get("containerID")?.as_str()?;
        Some(id.split_once("://").map_or(id, |(_, id)| id).to_owned())
    };
    running.filter_map(id).collect()
}

/// Hash of everything that the watch reports and a checkpoint is made from; heartbeats of the
/// status are left out.
fn fingerprint(pod: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    for part in [
        "/spec",
        "/metadata/labels",
        "/metadata/annotations",
        "/metadata/ownerReferences",
    ] {
        pod.pointer(part).map(Value::to_string).hash(&mut hasher);
    }
    for part in ["/status/initContainerStatuses", "/status/containerStatuses"] {
        for container in pod
            .pointer(part)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            for field in ["name", "containerID", "restartCount"] {
                container.get(field).map(Value::to_string).hash(&mut hasher);
            }
        }
    }
    hasher.finish()
}

#[cfg(test)]
#[path = "observed_tests.rs"]
mod tests;
