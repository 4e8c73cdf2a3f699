//! `PodCheckpointer`: the settings of the agents of a cluster. There is one, named `default`; the
//! operator, or `pod-checkpointer manifests`, turns it into the objects of an installation.
//!
//! Settings that cannot work are refused when they are written, by rules whose messages say what to
//! write instead. Lengths and numbers are bounded, so that the API server can estimate beforehand
//! what a rule costs.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::{Expression, Selector};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// How the agents of this cluster run. Every field is optional.
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
    printcolumn = r#"{"name":"Upgraded","type":"integer","jsonPath":".status.nodes.upgraded","description":"Nodes whose agent has the current settings"}"#,
    printcolumn = r#"{"name":"Checkpoints","type":"integer","jsonPath":".status.checkpoints.total","description":"Marked pods"}"#,
    printcolumn = r#"{"name":"Recoverable","type":"integer","jsonPath":".status.checkpoints.recoverable","description":"Marked pods that would come back"}"#,
    printcolumn = r#"{"name":"Active","type":"integer","jsonPath":".status.checkpoints.active","description":"Pods whose twin runs in their place"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason","description":"Ready, or why not"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct PodCheckpointerSpec {
    /// Image of agent and supervisor; by default that of the operator, or pod-checkpointer in the
    /// version of the command `manifests`. It must be on every node before an outage, so use a
    /// digest, or a tag that is never used for another version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][A-Za-z0-9._:/@-]*$')").message("write an image as REGISTRY/NAME:TAG or REGISTRY/NAME@DIGEST, without spaces"))]
    pub image: Option<String>,
    /// Labels of the nodes that run an agent; by default all nodes do.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels")]
    #[x_kube(validation = Rule::new(LABEL_NAMES).message("a key is the name of a label, such as kubernetes.io/os"))]
    #[x_kube(validation = Rule::new(LABEL_VALUES).message("a value is the value of a label: up to 63 letters, digits, and - _ . between them"))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that an agent tolerates; by default all taints. An empty list tolerates none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub tolerations: Option<Vec<Toleration>>,
    /// Marks every pod in namespaces with these labels, except static pods and pods that run to
    /// completion. The annotation `podcheckpointer.io/checkpoint: "false"` on a pod takes
    /// precedence. By default only annotations and `select` mark pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Marks the pods that match at least one of these selectors, for charts that cannot be edited,
    /// except static pods and pods that run to completion. The annotation
    /// `podcheckpointer.io/checkpoint: "false"` on a pod takes precedence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub select: Vec<LabelSelector>,
    /// Names of the namespaces whose pods can be marked; by default those of all namespaces can.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 63)))]
    #[x_kube(validation = Rule::new("self.all(name, name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'))").message("write names of namespaces, such as shop; for labels of namespaces there is namespaceSelector"))]
    pub namespaces: Vec<String>,
    /// Names of the namespaces whose pods may start before all others; by default kube-system,
    /// kube-flannel and calico-system. In any other, the annotation `podcheckpointer.io/start-group`
    /// counts only from 50 upwards. An empty list allows it nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    #[x_kube(validation = Rule::new("self.all(name, name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'))").message("write names of namespaces, such as kube-system"))]
    pub early_namespaces: Option<Vec<String>>,
    /// How long the API server must be silent before a checkpoint is activated; by default 3s. In
    /// any case at least 3 probes must have failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(DURATION).message("write a number with a unit, for example 250ms, 3s, 10m or 72h"))]
    pub activation_delay: Option<String>,
    /// How long a checkpoint is kept after its pod was deleted, unless a successor is captured on
    /// the node; by default 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(DURATION).message("write a number with a unit, for example 250ms, 3s, 10m or 72h"))]
    pub retention: Option<String>,
    /// Uptime of the node after which a checkpoint that is no longer known to be current is not
    /// activated any more; by default there is no limit. The annotation
    /// `podcheckpointer.io/max-age` on a pod can only set a smaller one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(DURATION).message("write a number with a unit, for example 30m or 72h"))]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,5}(ms|s|m|h)){1,4}$') || duration(self) >= duration('1s')").message("must be at least 1s; leave it out for no limit"))]
    pub max_age: Option<String>,
    /// The longest outage to prepare for; by default 168h. A node whose kubelet certificate expires
    /// sooner reports that as a risk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(DURATION).message("write a number with a unit, for example 72h or 2160h"))]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,5}(ms|s|m|h)){1,4}$') || duration(self) >= duration('1s')").message("must be at least 1s"))]
    pub planned_outage: Option<String>,
    /// Encrypts checkpoints on the disk of each node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// Metrics and health of the agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// Resources of an agent; by default it requests 10m of cpu and 24Mi of memory, with a limit of
    /// 128Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// How many agents may be replaced at the same time, a number of nodes or a percentage like
    /// 10%; by default 1. The checkpoints and supervisors of these nodes stay as they are
    /// meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "int_or_string")]
    #[x_kube(validation = Rule::new("string(self).matches('^([1-9][0-9]{0,4}|([1-9][0-9]?|100)%)$')").message("write a number of nodes, at least 1, or a percentage from 1% to 100%: with 0 no agent could ever be replaced"))]
    pub max_unavailable: Option<IntOrString>,
}

const DURATION: &str = "self.matches('^([0-9]{1,5}(ms|s|m|h)){1,4}$')";
const LABEL_NAMES: &str = "self.all(key, key.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))";
const LABEL_VALUES: &str =
    "self.all(key, self[key].matches('^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$'))";
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

/// Selects by labels. Everything that is given must hold.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)").message("an empty selector would match everything: name a label; to match everything on purpose, name a label that nothing has, with operator DoesNotExist"))]
pub struct LabelSelector {
    /// Labels with the values that they must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels")]
    #[x_kube(validation = Rule::new(LABEL_NAMES).message("a key is the name of a label, such as app.kubernetes.io/name"))]
    #[x_kube(validation = Rule::new(LABEL_VALUES).message("a value is the value of a label: up to 63 letters, digits, and - _ . between them"))]
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub match_expressions: Vec<Requirement>,
}

/// A requirement on a label.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 : !has(self.values) || size(self.values) == 0").message("In and NotIn need values, Exists and DoesNotExist take none"))]
pub struct Requirement {
    /// Name of the label.
    #[schemars(length(max = 317))]
    #[x_kube(validation = Rule::new(LABEL_NAME).message("write the name of a label, such as app.kubernetes.io/name"))]
    pub key: String,
    /// How the label is compared: In (it has one of the values), NotIn (it has none of them, or is
    /// absent), Exists, DoesNotExist.
    pub operator: Operator,
    /// Values of the label.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 63)))]
    #[x_kube(validation = Rule::new("self.all(one, one.matches('^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$'))").message("a value is the value of a label: up to 63 letters, digits, and - _ . between them"))]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operator {
    /// It has one of the values of the requirement.
    In,
    /// It has none of these values, or is absent.
    NotIn,
    /// It is present, with any value.
    Exists,
    /// It is absent.
    DoesNotExist,
}

impl LabelSelector {
    /// The same in the form that the agent's flags take.
    pub fn selector(&self) -> Selector {
        let Self {
            match_labels,
            match_expressions,
        } = self;
        let mut selector: Selector = match_labels.clone().into_iter().collect();
        selector.extend(match_expressions.iter().map(
            |Requirement {
                 key,
                 operator,
                 values,
             }| {
                let values = || values.iter().cloned().collect();
                match operator {
                    Operator::In => Expression::In(key.clone(), values()),
                    Operator::NotIn => Expression::NotIn(key.clone(), values()),
                    Operator::Exists => Expression::Exists(key.clone()),
                    Operator::DoesNotExist => Expression::DoesNotExist(key.clone()),
                }
            },
        ));
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
    /// Key of the taint; if empty, every key matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317))]
    #[x_kube(validation = Rule::new("self == '' || self.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$')").message("write the key of a taint, such as node-role.kubernetes.io/control-plane"))]
    pub key: Option<String>,
    /// Exists: any value matches. Equal, the default: the taint must have the given value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<TolerationOperator>,
    /// Value of the taint, for Equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new(LABEL_VALUE).message("write the value of a taint: up to 63 letters, digits, and - _ . between them"))]
    pub value: Option<String>,
    /// Effect of the taint; by default every effect matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
    /// How many seconds the agent stays on a node with such a taint; by default for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

/// How a taint's value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TolerationOperator {
    /// Any value matches.
    Exists,
    /// The taint must have the given value.
    Equal,
}

/// What a taint does to pods that do not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(clippy::enum_variant_names, reason = "names of Kubernetes")]
pub enum TaintEffect {
    /// They are not scheduled to the node.
    NoSchedule,
    /// They are scheduled to other nodes if possible.
    PreferNoSchedule,
    /// They are evicted from the node.
    NoExecute,
}

/// How checkpoints are encrypted on the disk of a node.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Encryption {
    /// File on each node with a key of 32 bytes, raw, hex or base64; owned by root and readable by
    /// root only. It cannot be a Secret, because the supervisor needs it after a reboot without the
    /// API server.
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
    /// Where each agent serves them on the network of its node: `:PORT` for all addresses, IP:PORT
    /// for one, or off; by default :9797. Its supervisor serves its own at the next port of
    /// 127.0.0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self == 'off' || self.matches('^(|(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])([.](25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])){3}|\\\\[[0-9a-fA-F:]*:[0-9a-fA-F:]*\\\\]):([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$')").message("write :PORT, IP:PORT or off, for example :9797, 127.0.0.1:9797 or [::1]:9797"))]
    pub address: Option<String>,
    /// Create a PodMonitor, if the Prometheus Operator is installed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pod_monitor: bool,
}

/// Resources of an agent, as in the spec of a container: cpu, memory and ephemeral-storage.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in self.limits) || !isQuantity(string(self.requests[name])) || !isQuantity(string(self.limits[name])) || quantity(string(self.requests[name])).compareTo(quantity(string(self.limits[name]))) <= 0)").message("a request must not be more than its limit"))]
#[x_kube(validation = Rule::new("!has(self.limits) || !('memory' in self.limits) || !isQuantity(string(self.limits['memory'])) || quantity(string(self.limits['memory'])).compareTo(quantity('32Mi')) >= 0").message("an agent needs memory: write a limit of at least 32Mi"))]
pub struct Resources {
    /// What the scheduler reserves for it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities")]
    #[x_kube(validation = Rule::new(RESOURCE_NAMES).message("an agent takes cpu, memory and ephemeral-storage"))]
    #[x_kube(validation = Rule::new(QUANTITIES).message("write quantities of 0 or more, such as 10m of cpu or 64Mi of memory"))]
    pub requests: BTreeMap<String, IntOrString>,
    /// The most that it may use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities")]
    #[x_kube(validation = Rule::new(RESOURCE_NAMES).message("an agent takes cpu, memory and ephemeral-storage"))]
    #[x_kube(validation = Rule::new(QUANTITIES).message("write quantities of 0 or more, such as 10m of cpu or 64Mi of memory"))]
    pub limits: BTreeMap<String, IntOrString>,
}

const RESOURCE_NAMES: &str = "self.all(name, name in ['cpu', 'memory', 'ephemeral-storage'])";
const QUANTITIES: &str = "self.all(name, isQuantity(string(self[name])) && !quantity(string(self[name])).isLessThan(quantity('0')))";

/// What the operator last observed in the cluster; empty without an operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCheckpointerStatus {
    /// Generation of the spec that the conditions are about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Image of agent and supervisor, according to the DaemonSet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Ready: every node that should run an agent has a ready one with the current settings.
    /// Applied: every object in the cluster matches the spec. NodesFit: no node with PodCheckpoints
    /// would keep its pods from coming back.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The agents, counted in nodes.
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
    /// Nodes whose agent has the current settings.
    pub upgraded: i32,
}

/// Marked pods of all nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Checkpoints {
    /// All marked pods.
    pub total: i64,
    /// Those that would come back.
    pub recoverable: i64,
    /// Those whose twin runs in their place, or serves on until they have taken over.
    pub active: i64,
}

#[cfg(test)]
#[path = "podcheckpointer_tests.rs"]
mod tests;
