//! The part that recovers: observe, decide, act, report, again and again.
//!
//! ```text
//!   probes, kubelet's sockets ──► listen ──┐                 ┌─► perform: links, unpacked files, stops
//!   pod-resources, runtime, store,         ├─► core ─► shell ┤
//!   agent.yaml ──────────────────► look ───┘   (pure)        └─► record: status.yaml, outages.yaml
//! ```
//! [`core`] remembers and decides, without input and output; `shell` is the loop around it; `reach`
//! finds the node's parts.
//!
//! It needs nothing but the node: no API credential, no cluster DNS, no Service address, no wall
//! clock, no volume. A fault of any one of these makes a fact unknown, and unknown changes nothing.
//! Everything it remembers can be rebuilt from the node, so it may be killed at any line.
//!
//! While the API server answers and nothing is active, a pass costs one request on an open
//! connection.

pub mod core;
mod diagnose;
mod error;
mod listen;
mod look;
mod metrics_source;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod model;
pub mod perform;
pub mod preconditions;
mod probes;
mod reach;
pub mod record;
mod shell;
pub mod twin_files;
mod upkeep;

use std::fs::File;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use crate::args::SupervisorArguments;
use crate::checkpoint::keys::KeyFiles;
use crate::files::lock;
use crate::files::write;
use crate::metrics;
use crate::names::SUPERVISOR_LOCK;
use crate::node::clock;
use crate::places::run::RunDir;
use crate::places::store::Store;
pub use crate::supervisor::error::Error;
use crate::supervisor::metrics_source::MetricsSource;
use crate::supervisor::shell::Shell;

/// Runs until `stop`. Linked twins stay linked: the next supervisor continues from the state of the
/// node.
pub async fn run(
    arguments: SupervisorArguments,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let node_name = arguments.node.node_name()?;
    let host = &arguments.node.host;
    let root = host.root().map_err(Error::Host)?;
    let resolve = |path: &Path| {
        root.resolve(path)
            .map_err(|error| Error::Path(path.to_owned(), error))
    };
    let run = RunDir::new(resolve(&host.run_dir)?, &host.run_dir);
    // read at each activation, because the disk with the keys may be mounted later
    let keys = KeyFiles::new(root.clone(), host.key_files.clone());
    let store = Store::new(resolve(&host.state_dir)?).with_keys(keys);
    let boot_id = clock::boot_id().map_err(Error::Host)?;

    write::directory(run.path())?;
    let mut stop = pin!(stop);
    let lock = run.path().join(SUPERVISOR_LOCK);
    let _lock = tokio::select! {
        () = &mut stop => return Ok(()),
        lock = wait_for_lock(&lock) => lock?,
    };
    tracing::info!(node = node_name, root = %root.path().display(), "supervising");
    let source = Rc::new(MetricsSource::default());
    let metrics = metrics::serve(arguments.metrics_address, &*source);
    let supervisor = Shell::new(
        arguments,
        node_name,
        root,
        boot_id,
        store,
        run,
        source.clone(),
    )?;
    // one thread does everything, including the stops in the background
    tokio::task::LocalSet::new()
        .run_until(metrics::beside(Box::pin(supervisor.run(stop)), metrics))
        .await
}

/// How long a supervisor may take to end when its successor starts.
const SUCCESSION: Duration = Duration::from_secs(10);

/// Takes the lock of the supervisor. The previous one may still be ending while its successor
/// starts: only one runs at a time, and the gap between them is short.
async fn wait_for_lock(path: &Path) -> Result<File, Error> {
    let begun = tokio::time::Instant::now();
    loop {
        match lock::lock(path) {
            Err(lock::Error::Held(_)) if begun.elapsed() < SUCCESSION => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            lock => return Ok(lock?),
        }
    }
}
