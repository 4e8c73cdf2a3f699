//! Every name that users see or that several parts share: annotations, reasons, parts of paths.
//! Other modules use these constants, so that one finds from here what a name means and who uses
//! it.

use std::time::Duration;

use crate::reasons::Blocked;

/// API group of the program's annotations and custom resources.
pub const GROUP: &str = "podcheckpointer.io";
/// `"true"`: checkpoint this pod.
pub const CHECKPOINT: &str = "podcheckpointer.io/checkpoint";
/// The annotation of bootkube's checkpointer; means the same as [`CHECKPOINT`].
pub const CHECKPOINT_LEGACY: &str = "checkpointer.alpha.coreos.com/checkpoint";
/// Order of activation, lowest first.
pub const START_GROUP: &str = "podcheckpointer.io/start-group";
/// Age from which a checkpoint of this pod is no longer activated.
pub const MAX_AGE: &str = "podcheckpointer.io/max-age";
/// `overlap` or `switch`.
pub const HANDOVER: &str = "podcheckpointer.io/handover";
/// Risks that the owner accepts, separated by commas.
pub const ACCEPT: &str = "podcheckpointer.io/accept";
/// On a twin: `<namespace>/<pod>` of its parent.
pub const CHECKPOINT_OF: &str = "podcheckpointer.io/checkpoint-of";
/// On a twin: UID of its parent.
pub const PARENT_UID: &str = "podcheckpointer.io/parent-uid";

/// On a rehearsal: `<namespace>/<pod>` of the pod that it rehearses. A rehearsal is not a twin.
pub const DRILL_OF: &str = "podcheckpointer.io/drill-of";

/// Label of a PodCheckpoint: the node whose agent writes it.
pub const NODE_LABEL: &str = "podcheckpointer.io/node";

/// Name of the installation's namespace, of every object in it, and of its cluster-scoped objects.
pub const INSTALLATION: &str = "pod-checkpointer";
/// Name of the operator's namespace, of every object of the operator itself, and of its Lease.
pub const OPERATOR: &str = "pod-checkpointer-operator";
/// Field manager of everything that the operator applies.
pub const OPERATOR_MANAGER: &str = "pod-checkpointer-operator";
/// Finalizer of the PodCheckpointer: it stays until everything installed for it is removed.
pub const FINALIZER: &str = "podcheckpointer.io/operator";
/// On the namespace: the program that created it, and therefore removes it.
pub const MADE_BY: &str = "podcheckpointer.io/made-by";
/// Label of every object of the program; its value is [`INSTALLATION`].
pub const NAME_LABEL: &str = "app.kubernetes.io/name";
/// Label of every object of the program: the part it belongs to.
pub const COMPONENT_LABEL: &str = "app.kubernetes.io/component";

/// Directory of the checkpoints, in the state directory.
pub const CHECKPOINTS: &str = "checkpoints";
/// File with what the supervisor must know about its node, in the state directory.
pub const NODE_RECORD: &str = "node.yaml";
/// File with the ages of checkpoints, in the state directory.
pub const AGES: &str = "ages.yaml";
/// Lock file that the agent holds while it runs, in the state directory.
pub const AGENT_LOCK: &str = "agent.lock";

/// Prefix of the supervisor's links in the kubelet's manifest directory.
pub const LINK_PREFIX: &str = "pod-checkpointer_";
/// Prefix of a drill's links in the kubelet's manifest directory. It differs from [`LINK_PREFIX`],
/// so neither is taken for the other.
pub const DRILL_LINK_PREFIX: &str = "pod-checkpointer-drill_";
/// Directory of a drill, in the run directory.
pub const DRILL: &str = "drill";
/// Lock file that a drill holds while it runs, in the run directory.
pub const DRILL_LOCK: &str = "drill.lock";
/// File with what a drill must undo and by when, in the run directory.
pub const DRILL_RECORD: &str = "drill.yaml";
/// Name of the supervisor's pod, and of its manifest in the kubelet's manifest directory.
pub const SUPERVISOR: &str = "pod-checkpointer-supervisor";
/// Lock file that the supervisor holds while it runs, in the run directory.
pub const SUPERVISOR_LOCK: &str = "supervisor.lock";
/// Field manager of everything that the agent applies.
pub const FIELD_MANAGER: &str = "pod-checkpointer-agent";

/// Default of `--state-dir`, the directory where checkpoints are kept.
pub const STATE_DIR: &str = "/var/lib/pod-checkpointer";
/// Default of `--run-dir`, the memory-backed directory for everything that is currently active.
pub const RUN_DIR: &str = "/run/pod-checkpointer";

/// The start group of a pod that does not name one.
pub const DEFAULT_START_GROUP: i32 = 50;
/// Default of `--early-namespaces`: those whose pods may start before all others. The network plugins
/// and kube-proxy live there.
pub const EARLY_NAMESPACES: [&str; 3] = ["kube-system", "kube-flannel", "calico-system"];

/// Annotation of the kubelet on every sandbox: `file`, `api` or `http`
/// (pkg/kubelet/types/pod_update.go).
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// API group and version of the custom resources, and of the checkpoint files.
pub const API_VERSION: &str = "podcheckpointer.io/v1alpha1";

/// Annotation of a mirror pod (pkg/kubelet/types/pod_update.go).
pub const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

/// How long the `preStop` hook of an overlapping twin keeps it alive after the kubelet begins to
/// stop it, in seconds.
pub const HOLD_SECONDS: i64 = 120;

/// Reason: the node has no risk, or only mild ones.
pub const FIT: &str = "Fit";

/// Kind of error: the store's disk is full.
pub const STORE_FULL: &str = "StoreFull";
/// Kind of error: the store cannot be read or written for another cause.
pub const STORE_FAILED: &str = "StoreFailed";
/// Every kind of error of the store, as a label's value.
pub const STORE_ERRORS: [&str; 3] = [STORE_FULL, STORE_FAILED, Blocked::KeyMissing.as_str()];

/// Reason: the pod would come back.
pub const RECOVERABLE: &str = "Recoverable";
/// Reason: nothing has been captured of the pod yet.
pub const NOT_CAPTURED: &str = "NotCaptured";

/// Reason: a twin stands in for a parent that the kubelet rejected for good when the API server
/// returned.
pub const REJECTED_AT_RETURN: &str = "RejectedAtReturn";
/// Advice for [`REJECTED_AT_RETURN`].
pub const REJECTED_AT_RETURN_ADVICE: &str = "delete the pod and create it again; its twin serves until then, and ends when the API server reports that the pod is gone";

/// A kubelet that got nothing from an API server that answers this node for this long is locked
/// out. One that starts may take a minute to list its pods.
pub const LOCKED_OUT_AFTER: Duration = Duration::from_mins(3);

/// Result of an activation: the twin was linked.
pub const ACTIVATED: &str = "Activated";
/// Result of an activation: the twin was linked under another UID, because the kubelet did not run
/// it.
pub const RENEWED: &str = "Renewed";
/// Result of an activation: the twin was linked again, because the API server was lost again before
/// its parent took over.
pub const TAKEN_BACK: &str = "TakenBack";

/// Every result of an attempt to activate a checkpoint, as a label's value.
pub fn activation_results() -> impl Iterator<Item = &'static str> {
    [ACTIVATED, RENEWED, TAKEN_BACK]
        .into_iter()
        .chain(Blocked::ALL.iter().map(|reason| reason.as_str()))
}

/// Every result of a capture, as a label's value: a new generation, the same as before, a refusal,
/// a passing fault.
pub const CAPTURE_RESULTS: [&str; 4] = ["Stored", "Unchanged", "Refused", "Failed"];

/// Reason: everything that the `PodCheckpointer` asks for exists.
pub const APPLIED: &str = "Applied";
/// Reason: no agent would start with these settings.
pub const INVALID_SETTINGS: &str = "InvalidSettings";
/// Reason: the API server refused an object, because of a webhook, a policy, a quota or a missing
/// permission.
pub const REFUSED: &str = "Refused";
/// Reason: an object that the operator does not own has the name.
pub const FOREIGN_OBJECT: &str = "ForeignObject";
/// Reason: an object could not be applied for another cause.
pub const APPLY_FAILED: &str = "ApplyFailed";
/// Reason: the settings name no image, and the operator does not know its own.
pub const IMAGE_UNKNOWN: &str = "ImageUnknown";
/// Every result of applying the objects of a `PodCheckpointer`, as a label's value.
pub const APPLY_RESULTS: [&str; 6] = [
    APPLIED,
    INVALID_SETTINGS,
    REFUSED,
    FOREIGN_OBJECT,
    APPLY_FAILED,
    IMAGE_UNKNOWN,
];
