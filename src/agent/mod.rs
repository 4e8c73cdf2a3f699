//! The agent: captures the marked pods of its node while all is well, so that the supervisor can
//! bring them back when it is not.
//!
//! ```text
//!   watch ─────┐                       ┌─► capture ─► store
//!   swaps ─────┼─► index (pure) ───────┼─► ask, remove
//!   results ───┘         │             └─► …whose results come back
//!                        ├─► agent.yaml (for the supervisor and the command line)
//!                        └─► ledger (pure) ─► PodCheckpoints, Events
//! ```
//! One loop owns all of it. Work runs concurrently; the loop waits for every result. While the API
//! server is silent, no checkpoint is removed, and only pods that it reported before are captured.

mod captures;
mod census;
mod error;
mod event_loop;
mod index;
pub(crate) mod install;
mod leftovers;
mod marks;
mod network;
mod observed;
mod outcome;
mod published;
mod record;
mod retire;
mod risks;
mod settings;
mod supervision;
pub(crate) mod surroundings;
mod swap;
mod telemetry;
mod upkeep;
mod watch;

use std::fs::File;
use std::future::Future;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use kube::Client;

pub use crate::agent::error::Error;
use crate::agent::event_loop::Agent;
use crate::agent::published::echo;
pub use crate::agent::settings::Settings;
use crate::agent::telemetry::Telemetry;
use crate::args::{AgentArguments, LogFormat};
use crate::checkpoint::keys::KeyFiles;
use crate::client::heard;
use crate::client::{kube_client, kube_config};
use crate::files::lock;
use crate::metrics;
use crate::names::{AGENT_LOCK, SUPERVISOR_LOCK};
use crate::places::run::RunDir;
use crate::places::store::{self, Store};
use crate::text::chain;

/// Pause before a lock that is held is tried again.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

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

/// Runs with this client until `stop`. The `patient` client lets the server be silent for minutes,
/// for the watch of PodCheckpoints.
pub async fn run(
    settings: Settings,
    client: Client,
    patient: Client,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    if settings.arguments.retire {
        return Box::pin(retire::run(settings, client, stop)).await;
    }
    let resolve = |path: &PathBuf| settings.root.resolve(path).map_err(Error::Host);
    let keys = KeyFiles::new(settings.root.clone(), settings.host().key_files.clone());
    let store = Store::new(resolve(&settings.host().state_dir)?).with_keys(keys);
    store.create()?;
    let _lock = take_lock(&store).await?;
    if let Err(error) = store.clean() {
        tracing::warn!("cannot remove leftovers of a crash: {}", chain(&error));
    }
    let run = RunDir::new(resolve(&settings.host().run_dir)?, &settings.host().run_dir);
    let (client, heard) = heard::listen(client);
    tracing::info!(node = settings.node_name, root = %settings.root.path().display(), "watching");
    let telemetry = Rc::new(Telemetry::new(run.path().join(SUPERVISOR_LOCK)));
    let metrics = metrics::serve(settings.arguments.metrics_address, &*telemetry);
    let echoes = echo::checkpoints(patient, &settings.node_name);
    let agent = Agent::new(settings, client, heard, store, run, telemetry.clone())?;
    metrics::beside(Box::pin(agent.run(echoes, stop)), metrics).await
}

/// Takes the agent's lock. `status` holds it for a moment to see whether it is held, so a few
/// attempts are made.
async fn take_lock(store: &Store) -> Result<File, store::Error> {
    for _ in 0..10 {
        match store.lock(AGENT_LOCK) {
            Err(store::Error::Lock(lock::Error::Held(_))) => tokio::time::sleep(LOCK_PAUSE).await,
            result => return result,
        }
    }
    store.lock(AGENT_LOCK)
}
