//! The agent against an API server, a kubelet's directory and a runtime in memory.

use std::future::Future;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser as _;
use pod_checkpointer::agent::{self, Settings};
use pod_checkpointer::args::{AgentArguments, Arguments, Command};
use pod_checkpointer::checkpoint::keys::KeyFiles;
use pod_checkpointer::places::reports::{
    AGENT, AgentWord, OUTAGES, Outage, Outages, Phase, PodOutage, PodReport, STATUS, Status,
};
use pod_checkpointer::places::run::RunDir;
use pod_checkpointer::places::store::Store;
use pod_checkpointer::pod::selector;
use serde_json::{Value, json};

use crate::stub::api::{Api, Mood, State, checkpoint_path};
use crate::stub::id;
use crate::stub::runtime::{Pod, Runtime, Spec};
use crate::stub::{PATIENCE, PodResources, until};

/// The API group of PodCheckpoints.
const GROUP: &str = "podcheckpointer.io";
const NODE: &str = "node-1";
const IMAGE: &str = "registry.example/till:v1";

/// A node with an API server. Everything of it is below one directory in memory.
pub struct World {
    pub root: tempfile::TempDir,
    pub api: Api,
    pub runtime: Runtime,
    _kubelet: PodResources,
}

impl World {
    pub fn new() -> Self {
        Self::below("/dev/shm")
    }

    fn below(directory: &str) -> Self {
        let root = tempfile::tempdir_in(directory).unwrap();
        let runtime = Runtime::start_at(root.path().join("run/containerd/containerd.sock"));
        runtime.change(|state| {
            state.images.insert(IMAGE.into(), "sha256:0123456789abcdef".into());
        });
        let kubelet = PodResources::start(&root.path().join("var/lib/kubelet"));
        std::fs::create_dir_all(root.path().join("etc/kubernetes/manifests")).unwrap();
        Self { api: Api::new(NODE, "node-uid-1"), runtime, _kubelet: kubelet, root }
    }

    pub fn settings(&self) -> Settings {
        self.settings_with(|_| {})
    }

    /// Settings with changed flags.
    pub fn settings_with(&self, change: impl FnOnce(&mut AgentArguments)) -> Settings {
        let root = format!("--host-root={}", self.root.path().display());
        let node = format!("--node-name={NODE}");
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
        let Arguments { command: Command::Agent(mut arguments), log_format } = Arguments::try_parse_from(line).unwrap()
        else {
            panic!("not the agent")
        };
        change(&mut arguments);
        Settings::new(arguments, log_format).unwrap()
    }

    fn store(&self) -> Store {
        Store::new(self.root.path().join("var/lib/pod-checkpointer"))
    }

    pub fn run_dir(&self) -> RunDir {
        RunDir::new(self.root.path().join("run/pod-checkpointer"), "/run/pod-checkpointer")
    }

    fn manifest(&self) -> PathBuf {
        self.root.path().join("etc/kubernetes/manifests/pod-checkpointer-supervisor.yaml")
    }

    fn volume(&self, uid: &str) -> PathBuf {
        self.root.path().join(format!("var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~configmap/prices"))
    }

    /// Starts a pod on the node, as the kubelet does, and returns it as the API server has it.
    pub fn start(&self, name: &str, uid: &str) -> Value {
        let mut pod = Pod::new("shop", name, uid);
        pod.containers = vec![Spec::new("app", IMAGE)];
        let id = self.runtime.change(|state| {
            let sandbox = state.run(&pod);
            state.containers.iter().find(|(_, container)| container.sandbox == sandbox).unwrap().0.clone()
        });
        std::fs::create_dir_all(self.volume(uid)).unwrap();
        self.swap(uid, "1");
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "shop", "name": name, "uid": uid,
                "annotations": {"podcheckpointer.io/checkpoint": "true"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "till", "uid": "till-uid",
                    "controller": true}]},
            "spec": {
                "nodeName": NODE, "restartPolicy": "Always", "automountServiceAccountToken": false,
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
        let volume = self.volume(uid);
        let data = format!("..{content}");
        std::fs::create_dir(volume.join(&data)).unwrap();
        std::fs::write(volume.join(&data).join("list"), content).unwrap();
        let link = volume.join("..data_tmp");
        std::os::unix::fs::symlink(data, &link).unwrap();
        std::fs::rename(link, volume.join("..data")).unwrap();
        let _ = std::os::unix::fs::symlink("..data/list", volume.join("list"));
    }

    /// Lets an agent run for as long as the story takes; then it must end well.
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

    pub async fn captured(&self, name: &str, generation: u64) {
        let key = format!("shop_{name}");
        eventually(|| self.newest(&key) == Some(generation)).await;
        let condition = |state: &State| {
            let path = checkpoint_path("shop", name);
            state.objects.get(&path).is_some_and(|object| object["status"]["generation"] == json!(generation))
        };
        until(&self.api.state, condition).await;
    }

    fn newest(&self, key: &str) -> Option<u64> {
        self.store().newest(&id(key)).unwrap().0.map(|newest| newest.number)
    }

    fn word(&self) -> AgentWord {
        self.run_dir().read(AGENT).unwrap().unwrap_or_default()
    }

    /// A pod that was captured by an agent that has ended.
    async fn after_capture(&self) -> Value {
        let pod = self.start("till", "uid-1");
        self.api.put_pod(pod.clone());
        self.with_agent(self.settings(), self.captured("till", 1)).await;
        pod
    }

    async fn asked(&self, times: u32) {
        until(&self.api.state, |state| state.counts.get("GET pods").is_some_and(|count| *count >= times)).await;
    }

    async fn removed(&self) {
        eventually(|| self.store().keys().unwrap().is_empty()).await;
    }
}

/// Waits for something that no stub tells of: files.
async fn eventually(mut is_so: impl FnMut() -> bool) {
    tokio::time::timeout(PATIENCE, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it never came true");
}

fn content(world: &World, name: &str) -> Vec<u8> {
    let newest = world.store().newest(&id(&format!("shop_{name}"))).unwrap().0.unwrap();
    let volume = &newest.checkpoint.volumes["prices"];
    let data = volume.entries.iter().find_map(|entry| entry.data.as_ref()).unwrap();
    pod_checkpointer::checkpoint::encoding::decode(data).unwrap()
}

#[tokio::test]
async fn a_marked_pod_is_captured_when_it_is_ready_and_not_before() {
    let world = World::new();
    let mut pod = world.start("till", "uid-1");
    pod["status"]["conditions"][0]["status"] = json!("False");
    world.api.put_pod(pod.clone());
    let mut unmarked = world.start("unmarked", "uid-2");
    unmarked["metadata"]["annotations"] = json!({});
    world.api.put_pod(unmarked);
    world
        .with_agent(world.settings(), async {
            world.api.until_condition("shop", "till", "Captured", "False", "WaitingForReady").await;
            assert!(world.store().keys().unwrap().is_empty());
            pod["status"]["conditions"][0]["status"] = json!("True");
            world.api.put_pod(pod);
            world.captured("till", 1).await;
            world.api.until_condition("shop", "till", "Recoverable", "True", "Recoverable").await;
        })
        .await;
    let object = world.api.checkpoint("shop", "till").unwrap();
    assert_eq!(object["spec"], json!({"nodeName": NODE, "podUID": "uid-1"}));
    assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "uid-1");
    assert_eq!(content(&world, "till"), b"1");
    assert_eq!(world.store().keys().unwrap(), [id("shop_till")]);
    let word = world.word();
    assert_eq!(word.ready[&id("shop_till")].len(), 1);
    assert!(word.problems.iter().all(|problem| problem.contains("kubeconfig")), "{:?}", word.problems);
}

#[tokio::test]
async fn new_content_of_a_volume_is_captured_and_a_heartbeat_of_the_status_is_not() {
    let world = World::new();
    let mut pod = world.start("till", "uid-1");
    world.api.put_pod(pod.clone());
    world
        .with_agent(world.settings(), async {
            world.captured("till", 1).await;
            world.swap("uid-1", "2");
            world.captured("till", 2).await;
            assert_eq!(content(&world, "till"), b"2");
            world.api.until_condition("shop", "till", "Active", "Unknown", "NoSupervisor").await;
            let before = world.runtime.state.borrow().taken;
            let patches = world.api.count("PATCH podcheckpoints/status");
            for minute in 0..5 {
                pod["status"]["conditions"][0]["lastTransitionTime"] = json!(format!("2026-11-21T10:0{minute}:00Z"));
                world.api.put_pod(pod.clone());
            }
            // what comes after them has been seen when the word of it is out
            pod["status"]["containerStatuses"][0]["state"] = json!({"running": {"startedAt": "2026-11-21T10:06:00Z"}});
            pod["status"]["conditions"][0]["status"] = json!("False");
            world.api.put_pod(pod);
            eventually(|| world.word().ready.is_empty()).await;
            assert_eq!(world.runtime.state.borrow().taken, before, "nothing was captured");
            assert_eq!(world.api.count("PATCH podcheckpoints/status"), patches, "nothing was reported");
        })
        .await;
    assert_eq!(world.newest("shop_till"), Some(2));
}

#[tokio::test]
async fn a_podcheckpoint_that_somebody_deleted_is_written_again_and_that_of_a_pod_that_is_gone_is_not() {
    let world = World::new();
    for (name, uid) in [("till", "uid-1"), ("other", "uid-2")] {
        world.api.put_pod(world.start(name, uid));
    }
    let path = |name: &str| checkpoint_path("shop", name);
    let uid = |name: &str| world.api.checkpoint("shop", name).map(|object| object["metadata"]["uid"].clone());
    world
        .with_agent(world.settings(), async {
            world.captured("till", 1).await;
            world.captured("other", 1).await;
            let before = uid("till");
            world.api.change(|state| state.delete(&path("till")));
            world.api.until_condition("shop", "till", "Recoverable", "True", "Recoverable").await;
            assert_ne!(uid("till"), before, "another object");
            // the definition is gone with all of them, and made again
            world.api.change(|state| {
                state.lacks.insert(GROUP.into());
                state.delete(&path("till"));
                state.delete(&path("other"));
                state.ended += 1;
            });
            until(&world.api.state, |state| state.counts.get("WATCH podcheckpoints").is_some_and(|count| *count >= 3))
                .await;
            world.api.change(|state| state.lacks.remove(GROUP));
            for name in ["till", "other"] {
                world.api.until_condition("shop", name, "Recoverable", "True", "Recoverable").await;
            }
            world.api.delete_pod("shop", "other");
            world.api.change(|state| state.delete(&path("other")));
            eventually(|| world.store().keys().unwrap() == [id("shop_till")]).await;
        })
        .await;
    assert_eq!(world.api.checkpoint("shop", "other"), None);
    assert_eq!(world.newest("shop_till"), Some(1), "nothing was captured anew");
}

#[tokio::test]
async fn a_restarted_container_is_captured_anew() {
    let world = World::new();
    let mut pod = world.start("till", "uid-1");
    world.api.put_pod(pod.clone());
    world
        .with_agent(world.settings(), async {
            world.captured("till", 1).await;
            world.runtime.change(|state| {
                for container in state.containers.values_mut() {
                    container.spec.env = vec![("PRICE".into(), "2".into())];
                }
            });
            pod["spec"]["containers"][0]["env"] = json!([{"name": "PRICE", "value": "2"}]);
            pod["status"]["containerStatuses"][0]["restartCount"] = json!(1);
            world.api.put_pod(pod);
            world.captured("till", 2).await;
        })
        .await;
}

#[tokio::test]
async fn what_is_in_the_way_at_the_node_is_told_beside_its_pods_and_beside_itself_until_it_is_not() {
    let world = World::new();
    world.api.put_pod(world.start("till", "uid-1"));
    let mut plugin = world.start("cni", "uid-2");
    plugin["metadata"]["annotations"] = json!({});
    plugin["metadata"]["ownerReferences"][0]["name"] = json!("cni");
    plugin["spec"]["hostNetwork"] = json!(true);
    plugin["spec"]["volumes"] = json!([{"name": "cni", "hostPath": {"path": "/etc/cni/net.d"}}]);
    world.api.put_pod(plugin.clone());
    let manifests = world.root.path().join("etc/kubernetes/manifests");
    std::fs::remove_dir(&manifests).unwrap();
    world
        .with_agent(world.settings(), async {
            world.api.until_condition("shop", "till", "NodeFit", "False", "NoStaticPodDirectory").await;
            let told = |state: &State| {
                let of_node = |event: &&Value| event["regarding"]["kind"] == "Node";
                let reasons = state.events.iter().filter(of_node).filter_map(|event| event["reason"].as_str());
                ["NoStaticPodDirectory", "NetworkNotCheckpointed"]
                    .iter()
                    .all(|it| reasons.clone().any(|one| one == *it))
            };
            until(&world.api.state, told).await;
            let known = world.word().risks;
            assert!(known["NetworkNotCheckpointed"].contains("shop/cni (network plugin)"), "{known:?}");
            std::fs::create_dir(&manifests).unwrap();
            world.api.until_condition("shop", "till", "NodeFit", "False", "NetworkNotCheckpointed").await;
            plugin["spec"]["volumes"] = json!([]);
            world.api.put_pod(plugin);
            world.api.until_condition("shop", "till", "NodeFit", "True", "Fit").await;
        })
        .await;
    let before = world.api.count("PATCH podcheckpoints/status");
    let other = world.start("other", "uid-3");
    world
        .with_agent(world.settings(), async {
            world.api.put_pod(other);
            world.captured("other", 1).await;
        })
        .await;
    let patches = world.api.count("PATCH podcheckpoints/status") - before;
    assert_eq!(patches, 2, "an agent that starts again sees the same: only the other pod is new");
}

#[tokio::test]
async fn an_agent_that_starts_again_writes_nothing_that_is_written_already() {
    let world = World::new();
    world.after_capture().await;
    let patches =
        |world: &World| world.api.count("PATCH podcheckpoints") + world.api.count("PATCH podcheckpoints/status");
    let before = patches(&world);
    let file = world.store().newest(&id("shop_till")).unwrap().0.unwrap().path;
    let written = std::fs::metadata(&file).unwrap().modified().unwrap();
    let other = world.start("other", "uid-2");
    world
        .with_agent(world.settings(), async {
            world.api.put_pod(other);
            world.captured("other", 1).await;
        })
        .await;
    assert_eq!(std::fs::metadata(&file).unwrap().modified().unwrap(), written);
    assert_eq!(patches(&world) - before, 2 + 1, "spec and status of the other, once; its capture, once");
}

#[tokio::test]
async fn a_list_is_asked_for_once_however_often_watches_end() {
    let world = World::new();
    let pod = world.start("till", "uid-1");
    world
        .with_agent(world.settings(), async {
            for end in 1..=3 {
                until(&world.api.state, |state| state.counts.get("WATCH pods").is_some_and(|count| *count >= end))
                    .await;
                world.api.change(|state| state.ended = end);
            }
            world.api.put_pod(pod);
            world.captured("till", 1).await;
        })
        .await;
    assert_eq!(world.api.count("LIST pods"), 1);
    assert_eq!(world.api.count("LIST podcheckpoints"), 1);
}

#[tokio::test]
async fn a_list_without_pods_removes_nothing() {
    let world = World::new();
    world.after_capture().await;
    world.api.change(|state| state.mood = Mood::Empty);
    world.with_agent(world.settings(), world.asked(3)).await;
    assert_eq!(world.newest("shop_till"), Some(1));
}

#[tokio::test]
async fn silence_and_failure_of_the_api_server_remove_nothing_and_its_word_does() {
    for (mood, questions) in [(Mood::Silent, 1), (Mood::Failing, 3)] {
        let world = World::new();
        let pod = world.start("till", "uid-1");
        world.api.put_pod(pod);
        world
            .with_agent(world.settings(), async {
                world.captured("till", 1).await;
                world.api.change(|state| state.mood = mood);
                world.api.delete_pod("shop", "till");
                world.asked(questions).await;
                assert_eq!(world.newest("shop_till"), Some(1));
                world.api.change(|state| state.mood = Mood::Well);
                world.removed().await;
            })
            .await;
    }
}

#[tokio::test]
async fn what_another_cluster_says_removes_nothing() {
    let world = World::new();
    world.after_capture().await;
    world.api.change(|state| state.objects.retain(|path, _| !path.contains("/pods/")));
    world.api.put("/api/v1/nodes/node-1", json!({"metadata": {"name": NODE, "uid": "another"}}));
    world.with_agent(world.settings(), world.asked(3)).await;
    assert_eq!(world.newest("shop_till"), Some(1));
    assert!(world.word().problems.iter().any(|problem| problem.contains("another object")), "{:?}", world.word());
}

#[tokio::test]
async fn a_deleted_pods_checkpoint_goes_after_the_retention() {
    let world = World::new();
    world.api.put_pod(world.start("till", "uid-1"));
    let settings = world.settings_with(|flags| flags.retention = Duration::from_millis(300));
    world
        .with_agent(settings, async {
            world.captured("till", 1).await;
            world.api.delete_pod("shop", "till");
            eventually(|| world.word().gone.get(&id("shop_till")).is_some_and(|uid| uid == "uid-1")).await;
            assert_eq!(world.newest("shop_till"), Some(1));
            world.removed().await;
            assert_eq!(world.word().gone[&id("shop_till")], "uid-1", "the supervisor is told still");
        })
        .await;
}

#[tokio::test]
async fn a_captured_successor_ends_the_retention() {
    let world = World::new();
    world.api.put_pod(world.start("till-a", "uid-1"));
    let settings = world.settings_with(|flags| flags.retention = Duration::from_hours(1));
    world
        .with_agent(settings, async {
            world.captured("till-a", 1).await;
            world.api.delete_pod("shop", "till-a");
            eventually(|| world.word().gone.contains_key(&id("shop_till-a"))).await;
            assert_eq!(world.newest("shop_till-a"), Some(1));
            world.api.put_pod(world.start("till-b", "uid-2"));
            world.captured("till-b", 1).await;
            eventually(|| world.newest("shop_till-a").is_none()).await;
        })
        .await;
    assert_eq!(world.store().keys().unwrap(), [id("shop_till-b")]);
}

#[tokio::test]
async fn a_pod_of_the_same_name_takes_the_place_of_the_one_before() {
    let world = World::new();
    world.api.put_pod(world.start("till", "uid-1"));
    let settings = world.settings_with(|flags| flags.retention = Duration::from_hours(1));
    world
        .with_agent(settings, async {
            world.captured("till", 1).await;
            world.api.delete_pod("shop", "till");
            world.runtime.change(|state| state.remove("uid-1"));
            world.api.put_pod(world.start("till", "uid-2"));
            world.captured("till", 2).await;
            let path = checkpoint_path("shop", "till");
            until(&world.api.state, |state| state.objects[&path]["spec"]["podUID"] == "uid-2").await;
        })
        .await;
    let newest = world.store().newest(&id("shop_till")).unwrap().0.unwrap();
    assert_eq!(newest.checkpoint.parent.uid, "uid-2");
    assert_eq!(world.api.count("DELETE podcheckpoints"), 1, "the one whose owner is gone");
}

#[tokio::test]
async fn a_pod_that_is_no_longer_marked_leaves_at_once() {
    let world = World::new();
    let mut pod = world.start("till", "uid-1");
    world.api.put_pod(pod.clone());
    let settings = world.settings_with(|flags| flags.retention = Duration::from_hours(1));
    world
        .with_agent(settings, async {
            world.captured("till", 1).await;
            pod["metadata"]["annotations"] = json!({});
            world.api.put_pod(pod);
            world.removed().await;
            let path = checkpoint_path("shop", "till");
            until(&world.api.state, |state| !state.objects.contains_key(&path)).await;
        })
        .await;
    assert_eq!(world.api.count("GET pods"), 0, "the watch's word is enough");
}

#[tokio::test]
async fn a_namespace_that_is_not_looked_after_is_not_captured() {
    let world = World::new();
    world.after_capture().await;
    let settings = world.settings_with(|flags| flags.namespaces = vec!["elsewhere".into()]);
    world.with_agent(settings, world.removed()).await;
}

#[tokio::test]
async fn a_label_of_its_namespace_marks_a_pod_and_unmarks_it_only_when_it_is_known_to_be_gone() {
    let world = World::new();
    let mut pod = world.start("till", "uid-1");
    pod["metadata"]["annotations"] = json!({});
    world.api.put_pod(pod);
    world.api.put_pod(world.start("other", "uid-2"));
    let settings = world.settings_with(|flags| flags.namespace_selector = Some(selector::parse("site=edge").unwrap()));
    world
        .with_agent(settings.clone(), async {
            world.captured("other", 1).await;
            assert_eq!(world.store().keys().unwrap(), [id("shop_other")]);
            world.api.put_namespace("shop", &json!({"site": "edge"}));
            world.captured("till", 1).await;
        })
        .await;
    let mark = |name: &str| world.api.checkpoint("shop", name).unwrap()["status"]["markedBy"].clone();
    assert_eq!(mark("till"), "namespace selector site=edge");
    assert_eq!(mark("other"), "annotation podcheckpointer.io/checkpoint");
    assert_eq!(world.word().marked[&id("shop_till")], "namespace selector site=edge");

    // an agent that is not told of the namespace
    world.api.change(|state| state.objects.remove("/api/v1/namespaces/shop"));
    world
        .with_agent(settings.clone(), async {
            world.api.put_pod(world.start("third", "uid-3"));
            world.captured("third", 1).await;
            assert_eq!(world.newest("shop_till"), Some(1));
            assert!(world.api.checkpoint("shop", "till").is_some());
            assert_eq!(world.api.count("DELETE podcheckpoints"), 0);
            world.api.put_namespace("shop", &json!({"site": "centre"}));
            eventually(|| world.newest("shop_till").is_none()).await;
            let path = checkpoint_path("shop", "till");
            until(&world.api.state, |state| !state.objects.contains_key(&path)).await;
        })
        .await;
    assert_eq!(world.newest("shop_other"), Some(1), "its own annotation marks it");
    let counts = world.api.state.borrow().counts.clone();
    assert_eq!(counts.get("LIST namespaces"), Some(&2), "once an agent: {counts:?}");
}

#[tokio::test]
async fn a_selector_marks_a_pod_until_its_owner_opts_out() {
    let world = World::new();
    let mut pod = world.start("till", "uid-1");
    pod["metadata"]["annotations"] = json!({});
    pod["metadata"]["labels"] = json!({"app": "till"});
    world.api.put_pod(pod.clone());
    let select = vec![selector::parse("app=elsewhere").unwrap(), selector::parse("app in (till)").unwrap()];
    let settings = world.settings_with(|flags| {
        flags.select = select;
        flags.max_age = Some(Duration::from_hours(72));
    });
    world
        .with_agent(settings, async {
            world.captured("till", 1).await;
            assert_eq!(world.api.checkpoint("shop", "till").unwrap()["status"]["markedBy"], "selector app in (till)");
            let kept = world.store().newest(&id("shop_till")).unwrap().0.unwrap().checkpoint;
            assert_eq!(kept.policy.max_age_seconds, Some(72 * 3600), "the cluster's, where the pod does not say");
            pod["metadata"]["annotations"] = json!({"podcheckpointer.io/max-age": "1h"});
            world.api.put_pod(pod.clone());
            world.captured("till", 2).await;
            let kept = world.store().newest(&id("shop_till")).unwrap().0.unwrap().checkpoint;
            assert_eq!(kept.policy.max_age_seconds, Some(3600));
            pod["metadata"]["annotations"] = json!({"podcheckpointer.io/checkpoint": "false"});
            world.api.put_pod(pod);
            world.removed().await;
        })
        .await;
    assert_eq!(world.api.count("LIST namespaces"), 0, "nobody asked for namespaces");
}

#[tokio::test]
async fn a_refused_pod_is_told_its_reason_once_everywhere() {
    let world = World::new();
    let mut pod = world.start("till", "uid-1");
    pod["spec"]["volumes"] = json!([{"name": "prices", "persistentVolumeClaim": {"claimName": "prices"}}]);
    world.api.put_pod(pod.clone());
    world
        .with_agent(world.settings(), async {
            world.api.until_condition("shop", "till", "Recoverable", "False", "PersistentVolume").await;
            until(&world.api.state, |state| !state.events.is_empty()).await;
            pod["status"]["conditions"][0]["lastTransitionTime"] = json!("2026-11-21T11:00:00Z");
            world.api.put_pod(pod);
            world.api.put_pod(world.start("other", "uid-2"));
            world.captured("other", 1).await;
        })
        .await;
    let told = world.api.state.borrow().events.clone();
    let told: Vec<_> = told.iter().filter(|event| event["regarding"]["name"] == "till").collect();
    assert_eq!(told.len(), 1);
    assert_eq!((&told[0]["reason"], &told[0]["type"]), (&json!("PersistentVolume"), &json!("Warning")));
    assert_eq!(told[0]["regarding"]["uid"], "uid-1");
    assert!(world.word().refused[&id("shop_till")][0].starts_with("PersistentVolume"));
}

#[tokio::test]
async fn the_last_good_checkpoint_of_a_pod_that_is_now_refused_is_kept_and_named() {
    let world = World::new();
    let mut pod = world.start("till", "uid-1");
    world.api.put_pod(pod.clone());
    world
        .with_agent(world.settings(), async {
            world.captured("till", 1).await;
            pod["metadata"]["annotations"]["podcheckpointer.io/handover"] = json!("somehow");
            world.api.put_pod(pod);
            world.api.until_condition("shop", "till", "Recoverable", "False", "InvalidAnnotation").await;
        })
        .await;
    assert_eq!(world.newest("shop_till"), Some(1));
    let object = world.api.checkpoint("shop", "till").unwrap();
    let all = object["status"]["conditions"].as_array().unwrap();
    let recoverable = all.iter().find(|condition| condition["type"] == "Recoverable").unwrap();
    assert!(recoverable["message"].as_str().unwrap().contains("Generation 1"), "{recoverable}");
}

#[tokio::test]
async fn a_passing_fault_of_the_runtime_is_named_and_tried_again() {
    let world = World::new();
    world.api.put_pod(world.start("till", "uid-1"));
    world.runtime.stop().await;
    world
        .with_agent(world.settings(), async {
            world.api.until_condition("shop", "till", "Captured", "False", "CaptureFailed").await;
            world.runtime.resume();
            world.captured("till", 1).await;
            world.api.until_condition("shop", "till", "Captured", "True", "Captured").await;
        })
        .await;
}

#[tokio::test]
async fn a_store_that_cannot_be_written_is_named_and_tried_again() {
    let world = World::new();
    let in_the_way = world.root.path().join("var/lib/pod-checkpointer/checkpoints/shop_till");
    std::fs::create_dir_all(in_the_way.parent().unwrap()).unwrap();
    std::fs::write(&in_the_way, "a file").unwrap();
    world.api.put_pod(world.start("till", "uid-1"));
    world.api.put_pod(world.start("other", "uid-2"));
    world
        .with_agent(world.settings(), async {
            world.api.until_condition("shop", "till", "Captured", "False", "StoreFailed").await;
            until(&world.api.state, |state| {
                let path = checkpoint_path("shop", "other");
                state.objects.get(&path).is_some_and(|object| object["status"]["generation"] == 1)
            })
            .await;
            std::fs::remove_file(&in_the_way).unwrap();
            world.captured("till", 1).await;
        })
        .await;
}

impl World {
    /// Settings with a key, which is on the host unless somebody takes it away.
    fn with_key(&self) -> Settings {
        let path = self.root.path().join("seal.key");
        std::fs::write(&path, format!("00{}", "5a".repeat(31))).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        self.settings_with(|flags| flags.node.host.key_files = vec!["/seal.key".into()])
    }

    fn files(&self, key: &str) -> Vec<String> {
        let directory = self.root.path().join("var/lib/pod-checkpointer/checkpoints").join(key);
        let mut names: Vec<String> = std::fs::read_dir(directory)
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn what_was_in_clear_is_sealed_when_a_key_is_given_and_nothing_is_written_twice() {
    let world = World::new();
    world.after_capture().await;
    let path = world.store().newest(&id("shop_till")).unwrap().0.unwrap().path;
    let settings = world.with_key();
    let keys = KeyFiles::new(settings.root.clone(), settings.arguments.node.host.key_files.clone());
    let sealed = || world.store().with_keys(keys.clone()).newest(&id("shop_till")).unwrap().0.and_then(|it| it.sealed);
    world.with_agent(settings.clone(), eventually(|| sealed().is_some())).await;
    assert!(world.store().newest(&id("shop_till")).unwrap().0.is_none(), "not without the key");
    let before = std::fs::metadata(&path).unwrap();
    // captured once more by the next agent, which finds nothing new
    let told = |state: &State| {
        let object = state.objects.get(&checkpoint_path("shop", "till"));
        let digest = object.and_then(|object| object["status"]["digest"].as_str());
        digest.is_some_and(|digest| digest.starts_with("hmac-sha256:"))
    };
    world.with_agent(settings, until(&world.api.state, told)).await;
    let after = std::fs::metadata(&path).unwrap();
    assert_eq!((before.ino(), before.modified().unwrap()), (after.ino(), after.modified().unwrap()));
}

#[tokio::test]
async fn without_the_key_that_was_given_nothing_is_captured_until_it_is_there() {
    let world = World::new();
    let settings = world.with_key();
    let (key, away) = (world.root.path().join("seal.key"), world.root.path().join("away.key"));
    std::fs::rename(&key, &away).unwrap();
    world.api.put_pod(world.start("till", "uid-1"));
    world
        .with_agent(settings, async {
            world.api.until_condition("shop", "till", "Captured", "False", "KeyMissing").await;
            assert!(world.files("shop_till").is_empty());
            std::fs::rename(&away, &key).unwrap();
            world.api.until_condition("shop", "till", "Captured", "True", "Captured").await;
        })
        .await;
}

#[tokio::test]
async fn a_damaged_checkpoint_is_set_aside_at_the_start_and_captured_anew() {
    let world = World::new();
    world.after_capture().await;
    let path = world.store().newest(&id("shop_till")).unwrap().0.unwrap().path;
    std::fs::write(&path, "torn").unwrap();
    world.with_agent(world.settings(), world.captured("till", 2)).await;
    assert_eq!(world.files("shop_till"), ["0000000002.yaml"]);
}

#[tokio::test]
async fn a_checkpoint_that_nobody_can_read_goes_when_the_api_server_has_no_pod_of_its_name() {
    let world = World::new();
    world.after_capture().await;
    let path = world.store().newest(&id("shop_till")).unwrap().0.unwrap().path;
    std::fs::write(&path, "torn").unwrap();
    // refused from now on, so that it is not captured anew
    let mut pod = world.start("till", "uid-2");
    pod["spec"]["restartPolicy"] = json!("Never");
    world.api.put_pod(pod);
    world
        .with_agent(world.settings(), async {
            eventually(|| world.files("shop_till") == ["0000000001.yaml.damaged"]).await;
            world.api.until_condition("shop", "till", "Recoverable", "False", "RestartPolicy").await;
            world.api.delete_pod("shop", "till");
            world.removed().await;
        })
        .await;
}

#[tokio::test]
async fn on_a_full_disk_the_old_generation_stays_and_captures_go_on_when_there_is_space() {
    let world = World::new();
    let state = world.root.path().join("var/lib/pod-checkpointer");
    std::fs::create_dir_all(&state).unwrap();
    let mount = |arguments: &[&str]| {
        let output = std::process::Command::new(arguments[0]).args(&arguments[1..]).arg(&state).output();
        output.is_ok_and(|output| output.status.success())
    };
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=6m,mode=0700", "tmpfs"]) {
        return; // only root may mount; what a full disk does to a write is tested beside the writer
    }
    let pod = world.start("till", "uid-1");
    world.api.put_pod(pod);
    world
        .with_agent(world.settings(), async {
            world.captured("till", 1).await;
            std::fs::write(state.join("filler"), vec![0; 3 << 20]).unwrap();
            world.swap("uid-1", "2");
            world.api.until_condition("shop", "till", "Captured", "False", "StoreFull").await;
            assert_eq!(content(&world, "till"), b"1");
            assert_eq!(world.files("shop_till"), ["0000000001.yaml"]);
            std::fs::remove_file(state.join("filler")).unwrap();
            world.captured("till", 2).await;
            assert_eq!(content(&world, "till"), b"2");
        })
        .await;
    assert!(mount(&["umount"]));
}

#[tokio::test]
async fn a_watch_that_failed_is_a_problem_until_it_is_well_again() {
    let world = World::new();
    world.api.change(|state| state.mood = Mood::Failing);
    let is_named = || world.word().problems.iter().any(|problem| problem.contains("watch of pods"));
    world
        .with_agent(world.settings(), async {
            eventually(is_named).await;
            world.api.change(|state| state.mood = Mood::Well);
            eventually(|| !is_named()).await;
        })
        .await;
}

#[tokio::test]
async fn without_the_custom_resource_everything_else_goes_on() {
    let world = World::new();
    world.api.change(|state| state.lacks.insert(GROUP.into()));
    world.api.put_pod(world.start("till", "uid-1"));
    world
        .with_agent(world.settings(), async {
            eventually(|| world.newest("shop_till") == Some(1)).await;
            until(&world.api.state, |state| state.counts.contains_key("LIST podcheckpoints")).await;
            world.api.change(|state| state.lacks.remove(GROUP));
            world.captured("till", 1).await;
        })
        .await;
}

#[tokio::test]
async fn a_second_agent_on_the_node_is_told_so() {
    let world = World::new();
    world
        .with_agent(world.settings(), async {
            eventually(|| world.root.path().join("var/lib/pod-checkpointer/agent.lock").exists()).await;
            let second =
                Box::pin(agent::run(world.settings(), world.api.client(), world.api.client(), std::future::pending()))
                    .await;
            let text = second.unwrap_err().to_string();
            assert!(text.contains("agent.lock") && text.contains("another process"), "{text}");
        })
        .await;
}

#[tokio::test]
async fn the_supervisor_is_installed_and_told_what_it_must_know() {
    let world = World::new();
    world.with_agent(world.settings(), eventually(|| world.manifest().exists())).await;
    let manifest: Value = serde_json::from_slice(&std::fs::read(world.manifest()).unwrap()).unwrap();
    assert_eq!(manifest["spec"]["containers"][0]["image"], "registry.example/pod-checkpointer:v1");
    let record = world.store().node().unwrap().unwrap();
    assert_eq!((record.node_name.as_str(), record.node_uid.as_str()), (NODE, "node-uid-1"));
}

#[tokio::test]
async fn with_the_api_server_given_a_kubelet_that_names_none_is_no_problem() {
    let world = World::new();
    world.api.put_pod(world.start("till", "uid-1"));
    let settings = world.settings_with(|flags| {
        flags.supervisor_image = Some(String::new());
        flags.decision.apiservers = vec!["https://10.0.0.1:6443".into()];
    });
    let path = checkpoint_path("shop", "till");
    // said once the node was looked at
    let is_surveyed = |state: &State| {
        state.objects.get(&path).is_some_and(|object| object.to_string().contains("--supervisor-image is empty"))
    };
    world.with_agent(settings, until(&world.api.state, is_surveyed)).await;
    assert_eq!(world.word().problems, Vec::<String>::new());
}

#[tokio::test]
async fn the_supervisor_gets_the_image_of_the_agents_own_container() {
    let world = World::new();
    world.api.put(
        "/api/v1/namespaces/system/pods/agent-x",
        json!({"metadata": {"namespace": "system", "name": "agent-x", "uid": "a"},
            "spec": {"containers": [{"name": "other", "image": "other:1"}, {"name": "agent", "image": "own:1"}]}}),
    );
    let settings = world.settings_with(|flags| {
        flags.supervisor_image = None;
        flags.pod_name = Some("agent-x".into());
        flags.pod_namespace = "system".into();
    });
    world.with_agent(settings, eventually(|| world.manifest().exists())).await;
    let manifest: Value = serde_json::from_slice(&std::fs::read(world.manifest()).unwrap()).unwrap();
    assert_eq!(manifest["spec"]["containers"][0]["image"], "own:1");
    assert_eq!(manifest["metadata"]["namespace"], "system");
}

#[tokio::test]
async fn without_a_static_pod_path_no_supervisor_is_installed_and_captures_go_on() {
    let world = World::new();
    world.api.put_pod(world.start("till", "uid-1"));
    // the process that listens is this test, which was started without a static pod path
    let settings = world.settings_with(|flags| flags.node.host.manifest_dir = None);
    world
        .with_agent(settings, async {
            world.captured("till", 1).await;
            eventually(|| world.word().problems.iter().any(|problem| problem.contains("staticPodPath"))).await;
            world.api.until_condition("shop", "till", "Active", "Unknown", "NoSupervisor").await;
        })
        .await;
    assert!(!world.manifest().exists());
}

#[tokio::test]
async fn an_empty_image_installs_no_supervisor() {
    let world = World::new();
    world.api.put_pod(world.start("till", "uid-1"));
    let settings = world.settings_with(|flags| flags.supervisor_image = Some(String::new()));
    world
        .with_agent(settings, async {
            world.captured("till", 1).await;
            eventually(|| world.store().node().unwrap().is_some()).await;
        })
        .await;
    assert!(!world.manifest().exists());
}

#[tokio::test]
async fn a_run_directory_on_a_disk_is_a_problem_and_captures_go_on() {
    let world = World::below(env!("CARGO_TARGET_TMPDIR"));
    if world.run_dir().open("probe").is_ok() {
        return; // the build directory is in memory: nothing to see here
    }
    world.api.put_pod(world.start("till", "uid-1"));
    world.with_agent(world.settings(), world.captured("till", 1)).await;
    assert!(!world.run_dir().path().join(AGENT).exists());
}

#[tokio::test]
async fn what_the_supervisor_did_is_shown_on_the_pods_checkpoint() {
    let world = World::new();
    world.api.put_pod(world.start("till", "uid-1"));
    let report = |phase| PodReport {
        namespace: "shop".into(),
        name: "till".into(),
        parent_uid: "uid-1".into(),
        phase,
        ..PodReport::default()
    };
    let status = |phase| Status { pods: vec![report(phase)], ..Status::default() };
    let outage = Outage {
        from: 1_000,
        from_wall: "2026-11-21T10:00:00Z".into(),
        to: Some(61_000),
        to_wall: None,
        pods: [(
            id("shop_till"),
            PodOutage { parent_uid: "uid-1".into(), activated: Some(4_500), ..PodOutage::default() },
        )]
        .into(),
    };
    let events = |state: &State| -> Vec<String> {
        state.events.iter().map(|event| event["reason"].as_str().unwrap().to_owned()).collect()
    };
    world
        .with_agent(world.settings(), async {
            world.captured("till", 1).await;
            let run = world.run_dir();
            run.write(STATUS, &status(Phase::Active)).unwrap();
            world.api.until_condition("shop", "till", "Active", "True", "Active").await;
            run.write(OUTAGES, &Outages { outages: vec![outage], ..Outages::default() }).unwrap();
            run.write(STATUS, &status(Phase::Inactive)).unwrap();
            world.api.until_condition("shop", "till", "Active", "False", "Inactive").await;
            until(&world.api.state, |state| events(state) == ["Captured", "Activated"]).await;
        })
        .await;
    let told = world.api.state.borrow().events[1].clone();
    assert_eq!((&told["type"], &told["regarding"]["uid"]), (&json!("Normal"), &json!("uid-1")));
    assert!(told["note"].as_str().unwrap().contains("2026-11-21T10:00:03.5Z"), "{told}");
    let status = &world.api.checkpoint("shop", "till").unwrap()["status"];
    assert_eq!(status["phase"], "Inactive");
    assert_eq!(status["lastOutage"]["activated"], "2026-11-21T10:00:03.5Z");
    assert_eq!(status["lastOutage"]["to"], "2026-11-21T10:01:00Z");
}

#[tokio::test]
async fn no_secret_leaves_the_node() {
    let world = World::new();
    let mut pod = world.start("till", "uid-1");
    pod["spec"]["containers"][0]["env"] = json!([{"name": "PASSWORD", "value": "hunter2"}]);
    world.runtime.change(|state| {
        for container in state.containers.values_mut() {
            container.spec.env = vec![("PASSWORD".into(), "hunter2".into())];
        }
    });
    world.swap("uid-1", "s3cret");
    world.api.put_pod(pod);
    world.with_agent(world.settings(), world.captured("till", 1)).await;
    let shown = world.api.checkpoint("shop", "till").unwrap().to_string();
    let word = std::fs::read_to_string(world.run_dir().path().join(AGENT)).unwrap();
    let secret = pod_checkpointer::checkpoint::encoding::encode(b"s3cret");
    for text in [shown, word] {
        assert!(!text.contains("hunter2") && !text.contains("s3cret") && !text.contains(&secret), "{text}");
    }
    assert_eq!(content(&world, "till"), b"s3cret");
}
