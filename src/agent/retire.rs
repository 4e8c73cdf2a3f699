//! `agent --retire`: leaves the node, because the installation is being removed. Nothing is captured any more.
//!
//! The supervisor goes first, by itself: it is told through the run directory, and it leaves once the API server answers, the
//! kubelet has its pods, and no twin is needed. Only then what is left of ours is removed here, and the node's PodCheckpoints
//! with it. Each round begins with a question to the API server: while that is silent, nothing is said and nothing is removed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use kube::api::{Api, DeleteParams, Preconditions};
use kube::{Client, Error as ApiError};
use tokio::time::{Instant, sleep};

use crate::agent::report::{self, Known};
use crate::agent::survey::{self, Surroundings};
use crate::agent::{Error, Settings, record};
use crate::api::PodCheckpoint;
use crate::client::gone::{self, Answer};
use crate::client::heard::{self, explain};
use crate::client::retry::Retry;
use crate::files::write;
use crate::metrics::figures::add_build;
use crate::metrics::page::Page;
use crate::metrics::{self, Pulse, Source};
use crate::names::{DRILL_LOCK, SUPERVISOR};
use crate::node::clock;
use crate::places;
use crate::places::reports::{AGENT, AgentWord, Phase, STATUS, Status};
use crate::places::store::{self, Store};
use crate::places::{Manifests, Places, run};
use crate::text::chain;

/// Between rounds: the first pause, and the longest. The supervisor goes by a word that is two minutes old at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// Between looks whether the node stays as it was left.
const STAY: Duration = Duration::from_secs(15);
/// How long a round may take before the loop is said to hang: a look at the node, and a few requests.
const ROUND: Duration = Duration::from_mins(2);

/// What is told of the work.
#[derive(Debug)]
struct Board {
    pulse: Pulse,
    /// What is not done yet.
    left: RefCell<Option<String>>,
}

impl Source for Board {
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

/// Runs until `stop`. Ready as soon as nothing of ours is on the node but this process.
pub async fn run(settings: Settings, client: Client, stop: impl Future<Output = ()>) -> Result<(), Error> {
    let board = Board { pulse: Pulse::default(), left: RefCell::new(Some("the node was not looked at yet".into())) };
    let metrics = metrics::serve(settings.metrics_address, &board);
    let (client, _) = heard::listen(client);
    tracing::info!(node = settings.node_name, "leaving the node");
    let work = async {
        let mut leaving = Leaving { settings: &settings, client, before: None, lock: None };
        let mut retry = Retry::new(PAUSES.0, PAUSES.1);
        loop {
            board.pulse.expect(Instant::now() + ROUND);
            let done = board.left.borrow().is_none();
            let left = leaving.round(done).await.err();
            let pause = if left.is_none() { STAY } else { retry.pause() };
            if *board.left.borrow() != left {
                let news = left.as_deref().map(|left| format!("not done: {left}"));
                tracing::info!("{}", news.as_deref().unwrap_or("nothing of ours is left on the node"));
                board.left.replace(left);
            }
            board.pulse.expect(Instant::now() + pause);
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

/// What is there of ours, and who is at work with it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
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
    /// Tell the supervisor that it is to leave.
    Tell,
    /// Wait for this.
    Wait(String),
    /// Remove what is left.
    Clear,
}

fn next(seen: &Seen) -> Next {
    if seen.drill {
        return Next::Wait("a drill runs on this node: its end is waited for".into());
    }
    if seen.manifest {
        return Next::Tell;
    }
    match seen.supervisor {
        None => Next::Wait("the container runtime does not tell whether the supervisor has ended".into()),
        Some(true) => Next::Wait("the supervisor is ending".into()),
        Some(false) if !seen.active.is_empty() => Next::Wait(format!(
            "twins are linked in place of {}, and there is no supervisor that would hand over: run `pod-checkpointer \
             uninstall --force` on the node when they may end",
            seen.active.join(", ")
        )),
        Some(false) => Next::Clear,
    }
}

struct Leaving<'a> {
    settings: &'a Settings,
    client: Client,
    before: Option<Surroundings>,
    /// Ours as soon as no other agent works on this store.
    lock: Option<File>,
}

impl Leaving<'_> {
    /// Does what can be done now. The error is what is not done yet. `done`: the round before left nothing, so only the
    /// node's own files are looked at.
    async fn round(&mut self, done: bool) -> Result<(), String> {
        let found = survey::look(self.settings, self.before.as_ref()).await;
        let directory = survey::manifest_dir(self.settings, &found);
        let node = self.node(directory.as_deref().unwrap_or(Path::new(crate::node::kubelet::MANIFEST_DIR)))?;
        let manifests = node.manifests().map_err(|error| format!("{error:#}"))?;
        if done && is_clean(&node, &manifests) {
            return Ok(());
        }
        // without the kubelet's word nobody knows where a manifest of ours may be
        directory?;
        let objects = self.objects().await?;
        self.lock_store(&node.store)?;
        let seen = Seen {
            manifest: manifests.supervisor,
            supervisor: self.supervisor_runs(&found).await,
            active: node.in_force(&manifests),
            drill: Places::is_locked(&node.run.path().join(DRILL_LOCK)).unwrap_or(true),
        };
        self.before = Some(found);
        match next(&seen) {
            Next::Tell => {
                let waits = self.tell(&node).await?;
                return Err(format!("the supervisor was told to leave{waits}"));
            }
            Next::Wait(what) => return Err(what),
            Next::Clear => clear(&node, &manifests).map_err(|error| chain(&error))?,
        }
        for (key, known) in &objects {
            self.delete(key, known).await?;
        }
        if objects.is_empty() { Ok(()) } else { Err("the node's PodCheckpoints are being removed".into()) }
    }

    fn node(&self, manifest_dir: &Path) -> Result<Places, String> {
        let Settings { root, state_dir, run_dir, .. } = self.settings;
        Places::at(root.clone(), state_dir, run_dir, manifest_dir).map_err(|error| format!("{error:#}"))
    }

    /// The node's PodCheckpoints, by the API server's word of now.
    async fn objects(&self) -> Result<Vec<(String, Known)>, String> {
        match report::list(&self.client, &self.settings.node_name).await {
            Ok(objects) => Ok(objects),
            // the definition was removed, and every object with it
            Err(ApiError::Api(status)) if status.code == 404 => Ok(Vec::new()),
            Err(error) => Err(format!("cannot list PodCheckpoints: {}", explain(&error))),
        }
    }

    async fn delete(&self, key: &str, known: &Known) -> Result<(), String> {
        let (namespace, name) = key.split_once('_').unwrap_or_default();
        let api: Api<PodCheckpoint> = Api::namespaced(self.client.clone(), namespace);
        let preconditions = Some(Preconditions { uid: known.object.clone(), resource_version: None });
        match api.delete(name, &DeleteParams { preconditions, ..DeleteParams::default() }).await {
            Ok(_) => Ok(()),
            Err(ApiError::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(format!("cannot delete PodCheckpoint {namespace}/{name}: {}", explain(&error))),
        }
    }

    /// An agent that captures would put everything back.
    fn lock_store(&mut self, store: &Store) -> Result<(), String> {
        if self.lock.is_none() && store.directory().is_dir() {
            self.lock = Some(store.lock("agent.lock").map_err(|error| chain(&error))?);
        }
        Ok(())
    }

    async fn supervisor_runs(&self, found: &Surroundings) -> Option<bool> {
        let name = format!("{SUPERVISOR}-{}", self.settings.node_name.to_lowercase());
        let (sandboxes, containers) = tokio::join!(found.runtime.sandboxes(), found.runtime.containers());
        let (sandboxes, containers) = (sandboxes.ok()?, containers.ok()?);
        let mut ours = sandboxes.iter().filter(|one| one.name == name && one.namespace == self.settings.pod_namespace);
        let running = |id: &str| {
            containers.iter().any(|one| one.sandbox == id && one.state == crate::node::runtime::State::Running)
        };
        Some(ours.any(|sandbox| running(&sandbox.id)))
    }

    /// Writes the word. Says what the supervisor waits for, as far as it is known.
    async fn tell(&self, node: &Places) -> Result<String, String> {
        let boot = clock::boot_id(&self.settings.root).map_err(|error| error.to_string())?;
        node.run.open(&boot).map_err(|error| chain(&error))?;
        let status: Status = node.run.read(STATUS).ok().flatten().unwrap_or_default();
        let needed = status.pods.iter().filter(|pod| matches!(pod.phase, Phase::Active | Phase::Released));
        let (mut gone, mut names) = (BTreeMap::new(), Vec::new());
        let recorded = record::node_uid(&node.store);
        for pod in needed {
            let key = format!("{}_{}", pod.namespace, pod.name);
            names.push(format!("{}/{}", pod.namespace, pod.name));
            // a parent that is no more cannot take over
            let (client, name, uid) = (&self.client, &self.settings.node_name, &pod.parent_uid);
            if gone::ask(client, name, recorded.as_deref(), &key, uid).await.0 == Answer::Gone {
                gone.insert(key, uid.clone());
            }
        }
        let heartbeat = u64::try_from(clock::boot_time().as_millis()).unwrap_or_default();
        let word = AgentWord { heartbeat, gone, retire: true, ..AgentWord::default() };
        node.run.write(AGENT, &word).map_err(|error| chain(&error))?;
        let waits = || format!(", and twins still serve in place of {}", names.join(", "));
        Ok(if names.is_empty() { String::new() } else { waits() })
    }
}

/// Nothing of ours is there. Directories that are mounts, or that hold what is not ours, stay.
fn is_clean(node: &Places, manifests: &Manifests) -> bool {
    let holds = |directory: &Path, names: &[&str]| names.iter().any(|name| directory.join(name).exists());
    !manifests.supervisor
        && manifests.links.is_empty()
        && !holds(node.store.directory(), store::NAMES)
        && !holds(node.run.path(), run::NAMES)
}

/// Removes what is left: links first, so that nothing is started any more.
fn clear(node: &Places, manifests: &Manifests) -> Result<(), write::Error> {
    let links = manifests.links.iter().map(|link| &link.path);
    for path in links.chain(&manifests.leftovers) {
        write::remove(path)?;
    }
    places::clear(node.store.directory(), node.run.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_supervisor_goes_first_and_nothing_is_removed_while_anybody_may_need_it() {
        let clear = Seen { supervisor: Some(false), ..Seen::default() };
        assert_eq!(next(&clear), Next::Clear);
        assert_eq!(next(&Seen { manifest: true, supervisor: Some(true), ..Seen::default() }), Next::Tell);
        let waits = [
            Seen { supervisor: None, ..Seen::default() },
            Seen { supervisor: Some(true), ..Seen::default() },
            Seen { active: vec!["shop/till".into()], supervisor: Some(false), ..Seen::default() },
            Seen { drill: true, manifest: true, supervisor: Some(true), ..Seen::default() },
        ];
        for seen in waits {
            assert!(matches!(next(&seen), Next::Wait(_)), "{seen:?}");
        }
    }
}
