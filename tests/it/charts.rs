//! Pod templates in the form in which well-known projects ship them (`tests/charts`), each with the
//! verdict that its owner must be told: whether its pods come back, why not, and what to know. The
//! recoverable ones also run on the real node (`tests/node/stories/15-charts.sh`).

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use pod_checkpointer::capture::{eligibility, judge, schema};
use pod_checkpointer::pod::mark::is_marked;
use pod_checkpointer::reasons::{Refusal, Warning};
use serde_json::{Value, json};

use Refusal::{
    CsiVolume, EphemeralVolume, ExtendedResource, HugePages, MirrorOrStatic, PersistentVolume,
    ResourceClaim, RestartPolicy, RuntimeClass, StatefulSet,
};
use Warning::{
    InitContainersRunAgain as Init, MayBeRescheduled as Moves, ServiceAccountToken as Token,
};

/// Refusals, each with what it is about.
type Reasons = &'static [(Refusal, &'static str)];

/// Chart, why its pods are refused, what their owner should know.
const VERDICTS: &[(&str, Reasons, &[Warning])] = &[
    ("akri-agent", &[], &[Token]),
    ("alloy", &[], &[Token]),
    ("antrea-agent", &[], &[Token, Init]),
    (
        "backup-job",
        &[(RestartPolicy, "spec.restartPolicy is OnFailure")],
        &[Moves, Token],
    ),
    ("calico-node", &[], &[Token, Init]),
    ("cert-manager", &[], &[Moves, Token]),
    ("cilium", &[], &[Token, Init]),
    ("coredns", &[], &[Moves, Token]),
    ("datadog-agent", &[], &[Token, Init]),
    (
        "dra-inference",
        &[(ResourceClaim, "gpu"), (ResourceClaim, "gpu")],
        &[Moves, Token],
    ),
    ("ebs-csi-node", &[], &[Token]),
    ("edgemesh", &[], &[Token]),
    ("emqx", &[(StatefulSet, "emqx")], &[Moves, Token]),
    ("envoy-gateway", &[], &[Moves]),
    ("etcd", &[(MirrorOrStatic, "")], &[]),
    ("filebeat", &[], &[Token]),
    ("flannel", &[], &[Token, Init]),
    ("fluent-bit", &[], &[Token]),
    (
        "frigate",
        &[
            (PersistentVolume, "frigate-media"),
            (ExtendedResource, "nvidia.com/gpu"),
            (RuntimeClass, "nvidia"),
        ],
        &[Moves, Token],
    ),
    ("haproxy-ingress", &[], &[Token]),
    ("home-assistant", &[], &[Token]),
    ("influxdb", &[], &[Token]),
    ("ingress-nginx", &[], &[Token]),
    ("istio-app", &[], &[Moves, Token, Init]),
    (
        "kafka",
        &[
            (PersistentVolume, "data-0-kafka-broker-0"),
            (HugePages, "hugepages-2Mi"),
        ],
        &[Moves, Token],
    ),
    ("kube-proxy", &[], &[Token]),
    ("kube-router", &[], &[Token]),
    ("kube-vip", &[], &[Token]),
    ("linkerd-app", &[], &[Moves, Token, Init]),
    ("longhorn-manager", &[], &[Token]),
    ("metallb-speaker", &[], &[Token]),
    ("minio", &[(PersistentVolume, "minio")], &[Moves]),
    ("mosquitto", &[], &[Moves, Token]),
    ("multus", &[], &[Token, Init]),
    ("nats", &[], &[Moves, Token]),
    ("node-exporter", &[], &[]),
    ("node-local-dns", &[], &[Token]),
    ("node-red", &[], &[Token]),
    (
        "nvidia-device-plugin",
        &[(RuntimeClass, "nvidia")],
        &[Token],
    ),
    (
        "postgres",
        &[
            (PersistentVolume, "data-postgres-0"),
            (StatefulSet, "postgres"),
        ],
        &[Moves, Token],
    ),
    (
        "prometheus",
        &[
            (PersistentVolume, "prometheus-k8s-db-prometheus-k8s-0"),
            (StatefulSet, "prometheus-k8s"),
        ],
        &[Moves, Token],
    ),
    ("prometheus-operator", &[], &[Moves, Token]),
    ("promtail", &[], &[Token]),
    ("rabbitmq", &[], &[Moves, Token, Init]),
    ("redis", &[], &[Moves]),
    (
        "secrets-store-app",
        &[
            (CsiVolume, "secrets-store.csi.k8s.io"),
            (EphemeralVolume, "scratch"),
        ],
        &[Moves, Token],
    ),
    ("smarter-device-manager", &[], &[Token]),
    ("sriov-device-plugin", &[], &[Token]),
    ("svclb", &[], &[]),
    ("telegraf", &[], &[Token]),
    ("traefik", &[], &[Token]),
    ("valkey", &[], &[Moves, Init]),
    ("vector", &[], &[Token]),
    ("virt-handler", &[], &[Token, Init]),
];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/charts")
}

/// The first pod that its controller would make of this chart on `node-1`, as the API server would
/// tell it.
fn pod(chart: &str) -> Value {
    let text = std::fs::read_to_string(directory().join(format!("{chart}.yaml"))).unwrap();
    let object: Value = serde_yaml::from_str(&text).unwrap();
    let kind = object["kind"].as_str().unwrap();
    let mut pod = if kind == "Pod" {
        object.clone()
    } else {
        object["spec"]["template"].clone()
    };
    let of = object["metadata"]["name"].as_str().unwrap();
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"]["namespace"] = object["metadata"]["namespace"].clone();
    pod["metadata"]["uid"] = "11111111-1111-4111-8111-111111111111".into();
    pod["status"] =
        json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    let name = match kind {
        "Deployment" => format!("{of}-7c5ddbdf54-x2x9p"),
        "DaemonSet" | "Job" => format!("{of}-x2x9p"),
        _ => {
            if kind == "StatefulSet" {
                format!("{of}-0")
            } else {
                of.to_owned()
            }
        }
    };
    if kind == "StatefulSet" {
        pod["spec"]["hostname"] = name.clone().into();
        pod["spec"]["subdomain"] = object["spec"]["serviceName"].clone();
        for claim in object["spec"]["volumeClaimTemplates"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let claim = claim["metadata"]["name"].as_str().unwrap();
            push(
                &mut pod["spec"],
                "volumes",
                json!({"name": claim, "persistentVolumeClaim": {"claimName": format!("{claim}-{name}")}}),
            );
        }
    }
    pod["metadata"]["name"] = name.into();
    if kind != "Pod" {
        let (owner, of) = if kind == "Deployment" {
            ("ReplicaSet", format!("{of}-7c5ddbdf54"))
        } else {
            (kind, of.to_owned())
        };
        pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": owner, "name": of, "uid": "u1", "controller": true}]);
    }
    admit(&mut pod);
    write_out(&mut pod);
    pod
}

/// The API server's own form of what people may write otherwise: modes in octal, amounts as
/// numbers.
fn write_out(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), &*value) {
                    ("mode" | "defaultMode", Value::String(octal)) => {
                        *value = i64::from_str_radix(octal, 8).unwrap().into();
                    }
                    ("limits" | "requests", Value::Object(_)) => {
                        for amount in value
                            .as_object_mut()
                            .unwrap()
                            .values_mut()
                            .filter(|amount| amount.is_number())
                        {
                            *amount = amount.to_string().into();
                        }
                    }
                    _ => write_out(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(write_out),
        _ => {}
    }
}

/// What the API server adds: the token that a pod has unless it says otherwise, and defaults.
fn admit(pod: &mut Value) {
    let is_static = pod
        .pointer("/metadata/annotations/kubernetes.io~1config.mirror")
        .is_some();
    let spec = &mut pod["spec"];
    if spec["automountServiceAccountToken"] != json!(false) && !is_static {
        let token = json!({"name": "kube-api-access-8gqzv", "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]}});
        push(spec, "volumes", token);
        for list in ["containers", "initContainers"] {
            for container in spec
                .get_mut(list)
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                let mount = json!({"name": "kube-api-access-8gqzv", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"});
                push(container, "volumeMounts", mount);
            }
        }
    }
    let has = |spec: &Value, field: &str| !spec[field].is_null();
    if !has(spec, "restartPolicy") {
        spec["restartPolicy"] = "Always".into();
    }
    if !has(spec, "nodeName") {
        spec["nodeName"] = "node-1".into();
    }
    spec["schedulerName"] = "default-scheduler".into();
    spec["priority"] = 0.into();
    spec["preemptionPolicy"] = "PreemptLowerPriority".into();
    push(
        spec,
        "tolerations",
        json!({"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}),
    );
}

fn push(object: &mut Value, list: &str, item: Value) {
    if object[list].is_null() {
        object[list] = json!([]);
    }
    object[list].as_array_mut().unwrap().push(item);
}

#[test]
fn each_chart_has_the_expected_verdict() {
    let mut wrong = Vec::new();
    let mut recoverable = 0;
    for (chart, reasons, warnings) in VERDICTS {
        let pod = pod(chart);
        assert!(is_marked(&pod), "{chart} is not marked");
        let found = judge(&pod, Path::new("/run/pod-checkpointer"), "node-1");
        let mut wanted = reasons.to_vec();
        wanted.sort_unstable();
        let mut kinds: Vec<_> = found
            .iter()
            .map(|reason| (reason.refusal, reason.detail.as_str()))
            .collect();
        kinds.sort_unstable();
        let is_as_wanted = kinds.len() == wanted.len()
            && kinds
                .iter()
                .zip(&wanted)
                .all(|((kind, detail), (wanted, about))| kind == wanted && detail.contains(about));
        let (typed, _) = schema::read(&pod);
        let told = eligibility::warnings(&typed.unwrap());
        if !is_as_wanted || told != *warnings {
            wrong.push(format!("{chart}: {kinds:?}, warnings {told:?}"));
        }
        recoverable += usize::from(reasons.is_empty());
    }
    // bypasses the capture of test output: the counts are part of the proof
    let _ = writeln!(
        std::io::stderr(),
        "charts: {}, {recoverable} recoverable",
        VERDICTS.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_chart_in_the_directory_is_judged_and_there_are_at_least_forty() {
    let files = std::fs::read_dir(directory())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap());
    let files: BTreeSet<_> = files
        .filter_map(|file| file.strip_suffix(".yaml").map(str::to_owned))
        .collect();
    let judged: BTreeSet<_> = VERDICTS
        .iter()
        .map(|(chart, _, _)| (*chart).to_owned())
        .collect();
    assert_eq!(files, judged);
    assert!(judged.len() >= 40);
}
