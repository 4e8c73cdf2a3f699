#![allow(clippy::needless_pass_by_value)]

use super::workload::TOKEN_PATH;
use super::*;

fn candidate(object: Value) -> Candidate {
    let mut found = subjects(&object, "shop");
    assert_eq!(found.len(), 1);
    match found.remove(0) {
        Ok(Subject::Pod(candidate)) => *candidate,
        other => panic!("{other:?}"),
    }
}

fn rendered(object: Value) -> Rendered {
    render(
        &candidate(object),
        Path::new("/run/pod-checkpointer"),
        "node",
    )
}

fn workload(version: &str, kind: &str, spec: Value) -> Value {
    let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "web"}, "spec": {"template": {
        "metadata": {"labels": {"app": "web"}, "annotations": {"podcheckpointer.io/checkpoint": "true"}},
        "spec": {"containers": [{"name": "app", "image": "web:1"}]}}}});
    let at = object["spec"].as_object_mut().unwrap();
    at.extend(spec.as_object().unwrap().clone());
    object
}

#[test]
fn a_workloads_template_becomes_the_pod_that_its_controller_makes() {
    for (version, kind, name, owner, label) in [
        (
            "apps/v1",
            "Deployment",
            "web-xxxxxxxxxx-xxxxx",
            Some(("ReplicaSet", "web-xxxxxxxxxx")),
            "pod-template-hash",
        ),
        (
            "apps/v1",
            "ReplicaSet",
            "web-xxxxx",
            Some(("ReplicaSet", "web")),
            "",
        ),
        (
            "apps/v1",
            "DaemonSet",
            "web-xxxxx",
            Some(("DaemonSet", "web")),
            "controller-revision-hash",
        ),
        (
            "apps/v1",
            "StatefulSet",
            "web-0",
            Some(("StatefulSet", "web")),
            "apps.kubernetes.io/pod-index",
        ),
        (
            "v1",
            "ReplicationController",
            "web-xxxxx",
            Some(("ReplicationController", "web")),
            "",
        ),
        ("batch/v1", "Job", "web-xxxxx", Some(("Job", "web")), ""),
    ] {
        let candidate = candidate(workload(version, kind, json!({})));
        let metadata = &candidate.pod["metadata"];
        assert_eq!(
            (&metadata["name"], &metadata["namespace"]),
            (&json!(name), &json!("shop")),
            "{kind}"
        );
        let owned = &metadata["ownerReferences"][0];
        let found = owned["kind"].as_str().zip(owned["name"].as_str());
        assert_eq!(found, owner, "{kind}");
        assert!(
            label.is_empty() || metadata["labels"][label].is_string(),
            "{kind}: {metadata}"
        );
        assert_eq!(metadata["labels"]["app"], "web");
        assert!(
            candidate.is_marked() && candidate.notes.is_empty(),
            "{:?}",
            candidate.notes
        );
    }
    let template = json!({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "t"},
        "template": {"spec": {"containers": [{"name": "a", "image": "i"}]}}});
    assert_eq!(candidate(template).pod["metadata"]["name"], "t-xxxxx");
    let long = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "g".repeat(70)}, "spec": {"containers": []}});
    assert_eq!(
        candidate(long).pod["metadata"]["name"]
            .as_str()
            .unwrap()
            .len(),
        63
    );
}

#[test]
fn what_a_controller_does_to_its_pods_counts() {
    let refusals = |object| {
        rendered(object)
            .reasons
            .iter()
            .map(|reason| reason.refusal)
            .collect::<Vec<_>>()
    };
    assert_eq!(refusals(workload("apps/v1", "Deployment", json!({}))), []);
    assert_eq!(
        refusals(workload("apps/v1", "StatefulSet", json!({}))),
        [Refusal::StatefulSet]
    );
    // a Job's template may leave out the policy, but its pods have it
    assert_eq!(
        refusals(workload("batch/v1", "Job", json!({}))),
        [Refusal::RestartPolicy]
    );
    let claims = json!({"serviceName": "db", "ordinals": {"start": 3}, "volumeClaimTemplates": [{"metadata": {"name": "data"}}]});
    let mut set = workload("apps/v1", "StatefulSet", claims);
    set["spec"]["template"]["metadata"]["annotations"]["podcheckpointer.io/accept"] =
        json!("stateful");
    set["spec"]["template"]["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    let found = rendered(set.clone());
    assert_eq!(
        found.reasons[0].detail,
        "spec.volumes[data].persistentVolumeClaim: data-web-3"
    );
    assert_eq!(found.reasons.len(), 1);
    let pod = candidate(set).pod;
    assert_eq!(
        (&pod["spec"]["hostname"], &pod["spec"]["subdomain"]),
        (&json!("web-3"), &json!("db"))
    );
    let cron = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c"}, "spec": {"jobTemplate":
        {"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "i"}]}}}}}});
    assert_eq!(refusals(cron), [Refusal::RestartPolicy]);
}

#[test]
fn admission_adds_the_token_where_the_parent_would_get_it() {
    let pod = |spec: Value| {
        let mut pod =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec});
        pod["spec"]["containers"] = json!([
            {"name": "a", "image": "i"},
            {"name": "b", "image": "i", "volumeMounts": [{"name": "own", "mountPath": TOKEN_PATH}]}]);
        pod
    };
    let spec = candidate(pod(json!({}))).pod["spec"].clone();
    assert_eq!(spec["volumes"][0]["name"], "kube-api-access-xxxxx");
    assert_eq!(
        spec["containers"][0]["volumeMounts"][0]["mountPath"],
        TOKEN_PATH
    );
    assert_eq!(
        spec["containers"][1]["volumeMounts"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        rendered(pod(json!({}))).warnings,
        [Warning::ServiceAccountToken]
    );
    let without =
        candidate(pod(json!({"automountServiceAccountToken": false}))).pod["spec"].clone();
    assert!(without["volumes"].is_null());
    // a pod from the API server is left as it is
    let mut live = pod(json!({}));
    live["metadata"]["uid"] = json!("11111111-1111-4111-8111-111111111111");
    assert!(candidate(live).pod["spec"]["volumes"].is_null());
}

#[test]
fn what_is_known_stands_in_the_environment_and_what_is_not_says_so() {
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    let environment = json!([
        {"name": "PLAIN", "value": "a$$b"},
        {"name": "NS", "valueFrom": field("metadata.namespace")},
        {"name": "NAME", "valueFrom": field("metadata.name")},
        {"name": "NODE", "valueFrom": field("spec.nodeName")},
        {"name": "APP", "valueFrom": field("metadata.labels['app']")},
        {"name": "HASH", "valueFrom": field("metadata.labels['pod-template-hash']")},
        {"name": "IP", "valueFrom": field("status.podIP")},
        {"name": "URL", "value": "http://$(IP)/$(SECRET)"},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password", "optional": true}}},
        {"name": "DSN", "value": "$(SECRET)@$(NS)"},
        {"name": "MAYBE", "value": "$(OTHER)"},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": 1}}},
    ]);
    let mut deployment = workload("apps/v1", "Deployment", json!({}));
    let container = &mut deployment["spec"]["template"]["spec"]["containers"][0];
    container["env"] = environment;
    let value = |deployment: &Value, name: &str| {
        let rendered = rendered(deployment.clone());
        assert_eq!((&rendered.notes, rendered.reasons.len()), (&Vec::new(), 0));
        let manifest = rendered.manifest.unwrap();
        let list = manifest["spec"]["containers"][0]["env"]
            .as_array()
            .unwrap()
            .clone();
        let entry = list.into_iter().find(|entry| entry["name"] == name);
        entry.map(|entry| {
            entry
                .get("value")
                .cloned()
                .unwrap_or_else(|| entry["valueFrom"].clone())
        })
    };
    for (name, wanted) in [
        ("PLAIN", json!("a$$b")),
        ("NS", json!("shop")),
        ("NAME", json!("<captured: metadata.name of the pod>")),
        ("NODE", json!("<captured: spec.nodeName of the pod>")),
        ("APP", json!("web")),
        (
            "HASH",
            json!("<captured: metadata.labels['pod-template-hash'] of the pod>"),
        ),
        ("IP", field("status.podIP")),
        ("URL", json!("http://$(IP)/$$(SECRET)")),
        (
            "SECRET",
            json!("<captured: key password of Secret db, if it exists>"),
        ),
        (
            "DSN",
            json!("<captured: key password of Secret db, if it exists>@shop"),
        ),
        ("MAYBE", json!("$$(OTHER)")),
        ("CPU", json!("<captured: limits.cpu of container app>")),
    ] {
        assert_eq!(value(&deployment, name), Some(wanted), "{name}");
    }
    // with envFrom it is unknown what a name means
    let container = &mut deployment["spec"]["template"]["spec"]["containers"][0];
    container["envFrom"] = json!([{"prefix": "X_", "secretRef": {"name": "s"}}]);
    let unknown = json!("<captured: OTHER, if a Service, Secret or ConfigMap gives it>");
    assert_eq!(value(&deployment, "MAYBE"), Some(unknown));
    let each = json!("<captured: the value of each key of Secret s>");
    assert_eq!(value(&deployment, "X_each-key-of.Secret.s"), Some(each));
}

#[test]
fn lists_are_opened_and_what_makes_no_pods_is_passed_over() {
    let pod = json!({"metadata": {"name": "a", "namespace": "n"}, "spec": {"containers": []}});
    let list = json!({"apiVersion": "v1", "kind": "PodList", "items": [pod]});
    assert_eq!(
        (
            candidate(list.clone()).namespace.as_str(),
            candidate(list.clone()).name.as_str()
        ),
        ("n", "a")
    );
    let other = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}});
    let foreign = json!({"apiVersion": "batch.volcano.sh/v1alpha1", "kind": "Job", "metadata": {"name": "v"}});
    let all = json!({"apiVersion": "v1", "kind": "List", "items": [list, other, foreign]});
    let found = subjects(&all, "shop");
    assert_eq!(found.len(), 3);
    assert_eq!(found[1], Ok(Subject::Other("Service".into(), "s".into())));
    assert_eq!(
        found[2],
        Ok(Subject::Other("Job".into(), "v".into())),
        "a Job of another group is unknown"
    );
    let nested = (0..20).fold(
        all,
        |list, _| json!({"apiVersion": "v1", "kind": "List", "items": [list]}),
    );
    assert!(subjects(&nested, "shop")[0].is_err());
}

#[test]
fn an_invalid_object_is_reported_with_the_path_and_without_the_value() {
    for (object, wanted) in [
        (json!("secret"), "not a Kubernetes object"),
        (
            json!({"apiVersion": "v1"}),
            "not a Kubernetes object: it has no kind",
        ),
        (
            json!({"kind": "Pod"}),
            "not a Kubernetes object: it has no apiVersion",
        ),
        (
            json!({"apiVersion": "v1", "kind": "List", "items": 3}),
            "a List whose items are not a list",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Pod"}),
            "Pod : spec is missing or does not have the type",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": 1, "spec": {}}),
            "Pod : metadata is missing or does not have the type",
        ),
        (
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}}),
            "Deployment d: spec.template is missing or does not have the type",
        ),
        (
            workload(
                "apps/v1",
                "Deployment",
                json!({"template": {"spec": {"containers": [{"name": "a", "env": [{"name": "A", "value": 5}]}]}}}),
            ),
            "Deployment web: spec.template.spec.containers[0].env[0].value is missing or does not have the type",
        ),
        (
            workload(
                "apps/v1",
                "Deployment",
                json!({"template": {"spec": {"hostNetwork": "secret"}}}),
            ),
            "Deployment web: spec.template.spec.hostNetwork is missing or does not have the type",
        ),
    ] {
        let found = subjects(&object, "shop");
        let error = found[0].as_ref().unwrap_err().to_string();
        assert!(
            error.starts_with(wanted) && !error.contains("secret"),
            "{error}"
        );
    }
}

#[test]
fn a_mark_in_the_wrong_place_or_a_missing_one_is_reported() {
    let mut deployment = workload("apps/v1", "Deployment", json!({}));
    deployment["spec"]["template"]["metadata"]["annotations"] = json!({});
    assert!(candidate(deployment.clone()).notes[0].starts_with("not marked"));
    deployment["metadata"]["annotations"] = json!({"podcheckpointer.io/checkpoint": "true"});
    let note = candidate(deployment).notes.remove(0);
    assert!(
        note.ends_with("move it to spec.template.metadata.annotations"),
        "{note}"
    );
}

#[test]
fn amounts_may_be_numbers() {
    let mut deployment = workload("apps/v1", "Deployment", json!({}));
    let spec = &mut deployment["spec"]["template"]["spec"];
    spec["containers"][0]["resources"] =
        json!({"limits": {"cpu": 2, "memory": 1_000_000}, "requests": {"cpu": 0.5}});
    spec["volumes"] = json!([{"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": 1024}}]);
    let manifest = rendered(deployment).manifest.unwrap();
    let container = &manifest["spec"]["containers"][0];
    assert_eq!(
        container["resources"]["limits"],
        json!({"cpu": "2", "memory": "1000000"})
    );
    assert_eq!(container["resources"]["requests"]["cpu"], "0.5");
    assert_eq!(
        manifest["spec"]["volumes"][0]["emptyDir"]["sizeLimit"],
        "1024"
    );
}

#[test]
fn a_field_that_is_not_known_is_named_and_one_that_is_too_large_refused() {
    let mut deployment = workload("apps/v1", "Deployment", json!({}));
    deployment["spec"]["template"]["spec"]["containers"][0]["imagePolicy"] = json!("Always");
    let found = rendered(deployment.clone());
    assert_eq!(
        found.reasons[0].to_string(),
        "UnknownField: spec.containers[0].imagePolicy"
    );
    assert!(found.manifest.is_none());
    let container = json!({"name": "a", "image": "i", "args": ["x".repeat(10 << 20)]});
    deployment["spec"]["template"]["spec"]["containers"] = json!([container]);
    assert_eq!(rendered(deployment).reasons[0].refusal, Refusal::TooLarge);
}
