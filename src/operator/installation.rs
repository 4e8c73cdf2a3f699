//! The operator's own objects, which `pod-checkpointer manifests --operator` prints. Whoever
//! applies them also removes them: the operator neither changes nor deletes any of them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};

use crate::api::podcheckpointer::{self, PodCheckpointerSpec};
use crate::names::{COMPONENT_LABEL, GROUP, INSTALLATION, NAME_LABEL, OPERATOR};
use crate::operator::kinds::KINDS;
use crate::operator::objects::{Object, agent_rules};
use crate::operator::settings::DEFAULT;
use crate::pod::container;

/// A right of the operator.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Right {
    /// What the operator needs it for.
    pub why: &'static str,
    /// The rule of a role that grants it.
    pub rule: Value,
}

/// The operator's rights in the whole cluster: first those that it uses itself, then those that it
/// needs to grant them to the agents, because the API server refuses a role with rights that its
/// author lacks.
pub(crate) fn rights() -> Vec<Right> {
    let right = |why, group: &str, resources: &[&str], names: Option<&str>, verbs: &[&str]| {
        let mut rule = json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
        if let (Some(name), Some(rule)) = (names, rule.as_object_mut()) {
            rule.insert("resourceNames".into(), json!([name]));
        }
        Right { why, rule }
    };
    let mut rights = vec![
        right(
            "reads the settings, and keeps the resource by a finalizer until everything is removed",
            GROUP,
            &["podcheckpointers"],
            Some(DEFAULT),
            &["get", "list", "watch", "patch"],
        ),
        right(
            "shows what became of the settings",
            GROUP,
            &["podcheckpointers/status"],
            Some(DEFAULT),
            &["patch"],
        ),
    ];
    for kind in KINDS {
        let (group, plural) = kind.resource();
        rights.push(right(
            why(kind.kind),
            group,
            &[plural],
            Some(INSTALLATION),
            &["get", "list", "watch", "create", "patch", "delete"],
        ));
    }
    rights.extend(
        agent_rules(&widest_spec())
            .into_iter()
            .map(|(why, rule)| Right {
                why: why_granted(why, &rule),
                rule,
            }),
    );
    rights
}

/// Settings with which the agents have every right that they can have.
fn widest_spec() -> PodCheckpointerSpec {
    let namespace_selector = Some(podcheckpointer::LabelSelector::default());
    PodCheckpointerSpec {
        namespace_selector,
        ..PodCheckpointerSpec::default()
    }
}

/// Why the operator may do everything with the installation's object of this kind.
fn why(kind: &str) -> &'static str {
    match kind {
        "DaemonSet" => "runs the agents; who may write this object can run anything on every node",
        "Service" => "lets Prometheus find the agents",
        "PodMonitor" => "lets the Prometheus Operator find the agents",
        "ClusterRoleBinding" => "grants the agents their rights",
        "ClusterRole" => {
            "holds the agents' rights; the API server accepts only rights that the operator has itself, see below"
        }
        "ValidatingAdmissionPolicyBinding" => "puts the policy in force",
        "ValidatingAdmissionPolicy" => "limits each agent to its own node",
        "ServiceAccount" => "gives the agents their identity",
        _ => "contains the agents",
    }
}

/// Why the operator has a right that it grants to the agents.
fn why_granted(why: &'static str, rule: &Value) -> &'static str {
    let resource = rule
        .pointer("/resources/0")
        .and_then(Value::as_str)
        .unwrap_or_default();
    match resource {
        "pods" => {
            "granted to the agents; also used to read its own image and to follow the agents during removal"
        }
        "nodes" => {
            "granted to the agents; also used to tell which nodes are cut off during removal"
        }
        "podcheckpoints" => {
            "granted to the agents; also used to count them, and to delete them during removal"
        }
        "namespaces" => "granted to the agents if labels of namespaces mark pods",
        "podcheckpoints/status" => "granted to the agents",
        "events" => "granted to the agents; also used to record what became of the settings",
        _ => why,
    }
}

fn labels() -> Value {
    json!({NAME_LABEL: OPERATOR, COMPONENT_LABEL: "operator"})
}

/// Every object of the operator but the definitions, in the order in which to create them.
pub(crate) fn objects(image: &str) -> Vec<Object> {
    let rbac = "rbac.authorization.k8s.io";
    let subject = json!([{"kind": "ServiceAccount", "name": OPERATOR, "namespace": OPERATOR}]);
    let rules: Vec<Value> = rights().into_iter().map(|right| right.rule).collect();
    let named = json!({"name": OPERATOR, "labels": labels()});
    let inside = json!({"name": OPERATOR, "namespace": OPERATOR, "labels": labels()});
    let binding = |kind: &str, metadata: &Value, role: &str| {
        json!({
            "apiVersion": format!("{rbac}/v1"),
            "kind": kind,
            "metadata": metadata,
            "roleRef": {"apiGroup": rbac, "kind": role, "name": OPERATOR},
            "subjects": subject,
        })
    };
    let object = |why, value| Object { why, value };
    vec![
        object(
            "The namespace of the operator, apart from that of the agents because the operator needs no access to nodes.",
            namespace(),
        ),
        object(
            "The identity of the operator.",
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": inside}),
        ),
        object(
            "The rights of the operator in the cluster; docs/operator.md gives the reason for each. A right with a resource name \
             is for that object alone.",
            json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": named, "rules": rules}),
        ),
        object(
            "Grants the operator its rights in the cluster.",
            binding("ClusterRoleBinding", &named, "ClusterRole"),
        ),
        object(
            "The Lease, by which only one of several operators acts. RBAC cannot limit the right to create to one name.",
            json!({
                "apiVersion": format!("{rbac}/v1"),
                "kind": "Role",
                "metadata": inside,
                "rules": [
                    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
                    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": [OPERATOR],
                        "verbs": ["get", "update"]},
                ],
            }),
        ),
        object(
            "Grants the operator the use of the Lease.",
            binding("RoleBinding", &inside, "Role"),
        ),
        object(
            "The operator. A second replica takes over within 20 s if the first is lost.",
            deployment(image),
        ),
    ]
}

fn namespace() -> Value {
    let mut labels = labels();
    if let Some(labels) = labels.as_object_mut() {
        let modes =
            ["enforce", "warn", "audit"].map(|mode| format!("pod-security.kubernetes.io/{mode}"));
        labels.extend(modes.map(|mode| (mode, "restricted".into())));
    }
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OPERATOR, "labels": labels}})
}

fn deployment(image: &str) -> Value {
    let probe = |path: &str| json!({"httpGet": {"port": "metrics", "path": path}, "periodSeconds": 10, "timeoutSeconds": 5});
    let selector = json!(LabelSelector {
        match_labels: serde_json::from_value(labels()).ok(),
        ..LabelSelector::default()
    });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": OPERATOR, "namespace": OPERATOR, "labels": labels()},
        "spec": {
            "replicas": 1,
            "selector": selector,
            "template": {
                "metadata": {
                    "labels": labels(),
                    "annotations": {
                        "prometheus.io/scrape": "true",
                        "prometheus.io/port": "9797",
                        "prometheus.io/path": "/metrics",
                    },
                },
                "spec": {
                    "serviceAccountName": OPERATOR,
                    "enableServiceLinks": false,
                    "priorityClassName": "system-cluster-critical",
                    "terminationGracePeriodSeconds": 10,
                    // a small cluster may have no nodes but those of the control plane
                    "tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists",
                        "effect": "NoSchedule"}],
                    "securityContext": {
                        "runAsNonRoot": true,
                        "runAsUser": 65532,
                        "runAsGroup": 65532,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [{
                        "name": "operator",
                        "image": image,
                        "imagePullPolicy": "IfNotPresent",
                        "args": ["operator"],
                        "env": [
                            container::field_variable("POD_NAME", "metadata.name"),
                            container::field_variable("POD_NAMESPACE", "metadata.namespace"),
                        ],
                        "ports": [{"name": "metrics", "containerPort": 9797, "protocol": "TCP"}],
                        "livenessProbe": probe("/healthz"),
                        "readinessProbe": probe("/readyz"),
                        "resources": {"requests": {"cpu": "10m", "memory": "24Mi"}, "limits": {"memory": "128Mi"}},
                        "securityContext": {
                            "readOnlyRootFilesystem": true,
                            "allowPrivilegeEscalation": false,
                            "capabilities": {"drop": ["ALL"]},
                        },
                        "terminationMessagePolicy": "FallbackToLogsOnError",
                    }],
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::podcheckpointer::Metrics;
    use crate::operator::objects;
    use crate::operator::settings::Checked;

    /// The rights as a table, as docs/operator.md has it.
    fn rights_table() -> String {
        let words = |rule: &Value, field: &str| {
            let all = rule
                .get(field)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_str);
            all.filter(|word| !word.is_empty())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let line = |Right { why, rule }: &Right| {
            let (group, name) = (words(rule, "apiGroups"), words(rule, "resourceNames"));
            let group = if group.is_empty() {
                String::new()
            } else {
                format!(" ({group})")
            };
            let name = if name.is_empty() {
                String::new()
            } else {
                format!(" `{name}`")
            };
            format!(
                "| {} | `{}`{group}{name} | {why} |\n",
                words(rule, "verbs"),
                words(rule, "resources")
            )
        };
        let lines: String = rights().iter().map(line).collect();
        format!("| may | what | why |\n| --- | --- | --- |\n{lines}")
    }

    #[test]
    fn the_kustomize_base_is_what_manifests_prints() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("examples/operator/operator.yaml");
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        let printed = objects::yaml(&objects(concat!(
            "pod-checkpointer:",
            env!("CARGO_PKG_VERSION")
        )))
        .unwrap();
        assert_eq!(
            kept, printed,
            "run `pod-checkpointer manifests --operator --skip-crds >examples/operator/operator.yaml`"
        );
    }

    #[test]
    fn every_right_is_documented_with_its_reason() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operator.md");
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        let table = rights_table();
        assert!(
            kept.contains(&table),
            "docs/operator.md must have this table:\n{table}"
        );
    }

    #[test]
    fn the_operator_has_every_right_that_it_gives_so_it_needs_none_to_escalate() {
        let rights = rights();
        let metrics = Some(Metrics {
            address: None,
            pod_monitor: true,
        });
        let spec = PodCheckpointerSpec {
            metrics,
            ..widest_spec()
        };
        for (_, rule) in agent_rules(&spec) {
            assert!(rights.iter().any(|right| right.rule == rule), "{rule}");
        }
        for Right { why, rule } in &rights {
            let text = rule.to_string();
            assert!(
                !text.contains('*') && !text.contains("escalate") && !text.contains("\"bind\""),
                "{text}"
            );
            assert!(
                !text.contains("secrets") && !text.contains("configmaps"),
                "{text}"
            );
            assert!(!why.is_empty());
        }
    }

    #[test]
    fn what_it_writes_beyond_the_agents_rights_is_limited_to_one_name() {
        let given: Vec<Value> = agent_rules(&widest_spec())
            .into_iter()
            .map(|(_, rule)| rule)
            .collect();
        for Right { rule, .. } in rights().iter().filter(|right| !given.contains(&right.rule)) {
            assert!(rule.get("resourceNames").is_some(), "{rule}");
        }
        let settings = Checked::new(PodCheckpointerSpec::default(), "x".into()).unwrap();
        for object in objects::objects(&settings) {
            assert_eq!(object.value["metadata"]["name"], INSTALLATION);
        }
    }
}
