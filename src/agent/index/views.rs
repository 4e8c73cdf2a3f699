//! What others read from the index.

use std::collections::BTreeSet;

use crate::agent::index::{Checkpoint, Index, Pod};
use crate::agent::leftovers::Neighbours;
use crate::agent::network::{Needs, Support};
use crate::agent::outcome::{Outcome, Stored};
use crate::places::ages::Aging;
use crate::places::reports::AgentReport;
use crate::pod::id::PodId;
use crate::pod::room::Demand;

/// A marked pod and its state, for its PodCheckpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    /// The pod.
    pub key: &'a PodId,
    /// Its UID.
    pub uid: &'a str,
    /// What marks it.
    pub marked: &'a str,
    /// Result of its last capture.
    pub outcome: &'a Outcome,
    /// What the store has of this very pod.
    pub stored: Option<&'a Stored>,
}

impl Index {
    /// Marked pods, with UIDs, that the kubelet rejected for good and that the store has. No
    /// controller replaces them.
    pub(crate) fn rejected(&self) -> impl Iterator<Item = (&PodId, &str)> {
        let known = self
            .pods
            .iter()
            .filter(|(_, pod)| pod.observed.rejected && !pod.observed.ending);
        known
            .map(|(key, pod)| (key, pod.observed.uid.as_str()))
            .filter(|(key, uid)| self.has_stored(key, uid))
    }

    /// The checkpoints with a maximum age. `fresh`: the API server answered lately. One is current
    /// if its pod is there, marked, and captured as it is.
    pub(crate) fn aging(&self, fresh: bool) -> Vec<Aging> {
        let aging = |(key, checkpoint): (&PodId, &Checkpoint)| {
            let stored = &checkpoint.stored;
            let is_captured = |pod: &Pod| {
                pod.observed.uid == stored.uid
                    && pod.listed
                    && pod.mark().is_some()
                    && pod.outcome == Outcome::Captured
                    && !pod.is_due()
            };
            Some(Aging {
                key: key.clone(),
                uid: stored.uid.clone(),
                generation: stored.generation,
                max_age: stored.max_age?,
                is_current: fresh && self.complete && self.pods.get(key).is_some_and(is_captured),
            })
        };
        self.checkpoints.iter().filter_map(aging).collect()
    }

    /// What all pods that the API server knows take of the node; `None` before a list was complete.
    pub(crate) fn taken(&self) -> Option<Demand> {
        self.complete.then(|| self.census.demand())
    }

    /// The content of `agent.yaml`, for the supervisor and the command line. `fresh`: the API
    /// server answered lately, so pods that it reported as Ready still count as Ready.
    pub(crate) fn report(&self, fresh: bool) -> AgentReport {
        let named = |pod: &Pod| (pod.observed.key.clone(), pod.observed.containers.clone());
        let ready = |pod: &&Pod| fresh && pod.observed.ready && !pod.observed.ending;
        AgentReport {
            ready: self.pods.values().filter(ready).map(named).collect(),
            taken: self.taken(),
            gone: self
                .gone
                .iter()
                .map(|(key, (uid, _))| (key.clone(), uid.clone()))
                .collect(),
            marked: self
                .pods
                .iter()
                .filter_map(|(key, pod)| Some((key.clone(), pod.mark()?.to_owned())))
                .collect(),
            refused: self
                .pods
                .iter()
                .filter_map(|(key, pod)| match &pod.outcome {
                    Outcome::Refused(reasons) => Some((
                        key.clone(),
                        reasons.iter().map(ToString::to_string).collect(),
                    )),
                    _ => None,
                })
                .collect(),
            ..AgentReport::default()
        }
    }

    /// Every marked pod, once a list was complete.
    pub(crate) fn views(&self) -> impl Iterator<Item = View<'_>> {
        self.pods
            .iter()
            .filter(|_| self.complete)
            .filter_map(|(key, pod)| {
                Some(View {
                    key,
                    uid: &pod.observed.uid,
                    marked: pod.mark()?,
                    outcome: &pod.outcome,
                    stored: self
                        .stored(key)
                        .filter(|stored| stored.uid == pod.observed.uid),
                })
            })
    }

    /// Owners of pods without a checkpoint that captured pods need. Not among them are static pods,
    /// which come back by themselves, and pods of which it is not known yet whether they are marked
    /// or can be captured.
    pub(crate) fn lacking(&self) -> BTreeSet<(Support, &str)> {
        let checkpoint = self
            .pods
            .iter()
            .filter(|(key, pod)| self.has_stored(key, &pod.observed.uid));
        let needs: Vec<Needs> = checkpoint.map(|(_, pod)| pod.observed.needs).collect();
        let gets_none = |key: &PodId| {
            let pod = self.pods.get(key);
            pod.is_none_or(|pod| pod.mark().is_some() && matches!(pod.outcome, Outcome::Refused(_)))
        };
        let lacks =
            |key: &PodId, uid: &str| self.complete && !self.has_stored(key, uid) && gets_none(key);
        self.census
            .supporting(lacks)
            .filter(|(support, _)| needs.iter().any(|needs| needs.includes(*support)))
            .collect()
    }

    /// What is known of the pods of this node that may need what bootkube's checkpointer left.
    pub(crate) fn neighbours(&self) -> Neighbours {
        Neighbours {
            is_heard: self.complete,
            checkpointer: self.census.bootkube_checkpointer().cloned(),
            unprotected: self
                .census
                .pods()
                .filter(|(key, uid)| !self.has_stored(key, uid))
                .map(|(key, _)| key.clone())
                .collect(),
            ..Neighbours::default()
        }
    }
}
