//! Every name that is seen from outside or shared between the parts: annotations, reasons, path parts.
//!
//! Nothing else in the program spells one of these out, so what a name means and who uses it can be found from here.

use std::time::Duration;

use crate::reasons::Blocked;

/// Group of our annotations and custom resources.
pub const GROUP: &str = "podcheckpointer.io";
/// `"true"`: checkpoint this pod.
pub const CHECKPOINT: &str = "podcheckpointer.io/checkpoint";
/// What bootkube's checkpointer used; means the same as [`CHECKPOINT`].
pub const CHECKPOINT_LEGACY: &str = "checkpointer.alpha.coreos.com/checkpoint";
/// Activation order, lowest first.
pub const START_GROUP: &str = "podcheckpointer.io/start-group";
/// Do not activate a checkpoint captured longer ago.
pub const MAX_AGE: &str = "podcheckpointer.io/max-age";
/// `overlap` or `switch`.
pub const HANDOVER: &str = "podcheckpointer.io/handover";
/// Comma-separated risks that the owner accepts.
pub const ACCEPT: &str = "podcheckpointer.io/accept";
/// On a twin: `<namespace>/<pod>` of its parent.
pub const CHECKPOINT_OF: &str = "podcheckpointer.io/checkpoint-of";
/// On a twin: UID of its parent.
pub const PARENT_UID: &str = "podcheckpointer.io/parent-uid";

/// On a rehearsal: `<namespace>/<pod>` of the pod that it rehearses. A rehearsal is no twin.
pub const DRILL_OF: &str = "podcheckpointer.io/drill-of";

/// Label of our custom resources: the node that writes them.
pub const NODE_LABEL: &str = "podcheckpointer.io/node";

/// Name of the installation: its namespace and every object in it, and its objects of the cluster.
pub const INSTALLATION: &str = "pod-checkpointer";
/// Name of the operator: its namespace, every object of its own, and its Lease.
pub const OPERATOR: &str = "pod-checkpointer-operator";
/// Field manager of everything that the operator applies.
pub const OPERATOR_MANAGER: &str = "pod-checkpointer-operator";
/// On the PodCheckpointer: it stays until everything of it is removed.
pub const FINALIZER: &str = "podcheckpointer.io/operator";
/// On the namespace: who made it, and so removes it.
pub const MADE_BY: &str = "podcheckpointer.io/made-by";
/// Label of our objects: [`INSTALLATION`].
pub const NAME_LABEL: &str = "app.kubernetes.io/name";
/// Label of our objects: which part they are of.
pub const COMPONENT_LABEL: &str = "app.kubernetes.io/component";

/// Directory of the checkpoints in the store.
pub const CHECKPOINTS: &str = "checkpoints";
/// What the supervisor must know of its node, in the store.
pub const NODE_RECORD: &str = "node.yaml";
/// Held by the agent as long as it lives, in the store.
pub const AGENT_LOCK: &str = "agent.lock";

/// Prefix of the links that we make in the kubelet's manifest directory.
pub const LINK_PREFIX: &str = "pod-checkpointer_";
/// Prefix of a drill's links in the kubelet's manifest directory: none of theirs is one of ours above.
pub const DRILL_LINK_PREFIX: &str = "pod-checkpointer-drill_";
/// Directory of a drill's own in the run directory.
pub const DRILL: &str = "drill";
/// Held by a drill as long as it runs, in the run directory.
pub const DRILL_LOCK: &str = "drill.lock";
/// What a drill must undo, and when at the latest, in the run directory.
pub const DRILL_RECORD: &str = "drill.yaml";
/// The supervisor's own manifest in the kubelet's manifest directory, and its pod's name.
pub const SUPERVISOR: &str = "pod-checkpointer-supervisor";
/// Held by the supervisor as long as it lives, in the run directory.
pub const SUPERVISOR_LOCK: &str = "supervisor.lock";
/// Field manager of everything that the agent applies.
pub const FIELD_MANAGER: &str = "pod-checkpointer-agent";

/// Where checkpoints are kept, unless `--state-dir` says otherwise.
pub const STATE_DIR: &str = "/var/lib/pod-checkpointer";
/// Memory-backed directory of what is in force, unless `--run-dir` says otherwise.
pub const RUN_DIR: &str = "/run/pod-checkpointer";

/// The start group of a pod that names none.
pub const DEFAULT_START_GROUP: i32 = 50;

/// Annotation of the kubelet on every sandbox: `file`, `api` or `http` (pkg/kubelet/types/pod_update.go).
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// Annotation of a mirror pod (pkg/kubelet/types/pod_update.go).
pub const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

/// How long an overlapping twin's `preStop` hook holds it alive after the kubelet wants it gone, in seconds.
pub const HOLD_SECONDS: i64 = 120;

/// A node that has no [`Risk`] but mild ones, as a reason.
pub const FIT: &str = "Fit";

/// The store's disk is full.
pub const STORE_FULL: &str = "StoreFull";
/// The store cannot be read or written for another cause.
pub const STORE_FAILED: &str = "StoreFailed";
/// Every kind of error of the store.
pub const STORE_ERRORS: [&str; 3] = [STORE_FULL, STORE_FAILED, Blocked::KeyMissing.as_str()];

/// A pod that comes back, as a reason.
pub const RECOVERABLE: &str = "Recoverable";
/// A pod of which nothing was captured yet, as a reason.
pub const NOT_CAPTURED: &str = "NotCaptured";

/// A twin stands in for a parent that the kubelet refused for good when it came back, as a reason.
pub const REJECTED_AT_RETURN: &str = "RejectedAtReturn";
/// What its owner can do about it.
pub const REJECTED_AT_RETURN_ADVICE: &str = "delete the pod and make it anew; its twin serves until then, and ends when the API server says that the pod is gone";

/// A kubelet that got nothing from an API server that answers this node for this long is locked out. One that starts may
/// take a minute to list its pods.
pub const LOCKED_OUT_AFTER: Duration = Duration::from_mins(3);

/// A twin was linked.
pub const ACTIVATED: &str = "Activated";
/// A twin was linked under another UID, because the kubelet did not run it.
pub const RENEWED: &str = "Renewed";
/// A twin was linked again, because the API server was lost again before its parent took over.
pub const TAKEN_BACK: &str = "TakenBack";

/// What an attempt to link a twin can come to.
pub fn activation_results() -> impl Iterator<Item = &'static str> {
    [ACTIVATED, RENEWED, TAKEN_BACK].into_iter().chain(Blocked::ALL.iter().map(|reason| reason.as_str()))
}

/// What a capture can come to: a new generation, the same as before, a refusal, a fault that passes.
pub const CAPTURE_RESULTS: [&str; 4] = ["Stored", "Unchanged", "Refused", "Failed"];

/// Everything that a `PodCheckpointer` asks for is there, as a reason.
pub const APPLIED: &str = "Applied";
/// No agent would start with these settings.
pub const INVALID_SETTINGS: &str = "InvalidSettings";
/// The API server refused an object: a webhook, a policy, a quota, or a right.
pub const REFUSED: &str = "Refused";
/// An object of somebody else has the name.
pub const FOREIGN_OBJECT: &str = "ForeignObject";
/// An object could not be applied for another cause.
pub const APPLY_FAILED: &str = "ApplyFailed";
/// The settings name no image, and the operator's own is not known.
pub const IMAGE_UNKNOWN: &str = "ImageUnknown";
/// What applying the objects of a `PodCheckpointer` can come to.
pub const APPLY_RESULTS: [&str; 6] = [APPLIED, INVALID_SETTINGS, REFUSED, FOREIGN_OBJECT, APPLY_FAILED, IMAGE_UNKNOWN];
