//! The environment that the kubelet would give to a container that does not run yet.

use std::cell::RefCell;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVar, EnvVarSource, Pod};

use super::workload::SUFFIX;
use crate::capture::environment::{self, Addresses, Environment};

/// The environments of the containers of a pod that a `kind` creates; a note for each that is not
/// known.
pub(super) fn environments(
    pod: &Pod,
    kind: &str,
    notes: &mut Vec<String>,
) -> BTreeMap<String, Vec<EnvVar>> {
    let Some(spec) = &pod.spec else {
        return BTreeMap::new();
    };
    let addresses = Addresses {
        one: "<address of the pod>".into(),
        all: "<addresses of the pod, separated by commas>".into(),
    };
    let host_network = spec.host_network.unwrap_or_default();
    let mut found = BTreeMap::new();
    for container in spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
    {
        let expected = expected(pod, container, kind == "Pod", host_network, &addresses);
        match environment::render(container, &expected, host_network, &addresses) {
            Ok(environment) => {
                found.insert(container.name.clone(), environment);
            }
            Err(error) => {
                let name = &container.name;
                notes.push(format!(
                    "the environment of container {name} is unknown until it runs: {error}"
                ));
            }
        }
    }
    found
}

/// Variables of the API server's own Service, which every container gets (pkg/kubelet/envvars).
const SERVICE: [(&str, &str); 2] = [
    ("KUBERNETES_SERVICE_HOST", "address"),
    ("KUBERNETES_SERVICE_PORT", "port"),
];

/// The variables that the kubelet would give to a container, with text in angle brackets for
/// unknown values.
fn expected(
    pod: &Pod,
    container: &Container,
    is_pod: bool,
    host_network: bool,
    addresses: &Addresses,
) -> Environment {
    let mut found: Environment = SERVICE
        .iter()
        .map(|(name, what)| {
            (
                (*name).to_owned(),
                format!("<captured: {what} of Service kubernetes>"),
            )
        })
        .collect();
    if pod.spec.as_ref().and_then(|spec| spec.enable_service_links) != Some(false) {
        let each = "<captured: the variables of each Service of the namespace>";
        found.insert("each-variable-of.Services".into(), each.into());
    }
    for EnvFromSource {
        config_map_ref,
        prefix,
        secret_ref,
    } in container.env_from.iter().flatten()
    {
        let prefix = prefix.as_deref().unwrap_or_default();
        let config_map = config_map_ref
            .as_ref()
            .map(|it| ("ConfigMap", it.name.as_str(), it.optional));
        let secret = secret_ref
            .as_ref()
            .map(|it| ("Secret", it.name.as_str(), it.optional));
        for (kind, name, optional) in config_map.into_iter().chain(secret) {
            let value = format!(
                "<captured: the value of each key of {kind} {name}{}>",
                if_there(optional)
            );
            found.insert(format!("{prefix}each-key-of.{kind}.{name}"), value);
        }
    }
    let has_env_from = container
        .env_from
        .as_ref()
        .is_some_and(|sources| !sources.is_empty());
    for entry in container.env.iter().flatten() {
        let value = match (
            entry.value.as_deref().unwrap_or_default(),
            &entry.value_from,
        ) {
            ("", Some(source)) => of_source(
                pod,
                source,
                &container.name,
                is_pod,
                host_network,
                addresses,
            ),
            (value, _) => {
                let unknown = RefCell::new(Vec::new());
                let look_up = |name: &str| {
                    let known = found.get(name).map(String::as_str);
                    if known.is_none() {
                        unknown.borrow_mut().push(name.to_owned());
                    }
                    known
                };
                environment::expand(value, look_up);
                for name in unknown.into_inner() {
                    if has_env_from || is_of_service(&name) {
                        let text = format!(
                            "<captured: {name}, if a Service, Secret or ConfigMap gives it>"
                        );
                        found.insert(name, text);
                    }
                }
                environment::expand(value, |name| found.get(name).map(String::as_str))
            }
        };
        found.insert(entry.name.clone(), value);
    }
    found
}

fn is_of_service(name: &str) -> bool {
    ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"]
        .iter()
        .any(|mark| name.contains(mark))
}

fn if_there(optional: Option<bool>) -> &'static str {
    if optional == Some(true) {
        ", if it exists"
    } else {
        ""
    }
}

fn of_source(
    pod: &Pod,
    source: &EnvVarSource,
    container: &str,
    is_pod: bool,
    host_network: bool,
    addresses: &Addresses,
) -> String {
    let EnvVarSource {
        config_map_key_ref,
        field_ref,
        file_key_ref,
        resource_field_ref,
        secret_key_ref,
    } = source;
    if let Some(it) = config_map_key_ref {
        return format!(
            "<captured: key {} of ConfigMap {}{}>",
            it.key,
            it.name,
            if_there(it.optional)
        );
    }
    if let Some(it) = secret_key_ref {
        return format!(
            "<captured: key {} of Secret {}{}>",
            it.key,
            it.name,
            if_there(it.optional)
        );
    }
    if let Some(it) = file_key_ref {
        let there = if_there(it.optional);
        return format!(
            "<captured: key {} of file {} in volume {}{there}>",
            it.key, it.path, it.volume_name
        );
    }
    if let Some(it) = resource_field_ref {
        let container = it
            .container_name
            .as_deref()
            .filter(|name| !name.is_empty())
            .unwrap_or(container);
        return format!("<captured: {} of container {container}>", it.resource);
    }
    let path = field_ref
        .as_ref()
        .map(|field| field.field_path.as_str())
        .unwrap_or_default();
    match path {
        "status.podIP" if !host_network => return addresses.one.clone(),
        "status.podIPs" if !host_network => return addresses.all.clone(),
        _ => {}
    }
    known_field(pod, path, is_pod).unwrap_or_else(|| format!("<captured: {path} of the pod>"))
}

/// The value of a field, if the pod's object already has the final one.
fn known_field(pod: &Pod, path: &str, is_pod: bool) -> Option<String> {
    let metadata = &pod.metadata;
    match path {
        "metadata.name" if is_pod => metadata.name.clone().filter(|name| !name.ends_with(SUFFIX)),
        "metadata.namespace" => metadata.namespace.clone(),
        "spec.serviceAccountName" => pod.spec.as_ref()?.service_account_name.clone(),
        _ => {
            let keyed = |prefix: &str| path.strip_prefix(prefix)?.strip_suffix("']");
            let (map, key) = match (keyed("metadata.labels['"), keyed("metadata.annotations['")) {
                (Some(key), _) => (&metadata.labels, key),
                (_, Some(key)) => (&metadata.annotations, key),
                _ => return None,
            };
            map.as_ref()?
                .get(key)
                .filter(|value| !value.contains(SUFFIX))
                .cloned()
        }
    }
}
