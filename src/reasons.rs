//! Reasons that users see: why a pod is refused, why a checkpoint is not activated, what to know
//! about a recoverable pod, and what is wrong with a node. Each is an entry of a catalogue with its
//! explanation and its advice; `docs/reasons.md` is generated from it.

use std::fmt;

macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])* $variant:ident => $advice:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[doc = $doc])* $variant,)* }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// What it means, one or two sentences: its documentation here.
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
    /// Why a pod could not come back correctly, reported before an outage.
    Refusal {
        /// The pod's restartPolicy is not Always; a Job's pod, for example, must not run twice.
        RestartPolicy => "only pods with restartPolicy Always can be brought back; unmark this one",
        /// It is a static pod, which comes back by itself.
        MirrorOrStatic => "the kubelet starts static pods by itself; remove the mark",
        /// The pod is being deleted or has ended.
        Terminating => "wait for its successor, which is captured once it is Ready",
        /// A PersistentVolumeClaim is attached and mounted with the help of the API server, which a
        /// static pod does not have.
        PersistentVolume => "a claim bound to a local or hostPath volume can come back: accept that with podcheckpointer.io/accept: persistent-volume; other volumes need the API server to be attached",
        /// The kubelet refuses inline CSI volumes in static pods.
        CsiVolume => "use another kind of volume instead of the inline CSI volume",
        /// A generic ephemeral volume is a PersistentVolumeClaim that is created through the API
        /// server.
        EphemeralVolume => "use an emptyDir instead of the generic ephemeral volume",
        /// The kubelet refuses dynamic resource claims in static pods.
        ResourceClaim => "resource claims need the API server; remove them or the mark",
        /// If its device plugin has not registered when the twin starts, the kubelet rejects the
        /// twin for good.
        ExtendedResource => "device plugins may not have registered at boot; remove the extended resource or the mark",
        /// The huge pages of the twin and of its returning parent would be counted together.
        HugePages => "huge pages would be counted twice at hand-over; remove them or the mark",
        /// The kubelet cannot look up its runtime class without the API server.
        RuntimeClass => "use a runtime class whose handler is the runtime's default",
        /// An image of the pod is no longer on the node, and during an outage the registry may be
        /// out of reach.
        ImageAbsent => "pull the image again, and protect it from the kubelet's image garbage collection",
        /// The kubelet would ask for a pull secret that a static pod cannot name.
        ImageNeedsPullSecret => "let the kubelet trust images on the node (imagePullCredentialsVerificationPolicy), or preload the image",
        /// The environment variables of a container cannot be determined.
        EnvironmentUnknown => "the runtime does not report the container's environment; restart the pod, or report the runtime's version to this project",
        /// The value of an environment variable is not UTF-8 text, and a manifest can hold only
        /// text.
        EnvironmentNotText => "put the value into a file of a Secret or ConfigMap volume",
        /// It breaks the kubelet's rules for static pods.
        RejectedByKubeletRules => "change the named field, or remove the mark",
        /// The pod uses a field that this version of the program does not know.
        UnknownField => "upgrade pod-checkpointer; it must know a field before it can keep or drop it",
        /// A StatefulSet's pod may have been started on another node meanwhile, and only one copy
        /// of each may run.
        StatefulSet => "a second copy may do harm: accept that with podcheckpointer.io/accept: stateful",
        /// It is larger than a checkpoint or a kubelet's manifest may be.
        TooLarge => "make its Secrets and ConfigMaps smaller",
        /// A podcheckpointer.io annotation has an invalid value.
        InvalidAnnotation => "correct the annotation's value",
    }
}

reasons! {
    /// Why a checkpoint that should be active is not.
    Blocked {
        /// No generation of the checkpoint passes verification.
        Damaged => "run `pod-checkpointer verify` on the node; the pod is captured again once the API server answers",
        /// It was last known to be current longer ago than its max-age.
        Expired => "raise podcheckpointer.io/max-age, or --max-age of the cluster, if an old checkpoint is better than none",
        /// The checkpoint is sealed, and no key was given.
        KeyMissing => "give the key with --key-file",
        /// The checkpoint is sealed with another key.
        KeyWrong => "give the key that it was sealed with, with --key-file",
        /// An image is not on the node.
        ImageAbsent => "import the image into the runtime",
        /// The container runtime does not say whether an image is on the node.
        ImageUnknown => "look at the container runtime's log; it is asked again after a pause",
        /// The kubelet would ask for a pull secret that a static pod cannot name.
        ImageNeedsPullSecret => "let the kubelet trust images on the node (imagePullCredentialsVerificationPolicy)",
        /// The run directory is on a disk, where unsealed checkpoints must not be written.
        RunDirNotMemory => "mount a tmpfs at the run directory",
        /// The node lacks resources or ports for it, given what already runs.
        NoRoom => "free resources or ports on the node",
        /// A file that does not belong to pod-checkpointer has the name of the twin's link.
        ForeignManifest => "move the file out of the kubelet's manifest directory",
        /// The kubelet has the manifest but does not run it.
        KubeletRefuses => "search the kubelet's log for the pod's name",
        /// The kubelet started the twin, but its containers do not stay up.
        NotRunning => "read its containers' logs below /var/log/pods on the node",
        /// It was captured under another Node object: this node has since been renamed, or removed
        /// and re-created.
        OtherNode => "checkpoints of the old Node are not activated; marked pods are captured again when they run on the new one",
        /// The API server answers, but the kubelet gets nothing from it and does not start the pod.
        KubeletLockedOut => "check whether the kubelet's client certificate has expired, its Node is gone or its permissions are lost; --activate-locked-out sets after how long to activate anyway",
        /// SELinux is in force on the node, and the twin's files cannot be given a label that
        /// containers may read.
        NotLabelled => "run the supervisor with the SELinux type spc_t, and mount the run directory without the option context=",
        /// Unpacking or linking failed.
        WriteFailed => "read the supervisor's log; the run directory may be full",
    }
}

reasons! {
    /// What an owner should know about a pod that is recoverable.
    Warning {
        /// It is not pinned to its node, so its controller may have started a copy on another one
        /// meanwhile.
        MayBeRescheduled => "pin it to its node, or accept a second copy during the outage",
        /// The pod network may need the API server to connect the pod.
        NetworkNeedsAPI => "use host network or a host port, or a CNI that starts without the API server",
        /// Its service account token is captured and expires as usual.
        ServiceAccountToken => "make sure that the token outlives an outage; nothing renews it while the API server is away",
        /// The kubelet's client certificate expires soon, and a kubelet with an expired one may not
        /// start.
        KubeletCertificateExpires => "renew the kubelet's client certificate",
        /// The certificate of a podCertificate projection is captured and expires as usual.
        PodCertificate => "make sure that the certificate outlives an outage; nothing renews it while the API server is away",
        /// It asks to start before the other pods of the node, and its namespace may not.
        StartGroupIgnored => "leave podcheckpointer.io/start-group at 50 or above, or ask the cluster's owner to name the namespace in --early-namespaces (spec.earlyNamespaces)",
        /// Its init containers run again when it is brought back.
        InitContainersRunAgain => "make sure that its init containers can run again, and without the API server",
    }
}

reasons! {
    /// What is wrong with the node itself and would keep its pods from coming back, or slow them
    /// down; worst first.
    Risk {
        /// The kubelet has no directory of static pods, so nothing can be started without the API
        /// server.
        NoStaticPodDirectory => "set staticPodPath in the kubelet's configuration, or give --manifest-dir",
        /// No supervisor has worked on the node for two minutes: none runs, it keeps crashing, it
        /// knows no API server to watch, or the kubelet or the runtime does not tell it what runs.
        NoSupervisor => "look for the supervisor's pod with crictl and read its log; `pod-checkpointer status` shows its problems",
        /// The run directory is on a disk, where unsealed checkpoints must not be written.
        RunDirNotMemory => "mount a tmpfs at the run directory",
        /// SELinux is in force on the node, and files in the run directory cannot be given a label
        /// that containers may read, so no pod with captured volumes comes back.
        CannotLabel => "run agent and supervisor with the SELinux type spc_t, and mount the run directory without the option context=",
        /// The file system of the checkpoints has no space for more of them.
        StoreFull => "free space or inodes on the file system of the state directory",
        /// A checkpoint was damaged on the disk and has not been replaced by an intact one yet.
        StoreDamaged => "run `pod-checkpointer verify` on the node, and check the health of its disk",
        /// The kubelet's client certificate expires within the longest planned outage, and a
        /// kubelet may exit if it starts with an expired one.
        KubeletCertificateExpires => "renew the kubelet's client certificate, or set with --planned-outage how long an outage may last",
        /// The kubelet is about to remove images that no container uses, and a checkpoint needs one
        /// of them.
        ImagesAtRisk => "free space on the file system of the images, or raise imageGCHighThresholdPercent in the kubelet's configuration",
        /// The pods that provide the node's network have no checkpoint, but pods that have one need
        /// that network.
        NetworkNotCheckpointed => "mark them too, with a lower podcheckpointer.io/start-group: network plugin 10, kube-proxy 20, DNS 30",
        /// The kernel does not let the supervisor close the kubelet's connections, so a pod with
        /// volumes may come back a minute later.
        CannotUnstick => "use a kernel with CONFIG_INET_DIAG_DESTROY, and grant the supervisor CAP_NET_ADMIN",
        /// The kubelet finds its API server by a name that only name servers can resolve; without
        /// them it waits for 20 seconds at a time.
        ServerNamedByDNS => "add the name to /etc/hosts on the node, or put an IP address into the kubelet's kubeconfig",
    }
}

impl Risk {
    /// Whether the node's pods still come back in spite of it, only later.
    pub fn is_mild(self) -> bool {
        matches!(self, Self::CannotUnstick | Self::ServerNamedByDNS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_explained_in_a_sentence_and_says_what_to_do() {
        let all = Refusal::ALL
            .iter()
            .map(|it| (it.as_str(), it.explanation(), it.advice()));
        let all = all.chain(
            Blocked::ALL
                .iter()
                .map(|it| (it.as_str(), it.explanation(), it.advice())),
        );
        let all = all.chain(
            Warning::ALL
                .iter()
                .map(|it| (it.as_str(), it.explanation(), it.advice())),
        );
        for (name, explanation, advice) in all.chain(
            Risk::ALL
                .iter()
                .map(|it| (it.as_str(), it.explanation(), it.advice())),
        ) {
            assert!(
                explanation.ends_with('.') && explanation.len() > 20,
                "{name}: {explanation:?}"
            );
            assert!(
                !explanation.contains("  ") && !advice.ends_with('.') && advice.len() > 10,
                "{name}: {advice:?}"
            );
        }
    }
}
