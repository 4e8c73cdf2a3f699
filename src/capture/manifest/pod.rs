//! The fields of the pod itself; containers and volumes have modules of their own.

use k8s_openapi::api::core::v1::{
    HostAlias, PodDNSConfig, PodDNSConfigOption, PodOS, PodSpec, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::container::{Role, Setting};
use super::{Answers, Mapping, keep, security};
use crate::names;
use crate::reasons::Refusal;

/// Longest hostname (pkg/kubelet/kubelet_pods.go, `truncatePodHostnameIfNeeded`).
const LONGEST_HOSTNAME: usize = 63;
/// The kubelet's default (pkg/apis/core/v1/defaults.go).
const DEFAULT_GRACE: i64 = 30;

impl Mapping<'_> {
    pub(super) fn spec(&mut self, spec: &PodSpec, name: &str) -> PodSpec {
        let identity = self.hostname(spec, name);
        let PodSpec {
            active_deadline_seconds: _,
            affinity: _,
            automount_service_account_token: _,
            containers,
            dns_config,
            dns_policy,
            enable_service_links: _,
            ephemeral_containers: _,
            host_aliases,
            host_ipc,
            host_network,
            host_pid,
            host_users,
            hostname: _,
            hostname_override: _,
            image_pull_secrets: _,
            init_containers,
            node_name: _,
            node_selector: _,
            os,
            overhead,
            preemption_policy: _,
            priority,
            priority_class_name,
            readiness_gates: _,
            resource_claims,
            resources,
            restart_policy,
            runtime_class_name,
            scheduler_name: _,
            scheduling_gates: _,
            scheduling_group: _,
            security_context,
            service_account: _,
            service_account_name: _,
            set_hostname_as_fqdn: _,
            share_process_namespace,
            subdomain,
            termination_grace_period_seconds,
            tolerations: _,
            topology_spread_constraints: _,
            volumes,
        } = spec;
        for claim in resource_claims.iter().flatten() {
            self.refuse(
                Refusal::ResourceClaim,
                format!("spec.resourceClaims[{}]", claim.name),
            );
        }
        if let Some(class) = runtime_class_name
            .as_ref()
            .filter(|class| !class.is_empty())
        {
            self.runtime_class(class);
        }
        if let Some(PodOS { name }) = os.as_ref().filter(|os| os.name != "linux") {
            self.refuse(
                Refusal::RejectedByKubeletRules,
                format!("spec.os.name: {name}"),
            );
        }
        let grace = termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE);
        let is_raised = containers.iter().any(super::container::is_held);
        let setting = Setting {
            host_network: host_network.unwrap_or_default(),
            grace_of_parent: is_raised.then_some(grace),
            read_only: self.read_only(spec),
        };
        let mut map = |list: &[_], role: Role| {
            list.iter()
                .map(|container| self.container(container, role, &setting))
                .collect::<Vec<_>>()
        };
        let containers = map(containers, Role::Main);
        let init_containers = init_containers.as_ref().map(|list| map(list, Role::Init));
        PodSpec {
            active_deadline_seconds: None,
            affinity: None,
            automount_service_account_token: Some(false),
            containers,
            dns_config: dns_config.as_ref().map(dns),
            dns_policy: dns_policy.clone(),
            enable_service_links: Some(false),
            ephemeral_containers: None,
            host_aliases: host_aliases.as_ref().map(|list| {
                list.iter()
                    .map(|it| keep!(it, HostAlias { hostnames, ip }))
                    .collect()
            }),
            host_ipc: *host_ipc,
            host_network: *host_network,
            host_pid: *host_pid,
            host_users: *host_users,
            hostname: identity.hostname,
            hostname_override: identity.hostname_override,
            image_pull_secrets: None,
            init_containers,
            node_name: None,
            node_selector: None,
            os: os.as_ref().map(|it| keep!(it, PodOS { name })),
            // part of the pod's cgroup, even without the runtime class that set it
            // (pkg/kubelet/cm/helpers_linux.go)
            overhead: overhead.clone(),
            preemption_policy: None,
            // differs from the class's number, so that the API server refuses a mirror pod; the OOM
            // score depends on the class's name
            priority: Some(priority.unwrap_or_default().saturating_add(1)),
            priority_class_name: priority_class_name.clone(),
            readiness_gates: None,
            resource_claims: None,
            resources: resources
                .as_ref()
                .map(|it| self.resources(it, "spec.resources")),
            restart_policy: restart_policy.clone(),
            runtime_class_name: None,
            scheduler_name: None,
            scheduling_gates: None,
            scheduling_group: None,
            security_context: security_context.as_ref().map(security::of_pod),
            service_account: None,
            service_account_name: None,
            set_hostname_as_fqdn: identity.set_hostname_as_fqdn,
            share_process_namespace: *share_process_namespace,
            subdomain: subdomain.clone(),
            termination_grace_period_seconds: if is_raised {
                Some(grace.saturating_add(names::HOLD_SECONDS))
            } else {
                *termination_grace_period_seconds
            },
            tolerations: None,
            topology_spread_constraints: None,
            volumes: volumes
                .as_ref()
                .map(|list| list.iter().map(|volume| self.volume(volume)).collect()),
        }
    }

    /// The kubelet looks a class up in the API server (pkg/kubelet/runtimeclass), so a twin has
    /// none. That is equivalent only if the class leads to the handler that a pod without a class
    /// gets.
    fn runtime_class(&mut self, class: &str) {
        let path = format!("spec.runtimeClassName: {class}");
        match &self.live.answers {
            Answers::Nothing => self.refuse(
                Refusal::RuntimeClass,
                format!("{path}: only its node knows its handler"),
            ),
            Answers::All {
                handler: Err(handler),
                ..
            } => {
                self.refuse(Refusal::RuntimeClass, format!("{path}: {handler}"));
            }
            Answers::Later
            | Answers::All {
                handler: Ok(()), ..
            } => {}
        }
    }

    /// A twin's name ends in the node's name, so a hostname that comes from the pod's name is set
    /// explicitly: as `hostname` if that is valid, else as `hostnameOverride`, which may contain
    /// dots but excludes subdomain and FQDN (pkg/kubelet/kubelet_pods.go,
    /// `GeneratePodHostNameAndDomain`).
    fn hostname(&mut self, spec: &PodSpec, name: &str) -> Identity {
        let as_is = Identity {
            hostname: spec.hostname.clone(),
            hostname_override: spec.hostname_override.clone(),
            set_hostname_as_fqdn: spec.set_hostname_as_fqdn,
        };
        let is_given = spec.hostname.as_ref().is_some_and(|it| !it.is_empty())
            || spec.hostname_override.is_some();
        if is_given || spec.host_network == Some(true) {
            return as_is;
        }
        let effective = match name.get(..LONGEST_HOSTNAME) {
            Some(cut) if name.len() > LONGEST_HOSTNAME => cut.trim_end_matches(['-', '.']),
            _ => name,
        };
        if !effective.contains('.') {
            return Identity {
                hostname: Some(effective.to_owned()),
                ..as_is
            };
        }
        if spec.subdomain.as_ref().is_some_and(|it| !it.is_empty()) {
            let detail = "spec.hostname: must be set if the pod's name contains dots and spec.subdomain is set";
            self.refuse(Refusal::RejectedByKubeletRules, detail);
        }
        // without a subdomain the FQDN is the hostname
        Identity {
            hostname: None,
            hostname_override: Some(effective.to_owned()),
            set_hostname_as_fqdn: None,
        }
    }

    /// Keeps limits and requests: the OOM score and the cgroup's shares depend on them.
    pub(super) fn resources(
        &mut self,
        resources: &ResourceRequirements,
        path: &str,
    ) -> ResourceRequirements {
        let ResourceRequirements {
            claims,
            limits,
            requests,
        } = resources;
        for claim in claims.iter().flatten() {
            self.refuse(
                Refusal::ResourceClaim,
                format!("{path}.claims[{}]", claim.name),
            );
        }
        let mut seen = std::collections::BTreeSet::new();
        for (name, Quantity(amount)) in limits.iter().flatten().chain(requests.iter().flatten()) {
            if amount == "0" || !seen.insert(name) {
                continue;
            }
            if name.starts_with("hugepages-") {
                self.refuse(Refusal::HugePages, format!("{path}: {name}"));
            } else if is_extended(name) {
                self.refuse(Refusal::ExtendedResource, format!("{path}: {name}"));
            }
        }
        ResourceRequirements {
            claims: None,
            limits: limits.clone(),
            requests: requests.clone(),
        }
    }
}

struct Identity {
    hostname: Option<String>,
    hostname_override: Option<String>,
    set_hostname_as_fqdn: Option<bool>,
}

/// Whether the resource is not one of Kubernetes' own (pkg/apis/core/v1/helper,
/// `IsExtendedResourceName`).
fn is_extended(name: &str) -> bool {
    name.split_once('/')
        .is_some_and(|(domain, _)| domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io"))
}

fn dns(config: &PodDNSConfig) -> PodDNSConfig {
    let PodDNSConfig {
        nameservers,
        options,
        searches,
    } = config;
    let option = |it: &PodDNSConfigOption| keep!(it, PodDNSConfigOption { name, value });
    PodDNSConfig {
        nameservers: nameservers.clone(),
        options: options
            .as_ref()
            .map(|list| list.iter().map(option).collect()),
        searches: searches.clone(),
    }
}
