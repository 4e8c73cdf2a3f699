//! Which pods are captured at all: annotations, selectors, namespaces.

use std::time::Duration;

use pod_checkpointer::pod::selector;
use serde_json::json;

use crate::stub::api::checkpoint_path;
use crate::stub::{Node, eventually, id, until};

#[tokio::test]
async fn a_pod_that_is_no_longer_marked_leaves_at_once() {
    let node = Node::start();
    let mut pod = node.run_pod("till", "uid-1");
    node.api.put_pod(pod.clone());
    let settings = node.settings_with(|flags| flags.retention = Duration::from_hours(1));
    node.with_agent(settings, async {
        node.captured("till", 1).await;
        pod["metadata"]["annotations"] = json!({});
        node.api.put_pod(pod);
        node.removed().await;
        let path = checkpoint_path("shop", "till");
        until(&node.api.state, |state| !state.objects.contains_key(&path)).await;
    })
    .await;
    assert_eq!(
        node.api.count("GET pods"),
        0,
        "the report of the watch is enough"
    );
}

#[tokio::test]
async fn a_namespace_that_is_not_looked_after_is_not_captured() {
    let node = Node::start();
    node.after_capture().await;
    let settings = node.settings_with(|flags| flags.namespaces = vec!["elsewhere".into()]);
    node.with_agent(settings, node.removed()).await;
}

#[tokio::test]
async fn a_label_of_its_namespace_marks_a_pod_and_unmarks_it_only_when_it_is_known_to_be_gone() {
    let node = Node::start();
    let mut pod = node.run_pod("till", "uid-1");
    pod["metadata"]["annotations"] = json!({});
    node.api.put_pod(pod);
    node.api.put_pod(node.run_pod("other", "uid-2"));
    let settings = node.settings_with(|flags| {
        flags.namespace_selector = Some(selector::parse("site=edge").unwrap());
    });
    node.with_agent(settings.clone(), async {
        node.captured("other", 1).await;
        assert_eq!(node.store().keys().unwrap(), [id("shop_other")]);
        node.api.put_namespace("shop", &json!({"site": "edge"}));
        node.captured("till", 1).await;
    })
    .await;
    let mark =
        |name: &str| node.api.checkpoint("shop", name).unwrap()["status"]["markedBy"].clone();
    assert_eq!(mark("till"), "namespace selector site=edge");
    assert_eq!(mark("other"), "annotation podcheckpointer.io/checkpoint");
    assert_eq!(
        node.agent_report().marked[&id("shop_till")],
        "namespace selector site=edge"
    );

    // an agent that does not learn of the namespace
    node.api
        .change(|state| state.objects.remove("/api/v1/namespaces/shop"));
    node.with_agent(settings.clone(), async {
        node.api.put_pod(node.run_pod("third", "uid-3"));
        node.captured("third", 1).await;
        assert_eq!(node.newest("shop_till"), Some(1));
        assert!(node.api.checkpoint("shop", "till").is_some());
        assert_eq!(node.api.count("DELETE podcheckpoints"), 0);
        node.api.put_namespace("shop", &json!({"site": "centre"}));
        eventually("the checkpoint goes", || node.newest("shop_till").is_none()).await;
        let path = checkpoint_path("shop", "till");
        until(&node.api.state, |state| !state.objects.contains_key(&path)).await;
    })
    .await;
    assert_eq!(
        node.newest("shop_other"),
        Some(1),
        "its own annotation marks it"
    );
    let counts = node.api.state.borrow().counts.clone();
    assert_eq!(
        counts.get("LIST namespaces"),
        Some(&2),
        "once an agent: {counts:?}"
    );
}

#[tokio::test]
async fn a_selector_marks_a_pod_until_its_owner_opts_out() {
    let node = Node::start();
    let mut pod = node.run_pod("till", "uid-1");
    pod["metadata"]["annotations"] = json!({});
    pod["metadata"]["labels"] = json!({"app": "till"});
    node.api.put_pod(pod.clone());
    let select = vec![
        selector::parse("app=elsewhere").unwrap(),
        selector::parse("app in (till)").unwrap(),
    ];
    let settings = node.settings_with(|flags| {
        flags.select = select;
        flags.max_age = Some(Duration::from_hours(72));
    });
    node.with_agent(settings, async {
        node.captured("till", 1).await;
        assert_eq!(
            node.api.checkpoint("shop", "till").unwrap()["status"]["markedBy"],
            "selector app in (till)"
        );
        let kept = node
            .store()
            .newest(&id("shop_till"))
            .unwrap()
            .0
            .unwrap()
            .checkpoint;
        assert_eq!(
            kept.policy.max_age_seconds,
            Some(72 * 3600),
            "the cluster's, where the pod does not say"
        );
        pod["metadata"]["annotations"] = json!({"podcheckpointer.io/max-age": "1h"});
        node.api.put_pod(pod.clone());
        node.captured("till", 2).await;
        let kept = node
            .store()
            .newest(&id("shop_till"))
            .unwrap()
            .0
            .unwrap()
            .checkpoint;
        assert_eq!(kept.policy.max_age_seconds, Some(3600));
        pod["metadata"]["annotations"] = json!({"podcheckpointer.io/max-age": "9000h"});
        node.api.put_pod(pod.clone());
        node.captured("till", 3).await;
        let kept = node
            .store()
            .newest(&id("shop_till"))
            .unwrap()
            .0
            .unwrap()
            .checkpoint;
        assert_eq!(
            kept.policy.max_age_seconds,
            Some(72 * 3600),
            "the pod cannot exceed what the cluster says"
        );
        pod["metadata"]["annotations"] = json!({"podcheckpointer.io/checkpoint": "false"});
        node.api.put_pod(pod);
        node.removed().await;
    })
    .await;
    assert_eq!(
        node.api.count("LIST namespaces"),
        0,
        "nobody asked for namespaces"
    );
}
