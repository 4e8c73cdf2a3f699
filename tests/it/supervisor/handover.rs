//! From a twin that serves to its parent: the release, who ends when, and parents that do not come
//! back.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use pod_checkpointer::node::clock;
use pod_checkpointer::node::contact::Class;
use pod_checkpointer::places::reports::{AGENT, AgentReport, OUTAGES, Outages, Phase};
use pod_checkpointer::pod::room::Demand;
use pod_checkpointer::supervisor::core::decide::TAKE_BACK_REJECTED;
use serde_json::json;

use super::{TILL, checkpoint, parent};
use crate::stub::node::story;
use crate::stub::runtime::Call;
use crate::stub::{Fault, Mode, Node, eventually, id, until};

#[test]
fn after_a_reboot_the_twin_serves_until_its_parent_is_ready() {
    story(async {
        let node = Node::rebooted_with(&[checkpoint("till")]).await;
        let supervisor = node.supervise();
        let twin = node.serves(TILL).await;
        let file = node
            .run_dir()
            .path()
            .join(format!("volumes/{TILL}/{twin}/credentials/password"));
        assert_eq!(std::fs::read(&file).unwrap(), b"s3cret\n");
        assert_eq!(
            std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777,
            0o440
        );
        let env = node
            .runtime
            .state
            .borrow()
            .containers
            .values()
            .find(|one| one.pod_uid == twin)
            .unwrap()
            .spec
            .env
            .clone();
        assert_eq!(env, [("CURRENCY".into(), "EUR".into())]);
        node.passes(2).await;

        node.server.set(Mode::Status(200)).await;
        node.is_told(TILL, Phase::Released, None).await;
        assert!(
            !node.is_linked(TILL) && file.exists(),
            "the link goes, the files stay"
        );
        node.kubelet.settle().await;
        node.kubelet.sync_api(&[parent("till")]);
        until(&node.runtime.state, |state| state.is_running("parent-till")).await;
        node.passes(3).await;
        assert!(
            node.runtime.state.borrow().is_running(&twin),
            "the twin serves until the parent is Ready"
        );
        assert_eq!(node.stops(), []);

        node.agent_says_ready("till");
        node.is_handed_over("till", &twin).await;
        assert!(
            matches!(node.stops()[0], Call::StopContainer(_, 7)),
            "with the parent's grace: {:?}",
            node.stops()
        );
        let outages: Outages = node.run_dir().read(OUTAGES).unwrap().unwrap();
        let pod = &outages.outages[0].pods[&id(TILL)];
        let times = [pod.activated, pod.serving, pod.released, pod.taken_over];
        assert!(
            times.iter().all(Option::is_some) && times.is_sorted(),
            "{times:?}"
        );
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
        node.kubelet
            .state
            .send_modify(|state| state.is_stuck = true);
        node.server.set(Mode::Status(200)).await;
        node.is_told(TILL, Phase::Released, None).await;
        node.kubelet.settle().await;
        node.kubelet.sync_api(&[parent("till")]);
        node.kubelet.settle().await;
        node.passes(3).await;
        assert!(node.runtime.state.borrow().is_running(&twin));
        assert_eq!(node.stops(), []);
        node.kubelet
            .state
            .send_modify(|state| state.is_stuck = false);
        node.is_handed_over("till", &twin).await;
        assert!(
            matches!(node.stops()[0], Call::StopContainer(_, 7)),
            "{:?}",
            node.stops()
        );
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
        node.kubelet
            .state
            .send_modify(|state| state.is_stuck = true);
        node.server.set(Mode::Status(200)).await;
        node.is_told(TILL, Phase::Released, None).await;
        node.kubelet.settle().await;
        assert!(
            node.runtime.state.borrow().is_running(&twin),
            "nobody owns the parent yet"
        );
        node.kubelet.sync_api(&[parent("till")]);
        until(&node.runtime.state, |state| !state.calls.is_empty()).await;
        assert_eq!(node.stops(), [Call::StopSandbox(sandbox)]);
        node.kubelet
            .state
            .send_modify(|state| state.is_stuck = false);
        node.is_handed_over("till", &twin).await;
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
            eventually("silence", || {
                node.status()
                    .contact
                    .is_some_and(|contact| contact.class == Class::Silent)
            })
            .await;
            node.passes(4).await;
            assert_eq!(
                node.report(TILL).phase,
                Phase::Released,
                "taken back for a moment's silence"
            );
        }
        assert_eq!(node.serves(TILL).await, twin, "taken back");
        let starts: Vec<u32> = {
            let state = node.runtime.state.borrow();
            state
                .containers
                .values()
                .filter(|one| one.pod_uid == twin)
                .map(|one| one.attempt)
                .collect()
        };
        assert_eq!(
            (starts, node.stops()),
            (vec![0], vec![]),
            "started once, never stopped"
        );

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
        let gone = BTreeMap::from([(id(TILL), "parent-till".to_owned())]);
        node.run_dir()
            .write(
                AGENT,
                &AgentReport {
                    gone,
                    heartbeat: 1,
                    ..AgentReport::default()
                },
            )
            .unwrap();
        node.store().remove(&id(TILL)).unwrap();
        until(&node.runtime.state, |state| !state.is_running(&twin)).await;
        eventually("nothing is left", || {
            node.run_dir().keys().unwrap().is_empty()
        })
        .await;
        assert!(node.has_nothing_of_ours());
        supervisor.end().await;
    });
}

#[test]
fn a_parent_that_the_kubelet_refused_at_its_return_is_stood_in_for_until_its_owner_has_replaced_it()
{
    story(async {
        let node = Node::rebooted_with(&[checkpoint("till")]).await;
        let supervisor = node.supervise();
        node.serves(TILL).await;
        node.server.set(Mode::Status(200)).await;
        node.is_told(TILL, Phase::Released, None).await;
        node.kubelet.settle().await;
        node.kubelet.sync_api(&[parent("other")]);
        let now = || u64::try_from(clock::boot_time().as_millis()).unwrap();
        let say = |rejected: &[(&str, &str)]| {
            let rejected = rejected
                .iter()
                .map(|(key, uid)| (id(key), (*uid).to_owned()))
                .collect();
            let taken = Some(Demand::default());
            let report = AgentReport {
                rejected,
                taken,
                heartbeat: now(),
                ..AgentReport::default()
            };
            node.run_dir().write(AGENT, &report).unwrap();
        };
        say(&[(TILL, "another pod of this name")]);
        node.passes_for(TAKE_BACK_REJECTED + Duration::from_millis(500))
            .await;
        assert!(!node.is_linked(TILL));
        say(&[(TILL, "parent-till")]);
        let twin = node.serves(TILL).await;
        node.is_told(TILL, Phase::Active, Some("RejectedAtReturn"))
            .await;

        supervisor.kill().await;
        let supervisor = node.supervise();
        assert_eq!(
            node.serves(TILL).await,
            twin,
            "a supervisor that starts again does not take the answer for news"
        );
        node.passes(3).await;
        assert!(node.is_linked(TILL));

        let gone = BTreeMap::from([(id(TILL), "parent-till".to_owned())]);
        node.run_dir()
            .write(
                AGENT,
                &AgentReport {
                    gone,
                    heartbeat: now(),
                    ..AgentReport::default()
                },
            )
            .unwrap();
        node.is_told(TILL, Phase::Inactive, None).await;
        until(&node.runtime.state, |state| !state.is_running(&twin)).await;
        assert!(node.has_nothing_of_ours());
        supervisor.end().await;
    });
}
