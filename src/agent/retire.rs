//! `agent --retire`: leaves the node, because the installation is being removed. Nothing is
//! captured any more.
//!
//! The supervisor leaves first: the agent asks it to through the run directory, and it goes once
//! the API server answers, the kubelet has its pods, and no twin is needed. Only then this
//! program's files and the node's PodCheckpoints are removed. Each round begins with a request to
//! the API server: while that is silent, nothing is asked of the supervisor and nothing is removed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use kube::Client;
use tokio::time::{Instant, sleep};

use crate::agent::error::Error;
use crate::agent::published::ledger::Published;
use crate::agent::published::write;
use crate::agent::record;
use crate::agent::settings::Settings;
use crate::agent::surroundings::{self, Surroundings};
use crate::client::gone::{self, Answer};
use crate::client::heard::{self, explain};
use crate::client::retry::Retry;
use crate::files;
use crate::metrics::figures::add_build;
use crate::metrics::page::Page;
use crate::metrics::{self, Pulse, Source};
use crate::names::{AGENT_LOCK, DRILL_LOCK, SUPERVISOR};
use crate::node::clock;
use crate::places;
use crate::places::manifests::Manifests;
use crate::places::reports::{AGENT, AgentReport, Phase, STATUS, Status};
use crate::places::store::{self, Store};
use crate::places::{Places, run};
use crate::pod::id::PodId;
use crate::text::chain;

/// Between rounds: the first pause, and the longest. The supervisor accepts a request that is two
/// minutes old at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// Between checks that the node stays clean.
const STAY: Duration = Duration::from_secs(15);
/// How long a round may take before the loop counts as hanging: a look at the node, and a few
/// requests.
const ROUND: Duration = Duration::from_mins(2);

/// Metrics and health of the retiring agent.
#[derive(Debug)]
struct Health {
    pulse: Pulse,
    /// What is not done yet.
    left: RefCell<Option<String>>,
}

impl Source for Health {
    fn page(&self) -> Page {
        let mut page = Page::default();
        add_build(&mut page, "agent");
        page
    }

    fn unhealthy(&self) -> Vec<String> {
        self.pulse.stalled().into_iter().collect()
    }

    fn not_ready(&self) -> Vec<String> {
        self.left.borrow().iter().cloned().collect()
    }
}

/// Runs until `stop`. Ready as soon as the node is clean but for this process.
pub(crate) async fn run(
    settings: Settings,
    client: Client,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let health = Health {
        pulse: Pulse::default(),
        left: RefCell::new(Some("the node has not been checked yet".into())),
    };
    let metrics = metrics::serve(settings.arguments.metrics_address, &health);
    let (client, _) = heard::listen(client);
    tracing::info!(node = settings.node_name, "retirement the node");
    let work = async {
        let mut retirement = Retirement {
            settings: &settings,
            client,
            before: None,
            lock: None,
        };
        let mut retry = Retry::new(PAUSES.0, PAUSES.1);
        loop {
            health.pulse.expect(Instant::now() + ROUND);
            let done = health.left.borrow().is_none();
            let left = retirement.round(done).await.err();
            let pause = if left.is_none() { STAY } else { retry.pause() };
            if *health.left.borrow() != left {
                let news = left.as_deref().map(|left| format!("not done: {left}"));
                tracing::info!(
                    "{}",
                    news.as_deref()
                        .unwrap_or("the node is clean: everything this program created is removed")
                );
                health.left.replace(left);
            }
            health.pulse.expect(Instant::now() + pause);
            sleep(pause).await;
        }
    };
    let work = async {
        tokio::select! {
            () = stop => Ok(()),
            never = work => never,
        }
    };
    metrics::beside(work, metrics).await
}

/// What this program still has on the node.
#[derive(Debug, Default, PartialEq, Eq)]
struct Remaining {
    /// The supervisor's manifest.
    manifest: bool,
    /// Its containers run; `None`: not known.
    supervisor: Option<bool>,
    /// Pods with a link to a manifest in force.
    active: Vec<String>,
    /// A drill runs.
    drill: bool,
}

/// What to do with it.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Ask the supervisor to leave.
    Ask,
    /// Wait for this.
    Wait(String),
    /// Remove what is left.
    Clear,
}

fn next(seen: &Remaining) -> Next {
    if seen.drill {
        return Next::Wait("waiting for a drill on this node to end".into());
    }
    if seen.manifest {
        return Next::Ask;
    }
    match seen.supervisor {
        None => Next::Wait(
            "the container runtime does not report whether the supervisor has ended".into(),
        ),
        Some(true) => Next::Wait("the supervisor is ending".into()),
        Some(false) if !seen.active.is_empty() => Next::Wait(format!(
            "twins run in place of {}, and there is no supervisor to hand over: run `pod-checkpointer uninstall \
             --force` on the node when they may stop",
            seen.active.join(", ")
        )),
        Some(false) => Next::Clear,
    }
}

struct Retirement<'a> {
    settings: &'a Settings,
    client: Client,
    before: Option<Surroundings>,
    /// The agent's lock on the store, once no other agent holds it.
    lock: Option<File>,
}

impl Retirement<'_> {
    /// Does what can be done now. The error is what remains to be done. `done`: the last round left
    /// nothing, so only the files on the node are checked.
    async fn round(&mut self, done: bool) -> Result<(), String> {
        let found = surroundings::look(self.settings, self.before.as_ref()).await;
        let directory = surroundings::manifest_dir(self.settings, &found);
        let node = self.node(
            directory
                .as_deref()
                .unwrap_or(Path::new(crate::node::kubelet::MANIFEST_DIR)),
        )?;
        let manifests = node.manifests().map_err(|error| chain(&error))?;
        if done && is_clean(&node, &manifests) {
            return Ok(());
        }
        // unless the kubelet reports its directory, a manifest may be anywhere
        directory?;
        let objects = self.objects().await?;
        self.lock_store(&node.store)?;
        let seen = Remaining {
            manifest: manifests.supervisor,
            supervisor: self.supervisor_runs(&found).await,
            active: node.in_force(&manifests),
            drill: Places::is_locked(&node.run.path().join(DRILL_LOCK)).unwrap_or(true),
        };
        self.before = Some(found);
        match next(&seen) {
            Next::Ask => {
                let waits = self.ask_supervisor(&node).await?;
                return Err(format!("the supervisor was asked to leave{waits}"));
            }
            Next::Wait(what) => return Err(what),
            Next::Clear => clear(&node, &manifests).map_err(|error| chain(&error))?,
        }
        for (key, known) in &objects {
            self.delete(key, known).await?;
        }
        if objects.is_empty() {
            Ok(())
        } else {
            Err("the node's PodCheckpoints are being removed".into())
        }
    }

    fn node(&self, manifest_dir: &Path) -> Result<Places, String> {
        let host = self.settings.host();
        Places::at(
            self.settings.root.clone(),
            &host.state_dir,
            &host.run_dir,
            manifest_dir,
        )
        .map_err(|error| chain(&error))
    }

    /// The node's PodCheckpoints, as the API server lists them now.
    async fn objects(&self) -> Result<Vec<(PodId, Published)>, String> {
        let objects = write::list(&self.client, &self.settings.node_name).await;
        // if the definition was removed, every object was removed with it
        let objects = gone::found(objects)
            .map_err(|error| format!("cannot list PodCheckpoints: {}", explain(&error)))?;
        Ok(objects.unwrap_or_default())
    }

    async fn delete(&self, key: &PodId, known: &Published) -> Result<(), String> {
        let deleted = write::delete(self.client.clone(), key, known.object.clone()).await;
        deleted.map_err(|error| format!("cannot delete PodCheckpoint {key}: {}", explain(&error)))
    }

    /// Takes the agent's lock: an agent that captures would put everything back.
    fn lock_store(&mut self, store: &Store) -> Result<(), String> {
        if self.lock.is_none() && store.directory().is_dir() {
            self.lock = Some(store.lock(AGENT_LOCK).map_err(|error| chain(&error))?);
        }
        Ok(())
    }

    async fn supervisor_runs(&self, found: &Surroundings) -> Option<bool> {
        let name = format!("{SUPERVISOR}-{}", self.settings.node_name.to_lowercase());
        let (sandboxes, containers) =
            tokio::join!(found.runtime.sandboxes(), found.runtime.containers());
        let (sandboxes, containers) = (sandboxes.ok()?, containers.ok()?);
        let mut ours = sandboxes.iter().filter(|one| {
            one.name == name && one.namespace == self.settings.arguments.pod_namespace
        });
        let running = |id: &str| {
            containers
                .iter()
                .any(|one| one.sandbox == id && one.state == crate::node::runtime::State::Running)
        };
        Some(ours.any(|sandbox| running(&sandbox.id)))
    }

    /// Asks the supervisor to leave. Returns what it waits for, as far as that is known.
    async fn ask_supervisor(&self, node: &Places) -> Result<String, String> {
        let boot = clock::boot_id().map_err(|error| error.to_string())?;
        node.run.open(&boot).map_err(|error| chain(&error))?;
        let status: Status = node.run.read(STATUS).ok().flatten().unwrap_or_default();
        let needed = status
            .pods
            .iter()
            .filter(|pod| matches!(pod.phase, Phase::Active | Phase::Released));
        let (mut gone, mut names) = (BTreeMap::new(), Vec::new());
        let recorded = record::node_uid(&node.store);
        for pod in needed {
            names.push(format!("{}/{}", pod.namespace, pod.name));
            let Ok(key) = PodId::new(&pod.namespace, &pod.name) else {
                continue;
            };
            // a deleted parent cannot take over
            let (client, name, uid) = (&self.client, &self.settings.node_name, &pod.parent_uid);
            if gone::ask(client, name, recorded.as_deref(), &key, uid)
                .await
                .0
                == Answer::Gone
            {
                gone.insert(key, uid.clone());
            }
        }
        let heartbeat = u64::try_from(clock::boot_time().as_millis()).unwrap_or_default();
        let report = AgentReport {
            heartbeat,
            gone,
            retire: true,
            ..AgentReport::default()
        };
        node.run
            .write(AGENT, &report)
            .map_err(|error| chain(&error))?;
        let waits = || format!(", and twins still serve in place of {}", names.join(", "));
        Ok(if names.is_empty() {
            String::new()
        } else {
            waits()
        })
    }
}

/// Is nothing of this program there? Directories that are mounts, or that hold other files, stay.
fn is_clean(node: &Places, manifests: &Manifests) -> bool {
    let holds =
        |directory: &Path, names: &[&str]| names.iter().any(|name| directory.join(name).exists());
    !manifests.supervisor
        && manifests.links.is_empty()
        && !holds(node.store.directory(), store::NAMES)
        && !holds(node.run.path(), run::NAMES)
}

/// Removes what is left: links first, so that the kubelet starts no more twins.
fn clear(node: &Places, manifests: &Manifests) -> Result<(), files::write::Error> {
    let links = manifests.links.iter().map(|link| &link.path);
    for path in links.chain(&manifests.leftovers) {
        files::write::remove(path)?;
    }
    places::clear(node.store.directory(), node.run.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_supervisor_leaves_first_and_nothing_is_removed_while_it_may_be_needed() {
        let clear = Remaining {
            supervisor: Some(false),
            ..Remaining::default()
        };
        assert_eq!(next(&clear), Next::Clear);
        assert_eq!(
            next(&Remaining {
                manifest: true,
                supervisor: Some(true),
                ..Remaining::default()
            }),
            Next::Ask
        );
        let waits = [
            Remaining {
                supervisor: None,
                ..Remaining::default()
            },
            Remaining {
                supervisor: Some(true),
                ..Remaining::default()
            },
            Remaining {
                active: vec!["shop/till".into()],
                supervisor: Some(false),
                ..Remaining::default()
            },
            Remaining {
                drill: true,
                manifest: true,
                supervisor: Some(true),
                ..Remaining::default()
            },
        ];
        for seen in waits {
            assert!(matches!(next(&seen), Next::Wait(_)), "{seen:?}");
        }
    }
}
