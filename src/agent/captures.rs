//! Captures a pod and stores the result, and reads at the start what the store has.

use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use crate::agent::error::Error;
use crate::agent::outcome::{Captured, Stored};
use crate::agent::record;
use crate::agent::settings::Settings;
use crate::agent::surroundings::Surroundings;
use crate::capture::{self, Sources};
use crate::checkpoint::NodeCheckpoint;
use crate::names::STORE_FAILED;
use crate::places::store::{self, Generation, Put, Store};
use crate::pod::id::PodId;
use crate::text::chain;

/// How long one capture may take, all its waits together.
const CAPTURE_LIMIT: Duration = Duration::from_mins(1);

/// The newest generation of every pod in the store. One that cannot be read is logged, and an older
/// one is used. A pod without any readable one is listed nevertheless, so that its files are
/// removed when the pod is proven gone: with the unencrypted part of a sealed file, else by name
/// only,
/// without UID and generation.
pub(crate) fn load(store: &Store) -> Result<Vec<Stored>, Error> {
    let mut all = Vec::new();
    for key in store.keys()? {
        match store.newest(&key) {
            Ok((newest, bad)) => {
                for error in &bad {
                    tracing::warn!("{}", chain(error));
                }
                let header = bad.iter().find_map(store::Error::header);
                let stored = newest.as_ref().map(stored).or_else(|| {
                    header.map(|header| Stored {
                        uid: header.parent.uid.clone(),
                        owner: header.parent.owner.as_ref().map(|owner| owner.uid.clone()),
                        ..Stored::unread(key.clone())
                    })
                });
                all.push(stored.unwrap_or_else(|| Stored::unread(key)));
            }
            Err(error) => tracing::warn!("{}", chain(&error)),
        }
    }
    Ok(all)
}

fn stored(generation: &Generation) -> Stored {
    describe(
        generation.pod.clone(),
        &generation.checkpoint,
        generation.number,
        generation.size,
    )
}

fn describe(pod: PodId, checkpoint: &NodeCheckpoint, generation: u64, size: u64) -> Stored {
    Stored {
        key: pod,
        uid: checkpoint.parent.uid.clone(),
        owner: checkpoint
            .parent
            .owner
            .as_ref()
            .map(|owner| owner.uid.clone()),
        generation,
        digest: checkpoint.digest.clone(),
        size,
        captured: checkpoint.captured.wall.clone(),
        max_age: checkpoint.policy.max_age_seconds.map(Duration::from_secs),
        warnings: checkpoint.warnings.clone(),
    }
}

/// Captures a pod and stores the checkpoint.
pub(crate) async fn capture(
    settings: &Settings,
    surroundings: &Surroundings,
    store: Store,
    pod: &Value,
) -> Captured {
    let node_uid = record::current_uid(&store);
    let sources = Sources {
        root: &settings.root,
        kubelet_dir: &settings.host().kubelet_dir,
        run_dir: &settings.host().run_dir,
        node_name: &settings.node_name,
        node_uid: node_uid.as_deref(),
        runtime: &surroundings.runtime,
        settings: &surroundings.kubelet,
        planned_outage: settings.arguments.planned_outage,
        early_namespaces: &settings.arguments.decision.early_namespaces,
    };
    let failed = |reason: &'static str, message: String| Captured::Failed { reason, message };
    let checkpoint = match timeout(CAPTURE_LIMIT, capture::capture(pod, &sources)).await {
        Ok(Ok(checkpoint)) => checkpoint,
        Ok(Err(capture::Error::Refused(reasons))) => return Captured::Refused(reasons),
        Ok(Err(error)) => return failed("CaptureFailed", chain(&error)),
        Err(_) => {
            return failed(
                "CaptureFailed",
                format!("not done within {CAPTURE_LIMIT:?}"),
            );
        }
    };
    let checkpoint = with_max_age(checkpoint, settings.arguments.max_age);
    let put = tokio::task::spawn_blocking(move || put(&store, &checkpoint)).await;
    match put {
        Ok(Ok(stored)) => Captured::Stored(stored),
        Ok(Err(error)) => failed(error.reason(), chain(&error)),
        Err(error) => failed(STORE_FAILED, error.to_string()),
    }
}

/// Sets the maximum age of the flags, unless the pod's own annotation sets a smaller one: the flags
/// are the cluster owner's, the annotation is that of whoever may create pods.
fn with_max_age(mut checkpoint: NodeCheckpoint, max_age: Option<Duration>) -> NodeCheckpoint {
    let own = checkpoint.policy.max_age_seconds;
    match max_age.map(|limit| limit.as_secs()) {
        Some(limit) if own.is_none_or(|own| own > limit) => {
            checkpoint.policy.max_age_seconds = Some(limit);
            checkpoint.with_digest()
        }
        _ => checkpoint,
    }
}

fn put(store: &Store, checkpoint: &NodeCheckpoint) -> Result<Stored, store::Error> {
    let pod = checkpoint.pod()?;
    let (Put::Written(number, _) | Put::Unchanged(number)) = store.put(checkpoint)?;
    // read back from the store: the digest covers the time of capture, and depends on the key
    let (newest, _) = store.newest(&pod)?;
    Ok(newest
        .as_ref()
        .map_or_else(|| describe(pod, checkpoint, number, 0), stored))
}
