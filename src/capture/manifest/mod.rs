//! Parent to static pod, field by field.
//!
//! Pure. Every structure is taken apart without `..`, so a field that a new version of the types brings does not compile
//! until it has a rule. What a static pod may not have is dropped, made concrete, or a reason to refuse; all reasons are
//! collected. The rules rest on pkg/api/pod/util.go (`HasAPIObjectReference`), pkg/kubelet/config/common.go and
//! pkg/apis/core/validation.
//!
//! # Holding a twin
//!
//! When the manifest is removed the kubelet ends the twin, but the parent needs a moment more. So each container without a
//! `preStop` hook of its own gets one that sleeps [`names::HOLD_SECONDS`], and the pod that much more grace: the supervisor
//! ends the containers through the runtime when their time has come.
//!
//! - A failed liveness or startup probe must not wait for that. The kubelet gives hook and process together the probe's own
//!   `terminationGracePeriodSeconds` (pkg/kubelet/kuberuntime/kuberuntime_container.go, `killContainer`), and the sleep
//!   takes all of it. So it is 1 on a container that is held: a container that fails its probe has two seconds after
//!   SIGTERM (`minimumGracePeriodInSeconds`). On one that is not held it is the parent's grace, which the pod's no longer is.
//! - Sidecars get no hook: their own turn to end comes after every other container has ended
//!   (pkg/kubelet/kuberuntime/kuberuntime_termination_order.go), so what holds those holds them.

mod container;
mod pod;
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

/// UID that stands in a checkpoint where activation puts the twin's.
pub const PLACEHOLDER_UID: &str = "00000000-0000-0000-0000-000000000000";

/// What was learned from the node. Without it `env` is empty and images are as the pod names them.
#[derive(Debug, Default)]
pub struct Live {
    /// By container: environment in the form of a manifest.
    pub environments: BTreeMap<String, Vec<EnvVar>>,
    /// By container: image that the twin names.
    pub images: BTreeMap<String, String>,
    /// By volume: image that the twin names.
    pub image_volumes: BTreeMap<String, String>,
    /// What the node says of things that a pod's object does not tell.
    pub told: Told,
}

/// What only the node tells.
#[derive(Debug, Default)]
pub enum Told {
    /// Nobody asked it: whatever hangs on it stands against the pod.
    #[default]
    Nothing,
    /// It could not be asked now: nothing that hangs on it stands against the pod.
    Later,
    /// Its answers.
    All {
        /// By volume: where a claim leads, or why it cannot come back.
        claims: BTreeMap<String, Result<Place, String>>,
        /// Does the pod's runtime class lead where a pod without a class goes, or to which handler?
        handler: Result<(), String>,
    },
}

/// The twin of this pod, and what stands against it.
pub fn render(pod: &Pod, run_dir: &Path, live: &Live) -> (Pod, Vec<Reason>) {
    let Pod { metadata, spec, status } = pod;
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let name = metadata.name.as_deref().unwrap_or_default();
    let mut mapping = Mapping {
        reasons: Vec::new(),
        live,
        // one without a name that could be a pod's is refused for that, and has no volumes of its own
        volumes: PodId::new(namespace, name)
            .map_or_else(|_| run_dir.to_owned(), |pod| volumes_dir(run_dir, &pod, PLACEHOLDER_UID)),
        accepts_claims: eligibility::accepts(pod, "persistent-volume"),
        enacted: status.as_ref().map(enacted).unwrap_or_default(),
    };
    let spec = spec.clone().unwrap_or_default();
    let twin = Pod { metadata: identity(metadata, &spec), spec: Some(mapping.spec(&spec, name)), status: None };
    (twin, mapping.reasons)
}

struct Mapping<'a> {
    reasons: Vec<Reason>,
    live: &'a Live,
    /// Where this pod's volumes will be unpacked.
    volumes: PathBuf,
    /// Does the owner accept volumes that outlive the pod?
    accepts_claims: bool,
    /// Resources of containers where they are not those of the spec.
    enacted: BTreeMap<String, ResourceRequirements>,
}

/// What containers have while the kubelet has not agreed to a resize: the spec tells what somebody wishes, and a twin of
/// that might not fit (pkg/kubelet/allocation, condition `PodResizePending`).
fn enacted(status: &PodStatus) -> BTreeMap<String, ResourceRequirements> {
    let is_pending = |it: &PodCondition| it.type_ == "PodResizePending" && it.status == "True";
    if !status.conditions.iter().flatten().any(is_pending) {
        return BTreeMap::new();
    }
    let containers = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    containers.filter_map(|container| Some((container.name.clone(), container.resources.clone()?))).collect()
}

impl Mapping<'_> {
    fn refuse(&mut self, refusal: Refusal, detail: impl Into<String>) {
        self.reasons.push(Reason { refusal, detail: detail.into() });
    }
}

/// Labels stay: network policies select by them, and without a mirror pod no Service sees them.
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
    let of = format!("{}/{}", namespace.as_deref().unwrap_or_default(), name.as_deref().unwrap_or_default());
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

/// Is this annotation one that says how the pod should be, and not what somebody noted about it?
fn is_kept(key: &str, spec: &k8s_openapi::api::core::v1::PodSpec) -> bool {
    let of_container = |prefix: &str| key.strip_prefix(prefix);
    let containers = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let context = |name: &str| containers().find(|it| it.name == name).and_then(|it| it.security_context.as_ref());
    let pod = spec.security_context.as_ref();
    let is_noted = key.starts_with(&format!("{}/", names::GROUP))
        || key.starts_with("checkpointer.alpha.coreos.com/")
        || key.starts_with("kubernetes.io/config.")
        || key == "kubectl.kubernetes.io/last-applied-configuration"
        // What a network plugin wrote back. A fixed address among Calico's would be the parent's too.
        || matches!(key, "k8s.v1.cni.cncf.io/network-status" | "k8s.v1.cni.cncf.io/networks-status")
        || key == "k8s.ovn.org/pod-networks"
        || key.starts_with("cni.projectcalico.org/");
    // An annotation must say what the field says (pkg/apis/core/validation), and here only the field counts.
    let app_armor = of_container(APP_ARMOR).is_some_and(|name| {
        pod.is_some_and(|it| it.app_armor_profile.is_some())
            || context(name).is_some_and(|it| it.app_armor_profile.is_some())
    });
    let has_pod_seccomp = pod.is_some_and(|it| it.seccomp_profile.is_some());
    let seccomp = key == "seccomp.security.alpha.kubernetes.io/pod" && has_pod_seccomp
        || of_container("container.seccomp.security.alpha.kubernetes.io/")
            .is_some_and(|name| has_pod_seccomp || context(name).is_some_and(|it| it.seccomp_profile.is_some()));
    !(is_noted || app_armor || seccomp)
}

/// Keeps every field of a structure, and names them all: a new one does not compile.
macro_rules! keep {
    ($value:expr, $structure:ident { $($field:ident),* $(,)? }) => {{
        let $structure { $($field),* } = $value.clone();
        $structure { $($field),* }
    }};
}
use keep;

#[cfg(test)]
mod tests;
