use super::*;
use crate::agent::marks::Marks;

fn pod(change: impl FnOnce(&mut Value)) -> Observed {
    let mut value = json!({
        "metadata": {
            "namespace": "shop", "name": "till", "uid": "uid-1", "resourceVersion": "7",
            "annotations": {"podcheckpointer.io/checkpoint": "true"}, "labels": {"app": "till"},
            "managedFields": [{"manager": "kubelet", "operation": "Update"}],
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "app", "image": "shop/till:1", "fieldOfTomorrow": 1}]},
        "status": {
            "phase": "Running", "podIP": "10.1.0.5", "message": "nobody reads this",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-21T10:00:00Z"}],
            "containerStatuses": [{"name": "app", "containerID": "containerd://a", "restartCount": 0, "ready": true,
                "state": {"running": {}}}],
        },
    });
    change(&mut value);
    Marks::default()
        .observe(serde_json::from_value(value).unwrap())
        .unwrap()
}

#[test]
fn unknown_fields_survive_and_unused_fields_do_not() {
    let object: Value = serde_json::from_slice(&pod(|_| {}).object).unwrap();
    assert_eq!(object["spec"]["containers"][0]["fieldOfTomorrow"], 1);
    assert_eq!(object["status"]["podIP"], "10.1.0.5");
    assert_eq!(object["metadata"]["resourceVersion"], "7");
    assert_eq!(
        (&object["apiVersion"], &object["kind"]),
        (&json!("v1"), &json!("Pod"))
    );
    assert!(object["metadata"].get("managedFields").is_none());
    assert!(object["status"].get("message").is_none());
    assert_eq!(pod(|_| {}).containers, ["a"]);
}

#[test]
fn a_heartbeat_of_the_status_is_no_change_but_anything_a_checkpoint_depends_on_is() {
    let first = pod(|_| {}).fingerprint;
    let same: [fn(&mut Value); 4] = [
        |pod| pod["status"]["conditions"][0]["lastTransitionTime"] = json!("2026-11-21T11:00:00Z"),
        |pod| pod["metadata"]["resourceVersion"] = json!("8"),
        |pod| pod["metadata"]["managedFields"] = json!([]),
        |pod| pod["status"]["containerStatuses"][0]["ready"] = json!(false),
    ];
    for change in same {
        assert_eq!(pod(change).fingerprint, first);
    }
    let other: [fn(&mut Value); 5] = [
        |pod| pod["metadata"]["labels"]["app"] = json!("other"),
        |pod| pod["metadata"]["annotations"]["podcheckpointer.io/start-group"] = json!("10"),
        |pod| pod["spec"]["containers"][0]["image"] = json!("shop/till:2"),
        |pod| pod["status"]["containerStatuses"][0]["containerID"] = json!("containerd://b"),
        |pod| pod["status"]["containerStatuses"][0]["restartCount"] = json!(1),
    ];
    for change in other {
        assert_ne!(pod(change).fingerprint, first);
    }
}

#[test]
fn only_a_bare_pod_that_the_kubelet_refused_counts_as_rejected() {
    let rejected = |change: fn(&mut Value)| {
        pod(|pod| {
            pod["status"] = json!({"phase": "Failed", "reason": "NodePorts",
                "message": "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports"});
            change(pod);
        })
        .rejected
    };
    assert!(rejected(|_| {}));
    assert!(!rejected(|pod| pod["status"]["phase"] = json!("Running")));
    assert!(!rejected(
        |pod| pod["status"]["message"] = json!("The node was low on resource: memory.")
    ));
    let of_a_set = json!([{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "u", "controller": true}]);
    let owned = pod(|pod| {
        pod["metadata"]["ownerReferences"] = of_a_set;
        pod["status"] =
            json!({"phase": "Failed", "message": "Pod was rejected: Predicate NodePorts failed"});
    });
    assert!(!owned.rejected, "its controller replaces it");
}

#[test]
fn a_pod_counts_for_the_nodes_room_while_it_may_run_and_a_mirror_does_not() {
    let cpu = |change: fn(&mut Value)| {
        let seen = pod(|pod| {
            pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
            change(pod);
        });
        seen.demand.map(|demand| demand.requests.cpu)
    };
    assert_eq!(cpu(|_| {}), Some(1000));
    assert_eq!(
        cpu(|pod| pod["metadata"]["annotations"] = json!({})),
        Some(1000),
        "marked or not"
    );
    assert_eq!(cpu(|pod| pod["status"]["phase"] = json!("Failed")), None);
    assert_eq!(
        cpu(|pod| pod["metadata"]["annotations"]["kubernetes.io/config.mirror"] = json!("x")),
        None
    );
}

#[test]
fn a_pod_without_an_identity_is_not_looked_at() {
    for value in [
        json!({"metadata": {"name": "till", "uid": "u"}}),
        json!({"metadata": {"namespace": "shop", "name": "till"}}),
    ] {
        assert!(
            Marks::default()
                .observe(serde_json::from_value(value).unwrap())
                .is_none()
        );
    }
}
