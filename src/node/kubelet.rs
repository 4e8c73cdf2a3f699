//! The kubelet: which pods it owns (pod-resources socket, which needs no API server), and how it was started.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::node::host::HostRoot;

/// What the kubelet process that answered manages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    /// Process id of the kubelet (peer of the socket).
    pub pid: u32,
    /// Namespace and name of every pod it owns; a static pod's name ends in `-<node name>`.
    pub pods: BTreeSet<(String, String)>,
}

/// Why the kubelet could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket, or nobody listens on it: no kubelet runs.
    #[error("no kubelet listens at {}", .0.display())]
    Down(PathBuf, #[source] std::io::Error),
    /// It is there but did not answer.
    #[error("the kubelet did not answer at {}", .0.display())]
    Silent(PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// Its configuration could not be read.
    #[error("cannot read the kubelet's configuration {}", .0.display())]
    Configuration(PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// Its kubeconfig does not name an API server.
    #[error("the kubelet's kubeconfig {} names no server", .0.display())]
    NoServer(PathBuf),
}

/// A client of the pod-resources socket (k8s.io/kubelet, pkg/apis/podresources/v1).
#[derive(Clone, Debug)]
pub struct Kubelet {
    socket: PathBuf,
    limit: Duration,
}

impl Kubelet {
    /// A client of this socket (`<kubelet dir>/pod-resources/kubelet.sock`), each call within this limit.
    pub fn new(socket: PathBuf, limit: Duration) -> Self {
        Self { socket, limit }
    }

    /// The pods that this kubelet process owns.
    pub async fn owned(&self) -> Result<Owned, Error> {
        todo!("node helper {:?} {:?}", self.socket, self.limit)
    }
}

/// How a kubelet was started: its flags over its configuration files over the defaults (cmd/kubelet/app/server.go).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `--root-dir`.
    pub root_dir: Option<PathBuf>,
    /// `staticPodPath`.
    pub static_pod_path: Option<PathBuf>,
    /// `containerRuntimeEndpoint`, as given.
    pub runtime_endpoint: Option<String>,
    /// `--kubeconfig`.
    pub kubeconfig: Option<PathBuf>,
    /// `imagePullCredentialsVerificationPolicy`.
    pub pull_verification: Option<String>,
    /// `preloadedImagesVerificationAllowlist`.
    pub pull_allowlist: Vec<String>,
}

/// Reads how the kubelet with this process id was started.
pub fn settings(_root: &HostRoot, _pid: u32) -> Result<Settings, Error> {
    todo!("node helper")
}

/// An API server as a kubeconfig names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// For example `https://10.0.0.1:6443`.
    pub url: String,
    /// `certificate-authority(-data)`, PEM.
    pub ca: String,
    /// `tls-server-name`.
    pub tls_name: Option<String>,
    /// `proxy-url`.
    pub proxy: Option<String>,
}

/// The server of the current context of a kubeconfig (a host path).
pub fn server(_root: &HostRoot, _kubeconfig: &std::path::Path) -> Result<Server, Error> {
    todo!("node helper")
}
