//! `PodCheckpoint`: will this pod come back on its node, and if not, why. One per marked pod, owned by it, written by the
//! agent of its node alone.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::places::reports::Phase;

/// Which pod of which node. Written by the agent of that node alone; deleting a PodCheckpoint changes nothing on the node.
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
    doc = "What the node of a marked pod keeps of it, and whether the pod could be brought back there without the API server.",
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".spec.nodeName","description":"Node that keeps the checkpoint"}"#,
    printcolumn = r#"{"name":"Recoverable","type":"string","jsonPath":".status.conditions[?(@.type==\"Recoverable\")].status","description":"Would the pod come back?"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase","description":"What of the checkpoint runs on the node"}"#,
    printcolumn = r#"{"name":"Captured","type":"date","jsonPath":".status.capturedAt","description":"Age of the newest generation"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Recoverable\")].reason","description":"Why it is recoverable or not"}"#,
    printcolumn = r#"{"name":"Marked by","type":"string","jsonPath":".status.markedBy","priority":1,"description":"What marks the pod"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct PodCheckpointSpec {
    /// Name of the node that the pod runs on and that keeps its checkpoint.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("a PodCheckpoint is of one node for good: delete it, and the agent of the node that has the pod writes another"))]
    pub node_name: String,
    /// UID of the pod: a later pod of the same name has another checkpoint.
    #[serde(rename = "podUID")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("a PodCheckpoint is of one pod for good: delete it, and the agent writes another"))]
    pub pod_uid: String,
}

/// What the node's agent and supervisor last reported.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCheckpointStatus {
    /// What of the checkpoint runs on the node: Inactive (nothing), Active (its twin was started in the pod's place),
    /// Released (the twin serves on until the pod has taken over), Blocked (it should be active and cannot be). Absent
    /// while no supervisor has reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Captured: the store of the node holds the pod as it runs. Recoverable: it would come back; False names the first
    /// reason why not, Unknown means that it was never captured. Active: its twin runs in its place. NodeFit: nothing of the
    /// node itself would keep its pods from coming back; False names the worst that would.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Number of the newest generation in the store of the node; it grows with every capture that found something new.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub generation: Option<i64>,
    /// Digest of that generation, `sha256:` and 64 hexadecimal digits.
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
    /// What marks the pod: its annotation, a selector of pods that matches its labels, or one of namespaces that matches its
    /// namespace's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marked_by: Option<String>,
    /// What its owner should know although the pod is recoverable, for example `ServiceAccountToken`: the captured token
    /// expires like any other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The last outage in which the node's supervisor acted for this pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_outage: Option<LastOutage>,
}

/// What was done for a pod in one outage. Times are RFC 3339, counted from the node's wall clock at the outage's begin.
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
    /// When the twin was given to the kubelet.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub activated: Option<String>,
    /// When all containers of the twin ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub serving: Option<String>,
    /// How often the twin was given to the kubelet again, because contact was lost once more before the pod had taken over;
    /// each time the supervisor waits twice as long, up to 5 minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub taken_back: Option<i32>,
    /// When the twin was taken from the kubelet, to serve on until the pod has taken over.
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
    fn one_is_of_one_node_and_of_one_pod_for_good() {
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
        assert!(judge(&object("node-2", "u1"), Some(&before)).contains("of one node for good"));
        assert!(judge(&object("node-1", "u2"), Some(&before)).contains("of one pod for good"));
    }
}
