//! From what the node says to facts. The pure half: lists in, facts out; asking is done by the pass in the module above.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::SystemTime;
use std::{fs, io};

use serde_json::Value;

use crate::checkpoint::{NodeCheckpoint, Policy};
use crate::names::CHECKPOINTS;
use crate::names::{CHECKPOINT_OF, CONFIG_SOURCE};
use crate::node::kubelet::Owned;
use crate::node::runtime::{Container, Sandbox, State};
use crate::places::reports::AgentWord;
use crate::places::store::{self, Store};
use crate::pod::id::PodId;
use crate::supervisor::facts::{Key, PodFacts, Run, Seen};

/// What the runtime listed in one pass.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    /// Every sandbox.
    pub sandboxes: Vec<Sandbox>,
    /// Every container.
    pub containers: Vec<Container>,
}

/// What is kept in memory of a checkpoint: enough to decide, nothing secret.
#[derive(Clone, Debug)]
pub struct Known {
    /// How it is activated and handed over.
    pub policy: Policy,
    /// UID of the parent.
    pub parent_uid: String,
    /// Its priority, which decides where not all fit.
    pub priority: i32,
    /// Names of its containers that are not init containers.
    pub containers: Vec<String>,
    /// Names of its init containers, in their order.
    pub init_containers: Vec<String>,
    /// When its directory was last changed.
    changed: Option<SystemTime>,
    /// It is in the store, not only on the node.
    pub in_store: bool,
}

impl Known {
    /// Of a checkpoint in the store.
    pub fn of(checkpoint: &NodeCheckpoint, changed: Option<SystemTime>) -> Self {
        Self {
            policy: checkpoint.policy.clone(),
            parent_uid: checkpoint.parent.uid.clone(),
            priority: priority(&checkpoint.manifest),
            containers: container_names(&checkpoint.manifest, "containers"),
            init_containers: container_names(&checkpoint.manifest, "initContainers"),
            changed,
            in_store: true,
        }
    }

    /// Of a twin whose checkpoint is no longer in the store, from its manifest in force.
    pub fn of_manifest(manifest: &Value) -> Self {
        let host_network = manifest.pointer("/spec/hostNetwork").and_then(Value::as_bool).unwrap_or_default();
        let annotation = format!("/metadata/annotations/{}", crate::names::PARENT_UID.replace('/', "~1"));
        let parent_uid = manifest.pointer(&annotation).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self {
            policy: Policy { host_network, ..unknown_policy() },
            parent_uid,
            priority: priority(manifest),
            containers: container_names(manifest, "containers"),
            init_containers: container_names(manifest, "initContainers"),
            changed: None,
            in_store: false,
        }
    }
}

fn unknown_policy() -> Policy {
    Policy {
        start_group: crate::names::DEFAULT_START_GROUP,
        max_age_seconds: None,
        handover: None,
        host_network: false,
        host_port: false,
        stateful: false,
        slow_start: true,
        grace_seconds: 30,
    }
}

fn container_names(manifest: &Value, list: &str) -> Vec<String> {
    let containers = manifest.get("spec").and_then(|spec| spec.get(list)).and_then(Value::as_array);
    let name = |container: &Value| container.get("name").and_then(Value::as_str).map(str::to_owned);
    containers.into_iter().flatten().filter_map(name).collect()
}

/// The checkpoints of the store, read again only where a directory changed.
#[derive(Debug, Default)]
pub struct Index {
    /// By pod.
    pub known: BTreeMap<Key, Known>,
}

impl Index {
    /// What was activated: a key that was missing when the store was looked at may be there by now.
    pub fn learn(&mut self, key: &PodId, checkpoint: &NodeCheckpoint) {
        if let Some(known) = self.known.get_mut(key) {
            *known = Known::of(checkpoint, known.changed);
        }
    }

    /// Looks at the store. A checkpoint that cannot be read stays known, so that it is shown as blocked; one that is
    /// `held` (its twin is on the node) stays known when it left the store.
    pub fn refresh(&mut self, store: &Store, held: impl Fn(&Key) -> bool) -> Result<(), store::Error> {
        let keys = store.keys()?;
        self.known.retain(|key, known| {
            known.in_store &= keys.binary_search(key).is_ok();
            known.in_store || held(key)
        });
        for key in keys {
            let directory: PathBuf = store.directory().join(CHECKPOINTS).join(key.file_form());
            let changed = fs::metadata(&directory).and_then(|metadata| metadata.modified()).ok();
            if self.known.get(&key).is_some_and(|known| known.in_store && known.changed == changed) {
                continue;
            }
            let (newest, bad) = store.newest(&key)?;
            for error in &bad {
                tracing::warn!(error = error as &dyn std::error::Error, "a checkpoint cannot be used");
            }
            let header = bad.iter().find_map(store::Error::header);
            let known = match newest {
                Some(generation) => Known::of(&generation.checkpoint, changed),
                // sealed, without its key: what stands in clear is enough to say so
                None => Known {
                    policy: header.map_or_else(unknown_policy, |header| header.policy.clone()),
                    parent_uid: header.map(|header| header.parent.uid.clone()).unwrap_or_default(),
                    priority: 0,
                    containers: Vec::new(),
                    init_containers: Vec::new(),
                    changed,
                    in_store: true,
                },
            };
            self.known.insert(key, known);
        }
        Ok(())
    }
}

/// Whether this kubelet process made a container for a pod of the API server: one that was not there when it owned no such
/// pod. A supervisor that came later than the kubelet's first pods does not know.
#[derive(Debug, Default)]
pub struct Made {
    before: Option<BTreeSet<String>>,
    seen: bool,
}

impl Made {
    /// Takes in what a pass listed. `owned`: what the kubelet owns, listed after that; `None`: it did not answer.
    pub fn look(&mut self, lists: Option<&Lists>, owned: Option<&Owned>, node_name: &str) -> Seen {
        let Some(owned) = owned else {
            // another process may be next
            *self = Self::default();
            return Seen::Unknown;
        };
        let Some(lists) = lists else { return self.answer() };
        let api = |sandbox: &&Sandbox| sandbox.ready && source(sandbox) == Some("api");
        let sandboxes: BTreeSet<&str> = lists.sandboxes.iter().filter(api).map(|it| it.id.as_str()).collect();
        let containers = lists.containers.iter().filter(|it| sandboxes.contains(it.sandbox.as_str()));
        let ids: BTreeSet<String> = containers.map(|it| it.id.clone()).collect();
        if !is_synced(owned, node_name) {
            *self = Self { before: Some(ids), seen: false };
        } else if let Some(before) = &self.before {
            self.seen |= ids.iter().any(|id| !before.contains(id));
        }
        self.answer()
    }

    fn answer(&self) -> Seen {
        match self.before {
            _ if self.seen => Seen::Yes,
            Some(_) => Seen::No,
            None => Seen::Unknown,
        }
    }
}

/// What is known of one pod, from what was listed. `twin_uid` is the UID that is linked or was.
#[allow(clippy::too_many_arguments)]
pub fn pod_facts(
    key: &PodId,
    known: &Known,
    node_name: &str,
    lists: Option<&Lists>,
    owned: Option<&Owned>,
    agent: Option<&AgentWord>,
    twin_uid: Option<&str>,
    exclusive_host_ports: bool,
) -> PodFacts {
    let (namespace, name) = (key.namespace(), key.name());
    let owns =
        |pod: String| owned.map_or(Seen::Unknown, |owned| owned.pods.contains(&(namespace.to_owned(), pod)).into());
    let mut facts = PodFacts {
        in_store: known.in_store,
        priority: known.priority,
        parent_owned: owns(name.to_owned()),
        twin_owned: owns(twin_name(name, node_name)),
        ..PodFacts::of(&known.policy, exclusive_host_ports)
    };
    if let Some(lists) = lists {
        let is_parent = |sandbox: &&Sandbox| {
            sandbox.namespace == namespace && sandbox.name == name && source(sandbox) != Some("file")
        };
        let is_twin = |sandbox: &&Sandbox| is_twin_of(sandbox, namespace, name);
        facts.parent = run(lists, &known.containers, is_parent);
        facts.twin = run(lists, &known.containers, is_twin);
        facts.parent_container = has_container(lists, &known.containers, is_parent).into();
        facts.parent_sandbox = lists.sandboxes.iter().any(|sandbox| sandbox.ready && is_parent(&sandbox)).into();
        let ours = |sandbox: &Sandbox| sandbox.ready && Some(sandbox.uid.as_str()) == twin_uid;
        facts.twin_sandbox = lists.sandboxes.iter().any(ours).into();
    }
    if let Some(agent) = agent {
        facts.parent_ready = is_ready(agent.ready.get(key), lists, namespace, name).into();
        let is_rejected = agent.rejected.get(key).is_some_and(|uid| *uid == known.parent_uid);
        // its owner may have replaced it since
        facts.parent_rejected = if agent.unheard { Seen::Unknown } else { is_rejected.into() };
        facts.parent_gone = agent.gone.get(key).is_some_and(|uid| *uid == known.parent_uid);
    }
    facts
}

/// The agent's word counts for the very containers that run: a word from before the outage does not.
fn is_ready(ready: Option<&Vec<String>>, lists: Option<&Lists>, namespace: &str, name: &str) -> bool {
    let (Some(ready), Some(lists)) = (ready, lists) else { return false };
    let parent = |sandbox: &&Sandbox| {
        sandbox.ready && sandbox.namespace == namespace && sandbox.name == name && source(sandbox) != Some("file")
    };
    lists.sandboxes.iter().filter(parent).any(|sandbox| {
        let mut ids = ready.iter();
        !ready.is_empty()
            && ids.all(|id| {
                lists.containers.iter().any(|container| {
                    container.id == *id && container.sandbox == sandbox.id && container.state == State::Running
                })
            })
    })
}

/// The name that the kubelet gives a static pod (pkg/kubelet/config/common.go).
pub fn twin_name(name: &str, node_name: &str) -> String {
    format!("{name}-{}", node_name.to_lowercase())
}

/// A sandbox of a twin of this pod, whatever its UID.
pub fn is_twin_of(sandbox: &Sandbox, namespace: &str, name: &str) -> bool {
    let of = sandbox.annotations.get(CHECKPOINT_OF).and_then(|of| of.split_once('/'));
    of == Some((namespace, name)) && sandbox.namespace == namespace && source(sandbox) == Some("file")
}

/// Does the kubelet own a pod that did not come from a file? Its name lacks the node's.
pub fn is_synced(owned: &Owned, node_name: &str) -> bool {
    let suffix = format!("-{}", node_name.to_lowercase());
    owned.pods.iter().any(|(_, name)| !name.ends_with(&suffix))
}

/// A container that is not an init container was made in a sandbox that is ready.
fn has_container(lists: &Lists, expected: &[String], belongs: impl Fn(&&Sandbox) -> bool) -> bool {
    let ready: Vec<&Sandbox> = lists.sandboxes.iter().filter(belongs).filter(|sandbox| sandbox.ready).collect();
    lists.containers.iter().any(|container| {
        expected.contains(&container.name) && ready.iter().any(|sandbox| sandbox.id == container.sandbox)
    })
}

fn priority(manifest: &Value) -> i32 {
    let priority = manifest.pointer("/spec/priority").and_then(Value::as_i64);
    priority.and_then(|priority| priority.try_into().ok()).unwrap_or_default()
}

fn source(sandbox: &Sandbox) -> Option<&str> {
    sandbox.annotations.get(CONFIG_SOURCE).map(String::as_str)
}

fn run(lists: &Lists, expected: &[String], belongs: impl Fn(&&Sandbox) -> bool) -> Run {
    let sandboxes: Vec<&Sandbox> = lists.sandboxes.iter().filter(belongs).collect();
    let containers: Vec<&Container> = lists
        .containers
        .iter()
        .filter(|container| sandboxes.iter().any(|sandbox| sandbox.id == container.sandbox))
        .collect();
    if containers.iter().any(|container| container.state == State::Unknown) {
        return Run::Unknown;
    }
    let running =
        |name: &String| containers.iter().any(|container| container.name == *name && container.state == State::Running);
    let ready = sandboxes.iter().any(|sandbox| sandbox.ready);
    if ready && !expected.is_empty() && expected.iter().all(running) {
        Run::Running
    } else if ready || containers.iter().any(|container| container.state == State::Running) {
        Run::Partial
    } else {
        Run::Stopped
    }
}

/// The uid of a manifest in force.
pub fn manifest_uid(manifest: &Value) -> Option<String> {
    manifest.pointer("/metadata/uid").and_then(Value::as_str).map(str::to_owned)
}

/// Reads a manifest in force; `None`: there is none.
pub fn read_manifest(path: &std::path::Path) -> io::Result<Option<Value>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::id::id;

    fn sandbox(id: &str, name: &str, uid: &str, source: &str, ready: bool) -> Sandbox {
        let mut annotations = BTreeMap::from([(CONFIG_SOURCE.to_owned(), source.to_owned())]);
        if source == "file" {
            annotations.insert(CHECKPOINT_OF.into(), "shop/till".into());
        }
        let (id, name, uid) = (id.into(), name.into(), uid.into());
        Sandbox { id, namespace: "shop".into(), name, uid, ready, annotations, ..Sandbox::default() }
    }

    fn container(sandbox: &str, name: &str, state: State) -> Container {
        Container { sandbox: sandbox.into(), name: name.into(), state, ..Container::default() }
    }

    fn facts(lists: Option<&Lists>, owned: Option<&Owned>) -> PodFacts {
        let checkpoint = crate::checkpoint::testing::checkpoint("shop", "till");
        pod_facts(&id("shop_till"), &Known::of(&checkpoint, None), "Node-1", lists, owned, None, Some("twin"), false)
    }

    #[test]
    fn what_could_not_be_asked_is_unknown() {
        let seen = facts(None, None);
        assert_eq!((seen.parent, seen.twin, seen.parent_owned), (Run::Unknown, Run::Unknown, Seen::Unknown));
        assert_eq!((seen.twin_sandbox, seen.parent_container), (Seen::Unknown, Seen::Unknown));
    }

    #[test]
    fn parent_and_twin_are_told_apart_by_source_and_annotation() {
        let lists = Lists {
            sandboxes: vec![
                sandbox("p", "till", "parent", "api", true),
                sandbox("t", "till-node-1", "twin", "file", true),
            ],
            containers: vec![container("p", "app", State::Exited), container("t", "app", State::Running)],
        };
        let seen = facts(Some(&lists), None);
        assert_eq!((seen.parent, seen.twin, seen.twin_sandbox), (Run::Partial, Run::Running, Seen::Yes));
    }

    #[test]
    fn a_parent_under_another_uid_counts_as_the_parent() {
        let lists = Lists {
            sandboxes: vec![sandbox("p", "till", "successor", "api", true)],
            containers: vec![container("p", "app", State::Running)],
        };
        assert_eq!(facts(Some(&lists), None).parent, Run::Running);
    }

    #[test]
    fn a_parent_that_has_but_a_sandbox_may_wait_for_the_api_server_still() {
        let mut lists = Lists { sandboxes: vec![sandbox("p", "till", "parent", "api", true)], containers: Vec::new() };
        assert_eq!(facts(Some(&lists), None).parent_container, Seen::No);
        lists.containers.push(container("p", "some-init", State::Exited));
        assert_eq!(facts(Some(&lists), None).parent_container, Seen::No);
        lists.containers.push(container("p", "app", State::Created));
        assert_eq!(facts(Some(&lists), None).parent_container, Seen::Yes);
        lists.sandboxes[0].ready = false;
        assert_eq!(facts(Some(&lists), None).parent_container, Seen::No, "a record of the last boot");
    }

    #[test]
    fn a_container_made_since_the_kubelet_owned_no_api_pod_shows_that_it_makes_them() {
        let owned = |name: &str| Owned { pid: 1, pods: [("shop".to_owned(), name.to_owned())].into() };
        let (alone, synced) = (owned("till-node-1"), owned("till"));
        let mut lists = Lists {
            sandboxes: vec![
                sandbox("p", "till", "parent", "api", true),
                sandbox("t", "till-node-1", "twin", "file", true),
            ],
            containers: vec![container("p", "app", State::Running)],
        };
        lists.containers[0].id = "of-the-last-kubelet".into();
        let mut made = Made::default();
        let mut look = |lists: Option<&Lists>, owned: Option<&Owned>| made.look(lists, owned, "node-1");
        assert_eq!(look(Some(&lists), Some(&synced)), Seen::Unknown, "nobody saw what was there before");
        assert_eq!(look(Some(&lists), Some(&alone)), Seen::No);
        assert_eq!(look(Some(&lists), Some(&synced)), Seen::No);
        lists.containers.push(Container { id: "of-the-twin".into(), ..container("t", "app", State::Running) });
        assert_eq!(look(Some(&lists), Some(&synced)), Seen::No);
        lists.containers.push(Container { id: "new".into(), ..container("p", "app", State::Created) });
        assert_eq!(look(None, Some(&synced)), Seen::No, "the runtime did not tell");
        assert_eq!(look(Some(&lists), Some(&synced)), Seen::Yes);
        assert_eq!(look(None, Some(&synced)), Seen::Yes);
        assert_eq!(look(Some(&lists), None), Seen::Unknown, "the next kubelet is another one");
        assert_eq!(look(Some(&lists), Some(&synced)), Seen::Unknown);
    }

    #[test]
    fn dead_sandboxes_of_the_last_boot_count_for_nothing() {
        let lists = Lists {
            sandboxes: vec![sandbox("p", "till", "parent", "api", false)],
            containers: vec![container("p", "app", State::Exited)],
        };
        assert_eq!(facts(Some(&lists), None).parent, Run::Stopped);
    }

    #[test]
    fn the_agents_word_counts_for_the_containers_that_run_now() {
        let mut lists = Lists {
            sandboxes: vec![sandbox("p", "till", "parent", "api", true)],
            containers: vec![container("p", "app", State::Running)],
        };
        lists.containers[0].id = "new".into();
        let ready = |id: &str| is_ready(Some(&vec![id.to_owned()]), Some(&lists), "shop", "till");
        assert!(ready("new"));
        assert!(!ready("old"), "Ready by a word from before the outage");
        assert!(!is_ready(Some(&Vec::new()), Some(&lists), "shop", "till"));
        assert!(!is_ready(None, Some(&lists), "shop", "till"));
    }

    #[test]
    fn who_is_refused_is_unknown_while_the_agent_hears_nothing() {
        let checkpoint = crate::checkpoint::testing::checkpoint("shop", "till");
        let known = Known::of(&checkpoint, None);
        let rejected = |uid: &str, unheard| {
            let rejected = BTreeMap::from([(id("shop_till"), uid.to_owned())]);
            let word = AgentWord { rejected, unheard, ..AgentWord::default() };
            pod_facts(&id("shop_till"), &known, "node-1", None, None, Some(&word), None, false).parent_rejected
        };
        assert_eq!(rejected(&known.parent_uid, false), Seen::Yes);
        assert_eq!(rejected("its predecessor", false), Seen::No);
        assert_eq!(rejected(&known.parent_uid, true), Seen::Unknown, "its owner may have replaced it since");
        assert_eq!(rejected("its predecessor", true), Seen::Unknown, "or the kubelet refused it since");
    }

    #[test]
    fn the_kubelet_lists_a_twin_under_its_name_with_the_nodes() {
        let pods = [("shop".to_owned(), "till-node-1".to_owned())].into();
        let seen = facts(None, Some(&Owned { pid: 1, pods }));
        assert_eq!((seen.parent_owned, seen.twin_owned), (Seen::No, Seen::Yes));
    }
}
