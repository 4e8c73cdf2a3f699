//! `PodCheckpoint`: whether a pod will come back on its node, and if not, why. There is one for
//! each marked pod, owned by the pod and written only by the agent of its node.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::checkpoint::encoding::sha256;
use crate::names::NODE_LABEL;
use crate::places::reports::Phase;

/// Which pod on which node. Only the agent of that node writes it; deleting a PodCheckpoint changes
/// nothing on the node.
#[derive(
    CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
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
    doc = "Reports the checkpoint of a marked pod on its node, and whether the pod would come back there without the API server.",
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".spec.nodeName","description":"Node that keeps the checkpoint"}"#,
    printcolumn = r#"{"name":"Recoverable","type":"string","jsonPath":".status.conditions[?(@.type==\"Recoverable\")].status","description":"Would the pod come back?"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase","description":"Whether the pod's twin runs on the node"}"#,
    printcolumn = r#"{"name":"Captured","type":"date","jsonPath":".status.capturedAt","description":"Age of the newest generation"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Recoverable\")].reason","description":"Why it would come back, or why not"}"#,
    printcolumn = r#"{"name":"Marked by","type":"string","jsonPath":".status.markedBy","priority":1,"description":"What marks the pod"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct PodCheckpointSpec {
    /// Name of the node that the pod runs on and that keeps its checkpoint.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("the node of a PodCheckpoint cannot change: delete it, and the agent of the node that runs the pod writes another"))]
    pub node_name: String,
    /// UID of the pod. A later pod of the same name has a checkpoint of its own.
    #[serde(rename = "podUID")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("the pod of a PodCheckpoint cannot change: delete it, and the agent writes another"))]
    pub pod_uid: String,
}

/// What the node's agent and supervisor last reported.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCheckpointStatus {
    /// What runs from the checkpoint on the node: Inactive (nothing), Active (a twin runs in the
    /// pod's place), Released (the twin continues to serve until the pod has taken over), Blocked
    /// (a twin should run and cannot). Absent until the supervisor has reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Captured: the store of the node holds the pod as it runs. Recoverable: the pod would come
    /// back; False gives the first reason why not, which is NoSupervisor if no supervisor works on
    /// the node; Unknown means that it was never captured.
    /// Active: a twin runs in the pod's place. NodeFit: nothing about the node itself would keep
    /// its pods from coming back; False gives the worst reason that would.
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
    /// What marks the pod: its annotation, a selector that matches its labels, or a selector that
    /// matches the labels of its namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marked_by: Option<String>,
    /// What the pod's owner should know although the pod is recoverable, for example
    /// `ServiceAccountToken`: the captured token expires like any other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The last outage in which the node's supervisor acted for this pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_outage: Option<LastOutage>,
}

/// What was done for a pod in one outage. Times are RFC 3339, based on the wall clock of the node
/// at the start of the outage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastOutage {
    /// When contact with the API server was lost, or when the node booted without it.
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
    /// How often the twin was given to the kubelet again because contact was lost again before the
    /// pod had taken over. Each time the supervisor waits twice as long, up to 5 minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub taken_back: Option<i32>,
    /// When the twin was taken from the kubelet. It continued to serve until the pod had taken
    /// over.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub released: Option<String>,
    /// When the pod itself ran again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub taken_over: Option<String>,
}

/// Longest value of a label (apimachinery, pkg/util/validation).
const LABEL_LIMIT: usize = 63;

/// The label selector of the PodCheckpoints of this node.
pub(crate) fn node_selector(node: &str) -> String {
    format!("{NODE_LABEL}={}", label(node))
}

/// The name of a node as the value of a label. A name that is too long is cut, and a digest keeps
/// it distinct from similar ones.
pub(crate) fn label(node: &str) -> String {
    if node.len() <= LABEL_LIMIT {
        return node.to_owned();
    }
    let digest = sha256(node.as_bytes());
    let head: String = node.chars().take(50).collect();
    let tail: String = digest.chars().skip("sha256:".len()).take(12).collect();
    format!("{head}-{tail}")
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt as _;
    use kube_cel::Validator;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn node_and_pod_of_one_cannot_change() {
        let definition = serde_json::to_value(PodCheckpoint::crd()).unwrap();
        let schema = definition
            .pointer("/spec/versions/0/schema/openAPIV3Schema")
            .unwrap();
        let object = |node: &str, uid: &str| json!({"metadata": {"name": "till"}, "spec": {"nodeName": node, "podUID": uid}});
        let judge =
            |new: &Value, old: Option<&Value>| match Validator::new().validate(schema, new, old) {
                Ok(()) => String::new(),
                Err(errors) => errors
                    .into_iter()
                    .map(|error| error.message + "\n")
                    .collect(),
            };
        let before = object("node-1", "u1");
        assert_eq!(judge(&before, None), "");
        assert_eq!(judge(&before, Some(&before)), "");
        assert!(
            judge(&object("node-2", "u1"), Some(&before))
                .contains("the node of a PodCheckpoint cannot change")
        );
        assert!(
            judge(&object("node-1", "u2"), Some(&before))
                .contains("the pod of a PodCheckpoint cannot change")
        );
    }

    #[test]
    fn a_nodes_long_name_fits_a_label_and_stays_its_own() {
        let (one, two) = ("n".repeat(100), format!("{}m", "n".repeat(99)));
        assert_eq!(label("node-1"), "node-1");
        assert_eq!(label(&one).len(), 63);
        assert_ne!(label(&one), label(&two));
    }
}
