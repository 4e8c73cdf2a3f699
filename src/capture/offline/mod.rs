//! Renders the manifest of a pod that does not run yet, with the same checks and the same mapping
//! as a capture, but without a node to ask.
//!
//! Pure. From a workload's template it makes the pod that the controller and the API server would
//! make, as far as that matters for a twin. What only a capture can know is text in angle brackets
//! that says where the value will come from; nothing is guessed.

mod expected;
mod workload;

use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use self::workload::{Controlled, controlled_by, field, generated, object_in, stateful};
use super::changes::{self, Change};
use super::{LONGEST_MANIFEST, Reason, eligibility, manifest, schema};
use crate::names;
use crate::pod::mark::is_marked;
use crate::reasons::{Refusal, Warning};

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
        workload::admit(&mut candidate.pod);
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
        let environments = expected::environments(&pod, &candidate.kind, &mut rendered.notes);
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

#[cfg(test)]
mod tests;
