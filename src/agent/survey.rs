//! What the agent must learn of its node before it captures ([`look`]) and what it keeps in order there ([`keep`]): the
//! record for the supervisor, and the supervisor itself. Done at the start, after a fault with back-off, and now and then.
//!
//! A step that fails is a problem that is shown, and the other steps are done all the same.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use kube::api::Api;
use tokio::time::Instant;

use crate::agent::Settings;
use crate::agent::install::{self, Plan};
use crate::agent::leftovers::{self, Idle, Neighbours};
use crate::agent::record::{self, Learned, Stranger};
use crate::agent::risks::{self, Risks};
use crate::client::heard::explain;
use crate::node::host::HostRoot;
use crate::node::kubelet::{self, Kubelet};
use crate::node::network;
use crate::node::runtime::{self, Runtime, Sandbox};
use crate::places::node_record::NodeRecord;
use crate::places::store::Store;
use crate::pod::room;
use crate::text::chain;

/// How long the kubelet may take to say what it owns.
const KUBELET_LIMIT: Duration = Duration::from_secs(5);
/// How long a call of the runtime may take.
const RUNTIME_LIMIT: Duration = Duration::from_secs(10);

/// What captures need of the node.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The container runtime.
    pub runtime: Runtime,
    /// How the kubelet was started; what an earlier look found if this one could not.
    pub kubelet: kubelet::Settings,
    /// The kubelet told how it was started, in this look or an earlier one.
    pub is_known: bool,
    /// The network plugin needs neither the API server nor a pod to set up the network of others.
    pub network_works_offline: bool,
    /// What could not be learned, with what to do about it.
    pub problems: Vec<String>,
}

/// Asks the kubelet how it was started and finds the runtime.
pub async fn look(settings: &Settings, before: Option<&Surroundings>) -> Surroundings {
    let mut problems = Vec::new();
    let found = ask_kubelet(&settings.root, &settings.host().kubelet_dir).await;
    let is_known = found.is_ok() || before.is_some_and(|before| before.is_known);
    let kubelet = found.unwrap_or_else(|error| {
        problems.push(format!("{}; it is asked again", chain(&error)));
        before.map(|before| before.kubelet.clone()).unwrap_or_default()
    });
    let runtime = match find_runtime(&settings.root, settings.arguments.node.cri_endpoint.as_deref()) {
        Ok(socket) => Runtime::new(socket, RUNTIME_LIMIT),
        Err((socket, problem)) => {
            problems.push(problem);
            Runtime::new(socket, RUNTIME_LIMIT)
        }
    };
    let network_works_offline = network::works_offline(&settings.root);
    Surroundings { runtime, kubelet, is_known, network_works_offline, problems }
}

/// How the kubelet that runs was started.
pub async fn ask_kubelet(root: &HostRoot, kubelet_dir: &Path) -> Result<kubelet::Settings, kubelet::Error> {
    let host_path = kubelet_dir.join("pod-resources/kubelet.sock");
    let down = |error| kubelet::Error::Down(host_path.clone(), error);
    let socket = root.resolve(&host_path).map_err(down)?;
    let owned = Kubelet::new(socket, KUBELET_LIMIT).owned().await?;
    kubelet::settings(root, owned.pid)
}

/// The runtime's socket, its real path; else the one that is tried all the same, and what is wrong.
pub fn find_runtime(root: &HostRoot, cri_endpoint: Option<&Path>) -> Result<PathBuf, (PathBuf, String)> {
    let real = |path: &Path| root.resolve(path).unwrap_or_else(|_| path.to_owned());
    if let Some(given) = cri_endpoint {
        return Ok(real(given));
    }
    let mut sockets = runtime::SOCKETS.map(|path| real(Path::new(path))).into_iter();
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

/// Where the supervisor's manifest stands, or why there is none, and what else is not in order.
#[derive(Debug, Default)]
pub struct Kept {
    /// Why no supervisor is installed.
    pub absent: Option<String>,
    /// What could not be done, with what to do about it.
    pub problems: Vec<String>,
    /// For the next time.
    pub memory: Memory,
    /// The node's UID is another than before, or known for the first time: checkpoints name it.
    pub is_another: bool,
}

/// What one look at the node leaves for the next.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    stranger: Stranger,
    idle: Idle,
    /// What would keep the node's pods from coming back.
    pub risks: Risks,
}

impl Memory {
    /// Somebody may need what bootkube's checkpointer left.
    pub fn is_needed(&mut self) {
        self.idle = Idle::default();
    }
}

/// Records what the supervisor must know, installs it, and clears away what an older checkpointer left.
pub async fn keep(
    settings: &Settings,
    surroundings: &Surroundings,
    client: &Client,
    store: &Store,
    neighbours: Neighbours,
    memory: Memory,
) -> Kept {
    let mut kept = Kept { memory, ..Kept::default() };
    record_node(settings, surroundings, client, store, &mut kept).await;
    if let Some(found) = leftovers::find(&settings.root, manifest_dir(settings, surroundings).ok().as_deref()) {
        let sandboxes = surroundings.runtime.sandboxes().await.ok();
        let runs = |sandbox: &Sandbox| sandbox.ready && sandbox.annotations.contains_key(leftovers::COPY);
        let copy_runs = sandboxes.map(|all| all.iter().any(runs));
        let neighbours = Neighbours { copy_runs, ..neighbours };
        let idle = &mut kept.memory.idle;
        kept.problems.extend(leftovers::tidy(&settings.root, &found, &neighbours, idle, Instant::now()));
    }
    match supervise(settings, surroundings, client).await {
        Ok(absent) => kept.absent = absent,
        Err(problem) => {
            let problem = format!("the supervisor is not installed: {problem}");
            kept.absent = Some(problem.clone());
            kept.problems.push(problem);
        }
    }
    kept.memory.risks = risks::of_node(settings, surroundings, store, &kept.memory.risks).await;
    kept
}

async fn record_node(
    settings: &Settings,
    surroundings: &Surroundings,
    client: &Client,
    store: &Store,
    kept: &mut Kept,
) {
    let name = &settings.node_name;
    let before = store.node().unwrap_or_else(|error| {
        kept.problems.push(format!("{}; it is written anew", chain(&error)));
        None
    });
    let known = before.as_ref().map(|record| record.node_uid.as_str());
    let mut learned = Learned::default();
    match Api::<Node>::all(client.clone()).get(name).await {
        Ok(node) => {
            learned.uid = node.metadata.uid.map(|seen| {
                let chosen = kept.memory.stranger.choose(known, &seen, Instant::now());
                if chosen != seen {
                    kept.problems.push(format!(
                        "node {name} is another object than the one that was recorded (made anew, or a new cluster behind \
                         the same address): nothing of the old one is activated, and no checkpoint is removed until it has \
                         been the same for an hour"
                    ));
                }
                (chosen, seen)
            });
            let quantities = node.status.and_then(|status| status.allocatable).unwrap_or_default();
            let quantities = quantities.into_iter().map(|(name, quantity)| (name, quantity.0)).collect();
            learned.allocatable = room::allocatable(&quantities);
        }
        Err(error) => kept.problems.push(format!("cannot get node {name}: {}", explain(&error))),
    }
    learned.servers = match &surroundings.kubelet.kubeconfig {
        _ if !surroundings.is_known => None,
        // said by hand, and passed on to the supervisor
        None if !settings.arguments.decision.apiservers.is_empty() => None,
        None => {
            kept.problems.push(
                "the kubelet does not say which kubeconfig it uses: give the API server with --apiserver and --apiserver-ca"
                    .into(),
            );
            None
        }
        Some(path) => match kubelet::server(&settings.root, path) {
            Ok(server) => Some(vec![server]),
            Err(error) => {
                kept.problems.push(chain(&error));
                None
            }
        },
    };
    let record = record::make(name, learned, before.clone());
    kept.is_another = before.as_ref().and_then(NodeRecord::current_uid) != record.current_uid();
    match store.put_node(&record) {
        Ok(true) => tracing::info!("recorded the node and its API server for the supervisor"),
        Ok(false) => {}
        Err(error) => kept.problems.push(chain(&error)),
    }
}

/// Installs the supervisor. `Some`: none is wanted, and why.
async fn supervise(
    settings: &Settings,
    surroundings: &Surroundings,
    client: &Client,
) -> Result<Option<String>, String> {
    let image = match &settings.arguments.supervisor_image {
        Some(image) if image.is_empty() => return Ok(Some("--supervisor-image is empty: none is installed".into())),
        Some(image) => image.clone(),
        None => own_image(settings, client).await?,
    };
    let manifest_dir = manifest_dir(settings, surroundings)?;
    let real = settings.root.resolve(&manifest_dir).map_err(|error| format!("{}: {error}", manifest_dir.display()))?;
    if !real.is_dir() {
        return Err(chain(&install::Error::NoDirectory(manifest_dir)));
    }
    let plan = Plan {
        image,
        namespace: settings.arguments.pod_namespace.clone(),
        arguments: settings.arguments.supervisor(manifest_dir.clone()),
        log_format: settings.log_format,
    };
    if install::install(&real, &install::manifest(&plan)).map_err(|error| chain(&error))? {
        tracing::info!(directory = %manifest_dir.display(), image = plan.image, "installed the supervisor");
    }
    Ok(None)
}

/// The kubelet's directory of static pod manifests, a host path.
pub fn manifest_dir(settings: &Settings, surroundings: &Surroundings) -> Result<PathBuf, String> {
    if let Some(given) = &settings.host().manifest_dir {
        return Ok(given.clone());
    }
    if let Some(path) = &surroundings.kubelet.static_pod_path {
        return Ok(path.clone());
    }
    if surroundings.is_known {
        return Err(chain(&install::Error::NoStaticPods));
    }
    // A kubelet that is down now is asked again soon; one that cannot be asked at all has kubeadm's directory, or none.
    let usual = PathBuf::from(kubelet::MANIFEST_DIR);
    let exists = |root: &HostRoot| root.resolve(&usual).is_ok_and(|real| real.is_dir());
    if exists(&settings.root) {
        return Ok(usual);
    }
    Err("the kubelet has not told its static pod directory yet; give --manifest-dir if it never does".into())
}

async fn own_image(settings: &Settings, client: &Client) -> Result<String, String> {
    let Some(name) = settings.arguments.pod_name.as_deref().filter(|name| !name.is_empty()) else {
        return Err("which image? Give --supervisor-image, or POD_NAME and POD_NAMESPACE".into());
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), &settings.arguments.pod_namespace);
    let pod = pods.get(name).await;
    let pod = pod.map_err(|error| {
        format!("cannot get the agent's own pod {}/{name}: {}", settings.arguments.pod_namespace, explain(&error))
    })?;
    let containers = pod.spec.map(|spec| spec.containers).unwrap_or_default();
    let own = containers.iter().find(|container| container.name == "agent").or(containers.first());
    own.and_then(|container| container.image.clone()).filter(|image| !image.is_empty()).ok_or_else(|| {
        format!(
            "the agent's own pod {}/{name} names no image: give --supervisor-image",
            settings.arguments.pod_namespace
        )
    })
}
