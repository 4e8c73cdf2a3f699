//! The rules once more, in another way: parent in, twin out, as plain JSON. What is not named here
//! must not change.
//!
//! Neither types nor code of the program are used, so a field that the program loses is missed
//! here.

use serde_json::{Map, Value, json};

/// Fields of a pod that a twin does not have.
const DROPPED: &[&str] = &[
    "activeDeadlineSeconds",
    "affinity",
    "ephemeralContainers",
    "imagePullSecrets",
    "nodeSelector",
    "preemptionPolicy",
    "readinessGates",
    "resourceClaims",
    "runtimeClassName",
    "schedulingGates",
    "schedulingGroup",
    "serviceAccount",
    "serviceAccountName",
    "topologySpreadConstraints",
];
/// Seconds that an added hook sleeps, and by which the pod's grace period grows.
const HOLD: i64 = 120;

/// What the kubelet must make of the twin. `uid` is the twin's.
pub fn twin(parent: &Value, node: &str, uid: &str, run_dir: &str) -> Value {
    let metadata = &parent["metadata"];
    let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
    let mut spec = parent["spec"].clone();
    let object = spec.as_object_mut().unwrap();
    object.retain(|field, _| !DROPPED.contains(&field.as_str()));
    let host_network = object.get("hostNetwork") == Some(&json!(true));
    hostname(object, &name, host_network);
    object.insert("automountServiceAccountToken".into(), json!(false));
    object.insert("enableServiceLinks".into(), json!(false));
    object.insert(
        "priority".into(),
        json!(
            object
                .get("priority")
                .and_then(Value::as_i64)
                .unwrap_or_default()
                + 1
        ),
    );
    // what the kubelet adds
    object.insert("nodeName".into(), json!(node));
    object.insert("schedulerName".into(), json!("default-scheduler"));
    object.insert(
        "tolerations".into(),
        json!([{"operator": "Exists", "effect": "NoExecute"}]),
    );
    if let Some(context) = object["securityContext"].as_object_mut() {
        context.retain(|field, value| field != "seLinuxChangePolicy" || value == "Recursive");
    }
    let grace = object["terminationGracePeriodSeconds"].as_i64().unwrap();
    let is_raised = object["containers"].as_array().unwrap().iter().any(is_held);
    if is_raised {
        object["terminationGracePeriodSeconds"] = json!(grace + HOLD);
    }
    let mut captured = Vec::new();
    for volume in object
        .get_mut("volumes")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let volume = volume.as_object_mut().unwrap();
        let kinds = ["configMap", "secret", "projected", "downwardAPI"];
        if kinds.iter().any(|kind| volume.remove(*kind).is_some()) {
            let name = text(&volume["name"]);
            let path = format!(
                "{run_dir}/volumes/{namespace}_{}/{uid}/{name}",
                text(&metadata["name"])
            );
            volume.insert(
                "hostPath".into(),
                json!({"path": path, "type": "Directory"}),
            );
            captured.push(name);
        } else if let Some(image) = volume.get_mut("image") {
            image["pullPolicy"] = json!("IfNotPresent");
        }
    }
    for list in ["initContainers", "containers"] {
        for container in object
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let is_held = list == "containers" && is_held(container);
            if list == "initContainers" {
                // kubelets up to 1.34 refuse it, and a twin is never resized
                container.as_object_mut().unwrap().remove("resizePolicy");
            }
            let grace = is_raised.then_some(if is_held { 1 } else { grace.max(1) });
            twin_container(container, is_held, grace, &captured);
        }
    }
    let mut annotations: Map<String, Value> = metadata["annotations"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    annotations.retain(|key, _| {
        !key.starts_with("podcheckpointer.io/")
            && !key.starts_with("cni.projectcalico.org/")
            && ![
                "kubectl.kubernetes.io/last-applied-configuration",
                "k8s.v1.cni.cncf.io/network-status",
            ]
            .contains(&key.as_str())
    });
    // an API server up to 1.33 repeats the value of a field in an annotation
    // (pkg/registry/core/pod/strategy.go)
    annotations
        .retain(|key, _| !(key.starts_with("container.apparmor.security.beta.kubernetes.io/")));
    annotations.insert(
        "podcheckpointer.io/checkpoint-of".into(),
        json!(format!("{namespace}/{name}")),
    );
    annotations.insert(
        "podcheckpointer.io/parent-uid".into(),
        metadata["uid"].clone(),
    );
    annotations.insert("kubernetes.io/config.hash".into(), json!(uid));
    let mut twin = json!({
        "metadata": {"name": format!("{name}-{node}"), "namespace": namespace, "uid": uid, "annotations": annotations},
        "spec": spec, "status": {"phase": "Pending"},
    });
    if let Some(labels) = metadata.get("labels") {
        twin["metadata"]["labels"] = labels.clone();
    }
    twin
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Does it get a hook that delays its end?
fn is_held(container: &Value) -> bool {
    container["lifecycle"]["preStop"].is_null()
}

/// A twin has another name, so values that came from the parent's name are written out.
fn hostname(spec: &mut Map<String, Value>, name: &str, host_network: bool) {
    if host_network || spec.contains_key("hostname") || spec.contains_key("hostnameOverride") {
        return;
    }
    let cut = if name.len() > 63 {
        name[..63].trim_end_matches(['-', '.'])
    } else {
        name
    };
    if cut.contains('.') {
        spec.insert("hostnameOverride".into(), json!(cut));
        spec.remove("setHostnameAsFQDN");
    } else {
        spec.insert("hostname".into(), json!(cut));
    }
}

fn twin_container(container: &mut Value, is_held: bool, grace: Option<i64>, captured: &[String]) {
    container["imagePullPolicy"] = json!("IfNotPresent");
    for probe in ["livenessProbe", "startupProbe"] {
        let Some(probe) = container.get_mut(probe) else {
            continue;
        };
        if let Some(grace) =
            grace.filter(|_| is_held || probe["terminationGracePeriodSeconds"].is_null())
        {
            probe["terminationGracePeriodSeconds"] = json!(grace);
        }
    }
    if is_held {
        container["lifecycle"]["preStop"] = json!({"sleep": {"seconds": HOLD}});
    }
    for mount in container
        .get_mut("volumeMounts")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if captured.contains(&text(&mount["name"])) {
            mount["readOnly"] = json!(true);
        }
    }
}

/// Removes what is compared by its meaning: environment, expanded values, ports by name.
pub fn without_meaning(pod: &mut Value) {
    for list in ["initContainers", "containers"] {
        for container in pod["spec"]
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let object = container.as_object_mut().unwrap();
            object.retain(|field, _| field != "env" && field != "envFrom");
            for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
                object.get_mut(probe).into_iter().for_each(handler);
            }
            for hook in ["postStart", "preStop"] {
                object
                    .get_mut("lifecycle")
                    .and_then(|it| it.get_mut(hook))
                    .into_iter()
                    .for_each(|it| {
                        // a hook's command is not expanded
                        let command = it["exec"]["command"].take();
                        handler(it);
                        it["exec"]["command"] = command;
                    });
            }
        }
    }
}

fn handler(handler: &mut Value) {
    for (action, field) in [
        ("exec", "command"),
        ("httpGet", "port"),
        ("tcpSocket", "port"),
    ] {
        handler
            .get_mut(action)
            .and_then(Value::as_object_mut)
            .into_iter()
            .for_each(|it| drop(it.remove(field)));
    }
}

/// On the host network a twin names no ports, and its kubelet adds none.
pub fn without_ports(pod: &mut Value) {
    for list in ["initContainers", "containers"] {
        for container in pod["spec"]
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            container.as_object_mut().unwrap().remove("ports");
        }
    }
}

/// Paths at which two values differ, without the values.
pub fn differences(one: &Value, other: &Value, path: &str, found: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let keys: std::collections::BTreeSet<&String> =
                one.keys().chain(other.keys()).collect();
            for key in keys {
                differences(
                    one.get(key).unwrap_or(&Value::Null),
                    other.get(key).unwrap_or(&Value::Null),
                    &format!("{path}.{key}"),
                    found,
                );
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            one.iter()
                .zip(other)
                .for_each(|(one, other)| differences(one, other, &format!("{path}[]"), found));
        }
        _ if one == other => {}
        (_, Value::Null) => found.push(format!("{path}: lost")),
        (Value::Null, _) => found.push(format!("{path}: added")),
        _ => found.push(format!("{path}: another value")),
    }
}

/// References to the API in a pod that a kubelet has decoded; a static pod must not have any
/// (pkg/api/pod/util.go, `HasAPIObjectReference`, and here more strictly). Kubelets before 1.34 do
/// not look themselves.
pub fn references(pod: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(&pod["spec"], "spec", &mut found);
    found
}

fn walk(value: &Value, path: &str, found: &mut Vec<String>) {
    const NAMES: &[&str] = &[
        "serviceAccountName",
        "serviceAccount",
        "imagePullSecrets",
        "envFrom",
        "secretKeyRef",
        "configMapKeyRef",
        "secretRef",
        "configMapRef",
        "configMap",
        "secret",
        "projected",
        "persistentVolumeClaim",
        "csi",
        "ephemeral",
        "resourceClaims",
        "claims",
        "serviceAccountToken",
        "clusterTrustBundle",
        "podCertificate",
        "runtimeClassName",
        "downwardAPI",
        "nodePublishSecretRef",
        "secretName",
    ];
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let path = format!("{path}.{key}");
                if NAMES.contains(&key.as_str()) {
                    found.push(path);
                } else {
                    walk(value, &path, found);
                }
            }
        }
        Value::Array(list) => list
            .iter()
            .for_each(|it| walk(it, &format!("{path}[]"), found)),
        _ => {}
    }
}
