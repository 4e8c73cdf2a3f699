//! Twins that were given to the kubelet and do not run: it creates no sandbox, or restarts their
//! containers again and again. Explains why, from what the runtime and the node show.
//!
//! No decision depends on it. The kubelet retries with growing pauses of its own, and a twin that
//! serves at times is better than none.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::node::runtime::{Detail, State};
use crate::reasons::Blocked;
use crate::supervisor::core::facts::Key;
use crate::supervisor::core::known::Known;
use crate::supervisor::core::observe::Lists;

/// A twin may take this long to start, and one that failed must run this long to count as healthy
/// again.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is missing of a twin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No sandbox of it is ready.
    Sandbox {
        /// How many sandboxes of it the runtime has that are not ready.
        tried: usize,
    },
    /// A container that should run has ended.
    Ended(Record),
    /// There is no container of this name.
    Missing {
        /// Its name in the pod.
        name: String,
        /// The last init container before it that the runtime lists, and whether that has ended.
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
    /// How often it was restarted.
    pub attempt: u32,
}

/// What must be looked up to explain the fault of a twin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookUp {
    /// What the runtime reports about this container; the answer goes to
    /// [`Health::container_ended`].
    Container(String),
    /// What the node shows of a twin without a sandbox; the answer goes to
    /// [`Health::has_no_sandbox`].
    Node {
        /// See [`Fault::Sandbox`].
        tried: usize,
    },
}

/// The first thing that is missing of the twin with this UID. `None`: nothing is.
pub fn find_fault(lists: &Lists, twin_uid: &str, known: &Known) -> Option<Fault> {
    let sandboxes = lists
        .sandboxes
        .iter()
        .filter(|sandbox| sandbox.uid == twin_uid);
    let Some(sandbox) = sandboxes.clone().find(|sandbox| sandbox.ready) else {
        return Some(Fault::Sandbox {
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
        None => Some(Fault::Missing {
            name: name.clone(),
            after: known.init_containers.iter().rev().find_map(newest),
        }),
        Some((record, true)) => Some(Fault::Ended(record)),
        Some((_, false)) => None,
    })
}

fn restarts(attempt: u32) -> String {
    match attempt {
        0 => "it was not restarted".to_owned(),
        1 => "it was restarted once".to_owned(),
        times => format!("it was restarted {times} times"),
    }
}

#[derive(Debug)]
struct Unhealthy {
    fault: Fault,
    text: String,
    asked: Duration,
    well_since: Option<Duration>,
}

/// What is known about twins that do not keep running.
#[derive(Debug, Default)]
pub struct Health(BTreeMap<Key, Unhealthy>);

impl Health {
    /// Takes in what a pass saw of an active twin that was linked at `linked`. Returns what to look
    /// up, if that is not known yet.
    pub fn observe(
        &mut self,
        key: &Key,
        linked: Duration,
        now: Duration,
        fault: Option<Fault>,
    ) -> Option<LookUp> {
        let Some(fault) = fault else {
            if let Some(unhealthy) = self.0.get_mut(key) {
                let since = *unhealthy.well_since.get_or_insert(now);
                if now.saturating_sub(since) >= PATIENCE {
                    self.0.remove(key);
                }
            }
            return None;
        };
        if now.saturating_sub(linked) < PATIENCE {
            return None;
        }
        if let Some(unhealthy) = self
            .0
            .get_mut(key)
            .filter(|unhealthy| unhealthy.fault == fault)
        {
            unhealthy.well_since = None;
            // the node may show something else by now
            let Fault::Sandbox { tried } = fault else {
                return None;
            };
            let is_old = now.saturating_sub(unhealthy.asked) >= PATIENCE;
            return is_old.then(|| {
                unhealthy.asked = now;
                LookUp::Node { tried }
            });
        }
        let (text, ask) = match &fault {
            Fault::Sandbox { tried } => (
                "it has no sandbox".to_owned(),
                Some(LookUp::Node { tried: *tried }),
            ),
            Fault::Ended(Record { name, id, attempt }) => {
                let text = format!("container {name} has ended; {}", restarts(*attempt));
                (text, Some(LookUp::Container(id.clone())))
            }
            Fault::Missing { name, after: None } => (
                format!(
                    "the kubelet has created no container {name}: its image, or that of an init container, may be the cause"
                ),
                None,
            ),
            Fault::Missing {
                name,
                after:
                    Some((
                        Record {
                            name: before, id, ..
                        },
                        is_over,
                    )),
            } => {
                let state = if *is_over { "has ended" } else { "still runs" };
                let text = format!(
                    "the kubelet has created no container {name}: init container {before} {state}"
                );
                (text, is_over.then(|| LookUp::Container(id.clone())))
            }
        };
        self.0.insert(
            key.clone(),
            Unhealthy {
                fault,
                text,
                asked: now,
                well_since: None,
            },
        );
        ask
    }

    /// Takes in what the runtime reported about the container that was looked up.
    pub fn container_ended(&mut self, key: &Key, detail: &Detail) {
        let Some(Unhealthy { fault, text, .. }) = self.0.get_mut(key) else {
            return;
        };
        let (code, reason) = (detail.exit_code, &detail.reason);
        let (what, Record { name, attempt, .. }) = match fault {
            Fault::Ended(record) => ("container", record),
            Fault::Missing {
                after: Some((record, true)),
                ..
            } if code != 0 => ("init container", record),
            Fault::Missing { .. } | Fault::Sandbox { .. } => return,
        };
        *text = format!(
            "{what} {name} ended with exit code {code} ({reason}); {}",
            restarts(*attempt)
        );
    }

    /// Takes in what the node showed of a twin without a sandbox.
    pub fn has_no_sandbox(&mut self, key: &Key, shown: String) {
        if let Some(Unhealthy {
            fault: Fault::Sandbox { .. },
            text,
            ..
        }) = self.0.get_mut(key)
        {
            *text = shown;
        }
    }

    /// Forgets twins that are no longer active.
    pub fn retain(&mut self, is_active: impl Fn(&Key) -> bool) {
        self.0.retain(|key, _| is_active(key));
    }

    /// What is wrong with a twin; `None`: it is healthy, as far as is known.
    pub fn of(&self, key: &Key) -> Option<(Blocked, &str)> {
        self.0.get(key).map(|unhealthy| {
            let reason = match unhealthy.fault {
                Fault::Sandbox { .. } => Blocked::KubeletRefuses,
                Fault::Ended(_) | Fault::Missing { .. } => Blocked::NotRunning,
            };
            (reason, unhealthy.text.as_str())
        })
    }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
