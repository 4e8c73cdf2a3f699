//! `PodCheckpoint`: whether a pod would come back on its node, and if not, why. Each marked pod has
//! one and owns it; only the agent of the pod's node writes it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::places::reports::Phase;

/// The pod and its node. Only the agent of that node writes it; deleting a PodCheckpoint changes
/// nothing on the node.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "podcheckpointer.io",
    version = "v1alpha1",
    kind = "PodCheckpoint",
    plural = "podcheckpoints",
    singular = "podcheckpoint",
    shortname = "pckpt",
    category = "pod-checkpointer",
    namespaced,
    status = "PodCheckpointStatus",
    derive = "PartialEq",
    doc = "The checkpoint that a marked pod's node keeps, and whether the pod could be brought back there without the API server.",
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".spec.nodeName","description":"Node that keeps the checkpoint"}"#,
    printcolumn = r#"{"name":"Recoverable","type":"string","jsonPath":".status.conditions[?(@.type==\"Recoverable\")].status","description":"Whether the pod would come back"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase","description":"Whether the pod's twin runs on the node"}"#,
    printcolumn = r#"{"name":"Captured","type":"date","jsonPath":".status.capturedAt","description":"Age of the newest generation"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Recoverable\")].reason","description":"Why the pod would come back or not"}"#,
    printcolumn = r#"{"name":"Marked by","type":"string","jsonPath":".status.markedBy","priority":1,"description":"What marks the pod"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct PodCheckpointSpec {
    /// Name of the node that the pod runs on and that keeps its checkpoint.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("nodeName is immutable: delete the PodCheckpoint, and the agent of the pod's node creates a new one"))]
    pub node_name: String,
    /// UID of the pod. A later pod of the same name has a checkpoint of its own.
    #[serde(rename = "podUID")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("podUID is immutable: delete the PodCheckpoint, and the agent creates a new one"))]
    pub pod_uid: String,
}

/// What the node's agent and supervisor last reported.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCheckpointStatus {
    /// State of the checkpoint on the node. Inactive: its twin does not run. Active: its twin was
    /// started in the pod's place. Released: the twin serves on until the pod has taken over.
    /// Blocked: it should be active but cannot be. Absent until a supervisor has reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Captured: the node's checkpoint matches the running pod. Recoverable: the pod would come
    /// back; False names the first reason why not, Unknown means that the pod was never captured.
    /// Active: the twin runs in the pod's place. NodeFit: nothing about the node itself would keep
    /// its pods from coming back; False names the worst risk.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Number of the newest generation on the node; it grows with every capture that found a
    /// change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub generation: Option<i64>,
    /// Digest of that generation: `sha256:` and 64 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Size of that generation's file in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub size_bytes: Option<i64>,
    /// When that generation was captured (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub captured_at: Option<String>,
    /// What marks the pod: its annotation, a pod selector that matches its labels, or a namespace
    /// selector that matches the labels of its namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marked_by: Option<String>,
    /// Limitations of a recoverable pod that its owner should know. For example,
    /// `ServiceAccountToken`: the captured token expires as usual.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The last outage in which the node's supervisor acted for this pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_outage: Option<LastOutage>,
}

/// What was done for a pod in one outage. Times are RFC 3339, counted from the node's wall clock at
/// the start of the outage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastOutage {
    /// When contact with the API server was lost, or the node booted without it.
    #[schemars(extend("format" = "date-time"))]
    pub from: String,
    /// When the API server answered again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub to: Option<String>,
    /// When the twin was handed to the kubelet.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub activated: Option<String>,
    /// When all containers of the twin ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub serving: Option<String>,
    /// How often the twin was handed to the kubelet again, because contact was lost again before
    /// the pod had taken over. Each time the supervisor waits twice as long, up to 5 minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub taken_back: Option<i32>,
    /// When the twin's manifest was taken from the kubelet. The twin serves on until the pod has
    /// taken over.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub released: Option<String>,
    /// When the pod itself ran again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub taken_over: Option<String>,
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt as _;
    use kube_cel::Validator;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn node_and_pod_of_a_checkpoint_are_immutable() {
        let definition = serde_json::to_value(PodCheckpoint::crd()).unwrap();
        let schema = definition.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap();
        let object =
            |node: &str, uid: &str| json!({"metadata": {"name": "till"}, "spec": {"nodeName": node, "podUID": uid}});
        let judge = |new: &Value, old: Option<&Value>| match Validator::new().validate(schema, new, old) {
            Ok(()) => String::new(),
            Err(errors) => errors.into_iter().map(|error| error.message + "\n").collect(),
        };
        let before = object("node-1", "u1");
        assert_eq!(judge(&before, None), "");
        assert_eq!(judge(&before, Some(&before)), "");
        assert!(judge(&object("node-2", "u1"), Some(&before)).contains("nodeName is immutable"));
        assert!(judge(&object("node-1", "u2"), Some(&before)).contains("podUID is immutable"));
    }
}
