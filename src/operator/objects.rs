//! What a `PodCheckpointer` becomes: a pure function from its spec to all objects, which `pod-checkpointer manifests` prints
//! and the operator applies.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use crate::api::PodCheckpoint;
use crate::api::podcheckpointer::{
    Encryption, LabelSelector, Metrics, PodCheckpointer, PodCheckpointerSpec, Resources,
};
use crate::args::{self, Command};
use crate::metrics::address::Address;
use crate::names::{COMPONENT_LABEL, INSTALLATION, NAME_LABEL};
use crate::pod::container;

/// A setting with which no agent would start.
#[derive(Debug, thiserror::Error)]
#[error("no agent starts with these settings: {0}")]
pub struct Invalid(String);

/// An object, and why it is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// In a sentence or two.
    pub why: &'static str,
    /// The object itself, as JSON.
    pub value: Value,
}

/// The custom resource definitions.
pub fn definitions() -> Vec<Object> {
    let whys = [
        (
            PodCheckpoint::crd(),
            "Will this pod come back, and if not why: one for each marked pod, written by its node's agent.",
        ),
        (
            PodCheckpointer::crd(),
            "How the cluster wants its agents: what the operator, or `pod-checkpointer manifests -f`, reads.",
        ),
    ];
    let object = |(definition, why)| Object { why, value: serde_json::to_value(definition).unwrap_or_default() };
    whys.into_iter().map(object).collect()
}

/// All objects but the definitions, in the order in which they are to be made. `image` is taken where the spec names none.
pub fn objects(spec: &PodCheckpointerSpec, image: &str) -> Result<Vec<Object>, Invalid> {
    let image = spec.image.as_deref().unwrap_or(image);
    let mut objects = vec![namespace(), service_account(), role(spec), role_binding(), policy(), policy_binding()];
    let address = check(spec)?;
    objects.push(daemon_set(spec, image, address));
    if !is_local(address) {
        objects.push(service(address));
        if spec.metrics.as_ref().is_some_and(|metrics| metrics.pod_monitor) {
            objects.push(pod_monitor(address));
        }
    }
    Ok(objects)
}

/// The same, with agents that leave their nodes: the DaemonSet is Ready on a node as soon as nothing of ours is left there
/// but its agent. All of them at once: a node that is cut off holds none of the others up. What a setting that no agent would
/// start with says is left out.
pub fn retiring(spec: &PodCheckpointerSpec, image: &str) -> Vec<Object> {
    let placed = || PodCheckpointerSpec {
        image: spec.image.clone(),
        node_selector: spec.node_selector.clone(),
        tolerations: spec.tolerations.clone(),
        ..PodCheckpointerSpec::default()
    };
    let mut spec = if check(spec).is_ok() { spec.clone() } else { placed() };
    // what is left to do is asked for through the agent's health
    let asked = spec.metrics.as_ref().and_then(|metrics| metrics.address.as_deref());
    if asked == Some("off") {
        let address = Some("127.0.0.1:9797".to_owned());
        spec.metrics = Some(Metrics { address, pod_monitor: false });
    }
    spec.max_unavailable = Some(IntOrString::String("100%".into()));
    let mut objects = objects(&spec, image).unwrap_or_default();
    for object in &mut objects {
        if let Some(arguments) = object.value.pointer_mut(ARGUMENTS).and_then(Value::as_array_mut) {
            arguments.push(RETIRE.into());
        }
    }
    objects
}

/// Where a DaemonSet of ours has the agent's arguments.
const ARGUMENTS: &str = "/spec/template/spec/containers/0/args";
/// The flag of an agent that leaves its node.
const RETIRE: &str = "--retire";

/// Is this a pod, or the template of pods, of agents that leave their nodes?
pub fn is_retiring(pod: &Value) -> bool {
    let arguments = pod.pointer("/spec/containers/0/args").and_then(Value::as_array);
    arguments.into_iter().flatten().any(|argument| argument == RETIRE)
}

fn labels() -> Value {
    json!({NAME_LABEL: INSTALLATION})
}

fn agent_labels() -> Value {
    json!({NAME_LABEL: INSTALLATION, COMPONENT_LABEL: "agent"})
}

fn namespace() -> Object {
    Object {
        why: "Where the agents live.",
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

fn service_account() -> Object {
    Object {
        why: "Who the agents are. The supervisor has no credential.",
        value: json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": INSTALLATION, "namespace": INSTALLATION, "labels": labels()},
        }),
    }
}

/// What an agent may do; each rule with the reason.
pub fn agent_rules(spec: &PodCheckpointerSpec) -> Vec<(&'static str, Value)> {
    let rule = |group: &str, resource: &str, verbs: &[&str]| json!({"apiGroups": [group], "resources": [resource], "verbs": verbs});
    let mut rules = vec![
        (
            "the one watch, the question whether a pod is gone, and the image of the agent's own pod",
            rule("", "pods", &["get", "list", "watch"]),
        ),
        ("is this still the node that was recorded?", rule("", "nodes", &["get"])),
        (
            "what each node reports; deleted when the mark is removed (with the pod they go by themselves)",
            rule("podcheckpointer.io", "podcheckpoints", &["get", "list", "watch", "create", "patch", "delete"]),
        ),
        ("the same", rule("podcheckpointer.io", "podcheckpoints/status", &["patch"])),
        (
            "what was done is told beside its pod, and what is wrong with the node beside the node",
            rule("events.k8s.io", "events", &["create", "patch"]),
        ),
    ];
    if spec.namespace_selector.is_some() {
        rules.push(("labels of namespaces mark pods", rule("", "namespaces", &["get", "list", "watch"])));
    }
    rules
}

fn role(spec: &PodCheckpointerSpec) -> Object {
    let rules: Vec<Value> = agent_rules(spec).into_iter().map(|(_, rule)| rule).collect();
    Object {
        why: "No Secret, no ConfigMap, and no pod is made: what a pod saw is read from its own node's files and runtime.",
        value: json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": INSTALLATION, "labels": labels()},
            "rules": rules,
        }),
    }
}

fn role_binding() -> Object {
    Object {
        why: "The agents have this role.",
        value: json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": INSTALLATION, "labels": labels()},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": INSTALLATION},
            "subjects": [{"kind": "ServiceAccount", "name": INSTALLATION, "namespace": INSTALLATION}],
        }),
    }
}

/// A role cannot tell nodes apart, and the node's own admission plugin knows only the kubelet. So the name of the node in the
/// agent's token (there since v1.30, for every pod's token) decides what it may write.
fn policy() -> Object {
    let own = "variables.node != '' && variables.before == variables.node && variables.after == variables.node";
    Object {
        why: "An agent writes only what is of its own node, whoever has its token.",
        value: json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": INSTALLATION, "labels": labels()},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": ["podcheckpointer.io"],
                    "apiVersions": ["*"],
                    "resources": ["podcheckpoints", "podcheckpoints/status"],
                    "operations": ["CREATE", "UPDATE", "DELETE"],
                }]},
                "matchConditions": [{
                    "name": "agents",
                    "expression":
                        format!("request.userInfo.username == 'system:serviceaccount:{INSTALLATION}:{INSTALLATION}'"),
                }],
                "variables": [
                    {
                        "name": "node",
                        "expression":
                            "request.userInfo.extra[?'authentication.kubernetes.io/node-name'][0].orValue('')",
                    },
                    {
                        "name": "after",
                        "expression": "(request.operation == 'DELETE' ? oldObject : object).spec.nodeName",
                    },
                    {
                        "name": "before",
                        "expression": "(request.operation == 'CREATE' ? object : oldObject).spec.nodeName",
                    },
                ],
                "validations": [{
                    "expression": own,
                    "messageExpression":
                        "'an agent may write only the PodCheckpoints of its own node: the token is of ' + \
                         (variables.node == '' ? 'no node' : 'node ' + variables.node) + ', the object of node ' + \
                         variables.before",
                }],
            },
        }),
    }
}

fn policy_binding() -> Object {
    Object {
        why: "The policy is in force.",
        value: json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": INSTALLATION, "labels": labels()},
            "spec": {"policyName": INSTALLATION, "validationActions": ["Deny"]},
        }),
    }
}

/// Flags of the agent that differ from its defaults.
fn arguments(spec: &PodCheckpointerSpec) -> Vec<String> {
    let PodCheckpointerSpec {
        image: _,
        node_selector: _,
        tolerations: _,
        namespace_selector,
        select,
        namespaces,
        activation_delay,
        retention,
        max_age,
        planned_outage,
        encryption,
        metrics,
        resources: _,
        max_unavailable: _,
    } = spec;
    let mut arguments = vec!["agent".to_owned()];
    let mut add = |flag: &str, value: &str| arguments.push(container::flag(flag, value));
    let selector = |selector: &LabelSelector| selector.selector().to_string();
    if !namespaces.is_empty() {
        add("namespaces", &namespaces.join(","));
    }
    if let Some(given) = namespace_selector {
        add("namespace-selector", &selector(given));
    }
    for given in select {
        add("select", &selector(given));
    }
    let key_file = encryption.as_ref().map(|Encryption { key_file }| key_file);
    let address = metrics.as_ref().and_then(|Metrics { address, pod_monitor: _ }| address.as_ref());
    let others = [
        ("activation-delay", activation_delay.as_ref()),
        ("retention", retention.as_ref()),
        ("max-age", max_age.as_ref()),
        ("planned-outage", planned_outage.as_ref()),
        ("key-file", key_file),
        ("metrics-address", address),
    ];
    for (flag, value) in others {
        if let Some(value) = value {
            add(flag, value);
        }
    }
    arguments
}

/// Asks the agent's own reader of flags, which knows best what an agent starts with. Gives the address of its metrics.
fn check(spec: &PodCheckpointerSpec) -> Result<Address, Invalid> {
    let arguments = arguments(spec).into_iter().map(|argument| argument.replace("$$", "$"));
    match args::read(std::iter::once("pod-checkpointer".to_owned()).chain(arguments)) {
        Ok(Command::Agent(agent)) => Ok(agent.metrics_address),
        Ok(_) => Err(Invalid("they are not an agent's".into())),
        Err(error) => Err(Invalid(error)),
    }
}

fn is_local(address: Address) -> bool {
    match address {
        Address::Off => true,
        Address::All(_) => false,
        Address::At(at) => at.ip().is_loopback(),
    }
}

/// Host and port for a probe, which the kubelet sends from the node.
fn reached_at(address: Address) -> Option<(String, u16)> {
    match address {
        Address::Off => None,
        // also where metrics are for the node alone
        Address::All(port) => Some(("127.0.0.1".into(), port)),
        Address::At(at) => Some((at.ip().to_string(), at.port())),
    }
}

fn resources(given: Option<&Resources>) -> Value {
    let Some(Resources { requests, limits }) = given else {
        return json!({"requests": {"cpu": "10m", "memory": "24Mi"}, "limits": {"memory": "128Mi"}});
    };
    json!({"requests": requests, "limits": limits})
}

fn set(object: &mut Value, field: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(field.to_owned(), value);
    }
}

/// The agent's, and what each is for.
const CAPABILITIES: [&str; 2] = [
    // the node's files are reached through /proc/<pid>/root of a process that has more capabilities than the agent
    "SYS_PTRACE",
    // volumes have files that belong to other users and that nobody else may read
    "DAC_READ_SEARCH",
];

fn daemon_set(spec: &PodCheckpointerSpec, image: &str, address: Address) -> Object {
    // `kubectl exec` and `kubectl logs` without -c
    let mut annotations = json!({"kubectl.kubernetes.io/default-container": "agent"});
    let mut agent = json!({
        "name": "agent",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        // No port is declared: on the node's network that would be a host port, and where it is taken the agent would not be
        // scheduled at all.
        "args": arguments(spec),
        "env": [
            container::field_variable("NODE_NAME", "spec.nodeName"),
            container::field_variable("POD_NAME", "metadata.name"),
            container::field_variable("POD_NAMESPACE", "metadata.namespace"),
        ],
        "securityContext": container::root_security_context(&CAPABILITIES),
        "resources": resources(spec.resources.as_ref()),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    if let Some((host, port)) = reached_at(address) {
        // Ready: the pods of the first list are captured or refused, and checkpoints can be written. Shown by kubectl, and
        // waited for by a rollout. There is no liveness probe on purpose: an agent that is started again because of a slow
        // disk or a silent API server is away just then, and one that must end does so by itself.
        let probe = json!({"host": host, "port": port, "path": "/readyz"});
        let probe = json!({"httpGet": probe, "periodSeconds": 10, "timeoutSeconds": 5});
        set(&mut agent, "readinessProbe", probe);
        if !is_local(address) {
            // for a Prometheus that looks for pods by annotations
            set(&mut annotations, "prometheus.io/scrape", "true".into());
            set(&mut annotations, "prometheus.io/port", port.to_string().into());
            set(&mut annotations, "prometheus.io/path", "/metrics".into());
        }
    }
    let mut pod = json!({
        "serviceAccountName": INSTALLATION,
        // the node's processes: its files are reached through /proc/<parent pid>/root, without any volume
        "hostPID": true,
        // the node's network: the agent works before the pod network does, and on a node whose CNI it checkpoints
        "hostNetwork": true,
        "priorityClassName": "system-node-critical",
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 15,
        "tolerations": spec.tolerations.as_ref().map_or_else(|| json!([{"operator": "Exists"}]), |given| json!(given)),
        "securityContext": container::host_security_context(),
        "containers": [agent],
    });
    if !spec.node_selector.is_empty() {
        set(&mut pod, "nodeSelector", json!(spec.node_selector));
    }
    Object {
        why: "The agents, one a node; each installs its supervisor. Why each of its settings is as it is: src/operator/objects.rs.",
        value: json!({
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": INSTALLATION, "namespace": INSTALLATION, "labels": agent_labels()},
            "spec": {
                "selector": {"matchLabels": agent_labels()},
                "updateStrategy": {
                    "type": "RollingUpdate",
                    // an agent that is away for a while costs nothing, its supervisor goes on; an image that does not run
                    // stops at the first node
                    "rollingUpdate": {"maxUnavailable": max_unavailable(spec.max_unavailable.as_ref()), "maxSurge": 0},
                },
                "template": {"metadata": {"labels": agent_labels(), "annotations": annotations}, "spec": pod},
            },
        }),
    }
}

/// The API server takes a number, or text that ends in a percent sign.
fn max_unavailable(given: Option<&IntOrString>) -> Value {
    match given {
        None => json!(1),
        Some(IntOrString::Int(number)) => json!(number),
        Some(IntOrString::String(text)) => text.parse::<i32>().map_or_else(|_| json!(text), |number| json!(number)),
    }
}

fn service(address: Address) -> Object {
    let port = reached_at(address).map(|(_, port)| port);
    Object {
        why: "Finds the agents' metrics by name; each is served on its node's network.",
        value: json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": INSTALLATION, "namespace": INSTALLATION, "labels": agent_labels()},
            "spec": {
                "clusterIP": "None",
                "selector": agent_labels(),
                // an agent that is not ready says why
                "publishNotReadyAddresses": true,
                "ports": [{"name": "metrics", "port": port, "targetPort": port, "protocol": "TCP"}],
            },
        }),
    }
}

fn pod_monitor(address: Address) -> Object {
    let port = reached_at(address).map(|(_, port)| port).unwrap_or_default();
    // the DaemonSet declares no port, so the address is made here
    let relabel = |regex: &str, replacement: String| {
        json!({"sourceLabels": ["__meta_kubernetes_pod_ip"], "regex": regex, "targetLabel": "__address__",
            "replacement": replacement})
    };
    Object {
        why: "For the Prometheus Operator: scrapes each agent, which tells its supervisor's record as well.",
        value: json!({
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PodMonitor",
            "metadata": {"name": INSTALLATION, "namespace": INSTALLATION, "labels": labels()},
            "spec": {
                "selector": {"matchLabels": agent_labels()},
                "podMetricsEndpoints": [{
                    "path": "/metrics",
                    "interval": "30s",
                    "relabelings": [
                        relabel("(.*:.*)", format!("[$1]:{port}")),
                        relabel("([^:]+)", format!("$1:{port}")),
                        json!({"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"}),
                    ],
                }],
            },
        }),
    }
}

#[cfg(test)]
#[path = "objects_tests.rs"]
mod tests;
