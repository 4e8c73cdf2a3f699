//! What the agent learns of its node before it captures: how the kubelet was started, where the
//! runtime listens, and what the pod network needs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::agent::install;
use crate::agent::settings::Settings;
use crate::node::host::HostRoot;
use crate::node::kubelet::{self, Kubelet};
use crate::node::network;
use crate::node::runtime::{self, Runtime};
use crate::text::chain;

/// How long the kubelet may take to answer.
const KUBELET_LIMIT: Duration = Duration::from_secs(5);
/// How long a call of the runtime may take.
const RUNTIME_LIMIT: Duration = Duration::from_secs(10);

/// What captures need of the node.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    /// The container runtime.
    pub runtime: Runtime,
    /// How the kubelet was started, according to this look or else an earlier one.
    pub kubelet: kubelet::Settings,
    /// It is known how the kubelet was started, from this look or an earlier one.
    pub is_known: bool,
    /// The network plugin needs neither the API server nor a pod to set up the network of others.
    pub network_works_offline: bool,
    /// What could not be learned, with what to do about it.
    pub problems: Vec<String>,
}

/// Asks the kubelet how it was started and finds the runtime.
pub(crate) async fn look(settings: &Settings, before: Option<&Surroundings>) -> Surroundings {
    let mut problems = Vec::new();
    let found = ask_kubelet(&settings.root, &settings.host().kubelet_dir).await;
    let is_known = found.is_ok() || before.is_some_and(|before| before.is_known);
    let kubelet = found.unwrap_or_else(|error| {
        problems.push(format!("{}; retrying", chain(&error)));
        before
            .map(|before| before.kubelet.clone())
            .unwrap_or_default()
    });
    let runtime = match find_runtime(
        &settings.root,
        settings.arguments.node.cri_endpoint.as_deref(),
    ) {
        Ok(socket) => Runtime::new(socket, RUNTIME_LIMIT),
        Err((socket, problem)) => {
            problems.push(problem);
            Runtime::new(socket, RUNTIME_LIMIT)
        }
    };
    let network_works_offline = network::works_offline(&settings.root);
    Surroundings {
        runtime,
        kubelet,
        is_known,
        network_works_offline,
        problems,
    }
}

/// How the running kubelet was started.
pub(crate) async fn ask_kubelet(
    root: &HostRoot,
    kubelet_dir: &Path,
) -> Result<kubelet::Settings, kubelet::Error> {
    let host_path = kubelet_dir.join("pod-resources/kubelet.sock");
    let down = |error| kubelet::Error::Down(host_path.clone(), error);
    let socket = root.resolve(&host_path).map_err(down)?;
    let owned = Kubelet::new(socket, KUBELET_LIMIT).owned().await?;
    kubelet::settings(root, owned.pid)
}

/// Real path of the runtime's socket. The error is the path to use nevertheless, and the problem.
pub(crate) fn find_runtime(
    root: &HostRoot,
    cri_endpoint: Option<&Path>,
) -> Result<PathBuf, (PathBuf, String)> {
    let real = |path: &Path| root.resolve(path).unwrap_or_else(|_| path.to_owned());
    if let Some(given) = cri_endpoint {
        return Ok(real(given));
    }
    let mut sockets = runtime::SOCKETS
        .map(|path| real(Path::new(path)))
        .into_iter();
    let first = sockets.next().unwrap_or_default();
    if first.exists() {
        return Ok(first);
    }
    sockets.find(|socket| socket.exists()).ok_or_else(|| {
        (
            first,
            format!(
                "no container runtime listens at {} or {}: give --cri-endpoint",
                runtime::SOCKETS[0],
                runtime::SOCKETS[1]
            ),
        )
    })
}

/// The kubelet's directory of static pod manifests, a host path.
pub(crate) fn manifest_dir(
    settings: &Settings,
    surroundings: &Surroundings,
) -> Result<PathBuf, String> {
    if let Some(given) = &settings.host().manifest_dir {
        return Ok(given.clone());
    }
    if let Some(path) = &surroundings.kubelet.static_pod_path {
        return Ok(path.clone());
    }
    if surroundings.is_known {
        return Err(chain(&install::Error::NoStaticPods));
    }
    // A kubelet that is down now is asked again soon; one that cannot be asked at all has kubeadm's
    // directory, or none.
    let usual = PathBuf::from(kubelet::MANIFEST_DIR);
    let exists = |root: &HostRoot| root.resolve(&usual).is_ok_and(|real| real.is_dir());
    if exists(&settings.root) {
        return Ok(usual);
    }
    Err("the kubelet's static pod directory is not known yet; give --manifest-dir if it stays unknown".into())
}
