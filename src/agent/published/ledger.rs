//! Which `PodCheckpoints` were written, and what to write next: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use kube::Error;

use crate::agent::index::View;
use crate::agent::published::echo::Echo;
use crate::agent::published::shown::{self, News, SupervisorReports};
use crate::agent::risks::Risks;
use crate::api::podcheckpoint::PodCheckpointStatus;
use crate::client::gone::is_not_found;
use crate::client::heard::explain;
use crate::client::retry::Retry;
use crate::pod::id::PodId;

/// A request to the API server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Job {
    /// List what an earlier agent of this node wrote.
    Seed,
    /// Write an object.
    Write {
        /// The pod.
        key: PodId,
        /// UID of the pod.
        uid: String,
        /// Whether to write metadata and spec first.
        spec: bool,
        /// What it should show.
        status: Box<PodCheckpointStatus>,
        /// Events to record on the pod once that is written.
        news: Vec<News>,
    },
    /// Delete an object whose pod is no longer marked, or is another pod of the same name.
    Delete {
        /// The pod.
        key: PodId,
        /// UID of the object, if known.
        uid: Option<String>,
    },
}

/// The result of a [`Job`].
#[derive(Debug)]
pub(crate) enum Done {
    /// Of [`Job::Seed`].
    Seeded(Result<Vec<(PodId, Published)>, Error>),
    /// Of [`Job::Write`], with the UID of the object if it was learned.
    Written {
        /// The pod.
        key: PodId,
        /// What was written.
        known: Box<Published>,
        /// Whether it went well.
        result: Result<Option<String>, Error>,
        /// As in the job.
        news: Vec<News>,
    },
    /// Of [`Job::Delete`].
    Deleted(PodId, Result<(), Error>),
}

/// A `PodCheckpoint` as the API server has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Published {
    /// UID of the object.
    pub object: Option<String>,
    /// UID of the pod it is of.
    pub pod: String,
    /// What it shows; `None`: not known.
    pub status: Option<PodCheckpointStatus>,
    /// The API server does not have it any more; what it showed is recorded only here.
    pub is_gone: bool,
}

impl Published {
    fn lose(&mut self) {
        (self.object, self.is_gone) = (None, true);
    }
}

/// What was written. Says what to write next.
#[derive(Debug)]
pub(crate) struct Ledger {
    seeded: bool,
    busy: bool,
    known: BTreeMap<PodId, Published>,
    waiting: BTreeMap<PodId, (Retry, Duration)>,
    seed: (Retry, Duration),
    trouble: Option<String>,
    /// Objects that the list at the start of a watch has not named yet, and when that list counts
    /// as complete.
    missing: Option<(BTreeSet<PodId>, Duration)>,
    /// Deleted while a request was running: its answer may be older than the deletion.
    unheard: Vec<(PodId, Option<String>)>,
    /// Back-off of objects that were deleted lately, and when each was last deleted.
    deletions: BTreeMap<PodId, (Retry, Duration)>,
}

/// How long the watch may take at most to name all objects at its start.
const LIST_LIMIT: Duration = Duration::from_secs(30);
/// Pause before a deleted object is written again: the first, and the longest if it is deleted
/// again and again. Never at once, because the pod may be gone too, which the watch of pods reports
/// a moment later.
const REWRITE_PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(5));
/// Deletions further apart than this are unrelated.
const CALM: Duration = Duration::from_mins(10);

impl Default for Ledger {
    fn default() -> Self {
        let retry = Retry::new(Duration::from_secs(2), Duration::from_mins(5));
        Self {
            seeded: false,
            busy: false,
            known: BTreeMap::new(),
            waiting: BTreeMap::new(),
            seed: (retry, Duration::ZERO),
            trouble: None,
            missing: None,
            unheard: Vec::new(),
            deletions: BTreeMap::new(),
        }
    }
}

impl Ledger {
    /// Takes in what the watch says exists. An object that is gone is written again in full, with
    /// its old status; rewriting one that the watch merely missed is harmless.
    pub(crate) fn hear(&mut self, echo: Echo, now: Duration) {
        match echo {
            Echo::Begins => {
                // there is such a kind
                self.seed.1 = self.seed.1.min(now);
                self.missing = Some((
                    self.known.keys().cloned().collect(),
                    now.saturating_add(LIST_LIMIT),
                ));
            }
            Echo::There(key) => {
                if let Some((missing, _)) = &mut self.missing {
                    missing.remove(&key);
                }
            }
            Echo::Gone(key, uid) => {
                if self.busy {
                    self.unheard.push((key.clone(), uid.clone()));
                }
                self.forget(&key, uid.as_ref(), now);
            }
        }
    }

    /// This object was deleted.
    fn forget(&mut self, key: &PodId, object: Option<&String>, now: Duration) {
        let is_this = |known: &&mut Published| {
            !known.is_gone && (known.object.is_none() || known.object.as_ref() == object)
        };
        let Some(known) = self.known.get_mut(key).filter(is_this) else {
            return;
        };
        known.lose();
        let again = self
            .deletions
            .get_mut(key)
            .filter(|(_, last)| now.saturating_sub(*last) <= CALM);
        let pause = if let Some((retry, last)) = again {
            *last = now;
            retry.pause().max(REWRITE_PAUSES.0)
        } else {
            self.deletions.insert(
                key.clone(),
                (Retry::new(REWRITE_PAUSES.0, REWRITE_PAUSES.1), now),
            );
            REWRITE_PAUSES.0
        };
        self.waiting
            .insert(key.clone(), (Retry::default(), now.saturating_add(pause)));
    }

    /// Objects that the list at the start of the watch did not name do not exist.
    fn end_list(&mut self, now: Duration) {
        if let Some((missing, _)) = self.missing.take_if(|(_, end)| *end <= now) {
            for key in missing {
                if let Some(known) = self.known.get_mut(&key) {
                    known.lose();
                }
            }
        }
    }

    /// The next job; `None` while one is running. `views` are the marked pods, once a list of them
    /// was complete. `keeps` says of any other pod whether the store still has its checkpoint, or
    /// whether it may yet turn out to be marked.
    pub(crate) fn next<'a>(
        &mut self,
        views: impl Iterator<Item = View<'a>>,
        keeps: impl Fn(&PodId, &str) -> bool,
        supervisor: &SupervisorReports,
        risks: &Risks,
        now: Duration,
        wall: Timestamp,
    ) -> Option<Job> {
        if self.busy {
            return None;
        }
        if !self.seeded {
            self.busy = self.seed.1 <= now;
            return self.busy.then_some(Job::Seed);
        }
        self.end_list(now);
        let is_waiting = |key: &PodId| self.waiting.get(key).is_some_and(|(_, until)| *until > now);
        let mut wanted = BTreeSet::new();
        let mut job = None;
        for view in views {
            wanted.insert(view.key);
            if job.is_some() || is_waiting(view.key) {
                continue;
            }
            let known = self.known.get(view.key);
            job = match known {
                // its owner is gone, so the garbage collector may delete it at any moment
                Some(known) if known.pod != view.uid && !known.is_gone => Some(Job::Delete {
                    key: view.key.clone(),
                    uid: known.object.clone(),
                }),
                known => {
                    let known = known.filter(|known| known.pod == view.uid);
                    let is_new = known.is_none_or(|known| known.is_gone);
                    let before = known.and_then(|known| known.status.as_ref());
                    let status = shown::status(&view, supervisor, risks, before, wall);
                    (is_new || before != Some(&status)).then(|| Job::Write {
                        key: view.key.clone(),
                        uid: view.uid.to_owned(),
                        spec: is_new,
                        news: shown::news(before, &status),
                        status: Box::new(status),
                    })
                }
            };
        }
        let unwanted = || {
            let (key, known) = self.known.iter().find(|(key, known)| {
                !known.is_gone
                    && !wanted.contains(key)
                    && !keeps(key, &known.pod)
                    && !is_waiting(key)
            })?;
            Some(Job::Delete {
                key: key.clone(),
                uid: known.object.clone(),
            })
        };
        let job = job.or_else(unwanted);
        let is_wanted =
            |key: &PodId, known: &Published| wanted.contains(key) || keeps(key, &known.pod);
        self.known
            .retain(|key, known| !known.is_gone || is_wanted(key, known));
        self.deletions.retain(|key, _| self.known.contains_key(key));
        self.waiting
            .retain(|key, _| wanted.contains(key) || self.known.contains_key(key));
        self.busy = job.is_some();
        job
    }

    /// Does the object of this very pod show that it was activated in an outage?
    pub(crate) fn had_outage(&self, key: &PodId, uid: &str) -> bool {
        let status = self
            .known
            .get(key)
            .filter(|known| known.pod == uid)
            .and_then(|known| known.status.as_ref());
        status.is_some_and(|status| status.last_outage.is_some())
    }

    /// When [`Ledger::next`] will have a job that it does not have now.
    pub(crate) fn wake(&self, now: Duration) -> Option<Duration> {
        let seed = (!self.seeded).then_some(self.seed.1);
        let waiting = self.waiting.values().map(|(_, until)| *until);
        let look = self.missing.as_ref().map(|(_, end)| *end);
        seed.into_iter()
            .chain(waiting)
            .chain(look)
            .filter(|time| *time > now)
            .min()
    }

    /// Takes in the result of a job. Returns a problem to log, once and not at every attempt.
    pub(crate) fn done(&mut self, done: Done, now: Duration) -> Option<String> {
        self.busy = false;
        let trouble = match done {
            Done::Seeded(Ok(known)) => {
                self.seeded = true;
                let before = std::mem::replace(&mut self.known, known.into_iter().collect());
                for (key, mut known) in before {
                    // deleted, and what it showed is recorded nowhere else
                    known.lose();
                    self.known.entry(key).or_insert(known);
                }
                None
            }
            Done::Seeded(Err(error)) => {
                self.seed.1 = now.saturating_add(self.seed.0.pause());
                Some(match &error {
                    error if is_not_found(error) => {
                        "the resource PodCheckpoint is not installed (kubectl apply -k crds): nothing is reported through \
                         the API; everything else continues"
                            .to_owned()
                    }
                    error => format!("cannot list PodCheckpoints: {}", explain(error)),
                })
            }
            Done::Written {
                key,
                known,
                result: Ok(object),
                news: _,
            } => {
                let object =
                    object.or_else(|| self.known.get(&key).and_then(|known| known.object.clone()));
                self.waiting.remove(&key);
                self.known.insert(key, Published { object, ..*known });
                None
            }
            Done::Written {
                key,
                result: Err(error),
                ..
            } => {
                // the object, its namespace or its kind was deleted: it is written in full the next
                // time, and if it was new, the existing objects must be listed again
                if is_not_found(&error) {
                    if let Some(known) = self.known.get_mut(&key).filter(|known| !known.is_gone) {
                        known.lose();
                    } else {
                        self.seeded = false;
                        self.seed.1 = now.saturating_add(self.seed.0.pause());
                    }
                }
                self.wait(&key, now);
                Some(format!(
                    "cannot write PodCheckpoint {key}: {}",
                    explain(&error)
                ))
            }
            Done::Deleted(key, Ok(())) => {
                self.waiting.remove(&key);
                self.known.remove(&key);
                None
            }
            Done::Deleted(key, Err(error)) => {
                self.wait(&key, now);
                Some(format!(
                    "cannot delete PodCheckpoint {key}: {}",
                    explain(&error)
                ))
            }
        };
        for (key, object) in std::mem::take(&mut self.unheard) {
            self.forget(&key, object.as_ref(), now);
        }
        let news = trouble.clone().filter(|_| self.trouble != trouble);
        self.trouble = trouble;
        news
    }

    fn wait(&mut self, key: &PodId, now: Duration) {
        let (retry, until) = self.waiting.entry(key.clone()).or_default();
        *until = now.saturating_add(retry.pause());
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
