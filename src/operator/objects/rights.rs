//! What the agents may do in the API: their ServiceAccount, its ClusterRole and the binding.

use serde_json::{Value, json};

use crate::api::podcheckpointer::PodCheckpointerSpec;
use crate::names::{GROUP, INSTALLATION};
use crate::operator::objects::{Object, labels};

pub(super) fn service_account() -> Object {
    Object {
        why: "The identity of the agents. The supervisor has no credential.",
        value: json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": INSTALLATION, "namespace": INSTALLATION, "labels": labels()},
        }),
    }
}

/// The rules of the agents' role, each with the reason for it.
pub(crate) fn agent_rules(spec: &PodCheckpointerSpec) -> Vec<(&'static str, Value)> {
    let rule = |group: &str, resource: &str, verbs: &[&str]| json!({"apiGroups": [group], "resources": [resource], "verbs": verbs});
    let mut rules = vec![
        (
            "to watch the pods of the node, to ask whether a pod is gone, and to read the image of the agent's own pod",
            rule("", "pods", &["get", "list", "watch"]),
        ),
        (
            "to notice that the node was replaced by another one of the same name",
            rule("", "nodes", &["get"]),
        ),
        (
            "to report on the pods of the node; deleted when a pod is no longer marked (with the pod, by garbage collection)",
            rule(
                GROUP,
                "podcheckpoints",
                &["get", "list", "watch", "create", "patch", "delete"],
            ),
        ),
        (
            "to report on the pods of the node",
            rule(GROUP, "podcheckpoints/status", &["patch"]),
        ),
        (
            "to record Events: on a Pod what was done for it, on the Node what is wrong with it",
            rule("events.k8s.io", "events", &["create", "patch"]),
        ),
    ];
    if spec.namespace_selector.is_some() {
        rules.push((
            "to know which namespaces have labels that mark their pods",
            rule("", "namespaces", &["get", "list", "watch"]),
        ));
    }
    rules
}

pub(super) fn role(spec: &PodCheckpointerSpec) -> Object {
    let rules: Vec<Value> = agent_rules(spec)
        .into_iter()
        .map(|(_, rule)| rule)
        .collect();
    Object {
        why: "The rights of the agents. They read no Secret and no ConfigMap and create no pod: what a pod was given is read \
              from the files and the runtime of its node.",
        value: json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": INSTALLATION, "labels": labels()},
            "rules": rules,
        }),
    }
}

pub(super) fn role_binding() -> Object {
    Object {
        why: "Grants the agents their rights.",
        value: json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": INSTALLATION, "labels": labels()},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": INSTALLATION},
            "subjects": [{"kind": "ServiceAccount", "name": INSTALLATION, "namespace": INSTALLATION}],
        }),
    }
}
