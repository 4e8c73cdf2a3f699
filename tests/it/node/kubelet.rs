//! What the kubelet owns and how it was started; and that the imitation of it behaves as the real
//! one.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use pod_checkpointer::node::host::HostRoot;
use pod_checkpointer::node::kubelet::{self, Error};

use crate::stub::{Fault, Kubelet, PATIENCE, Pod, PodResources, ProbeServer, Runtime, until};

const SHORT: Duration = Duration::from_millis(200);

fn name(namespace: &str, name: &str) -> (String, String) {
    (namespace.to_owned(), name.to_owned())
}

#[tokio::test]
async fn what_the_kubelet_owns_comes_with_its_process_id() {
    let directory = tempfile::tempdir().unwrap();
    let resources = PodResources::start(directory.path());
    let client = kubelet::Kubelet::new(resources.socket().to_owned(), PATIENCE);
    let owned = client.owned().await.unwrap();
    assert_eq!(owned.pid, std::process::id());
    assert!(owned.pods.is_empty());
    resources
        .state
        .send_modify(|state| state.pods.extend([name("shop", "web-1")]));
    assert_eq!(
        client.owned().await.unwrap().pods,
        [name("shop", "web-1")].into()
    );
}

#[tokio::test]
async fn an_absent_socket_and_one_without_a_listener_both_mean_that_no_kubelet_runs() {
    let directory = tempfile::tempdir().unwrap();
    let absent = kubelet::Kubelet::new(directory.path().join("none.sock"), PATIENCE);
    assert!(matches!(absent.owned().await, Err(Error::Down(..))));

    let resources = PodResources::start(directory.path());
    let client = kubelet::Kubelet::new(resources.socket().to_owned(), PATIENCE);
    client.owned().await.unwrap();
    resources.stop().await;
    assert!(resources.socket().exists());
    assert!(matches!(client.owned().await, Err(Error::Down(..))));
    resources.resume();
    client.owned().await.unwrap();
}

#[tokio::test]
async fn a_kubelet_that_hangs_or_answers_with_an_error_is_silent_and_not_down() {
    let directory = tempfile::tempdir().unwrap();
    let resources = PodResources::start(directory.path());
    let client = kubelet::Kubelet::new(resources.socket().to_owned(), SHORT);
    for fault in [Fault::Hang, Fault::Error] {
        resources.state.send_modify(|state| state.fault = fault);
        let error = client.owned().await.unwrap_err();
        assert!(matches!(error, Error::Silent(..)), "{fault:?}: {error:?}");
    }
    resources
        .state
        .send_modify(|state| state.fault = Fault::None);
    client.owned().await.unwrap();
}

/// Flags of a process that is not a kubelet count the same: only its command line and directory are
/// read.
#[test]
fn the_settings_of_a_running_process_are_read_from_its_command_line_and_directory() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("config.yaml"),
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nstaticPodPath: /etc/manifests\n",
    )
    .unwrap();
    let mut process = Command::new("sh")
        .args([
            "-c",
            "echo; read line",
            "kubelet",
            "--config",
            "config.yaml",
            "--root_dir=kubelet",
            "--kubeconfig=/etc/kc",
        ])
        .current_dir(directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Before its first output it may have no command line yet.
    process.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    let settings = kubelet::settings(&HostRoot::new("/"), process.id());
    drop(process.stdin.take());
    process.wait().unwrap();
    let settings = settings.unwrap();
    assert_eq!(
        settings.static_pod_path.as_deref(),
        Some(Path::new("/etc/manifests"))
    );
    assert_eq!(
        settings.root_dir,
        Some(directory.path().canonicalize().unwrap().join("kubelet"))
    );
    assert_eq!(settings.kubeconfig.as_deref(), Some(Path::new("/etc/kc")));
}

#[test]
fn a_kubelet_reaches_its_server_through_the_proxy_of_its_environment() {
    let kubeconfig = |proxy: &str| {
        format!(
            "current-context: a\ncontexts: [{{name: a, context: {{cluster: c}}}}]\n\
             clusters: [{{name: c, cluster: {{server: \"https://api.example:6443\"{proxy}}}}}]\n"
        )
    };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kubelet.conf");
    let server = |variables: &[(&str, &str)]| {
        let mut process = Command::new("sh")
            .args(["-c", "echo; read line", "kubelet", "--kubeconfig"])
            .arg(&file)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        process.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        let root = HostRoot::new("/");
        let settings = kubelet::settings(&root, process.id());
        drop(process.stdin.take());
        process.wait().unwrap();
        settings.unwrap().server(&root).unwrap().unwrap().proxy
    };
    let proxy = ("HTTPS_PROXY", "http://user:pass@10.0.0.9:3128");
    std::fs::write(&file, kubeconfig("")).unwrap();
    assert_eq!(server(&[]), None);
    assert_eq!(server(&[proxy]).as_deref(), Some(proxy.1));
    assert_eq!(server(&[proxy, ("NO_PROXY", ".example")]), None);
    // that of the kubeconfig goes before
    std::fs::write(&file, kubeconfig(", proxy-url: \"http://own:3128\"")).unwrap();
    let both = server(&[proxy, ("NO_PROXY", "*")]);
    assert_eq!(both.as_deref(), Some("http://own:3128"));
}

#[test]
fn the_settings_of_a_process_that_is_gone_are_an_error() {
    let error = kubelet::settings(&HostRoot::new("/"), u32::MAX).unwrap_err();
    assert!(matches!(error, Error::Configuration(..)));
}

#[tokio::test]
async fn the_server_of_a_kubeconfig_is_the_one_that_answers() {
    let api = ProbeServer::start();
    let directory = tempfile::tempdir().unwrap();
    api.write_kubeconfig(&directory.path().join("kubelet.conf"));
    let server =
        kubelet::server(&HostRoot::new(directory.path()), Path::new("/kubelet.conf")).unwrap();
    assert_eq!(server, api.server());
}

/// A node in memory with its directory; node name `n1`.
struct Node {
    directory: tempfile::TempDir,
    runtime: Runtime,
    kubelet: Kubelet,
}

impl Node {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let runtime = Runtime::start();
        let manifests = directory.path().join("manifests");
        let kubelet = Kubelet::start(directory.path(), &manifests, "n1", runtime.clone());
        Self {
            directory,
            runtime,
            kubelet,
        }
    }

    /// As the supervisor does it: a link to a file elsewhere.
    fn link(&self, uid: &str) {
        let file = self.directory.path().join("active.yaml");
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web, namespace: shop, uid: {uid}, annotations: {{a: b}}}}\n\
             spec: {{containers: [{{name: web, image: i, env: [{{name: COST, value: \"5$$\"}}]}}]}}\n"
        );
        std::fs::write(&file, text).unwrap();
        std::os::unix::fs::symlink(&file, self.kubelet.manifests.join("web.yaml")).unwrap();
    }

    fn unlink(&self) {
        std::fs::remove_file(self.kubelet.manifests.join("web.yaml")).unwrap();
    }

    async fn runs(&self, uid: &str, expected: bool) {
        until(&self.runtime.state, |state| {
            state.is_running(uid) == expected
        })
        .await;
    }

    fn lists(&self, pod: &str) -> bool {
        self.kubelet
            .resources
            .state
            .borrow()
            .pods
            .contains(&name("shop", pod))
    }
}

#[tokio::test]
async fn the_stub_kubelet_runs_a_manifest_under_its_own_uid_and_the_nodes_name() {
    let node = Node::start();
    node.link("uid-twin");
    node.runs("uid-twin", true).await;
    assert!(node.lists("web-n1"));
    let state = node.runtime.state.borrow();
    let sandbox = state.sandboxes.values().next().unwrap();
    assert_eq!(sandbox.pod.name, "web-n1");
    assert_eq!(
        sandbox.pod.annotations["kubernetes.io/config.source"],
        "file"
    );
    assert_eq!(sandbox.pod.annotations["a"], "b");
    assert_eq!(sandbox.pod.containers[0].env, [name("COST", "5$")]);
}

#[tokio::test]
async fn the_stub_kubelet_leaves_a_removed_pod_running_until_it_has_seen_the_api_server() {
    let node = Node::start();
    node.link("uid-twin");
    node.runs("uid-twin", true).await;
    node.unlink();
    node.kubelet.settle().await;
    assert!(!node.lists("web-n1"));
    assert!(node.runtime.state.borrow().is_running("uid-twin"));

    let parent = Pod::new("shop", "web-1", "uid-parent");
    node.kubelet.sync_api(&[parent]);
    node.runs("uid-twin", false).await;
    node.runs("uid-parent", true).await;
    assert!(node.lists("web-1"));
}

#[tokio::test]
async fn the_stub_kubelet_adopts_a_pod_whose_manifest_comes_back() {
    let node = Node::start();
    node.link("uid-twin");
    node.runs("uid-twin", true).await;
    let before: Vec<_> = node
        .runtime
        .state
        .borrow()
        .containers
        .keys()
        .cloned()
        .collect();
    node.kubelet.restart().await;
    node.kubelet.settle().await;
    let after: Vec<_> = node
        .runtime
        .state
        .borrow()
        .containers
        .keys()
        .cloned()
        .collect();
    assert_eq!(before, after);

    node.runtime.change(|state| state.kill("uid-twin"));
    node.runs("uid-twin", true).await;
}

#[tokio::test]
async fn the_stub_kubelet_restarted_without_the_api_server_owns_no_pod_of_it() {
    let node = Node::start();
    node.kubelet
        .sync_api(&[Pod::new("shop", "web-1", "uid-parent")]);
    node.runs("uid-parent", true).await;
    node.kubelet.restart().await;
    node.kubelet.settle().await;
    assert!(!node.lists("web-1"));
    node.runtime.change(|state| state.kill("uid-parent"));
    node.kubelet.settle().await;
    assert!(!node.runtime.state.borrow().is_running("uid-parent"));
}

#[tokio::test]
async fn the_stub_kubelet_skips_a_link_that_dangles_and_does_not_retry_a_rejected_pod() {
    let node = Node::start();
    std::os::unix::fs::symlink("/nowhere", node.kubelet.manifests.join("other.yaml")).unwrap();
    node.kubelet.state.send_modify(|state| state.rejects = true);
    node.link("uid-first");
    node.kubelet.settle().await;
    node.kubelet
        .state
        .send_modify(|state| state.rejects = false);
    node.kubelet.settle().await;
    assert!(!node.lists("web-n1"));
    node.unlink();
    node.link("uid-second");
    node.runs("uid-second", true).await;
}
