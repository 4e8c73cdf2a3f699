//! What a controller makes of its template, and the API server of a pod: name, owner, labels,
//! claims, defaults and the volume of the token, as far as it shows in a twin.

use serde_json::{Map, Value, json};

/// Directory in which every container finds its token (plugin/pkg/admission/serviceaccount).
pub(super) const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Prefix of the volume that admission adds for the token.
const TOKEN_VOLUME: &str = "kube-api-access-";

/// Placeholder for what the API server generates: valid in a name, and clearly not a real value.
pub(super) const SUFFIX: &str = "xxxxx";

/// Longest base of a generated name (apiserver's pkg/storage/names).
const LONGEST_BASE: usize = 58;

/// A text of the metadata; `None` if it is missing or empty.
pub(super) fn field<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object
        .get("metadata")?
        .get(key)?
        .as_str()
        .filter(|text| !text.is_empty())
}

/// The object in this field, created if missing; `None` if the field has another type.
pub(super) fn object_in<'a>(of: &'a mut Value, key: &str) -> Option<&'a mut Map<String, Value>> {
    let value = of.as_object_mut()?.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut()
}

/// The list in this field, created if missing; `None` if the field has another type.
fn list_in<'a>(of: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Vec<Value>> {
    let value = of.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = json!([]);
    }
    value.as_array_mut()
}

/// A name as the API server generates it from this base.
pub(super) fn generated(base: &str) -> String {
    format!("{}{SUFFIX}", base.get(..LONGEST_BASE).unwrap_or(base))
}

/// What a controller adds to the pod of its template.
pub(super) struct Controlled {
    /// API version, kind and name of the pod's controller.
    pub owner: Option<(&'static str, String, String)>,
    pub name: String,
    pub labels: Vec<(&'static str, String)>,
}

/// What the controller of this kind adds to a pod of its object `workload`, which has this name.
pub(super) fn controlled_by(kind: &str, name: &str, workload: &Value) -> Controlled {
    let hash = SUFFIX.repeat(2);
    let own = |version: &'static str| Some((version, kind.to_owned(), name.to_owned()));
    let plain = |owner| Controlled {
        owner,
        name: generated(&format!("{name}-")),
        labels: Vec::new(),
    };
    match kind {
        "PodTemplate" => plain(None),
        "ReplicationController" => plain(own("v1")),
        "Job" => plain(own("batch/v1")),
        "CronJob" => {
            let job = format!("{name}-{}", "x".repeat(8));
            Controlled {
                name: generated(&format!("{job}-")),
                owner: Some(("batch/v1", "Job".into(), job)),
                labels: Vec::new(),
            }
        }
        "Deployment" => {
            let set = format!("{name}-{hash}");
            let pod = generated(&format!("{set}-"));
            let labels = vec![("pod-template-hash", hash)];
            Controlled {
                owner: Some(("apps/v1", "ReplicaSet".into(), set)),
                name: pod,
                labels,
            }
        }
        "DaemonSet" => Controlled {
            labels: vec![("controller-revision-hash", hash)],
            ..plain(own("apps/v1"))
        },
        "StatefulSet" => {
            let ordinal = workload
                .pointer("/spec/ordinals/start")
                .and_then(Value::as_u64)
                .unwrap_or_default();
            let pod = format!("{name}-{ordinal}");
            let labels = vec![
                ("controller-revision-hash", format!("{name}-{hash}")),
                ("statefulset.kubernetes.io/pod-name", pod.clone()),
                ("apps.kubernetes.io/pod-index", ordinal.to_string()),
            ];
            Controlled {
                owner: own("apps/v1"),
                name: pod,
                labels,
            }
        }
        _ => plain(own("apps/v1")),
    }
}

/// Identity and storage of a StatefulSet's pod (pkg/controller/statefulset/stateful_set_utils.go).
pub(super) fn stateful(pod: &mut Value, workload: &Value, pod_name: &str) {
    let Some(spec) = object_in(pod, "spec") else {
        return;
    };
    spec.insert("hostname".into(), pod_name.into());
    if let Some(service) = workload
        .pointer("/spec/serviceName")
        .filter(|name| name.is_string())
    {
        spec.insert("subdomain".into(), service.clone());
    }
    let templates = workload
        .pointer("/spec/volumeClaimTemplates")
        .and_then(Value::as_array);
    let names: Vec<&str> = templates
        .into_iter()
        .flatten()
        .filter_map(|template| field(template, "name"))
        .collect();
    if names.is_empty() {
        return;
    }
    if let Some(volumes) = list_in(spec, "volumes") {
        volumes.retain(|volume| {
            !volume
                .get("name")
                .and_then(Value::as_str)
                .is_some_and(|name| names.contains(&name))
        });
        let claim = |name: &&str| {
            let claim = format!("{name}-{pod_name}");
            json!({"name": name, "persistentVolumeClaim": {"claimName": claim}})
        };
        volumes.extend(names.iter().map(claim));
    }
}

/// Adds what the API server's defaults and admission add, as far as it shows in a twin.
pub(super) fn admit(pod: &mut Value) {
    let Some(spec) = object_in(pod, "spec") else {
        return;
    };
    for (key, default) in [
        ("restartPolicy", json!("Always")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("dnsPolicy", json!("ClusterFirst")),
    ] {
        let value = spec.entry(key).or_insert(Value::Null);
        if value.is_null() {
            *value = default;
        }
    }
    let account = spec
        .get("serviceAccount")
        .filter(|name| !name.is_null())
        .cloned();
    spec.entry("serviceAccountName")
        .or_insert(account.unwrap_or_else(|| json!("default")));
    quantities(spec);
    if spec.get("automountServiceAccountToken") != Some(&Value::Bool(false)) {
        token(spec);
    }
}

/// Turns quantities into strings: the API server returns them as strings, but people also write
/// numbers.
fn quantities(spec: &mut Map<String, Value>) {
    fn text(value: &mut Value) {
        if value.is_number() {
            *value = value.to_string().into();
        }
    }
    fn all(amounts: Option<&mut Value>) {
        amounts
            .and_then(Value::as_object_mut)
            .into_iter()
            .flat_map(Map::values_mut)
            .for_each(text);
    }
    fn resources(of: Option<&mut Value>) {
        let Some(resources) = of else { return };
        all(resources.get_mut("limits"));
        all(resources.get_mut("requests"));
    }
    fn elements(of: Option<&mut Value>) -> impl Iterator<Item = &mut Value> {
        of.and_then(Value::as_array_mut).into_iter().flatten()
    }
    fn divisors(of: Option<&mut Value>) {
        elements(of)
            .filter_map(|item| item.pointer_mut("/resourceFieldRef/divisor"))
            .for_each(text);
    }
    resources(spec.get_mut("resources"));
    all(spec.get_mut("overhead"));
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in elements(spec.get_mut(list)) {
            resources(container.get_mut("resources"));
            let environment = elements(container.get_mut("env"));
            environment
                .filter_map(|entry| entry.pointer_mut("/valueFrom/resourceFieldRef/divisor"))
                .for_each(text);
        }
    }
    for volume in elements(spec.get_mut("volumes")) {
        volume
            .pointer_mut("/emptyDir/sizeLimit")
            .into_iter()
            .for_each(text);
        resources(volume.pointer_mut("/ephemeral/volumeClaimTemplate/spec/resources"));
        divisors(volume.pointer_mut("/downwardAPI/items"));
        elements(volume.pointer_mut("/projected/sources"))
            .for_each(|source| divisors(source.pointer_mut("/downwardAPI/items")));
    }
}

/// Adds the volume of the service account's token and its mounts, for each container that mounts
/// nothing else there.
fn token(spec: &mut Map<String, Value>) {
    let volumes = spec
        .get("volumes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let mut names = volumes.filter_map(|volume| volume.get("name")?.as_str());
    let known = names
        .find(|name| name.starts_with(TOKEN_VOLUME))
        .map(str::to_owned);
    let (is_known, volume) = (
        known.is_some(),
        known.unwrap_or_else(|| format!("{TOKEN_VOLUME}{SUFFIX}")),
    );
    let mut is_needed = false;
    for list in ["initContainers", "containers"] {
        for container in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let mounts = container
                .as_object_mut()
                .and_then(|container| list_in(container, "volumeMounts"));
            let Some(mounts) = mounts else { continue };
            if mounts
                .iter()
                .all(|mount| mount.get("mountPath").and_then(Value::as_str) != Some(TOKEN_PATH))
            {
                mounts.push(json!({"name": volume, "readOnly": true, "mountPath": TOKEN_PATH}));
                is_needed = true;
            }
        }
    }
    if is_known || !is_needed {
        return;
    }
    if let Some(volumes) = list_in(spec, "volumes") {
        let certificate =
            json!({"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]});
        let field = json!({"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}});
        volumes.push(
            json!({"name": volume, "projected": {"defaultMode": 0o644, "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                {"configMap": certificate},
                {"downwardAPI": {"items": [field]}},
            ]}}),
        );
    }
}
