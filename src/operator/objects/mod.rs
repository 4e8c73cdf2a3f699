//! What a `PodCheckpointer` becomes: a pure function from its checked settings to every object of
//! the installation, which `pod-checkpointer manifests` prints and the operator applies. Each group
//! of resources has a file.

mod agents;
mod metrics;
mod policy;
mod rights;

use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use crate::api::PodCheckpoint;
use crate::api::podcheckpointer::PodCheckpointer;
use crate::names::{COMPONENT_LABEL, INSTALLATION, NAME_LABEL};
use crate::operator::settings::Checked;

pub(crate) use agents::is_retiring;
pub(crate) use rights::agent_rules;

/// An object to apply, with the reason for it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Object {
    /// The reason, in a sentence or two; printed as a comment above the object.
    pub why: &'static str,
    /// The object as JSON.
    pub value: Value,
}

/// The custom resource definitions.
pub(crate) fn definitions() -> Vec<Object> {
    let definitions = [
        (
            PodCheckpoint::crd(),
            "Whether a pod will come back, and if not, why: one for each marked pod, written by the agent of its node.",
        ),
        (
            PodCheckpointer::crd(),
            "The settings of the agents of this cluster, read by the operator and by `pod-checkpointer manifests -f`.",
        ),
    ];
    let object = |(definition, why)| Object {
        why,
        value: serde_json::to_value(definition).unwrap_or_default(),
    };
    definitions.into_iter().map(object).collect()
}

/// Every object but the definitions, in the order in which to create them: no agent runs before the
/// policy that limits it.
pub(crate) fn objects(settings: &Checked) -> Vec<Object> {
    let mut objects = vec![
        namespace(),
        rights::service_account(),
        rights::role(settings.spec()),
        rights::role_binding(),
        policy::policy(),
        policy::policy_binding(),
        agents::daemon_set(settings),
    ];
    if let Some(port) = settings.scraped_port() {
        objects.push(metrics::service(port));
        if settings
            .spec()
            .metrics
            .as_ref()
            .is_some_and(|metrics| metrics.pod_monitor)
        {
            objects.push(metrics::pod_monitor(port));
        }
    }
    objects
}

/// The objects as YAML, a document each, with their reasons as comments.
pub(crate) fn yaml(objects: &[Object]) -> Result<String, serde_yaml::Error> {
    let document =
        |Object { why, value }: &Object| Ok(format!("# {why}\n{}", serde_yaml::to_string(value)?));
    let documents: Vec<String> = objects
        .iter()
        .map(document)
        .collect::<Result<_, serde_yaml::Error>>()?;
    Ok(documents.join("---\n"))
}

fn labels() -> Value {
    json!({NAME_LABEL: INSTALLATION})
}

fn agent_labels() -> Value {
    json!({NAME_LABEL: INSTALLATION, COMPONENT_LABEL: "agent"})
}

fn namespace() -> Object {
    Object {
        why: "The namespace of the agents.",
        value: json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": INSTALLATION,
                "labels": {
                    NAME_LABEL: INSTALLATION,
                    "pod-security.kubernetes.io/enforce": "privileged",
                    "pod-security.kubernetes.io/warn": "privileged",
                    "pod-security.kubernetes.io/audit": "privileged",
                },
                "annotations": {
                    "podcheckpointer.io/why-privileged":
                        "Agent and supervisor reach the node's files through the node's processes (hostPID, SYS_PTRACE) \
                         and the API server through the node's network. Neither container is privileged, and neither \
                         mounts a host path.",
                },
            },
        }),
    }
}

#[cfg(test)]
#[path = "objects_tests.rs"]
mod tests;
