//! What the agent keeps in order on its node: the record for the supervisor, the supervisor itself,
//! and what an older checkpointer left. Done at the start, again after a fault, and every few
//! minutes.
//!
//! A step that fails is reported as a problem, and the other steps are done anyway.

use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::Api;
use tokio::time::Instant;

use crate::agent::install::{self, Plan};
use crate::agent::leftovers::{self, Idle, Neighbours};
use crate::agent::record::{self, Learned, ReplacedNode};
use crate::agent::risks::{self, Risks};
use crate::agent::settings::Settings;
use crate::agent::surroundings::{Surroundings, manifest_dir};
use crate::client::heard::explain;
use crate::client::own_pod;
use crate::node::runtime::Sandbox;
use crate::places::node_record::NodeRecord;
use crate::places::store::Store;
use crate::pod::room;
use crate::text::chain;

/// Result of a round of upkeep.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Why no supervisor is installed.
    pub absent: Option<String>,
    /// What could not be done, with what to do about it.
    pub problems: Vec<String>,
    /// For the next round.
    pub memory: Memory,
    /// The UID of the node changed, or was learned for the first time: checkpoints name it.
    pub is_another: bool,
}

/// What a round of upkeep leaves for the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    replaced: ReplacedNode,
    idle: Idle,
    /// What would prevent the recovery of the node's pods.
    pub risks: Risks,
}

impl Memory {
    /// What bootkube's checkpointer left may be needed, so it stays for now.
    pub(crate) fn keep_leftovers(&mut self) {
        self.idle = Idle::default();
    }
}

/// Records what the supervisor must know, installs it, and clears away what an older checkpointer
/// left.
pub(crate) async fn keep(
    settings: &Settings,
    surroundings: &Surroundings,
    client: &Client,
    store: &Store,
    neighbours: Neighbours,
    memory: Memory,
) -> Findings {
    let mut kept = Findings {
        memory,
        ..Findings::default()
    };
    record_node(settings, surroundings, client, store, &mut kept).await;
    if let Some(found) = leftovers::find(
        &settings.root,
        manifest_dir(settings, surroundings).ok().as_deref(),
    ) {
        let sandboxes = surroundings.runtime.sandboxes().await.ok();
        let runs =
            |sandbox: &Sandbox| sandbox.ready && sandbox.annotations.contains_key(leftovers::COPY);
        let copy_runs = sandboxes.map(|all| all.iter().any(runs));
        let neighbours = Neighbours {
            copy_runs,
            ..neighbours
        };
        let idle = &mut kept.memory.idle;
        kept.problems.extend(leftovers::tidy(
            &settings.root,
            &found,
            &neighbours,
            idle,
            Instant::now(),
        ));
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
    kept: &mut Findings,
) {
    let name = &settings.node_name;
    let before = store.node().unwrap_or_else(|error| {
        kept.problems
            .push(format!("{}; it will be written again", chain(&error)));
        None
    });
    let known = before.as_ref().map(|record| record.node_uid.as_str());
    let mut learned = Learned::default();
    match Api::<Node>::all(client.clone()).get(name).await {
        Ok(node) => {
            learned.uid = node.metadata.uid.map(|seen| {
                let chosen = kept.memory.replaced.choose(known, &seen, Instant::now());
                if chosen != seen {
                    kept.problems.push(format!(
                        "node {name} is another object than the recorded one (it was created again, or a new cluster has \
                         the same address): pods of the old node are not activated, and no checkpoint is removed before \
                         the new object has been there for an hour"
                    ));
                }
                (chosen, seen)
            });
            let quantities = node
                .status
                .and_then(|status| status.allocatable)
                .unwrap_or_default();
            let quantities = quantities
                .into_iter()
                .map(|(name, quantity)| (name, quantity.0))
                .collect();
            learned.allocatable = room::allocatable(&quantities);
        }
        Err(error) => kept
            .problems
            .push(format!("cannot get node {name}: {}", explain(&error))),
    }
    learned.servers = match surroundings.kubelet.server(&settings.root) {
        _ if !surroundings.is_known => None,
        // given by flag, and passed on to the supervisor
        None if !settings.arguments.decision.apiservers.is_empty() => None,
        None => {
            kept.problems.push(
                "the kubelet does not say which kubeconfig it uses: give the API server with --apiserver and --apiserver-ca"
                    .into(),
            );
            None
        }
        Some(Ok(server)) => Some(vec![server]),
        Some(Err(error)) => {
            kept.problems.push(chain(&error));
            None
        }
    };
    let record = record::make(name, learned, before.clone());
    kept.is_another = before.as_ref().and_then(NodeRecord::current_uid) != record.current_uid();
    // it waits while the store is tidied
    let store = store.clone();
    match tokio::task::spawn_blocking(move || store.put_node(&record)).await {
        Ok(Ok(true)) => tracing::info!("recorded the node and its API server for the supervisor"),
        Ok(Ok(false)) => {}
        Ok(Err(error)) => kept.problems.push(chain(&error)),
        Err(error) => kept.problems.push(error.to_string()),
    }
}

/// Installs the supervisor. `Some`: none is to be installed, for this reason.
async fn supervise(
    settings: &Settings,
    surroundings: &Surroundings,
    client: &Client,
) -> Result<Option<String>, String> {
    let image = match &settings.arguments.supervisor_image {
        Some(image) if image.is_empty() => {
            return Ok(Some(
                "--supervisor-image is empty: no supervisor is installed".into(),
            ));
        }
        Some(image) => image.clone(),
        None => {
            let (namespace, name) = (
                &settings.arguments.pod_namespace,
                settings.arguments.pod_name.as_deref(),
            );
            own_pod::image(client, namespace, name, "agent", "--supervisor-image")
                .await
                .map_err(|error| error.to_string())?
        }
    };
    let manifest_dir = manifest_dir(settings, surroundings)?;
    let real = settings
        .root
        .resolve(&manifest_dir)
        .map_err(|error| format!("{}: {error}", manifest_dir.display()))?;
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
