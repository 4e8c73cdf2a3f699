//! A kubelet, as far as static pods and their hand-over are concerned: it polls a directory of
//! manifests, runs pods in the stub runtime, and lists them at the pod-resources socket.
//!
//! After its start it has not synced with the API server: if a manifest is removed, its pod runs on
//! unlisted. Once [`Kubelet::sync_api`] has been called, pods that it does not own are stopped,
//! after their `preStop` hooks have slept.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pod_checkpointer::node::proto::runtime as cri;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::runtime::{Pod, Spec};
use super::{PodResources, Runtime, until};

/// How often the directory is polled.
const PERIOD: Duration = Duration::from_millis(20);

#[derive(Clone, Debug, Default)]
pub struct State {
    /// Pods of the manifests, by UID.
    pub statics: BTreeMap<String, Pod>,
    /// Pods of the API server, once it has synced.
    pub api: Vec<Pod>,
    /// Whether it has synced with the API server since its start.
    pub is_synced: bool,
    /// UIDs of pods that were rejected, and are not tried again.
    pub rejected: BTreeSet<String>,
    /// The UID that a static pod's namespace and name belong to. Another UID waits behind it, also
    /// when nothing of it runs, until its manifest is gone and the kubelet has synced.
    pub started: BTreeMap<(String, String), String>,
    /// Refuses every new static pod.
    pub rejects: bool,
    /// Lists new pods but does not start them, like a kubelet whose volume manager waits for the
    /// API server.
    pub is_stuck: bool,
    /// Pods that are being stopped, by UID, and since when.
    pub ending: BTreeMap<String, Instant>,
    /// How often the directory has been polled.
    pub passes: u64,
}

pub struct Kubelet {
    pub state: Arc<watch::Sender<State>>,
    pub manifests: PathBuf,
    pub node: String,
    pub runtime: Runtime,
    pub resources: PodResources,
    task: std::sync::Mutex<Option<AbortHandle>>,
}

impl Kubelet {
    /// A kubelet for this node with its directory; manifests are in `manifests`.
    pub fn start(kubelet_dir: &Path, manifests: &Path, node: &str, runtime: Runtime) -> Self {
        std::fs::create_dir_all(manifests).unwrap();
        let kubelet = Self {
            state: Arc::default(),
            manifests: manifests.to_owned(),
            node: node.to_owned(),
            runtime,
            resources: PodResources::start(kubelet_dir),
            task: std::sync::Mutex::default(),
        };
        kubelet.spawn();
        kubelet
    }

    /// The API server answers, and these are its pods: the kubelet starts them, then stops
    /// everything else.
    pub fn sync_api(&self, pods: &[Pod]) {
        self.state.send_modify(|state| {
            state.api = pods.to_vec();
            state.is_synced = true;
        });
    }

    /// Waits until the directory has been polled twice, so that earlier changes have been seen.
    pub async fn settle(&self) {
        let passes = self.state.borrow().passes;
        until(&self.state, |state| state.passes >= passes + 2).await;
    }

    /// Stops the process; the pods run on.
    pub async fn stop(&self) {
        if let Some(task) = self.task.lock().unwrap().take() {
            task.abort();
        }
        self.resources.stop().await;
    }

    /// Starts a new process, which has not synced yet.
    pub async fn restart(&self) {
        self.stop().await;
        self.state.send_modify(|state| {
            *state = State {
                passes: state.passes,
                ..State::default()
            }
        });
        self.resources.state.send_modify(|state| state.pods.clear());
        self.resources.resume();
        self.spawn();
    }

    fn spawn(&self) {
        let (state, resources, runtime) = (
            self.state.clone(),
            self.resources.clone(),
            self.runtime.clone(),
        );
        let (manifests, node) = (self.manifests.clone(), self.node.clone());
        let task = tokio::spawn(async move {
            loop {
                let found = read_manifests(&manifests, &node);
                state.send_modify(|state| pass(state, found, &runtime, &resources));
                tokio::time::sleep(PERIOD).await;
            }
        });
        *self.task.lock().unwrap() = Some(task.abort_handle());
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().unwrap().take() {
            task.abort();
        }
    }
}

fn pass(
    state: &mut State,
    found: BTreeMap<String, Pod>,
    runtime: &Runtime,
    resources: &PodResources,
) {
    for uid in found.keys().filter(|uid| !state.statics.contains_key(*uid)) {
        if state.rejects {
            state.rejected.insert(uid.clone());
        }
    }
    state.rejected.retain(|uid| found.contains_key(uid));
    state.statics = found;
    if state.is_synced {
        let statics = &state.statics;
        state.started.retain(|_, uid| statics.contains_key(uid));
    }
    for pod in state.statics.values() {
        if !state.rejected.contains(&pod.uid) {
            let name = (pod.namespace.clone(), pod.name.clone());
            state.started.entry(name).or_insert_with(|| pod.uid.clone());
        }
    }

    let owned: Vec<Pod> = state
        .statics
        .values()
        .filter(|pod| !state.rejected.contains(&pod.uid))
        .chain(state.api.iter().filter(|_| state.is_synced))
        .cloned()
        .collect();
    let listed = owned
        .iter()
        .map(|pod| (pod.namespace.clone(), pod.name.clone()))
        .collect();
    resources.state.send_if_modified(|state| {
        let is_new = state.pods != listed;
        state.pods = listed;
        is_new
    });
    runtime.state.send_if_modified(|running| {
        let mut is_changed = false;
        for pod in &owned {
            // a static pod waits for the end of one with the same name
            let is_blocked = running.sandboxes.values().any(|sandbox| {
                sandbox.ready
                    && sandbox.pod.uid != pod.uid
                    && (&sandbox.pod.namespace, &sandbox.pod.name) == (&pod.namespace, &pod.name)
            });
            let name = (pod.namespace.clone(), pod.name.clone());
            let is_held_back = state.statics.contains_key(&pod.uid)
                && state.started.get(&name).is_some_and(|uid| *uid != pod.uid);
            if !running.is_running(&pod.uid) && !state.is_stuck && !is_blocked && !is_held_back {
                running.run(pod);
                is_changed = true;
            }
        }
        if state.is_synced {
            let is_owned = |uid: &str| owned.iter().any(|pod| pod.uid == uid);
            let orphans: BTreeSet<_> = running
                .sandboxes
                .values()
                .map(|sandbox| sandbox.pod.uid.clone())
                .filter(|uid| !is_owned(uid))
                .collect();
            state.ending.retain(|uid, _| orphans.contains(uid));
            for uid in orphans {
                let age = state
                    .ending
                    .entry(uid.clone())
                    .or_insert_with(Instant::now)
                    .elapsed();
                let is_held = running.containers.values().any(|container| {
                    container.pod_uid == uid
                        && container.state == cri::ContainerState::ContainerRunning
                        && age < container.spec.holds
                });
                if !is_held {
                    running.remove(&uid);
                    is_changed = true;
                }
            }
        }
        is_changed
    });
    state.passes += 1;
}

/// Writes a volume's files, each with its mode, as the kubelet does: into a directory to which
/// `..data` leads, with links to them (pkg/volume/util/atomic_writer.go).
pub fn write_volume(directory: &Path, files: &[(&str, u32, &[u8])]) {
    let _ = std::fs::remove_dir_all(directory);
    swap_volume(directory, "..2026_11_21_10_00_00.1234567890", files);
}

/// New content of a volume: what readers find at `..data` changes from one moment to the next. The
/// directory of the content before stays.
pub fn swap_volume(directory: &Path, data: &str, files: &[(&str, u32, &[u8])]) {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    std::fs::create_dir_all(directory.join(data)).unwrap();
    for (name, mode, content) in files {
        let file = directory.join(data).join(name);
        std::fs::write(&file, content).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(*mode)).unwrap();
        let _ = symlink(Path::new("..data").join(name), directory.join(name));
    }
    symlink(data, directory.join("..data_tmp")).unwrap();
    std::fs::rename(directory.join("..data_tmp"), directory.join("..data")).unwrap();
}

/// Every readable manifest, by UID. Dangling links are skipped, and only the last file of a name
/// counts.
fn read_manifests(directory: &Path, node: &str) -> BTreeMap<String, Pod> {
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    let mut by_name = BTreeMap::new();
    for file in files {
        let is_hidden = file.file_name().unwrap().to_string_lossy().starts_with('.');
        if is_hidden || !file.is_file() {
            continue;
        }
        if let Some(pod) = std::fs::read(&file)
            .ok()
            .and_then(|text| parse(&text, &file, node))
        {
            by_name.insert((pod.namespace.clone(), pod.name.clone()), pod);
        }
    }
    by_name
        .into_values()
        .map(|pod| (pod.uid.clone(), pod))
        .collect()
}

fn parse(text: &[u8], file: &Path, node: &str) -> Option<Pod> {
    let manifest: Value = serde_yaml::from_slice(text).ok()?;
    let metadata = &manifest["metadata"];
    let name = metadata["name"].as_str()?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let volumes: BTreeMap<String, String> = manifest["spec"]["volumes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|volume| (text(&volume["name"]), text(&volume["hostPath"]["path"])))
        .collect();
    let container = |value: &Value, is_init| Spec {
        name: text(&value["name"]),
        image: text(&value["image"]),
        env: value["env"]
            .as_array()
            .into_iter()
            .flatten()
            // expansion of `$(VAR)` is not imitated, but its escape is
            .map(|variable| {
                (
                    text(&variable["name"]),
                    text(&variable["value"]).replace("$$", "$"),
                )
            })
            .collect(),
        mounts: value["volumeMounts"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|mount| {
                Some((
                    text(&mount["mountPath"]),
                    volumes.get(mount["name"].as_str()?)?.clone(),
                ))
            })
            .collect(),
        is_init: is_init && value["restartPolicy"] != "Always",
        holds: Duration::from_secs(
            value["lifecycle"]["preStop"]["sleep"]["seconds"]
                .as_u64()
                .unwrap_or_default(),
        ),
        ..Spec::default()
    };
    let list = |field: &str| {
        manifest["spec"][field]
            .as_array()
            .cloned()
            .unwrap_or_default()
    };
    let mut annotations: BTreeMap<String, String> = metadata["annotations"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), text(value)))
        .collect();
    let uid = metadata["uid"]
        .as_str()
        .map_or_else(|| format!("uid-of-{}", file.display()), str::to_owned);
    annotations.insert("kubernetes.io/config.hash".into(), uid.clone());
    Some(
        Pod {
            namespace: metadata["namespace"]
                .as_str()
                .unwrap_or("default")
                .to_owned(),
            name: format!("{name}-{node}"),
            uid,
            annotations,
            handler: String::new(),
            containers: list("initContainers")
                .iter()
                .map(|value| container(value, true))
                .chain(
                    list("containers")
                        .iter()
                        .map(|value| container(value, false)),
                )
                .collect(),
        }
        .with_source("file"),
    )
}
