//! What a pod's object alone says: whether it can be brought back, what its owner should know, and
//! how it is handed over.
//!
//! Pure. Fields of the spec that cannot be carried over are found in [`super::manifest`], which
//! maps them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, EnvVarSource, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::Reason;
use crate::checkpoint::{Handover, Owner, Policy};
use crate::names;
use crate::pod::names::is_name;
use crate::reasons::{Refusal, Warning};

/// The kubelet's default grace period in seconds (pkg/apis/core/v1/defaults.go).
const DEFAULT_GRACE: i64 = 30;
/// Longest name of a pod (RFC 1123 subdomain), and longest name of a file.
const LONGEST_NAME: usize = 253;
const LONGEST_FILE_NAME: usize = 255;
/// Length of a UID.
const UID: usize = 36;

/// Why this pod cannot be brought back, according to its kind, state, names and annotations.
pub fn reasons(pod: &Pod, node_name: &str) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let mut refuse = |refusal, detail: String| reasons.push(Reason { refusal, detail });
    let spec = pod.spec.clone().unwrap_or_default();
    let annotations = annotations(pod);

    let source = annotations
        .get(names::CONFIG_SOURCE)
        .filter(|source| *source != "api");
    if source.is_some()
        || annotations.contains_key(names::CONFIG_MIRROR)
        || owner(pod).is_some_and(|o| o.kind == "Node")
    {
        refuse(
            Refusal::MirrorOrStatic,
            "the kubelet runs it from a file".into(),
        );
    }
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    if pod.metadata.deletion_timestamp.is_some() {
        refuse(
            Refusal::Terminating,
            "metadata.deletionTimestamp is set".into(),
        );
    } else if let Some(phase @ ("Succeeded" | "Failed")) = phase {
        refuse(Refusal::Terminating, format!("status.phase is {phase}"));
    }
    if let Some(policy) = spec
        .restart_policy
        .as_deref()
        .filter(|policy| *policy != "Always")
    {
        refuse(
            Refusal::RestartPolicy,
            format!("spec.restartPolicy is {policy}"),
        );
    }
    let accepted = accepted(annotations);
    if is_stateful(pod) && !accepted.contains(&"stateful") {
        refuse(
            Refusal::StatefulSet,
            owner(pod).map(|owner| owner.name).unwrap_or_default(),
        );
    }
    if let Some(unknown) = accepted
        .iter()
        .find(|risk| !["stateful", "persistent-volume"].contains(*risk))
    {
        refuse(
            Refusal::InvalidAnnotation,
            format!(
                "{}: {unknown:?} is not a risk that can be accepted",
                names::ACCEPT
            ),
        );
    }
    if let Err(reason) = policy(pod) {
        reasons.extend(reason);
    }
    reasons.extend(names_that_do_not_fit(pod, node_name));
    reasons
}

/// The twin is `<name>-<node name>` (pkg/kubelet/config/common.go), and the directory of its logs
/// `<namespace>_<name>_<uid>` (pkg/kubelet/kuberuntime/helpers.go). Names become parts of paths, so
/// they are checked.
fn names_that_do_not_fit(pod: &Pod, node_name: &str) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let mut refuse = |detail: String| {
        reasons.push(Reason {
            refusal: Refusal::RejectedByKubeletRules,
            detail,
        });
    };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    for (field, value) in [("metadata.namespace", namespace), ("metadata.name", name)] {
        if !is_name(value) {
            refuse(format!("{field}: {value:?} is not a valid name"));
        }
    }
    let full = name.len() + 1 + node_name.len();
    if full > LONGEST_NAME {
        refuse(format!(
            "metadata.name: with the node's name it has {full} characters, but {LONGEST_NAME} are allowed"
        ));
    } else if namespace.len() + full + UID + 2 > LONGEST_FILE_NAME {
        refuse("metadata.name: namespace, name and the node's name do not fit into the name of a log directory".into());
    }
    reasons
}

fn annotations(pod: &Pod) -> &BTreeMap<String, String> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    pod.metadata.annotations.as_ref().unwrap_or(&NONE)
}

fn accepted(annotations: &BTreeMap<String, String>) -> Vec<&str> {
    let list = annotations
        .get(names::ACCEPT)
        .map(String::as_str)
        .unwrap_or_default();
    list.split(',')
        .map(str::trim)
        .filter(|risk| !risk.is_empty())
        .collect()
}

/// Whether the owner accepts this risk.
pub(super) fn accepts(pod: &Pod, risk: &str) -> bool {
    accepted(annotations(pod)).contains(&risk)
}

fn is_stateful(pod: &Pod) -> bool {
    owner(pod).is_some_and(|owner| owner.kind == "StatefulSet")
}

/// The controller of a pod.
pub fn owner(pod: &Pod) -> Option<Owner> {
    let controller = pod
        .metadata
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true))?;
    let OwnerReference {
        api_version: _,
        block_owner_deletion: _,
        controller: _,
        kind,
        name,
        uid,
    } = controller;
    Some(Owner {
        kind: kind.clone(),
        name: name.clone(),
        uid: uid.clone(),
    })
}

/// What the owner's annotations say about activation and hand-over; an error for each invalid
/// annotation.
pub fn policy(pod: &Pod) -> Result<Policy, Vec<Reason>> {
    let annotations = annotations(pod);
    let mut reasons = Vec::new();
    let mut refuse = |name: &str, value: &str, wanted: &str| {
        reasons.push(Reason {
            refusal: Refusal::InvalidAnnotation,
            detail: format!("{name}: {value:?} is not {wanted}"),
        });
    };
    let mut start_group = names::DEFAULT_START_GROUP;
    if let Some(value) = annotations.get(names::START_GROUP) {
        match value.parse() {
            Ok(group) => start_group = group,
            Err(_) => refuse(names::START_GROUP, value, "a whole number"),
        }
    }
    let mut max_age_seconds = None;
    if let Some(value) = annotations.get(names::MAX_AGE) {
        max_age_seconds = seconds(value);
        if max_age_seconds.is_none() {
            refuse(names::MAX_AGE, value, "a duration like 72h, 30m or 1h30m");
        }
    }
    let mut handover = None;
    if let Some(value) = annotations.get(names::HANDOVER) {
        match value.as_str() {
            "overlap" => handover = Some(Handover::Overlap),
            "switch" => handover = Some(Handover::Switch),
            _ => refuse(names::HANDOVER, value, "overlap or switch"),
        }
    }
    if !reasons.is_empty() {
        return Err(reasons);
    }
    let spec = pod.spec.clone().unwrap_or_default();
    let host_network = spec.host_network.unwrap_or_default();
    let grace = spec
        .termination_grace_period_seconds
        .unwrap_or(DEFAULT_GRACE);
    Ok(Policy {
        start_group,
        max_age_seconds,
        // two pods must not write to one volume at the same time, unless the owner allows it
        handover: handover.or(has_claim(&spec).then_some(Handover::Switch)),
        host_network,
        host_port: !host_network && has_host_port(&spec),
        stateful: is_stateful(pod),
        slow_start: starts_slowly(&spec),
        grace_seconds: grace.try_into().unwrap_or_default(),
    })
}

/// See [`Policy::slow_start`]. Volumes do not count: they are mounted before the sandbox is
/// created.
fn starts_slowly(spec: &PodSpec) -> bool {
    let reads_objects = |container: &Container| {
        let refers = |from: &EnvVarSource| {
            from.secret_key_ref.is_some() || from.config_map_key_ref.is_some()
        };
        container
            .env_from
            .as_ref()
            .is_some_and(|sources| !sources.is_empty())
            || container
                .env
                .iter()
                .flatten()
                .filter_map(|entry| entry.value_from.as_ref())
                .any(refers)
    };
    spec.init_containers
        .as_ref()
        .is_some_and(|inits| !inits.is_empty())
        || spec.containers.iter().any(reads_objects)
}

fn has_host_port(spec: &PodSpec) -> bool {
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .any(|port| port.host_port.unwrap_or_default() > 0)
}

fn has_claim(spec: &PodSpec) -> bool {
    spec.volumes
        .iter()
        .flatten()
        .any(|volume| volume.persistent_volume_claim.is_some())
}

/// Parses a duration as Go writes it, of hours, minutes and seconds; `None` if it is invalid or 0.
fn seconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let unit = after.chars().next()?;
        let seconds = match unit {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(seconds)?)?;
        rest = after.get(1..)?;
    }
    (total > 0).then_some(total)
}

/// What its owner should know about a recoverable pod, from its object alone.
pub fn warnings(pod: &Pod) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let spec = pod.spec.clone().unwrap_or_default();
    // a DaemonSet's pod and one without a controller cannot be started elsewhere
    if owner(pod).is_some_and(|owner| owner.kind != "DaemonSet") && !is_pinned(&spec) {
        warnings.push(Warning::MayBeRescheduled);
    }
    let projections = spec
        .volumes
        .iter()
        .flatten()
        .filter_map(|volume| volume.projected.as_ref());
    let sources: Vec<_> = projections
        .flat_map(|volume| volume.sources.iter().flatten())
        .collect();
    if sources
        .iter()
        .any(|source| source.service_account_token.is_some())
    {
        warnings.push(Warning::ServiceAccountToken);
    }
    if sources
        .iter()
        .any(|source| source.pod_certificate.is_some())
    {
        warnings.push(Warning::PodCertificate);
    }
    if spec
        .init_containers
        .iter()
        .flatten()
        .any(|container| container.restart_policy.as_deref() != Some("Always"))
    {
        warnings.push(Warning::InitContainersRunAgain);
    }
    warnings
}

const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";

/// Whether the pod can run on one node only. One of several required terms is enough for the
/// scheduler, so each of them must name the node.
fn is_pinned(spec: &PodSpec) -> bool {
    if spec
        .node_selector
        .as_ref()
        .is_some_and(|selector| selector.contains_key(HOSTNAME_LABEL))
    {
        return true;
    }
    let affinity = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|it| {
        it.required_during_scheduling_ignored_during_execution
            .as_ref()
    });
    let names_one = |requirements: &Option<Vec<NodeSelectorRequirement>>, wanted: &str| {
        requirements.iter().flatten().any(
            |NodeSelectorRequirement {
                 key,
                 operator,
                 values,
             }| {
                key == wanted
                    && operator == "In"
                    && values.as_ref().is_some_and(|values| values.len() == 1)
            },
        )
    };
    required.is_some_and(|required| {
        !required.node_selector_terms.is_empty()
            && required.node_selector_terms.iter().all(
                |NodeSelectorTerm {
                     match_expressions,
                     match_fields,
                 }| {
                    names_one(match_expressions, HOSTNAME_LABEL)
                        || names_one(match_fields, "metadata.name")
                },
            )
    })
}

#[cfg(test)]
#[path = "eligibility_tests.rs"]
mod tests;
