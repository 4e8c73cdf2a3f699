//! What a pass knows. Everything may be unknown, and the types say so: unknown is never absent.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::checkpoint::{Handover, Policy};
use crate::node::contact::Contact;
use crate::pod::id::PodId;

/// The pod that a checkpoint is of.
pub type Key = PodId;

/// An answer to a yes-or-no question that may not have been answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// It is so.
    Yes,
    /// It is not so.
    No,
    /// It is not known.
    #[default]
    Unknown,
}

impl Seen {
    /// It is so.
    pub fn is_yes(self) -> bool {
        self == Self::Yes
    }

    /// It is not so; unknown is not "no".
    pub fn is_no(self) -> bool {
        self == Self::No
    }
}

impl From<bool> for Seen {
    fn from(value: bool) -> Self {
        if value { Self::Yes } else { Self::No }
    }
}

/// How much of a pod runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Run {
    /// Its sandbox is ready and every container that is not an init container runs.
    Running,
    /// Some of it exists.
    Partial,
    /// No ready sandbox, no running container.
    Stopped,
    /// The runtime did not answer.
    #[default]
    Unknown,
}

/// The kubelet process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kubelet {
    /// It answered what it owns.
    Up,
    /// No process listens on its socket.
    Down,
    /// It did not answer.
    #[default]
    Unknown,
}

/// What is known about the pod of one checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // facts of a pod, each by itself
pub struct PodFacts {
    /// A checkpoint of it is in the store.
    pub in_store: bool,
    /// Activation order.
    pub start_group: i32,
    /// The parent's priority: if not all fit, the highest goes first.
    pub priority: i32,
    /// How its parent takes over.
    pub handover: Option<Handover>,
    /// It uses the node's network.
    pub host_network: bool,
    /// The kubelet owns the parent.
    pub parent_owned: Seen,
    /// The kubelet owns the twin.
    pub twin_owned: Seen,
    /// What runs of the parent.
    pub parent: Run,
    /// A container of the parent that is not an init container exists, in any state: the kubelet
    /// has everything from the API server that it needs to run it. A sandbox does not show that: it
    /// is created before the services are read, and no container is created without them
    /// (pkg/kubelet/kubelet_pods.go, "services have not yet been read at least once").
    pub parent_container: Seen,
    /// The parent has a ready sandbox.
    pub parent_sandbox: Seen,
    /// See [`Policy::slow_start`].
    pub slow_start: bool,
    /// The parent is Ready according to the agent.
    pub parent_ready: Seen,
    /// The API server reported for exactly this UID that the parent is gone.
    pub parent_gone: bool,
    /// The API server reported for exactly this UID that the kubelet refused the parent for good
    /// after an outage: nothing starts it any more, and only its owner can replace it.
    pub parent_rejected: Seen,
    /// The manifest directory has its link.
    pub linked: Seen,
    /// What runs of any twin of it.
    pub twin: Run,
    /// The present twin has a ready sandbox with its UID.
    pub twin_sandbox: Seen,
}

impl PodFacts {
    /// A captured pod after a reboot: everything is known, nothing of it runs, and the kubelet does
    /// not own it.
    pub fn gone() -> Self {
        Self {
            in_store: true,
            start_group: crate::names::DEFAULT_START_GROUP,
            priority: 0,
            handover: Some(Handover::Overlap),
            host_network: false,
            parent_owned: Seen::No,
            twin_owned: Seen::No,
            parent: Run::Stopped,
            parent_container: Seen::No,
            parent_sandbox: Seen::No,
            slow_start: false,
            parent_ready: Seen::No,
            parent_gone: false,
            parent_rejected: Seen::No,
            linked: Seen::Unknown,
            twin: Run::Stopped,
            twin_sandbox: Seen::No,
        }
    }

    /// From a checkpoint's policy; everything else is unknown.
    pub fn of(policy: &Policy, exclusive_host_ports: bool) -> Self {
        Self {
            in_store: true,
            start_group: policy.start_group,
            handover: Some(policy.handover(exclusive_host_ports)),
            host_network: policy.host_network,
            slow_start: policy.slow_start,
            ..Self::default()
        }
    }
}

/// What a pass knows about the node.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Time since boot.
    pub now: Duration,
    /// Contact with the API server; `None`: unknown.
    pub contact: Option<Contact>,
    /// The kubelet process.
    pub kubelet: Kubelet,
    /// Its process id, which distinguishes it from an earlier kubelet; `None`: it did not answer.
    pub kubelet_pid: Option<u32>,
    /// The kubelet's own process has an established connection to the API server on which bytes
    /// arrived.
    pub kubelet_connected: Seen,
    /// The checkpoints' pods.
    pub pods: BTreeMap<Key, PodFacts>,
    /// How long ago the agent gave a sign of life; `None`: never in this boot.
    pub agent_silence: Option<Duration>,
    /// The agent last asked the supervisor to leave the node.
    pub agent_retires: bool,
    /// The kubelet owns a pod that came from the API server.
    pub kubelet_synced: Seen,
    /// It has already created a container for such a pod, so it has read the services, without
    /// which it creates none.
    pub kubelet_makes_containers: Seen,
}
