//! The operator against an API server in memory.

use std::future::{Future, pending};

use pod_checkpointer::metrics::address::Address;
use pod_checkpointer::names::{FINALIZER, MADE_BY};
use pod_checkpointer::operator::{self, Settings, kinds};
use serde_json::{Value, json};

use crate::stub::api::{Api, State};
use crate::stub::until;

pub const SETTINGS: &str = "/apis/podcheckpointer.io/v1alpha1/podcheckpointers/default";
pub const DAEMON_SET: &str =
    "/apis/apps/v1/namespaces/pod-checkpointer/daemonsets/pod-checkpointer";
const SERVICE: &str = "/api/v1/namespaces/pod-checkpointer/services/pod-checkpointer";
const ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles/pod-checkpointer";
const NAMESPACE: &str = "/api/v1/namespaces/pod-checkpointer";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/pod-checkpointer-operator/leases/pod-checkpointer-operator";

pub fn settings(name: &str) -> Settings {
    Settings {
        image: Some("shop/pod-checkpointer:1".into()),
        metrics_address: Address::Off,
        pod_name: Some(name.into()),
        pod_namespace: "pod-checkpointer-operator".into(),
    }
}

/// Runs an operator on this cluster during the test.
async fn with_operator(cluster: &Api, test: impl Future<Output = ()>) {
    with_settings(cluster, settings("one"), test).await;
}

/// The same with settings of its own.
pub async fn with_settings(cluster: &Api, settings: Settings, test: impl Future<Output = ()>) {
    tokio::select! {
        () = operator::run(settings, cluster.client(), pending()) => panic!("the operator ended"),
        () = test => {}
    }
}

pub fn wanted(spec: &Value) -> Value {
    json!({"apiVersion": "podcheckpointer.io/v1alpha1", "kind": "PodCheckpointer", "metadata": {"name": "default"}, "spec": spec})
}

/// A condition of the PodCheckpointer: status, reason, message.
fn condition(state: &State, kind: &str) -> (String, String, String) {
    let all = state
        .objects
        .get(SETTINGS)
        .and_then(|it| it["status"]["conditions"].as_array().cloned())
        .unwrap_or_default();
    let one = all
        .into_iter()
        .find(|it| it["type"] == kind)
        .unwrap_or_default();
    let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

fn is(state: &State, kind: &str, status: &str, reason: &str) -> bool {
    let (seen, why, _) = condition(state, kind);
    seen == status && why == reason
}

/// What the DaemonSet controller counts.
pub fn count(cluster: &Api, desired: i64, ready: i64) {
    cluster.edit(DAEMON_SET, |set| {
        set["status"] = json!({"observedGeneration": set["metadata"]["generation"], "desiredNumberScheduled": desired,
            "updatedNumberScheduled": desired, "numberReady": ready});
    });
}

async fn installed(cluster: &Api) {
    until(&cluster.state, |state| {
        is(state, "Applied", "True", "Applied")
    })
    .await;
}

#[tokio::test]
async fn a_podcheckpointer_becomes_every_object_and_its_status_is_what_is_seen() {
    let cluster = Api::default();
    cluster.put(SETTINGS, wanted(&json!({"metrics": {"podMonitor": true}})));
    let checkpoint = |name: &str, phase: &str| {
        let path =
            format!("/apis/podcheckpointer.io/v1alpha1/namespaces/shop/podcheckpoints/{name}");
        let conditions = json!([{"type": "Recoverable", "status": "True"}]);
        let metadata = json!({"namespace": "shop", "name": name});
        cluster.put(
            &path,
            json!({"metadata": metadata, "status": {"phase": phase, "conditions": conditions}}),
        );
    };
    checkpoint("till", "Inactive");
    with_operator(&cluster, async {
        installed(&cluster).await;
        let state = cluster.state.borrow().clone();
        let ours = state
            .objects
            .iter()
            .filter(|(at, _)| at.ends_with("/pod-checkpointer"));
        assert_eq!(
            ours.count(),
            kinds::KINDS.len() - 1,
            "all but the PodMonitor"
        );
        assert_eq!(
            state.objects[SETTINGS]["metadata"]["finalizers"],
            json!([FINALIZER])
        );
        assert!(state.objects[NAMESPACE]["metadata"]["annotations"][MADE_BY].is_string());
        until(&cluster.state, |state| {
            is(state, "Ready", "Unknown", "NotObserved")
        })
        .await;
        count(&cluster, 3, 2);
        until(&cluster.state, |state| {
            is(state, "Ready", "False", "NodesNotReady")
        })
        .await;
        count(&cluster, 3, 3);
        checkpoint("radio", "Active");
        until(&cluster.state, |state| {
            let status = &state.objects[SETTINGS]["status"];
            is(state, "Ready", "True", "Ready")
                && status["checkpoints"] == json!({"total": 2, "recoverable": 2, "active": 1})
        })
        .await;
        let status = cluster.get(SETTINGS).unwrap()["status"].clone();
        assert_eq!(
            status["nodes"],
            json!({"desired": 3, "ready": 3, "upgraded": 3})
        );
        assert_eq!(
            (&status["image"], &status["observedGeneration"]),
            (&json!("shop/pod-checkpointer:1"), &json!(1))
        );
    })
    .await;
}

#[tokio::test]
async fn what_is_changed_by_hand_is_repaired_and_what_is_no_longer_asked_for_goes() {
    let cluster = Api::default();
    cluster.put(SETTINGS, wanted(&json!({})));
    with_operator(&cluster, async {
        installed(&cluster).await;
        cluster.edit(ROLE, |role| role["rules"] = json!([]));
        until(&cluster.state, |state| {
            state.objects[ROLE]["rules"]
                .as_array()
                .is_some_and(|rules| !rules.is_empty())
        })
        .await;
        cluster.delete(DAEMON_SET);
        until(&cluster.state, |state| {
            state.objects.contains_key(DAEMON_SET)
        })
        .await;
        cluster.edit(SETTINGS, |object| {
            object["spec"] = json!({"metrics": {"address": "off"}, "maxAge": "72h"});
        });
        until(&cluster.state, |state| !state.objects.contains_key(SERVICE)).await;
        let arguments = cluster.get(DAEMON_SET).unwrap()["spec"]["template"]["spec"]["containers"]
            [0]["args"]
            .clone();
        assert!(
            arguments
                .as_array()
                .unwrap()
                .contains(&json!("--max-age=72h")),
            "{arguments}"
        );
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_applied_is_shown_and_nothing_that_runs_is_touched() {
    let cluster = Api::default();
    cluster.put(SETTINGS, wanted(&json!({})));
    with_operator(&cluster, async {
        installed(&cluster).await;
        let before = cluster.get(DAEMON_SET).unwrap();
        cluster.edit(SETTINGS, |object| {
            object["spec"] = json!({"activationDelay": "soon"});
        });
        until(&cluster.state, |state| {
            is(state, "Applied", "False", "InvalidSettings")
        })
        .await;
        let (_, _, message) = condition(&cluster.state.borrow(), "Applied");
        assert!(message.contains("--activation-delay"), "{message}");
        cluster.change(|state| {
            state.refuses = Some(("daemonsets".into(), "nothing new before Monday".into()));
        });
        cluster.edit(SETTINGS, |object| object["spec"] = json!({"maxAge": "1h"}));
        until(&cluster.state, |state| {
            is(state, "Applied", "False", "Refused")
        })
        .await;
        let (_, _, message) = condition(&cluster.state.borrow(), "Applied");
        assert!(
            message.contains("nothing new before Monday") && message.contains("DaemonSet"),
            "{message}"
        );
        assert_eq!(cluster.get(DAEMON_SET).unwrap(), before);
        let told = |state: &State| {
            let events = state
                .objects
                .iter()
                .filter(|(path, _)| path.contains("/events.k8s.io/"));
            let reasons: Vec<&str> = events
                .filter_map(|(_, event)| event["reason"].as_str())
                .collect();
            ["InvalidSettings", "Refused"]
                .iter()
                .all(|reason| reasons.contains(reason))
        };
        until(&cluster.state, told).await;
        cluster.change(|state| state.refuses = None);
        until(&cluster.state, |state| {
            is(state, "Applied", "True", "Applied")
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_foreign_object_is_not_touched_and_one_of_a_plain_installation_is_taken_over() {
    let cluster = Api::default();
    let theirs = json!({"kind": "DaemonSet", "spec": {"theirs": true}, "metadata": {"labels": {"app": "another"}}});
    cluster.put(DAEMON_SET, theirs);
    cluster.put(NAMESPACE, json!({"kind": "Namespace", "metadata": {}}));
    cluster.put(SETTINGS, wanted(&json!({})));
    with_operator(&cluster, async {
        until(&cluster.state, |state| {
            is(state, "Applied", "False", "ForeignObject")
        })
        .await;
        assert_eq!(
            cluster.get(DAEMON_SET).unwrap()["spec"],
            json!({"theirs": true})
        );
        let labels = json!({"app.kubernetes.io/name": "pod-checkpointer"});
        cluster.edit(DAEMON_SET, |set| set["metadata"]["labels"] = labels);
        installed(&cluster).await;
        assert!(cluster.get(DAEMON_SET).unwrap()["spec"]["template"].is_object());
        let annotations = cluster.get(NAMESPACE).unwrap()["metadata"]["annotations"].clone();
        assert!(
            annotations.get(MADE_BY).is_none(),
            "it was there before: {annotations}"
        );
    })
    .await;
}

fn agent(cluster: &Api, node: &str, arguments: &Value, ready: &str, reachable: &str) {
    let conditions = |status: &str| json!({"conditions": [{"type": "Ready", "status": status}]});
    let node_object = json!({"kind": "Node", "apiVersion": "v1", "metadata": {}, "status": conditions(reachable)});
    cluster.put(&format!("/api/v1/nodes/{node}"), node_object);
    cluster.put(
        &format!("/api/v1/namespaces/pod-checkpointer/pods/agent-{node}"),
        json!({
            "kind": "Pod", "apiVersion": "v1", "metadata": {"namespace": "pod-checkpointer"},
            "spec": {"nodeName": node, "containers": [{"name": "agent", "args": arguments}]},
            "status": conditions(ready),
        }),
    );
}

#[tokio::test]
async fn nodes_that_can_be_reached_are_left_before_anything_is_deleted_and_the_finalizer_goes_last()
{
    let cluster = Api::default();
    cluster.put(SETTINGS, wanted(&json!({})));
    let orphan = "/apis/podcheckpointer.io/v1alpha1/namespaces/shop/podcheckpoints/till";
    cluster.put(orphan, json!({"metadata": {"namespace": "shop"}}));
    with_operator(&cluster, async {
        installed(&cluster).await;
        until(&cluster.state, |state| {
            !state.objects[SETTINGS]["status"]["checkpoints"].is_null()
        })
        .await;
        agent(&cluster, "near", &json!(["agent"]), "True", "True");
        agent(&cluster, "far", &json!(["agent"]), "True", "Unknown");
        cluster.delete(SETTINGS);
        until(&cluster.state, |state| {
            state.objects[DAEMON_SET].to_string().contains("--retire")
        })
        .await;
        count(&cluster, 2, 1);
        until(&cluster.state, |state| {
            let (_, reason, message) = condition(state, "Ready");
            reason == "Removing"
                && message.contains("waiting for agents to leave 1 of 2 nodes: near")
        })
        .await;
        assert!(cluster.get(ROLE).is_some() && cluster.get(orphan).is_some());
        agent(
            &cluster,
            "near",
            &json!(["agent", "--retire"]),
            "True",
            "True",
        );
        until(&cluster.state, |state| {
            !state.objects.contains_key(SETTINGS)
        })
        .await;
        let state = cluster.state.borrow().clone();
        let left: Vec<&String> = state
            .objects
            .keys()
            .filter(|at| at.ends_with("/pod-checkpointer"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(!state.objects.contains_key(orphan));
        assert!(
            state
                .writes
                .last()
                .is_some_and(|last| last == &format!("PATCH {SETTINGS}")),
            "{:?}",
            state.writes.last()
        );
    })
    .await;
}

#[tokio::test]
async fn of_two_operators_one_acts_and_the_other_when_that_has_ended() {
    let cluster = Api::default();
    let holder = |state: &State| {
        let holder = state
            .objects
            .get(LEASE)
            .and_then(|lease| lease["spec"]["holderIdentity"].as_str());
        holder.unwrap_or_default().to_owned()
    };
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let first = operator::run(settings("one"), cluster.client(), async {
        let _ = ended.await;
    });
    let story = async {
        until(&cluster.state, |state| holder(state).starts_with("one_")).await;
        cluster.put(SETTINGS, wanted(&json!({})));
        installed(&cluster).await;
        end.send(()).unwrap();
        until(&cluster.state, |state| holder(state).starts_with("two_")).await;
        cluster.delete(DAEMON_SET);
        until(&cluster.state, |state| {
            state.objects.contains_key(DAEMON_SET)
        })
        .await;
    };
    let second = async {
        until(&cluster.state, |state| holder(state).starts_with("one_")).await;
        operator::run(settings("two"), cluster.client(), pending()).await;
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(first, story) } => {}
        () = second => panic!("the operator ended"),
    }
}
