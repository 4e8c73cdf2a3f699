//! The supervisor's manifest: with what it is installed, and when it is not.

use serde_json::{Value, json};

use crate::stub::api::{State, checkpoint_path};
use crate::stub::node::NAME;
use crate::stub::{Node, eventually, until};

#[tokio::test]
async fn the_supervisor_is_installed_and_gets_what_it_must_know() {
    let node = Node::start();
    node.with_agent(
        node.settings(),
        eventually("the supervisor is installed", || {
            node.supervisor_manifest().exists()
        }),
    )
    .await;
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(node.supervisor_manifest()).unwrap()).unwrap();
    assert_eq!(
        manifest["spec"]["containers"][0]["image"],
        "registry.example/pod-checkpointer:v1"
    );
    let record = node.store().node().unwrap().unwrap();
    assert_eq!(
        (record.node_name.as_str(), record.node_uid.as_str()),
        (NAME, "node-uid-1")
    );
}

#[tokio::test]
async fn with_the_api_server_given_a_kubelet_that_names_none_is_no_problem() {
    let node = Node::start();
    node.api.put_pod(node.run_pod("till", "uid-1"));
    let settings = node.settings_with(|flags| {
        flags.supervisor_image = Some(String::new());
        flags.decision.apiservers = vec!["https://10.0.0.1:6443".into()];
    });
    let path = checkpoint_path("shop", "till");
    // reported once the node was surveyed
    let is_surveyed = |state: &State| {
        state
            .objects
            .get(&path)
            .is_some_and(|object| object.to_string().contains("--supervisor-image is empty"))
    };
    node.with_agent(settings, until(&node.api.state, is_surveyed))
        .await;
    assert_eq!(node.agent_report().problems, Vec::<String>::new());
}

#[tokio::test]
async fn the_supervisor_gets_the_image_of_the_agents_own_container() {
    let node = Node::start();
    node.api.put(
        "/api/v1/namespaces/system/pods/agent-x",
        json!({"metadata": {"namespace": "system", "name": "agent-x", "uid": "a"},
            "spec": {"containers": [{"name": "other", "image": "other:1"}, {"name": "agent", "image": "own:1"}]}}),
    );
    let settings = node.settings_with(|flags| {
        flags.supervisor_image = None;
        flags.pod_name = Some("agent-x".into());
        flags.pod_namespace = "system".into();
    });
    node.with_agent(
        settings,
        eventually("the supervisor is installed", || {
            node.supervisor_manifest().exists()
        }),
    )
    .await;
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(node.supervisor_manifest()).unwrap()).unwrap();
    assert_eq!(manifest["spec"]["containers"][0]["image"], "own:1");
    assert_eq!(manifest["metadata"]["namespace"], "system");
}

#[tokio::test]
async fn without_a_static_pod_path_no_supervisor_is_installed_and_captures_go_on() {
    let node = Node::start();
    node.api.put_pod(node.run_pod("till", "uid-1"));
    // the process that listens is this test, which was started without a static pod path
    let settings = node.settings_with(|flags| flags.node.host.manifest_dir = None);
    node.with_agent(settings, async {
        node.captured("till", 1).await;
        eventually("the missing path is a problem", || {
            node.agent_report()
                .problems
                .iter()
                .any(|problem| problem.contains("staticPodPath"))
        })
        .await;
        node.api
            .until_condition("shop", "till", "Active", "Unknown", "NoSupervisor")
            .await;
    })
    .await;
    assert!(!node.supervisor_manifest().exists());
}

#[tokio::test]
async fn an_empty_image_installs_no_supervisor() {
    let node = Node::start();
    node.api.put_pod(node.run_pod("till", "uid-1"));
    let settings = node.settings_with(|flags| flags.supervisor_image = Some(String::new()));
    node.with_agent(settings, async {
        node.captured("till", 1).await;
        eventually("the node is recorded", || {
            node.store().node().unwrap().is_some()
        })
        .await;
    })
    .await;
    assert!(!node.supervisor_manifest().exists());
}
