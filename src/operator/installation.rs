//! The operator's own objects, which `pod-checkpointer manifests --operator` prints. They belong to who applies them: the
//! operator neither changes nor removes them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};

use crate::api::podcheckpointer::PodCheckpointerSpec;
use crate::names::{COMPONENT_LABEL, INSTALLATION, NAME_LABEL, OPERATOR};
use crate::operator::kinds::KINDS;
use crate::operator::objects::{Object, agent_rules};
use crate::pod::container;

/// Something that the operator may do, and why.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Right {
    /// In a sentence.
    pub why: &'static str,
    /// As in a role.
    pub rule: Value,
}

/// What it may do in the whole cluster: first for itself, then what it can only give because it has it.
pub(crate) fn rights() -> Vec<Right> {
    let right = |why, group: &str, resources: &[&str], names: Option<&str>, verbs: &[&str]| {
        let mut rule = json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
        if let (Some(name), Some(rule)) = (names, rule.as_object_mut()) {
            rule.insert("resourceNames".into(), json!([name]));
        }
        Right { why, rule }
    };
    let own = "podcheckpointer.io";
    let mut rights = vec![
        right(
            "the settings; patched to keep the resource until everything of it is removed",
            own,
            &["podcheckpointers"],
            Some("default"),
            &["get", "list", "watch", "patch"],
        ),
        right("what is shown of them", own, &["podcheckpointers/status"], Some("default"), &["patch"]),
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
    let given =
        agent_rules(&PodCheckpointerSpec { namespace_selector: Some(selector()), ..PodCheckpointerSpec::default() });
    let given = given.into_iter().map(|(why, rule)| Right { why: to_give(why, &rule), rule });
    rights.extend(given);
    rights
}

fn selector() -> crate::api::podcheckpointer::LabelSelector {
    crate::api::podcheckpointer::LabelSelector::default()
}

/// Why it may do everything with the one object of this kind.
fn why(kind: &str) -> &'static str {
    match kind {
        "DaemonSet" => "the agents; who may write this one can run anything on every node",
        "Service" => "finds the agents' metrics",
        "PodMonitor" => "for the Prometheus Operator, where that is installed",
        "ClusterRoleBinding" => "gives the agents their rights",
        "ClusterRole" => "the agents' rights: none can be written into it that the operator has not itself, below",
        "ValidatingAdmissionPolicyBinding" => "puts the agents' limits in force",
        "ValidatingAdmissionPolicy" => "limits each agent to its own node",
        "ServiceAccount" => "who the agents are",
        _ => "where the agents live",
    }
}

/// What it uses itself of the agents' rights.
fn to_give(why: &'static str, rule: &Value) -> &'static str {
    let resource = rule.pointer("/resources/0").and_then(Value::as_str).unwrap_or_default();
    match resource {
        "pods" => "given to the agents; and its own image, and how far the agents are when all is removed",
        "nodes" => "given to the agents; and which nodes are cut off when all is removed",
        "podcheckpoints" => "given to the agents; and how many there are, and their removal with all else",
        "namespaces" => "given to the agents, where namespaces can mark pods",
        "podcheckpoints/status" => "given to the agents",
        "events" => "given to the agents; and what became of the settings is told",
        _ => why,
    }
}

fn labels() -> Value {
    json!({NAME_LABEL: OPERATOR, COMPONENT_LABEL: "operator"})
}

/// All of them but the definitions, in the order in which they are to be made.
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
        object("Where the operator lives, apart from the agents: what it runs needs nothing of a node.", namespace()),
        object("Who the operator is.", json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": inside})),
        object(
            "What it may do in the cluster, each right with its reason in docs/operator.md. Where an object has a name, only \
             that one.",
            json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": named, "rules": rules}),
        ),
        object("The operator has this role.", binding("ClusterRoleBinding", &named, "ClusterRole")),
        object(
            "The Lease: of several operators one acts. A name cannot limit who makes one.",
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
        object("The operator has this role.", binding("RoleBinding", &inside, "Role")),
        object("The operator. A second replica takes over within 20 s when the first is gone.", deployment(image)),
    ]
}

fn namespace() -> Value {
    let mut labels = labels();
    if let Some(labels) = labels.as_object_mut() {
        let modes = ["enforce", "warn", "audit"].map(|mode| format!("pod-security.kubernetes.io/{mode}"));
        labels.extend(modes.map(|mode| (mode, "restricted".into())));
    }
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OPERATOR, "labels": labels}})
}

fn deployment(image: &str) -> Value {
    let probe =
        |path: &str| json!({"httpGet": {"port": "metrics", "path": path}, "periodSeconds": 10, "timeoutSeconds": 5});
    let selector =
        json!(LabelSelector { match_labels: serde_json::from_value(labels()).ok(), ..LabelSelector::default() });
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
                    // a cluster whose control plane runs on its only nodes has no others
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
            let all = rule.get(field).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            all.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(", ")
        };
        let line = |Right { why, rule }: &Right| {
            let (group, name) = (words(rule, "apiGroups"), words(rule, "resourceNames"));
            let group = if group.is_empty() { String::new() } else { format!(" ({group})") };
            let name = if name.is_empty() { String::new() } else { format!(" `{name}`") };
            format!("| {} | `{}`{group}{name} | {why} |\n", words(rule, "verbs"), words(rule, "resources"))
        };
        let lines: String = rights().iter().map(line).collect();
        format!("| may | what | why |\n| --- | --- | --- |\n{lines}")
    }

    #[test]
    fn the_kustomize_base_is_what_manifests_prints() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/operator/operator.yaml");
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        let printed = objects::yaml(&objects(concat!("pod-checkpointer:", env!("CARGO_PKG_VERSION")))).unwrap();
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
        assert!(kept.contains(&table), "docs/operator.md must have this table:\n{table}");
    }

    #[test]
    fn the_operator_has_every_right_that_it_gives_so_it_needs_none_to_escalate() {
        let rights = rights();
        let metrics = Some(Metrics { address: None, pod_monitor: true });
        let spec =
            PodCheckpointerSpec { namespace_selector: Some(selector()), metrics, ..PodCheckpointerSpec::default() };
        for (_, rule) in agent_rules(&spec) {
            assert!(rights.iter().any(|right| right.rule == rule), "{rule}");
        }
        for Right { why, rule } in &rights {
            let text = rule.to_string();
            assert!(!text.contains('*') && !text.contains("escalate") && !text.contains("\"bind\""), "{text}");
            assert!(!text.contains("secrets") && !text.contains("configmaps"), "{text}");
            assert!(!why.is_empty());
        }
    }

    #[test]
    fn what_it_writes_beyond_the_agents_rights_is_limited_to_one_name() {
        let spec = PodCheckpointerSpec { namespace_selector: Some(selector()), ..PodCheckpointerSpec::default() };
        let given: Vec<Value> = agent_rules(&spec).into_iter().map(|(_, rule)| rule).collect();
        for Right { rule, .. } in rights().iter().filter(|right| !given.contains(&right.rule)) {
            assert!(rule.get("resourceNames").is_some(), "{rule}");
        }
        let settings = Checked::new(PodCheckpointerSpec::default(), "x".into()).unwrap();
        for object in objects::objects(&settings) {
            assert_eq!(object.value["metadata"]["name"], INSTALLATION);
        }
    }
}
