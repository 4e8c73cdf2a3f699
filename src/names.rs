//! Every name that is seen from outside or shared between the parts: annotations, reasons, path parts.
//!
//! Nothing else in the program spells one of these out, so what a name means and who uses it can be found from here.

use std::fmt;

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

macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])* $variant:ident => $advice:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[doc = $doc])* $variant,)* }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// What it means: the first words of its documentation here.
            pub fn explanation(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc,)*).trim_ascii(),)* }
            }

            /// What its owner can do about it, one sentence.
            pub fn advice(self) -> &'static str {
                match self { $(Self::$variant => $advice,)* }
            }

            /// The machine-readable name, as in a condition's `reason`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.as_str()) }
        }
    };
}

reasons! {
    /// Why a pod cannot come back correctly, said before the disaster.
    Refusal {
        /// The pod does not restart always: a Job's pod must not run twice.
        RestartPolicy => "only pods with restartPolicy Always can be brought back; unmark this one",
        /// A static pod comes back by itself.
        MirrorOrStatic => "the kubelet starts static pods by itself; remove the mark",
        /// The pod is being deleted or has ended.
        Terminating => "wait for its successor, which is captured when it is Ready",
        /// A claim is attached and mounted with the API server's help, which a static pod does not get.
        PersistentVolume => "a claim of a local or hostPath volume can come back: accept that with podcheckpointer.io/accept: persistent-volume; others need the API server to attach",
        /// The kubelet refuses inline CSI volumes in static pods.
        CsiVolume => "inline CSI volumes are refused in static pods; use another kind of volume",
        /// A generic ephemeral volume is a claim that the API server makes.
        EphemeralVolume => "generic ephemeral volumes need the API server; use emptyDir",
        /// The kubelet refuses dynamic resource claims in static pods.
        ResourceClaim => "resource claims are prepared by the API server; remove them or the mark",
        /// A device plugin that has not registered when the twin starts makes the kubelet reject it for good.
        ExtendedResource => "device plugins may not have registered at boot; remove the extended resource or the mark",
        /// Huge pages of the twin and of its returning parent would be counted together.
        HugePages => "huge pages would be counted twice at hand-over; remove them or the mark",
        /// A runtime class that the kubelet cannot look up without the API server.
        RuntimeClass => "the kubelet cannot look a runtime class up offline; use one whose handler is the runtime's default",
        /// An image that ran is no longer on the node, and nobody may be there to pull it from.
        ImageAbsent => "pull the image again, and protect it from the kubelet's image garbage collection",
        /// The kubelet would ask for a pull secret that a static pod cannot name.
        ImageNeedsPullSecret => "let the kubelet trust images on the node (imagePullCredentialsVerificationPolicy), or preload the image",
        /// What a container was given as environment cannot be known.
        EnvironmentUnknown => "the runtime does not tell the container's environment; restart the pod, or report the runtime's version",
        /// An environment value is not UTF-8 text, and a manifest can hold nothing else.
        EnvironmentNotText => "the value is not UTF-8 text; put it into a file of a Secret or ConfigMap volume",
        /// The kubelet's rules for static pods refuse it.
        RejectedByKubeletRules => "change the named field, or remove the mark",
        /// A field that this version of the program has no rule for.
        UnknownField => "upgrade pod-checkpointer; it must know a field before it may pass or drop it",
        /// A StatefulSet's pod may have been started elsewhere by now, and each may exist once.
        StatefulSet => "a second copy may do harm: accept that with podcheckpointer.io/accept: stateful",
        /// It is larger than a checkpoint, or a manifest for the kubelet, may be.
        TooLarge => "make its Secrets and ConfigMaps smaller",
        /// An annotation of ours has a value that means nothing.
        InvalidAnnotation => "correct the annotation's value",
    }
}

reasons! {
    /// Why a checkpoint that should be active is not.
    Blocked {
        /// No generation passes verification.
        Damaged => "run `pod-checkpointer verify` on the node; it is captured anew when the API server answers",
        /// It was captured longer ago than its max-age.
        Expired => "raise podcheckpointer.io/max-age if an older checkpoint is better than none",
        /// It is sealed, and no key was given.
        KeyMissing => "give the key with --key-file",
        /// It is sealed with another key.
        KeyWrong => "give the key that sealed it with --key-file",
        /// An image is not on the node.
        ImageAbsent => "import the image into the runtime",
        /// The kubelet would ask for a pull secret that a static pod cannot name.
        ImageNeedsPullSecret => "let the kubelet trust images on the node (imagePullCredentialsVerificationPolicy)",
        /// The run directory is on a disk, where no clear text may be written.
        RunDirNotMemory => "mount a tmpfs at the run directory",
        /// The node has no room for it beside what runs.
        NoRoom => "free resources or ports on the node",
        /// A file that is not ours has the name of our link.
        ForeignManifest => "move the file out of the kubelet's manifest directory",
        /// The kubelet was given the manifest and does not run it.
        KubeletRefuses => "look for the pod's name in the kubelet's log",
        /// Its twin was taken by the kubelet, and its containers do not stay up.
        NotRunning => "look at its containers' logs below /var/log/pods on the node",
        /// It was captured on another node object than the one this node is now: renamed, or removed and made anew.
        OtherNode => "nothing of the old node is activated; marked pods are captured anew when they run on this one",
        /// The API server answers, but the kubelet gets nothing from it, so nobody starts the pod.
        KubeletLockedOut => "look whether the kubelet's client certificate has expired, its node object is gone or its rights are lost; --activate-locked-out says after how long to activate all the same",
        /// Unpacking or linking failed.
        WriteFailed => "look at the supervisor's log; the run directory may be full",
    }
}

reasons! {
    /// What an owner should know of a pod that is recoverable all the same.
    Warning {
        /// A Deployment's pod without a node pin may run elsewhere by then.
        MayBeRescheduled => "pin it to its node, or accept a second copy during the outage",
        /// The pod network may need the API server to set the pod up.
        NetworkNeedsAPI => "use host network or a host port, or a CNI that starts without the API server",
        /// The token is captured and expires like any other.
        ServiceAccountToken => "the captured token expires; nothing renews it while the API server is away",
        /// The kubelet's client certificate expires soon, and a kubelet with an expired one may not start.
        KubeletCertificateExpires => "renew the kubelet's client certificate",
        /// The certificate of a podCertificate projection is captured and expires like any other.
        PodCertificate => "the captured certificate expires; nothing renews it while the API server is away",
        /// Init containers run again.
        InitContainersRunAgain => "its init containers run again on the node, without the API server",
    }
}

reasons! {
    /// What of the node itself would keep its pods from coming back, or make that slow; worst first.
    Risk {
        /// The kubelet starts no static pods, so nothing can be started without the API server.
        NoStaticPodDirectory => "set staticPodPath in the kubelet's configuration, or give --manifest-dir",
        /// The run directory is on a disk, where no clear text may be written.
        RunDirNotMemory => "mount a tmpfs at the run directory",
        /// The file system of the checkpoints has no room for more of them.
        StoreFull => "free space, or inodes, on the file system of the state directory",
        /// A checkpoint was damaged on the disk, and no whole one has taken its place yet.
        StoreDamaged => "run `pod-checkpointer verify` on the node, and look at the health of its disk",
        /// The kubelet's client certificate expires within the longest outage that is planned for; a kubelet that starts with an expired one may end.
        KubeletCertificateExpires => "renew the kubelet's client certificate, or say with --planned-outage how long an outage may last",
        /// The kubelet is about to remove images that no container uses now, and a checkpoint needs one of them.
        ImagesAtRisk => "free space on the file system of the images, or raise imageGCHighThresholdPercent in the kubelet's configuration",
        /// Pods that run the node's network have no checkpoint, and pods that have one need it.
        NetworkNotCheckpointed => "mark them as well, with a lower podcheckpointer.io/start-group: network plugin 10, kube-proxy 20, DNS 30",
        /// The kernel does not let the supervisor close connections, so a pod with volumes may come back a minute later.
        CannotUnstick => "use a kernel with CONFIG_INET_DIAG_DESTROY, and let the supervisor have CAP_NET_ADMIN",
        /// The kubelet finds its API server by a name that only name servers know; without them it waits for 20 seconds at a time.
        ServerNamedByDNS => "put the name into /etc/hosts of the node, or let the kubelet's kubeconfig name an address",
    }
}

impl Risk {
    /// Its pods come back all the same, only later.
    pub fn is_mild(self) -> bool {
        matches!(self, Self::CannotUnstick | Self::ServerNamedByDNS)
    }
}

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

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only grows, until its part or its node starts again.
    Counter,
    /// Durations, in [`crate::report::Times::BOUNDS`].
    Histogram,
}

/// Who serves a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The agent.
    Agent,
    /// The supervisor.
    Supervisor,
    /// The supervisor, and the agent from the supervisor's record.
    Both,
    /// The operator.
    Operator,
    /// Each its own.
    Each,
}

macro_rules! metrics {
    ($($variant:ident: $kind:ident of $of:ident $(by $label:literal)*, $name:literal, $help:literal, $alert:literal;)*) => {
        /// What is told in figures; `docs/metrics.md` is made of it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs)] // each explains itself by its help
        pub enum Metric { $($variant,)* }

        impl Metric {
            /// Every metric, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => concat!("pod_checkpointer_", $name),)* }
            }

            /// How it behaves.
            pub fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)* }
            }

            /// Who serves it.
            pub fn of(self) -> Of {
                match self { $(Self::$variant => Of::$of,)* }
            }

            /// Its labels.
            pub fn labels(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$($label,)*],)* }
            }

            /// What it tells, one sentence.
            pub fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }

            /// When somebody should look; empty: of itself never.
            pub fn alert(self) -> &'static str {
                match self { $(Self::$variant => $alert,)* }
            }
        }
    };
}

metrics! {
    BuildInfo: Gauge of Each by "version" by "part", "build_info",
        "Always 1; which program serves this, and as which part.", "";
    Checkpoints: Gauge of Both by "phase", "checkpoints",
        "Checkpoints on this node, by phase.",
        "`{phase=\"Blocked\"} > 0`: should be active and cannot; `{phase=\"Released\"} > 0` for 10 minutes: a hand-over hangs";
    Recoverable: Gauge of Agent by "reason", "recoverable",
        "Marked pods, by the first reason why they would not come back on this node; Recoverable: they would.",
        "`{reason!=\"Recoverable\"} > 0` for 15 minutes";
    CheckpointAge: Gauge of Agent, "checkpoint_age_seconds",
        "Age of the oldest of the newest checkpoints of all pods; an unchanged pod is not captured again.", "";
    Captures: Counter of Agent by "result", "captures_total",
        "Captures of pods, by what they came to.", "`increase(…{result=\"Failed\"}[15m]) > 3`";
    CaptureTime: Histogram of Agent, "capture_seconds",
        "Time from the begin of a capture to a durable checkpoint.", "";
    StoreErrors: Counter of Agent by "kind", "store_errors_total",
        "Errors of the directory with the checkpoints, by kind.", "`increase(…[15m]) > 0`";
    DamagedFiles: Counter of Agent, "damaged_files_total",
        "Damaged checkpoint files that were found and set aside.", "`increase(…[1d]) > 0`: the disk forgets what it was told";
    SupervisorUp: Gauge of Agent, "supervisor_up",
        "1 while the supervisor of this node runs, else 0.", "`== 0` for 5 minutes: nothing would bring a pod back";
    Problems: Gauge of Both by "part", "problems",
        "What a part cannot learn or do now; its log and `pod-checkpointer status` say what.", "`> 0` for 15 minutes";
    NodeRisk: Gauge of Agent by "risk", "node_risk",
        "1 while this is so of the node and would keep its pods from coming back, or make that slow; else 0.",
        "`{risk!~\"CannotUnstick|ServerNamedByDNS\"} > 0` for 15 minutes";
    ApiContact: Gauge of Both, "api_contact",
        "1 while the API server answers the supervisor, else 0.", "";
    ApiSilence: Gauge of Both, "api_silence_seconds",
        "Time since the API server last answered the supervisor; 0 while it answers.", "`> 600`, where such an outage is not usual";
    Outages: Counter of Both, "outages_total",
        "Outages since boot in which a pod was activated.", "";
    Activations: Counter of Both by "result", "activations_total",
        "Attempts since boot to start a pod without the API server, by what they came to.",
        "`increase(…[15m]) > 0` for a result other than Activated, Renewed and TakenBack";
    ActivationTime: Histogram of Both, "activation_seconds",
        "Time from the decision to activate a pod to all its containers running.", "";
    TakeoverTime: Histogram of Both, "takeover_seconds",
        "Time from the first sign of the API server to the pod itself running again.", "";
    OverlapTime: Histogram of Both, "overlap_seconds",
        "Time that a pod and its stand-in ran side by side at the hand-over.", "";
    KubeletUnstuck: Counter of Both, "kubelet_unstuck_total",
        "Times since boot that a kubelet waited for the API server and its waiting connections were closed.", "";
    PassAge: Gauge of Supervisor, "pass_age_seconds",
        "Time since the supervisor last looked at its node; up to a minute while all is well.", "`> 120`: it hangs";
    OperatorLeads: Gauge of Operator, "operator_leads",
        "1 while this operator holds the Lease and acts, else 0.", "`sum(…) != 1` for 5 minutes: nobody acts";
    OperatorCondition: Gauge of Operator by "type", "operator_condition",
        "1 while this condition of the PodCheckpointer is True, else 0.",
        "`{type=\"Applied\"} == 0` for 15 minutes: the condition's message says why";
    OperatorNodes: Gauge of Operator by "state", "operator_nodes",
        "Nodes that should have an agent, whose agent is ready, and whose agent has the settings of now.", "";
    OperatorCheckpoints: Gauge of Operator by "state", "operator_checkpoints",
        "PodCheckpoints of all nodes: all of them, those that would come back, and those whose pod is stood in for.", "";
    OperatorApplies: Counter of Operator by "result", "operator_applies_total",
        "Times that all objects of the PodCheckpointer were applied, by what that came to.", "";
    OperatorRepairs: Counter of Operator by "kind", "operator_repairs_total",
        "Times that an object of this kind was not as it was applied, and was applied again.",
        "`increase(…[1h]) > 10`: somebody else wants it otherwise";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_explained_in_a_sentence_and_says_what_to_do() {
        let all = Refusal::ALL.iter().map(|it| (it.as_str(), it.explanation(), it.advice()));
        let all = all.chain(Blocked::ALL.iter().map(|it| (it.as_str(), it.explanation(), it.advice())));
        let all = all.chain(Warning::ALL.iter().map(|it| (it.as_str(), it.explanation(), it.advice())));
        for (name, explanation, advice) in
            all.chain(Risk::ALL.iter().map(|it| (it.as_str(), it.explanation(), it.advice())))
        {
            assert!(explanation.ends_with('.') && explanation.len() > 20, "{name}: {explanation:?}");
            assert!(!explanation.contains("  ") && !advice.ends_with('.') && advice.len() > 10, "{name}: {advice:?}");
        }
    }

    #[test]
    fn the_examples_of_alerts_ask_for_metrics_that_there_are() {
        let rules = include_str!("../examples/metrics/rules.yaml");
        let words = rules.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let asked: Vec<&str> = words.filter(|word| word.starts_with("pod_checkpointer_")).collect();
        assert!(asked.len() > 5, "{asked:?}");
        for name in asked {
            assert!(Metric::ALL.iter().any(|metric| metric.name() == name), "{name}");
        }
    }

    #[test]
    fn every_metric_has_a_name_by_the_conventions_and_says_what_it_is() {
        for metric in Metric::ALL {
            let (name, help) = (metric.name(), metric.help());
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind() == Kind::Counter, "{name}");
            assert!(metric.kind() != Kind::Histogram || name.ends_with("_seconds"), "{name}");
            assert!(help.ends_with('.') && help.len() > 20 && !help.contains("  "), "{name}: {help:?}");
            assert!(!metric.alert().contains("  ") && !metric.alert().ends_with('.'), "{name}");
        }
    }
}
