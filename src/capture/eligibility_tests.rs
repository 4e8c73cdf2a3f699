//! Each refusal, warning and annotation by name.

use serde_json::{Value, json};

use super::*;
use crate::capture::schema;

fn pod(more: &Value) -> Pod {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": "till", "uid": "11111111-1111-4111-8111-111111111111"},
        "spec": {"restartPolicy": "Always", "containers": [{"name": "app", "image": "till:1"}]},
    });
    merge(&mut pod, more);
    let (pod, unknown) = schema::read(&pod);
    assert_eq!(unknown, []);
    pod.unwrap()
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn refusals(more: &Value) -> Vec<Refusal> {
    reasons(&pod(more), "edge-1")
        .into_iter()
        .map(|reason| reason.refusal)
        .collect()
}

fn annotated(annotations: &Value) -> Value {
    json!({"metadata": {"annotations": annotations}})
}

fn owned(kind: &str) -> Value {
    json!({"metadata": {"ownerReferences": [
        {"apiVersion": "v1", "kind": "Other", "name": "not-the-controller", "uid": "u0"},
        {"apiVersion": "apps/v1", "kind": kind, "name": "its-owner", "uid": "u1", "controller": true},
    ]}})
}

#[test]
fn a_plain_pod_has_nothing_against_it() {
    assert_eq!(refusals(&json!({})), []);
}

#[test]
fn each_nature_that_forbids_it_is_a_reason() {
    use Refusal::{MirrorOrStatic, RestartPolicy, StatefulSet, Terminating};
    for (more, refusal) in [
        (json!({"spec": {"restartPolicy": "Never"}}), RestartPolicy),
        (
            json!({"spec": {"restartPolicy": "OnFailure"}}),
            RestartPolicy,
        ),
        (
            annotated(&json!({"kubernetes.io/config.mirror": "x"})),
            MirrorOrStatic,
        ),
        (
            annotated(&json!({"kubernetes.io/config.source": "file"})),
            MirrorOrStatic,
        ),
        (
            annotated(&json!({"kubernetes.io/config.source": "http"})),
            MirrorOrStatic,
        ),
        (owned("Node"), MirrorOrStatic),
        (
            json!({"metadata": {"deletionTimestamp": "2026-11-20T08:00:00Z"}}),
            Terminating,
        ),
        (json!({"status": {"phase": "Succeeded"}}), Terminating),
        (json!({"status": {"phase": "Failed"}}), Terminating),
        (owned("StatefulSet"), StatefulSet),
    ] {
        assert_eq!(refusals(&more), [refusal], "{more}");
    }
    assert_eq!(
        refusals(&annotated(&json!({"kubernetes.io/config.source": "api"}))),
        []
    );
    assert_eq!(refusals(&json!({"status": {"phase": "Running"}})), []);
}

#[test]
fn an_owner_may_accept_a_second_copy_of_a_stateful_pod() {
    for accept in ["stateful", " persistent-volume , stateful ,"] {
        let mut more = owned("StatefulSet");
        more["metadata"]["annotations"] = json!({names::ACCEPT: accept});
        assert_eq!(refusals(&more), []);
        assert!(policy(&pod(&more)).unwrap().stateful);
    }
    let mut more = owned("StatefulSet");
    more["metadata"]["annotations"] = json!({names::ACCEPT: "persistent-volume"});
    assert_eq!(refusals(&more), [Refusal::StatefulSet]);
}

#[test]
fn annotations_that_mean_nothing_are_refused_with_their_name() {
    for (name, values) in [
        (names::START_GROUP, &["", "first", "1.5", "3000000000"][..]),
        (
            names::MAX_AGE,
            &[
                "",
                "0s",
                "72",
                "h",
                "3d",
                "-1h",
                "1h 30m",
                "1.5h",
                "99999999999999999999h",
                "1\u{b5}s",
            ],
        ),
        (names::HANDOVER, &["", "Overlap", "both"]),
        (names::ACCEPT, &["everything", "stateful;persistent-volume"]),
    ] {
        for value in values {
            let reasons = reasons(&pod(&annotated(&json!({name: value}))), "edge-1");
            assert_eq!(reasons.len(), 1, "{name}: {value:?}: {reasons:?}");
            assert_eq!(reasons[0].refusal, Refusal::InvalidAnnotation);
            assert!(reasons[0].detail.starts_with(name), "{reasons:?}");
        }
    }
}

#[test]
fn annotations_become_the_policy() {
    let more = json!({
        "metadata": {"annotations": {
            names::START_GROUP: "-10", names::MAX_AGE: "1h30m5s", names::HANDOVER: "switch",
        }},
        "spec": {"terminationGracePeriodSeconds": 7},
    });
    let wanted = Policy {
        start_group: -10,
        max_age_seconds: Some(5405),
        handover: Some(Handover::Switch),
        host_network: false,
        host_port: false,
        stateful: false,
        slow_start: false,
        grace_seconds: 7,
    };
    assert_eq!(policy(&pod(&more)).unwrap(), wanted);
    let plain = policy(&pod(&json!({}))).unwrap();
    assert_eq!(
        (
            plain.start_group,
            plain.max_age_seconds,
            plain.handover,
            plain.grace_seconds
        ),
        (50, None, None, 30)
    );
}

#[test]
fn a_host_port_counts_on_the_pod_network_only_and_a_sidecars_as_well() {
    let ports = json!([{"containerPort": 80}, {"containerPort": 81, "hostPort": 8081}]);
    let main = json!({"spec": {"containers": [{"name": "app", "image": "i", "ports": ports}]}});
    let sidecar = json!({"spec": {"initContainers": [{"name": "s", "image": "i", "restartPolicy": "Always", "ports": ports}]}});
    let mut host = main.clone();
    host["spec"]["hostNetwork"] = json!(true);
    let seen = |more: &Value| {
        policy(&pod(more))
            .map(|policy| (policy.host_port, policy.host_network))
            .unwrap()
    };
    assert_eq!(
        [seen(&main), seen(&sidecar), seen(&host)],
        [(true, false), (true, false), (false, true)]
    );
}

#[test]
fn names_must_fit_with_the_nodes_and_must_be_names() {
    let named = |name: &str| json!({"metadata": {"name": name}});
    let of = |name: &str, node: &str| reasons(&pod(&named(name)), node).len();
    // namespace, name, node and UID with their separators form the name of a directory, of at most
    // 255 characters
    let longest = 255 - "shop".len() - 1 - 1 - "edge-1".len() - 1 - 36;
    assert_eq!(of(&"a".repeat(longest), "edge-1"), 0);
    assert_eq!(of(&"a".repeat(longest + 1), "edge-1"), 1);
    assert_eq!(of(&"a".repeat(253), "edge-1"), 1);
    for name in ["", "..", "a/b", "A", "a..b", "-a", "a-", "a_b", "\u{e9}"] {
        assert_eq!(reasons(&pod(&named(name)), "edge-1").len(), 1, "{name:?}");
    }
    assert_eq!(
        refusals(&json!({"metadata": {"namespace": "../.."}})),
        [Refusal::RejectedByKubeletRules]
    );
}

#[test]
fn the_owner_is_the_controller_and_no_other() {
    let owner = owner(&pod(&owned("DaemonSet"))).unwrap();
    assert_eq!(
        owner,
        Owner {
            kind: "DaemonSet".into(),
            name: "its-owner".into(),
            uid: "u1".into()
        }
    );
}

#[test]
fn only_a_pod_that_may_go_elsewhere_is_warned_of() {
    let pinned = |terms: Value| {
        let required =
            json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
        let mut more = owned("ReplicaSet");
        more["spec"] = json!({"affinity": {"nodeAffinity": required}});
        more
    };
    let hostname = json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["edge-1"]}]});
    let name =
        json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["edge-1"]}]});
    let zone = json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]});
    let two = json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["a", "b"]}]});
    let mut selected = owned("ReplicaSet");
    selected["spec"] = json!({"nodeSelector": {"kubernetes.io/hostname": "edge-1"}});
    for (more, warned) in [
        (json!({}), false),
        (owned("DaemonSet"), false),
        (owned("ReplicaSet"), true),
        (owned("CloneSet"), true),
        (selected, false),
        (pinned(json!([hostname])), false),
        (pinned(json!([name, hostname])), false),
        (pinned(json!([name, zone])), true),
        (pinned(json!([two])), true),
        (pinned(json!([])), true),
    ] {
        assert_eq!(
            warnings(&pod(&more)).contains(&Warning::MayBeRescheduled),
            warned,
            "{more}"
        );
    }
}

#[test]
fn a_token_and_init_containers_are_warned_of_and_sidecars_are_not() {
    let token = json!({"spec": {"volumes": [{"name": "t", "projected": {"sources": [
        {"configMap": {"name": "c"}}, {"serviceAccountToken": {"path": "token"}},
    ]}}]}});
    assert_eq!(warnings(&pod(&token)), [Warning::ServiceAccountToken]);
    let certificate = json!({"spec": {"volumes": [{"name": "t", "projected": {"sources": [
        {"podCertificate": {"signerName": "s", "keyType": "ED25519"}},
    ]}}]}});
    assert_eq!(warnings(&pod(&certificate)), [Warning::PodCertificate]);
    let init = |more: Value| json!({"spec": {"initContainers": [more]}});
    assert_eq!(
        warnings(&pod(&init(json!({"name": "i", "image": "i"})))),
        [Warning::InitContainersRunAgain]
    );
    assert_eq!(
        warnings(&pod(&init(
            json!({"name": "i", "image": "i", "restartPolicy": "Always"})
        ))),
        []
    );
}
