//! Renders the manifest of a pod that does not run yet, with the same checks and the same mapping
//! as a capture, but without a node to ask.
//!
//! Pure. From a workload's template it makes the pod that the controller and the API server would
//! make, as far as that matters for a twin. What only a capture can know is text in angle brackets
//! that says where the value will come from; nothing is guessed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVarSource, Pod};
use serde_json::{Map, Value, json};

use super::changes::{self, Change};
use super::environment::{self, Addresses, Environment};
use super::{LONGEST_MANIFEST, Reason, eligibility, manifest, schema};
use crate::names;
use crate::pod::mark::is_marked;
use crate::reasons::{Refusal, Warning};

/// Directory in which every container finds its token (plugin/pkg/admission/serviceaccount).
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Prefix of the volume that admission adds for the token.
const TOKEN_VOLUME: &str = "kube-api-access-";
/// Placeholder for what the API server generates: valid in a name, and clearly not a real value.
const SUFFIX: &str = "xxxxx";
/// Longest base of a generated name (apiserver's pkg/storage/names).
const LONGEST_BASE: usize = 58;
/// The deepest nesting of lists.
const DEEPEST_LIST: usize = 8;

/// Why an object is not rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The input is not a Kubernetes object at all.
    #[error("{0}")]
    NoObject(&'static str),
    /// A field of the object does not have the type that its kind demands.
    #[error("{kind} {name}: {path} is missing or does not have the type that a {kind} has there")]
    Shape {
        /// Kind of the object.
        kind: String,
        /// Name of the object.
        name: String,
        /// Path of the field.
        path: String,
    },
}

/// What an object stands for.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// A pod, or a workload that creates pods.
    Pod(Box<Candidate>),
    /// An object that creates no pods, or of an unknown kind: its kind and name.
    Other(String, String),
}

/// A pod as it would be on a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Kind of the object that the pod comes from.
    pub kind: String,
    /// Namespace of object and pod.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// The pod's JSON, as an API server would return it.
    pub pod: Value,
    /// What the user should know about the input.
    pub notes: Vec<String>,
    /// Reasons to refuse the pod that come from the workload, not from its template.
    reasons: Vec<Reason>,
}

/// Everything that can be said about a pod before it runs.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// Why the pod cannot come back; empty if it can.
    pub reasons: Vec<Reason>,
    /// What its owner should know even so.
    pub warnings: Vec<Warning>,
    /// What the user should know about the input, and what is unknown until the pod runs.
    pub notes: Vec<String>,
    /// The manifest, if the pod can come back.
    pub manifest: Option<Value>,
    /// How the manifest differs from the pod, and why.
    pub changes: Vec<Change>,
}

/// The pods that an object or a list of objects stands for; `namespace` is that of objects that do
/// not name one.
pub fn subjects(object: &Value, namespace: &str) -> Vec<Result<Subject, Error>> {
    let mut found = Vec::new();
    collect(object, namespace, None, 0, &mut found);
    found
}

fn collect(
    object: &Value,
    namespace: &str,
    of_list: Option<(&str, &str)>,
    depth: usize,
    found: &mut Vec<Result<Subject, Error>>,
) {
    let text = |key: &str| {
        object
            .get(key)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let (of_list_version, of_list_kind) = of_list.unzip();
    let mut refuse = |why| found.push(Err(Error::NoObject(why)));
    if !object.is_object() {
        return refuse("not a Kubernetes object");
    }
    let Some(kind) = text("kind").or(of_list_kind) else {
        return refuse("not a Kubernetes object: it has no kind");
    };
    let Some(version) = text("apiVersion").or(of_list_version) else {
        return refuse("not a Kubernetes object: it has no apiVersion");
    };
    if let (Some(of_items), Some(items)) = (kind.strip_suffix("List"), object.get("items")) {
        let Some(items) = items.as_array() else {
            return refuse("a List whose items are not a list");
        };
        if depth >= DEEPEST_LIST {
            return refuse("lists are nested too deeply");
        }
        let of_items = (!of_items.is_empty()).then_some((version, of_items));
        for item in items {
            collect(item, namespace, of_items, depth + 1, found);
        }
        return;
    }
    found.push(subject(object, kind, version, namespace));
}

fn subject(object: &Value, kind: &str, version: &str, namespace: &str) -> Result<Subject, Error> {
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let template = match (group, kind) {
        ("", "Pod") => "",
        ("", "PodTemplate") => "/template",
        ("", "ReplicationController")
        | ("apps" | "extensions", "Deployment" | "DaemonSet" | "ReplicaSet")
        | ("apps", "StatefulSet")
        | ("batch", "Job") => "/spec/template",
        ("batch", "CronJob") => "/spec/jobTemplate/spec/template",
        _ => {
            return Ok(Subject::Other(
                kind.to_owned(),
                field(object, "name").unwrap_or_default().to_owned(),
            ));
        }
    };
    let name = field(object, "name").unwrap_or_default().to_owned();
    let dotted = template.trim_start_matches('/').replace('/', ".");
    let wrong = |below: &str| {
        let path = [dotted.as_str(), below].join(".");
        Error::Shape {
            kind: kind.to_owned(),
            name: name.clone(),
            path: path.trim_matches('.').to_owned(),
        }
    };
    let found = object
        .pointer(template)
        .filter(|template| template.is_object())
        .ok_or_else(|| wrong(""))?;
    if !found.get("spec").is_some_and(Value::is_object) {
        return Err(wrong("spec"));
    }
    // only these two fields of a template matter; of a pod all do, so that unknown fields are found
    let mut pod = if template.is_empty() {
        found.clone()
    } else {
        json!({"apiVersion": "v1", "kind": "Pod"})
    };
    for key in ["metadata", "spec"] {
        let value = found
            .get(key)
            .filter(|value| !value.is_null())
            .cloned()
            .unwrap_or_else(|| json!({}));
        if !value.is_object() {
            return Err(wrong(key));
        }
        if let Some(pod) = pod.as_object_mut() {
            pod.insert(key.to_owned(), value);
        }
    }
    let namespace = field(object, "namespace").unwrap_or(namespace).to_owned();
    let mut candidate = Candidate {
        kind: kind.to_owned(),
        namespace,
        name: name.clone(),
        pod,
        notes: Vec::new(),
        reasons: Vec::new(),
    };
    // a pod that comes from an API server has passed admission
    let is_admitted = template.is_empty() && field(object, "uid").is_some();
    candidate.controlled(object);
    if !is_admitted {
        candidate.admitted();
    }
    // only the path, because the deserializer's own message may quote a value
    if let Err(error) = serde_path_to_error::deserialize::<_, Pod>(&candidate.pod) {
        return Err(wrong(&error.path().to_string()));
    }
    if !candidate.is_marked() {
        candidate.notes.push(if !template.is_empty() && is_marked(object) {
            format!(
                "the mark is on the {kind} itself, where it has no effect: move it to {dotted}.metadata.annotations"
            )
        } else {
            format!("not marked: without the annotation {}: \"true\" it is not captured", names::CHECKPOINT)
        });
    }
    Ok(Subject::Pod(Box::new(candidate)))
}

fn field<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object
        .get("metadata")?
        .get(key)?
        .as_str()
        .filter(|text| !text.is_empty())
}

/// The object in this field, created if missing; `None` if the field has another type.
fn object_in<'a>(of: &'a mut Value, key: &str) -> Option<&'a mut Map<String, Value>> {
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
fn generated(base: &str) -> String {
    format!("{}{SUFFIX}", base.get(..LONGEST_BASE).unwrap_or(base))
}

/// What a controller adds to the pod of its template.
struct Controlled {
    /// API version, kind and name of the pod's controller.
    owner: Option<(&'static str, String, String)>,
    name: String,
    labels: Vec<(&'static str, String)>,
}

fn controlled_by(kind: &str, name: &str, workload: &Value) -> Controlled {
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

impl Candidate {
    /// Whether the pod is marked by its annotation.
    pub fn is_marked(&self) -> bool {
        is_marked(&self.pod)
    }

    /// Gives the pod the name, owner, labels and claims that its controller would give it.
    fn controlled(&mut self, workload: &Value) {
        let Self {
            kind,
            namespace,
            name,
            pod,
            reasons,
            ..
        } = self;
        let made = if kind == "Pod" {
            let given = field(pod, "name").map(str::to_owned);
            let given = given
                .or_else(|| field(pod, "generateName").map(generated))
                .unwrap_or_default();
            name.clone_from(&given);
            Controlled {
                owner: None,
                name: given,
                labels: Vec::new(),
            }
        } else {
            controlled_by(kind, name, workload)
        };
        let Some(metadata) = object_in(pod, "metadata") else {
            return;
        };
        metadata.insert("name".into(), made.name.clone().into());
        metadata.insert("namespace".into(), namespace.clone().into());
        metadata.entry("uid").or_insert("<uid of the pod>".into());
        if let Some((version, kind, name)) = made.owner {
            let uid = format!("<uid of {kind} {name}>");
            let owner = json!([{"apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": true}]);
            metadata.insert("ownerReferences".into(), owner);
        }
        let labels = pod.get_mut("metadata").filter(|_| !made.labels.is_empty());
        if let Some(labels) = labels.and_then(|metadata| object_in(metadata, "labels")) {
            labels.extend(
                made.labels
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value.into())),
            );
        }
        let policy = pod.pointer("/spec/restartPolicy").and_then(Value::as_str);
        match kind.as_str() {
            // another policy is reported with the pod's field
            "Job" | "CronJob" if matches!(policy, None | Some("Always")) => {
                let detail = format!("a {kind}'s pods do not have restartPolicy Always");
                reasons.push(Reason {
                    refusal: Refusal::RestartPolicy,
                    detail,
                });
            }
            "StatefulSet" => stateful(pod, workload, &made.name),
            _ => {}
        }
    }

    /// Adds what the API server's defaults and admission add, as far as it shows in a twin.
    fn admitted(&mut self) {
        let Some(spec) = object_in(&mut self.pod, "spec") else {
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
}

/// Identity and storage of a StatefulSet's pod (pkg/controller/statefulset/stateful_set_utils.go).
fn stateful(pod: &mut Value, workload: &Value, pod_name: &str) {
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

/// Renders a pod that does not run. `run_dir` is the run directory of the nodes. Only the length of
/// `node_name` matters, because it becomes part of the twin's name.
pub fn render(candidate: &Candidate, run_dir: &Path, node_name: &str) -> Rendered {
    let mut reasons = candidate.reasons.clone();
    let (typed, unknown) = schema::read(&candidate.pod);
    reasons.extend(unknown);
    let mut rendered = Rendered {
        reasons: Vec::new(),
        warnings: Vec::new(),
        notes: candidate.notes.clone(),
        manifest: None,
        changes: Vec::new(),
    };
    if let Some(pod) = typed {
        reasons.extend(eligibility::reasons(&pod, node_name));
        let environments = environments(&pod, &candidate.kind, &mut rendered.notes);
        let live = manifest::Live {
            environments,
            ..manifest::Live::default()
        };
        let (twin, more) = manifest::render(&pod, run_dir, &live);
        reasons.extend(more);
        let twin = serde_json::to_value(twin).unwrap_or_default();
        if twin.to_string().len() > LONGEST_MANIFEST {
            let detail = "the manifest is longer than the kubelet accepts".to_owned();
            reasons.push(Reason {
                refusal: Refusal::TooLarge,
                detail,
            });
        }
        if reasons.is_empty() {
            rendered.warnings = eligibility::warnings(&pod);
            let parent = serde_json::to_value(Pod {
                status: None,
                ..pod
            })
            .unwrap_or_default();
            rendered.changes = changes::between(&parent, &twin);
            rendered.manifest = Some(twin);
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    reasons.retain(|reason| seen.insert(reason.clone()));
    rendered.reasons = reasons;
    rendered
}

fn environments(
    pod: &Pod,
    kind: &str,
    notes: &mut Vec<String>,
) -> BTreeMap<String, Vec<k8s_openapi::api::core::v1::EnvVar>> {
    let Some(spec) = &pod.spec else {
        return BTreeMap::new();
    };
    let addresses = Addresses {
        one: "<address of the pod>".into(),
        all: "<addresses of the pod, separated by commas>".into(),
    };
    let host_network = spec.host_network.unwrap_or_default();
    let mut found = BTreeMap::new();
    for container in spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
    {
        let expected = expected(pod, container, kind == "Pod", host_network, &addresses);
        match environment::render(container, &expected, host_network, &addresses) {
            Ok(environment) => {
                found.insert(container.name.clone(), environment);
            }
            Err(error) => {
                let name = &container.name;
                notes.push(format!(
                    "the environment of container {name} is unknown until it runs: {error}"
                ));
            }
        }
    }
    found
}

/// Variables of the API server's own Service, which every container gets (pkg/kubelet/envvars).
const SERVICE: [(&str, &str); 2] = [
    ("KUBERNETES_SERVICE_HOST", "address"),
    ("KUBERNETES_SERVICE_PORT", "port"),
];

/// The variables that the kubelet would give to a container, with text in angle brackets for
/// unknown values.
fn expected(
    pod: &Pod,
    container: &Container,
    is_pod: bool,
    host_network: bool,
    addresses: &Addresses,
) -> Environment {
    let mut found: Environment = SERVICE
        .iter()
        .map(|(name, what)| {
            (
                (*name).to_owned(),
                format!("<captured: {what} of Service kubernetes>"),
            )
        })
        .collect();
    if pod.spec.as_ref().and_then(|spec| spec.enable_service_links) != Some(false) {
        let each = "<captured: the variables of each Service of the namespace>";
        found.insert("each-variable-of.Services".into(), each.into());
    }
    for EnvFromSource {
        config_map_ref,
        prefix,
        secret_ref,
    } in container.env_from.iter().flatten()
    {
        let prefix = prefix.as_deref().unwrap_or_default();
        let config_map = config_map_ref
            .as_ref()
            .map(|it| ("ConfigMap", it.name.as_str(), it.optional));
        let secret = secret_ref
            .as_ref()
            .map(|it| ("Secret", it.name.as_str(), it.optional));
        for (kind, name, optional) in config_map.into_iter().chain(secret) {
            let value = format!(
                "<captured: the value of each key of {kind} {name}{}>",
                if_there(optional)
            );
            found.insert(format!("{prefix}each-key-of.{kind}.{name}"), value);
        }
    }
    let has_env_from = container
        .env_from
        .as_ref()
        .is_some_and(|sources| !sources.is_empty());
    for entry in container.env.iter().flatten() {
        let value = match (
            entry.value.as_deref().unwrap_or_default(),
            &entry.value_from,
        ) {
            ("", Some(source)) => of_source(
                pod,
                source,
                &container.name,
                is_pod,
                host_network,
                addresses,
            ),
            (value, _) => {
                let unknown = RefCell::new(Vec::new());
                let look_up = |name: &str| {
                    let known = found.get(name).map(String::as_str);
                    if known.is_none() {
                        unknown.borrow_mut().push(name.to_owned());
                    }
                    known
                };
                environment::expand(value, look_up);
                for name in unknown.into_inner() {
                    if has_env_from || is_of_service(&name) {
                        let text = format!(
                            "<captured: {name}, if a Service, Secret or ConfigMap gives it>"
                        );
                        found.insert(name, text);
                    }
                }
                environment::expand(value, |name| found.get(name).map(String::as_str))
            }
        };
        found.insert(entry.name.clone(), value);
    }
    found
}

fn is_of_service(name: &str) -> bool {
    ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"]
        .iter()
        .any(|mark| name.contains(mark))
}

fn if_there(optional: Option<bool>) -> &'static str {
    if optional == Some(true) {
        ", if it exists"
    } else {
        ""
    }
}

fn of_source(
    pod: &Pod,
    source: &EnvVarSource,
    container: &str,
    is_pod: bool,
    host_network: bool,
    addresses: &Addresses,
) -> String {
    let EnvVarSource {
        config_map_key_ref,
        field_ref,
        file_key_ref,
        resource_field_ref,
        secret_key_ref,
    } = source;
    if let Some(it) = config_map_key_ref {
        return format!(
            "<captured: key {} of ConfigMap {}{}>",
            it.key,
            it.name,
            if_there(it.optional)
        );
    }
    if let Some(it) = secret_key_ref {
        return format!(
            "<captured: key {} of Secret {}{}>",
            it.key,
            it.name,
            if_there(it.optional)
        );
    }
    if let Some(it) = file_key_ref {
        let there = if_there(it.optional);
        return format!(
            "<captured: key {} of file {} in volume {}{there}>",
            it.key, it.path, it.volume_name
        );
    }
    if let Some(it) = resource_field_ref {
        let container = it
            .container_name
            .as_deref()
            .filter(|name| !name.is_empty())
            .unwrap_or(container);
        return format!("<captured: {} of container {container}>", it.resource);
    }
    let path = field_ref
        .as_ref()
        .map(|field| field.field_path.as_str())
        .unwrap_or_default();
    match path {
        "status.podIP" if !host_network => return addresses.one.clone(),
        "status.podIPs" if !host_network => return addresses.all.clone(),
        _ => {}
    }
    known_field(pod, path, is_pod).unwrap_or_else(|| format!("<captured: {path} of the pod>"))
}

/// The value of a field, if the pod's object already has the final one.
fn known_field(pod: &Pod, path: &str, is_pod: bool) -> Option<String> {
    let metadata = &pod.metadata;
    match path {
        "metadata.name" if is_pod => metadata.name.clone().filter(|name| !name.ends_with(SUFFIX)),
        "metadata.namespace" => metadata.namespace.clone(),
        "spec.serviceAccountName" => pod.spec.as_ref()?.service_account_name.clone(),
        _ => {
            let keyed = |prefix: &str| path.strip_prefix(prefix)?.strip_suffix("']");
            let (map, key) = match (keyed("metadata.labels['"), keyed("metadata.annotations['")) {
                (Some(key), _) => (&metadata.labels, key),
                (_, Some(key)) => (&metadata.annotations, key),
                _ => return None,
            };
            map.as_ref()?
                .get(key)
                .filter(|value| !value.contains(SUFFIX))
                .cloned()
        }
    }
}

#[cfg(test)]
#[path = "offline_tests.rs"]
mod tests;
