//! The manifest of a rehearsal: the twin of a checkpoint with nothing of the workload in it, so
//! that it can run alongside its parent. Pure.
//!
//! Every container runs this program, which only waits, instead of its own image; so nothing of
//! the workload can start, whatever else goes wrong. Everything that could harm running pods is
//! left out: host ports, requests and priority (the kubelet lets a static pod preempt others),
//! labels and annotations (so that no Service selects it and no network plugin gives it an address
//! of the parent), and write access to the owner's data.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::checkpoint::NodeCheckpoint;
use crate::names::DRILL_OF;

/// No default priority is likely to be this one, so the API server, which computes another, refuses
/// the mirror pod, as it does a twin's (plugin/pkg/admission/priority).
const PRIORITY: i64 = -1_234_567_890;
/// Longest name of a pod (pkg/apis/core/validation, a DNS subdomain).
const LONGEST_NAME: usize = 253;
/// End of a rehearsal's name, before the kubelet appends the name of the node.
const SUFFIX: &str = "-drill";

/// What a rehearsal is made of.
pub struct Plan<'a> {
    /// The checkpoint.
    pub checkpoint: &'a NodeCheckpoint,
    /// UID of the rehearsal.
    pub uid: &'a str,
    /// Name of the node.
    pub node: &'a str,
    /// Host path of the directory that has each unpacked volume under its name.
    pub volumes: &'a Path,
    /// An image of this program that is present on the node.
    pub image: &'a str,
    /// How long its containers wait if nothing ends them.
    pub hold: Duration,
    /// Does this host path exist?
    pub exists: &'a dyn Fn(&Path) -> bool,
}

/// A rehearsal.
#[derive(Clone, Debug, PartialEq)]
pub struct Rehearsal {
    /// The static pod.
    pub manifest: Value,
    /// Which parts of the twin it lacks, in words, apart from those that every rehearsal lacks.
    pub left_out: Vec<String>,
}

/// The rehearsal of a checkpoint.
pub fn make(plan: &Plan<'_>) -> Rehearsal {
    let parent = &plan.checkpoint.parent;
    let mut manifest = plan.checkpoint.manifest.clone();
    let mut left_out = BTreeSet::new();
    let metadata = json!({
        "name": name(&parent.name, plan.node),
        "namespace": parent.namespace,
        "uid": plan.uid,
        "annotations": {DRILL_OF: format!("{}/{}", parent.namespace, parent.name)},
    });
    if let Some(pod) = manifest.as_object_mut() {
        pod.insert("metadata".into(), metadata);
    }
    if let Some(spec) = manifest.get_mut("spec").and_then(Value::as_object_mut) {
        pod(spec, plan, &mut left_out);
    }
    Rehearsal {
        manifest,
        left_out: left_out.into_iter().collect(),
    }
}

/// The name to which the kubelet appends the name of the node; cut if both together are too long.
pub fn name(parent: &str, node: &str) -> String {
    let room = LONGEST_NAME.saturating_sub(SUFFIX.len() + 1 + node.len());
    let cut = parent
        .get(..room)
        .unwrap_or(parent)
        .trim_end_matches(['-', '.']);
    format!("{cut}{SUFFIX}")
}

/// Names of the containers that must run: all except init containers that end.
pub fn main_containers(manifest: &Value) -> Vec<String> {
    let list = |field: &str| {
        manifest
            .pointer(field)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
    };
    let main = list("/spec/containers")
        .chain(list("/spec/initContainers").filter(|container| is_sidecar(container)));
    main.filter_map(|container| container.get("name")?.as_str().map(str::to_owned))
        .collect()
}

fn is_sidecar(container: &Value) -> bool {
    container.get("restartPolicy").and_then(Value::as_str) == Some("Always")
}

fn pod(spec: &mut Map<String, Value>, plan: &Plan<'_>, left_out: &mut BTreeSet<String>) {
    for field in ["priorityClassName", "overhead", "resources"] {
        spec.remove(field);
    }
    spec.insert("priority".into(), json!(PRIORITY));
    spec.insert("terminationGracePeriodSeconds".into(), json!(2));
    let mut owner_data = OwnerData::default();
    for volume in spec
        .get_mut("volumes")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        self::volume(volume, plan, &mut owner_data, left_out);
    }
    let pod_user = spec.get("securityContext").cloned().unwrap_or_default();
    if let Some(context) = spec
        .get_mut("securityContext")
        .and_then(Value::as_object_mut)
    {
        profiles(context, left_out);
    }
    for (field, is_init) in [("initContainers", true), ("containers", false)] {
        for container in spec
            .get_mut(field)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let ends = is_init && !is_sidecar(container);
            if let Some(container) = container.as_object_mut() {
                self::container(container, plan, ends, &owner_data, left_out);
                user(container, &pod_user);
            }
        }
    }
}

/// Volumes with data of the owner, by name, with their paths on the host.
#[derive(Default)]
struct OwnerData(BTreeMap<String, PathBuf>);

fn volume(
    volume: &mut Value,
    plan: &Plan<'_>,
    owner_data: &mut OwnerData,
    left_out: &mut BTreeSet<String>,
) {
    let name = volume
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if plan.checkpoint.volumes.contains_key(&name) {
        if let Some(path) = volume.pointer_mut("/hostPath/path") {
            *path = json!(plan.volumes.join(&name));
        }
        return;
    }
    let path = volume
        .pointer("/hostPath/path")
        .and_then(Value::as_str)
        .map(PathBuf::from);
    let why = match path {
        Some(path) if (plan.exists)(&path) => {
            owner_data.0.insert(name, path);
            return;
        }
        // the kubelet would create it, and a rehearsal must leave nothing behind
        Some(path) => format!("{} does not exist yet", path.display()),
        None if volume.get("nfs").is_some() => "on another machine".to_owned(),
        None => return,
    };
    left_out.insert(format!("volume {name}: {why}"));
    *volume = json!({"name": name, "emptyDir": {}});
}

fn container(
    container: &mut Map<String, Value>,
    plan: &Plan<'_>,
    ends: bool,
    owner_data: &OwnerData,
    left_out: &mut BTreeSet<String>,
) {
    let gone = [
        "command",
        "lifecycle",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "ports",
        "resizePolicy",
        "restartPolicyRules",
    ];
    for field in gone {
        container.remove(field);
    }
    let hold = if ends { Duration::ZERO } else { plan.hold };
    container.insert("image".into(), json!(plan.image));
    container.insert("imagePullPolicy".into(), json!("IfNotPresent"));
    container.insert(
        "args".into(),
        json!(["hold", format!("{}s", hold.as_secs())]),
    );
    // no request, so that nothing is preempted for it; a limit alone would count as a request
    let resources = json!({"requests": {"cpu": "0", "memory": "0"}, "limits": {"memory": "64Mi"}});
    container.insert("resources".into(), resources);
    let name = container
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if container.remove("volumeDevices").is_some() {
        left_out.insert(format!("block devices of {name}"));
    }
    if let Some(env) = container.get_mut("env").and_then(Value::as_array_mut) {
        let before = env.len();
        // a file that the workload's own init container writes
        env.retain(|variable| variable.pointer("/valueFrom/fileKeyRef").is_none());
        if env.len() < before {
            left_out.insert(format!("environment of {name} from files"));
        }
    }
    if let Some(mounts) = container
        .get_mut("volumeMounts")
        .and_then(Value::as_array_mut)
    {
        mounts.retain_mut(|mount| self::mount(mount, &name, plan, owner_data, left_out));
    }
    if let Some(context) = container
        .get_mut("securityContext")
        .and_then(Value::as_object_mut)
    {
        profiles(context, left_out);
    }
}

/// Makes a mount of the owner's data read-only and private to the container. False: leave it out.
fn mount(
    mount: &mut Value,
    container: &str,
    plan: &Plan<'_>,
    owner_data: &OwnerData,
    left_out: &mut BTreeSet<String>,
) -> bool {
    let volume = mount
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let Some(path) = owner_data.0.get(volume) else {
        return true;
    };
    let below = mount
        .get("subPath")
        .and_then(Value::as_str)
        .unwrap_or_default();
    // the kubelet creates a missing subPath, also below a read-only mount
    // (pkg/kubelet/kubelet_pods.go)
    if mount.get("subPathExpr").is_some() || !(plan.exists)(&path.join(below)) {
        let at = mount
            .get("mountPath")
            .and_then(Value::as_str)
            .unwrap_or_default();
        left_out.insert(format!(
            "mount {at} of {container}: its subPath would be created"
        ));
        return false;
    }
    if let Some(mount) = mount.as_object_mut() {
        mount.remove("mountPropagation");
        mount.remove("recursiveReadOnly");
        mount.insert("readOnly".into(), json!(true));
    }
    true
}

/// A profile written for the workload may keep this program from running.
fn profiles(context: &mut Map<String, Value>, left_out: &mut BTreeSet<String>) {
    for field in ["seccompProfile", "appArmorProfile"] {
        let kind = context
            .get(field)
            .and_then(|profile| profile.get("type"))
            .and_then(Value::as_str);
        if kind == Some("Localhost") {
            left_out.insert(format!("its own {field}"));
            context.insert(field.into(), json!({"type": "RuntimeDefault"}));
        }
    }
}

/// If only the workload's image names a user, this program's image runs as root instead, which
/// `runAsNonRoot` would forbid.
fn user(container: &mut Map<String, Value>, pod: &Value) {
    let own = container
        .get("securityContext")
        .cloned()
        .unwrap_or_default();
    let of = |field: &str| {
        own.get(field)
            .or_else(|| pod.get(field))
            .filter(|value| !value.is_null())
            .cloned()
    };
    if of("runAsUser").is_some() {
        return;
    }
    if of("runAsNonRoot") == Some(json!(true)) {
        let mut context = own.as_object().cloned().unwrap_or_default();
        context.insert("runAsNonRoot".into(), json!(false));
        container.insert("securityContext".into(), Value::Object(context));
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
