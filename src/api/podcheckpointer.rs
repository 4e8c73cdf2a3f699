//! `PodCheckpointer`: how the cluster wants its agents. One, named `default`; the operator makes all objects of it, or
//! `pod-checkpointer manifests`.
//!
//! What cannot work is refused when it is written, by rules whose messages say what to write instead. Lengths and numbers are
//! bounded, so that the API server can tell beforehand what a rule costs.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::{Expression, Selector};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// How the agents of this cluster are to run. Every field may be left out.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "podcheckpointer.io",
    version = "v1alpha1",
    kind = "PodCheckpointer",
    plural = "podcheckpointers",
    singular = "podcheckpointer",
    shortname = "pckptr",
    category = "pod-checkpointer",
    status = "PodCheckpointerStatus",
    derive = "PartialEq",
    doc = "Installs pod-checkpointer on the nodes of this cluster. There is one, named default.",
    validation = Rule::new("self.metadata.name == 'default'").message("a cluster has one PodCheckpointer: name it default"),
    printcolumn = r#"{"name":"Desired","type":"integer","jsonPath":".status.nodes.desired","description":"Nodes that should have an agent"}"#,
    printcolumn = r#"{"name":"Ready","type":"integer","jsonPath":".status.nodes.ready","description":"Nodes whose agent is ready"}"#,
    printcolumn = r#"{"name":"Upgraded","type":"integer","jsonPath":".status.nodes.upgraded","description":"Nodes whose agent is of these settings"}"#,
    printcolumn = r#"{"name":"Checkpoints","type":"integer","jsonPath":".status.checkpoints.total","description":"Marked pods"}"#,
    printcolumn = r#"{"name":"Recoverable","type":"integer","jsonPath":".status.checkpoints.recoverable","description":"Marked pods that would come back"}"#,
    printcolumn = r#"{"name":"Active","type":"integer","jsonPath":".status.checkpoints.active","description":"Pods whose twin runs in their place"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason","description":"Ready, or what hinders"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct PodCheckpointerSpec {
    /// Image of agent and supervisor; by default pod-checkpointer in the version that made the objects. It must be on every node before an outage, so give it
    /// a tag of its own for each version, or a digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][A-Za-z0-9._:/@-]*$')").message("write an image as REGISTRY/NAME:TAG or REGISTRY/NAME@DIGEST, without spaces"))]
    pub image: Option<String>,
    /// Labels of the nodes that get an agent; by default all nodes do.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels")]
    #[x_kube(validation = Rule::new(LABEL_NAMES).message("a key is the name of a label, such as kubernetes.io/os"))]
    #[x_kube(validation = Rule::new(LABEL_VALUES).message("a value is the value of a label: up to 63 letters, digits, and - _ . between them"))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that an agent tolerates; by default all of them. An empty list tolerates none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub tolerations: Option<Vec<Toleration>>,
    /// Marks every pod of the namespaces with these labels, but static pods and pods that end. The annotation
    /// `podcheckpointer.io/checkpoint: "false"` on a pod wins. By default only annotations and `select` mark pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Marks the pods that match any of these, for charts that cannot be edited; static pods and pods that end left out. The
    /// annotation `podcheckpointer.io/checkpoint: "false"` on a pod wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub select: Vec<LabelSelector>,
    /// Names of the only namespaces that are looked at; by default all are. Nothing marks a pod of another namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 63)))]
    #[x_kube(validation = Rule::new("self.all(name, name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'))").message("write names of namespaces, such as shop; for labels of namespaces there is namespaceSelector"))]
    pub namespaces: Vec<String>,
    /// Silence of the API server before anything is activated; by default 3s. At least 3 probes must have failed, whatever
    /// it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(DURATION).message("write a number with a unit, for example 250ms, 3s, 10m or 72h"))]
    pub activation_delay: Option<String>,
    /// How long a checkpoint outlives its deleted pod when no successor was captured on the node; by default 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(DURATION).message("write a number with a unit, for example 250ms, 3s, 10m or 72h"))]
    pub retention: Option<String>,
    /// Age at which a checkpoint is not activated any more, where the pod's annotation `podcheckpointer.io/max-age` does not
    /// say; by default none is too old. Counted in uptime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(DURATION).message("write a number with a unit, for example 30m or 72h"))]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,5}(ms|s|m|h)){1,4}$') || duration(self) >= duration('1s')").message("must be at least 1s; leave it out for no limit"))]
    pub max_age: Option<String>,
    /// The longest outage that is planned for; by default 168h. A node whose kubelet's certificate expires sooner says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(DURATION).message("write a number with a unit, for example 72h or 2160h"))]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,5}(ms|s|m|h)){1,4}$') || duration(self) >= duration('1s')").message("must be at least 1s"))]
    pub planned_outage: Option<String>,
    /// Seals checkpoints on the disk of each node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// Metrics and health of the agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// Resources of an agent; by default 10m of processor and 24Mi of memory, and at most 128Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// How many agents may be replaced at a time, a number of nodes or a part like 10%; by default 1. Meanwhile the
    /// checkpoints and the supervisors of these nodes go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "int_or_string")]
    #[x_kube(validation = Rule::new("string(self).matches('^([1-9][0-9]{0,4}|([1-9][0-9]?|100)%)$')").message("write a number of nodes from 1 on, or a part from 1% to 100%: with 0 no agent could ever be replaced"))]
    pub max_unavailable: Option<IntOrString>,
}

const DURATION: &str = "self.matches('^([0-9]{1,5}(ms|s|m|h)){1,4}$')";
const LABEL_NAMES: &str = "self.all(key, key.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))";
const LABEL_VALUES: &str = "self.all(key, self[key].matches('^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$'))";
const LABEL_NAME: &str = "self.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$')";
const LABEL_VALUE: &str = "self.matches('^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$')";

fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "maxProperties": 16, "additionalProperties": {"type": "string", "maxLength": 63}})
}

fn int_or_string(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-int-or-string": true, "maxLength": 16})
}

fn quantities(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "maxProperties": 3, "additionalProperties":
        {"x-kubernetes-int-or-string": true, "maxLength": 32}})
}

/// Labels that something must have; all that is given must hold.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)").message("an empty selector would match everything: name a label; if everything is meant, one that is nowhere, with operator DoesNotExist"))]
pub struct LabelSelector {
    /// Labels and their values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels")]
    #[x_kube(validation = Rule::new(LABEL_NAMES).message("a key is the name of a label, such as app.kubernetes.io/name"))]
    #[x_kube(validation = Rule::new(LABEL_VALUES).message("a value is the value of a label: up to 63 letters, digits, and - _ . between them"))]
    pub match_labels: BTreeMap<String, String>,
    /// More that must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub match_expressions: Vec<Requirement>,
}

/// Something that must hold of a label.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 : !has(self.values) || size(self.values) == 0").message("In and NotIn need values, Exists and DoesNotExist take none"))]
pub struct Requirement {
    /// Name of the label.
    #[schemars(length(max = 317))]
    #[x_kube(validation = Rule::new(LABEL_NAME).message("write the name of a label, such as app.kubernetes.io/name"))]
    pub key: String,
    /// What must hold: In (it has one of the values), NotIn (it has none of them, or is not there), Exists, DoesNotExist.
    pub operator: Operator,
    /// Values of the label.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 63)))]
    #[x_kube(validation = Rule::new("self.all(one, one.matches('^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$'))").message("a value is the value of a label: up to 63 letters, digits, and - _ . between them"))]
    pub values: Vec<String>,
}

/// What must hold of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operator {
    /// It has one of the values.
    In,
    /// It has none of the values, or is not there.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl LabelSelector {
    /// What the agent is told, in the form that its flags take.
    pub fn selector(&self) -> Selector {
        let Self { match_labels, match_expressions } = self;
        let mut selector: Selector = match_labels.clone().into_iter().collect();
        selector.extend(match_expressions.iter().map(|Requirement { key, operator, values }| {
            let values = || values.iter().cloned().collect();
            match operator {
                Operator::In => Expression::In(key.clone(), values()),
                Operator::NotIn => Expression::NotIn(key.clone(), values()),
                Operator::Exists => Expression::Exists(key.clone()),
                Operator::DoesNotExist => Expression::DoesNotExist(key.clone()),
            }
        }));
        selector
    }
}

/// A taint that an agent tolerates, as in the spec of a pod.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.key) && self.key != '') || (has(self.operator) && self.operator == 'Exists')").message("without a key the operator must be Exists: it tolerates every taint"))]
#[x_kube(validation = Rule::new("!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''").message("operator Exists takes no value: leave the value out, or write operator: Equal"))]
#[x_kube(validation = Rule::new("!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')").message("tolerationSeconds needs effect: NoExecute"))]
pub struct Toleration {
    /// Key of the taint; empty: of every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317))]
    #[x_kube(validation = Rule::new("self == '' || self.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$')").message("write the key of a taint, such as node-role.kubernetes.io/control-plane"))]
    pub key: Option<String>,
    /// Exists: whatever its value; Equal, the default: it has this value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<TolerationOperator>,
    /// Value of the taint, for Equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new(LABEL_VALUE).message("write the value of a taint: up to 63 letters, digits, and - _ . between them"))]
    pub value: Option<String>,
    /// Effect of the taint; by default every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
    /// How long the agent stays on a node with such a taint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

/// How a taint's value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TolerationOperator {
    /// Whatever its value is.
    Exists,
    /// It has this value.
    Equal,
}

/// What a taint does to pods that do not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(clippy::enum_variant_names, reason = "names of Kubernetes")]
pub enum TaintEffect {
    /// They are not scheduled.
    NoSchedule,
    /// They are scheduled elsewhere if possible.
    PreferNoSchedule,
    /// They are evicted.
    NoExecute,
}

/// How checkpoints are sealed on the disk of a node.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Encryption {
    /// File on each node with a key of 32 bytes, as they are, in hexadecimal or in base64, that only root may read. It cannot
    /// be a Secret: the supervisor needs it after a reboot without the API server.
    #[schemars(length(max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^(/[^/,\\\\s]+)+$') && !self.matches('/[.]{1,2}(/|$)')").message("write the absolute path of a file on the node, such as /etc/pod-checkpointer.key, without . or .., spaces or commas"))]
    #[x_kube(validation = Rule::new("!self.matches('^/(run|var/run|dev|proc|sys|tmp)/')").message("a key there is gone after a reboot, which is when it is needed: write a path on the node's disk, such as /etc/pod-checkpointer.key"))]
    pub key_file: String,
}

/// Metrics and health of the agents.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.podMonitor) || !self.podMonitor || !has(self.address) || !self.address.matches('^(off$|127[.]|.::1.:)')").message("a PodMonitor cannot reach agents whose address is off or the node's own: write an address like :9797, or podMonitor: false"))]
pub struct Metrics {
    /// Where each agent serves, on its node's network: `:PORT` for all addresses, IP:PORT for one, or off; by default :9797.
    /// Its supervisor serves at the port after it, on 127.0.0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self == 'off' || self.matches('^(|(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])([.](25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])){3}|\\\\[[0-9a-fA-F:]*:[0-9a-fA-F:]*\\\\]):([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$')").message("write :PORT, IP:PORT or off, for example :9797, 127.0.0.1:9797 or [::1]:9797"))]
    pub address: Option<String>,
    /// Make a PodMonitor for the Prometheus Operator, where that is installed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pod_monitor: bool,
}

/// Resources of an agent, as in the spec of a container: cpu, memory and ephemeral-storage.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in self.limits) || !isQuantity(string(self.requests[name])) || !isQuantity(string(self.limits[name])) || quantity(string(self.requests[name])).compareTo(quantity(string(self.limits[name]))) <= 0)").message("a request must not be more than its limit"))]
#[x_kube(validation = Rule::new("!has(self.limits) || !('memory' in self.limits) || !isQuantity(string(self.limits['memory'])) || quantity(string(self.limits['memory'])).compareTo(quantity('32Mi')) >= 0").message("an agent needs memory: write a limit of at least 32Mi"))]
pub struct Resources {
    /// What is kept free for it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities")]
    #[x_kube(validation = Rule::new(RESOURCE_NAMES).message("an agent takes cpu, memory and ephemeral-storage"))]
    #[x_kube(validation = Rule::new(QUANTITIES).message("write quantities from 0 on, such as 10m of cpu or 64Mi of memory"))]
    pub requests: BTreeMap<String, IntOrString>,
    /// The most that it may take.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities")]
    #[x_kube(validation = Rule::new(RESOURCE_NAMES).message("an agent takes cpu, memory and ephemeral-storage"))]
    #[x_kube(validation = Rule::new(QUANTITIES).message("write quantities from 0 on, such as 10m of cpu or 64Mi of memory"))]
    pub limits: BTreeMap<String, IntOrString>,
}

const RESOURCE_NAMES: &str = "self.all(name, name in ['cpu', 'memory', 'ephemeral-storage'])";
const QUANTITIES: &str =
    "self.all(name, isQuantity(string(self[name])) && !quantity(string(self[name])).isLessThan(quantity('0')))";

/// What the operator last saw of it in the cluster; empty without an operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCheckpointerStatus {
    /// Generation of the spec that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Image of agent and supervisor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Ready: every node that should have an agent has one of these settings that is ready. Applied: the objects in the
    /// cluster are what the spec asks for. NodesFit: nothing of the nodes is in the way of their pods' return.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Nodes>,
    /// Marked pods of all nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoints: Option<Checkpoints>,
}

/// Agents, counted in nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Nodes {
    /// Nodes that should have an agent.
    pub desired: i32,
    /// Nodes whose agent is ready.
    pub ready: i32,
    /// Nodes whose agent is of the settings of now.
    pub upgraded: i32,
}

/// Marked pods of all nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Checkpoints {
    /// All of them.
    pub total: i64,
    /// Those that would come back.
    pub recoverable: i64,
    /// Those whose twin runs in their place, or serves on until they have taken over.
    pub active: i64,
}

#[cfg(test)]
#[path = "podcheckpointer_tests.rs"]
mod tests;
