//! What a pod knows of itself: the fields, addresses and the host name that may be in the
//! environment of its containers.

use k8s_openapi::api::core::v1::Pod;

use super::environment;

/// The fields of a pod that may be in a container's environment and never change, by path.
pub(super) fn fields(pod: &Pod, host_network: bool) -> environment::Environment {
    let (metadata, spec) = (&pod.metadata, pod.spec.as_ref());
    let mut fields = environment::Environment::new();
    let mut put = |path: &str, value: Option<&String>| {
        fields.extend(value.map(|value| (path.to_owned(), value.clone())));
    };
    put("metadata.name", metadata.name.as_ref());
    put("metadata.namespace", metadata.namespace.as_ref());
    put("metadata.uid", metadata.uid.as_ref());
    put(
        "spec.nodeName",
        spec.and_then(|spec| spec.node_name.as_ref()),
    );
    put(
        "spec.serviceAccountName",
        spec.and_then(|spec| spec.service_account_name.as_ref()),
    );
    let addresses = addresses(pod);
    // on the host network they are the node's addresses and would be literals, which must be the
    // ones of that time
    if !host_network && !addresses.one.is_empty() {
        put("status.podIP", Some(&addresses.one));
        put("status.podIPs", Some(&addresses.all));
    }
    fields
}

pub(super) fn addresses(pod: &Pod) -> environment::Addresses {
    let status = pod.status.as_ref();
    let all = status
        .and_then(|status| status.pod_ips.as_ref())
        .into_iter()
        .flatten();
    environment::Addresses {
        one: status
            .and_then(|status| status.pod_ip.clone())
            .unwrap_or_default(),
        all: all.map(|ip| ip.ip.clone()).collect::<Vec<_>>().join(","),
    }
}

/// What CRI-O sets HOSTNAME to; `None` if that is the node's name.
pub(super) fn hostname(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if spec.host_network == Some(true) || spec.set_hostname_as_fqdn == Some(true) {
        return None;
    }
    let given = spec
        .hostname_override
        .as_ref()
        .or(spec.hostname.as_ref())
        .filter(|name| !name.is_empty());
    let name = given.or(pod.metadata.name.as_ref())?;
    match name.get(..63) {
        Some(cut) if name.len() > 63 => Some(cut.trim_end_matches(['-', '.']).to_owned()),
        _ => Some(name.clone()),
    }
}
