//! Marked pods and stored checkpoints, and what to do about them: a pure function of the pods that
//! the watch reported, what the store holds, the results of earlier work, and the time. No client,
//! no files, no clock: everything comes in through a method, and [`Index::decide`] says what to
//! start.
//!
//! Silence is never an answer here. A checkpoint leaves only by [`Action::Remove`], and that
//! follows either from the watch reporting this very pod without a mark, or from an
//! [`Answer::Gone`] for its UID.

mod views;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::agent::census::Census;
use crate::agent::observed::{Marked, Observed};
use crate::agent::outcome::{Captured, Outcome, Stored};
use crate::client::gone::Answer;
use crate::client::retry::Retry;
use crate::pod::id::PodId;

pub(crate) use views::View;

/// Captures that run at the same time: enough that a slow one does not delay the others, few enough
/// for the memory.
const CONCURRENT: usize = 4;
/// The most bytes of checkpoints that are captured at the same time, by the sizes of their last
/// generations: a capture takes several times that in memory. A larger one is captured alone.
const BUDGET: u64 = 16 << 20;
/// What a pod counts that has no checkpoint yet.
const UNKNOWN_SIZE: u64 = BUDGET / CONCURRENT as u64;
/// The least time from the end of a pod's capture to the start of its next one: a pod that changes
/// all the time costs the node a write each time.
const REST: Duration = Duration::from_secs(5);
/// How long after the removal of a checkpoint `agent.yaml` lists its parent as gone.
const GONE_LISTED: Duration = Duration::from_hours(1);

/// Work to start.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Capture this pod; the result goes to [`Index::captured`].
    Capture {
        /// The pod.
        key: PodId,
        /// Its JSON, [`Observed::object`].
        object: Arc<[u8]>,
    },
    /// Ask the API server whether this pod is gone; the answer goes to [`Index::answered`].
    Ask {
        /// The pod.
        key: PodId,
        /// Its UID.
        uid: String,
    },
    /// Remove the checkpoint of this pod; the result goes to [`Index::removed`].
    Remove {
        /// The pod.
        key: PodId,
        /// UID of the parent that is gone or no longer marked.
        uid: String,
    },
}

/// A pod that is marked, or may be.
#[derive(Debug)]
struct Pod {
    observed: Observed,
    /// Reported since the current list began.
    listed: bool,
    /// Fingerprint at its last capture that was stored or refused.
    done: Option<u64>,
    /// To be captured again, whatever the fingerprint says.
    dirty: bool,
    /// When it may be captured; while it waits for its turn, since when.
    not_before: Duration,
    /// When a change may cause another capture: [`REST`] after the last one.
    rested: Duration,
    retry: Retry,
    outcome: Outcome,
}

/// What is known about the parent of a checkpoint in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parent {
    /// The watch reports it, or no list has been complete yet.
    Present,
    /// The watch does not report it: the API server must be asked.
    Missing,
    /// Proven gone at this time.
    Gone(Duration),
    /// The watch reports it without a mark.
    Unmarked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Busy {
    No,
    Asking,
    Removing,
}

#[derive(Debug)]
struct Checkpoint {
    stored: Stored,
    parent: Parent,
    busy: Busy,
    not_before: Duration,
    retry: Retry,
}

impl Checkpoint {
    fn new(stored: Stored, parent: Parent) -> Self {
        Self {
            stored,
            parent,
            busy: Busy::No,
            not_before: Duration::ZERO,
            retry: Retry::default(),
        }
    }
}

/// A capture in progress.
#[derive(Debug)]
struct Running {
    uid: String,
    fingerprint: u64,
    /// What became of the pod meanwhile.
    parent: Parent,
}

/// All marked pods and all stored checkpoints.
#[derive(Debug)]
pub(crate) struct Index {
    retention: Duration,
    complete: bool,
    pods: BTreeMap<PodId, Pod>,
    checkpoints: BTreeMap<PodId, Checkpoint>,
    running: BTreeMap<PodId, Running>,
    /// The last turn of each namespace: the number of the capture that it got.
    turns: BTreeMap<String, u64>,
    gone: BTreeMap<PodId, (String, Duration)>,
    census: Census,
}

impl Index {
    /// Starts with what the store holds.
    pub(crate) fn new(retention: Duration, stored: Vec<Stored>) -> Self {
        let checkpoints = stored
            .into_iter()
            .map(|stored| (stored.key.clone(), Checkpoint::new(stored, Parent::Present)))
            .collect();
        Self {
            retention,
            complete: false,
            pods: BTreeMap::new(),
            checkpoints,
            running: BTreeMap::new(),
            turns: BTreeMap::new(),
            gone: BTreeMap::new(),
            census: Census::default(),
        }
    }

    /// A list begins: pods that it does not name are missing at its end.
    pub(crate) fn begin_list(&mut self) {
        for pod in self.pods.values_mut() {
            pod.listed = false;
        }
        self.census.begin_list();
    }

    /// The watch reported a pod.
    pub(crate) fn see(&mut self, mut observed: Observed, now: Duration) {
        let key = observed.key.clone();
        let parent = if observed.marked == Marked::No {
            Parent::Unmarked
        } else {
            Parent::Present
        };
        if observed.marked == Marked::Unknown
            && let Some(pod) = self
                .pods
                .get(&key)
                .filter(|pod| pod.observed.uid == observed.uid)
        {
            observed.marked = pod.observed.marked.clone();
        }
        // an unreadable checkpoint is taken to belong to the pod that has the name now
        if let Some(checkpoint) = self
            .checkpoints
            .get_mut(&key)
            .filter(|checkpoint| checkpoint.stored.uid.is_empty() && checkpoint.busy == Busy::No)
        {
            checkpoint.stored.uid.clone_from(&observed.uid);
        }
        self.set_parent(&key, &observed.uid, parent, now);
        self.census.see(&observed);
        // another pod of the same name means that the one before it is not here any more
        if let Some(checkpoint) = self
            .checkpoints
            .get_mut(&key)
            .filter(|checkpoint| checkpoint.stored.uid != observed.uid)
            && checkpoint.parent == Parent::Present
        {
            checkpoint.parent = Parent::Missing;
        }
        if let Some(running) = self
            .running
            .get_mut(&key)
            .filter(|running| running.uid != observed.uid)
        {
            running.parent = Parent::Missing;
        }
        if observed.marked == Marked::No {
            self.pods.remove(&key);
            return;
        }
        match self.pods.get_mut(&key) {
            Some(pod) if pod.observed.uid == observed.uid => {
                if pod.observed.fingerprint != observed.fingerprint {
                    let soonest = now.max(pod.rested);
                    // one that waits for its turn keeps it
                    pod.not_before = if pod.is_due() {
                        pod.not_before.min(soonest)
                    } else {
                        soonest
                    };
                    pod.retry.reset();
                }
                pod.observed = observed;
                pod.listed = true;
            }
            _ => {
                let pod = Pod {
                    observed,
                    listed: true,
                    done: None,
                    dirty: false,
                    not_before: now,
                    rested: Duration::ZERO,
                    retry: Retry::default(),
                    outcome: Outcome::Waiting,
                };
                self.pods.insert(key, pod);
            }
        }
    }

    /// The list is complete: pods that it did not name are not on this node any more, according to
    /// the watch.
    pub(crate) fn end_list(&mut self, now: Duration) {
        self.complete = true;
        self.pods.retain(|_, pod| pod.listed);
        self.census.end_list();
        let missing: Vec<(PodId, String)> = self
            .checkpoints
            .iter()
            .map(|(key, checkpoint)| (key, &checkpoint.stored.uid))
            .chain(
                self.running
                    .iter()
                    .map(|(key, running)| (key, &running.uid)),
            )
            .filter(|(key, uid)| {
                self.pods
                    .get(*key)
                    .is_none_or(|pod| pod.observed.uid != **uid)
            })
            .map(|(key, uid)| (key.clone(), uid.clone()))
            .collect();
        for (key, uid) in missing {
            self.lose(&key, &uid, now);
        }
    }

    /// The watch reported that a pod was deleted.
    pub(crate) fn delete(&mut self, key: &PodId, uid: &str, now: Duration) {
        if self
            .pods
            .get(key)
            .is_some_and(|pod| pod.observed.uid == uid)
        {
            self.pods.remove(key);
        }
        self.census.delete(key, uid);
        self.lose(key, uid, now);
    }

    /// A volume of this pod has new content.
    pub(crate) fn swapped(&mut self, key: &PodId) {
        if let Some(pod) = self.pods.get_mut(key) {
            pod.dirty = true;
        }
    }

    /// Something that every capture depends on has changed.
    pub(crate) fn swapped_all(&mut self) {
        for pod in self.pods.values_mut() {
            pod.dirty = true;
        }
    }

    /// The work to start now.
    pub(crate) fn decide(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        while self.running.len() < CONCURRENT
            && let Some(key) = self.next_capture(now)
        {
            actions.extend(self.begin_capture(key));
        }
        let keys: Vec<PodId> = self.checkpoints.keys().cloned().collect();
        for key in keys {
            let succeeded = self.has_successor(&key);
            let (complete, retention, flying) = (
                self.complete,
                self.retention,
                self.running.contains_key(&key),
            );
            let Some(checkpoint) = self
                .checkpoints
                .get_mut(&key)
                .filter(|checkpoint| checkpoint.busy == Busy::No && checkpoint.not_before <= now)
            else {
                continue;
            };
            let uid = checkpoint.stored.uid.clone();
            match checkpoint.parent {
                Parent::Missing if complete => {
                    checkpoint.busy = Busy::Asking;
                    actions.push(Action::Ask { key, uid });
                }
                Parent::Gone(since)
                    if !flying && (succeeded || now.saturating_sub(since) >= retention) =>
                {
                    checkpoint.busy = Busy::Removing;
                    actions.push(Action::Remove { key, uid });
                }
                Parent::Unmarked if !flying => {
                    checkpoint.busy = Busy::Removing;
                    actions.push(Action::Remove { key, uid });
                }
                _ => {}
            }
        }
        self.gone.retain(|key, (_, since)| {
            self.checkpoints.contains_key(key) || now.saturating_sub(*since) < GONE_LISTED
        });
        actions
    }

    /// The pod to capture next: of the namespace with the fewest captures in progress, then of the
    /// one whose turn is longest ago, the pod that has waited longest. So pods that change all the
    /// time keep no pod of another namespace waiting. `None`: there is none, or it must wait for the
    /// memory that other captures take; nothing smaller overtakes it.
    fn next_capture(&self, now: Duration) -> Option<PodId> {
        let removing = |key: &PodId| {
            self.checkpoints
                .get(key)
                .is_some_and(|checkpoint| checkpoint.busy == Busy::Removing)
        };
        let ready = self.pods.iter().filter(|(key, pod)| {
            pod.is_due()
                && pod.not_before <= now
                && !self.running.contains_key(*key)
                && !removing(key)
        });
        let mut running: BTreeMap<&str, usize> = BTreeMap::new();
        for key in self.running.keys() {
            *running.entry(key.namespace()).or_default() += 1;
        }
        let next = ready.min_by_key(|(key, pod)| {
            let namespace = key.namespace();
            let turn = self.turns.get(namespace).copied().unwrap_or_default();
            let running = running.get(namespace).copied().unwrap_or_default();
            (running, turn, pod.not_before)
        });
        let (key, _) = next?;
        let taken: u64 = self.running.keys().map(|key| self.size(key)).sum();
        let fits = self.running.is_empty() || taken.saturating_add(self.size(key)) <= BUDGET;
        fits.then(|| key.clone())
    }

    /// About how many bytes the next generation of a pod takes.
    fn size(&self, key: &PodId) -> u64 {
        self.stored(key).map_or(UNKNOWN_SIZE, |stored| stored.size)
    }

    fn begin_capture(&mut self, key: PodId) -> Option<Action> {
        let pod = self.pods.get_mut(&key)?;
        pod.dirty = false;
        let Observed {
            uid,
            fingerprint,
            object,
            ..
        } = pod.observed.clone();
        let turn = self.turns.values().max().copied().unwrap_or_default();
        let pods = &self.pods;
        self.turns
            .retain(|namespace, _| pods.keys().any(|key| key.namespace() == namespace));
        self.turns
            .insert(key.namespace().to_owned(), turn.saturating_add(1));
        self.running.insert(
            key.clone(),
            Running {
                uid,
                fingerprint,
                parent: Parent::Present,
            },
        );
        Some(Action::Capture { key, object })
    }

    /// When [`Index::decide`] will have work that it does not have now. Work that is due and was
    /// not started waits for other work to end, not for a time.
    pub(crate) fn wake(&self, now: Duration) -> Option<Duration> {
        let captures = self
            .pods
            .iter()
            .filter(|(key, pod)| pod.is_due() && !self.running.contains_key(*key))
            .map(|(_, pod)| pod.not_before);
        let removals = self
            .checkpoints
            .values()
            .filter(|checkpoint| checkpoint.busy == Busy::No)
            .filter_map(|checkpoint| match checkpoint.parent {
                Parent::Present => None,
                Parent::Missing if !self.complete => None,
                Parent::Missing | Parent::Unmarked => Some(checkpoint.not_before),
                Parent::Gone(since) => Some(
                    checkpoint
                        .not_before
                        .max(since.saturating_add(self.retention)),
                ),
            });
        captures.chain(removals).filter(|time| *time > now).min()
    }

    /// A capture ended.
    pub(crate) fn captured(&mut self, key: &PodId, captured: Captured, now: Duration) {
        let Some(running) = self.running.remove(key) else {
            return;
        };
        if let Captured::Stored(stored) = &captured {
            self.checkpoints.insert(
                key.to_owned(),
                Checkpoint::new(stored.clone(), running.parent),
            );
        }
        let Some(pod) = self
            .pods
            .get_mut(key)
            .filter(|pod| pod.observed.uid == running.uid)
        else {
            return;
        };
        pod.rested = now.saturating_add(REST);
        pod.outcome = match captured {
            Captured::Stored(_) => Outcome::Captured,
            Captured::Refused(reasons) => Outcome::Refused(reasons),
            Captured::Failed { reason, message } => {
                pod.dirty = true;
                pod.not_before = now.saturating_add(pod.retry.pause());
                pod.outcome = Outcome::Failed { reason, message };
                return;
            }
        };
        pod.done = Some(running.fingerprint);
        pod.not_before = pod.rested;
        pod.retry.reset();
    }

    /// The API server was asked for a pod.
    pub(crate) fn answered(&mut self, key: &PodId, uid: &str, answer: Answer, now: Duration) {
        let asked = |checkpoint: &&mut Checkpoint| {
            checkpoint.stored.uid == uid && checkpoint.busy == Busy::Asking
        };
        let Some(checkpoint) = self.checkpoints.get_mut(key).filter(asked) else {
            return;
        };
        checkpoint.busy = Busy::No;
        match answer {
            // what the watch reported meanwhile is newer than the question
            _ if checkpoint.parent != Parent::Missing => {}
            Answer::Gone => {
                checkpoint.parent = Parent::Gone(now);
                checkpoint.retry.reset();
                self.gone.insert(key.to_owned(), (uid.to_owned(), now));
            }
            Answer::There | Answer::Unknown => {
                checkpoint.not_before = now.saturating_add(checkpoint.retry.pause());
            }
        }
    }

    /// A removal ended, with success or not.
    pub(crate) fn removed(&mut self, key: &PodId, uid: &str, well: bool, now: Duration) {
        let Some(checkpoint) = self
            .checkpoints
            .get_mut(key)
            .filter(|checkpoint| checkpoint.stored.uid == uid)
        else {
            return;
        };
        if well {
            self.checkpoints.remove(key);
            if let Some(pod) = self.pods.get_mut(key).filter(|pod| pod.observed.uid == uid) {
                // marked again while it was being removed
                pod.done = None;
                pod.outcome = Outcome::Waiting;
            }
        } else {
            checkpoint.busy = Busy::No;
            checkpoint.not_before = now.saturating_add(checkpoint.retry.pause());
        }
    }

    /// Every pod of this node.
    pub(crate) fn census(&self) -> &Census {
        &self.census
    }

    /// The newest checkpoint of this name is of this very pod.
    pub(crate) fn has_stored(&self, key: &PodId, uid: &str) -> bool {
        self.stored(key).is_some_and(|stored| stored.uid == uid)
    }

    /// Is it unknown yet whether this very pod is marked?
    pub(crate) fn is_undecided(&self, key: &PodId, uid: &str) -> bool {
        self.pods
            .get(key)
            .is_some_and(|pod| pod.observed.uid == uid && pod.observed.marked == Marked::Unknown)
    }

    /// Has a list ever been complete?
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Has a capture ended, with success or not, of every Ready pod?
    pub(crate) fn is_settled(&self) -> bool {
        let waits = |pod: &Pod| {
            pod.observed.ready && !pod.observed.ending && pod.outcome == Outcome::Waiting
        };
        self.complete && !self.pods.values().any(waits)
    }

    /// What the store has of all pods.
    pub(crate) fn all_stored(&self) -> impl Iterator<Item = &Stored> {
        self.checkpoints
            .values()
            .map(|checkpoint| &checkpoint.stored)
            .filter(|stored| stored.generation > 0)
    }

    /// What the store has of a pod.
    pub(crate) fn stored(&self, key: &PodId) -> Option<&Stored> {
        self.checkpoints
            .get(key)
            .map(|checkpoint| &checkpoint.stored)
            .filter(|stored| stored.generation > 0)
    }

    /// Is this very pod marked, or may it be, according to the watch?
    pub(crate) fn has(&self, key: &PodId, uid: &str) -> bool {
        self.pods
            .get(key)
            .is_some_and(|pod| pod.observed.uid == uid)
    }

    fn lose(&mut self, key: &PodId, uid: &str, now: Duration) {
        // an unmarked pod or one that is proven gone is not merely missing
        if self.checkpoints.get(key).is_none_or(|checkpoint| {
            checkpoint.stored.uid != uid || checkpoint.parent == Parent::Present
        }) {
            self.set_parent(key, uid, Parent::Missing, now);
        }
    }

    fn set_parent(&mut self, key: &PodId, uid: &str, parent: Parent, now: Duration) {
        if let Some(checkpoint) = self
            .checkpoints
            .get_mut(key)
            .filter(|checkpoint| checkpoint.stored.uid == uid && checkpoint.parent != parent)
        {
            checkpoint.parent = parent;
            checkpoint.not_before = now;
            checkpoint.retry.reset();
        }
        if let Some(running) = self
            .running
            .get_mut(key)
            .filter(|running| running.uid == uid)
        {
            running.parent = parent;
        }
    }

    /// Is another pod of the same controller captured and present on this node?
    fn has_successor(&self, key: &PodId) -> bool {
        let Some(lost) = self
            .checkpoints
            .get(key)
            .map(|checkpoint| &checkpoint.stored)
            .filter(|lost| lost.owner.is_some())
        else {
            return false;
        };
        self.checkpoints.values().any(|other| {
            other.stored.owner == lost.owner
                && other.stored.uid != lost.uid
                && other.parent == Parent::Present
                && self.has(&other.stored.key, &other.stored.uid)
        })
    }
}

impl Pod {
    fn mark(&self) -> Option<&str> {
        match &self.observed.marked {
            Marked::By(what) => Some(what),
            Marked::No | Marked::Unknown => None,
        }
    }

    fn is_due(&self) -> bool {
        self.mark().is_some()
            && self.observed.ready
            && !self.observed.ending
            && (self.dirty || self.done != Some(self.observed.fingerprint))
    }
}

#[cfg(test)]
mod tests;
