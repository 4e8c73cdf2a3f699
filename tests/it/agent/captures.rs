//! What is captured, when, and what a fault in between leads to. What a checkpoint has in it is
//! `tests/it/capture`.

use serde_json::json;

use crate::stub::node::NAME;
use crate::stub::{Node, eventually, id};

#[tokio::test]
async fn a_marked_pod_is_captured_when_it_is_ready_and_not_before() {
    let node = Node::start();
    let mut pod = node.run_pod("till", "uid-1");
    pod["status"]["conditions"][0]["status"] = json!("False");
    node.api.put_pod(pod.clone());
    let mut unmarked = node.run_pod("unmarked", "uid-2");
    unmarked["metadata"]["annotations"] = json!({});
    node.api.put_pod(unmarked);
    node.with_agent(node.settings(), async {
        node.api
            .until_condition("shop", "till", "Captured", "False", "WaitingForReady")
            .await;
        assert!(node.store().keys().unwrap().is_empty());
        pod["status"]["conditions"][0]["status"] = json!("True");
        node.api.put_pod(pod);
        node.captured("till", 1).await;
        node.api
            .until_condition("shop", "till", "Recoverable", "True", "Recoverable")
            .await;
    })
    .await;
    let object = node.api.checkpoint("shop", "till").unwrap();
    assert_eq!(object["spec"], json!({"nodeName": NAME, "podUID": "uid-1"}));
    assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "uid-1");
    assert_eq!(node.content("till"), b"1");
    assert_eq!(node.store().keys().unwrap(), [id("shop_till")]);
    let report = node.agent_report();
    assert_eq!(report.ready[&id("shop_till")].len(), 1);
    assert!(
        report
            .problems
            .iter()
            .all(|problem| problem.contains("kubeconfig")),
        "{:?}",
        report.problems
    );
}

#[tokio::test]
async fn a_pod_whose_name_no_file_can_have_is_refused_with_its_reason() {
    let node = Node::start();
    let name = "a".repeat(253);
    let pod = node.run_pod(&name, "uid-1");
    node.api.put_pod(pod);
    node.with_agent(node.settings(), async {
        node.api
            .until_condition(
                "shop",
                &name,
                "Recoverable",
                "False",
                "RejectedByKubeletRules",
            )
            .await;
    })
    .await;
    assert!(node.store().keys().unwrap().is_empty());
}

#[tokio::test]
async fn new_content_of_a_volume_is_captured_and_a_heartbeat_of_the_status_is_not() {
    let node = Node::start();
    let mut pod = node.run_pod("till", "uid-1");
    node.api.put_pod(pod.clone());
    node.with_agent(node.settings(), async {
        node.captured("till", 1).await;
        node.swap("uid-1", "2");
        node.captured("till", 2).await;
        assert_eq!(node.content("till"), b"2");
        node.api
            .until_condition("shop", "till", "Active", "Unknown", "NoSupervisor")
            .await;
        let before = node.runtime.state.borrow().taken;
        let patches = node.api.count("PATCH podcheckpoints/status");
        for minute in 0..5 {
            pod["status"]["conditions"][0]["lastTransitionTime"] =
                json!(format!("2026-11-21T10:0{minute}:00Z"));
            node.api.put_pod(pod.clone());
        }
        // once this is reported, everything before it has been seen
        pod["status"]["containerStatuses"][0]["state"] =
            json!({"running": {"startedAt": "2026-11-21T10:06:00Z"}});
        pod["status"]["conditions"][0]["status"] = json!("False");
        node.api.put_pod(pod);
        eventually("no container is ready", || {
            node.agent_report().ready.is_empty()
        })
        .await;
        assert_eq!(
            node.runtime.state.borrow().taken,
            before,
            "nothing was captured"
        );
        assert_eq!(
            node.api.count("PATCH podcheckpoints/status"),
            patches,
            "nothing was reported"
        );
    })
    .await;
    assert_eq!(node.newest("shop_till"), Some(2));
}

#[tokio::test]
async fn a_restarted_container_is_captured_again() {
    let node = Node::start();
    let mut pod = node.run_pod("till", "uid-1");
    node.api.put_pod(pod.clone());
    node.with_agent(node.settings(), async {
        node.captured("till", 1).await;
        node.runtime.change(|state| {
            for container in state.containers.values_mut() {
                container.spec.env = vec![("PRICE".into(), "2".into())];
            }
        });
        pod["spec"]["containers"][0]["env"] = json!([{"name": "PRICE", "value": "2"}]);
        pod["status"]["containerStatuses"][0]["restartCount"] = json!(1);
        node.api.put_pod(pod);
        node.captured("till", 2).await;
    })
    .await;
}

#[tokio::test]
async fn the_last_good_checkpoint_of_a_pod_that_is_now_refused_is_kept_and_named() {
    let node = Node::start();
    let mut pod = node.run_pod("till", "uid-1");
    node.api.put_pod(pod.clone());
    node.with_agent(node.settings(), async {
        node.captured("till", 1).await;
        pod["metadata"]["annotations"]["podcheckpointer.io/handover"] = json!("somehow");
        node.api.put_pod(pod);
        node.api
            .until_condition("shop", "till", "Recoverable", "False", "InvalidAnnotation")
            .await;
    })
    .await;
    assert_eq!(node.newest("shop_till"), Some(1));
    let object = node.api.checkpoint("shop", "till").unwrap();
    let all = object["status"]["conditions"].as_array().unwrap();
    let recoverable = all
        .iter()
        .find(|condition| condition["type"] == "Recoverable")
        .unwrap();
    assert!(
        recoverable["message"]
            .as_str()
            .unwrap()
            .contains("Generation 1"),
        "{recoverable}"
    );
}

#[tokio::test]
async fn a_passing_fault_of_the_runtime_is_named_and_tried_again() {
    let node = Node::start();
    node.api.put_pod(node.run_pod("till", "uid-1"));
    node.runtime.stop().await;
    node.with_agent(node.settings(), async {
        node.api
            .until_condition("shop", "till", "Captured", "False", "CaptureFailed")
            .await;
        node.runtime.resume();
        node.captured("till", 1).await;
        node.api
            .until_condition("shop", "till", "Captured", "True", "Captured")
            .await;
    })
    .await;
}
