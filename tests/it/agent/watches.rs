//! What the agent requests from the API server, and how it copes with one that fails or lacks the
//! custom
//! resource.

use crate::stub::api::{GROUP, Mood};
use crate::stub::{Node, eventually};

#[tokio::test]
async fn a_list_is_asked_for_once_however_often_watches_end() {
    let node = Node::start();
    let pod = node.run_pod("till", "uid-1");
    node.with_agent(node.settings(), async {
        for end in 1..=3 {
            node.api.until_asked("WATCH pods", end).await;
            node.api.change(|state| state.ended = end);
        }
        node.api.put_pod(pod);
        node.captured("till", 1).await;
    })
    .await;
    assert_eq!(node.api.count("LIST pods"), 1);
    assert_eq!(node.api.count("LIST podcheckpoints"), 1);
}

#[tokio::test]
async fn a_failed_watch_is_a_problem_until_it_recovers() {
    let node = Node::start();
    node.api.change(|state| state.mood = Mood::Failing);
    let is_named = || {
        node.agent_report()
            .problems
            .iter()
            .any(|problem| problem.contains("watch of pods"))
    };
    node.with_agent(node.settings(), async {
        eventually("the watch is a problem", is_named).await;
        node.api.change(|state| state.mood = Mood::Well);
        eventually("the watch is no problem", || !is_named()).await;
    })
    .await;
}

#[tokio::test]
async fn without_the_custom_resource_everything_else_goes_on() {
    let node = Node::start();
    node.api.change(|state| state.lacks.insert(GROUP.into()));
    node.api.put_pod(node.run_pod("till", "uid-1"));
    node.with_agent(node.settings(), async {
        eventually("the pod is captured", || {
            node.newest("shop_till") == Some(1)
        })
        .await;
        node.api.until_asked("LIST podcheckpoints", 1).await;
        node.api.change(|state| state.lacks.remove(GROUP));
        node.captured("till", 1).await;
    })
    .await;
}
