//! Twins that the kubelet was given and that do not run: it makes no sandbox, or starts their containers again and again. What
//! is said of them, from the runtime's and the node's own evidence.
//!
//! Nothing is decided by it. The kubelet tries again with growing pauses of its own, and a twin that serves now and then is
//! better than none.

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
        /// The last init container before it of which there is a record, and whether that one has ended.
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
    let sandboxes = lists.sandboxes.iter().filter(|sandbox| sandbox.uid == twin_uid);
    let Some(sandbox) = sandboxes.clone().find(|sandbox| sandbox.ready) else {
        return Some(Fallen::Sandbox { tried: sandboxes.count() });
    };
    let newest = |name: &String| {
        let records = lists.containers.iter().filter(|one| one.sandbox == sandbox.id && one.name == *name);
        let newest = records.max_by_key(|one| one.attempt)?;
        let record = Record { name: name.clone(), id: newest.id.clone(), attempt: newest.attempt };
        Some((record, newest.state == State::Exited))
    };
    known.containers.iter().find_map(|name| match newest(name) {
        None => {
            Some(Fallen::Missing { name: name.clone(), after: known.init_containers.iter().rev().find_map(newest) })
        }
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
    /// Takes in what a pass saw of an active twin that was linked at `linked`. Says what should be asked, if that is not
    /// known yet.
    pub fn observe(&mut self, key: &Key, linked: Duration, now: Duration, fallen: Option<Fallen>) -> Option<Ask> {
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
            let Fallen::Sandbox { tried } = fallen else { return None };
            let is_old = now.saturating_sub(ailing.asked) >= PATIENCE;
            return is_old.then(|| {
                ailing.asked = now;
                Ask::Node { tried }
            });
        }
        let (text, ask) = match &fallen {
            Fallen::Sandbox { tried } => ("it has no sandbox".to_owned(), Some(Ask::Node { tried: *tried })),
            Fallen::Ended(Record { name, id, attempt }) => {
                let text = format!("container {name} has ended; it was started anew {attempt} times");
                (text, Some(Ask::Container(id.clone())))
            }
            Fallen::Missing { name, after: None } => (
                format!(
                    "the kubelet has made no container {name}: its image, or that of an init container, may be in the way"
                ),
                None,
            ),
            Fallen::Missing { name, after: Some((Record { name: before, id, .. }, is_over)) } => {
                let state = if *is_over { "has ended" } else { "runs still" };
                let text = format!("the kubelet has made no container {name}: init container {before} {state}");
                (text, is_over.then(|| Ask::Container(id.clone())))
            }
        };
        self.0.insert(key.clone(), Ailing { fallen, text, asked: now, well_since: None });
        ask
    }

    /// What the runtime said of the container that was asked for.
    pub fn told(&mut self, key: &Key, detail: &Detail) {
        let Some(Ailing { fallen, text, .. }) = self.0.get_mut(key) else { return };
        let (code, reason) = (detail.exit_code, &detail.reason);
        let (what, Record { name, attempt, .. }) = match fallen {
            Fallen::Ended(record) => ("container", record),
            Fallen::Missing { after: Some((record, true)), .. } if code != 0 => ("init container", record),
            Fallen::Missing { .. } | Fallen::Sandbox { .. } => return,
        };
        *text = format!("{what} {name} ended with exit code {code} ({reason}); it was started anew {attempt} times");
    }

    /// What the node showed of a twin without a sandbox.
    pub fn shown(&mut self, key: &Key, shown: String) {
        if let Some(Ailing { fallen: Fallen::Sandbox { .. }, text, .. }) = self.0.get_mut(key) {
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
mod tests {
    use serde_json::json;

    use super::*;
    use crate::node::runtime::{Container, Sandbox};

    fn lists(containers: &[(&str, u32, State)]) -> Lists {
        let container = |(name, attempt, state): &(&str, u32, State)| Container {
            id: format!("{name}-{attempt}"),
            sandbox: "s".into(),
            name: (*name).to_owned(),
            attempt: *attempt,
            state: *state,
            ..Container::default()
        };
        Lists {
            sandboxes: vec![Sandbox { id: "s".into(), uid: "twin".into(), ready: true, ..Sandbox::default() }],
            containers: containers.iter().map(container).collect(),
        }
    }

    fn key() -> Key {
        "shop_till".into()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn known() -> Known {
        let manifest = json!({"spec": {
            "initContainers": [{"name": "fetch"}, {"name": "unpack"}],
            "containers": [{"name": "app"}, {"name": "log"}],
        }});
        Known::of_manifest(&manifest)
    }

    fn record(name: &str, attempt: u32) -> Record {
        Record { name: name.into(), id: format!("{name}-{attempt}"), attempt }
    }

    #[test]
    fn the_newest_record_of_each_container_counts() {
        let find = |containers: &[(&str, u32, State)]| fallen(&lists(containers), "twin", &known());
        assert_eq!(find(&[("app", 0, State::Running), ("log", 0, State::Running)]), None);
        assert_eq!(find(&[("app", 0, State::Exited), ("app", 1, State::Running), ("log", 0, State::Created)]), None);
        let ended = [("app", 0, State::Running), ("log", 0, State::Exited), ("log", 1, State::Exited)];
        assert_eq!(find(&ended), Some(Fallen::Ended(record("log", 1))));
        let missing = |name: &str, after| Some(Fallen::Missing { name: name.into(), after });
        assert_eq!(find(&[("app", 0, State::Running)]), missing("log", None));
        let inits = [("fetch", 0, State::Exited), ("unpack", 0, State::Exited), ("unpack", 1, State::Running)];
        assert_eq!(find(&inits), missing("app", Some((record("unpack", 1), false))));
        assert_eq!(find(&inits[..1]), missing("app", Some((record("fetch", 0), true))));
    }

    #[test]
    fn a_sandbox_that_does_not_stand_is_none() {
        let mut lists = lists(&[]);
        assert_eq!(fallen(&lists, "another", &known()), Some(Fallen::Sandbox { tried: 0 }));
        lists.sandboxes[0].ready = false;
        assert_eq!(fallen(&lists, "twin", &known()), Some(Fallen::Sandbox { tried: 1 }));
    }

    #[test]
    fn a_twin_that_does_not_stay_up_is_told_with_the_runtimes_word_until_it_has_run_for_a_while() {
        let mut health = Health::default();
        let ended = |attempt: u32| Some(Fallen::Ended(record("app", attempt)));
        assert_eq!(health.observe(&key(), at(0), at(29), ended(0)), None, "it may be starting");
        assert_eq!(health.observe(&key(), at(0), at(30), ended(1)), Some(Ask::Container("app-1".into())));
        health.told(&key(), &Detail { exit_code: 137, reason: "OOMKilled".into(), ..Detail::default() });
        let text = "container app ended with exit code 137 (OOMKilled); it was started anew 1 times";
        assert_eq!(health.of(&key()), Some((Blocked::NotRunning, text)));
        assert_eq!(health.observe(&key(), at(0), at(31), ended(1)), None, "known already");
        health.observe(&key(), at(0), at(40), None);
        health.observe(&key(), at(0), at(69), None);
        assert_eq!(health.of(&key()), Some((Blocked::NotRunning, text)), "it runs for the moment");
        assert_eq!(health.observe(&key(), at(0), at(69), ended(2)), Some(Ask::Container("app-2".into())));
        health.observe(&key(), at(0), at(70), None);
        health.observe(&key(), at(0), at(100), None);
        assert_eq!(health.of(&key()), None);
        health.observe(&key(), at(0), at(100), ended(3));
        health.retain(|_| false);
        assert_eq!(health.of(&key()), None);
    }

    #[test]
    fn an_init_container_in_the_way_is_named() {
        let mut health = Health::default();
        let mut tell = |after, code| {
            let fallen = Fallen::Missing { name: "app".into(), after };
            let asked = health.observe(&key(), at(0), at(60), Some(fallen)).is_some();
            health.told(&key(), &Detail { exit_code: code, reason: "Error".into(), ..Detail::default() });
            (asked, health.of(&key()).unwrap().1.to_owned())
        };
        let begins =
            |told: (bool, String), asked, with: &str| assert!(told.0 == asked && told.1.contains(with), "{told:?}");
        begins(tell(None, 1), false, "no container app: its image");
        begins(tell(Some((record("fetch", 0), false)), 0), false, "init container fetch runs still");
        begins(
            tell(Some((record("fetch", 4), true)), 3),
            true,
            "fetch ended with exit code 3 (Error); it was started anew 4",
        );
        begins(tell(Some((record("fetch", 5), true)), 0), true, "no container app: init container fetch has ended");
    }

    #[test]
    fn a_twin_without_a_sandbox_is_told_with_what_the_node_shows() {
        let mut health = Health::default();
        let none = |tried| Some(Fallen::Sandbox { tried });
        assert_eq!(health.observe(&key(), at(0), at(29), none(0)), None);
        assert_eq!(health.observe(&key(), at(0), at(30), none(0)), Some(Ask::Node { tried: 0 }));
        health.shown(&key(), "shown".into());
        assert_eq!(health.of(&key()), Some((Blocked::KubeletRefuses, "shown")));
        assert_eq!(health.observe(&key(), at(30), at(31), none(0)), None, "linked again: said still");
        assert_eq!(health.of(&key()), Some((Blocked::KubeletRefuses, "shown")));
        assert_eq!(
            health.observe(&key(), at(30), at(60), none(0)),
            Some(Ask::Node { tried: 0 }),
            "it may be otherwise now"
        );
        assert_eq!(health.observe(&key(), at(30), at(61), none(0)), None);
        assert_eq!(health.of(&key()), Some((Blocked::KubeletRefuses, "shown")), "until that is known");
    }
}
