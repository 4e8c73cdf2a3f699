//! What removes a checkpoint, and above all what does not.

use std::time::Duration;

use serde_json::json;

use crate::stub::api::{Mood, checkpoint_path};
use crate::stub::node::NAME;
use crate::stub::{Node, eventually, id, until};

#[tokio::test]
async fn a_list_without_pods_removes_nothing() {
    let node = Node::start();
    node.after_capture().await;
    node.api.change(|state| state.mood = Mood::Empty);
    node.with_agent(node.settings(), node.asked(3)).await;
    assert_eq!(node.newest("shop_till"), Some(1));
}

#[tokio::test]
async fn silence_and_failure_of_the_api_server_remove_nothing_but_its_answer_does() {
    for (mood, questions) in [(Mood::Silent, 1), (Mood::Failing, 3)] {
        let node = Node::start();
        let pod = node.run_pod("till", "uid-1");
        node.api.put_pod(pod);
        node.with_agent(node.settings(), async {
            node.captured("till", 1).await;
            node.api.change(|state| state.mood = mood);
            node.api.delete_pod("shop", "till");
            node.asked(questions).await;
            assert_eq!(node.newest("shop_till"), Some(1));
            node.api.change(|state| state.mood = Mood::Well);
            node.removed().await;
        })
        .await;
    }
}

#[tokio::test]
async fn what_another_cluster_says_removes_nothing() {
    let node = Node::start();
    node.after_capture().await;
    node.api
        .change(|state| state.objects.retain(|path, _| !path.contains("/pods/")));
    node.api.put(
        "/api/v1/nodes/node-1",
        json!({"metadata": {"name": NAME, "uid": "another"}}),
    );
    node.with_agent(node.settings(), node.asked(3)).await;
    assert_eq!(node.newest("shop_till"), Some(1));
    assert!(
        node.agent_report()
            .problems
            .iter()
            .any(|problem| problem.contains("another object")),
        "{:?}",
        node.agent_report()
    );
}

#[tokio::test]
async fn a_deleted_pods_checkpoint_goes_after_the_retention() {
    let node = Node::start();
    node.api.put_pod(node.run_pod("till", "uid-1"));
    let settings = node.settings_with(|flags| flags.retention = Duration::from_millis(300));
    node.with_agent(settings, async {
        node.captured("till", 1).await;
        node.api.delete_pod("shop", "till");
        eventually("the agent says that the pod is gone", || {
            node.agent_report()
                .gone
                .get(&id("shop_till"))
                .is_some_and(|uid| uid == "uid-1")
        })
        .await;
        assert_eq!(node.newest("shop_till"), Some(1));
        node.removed().await;
        assert_eq!(
            node.agent_report().gone[&id("shop_till")],
            "uid-1",
            "the supervisor is told still"
        );
    })
    .await;
}

#[tokio::test]
async fn a_captured_successor_ends_the_retention() {
    let node = Node::start();
    node.api.put_pod(node.run_pod("till-a", "uid-1"));
    let settings = node.settings_with(|flags| flags.retention = Duration::from_hours(1));
    node.with_agent(settings, async {
        node.captured("till-a", 1).await;
        node.api.delete_pod("shop", "till-a");
        eventually("the agent says that the pod is gone", || {
            node.agent_report().gone.contains_key(&id("shop_till-a"))
        })
        .await;
        assert_eq!(node.newest("shop_till-a"), Some(1));
        node.api.put_pod(node.run_pod("till-b", "uid-2"));
        node.captured("till-b", 1).await;
        eventually("the checkpoint goes", || {
            node.newest("shop_till-a").is_none()
        })
        .await;
    })
    .await;
    assert_eq!(node.store().keys().unwrap(), [id("shop_till-b")]);
}

#[tokio::test]
async fn a_pod_of_the_same_name_takes_the_place_of_the_one_before() {
    let node = Node::start();
    node.api.put_pod(node.run_pod("till", "uid-1"));
    let settings = node.settings_with(|flags| flags.retention = Duration::from_hours(1));
    node.with_agent(settings, async {
        node.captured("till", 1).await;
        node.api.delete_pod("shop", "till");
        node.runtime.change(|state| state.remove("uid-1"));
        node.api.put_pod(node.run_pod("till", "uid-2"));
        node.captured("till", 2).await;
        let path = checkpoint_path("shop", "till");
        until(&node.api.state, |state| {
            state.objects[&path]["spec"]["podUID"] == "uid-2"
        })
        .await;
    })
    .await;
    let newest = node.store().newest(&id("shop_till")).unwrap().0.unwrap();
    assert_eq!(newest.checkpoint.parent.uid, "uid-2");
    assert_eq!(
        node.api.count("DELETE podcheckpoints"),
        1,
        "the one whose owner is gone"
    );
}

#[tokio::test]
async fn an_unreadable_checkpoint_is_removed_when_the_api_server_has_no_pod_of_its_name() {
    let node = Node::start();
    node.after_capture().await;
    let path = node
        .store()
        .newest(&id("shop_till"))
        .unwrap()
        .0
        .unwrap()
        .path;
    std::fs::write(&path, "torn").unwrap();
    // refused from now on, so that it is not captured again
    let mut pod = node.run_pod("till", "uid-2");
    pod["spec"]["restartPolicy"] = json!("Never");
    node.api.put_pod(pod);
    node.with_agent(node.settings(), async {
        eventually("it is set aside", || {
            node.files("shop_till") == ["0000000001.yaml.damaged"]
        })
        .await;
        node.api
            .until_condition("shop", "till", "Recoverable", "False", "RestartPolicy")
            .await;
        node.api.delete_pod("shop", "till");
        node.removed().await;
    })
    .await;
}
