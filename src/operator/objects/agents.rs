//! The agents: a DaemonSet. Their flags are made in `operator::settings`.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Map, Value, json};

use crate::api::podcheckpointer::{PodCheckpointerSpec, Resources};
use crate::names::INSTALLATION;
use crate::operator::objects::{Object, agent_labels};
use crate::operator::settings::{Checked, RETIRE};
use crate::pod::container;

/// What the agent may do beyond an ordinary process of user 0, and what for.
const CAPABILITIES: [&str; 2] = [
    // to follow /proc/<pid>/root of a process that has more capabilities than the agent
    "SYS_PTRACE",
    // to read volumes whose files only their owners may read
    "DAC_READ_SEARCH",
];

/// Is this a pod, or the template of pods, of agents that leave their nodes?
pub(crate) fn is_retiring(pod: &Value) -> bool {
    let arguments = pod
        .pointer("/spec/containers/0/args")
        .and_then(Value::as_array);
    arguments
        .into_iter()
        .flatten()
        .any(|argument| argument == RETIRE)
}

pub(super) fn daemon_set(settings: &Checked) -> Object {
    let spec = settings.spec();
    let template = json!({
        "metadata": {"labels": agent_labels(), "annotations": annotations(settings)},
        "spec": pod(settings),
    });
    Object {
        why: "The agents, one per node; each installs the supervisor of its node. src/operator/objects/agents.rs gives the \
              reason for each setting.",
        value: json!({
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": INSTALLATION, "namespace": INSTALLATION, "labels": agent_labels()},
            "spec": {
                "selector": {"matchLabels": agent_labels()},
                "updateStrategy": {
                    "type": "RollingUpdate",
                    // an agent that is away for a while costs nothing, since its supervisor
                    // continues; an image that does not run stops at the first node
                    "rollingUpdate": {"maxUnavailable": max_unavailable(spec.max_unavailable.as_ref()), "maxSurge": 0},
                },
                "template": template,
            },
        }),
    }
}

fn annotations(settings: &Checked) -> Map<String, Value> {
    let mut annotations = Map::new();
    // for `kubectl exec` and `kubectl logs` without -c
    annotations.insert(
        "kubectl.kubernetes.io/default-container".into(),
        "agent".into(),
    );
    if let Some(port) = settings.scraped_port() {
        // for a Prometheus that finds pods by their annotations
        annotations.insert("prometheus.io/scrape".into(), "true".into());
        annotations.insert("prometheus.io/port".into(), port.to_string().into());
        annotations.insert("prometheus.io/path".into(), "/metrics".into());
    }
    annotations
}

fn pod(settings: &Checked) -> Value {
    let PodCheckpointerSpec {
        node_selector,
        tolerations,
        ..
    } = settings.spec();
    let mut pod = json!({
        "serviceAccountName": INSTALLATION,
        // the node's processes: the agent reaches the node's files through /proc/<parent pid>/root,
        // without any volume
        "hostPID": true,
        // the node's network: the agent works before the pod network does, and on a node whose CNI
        // plugin it checkpoints
        "hostNetwork": true,
        "priorityClassName": "system-node-critical",
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 15,
        "tolerations": tolerations.as_ref().map_or_else(|| json!([{"operator": "Exists"}]), |given| json!(given)),
        "securityContext": container::host_security_context(),
        "containers": [agent(settings)],
    });
    if !node_selector.is_empty() {
        set(&mut pod, "nodeSelector", json!(node_selector));
    }
    pod
}

fn agent(settings: &Checked) -> Value {
    let mut agent = json!({
        "name": "agent",
        "image": settings.image(),
        "imagePullPolicy": "IfNotPresent",
        // No port is declared: on the node's network that would be a host port, and where it is
        // taken the agent would not be scheduled at all.
        "args": settings.arguments(),
        "env": [
            container::field_variable("NODE_NAME", "spec.nodeName"),
            container::field_variable("POD_NAME", "metadata.name"),
            container::field_variable("POD_NAMESPACE", "metadata.namespace"),
        ],
        "securityContext": container::root_security_context(&CAPABILITIES),
        "resources": resources(settings.spec().resources.as_ref()),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    if let Some(port) = settings.metrics_port() {
        // Ready: every pod of the first list is captured or refused, and checkpoints can be
        // written. kubectl shows it, and a rollout waits for it. There is no liveness probe on
        // purpose: an agent that is restarted because of a slow disk or a silent API server is
        // missing just when it is needed, and one that must end does so by itself.
        let probe = json!({"host": settings.probed_host(), "port": port, "path": "/readyz"});
        let probe = json!({"httpGet": probe, "periodSeconds": 10, "timeoutSeconds": 5});
        set(&mut agent, "readinessProbe", probe);
    }
    agent
}

fn resources(given: Option<&Resources>) -> Value {
    let Some(Resources { requests, limits }) = given else {
        return json!({"requests": {"cpu": "10m", "memory": "24Mi"}, "limits": {"memory": "128Mi"}});
    };
    json!({"requests": requests, "limits": limits})
}

/// The API server takes a number, or text that ends in a percent sign.
fn max_unavailable(given: Option<&IntOrString>) -> Value {
    match given {
        None => json!(1),
        Some(IntOrString::Int(number)) => json!(number),
        Some(IntOrString::String(text)) => text
            .parse::<i32>()
            .map_or_else(|_| json!(text), |number| json!(number)),
    }
}

fn set(object: &mut Value, field: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(field.to_owned(), value);
    }
}
