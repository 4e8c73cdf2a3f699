//! When twins are activated and when not: contact with the API server, what runs already, the order
//! of start groups.

use std::collections::BTreeSet;
use std::time::Duration;

use pod_checkpointer::node::contact::Class;
use pod_checkpointer::places::reports::{OUTAGES, Outages, Phase};

use super::{TILL, checkpoint, parent};
use crate::stub::node::story;
use crate::stub::{self, Fault, Mode, Node, Part, ProbeServer, eventually, until};

#[test]
fn silence_alone_activates_nothing() {
    story(async {
        let node = Node::start();
        node.store_checkpoint(&checkpoint("till"));
        node.kubelet.sync_api(&[parent("till")]);
        until(&node.runtime.state, |state| state.is_running("parent-till")).await;
        let supervisor = node.supervise();
        eventually("contact", || {
            node.status()
                .contact
                .is_some_and(|contact| contact.class == Class::Answering)
        })
        .await;
        node.server.set(Mode::Refuse).await;
        eventually("silence", || {
            node.status()
                .contact
                .is_some_and(|contact| contact.class == Class::Silent)
        })
        .await;
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
        let other = ProbeServer::start();
        other.set(Mode::HangBeforeTls).await;
        let bundle = node.server.server().ca + &other.server().ca;
        std::fs::write(node.path("ca.crt"), bundle).unwrap();
        let mut arguments = node.arguments();
        arguments.decision.apiservers.push(other.server().url);
        // longer than this story may take: whoever waits for the hung one is late
        arguments.decision.probe_timeout = stub::PATIENCE * 2;
        node.server.set(Mode::Status(200)).await;
        let supervisor = Part::supervisor(arguments.clone());
        eventually("contact", || {
            node.status()
                .contact
                .is_some_and(|contact| contact.class == Class::Answering)
        })
        .await;
        supervisor.end().await;

        arguments.decision.probe_timeout = Duration::from_millis(500);
        node.server.set(Mode::Refuse).await;
        other.set(Mode::Status(200)).await;
        let supervisor = Part::supervisor(arguments);
        eventually("contact", || {
            node.status()
                .contact
                .is_some_and(|contact| contact.class == Class::Answering)
        })
        .await;
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
fn a_server_that_begins_to_fail_releases_and_one_that_starts_with_failures_activates_nothing() {
    story(async {
        let node = Node::rebooted_with(&[checkpoint("till")]).await;
        node.server.set(Mode::Status(500)).await;
        let supervisor = node.supervise();
        eventually("failing", || {
            node.status()
                .contact
                .is_some_and(|contact| contact.class == Class::Failing)
        })
        .await;
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
fn nothing_is_started_until_a_parent_that_outlived_its_kubelet_is_gone() {
    story(async {
        let node = Node::start();
        node.store_checkpoint(&checkpoint("till"));
        node.kubelet.sync_api(&[parent("till")]);
        until(&node.runtime.state, |state| state.is_running("parent-till")).await;
        node.server.set(Mode::Refuse).await;
        node.kubelet.restart().await;
        let supervisor = node.supervise();
        eventually("silence", || {
            node.status()
                .contact
                .is_some_and(|contact| contact.class == Class::Silent)
        })
        .await;
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
fn one_pod_that_cannot_be_activated_does_not_hold_up_another() {
    story(async {
        let mut other = checkpoint("other");
        other.images.get_mut("app").unwrap().name = "registry.example/absent:v1".into();
        let node = Node::rebooted_with(&[other.with_digest(), checkpoint("till")]).await;
        let supervisor = node.supervise();
        node.serves(TILL).await;
        node.is_told("shop_other", Phase::Blocked, Some("ImageAbsent"))
            .await;
        assert!(
            node.report("shop_other")
                .message
                .unwrap()
                .contains("registry.example/absent:v1")
        );
        supervisor.end().await;
    });
}

#[test]
fn a_lower_start_group_runs_before_a_higher_one_is_linked() {
    story(async {
        let mut network = checkpoint("network");
        network.policy.start_group = 10;
        let node = Node::rebooted_with(&[network.with_digest(), checkpoint("till")]).await;
        node.kubelet
            .state
            .send_modify(|state| state.is_stuck = true);
        let supervisor = node.supervise();
        eventually("the first group is linked", || {
            node.is_linked("shop_network")
        })
        .await;
        node.passes(5).await;
        assert!(!node.is_linked(TILL));
        node.kubelet
            .state
            .send_modify(|state| state.is_stuck = false);
        node.serves(TILL).await;
        supervisor.end().await;
    });
}

#[test]
fn a_hundred_and_ten_pods_of_one_group_are_linked_in_one_pass() {
    story(async {
        let checkpoints: Vec<_> = (1..=110)
            .map(|number| checkpoint(&format!("till-{number}")))
            .collect();
        let node = Node::rebooted_with(&checkpoints).await;
        let supervisor = node.supervise();
        for checkpoint in &checkpoints {
            let key = checkpoint.pod().unwrap();
            eventually(key.file_form(), || node.is_linked(key.file_form())).await;
        }
        let outages = || {
            node.run_dir()
                .read::<Outages>(OUTAGES)
                .unwrap()
                .unwrap_or_default()
        };
        eventually("all are reported", || {
            outages().counts.activations.values().sum::<u64>() >= 110
        })
        .await;
        let Outages { outages, counts } = outages();
        assert_eq!(
            counts.activations,
            [("Activated".to_owned(), 110)].into(),
            "each once"
        );
        let decided: BTreeSet<_> = outages[0]
            .pods
            .values()
            .map(|pod| pod.decided.unwrap())
            .collect();
        assert_eq!(
            (outages[0].pods.len(), decided.len()),
            (110, 1),
            "a pass decides with one moment as now: {decided:?}"
        );
        supervisor.end().await;
    });
}
