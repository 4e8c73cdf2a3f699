//! The agent: captures the marked pods of its node while all is well, so that the supervisor can bring them back when
//! nothing is.
//!
//! ```text
//!   watch ─────┐                       ┌─► capture ─► store
//!   swaps ─────┼─► index (pure) ───────┼─► ask, remove
//!   results ───┘         │             └─► …whose results come back
//!                        ├─► agent.yaml (for the supervisor and the command line)
//!                        └─► report (pure) ─► PodCheckpoints, Events
//! ```
//! One loop owns all of it. Work runs beside it and comes back with its result; nothing is spawned that nobody waits
//! for. The API server's silence stops captures of what it does not tell, and removes nothing.

mod board;
mod echo;
mod hub;
pub mod index;
pub mod install;
pub mod leftovers;
pub mod marks;
pub mod network;
pub mod record;
pub mod report;
mod retire;
pub mod risks;
pub mod survey;
pub mod swap;
pub mod watch;
mod work;

use std::fs::File;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use kube::Client;
use kube::core::Selector;

use crate::agent::board::Board;
use crate::agent::hub::Agent;
use crate::args::{AgentArguments, DecisionArguments, Invalid, LogFormat};
use crate::checkpoint::keys::KeyFiles;
use crate::client::heard;
use crate::client::{kube_client, kube_config};
use crate::files::lock;
use crate::metrics;
use crate::metrics::address::Address;
use crate::names::{AGENT_LOCK, SUPERVISOR_LOCK};
use crate::node::host::HostRoot;
use crate::places::run::RunDir;
use crate::places::store::{self, Store};
use crate::text::chain;

/// How long a lock that is held is left alone before it is tried again.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Why the agent cannot start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Settings that mean nothing.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The host's files cannot be reached.
    #[error("cannot reach the host's files")]
    Host(#[source] io::Error),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// How to reach the API server is not known.
    #[error("cannot tell how to reach the API server")]
    Credentials(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A client of the API server cannot be made.
    #[error("cannot make a client of the API server")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Changes of files cannot be followed.
    #[error("cannot follow changes of files (inotify)")]
    Follow(#[source] io::Error),
    /// What must go on for ever has ended.
    #[error("the watch of pods ended")]
    Ended,
}

/// Settings of the agent, validated. Paths are host paths.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The host's files.
    pub root: HostRoot,
    /// This node.
    pub node_name: String,
    /// Directory of the checkpoints.
    pub state_dir: PathBuf,
    /// Memory-backed directory of what is in force.
    pub run_dir: PathBuf,
    /// The kubelet's root directory.
    pub kubelet_dir: PathBuf,
    /// The kubelet's directory of static pod manifests, if given.
    pub manifest_dir: Option<PathBuf>,
    /// Socket of the container runtime, if given.
    pub cri_endpoint: Option<PathBuf>,
    /// Keys of the checkpoints, host paths: the first seals, all open.
    pub key_files: Vec<PathBuf>,
    /// Passed on to the supervisor.
    pub decision: DecisionArguments,
    /// Passed on to the supervisor.
    pub log_format: LogFormat,
    /// Image of the supervisor, if given; empty: none is installed.
    pub supervisor_image: Option<String>,
    /// Namespaces that we look after; none: all.
    pub namespaces: Vec<String>,
    /// Marks every pod of the namespaces that match.
    pub namespace_selector: Option<Selector>,
    /// Marks the pods that match any of these.
    pub select: Vec<Selector>,
    /// Age at which a checkpoint is not activated any more, where the pod does not say.
    pub max_age: Option<Duration>,
    /// The longest outage that is planned for.
    pub planned_outage: Duration,
    /// How long a checkpoint outlives its deleted parent when no successor was captured.
    pub retention: Duration,
    /// Where metrics and health are served.
    pub metrics_address: Address,
    /// Nothing is captured any more, and the node is left.
    pub retire: bool,
    /// Name of the agent's own pod.
    pub pod_name: Option<String>,
    /// Namespace of the agent's own pod.
    pub pod_namespace: String,
}

impl Settings {
    /// From flags and environment.
    pub fn new(arguments: AgentArguments, log_format: LogFormat) -> Result<Self, Error> {
        let AgentArguments {
            node,
            decision,
            kubeconfig: _,
            supervisor_image,
            namespaces,
            namespace_selector,
            select,
            max_age,
            planned_outage,
            retention,
            metrics_address,
            retire,
            pod_name,
            pod_namespace,
        } = arguments;
        let node_name = node.node_name()?;
        let root = node.host.root();
        Ok(Self {
            root: root.map_err(Error::Host)?,
            node_name,
            state_dir: node.host.state_dir,
            run_dir: node.host.run_dir,
            kubelet_dir: node.host.kubelet_dir,
            manifest_dir: node.host.manifest_dir,
            key_files: node.host.key_files,
            cri_endpoint: node.cri_endpoint,
            decision,
            log_format,
            supervisor_image,
            namespaces: namespaces.into_iter().filter(|name| !name.is_empty()).collect(),
            namespace_selector,
            select,
            max_age,
            planned_outage,
            retention,
            metrics_address,
            retire,
            pod_name,
            pod_namespace,
        })
    }
}

/// Runs with these flags until `stop`.
pub async fn start(
    arguments: AgentArguments,
    log_format: LogFormat,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let config = kube_config(arguments.kubeconfig.as_deref()).await;
    let config = config.map_err(|error| Error::Credentials(error.into()))?;
    let settings = Settings::new(arguments, log_format)?;
    let client = |read_timeout| {
        let mut config = config.clone();
        config.read_timeout = read_timeout;
        kube_client(config, settings.root.clone()).map_err(|error| Error::Client(error.into()))
    };
    let (client, patient) = (client(None)?, client(Some(echo::SILENCE))?);
    run(settings, client, patient, stop).await
}

/// Runs with this client until `stop`. The `patient` one lets the server be silent for minutes, for the one watch that needs
/// no quick word.
pub async fn run(
    settings: Settings,
    client: Client,
    patient: Client,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    if settings.retire {
        return Box::pin(retire::run(settings, client, stop)).await;
    }
    let resolve = |path: &PathBuf| settings.root.resolve(path).map_err(Error::Host);
    let keys = KeyFiles::new(settings.root.clone(), settings.key_files.clone());
    let store = Store::new(resolve(&settings.state_dir)?).with_keys(keys);
    store.create()?;
    let _lock = take_lock(&store).await?;
    if let Err(error) = store.clean() {
        tracing::warn!("leftovers of a crash stay: {}", chain(&error));
    }
    let run = RunDir::new(resolve(&settings.run_dir)?, &settings.run_dir);
    let (client, heard) = heard::listen(client);
    tracing::info!(node = settings.node_name, root = %settings.root.path().display(), "watching");
    let board = Rc::new(Board::new(run.path().join(SUPERVISOR_LOCK)));
    let metrics = metrics::serve(settings.metrics_address, &*board);
    let echoes = echo::checkpoints(patient, &settings.node_name);
    let agent = Agent::new(settings, client, heard, store, run, board.clone())?;
    metrics::beside(Box::pin(agent.run(echoes, stop)), metrics).await
}

/// Takes the agent's lock. `status` holds it for a moment when it looks whether somebody does, so a lock that is held is
/// tried for a moment more.
async fn take_lock(store: &Store) -> Result<File, store::Error> {
    for _ in 0..10 {
        match store.lock(AGENT_LOCK) {
            Err(store::Error::Lock(lock::Error::Held(_))) => tokio::time::sleep(LOCK_PAUSE).await,
            result => return result,
        }
    }
    store.lock(AGENT_LOCK)
}
