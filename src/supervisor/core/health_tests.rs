use crate::pod::id::id;
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
        sandboxes: vec![Sandbox {
            id: "s".into(),
            uid: "twin".into(),
            ready: true,
            ..Sandbox::default()
        }],
        containers: containers.iter().map(container).collect(),
    }
}

fn key() -> Key {
    id("shop_till")
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
    Record {
        name: name.into(),
        id: format!("{name}-{attempt}"),
        attempt,
    }
}

#[test]
fn the_newest_record_of_each_container_counts() {
    let find = |containers: &[(&str, u32, State)]| find_fault(&lists(containers), "twin", &known());
    assert_eq!(
        find(&[("app", 0, State::Running), ("log", 0, State::Running)]),
        None
    );
    assert_eq!(
        find(&[
            ("app", 0, State::Exited),
            ("app", 1, State::Running),
            ("log", 0, State::Created)
        ]),
        None
    );
    let ended = [
        ("app", 0, State::Running),
        ("log", 0, State::Exited),
        ("log", 1, State::Exited),
    ];
    assert_eq!(find(&ended), Some(Fault::Ended(record("log", 1))));
    let missing = |name: &str, after| {
        Some(Fault::Missing {
            name: name.into(),
            after,
        })
    };
    assert_eq!(find(&[("app", 0, State::Running)]), missing("log", None));
    let inits = [
        ("fetch", 0, State::Exited),
        ("unpack", 0, State::Exited),
        ("unpack", 1, State::Running),
    ];
    assert_eq!(
        find(&inits),
        missing("app", Some((record("unpack", 1), false)))
    );
    assert_eq!(
        find(&inits[..1]),
        missing("app", Some((record("fetch", 0), true)))
    );
}

#[test]
fn a_sandbox_that_is_not_ready_does_not_count() {
    let mut lists = lists(&[]);
    assert_eq!(
        find_fault(&lists, "another", &known()),
        Some(Fault::Sandbox { tried: 0 })
    );
    lists.sandboxes[0].ready = false;
    assert_eq!(
        find_fault(&lists, "twin", &known()),
        Some(Fault::Sandbox { tried: 1 })
    );
}

#[test]
fn a_twin_that_does_not_keep_running_is_reported_with_the_runtimes_reason_until_it_has_run_for_a_while()
 {
    let mut health = Health::default();
    let ended = |attempt: u32| Some(Fault::Ended(record("app", attempt)));
    assert_eq!(
        health.observe(&key(), at(0), at(29), ended(0)),
        None,
        "it may be starting"
    );
    assert_eq!(
        health.observe(&key(), at(0), at(30), ended(1)),
        Some(LookUp::Container("app-1".into()))
    );
    health.container_ended(
        &key(),
        &Detail {
            exit_code: 137,
            reason: "OOMKilled".into(),
            ..Detail::default()
        },
    );
    let text = "container app ended with exit code 137 (OOMKilled); it was restarted once";
    assert_eq!(health.of(&key()), Some((Blocked::NotRunning, text)));
    assert_eq!(
        health.observe(&key(), at(0), at(31), ended(1)),
        None,
        "known already"
    );
    health.observe(&key(), at(0), at(40), None);
    health.observe(&key(), at(0), at(69), None);
    assert_eq!(
        health.of(&key()),
        Some((Blocked::NotRunning, text)),
        "it runs for the moment"
    );
    assert_eq!(
        health.observe(&key(), at(0), at(69), ended(2)),
        Some(LookUp::Container("app-2".into()))
    );
    health.observe(&key(), at(0), at(70), None);
    health.observe(&key(), at(0), at(100), None);
    assert_eq!(health.of(&key()), None);
    health.observe(&key(), at(0), at(100), ended(3));
    health.retain(|_| false);
    assert_eq!(health.of(&key()), None);
}

#[test]
fn an_init_container_that_fails_is_named() {
    let mut health = Health::default();
    let mut tell = |after, code| {
        let fault = Fault::Missing {
            name: "app".into(),
            after,
        };
        let asked = health.observe(&key(), at(0), at(60), Some(fault)).is_some();
        health.container_ended(
            &key(),
            &Detail {
                exit_code: code,
                reason: "Error".into(),
                ..Detail::default()
            },
        );
        (asked, health.of(&key()).unwrap().1.to_owned())
    };
    let begins = |told: (bool, String), asked, with: &str| {
        assert!(told.0 == asked && told.1.contains(with), "{told:?}");
    };
    begins(tell(None, 1), false, "no container app: its image");
    begins(
        tell(Some((record("fetch", 0), false)), 0),
        false,
        "init container fetch still runs",
    );
    begins(
        tell(Some((record("fetch", 4), true)), 3),
        true,
        "fetch ended with exit code 3 (Error); it was restarted 4",
    );
    begins(
        tell(Some((record("fetch", 5), true)), 0),
        true,
        "no container app: init container fetch has ended",
    );
}

#[test]
fn a_twin_without_a_sandbox_is_reported_with_what_the_node_shows() {
    let mut health = Health::default();
    let none = |tried| Some(Fault::Sandbox { tried });
    assert_eq!(health.observe(&key(), at(0), at(29), none(0)), None);
    assert_eq!(
        health.observe(&key(), at(0), at(30), none(0)),
        Some(LookUp::Node { tried: 0 })
    );
    health.has_no_sandbox(&key(), "shown".into());
    assert_eq!(health.of(&key()), Some((Blocked::KubeletRefuses, "shown")));
    assert_eq!(
        health.observe(&key(), at(30), at(31), none(0)),
        None,
        "linked again: said still"
    );
    assert_eq!(health.of(&key()), Some((Blocked::KubeletRefuses, "shown")));
    assert_eq!(
        health.observe(&key(), at(30), at(60), none(0)),
        Some(LookUp::Node { tried: 0 }),
        "it may be otherwise now"
    );
    assert_eq!(health.observe(&key(), at(30), at(61), none(0)), None);
    assert_eq!(
        health.of(&key()),
        Some((Blocked::KubeletRefuses, "shown")),
        "until that is known"
    );
}
