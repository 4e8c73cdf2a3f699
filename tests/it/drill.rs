//! `drill` on a node that is well: what it says, what it leaves alone, and that nothing of it
//! stays.

use std::path::PathBuf;
use std::process::Output;

use pod_checkpointer::checkpoint::NodeCheckpoint;
use pod_checkpointer::node::contact::Class;
use pod_checkpointer::node::proto::runtime as cri;
use pod_checkpointer::places::reports::{AGENT, AgentReport};
use pod_checkpointer::pod::room::Amounts;
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::stub::id;
use crate::stub::node::{IMAGE, NAME, story};
use crate::stub::{Mode, Node, Part, eventually, until};
use crate::supervisor::preconditions::requesting;
use crate::supervisor::{checkpoint, parent};

impl Node {
    /// A node whose pods serve and are captured, under a supervisor.
    async fn well_with(checkpoints: &[NodeCheckpoint]) -> (Self, Part) {
        let node = Self::start();
        node.store().create().unwrap();
        let mut pods = Vec::new();
        for checkpoint in checkpoints {
            node.store().put(checkpoint).unwrap();
            let mut pod = parent(&checkpoint.parent.name);
            pod.containers[0].env = vec![("CURRENCY".into(), "EUR".into())];
            pods.push(pod);
        }
        node.kubelet.sync_api(&pods);
        let supervisor = Part::supervisor(node.arguments());
        let answers = || {
            node.status()
                .contact
                .is_some_and(|contact| contact.class == Class::Answering)
        };
        eventually("the API server answers", answers).await;
        (node, supervisor)
    }

    fn drill(&self, arguments: &[&str]) -> Command {
        let host = self.host();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pod-checkpointer"));
        command.arg("drill").args(arguments).args([
            "--output",
            "json",
            "--image",
            IMAGE,
            "--node-name",
            NAME,
        ]);
        for (flag, path) in [
            ("--state-dir", &host.state_dir),
            ("--run-dir", &host.run_dir),
            ("--kubelet-dir", &host.kubelet_dir),
            ("--manifest-dir", &self.kubelet.manifests),
        ] {
            command.arg(flag).arg(path);
        }
        command
            .args(["--host-root", "/", "--cri-endpoint"])
            .arg(self.runtime.socket());
        command
            .env_clear()
            .kill_on_drop(true)
            .stdin(std::process::Stdio::null());
        command
    }

    async fn drilled(&self, arguments: &[&str]) -> Output {
        tokio::time::timeout(crate::stub::PATIENCE * 2, self.drill(arguments).output())
            .await
            .unwrap()
            .unwrap()
    }

    fn rehearsal(&self, key: &str) -> PathBuf {
        self.kubelet
            .manifests
            .join(format!("pod-checkpointer-drill_{key}.yaml"))
    }

    /// Nothing of a drill is left, and running pods were not touched.
    fn is_as_before(&self, name: &str) {
        assert!(
            std::fs::read_dir(&self.kubelet.manifests)
                .unwrap()
                .next()
                .is_none(),
            "a link is left"
        );
        let run = self.run_dir();
        assert!(!run.path().join("drill").exists() && !run.path().join("drill.yaml").exists());
        let state = self.runtime.state.borrow();
        assert!(state.is_running(&format!("parent-{name}")));
        assert_eq!(state.calls, [], "nothing was stopped through the runtime");
        let rehearsed =
            |pod: &crate::stub::Pod| pod.annotations.contains_key("podcheckpointer.io/drill-of");
        assert!(
            !state
                .sandboxes
                .values()
                .any(|sandbox| rehearsed(&sandbox.pod)),
            "a rehearsal runs still"
        );
    }
}

fn answer(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[test]
fn a_pod_is_rehearsed_while_it_runs_and_nothing_stays() {
    story(async {
        let (node, supervisor) = Node::well_with(&[checkpoint("till")]).await;
        until(&node.runtime.state, |state| state.is_running("parent-till")).await;
        let output = node.drilled(&[]).await;
        let shown = answer(&output);
        assert_eq!(output.status.code(), Some(0), "{shown}");
        assert_eq!(shown["kind"], "Rehearsal");
        let pod = &shown["pods"][0];
        assert_eq!(
            (pod["namespace"].as_str(), pod["name"].as_str()),
            (Some("shop"), Some("till"))
        );
        assert_eq!(pod["recovers"], true);
        assert!(
            pod["seconds"].as_f64().unwrap() > 0.0 && pod.get("differences").is_none(),
            "{pod}"
        );
        assert!(!shown["notCovered"].as_array().unwrap().is_empty());
        node.is_as_before("till");
        supervisor.end().await;
    });
}

#[test]
fn a_difference_between_pod_and_checkpoint_is_reported_without_its_value() {
    story(async {
        let (node, supervisor) = Node::well_with(&[checkpoint("till")]).await;
        node.runtime.change(|state| {
            let main = state
                .containers
                .values_mut()
                .find(|container| container.pod_uid == "parent-till")
                .unwrap();
            main.spec.env[0].1 = "s3cret".into();
        });
        let output = node.drilled(&["shop/till"]).await;
        let shown = answer(&output);
        assert_eq!(
            shown["pods"][0]["differences"][0],
            "app: environment variable CURRENCY has a different value"
        );
        assert_eq!(output.status.code(), Some(0), "it recovers all the same");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("s3cret"));
        supervisor.end().await;
    });
}

#[test]
fn a_pod_that_would_not_come_back_is_the_answer_no_and_the_others_are_tried() {
    story(async {
        let (node, supervisor) =
            Node::well_with(&[checkpoint("till"), checkpoint("damaged")]).await;
        until(&node.runtime.state, |state| state.is_running("parent-till")).await;
        let directory = node.store().directory().join("checkpoints/shop_damaged");
        let file = std::fs::read_dir(directory)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        std::fs::write(&file, "torn").unwrap();
        let refused = [(id("shop_ledger"), vec!["StatefulSet: ledger".to_owned()])].into();
        let word = AgentReport {
            refused,
            heartbeat: 1,
            ..AgentReport::default()
        };
        node.run_dir().write(AGENT, &word).unwrap();
        let output = node.drilled(&[]).await;
        let shown = answer(&output);
        assert_eq!(output.status.code(), Some(3), "{shown}");
        let of = |name: &str| {
            let pods = shown["pods"].as_array().unwrap();
            let pod = pods.iter().find(|pod| pod["name"] == name).unwrap();
            (
                pod["recovers"].as_bool().unwrap(),
                pod["reason"].as_str().map(str::to_owned),
            )
        };
        assert_eq!(of("till"), (true, None));
        assert_eq!(of("damaged"), (false, Some("Damaged".into())));
        assert_eq!(of("ledger"), (false, Some("StatefulSet: ledger".into())));
        node.is_as_before("till");
        supervisor.end().await;
    });
}

/// Whether each pod recovers, and why not, by name.
fn verdicts(shown: &Value) -> Vec<(&str, bool, Option<&str>)> {
    let pods = shown["pods"].as_array().unwrap();
    pods.iter()
        .map(|pod| {
            (
                pod["name"].as_str().unwrap(),
                pod["recovers"].as_bool().unwrap(),
                pod["reason"].as_str(),
            )
        })
        .collect()
}

#[test]
fn a_checkpoint_of_another_node_object_does_not_recover() {
    story(async {
        let mut other = checkpoint("other");
        other.parent.node_uid = Some("node-of-before".into());
        let mut same = checkpoint("till");
        same.parent.node_uid = Some("node-of-now".into());
        let (node, supervisor) = Node::well_with(&[same.with_digest(), other.with_digest()]).await;
        node.record(NAME, "node-of-now", None);
        until(&node.runtime.state, |state| state.is_running("parent-till")).await;
        let output = node.drilled(&[]).await;
        let shown = answer(&output);
        assert_eq!(
            verdicts(&shown),
            [("other", false, Some("OtherNode")), ("till", true, None)],
            "{shown}"
        );
        assert_eq!(output.status.code(), Some(3));
        node.is_as_before("till");
        supervisor.end().await;
    });
}

#[test]
fn of_pods_that_do_not_all_fit_those_of_the_highest_priority_recover() {
    story(async {
        let checkpoints = [
            requesting("a", "1500m", 10),
            requesting("b", "1500m", 20),
            requesting("c", "3", 30),
        ];
        let (node, supervisor) = Node::well_with(&checkpoints).await;
        let allocatable = Amounts {
            cpu: 2_000,
            memory: 1 << 40,
            ephemeral_storage: 1 << 40,
            pods: 110,
        };
        node.record(NAME, "node-uid", Some(allocatable));
        until(&node.runtime.state, |state| {
            ["a", "b", "c"]
                .iter()
                .all(|pod| state.is_running(&format!("parent-{pod}")))
        })
        .await;
        let output = node.drilled(&[]).await;
        let shown = answer(&output);
        let no_room = Some("NoRoom");
        assert_eq!(
            verdicts(&shown),
            [
                ("a", false, no_room),
                ("b", true, None),
                ("c", false, no_room)
            ],
            "{shown}"
        );
        let output = node.drilled(&["shop/a"]).await;
        assert_eq!(
            verdicts(&answer(&output)),
            [("a", true, None)],
            "alone it fits"
        );
        node.is_as_before("b");
        supervisor.end().await;
    });
}

#[test]
fn a_kubelet_that_does_not_take_it_is_the_answer_no() {
    story(async {
        let (node, supervisor) = Node::well_with(&[checkpoint("till")]).await;
        until(&node.runtime.state, |state| state.is_running("parent-till")).await;
        node.kubelet.state.send_modify(|state| state.rejects = true);
        let output = node.drilled(&["--limit", "300ms"]).await;
        let shown = answer(&output);
        assert_eq!(output.status.code(), Some(3), "{shown}");
        assert_eq!(shown["pods"][0]["reason"], "KubeletRefuses");
        node.is_as_before("till");
        supervisor.end().await;
    });
}

#[test]
fn nothing_is_done_in_an_outage_or_without_a_supervisor() {
    story(async {
        let (node, supervisor) = Node::well_with(&[checkpoint("till")]).await;
        until(&node.runtime.state, |state| state.is_running("parent-till")).await;
        let output = node.drilled(&["shop/other"]).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("no checkpoint of shop/other"));

        node.server.set(Mode::Refuse).await;
        let silent = || {
            node.status()
                .contact
                .is_some_and(|contact| contact.class == Class::Silent)
        };
        eventually("the API server is silent", silent).await;
        let output = node.drilled(&[]).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("this would be no drill"));

        supervisor.end().await;
        let output = node.drilled(&[]).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("no supervisor runs"));
        node.is_as_before("till");
    });
}

#[test]
fn a_full_node_is_left_alone() {
    story(async {
        let (node, supervisor) = Node::well_with(&[checkpoint("till")]).await;
        until(&node.runtime.state, |state| state.is_running("parent-till")).await;
        let many: Vec<_> = (0..110)
            .map(|number| parent(&format!("pod-{number}")))
            .chain([parent("till")])
            .collect();
        node.kubelet.sync_api(&many);
        node.kubelet.settle().await;
        let output = node.drilled(&[]).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("no room for one more pod"));
        node.is_as_before("till");
        supervisor.end().await;
    });
}

/// Starts a drill whose rehearsal hangs, and waits until it does.
async fn hanging(node: &Node) -> Child {
    until(&node.runtime.state, |state| state.is_running("parent-till")).await;
    node.kubelet
        .state
        .send_modify(|state| state.is_stuck = true);
    let drill = node
        .drill(&[])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn();
    eventually("a rehearsal is linked", || {
        node.rehearsal("shop_till").is_symlink()
    })
    .await;
    drill.unwrap()
}

#[test]
fn a_drill_that_is_interrupted_leaves_nothing() {
    story(async {
        let (node, supervisor) = Node::well_with(&[checkpoint("till")]).await;
        let drill = hanging(&node).await;
        let pid = rustix::process::Pid::from_raw(drill.id().unwrap().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let output = drill.wait_with_output().await.unwrap();
        assert_eq!(output.status.code(), Some(1));
        node.is_as_before("till");
        supervisor.end().await;
    });
}

#[test]
fn what_a_killed_drill_left_goes_with_the_supervisors_next_look() {
    story(async {
        let (node, supervisor) = Node::well_with(&[checkpoint("till")]).await;
        let mut drill = hanging(&node).await;
        let output = node.drilled(&[]).await;
        assert!(String::from_utf8_lossy(&output.stderr).contains("another drill runs"));
        drill.kill().await.unwrap();
        assert!(
            node.rehearsal("shop_till").is_symlink()
                && node.run_dir().path().join("drill").exists()
        );
        supervisor.end().await;
        let supervisor = Part::supervisor(node.arguments());
        eventually("the link goes", || {
            !node.rehearsal("shop_till").is_symlink()
        })
        .await;
        eventually("the record goes", || {
            !node.run_dir().path().join("drill.yaml").exists()
        })
        .await;
        until(&node.runtime.state, |state| state.sandboxes.len() == 1).await;
        let running = cri::ContainerState::ContainerRunning;
        assert!(
            node.runtime
                .state
                .borrow()
                .containers
                .values()
                .all(|container| container.state == running)
        );
        node.is_as_before("till");
        supervisor.end().await;
    });
}
