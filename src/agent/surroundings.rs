//! What the agent learns of its node before it captures: how the kubelet was started, where the
//! runtime listens, and what the pod network needs.

use std::path::PathBuf;
use std::time::Duration;

use crate::agent::install;
use crate::agent::settings::Settings;
use crate::node::host::HostRoot;
use crate::node::kubelet;
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
    let kubelet_dir = &settings.host().kubelet_dir;
    let found = kubelet::find(&settings.root, kubelet_dir, KUBELET_LIMIT).await;
    let found = found.map(|(_, settings)| settings);
    let is_known = found.is_ok() || before.is_some_and(|before| before.is_known);
    let kubelet = found.unwrap_or_else(|error| {
        problems.push(format!("{}; retrying", chain(&error)));
        before
            .map(|before| before.kubelet.clone())
            .unwrap_or_default()
    });
    let given = settings.arguments.node.cri_endpoint.as_deref();
    let found = runtime::find(&settings.root, given, is_known.then_some(&kubelet));
    let socket = found.unwrap_or_else(|error| {
        problems.push(error.to_string());
        error.expected(&settings.root)
    });
    let runtime = Runtime::new(socket, RUNTIME_LIMIT);
    let network_works_offline = network::works_offline(&settings.root);
    Surroundings {
        runtime,
        kubelet,
        is_known,
        network_works_offline,
        problems,
    }
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
