//! The settings of a `PodCheckpointer`, read and checked once: [`Checked`] is what the objects are
//! built from. Pure.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::DynamicObject;

use crate::api::podcheckpointer::{Encryption, LabelSelector, Metrics, PodCheckpointerSpec};
use crate::args::{self, Command};
use crate::metrics::address::Address;
use crate::pod::container;

/// Name of the only `PodCheckpointer`.
pub(crate) const DEFAULT: &str = "default";
/// The flag with which an agent leaves its node.
pub(crate) const RETIRE: &str = "--retire";
/// Where a retiring agent serves its health if the settings switch it off.
const RETIRING_ADDRESS: &str = "127.0.0.1:9797";

/// Why no agent can run with the settings of a `PodCheckpointer`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Invalid {
    /// A field cannot be read.
    #[error("spec.{path}: {message}")]
    Unreadable {
        /// The field, below `spec`.
        path: String,
        /// What is wrong with it.
        message: String,
    },
    /// An agent refuses to start with the flags that these settings become.
    #[error("no agent starts with these settings: {0}")]
    Refused(String),
}

/// The spec of a `PodCheckpointer`; without one, every setting has its default.
pub(crate) fn spec(object: &DynamicObject) -> Result<PodCheckpointerSpec, Invalid> {
    let Some(spec) = object.data.get("spec") else {
        return Ok(PodCheckpointerSpec::default());
    };
    serde_path_to_error::deserialize(spec).map_err(|error| Invalid::Unreadable {
        path: error.path().to_string(),
        message: error.inner().to_string(),
    })
}

/// Image of agent and supervisor: the one in the spec, or else the one of the flag `--image`.
/// `None`: neither names one.
pub(crate) fn image<'a>(spec: &'a PodCheckpointerSpec, flag: Option<&'a str>) -> Option<&'a str> {
    spec.image.as_deref().or(flag)
}

/// Settings with which agents can run, and what follows from them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Checked {
    spec: PodCheckpointerSpec,
    image: String,
    address: Address,
    arguments: Vec<String>,
}

impl Checked {
    /// Checks a spec. `image` is the one that agents run, see [`image`].
    pub(crate) fn new(spec: PodCheckpointerSpec, image: String) -> Result<Self, Invalid> {
        let address = metrics_address(&spec)?;
        let arguments = arguments(&spec);
        Ok(Self {
            spec,
            image,
            address,
            arguments,
        })
    }

    /// The same for agents that leave their nodes, which never fails: of settings with which no
    /// agent would start, only those remain that say on which nodes agents run. All agents are
    /// replaced at once, so that a node that is cut off does not hold up the others. Each serves
    /// its health, because its readiness says that the node is left.
    pub(crate) fn retiring(spec: PodCheckpointerSpec, image: String) -> Self {
        let mut spec = match metrics_address(&spec) {
            Ok(_) => spec,
            Err(_) => PodCheckpointerSpec {
                node_selector: spec.node_selector,
                tolerations: spec.tolerations,
                ..PodCheckpointerSpec::default()
            },
        };
        if metrics_address(&spec).is_ok_and(|address| address == Address::Off) {
            spec.metrics = Some(Metrics {
                address: Some(RETIRING_ADDRESS.into()),
                pod_monitor: false,
            });
        }
        spec.max_unavailable = Some(IntOrString::String("100%".into()));
        let address = metrics_address(&spec).unwrap_or(Address::Off);
        let mut arguments = arguments(&spec);
        arguments.push(RETIRE.into());
        Self {
            spec,
            image,
            address,
            arguments,
        }
    }

    /// The spec, whose `image` may be absent.
    pub(crate) fn spec(&self) -> &PodCheckpointerSpec {
        &self.spec
    }

    /// Image of agent and supervisor.
    pub(crate) fn image(&self) -> &str {
        &self.image
    }

    /// The `args` of an agent's container.
    pub(crate) fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// The port at which agents serve metrics and health; `None`: they serve neither.
    pub(crate) fn metrics_port(&self) -> Option<u16> {
        match self.address {
            Address::Off => None,
            Address::All(port) => Some(port),
            Address::At(address) => Some(address.port()),
        }
    }

    /// The port, if metrics can be scraped from outside the node.
    pub(crate) fn scraped_port(&self) -> Option<u16> {
        let is_local = matches!(self.address, Address::At(address) if address.ip().is_loopback());
        self.metrics_port().filter(|_| !is_local)
    }

    /// The host at which the kubelet, on the network of the node, finds an agent's health.
    pub(crate) fn probed_host(&self) -> String {
        match self.address {
            Address::Off | Address::All(_) => "127.0.0.1".into(),
            Address::At(address) => address.ip().to_string(),
        }
    }
}

/// The agent's flags for all settings that are not left at their defaults, each a name and a value.
fn flags(spec: &PodCheckpointerSpec) -> Vec<(&'static str, String)> {
    let PodCheckpointerSpec {
        image: _,
        node_selector: _,
        tolerations: _,
        namespace_selector,
        select,
        namespaces,
        early_namespaces,
        activation_delay,
        retention,
        max_age,
        planned_outage,
        encryption,
        metrics,
        resources: _,
        max_unavailable: _,
    } = spec;
    let selector = |selector: &LabelSelector| selector.selector().to_string();
    let mut flags = Vec::new();
    if !namespaces.is_empty() {
        flags.push(("namespaces", namespaces.join(",")));
    }
    flags.extend(
        early_namespaces
            .iter()
            .map(|given| ("early-namespaces", given.join(","))),
    );
    flags.extend(
        namespace_selector
            .iter()
            .map(|given| ("namespace-selector", selector(given))),
    );
    flags.extend(select.iter().map(|given| ("select", selector(given))));
    let key_file = encryption.as_ref().map(|Encryption { key_file }| key_file);
    let address = metrics.as_ref().and_then(
        |Metrics {
             address,
             pod_monitor: _,
         }| address.as_ref(),
    );
    let others = [
        ("activation-delay", activation_delay.as_ref()),
        ("retention", retention.as_ref()),
        ("max-age", max_age.as_ref()),
        ("planned-outage", planned_outage.as_ref()),
        ("key-file", key_file),
        ("metrics-address", address),
    ];
    flags.extend(
        others
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?.clone()))),
    );
    flags
}

fn arguments(spec: &PodCheckpointerSpec) -> Vec<String> {
    let flags = flags(spec)
        .into_iter()
        .map(|(name, value)| container::flag(name, &value));
    std::iter::once("agent".to_owned()).chain(flags).collect()
}

/// Where an agent with these settings serves metrics and health. The program's own command line
/// checks them all: it decides with which flags an agent starts.
fn metrics_address(spec: &PodCheckpointerSpec) -> Result<Address, Invalid> {
    let flags = flags(spec)
        .into_iter()
        .map(|(name, value)| format!("--{name}={value}"));
    let command = ["pod-checkpointer", "agent"].map(str::to_owned);
    match args::read(command.into_iter().chain(flags)) {
        Ok(Command::Agent(agent)) => Ok(agent.metrics_address),
        Ok(_) => Err(Invalid::Refused("they are not an agent's".into())),
        Err(error) => Err(Invalid::Refused(error)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn with_address(address: &str) -> PodCheckpointerSpec {
        let metrics = Some(Metrics {
            address: Some(address.into()),
            pod_monitor: false,
        });
        PodCheckpointerSpec {
            metrics,
            ..PodCheckpointerSpec::default()
        }
    }

    #[test]
    fn a_spec_that_is_not_understood_is_named_with_its_path() {
        let object = |spec: Value| {
            serde_json::from_value(json!({"metadata": {"name": "default"}, "spec": spec})).unwrap()
        };
        assert_eq!(
            spec(&object(json!({"maxAge": "72h"})))
                .unwrap()
                .max_age
                .as_deref(),
            Some("72h")
        );
        let error = spec(&object(json!({"metrics": {"podMonitor": "yes"}})))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("spec.metrics.podMonitor: "), "{error}");
    }

    #[test]
    fn settings_with_which_no_agent_would_start_are_refused_with_the_agents_message() {
        let spec = |change: fn(&mut PodCheckpointerSpec)| {
            let mut spec = PodCheckpointerSpec::default();
            change(&mut spec);
            Checked::new(spec, "x".into()).unwrap_err().to_string()
        };
        for (said, flag) in [
            (
                spec(|spec| spec.activation_delay = Some("soon".into())),
                "--activation-delay",
            ),
            (spec(|spec| spec.max_age = Some("0s".into())), "--max-age"),
            (
                spec(|spec| {
                    spec.encryption = Some(Encryption {
                        key_file: "key".into(),
                    });
                }),
                "--key-file",
            ),
            (
                spec(|spec| spec.select = vec![LabelSelector::default()]),
                "--select",
            ),
            (
                spec(|spec| spec.metrics = with_address("nowhere").metrics),
                "--metrics-address",
            ),
        ] {
            assert!(said.contains(flag), "{said}");
        }
    }

    #[test]
    fn the_image_of_the_spec_comes_before_that_of_the_flag() {
        let named = PodCheckpointerSpec {
            image: Some("shop/own:2".into()),
            ..PodCheckpointerSpec::default()
        };
        let unnamed = PodCheckpointerSpec::default();
        assert_eq!(image(&named, Some("shop/flag:1")), Some("shop/own:2"));
        assert_eq!(image(&unnamed, Some("shop/flag:1")), Some("shop/flag:1"));
        assert_eq!(image(&unnamed, None), None);
    }

    #[test]
    fn agents_that_leave_run_on_the_same_nodes_whatever_else_the_settings_say_and_serve_their_health()
     {
        let node_selector = [("site".to_owned(), "edge".to_owned())].into();
        let broken = PodCheckpointerSpec {
            node_selector,
            activation_delay: Some("soon".into()),
            max_age: Some("72h".into()),
            ..PodCheckpointerSpec::default()
        };
        let retiring = Checked::retiring(broken, "x".into());
        assert_eq!(retiring.arguments(), ["agent", "--retire"]);
        assert_eq!(retiring.spec().node_selector["site"], "edge");
        assert_eq!(
            retiring.spec().max_unavailable,
            Some(IntOrString::String("100%".into()))
        );
        assert_eq!(retiring.metrics_port(), Some(9797));
        let off = Checked::retiring(with_address("off"), "x".into());
        assert_eq!(
            off.arguments(),
            ["agent", "--metrics-address=127.0.0.1:9797", "--retire"]
        );
        assert_eq!((off.metrics_port(), off.scraped_port()), (Some(9797), None));
    }
}
