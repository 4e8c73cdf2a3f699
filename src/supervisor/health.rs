//! Twins whose containers do not stay up: the kubelet took them, and starts them again and again. What is said of them, from
//! the runtime's own evidence.
//!
//! Nothing is decided by it. The kubelet tries again with growing pauses of its own, and a twin that serves now and then is
//! better than none.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::node::runtime::{Detail, State};
use crate::supervisor::facts::Key;
use crate::supervisor::observe::Lists;

/// A twin may take this long to come up, and one that fails must run this long to be well again.
const PATIENCE: Duration = Duration::from_secs(30);

/// A container that should run and does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallen {
    /// Its name in the pod.
    pub name: String,
    /// Its newest record in the runtime, if there is any, and how often it was started anew.
    pub record: Option<(String, u32)>,
}

/// The first container of the twin with this UID that should run and does not: one that has ended, or none at all. `None`:
/// all run, or the sandbox is not there yet.
pub fn fallen(lists: &Lists, twin_uid: &str, expected: &[String]) -> Option<Fallen> {
    let sandbox = lists.sandboxes.iter().find(|sandbox| sandbox.ready && sandbox.uid == twin_uid)?;
    expected.iter().find_map(|name| {
        let records = lists.containers.iter().filter(|one| one.sandbox == sandbox.id && one.name == *name);
        let newest = records.max_by_key(|one| one.attempt);
        match newest {
            None => Some(Fallen { name: name.clone(), record: None }),
            Some(one) if one.state == State::Exited => {
                Some(Fallen { name: name.clone(), record: Some((one.id.clone(), one.attempt)) })
            }
            Some(_) => None,
        }
    })
}

#[derive(Debug)]
struct Ailing {
    fallen: Fallen,
    text: String,
    well_since: Option<Duration>,
}

/// What is known of twins that do not stay up.
#[derive(Debug, Default)]
pub struct Health(BTreeMap<Key, Ailing>);

impl Health {
    /// Takes in what a pass saw of an active twin that was linked at `linked`. Says which container the runtime should be
    /// asked about, if what it says is not known yet; then [`Health::told`].
    pub fn observe(&mut self, key: &str, linked: Duration, now: Duration, fallen: Option<Fallen>) -> Option<String> {
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
            return None;
        }
        let text = match fallen.record {
            None => format!(
                "the kubelet has made no container {}: an init container, or an image, may be in the way",
                fallen.name
            ),
            Some((_, attempt)) => format!("container {} has ended; it was started anew {attempt} times", fallen.name),
        };
        let id = fallen.record.as_ref().map(|(id, _)| id.clone());
        self.0.insert(key.to_owned(), Ailing { fallen, text, well_since: None });
        id
    }

    /// What the runtime said of the container that was asked for.
    pub fn told(&mut self, key: &str, detail: &Detail) {
        if let Some(Ailing { fallen: Fallen { name, record: Some((_, attempt)) }, text, .. }) = self.0.get_mut(key) {
            let (code, reason) = (detail.exit_code, &detail.reason);
            *text =
                format!("container {name} ended with exit code {code} ({reason}); it was started anew {attempt} times");
        }
    }

    /// Forgets twins that are not active any more.
    pub fn retain(&mut self, is_active: impl Fn(&str) -> bool) {
        self.0.retain(|key, _| is_active(key));
    }

    /// What is to be said of a twin; `None`: it is well, as far as is known.
    pub fn of(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|ailing| ailing.text.as_str())
    }
}

#[cfg(test)]
mod tests {
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

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_newest_record_of_each_container_counts() {
        let expected = ["app".to_owned(), "log".to_owned()];
        let find = |containers: &[(&str, u32, State)]| fallen(&lists(containers), "twin", &expected);
        assert_eq!(find(&[("app", 0, State::Running), ("log", 0, State::Running)]), None);
        assert_eq!(find(&[("app", 0, State::Exited), ("app", 1, State::Running), ("log", 0, State::Created)]), None);
        let ended = find(&[("app", 0, State::Running), ("log", 0, State::Exited), ("log", 1, State::Exited)]).unwrap();
        assert_eq!((ended.name.as_str(), ended.record), ("log", Some(("log-1".into(), 1))));
        assert_eq!(find(&[("app", 0, State::Running)]).unwrap().record, None);
        assert_eq!(fallen(&lists(&[]), "another", &expected), None, "no sandbox yet");
    }

    #[test]
    fn a_twin_that_does_not_stay_up_is_told_with_the_runtimes_word_until_it_has_run_for_a_while() {
        let mut health = Health::default();
        let ended =
            |attempt: u32| Some(Fallen { name: "app".into(), record: Some((format!("app-{attempt}"), attempt)) });
        assert_eq!(health.observe("k", at(0), at(29), ended(0)), None, "it may be starting");
        assert_eq!(health.observe("k", at(0), at(30), ended(1)).as_deref(), Some("app-1"));
        health.told("k", &Detail { exit_code: 137, reason: "OOMKilled".into(), ..Detail::default() });
        let text = "container app ended with exit code 137 (OOMKilled); it was started anew 1 times";
        assert_eq!(health.of("k"), Some(text));
        assert_eq!(health.observe("k", at(0), at(31), ended(1)), None, "known already");
        health.observe("k", at(0), at(40), None);
        health.observe("k", at(0), at(69), None);
        assert_eq!(health.of("k"), Some(text), "it runs for the moment");
        assert_eq!(health.observe("k", at(0), at(69), ended(2)).as_deref(), Some("app-2"));
        health.observe("k", at(0), at(70), None);
        health.observe("k", at(0), at(100), None);
        assert_eq!(health.of("k"), None);
        health.observe("k", at(0), at(100), Some(Fallen { name: "app".into(), record: None }));
        assert!(health.of("k").unwrap().starts_with("the kubelet has made no container app"));
        health.retain(|_| false);
        assert_eq!(health.of("k"), None);
    }
}
