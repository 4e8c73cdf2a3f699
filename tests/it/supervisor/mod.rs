//! The whole life of checkpoints as the supervisor leads it: a node that booted without its API
//! server, what comes back, and how it is handed over. Each story reads alone. One goes to the
//! theme that its name speaks of:
//!
//! * `activation`: when twins are activated, and when not;
//! * `preconditions`: what must hold of a checkpoint and its node before that;
//! * `handover`: how a parent takes over from its twin;
//! * `restart`: how a supervisor continues from what an earlier one left.
//!
//! The decision itself is tested next to the code, in `src/supervisor`.

mod activation;
mod handover;
pub mod preconditions;
mod restart;

use std::collections::BTreeMap;
use std::time::Duration;

use pod_checkpointer::checkpoint::encoding::encode;
use pod_checkpointer::checkpoint::format::API_VERSION;
use pod_checkpointer::checkpoint::{
    Captured, Entry, Image, NodeCheckpoint, Parent, Policy, Volume,
};
use pod_checkpointer::node::clock;
use pod_checkpointer::node::proto::runtime as cri;
use pod_checkpointer::places::node_record::NodeRecord;
use pod_checkpointer::places::reports::{AGENT, AgentReport, Phase};
use pod_checkpointer::places::store::Put;
use pod_checkpointer::pod::room::Amounts;
use serde_json::json;

use crate::stub::node::{IMAGE, listing};
use crate::stub::runtime::{Call, Spec};
use crate::stub::{Mode, Node, Part, Pod, eventually, id, until};

/// The pod that most stories are about.
pub const TILL: &str = "shop_till";

/// A checkpoint of a pod in namespace `shop` with one container and a Secret, captured in another
/// boot.
pub fn checkpoint(name: &str) -> NodeCheckpoint {
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let entry = |path: &str, mode: &str, data: Option<&[u8]>, link: Option<&str>| Entry {
        path: path.into(),
        mode: mode.into(),
        uid,
        gid,
        data: data.map(encode),
        link: link.map(str::to_owned),
    };
    let credentials = Volume {
        entries: vec![
            entry("", "0755", None, None),
            entry("..2026_11_21", "0755", None, None),
            entry("..2026_11_21/password", "0440", Some(b"s3cret\n"), None),
            entry("..data", "0777", None, Some("..2026_11_21")),
            entry("password", "0777", None, Some("..data/password")),
        ],
    };
    let nil = "00000000-0000-0000-0000-000000000000";
    let path = format!("/anywhere/volumes/shop_{name}/{nil}/credentials");
    let parent = Parent {
        namespace: "shop".into(),
        name: name.into(),
        uid: format!("parent-{name}"),
        resource_version: "42".into(),
        owner: None,
        node_uid: None,
    };
    let captured = Captured {
        wall: "2026-11-21T10:00:00Z".into(),
        boot_id: "another".into(),
        uptime_seconds: 100,
    };
    let manifest = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": name, "uid": nil, "annotations": {
            "podcheckpointer.io/checkpoint-of": format!("shop/{name}"),
            "podcheckpointer.io/parent-uid": format!("parent-{name}")}},
        "spec": {
            "containers": [{"name": "app", "image": IMAGE, "env": [{"name": "CURRENCY", "value": "EUR"}],
                "lifecycle": {"preStop": {"sleep": {"seconds": 120}}},
                "volumeMounts": [{"name": "credentials", "mountPath": "/credentials", "readOnly": true}]}],
            "volumes": [{"name": "credentials", "hostPath": {"type": "Directory", "path": path}}],
        },
    });
    let mut checkpoint = NodeCheckpoint::new(
        parent,
        captured,
        Policy {
            grace_seconds: 7,
            ..Policy::default()
        },
        manifest,
    );
    checkpoint.images = BTreeMap::from([(
        "app".into(),
        Image {
            name: IMAGE.into(),
            id: "sha256:0123456789abcdef".into(),
        },
    )]);
    checkpoint.volumes = BTreeMap::from([("credentials".into(), credentials)]);
    checkpoint.with_digest()
}

/// The pod itself, as the kubelet has it from the API server.
pub fn parent(name: &str) -> Pod {
    let mut pod = Pod::new("shop", name, &format!("parent-{name}"));
    pod.containers = vec![Spec::new("app", IMAGE)];
    pod
}

/// What the stories do and wait for.
impl Node {
    fn store_checkpoint(&self, checkpoint: &NodeCheckpoint) -> Put {
        self.store().create().unwrap();
        self.store().put(checkpoint).unwrap()
    }

    /// A node that rebooted without its API server, where this was captured before.
    pub async fn rebooted_with(checkpoints: &[NodeCheckpoint]) -> Self {
        let node = Self::start();
        for checkpoint in checkpoints {
            node.store_checkpoint(checkpoint);
            node.runtime
                .change(|state| state.run(&parent(&checkpoint.parent.name)));
        }
        node.server.set(Mode::Refuse).await;
        node.cut_power().await;
        node.kubelet.restart().await;
        node
    }

    fn supervise(&self) -> Part {
        Part::supervisor(self.arguments())
    }

    /// Waits until the twin of this pod serves, and returns its UID.
    pub async fn serves(&self, key: &str) -> String {
        eventually("the twin is active", || {
            self.report(key).phase == Phase::Active && self.is_linked(key)
        })
        .await;
        let uid = self.report(key).twin_uid.unwrap();
        until(&self.runtime.state, |state| state.is_running(&uid)).await;
        uid
    }

    pub async fn is_told(&self, key: &str, phase: Phase, reason: Option<&str>) {
        let what = format!("{key} is {phase:?} for {reason:?}");
        let is_so = || {
            let report = self.report(key);
            report.phase == phase && report.reason.as_deref() == reason
        };
        eventually(&what, is_so).await;
    }

    async fn has_problem(&self, with: &str) {
        eventually(with, || {
            self.status()
                .problems
                .iter()
                .any(|problem| problem.contains(with))
        })
        .await;
    }

    /// The agent reports the pod as Ready, with the containers that run now.
    pub fn agent_says_ready(&self, name: &str) {
        let uid = format!("parent-{name}");
        let state = self.runtime.state.borrow();
        let running = cri::ContainerState::ContainerRunning;
        let containers = state
            .containers
            .iter()
            .filter(|(_, one)| one.pod_uid == uid && one.state == running);
        let ready = BTreeMap::from([(
            id(&format!("shop_{name}")),
            containers.map(|(id, _)| id.clone()).collect(),
        )]);
        self.run_dir()
            .write(
                AGENT,
                &AgentReport {
                    ready,
                    heartbeat: 1,
                    ..AgentReport::default()
                },
            )
            .unwrap();
    }

    /// Waits until the parent serves alone and nothing of its twin is left.
    pub async fn is_handed_over(&self, name: &str, twin: &str) {
        let key = format!("shop_{name}");
        self.is_told(&key, Phase::Inactive, None).await;
        until(&self.runtime.state, |state| {
            state
                .sandboxes
                .values()
                .all(|sandbox| sandbox.pod.uid != twin)
        })
        .await;
        assert!(
            self.runtime
                .state
                .borrow()
                .is_running(&format!("parent-{name}"))
        );
        assert!(
            std::fs::symlink_metadata(self.link(&key)).is_err(),
            "the link is left"
        );
        assert!(self.run_dir().keys().unwrap().is_empty());
        assert!(listing(&self.run_dir().path().join("volumes")).is_empty());
    }

    /// Waits until the supervisor asked the runtime this many times more.
    async fn passes(&self, times: u32) {
        let before = self.runtime.state.borrow().taken;
        until(&self.runtime.state, |state| {
            state.taken >= before + 2 * times
        })
        .await;
    }

    /// Waits as long as this, and for the passes of the supervisor after it.
    async fn passes_for(&self, time: Duration) {
        let end = clock::boot_time() + time;
        while clock::boot_time() < end {
            self.passes(1).await;
        }
        self.passes(3).await;
    }

    fn stops(&self) -> Vec<Call> {
        self.runtime.state.borrow().calls.clone()
    }

    fn has_nothing_of_ours(&self) -> bool {
        listing(&self.kubelet.manifests).is_empty()
            && listing(&self.run_dir().path().join("active")).is_empty()
            && listing(&self.run_dir().path().join("volumes")).is_empty()
    }

    fn sandbox_of(&self, uid: &str) -> String {
        let state = self.runtime.state.borrow();
        state
            .sandboxes
            .iter()
            .find(|(_, sandbox)| sandbox.pod.uid == uid)
            .unwrap()
            .0
            .clone()
    }

    /// Records about the node what the agent records.
    pub fn record(&self, name: &str, uid: &str, allocatable: Option<Amounts>) {
        self.store().create().unwrap();
        let record = NodeRecord {
            api_version: API_VERSION.into(),
            kind: "NodeRecord".into(),
            node_name: name.into(),
            node_uid: uid.into(),
            current_uid: None,
            allocatable,
            servers: Vec::new(),
        };
        self.store().put_node(&record).unwrap();
    }
}
