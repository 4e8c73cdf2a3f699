//! Pods as an API server returns them, from `tests/fixtures/pods`, with their expected twins
//! (`UPDATE_FIXTURES=1` rewrites those: review the difference), and each rule by name.

#![allow(clippy::needless_pass_by_value)]

use k8s_openapi::api::core::v1::EnvVar;
use serde_json::{Value, json};

use super::*;
use crate::capture::{Reason, judge, schema};

fn fixture(name: &str) -> Value {
    let path = format!(
        "{}/tests/fixtures/pods/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// What a runtime would have reported: one variable per container, and its image as the pod names
/// it.
fn live(pod: &Pod) -> Live {
    let spec = pod.spec.clone().unwrap();
    let names = spec
        .init_containers
        .into_iter()
        .flatten()
        .chain(spec.containers)
        .map(|container| container.name);
    let env = |name: &str| EnvVar {
        name: "RAN".into(),
        value: Some(name.into()),
        value_from: None,
    };
    Live {
        environments: names.map(|name| (name.clone(), vec![env(&name)])).collect(),
        ..Live::default()
    }
}

fn twin(pod: &Value) -> (Value, Vec<Reason>) {
    let (typed, unknown) = schema::read(pod);
    assert_eq!(unknown, []);
    let typed = typed.unwrap();
    let (twin, reasons) = render(&typed, Path::new("/run/pod-checkpointer"), &live(&typed));
    (serde_json::to_value(twin).unwrap(), reasons)
}

/// A small pod with these fields of `spec` and of its only container.
fn pod(spec: Value, container: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": "till", "uid": "11111111-1111-4111-8111-111111111111"},
        "spec": {"restartPolicy": "Always", "containers": [{"name": "app", "image": "till:1"}]},
    });
    merge(&mut pod["spec"], spec);
    merge(&mut pod["spec"]["containers"][0], container);
    pod
}

fn merge(into: &mut Value, from: Value) {
    if let Value::Object(from) = from {
        into.as_object_mut().unwrap().extend(from);
    }
}

fn reasons(pod: &Value) -> Vec<(Refusal, String)> {
    let reasons = judge(pod, Path::new("/run/pod-checkpointer"), "edge-1");
    reasons
        .into_iter()
        .map(|reason| (reason.refusal, reason.detail))
        .collect()
}

/// Every path whose value differs, with the new value.
fn changes(before: &Value, after: &Value, path: &str, found: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let path = format!("{path}.{key}");
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => changes(a, b, &path, found),
                    (Some(_), None) => found.push(format!("- {path}")),
                    (_, Some(b)) => found.push(format!("+ {path} = {b}")),
                    (None, None) => {}
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                changes(a, b, &format!("{path}[{index}]"), found);
            }
        }
        _ if before == after => {}
        _ => found.push(format!("~ {path} = {after}")),
    }
}

#[test]
fn twins_are_as_their_fixtures_say() {
    for name in ["web", "node-agent", "everything"] {
        let parent = fixture(name);
        assert_eq!(reasons(&parent), [], "{name}");
        let (twin, _) = twin(&parent);
        if std::env::var_os("UPDATE_FIXTURES").is_some() {
            let path = format!(
                "{}/tests/fixtures/pods/{name}.twin.json",
                env!("CARGO_MANIFEST_DIR")
            );
            std::fs::write(path, serde_json::to_string_pretty(&twin).unwrap() + "\n").unwrap();
        }
        assert_eq!(twin, fixture(&format!("{name}.twin")), "{name}");
    }
}

/// The fixture has every field that can be kept; fields that are not in this list are unchanged.
#[test]
fn what_no_rule_changes_is_kept() {
    let parent = fixture("everything");
    let (twin, _) = twin(&parent);
    let mut found = Vec::new();
    changes(&parent["spec"], &twin["spec"], "spec", &mut found);
    let directory = "/run/pod-checkpointer/volumes/\
        shop_every.field-of-a-pod-with-a-name-that-is-longer-than-a-hostname-may-be/00000000-0000-0000-0000-000000000000";
    let wanted = [
        "- spec.activeDeadlineSeconds",
        "- spec.affinity",
        "~ spec.automountServiceAccountToken = false",
        "~ spec.containers[0].env[0].name = \"RAN\"",
        "~ spec.containers[0].env[0].value = \"main\"",
        "~ spec.containers[0].imagePullPolicy = \"IfNotPresent\"",
        "+ spec.containers[0].lifecycle.preStop = {\"sleep\":{\"seconds\":120}}",
        "+ spec.containers[0].livenessProbe.terminationGracePeriodSeconds = 1",
        "~ spec.containers[0].startupProbe.exec.command[1] = \"b\"",
        "+ spec.containers[0].startupProbe.terminationGracePeriodSeconds = 1",
        "- spec.ephemeralContainers",
        "+ spec.hostnameOverride = \"every.field-of-a-pod-with-a-name-that-is-longer-than-a-hostname\"",
        "+ spec.initContainers[0].env = [{\"name\":\"RAN\",\"value\":\"sidecar\"}]",
        "+ spec.initContainers[0].imagePullPolicy = \"IfNotPresent\"",
        "+ spec.initContainers[0].livenessProbe.terminationGracePeriodSeconds = 45",
        "- spec.nodeName",
        "- spec.nodeSelector",
        "- spec.preemptionPolicy",
        "~ spec.priority = 8",
        "- spec.readinessGates",
        "- spec.schedulerName",
        "- spec.schedulingGates",
        "- spec.securityContext.seLinuxChangePolicy",
        "~ spec.terminationGracePeriodSeconds = 165",
        "- spec.tolerations",
        "- spec.topologySpreadConstraints",
        &format!(
            "+ spec.volumes[0].hostPath = {{\"path\":\"{directory}/secret\",\"type\":\"Directory\"}}"
        ),
        "- spec.volumes[0].secret",
        "~ spec.volumes[3].image.pullPolicy = \"IfNotPresent\"",
    ];
    assert_eq!(found, wanted);
}

#[test]
fn a_field_that_the_types_do_not_know_is_named_with_its_path() {
    for (path, field) in [
        ("spec.fieldOfTheFuture", "/spec"),
        ("metadata.fieldOfTheFuture", "/metadata"),
        ("spec.containers[0].fieldOfTheFuture", "/spec/containers/0"),
        (
            "spec.containers[0].volumeMounts[1].fieldOfTheFuture",
            "/spec/containers/0/volumeMounts/1",
        ),
        (
            "spec.containers[0].securityContext.capabilities.fieldOfTheFuture",
            "/spec/containers/0/securityContext/capabilities",
        ),
        (
            "spec.volumes[1].emptyDir.fieldOfTheFuture",
            "/spec/volumes/1/emptyDir",
        ),
        (
            "spec.volumes[0].secret.fieldOfTheFuture",
            "/spec/volumes/0/secret",
        ),
        (
            "spec.containers[0].livenessProbe.grpc.fieldOfTheFuture",
            "/spec/containers/0/livenessProbe/grpc",
        ),
        (
            "spec.containers[0].restartPolicyRules[0].exitCodes.fieldOfTheFuture",
            "/spec/containers/0/restartPolicyRules/0/exitCodes",
        ),
        (
            "spec.ephemeralContainers[0].fieldOfTheFuture",
            "/spec/ephemeralContainers/0",
        ),
        (
            "spec.tolerations[0].fieldOfTheFuture",
            "/spec/tolerations/0",
        ),
        (
            "spec.affinity.podAntiAffinity.fieldOfTheFuture",
            "/spec/affinity/podAntiAffinity",
        ),
    ] {
        for value in [
            json!(false),
            json!({}),
            json!([]),
            json!({"deep": "er"}),
            json!(""),
        ] {
            let mut pod = fixture("everything");
            pod.pointer_mut(field).unwrap()["fieldOfTheFuture"] = value;
            assert_eq!(reasons(&pod), [(Refusal::UnknownField, path.to_owned())]);
        }
        let mut pod = fixture("everything");
        pod.pointer_mut(field).unwrap()["fieldOfTheFuture"] = Value::Null;
        assert_eq!(reasons(&pod), [], "null is no field");
    }
}

#[test]
fn what_is_not_a_pod_is_refused_without_its_values() {
    for pod in [
        json!(null),
        json!([]),
        json!("secret"),
        json!({"kind": "Secret", "data": {"a": "secret"}}),
        pod(
            json!({}),
            json!({"env": [{"name": "A", "value": {"secret": 1}}]}),
        ),
        pod(json!({"hostNetwork": "secret"}), json!({})),
    ] {
        let reasons = reasons(&pod);
        assert_eq!(
            reasons.first().map(|it| it.0),
            Some(Refusal::UnknownField),
            "{pod}"
        );
        assert!(
            reasons.iter().all(|(_, detail)| !detail.contains("secret")),
            "{reasons:?}"
        );
    }
}

#[test]
fn volumes_that_need_somebody_to_attach_them_are_refused() {
    for (source, refusal) in [
        (
            json!({"persistentVolumeClaim": {"claimName": "data"}}),
            Refusal::PersistentVolume,
        ),
        (
            json!({"csi": {"driver": "secrets.example"}}),
            Refusal::CsiVolume,
        ),
        (
            json!({"ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}}}),
            Refusal::EphemeralVolume,
        ),
        (
            json!({"awsElasticBlockStore": {"volumeID": "v"}}),
            Refusal::RejectedByKubeletRules,
        ),
        (
            json!({"azureDisk": {"diskName": "d", "diskURI": "u"}}),
            Refusal::RejectedByKubeletRules,
        ),
        (
            json!({"azureFile": {"secretName": "s", "shareName": "n"}}),
            Refusal::RejectedByKubeletRules,
        ),
        (
            json!({"cephfs": {"monitors": ["m"]}}),
            Refusal::RejectedByKubeletRules,
        ),
        (
            json!({"cinder": {"volumeID": "v"}}),
            Refusal::RejectedByKubeletRules,
        ),
        (
            json!({"fc": {"wwids": ["w"]}}),
            Refusal::RejectedByKubeletRules,
        ),
        (
            json!({"flexVolume": {"driver": "d"}}),
            Refusal::RejectedByKubeletRules,
        ),
        (
            json!({"flocker": {"datasetName": "d"}}),
            Refusal::RejectedByKubeletRules,
        ),
        (
            json!({"gcePersistentDisk": {"pdName": "p"}}),
            Refusal::RejectedByKubeletRules,
        ),
        (
            json!({"gitRepo": {"repository": "r"}}),
            Refusal::RejectedByKubeletRules,
        ),
        (
            json!({"glusterfs": {"endpoints": "e", "path": "p"}}),
            Refusal::RejectedByKubeletRules,
        ),
        (
            json!({"iscsi": {"targetPortal": "t", "iqn": "i", "lun": 1}}),
            Refusal::RejectedByKubeletRules,
        ),
        (
            json!({"photonPersistentDisk": {"pdID": "p"}}),
            Refusal::RejectedByKubeletRules,
        ),
        (
            json!({"portworxVolume": {"volumeID": "v"}}),
            Refusal::RejectedByKubeletRules,
        ),
        (
            json!({"quobyte": {"registry": "r", "volume": "v"}}),
            Refusal::RejectedByKubeletRules,
        ),
        (
            json!({"rbd": {"monitors": ["m"], "image": "i"}}),
            Refusal::RejectedByKubeletRules,
        ),
        (
            json!({"scaleIO": {"gateway": "g", "system": "s", "secretRef": {"name": "n"}}}),
            Refusal::RejectedByKubeletRules,
        ),
        (
            json!({"storageos": {"volumeName": "v"}}),
            Refusal::RejectedByKubeletRules,
        ),
        (
            json!({"vsphereVolume": {"volumePath": "v"}}),
            Refusal::RejectedByKubeletRules,
        ),
    ] {
        let kind = source.as_object().unwrap().keys().next().unwrap().clone();
        let mut volume = source;
        volume["name"] = json!("v");
        let reasons = reasons(&pod(json!({"volumes": [volume]}), json!({})));
        assert_eq!(reasons.len(), 1, "{kind}: {reasons:?}");
        assert_eq!(reasons[0].0, refusal, "{kind}");
        assert!(
            reasons[0].1.starts_with(&format!("spec.volumes[v].{kind}")),
            "{reasons:?}"
        );
    }
}

#[test]
fn every_reason_is_told_not_only_the_first() {
    let pod = pod(
        json!({
            "runtimeClassName": "kata", "resourceClaims": [{"name": "gpu", "resourceClaimName": "g"}],
            "resources": {"requests": {"hugepages-2Mi": "4Mi"}},
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        }),
        json!({
            "resources": {"claims": [{"name": "gpu"}], "limits": {"nvidia.com/gpu": "1"}, "requests": {"nvidia.com/gpu": "1"}},
            "volumeDevices": [{"name": "data", "devicePath": "/dev/x"}],
        }),
    );
    let mut kinds: Vec<_> = reasons(&pod)
        .into_iter()
        .map(|(refusal, _)| refusal)
        .collect();
    kinds.sort_unstable();
    let wanted = [
        Refusal::PersistentVolume,
        Refusal::PersistentVolume,
        Refusal::ResourceClaim,
        Refusal::ResourceClaim,
        Refusal::ExtendedResource,
        Refusal::HugePages,
        Refusal::RuntimeClass,
    ];
    assert_eq!(kinds, wanted);
}

#[test]
fn each_reason_that_the_object_tells_is_reached_and_has_advice() {
    let owner = |kind: &str| json!([{"apiVersion": "v1", "kind": kind, "name": "o", "uid": "u", "controller": true}]);
    let mut reached: Vec<Refusal> = [
        ("/spec/restartPolicy", json!("Never")),
        ("/metadata/ownerReferences", owner("Node")),
        ("/metadata/ownerReferences", owner("StatefulSet")),
        ("/metadata/deletionTimestamp", json!("2026-11-20T08:00:00Z")),
        (
            "/metadata/annotations",
            json!({names::START_GROUP: "first"}),
        ),
        (
            "/spec/volumes",
            json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]),
        ),
        (
            "/spec/volumes",
            json!([{"name": "v", "csi": {"driver": "d"}}]),
        ),
        ("/spec/volumes", json!([{"name": "v", "ephemeral": {}}])),
        ("/spec/resourceClaims", json!([{"name": "c"}])),
        (
            "/spec/containers/0/resources",
            json!({"limits": {"example.org/gpu": "1"}}),
        ),
        (
            "/spec/containers/0/resources",
            json!({"limits": {"hugepages-2Mi": "2Mi"}}),
        ),
        ("/spec/runtimeClassName", json!("kata")),
        ("/spec/os", json!({"name": "windows"})),
        ("/spec/fieldOfTheFuture", json!(1)),
    ]
    .into_iter()
    .map(|(path, value)| {
        let mut pod = pod(json!({}), json!({}));
        let (parent, key) = path.rsplit_once('/').unwrap();
        pod.pointer_mut(parent).unwrap()[key] = value;
        let reasons = reasons(&pod);
        assert_eq!(reasons.len(), 1, "{path}: {reasons:?}");
        assert!(!reasons[0].1.is_empty() && !reasons[0].0.advice().is_empty());
        reasons[0].0
    })
    .collect();
    // what only the node knows is tested in tests/it/capture
    reached.extend([
        Refusal::ImageAbsent,
        Refusal::ImageNeedsPullSecret,
        Refusal::EnvironmentUnknown,
    ]);
    reached.extend([Refusal::EnvironmentNotText, Refusal::TooLarge]);
    reached.sort_unstable();
    assert_eq!(reached, Refusal::ALL);
}

#[test]
fn a_claim_without_its_node_never_leads_anywhere() {
    let mut parent = pod(
        json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "orders", "readOnly": true}}]}),
        json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}),
    );
    for accept in ["", "persistent-volume"] {
        parent["metadata"]["annotations"] = json!({names::ACCEPT: accept});
        assert_eq!(reasons(&parent)[0].0, Refusal::PersistentVolume);
        let (twin, _) = twin(&parent);
        let path = json!({"path": "/known-when-captured/orders", "type": "Directory"});
        assert_eq!(twin["spec"]["volumes"][0]["hostPath"], path);
        assert_eq!(
            twin["spec"]["containers"][0]["volumeMounts"][0]["readOnly"],
            true
        );
    }
}

#[test]
fn every_source_of_a_projected_volume_is_captured_as_files() {
    let sources = json!([
        {"serviceAccountToken": {"path": "token", "audience": "a", "expirationSeconds": 3607}},
        {"configMap": {"name": "c", "optional": true, "items": [{"key": "k", "path": "p/q", "mode": 256}]}},
        {"secret": {"name": "s"}},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"clusterTrustBundle": {"path": "ca.pem", "signerName": "example.org/s", "labelSelector": {}, "optional": true}},
        {"podCertificate": {"signerName": "example.org/s", "keyType": "ED25519", "credentialBundlePath": "bundle.pem",
            "maxExpirationSeconds": 86400, "userAnnotations": {"a": "b"}}},
    ]);
    let volume = json!({"name": "all", "projected": {"defaultMode": 288, "sources": sources}});
    let parent = pod(
        json!({"volumes": [volume]}),
        json!({"volumeMounts": [{"name": "all", "mountPath": "/all"}]}),
    );
    assert_eq!(reasons(&parent), []);
    let (twin, _) = twin(&parent);
    assert_eq!(
        twin["spec"]["volumes"][0]
            .as_object()
            .unwrap()
            .keys()
            .collect::<Vec<_>>(),
        ["hostPath", "name"]
    );
    assert_eq!(
        twin["spec"]["containers"][0]["volumeMounts"][0]["readOnly"],
        true
    );
    let directories = crate::capture::volume_dirs(&parent, Path::new("/k"));
    assert!(
        directories[0].1.ends_with("kubernetes.io~projected/all"),
        "{directories:?}"
    );
}

#[test]
fn host_paths_of_every_type_and_the_ways_they_are_mounted_are_kept() {
    for kind in [
        "",
        "DirectoryOrCreate",
        "Directory",
        "FileOrCreate",
        "File",
        "Socket",
        "CharDevice",
        "BlockDevice",
    ] {
        let volume = json!({"name": "h", "hostPath": {"path": "/srv/h", "type": kind}});
        let mount = json!({"name": "h", "mountPath": "/h", "readOnly": true, "recursiveReadOnly": "Enabled",
            "mountPropagation": "None", "subPathExpr": "$(POD_IP)/$$(A)"});
        let parent = pod(
            json!({"volumes": [volume]}),
            json!({"volumeMounts": [mount]}),
        );
        let (twin, reasons) = twin(&parent);
        assert_eq!(reasons, []);
        assert_eq!(twin["spec"]["volumes"][0], volume);
        assert_eq!(twin["spec"]["containers"][0]["volumeMounts"][0], mount);
    }
}

#[test]
fn a_resize_that_the_kubelet_has_not_agreed_to_is_not_carried_over() {
    let resources = |cpu: &str| json!({"limits": {"cpu": cpu}, "requests": {"cpu": cpu}});
    let mut parent = pod(json!({}), json!({"resources": resources("64")}));
    parent["status"] = json!({
        "conditions": [{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}],
        "containerStatuses": [{"name": "app", "resources": resources("1")}, {"name": "other"}],
    });
    assert_eq!(
        twin(&parent).0["spec"]["containers"][0]["resources"],
        resources("1")
    );
    for (condition, status) in [
        ("PodResizePending", "False"),
        ("PodResizeInProgress", "True"),
    ] {
        parent["status"]["conditions"] = json!([{"type": condition, "status": status}]);
        assert_eq!(
            twin(&parent).0["spec"]["containers"][0]["resources"],
            resources("64"),
            "{condition}"
        );
    }
}

#[test]
fn a_sidecars_resize_policy_is_left_out_because_older_kubelets_refuse_it() {
    let policy = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
    let sidecar = json!({"name": "proxy", "image": "proxy:1", "restartPolicy": "Always", "resizePolicy": policy});
    let (twin, reasons) = twin(&pod(
        json!({"initContainers": [sidecar]}),
        json!({"resizePolicy": policy}),
    ));
    assert_eq!(reasons, []);
    assert_eq!(twin["spec"]["initContainers"][0].get("resizePolicy"), None);
    assert_eq!(twin["spec"]["containers"][0]["resizePolicy"], policy);
}

#[test]
fn resources_of_kubernetes_own_are_kept() {
    for name in [
        "cpu",
        "memory",
        "ephemeral-storage",
        "kubernetes.io/x",
        "example.kubernetes.io/x",
    ] {
        assert_eq!(
            reasons(&pod(
                json!({}),
                json!({"resources": {"limits": {name: "1"}}})
            )),
            [],
            "{name}"
        );
    }
    for (name, refusal) in [
        ("hugepages-1Gi", Refusal::HugePages),
        ("notkubernetes.io/x", Refusal::ExtendedResource),
    ] {
        let reasons = reasons(&pod(
            json!({}),
            json!({"resources": {"limits": {name: "1"}}}),
        ));
        assert_eq!(
            reasons,
            [(refusal, format!("spec.containers[app].resources: {name}"))]
        );
    }
}

#[test]
fn the_hostname_stays_the_parents() {
    let long = "a".repeat(62) + "-bc";
    let dotted = "a.".repeat(31) + "bcd";
    for (name, spec, hostname, other) in [
        ("till", json!({}), Some("till"), None),
        ("till", json!({"hostname": "mine"}), Some("mine"), None),
        ("till", json!({"hostname": ""}), Some("till"), None),
        ("till", json!({"hostNetwork": true}), None, None),
        (
            "till",
            json!({"hostnameOverride": "other.example"}),
            None,
            Some("other.example"),
        ),
        (
            "till",
            json!({"subdomain": "s", "setHostnameAsFQDN": true}),
            Some("till"),
            None,
        ),
        (&long, json!({}), Some(&long[..62]), None),
        ("a.b", json!({}), None, Some("a.b")),
        ("a.b", json!({"setHostnameAsFQDN": true}), None, Some("a.b")),
        (
            "a.b",
            json!({"hostname": "mine", "subdomain": "s"}),
            Some("mine"),
            None,
        ),
        (&dotted, json!({}), None, Some(&dotted[..63])),
    ] {
        let mut pod = pod(spec.clone(), json!({}));
        pod["metadata"]["name"] = json!(name);
        let (twin, reasons) = twin(&pod);
        assert_eq!(reasons, []);
        assert_eq!(twin["spec"]["hostname"].as_str(), hostname, "{name} {spec}");
        assert_eq!(
            twin["spec"]["hostnameOverride"].as_str(),
            other,
            "{name} {spec}"
        );
        // the two exclude each other (pkg/apis/core/validation).
        assert!(other.is_none() || twin["spec"]["setHostnameAsFQDN"].is_null());
    }
    let mut pod = pod(json!({"subdomain": "s"}), json!({}));
    pod["metadata"]["name"] = json!("a.b");
    assert_eq!(
        reasons(&pod).len(),
        1,
        "a dotted name below a subdomain can be neither"
    );
}

#[test]
fn each_container_without_a_hook_of_its_own_is_held_and_none_waits_for_that_when_it_fails() {
    let probe = json!({"tcpSocket": {"port": 1}});
    let hook = json!({"preStop": {"exec": {"command": ["drain"]}}});
    let probes = || json!({"livenessProbe": probe, "startupProbe": probe, "readinessProbe": probe});
    let container = |name: &str, more: Value| {
        let mut container = json!({"name": name, "image": "i"});
        merge(&mut container, probes());
        merge(&mut container, more);
        container
    };
    let own = json!({"livenessProbe": {"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 9}, "lifecycle": hook});
    let spec = json!({
        "terminationGracePeriodSeconds": 20,
        "containers": [container("held", json!({})), container("hooked", json!({"lifecycle": hook})), container("own", own)],
        "initContainers": [container("sidecar", json!({"restartPolicy": "Always"})), {"name": "init", "image": "i"}],
    });
    let (twin, _) = twin(&pod(spec, json!({})));
    let spec = &twin["spec"];
    let grace =
        |container: &Value, probe: &str| container[probe]["terminationGracePeriodSeconds"].as_i64();
    assert_eq!(
        spec["terminationGracePeriodSeconds"],
        20 + names::HOLD_SECONDS
    );
    let [held, hooked, own] = [0, 1, 2].map(|at| &spec["containers"][at]);
    assert_eq!(
        held["lifecycle"],
        json!({"preStop": {"sleep": {"seconds": names::HOLD_SECONDS}}})
    );
    assert_eq!(
        (grace(held, "livenessProbe"), grace(held, "startupProbe")),
        (Some(1), Some(1))
    );
    assert_eq!(hooked["lifecycle"], hook);
    assert_eq!(
        (
            grace(hooked, "livenessProbe"),
            grace(hooked, "startupProbe")
        ),
        (Some(20), Some(20))
    );
    assert_eq!(
        (grace(own, "livenessProbe"), grace(own, "startupProbe")),
        (Some(9), Some(20))
    );
    let [sidecar, init] = [0, 1].map(|at| &spec["initContainers"][at]);
    assert_eq!(
        (
            sidecar["lifecycle"].as_object(),
            grace(sidecar, "livenessProbe")
        ),
        (None, Some(20))
    );
    assert!(init["lifecycle"].is_null());
    for container in [held, hooked, own, sidecar] {
        assert_eq!(
            grace(container, "readinessProbe"),
            None,
            "validation forbids it"
        );
    }
}

#[test]
fn a_pod_whose_containers_all_have_hooks_keeps_its_grace() {
    let lifecycle = json!({"preStop": {"sleep": {"seconds": 1}}});
    let probe = json!({"tcpSocket": {"port": 1}});
    let parent = pod(
        json!({"terminationGracePeriodSeconds": 5}),
        json!({"lifecycle": lifecycle, "livenessProbe": probe}),
    );
    let (twin, _) = twin(&parent);
    assert_eq!(twin["spec"]["terminationGracePeriodSeconds"], 5);
    assert_eq!(twin["spec"]["containers"][0]["livenessProbe"], probe);
}

#[test]
fn annotations_that_say_how_the_pod_should_be_are_kept_and_notes_are_not() {
    let kept = [
        "example.org/a",
        "k8s.v1.cni.cncf.io/networks",
        "kubectl.kubernetes.io/restartedAt",
    ];
    let noted = [
        "podcheckpointer.io/checkpoint",
        "podcheckpointer.io/accept",
        "checkpointer.alpha.coreos.com/checkpoint",
        "kubernetes.io/config.seen",
        "kubernetes.io/config.source",
        "kubectl.kubernetes.io/last-applied-configuration",
        "k8s.v1.cni.cncf.io/network-status",
        "k8s.v1.cni.cncf.io/networks-status",
        "k8s.ovn.org/pod-networks",
        "cni.projectcalico.org/containerID",
    ];
    let security = [
        "container.apparmor.security.beta.kubernetes.io/app",
        "container.seccomp.security.alpha.kubernetes.io/app",
        "seccomp.security.alpha.kubernetes.io/pod",
    ];
    let annotations: Value = kept
        .iter()
        .chain(&noted)
        .chain(&security)
        .map(|key| (*key, "x"))
        .collect();
    let annotations_of = |context: Value| {
        let mut parent = pod(json!({"securityContext": context}), json!({}));
        parent["metadata"]["annotations"] = annotations.clone();
        let (twin, _) = twin(&parent);
        twin["metadata"]["annotations"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    let sorted = |lists: &[&[&str]]| {
        let mut all: Vec<String> = lists.concat().into_iter().map(str::to_owned).collect();
        all.sort_unstable();
        all
    };
    let ours = [names::CHECKPOINT_OF, names::PARENT_UID];
    assert_eq!(
        annotations_of(json!({})),
        sorted(&[&kept, &ours, &security])
    );
    let profiles = json!({"appArmorProfile": {"type": "Unconfined"}, "seccompProfile": {"type": "Unconfined"}});
    assert_eq!(annotations_of(profiles), sorted(&[&kept, &ours]));
}

#[test]
fn a_volumes_name_never_leads_out_of_its_directory() {
    for name in ["..", "a/b", "", "a.b", "A"] {
        let pod = pod(
            json!({"volumes": [{"name": name, "secret": {"secretName": "s"}}]}),
            json!({}),
        );
        assert_eq!(
            reasons(&pod)[0].0,
            Refusal::RejectedByKubeletRules,
            "{name:?}"
        );
        if name != "a.b" {
            assert_eq!(
                crate::capture::volume_dirs(&pod, Path::new("/k")),
                [],
                "{name:?}"
            );
        }
    }
}
