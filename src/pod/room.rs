//! Room on a node, counted as the kubelet does when it admits a pod, so that it never gets a pod
//! that does not fit: a static pod is critical, and the kubelet would evict running pods for it
//! (pkg/kubelet/preemption/preemption.go).
//!
//! The rules follow upstream: requests of a pod (k8s.io/component-helpers, resource/helpers.go,
//! `PodRequests`), what must fit (k8s.io/kubernetes,
//! pkg/scheduler/framework/plugins/noderesources/fit.go, `Fits`) and host ports
//! (pkg/scheduler/framework/plugins/nodeports/node_ports.go).

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Amounts of resources that a node has and pods request. Extended resources and huge pages are
/// left out, because pods that request them are not captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Amounts {
    /// CPU in thousandths of a core.
    pub cpu: u64,
    /// Memory in bytes.
    pub memory: u64,
    /// Ephemeral storage in bytes.
    pub ephemeral_storage: u64,
    /// Number of pods.
    pub pods: u64,
}

/// A port of the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostPort {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// 1 to 65535.
    pub port: u16,
    /// The address it is bound to; empty for all addresses.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
}

impl HostPort {
    /// Whether the two cannot be in use on one node at the same time.
    fn conflicts(&self, other: &Self) -> bool {
        let same_address =
            self.address.is_empty() || other.address.is_empty() || self.address == other.address;
        self.port == other.port && self.protocol == other.protocol && same_address
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = if self.address.is_empty() {
            String::new()
        } else {
            format!("{}:", self.address)
        };
        write!(f, "{} port {address}{}", self.protocol, self.port)
    }
}

/// The resources and ports that pods take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Demand {
    /// Requests.
    pub requests: Amounts,
    /// Host ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<HostPort>,
}

impl Demand {
    /// What a pod with this `spec` takes.
    pub fn of(spec: &Value) -> Self {
        let containers = || list(spec, "containers");
        let inits = || list(spec, "initContainers");
        let is_sidecar =
            |init: &Value| init.get("restartPolicy").and_then(Value::as_str) == Some("Always");
        let requests = Amounts {
            cpu: amount(spec, "cpu", 1000),
            memory: amount(spec, "memory", 1),
            ephemeral_storage: amount(spec, "ephemeral-storage", 1),
            pods: 1,
        };
        let host_network = spec.get("hostNetwork").and_then(Value::as_bool) == Some(true);
        let long_lived = inits().filter(|init| is_sidecar(init)).chain(containers());
        let mut ports: Vec<HostPort> = long_lived
            .flat_map(|container| list(container, "ports"))
            .filter_map(|port| {
                let number = |name: &str| {
                    port.get(name)
                        .and_then(Value::as_u64)
                        .filter(|number| *number != 0)
                };
                // on the host network each port is a host port (pkg/apis/core/v1/defaults.go)
                let number = number("hostPort")
                    .or_else(|| number("containerPort").filter(|_| host_network))?;
                let text = |name: &str| port.get(name).and_then(Value::as_str).unwrap_or_default();
                let address = text("hostIP");
                Some(HostPort {
                    protocol: if text("protocol").is_empty() {
                        "TCP".into()
                    } else {
                        text("protocol").into()
                    },
                    port: number.try_into().ok()?,
                    address: if matches!(address, "0.0.0.0" | "::") {
                        String::new()
                    } else {
                        address.into()
                    },
                })
            })
            .collect();
        ports.sort();
        ports.dedup();
        Self { requests, ports }
    }

    /// Adds what another pod takes.
    pub fn add(&mut self, other: &Self) {
        let (all, one) = (&mut self.requests, &other.requests);
        all.cpu = all.cpu.saturating_add(one.cpu);
        all.memory = all.memory.saturating_add(one.memory);
        all.ephemeral_storage = all.ephemeral_storage.saturating_add(one.ephemeral_storage);
        all.pods = all.pods.saturating_add(one.pods);
        self.ports.extend(other.ports.iter().cloned());
        self.ports.sort();
        self.ports.dedup();
    }
}

/// What a node has, and how much of it is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// What the kubelet may allocate to pods; `None` if unknown, in which case only ports are
    /// checked.
    pub allocatable: Option<Amounts>,
    /// What the pods take that the kubelet has admitted.
    pub taken: Demand,
}

impl Room {
    /// What is missing for one more pod, in words; `None` if it fits.
    pub fn lacks(&self, wanted: &Demand) -> Option<String> {
        if let Some(port) = wanted
            .ports
            .iter()
            .find(|port| self.taken.ports.iter().any(|other| other.conflicts(port)))
        {
            return Some(format!("{port} of the node is in use by another pod"));
        }
        let has = self.allocatable?;
        let (wants, taken) = (&wanted.requests, &self.taken.requests);
        let each = [
            ("CPU (thousandths of a core)", wants.cpu, taken.cpu, has.cpu),
            ("memory (bytes)", wants.memory, taken.memory, has.memory),
            (
                "ephemeral storage (bytes)",
                wants.ephemeral_storage,
                taken.ephemeral_storage,
                has.ephemeral_storage,
            ),
            ("pods", wants.pods, taken.pods, has.pods),
        ];
        each.into_iter()
            .find(|(_, wants, taken, has)| *wants > 0 && taken.saturating_add(*wants) > *has)
            .map(|(what, wants, taken, has)| {
                format!("{what}: the pod requests {wants}, but {taken} of {has} are already taken")
            })
    }
}

/// Amounts of a node from the `status.allocatable` of its object; `None` if one is missing or not a
/// quantity.
pub fn allocatable(quantities: &BTreeMap<String, String>) -> Option<Amounts> {
    let amount = |name: &str, parts: u64| parse(quantities.get(name)?, parts);
    Some(Amounts {
        cpu: amount("cpu", 1000)?,
        memory: amount("memory", 1)?,
        // some nodes report none
        ephemeral_storage: amount("ephemeral-storage", 1).unwrap_or(u64::MAX),
        pods: amount("pods", 1)?,
    })
}

/// What a pod requests of one resource, in parts of a unit. That is the sum over its containers, or
/// the most that an init container and the sidecars before it need together, if that is more. A
/// request of the pod itself replaces this. The pod's overhead is added.
fn amount(spec: &Value, name: &str, parts: u64) -> u64 {
    let of = |container: &Value| {
        let resource = |kind: &str| {
            quantity(
                container.pointer(&format!("/resources/{kind}")),
                name,
                parts,
            )
        };
        // a limit without a request counts as the request
        resource("requests")
            .or_else(|| resource("limits"))
            .unwrap_or_default()
    };
    let mut running =
        list(spec, "containers").fold(0, |sum: u64, container| sum.saturating_add(of(container)));
    let (mut sidecars, mut starting) = (0_u64, 0_u64);
    for init in list(spec, "initContainers") {
        let one = of(init);
        if init.get("restartPolicy").and_then(Value::as_str) == Some("Always") {
            running = running.saturating_add(one);
            sidecars = sidecars.saturating_add(one);
            starting = starting.max(sidecars);
        } else {
            starting = starting.max(sidecars.saturating_add(one));
        }
    }
    let together = running.max(starting);
    let own = |kind: &str| quantity(spec.pointer(&format!("/resources/{kind}")), name, parts);
    let total = own("requests")
        .or_else(|| own("limits").filter(|_| together == 0))
        .unwrap_or(together);
    total.saturating_add(quantity(spec.get("overhead"), name, parts).unwrap_or_default())
}

fn list<'a>(object: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    object
        .get(name)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn quantity(of: Option<&Value>, name: &str, parts: u64) -> Option<u64> {
    match of?.get(name)? {
        Value::String(text) => parse(text, parts),
        Value::Number(number) => parse(&number.to_string(), parts),
        _ => None,
    }
}

/// A quantity in parts of a unit (1000: thousandths), rounded up (k8s.io/apimachinery,
/// pkg/api/resource/quantity.go). `None` if it is not a quantity or is negative. Saturates.
fn parse(text: &str, parts: u64) -> Option<u64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.' && c != '+')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(end)?;
    let (whole, fraction) = number
        .trim_start_matches('+')
        .split_once('.')
        .unwrap_or((number.trim_start_matches('+'), ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    // the powers of ten and of two that the suffix stands for
    let (ten, two): (i32, u32) = match suffix {
        "n" => (-9, 0),
        "u" => (-6, 0),
        "m" => (-3, 0),
        "" => (0, 0),
        "k" => (3, 0),
        "M" => (6, 0),
        "G" => (9, 0),
        "T" => (12, 0),
        "P" => (15, 0),
        "E" => (18, 0),
        "Ki" => (0, 10),
        "Mi" => (0, 20),
        "Gi" => (0, 30),
        "Ti" => (0, 40),
        "Pi" => (0, 50),
        "Ei" => (0, 60),
        exponent => (exponent.strip_prefix(['e', 'E'])?.parse().ok()?, 0),
    };
    let digits = format!("{whole}{fraction}");
    if digits.len() > 30 || ten.unsigned_abs() > 30 {
        return None;
    }
    let value: u128 = digits.parse().ok()?;
    let ten = ten.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let scaled = value
        .saturating_mul(1_u128.checked_shl(two)?)
        .saturating_mul(u128::from(parts));
    let power = 10_u128.checked_pow(ten.unsigned_abs())?;
    let amount = if ten >= 0 {
        scaled.saturating_mul(power)
    } else {
        scaled.div_ceil(power)
    };
    Some(u64::try_from(amount).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quantities_are_parsed_as_upstream_parses_them() {
        let cpu = [
            ("1", 1000),
            ("100m", 100),
            ("0.1", 100),
            ("1.5", 1500),
            ("2e3", 2_000_000),
            ("1u", 1),
            ("0", 0),
        ];
        for (text, expected) in cpu {
            assert_eq!(parse(text, 1000), Some(expected), "{text}");
        }
        let memory = [
            ("128Mi", 128 << 20),
            ("1G", 1_000_000_000),
            ("1.5Gi", 3 << 29),
            ("100m", 1),
            ("+7", 7),
            (".5Ki", 512),
        ];
        for (text, expected) in memory {
            assert_eq!(parse(text, 1), Some(expected), "{text}");
        }
        assert_eq!(parse("999999999999Ei", 1), Some(u64::MAX));
        for text in ["", "Mi", "-1", "1 Mi", "ten", "1e", "1Kib", "."] {
            assert_eq!(parse(text, 1), None, "{text}");
        }
    }

    #[test]
    fn a_pod_requests_what_it_needs_at_its_widest_moment() {
        let container = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let spec = json!({"containers": [container("100m"), container("200m")]});
        assert_eq!(
            Demand::of(&spec).requests,
            Amounts {
                cpu: 300,
                pods: 1,
                ..Amounts::default()
            }
        );
        let mut sidecar = container("50m");
        sidecar["restartPolicy"] = json!("Always");
        let with = |inits: Value| {
            let mut spec = spec.clone();
            spec["initContainers"] = inits;
            Demand::of(&spec).requests.cpu
        };
        assert_eq!(with(json!([container("250m")])), 300);
        assert_eq!(with(json!([container("900m")])), 900);
        assert_eq!(with(json!([sidecar, container("900m")])), 950);
        assert_eq!(with(json!([container("900m"), sidecar])), 900);
        assert_eq!(with(json!([sidecar])), 350);
    }

    #[test]
    fn limits_stand_in_for_requests_and_the_pods_own_for_its_containers() {
        let spec = json!({
            "overhead": {"memory": "1Ki"},
            "containers": [{"resources": {"limits": {"memory": "2Ki", "cpu": "1"}, "requests": {"cpu": "10m"}}}],
        });
        let requests = Demand::of(&spec).requests;
        assert_eq!((requests.cpu, requests.memory), (10, 3072));
        let mut whole = spec.clone();
        whole["resources"] = json!({"requests": {"memory": "5Ki"}});
        assert_eq!(Demand::of(&whole).requests.memory, 6144);
        assert_eq!(
            Demand::of(&json!({"resources": {"limits": {"cpu": "2"}}, "containers": [{}]}))
                .requests
                .cpu,
            2000
        );
    }

    #[test]
    fn host_ports_are_those_that_the_kubelet_counts() {
        let ports = |spec: Value| {
            Demand::of(&spec)
                .ports
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        let spec = json!({"containers": [{"ports": [{"containerPort": 80}, {"containerPort": 53, "hostPort": 53, "protocol": "UDP"}]}]});
        assert_eq!(ports(spec.clone()), ["UDP port 53"]);
        let mut host = spec;
        host["hostNetwork"] = json!(true);
        assert_eq!(ports(host), ["TCP port 80", "UDP port 53"]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let pod = |cpu: &str, port: u16, address: &str| {
            let ports = json!([{"containerPort": 1, "hostPort": port, "hostIP": address}]);
            Demand::of(
                &json!({"containers": [{"resources": {"requests": {"cpu": cpu}}, "ports": ports}]}),
            )
        };
        let allocatable = Amounts {
            cpu: 1000,
            memory: 1,
            ephemeral_storage: 1,
            pods: 2,
        };
        let mut room = Room {
            allocatable: Some(allocatable),
            taken: pod("600m", 80, "10.0.0.1"),
        };
        assert_eq!(room.lacks(&pod("400m", 81, "")), None);
        assert!(room.lacks(&pod("401m", 81, "")).unwrap().starts_with("CPU"));
        assert_eq!(room.lacks(&pod("1m", 80, "10.0.0.2")), None);
        assert_eq!(
            room.lacks(&pod("1m", 80, "0.0.0.0")).unwrap(),
            "TCP port 80 of the node is in use by another pod"
        );
        room.taken.add(&pod("1m", 82, ""));
        assert!(room.lacks(&pod("1m", 83, "")).unwrap().starts_with("pods"));
        room.allocatable = None;
        assert_eq!(
            room.lacks(&pod("9", 83, "")),
            None,
            "without knowing what the node has, only the kubelet can decide"
        );
    }

    #[test]
    fn what_a_node_can_allocate_comes_from_its_object() {
        let mut quantities: BTreeMap<String, String> =
            [("cpu", "1930m"), ("memory", "7Gi"), ("pods", "110")]
                .map(|(name, text)| (name.into(), text.into()))
                .into();
        let amounts = allocatable(&quantities).unwrap();
        assert_eq!(
            (amounts.cpu, amounts.memory, amounts.pods),
            (1930, 7 << 30, 110)
        );
        quantities.insert("cpu".into(), "many".into());
        assert_eq!(allocatable(&quantities), None);
    }
}
