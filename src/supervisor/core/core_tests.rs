//! How the core takes in results, apart from the decision itself.

use std::collections::BTreeMap;

use super::*;
use crate::checkpoint::testing::checkpoint;
use crate::names::CONFIG_SOURCE;
use crate::node::runtime::{Container, Sandbox, State as Runs};
use crate::places::reports::{LockedOut, Phase as Reported};
use crate::pod::id::id;

const SECOND: Duration = Duration::from_secs(1);

fn key() -> Key {
    id("shop_till")
}

fn stored() -> Stored {
    let known = Known::of(&checkpoint("shop", "till"));
    Stored {
        keys: [key()].into(),
        changed: BTreeMap::from([(key(), known)]),
    }
}

/// A kubelet that has just started, on a node where nothing runs.
struct Node {
    stored: Stored,
    lists: Lists,
    kubelet: KubeletAnswer,
    links: Option<BTreeSet<Key>>,
}

impl Node {
    fn new() -> Self {
        let owned = Owned {
            pid: 1,
            pods: [("kube-system".to_owned(), "etcd-node-1".to_owned())].into(),
        };
        Self {
            stored: stored(),
            lists: Lists::default(),
            kubelet: KubeletAnswer::Owns(owned),
            links: None,
        }
    }

    /// A sandbox of the parent with a container in this state.
    fn runs(mut self, state: Runs) -> Self {
        let annotations = BTreeMap::from([(CONFIG_SOURCE.to_owned(), "api".to_owned())]);
        let (id, namespace, name) = ("p".to_owned(), "shop".to_owned(), "till".to_owned());
        self.lists.sandboxes.push(Sandbox {
            id,
            namespace,
            name,
            ready: true,
            annotations,
            ..Sandbox::default()
        });
        let (id, sandbox, name) = ("c".to_owned(), "p".to_owned(), "app".to_owned());
        self.lists.containers.push(Container {
            id,
            sandbox,
            name,
            state,
            ..Container::default()
        });
        self
    }

    fn observed(&self, core: &mut Core, now: Duration) -> Vec<Action> {
        let seen = Observation {
            stored: &self.stored,
            lists: Some(&self.lists),
            kubelet: &self.kubelet,
            agent: None,
            exclusive_host_ports: false,
            knows_links: true,
            links: self.links.as_ref(),
        };
        core.observed(&seen, now)
    }
}

fn core() -> Core {
    let settings = Settings {
        activation_delay: SECOND * 3,
        unstick: true,
        activate_locked_out: None,
    };
    Core::new(
        "node-1".into(),
        settings,
        Pace {
            interval: SECOND,
            delay: SECOND * 3,
        },
    )
}

/// The API server has been silent for ten seconds.
fn in_outage() -> Core {
    let mut core = core();
    for second in 0..10 {
        core.heard(SECOND * second, SECOND * (second + 1), Probed::TimedOut);
    }
    core
}

/// The twin of [`key`] is active, or already released.
fn with_twin(is_linked: bool) -> Core {
    let mut core = core();
    let manifest =
        serde_json::json!({"metadata": {"uid": "twin"}, "spec": {"containers": [{"name": "app"}]}});
    core.rebuild(
        &Status::default(),
        vec![FoundTwin {
            key: key(),
            is_linked,
            manifest,
        }],
        SECOND,
    );
    core
}

fn phase(core: &Core) -> Phase {
    core.state().pods[&key()].phase.clone()
}

#[test]
fn a_pod_goes_first_only_if_its_namespace_may() {
    let group_of = |core: Core| {
        let mut core = core;
        let mut node = Node::new();
        let known = node.stored.changed.get_mut(&key()).unwrap();
        known.policy.start_group = -10;
        node.observed(&mut core, SECOND * 20);
        core.facts.pods[&key()].start_group
    };
    assert_eq!(group_of(in_outage()), DEFAULT_START_GROUP);
    let allowed = in_outage().with_early_namespaces([key().namespace().to_owned()]);
    assert_eq!(group_of(allowed), -10);
}

#[test]
fn what_is_linked_is_known_and_recorded_and_what_is_refused_is_blocked() {
    let (mut core, now) = (in_outage(), SECOND * 20);
    let actions = Node::new().observed(&mut core, now);
    assert_eq!(actions, [Action::Activate(key())]);
    let refused = Refused::new(Blocked::ImageAbsent, "image app:1");
    core.done(&actions[0], Outcome::Refused(refused), now);
    assert_eq!(phase(&core), Phase::Inactive);
    let report = core.status(vec!["a problem".into()], None);
    let pod = &report.pods[0];
    assert_eq!(
        (pod.phase, pod.reason.as_deref()),
        (Reported::Blocked, Some("ImageAbsent"))
    );
    assert_eq!(report.problems, ["a problem"]);

    let again = now + SECOND * 3;
    let actions = Node::new().observed(&mut core, again);
    let known = Known::of(&checkpoint("shop", "till"));
    core.done(
        &actions[0],
        Outcome::Linked("twin".into(), Box::new(known)),
        again,
    );
    assert_eq!(core.known()[&key()].twin_uid.as_deref(), Some("twin"));
    assert!(matches!(phase(&core), Phase::Active { .. }));
    let counts = core.outages().outages().counts.activations.clone();
    assert_eq!(
        counts,
        [("Activated".to_owned(), 1), ("ImageAbsent".to_owned(), 1)].into()
    );
}

#[test]
fn a_failed_action_is_decided_again() {
    let mut core = with_twin(true);
    core.heard(SECOND, SECOND, Probed::Status(200));
    let actions = core.release_at_sign(SECOND * 2);
    assert_eq!(actions, [Action::Release(key())]);
    core.done(&actions[0], Outcome::Failed, SECOND * 2);
    assert!(
        matches!(phase(&core), Phase::Active { .. }),
        "the link is there still"
    );
    assert_eq!(core.release_at_sign(SECOND * 3), actions);
    core.done(&actions[0], Outcome::Done, SECOND * 3);
    assert!(core.release_at_sign(SECOND * 4).is_empty());
}

#[test]
fn while_a_pod_is_being_stopped_nothing_is_concluded_from_what_runs_of_it() {
    let mut core = in_outage();
    let node = Node::new().runs(Runs::Exited);
    assert!(node.observed(&mut core, SECOND * 20).is_empty());
    let actions = node.observed(&mut core, SECOND * 31);
    assert_eq!(actions, [Action::StopParent(key())]);
    let stop = core.stop(&actions[0], &node.lists).unwrap();
    assert_eq!(
        (stop.targets.len(), stop.targets[0].sandbox.as_str()),
        (1, "p")
    );
    core.done(&actions[0], Outcome::Started, SECOND * 31);
    assert!(
        node.observed(&mut core, SECOND * 60).is_empty(),
        "not stopped twice at once"
    );
    assert!(
        Node::new().observed(&mut core, SECOND * 61).is_empty(),
        "nor is anything linked meanwhile"
    );
    core.ended(&actions[0]);
    assert_eq!(
        Node::new().observed(&mut core, SECOND * 62),
        [Action::Activate(key())]
    );
}

#[test]
fn a_checkpoint_is_known_after_its_twin_ended_as_long_as_it_is_in_the_store() {
    for (in_store, known) in [(true, 1), (false, 0)] {
        let mut core = with_twin(false);
        let stored = if in_store {
            stored()
        } else {
            Stored::default()
        };
        Node {
            stored,
            ..Node::new()
        }
        .observed(&mut core, SECOND * 2);
        core.done(&Action::Forget(key()), Outcome::Done, SECOND * 3);
        assert_eq!(core.known().len(), known);
        assert!(core.known().values().all(|known| known.twin_uid.is_none()));
    }
}

#[test]
fn a_twin_that_was_linked_although_the_api_server_answered_is_not_released_by_its_answer() {
    let found = |reason: Option<&str>| {
        let pod = PodReport {
            namespace: "shop".into(),
            name: "till".into(),
            reason: reason.map(str::to_owned),
            ..PodReport::default()
        };
        let locked_out = Some(LockedOut {
            kubelet_pid: Some(7),
            since: 5_000,
        });
        let last = Status {
            pods: vec![pod],
            locked_out,
            ..Status::default()
        };
        let twin = FoundTwin {
            key: key(),
            is_linked: true,
            manifest: Value::Null,
        };
        let mut core = core();
        core.rebuild(&last, vec![twin], SECOND * 9);
        assert_eq!(core.state().locked_out, Some((Some(7), SECOND * 5)));
        core.heard(SECOND, SECOND * 9, Probed::Status(200));
        core.release_at_sign(SECOND * 10).len()
    };
    assert_eq!(
        [None, Some(REJECTED_AT_RETURN), Some("KubeletLockedOut")].map(found),
        [1, 0, 0]
    );
}

#[test]
fn passes_are_rare_only_while_the_api_server_answers_and_nothing_is_active() {
    let mut core = core();
    core.heard(SECOND, SECOND, Probed::Status(200));
    let node = Node::new();
    node.observed(&mut core, SECOND * 2);
    core.settle();
    assert!(core.is_quiet() && core.between_passes() == pace::QUIET);
    core.heard(SECOND * 3, SECOND * 4, Probed::Refused);
    node.observed(&mut core, SECOND * 4);
    core.settle();
    assert!(!core.is_quiet() && core.between_passes() < SECOND);

    let mut core = with_twin(false);
    core.heard(SECOND, SECOND, Probed::Status(200));
    node.observed(&mut core, SECOND * 2);
    core.settle();
    assert!(core.is_alert() && !core.is_quiet() && core.between_passes() == pace::LOOK);
}

#[test]
fn without_the_manifest_directory_nothing_is_decided_about_any_pod() {
    let (mut core, node) = (in_outage(), Node::new());
    let seen = Observation {
        stored: &node.stored,
        lists: Some(&node.lists),
        kubelet: &node.kubelet,
        agent: None,
        exclusive_host_ports: false,
        knows_links: false,
        links: None,
    };
    assert!(core.observed(&seen, SECOND * 20).is_empty());
    assert_eq!(
        node.observed(&mut core, SECOND * 21),
        [Action::Activate(key())]
    );
}

#[test]
fn a_renewal_that_cannot_be_prepared_keeps_its_link_which_the_first_answer_removes() {
    let (mut core, mut node) = (with_twin(true), Node::new());
    node.links = Some([key()].into());
    for second in 1..200 {
        core.heard(SECOND * second, SECOND * (second + 1), Probed::TimedOut);
    }
    let actions = node.observed(&mut core, SECOND * 201);
    assert!(
        actions.contains(&Action::Renew(key())),
        "the kubelet does not run it: {actions:?}"
    );
    let refused = Refused::new(Blocked::ImageUnknown, "the runtime does not answer");
    core.done(
        &Action::Renew(key()),
        Outcome::Refused(refused),
        SECOND * 201,
    );
    assert!(matches!(phase(&core), Phase::Active { .. }));
    let again = node.observed(&mut core, SECOND * 202);
    assert!(!again.contains(&Action::Renew(key())), "after a pause");
    core.heard(SECOND * 202, SECOND * 203, Probed::Status(200));
    assert_eq!(core.release_at_sign(SECOND * 203), [Action::Release(key())]);
}

#[test]
fn a_link_that_is_found_is_removed_at_the_first_answer_whatever_was_meant() {
    let (mut core, mut node) = (in_outage(), Node::new());
    node.links = Some([key()].into());
    assert_eq!(
        node.observed(&mut core, SECOND * 20),
        [],
        "it has a twin already"
    );
    core.heard(SECOND * 20, SECOND * 21, Probed::Status(200));
    assert_eq!(core.release_at_sign(SECOND * 21), [Action::Release(key())]);
    // and again, as long as it is there
    assert_eq!(
        node.observed(&mut core, SECOND * 22),
        [Action::Release(key())]
    );
    node.links = Some(BTreeSet::new());
    assert!(
        !node
            .observed(&mut core, SECOND * 23)
            .contains(&Action::Release(key()))
    );
}

#[test]
fn a_twin_whose_link_is_gone_is_activated_again() {
    let (mut core, mut node) = (with_twin(true), Node::new());
    node.links = Some(BTreeSet::new());
    for second in 1..10 {
        core.heard(SECOND * second, SECOND * (second + 1), Probed::TimedOut);
    }
    node.observed(&mut core, SECOND * 12);
    assert_eq!(
        node.observed(&mut core, SECOND * 13),
        [Action::Activate(key())]
    );
}

#[test]
fn what_was_canceled_is_decided_again() {
    let (mut core, node) = (in_outage(), Node::new());
    assert_eq!(
        node.observed(&mut core, SECOND * 20),
        [Action::Activate(key())]
    );
    core.done(&Action::Activate(key()), Outcome::Canceled, SECOND * 20);
    assert_eq!(core.state().pods.get(&key()), None);
    assert_eq!(
        node.observed(&mut core, SECOND * 21),
        [Action::Activate(key())]
    );
}
