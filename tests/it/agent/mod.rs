//! The agent against a node in memory and its API server. A test goes to the theme that its name
//! speaks of:
//!
//! * `captures`: what is captured, and when;
//! * `marks`: which pods are captured at all;
//! * `removal`: what removes a checkpoint;
//! * `published`: what is written to the API server;
//! * `watches`: what is asked of the API server;
//! * `store`: the directories on the node;
//! * `installation`: the supervisor's manifest.
//!
//! What is in a checkpoint is `tests/it/capture`; what the agent exports as metrics is
//! `tests/it/metrics.rs`.

mod captures;
mod installation;
mod marks;
mod published;
mod removal;
mod store;
mod watches;

use std::future::Future;
use std::path::PathBuf;

use clap::Parser as _;
use pod_checkpointer::agent::{self, Settings};
use pod_checkpointer::args::{AgentArguments, Arguments, Command};
use pod_checkpointer::checkpoint::encoding::decode;
use pod_checkpointer::places::reports::{AGENT, AgentReport};
use serde_json::{Value, json};

use crate::stub::api::{State, checkpoint_path};
use crate::stub::kubelet::swap_volume;
use crate::stub::node::{IMAGE, NAME};
use crate::stub::runtime::Spec;
use crate::stub::{Node, Pod, eventually, id, until};

/// What the tests of the agent do and wait for.
impl Node {
    /// Settings of an agent that sees the node below a directory, as in its container. It finds the
    /// runtime by itself.
    pub fn settings(&self) -> Settings {
        self.settings_with(|_| {})
    }

    /// The same with changed flags.
    pub fn settings_with(&self, change: impl FnOnce(&mut AgentArguments)) -> Settings {
        let root = format!("--host-root={}", self.path("").display());
        let node = format!("--node-name={NAME}");
        let line = [
            "pod-checkpointer",
            "agent",
            &root,
            &node,
            "--manifest-dir=/etc/kubernetes/manifests",
            "--supervisor-image=registry.example/pod-checkpointer:v1",
            "--retention=100ms",
            "--metrics-address=off",
        ];
        let Arguments {
            command: Command::Agent(mut arguments),
            log_format,
        } = Arguments::try_parse_from(line).unwrap()
        else {
            panic!("not the agent")
        };
        change(&mut arguments);
        Settings::new(arguments, log_format).unwrap()
    }

    fn supervisor_manifest(&self) -> PathBuf {
        self.path("etc/kubernetes/manifests/pod-checkpointer-supervisor.yaml")
    }

    fn volume(&self, uid: &str) -> PathBuf {
        self.path(&format!(
            "var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~configmap/prices"
        ))
    }

    /// Starts a pod on the node, as the kubelet does, and returns it as the API server has it.
    pub fn run_pod(&self, name: &str, uid: &str) -> Value {
        let mut pod = Pod::new("shop", name, uid);
        pod.containers = vec![Spec::new("app", IMAGE)];
        let id = self.runtime.change(|state| {
            let sandbox = state.run(&pod);
            state
                .containers
                .iter()
                .find(|(_, container)| container.sandbox == sandbox)
                .unwrap()
                .0
                .clone()
        });
        self.swap(uid, "1");
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "shop", "name": name, "uid": uid,
                "annotations": {"podcheckpointer.io/checkpoint": "true"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "till", "uid": "till-uid",
                    "controller": true}]},
            "spec": {
                "nodeName": NAME, "restartPolicy": "Always", "automountServiceAccountToken": false,
                "containers": [{"name": "app", "image": IMAGE, "volumeMounts": [{"name": "prices", "mountPath": "/prices"}]}],
                "volumes": [{"name": "prices", "configMap": {"name": "prices"}}],
            },
            "status": {
                "phase": "Running", "podIP": "10.1.0.5", "podIPs": [{"ip": "10.1.0.5"}], "hostIP": "10.0.0.1",
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-21T10:00:00Z"}],
                "containerStatuses": [{"name": "app", "image": IMAGE, "imageID": "sha256:0123456789abcdef", "ready": true,
                    "restartCount": 0, "containerID": format!("containerd://{id}"), "state": {"running": {}}}],
            },
        })
    }

    /// New content of the pod's volume, in the kubelet's way.
    pub fn swap(&self, uid: &str, content: &str) {
        swap_volume(
            &self.volume(uid),
            &format!("..{content}"),
            &[("list", 0o644, content.as_bytes())],
        );
    }

    /// Runs an agent for as long as the story takes; then it must end without an error.
    pub async fn with_agent(&self, settings: Settings, story: impl Future<Output = ()>) {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let agent = agent::run(settings, self.api.client(), self.api.client(), async {
            let _ = stopped.await;
        });
        let mut agent = std::pin::pin!(agent);
        tokio::select! {
            result = &mut agent => panic!("the agent ended: {result:?}"),
            () = story => {}
        }
        drop(stop);
        agent.await.unwrap();
    }

    /// Waits until this generation is in the store and the PodCheckpoint shows it.
    pub async fn captured(&self, name: &str, generation: u64) {
        let key = format!("shop_{name}");
        eventually(&format!("generation {generation} of {key}"), || {
            self.newest(&key) == Some(generation)
        })
        .await;
        let condition = |state: &State| {
            let path = checkpoint_path("shop", name);
            state
                .objects
                .get(&path)
                .is_some_and(|object| object["status"]["generation"] == json!(generation))
        };
        until(&self.api.state, condition).await;
    }

    /// The newest generation of a pod.
    fn newest(&self, key: &str) -> Option<u64> {
        self.store()
            .newest(&id(key))
            .unwrap()
            .0
            .map(|newest| newest.number)
    }

    /// What the agent reports to the supervisor.
    fn agent_report(&self) -> AgentReport {
        self.run_dir().read(AGENT).unwrap().unwrap_or_default()
    }

    /// A pod that was captured by an agent that has ended.
    async fn after_capture(&self) -> Value {
        let pod = self.run_pod("till", "uid-1");
        self.api.put_pod(pod.clone());
        self.with_agent(self.settings(), self.captured("till", 1))
            .await;
        pod
    }

    /// Waits until the agent has asked this often whether a pod is gone.
    async fn asked(&self, times: u32) {
        self.api.until_asked("GET pods", times).await;
    }

    /// Waits until nothing is captured any more.
    async fn removed(&self) {
        eventually("the store is empty", || {
            self.store().keys().unwrap().is_empty()
        })
        .await;
    }

    /// What is captured of the pod's volume.
    fn content(&self, name: &str) -> Vec<u8> {
        let newest = self
            .store()
            .newest(&id(&format!("shop_{name}")))
            .unwrap()
            .0
            .unwrap();
        let volume = &newest.checkpoint.volumes["prices"];
        let data = volume
            .entries
            .iter()
            .find_map(|entry| entry.data.as_ref())
            .unwrap();
        decode(data).unwrap()
    }

    /// The names of a pod's files in the store.
    fn files(&self, key: &str) -> Vec<String> {
        let directory = self.store().directory().join("checkpoints").join(key);
        let mut names: Vec<String> = std::fs::read_dir(directory)
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}
