//! Which `PodCheckpoints` were written, and what to write next: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use kube::Error;

use crate::agent::index::View;
use crate::agent::published::echo::Echo;
use crate::agent::published::shown::{self, News, Supervisor};
use crate::agent::risks::Risks;
use crate::api::podcheckpoint::PodCheckpointStatus;
use crate::client::gone::is_not_found;
use crate::client::heard::explain;
use crate::client::retry::Retry;
use crate::pod::id::PodId;

/// What to ask of the API server next.
#[derive(Clone, Debug, PartialEq)]
pub enum Job {
    /// Read what an earlier agent of this node wrote.
    Seed,
    /// Write one.
    Write {
        /// `<namespace>_<name>`.
        key: PodId,
        /// UID of the pod.
        uid: String,
        /// Metadata and spec are to be written first.
        spec: bool,
        /// What it should show.
        status: Box<PodCheckpointStatus>,
        /// What is to be told beside the pod when that is written.
        news: Vec<News>,
    },
    /// Remove one whose pod is no longer marked, or is another pod of the same name.
    Delete {
        /// `<namespace>_<name>`.
        key: PodId,
        /// UID of the object, if known.
        uid: Option<String>,
    },
}

/// What came of a [`Job`].
#[derive(Debug)]
pub enum Done {
    /// Of [`Job::Seed`].
    Seeded(Result<Vec<(PodId, Known)>, Error>),
    /// Of [`Job::Write`], with the UID of the object if it was learned.
    Written {
        /// `<namespace>_<name>`.
        key: PodId,
        /// What was written.
        known: Box<Known>,
        /// Whether it went well.
        result: Result<Option<String>, Error>,
        /// As in the job.
        news: Vec<News>,
    },
    /// Of [`Job::Delete`].
    Deleted(PodId, Result<(), Error>),
}

/// One `PodCheckpoint` as the API server has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// UID of the object.
    pub object: Option<String>,
    /// UID of the pod it is of.
    pub pod: String,
    /// What it shows; `None`: perhaps something else than we know.
    pub status: Option<PodCheckpointStatus>,
    /// The API server does not have it any more; what it showed is remembered here only.
    pub is_gone: bool,
}

impl Known {
    fn lose(&mut self) {
        (self.object, self.is_gone) = (None, true);
    }
}

/// What was written, and what is to be written next.
#[derive(Debug)]
pub struct Reporter {
    seeded: bool,
    busy: bool,
    known: BTreeMap<PodId, Known>,
    waiting: BTreeMap<PodId, (Retry, Duration)>,
    seed: (Retry, Duration),
    trouble: Option<String>,
    /// Those that a look at all of them has not found yet, and when it is over.
    missing: Option<(BTreeSet<PodId>, Duration)>,
    /// Deleted while something was being asked of the API server: its answer may be older.
    unheard: Vec<(PodId, Option<String>)>,
    /// How often each was deleted lately, and when it was last.
    deletions: BTreeMap<PodId, (Retry, Duration)>,
}

/// How long a look at all of them takes at most.
const LOOK: Duration = Duration::from_secs(30);
/// How soon one that was deleted is written again, and how late where that happens again and again. Not at once: its pod may
/// be gone, too, as is told in a moment.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(5));
/// Deletions that far apart have nothing to do with each other.
const CALM: Duration = Duration::from_mins(10);

impl Default for Reporter {
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

impl Reporter {
    /// What the API server has was told of. One that is not there any more is written again, whole and with what it showed;
    /// that one which was only not told of is written once more does no harm.
    pub fn hear(&mut self, echo: Echo, now: Duration) {
        match echo {
            Echo::Begins => {
                // there is such a kind
                self.seed.1 = self.seed.1.min(now);
                self.missing = Some((self.known.keys().cloned().collect(), now.saturating_add(LOOK)));
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
        let is_this =
            |known: &&mut Known| !known.is_gone && (known.object.is_none() || known.object.as_ref() == object);
        let Some(known) = self.known.get_mut(key).filter(is_this) else { return };
        known.lose();
        let again = self.deletions.get_mut(key).filter(|(_, last)| now.saturating_sub(*last) <= CALM);
        let pause = if let Some((retry, last)) = again {
            *last = now;
            retry.pause().max(PATIENCE.0)
        } else {
            self.deletions.insert(key.clone(), (Retry::new(PATIENCE.0, PATIENCE.1), now));
            PATIENCE.0
        };
        self.waiting.insert(key.clone(), (Retry::default(), now.saturating_add(pause)));
    }

    /// Those that a look at all of them did not find are not there.
    fn look(&mut self, now: Duration) {
        if let Some((missing, _)) = self.missing.take_if(|(_, end)| *end <= now) {
            for key in missing {
                if let Some(known) = self.known.get_mut(&key) {
                    known.lose();
                }
            }
        }
    }

    /// The next thing to do, if nothing is being done. `views` are the marked pods once a list of them was complete;
    /// `keeps` tells of a pod
    /// that is none of them whether the store still has a checkpoint of it, or it may be marked yet.
    pub fn next<'a>(
        &mut self,
        views: impl Iterator<Item = View<'a>>,
        keeps: impl Fn(&PodId, &str) -> bool,
        supervisor: &Supervisor,
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
        self.look(now);
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
                // its owner is gone, and the API server's garbage collector may take it at any moment
                Some(known) if known.pod != view.uid && !known.is_gone => {
                    Some(Job::Delete { key: view.key.clone(), uid: known.object.clone() })
                }
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
                !known.is_gone && !wanted.contains(key) && !keeps(key, &known.pod) && !is_waiting(key)
            })?;
            Some(Job::Delete { key: key.clone(), uid: known.object.clone() })
        };
        let job = job.or_else(unwanted);
        let is_wanted = |key: &PodId, known: &Known| wanted.contains(key) || keeps(key, &known.pod);
        self.known.retain(|key, known| !known.is_gone || is_wanted(key, known));
        self.deletions.retain(|key, _| self.known.contains_key(key));
        self.waiting.retain(|key, _| wanted.contains(key) || self.known.contains_key(key));
        self.busy = job.is_some();
        job
    }

    /// Has this very pod been activated in an outage, by what its object shows?
    pub fn had_outage(&self, key: &PodId, uid: &str) -> bool {
        let status = self.known.get(key).filter(|known| known.pod == uid).and_then(|known| known.status.as_ref());
        status.is_some_and(|status| status.last_outage.is_some())
    }

    /// When [`Reporter::next`] has something to do that it has not now.
    pub fn wake(&self, now: Duration) -> Option<Duration> {
        let seed = (!self.seeded).then_some(self.seed.1);
        let waiting = self.waiting.values().map(|(_, until)| *until);
        let look = self.missing.as_ref().map(|(_, end)| *end);
        seed.into_iter().chain(waiting).chain(look).filter(|time| *time > now).min()
    }

    /// Something was done, well or not. Says what there is to tell about it, once and not at every attempt.
    pub fn done(&mut self, done: Done, now: Duration) -> Option<String> {
        self.busy = false;
        let trouble = match done {
            Done::Seeded(Ok(known)) => {
                self.seeded = true;
                let before = std::mem::replace(&mut self.known, known.into_iter().collect());
                for (key, mut known) in before {
                    // not there any more, and nobody else remembers what it showed
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
                         the API, everything else goes on"
                            .to_owned()
                    }
                    error => format!("cannot list PodCheckpoints: {}", explain(error)),
                })
            }
            Done::Written { key, known, result: Ok(object), news: _ } => {
                let object = object.or_else(|| self.known.get(&key).and_then(|known| known.object.clone()));
                self.waiting.remove(&key);
                self.known.insert(key, Known { object, ..*known });
                None
            }
            Done::Written { key, result: Err(error), .. } => {
                // somebody removed it, or its namespace, or the kind: it is written whole the next time, and if it was new,
                // what there is must be learned anew
                if is_not_found(&error) {
                    if let Some(known) = self.known.get_mut(&key).filter(|known| !known.is_gone) {
                        known.lose();
                    } else {
                        self.seeded = false;
                        self.seed.1 = now.saturating_add(self.seed.0.pause());
                    }
                }
                self.wait(&key, now);
                Some(format!("cannot write PodCheckpoint {key}: {}", explain(&error)))
            }
            Done::Deleted(key, Ok(())) => {
                self.waiting.remove(&key);
                self.known.remove(&key);
                None
            }
            Done::Deleted(key, Err(error)) => {
                self.wait(&key, now);
                Some(format!("cannot delete PodCheckpoint {key}: {}", explain(&error)))
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
