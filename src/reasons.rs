//! Reasons that users see: why a pod is refused, why a checkpoint is not activated, what to know of a recoverable pod, and
//! what is wrong with a node. Each is one line of a catalogue with its explanation and its advice; `docs/reasons.md` is
//! generated from it.

use std::fmt;

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
}
