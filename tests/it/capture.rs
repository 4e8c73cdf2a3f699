//! Capture against a runtime in memory and a kubelet's directory: what comes of what ran, and what
//! a moment can spoil.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pod_checkpointer::capture::{self, Error, Reason, Sources, volume_dirs};
use pod_checkpointer::checkpoint::encoding;
use pod_checkpointer::checkpoint::{Image, NodeCheckpoint};
use pod_checkpointer::node::host::HostRoot;
use pod_checkpointer::node::kubelet::Settings;
use pod_checkpointer::pod::mark;
use pod_checkpointer::reasons::{Refusal, Warning};
use serde_json::{Value, json};

use crate::stub::kubelet::swap_volume;
use crate::stub::runtime::{Pod, Runtime, Spec, State};
use crate::stub::{Fault, until};

mod claims;
mod identity;
mod images;
mod limits;

const UID: &str = "2f1e6d1c-6a3a-4f0e-9f6b-0a6b7c8d9e0f";
const WEB: &str = "registry.example/web:1";
const TOOLS: &str = "registry.example/tools:3";
const SECRET: &str = "s3cret$(POD_IP)";

/// A node on which one pod runs, with a volume, an init container and a container.
struct Node {
    root: tempfile::TempDir,
    runtime: Runtime,
    settings: Settings,
    early_namespaces: Vec<String>,
}

impl Node {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let runtime = Runtime::start_at(root.path().join("run/runtime.sock"));
        let node = Self {
            root,
            runtime,
            settings: Settings::default(),
            early_namespaces: vec!["shop".to_owned()],
        };
        let env = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect()
        };
        let services = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");
        let mut pod = Pod::new("shop", "web", UID);
        pod.containers = vec![
            Spec {
                is_init: true,
                env: env(&[services]),
                ..Spec::new("prepare", TOOLS)
            },
            Spec {
                env: env(&[
                    ("URL", "http://10.85.0.7/"),
                    ("TOKEN", SECRET),
                    ("POD_IP", "10.85.0.7"),
                    ("MODE", "fast"),
                    services,
                ]),
                ..Spec::new("web", WEB)
            },
        ];
        node.runtime.change(|state| {
            state.images.insert(WEB.into(), "sha256:0e0e".into());
            state
                .images
                .insert("sha256:0e0e".into(), "sha256:0e0e".into());
            state.images.insert(TOOLS.into(), "sha256:7001".into());
            state.run(&pod);
        });
        node.publish("..1", "first");
        node.file(
            "etc/cni/net.d/10-pods.conflist",
            r#"{"plugins": [{"type": "bridge", "ipam": {"type": "host-local"}}]}"#,
        );
        node
    }

    /// A file of the host.
    fn file(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn pod() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "shop", "name": "web", "uid": UID, "resourceVersion": "77",
                "annotations": {"podcheckpointer.io/checkpoint": "true", "podcheckpointer.io/start-group": "20"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "web", "uid": "owner-uid",
                    "controller": true}]},
            "spec": {
                "nodeName": "edge-1", "restartPolicy": "Always",
                "initContainers": [{"name": "prepare", "image": TOOLS}],
                "containers": [{"name": "web", "image": WEB, "imagePullPolicy": "Always",
                    "envFrom": [{"secretRef": {"name": "web"}}],
                    "env": [
                        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                        {"name": "URL", "value": "http://$(POD_IP)/"},
                        {"name": "MODE", "value": "fast"},
                    ],
                    "volumeMounts": [{"name": "tls", "mountPath": "/tls"}]}],
                "volumes": [{"name": "tls", "secret": {"secretName": "web"}}],
            },
            "status": {"phase": "Running", "podIP": "10.85.0.7", "podIPs": [{"ip": "10.85.0.7"}],
                "conditions": [{"type": "Ready", "status": "True"}]},
        })
    }

    fn volume(&self) -> PathBuf {
        self.root.path().join(format!(
            "var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~secret/tls"
        ))
    }

    /// New content of the volume.
    fn publish(&self, data: &str, content: &str) {
        swap_volume(&self.volume(), data, &[("key", 0o644, content.as_bytes())]);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        self.runtime.change(change);
    }

    fn container(&self, name: &str, change: impl FnOnce(&mut crate::stub::runtime::Container)) {
        self.change(|state| {
            change(
                state
                    .containers
                    .values_mut()
                    .find(|one| one.spec.name == name)
                    .unwrap(),
            );
        });
    }

    async fn capture(&self, pod: &Value) -> Result<NodeCheckpoint, Error> {
        let runtime = self.runtime.client(Duration::from_secs(5));
        self.capture_from(pod, &runtime).await
    }

    async fn capture_from(
        &self,
        pod: &Value,
        runtime: &pod_checkpointer::node::runtime::Runtime,
    ) -> Result<NodeCheckpoint, Error> {
        let sources = Sources {
            node_uid: None,
            root: &HostRoot::new(self.root.path()),
            kubelet_dir: Path::new("/var/lib/kubelet"),
            run_dir: Path::new("/run/pod-checkpointer"),
            node_name: "edge-1",
            runtime,
            settings: &self.settings,
            planned_outage: pod_checkpointer::capture::PLANNED_OUTAGE,
            early_namespaces: &self.early_namespaces,
        };
        capture::capture(pod, &sources).await
    }

    async fn refused(&self, pod: &Value) -> Vec<Reason> {
        match self.capture(pod).await {
            Err(Error::Refused(reasons)) => reasons,
            other => panic!("not refused: {other:?}"),
        }
    }

    async fn gone(&self) {
        let error = self.capture(&Self::pod()).await.unwrap_err();
        assert!(
            matches!(error, Error::Gone(_)) && error.is_passing(),
            "{error:?}"
        );
    }
}

fn refusals(reasons: &[Reason]) -> Vec<Refusal> {
    reasons.iter().map(|reason| reason.refusal).collect()
}

#[tokio::test]
async fn a_pod_becomes_a_checkpoint_of_what_ran() {
    let node = Node::new();
    let checkpoint = node.capture(&Node::pod()).await.unwrap();
    assert_eq!(
        NodeCheckpoint::from_yaml(&checkpoint.to_yaml().unwrap()).unwrap(),
        checkpoint
    );
    let container = &checkpoint.manifest["spec"]["containers"][0];
    let env = json!([
        {"name": "KUBERNETES_SERVICE_HOST", "value": "10.0.0.1"},
        {"name": "MODE", "value": "fast"},
        {"name": "TOKEN", "value": "s3cret$$(POD_IP)"},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "URL", "value": "http://$(POD_IP)/"},
    ]);
    assert_eq!(container["env"], env);
    assert_eq!(
        (&container["image"], container["envFrom"].as_array()),
        (&json!(WEB), None)
    );
    assert_eq!(
        checkpoint.manifest["metadata"]["uid"],
        "00000000-0000-0000-0000-000000000000"
    );
    let path = "/run/pod-checkpointer/volumes/shop_web/00000000-0000-0000-0000-000000000000/tls";
    assert_eq!(
        checkpoint.manifest["spec"]["volumes"][0]["hostPath"],
        json!({"path": path, "type": "Directory"})
    );

    let entries = &checkpoint.volumes["tls"].entries;
    let paths: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["", "..1", "..1/key", "..data", "key"]);
    assert_eq!(
        encoding::decode(entries[2].data.as_deref().unwrap()).unwrap(),
        b"first"
    );

    let image = |name: &str, id: &str| Image {
        name: name.into(),
        id: id.into(),
    };
    let images = [
        ("prepare".to_owned(), image(TOOLS, "sha256:7001")),
        ("web".to_owned(), image(WEB, "sha256:0e0e")),
    ];
    assert_eq!(checkpoint.images, images.into());
    assert_eq!(
        checkpoint
            .parent
            .owner
            .as_ref()
            .map(|owner| owner.uid.as_str()),
        Some("owner-uid")
    );
    assert_eq!(
        (
            checkpoint.parent.uid.as_str(),
            checkpoint.parent.resource_version.as_str()
        ),
        (UID, "77")
    );
    assert_eq!(
        (
            checkpoint.policy.start_group,
            checkpoint.policy.grace_seconds
        ),
        (20, 30)
    );
    assert_eq!(checkpoint.warnings, [Warning::InitContainersRunAgain]);
}

#[tokio::test]
async fn both_runtimes_tell_the_same() {
    let node = Node::new();
    let containerd = node.capture(&Node::pod()).await.unwrap();
    node.change(|state| state.name = "cri-o".into());
    let mut pod = Node::pod();
    pod["spec"]["hostname"] = json!("pod");
    let crio = node.capture(&pod).await.unwrap();
    assert_eq!(
        crio.manifest["spec"]["containers"][0]["env"],
        containerd.manifest["spec"]["containers"][0]["env"]
    );
    assert_eq!(
        crio.manifest["spec"]["initContainers"],
        containerd.manifest["spec"]["initContainers"]
    );
}

#[tokio::test]
async fn the_order_of_the_environment_is_chance_and_no_change() {
    let node = Node::new();
    let before = node.capture(&Node::pod()).await.unwrap().content_digest();
    node.container("web", |container| container.spec.env.reverse());
    let mut pod = Node::pod();
    pod["metadata"]["resourceVersion"] = json!("78");
    assert_eq!(node.capture(&pod).await.unwrap().content_digest(), before);
    node.publish("..2", "second");
    assert_ne!(node.capture(&pod).await.unwrap().content_digest(), before);
}

#[tokio::test]
async fn records_of_former_attempts_and_former_sandboxes_do_not_count() {
    let node = Node::new();
    let wanted = node.capture(&Node::pod()).await.unwrap();
    node.change(|state| {
        let now = state
            .containers
            .values()
            .find(|one| one.spec.name == "web")
            .unwrap()
            .clone();
        for (id, sandbox, attempt) in [("z", now.sandbox.as_str(), 0), ("y", "former", 9)] {
            let mut former = now.clone();
            former.sandbox = sandbox.into();
            former.attempt = attempt;
            former.state = pod_checkpointer::node::proto::runtime::ContainerState::ContainerExited;
            former.spec.env = vec![("FORMER".into(), "yes".into())];
            state.containers.insert(id.into(), former);
        }
        state
            .containers
            .values_mut()
            .filter(|one| one.attempt == 0 && one.spec.env.len() > 1)
            .for_each(|it| it.attempt = 1);
    });
    assert_eq!(
        node.capture(&Node::pod()).await.unwrap().manifest,
        wanted.manifest
    );
}

#[tokio::test]
async fn a_container_that_does_not_run_at_the_moment_is_no_reason_to_refuse() {
    let node = Node::new();
    node.container("web", |container| {
        container.state = pod_checkpointer::node::proto::runtime::ContainerState::ContainerExited;
    });
    node.gone().await;
    node.change(|state| {
        state
            .containers
            .retain(|_, container| container.spec.name != "web");
    });
    node.gone().await;
    node.change(|state| state.remove(UID));
    node.gone().await;
}

#[tokio::test]
async fn a_volume_that_vanished_is_no_reason_to_refuse() {
    let node = Node::new();
    std::fs::remove_dir_all(node.volume()).unwrap();
    node.gone().await;
}

/// Runs a capture and does something in the middle of it, when the runtime takes this call.
async fn interrupted(
    node: &Node,
    call: u32,
    act: impl FnOnce(&Node),
) -> Result<NodeCheckpoint, Error> {
    node.change(|state| state.taken = 0);
    let pod = Node::pod();
    let (result, ()) = tokio::join!(node.capture(&pod), async {
        until(&node.runtime.state, |state| state.taken >= call).await;
        act(node);
    });
    result
}

#[tokio::test]
async fn a_volume_that_is_swapped_meanwhile_is_tried_again() {
    let node = Node::new();
    node.capture(&Node::pod()).await.unwrap();
    let calls = node.runtime.state.borrow().taken;
    let result = interrupted(&node, calls, |node| node.publish("..2", "second")).await;
    assert!(
        matches!(&result, Err(Error::Gone(what)) if what == "volume tls"),
        "{result:?}"
    );
    node.capture(&Node::pod()).await.unwrap();
}

#[tokio::test]
async fn a_container_that_is_restarted_meanwhile_is_tried_again() {
    let node = Node::new();
    let result = interrupted(&node, 2, |node| {
        node.change(|state| {
            let (id, mut container) = state
                .containers
                .iter()
                .find(|(_, one)| one.spec.name == "web")
                .map(|(a, b)| (a.clone(), b.clone()))
                .unwrap();
            state.containers.remove(&id);
            container.attempt += 1;
            state.containers.insert("another".into(), container);
        });
    })
    .await;
    assert!(matches!(result, Err(Error::Gone(_))), "{result:?}");
}

#[tokio::test]
async fn a_runtime_that_hangs_fails_or_is_not_there_is_no_reason_to_refuse() {
    let node = Node::new();
    for fault in [Fault::Hang, Fault::Error] {
        node.change(|state| state.fault = fault);
        let runtime = node.runtime.client(Duration::from_millis(50));
        let error = node.capture_from(&Node::pod(), &runtime).await.unwrap_err();
        assert!(
            matches!(error, Error::Runtime(_)) && error.is_passing(),
            "{error:?}"
        );
        assert!(error.source().is_some());
    }
    node.change(|state| state.fault = Fault::None);
    node.runtime.stop().await;
    assert!(matches!(
        node.capture(&Node::pod()).await,
        Err(Error::Runtime(_))
    ));
}

#[tokio::test]
async fn a_pod_that_is_refused_in_any_case_is_refused_when_the_runtime_is_away() {
    let node = Node::new();
    node.runtime.stop().await;
    let mut pod = Node::pod();
    pod["spec"]["resourceClaims"] = json!([{"name": "gpu", "resourceClaimName": "g"}]);
    assert_eq!(
        refusals(&node.refused(&pod).await),
        [Refusal::ResourceClaim]
    );
}

#[tokio::test]
async fn a_pod_whose_verdict_depends_on_the_runtime_is_not_refused_while_that_is_away() {
    let node = Node::new();
    node.runtime.stop().await;
    let mut pod = Node::pod();
    pod["spec"]["runtimeClassName"] = json!("kata");
    pod["spec"]["volumes"] =
        json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    pod["metadata"]["annotations"]["podcheckpointer.io/accept"] = json!("persistent-volume");
    assert!(matches!(node.capture(&pod).await, Err(Error::Runtime(_))));
    let mut reasons = refusals(&capture::judge(
        &pod,
        Path::new("/run/pod-checkpointer"),
        "edge-1",
    ));
    reasons.sort_unstable();
    assert_eq!(
        reasons,
        [Refusal::PersistentVolume, Refusal::RuntimeClass],
        "without a node nobody knows"
    );
}

#[tokio::test]
async fn an_init_container_without_a_record_has_an_unknown_environment() {
    let node = Node::new();
    node.change(|state| {
        state
            .containers
            .retain(|_, container| container.spec.name != "prepare");
    });
    let reasons = node.refused(&Node::pod()).await;
    assert_eq!(refusals(&reasons), [Refusal::EnvironmentUnknown]);
    assert!(reasons[0].detail.contains("prepare"), "{reasons:?}");
}

#[tokio::test]
async fn an_init_container_without_a_record_gets_what_the_kubelet_would_give_it() {
    for runtime in ["containerd", "cri-o"] {
        let node = Node::new();
        node.change(|state| {
            state.name = runtime.into();
            state
                .containers
                .retain(|_, container| container.spec.name != "prepare");
        });
        let mut pod = Node::pod();
        pod["spec"]["hostname"] = json!("pod");
        pod["spec"]["containers"][0]["envFrom"] = json!(null);
        node.container("web", |container| {
            container.spec.env.retain(|(name, _)| name != "TOKEN");
        });
        pod["spec"]["initContainers"][0]["env"] = json!([
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "URL", "value": "https://$(KUBERNETES_SERVICE_HOST)/$(NAME)/$(IP)/$(NONE)/$$(NAME)"},
        ]);
        let checkpoint = node.capture(&pod).await.unwrap();
        let wanted = json!([
            {"name": "KUBERNETES_SERVICE_HOST", "value": "10.0.0.1"},
            {"name": "NAME", "value": "web"},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "URL", "value": "https://10.0.0.1/web/$(IP)/$$(NONE)/$$(NAME)"},
        ]);
        assert_eq!(
            checkpoint.manifest["spec"]["initContainers"][0]["env"], wanted,
            "{runtime}"
        );
        // Values that come only from an API object or a container's resources are not known.
        for from in [
            json!({"secretKeyRef": {"name": "s", "key": "k"}}),
            json!({"configMapKeyRef": {"name": "c", "key": "k", "optional": true}}),
            json!({"resourceFieldRef": {"resource": "limits.cpu"}}),
            json!({"fieldRef": {"fieldPath": "metadata.labels['app']"}}),
            json!({"fieldRef": {"fieldPath": "status.hostIP"}}),
        ] {
            pod["spec"]["initContainers"][0]["env"][0]["valueFrom"] = from.clone();
            assert_eq!(
                refusals(&node.refused(&pod).await),
                [Refusal::EnvironmentUnknown],
                "{from}"
            );
        }
    }
}

#[tokio::test]
async fn a_kubelet_whose_certificate_ends_soon_is_warned_of() {
    let mut node = Node::new();
    node.settings.kubeconfig = Some("/etc/kubernetes/kubelet.conf".into());
    let user = "client-certificate: kubelet.pem";
    node.file(
        "etc/kubernetes/kubelet.conf",
        &format!("{{current-context: c, contexts: [{{name: c, context: {{user: u}}}}], users: [{{name: u, user: {{{user}}}}}]}}"),
    );
    for (year, ends) in [(2020, true), (2999, false)] {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let certificate = params
            .self_signed(&rcgen::KeyPair::generate().unwrap())
            .unwrap();
        node.file("etc/kubernetes/kubelet.pem", &certificate.pem());
        let warnings = node.capture(&Node::pod()).await.unwrap().warnings.clone();
        assert_eq!(
            warnings.contains(&Warning::KubeletCertificateExpires),
            ends,
            "{year}"
        );
    }
}

#[tokio::test]
async fn a_pod_that_may_not_start_first_is_warned_of() {
    let mut node = Node::new();
    node.early_namespaces.clear();
    let mut pod = Node::pod();
    let warnings = node.capture(&pod).await.unwrap().warnings.clone();
    assert_eq!(
        warnings,
        [Warning::InitContainersRunAgain, Warning::StartGroupIgnored]
    );
    pod["metadata"]["annotations"]["podcheckpointer.io/start-group"] = json!("50");
    assert_eq!(
        node.capture(&pod).await.unwrap().warnings,
        [Warning::InitContainersRunAgain]
    );
}

#[tokio::test]
async fn a_pod_network_that_needs_the_api_server_is_warned_of() {
    let node = Node::new();
    node.file(
        "etc/cni/net.d/10-pods.conflist",
        r#"{"plugins": [{"type": "calico", "ipam": {"type": "calico-ipam"}}]}"#,
    );
    let mut pod = Node::pod();
    let warnings = node.capture(&pod).await.unwrap().warnings.clone();
    assert_eq!(
        warnings,
        [Warning::InitContainersRunAgain, Warning::NetworkNeedsAPI]
    );
    pod["spec"]["hostNetwork"] = json!(true);
    assert_eq!(
        node.capture(&pod).await.unwrap().warnings,
        [Warning::InitContainersRunAgain]
    );
}

#[tokio::test]
async fn no_value_of_a_secret_or_of_the_environment_is_shown() {
    let node = Node::new();
    let bytes = "s3cret\u{fffd}";
    node.publish("..2", "s3cret");
    node.container("web", |container| {
        container.spec.env.push(("BYTES".into(), bytes.into()));
    });
    let mut pod = Node::pod();
    pod["spec"]["containers"][0]["env"][2] = json!({"name": "GONE", "value": "s3cret"});
    pod["spec"]["containers"][0]["fieldOfTheFuture"] = json!("s3cret");
    let error = node.capture(&pod).await.unwrap_err();
    let Error::Refused(reasons) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(
        refusals(reasons),
        [Refusal::UnknownField, Refusal::EnvironmentNotText]
    );
    assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
    node.container("web", |container| drop(container.spec.env.pop()));
    let error = node.capture(&pod).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
}

#[test]
fn the_directories_to_watch_are_those_of_the_captured_volumes() {
    let mut pod = Node::pod();
    let volumes = json!([
        {"name": "a", "configMap": {"name": "x"}}, {"name": "b", "secret": {"secretName": "x"}},
        {"name": "c", "projected": {"sources": []}}, {"name": "d", "downwardAPI": {"items": []}},
        {"name": "e", "emptyDir": {}}, {"name": "f", "hostPath": {"path": "/"}},
    ]);
    pod["spec"]["volumes"] = volumes;
    let of = |plugin: &str, name: &str| {
        (
            name.to_owned(),
            PathBuf::from(format!(
                "/k/pods/{UID}/volumes/kubernetes.io~{plugin}/{name}"
            )),
        )
    };
    let wanted = [
        of("configmap", "a"),
        of("secret", "b"),
        of("projected", "c"),
        of("downward-api", "d"),
    ];
    assert_eq!(volume_dirs(&pod, Path::new("/k")), wanted);
}

#[test]
fn marks_and_readiness() {
    let pod = Node::pod();
    assert!(mark::is_marked(&pod) && mark::is_ready(&pod));
    let with = |path: &str, value: Value| {
        let mut pod = Node::pod();
        *pod.pointer_mut(path).unwrap() = value;
        pod
    };
    for mark in [
        json!({}),
        json!({"podcheckpointer.io/checkpoint": "yes"}),
        json!(null),
    ] {
        assert!(!mark::is_marked(&with("/metadata/annotations", mark)));
    }
    let legacy = json!({"checkpointer.alpha.coreos.com/checkpoint": "true"});
    assert!(mark::is_marked(&with("/metadata/annotations", legacy)));
    for (path, value) in [
        ("/status/phase", json!("Pending")),
        ("/status/conditions/0/status", json!("False")),
        ("/status/conditions", json!([])),
        ("/status", json!(null)),
    ] {
        assert!(!mark::is_ready(&with(path, value)), "{path}");
    }
    let mut deleting = pod;
    deleting["metadata"]["deletionTimestamp"] = json!("2026-11-20T08:00:00Z");
    assert!(!mark::is_ready(&deleting));
}
