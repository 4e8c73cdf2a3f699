//! Turns a `PodCheckpointer` into everything that it asks for, and removes it again.
//!
//! ```text
//!   Lease ───► lease (pure) ──► who leads; the leader is dropped when the Lease is lost
//!   watches ─► lead ──┬───────► settings (pure) ─► objects (pure) ─► apply ─► the objects of the installation
//!                     ├───────► removal (pure) ──► agents that leave their nodes, then deletions
//!                     └───────► status (pure) ───► what `kubectl get podcheckpointer` shows
//! ```
//! No recovery depends on it: without an operator, agents and supervisors go on as they are.

mod apply;
mod counts;
mod drift;
pub(crate) mod installation;
pub mod kinds;
mod lead;
mod lease;
pub(crate) mod objects;
mod process;
mod removal;
pub(crate) mod settings;
mod status;
mod telemetry;
mod watches;
mod work;

use std::convert::Infallible;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use kube::Client;

use crate::args::OperatorArguments;
use crate::client::{heard, kube_client, kube_config};
use crate::metrics;
use crate::node::host::HostRoot;
use crate::operator::lead::Leader;
use crate::operator::lease::Contender;
pub use crate::operator::process::Settings;
use crate::operator::telemetry::Telemetry;

/// Longest silence on a connection. A watch asks the server to end it after four minutes, so one
/// that is silent longer is dead.
const READ_LIMIT: Duration = Duration::from_mins(5);

/// Why the operator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is neither a usable kubeconfig nor a ServiceAccount of a pod.
    #[error("cannot tell how to reach the API server")]
    Credentials(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A client of the API server cannot be created.
    #[error("cannot create a client of the API server")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Runs the operator with these flags until `stop` resolves.
pub async fn start(
    arguments: OperatorArguments,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let OperatorArguments {
        kubeconfig,
        image,
        metrics_address,
        pod_name,
        pod_namespace,
    } = arguments;
    let config = kube_config(kubeconfig.as_deref()).await;
    let mut config = config.map_err(|error| Error::Credentials(error.into()))?;
    config.read_timeout = Some(READ_LIMIT);
    let client =
        kube_client(config, HostRoot::new("/")).map_err(|error| Error::Client(error.into()))?;
    let image = image.filter(|image| !image.is_empty());
    let settings = Settings {
        image,
        metrics_address,
        pod_name,
        pod_namespace,
    };
    run(settings, client, stop).await;
    Ok(())
}

/// Runs the operator with this client until `stop` resolves, and then gives the Lease back.
pub async fn run(settings: Settings, client: Client, stop: impl Future<Output = ()>) {
    // limits how long each answer may take to begin
    let (client, _) = heard::listen(client);
    let (settings, telemetry) = (Rc::new(settings), Rc::new(Telemetry::default()));
    let name = settings
        .pod_name
        .clone()
        .unwrap_or_else(|| "operator".into());
    let mut contender = Contender::new(client.clone(), &settings.pod_namespace, &name);
    let metrics = metrics::serve(settings.metrics_address, &*telemetry);
    let work = async {
        tokio::select! {
            biased;
            () = stop => {}
            never = contend(&mut contender, &settings, &client, &telemetry) => match never {},
        }
        contender.give_back().await;
    };
    metrics::beside(work, metrics).await;
}

/// Contends for the Lease, and leads while this operator holds it.
async fn contend(
    contender: &mut Contender,
    settings: &Rc<Settings>,
    client: &Client,
    telemetry: &Rc<Telemetry>,
) -> Infallible {
    loop {
        contender.acquire(|| telemetry.lease_is_known()).await;
        let leader = Leader::new(settings.clone(), client.clone(), telemetry.clone());
        tokio::select! {
            // the loss of the Lease comes before anything else that is due at the same moment
            biased;
            () = contender.keep() => {}
            never = Box::pin(leader.run()) => match never {},
        }
        telemetry.leads_no_more();
    }
}
