//! What must hold before a checkpoint is activated: that it is whole, of this node and can be
//! opened, and that there is a place for it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use pod_checkpointer::checkpoint::NodeCheckpoint;
use pod_checkpointer::checkpoint::keys::KeyFiles;
use pod_checkpointer::node::host::HostRoot;
use pod_checkpointer::places::reports::{AGENT, AgentReport, Phase};
use pod_checkpointer::places::store::Put;
use pod_checkpointer::pod::room::{Amounts, Demand};
use serde_json::json;

use super::{TILL, checkpoint, parent};
use crate::stub::node::{IMAGE, listing, story};
use crate::stub::{Mode, Node, Part, eventually, id};

#[test]
fn a_damaged_generation_gives_way_to_the_one_before() {
    story(async {
        let node = Node::rebooted_with(&[checkpoint("till")]).await;
        let mut newer = checkpoint("till");
        newer.manifest["spec"]["containers"][0]["env"][0]["value"] = json!("USD");
        assert!(matches!(
            node.store_checkpoint(&newer.with_digest()),
            Put::Written(2, _)
        ));
        let newest = node.store().newest(&id(TILL)).unwrap().0.unwrap().path;
        let text = std::fs::read_to_string(&newest).unwrap();
        std::fs::write(&newest, text.replace("USD", "CHF")).unwrap();
        let supervisor = node.supervise();
        let twin = node.serves(TILL).await;
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
        node.store_checkpoint(&newer.with_digest());
        let found = node.store().find(&id(TILL)).unwrap().good;
        assert_eq!(found.len(), 2);
        for generation in found {
            let bytes = std::fs::read(&generation.path).unwrap();
            std::fs::write(&generation.path, &bytes[..bytes.len() / 2]).unwrap();
        }
        let supervisor = node.supervise();
        node.is_told(TILL, Phase::Blocked, Some("Damaged")).await;
        assert!(
            node.report(TILL)
                .message
                .unwrap()
                .contains("0000000002.yaml"),
            "{:?}",
            node.report(TILL)
        );
        node.serves("shop_other").await;
        assert!(!node.is_linked(TILL));
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
        node.store()
            .with_keys(keys)
            .put(&checkpoint("till"))
            .unwrap();
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
        assert_eq!(
            std::fs::read(path).unwrap(),
            stored,
            "the file was not touched"
        );
        std::fs::rename(node.path("away.key"), &key).unwrap();
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
        node.record("NODE-1", "now", None);
        let supervisor = node.supervise();
        node.serves(TILL).await;
        node.is_told("shop_old", Phase::Blocked, Some("OtherNode"))
            .await;
        supervisor.end().await;

        let node = Node::rebooted_with(&[checkpoint("till")]).await;
        node.record("its-name-before", "now", None);
        let supervisor = node.supervise();
        node.is_told(TILL, Phase::Blocked, Some("OtherNode")).await;
        assert!(
            node.report(TILL)
                .message
                .unwrap()
                .contains("its-name-before")
        );
        supervisor.end().await;
    });
}

#[test]
fn a_foreign_file_with_the_name_of_a_link_blocks_the_pod_and_is_left_alone() {
    story(async {
        let node = Node::rebooted_with(&[checkpoint("till")]).await;
        std::fs::write(node.link(TILL), "somebody's").unwrap();
        let supervisor = node.supervise();
        node.is_told(TILL, Phase::Blocked, Some("ForeignManifest"))
            .await;
        node.server.set(Mode::Status(200)).await;
        node.is_told(TILL, Phase::Inactive, None).await;
        assert_eq!(
            std::fs::read_to_string(node.link(TILL)).unwrap(),
            "somebody's"
        );
        assert!(
            listing(&node.run_dir().path().join("volumes")).is_empty(),
            "nothing was unpacked"
        );
        supervisor.end().await;
        assert_eq!(
            std::fs::read_to_string(node.link(TILL)).unwrap(),
            "somebody's"
        );
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
        let status = || {
            run.read::<pod_checkpointer::places::reports::Status>("status.yaml")
                .unwrap()
                .unwrap_or_default()
        };
        eventually("the reason", || {
            let pods = status().pods;
            pods.iter().any(|pod| {
                pod.phase == Phase::Blocked && pod.reason.as_deref() == Some("RunDirNotMemory")
            })
        })
        .await;
        assert!(
            status()
                .problems
                .iter()
                .any(|problem| problem.contains("not memory-backed")),
            "{:?}",
            status()
        );
        assert!(listing(&node.kubelet.manifests).is_empty());
        assert_eq!(
            listing(&run_dir),
            [Path::new("status.yaml"), Path::new("supervisor.lock")]
        );
        supervisor.end().await;
    });
}

/// A checkpoint that requests so much of a processor, with this priority.
pub fn requesting(name: &str, cpu: &str, priority: i32) -> NodeCheckpoint {
    let mut made = checkpoint(name);
    made.manifest["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}});
    made.manifest["spec"]["priority"] = json!(priority);
    made.with_digest()
}

#[test]
fn a_twin_that_does_not_fit_with_the_static_pods_waits_for_room_and_the_highest_priority_goes_first()
 {
    story(async {
        let node = Node::start();
        node.record(
            "node-1",
            "",
            Some(Amounts {
                cpu: 1000,
                memory: 1,
                ephemeral_storage: 1,
                pods: 10,
            }),
        );
        let hog = node.kubelet.manifests.join("hog.json");
        let spec = json!({"containers": [{"name": "hog", "image": IMAGE, "resources": {"requests": {"cpu": "600m"}}}]});
        let manifest = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "default", "name": "hog", "uid": "hog"}, "spec": spec});
        std::fs::write(&hog, manifest.to_string()).unwrap();
        for one in [requesting("low", "300m", 1), requesting("till", "300m", 2)] {
            node.store_checkpoint(&one);
        }
        node.server.set(Mode::Refuse).await;
        let supervisor = node.supervise();
        node.serves(TILL).await;
        node.is_told("shop_low", Phase::Blocked, Some("NoRoom"))
            .await;
        assert!(node.report("shop_low").message.unwrap().starts_with("CPU"));
        assert!(!node.is_linked("shop_low") && hog.exists());
        std::fs::remove_file(&hog).unwrap();
        node.serves("shop_low").await;
        supervisor.end().await;
    });
}

#[test]
fn nothing_is_started_with_pods_of_the_api_server_unless_what_they_take_is_known() {
    story(async {
        let node = Node::start();
        node.record(
            "node-1",
            "",
            Some(Amounts {
                cpu: 1000,
                memory: 1,
                ephemeral_storage: 1,
                pods: 10,
            }),
        );
        node.store_checkpoint(&requesting("till", "300m", 0));
        node.kubelet.sync_api(&[parent("other")]);
        node.server.set(Mode::Refuse).await;
        let supervisor = node.supervise();
        node.is_told(TILL, Phase::Blocked, Some("NoRoom")).await;
        let taken = |cpu: u64| Demand {
            requests: Amounts {
                cpu,
                pods: 1,
                ..Amounts::default()
            },
            ports: Vec::new(),
        };
        let say = |cpu: u64| {
            let report = AgentReport {
                taken: Some(taken(cpu)),
                heartbeat: 1,
                ..AgentReport::default()
            };
            node.run_dir().write(AGENT, &report).unwrap();
        };
        say(800);
        eventually("it is told what is missing", || {
            node.report(TILL)
                .message
                .is_some_and(|message| message.starts_with("CPU"))
        })
        .await;
        say(700);
        node.serves(TILL).await;
        supervisor.end().await;
    });
}
