//! What there is to do: a pure function of the pods that the watch told of, what the store holds, what came of earlier
//! work, and now. No client, no files, no clock: everything comes in by a method, and [`Index::decide`] says what to begin.
//!
//! Silence is never an answer here. A checkpoint leaves only by [`Action::Remove`], and that follows either from the
//! watch's own word that this very pod is no longer marked, or from an [`Answer::Gone`] for its UID.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::agent::leftovers::Neighbours;
use crate::agent::network::{Needs, Support};
use crate::capture::Reason;
use crate::client::gone::Answer;
use crate::client::retry::Retry;
use crate::places::reports::AgentWord;
use crate::pod::id::PodId;
use crate::pod::room::Demand;
use crate::reasons::Warning;

/// Captures that run at the same time: enough that a slow one holds nobody up, few enough for the memory.
const CONCURRENT: usize = 4;
/// How long after the removal of a checkpoint the supervisor is told that its parent is gone.
const GONE_TOLD: Duration = Duration::from_hours(1);

/// What marks a pod, in a namespace that we look after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Marked {
    /// This, in words.
    By(String),
    /// Nothing does.
    No,
    /// It cannot be told yet: nothing is begun for it, and nothing of it is removed.
    Unknown,
}

/// A pod as the watch told of it.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)] // what a pod is, each by itself
pub struct Observed {
    /// `<namespace>_<name>`.
    pub key: PodId,
    /// Its UID.
    pub uid: String,
    /// What marks it.
    pub marked: Marked,
    /// Its condition Ready is true.
    pub ready: bool,
    /// Being deleted: it is not captured any more.
    pub ending: bool,
    /// Its kubelet refused it for good, and nobody but its owner replaces it.
    pub rejected: bool,
    /// What it takes of the node; `None`: nothing, or it is counted elsewhere.
    pub demand: Option<Demand>,
    /// What it does for the other pods of the node, and its owner's name.
    pub support: Option<(Support, String)>,
    /// What it needs of them.
    pub needs: Needs,
    /// It is bootkube's checkpointer.
    pub is_bootkubes: bool,
    /// Ids of its running containers, as the runtime knows them.
    pub containers: Vec<String>,
    /// Of everything that a checkpoint depends on: another one means that it must be captured anew.
    pub fingerprint: u64,
    /// The pod as JSON without what nobody needs: a tenth of what the parsed object takes.
    pub object: Arc<[u8]>,
}

/// The newest generation of one pod in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The pod.
    pub key: PodId,
    /// UID of its parent; empty: not known, because nothing of it can be read.
    pub uid: String,
    /// UID of its parent's controller.
    pub owner: Option<String>,
    /// Number of the generation; 0: none can be read.
    pub generation: u64,
    /// Its digest.
    pub digest: String,
    /// Size of its file.
    pub size: u64,
    /// When it was captured, RFC 3339.
    pub captured: String,
    /// What its owner should know.
    pub warnings: Vec<Warning>,
}

impl Stored {
    /// A pod of whose checkpoints none can be read.
    pub fn unread(key: PodId) -> Self {
        Self {
            key,
            uid: String::new(),
            owner: None,
            generation: 0,
            digest: String::new(),
            size: 0,
            captured: String::new(),
            warnings: Vec::new(),
        }
    }
}

/// What the last capture of a pod came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// None was made since the agent began.
    #[default]
    Waiting,
    /// The store has it.
    Captured,
    /// It cannot come back correctly.
    Refused(Vec<Reason>),
    /// A passing fault; it is tried again.
    Failed {
        /// For the condition.
        reason: &'static str,
        /// What went wrong.
        message: String,
    },
}

/// What a capture came to.
#[derive(Clone, Debug)]
pub enum Captured {
    /// The store has this generation, new or the same as before.
    Stored(Stored),
    /// As [`Outcome::Refused`].
    Refused(Vec<Reason>),
    /// As [`Outcome::Failed`].
    Failed {
        /// For the condition.
        reason: &'static str,
        /// What went wrong.
        message: String,
    },
}

/// Something to begin. Each ends with the method of the same name.
#[derive(Clone, Debug)]
pub enum Action {
    /// Capture this pod; then [`Index::captured`].
    Capture {
        /// `<namespace>_<name>`.
        key: PodId,
        /// The pod, [`Observed::object`].
        object: Arc<[u8]>,
    },
    /// Ask the API server whether this pod is gone; then [`Index::answered`].
    Ask {
        /// `<namespace>_<name>`.
        key: PodId,
        /// Its UID.
        uid: String,
    },
    /// Remove its checkpoint; then [`Index::removed`].
    Remove {
        /// `<namespace>_<name>`.
        key: PodId,
        /// UID of the parent that is gone or no longer marked.
        uid: String,
    },
}

/// A pod that is marked, or perhaps is.
#[derive(Debug)]
struct Pod {
    observed: Observed,
    /// Told of since the list began that is being read.
    listed: bool,
    /// Fingerprint at its last capture that was stored or refused.
    done: Option<u64>,
    /// Captured anew whatever the fingerprint says.
    dirty: bool,
    not_before: Duration,
    retry: Retry,
    outcome: Outcome,
}

/// What is known of the parent of a checkpoint in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The watch has it, or no list was complete yet.
    Present,
    /// The watch does not have it: the API server must be asked.
    Missing,
    /// Proven gone at this time.
    Gone(Duration),
    /// The watch has it without a mark.
    Unmarked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Busy {
    No,
    Asking,
    Removing,
}

#[derive(Debug)]
struct Kept {
    stored: Stored,
    fate: Fate,
    busy: Busy,
    not_before: Duration,
    retry: Retry,
}

impl Kept {
    fn new(stored: Stored, fate: Fate) -> Self {
        Self { stored, fate, busy: Busy::No, not_before: Duration::ZERO, retry: Retry::default() }
    }
}

#[derive(Debug)]
struct Flight {
    uid: String,
    fingerprint: u64,
    /// What became of the pod while it was being captured.
    fate: Fate,
}

/// A marked pod with what is known of it, for the report.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// `<namespace>_<name>`.
    pub key: &'a PodId,
    /// Its UID.
    pub uid: &'a str,
    /// What marks it.
    pub marked: &'a str,
    /// What its last capture came to.
    pub outcome: &'a Outcome,
    /// What the store has of this very pod.
    pub stored: Option<&'a Stored>,
}

/// All that the agent knows.
#[derive(Debug)]
pub struct Index {
    retention: Duration,
    complete: bool,
    pods: BTreeMap<PodId, Pod>,
    kept: BTreeMap<PodId, Kept>,
    flights: BTreeMap<PodId, Flight>,
    gone: BTreeMap<PodId, (String, Duration)>,
    taken: BTreeMap<PodId, Taken>,
}

/// What a pod of the API server takes of the node, marked or not.
#[derive(Debug)]
struct Taken {
    uid: String,
    listed: bool,
    demand: Demand,
    support: Option<(Support, String)>,
    is_bootkubes: bool,
}

impl Index {
    /// Begins with what the store holds.
    pub fn new(retention: Duration, stored: Vec<Stored>) -> Self {
        let kept = stored.into_iter().map(|stored| (stored.key.clone(), Kept::new(stored, Fate::Present))).collect();
        Self {
            retention,
            complete: false,
            pods: BTreeMap::new(),
            kept,
            flights: BTreeMap::new(),
            gone: BTreeMap::new(),
            taken: BTreeMap::new(),
        }
    }

    /// A list begins: what it does not name is missing at its end.
    pub fn begin_list(&mut self) {
        for pod in self.pods.values_mut() {
            pod.listed = false;
        }
        for taken in self.taken.values_mut() {
            taken.listed = false;
        }
    }

    /// The watch told of a pod.
    pub fn see(&mut self, mut observed: Observed, now: Duration) {
        let key = observed.key.clone();
        let fate = if observed.marked == Marked::No { Fate::Unmarked } else { Fate::Present };
        if observed.marked == Marked::Unknown
            && let Some(pod) = self.pods.get(&key).filter(|pod| pod.observed.uid == observed.uid)
        {
            observed.marked = pod.observed.marked.clone();
        }
        // what cannot be read is of the pod that has its name now, as far as anybody can tell
        if let Some(kept) = self.kept.get_mut(&key).filter(|kept| kept.stored.uid.is_empty() && kept.busy == Busy::No) {
            kept.stored.uid.clone_from(&observed.uid);
        }
        self.set_fate(&key, &observed.uid, fate, now);
        match observed.demand.clone() {
            Some(demand) => {
                let (uid, support) = (observed.uid.clone(), observed.support.clone());
                let taken = Taken { uid, listed: true, demand, support, is_bootkubes: observed.is_bootkubes };
                self.taken.insert(key.clone(), taken);
            }
            None => {
                self.taken.remove(&key);
            }
        }
        // a pod of the same name is another pod: the one before it is not here any more
        if let Some(kept) = self.kept.get_mut(&key).filter(|kept| kept.stored.uid != observed.uid)
            && kept.fate == Fate::Present
        {
            kept.fate = Fate::Missing;
        }
        if let Some(flight) = self.flights.get_mut(&key).filter(|flight| flight.uid != observed.uid) {
            flight.fate = Fate::Missing;
        }
        if observed.marked == Marked::No {
            self.pods.remove(&key);
            return;
        }
        match self.pods.get_mut(&key) {
            Some(pod) if pod.observed.uid == observed.uid => {
                if pod.observed.fingerprint != observed.fingerprint {
                    pod.not_before = now;
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
                    retry: Retry::default(),
                    outcome: Outcome::Waiting,
                };
                self.pods.insert(key, pod);
            }
        }
    }

    /// The list is complete: what it did not name is not on this node any more, as far as the watch goes.
    pub fn end_list(&mut self, now: Duration) {
        self.complete = true;
        self.pods.retain(|_, pod| pod.listed);
        self.taken.retain(|_, taken| taken.listed);
        let missing: Vec<(PodId, String)> = self
            .kept
            .iter()
            .map(|(key, kept)| (key, &kept.stored.uid))
            .chain(self.flights.iter().map(|(key, flight)| (key, &flight.uid)))
            .filter(|(key, uid)| self.pods.get(*key).is_none_or(|pod| pod.observed.uid != **uid))
            .map(|(key, uid)| (key.clone(), uid.clone()))
            .collect();
        for (key, uid) in missing {
            self.lose(&key, &uid, now);
        }
    }

    /// The watch told that a pod was deleted.
    pub fn delete(&mut self, key: &PodId, uid: &str, now: Duration) {
        if self.pods.get(key).is_some_and(|pod| pod.observed.uid == uid) {
            self.pods.remove(key);
        }
        if self.taken.get(key).is_some_and(|taken| taken.uid == uid) {
            self.taken.remove(key);
        }
        self.lose(key, uid, now);
    }

    /// A volume of this pod has new content.
    pub fn swapped(&mut self, key: &PodId) {
        if let Some(pod) = self.pods.get_mut(key) {
            pod.dirty = true;
        }
    }

    /// Something that every capture depends on has changed.
    pub fn swapped_all(&mut self) {
        for pod in self.pods.values_mut() {
            pod.dirty = true;
        }
    }

    /// What to begin now.
    pub fn decide(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        for (key, pod) in &mut self.pods {
            let removing = self.kept.get(key).is_some_and(|kept| kept.busy == Busy::Removing);
            if self.flights.len() >= CONCURRENT {
                break;
            }
            if removing || self.flights.contains_key(key) || !pod.is_due() || pod.not_before > now {
                continue;
            }
            pod.dirty = false;
            let Observed { uid, fingerprint, object, .. } = pod.observed.clone();
            self.flights.insert(key.clone(), Flight { uid, fingerprint, fate: Fate::Present });
            actions.push(Action::Capture { key: key.clone(), object });
        }
        let keys: Vec<PodId> = self.kept.keys().cloned().collect();
        for key in keys {
            let succeeded = self.has_successor(&key);
            let (complete, retention, flying) = (self.complete, self.retention, self.flights.contains_key(&key));
            let Some(kept) = self.kept.get_mut(&key).filter(|kept| kept.busy == Busy::No && kept.not_before <= now)
            else {
                continue;
            };
            let uid = kept.stored.uid.clone();
            match kept.fate {
                Fate::Missing if complete => {
                    kept.busy = Busy::Asking;
                    actions.push(Action::Ask { key, uid });
                }
                Fate::Gone(since) if !flying && (succeeded || now.saturating_sub(since) >= retention) => {
                    kept.busy = Busy::Removing;
                    actions.push(Action::Remove { key, uid });
                }
                Fate::Unmarked if !flying => {
                    kept.busy = Busy::Removing;
                    actions.push(Action::Remove { key, uid });
                }
                _ => {}
            }
        }
        self.gone.retain(|key, (_, since)| self.kept.contains_key(key) || now.saturating_sub(*since) < GONE_TOLD);
        actions
    }

    /// When [`Index::decide`] has something to do that it has not now. What is due already and was not begun waits for
    /// other work to end, not for a time.
    pub fn wake(&self, now: Duration) -> Option<Duration> {
        let captures = self
            .pods
            .iter()
            .filter(|(key, pod)| pod.is_due() && !self.flights.contains_key(*key))
            .map(|(_, pod)| pod.not_before);
        let removals = self.kept.values().filter(|kept| kept.busy == Busy::No).filter_map(|kept| match kept.fate {
            Fate::Present => None,
            Fate::Missing if !self.complete => None,
            Fate::Missing | Fate::Unmarked => Some(kept.not_before),
            Fate::Gone(since) => Some(kept.not_before.max(since.saturating_add(self.retention))),
        });
        captures.chain(removals).filter(|time| *time > now).min()
    }

    /// A capture ended.
    pub fn captured(&mut self, key: &PodId, captured: Captured, now: Duration) {
        let Some(flight) = self.flights.remove(key) else { return };
        if let Captured::Stored(stored) = &captured {
            self.kept.insert(key.to_owned(), Kept::new(stored.clone(), flight.fate));
        }
        let Some(pod) = self.pods.get_mut(key).filter(|pod| pod.observed.uid == flight.uid) else { return };
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
        pod.done = Some(flight.fingerprint);
        pod.retry.reset();
    }

    /// The API server was asked for a pod.
    pub fn answered(&mut self, key: &PodId, uid: &str, answer: Answer, now: Duration) {
        let asked = |kept: &&mut Kept| kept.stored.uid == uid && kept.busy == Busy::Asking;
        let Some(kept) = self.kept.get_mut(key).filter(asked) else { return };
        kept.busy = Busy::No;
        match answer {
            // what the watch said meanwhile is newer than the question
            _ if kept.fate != Fate::Missing => {}
            Answer::Gone => {
                kept.fate = Fate::Gone(now);
                kept.retry.reset();
                self.gone.insert(key.to_owned(), (uid.to_owned(), now));
            }
            Answer::There | Answer::Unknown => kept.not_before = now.saturating_add(kept.retry.pause()),
        }
    }

    /// A removal ended, well or not.
    pub fn removed(&mut self, key: &PodId, uid: &str, well: bool, now: Duration) {
        let Some(kept) = self.kept.get_mut(key).filter(|kept| kept.stored.uid == uid) else { return };
        if well {
            self.kept.remove(key);
            if let Some(pod) = self.pods.get_mut(key).filter(|pod| pod.observed.uid == uid) {
                // marked again while it was being removed
                pod.done = None;
                pod.outcome = Outcome::Waiting;
            }
        } else {
            kept.busy = Busy::No;
            kept.not_before = now.saturating_add(kept.retry.pause());
        }
    }

    /// Marked pods that their kubelet refused for good and that the store has: key and UID. Nobody but their owner replaces
    /// them.
    pub fn rejected(&self) -> impl Iterator<Item = (&PodId, &str)> {
        let known = self.pods.iter().filter(|(_, pod)| pod.observed.rejected && !pod.observed.ending);
        known.map(|(key, pod)| (key, pod.observed.uid.as_str())).filter(|(key, uid)| self.has_stored(key, uid))
    }

    /// What all pods of the API server take of the node; `None` before a list was complete.
    pub fn taken(&self) -> Option<Demand> {
        self.complete.then(|| {
            self.taken.values().fold(Demand::default(), |mut all, one| {
                all.add(&one.demand);
                all
            })
        })
    }

    /// What the supervisor and the command line are told; `fresh`: the API server was heard lately, so its word on who is
    /// Ready counts still.
    pub fn word(&self, fresh: bool) -> AgentWord {
        let named = |pod: &Pod| (pod.observed.key.clone(), pod.observed.containers.clone());
        let ready = |pod: &&Pod| fresh && pod.observed.ready && !pod.observed.ending;
        AgentWord {
            ready: self.pods.values().filter(ready).map(named).collect(),
            taken: self.taken(),
            gone: self.gone.iter().map(|(key, (uid, _))| (key.clone(), uid.clone())).collect(),
            marked: self.pods.iter().filter_map(|(key, pod)| Some((key.clone(), pod.mark()?.to_owned()))).collect(),
            refused: self
                .pods
                .iter()
                .filter_map(|(key, pod)| match &pod.outcome {
                    Outcome::Refused(reasons) => Some((key.clone(), reasons.iter().map(ToString::to_string).collect())),
                    _ => None,
                })
                .collect(),
            ..AgentWord::default()
        }
    }

    /// Every marked pod, once a list was complete.
    pub fn views(&self) -> impl Iterator<Item = View<'_>> {
        self.pods.iter().filter(|_| self.complete).filter_map(|(key, pod)| {
            Some(View {
                key,
                uid: &pod.observed.uid,
                marked: pod.mark()?,
                outcome: &pod.outcome,
                stored: self.stored(key).filter(|stored| stored.uid == pod.observed.uid),
            })
        })
    }

    /// Owners of pods that get no checkpoint and do something for pods that have one. A static pod is none of them: it comes
    /// back; nor is one of which it is not known yet whether it is marked, or whether it can be captured.
    pub fn lacking(&self) -> BTreeSet<(Support, &str)> {
        let kept = self.pods.iter().filter(|(key, pod)| self.has_stored(key, &pod.observed.uid));
        let needs: Vec<Needs> = kept.map(|(_, pod)| pod.observed.needs).collect();
        let gets_none = |key: &PodId| {
            let pod = self.pods.get(key);
            pod.is_none_or(|pod| pod.mark().is_some() && matches!(pod.outcome, Outcome::Refused(_)))
        };
        let supports = self.taken.iter().filter(|(key, taken)| !self.has_stored(key, &taken.uid) && gets_none(key));
        supports
            .filter_map(|(_, taken)| taken.support.as_ref().map(|(support, name)| (*support, name.as_str())))
            .filter(|(support, _)| self.complete && needs.iter().any(|needs| needs.includes(*support)))
            .collect()
    }

    /// The pods of this node, as one sees them who asks what an older checkpointer is still good for.
    pub fn neighbours(&self) -> Neighbours {
        let unprotected = self.taken.iter().filter(|(key, taken)| !self.has_stored(key, &taken.uid));
        Neighbours {
            is_heard: self.complete,
            checkpointer: self.bootkubes().cloned(),
            unprotected: unprotected.map(|(key, _)| key.clone()).collect(),
            ..Neighbours::default()
        }
    }

    /// Bootkube's checkpointer on this node, `<namespace>_<name>`.
    pub fn bootkubes(&self) -> Option<&PodId> {
        self.taken.iter().find_map(|(key, taken)| taken.is_bootkubes.then_some(key))
    }

    /// The newest checkpoint of this name is of this very pod.
    pub fn has_stored(&self, key: &PodId, uid: &str) -> bool {
        self.stored(key).is_some_and(|stored| stored.uid == uid)
    }

    /// Can it not be told yet whether this very pod is marked?
    pub fn is_undecided(&self, key: &PodId, uid: &str) -> bool {
        self.pods.get(key).is_some_and(|pod| pod.observed.uid == uid && pod.observed.marked == Marked::Unknown)
    }

    /// Was a list ever complete?
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Was every pod of the first list that is Ready captured, or is that known to be impossible for now?
    pub fn is_settled(&self) -> bool {
        let waits = |pod: &Pod| pod.observed.ready && !pod.observed.ending && pod.outcome == Outcome::Waiting;
        self.complete && !self.pods.values().any(waits)
    }

    /// What the store has of all pods.
    pub fn all_stored(&self) -> impl Iterator<Item = &Stored> {
        self.kept.values().map(|kept| &kept.stored).filter(|stored| stored.generation > 0)
    }

    /// What the store has of a pod.
    pub fn stored(&self, key: &PodId) -> Option<&Stored> {
        self.kept.get(key).map(|kept| &kept.stored).filter(|stored| stored.generation > 0)
    }

    /// Is this very pod marked, or perhaps, as far as the watch goes?
    pub fn has(&self, key: &PodId, uid: &str) -> bool {
        self.pods.get(key).is_some_and(|pod| pod.observed.uid == uid)
    }

    fn lose(&mut self, key: &PodId, uid: &str, now: Duration) {
        // more is known already of what was unmarked or proven gone
        if self.kept.get(key).is_none_or(|kept| kept.stored.uid != uid || kept.fate == Fate::Present) {
            self.set_fate(key, uid, Fate::Missing, now);
        }
    }

    fn set_fate(&mut self, key: &PodId, uid: &str, fate: Fate, now: Duration) {
        if let Some(kept) = self.kept.get_mut(key).filter(|kept| kept.stored.uid == uid && kept.fate != fate) {
            kept.fate = fate;
            kept.not_before = now;
            kept.retry.reset();
        }
        if let Some(flight) = self.flights.get_mut(key).filter(|flight| flight.uid == uid) {
            flight.fate = fate;
        }
    }

    /// Was another pod of the same controller captured on this node, and is there?
    fn has_successor(&self, key: &PodId) -> bool {
        let Some(lost) = self.kept.get(key).map(|kept| &kept.stored).filter(|lost| lost.owner.is_some()) else {
            return false;
        };
        self.kept.values().any(|other| {
            other.stored.owner == lost.owner
                && other.stored.uid != lost.uid
                && other.fate == Fate::Present
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
#[path = "index_tests.rs"]
mod tests;
