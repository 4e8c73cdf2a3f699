//! What a drill stands on: the node, its kubelet and runtime, and what must be so before anything is done.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::agent::survey;
use crate::args::NodeArguments;
use crate::names::{CONFIG_SOURCE, DRILL_OF, SUPERVISOR};
use crate::node::clock;
use crate::node::contact::Class;
use crate::node::host::HostRoot;
use crate::node::kubelet::{self, Kubelet, Owned};
use crate::node::runtime::{Container, Runtime, Sandbox, State};
use crate::places::Places;
use crate::places::drill::Place;
use crate::places::reports::{AGENT, AgentWord, Phase, STATUS, Status};
use crate::places::store::Generation;
use crate::supervisor::act::{Hands, Images, Preconditions, Refused};
use crate::supervisor::observe::{self, Lists};

/// Limit of one call to the runtime or the kubelet.
const CALL_LIMIT: Duration = Duration::from_secs(5);

/// A node that a drill can be held on.
pub struct Ground {
    node: Places,
    /// What the supervisor would work with.
    pub hands: Hands,
    /// What the drill works with.
    pub place: Place,
    /// The container runtime.
    pub runtime: Runtime,
    /// The kubelet.
    pub kubelet: Kubelet,
    settings: kubelet::Settings,
    kubelet_dir: PathBuf,
    boot_id: String,
    /// Name of the node, in lower case as the kubelet has it in names of pods.
    pub name: String,
}

impl Ground {
    /// Finds everything; changes nothing.
    pub async fn find(arguments: &NodeArguments, node: Places) -> anyhow::Result<Self> {
        let root = node.root().clone();
        let kubelet_dir = arguments.host.kubelet_dir.clone();
        let socket = root.resolve(kubelet_dir.join("pod-resources/kubelet.sock"))?;
        let kubelet = Kubelet::new(socket, CALL_LIMIT);
        let owned = kubelet.owned().await.context("a drill needs the kubelet")?;
        let settings = kubelet::settings(&root, owned.pid)?;
        let socket = survey::find_runtime(&root, arguments.cri_endpoint.as_deref());
        let socket = socket.map_err(|(_, problem)| anyhow::anyhow!(problem))?;
        let recorded = node.store.node().ok().flatten().map(|record| record.node_name);
        let name = arguments.node_name.clone().or(recorded).or_else(|| arguments.node_name().ok());
        let name = name.context("the name of this node is not recorded: give it with --node-name")?;
        let hands = Hands {
            store: node.store.clone(),
            run: node.run.clone(),
            manifest_dir: node.manifests.clone(),
            selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        };
        Ok(Self {
            place: Place { run: node.run.clone(), manifests: node.manifests.clone() },
            hands,
            runtime: Runtime::new(socket, CALL_LIMIT),
            kubelet,
            settings,
            kubelet_dir,
            boot_id: clock::boot_id()?,
            name: name.to_lowercase(),
            node,
        })
    }

    /// The host's files.
    pub fn root(&self) -> &HostRoot {
        self.node.root()
    }

    /// The kubelet's own kubeconfig, a host path, if it is known.
    pub fn kubeconfig(&self) -> Option<&Path> {
        self.settings.kubeconfig.as_deref()
    }

    /// What the supervisor says.
    pub fn status(&self) -> anyhow::Result<Status> {
        Ok(self.node.run.read(STATUS)?.unwrap_or_default())
    }

    /// Nothing is going on, and somebody would bring the pods back and tidy up after us.
    pub async fn is_quiet(&self) -> anyhow::Result<()> {
        if !Places::is_locked(&self.node.supervisor_lock())? {
            bail!("no supervisor runs on this node: nothing would be brought back");
        }
        // insists on memory
        self.node.run.open(&self.boot_id)?;
        let status = self.status()?;
        match &status.contact {
            Some(contact) if contact.class == Class::Answering => {}
            Some(contact) => bail!(
                "the API server does not answer ({}): this is no drill, and nothing is done",
                format!("{:?}", contact.class).to_lowercase()
            ),
            None => bail!("the supervisor has not asked the API server yet"),
        }
        let busy: Vec<String> = status
            .pods
            .iter()
            .filter(|pod| matches!(pod.phase, Phase::Active | Phase::Released))
            .map(|pod| format!("{}/{}", pod.namespace, pod.name))
            .chain(self.hands.links()?.iter().map(|key| key.replace('_', "/")))
            .collect();
        if !busy.is_empty() {
            bail!("twins serve in place of {}: wait until they are handed over", busy.join(", "));
        }
        let owned = self.kubelet.owned().await.context("a drill needs the kubelet")?;
        if !observe::is_synced(&owned, &self.name) {
            bail!("the kubelet has not heard of the API server since it started: it would not end what a drill starts");
        }
        Ok(())
    }

    /// The pods to drill, by key, and those of them that are refused already, with the reasons.
    pub fn keys(&self, pods: &[String]) -> anyhow::Result<Vec<(String, Vec<String>)>> {
        let word: AgentWord = self.node.run.read(AGENT)?.unwrap_or_default();
        let mut known = self.node.store.keys().context("cannot list the checkpoints")?;
        known.extend(word.refused.keys().cloned());
        known.sort_unstable();
        known.dedup();
        if !pods.is_empty() {
            let mut chosen = Vec::new();
            for pod in pods {
                let key = pod.replacen('/', "_", 1);
                if !known.contains(&key) {
                    bail!(
                        "no checkpoint of {pod} is on this node (NAMESPACE/POD; `pod-checkpointer status` lists them)"
                    );
                }
                chosen.push(key);
            }
            known = chosen;
        }
        let refused = |key: &String| word.refused.get(key).cloned().unwrap_or_default();
        Ok(known.into_iter().map(|key| (key.clone(), refused(&key))).collect())
    }

    /// What the supervisor checks before it activates.
    pub async fn verify(&self, key: &str) -> Result<Generation, Refused> {
        let against = Preconditions {
            now: clock::boot_time(),
            boot_id: &self.boot_id,
            runtime: &self.runtime,
            settings: &self.settings,
            kubelet_dir: &self.kubelet_dir,
            root: self.root(),
        };
        self.hands.verify(key, &against, &mut Images::default()).await
    }

    /// A name that no activation had before.
    pub fn nonce(&self) -> String {
        format!("{}/{}/drill", self.boot_id, clock::boot_time().as_nanos())
    }

    /// An image with this program: the supervisor's, unless another is given.
    pub async fn image(&self, given: Option<&str>) -> anyhow::Result<String> {
        let image = if let Some(image) = given {
            image.to_owned()
        } else {
            let path = self.place.manifests.join(format!("{SUPERVISOR}.yaml"));
            let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let pod: Value = serde_yaml::from_slice(&text).unwrap_or_default();
            let image = pod.pointer("/spec/containers/0/image").and_then(Value::as_str).map(str::to_owned);
            image.with_context(|| format!("{} names no image: give one with --image", path.display()))?
        };
        if self.runtime.image(&image).await?.is_none() {
            bail!("image {image} is not on this node");
        }
        Ok(image)
    }

    /// Is there room for one pod more? A static pod that finds none ends another one (pkg/kubelet/preemption).
    pub async fn has_room(&self) -> anyhow::Result<()> {
        let owned = self.kubelet.owned().await?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let most = self.settings.most_pods(u32::try_from(cores).unwrap_or(u32::MAX));
        if owned.pods.len() >= usize::try_from(most).unwrap_or(usize::MAX) {
            bail!("the node has no room for one pod more ({most}): a rehearsal would end another");
        }
        Ok(())
    }

    /// What the kubelet owns.
    pub async fn owned(&self) -> Result<Owned, kubelet::Error> {
        self.kubelet.owned().await
    }

    /// Everything that the runtime lists.
    pub async fn lists(&self) -> anyhow::Result<Lists> {
        let (sandboxes, containers) = tokio::try_join!(self.runtime.sandboxes(), self.runtime.containers())?;
        Ok(Lists { sandboxes, containers })
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
pub fn parent_sandbox<'a>(lists: &'a Lists, key: &str) -> Option<&'a Sandbox> {
    let (namespace, name) = key.split_once('_')?;
    lists.sandboxes.iter().find(|sandbox| {
        let source = sandbox.annotations.get(CONFIG_SOURCE).map(String::as_str);
        sandbox.ready && sandbox.namespace == namespace && sandbox.name == name && source != Some("file")
    })
}

/// The running containers of a sandbox.
pub fn running<'a>(lists: &'a Lists, sandbox: &Sandbox) -> Vec<&'a Container> {
    let all = lists.containers.iter();
    all.filter(|container| container.sandbox == sandbox.id && container.state == State::Running).collect()
}
