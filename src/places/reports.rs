//! What agent and supervisor report to each other and to the command line, in files of the run
//! directory.
//!
//! Times are in milliseconds on the boot-time clock; the run directory never outlives its boot.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::node::contact::Class;
use crate::pod::id::PodId;
use crate::pod::room::Demand;

/// `agent.yaml`, written by the agent: it is alive, and these parents are Ready according to the
/// API server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentReport {
    /// When the agent last wrote the file.
    pub heartbeat: u64,
    /// IDs of the running containers (without a prefix like `containerd://`) of each marked parent
    /// that is Ready, by pod. The IDs show whether this is from now or from before
    /// an outage.
    pub ready: BTreeMap<PodId, Vec<String>>,
    /// UID of each parent that is gone according to the API server, which was asked for exactly
    /// this UID.
    pub gone: BTreeMap<PodId, String>,
    /// UID of each parent that the kubelet rejected for good after an outage: its phase is Failed,
    /// and only its owner can replace it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rejected: BTreeMap<PodId, String>,
    /// The agent has not heard from the API server lately, so that `rejected` may be out of date.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unheard: bool,
    /// Resources and ports that the API server's pods take on this node; absent if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken: Option<Demand>,
    /// What marks each marked pod, in words.
    pub marked: BTreeMap<PodId, String>,
    /// Marked pods that are refused, with the reasons.
    pub refused: BTreeMap<PodId, Vec<String>>,
    /// What the agent could not find out or do on this node, each with what to do about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// What is wrong with the node itself and would keep its pods from coming back or slow them
    /// down, by [`crate::reasons::Risk`], each with what to do about it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub risks: BTreeMap<String, String>,
    /// The installation is being removed: the supervisor leaves the node as soon as no pod needs
    /// it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub retire: bool,
}

/// Name of the file with [`AgentReport`].
pub const AGENT: &str = "agent.yaml";
/// Name of the file with [`Status`].
pub const STATUS: &str = "status.yaml";
/// Name of the file with [`Outages`].
pub const OUTAGES: &str = "outages.yaml";

/// `status.yaml`, written by the supervisor when something in it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// Name and version of the program that wrote the file.
    pub written_by: String,
    /// Contact with the API server; absent before the first probe.
    pub contact: Option<ContactReport>,
    /// The kubelet gets nothing from an API server that answers; absent if it does, or if that is
    /// unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked_out: Option<LockedOut>,
    /// What the supervisor could not find out or do, each with what to do about it.
    pub problems: Vec<String>,
    /// Why the supervisor cannot close the kubelet's connections; absent if it can, if it is told
    /// not to, or if that is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cannot_unstick: Option<String>,
    /// Why the supervisor does not know what runs on the node; absent if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blind: Option<String>,
    /// The checkpoints of the node.
    pub pods: Vec<PodReport>,
}

/// A kubelet that gets nothing from an API server that answers; it may also have only just started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LockedOut {
    /// Process ID of the kubelet.
    pub kubelet_pid: Option<u32>,
    /// Since when.
    pub since: u64,
}

/// Contact with the API server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContactReport {
    /// The class of contact.
    pub class: Class,
    /// Since when.
    pub since: u64,
}

/// Phase of a checkpoint.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
pub enum Phase {
    /// The twin does not run.
    #[default]
    Inactive,
    /// The twin is linked.
    Active,
    /// The twin serves on until the parent has taken over.
    Released,
    /// The twin should be active but cannot be.
    Blocked,
}

/// One checkpoint as the supervisor sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodReport {
    /// Namespace of the parent.
    pub namespace: String,
    /// Name of the parent.
    pub name: String,
    /// UID of the parent.
    pub parent_uid: String,
    /// Phase of the checkpoint.
    pub phase: Phase,
    /// Why it is blocked, or active although the API server answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The reason in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// UID of the twin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub twin_uid: Option<String>,
}

/// `outages.yaml`, written by the supervisor: what it did in each outage of this boot, oldest
/// first, the last 20.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Outages {
    /// The outages in which something was activated.
    pub outages: Vec<Outage>,
    /// Counts over all outages of this boot, including those no longer listed.
    pub counts: Counts,
}

/// Counts over all outages of a boot; a restarted supervisor goes on counting.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Counts {
    /// Outages in which something was activated.
    pub outages: u64,
    /// Attempts to link a twin, by [`crate::names::activation_results`].
    pub activations: BTreeMap<String, u64>,
    /// How often the connections of a kubelet that waited for the API server were closed.
    pub unstuck: u64,
    /// Time from the decision to activate until all containers of the twin ran.
    pub activation: Times,
    /// Time from the release, at the first answer of the API server, until the parent ran.
    pub takeover: Times,
    /// Time from when the parent ran until nothing of its twin ran any more.
    pub overlap: Times,
}

/// A histogram of durations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Times {
    /// Number of durations.
    pub count: u64,
    /// Sum of all durations, in milliseconds.
    pub sum: u64,
    /// Number of durations up to each of [`Times::BOUNDS`] and above the bound before it.
    pub within: Vec<u64>,
}

impl Times {
    /// Upper bounds in milliseconds: from a quick capture to a hand-over that is worth a look.
    pub const BOUNDS: [u64; 12] = [
        10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000,
    ];

    /// Adds a duration, in milliseconds.
    pub fn add(&mut self, time: u64) {
        self.count = self.count.saturating_add(1);
        self.sum = self.sum.saturating_add(time);
        self.within.resize(Self::BOUNDS.len(), 0);
        let slot = Self::BOUNDS.iter().position(|bound| time <= *bound);
        if let Some(within) = slot.and_then(|slot| self.within.get_mut(slot)) {
            *within = within.saturating_add(1);
        }
    }
}

/// One outage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Outage {
    /// When contact was lost.
    pub from: u64,
    /// The same as wall-clock time, RFC 3339.
    pub from_wall: String,
    /// When the API server answered again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// The same as wall-clock time, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_wall: Option<String>,
    /// What was done for each pod.
    pub pods: BTreeMap<PodId, PodOutage>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde demands this signature
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What was done for one pod in one outage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodOutage {
    /// UID of the parent.
    pub parent_uid: String,
    /// When it was first decided to link the twin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided: Option<u64>,
    /// When the twin was linked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activated: Option<u64>,
    /// When all containers of the twin ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving: Option<u64>,
    /// How often the twin was linked again because contact was lost before its parent took over.
    #[serde(skip_serializing_if = "is_zero")]
    pub taken_back: u32,
    /// When the twin's link was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub released: Option<u64>,
    /// When the parent ran again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken_over: Option<u64>,
    /// When nothing of the twin ran any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<u64>,
}
