//! Twins that the kubelet was given and that do not run: it makes no sandbox, or starts their
//! containers again and again. What is said of them, from the runtime's and the node's own
//! evidence.
//!
//! Nothing is decided by it. The kubelet tries again with growing pauses of its own, and a twin
//! that serves now and then is better than none.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::node::runtime::{Detail, State};
use crate::reasons::Blocked;
use crate::supervisor::core::facts::Key;
use crate::supervisor::core::known::Known;
use crate::supervisor::core::observe::Lists;

/// A twin may take this long to come up, and one that fails must run this long to be well again.
const PATIENCE: Duration = Duration::from_secs(30);

/// What of a twin should be there and is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fallen {
    /// No sandbox of it stands.
    Sandbox {
        /// How many the runtime has of it that do not.
        tried: usize,
    },
    /// A container that should run has ended.
    Ended(Record),
    /// There is none of this name.
    Missing {
        /// Its name in the pod.
        name: String,
        /// The last init container before it of which there is a record, and whether that one has
        /// ended.
        after: Option<(Record, bool)>,
    },
}

/// The newest record of a container in the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its name in the pod.
    pub name: String,
    /// Its id in the runtime.
    pub id: String,
    /// How often it was started anew.
    pub attempt: u32,
}

/// What the text on a twin is still to be made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// What the runtime says of this container: [`Health::told`].
    Container(String),
    /// What the node shows of a twin without a sandbox: [`Health::shown`].
    Node {
        /// See [`Fallen::Sandbox`].
        tried: usize,
    },
}

/// The first thing of the twin with this UID that should be there and is not. `None`: all of it is.
pub fn fallen(lists: &Lists, twin_uid: &str, known: &Known) -> Option<Fallen> {
    let sandboxes = lists
        .sandboxes
        .iter()
        .filter(|sandbox| sandbox.uid == twin_uid);
    let Some(sandbox) = sandboxes.clone().find(|sandbox| sandbox.ready) else {
        return Some(Fallen::Sandbox {
            tried: sandboxes.count(),
        });
    };
    let newest = |name: &String| {
        let records = lists
            .containers
            .iter()
            .filter(|one| one.sandbox == sandbox.id && one.name == *name);
        let newest = records.max_by_key(|one| one.attempt)?;
        let record = Record {
            name: name.clone(),
            id: newest.id.clone(),
            attempt: newest.attempt,
        };
        Some((record, newest.state == State::Exited))
    };
    known.containers.iter().find_map(|name| match newest(name) {
        None => Some(Fallen::Missing {
            name: name.clone(),
            after: known.init_containers.iter().rev().find_map(newest),
        }),
        Some((record, true)) => Some(Fallen::Ended(record)),
        Some((_, false)) => None,
    })
}

#[derive(Debug)]
struct Ailing {
    fallen: Fallen,
    text: String,
    asked: Duration,
    well_since: Option<Duration>,
}

/// What is known of twins that do not stay up.
#[derive(Debug, Default)]
pub struct Health(BTreeMap<Key, Ailing>);

impl Health {
    /// Takes in what a pass saw of an active twin that was linked at `linked`. Says what should be
    /// asked, if that is not known yet.
    pub fn observe(
        &mut self,
        key: &Key,
        linked: Duration,
        now: Duration,
        fallen: Option<Fallen>,
    ) -> Option<Ask> {
        let Some(fallen) = fallen else {
            if let Some(ailing) = self.0.get_mut(key) {
                let since = *ailing.well_since.get_or_insert(now);
                if now.saturating_sub(since) >= PATIENCE {
                    self.0.remove(key);
                }
            }
            return None;
        };
        if now.saturating_sub(linked) < PATIENCE {
            return None;
        }
        if let Some(ailing) = self.0.get_mut(key).filter(|ailing| ailing.fallen == fallen) {
            ailing.well_since = None;
            // what the node shows may be another thing by now
            let Fallen::Sandbox { tried } = fallen else {
                return None;
            };
            let is_old = now.saturating_sub(ailing.asked) >= PATIENCE;
            return is_old.then(|| {
                ailing.asked = now;
                Ask::Node { tried }
            });
        }
        let (text, ask) = match &fallen {
            Fallen::Sandbox { tried } => (
                "it has no sandbox".to_owned(),
                Some(Ask::Node { tried: *tried }),
            ),
            Fallen::Ended(Record { name, id, attempt }) => {
                let text =
                    format!("container {name} has ended; it was started anew {attempt} times");
                (text, Some(Ask::Container(id.clone())))
            }
            Fallen::Missing { name, after: None } => (
                format!(
                    "the kubelet has made no container {name}: its image, or that of an init container, may be in the way"
                ),
                None,
            ),
            Fallen::Missing {
                name,
                after:
                    Some((
                        Record {
                            name: before, id, ..
                        },
                        is_over,
                    )),
            } => {
                let state = if *is_over { "has ended" } else { "runs still" };
                let text = format!(
                    "the kubelet has made no container {name}: init container {before} {state}"
                );
                (text, is_over.then(|| Ask::Container(id.clone())))
            }
        };
        self.0.insert(
            key.clone(),
            Ailing {
                fallen,
                text,
                asked: now,
                well_since: None,
            },
        );
        ask
    }

    /// What the runtime said of the container that was asked for.
    pub fn told(&mut self, key: &Key, detail: &Detail) {
        let Some(Ailing { fallen, text, .. }) = self.0.get_mut(key) else {
            return;
        };
        let (code, reason) = (detail.exit_code, &detail.reason);
        let (what, Record { name, attempt, .. }) = match fallen {
            Fallen::Ended(record) => ("container", record),
            Fallen::Missing {
                after: Some((record, true)),
                ..
            } if code != 0 => ("init container", record),
            Fallen::Missing { .. } | Fallen::Sandbox { .. } => return,
        };
        *text = format!(
            "{what} {name} ended with exit code {code} ({reason}); it was started anew {attempt} times"
        );
    }

    /// What the node showed of a twin without a sandbox.
    pub fn shown(&mut self, key: &Key, shown: String) {
        if let Some(Ailing {
            fallen: Fallen::Sandbox { .. },
            text,
            ..
        }) = self.0.get_mut(key)
        {
            *text = shown;
        }
    }

    /// Forgets twins that are not active any more.
    pub fn retain(&mut self, is_active: impl Fn(&Key) -> bool) {
        self.0.retain(|key, _| is_active(key));
    }

    /// What is to be said of a twin; `None`: it is well, as far as is known.
    pub fn of(&self, key: &Key) -> Option<(Blocked, &str)> {
        self.0.get(key).map(|ailing| {
            let reason = match ailing.fallen {
                Fallen::Sandbox { .. } => Blocked::KubeletRefuses,
                Fallen::Ended(_) | Fallen::Missing { .. } => Blocked::NotRunning,
            };
            (reason, ailing.text.as_str())
        })
    }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
