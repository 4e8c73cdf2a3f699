use super::*;
use crate::pod::id::id;
use std::collections::BTreeMap;

fn sandbox(id: &str, name: &str, uid: &str, source: &str, ready: bool) -> Sandbox {
    let mut annotations = BTreeMap::from([(CONFIG_SOURCE.to_owned(), source.to_owned())]);
    if source == "file" {
        annotations.insert(CHECKPOINT_OF.into(), "shop/till".into());
    }
    let (id, name, uid) = (id.into(), name.into(), uid.into());
    Sandbox {
        id,
        namespace: "shop".into(),
        name,
        uid,
        ready,
        annotations,
        ..Sandbox::default()
    }
}

fn container(sandbox: &str, name: &str, state: State) -> Container {
    Container {
        sandbox: sandbox.into(),
        name: name.into(),
        state,
        ..Container::default()
    }
}

fn facts(lists: Option<&Lists>, owned: Option<&Owned>) -> PodFacts {
    let checkpoint = crate::checkpoint::testing::checkpoint("shop", "till");
    let known = Known {
        twin_uid: Some("twin".into()),
        ..Known::of(&checkpoint)
    };
    pod_facts(
        &id("shop_till"),
        &known,
        "Node-1",
        lists,
        owned,
        None,
        false,
    )
}

#[test]
fn whatever_could_not_be_queried_is_unknown() {
    let seen = facts(None, None);
    assert_eq!(
        (seen.parent, seen.twin, seen.parent_owned),
        (Run::Unknown, Run::Unknown, Seen::Unknown)
    );
    assert_eq!(
        (seen.twin_sandbox, seen.parent_container),
        (Seen::Unknown, Seen::Unknown)
    );
}

#[test]
fn parent_and_twin_are_told_apart_by_source_and_annotation() {
    let lists = Lists {
        sandboxes: vec![
            sandbox("p", "till", "parent", "api", true),
            sandbox("t", "till-node-1", "twin", "file", true),
        ],
        containers: vec![
            container("p", "app", State::Exited),
            container("t", "app", State::Running),
        ],
    };
    let seen = facts(Some(&lists), None);
    assert_eq!(
        (seen.parent, seen.twin, seen.twin_sandbox),
        (Run::Partial, Run::Running, Seen::Yes)
    );
}

#[test]
fn a_parent_under_another_uid_counts_as_the_parent() {
    let lists = Lists {
        sandboxes: vec![sandbox("p", "till", "successor", "api", true)],
        containers: vec![container("p", "app", State::Running)],
    };
    assert_eq!(facts(Some(&lists), None).parent, Run::Running);
}

#[test]
fn a_parent_that_has_only_a_sandbox_may_still_wait_for_the_api_server() {
    let mut lists = Lists {
        sandboxes: vec![sandbox("p", "till", "parent", "api", true)],
        containers: Vec::new(),
    };
    assert_eq!(facts(Some(&lists), None).parent_container, Seen::No);
    lists
        .containers
        .push(container("p", "some-init", State::Exited));
    assert_eq!(facts(Some(&lists), None).parent_container, Seen::No);
    lists.containers.push(container("p", "app", State::Created));
    assert_eq!(facts(Some(&lists), None).parent_container, Seen::Yes);
    lists.sandboxes[0].ready = false;
    assert_eq!(
        facts(Some(&lists), None).parent_container,
        Seen::No,
        "a record of the last boot"
    );
}

#[test]
fn a_container_created_since_the_kubelet_owned_no_api_pod_shows_that_it_creates_them() {
    let owned = |name: &str| Owned {
        pid: 1,
        pods: [("shop".to_owned(), name.to_owned())].into(),
    };
    let (alone, synced) = (owned("till-node-1"), owned("till"));
    let mut lists = Lists {
        sandboxes: vec![
            sandbox("p", "till", "parent", "api", true),
            sandbox("t", "till-node-1", "twin", "file", true),
        ],
        containers: vec![container("p", "app", State::Running)],
    };
    lists.containers[0].id = "of-the-last-kubelet".into();
    let mut made = NewContainers::default();
    let mut look = |lists: Option<&Lists>, owned: Option<&Owned>| made.look(lists, owned, "node-1");
    assert_eq!(
        look(Some(&lists), Some(&synced)),
        Seen::Unknown,
        "nobody saw what was there before"
    );
    assert_eq!(look(Some(&lists), Some(&alone)), Seen::No);
    assert_eq!(look(Some(&lists), Some(&synced)), Seen::No);
    lists.containers.push(Container {
        id: "of-the-twin".into(),
        ..container("t", "app", State::Running)
    });
    assert_eq!(look(Some(&lists), Some(&synced)), Seen::No);
    lists.containers.push(Container {
        id: "new".into(),
        ..container("p", "app", State::Created)
    });
    assert_eq!(
        look(None, Some(&synced)),
        Seen::No,
        "the runtime did not tell"
    );
    assert_eq!(look(Some(&lists), Some(&synced)), Seen::Yes);
    assert_eq!(look(None, Some(&synced)), Seen::Yes);
    assert_eq!(
        look(Some(&lists), None),
        Seen::Unknown,
        "the next kubelet is another one"
    );
    assert_eq!(look(Some(&lists), Some(&synced)), Seen::Unknown);
}

#[test]
fn dead_sandboxes_of_the_last_boot_count_for_nothing() {
    let lists = Lists {
        sandboxes: vec![sandbox("p", "till", "parent", "api", false)],
        containers: vec![container("p", "app", State::Exited)],
    };
    assert_eq!(facts(Some(&lists), None).parent, Run::Stopped);
}

#[test]
fn the_agents_report_counts_for_the_containers_that_run_now() {
    let mut lists = Lists {
        sandboxes: vec![sandbox("p", "till", "parent", "api", true)],
        containers: vec![container("p", "app", State::Running)],
    };
    lists.containers[0].id = "new".into();
    let ready = |id: &str| is_ready(Some(&vec![id.to_owned()]), Some(&lists), "shop", "till");
    assert!(ready("new"));
    assert!(!ready("old"), "Ready by a report from before the outage");
    assert!(!is_ready(Some(&Vec::new()), Some(&lists), "shop", "till"));
    assert!(!is_ready(None, Some(&lists), "shop", "till"));
}

#[test]
fn refused_parents_are_unknown_while_the_agent_has_no_contact() {
    let checkpoint = crate::checkpoint::testing::checkpoint("shop", "till");
    let known = Known::of(&checkpoint);
    let rejected = |uid: &str, unheard| {
        let rejected = BTreeMap::from([(id("shop_till"), uid.to_owned())]);
        let report = AgentReport {
            rejected,
            unheard,
            ..AgentReport::default()
        };
        pod_facts(
            &id("shop_till"),
            &known,
            "node-1",
            None,
            None,
            Some(&report),
            false,
        )
        .parent_rejected
    };
    assert_eq!(rejected(&known.parent_uid, false), Seen::Yes);
    assert_eq!(rejected("its predecessor", false), Seen::No);
    assert_eq!(
        rejected(&known.parent_uid, true),
        Seen::Unknown,
        "its owner may have replaced it since"
    );
    assert_eq!(
        rejected("its predecessor", true),
        Seen::Unknown,
        "or the kubelet refused it since"
    );
}

#[test]
fn the_kubelet_lists_a_twin_under_its_name_with_the_nodes() {
    let pods = [("shop".to_owned(), "till-node-1".to_owned())].into();
    let seen = facts(None, Some(&Owned { pid: 1, pods }));
    assert_eq!((seen.parent_owned, seen.twin_owned), (Seen::No, Seen::Yes));
}
