//! What the agent writes to the API server, PodCheckpoints and Events, and that it writes nothing
//! twice.

use pod_checkpointer::places::reports::{
    AGENT, OUTAGES, Outage, Outages, Phase, PodOutage, PodReport, STATUS, Status,
};
use serde_json::{Value, json};

use crate::stub::api::{GROUP, State, checkpoint_path};
use crate::stub::{Node, eventually, id, until};

#[tokio::test]
async fn a_deleted_podcheckpoint_is_written_again_unless_its_pod_is_gone() {
    let node = Node::start();
    for (name, uid) in [("till", "uid-1"), ("other", "uid-2")] {
        node.api.put_pod(node.run_pod(name, uid));
    }
    let path = |name: &str| checkpoint_path("shop", name);
    let uid = |name: &str| {
        node.api
            .checkpoint("shop", name)
            .map(|object| object["metadata"]["uid"].clone())
    };
    node.with_agent(node.settings(), async {
        node.captured("till", 1).await;
        node.captured("other", 1).await;
        let before = uid("till");
        node.api.change(|state| state.delete(&path("till")));
        node.api
            .until_condition("shop", "till", "Recoverable", "True", "Recoverable")
            .await;
        assert_ne!(uid("till"), before, "another object");
        // the definition is deleted with all objects, and created again
        node.api.change(|state| {
            state.lacks.insert(GROUP.into());
            state.delete(&path("till"));
            state.delete(&path("other"));
            state.ended += 1;
        });
        node.api.until_asked("WATCH podcheckpoints", 3).await;
        node.api.change(|state| state.lacks.remove(GROUP));
        for name in ["till", "other"] {
            node.api
                .until_condition("shop", name, "Recoverable", "True", "Recoverable")
                .await;
        }
        node.api.delete_pod("shop", "other");
        node.api.change(|state| state.delete(&path("other")));
        eventually("the other's checkpoint goes", || {
            node.store().keys().unwrap() == [id("shop_till")]
        })
        .await;
    })
    .await;
    assert_eq!(node.api.checkpoint("shop", "other"), None);
    assert_eq!(
        node.newest("shop_till"),
        Some(1),
        "nothing was captured anew"
    );
}

#[tokio::test]
async fn a_risk_of_the_node_is_reported_on_its_pods_and_on_the_node_until_it_is_over() {
    let node = Node::start();
    node.api.put_pod(node.run_pod("till", "uid-1"));
    let mut plugin = node.run_pod("cni", "uid-2");
    plugin["metadata"]["annotations"] = json!({});
    plugin["metadata"]["ownerReferences"][0]["name"] = json!("cni");
    plugin["spec"]["hostNetwork"] = json!(true);
    plugin["spec"]["volumes"] = json!([{"name": "cni", "hostPath": {"path": "/etc/cni/net.d"}}]);
    node.api.put_pod(plugin.clone());
    let manifests = node.path("etc/kubernetes/manifests");
    std::fs::remove_dir(&manifests).unwrap();
    node.with_agent(node.settings(), async {
        node.api
            .until_condition("shop", "till", "NodeFit", "False", "NoStaticPodDirectory")
            .await;
        let told = |state: &State| {
            let of_node = |event: &&Value| event["regarding"]["kind"] == "Node";
            let reasons = state
                .events
                .iter()
                .filter(of_node)
                .filter_map(|event| event["reason"].as_str());
            ["NoStaticPodDirectory", "NetworkNotCheckpointed"]
                .iter()
                .all(|it| reasons.clone().any(|one| one == *it))
        };
        until(&node.api.state, told).await;
        let known = node.agent_report().risks;
        assert!(
            known["NetworkNotCheckpointed"].contains("shop/cni (network plugin)"),
            "{known:?}"
        );
        std::fs::create_dir(&manifests).unwrap();
        node.api
            .until_condition("shop", "till", "NodeFit", "False", "NetworkNotCheckpointed")
            .await;
        plugin["spec"]["volumes"] = json!([]);
        node.api.put_pod(plugin);
        node.api
            .until_condition("shop", "till", "NodeFit", "True", "Fit")
            .await;
    })
    .await;
    let before = node.api.count("PATCH podcheckpoints/status");
    let other = node.run_pod("other", "uid-3");
    node.with_agent(node.settings(), async {
        node.api.put_pod(other);
        node.captured("other", 1).await;
    })
    .await;
    let patches = node.api.count("PATCH podcheckpoints/status") - before;
    assert_eq!(
        patches, 2,
        "an agent that starts again sees the same: only the other pod is new"
    );
}

#[tokio::test]
async fn an_agent_that_starts_again_writes_nothing_that_is_written_already() {
    let node = Node::start();
    node.after_capture().await;
    let patches = |node: &Node| {
        node.api.count("PATCH podcheckpoints") + node.api.count("PATCH podcheckpoints/status")
    };
    let before = patches(&node);
    let file = node
        .store()
        .newest(&id("shop_till"))
        .unwrap()
        .0
        .unwrap()
        .path;
    let written = std::fs::metadata(&file).unwrap().modified().unwrap();
    let other = node.run_pod("other", "uid-2");
    node.with_agent(node.settings(), async {
        node.api.put_pod(other);
        node.captured("other", 1).await;
    })
    .await;
    assert_eq!(
        std::fs::metadata(&file).unwrap().modified().unwrap(),
        written
    );
    assert_eq!(
        patches(&node) - before,
        2 + 1,
        "spec and status of the other, once; its capture, once"
    );
}

#[tokio::test]
async fn the_reason_of_a_refused_pod_is_reported_once_everywhere() {
    let node = Node::start();
    let mut pod = node.run_pod("till", "uid-1");
    pod["spec"]["volumes"] =
        json!([{"name": "prices", "persistentVolumeClaim": {"claimName": "prices"}}]);
    node.api.put_pod(pod.clone());
    node.with_agent(node.settings(), async {
        node.api
            .until_condition("shop", "till", "Recoverable", "False", "PersistentVolume")
            .await;
        until(&node.api.state, |state| !state.events.is_empty()).await;
        pod["status"]["conditions"][0]["lastTransitionTime"] = json!("2026-11-21T11:00:00Z");
        node.api.put_pod(pod);
        node.api.put_pod(node.run_pod("other", "uid-2"));
        node.captured("other", 1).await;
    })
    .await;
    let told = node.api.state.borrow().events.clone();
    let told: Vec<_> = told
        .iter()
        .filter(|event| event["regarding"]["name"] == "till")
        .collect();
    assert_eq!(told.len(), 1);
    assert_eq!(
        (&told[0]["reason"], &told[0]["type"]),
        (&json!("PersistentVolume"), &json!("Warning"))
    );
    assert_eq!(told[0]["regarding"]["uid"], "uid-1");
    assert!(node.agent_report().refused[&id("shop_till")][0].starts_with("PersistentVolume"));
}

#[tokio::test]
async fn what_the_supervisor_did_is_shown_on_the_pods_checkpoint() {
    let node = Node::start();
    node.api.put_pod(node.run_pod("till", "uid-1"));
    let report = |phase| PodReport {
        namespace: "shop".into(),
        name: "till".into(),
        parent_uid: "uid-1".into(),
        phase,
        ..PodReport::default()
    };
    let status = |phase| Status {
        pods: vec![report(phase)],
        ..Status::default()
    };
    let outage = Outage {
        from: 1_000,
        from_wall: "2026-11-21T10:00:00Z".into(),
        to: Some(61_000),
        to_wall: None,
        pods: [(
            id("shop_till"),
            PodOutage {
                parent_uid: "uid-1".into(),
                activated: Some(4_500),
                ..PodOutage::default()
            },
        )]
        .into(),
    };
    let events = |state: &State| -> Vec<String> {
        state
            .events
            .iter()
            .map(|event| event["reason"].as_str().unwrap().to_owned())
            .collect()
    };
    node.with_agent(node.settings(), async {
        node.captured("till", 1).await;
        let run = node.run_dir();
        run.write(STATUS, &status(Phase::Active)).unwrap();
        node.api
            .until_condition("shop", "till", "Active", "True", "Active")
            .await;
        run.write(
            OUTAGES,
            &Outages {
                outages: vec![outage],
                ..Outages::default()
            },
        )
        .unwrap();
        run.write(STATUS, &status(Phase::Inactive)).unwrap();
        node.api
            .until_condition("shop", "till", "Active", "False", "Inactive")
            .await;
        until(&node.api.state, |state| {
            events(state) == ["Captured", "Activated"]
        })
        .await;
    })
    .await;
    let told = node.api.state.borrow().events[1].clone();
    assert_eq!(
        (&told["type"], &told["regarding"]["uid"]),
        (&json!("Normal"), &json!("uid-1"))
    );
    assert!(
        told["note"]
            .as_str()
            .unwrap()
            .contains("2026-11-21T10:00:03.5Z"),
        "{told}"
    );
    let status = &node.api.checkpoint("shop", "till").unwrap()["status"];
    assert_eq!(status["phase"], "Inactive");
    assert_eq!(status["lastOutage"]["activated"], "2026-11-21T10:00:03.5Z");
    assert_eq!(status["lastOutage"]["to"], "2026-11-21T10:01:00Z");
}

#[tokio::test]
async fn no_secret_leaves_the_node() {
    let node = Node::start();
    let mut pod = node.run_pod("till", "uid-1");
    pod["spec"]["containers"][0]["env"] = json!([{"name": "PASSWORD", "value": "hunter2"}]);
    node.runtime.change(|state| {
        for container in state.containers.values_mut() {
            container.spec.env = vec![("PASSWORD".into(), "hunter2".into())];
        }
    });
    node.swap("uid-1", "s3cret");
    node.api.put_pod(pod);
    node.with_agent(node.settings(), node.captured("till", 1))
        .await;
    let shown = node.api.checkpoint("shop", "till").unwrap().to_string();
    let agent = std::fs::read_to_string(node.run_dir().path().join(AGENT)).unwrap();
    let secret = pod_checkpointer::checkpoint::encoding::encode(b"s3cret");
    for text in [shown, agent] {
        assert!(
            !text.contains("hunter2") && !text.contains("s3cret") && !text.contains(&secret),
            "{text}"
        );
    }
    assert_eq!(node.content("till"), b"s3cret");
}
