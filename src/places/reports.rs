//! What the two parts tell each other and the command line through files in the run directory.
//!
//! Times are milliseconds of the boot-time clock; the run directory never outlives its boot.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::node::contact::Class;
use crate::pod::id::PodId;
use crate::pod::room::Demand;

/// `agent.yaml`, written by the agent: it lives, and these parents are Ready by the API server's word.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentWord {
    /// When the agent last wrote it.
    pub heartbeat: u64,
    /// Ids of the running containers (without `containerd://` or the like) of each marked parent that is Ready, by
    /// `<namespace>_<pod>`. The ids tell a word of now from one of before an outage.
    pub ready: BTreeMap<PodId, Vec<String>>,
    /// UID of each parent that the API server says, for that very UID, is gone.
    pub gone: BTreeMap<PodId, String>,
    /// UID of each parent that came back from an outage and was refused by the kubelet for good: its object says Failed, and
    /// nobody but its owner replaces it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rejected: BTreeMap<PodId, String>,
    /// The agent has not heard from the API server lately, so who is refused now is not known: `rejected` is from before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unheard: bool,
    /// What the pods of the API server take on this node; none: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken: Option<Demand>,
    /// What marks each pod that is marked, in words, by `<namespace>_<pod>`.
    pub marked: BTreeMap<PodId, String>,
    /// Marked pods that are refused, with the reasons, by `<namespace>_<pod>`.
    pub refused: BTreeMap<PodId, Vec<String>>,
    /// What the agent could not learn or do on this node, each with what to do about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// What of the node itself would keep its pods from coming back, or make that slow, by [`crate::reasons::Risk`], each with
    /// what to do about it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub risks: BTreeMap<String, String>,
    /// The installation is being removed: the supervisor leaves the node as soon as nobody needs it there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub retire: bool,
}

/// Name of the file with [`AgentWord`].
pub const AGENT: &str = "agent.yaml";
/// Name of the file with [`Status`].
pub const STATUS: &str = "status.yaml";
/// Name of the file with [`Outages`].
pub const OUTAGES: &str = "outages.yaml";

/// `status.yaml`, written by the supervisor when something in it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// Program and version.
    pub written_by: String,
    /// Contact with the API server; none: not asked yet.
    pub contact: Option<ContactReport>,
    /// The kubelet gets nothing from an API server that answers; none: that is not so, or not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked_out: Option<LockedOut>,
    /// What the supervisor could not learn or do, each with what to do about it.
    pub problems: Vec<String>,
    /// Why the supervisor cannot close connections of the kubelet; none: it can, may not, or that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cannot_unstick: Option<String>,
    /// Its checkpoints.
    pub pods: Vec<PodReport>,
}

/// A kubelet that gets nothing from an API server that answers, be it that it has only just started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LockedOut {
    /// Its process id.
    pub kubelet_pid: Option<u32>,
    /// Since when.
    pub since: u64,
}

/// Contact with the API server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContactReport {
    /// Its class.
    pub class: Class,
    /// Since when.
    pub since: u64,
}

/// Phase of a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Phase {
    /// Nothing of it runs.
    #[default]
    Inactive,
    /// Its twin is linked.
    Active,
    /// Its twin serves on until the parent has taken over.
    Released,
    /// It should be active and cannot.
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
    /// Phase.
    pub phase: Phase,
    /// Why it is blocked, or active although the API server answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// UID of the twin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub twin_uid: Option<String>,
}

/// `outages.yaml`, written by the supervisor: what it did in each outage of this boot, oldest first, the last 20.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Outages {
    /// The outages in which something was activated.
    pub outages: Vec<Outage>,
    /// Of all outages of this boot, forgotten ones too.
    pub counts: Counts,
}

/// What is counted over all outages of a boot; a supervisor that starts again goes on counting.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Counts {
    /// Outages in which something was activated.
    pub outages: u64,
    /// Attempts to link a twin, by [`crate::names::activation_results`].
    pub activations: BTreeMap<String, u64>,
    /// How often the kubelet waited for the API server and its waiting connections were closed.
    pub unstuck: u64,
    /// From the decision to activate to all containers of the twin running.
    pub activation: Times,
    /// From the release, which is the first sign of the API server, to the parent running.
    pub takeover: Times,
    /// From the parent running to nothing of its twin running.
    pub overlap: Times,
}

/// A histogram of durations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Times {
    /// How many there were.
    pub count: u64,
    /// All together, in milliseconds.
    pub sum: u64,
    /// How many took no longer than each of [`Times::BOUNDS`], and longer than the one before.
    pub within: Vec<u64>,
}

impl Times {
    /// Upper bounds, in milliseconds: from a capture to a hand-over that somebody should look at.
    pub const BOUNDS: [u64; 12] = [10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000];

    /// Takes one in, in milliseconds.
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
    /// The same on the wall clock, RFC 3339.
    pub from_wall: String,
    /// When the API server answered again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// The same on the wall clock, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_wall: Option<String>,
    /// What was done for each pod, by `<namespace>_<pod>`.
    pub pods: BTreeMap<PodId, PodOutage>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's form
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What was done for one pod in one outage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodOutage {
    /// UID of the parent.
    pub parent_uid: String,
    /// It was first decided to link the twin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided: Option<u64>,
    /// The twin was linked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activated: Option<u64>,
    /// All its containers ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving: Option<u64>,
    /// How often it was linked again because contact was lost before its parent took over.
    #[serde(skip_serializing_if = "is_zero")]
    pub taken_back: u32,
    /// Its link was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub released: Option<u64>,
    /// The parent ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken_over: Option<u64>,
    /// Nothing of the twin ran any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<u64>,
}
