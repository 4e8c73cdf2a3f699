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

/// Label of our custom resources: the node that writes them.
pub const NODE_LABEL: &str = "podcheckpointer.io/node";

/// Prefix of the links that we make in the kubelet's manifest directory.
pub const LINK_PREFIX: &str = "pod-checkpointer_";
/// The supervisor's own manifest in the kubelet's manifest directory, and its pod's name.
pub const SUPERVISOR: &str = "pod-checkpointer-supervisor";
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
            pub fn as_str(self) -> &'static str {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_explained_in_a_sentence_and_says_what_to_do() {
        let all = Refusal::ALL.iter().map(|it| (it.as_str(), it.explanation(), it.advice()));
        let all = all.chain(Blocked::ALL.iter().map(|it| (it.as_str(), it.explanation(), it.advice())));
        for (name, explanation, advice) in
            all.chain(Warning::ALL.iter().map(|it| (it.as_str(), it.explanation(), it.advice())))
        {
            assert!(explanation.ends_with('.') && explanation.len() > 20, "{name}: {explanation:?}");
            assert!(!explanation.contains("  ") && !advice.ends_with('.') && advice.len() > 10, "{name}: {advice:?}");
        }
    }
}
