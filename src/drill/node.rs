//! The node that a drill runs on: its kubelet and runtime, and what must hold before anything is
//! changed.

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::args::NodeArguments;
use crate::names::DRILL_OF;
use crate::node::clock;
use crate::node::contact::Class;
use crate::node::host::HostRoot;
use crate::node::kubelet::{self, Kubelet, Owned, Server};
use crate::node::runtime::{self, Container, Runtime, Sandbox, State};
use crate::places::Places;
use crate::places::drill::Place;
use crate::places::node_record::NodeRecord;
use crate::places::reports::{AGENT, AgentReport, Phase, STATUS, Status};
use crate::places::store::Generation;
use crate::pod::id::PodId;
use crate::supervisor::core::Refused;
use crate::supervisor::core::facts::Key;
use crate::supervisor::core::observe::{self, Lists, is_parent_of};
use crate::supervisor::preconditions::{ApiPods, Checked, Findings, Preconditions};
use crate::supervisor::twin_files::TwinFiles;

/// Time limit of one call to the runtime or the kubelet.
const CALL_LIMIT: Duration = Duration::from_secs(5);

/// A node that a drill can run on.
pub struct DrillNode {
    places: Places,
    /// The settings that the supervisor would use.
    pub files: TwinFiles,
    /// The drill's own settings.
    pub place: Place,
    /// The container runtime.
    pub runtime: Runtime,
    /// The kubelet.
    pub kubelet: Kubelet,
    settings: kubelet::Settings,
    kubelet_dir: PathBuf,
    boot_id: String,
    /// Name of the node, in lower case as the kubelet uses it in names of pods.
    pub name: String,
    record: Option<NodeRecord>,
    /// What is known about images, and the room left by the pods that were checked before.
    findings: RefCell<Findings>,
}

impl DrillNode {
    /// Finds everything; changes nothing.
    pub async fn find(arguments: &NodeArguments, places: Places) -> anyhow::Result<Self> {
        let root = places.root().clone();
        let kubelet_dir = arguments.host.kubelet_dir.clone();
        let (kubelet, settings) = kubelet::find(&root, &kubelet_dir, CALL_LIMIT)
            .await
            .context("a drill needs the kubelet")?;
        if let Some(error) = &places.no_static_pods {
            bail!("{error}");
        }
        let socket = runtime::find(&root, arguments.cri_endpoint.as_deref(), Some(&settings))?;
        let record = places.store.node().ok().flatten();
        let recorded = record.as_ref().map(|record| record.node_name.clone());
        let name = arguments
            .node_name
            .clone()
            .or(recorded)
            .or_else(|| arguments.node_name().ok());
        let name =
            name.context("the name of this node is not recorded: set it with --node-name")?;
        Ok(Self {
            place: Place::new(places.manifests.clone()),
            files: TwinFiles::new(places.manifests.clone(), root.clone()),
            runtime: Runtime::new(socket, CALL_LIMIT),
            kubelet,
            settings,
            kubelet_dir,
            boot_id: clock::boot_id()?,
            name: name.to_lowercase(),
            record,
            findings: RefCell::default(),
            places,
        })
    }

    /// The checkpoints.
    pub fn store(&self) -> &crate::places::store::Store {
        &self.places.store
    }

    /// The host's files.
    pub fn root(&self) -> &HostRoot {
        self.places.root()
    }

    /// The API server that the kubelet uses, if it says which.
    pub fn kubelet_server(&self) -> Option<Result<Server, kubelet::Error>> {
        self.settings.server(self.root())
    }

    /// What the supervisor reports.
    pub fn status(&self) -> anyhow::Result<Status> {
        Ok(self.places.run.read(STATUS)?.unwrap_or_default())
    }

    /// Fails unless the node is in normal operation and its supervisor runs, which would bring the
    /// pods back and clean up after the drill.
    pub async fn is_quiet(&self) -> anyhow::Result<()> {
        if !Places::is_locked(&self.places.supervisor_lock())? {
            bail!("no supervisor runs on this node: no pod would be brought back");
        }
        // fails if the directory is not in memory
        self.places.run.open(&self.boot_id)?;
        let status = self.status()?;
        match &status.contact {
            Some(contact) if contact.class == Class::Answering => {}
            Some(contact) => bail!(
                "the API server does not answer ({}): this would be no drill, so nothing was changed",
                format!("{:?}", contact.class).to_lowercase()
            ),
            None => bail!("the supervisor has not asked the API server yet"),
        }
        let busy: Vec<String> = status
            .pods
            .iter()
            .filter(|pod| matches!(pod.phase, Phase::Active | Phase::Released))
            .map(|pod| format!("{}/{}", pod.namespace, pod.name))
            .chain(
                self.files
                    .manifests
                    .read()?
                    .links
                    .iter()
                    .map(|link| link.key.to_string()),
            )
            .collect();
        if !busy.is_empty() {
            bail!(
                "twins serve in place of {}: wait until they are handed over",
                busy.join(", ")
            );
        }
        let owned = self
            .kubelet
            .owned()
            .await
            .context("a drill needs the kubelet")?;
        if !observe::is_synced(&owned, &self.name) {
            bail!(
                "the kubelet has received no pods from the API server since it started: it would not end what a drill starts"
            );
        }
        Ok(())
    }

    /// The pods to drill, by key, and those of them that are already refused, with the reasons.
    pub fn keys(&self, pods: &[String]) -> anyhow::Result<Vec<(Key, Vec<String>)>> {
        let word: AgentReport = self.places.run.read(AGENT)?.unwrap_or_default();
        let mut known = self
            .places
            .store
            .keys()
            .context("cannot list the checkpoints")?;
        known.extend(word.refused.keys().cloned());
        known.sort_unstable();
        known.dedup();
        if !pods.is_empty() {
            let mut chosen = Vec::new();
            for pod in pods {
                let key = pod
                    .split_once('/')
                    .and_then(|(namespace, name)| PodId::new(namespace, name).ok());
                let Some(key) = key.filter(|key| known.contains(key)) else {
                    bail!(
                        "no checkpoint of {pod} is on this node (NAMESPACE/POD; `pod-checkpointer status` lists them)"
                    );
                };
                chosen.push(key);
            }
            known = chosen;
        }
        // where not all fit, the supervisor takes those of the lowest start group and of the
        // highest priority
        known.sort_by_key(|key| {
            let newest = self
                .places
                .store
                .newest(key)
                .ok()
                .and_then(|(newest, _)| newest);
            newest.map(|newest| {
                let priority = newest
                    .checkpoint
                    .manifest
                    .pointer("/spec/priority")
                    .and_then(Value::as_i64);
                (
                    newest.checkpoint.policy.start_group,
                    std::cmp::Reverse(priority.unwrap_or_default()),
                )
            })
        });
        let refused = |key: &PodId| word.refused.get(key).cloned().unwrap_or_default();
        Ok(known
            .into_iter()
            .map(|key| (key.clone(), refused(&key)))
            .collect())
    }

    /// What the supervisor checks before it activates, on this node as it is after a reboot without
    /// the API server: with its static pods and the pods that were checked before.
    pub async fn check(&self, key: &Key) -> Result<Generation, Refused> {
        let against = Preconditions {
            now: clock::boot_time(),
            boot_id: &self.boot_id,
            root: self.root(),
            store: &self.places.store,
            manifests: &self.places.manifests,
            // it was opened before, so it is in memory
            not_memory: None,
            runtime: &self.runtime,
            settings: &self.settings,
            kubelet_dir: &self.kubelet_dir,
            node_name: &self.name,
            record: self.record.as_ref(),
            api_pods: ApiPods::None,
        };
        let mut findings = self.findings.take();
        let checked = against.check(key, &mut findings).await;
        if let Ok(Checked { demand, .. }) = &checked {
            findings.take(demand);
        }
        self.findings.replace(findings);
        checked.map(|checked| checked.generation)
    }

    /// A name that no earlier activation had.
    pub fn nonce(&self) -> String {
        format!("{}/{}/drill", self.boot_id, clock::boot_time().as_nanos())
    }

    /// An image of this program: the supervisor's, unless another is given.
    pub async fn image(&self, given: Option<&str>) -> anyhow::Result<String> {
        let image = if let Some(image) = given {
            image.to_owned()
        } else {
            let path = self.places.manifests.supervisor_path();
            let text =
                std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let pod: Value = serde_yaml::from_slice(&text).unwrap_or_default();
            let image = pod
                .pointer("/spec/containers/0/image")
                .and_then(Value::as_str)
                .map(str::to_owned);
            image.with_context(|| {
                format!("{} names no image: set one with --image", path.display())
            })?
        };
        if self.runtime.image(&image).await?.is_none() {
            bail!("image {image} is not on this node");
        }
        Ok(image)
    }

    /// Is there room for one more pod? For a static pod without room the kubelet ends another one
    /// (pkg/kubelet/preemption).
    pub async fn has_room(&self) -> anyhow::Result<()> {
        let owned = self.kubelet.owned().await?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let most = self
            .settings
            .most_pods(u32::try_from(cores).unwrap_or(u32::MAX));
        if owned.pods.len() >= usize::try_from(most).unwrap_or(usize::MAX) {
            bail!("the node has no room for one more pod ({most}): a rehearsal would end another");
        }
        Ok(())
    }

    /// What the kubelet owns.
    pub async fn owned(&self) -> Result<Owned, kubelet::Error> {
        self.kubelet.owned().await
    }

    /// Everything that the runtime lists.
    pub async fn lists(&self) -> anyhow::Result<Lists> {
        let (sandboxes, containers) =
            tokio::try_join!(self.runtime.sandboxes(), self.runtime.containers())?;
        Ok(Lists {
            sandboxes,
            containers,
        })
    }

    /// Something of a rehearsal still runs.
    pub async fn is_rehearsing(&self) -> anyhow::Result<bool> {
        let lists = self.lists().await?;
        let is_ours = |sandbox: &&Sandbox| sandbox.annotations.contains_key(DRILL_OF);
        let runs = |sandbox: &Sandbox| sandbox.ready || !running(&lists, sandbox).is_empty();
        Ok(lists.sandboxes.iter().filter(is_ours).any(runs))
    }
}

/// The sandbox of the pod itself that is ready.
pub fn parent_sandbox<'a>(lists: &'a Lists, key: &Key) -> Option<&'a Sandbox> {
    let (namespace, name) = (key.namespace(), key.name());
    lists
        .sandboxes
        .iter()
        .find(|sandbox| sandbox.ready && is_parent_of(sandbox, namespace, name))
}

/// The running containers of a sandbox.
pub fn running<'a>(lists: &'a Lists, sandbox: &Sandbox) -> Vec<&'a Container> {
    let all = lists.containers.iter();
    all.filter(|container| container.sandbox == sandbox.id && container.state == State::Running)
        .collect()
}
