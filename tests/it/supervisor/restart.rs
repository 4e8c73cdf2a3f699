//! What a supervisor finds when it starts again: after a crash, after a boot, or while another
//! runs.

use pod_checkpointer::places::reports::Phase;

use super::{TILL, checkpoint, parent};
use crate::stub::node::story;
use crate::stub::{Mode, Node, Part, eventually, id, until};

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
        let starts = node
            .runtime
            .state
            .borrow()
            .containers
            .values()
            .filter(|one| one.pod_uid == twin)
            .count();
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
fn links_of_another_boot_are_removed_before_anything_is_decided() {
    story(async {
        let node = Node::rebooted_with(&[checkpoint("till")]).await;
        let supervisor = node.supervise();
        let before = node.serves(TILL).await;
        supervisor.kill().await;
        node.cut_power().await;
        assert!(
            node.link(TILL).is_symlink() && !node.link(TILL).exists(),
            "it dangles"
        );
        node.server.set(Mode::Status(200)).await;
        node.kubelet.restart().await;
        let supervisor = node.supervise();
        eventually("the link goes", || !node.link(TILL).is_symlink()).await;
        node.is_told(TILL, Phase::Inactive, None).await;
        node.server.set(Mode::Refuse).await;
        assert_ne!(
            node.serves(TILL).await,
            before,
            "another boot, another twin"
        );
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
        std::os::unix::fs::symlink(node.run_dir().link_target(&id("shop_gone")), &dangling)
            .unwrap();
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
        assert!(
            unpacked.join("credentials/password").exists()
                && node.is_linked(TILL)
                && foreign.is_symlink()
        );
        supervisor.end().await;
    });
}

#[test]
fn how_long_a_kubelet_has_been_locked_out_outlives_a_supervisor() {
    story(async {
        let node = Node::rebooted_with(&[checkpoint("till")]).await;
        node.server.set(Mode::Status(200)).await;
        let supervisor = node.supervise();
        eventually("the kubelet gets nothing", || {
            node.status().locked_out.is_some()
        })
        .await;
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
        assert_eq!(
            locked_out, told.locked_out,
            "the same kubelet, and not from now on"
        );
        node.kubelet.sync_api(&[parent("other")]);
        let (supervisor, locked_out) = again(supervisor).await;
        assert_eq!(locked_out, None, "it has a pod of the API server");
        supervisor.end().await;
    });
}
