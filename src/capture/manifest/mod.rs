//! From a parent to its static pod, field by field.
//!
//! Pure. Every structure is destructured without `..`, so code for a new field of the types does
//! not compile until the field has a rule. What a static pod must not have is dropped, made
//! concrete, or a reason to refuse the pod; all reasons are collected. The rules rest on
//! pkg/api/pod/util.go (`HasAPIObjectReference`), pkg/kubelet/config/common.go and
//! pkg/apis/core/validation.
//!
//! # Keeping a twin alive at the hand-over
//!
//! When the manifest is removed the kubelet stops the twin, but the parent needs a moment longer to
//! start. So each container without a `preStop` hook gets one that sleeps for
//! [`names::HOLD_SECONDS`] (it is "held"), and the pod's grace period is longer by the same time.
//! The supervisor stops the containers through the runtime once they are no longer needed.
//!
//! - A failed liveness or startup probe must not wait for that. The kubelet gives hook and process
//!   together the probe's `terminationGracePeriodSeconds`
//!   (pkg/kubelet/kuberuntime/kuberuntime_container.go, `killContainer`), and the sleep uses all of
//!   it. So it is 1 on a container that is held: a container that fails its probe has two seconds
//!   after SIGTERM (`minimumGracePeriodInSeconds`). On a container that is not held it is the
//!   parent's grace period, because the twin's own is longer.
//! - Sidecars get no hook: the kubelet stops them after every other container has ended
//!   (pkg/kubelet/kuberuntime/kuberuntime_termination_order.go), so they are kept alive by the
//!   others' hooks.

mod container;
mod pod;
mod security;
mod volume;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{EnvVar, Pod, PodCondition, PodStatus, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Reason;
use super::claims::Place;
use super::profiles::APP_ARMOR;
use crate::capture::eligibility;
use crate::checkpoint::twin::volumes_dir;
use crate::names;
use crate::pod::id::PodId;
use crate::reasons::Refusal;

pub use volume::captured_directory;

/// UID in a checkpoint's manifest, which activation replaces with the twin's.
pub const PLACEHOLDER_UID: &str = "00000000-0000-0000-0000-000000000000";

/// What the node said about a pod. Without it `env` is empty and images are named as in the pod.
#[derive(Debug, Default)]
pub struct Live {
    /// By container: environment in the form of a manifest.
    pub environments: BTreeMap<String, Vec<EnvVar>>,
    /// By container: image that the twin names.
    pub images: BTreeMap<String, String>,
    /// By volume: image that the twin names.
    pub image_volumes: BTreeMap<String, String>,
    /// What a pod's object cannot say.
    pub answers: Answers,
}

/// The node's answers to what a pod's object cannot say.
#[derive(Debug, Default)]
pub enum Answers {
    /// The node is not asked at all: whatever depends on it is a reason to refuse the pod.
    #[default]
    Nothing,
    /// The node could not be asked now: nothing that depends on it is a reason to refuse the pod.
    Later,
    /// The node answered.
    All {
        /// By volume: where a claim's volume is, or why it cannot come back.
        claims: BTreeMap<String, Result<Place, String>>,
        /// Whether the pod's runtime class leads to the handler of a pod without a class; the error
        /// says why not.
        handler: Result<(), String>,
    },
}

/// The twin of this pod, and all reasons to refuse it. With a reason, the twin is not usable.
pub fn render(pod: &Pod, run_dir: &Path, live: &Live) -> (Pod, Vec<Reason>) {
    let Pod {
        metadata,
        spec,
        status,
    } = pod;
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let name = metadata.name.as_deref().unwrap_or_default();
    let mut mapping = Mapping {
        reasons: Vec::new(),
        live,
        // one without a name that could be a pod's is refused for that, and has no volumes of its
        // own
        volumes: PodId::new(namespace, name).map_or_else(
            |_| run_dir.to_owned(),
            |pod| volumes_dir(run_dir, &pod, PLACEHOLDER_UID),
        ),
        accepts_claims: eligibility::accepts(pod, "persistent-volume"),
        enacted: status.as_ref().map(enacted).unwrap_or_default(),
    };
    let spec = spec.clone().unwrap_or_default();
    let twin = Pod {
        metadata: identity(metadata, &spec),
        spec: Some(mapping.spec(&spec, name)),
        status: None,
    };
    (twin, mapping.reasons)
}

struct Mapping<'a> {
    reasons: Vec<Reason>,
    live: &'a Live,
    /// Directory to which this pod's volumes will be unpacked.
    volumes: PathBuf,
    /// Whether the owner accepts volumes that outlive the pod.
    accepts_claims: bool,
    /// Resources of containers that differ from the spec, because a resize is pending.
    enacted: BTreeMap<String, ResourceRequirements>,
}

/// What containers have while the kubelet has not yet granted a resize. The spec has the requested
/// resources, with which a twin might not fit (pkg/kubelet/allocation, condition
/// `PodResizePending`).
fn enacted(status: &PodStatus) -> BTreeMap<String, ResourceRequirements> {
    let is_pending = |it: &PodCondition| it.type_ == "PodResizePending" && it.status == "True";
    if !status.conditions.iter().flatten().any(is_pending) {
        return BTreeMap::new();
    }
    let containers = status
        .container_statuses
        .iter()
        .flatten()
        .chain(status.init_container_statuses.iter().flatten());
    containers
        .filter_map(|container| Some((container.name.clone(), container.resources.clone()?)))
        .collect()
}

impl Mapping<'_> {
    fn refuse(&mut self, refusal: Refusal, detail: impl Into<String>) {
        self.reasons.push(Reason {
            refusal,
            detail: detail.into(),
        });
    }
}

/// The twin's metadata. Labels stay: network policies select by them, and no Service does without a
/// mirror pod.
fn identity(metadata: &ObjectMeta, spec: &k8s_openapi::api::core::v1::PodSpec) -> ObjectMeta {
    let ObjectMeta {
        annotations,
        creation_timestamp: _,
        deletion_grace_period_seconds: _,
        deletion_timestamp: _,
        finalizers: _,
        generate_name: _,
        generation: _,
        labels,
        managed_fields: _,
        name,
        namespace,
        owner_references: _,
        resource_version: _,
        self_link: _,
        uid,
    } = metadata;
    let mut kept: BTreeMap<String, String> = annotations
        .iter()
        .flatten()
        .filter(|(key, _)| is_kept(key, spec))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let of = format!(
        "{}/{}",
        namespace.as_deref().unwrap_or_default(),
        name.as_deref().unwrap_or_default()
    );
    kept.insert(names::CHECKPOINT_OF.into(), of);
    kept.insert(names::PARENT_UID.into(), uid.clone().unwrap_or_default());
    ObjectMeta {
        annotations: Some(kept),
        labels: labels.clone(),
        name: name.clone(),
        namespace: namespace.clone(),
        uid: Some(PLACEHOLDER_UID.into()),
        ..ObjectMeta::default()
    }
}

/// Whether this annotation configures the pod, rather than recording something about it.
fn is_kept(key: &str, spec: &k8s_openapi::api::core::v1::PodSpec) -> bool {
    let of_container = |prefix: &str| key.strip_prefix(prefix);
    let containers = || {
        spec.containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
    };
    let context = |name: &str| {
        containers()
            .find(|it| it.name == name)
            .and_then(|it| it.security_context.as_ref())
    };
    let pod = spec.security_context.as_ref();
    let is_noted = key.starts_with(&format!("{}/", names::GROUP))
        || key.starts_with("checkpointer.alpha.coreos.com/")
        || key.starts_with("kubernetes.io/config.")
        || key == "kubectl.kubernetes.io/last-applied-configuration"
        // written by a network plugin; a fixed address among Calico's would be the parent's as well
        || matches!(key, "k8s.v1.cni.cncf.io/network-status" | "k8s.v1.cni.cncf.io/networks-status")
        || key == "k8s.ovn.org/pod-networks"
        || key.starts_with("cni.projectcalico.org/");
    // an annotation must agree with the field (pkg/apis/core/validation), and the field is enough
    let app_armor = of_container(APP_ARMOR).is_some_and(|name| {
        pod.is_some_and(|it| it.app_armor_profile.is_some())
            || context(name).is_some_and(|it| it.app_armor_profile.is_some())
    });
    let has_pod_seccomp = pod.is_some_and(|it| it.seccomp_profile.is_some());
    let seccomp = key == "seccomp.security.alpha.kubernetes.io/pod" && has_pod_seccomp
        || of_container("container.seccomp.security.alpha.kubernetes.io/").is_some_and(|name| {
            has_pod_seccomp || context(name).is_some_and(|it| it.seccomp_profile.is_some())
        });
    !(is_noted || app_armor || seccomp)
}

/// Copies a structure and names all its fields, so that a new field does not compile.
macro_rules! keep {
    ($value:expr, $structure:ident { $($field:ident),* $(,)? }) => {{
        let $structure { $($field),* } = $value.clone();
        $structure { $($field),* }
    }};
}
use keep;

#[cfg(test)]
mod tests;
