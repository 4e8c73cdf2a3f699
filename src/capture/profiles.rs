//! Profiles that a pod names and the node must have: seccomp files and loaded AppArmor profiles.
//!
//! The runtime refuses a container whose profile is absent, each time. A profile that existed when
//! the parent started may be gone by now.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Pod, SeccompProfile};

use super::{Reason, Sources};
use crate::node::host::HostRoot;
use crate::reasons::Refusal;

/// The profiles that the kernel has loaded, one per line: name and mode.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";
/// Prefix of the annotation for AppArmor before there was a field; the container's name follows
/// (pkg/security/apparmor/helpers.go).
pub(super) const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// A profile that must be on the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Profile {
    /// A file below `<kubelet dir>/seccomp` (pkg/kubelet/kuberuntime/helpers.go,
    /// `fieldSeccompProfile`).
    Seccomp(String),
    /// A profile that is loaded in the kernel under this name.
    AppArmor(String),
}

/// The profiles that containers name, each with the container's name.
fn named(pod: &Pod) -> Vec<(&str, Profile)> {
    let spec = pod.spec.as_ref();
    let containers = spec.into_iter().flat_map(|spec| {
        spec.init_containers
            .iter()
            .flatten()
            .chain(&spec.containers)
    });
    containers
        .flat_map(|container| {
            [seccomp(pod, container), app_armor(pod, container)]
                .into_iter()
                .flatten()
                .map(|profile| (container.name.as_str(), profile))
        })
        .collect()
}

/// The container's own setting counts first, then the pod's. A privileged container has no filter,
/// whatever its settings.
fn seccomp(pod: &Pod, container: &Container) -> Option<Profile> {
    let own = container.security_context.as_ref();
    if own.is_some_and(|context| context.privileged == Some(true)) {
        return None;
    }
    let of_pod = || {
        pod.spec
            .as_ref()?
            .security_context
            .as_ref()?
            .seccomp_profile
            .as_ref()
    };
    let SeccompProfile {
        type_,
        localhost_profile,
    } = own
        .and_then(|context| context.seccomp_profile.as_ref())
        .or_else(of_pod)?;
    localhost_profile
        .clone()
        .filter(|_| type_ == "Localhost")
        .map(Profile::Seccomp)
}

/// The container's own setting counts first, then the annotation, then the pod's
/// (pkg/security/apparmor/helpers.go, `GetProfile`).
fn app_armor(pod: &Pod, container: &Container) -> Option<Profile> {
    let context = container.security_context.as_ref();
    let field = context.and_then(|context| context.app_armor_profile.as_ref());
    let annotation = pod
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(&format!("{APP_ARMOR}{}", container.name)));
    if let (None, Some(annotation)) = (field, annotation) {
        return annotation
            .strip_prefix("localhost/")
            .map(|name| Profile::AppArmor(name.to_owned()));
    }
    let of_pod = || {
        pod.spec
            .as_ref()?
            .security_context
            .as_ref()?
            .app_armor_profile
            .as_ref()
    };
    let AppArmorProfile {
        type_,
        localhost_profile,
    } = field.or_else(of_pod)?;
    localhost_profile
        .clone()
        .filter(|_| type_ == "Localhost")
        .map(Profile::AppArmor)
}

/// A reason for each profile that is certainly absent. One that cannot be looked up counts as
/// present, because the parent runs with it.
pub fn reasons(pod: &Pod, sources: &Sources<'_>) -> Vec<Reason> {
    let named = named(pod);
    let mut loaded = None;
    let mut absent: BTreeMap<Profile, Vec<&str>> = BTreeMap::new();
    for (container, profile) in named {
        let is_absent = match &profile {
            Profile::Seccomp(file) => is_no_file(
                sources.root,
                &sources.kubelet_dir.join("seccomp").join(file),
            ),
            Profile::AppArmor(name) => {
                let loaded = loaded.get_or_insert_with(|| loaded_profiles(sources.root));
                loaded
                    .as_ref()
                    .is_some_and(|loaded: &BTreeSet<String>| !loaded.contains(name))
            }
        };
        if is_absent {
            absent.entry(profile).or_default().push(container);
        }
    }
    absent
        .into_iter()
        .map(|(profile, containers)| {
            let what = match profile {
                Profile::Seccomp(file) => {
                    format!("seccomp profile {file:?} is not in the kubelet's directory")
                }
                Profile::AppArmor(name) => format!("AppArmor profile {name:?} is not loaded"),
            };
            Reason {
                refusal: Refusal::RejectedByKubeletRules,
                detail: format!("{what} (container {})", containers.join(", ")),
            }
        })
        .collect()
}

fn is_no_file(root: &HostRoot, path: &Path) -> bool {
    match root.resolve(path).and_then(std::fs::metadata) {
        Ok(metadata) => !metadata.is_file(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// The loaded profiles; `None` if the kernel has no AppArmor or the list cannot be read.
fn loaded_profiles(root: &HostRoot) -> Option<BTreeSet<String>> {
    let text = std::fs::read_to_string(root.resolve(LOADED).ok()?).ok()?;
    Some(
        text.lines()
            .filter_map(|line| Some(line.rsplit_once(" (")?.0.to_owned()))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(spec: &Value, annotations: &Value) -> Vec<(String, Profile)> {
        let mut pod = json!({"metadata": {"annotations": annotations}, "spec": {"containers": [{"name": "app"}]}});
        for (key, value) in spec.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        let pod: Pod = serde_json::from_value(pod).unwrap();
        named(&pod)
            .into_iter()
            .map(|(name, profile)| (name.to_owned(), profile))
            .collect()
    }

    #[test]
    fn the_profile_of_a_container_is_its_own_or_the_annotations_or_the_pods() {
        let local = |name: &str| json!({"type": "Localhost", "localhostProfile": name});
        let own = |context: Value| json!({"name": "app", "securityContext": context});
        let app_armor = |name: &str| [("app".to_owned(), Profile::AppArmor(name.into()))].to_vec();
        let seccomp = |name: &str| [("app".to_owned(), Profile::Seccomp(name.into()))].to_vec();
        let pods = json!({"appArmorProfile": local("pods")});
        let annotated =
            json!({"container.apparmor.security.beta.kubernetes.io/app": "localhost/noted"});
        let none = json!({});
        for (spec, annotations, wanted) in [
            (json!({}), &none, vec![]),
            (json!({"securityContext": pods}), &none, app_armor("pods")),
            (
                json!({"securityContext": pods}),
                &annotated,
                app_armor("noted"),
            ),
            (
                json!({"securityContext": pods, "containers": [own(json!({"appArmorProfile": local("own")}))]}),
                &annotated,
                app_armor("own"),
            ),
            (
                json!({"securityContext": pods, "containers": [own(json!({"appArmorProfile": {"type": "Unconfined"}}))]}),
                &annotated,
                vec![],
            ),
            (
                json!({}),
                &json!({"container.apparmor.security.beta.kubernetes.io/app": "runtime/default"}),
                vec![],
            ),
            (
                json!({"securityContext": {"seccompProfile": local("p.json")}}),
                &none,
                seccomp("p.json"),
            ),
            (
                json!({"securityContext": {"seccompProfile": local("p.json")},
                "containers": [own(json!({"seccompProfile": {"type": "RuntimeDefault"}}))]}),
                &none,
                vec![],
            ),
            (
                json!({"securityContext": {"seccompProfile": local("p.json")},
                "containers": [own(json!({"privileged": true}))]}),
                &none,
                vec![],
            ),
            (
                json!({"containers": [own(json!({"seccompProfile": local("o.json")}))]}),
                &none,
                seccomp("o.json"),
            ),
        ] {
            assert_eq!(of(&spec, annotations), wanted, "{spec} {annotations}");
        }
    }
}
