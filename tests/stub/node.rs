//! A whole node below one directory in memory: kubelet, runtime, its API server, and agent and
//! supervisor, which run in this process and are stopped and killed as a test needs it.
//!
//! Host paths are real paths here, so a link in the manifest directory also works for the operating
//! system.

use std::fmt::Display;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pod_checkpointer::args::{
    DecisionArguments, HostArguments, NodeArguments, SupervisorArguments,
};
use pod_checkpointer::metrics::address::Address;
use pod_checkpointer::places::reports::{PodReport, STATUS, Status};
use pod_checkpointer::places::run::RunDir;
use pod_checkpointer::places::store::Store;
use pod_checkpointer::{agent, supervisor};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::api::Api;
use super::{Kubelet, PATIENCE, ProbeServer, Runtime, id};

pub const NAME: &str = "node-1";
/// The image that is on the node.
pub const IMAGE: &str = "registry.example/till:v1";

pub struct Node {
    directory: tempfile::TempDir,
    /// The objects of its API server.
    pub api: Api,
    /// The same server as it answers probes, or does not.
    pub server: ProbeServer,
    pub runtime: Runtime,
    pub kubelet: Kubelet,
}

impl Node {
    /// A node that has just booted, with an API server that answers.
    pub fn start() -> Self {
        Self::start_in(memory())
    }

    /// The same below this directory.
    pub fn start_in(directory: tempfile::TempDir) -> Self {
        let path = |below: &str| directory.path().join(below);
        let runtime = Runtime::start_at(path("run/containerd/containerd.sock"));
        runtime.change(|state| {
            state
                .images
                .insert(IMAGE.into(), "sha256:0123456789abcdef".into())
        });
        let api = Api::new(NAME, "node-uid-1");
        let server = ProbeServer::before(api.clone());
        std::fs::write(path("ca.crt"), server.server().ca).unwrap();
        let kubelet = Kubelet::start(
            &path("var/lib/kubelet"),
            &path("etc/kubernetes/manifests"),
            NAME,
            runtime.clone(),
        );
        Self {
            directory,
            api,
            server,
            runtime,
            kubelet,
        }
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    /// Flags for all paths; hosts differ, so nothing is detected.
    pub fn host(&self) -> HostArguments {
        HostArguments {
            state_dir: self.path("var/lib/pod-checkpointer"),
            run_dir: self.path("run/pod-checkpointer"),
            host_root: Some("/".into()),
            manifest_dir: Some(self.kubelet.manifests.clone()),
            key_files: Vec::new(),
            kubelet_dir: self.path("var/lib/kubelet"),
        }
    }

    /// Flags of a supervisor with short delays. It does not close the kubelet's sockets, because
    /// they belong to this process.
    pub fn arguments(&self) -> SupervisorArguments {
        SupervisorArguments {
            node: NodeArguments {
                host: self.host(),
                node_name: Some(NAME.into()),
                cri_endpoint: Some(self.runtime.socket().to_owned()),
            },
            decision: DecisionArguments {
                activation_delay: Duration::from_millis(150),
                probe_interval: Duration::from_millis(50),
                probe_timeout: Duration::from_millis(500),
                unstick_kubelet: false,
                activate_locked_out: None,
                early_namespaces: vec!["shop".into()],
                apiservers: vec![self.server.server().url],
                apiserver_ca: Some(self.path("ca.crt")),
            },
            metrics_address: Address::Off,
        }
    }

    pub fn store(&self) -> Store {
        Store::new(self.host().state_dir)
    }

    pub fn run_dir(&self) -> RunDir {
        let path = self.host().run_dir;
        RunDir::new(path.clone(), path)
    }

    /// Path of the link of a pod's twin.
    pub fn link(&self, key: &str) -> PathBuf {
        self.kubelet
            .manifests
            .join(format!("pod-checkpointer_{key}.yaml"))
    }

    /// Whether the supervisor's link exists.
    pub fn is_linked(&self, key: &str) -> bool {
        std::fs::read_link(self.link(key))
            .is_ok_and(|target| target == self.run_dir().link_target(&id(key)))
    }

    /// The supervisor's report.
    pub fn status(&self) -> Status {
        self.run_dir().read(STATUS).unwrap().unwrap_or_default()
    }

    /// The supervisor's report on one pod.
    pub fn report(&self, key: &str) -> PodReport {
        let key = id(key);
        let of_key = |pod: &PodReport| key.is(&pod.namespace, &pod.name);
        self.status()
            .pods
            .into_iter()
            .find(of_key)
            .unwrap_or_default()
    }

    /// The power fails: nothing runs any more, and what was in memory is gone. The disk stays,
    /// including the store and the manifest directory with its links.
    pub async fn cut_power(&self) {
        self.kubelet.stop().await;
        self.runtime.change(super::runtime::State::reboot);
        for memory in [self.host().run_dir, self.path("var/lib/kubelet/pods")] {
            let _ = std::fs::remove_dir_all(memory);
        }
    }
}

/// A temporary directory in memory.
pub fn memory() -> tempfile::TempDir {
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let places = [Some(PathBuf::from("/dev/shm")), own];
    let directory = places.iter().flatten().find_map(|place| {
        let directory = tempfile::tempdir_in(place).ok()?;
        let run = directory.path().join("probe");
        RunDir::new(&run, &run).open("probe").ok()?;
        std::fs::remove_dir_all(run).ok()?;
        Some(directory)
    });
    directory.expect(
        "neither /dev/shm nor $XDG_RUNTIME_DIR is a directory in memory that we may write to",
    )
}

/// Every file and link below a directory, relative to it and sorted.
pub fn listing(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(inner) = pending.pop() {
        for entry in std::fs::read_dir(inner).into_iter().flatten().flatten() {
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(directory).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// Agent or supervisor, running in this thread's [`tokio::task::LocalSet`].
pub struct Part {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), String>>,
}

impl Part {
    pub fn supervisor(arguments: SupervisorArguments) -> Self {
        Self::spawn(|stop| supervisor::run(arguments, stop))
    }

    pub fn agent(settings: agent::Settings, client: kube::Client) -> Self {
        Self::spawn(|stop| agent::run(settings, client.clone(), client, stop))
    }

    fn spawn<F, E>(part: impl FnOnce(Stop) -> F) -> Self
    where
        F: Future<Output = Result<(), E>> + 'static,
        E: Display + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let part = part(Box::pin(async {
            let _ = stopped.await;
        }));
        let task =
            tokio::task::spawn_local(async move { part.await.map_err(|error| error.to_string()) });
        Self { stop, task }
    }

    pub fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Stops it, and waits until it has ended.
    pub async fn end(self) {
        drop(self.stop);
        let ended = tokio::time::timeout(PATIENCE, self.task)
            .await
            .expect("it does not end");
        ended.expect("it panicked").expect("it failed");
    }

    /// Ends it at once, as SIGKILL does, without letting anything finish.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

type Stop = std::pin::Pin<Box<dyn Future<Output = ()>>>;

/// Runs a test with agent and supervisor in one thread.
pub fn story(story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, story);
}
