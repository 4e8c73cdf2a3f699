//! The whole life of checkpoints as the supervisor leads it: a node that booted without its API server, what comes back,
//! and how it is handed over.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use pod_checkpointer::checkpoint::encoding::encode;
use pod_checkpointer::checkpoint::format::{API_VERSION, KIND};
use pod_checkpointer::checkpoint::keys::KeyFiles;
use pod_checkpointer::checkpoint::{Captured, Entry, Image, NodeCheckpoint, Parent, Policy, Volume};
use pod_checkpointer::node::contact::Class;
use pod_checkpointer::node::host::HostRoot;
use pod_checkpointer::node::proto::runtime as cri;
use pod_checkpointer::places::node_record::NodeRecord;
use pod_checkpointer::places::reports::{AGENT, AgentWord, OUTAGES, Outages, Phase};
use pod_checkpointer::places::store::Put;
use pod_checkpointer::pod::room::{Amounts, Demand};
use serde_json::json;

use crate::stub::node::{IMAGE, listing, story};
use crate::stub::runtime::{Call, Spec};
use crate::stub::{self, ApiServer, Fault, Mode, Node, Part, Pod, eventually, until};

/// The pod that most stories are about.
pub const TILL: &str = "shop_till";

/// A checkpoint of a pod in namespace `shop` with one container and a Secret, captured in another boot.
pub fn checkpoint(name: &str) -> NodeCheckpoint {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
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
    NodeCheckpoint {
        api_version: API_VERSION.into(),
        kind: KIND.into(),
        digest: String::new(),
        written_by: "a test".into(),
        captured: Captured { wall: "2026-11-21T10:00:00Z".into(), boot_id: "another".into(), uptime_seconds: 100 },
        parent: Parent {
            namespace: "shop".into(),
            name: name.into(),
            uid: format!("parent-{name}"),
            resource_version: "42".into(),
            owner: None,
            node_uid: None,
        },
        policy: Policy {
            start_group: 50,
            max_age_seconds: None,
            handover: None,
            host_network: false,
            host_port: false,
            stateful: false,
            slow_start: false,
            grace_seconds: 7,
        },
        images: BTreeMap::from([("app".into(), Image { name: IMAGE.into(), id: "sha256:0123456789abcdef".into() })]),
        warnings: Vec::new(),
        manifest: json!({
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
        }),
        volumes: BTreeMap::from([("credentials".into(), credentials)]),
    }
    .with_digest()
}

/// The pod itself, as the kubelet has it from the API server.
pub fn parent(name: &str) -> Pod {
    let mut pod = Pod::new("shop", name, &format!("parent-{name}"));
    pod.containers = vec![Spec::new("app", IMAGE)];
    pod
}

/// What the stories do and wait for.
impl Node {
    fn captured(&self, checkpoint: &NodeCheckpoint) -> Put {
        self.store().create().unwrap();
        self.store().put(checkpoint).unwrap()
    }

    /// A node that rebooted without its API server, where this was captured before.
    pub async fn rebooted_with(checkpoints: &[NodeCheckpoint]) -> Self {
        let node = Self::start();
        for checkpoint in checkpoints {
            node.captured(checkpoint);
            node.runtime.change(|state| state.run(&parent(&checkpoint.parent.name)));
        }
        node.server.set(Mode::Refuse).await;
        node.cut_power().await;
        node.kubelet.restart().await;
        node
    }

    fn supervise(&self) -> Part {
        Part::supervisor(self.arguments())
    }

    /// Waits until the twin of this pod serves, and says its UID.
    pub async fn serves(&self, key: &str) -> String {
        eventually("the twin is active", || self.report(key).phase == Phase::Active && self.is_linked(key)).await;
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
        eventually(with, || self.status().problems.iter().any(|problem| problem.contains(with))).await;
    }

    /// The agent says which containers make the pod Ready: those that run now.
    pub fn agent_says_ready(&self, name: &str) {
        let uid = format!("parent-{name}");
        let state = self.runtime.state.borrow();
        let running = cri::ContainerState::ContainerRunning;
        let containers = state.containers.iter().filter(|(_, one)| one.pod_uid == uid && one.state == running);
        let ready = BTreeMap::from([(format!("shop_{name}"), containers.map(|(id, _)| id.clone()).collect())]);
        self.run_dir().write(AGENT, &AgentWord { ready, heartbeat: 1, ..AgentWord::default() }).unwrap();
    }

    /// Waits until the parent serves alone and nothing of its twin is left.
    pub async fn is_handed_over(&self, name: &str, twin: &str) {
        let key = format!("shop_{name}");
        self.is_told(&key, Phase::Inactive, None).await;
        until(&self.runtime.state, |state| state.sandboxes.values().all(|sandbox| sandbox.pod.uid != twin)).await;
        assert!(self.runtime.state.borrow().is_running(&format!("parent-{name}")));
        assert!(std::fs::symlink_metadata(self.link(&key)).is_err(), "the link is left");
        assert!(self.run_dir().keys().unwrap().is_empty());
        assert!(listing(&self.run_dir().path().join("volumes")).is_empty());
    }

    /// Waits until the supervisor asked the runtime this many times more.
    async fn passes(&self, times: u32) {
        let before = self.runtime.state.borrow().taken;
        until(&self.runtime.state, |state| state.taken >= before + 2 * times).await;
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
        state.sandboxes.iter().find(|(_, sandbox)| sandbox.pod.uid == uid).unwrap().0.clone()
    }
}

#[test]
fn after_a_reboot_the_twin_serves_until_its_parent_is_ready() {
    story(async {
        let node = Node::rebooted_with(&[checkpoint("till")]).await;
        let supervisor = node.supervise();
        let twin = node.serves(TILL).await;
        let file = node.run_dir().path().join(format!("volumes/{TILL}/{twin}/credentials/password"));
        assert_eq!(std::fs::read(&file).unwrap(), b"s3cret\n");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o440);
        let env =
            node.runtime.state.borrow().containers.values().find(|one| one.pod_uid == twin).unwrap().spec.env.clone();
        assert_eq!(env, [("CURRENCY".into(), "EUR".into())]);
        node.passes(2).await;

        node.server.set(Mode::Status(200)).await;
        node.is_told(TILL, Phase::Released, None).await;
        assert!(!node.is_linked(TILL) && file.exists(), "the link goes, the files stay");
        node.kubelet.settle().await;
        node.kubelet.sync_api(&[parent("till")]);
        until(&node.runtime.state, |state| state.is_running("parent-till")).await;
        node.passes(3).await;
        assert!(node.runtime.state.borrow().is_running(&twin), "the twin serves until the parent is Ready");
        assert_eq!(node.stops(), []);

        node.agent_says_ready("till");
        node.is_handed_over("till", &twin).await;
        assert!(matches!(node.stops()[0], Call::StopContainer(_, 7)), "with the parent's grace: {:?}", node.stops());
        let outages: Outages = node.run_dir().read(OUTAGES).unwrap().unwrap();
        let pod = &outages.outages[0].pods[TILL];
        let times = [pod.activated, pod.serving, pod.released, pod.taken_over];
        assert!(times.iter().all(Option::is_some) && times.is_sorted(), "{times:?}");
        supervisor.end().await;
    });
}

#[test]
fn on_the_host_network_the_twin_ends_when_its_parents_container_is_there_and_not_before() {
    story(async {
        let mut captured = checkpoint("till");
        captured.policy.host_network = true;
        captured.manifest["spec"]["hostNetwork"] = json!(true);
        let node = Node::rebooted_with(&[captured.with_digest()]).await;
        let supervisor = node.supervise();
        let twin = node.serves(TILL).await;
        // the parent's volumes wait for the API server that the twin may be
        node.kubelet.state.send_modify(|state| state.is_stuck = true);
        node.server.set(Mode::Status(200)).await;
        node.is_told(TILL, Phase::Released, None).await;
        node.kubelet.settle().await;
        node.kubelet.sync_api(&[parent("till")]);
        node.kubelet.settle().await;
        node.passes(3).await;
        assert!(node.runtime.state.borrow().is_running(&twin));
        assert_eq!(node.stops(), []);
        node.kubelet.state.send_modify(|state| state.is_stuck = false);
        node.is_handed_over("till", &twin).await;
        assert!(matches!(node.stops()[0], Call::StopContainer(_, 7)), "{:?}", node.stops());
        supervisor.end().await;
    });
}

#[test]
fn a_host_port_on_crio_is_freed_with_its_sandbox_as_soon_as_the_kubelet_owns_the_parent() {
    story(async {
        let mut captured = checkpoint("till");
        captured.policy.host_port = true;
        let node = Node::rebooted_with(&[captured.with_digest()]).await;
        node.runtime.change(|state| state.name = "cri-o".into());
        let supervisor = node.supervise();
        let twin = node.serves(TILL).await;
        let sandbox = node.sandbox_of(&twin);
        node.kubelet.state.send_modify(|state| state.is_stuck = true);
        node.server.set(Mode::Status(200)).await;
        node.is_told(TILL, Phase::Released, None).await;
        node.kubelet.settle().await;
        assert!(node.runtime.state.borrow().is_running(&twin), "nobody owns the parent yet");
        node.kubelet.sync_api(&[parent("till")]);
        until(&node.runtime.state, |state| !state.calls.is_empty()).await;
        assert_eq!(node.stops(), [Call::StopSandbox(sandbox)]);
        node.kubelet.state.send_modify(|state| state.is_stuck = false);
        node.is_handed_over("till", &twin).await;
        supervisor.end().await;
    });
}

#[test]
fn silence_alone_activates_nothing() {
    story(async {
        let node = Node::start();
        node.captured(&checkpoint("till"));
        node.kubelet.sync_api(&[parent("till")]);
        until(&node.runtime.state, |state| state.is_running("parent-till")).await;
        let supervisor = node.supervise();
        eventually("contact", || node.status().contact.is_some_and(|contact| contact.class == Class::Answering)).await;
        node.server.set(Mode::Refuse).await;
        eventually("silence", || node.status().contact.is_some_and(|contact| contact.class == Class::Silent)).await;
        node.passes(10).await;
        node.runtime.change(|state| state.kill("parent-till"));
        until(&node.runtime.state, |state| state.is_running("parent-till")).await;
        node.passes(10).await;
        assert_eq!(node.report(TILL).phase, Phase::Inactive);
        assert!(node.has_nothing_of_ours());
        assert_eq!(node.stops(), []);
        supervisor.end().await;
    });
}

#[test]
fn of_several_api_servers_one_that_answers_is_contact_and_a_hung_one_holds_nothing_up() {
    story(async {
        let node = Node::rebooted_with(&[checkpoint("till")]).await;
        let other = ApiServer::start();
        other.set(Mode::HangBeforeTls).await;
        let bundle = node.server.server().ca + &other.server().ca;
        std::fs::write(node.path("ca.crt"), bundle).unwrap();
        let mut arguments = node.arguments();
        arguments.decision.apiservers.push(other.server().url);
        // longer than this story may take: whoever waits for the hung one is late
        arguments.decision.probe_timeout = stub::PATIENCE * 2;
        node.server.set(Mode::Status(200)).await;
        let supervisor = Part::supervisor(arguments.clone());
        eventually("contact", || node.status().contact.is_some_and(|contact| contact.class == Class::Answering)).await;
        supervisor.end().await;

        arguments.decision.probe_timeout = Duration::from_millis(500);
        node.server.set(Mode::Refuse).await;
        other.set(Mode::Status(200)).await;
        let supervisor = Part::supervisor(arguments);
        eventually("contact", || node.status().contact.is_some_and(|contact| contact.class == Class::Answering)).await;
        let asked = other.state.borrow().requests.len();
        until(&other.state, |state| state.requests.len() >= asked + 10).await;
        assert!(node.has_nothing_of_ours(), "one of two answers");

        other.set(Mode::HangBeforeTls).await;
        let twin = node.serves(TILL).await;
        other.set(Mode::Status(200)).await;
        node.is_told(TILL, Phase::Released, None).await;
        assert!(node.runtime.state.borrow().is_running(&twin));
        supervisor.end().await;
    });
}

#[test]
fn beside_a_parent_that_outlived_its_kubelet_nothing_is_started_until_it_is_gone() {
    story(async {
        let node = Node::start();
        node.captured(&checkpoint("till"));
        node.kubelet.sync_api(&[parent("till")]);
        until(&node.runtime.state, |state| state.is_running("parent-till")).await;
        node.server.set(Mode::Refuse).await;
        node.kubelet.restart().await;
        let supervisor = node.supervise();
        eventually("silence", || node.status().contact.is_some_and(|contact| contact.class == Class::Silent)).await;
        node.passes(10).await;
        assert!(node.has_nothing_of_ours());
        node.runtime.change(|state| state.remove("parent-till"));
        node.serves(TILL).await;
        supervisor.end().await;
    });
}

#[test]
fn a_runtime_that_hangs_activates_nothing_until_it_answers() {
    story(async {
        let node = Node::rebooted_with(&[checkpoint("till")]).await;
        node.runtime.change(|state| state.fault = Fault::Hang);
        let supervisor = node.supervise();
        node.has_problem("did not answer").await;
        assert!(node.has_nothing_of_ours());
        node.runtime.change(|state| state.fault = Fault::None);
        node.serves(TILL).await;
        eventually("the problem is over", || node.status().problems.is_empty()).await;
        supervisor.end().await;
    });
}

#[test]
fn a_kubelet_without_its_socket_activates_nothing_until_it_listens() {
    story(async {
        let node = Node::rebooted_with(&[checkpoint("till")]).await;
        node.kubelet.resources.stop().await;
        std::fs::remove_file(node.kubelet.resources.socket()).unwrap();
        let supervisor = node.supervise();
        node.has_problem("no kubelet listens").await;
        node.passes(10).await;
        assert!(node.has_nothing_of_ours());
        node.kubelet.resources.resume();
        node.serves(TILL).await;
        supervisor.end().await;
    });
}

#[test]
fn a_runtime_that_hangs_does_not_hold_a_release_up() {
    story(async {
        let node = Node::rebooted_with(&[checkpoint("till")]).await;
        let supervisor = node.supervise();
        let twin = node.serves(TILL).await;
        node.runtime.change(|state| state.fault = Fault::Hang);
        node.server.set(Mode::Status(200)).await;
        eventually("the link goes", || !node.is_linked(TILL)).await;
        node.kubelet.settle().await;
        node.runtime.change(|state| state.fault = Fault::None);
        node.kubelet.sync_api(&[parent("till")]);
        until(&node.runtime.state, |state| state.is_running("parent-till")).await;
        node.agent_says_ready("till");
        node.is_handed_over("till", &twin).await;
        supervisor.end().await;
    });
}

#[test]
fn one_pod_that_cannot_be_activated_does_not_hold_up_another() {
    story(async {
        let mut other = checkpoint("other");
        other.images.get_mut("app").unwrap().name = "registry.example/absent:v1".into();
        let node = Node::rebooted_with(&[other.with_digest(), checkpoint("till")]).await;
        let supervisor = node.supervise();
        node.serves(TILL).await;
        node.is_told("shop_other", Phase::Blocked, Some("ImageAbsent")).await;
        assert!(node.report("shop_other").message.unwrap().contains("registry.example/absent:v1"));
        supervisor.end().await;
    });
}

#[test]
fn a_lower_start_group_runs_before_a_higher_one_is_linked() {
    story(async {
        let mut network = checkpoint("network");
        network.policy.start_group = 10;
        let node = Node::rebooted_with(&[network.with_digest(), checkpoint("till")]).await;
        node.kubelet.state.send_modify(|state| state.is_stuck = true);
        let supervisor = node.supervise();
        eventually("the first group is linked", || node.is_linked("shop_network")).await;
        node.passes(5).await;
        assert!(!node.is_linked(TILL));
        node.kubelet.state.send_modify(|state| state.is_stuck = false);
        node.serves(TILL).await;
        supervisor.end().await;
    });
}

#[test]
fn a_hundred_and_ten_pods_of_one_group_are_linked_in_one_pass() {
    story(async {
        let checkpoints: Vec<_> = (1..=110).map(|number| checkpoint(&format!("till-{number}"))).collect();
        let node = Node::rebooted_with(&checkpoints).await;
        let supervisor = node.supervise();
        for checkpoint in &checkpoints {
            let key = checkpoint.key();
            eventually(&key, || node.is_linked(&key)).await;
        }
        let outages = || node.run_dir().read::<Outages>(OUTAGES).unwrap().unwrap_or_default();
        eventually("all are reported", || outages().counts.activations.values().sum::<u64>() >= 110).await;
        let Outages { outages, counts } = outages();
        assert_eq!(counts.activations, [("Activated".to_owned(), 110)].into(), "each once");
        let decided: BTreeSet<_> = outages[0].pods.values().map(|pod| pod.decided.unwrap()).collect();
        assert_eq!(
            (outages[0].pods.len(), decided.len()),
            (110, 1),
            "a pass decides with one moment as now: {decided:?}"
        );
        supervisor.end().await;
    });
}

#[test]
fn a_supervisor_that_is_killed_is_followed_by_one_that_goes_on_with_the_same_twin() {
    story(async {
        let node = Node::rebooted_with(&[checkpoint("till")]).await;
        let supervisor = node.supervise();
        let twin = node.serves(TILL).await;

        supervisor.kill().await;
        std::fs::remove_file(node.run_dir().path().join("status.yaml")).unwrap();
        let supervisor = node.supervise();
        assert_eq!(node.serves(TILL).await, twin, "while it was active");

        supervisor.kill().await;
        std::fs::remove_file(node.run_dir().path().join("status.yaml")).unwrap();
        node.server.set(Mode::Status(200)).await;
        let supervisor = node.supervise();
        node.is_told(TILL, Phase::Released, None).await;
        assert_eq!(
            node.report(TILL).twin_uid.as_deref(),
            Some(twin.as_str()),
            "while nobody saw the API server answer"
        );

        supervisor.kill().await;
        node.kubelet.settle().await;
        node.kubelet.sync_api(&[parent("till")]);
        until(&node.runtime.state, |state| state.is_running("parent-till")).await;
        assert!(node.runtime.state.borrow().is_running(&twin));
        node.agent_says_ready("till");
        let supervisor = node.supervise();
        node.is_handed_over("till", &twin).await;
        let starts = node.runtime.state.borrow().containers.values().filter(|one| one.pod_uid == twin).count();
        assert_eq!(starts, 0, "the kubelet took it away");
        supervisor.end().await;
    });
}

#[test]
fn a_second_supervisor_waits_for_the_end_of_the_first() {
    story(async {
        let node = Node::rebooted_with(&[checkpoint("till")]).await;
        let first = node.supervise();
        let twin = node.serves(TILL).await;
        let second = node.supervise();
        node.passes(5).await;
        first.end().await;
        node.server.set(Mode::Status(200)).await;
        node.is_told(TILL, Phase::Released, None).await;
        assert_eq!(node.report(TILL).twin_uid, Some(twin));
        second.end().await;
    });
}

#[test]
fn a_damaged_generation_gives_way_to_the_one_before() {
    story(async {
        let node = Node::rebooted_with(&[checkpoint("till")]).await;
        let mut newer = checkpoint("till");
        newer.manifest["spec"]["containers"][0]["env"][0]["value"] = json!("USD");
        assert!(matches!(node.captured(&newer.with_digest()), Put::Written(2, _)));
        let newest = node.store().newest(TILL).unwrap().0.unwrap().path;
        let text = std::fs::read_to_string(&newest).unwrap();
        std::fs::write(&newest, text.replace("USD", "CHF")).unwrap();
        let supervisor = node.supervise();
        let twin = node.serves(TILL).await;
        let env =
            node.runtime.state.borrow().containers.values().find(|one| one.pod_uid == twin).unwrap().spec.env.clone();
        assert_eq!(env, [("CURRENCY".into(), "EUR".into())]);
        supervisor.end().await;
    });
}

#[test]
fn without_a_good_generation_the_pod_is_blocked_as_damaged_and_others_go_on() {
    story(async {
        let node = Node::rebooted_with(&[checkpoint("other"), checkpoint("till")]).await;
        let mut newer = checkpoint("till");
        newer.parent.resource_version = "43".into();
        newer.policy.grace_seconds = 8;
        node.captured(&newer.with_digest());
        let found = node.store().find(TILL).unwrap().good;
        assert_eq!(found.len(), 2);
        for generation in found {
            let bytes = std::fs::read(&generation.path).unwrap();
            std::fs::write(&generation.path, &bytes[..bytes.len() / 2]).unwrap();
        }
        let supervisor = node.supervise();
        node.is_told(TILL, Phase::Blocked, Some("Damaged")).await;
        assert!(node.report(TILL).message.unwrap().contains("0000000002.yaml"), "{:?}", node.report(TILL));
        node.serves("shop_other").await;
        assert!(!node.is_linked(TILL));
        supervisor.end().await;
    });
}

#[test]
fn a_file_of_somebody_elses_under_our_links_name_blocks_the_pod_and_is_left_alone() {
    story(async {
        let node = Node::rebooted_with(&[checkpoint("till")]).await;
        std::fs::write(node.link(TILL), "somebody's").unwrap();
        let supervisor = node.supervise();
        node.is_told(TILL, Phase::Blocked, Some("ForeignManifest")).await;
        node.server.set(Mode::Status(200)).await;
        node.is_told(TILL, Phase::Inactive, None).await;
        assert_eq!(std::fs::read_to_string(node.link(TILL)).unwrap(), "somebody's");
        assert!(listing(&node.run_dir().path().join("volumes")).is_empty(), "nothing was unpacked");
        supervisor.end().await;
        assert_eq!(std::fs::read_to_string(node.link(TILL)).unwrap(), "somebody's");
    });
}

#[test]
fn onto_a_disk_nothing_is_unpacked_and_the_reason_is_shown() {
    let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let run_dir = disk.path().join("run");
    let run = pod_checkpointer::places::run::RunDir::new(&run_dir, &run_dir);
    if run.open("probe").is_ok() {
        return; // the build directory is in memory: nothing to see here
    }
    story(async {
        let node = Node::rebooted_with(&[checkpoint("till")]).await;
        let mut arguments = node.arguments();
        arguments.node.host.run_dir.clone_from(&run_dir);
        let supervisor = Part::supervisor(arguments);
        let status =
            || run.read::<pod_checkpointer::places::reports::Status>("status.yaml").unwrap().unwrap_or_default();
        eventually("the reason", || {
            let pods = status().pods;
            pods.iter().any(|pod| pod.phase == Phase::Blocked && pod.reason.as_deref() == Some("RunDirNotMemory"))
        })
        .await;
        assert!(status().problems.iter().any(|problem| problem.contains("not memory-backed")), "{:?}", status());
        assert!(listing(&node.kubelet.manifests).is_empty());
        assert_eq!(listing(&run_dir), [Path::new("status.yaml"), Path::new("supervisor.lock")]);
        supervisor.end().await;
    });
}

#[test]
fn links_of_another_boot_are_removed_before_anything_is_decided() {
    story(async {
        let node = Node::rebooted_with(&[checkpoint("till")]).await;
        let supervisor = node.supervise();
        let before = node.serves(TILL).await;
        supervisor.kill().await;
        node.cut_power().await;
        assert!(node.link(TILL).is_symlink() && !node.link(TILL).exists(), "it dangles");
        node.server.set(Mode::Status(200)).await;
        node.kubelet.restart().await;
        let supervisor = node.supervise();
        eventually("the link goes", || !node.link(TILL).is_symlink()).await;
        node.is_told(TILL, Phase::Inactive, None).await;
        node.server.set(Mode::Refuse).await;
        assert_ne!(node.serves(TILL).await, before, "another boot, another twin");
        supervisor.end().await;
    });
}

#[test]
fn a_server_that_begins_to_fail_releases_and_one_that_starts_with_failures_activates_nothing() {
    story(async {
        let node = Node::rebooted_with(&[checkpoint("till")]).await;
        node.server.set(Mode::Status(500)).await;
        let supervisor = node.supervise();
        eventually("failing", || node.status().contact.is_some_and(|contact| contact.class == Class::Failing)).await;
        node.passes(10).await;
        assert!(node.has_nothing_of_ours());
        node.server.set(Mode::Refuse).await;
        let twin = node.serves(TILL).await;
        node.server.set(Mode::Status(503)).await;
        node.is_told(TILL, Phase::Released, None).await;
        assert!(node.runtime.state.borrow().is_running(&twin));
        supervisor.end().await;
    });
}

#[test]
fn contact_that_flaps_leaves_one_twin_serving_all_the_while() {
    story(async {
        let node = Node::rebooted_with(&[checkpoint("till")]).await;
        let supervisor = node.supervise();
        let twin = node.serves(TILL).await;
        for _ in 0..4 {
            node.server.set(Mode::Status(200)).await;
            node.is_told(TILL, Phase::Released, None).await;
            node.passes(2).await;
            node.server.set(Mode::Refuse).await;
            eventually("silence", || node.status().contact.is_some_and(|contact| contact.class == Class::Silent)).await;
            node.passes(4).await;
            assert_eq!(node.report(TILL).phase, Phase::Released, "taken back for a moment's silence");
        }
        assert_eq!(node.serves(TILL).await, twin, "taken back");
        let starts: Vec<u32> = {
            let state = node.runtime.state.borrow();
            state.containers.values().filter(|one| one.pod_uid == twin).map(|one| one.attempt).collect()
        };
        assert_eq!((starts, node.stops()), (vec![0], vec![]), "started once, never stopped");

        node.server.set(Mode::Status(200)).await;
        node.is_told(TILL, Phase::Released, None).await;
        node.kubelet.settle().await;
        node.kubelet.sync_api(&[parent("till")]);
        until(&node.runtime.state, |state| state.is_running("parent-till")).await;
        node.agent_says_ready("till");
        node.is_handed_over("till", &twin).await;
        supervisor.end().await;
    });
}

#[test]
fn a_pod_that_was_deleted_meanwhile_ends_with_its_twin() {
    story(async {
        let node = Node::rebooted_with(&[checkpoint("till")]).await;
        let supervisor = node.supervise();
        let twin = node.serves(TILL).await;
        node.server.set(Mode::Status(200)).await;
        node.is_told(TILL, Phase::Released, None).await;
        let gone = BTreeMap::from([(TILL.to_owned(), "parent-till".to_owned())]);
        node.run_dir().write(AGENT, &AgentWord { gone, heartbeat: 1, ..AgentWord::default() }).unwrap();
        node.store().remove(TILL).unwrap();
        until(&node.runtime.state, |state| !state.is_running(&twin)).await;
        eventually("nothing is left", || node.run_dir().keys().unwrap().is_empty()).await;
        assert!(node.has_nothing_of_ours());
        supervisor.end().await;
    });
}

#[test]
fn a_sealed_checkpoint_waits_for_its_key_and_comes_back_with_it() {
    story(async {
        let node = Node::start();
        let key = node.path("seal.key");
        std::fs::write(&key, format!("00{}", "5a".repeat(31))).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        let keys = KeyFiles::new(HostRoot::new("/"), vec![key.clone()]);
        node.store().create().unwrap();
        node.store().with_keys(keys).put(&checkpoint("till")).unwrap();
        node.runtime.change(|state| state.run(&parent("till")));
        node.server.set(Mode::Refuse).await;
        node.cut_power().await;
        node.kubelet.restart().await;
        let path = node.path("var/lib/pod-checkpointer/checkpoints/shop_till/0000000001.yaml");
        let stored = std::fs::read(&path).unwrap();
        std::fs::rename(&key, node.path("away.key")).unwrap();
        let mut arguments = node.arguments();
        arguments.node.host.key_files = vec![key.clone()];
        let supervisor = Part::supervisor(arguments);
        node.is_told(TILL, Phase::Blocked, Some("KeyMissing")).await;
        std::fs::write(&key, format!("01{}", "5a".repeat(31))).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        node.is_told(TILL, Phase::Blocked, Some("KeyWrong")).await;
        assert_eq!(std::fs::read(path).unwrap(), stored, "the file was not touched");
        std::fs::rename(node.path("away.key"), &key).unwrap();
        node.serves(TILL).await;
        supervisor.end().await;
    });
}

#[test]
fn what_a_crash_left_goes_and_what_is_in_force_stays() {
    story(async {
        let node = Node::rebooted_with(&[checkpoint("till")]).await;
        let supervisor = node.supervise();
        let uid = node.serves(TILL).await;
        supervisor.kill().await;
        let volumes = node.path("run/pod-checkpointer/volumes");
        let unpacked = volumes.join(TILL).join(&uid);
        for garbage in ["shop_till/another-uid", "shop_gone/some-uid"] {
            std::fs::create_dir_all(volumes.join(garbage)).unwrap();
        }
        let unfinished = node.path("run/pod-checkpointer/active/.pod-checkpointer-tmp-x");
        std::fs::write(&unfinished, "x").unwrap();
        let dangling = node.link("shop_gone");
        std::os::unix::fs::symlink(node.run_dir().link_target("shop_gone"), &dangling).unwrap();
        let foreign = node.link("shop_foreign");
        std::os::unix::fs::symlink("/nowhere", &foreign).unwrap();
        let supervisor = node.supervise();
        eventually("the garbage is gone", || {
            !volumes.join("shop_gone").exists()
                && !volumes.join(TILL).join("another-uid").exists()
                && !unfinished.exists()
                && !dangling.is_symlink()
        })
        .await;
        assert!(unpacked.join("credentials/password").exists() && node.is_linked(TILL) && foreign.is_symlink());
        supervisor.end().await;
    });
}

/// What the agent recorded of the node.
pub fn recorded(node: &Node, name: &str, uid: &str, allocatable: Option<Amounts>) {
    node.store().create().unwrap();
    let record = NodeRecord {
        api_version: API_VERSION.into(),
        kind: "NodeRecord".into(),
        node_name: name.into(),
        node_uid: uid.into(),
        current_uid: None,
        allocatable,
        servers: Vec::new(),
    };
    node.store().put_node(&record).unwrap();
}

/// A checkpoint that requests so much of a processor, with this priority.
pub fn requesting(name: &str, cpu: &str, priority: i32) -> NodeCheckpoint {
    let mut made = checkpoint(name);
    made.manifest["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}});
    made.manifest["spec"]["priority"] = json!(priority);
    made.with_digest()
}

#[test]
fn what_does_not_fit_beside_the_nodes_static_pods_waits_for_room_and_the_highest_priority_goes_first() {
    story(async {
        let node = Node::start();
        recorded(&node, "node-1", "", Some(Amounts { cpu: 1000, memory: 1, ephemeral_storage: 1, pods: 10 }));
        let hog = node.kubelet.manifests.join("hog.json");
        let spec = json!({"containers": [{"name": "hog", "image": IMAGE, "resources": {"requests": {"cpu": "600m"}}}]});
        let manifest = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "default", "name": "hog", "uid": "hog"}, "spec": spec});
        std::fs::write(&hog, manifest.to_string()).unwrap();
        for one in [requesting("low", "300m", 1), requesting("till", "300m", 2)] {
            node.captured(&one);
        }
        node.server.set(Mode::Refuse).await;
        let supervisor = node.supervise();
        node.serves(TILL).await;
        node.is_told("shop_low", Phase::Blocked, Some("NoRoom")).await;
        assert!(node.report("shop_low").message.unwrap().starts_with("CPU"));
        assert!(!node.is_linked("shop_low") && hog.exists());
        std::fs::remove_file(&hog).unwrap();
        node.serves("shop_low").await;
        supervisor.end().await;
    });
}

#[test]
fn beside_pods_of_the_api_server_nothing_is_started_unless_what_they_take_is_known() {
    story(async {
        let node = Node::start();
        recorded(&node, "node-1", "", Some(Amounts { cpu: 1000, memory: 1, ephemeral_storage: 1, pods: 10 }));
        node.captured(&requesting("till", "300m", 0));
        node.kubelet.sync_api(&[parent("other")]);
        node.server.set(Mode::Refuse).await;
        let supervisor = node.supervise();
        node.is_told(TILL, Phase::Blocked, Some("NoRoom")).await;
        let taken = |cpu: u64| Demand { requests: Amounts { cpu, pods: 1, ..Amounts::default() }, ports: Vec::new() };
        let say = |cpu: u64| {
            let word = AgentWord { taken: Some(taken(cpu)), heartbeat: 1, ..AgentWord::default() };
            node.run_dir().write(AGENT, &word).unwrap();
        };
        say(800);
        eventually("it is told what is missing", || {
            node.report(TILL).message.is_some_and(|message| message.starts_with("CPU"))
        })
        .await;
        say(700);
        node.serves(TILL).await;
        supervisor.end().await;
    });
}

#[test]
fn nothing_of_another_node_is_activated() {
    story(async {
        let of = |name: &str, uid: &str| {
            let mut made = checkpoint(name);
            made.parent.node_uid = Some(uid.into());
            made.with_digest()
        };
        let node = Node::rebooted_with(&[of("old", "before"), of("till", "now")]).await;
        recorded(&node, "NODE-1", "now", None);
        let supervisor = node.supervise();
        node.serves(TILL).await;
        node.is_told("shop_old", Phase::Blocked, Some("OtherNode")).await;
        supervisor.end().await;

        let node = Node::rebooted_with(&[checkpoint("till")]).await;
        recorded(&node, "its-name-before", "now", None);
        let supervisor = node.supervise();
        node.is_told(TILL, Phase::Blocked, Some("OtherNode")).await;
        assert!(node.report(TILL).message.unwrap().contains("its-name-before"));
        supervisor.end().await;
    });
}

#[test]
fn how_long_a_kubelet_has_been_locked_out_outlives_a_supervisor() {
    story(async {
        let node = Node::rebooted_with(&[checkpoint("till")]).await;
        node.server.set(Mode::Status(200)).await;
        let supervisor = node.supervise();
        eventually("the kubelet gets nothing", || node.status().locked_out.is_some()).await;
        let told = node.status();
        let again = async |supervisor: Part| {
            let since = || node.status().contact.map(|contact| contact.since);
            supervisor.kill().await;
            let before = since();
            let supervisor = node.supervise();
            eventually("the next one tells of itself", || since() > before).await;
            (supervisor, node.status().locked_out)
        };
        let (supervisor, locked_out) = again(supervisor).await;
        assert_eq!(locked_out, told.locked_out, "the same kubelet, and not from now on");
        node.kubelet.sync_api(&[parent("other")]);
        let (supervisor, locked_out) = again(supervisor).await;
        assert_eq!(locked_out, None, "it has a pod of the API server");
        supervisor.end().await;
    });
}

#[test]
fn a_parent_that_the_kubelet_refused_at_its_return_is_stood_in_for_until_its_owner_has_replaced_it() {
    story(async {
        let node = Node::rebooted_with(&[checkpoint("till")]).await;
        let supervisor = node.supervise();
        node.serves(TILL).await;
        node.server.set(Mode::Status(200)).await;
        node.is_told(TILL, Phase::Released, None).await;
        node.kubelet.settle().await;
        node.kubelet.sync_api(&[parent("other")]);
        let now = || u64::try_from(pod_checkpointer::node::clock::boot_time().as_millis()).unwrap();
        let say = |rejected: &[(&str, &str)]| {
            let rejected = rejected.iter().map(|(key, uid)| ((*key).to_owned(), (*uid).to_owned())).collect();
            let taken = Some(Demand::default());
            let word = AgentWord { rejected, taken, heartbeat: now(), ..AgentWord::default() };
            node.run_dir().write(AGENT, &word).unwrap();
        };
        say(&[(TILL, "another pod of this name")]);
        // longer than such a word is doubted
        tokio::time::sleep(Duration::from_millis(1500)).await;
        node.passes(3).await;
        assert!(!node.is_linked(TILL));
        say(&[(TILL, "parent-till")]);
        let twin = node.serves(TILL).await;
        node.is_told(TILL, Phase::Active, Some("RejectedAtReturn")).await;

        supervisor.kill().await;
        let supervisor = node.supervise();
        assert_eq!(node.serves(TILL).await, twin, "a supervisor that starts again does not take the answer for news");
        node.passes(3).await;
        assert!(node.is_linked(TILL));

        let gone = BTreeMap::from([(TILL.to_owned(), "parent-till".to_owned())]);
        node.run_dir().write(AGENT, &AgentWord { gone, heartbeat: now(), ..AgentWord::default() }).unwrap();
        node.is_told(TILL, Phase::Inactive, None).await;
        until(&node.runtime.state, |state| !state.is_running(&twin)).await;
        assert!(node.has_nothing_of_ours());
        supervisor.end().await;
    });
}
