//! The directories on the node: the store that cannot be written, is sealed, damaged or full, and
//! the run directory.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use pod_checkpointer::agent::{self, Settings};
use pod_checkpointer::checkpoint::keys::KeyFiles;
use pod_checkpointer::places::reports::AGENT;

use crate::stub::api::{State, checkpoint_path};
use crate::stub::{Node, eventually, id, until};

impl Node {
    /// Settings with a key, which is on the host until a test removes it.
    fn with_key(&self) -> Settings {
        let path = self.path("seal.key");
        std::fs::write(&path, format!("00{}", "5a".repeat(31))).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        self.settings_with(|flags| flags.node.host.key_files = vec!["/seal.key".into()])
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_written_is_named_and_tried_again() {
    let node = Node::start();
    let in_the_way = node.path("var/lib/pod-checkpointer/checkpoints/shop_till");
    std::fs::create_dir_all(in_the_way.parent().unwrap()).unwrap();
    std::fs::write(&in_the_way, "a file").unwrap();
    node.api.put_pod(node.run_pod("till", "uid-1"));
    node.api.put_pod(node.run_pod("other", "uid-2"));
    node.with_agent(node.settings(), async {
        node.api
            .until_condition("shop", "till", "Captured", "False", "StoreFailed")
            .await;
        until(&node.api.state, |state| {
            let path = checkpoint_path("shop", "other");
            state
                .objects
                .get(&path)
                .is_some_and(|object| object["status"]["generation"] == 1)
        })
        .await;
        std::fs::remove_file(&in_the_way).unwrap();
        node.captured("till", 1).await;
    })
    .await;
}

#[tokio::test]
async fn what_was_in_clear_is_sealed_when_a_key_is_given_and_nothing_is_written_twice() {
    let node = Node::start();
    node.after_capture().await;
    let path = node
        .store()
        .newest(&id("shop_till"))
        .unwrap()
        .0
        .unwrap()
        .path;
    let settings = node.with_key();
    let keys = KeyFiles::new(
        settings.root.clone(),
        settings.arguments.node.host.key_files.clone(),
    );
    let sealed = || {
        node.store()
            .with_keys(keys.clone())
            .newest(&id("shop_till"))
            .unwrap()
            .0
            .and_then(|it| it.sealed)
    };
    node.with_agent(
        settings.clone(),
        eventually("the checkpoint is sealed", || sealed().is_some()),
    )
    .await;
    assert!(
        node.store().newest(&id("shop_till")).unwrap().0.is_none(),
        "not without the key"
    );
    let before = std::fs::metadata(&path).unwrap();
    // captured once more by the next agent, which finds nothing new
    let told = |state: &State| {
        let object = state.objects.get(&checkpoint_path("shop", "till"));
        let digest = object.and_then(|object| object["status"]["digest"].as_str());
        digest.is_some_and(|digest| digest.starts_with("hmac-sha256:"))
    };
    node.with_agent(settings, until(&node.api.state, told))
        .await;
    let after = std::fs::metadata(&path).unwrap();
    assert_eq!(
        (before.ino(), before.modified().unwrap()),
        (after.ino(), after.modified().unwrap())
    );
}

#[tokio::test]
async fn without_the_key_that_was_given_nothing_is_captured_until_it_is_there() {
    let node = Node::start();
    let settings = node.with_key();
    let (key, away) = (node.path("seal.key"), node.path("away.key"));
    std::fs::rename(&key, &away).unwrap();
    node.api.put_pod(node.run_pod("till", "uid-1"));
    node.with_agent(settings, async {
        node.api
            .until_condition("shop", "till", "Captured", "False", "KeyMissing")
            .await;
        assert!(node.files("shop_till").is_empty());
        std::fs::rename(&away, &key).unwrap();
        node.api
            .until_condition("shop", "till", "Captured", "True", "Captured")
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_damaged_checkpoint_is_set_aside_at_the_start_and_captured_again() {
    let node = Node::start();
    node.after_capture().await;
    let path = node
        .store()
        .newest(&id("shop_till"))
        .unwrap()
        .0
        .unwrap()
        .path;
    std::fs::write(&path, "torn").unwrap();
    node.with_agent(node.settings(), node.captured("till", 2))
        .await;
    assert_eq!(node.files("shop_till"), ["0000000002.yaml"]);
}

#[tokio::test]
async fn on_a_full_disk_the_old_generation_stays_and_captures_go_on_when_there_is_space() {
    let node = Node::start();
    let state = node.path("var/lib/pod-checkpointer");
    std::fs::create_dir_all(&state).unwrap();
    let mount = |arguments: &[&str]| {
        let output = std::process::Command::new(arguments[0])
            .args(&arguments[1..])
            .arg(&state)
            .output();
        output.is_ok_and(|output| output.status.success())
    };
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=6m,mode=0700", "tmpfs"]) {
        return; // only root may mount; what a full disk does to a write is tested beside the writer
    }
    let pod = node.run_pod("till", "uid-1");
    node.api.put_pod(pod);
    node.with_agent(node.settings(), async {
        node.captured("till", 1).await;
        std::fs::write(state.join("filler"), vec![0; 3 << 20]).unwrap();
        node.swap("uid-1", "2");
        node.api
            .until_condition("shop", "till", "Captured", "False", "StoreFull")
            .await;
        assert_eq!(node.content("till"), b"1");
        assert_eq!(node.files("shop_till"), ["0000000001.yaml"]);
        std::fs::remove_file(state.join("filler")).unwrap();
        node.captured("till", 2).await;
        assert_eq!(node.content("till"), b"2");
    })
    .await;
    assert!(mount(&["umount"]));
}

#[tokio::test]
async fn a_run_directory_on_a_disk_is_a_problem_and_captures_go_on() {
    let node = Node::start_in(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
    if node.run_dir().open("probe").is_ok() {
        return; // the build directory is in memory: nothing to see here
    }
    node.api.put_pod(node.run_pod("till", "uid-1"));
    node.with_agent(node.settings(), node.captured("till", 1))
        .await;
    assert!(!node.run_dir().path().join(AGENT).exists());
}

#[tokio::test]
async fn a_second_agent_on_the_node_gets_an_error() {
    let node = Node::start();
    node.with_agent(node.settings(), async {
        eventually("the first has its lock", || {
            node.path("var/lib/pod-checkpointer/agent.lock").exists()
        })
        .await;
        let second = Box::pin(agent::run(
            node.settings(),
            node.api.client(),
            node.api.client(),
            std::future::pending(),
        ))
        .await;
        let text = second.unwrap_err().to_string();
        assert!(
            text.contains("agent.lock") && text.contains("another process"),
            "{text}"
        );
    })
    .await;
}
