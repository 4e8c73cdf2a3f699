//! From a `PodCheckpointer` to everything that it asks for.
//!
//! ```text
//!   Lease ───► lease (pure) ──► who leads; the leader is dropped when the Lease is lost
//!   watches ─► lead ──┬───────► objects (pure) ─► apply ─► the objects of the installation
//!                     ├───────► removal (pure) ─► agents that leave their nodes, then deletions
//!                     └───────► status (pure) ──► what `kubectl get podcheckpointer` shows
//! ```
//! Nothing that recovers a node depends on it: without an operator, agents and supervisors go on as they are.

mod apply;
mod board;
pub(crate) mod installation;
pub mod kinds;
mod lead;
mod lease;
pub(crate) mod objects;
mod removal;
pub(crate) mod settings;
mod status;

use std::convert::Infallible;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use kube::Client;

use crate::agent::heard;
use crate::args::OperatorArguments;
use crate::metrics::{self, address::Address};
use crate::node::api::{kube_client, kube_config};
use crate::node::host::HostRoot;
use crate::operator::board::Board;
use crate::operator::lead::Leader;
use crate::operator::lease::Contender;

/// Longest silence on a connection: a watch asks the server to end it after four minutes, so a longer one is dead.
const READ_LIMIT: Duration = Duration::from_mins(5);

/// Why the operator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// How to reach the API server is not known.
    #[error("cannot tell how to reach the API server")]
    Credentials(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A client of the API server cannot be made.
    #[error("cannot make a client of the API server")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Settings of the operator, validated.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Image of agent and supervisor, where the PodCheckpointer names none; none: that of the operator's own container.
    pub image: Option<String>,
    /// Where metrics and health are served.
    pub metrics_address: Address,
    /// Name of the operator's own pod.
    pub pod_name: Option<String>,
    /// Namespace of the operator's own pod, and of its Lease.
    pub pod_namespace: String,
}

/// Runs with these flags until `stop`.
pub async fn start(arguments: OperatorArguments, stop: impl Future<Output = ()>) -> Result<(), Error> {
    let OperatorArguments { kubeconfig, image, metrics_address, pod_name, pod_namespace } = arguments;
    let config = kube_config(kubeconfig.as_deref()).await;
    let mut config = config.map_err(|error| Error::Credentials(error.into()))?;
    config.read_timeout = Some(READ_LIMIT);
    let client = kube_client(config, HostRoot::new("/")).map_err(|error| Error::Client(error.into()))?;
    let image = image.filter(|image| !image.is_empty());
    let settings = Settings { image, metrics_address, pod_name, pod_namespace };
    run(settings, client, stop).await;
    Ok(())
}

/// Runs with this client until `stop`; then the Lease is given back.
pub async fn run(settings: Settings, client: Client, stop: impl Future<Output = ()>) {
    // the head of every answer comes within a limit
    let (client, _) = heard::listen(client);
    let (settings, board) = (Rc::new(settings), Rc::new(Board::default()));
    let name = settings.pod_name.clone().unwrap_or_else(|| "operator".into());
    let mut contender = Contender::new(client.clone(), &settings.pod_namespace, &name);
    let metrics = metrics::serve(settings.metrics_address, &*board);
    let work = async {
        tokio::select! {
            biased;
            () = stop => {}
            never = contend(&mut contender, &settings, &client, &board) => match never {},
        }
        contender.give_back().await;
    };
    metrics::beside(work, metrics).await;
}

/// Acts while the Lease is ours, and contends for it while it is not.
async fn contend(contender: &mut Contender, settings: &Rc<Settings>, client: &Client, board: &Rc<Board>) -> Infallible {
    loop {
        contender.acquire(|| board.hears()).await;
        let leader = Leader::new(settings.clone(), client.clone(), board.clone());
        tokio::select! {
            // whatever is due at the same moment: who does not lead does nothing
            biased;
            () = contender.keep() => {}
            never = Box::pin(leader.run()) => match never {},
        }
        board.stops();
    }
}
