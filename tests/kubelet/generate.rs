//! Pods over the whole schema.
//!
//! The walk is driven by the schema of the types that the program is built with, so a field of a
//! new version is generated without a change here. [`Pods::hint`] makes what comes out mostly
//! acceptable to an API server: one source of a volume, names where names are wanted. What depends
//! on several fields is put right in [`Pods::repair`].

// the hints read by type, not by what they give
#![allow(clippy::match_same_arms)]

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value, json};

use super::random::Random;

/// What a walk needs to know of the schema.
pub struct Schema {
    definitions: Map<String, Value>,
}

impl Schema {
    pub fn new() -> Self {
        let root = schemars::generate::SchemaGenerator::default().into_root_schema_for::<Pod>();
        let mut root = root.to_value();
        let Value::Object(mut definitions) = root["$defs"].take() else {
            panic!("the schema has no definitions")
        };
        definitions.insert("io.k8s.api.core.v1.Pod".into(), root);
        Self { definitions }
    }

    /// The paths of all fields below a pod's spec, as `spec.containers[].name`.
    pub fn paths(&self) -> BTreeSet<String> {
        let mut paths = BTreeSet::new();
        self.collect(
            &json!({"$ref": "#/$defs/io.k8s.api.core.v1.PodSpec"}),
            "spec",
            &mut paths,
        );
        paths
    }

    fn collect(&self, schema: &Value, path: &str, paths: &mut BTreeSet<String>) {
        paths.insert(path.to_owned());
        if let Some((_, definition)) = self.definition(schema) {
            for (name, property) in definition["properties"].as_object().into_iter().flatten() {
                self.collect(property, &format!("{path}.{name}"), paths);
            }
        } else if let Some(items) = schema.get("items") {
            self.collect(items, &format!("{path}[]"), paths);
        }
    }

    fn definition<'a>(&'a self, schema: &'a Value) -> Option<(&'a str, &'a Value)> {
        let name = schema.get("$ref")?.as_str()?.strip_prefix("#/$defs/")?;
        let definition = &self.definitions[name];
        definition
            .get("properties")
            .map(|_| (name.rsplit('.').next().unwrap(), definition))
    }
}

/// What a field gets.
enum Hint {
    /// What the schema says.
    Schema,
    /// Nothing.
    Absent,
    /// This.
    Is(Value),
}

fn is(value: impl Into<Value>) -> Hint {
    Hint::Is(value.into())
}

/// Kinds of volumes that a twin can have.
const KEPT: &[&str] = &[
    "configMap",
    "secret",
    "projected",
    "downwardAPI",
    "emptyDir",
    "hostPath",
    "image",
    "nfs",
];
/// Structures of which exactly one of these members is set.
const ONE_OF: &[(&str, &[&str])] = &[
    (
        "EnvVarSource",
        &[
            "configMapKeyRef",
            "fieldRef",
            "fileKeyRef",
            "resourceFieldRef",
            "secretKeyRef",
        ],
    ),
    ("EnvFromSource", &["configMapRef", "secretRef"]),
    ("Probe", &["exec", "grpc", "httpGet", "tcpSocket"]),
    (
        "LifecycleHandler",
        &["exec", "httpGet", "sleep", "tcpSocket"],
    ),
    (
        "VolumeProjection",
        &[
            "clusterTrustBundle",
            "configMap",
            "downwardAPI",
            "podCertificate",
            "secret",
            "serviceAccountToken",
        ],
    ),
    (
        "PodResourceClaim",
        &["resourceClaimName", "resourceClaimTemplateName"],
    ),
];

/// Fields that an API server wants although the schema does not say so.
const WANTED: &[(&str, &[&str])] = &[
    ("Container", &["image"]),
    ("ExecAction", &["command"]),
    ("NodeSelectorRequirement", &["values"]),
    ("LabelSelectorRequirement", &["values"]),
    ("ImageVolumeSource", &["reference"]),
    ("SecretVolumeSource", &["secretName"]),
    ("LocalObjectReference", &["name"]),
    ("ConfigMapEnvSource", &["name"]),
    ("SecretEnvSource", &["name"]),
    ("ConfigMapKeySelector", &["name"]),
    ("SecretKeySelector", &["name"]),
    ("ConfigMapProjection", &["name"]),
    ("SecretProjection", &["name"]),
    ("ConfigMapVolumeSource", &["name"]),
    ("EphemeralVolumeSource", &["volumeClaimTemplate"]),
    ("FlockerVolumeSource", &["datasetName"]),
    ("FCVolumeSource", &["targetWWNs", "lun"]),
    ("AzureDiskVolumeSource", &["cachingMode", "kind"]),
    ("StorageOSVolumeSource", &["volumeName"]),
    ("HostAlias", &["hostnames"]),
    ("DownwardAPIVolumeFile", &["fieldRef"]),
];

/// Makes pods.
pub struct Pods<'a> {
    schema: &'a Schema,
    node: &'a str,
    random: Random,
    /// How often an optional field is there, in a hundred.
    density: usize,
    /// Only pods that can come back.
    is_plain: bool,
    host_network: bool,
    counter: usize,
}

impl<'a> Pods<'a> {
    pub fn pod(schema: &'a Schema, node: &'a str, seed: u64, number: u64) -> Value {
        let mut random = Random::of(seed, number);
        let density = *[8, 20, 35, 60].get(random.below(4)).unwrap();
        let (is_plain, host_network) = (random.percent(70), random.percent(25));
        let mut pods = Self {
            schema,
            node,
            random,
            density,
            is_plain,
            host_network,
            counter: 0,
        };
        let mut spec = pods.structure("PodSpec", "spec");
        pods.repair(&mut spec);
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": pods.metadata(number), "spec": spec});
        if pods.random.percent(6) {
            pods.spoil(&mut pod["spec"]);
        }
        pod
    }

    fn metadata(&mut self, number: u64) -> Value {
        let name = match self.random.below(20) {
            0 => format!("{}.{number}", self.random.label()),
            1 => format!("a{}-{number}", "0".repeat(52 - number.to_string().len())),
            2 => format!("{}.{}.{number}", "a".repeat(63), "b".repeat(63)),
            3 => format!(
                "{}.{}.{}.{number}",
                "a".repeat(63),
                "b".repeat(63),
                "c".repeat(63)
            ),
            4 => format!("{number}"),
            _ => format!("{}-{number}", self.random.word(12)),
        };
        let namespace = if self.random.percent(5) {
            "0".repeat(63)
        } else {
            self.random.label()
        };
        let mut metadata = json!({"name": name, "namespace": namespace, "uid": format!("11111111-1111-4111-8111-{number:012}"), "resourceVersion": "42"});
        if self.random.percent(60) {
            metadata["labels"] = self.map(|random| (random.key(), random.tag()));
        }
        if self.random.percent(60) {
            metadata["annotations"] = self.map(|random| (random.key(), random.text()));
            for (key, value) in [
                ("kubectl.kubernetes.io/last-applied-configuration", "{}"),
                ("cni.projectcalico.org/podIP", "10.0.0.1/32"),
                ("k8s.v1.cni.cncf.io/network-status", "[]"),
                ("podcheckpointer.io/checkpoint", "true"),
                ("podcheckpointer.io/start-group", "10"),
            ] {
                if self.random.percent(20) {
                    metadata["annotations"][key] = json!(value);
                }
            }
        }
        if self.random.percent(30) {
            let kind = if self.is_plain {
                "DaemonSet"
            } else {
                self.random
                    .pick(&["DaemonSet", "ReplicaSet", "StatefulSet", "Job"])
            };
            metadata["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": kind, "name": self.random.label(), "uid": "22222222-2222-4222-8222-222222222222", "controller": true}]);
            metadata["generateName"] = json!("made-");
        }
        if self.random.percent(10) {
            metadata["finalizers"] = json!([format!("example.com/{}", self.random.word(5))]);
        }
        metadata
    }

    fn map(&mut self, entry: impl Fn(&mut Random) -> (String, String)) -> Value {
        let length = self.random.below(4);
        (0..length)
            .map(|_| entry(&mut self.random))
            .map(|(key, value)| (key, json!(value)))
            .collect::<Map<_, _>>()
            .into()
    }

    fn structure(&mut self, kind: &str, path: &str) -> Value {
        let schema = self.schema;
        let name = schema
            .definitions
            .keys()
            .find(|name| name.rsplit('.').next() == Some(kind))
            .unwrap();
        let definition = &schema.definitions[name];
        let required: Vec<&str> = definition["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let one_of = ONE_OF
            .iter()
            .find(|(of, _)| *of == kind)
            .map(|(_, members)| *members);
        let chosen = one_of.map(|members| self.random.pick(members));
        let source = (kind == "Volume").then(|| self.volume_kind(definition));
        let mut made = Map::new();
        for (field, property) in definition["properties"].as_object().into_iter().flatten() {
            let is_member = one_of.is_some_and(|members| members.contains(&field.as_str()));
            let is_wanted = if kind == "Volume" && field != "name" {
                source.as_deref() == Some(field)
            } else if is_member {
                chosen == Some(field.as_str())
            } else {
                let is_wanted = WANTED
                    .iter()
                    .any(|(of, fields)| *of == kind && fields.contains(&field.as_str()));
                is_wanted || required.contains(&field.as_str()) || self.random.percent(self.density)
            };
            match self.hint(kind, field) {
                Hint::Is(value) if is_wanted => {
                    made.insert(field.clone(), value);
                }
                Hint::Schema if is_wanted => {
                    let value = self.value(property, kind, field, path);
                    made.insert(field.clone(), value);
                }
                _ => {}
            }
        }
        made.into()
    }

    fn volume_kind(&mut self, definition: &Value) -> String {
        if self.is_plain || self.random.percent(50) {
            return self.random.pick(KEPT).to_owned();
        }
        let all: Vec<&String> = definition["properties"]
            .as_object()
            .unwrap()
            .keys()
            .filter(|name| *name != "name")
            .collect();
        all[self.random.below(all.len())].clone()
    }

    fn value(&mut self, schema: &Value, kind: &str, field: &str, path: &str) -> Value {
        let below = format!("{path}.{field}");
        if let Some((name, _)) = self.schema.definition(schema) {
            return self.structure(name, &below);
        }
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let name = reference.rsplit('.').next().unwrap();
            return match name {
                "Quantity" => json!(
                    self.random
                        .pick(&["0", "1", "100m", "64Mi", "1Gi", "1500m", "2e3", "0.5"])
                ),
                "IntOrString" => self.port_or_name(),
                other => panic!("no rule for a {other} at {below}"),
            };
        }
        match schema["type"].as_str() {
            Some("array") => {
                let length = self.random.below(3) + usize::from(field == "containers");
                (0..length)
                    .map(|_| self.value(&schema["items"], kind, field, &below))
                    .collect()
            }
            Some("object") => match schema["additionalProperties"]["type"].as_str() {
                Some("string") => self.map(|random| (random.key(), random.tag())),
                _ => json!({}),
            },
            Some("string") => match self.item(kind, field) {
                Some(text) => json!(text),
                None => json!(self.random.text()),
            },
            Some("integer") => json!(self.random.between(1, 1000)),
            Some("boolean") => json!(self.random.percent(50)),
            other => panic!("no rule for type {other:?} at {below}"),
        }
    }

    fn port_or_name(&mut self) -> Value {
        if self.random.percent(60) {
            json!(self.random.between(1, 65535))
        } else {
            json!("web")
        }
    }

    /// An entry of a list of strings.
    fn item(&mut self, kind: &str, field: &str) -> Option<String> {
        let random = &mut self.random;
        Some(match (kind, field) {
            ("PodDNSConfig", "nameservers") => random.address(),
            ("PodDNSConfig", "searches") | ("HostAlias", "hostnames") => random.subdomain(),
            ("PersistentVolumeClaimSpec", "accessModes") => {
                random.pick(&["ReadWriteOnce", "ReadOnlyMany"]).into()
            }
            ("NodeSelectorRequirement" | "LabelSelectorRequirement", "values") => random.tag(),
            ("PodAffinityTerm", "namespaces") => random.label(),
            ("PodAffinityTerm" | "TopologySpreadConstraint", "matchLabelKeys") => {
                format!("m-{}", random.word(5))
            }
            ("PodAffinityTerm", "mismatchLabelKeys") => format!("x-{}", random.word(5)),
            ("Capabilities", _) => random
                .pick(&["NET_ADMIN", "ALL", "CHOWN", "SYS_TIME", "NET_BIND_SERVICE"])
                .into(),
            ("CephFSVolumeSource" | "RBDVolumeSource", "monitors") => random.address(),
            ("ISCSIVolumeSource", "portals") => format!("{}:3260", random.address()),
            _ => return None,
        })
    }

    fn unique(&mut self, prefix: &str) -> String {
        self.counter += 1;
        format!("{prefix}{}", self.counter)
    }

    fn hint(&mut self, kind: &str, field: &str) -> Hint {
        let is_plain = self.is_plain;
        let random = &mut self.random;
        match (kind, field) {
            // what only an API server or a scheduler sets, or refuses
            ("PodSpec", "ephemeralContainers" | "nodeName" | "schedulingGates") if is_plain => Hint::Absent,
            ("PodSpec", "ephemeralContainers" | "nodeName") => Hint::Absent,
            ("PodSpec", "schedulingGates") => {
                if random.percent(4) {
                    is(json!([{"name": format!("example.com/{}", random.word(5))}]))
                } else {
                    Hint::Absent
                }
            }
            ("PodSpec", "resourceClaims" | "runtimeClassName") if is_plain => Hint::Absent,
            ("PodSpec", "restartPolicy") => {
                is(if is_plain || random.percent(80) { "Always" } else { random.pick(&["OnFailure", "Never"]) })
            }
            ("PodSpec", "dnsPolicy") => {
                is(random.pick(&["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"]))
            }
            ("PodSpec", "hostNetwork") => is(self.host_network),
            ("PodSpec", "hostUsers") => is(true),
            ("PodSpec", "hostname" | "subdomain") => is(random.label()),
            ("PodSpec", "hostnameOverride") => {
                if random.percent(20) {
                    is(random.subdomain().chars().take(60).collect::<String>().trim_end_matches(['.', '-']))
                } else {
                    Hint::Absent
                }
            }
            ("PodSpec", "preemptionPolicy") => is(random.pick(&["Never", "PreemptLowerPriority"])),
            ("PodSpec", "priority") => {
                is(*[0, 1000, -5, 2_000_001_000, 2_000_000_000, i32::MIN, 1].get(random.below(7)).unwrap())
            }
            ("PodSpec", "priorityClassName") => {
                is(random.pick(&["system-node-critical", "system-cluster-critical", "low", "n"]))
            }
            ("PodSpec", "runtimeClassName") => is(random.subdomain()),
            ("PodSpec", "schedulerName") => is(random.label()),
            ("PodSpec", "serviceAccount") => Hint::Absent,
            ("PodSpec", "serviceAccountName") => is(random.subdomain()),
            ("PodSpec", "terminationGracePeriodSeconds") => is(random.between(0, 600)),
            ("PodSpec", "overhead") => is(json!({"cpu": "10m"})),
            ("PodSpec", "os") => is(json!({"name": "linux"})),
            ("PodSpec" | "Container", "resources") => Hint::Is(self.resources(kind)),
            ("PodSpec", "tolerations") => Hint::Is(self.tolerations()),
            ("PodDNSConfigOption", "name") => is(format!("n{}", random.text())),
            ("PodReadinessGate", "conditionType") => is(random.key()),
            ("PodSchedulingGroup", _) => is(random.label()),
            ("PodResourceClaim" | "Volume" | "Container" | "EphemeralContainer", "name") => {
                let prefix = if random.percent(90) { "x" } else { "0x" };
                Hint::Is(self.unique(prefix).into())
            }
            ("PodResourceClaim", _) => is(random.subdomain()),
            (
                "LocalObjectReference"
                | "ConfigMapEnvSource"
                | "SecretEnvSource"
                | "ConfigMapKeySelector"
                | "SecretKeySelector"
                | "ConfigMapProjection"
                | "SecretProjection"
                | "ConfigMapVolumeSource"
                | "TypedLocalObjectReference",
                "name",
            ) => is(random.subdomain()),
            ("SecretVolumeSource", "secretName") => is(random.subdomain()),
            ("ConfigMapKeySelector" | "SecretKeySelector" | "KeyToPath", "key") => {
                is(random.pick(&["n", "a.b_c-d", "..x", "tls.crt", "012"]))
            }
            ("KeyToPath" | "DownwardAPIVolumeFile", "path") => Hint::Is(self.unique("d/y n/f").into()),
            (_, "defaultMode" | "mode") => is(random.between(0, 0o777)),
            // environment
            ("EnvVar", "name") if random.percent(2) => is(random.pick(&["any thing: but #", "1a", "- n"])),
            ("EnvVar", "name") => is(random.pick(&[
                "A",
                "B",
                "C",
                "POD_IP",
                "n",
                "dotted.name",
                "with-dash",
                "lower_case",
                "HOSTNAME",
                "PATH",
                "KUBERNETES_PORT",
            ])),
            ("EnvVar", "valueFrom") => {
                if random.percent(50) {
                    Hint::Schema
                } else {
                    Hint::Absent
                }
            }
            ("EnvFromSource", "prefix") => is(random.pick(&["", "P_", "p.", "n"])),
            ("ObjectFieldSelector", "apiVersion") | ("EphemeralContainer", _) => Hint::Absent,
            ("ObjectFieldSelector", "fieldPath") => is(random.pick(&[
                "status.podIP",
                "status.podIPs",
                "metadata.name",
                "metadata.uid",
                "metadata.namespace",
                "spec.nodeName",
                "status.hostIP",
                "spec.serviceAccountName",
                "metadata.labels['n']",
            ])),
            ("ResourceFieldSelector", "resource") => {
                is(random.pick(&["limits.cpu", "requests.memory", "limits.ephemeral-storage"]))
            }
            ("ResourceFieldSelector", "divisor") => is("1"),
            ("FileKeySelector", "key") => is("KEY"),
            ("FileKeySelector", "path") => is("dir/file.env"),
            // containers
            ("Container", "image") => is(random.pick(&[
                "shop/till:1",
                "x",
                "registry.example.com:5000/a/b@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                "n",
                "1.0",
            ])),
            ("Container", "imagePullPolicy") | ("ImageVolumeSource", "pullPolicy") => {
                is(random.pick(&["Always", "IfNotPresent", "Never"]))
            }
            ("Container", "volumeDevices") if is_plain => Hint::Absent,
            ("Container", "terminationMessagePolicy") => is(random.pick(&["File", "FallbackToLogsOnError"])),
            ("Container", "resizePolicy") => {
                is(json!([{"resourceName": "cpu", "restartPolicy": random.pick(&["NotRequired", "RestartContainer"])}]))
            }
            ("ContainerPort", "containerPort") => is(random.between(1, 65535)),
            ("ContainerPort", "hostPort") => {
                self.counter += 1;
                is(20000 + self.counter)
            }
            ("ContainerPort", "hostIP") | ("HostAlias", "ip") => is(random.address()),
            ("ContainerPort", "name") => is(random.pick(&["web", "y", "n1", "1a", "metrics-port-15"])),
            ("ContainerPort", "protocol") => is(random.pick(&["TCP", "UDP", "SCTP"])),
            ("Lifecycle", "stopSignal") => is(random.pick(&["SIGTERM", "SIGRTMIN+3", "SIGUSR1"])),
            ("SleepAction", "seconds") => is(random.between(1, 5)),
            ("HTTPGetAction", "scheme") => is(random.pick(&["HTTP", "HTTPS"])),
            ("HTTPGetAction", "path") => is(format!("/{}", random.text())),
            ("HTTPHeader", "name") => is(random.pick(&["X-A", "n", "1e3", "X-Y"])),
            ("GRPCAction", "port") => is(random.between(1, 65535)),
            ("Probe", "successThreshold") => is(1),
            ("Probe", _) if !["exec", "grpc", "httpGet", "tcpSocket"].contains(&field) => is(random.between(1, 100)),
            ("ExecAction", "command") | ("Capabilities", _) => Hint::Is(self.list(kind, field)),
            ("ContainerRestartRule", "action") => is(random.pick(&["Restart", "RestartAllContainers"])),
            ("ContainerRestartRuleOnExitCodes", "operator") => is(random.pick(&["In", "NotIn"])),
            ("ContainerRestartRuleOnExitCodes", "values") => {
                is(json!([random.between(0, 100), random.between(101, 255)]))
            }
            ("VolumeMount", "mountPath") => Hint::Is(self.mount_path().into()),
            ("VolumeMount", "subPath") => {
                if random.percent(50) {
                    is(random.pick(&["n", "a/b", "..data/x", "012", "a b"]))
                } else {
                    Hint::Absent
                }
            }
            ("VolumeMount", "subPathExpr") => is("$(A)/b"),
            ("VolumeMount", "mountPropagation") => is(random.pick(&["None", "HostToContainer"])),
            ("VolumeMount", "recursiveReadOnly") => is(random.pick(&["Disabled", "IfPossible", "Enabled"])),
            ("VolumeDevice", "devicePath") => Hint::Is(self.unique("/dev/x").into()),
            // security
            ("SecurityContext", "procMount") => is(if random.percent(90) { "Default" } else { "Unmasked" }),
            ("SecurityContext" | "PodSecurityContext", "windowsOptions") => {
                if random.percent(15) {
                    Hint::Schema
                } else {
                    Hint::Absent
                }
            }
            ("WindowsSecurityContextOptions", "hostProcess") => is(false),
            ("WindowsSecurityContextOptions", "gmsaCredentialSpecName") => is(random.subdomain()),
            ("WindowsSecurityContextOptions", "gmsaCredentialSpec") => is(format!("x{}", random.text())),
            ("WindowsSecurityContextOptions", "runAsUserName") => {
                is(random.pick(&["ContainerUser", "NT AUTHORITY\\System", "n"]))
            }
            ("SeccompProfile" | "AppArmorProfile", "type") => {
                is(random.pick(&["RuntimeDefault", "Unconfined", "Localhost"]))
            }
            ("SeccompProfile" | "AppArmorProfile", "localhostProfile") => {
                is(random.pick(&["profiles/n.json", "y", "012", "a b"]))
            }
            ("PodSecurityContext", "fsGroupChangePolicy") => is(random.pick(&["Always", "OnRootMismatch"])),
            ("PodSecurityContext", "supplementalGroupsPolicy") => is(random.pick(&["Merge", "Strict"])),
            ("PodSecurityContext", "seLinuxChangePolicy") => {
                is(if random.percent(90) { "Recursive" } else { "MountOption" })
            }
            ("PodSecurityContext", "sysctls") => is(
                json!([{"name": random.pick(&["kernel.msgmax", "fs.mqueue.msg_max", "kernel/sem"]), "value": random.text()}]),
            ),
            // scheduling
            ("NodeSelectorRequirement" | "LabelSelectorRequirement", "key")
            | ("TopologySpreadConstraint" | "PodAffinityTerm", "topologyKey") => is(random.key()),
            ("NodeSelectorRequirement" | "LabelSelectorRequirement", "operator") => is(random.pick(&["In", "NotIn"])),
            ("NodeSelectorRequirement" | "LabelSelectorRequirement", "values") => is(json!([random.tag()])),
            ("NodeSelectorTerm", "matchFields") => {
                is(json!([{"key": "metadata.name", "operator": "In", "values": [self.node]}]))
            }
            ("NodeSelector", "nodeSelectorTerms") => is(
                json!([{"matchExpressions": [{"key": random.key(), "operator": "Exists"}]}, self.structure("NodeSelectorTerm", "")]),
            ),
            ("PreferredSchedulingTerm" | "WeightedPodAffinityTerm", "weight") => is(random.between(1, 100)),
            ("TopologySpreadConstraint", "maxSkew" | "minDomains") => is(random.between(1, 9)),
            ("TopologySpreadConstraint", "whenUnsatisfiable") => is("DoNotSchedule"),
            ("TopologySpreadConstraint", "nodeAffinityPolicy" | "nodeTaintsPolicy") => {
                is(random.pick(&["Honor", "Ignore"]))
            }
            // volumes
            ("EmptyDirVolumeSource", "medium") => is(random.pick(&["", "Memory"])),
            ("EmptyDirVolumeSource", "sizeLimit") => is(random.pick(&["1Mi", "0", "10G"])),
            ("HostPathVolumeSource", "type") => is(random.pick(&[
                "",
                "Directory",
                "DirectoryOrCreate",
                "File",
                "FileOrCreate",
                "Socket",
                "CharDevice",
                "BlockDevice",
            ])),
            ("HostPathVolumeSource", "path") => Hint::Is(self.path().into()),
            ("NFSVolumeSource" | "GlusterfsVolumeSource", "path") => Hint::Is(self.path().into()),
            ("ImageVolumeSource", "reference") => is("shop/data:n"),
            ("ServiceAccountTokenProjection" | "ClusterTrustBundleProjection", "path")
            | ("PodCertificateProjection", "certificateChainPath" | "keyPath" | "credentialBundlePath") => {
                Hint::Is(self.unique("p/f").into())
            }
            ("ServiceAccountTokenProjection", "expirationSeconds") => is(random.between(600, 7200)),
            ("ServiceAccountTokenProjection", "audience") => is(random.word(5)),
            ("ClusterTrustBundleProjection", "name") => {
                if random.percent(50) {
                    is(random.subdomain())
                } else {
                    Hint::Absent
                }
            }
            ("ClusterTrustBundleProjection" | "PodCertificateProjection", "signerName") => is("example.com/signer"),
            ("PodCertificateProjection", "keyType") => is(random.pick(&["RSA3072", "ECDSAP256", "ED25519"])),
            ("PodCertificateProjection", "maxExpirationSeconds") => is(random.between(3600, 80000)),
            ("PodCertificateProjection", "userAnnotations") => is(json!({"example.com/n": "y"})),
            ("CSIVolumeSource", "driver") => is(random.label()),
            ("EphemeralVolumeSource", "volumeClaimTemplate") => {
                is(json!({"metadata": {"labels": {"a": "b"}}, "spec": self.structure("PersistentVolumeClaimSpec", "")}))
            }
            ("PersistentVolumeClaimSpec", "resources") => is(json!({"requests": {"storage": "1Gi"}})),
            ("PersistentVolumeClaimSpec", "accessModes") => is(json!(["ReadWriteOnce"])),
            ("PersistentVolumeClaimSpec", "volumeMode") => is(random.pick(&["Filesystem", "Block"])),
            ("PersistentVolumeClaimSpec", "dataSource" | "dataSourceRef") => Hint::Absent,
            ("PersistentVolumeClaimSpec", "storageClassName" | "volumeName" | "volumeAttributesClassName") => {
                is(random.subdomain())
            }
            ("PersistentVolumeClaimVolumeSource", "claimName") => is(random.subdomain()),
            ("AzureDiskVolumeSource", "kind") => is("Shared"),
            ("AzureDiskVolumeSource", "cachingMode") => is(random.pick(&["None", "ReadOnly"])),
            ("AzureDiskVolumeSource", "diskURI") => is("https://blob/disk"),
            ("FlockerVolumeSource", "datasetUUID") => Hint::Absent,
            ("FlockerVolumeSource", "datasetName") => is(random.word(5)),
            ("FCVolumeSource" | "ISCSIVolumeSource", "lun") => is(random.between(0, 255)),
            ("FCVolumeSource", "targetWWNs") => is(json!(["500a0982991b8dc5"])),
            ("FCVolumeSource", "wwids") => Hint::Absent,
            ("GCEPersistentDiskVolumeSource" | "AWSElasticBlockStoreVolumeSource", "partition") => {
                is(random.between(0, 255))
            }
            ("GitRepoVolumeSource", "directory") => is("a/b"),
            ("ISCSIVolumeSource", "iqn") => is("iqn.2001-04.com.example:storage.kube.sys1.xyz"),
            ("ISCSIVolumeSource", "targetPortal") => is("10.0.0.1:3260"),
            ("ISCSIVolumeSource", "initiatorName") => is("iqn.2001-04.com.example:initiator"),
            ("QuobyteVolumeSource", "registry") => is("a:7861"),
            ("RBDVolumeSource" | "CephFSVolumeSource", "monitors") => is(json!(["10.0.0.1:6789"])),
            ("CephFSVolumeSource", "path") => is("/a"),
            ("StorageOSVolumeSource", "volumeName") => is(random.label()),
            ("StorageOSVolumeSource", "volumeNamespace") => is(random.label()),
            (_, "fsType") => is(random.pick(&["ext4", "n"])),
            _ => Hint::Schema,
        }
    }

    fn list(&mut self, kind: &str, field: &str) -> Value {
        let length = 1 + self.random.below(3);
        (0..length)
            .map(|_| self.item(kind, field).unwrap_or_else(|| self.random.text()))
            .map(Value::from)
            .collect()
    }

    fn path(&mut self) -> String {
        let text = self.random.text();
        if text.split('/').any(|part| part == "..") {
            "/a".into()
        } else {
            format!("/{text}")
        }
    }

    fn mount_path(&mut self) -> String {
        let nasty = self
            .random
            .pick(&["n", "a b", "é", "#", "- a", "012", "a\nb", "{"]);
        self.unique(&format!("/{nasty}/m"))
    }

    fn resources(&mut self, kind: &str) -> Value {
        let random = &mut self.random;
        let mut made = json!({});
        let amounts = [
            ("cpu", "100m", "1"),
            ("memory", "64Mi", "128Mi"),
            ("ephemeral-storage", "1Gi", "1Gi"),
        ];
        for (name, less, more) in amounts.iter().take(if kind == "PodSpec" { 2 } else { 3 }) {
            match random.below(4) {
                0 => made["requests"][name] = json!(less),
                1 => made["limits"][name] = json!(more),
                2 => {
                    made["requests"][name] = json!(less);
                    made["limits"][name] = json!(more);
                }
                _ => {}
            }
        }
        if !self.is_plain && kind == "Container" && random.percent(20) {
            made["limits"]["example.com/gpu"] = json!("1");
        }
        if !self.is_plain && kind == "Container" && random.percent(20) {
            made["limits"] = json!({"hugepages-2Mi": "4Mi", "cpu": "1"});
            made["requests"] = json!({"hugepages-2Mi": "4Mi"});
        }
        made
    }

    fn tolerations(&mut self) -> Value {
        let random = &mut self.random;
        match random.below(3) {
            0 => json!([{"operator": "Exists"}]),
            1 => {
                json!([{"key": random.key(), "operator": "Equal", "value": random.tag(), "effect": "NoSchedule"}])
            }
            _ => {
                json!([{"key": random.key(), "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": random.between(0, 300)}])
            }
        }
    }

    /// What one field demands of another.
    fn repair(&mut self, spec: &mut Value) {
        if self.host_network {
            spec["hostNetwork"] = json!(true);
        }
        let is_true = |value: &Value| value == &json!(true);
        if is_true(&spec["hostPID"]) {
            remove(spec, "shareProcessNamespace");
        }
        let on_host = ["hostNetwork", "hostPID", "hostIPC"]
            .iter()
            .any(|field| is_true(&spec[*field]));
        if !on_host && self.random.percent(10) {
            spec["hostUsers"] = json!(false);
        }
        if self.host_network || is_true(&spec["setHostnameAsFQDN"]) {
            remove(spec, "hostnameOverride");
        }
        if spec["dnsPolicy"] == "None" {
            spec["dnsConfig"] = json!({"nameservers": [self.random.address()]});
        }
        if spec["dnsConfig"].is_object() && self.random.percent(50) {
            spec["dnsConfig"]["options"] = json!([{"name": format!("n{}", self.random.text()), "value": self.random.text()}, {"name": "ndots"}]);
        }
        if let Some(selectors) = spec
            .pointer_mut("/affinity/nodeAffinity/preferredDuringSchedulingIgnoredDuringExecution")
            .and_then(Value::as_array_mut)
        {
            selectors.retain(|it| !it["preference"].as_object().is_none_or(Map::is_empty));
        }
        for kind in ["podAffinity", "podAntiAffinity"] {
            let Some(affinity) = spec.pointer_mut(&format!("/affinity/{kind}")) else {
                continue;
            };
            for term in terms(affinity) {
                for keys in ["matchLabelKeys", "mismatchLabelKeys"] {
                    if term[keys].is_array() && !term["labelSelector"].is_object() {
                        remove(term, keys);
                    }
                }
                let (one, other) = (
                    term["matchLabelKeys"].clone(),
                    term["mismatchLabelKeys"].clone(),
                );
                if one.is_array() && other.is_array() {
                    remove(term, "mismatchLabelKeys");
                }
            }
        }
        for (at, constraint) in array(&mut spec["topologySpreadConstraints"])
            .iter_mut()
            .enumerate()
        {
            constraint["topologyKey"] = json!(format!("zone-{at}"));
            if !constraint["labelSelector"].is_object() {
                remove(constraint, "matchLabelKeys");
            }
        }
        self.repair_security(spec, on_host);
        self.repair_volumes(spec);
        self.add_claim(spec);
        let claims: Vec<Value> = array(&mut spec["resourceClaims"])
            .iter()
            .map(|it| it["name"].clone())
            .collect();
        let volumes: Vec<(Value, bool, bool)> = array(&mut spec["volumes"])
            .iter()
            .map(|it| {
                (
                    it["name"].clone(),
                    it["persistentVolumeClaim"].is_object(),
                    it["emptyDir"].is_object(),
                )
            })
            .collect();
        let has_os = spec["os"].is_object();
        let users = spec["hostUsers"] == json!(false);
        for list in ["initContainers", "containers"] {
            let is_init = list == "initContainers";
            for container in array(&mut spec[list]) {
                self.repair_container(container, is_init, &claims, &volumes, has_os, users);
            }
        }
        let has_requests = spec["resources"].is_object();
        if has_requests && self.random.percent(50) {
            remove(spec, "resources");
        } else if has_requests {
            // a pod's own limits must not be below its containers'
            spec["resources"] = json!({"requests": {"cpu": "64", "memory": "64Gi"}, "limits": {"cpu": "64", "memory": "64Gi"}});
        }
        clean(spec);
    }

    fn repair_security(&mut self, spec: &mut Value, on_host: bool) {
        let has_os = spec["os"].is_object();
        let mut contexts: Vec<&mut Value> = Vec::new();
        let Some(object) = spec.as_object_mut() else {
            return;
        };
        for (key, value) in object.iter_mut() {
            match key.as_str() {
                "securityContext" => contexts.push(value),
                "containers" | "initContainers" => {
                    contexts.extend(
                        array(value)
                            .iter_mut()
                            .filter_map(|it| it.get_mut("securityContext")),
                    );
                }
                _ => {}
            }
        }
        for context in contexts {
            if on_host {
                remove(context, "sysctls");
            }
            for profile in ["seccompProfile", "appArmorProfile"] {
                let Some(profile) = context.get_mut(profile) else {
                    continue;
                };
                if profile["type"] == "Localhost" {
                    profile["localhostProfile"] =
                        json!(self.random.pick(&["profiles/n.json", "y", "012", "a b"]));
                } else {
                    remove(profile, "localhostProfile");
                }
            }
            if has_os {
                remove(context, "windowsOptions");
            }
            if context["privileged"] == json!(true) || context["capabilities"]["add"].is_array() {
                remove(context, "allowPrivilegeEscalation");
            }
        }
    }

    /// Devices belong to a claim, and by chance only one of 5000 pods has both.
    fn add_claim(&mut self, spec: &mut Value) {
        let has_devices = array(&mut spec["containers"])
            .iter()
            .any(|it| it["volumeDevices"].is_array());
        if has_devices && self.random.percent(10) {
            let claim = json!({"name": self.unique("claim-"), "persistentVolumeClaim": {"claimName": "data"}});
            array(&mut spec["volumes"]).push(claim);
        }
    }

    fn repair_volumes(&mut self, spec: &mut Value) {
        for volume in array(&mut spec["volumes"]) {
            let projected = volume
                .get_mut("projected")
                .and_then(|it| it.get_mut("sources"));
            for source in projected
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                if let Some(bundle) = source.get_mut("clusterTrustBundle") {
                    if bundle["name"].is_string() {
                        remove(bundle, "signerName");
                        remove(bundle, "labelSelector");
                    } else {
                        bundle["signerName"] = json!("example.com/signer");
                    }
                }
                if let Some(certificate) = source.get_mut("podCertificate") {
                    if certificate["credentialBundlePath"].is_string() {
                        remove(certificate, "keyPath");
                        remove(certificate, "certificateChainPath");
                    } else {
                        certificate["credentialBundlePath"] = json!("bundle.pem");
                        remove(certificate, "keyPath");
                        remove(certificate, "certificateChainPath");
                    }
                }
                repair_files(&mut source["downwardAPI"]);
            }
            repair_files(&mut volume["downwardAPI"]);
            clean(volume);
            if volume["iscsi"].is_object() {
                remove(&mut volume["iscsi"], "chapAuthDiscovery");
                remove(&mut volume["iscsi"], "chapAuthSession");
            }
            if volume["photonPersistentDisk"].is_object() {
                volume["photonPersistentDisk"]["pdID"] = json!("x");
            }
            for (kind, field) in [
                ("gitRepo", "repository"),
                ("nfs", "server"),
                ("glusterfs", "endpoints"),
            ] {
                if volume[kind].is_object() {
                    volume[kind][field] = json!(format!("x{}", self.random.text()));
                }
            }
            clean(volume);
            if volume.as_object().unwrap().len() == 1 {
                volume["emptyDir"] = json!({});
            }
        }
    }

    fn repair_container(
        &mut self,
        container: &mut Value,
        is_init: bool,
        claims: &[Value],
        volumes: &[(Value, bool, bool)],
        has_os: bool,
        users: bool,
    ) {
        let random = &mut self.random;
        let is_sidecar = is_init && random.percent(50);
        if is_init {
            remove(container, "restartPolicyRules");
            if is_sidecar {
                container["restartPolicy"] = json!("Always");
            } else {
                remove(container, "restartPolicy");
            }
            if !is_sidecar {
                container["resizePolicy"] = json!([]);
                for field in [
                    "livenessProbe",
                    "readinessProbe",
                    "startupProbe",
                    "lifecycle",
                ] {
                    remove(container, field);
                }
            }
        } else {
            let rules = container["restartPolicyRules"].is_array();
            if rules && random.percent(30) {
                container["restartPolicy"] = json!(random.pick(&["Always", "OnFailure", "Never"]));
                for rule in array(&mut container["restartPolicyRules"]) {
                    rule["action"] = json!("Restart");
                    if !rule["exitCodes"].is_object() {
                        rule["exitCodes"] = json!({"operator": "In", "values": [42]});
                    }
                }
            } else {
                remove(container, "restartPolicyRules");
                remove(container, "restartPolicy");
            }
        }
        if !has_os && container["lifecycle"].is_object() {
            remove(&mut container["lifecycle"], "stopSignal");
        }
        if container["lifecycle"] == json!({}) {
            remove(container, "lifecycle");
        }
        remove(
            &mut container["readinessProbe"],
            "terminationGracePeriodSeconds",
        );
        clean(container);
        if container["securityContext"]["procMount"] == "Unmasked" && !users {
            remove(&mut container["securityContext"], "procMount");
        }
        clean(container);
        if !claims.is_empty() && random.percent(60) {
            container["resources"]["claims"] = json!([{"name": claims[0]}]);
        }
        let mut names = BTreeSet::new();
        for port in array(&mut container["ports"]) {
            if !names.insert(port["name"].to_string()) {
                remove(port, "name");
            }
            if self.host_network && port["hostPort"].is_number() {
                port["hostPort"] = port["containerPort"].clone();
            }
        }
        if self.host_network {
            // each is a host port, and those must differ
            for port in array(&mut container["ports"]) {
                self.counter += 1;
                port["containerPort"] = json!(20000 + self.counter);
                if port["hostPort"].is_number() {
                    port["hostPort"] = port["containerPort"].clone();
                }
            }
        }
        let mounted = array(&mut container["volumeMounts"]);
        mounted.truncate(if volumes.is_empty() { 0 } else { 3 });
        for mount in mounted {
            mount["name"] = volumes[random.below(volumes.len())].0.clone();
            if mount["subPath"].is_string() {
                remove(mount, "subPathExpr");
            }
            if mount["recursiveReadOnly"].is_string() && mount["recursiveReadOnly"] != "Disabled" {
                mount["readOnly"] = json!(true);
                mount["mountPropagation"] = json!("None");
            }
        }
        let claim = volumes.iter().find(|(_, is_claim, _)| *is_claim);
        for device in array(&mut container["volumeDevices"]) {
            if let Some((name, ..)) = claim {
                device["name"] = name.clone();
            }
        }
        let mounts_claim = |container: &Value| {
            container["volumeMounts"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|it| Some(&it["name"]) == claim.map(|it| &it.0))
        };
        if claim.is_none() || mounts_claim(container) {
            remove(container, "volumeDevices");
        }
        let empty = volumes.iter().find(|(.., is_empty)| *is_empty);
        for entry in array(&mut container["env"]) {
            if entry["valueFrom"].is_object() {
                remove(entry, "value");
            }
            if entry["valueFrom"]["fileKeyRef"].is_object() {
                match empty {
                    Some((name, ..)) => {
                        entry["valueFrom"]["fileKeyRef"]["volumeName"] = name.clone();
                    }
                    None => remove(entry, "valueFrom"),
                }
            }
        }
        clean(container);
    }

    /// Makes one leaf something else: mostly an API server refuses that.
    fn spoil(&mut self, spec: &mut Value) {
        let mut at = spec;
        for _ in 0..8 {
            let length = match at {
                Value::Object(object) => object.len(),
                Value::Array(list) => list.len(),
                _ => break,
            };
            if length == 0 {
                break;
            }
            let index = self.random.below(length);
            at = match at {
                Value::Object(object) => object.iter_mut().nth(index).unwrap().1,
                Value::Array(list) => &mut list[index],
                _ => unreachable!("a leaf has no length"),
            };
        }
        *at = match at {
            Value::String(_) => json!(self.random.text()),
            Value::Number(_) => json!(-self.random.number()),
            _ => Value::Null,
        };
    }
}

fn remove(value: &mut Value, field: &str) {
    if let Some(object) = value.as_object_mut() {
        object.remove(field);
    }
}

fn array(value: &mut Value) -> &mut Vec<Value> {
    static NOTHING: Vec<Value> = Vec::new();
    match value {
        Value::Array(list) => list,
        other => {
            *other = Value::Array(NOTHING.clone());
            other.as_array_mut().unwrap()
        }
    }
}

/// Looking into an object leaves nulls behind; here they go.
fn clean(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.values_mut().for_each(clean);
            object.retain(|_, it| !it.is_null() && !it.as_array().is_some_and(Vec::is_empty));
        }
        Value::Array(list) => list.iter_mut().for_each(clean),
        _ => {}
    }
}

fn repair_files(source: &mut Value) {
    for file in source
        .get_mut("items")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if file["resourceFieldRef"].is_object() {
            file["resourceFieldRef"]["containerName"] = json!("x");
            remove(file, "resourceFieldRef");
        }
        file["fieldRef"] = json!({"fieldPath": "metadata.labels"});
    }
}

fn terms(affinity: &mut Value) -> Vec<&mut Value> {
    let Some(object) = affinity.as_object_mut() else {
        return Vec::new();
    };
    object
        .values_mut()
        .filter_map(Value::as_array_mut)
        .flatten()
        .map(|it| {
            if it.get("podAffinityTerm").is_some() {
                it.get_mut("podAffinityTerm").unwrap()
            } else {
                it
            }
        })
        .collect()
}
