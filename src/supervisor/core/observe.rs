//! From what was listed to facts: pure.

use std::collections::BTreeSet;

use crate::names::{CHECKPOINT_OF, CONFIG_SOURCE};
use crate::node::kubelet::Owned;
use crate::node::runtime::{Container, Sandbox, State};
use crate::places::reports::AgentWord;
use crate::supervisor::core::facts::{Key, PodFacts, Run, Seen, key_parts};
use crate::supervisor::core::known::Known;

/// What the runtime listed in one pass.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    /// Every sandbox.
    pub sandboxes: Vec<Sandbox>,
    /// Every container.
    pub containers: Vec<Container>,
}

/// Whether this kubelet process made a container for a pod of the API server: one that was not there when it owned no such
/// pod. A supervisor that came later than the kubelet's first pods does not know.
#[derive(Debug, Default)]
pub struct NewContainers {
    before: Option<BTreeSet<String>>,
    seen: bool,
}

impl NewContainers {
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

/// What is known of one pod, from what was listed.
pub fn pod_facts(
    key: &Key,
    known: &Known,
    node_name: &str,
    lists: Option<&Lists>,
    owned: Option<&Owned>,
    agent: Option<&AgentWord>,
    exclusive_host_ports: bool,
) -> PodFacts {
    let (namespace, name) = key_parts(key);
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
        let is_parent = |sandbox: &&Sandbox| is_parent_of(sandbox, namespace, name);
        let is_twin = |sandbox: &&Sandbox| is_twin_of(sandbox, namespace, name);
        facts.parent = run(lists, &known.containers, is_parent);
        facts.twin = run(lists, &known.containers, is_twin);
        facts.parent_container = has_container(lists, &known.containers, is_parent).into();
        facts.parent_sandbox = lists.sandboxes.iter().any(|sandbox| sandbox.ready && is_parent(&sandbox)).into();
        let ours = |sandbox: &Sandbox| sandbox.ready && Some(&sandbox.uid) == known.twin_uid.as_ref();
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
    let parent = |sandbox: &&Sandbox| sandbox.ready && is_parent_of(sandbox, namespace, name);
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

/// A sandbox of the pod itself, whatever its UID: of that name, and not from a file.
pub fn is_parent_of(sandbox: &Sandbox, namespace: &str, name: &str) -> bool {
    sandbox.namespace == namespace && sandbox.name == name && source(sandbox) != Some("file")
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

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
        let known = Known { twin_uid: Some("twin".into()), ..Known::of(&checkpoint) };
        pod_facts(&"shop_till".into(), &known, "Node-1", lists, owned, None, false)
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
        let mut made = NewContainers::default();
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
        let known = Known::of(&checkpoint);
        let rejected = |uid: &str, unheard| {
            let rejected = BTreeMap::from([("shop_till".to_owned(), uid.to_owned())]);
            let word = AgentWord { rejected, unheard, ..AgentWord::default() };
            pod_facts(&"shop_till".into(), &known, "node-1", None, None, Some(&word), false).parent_rejected
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
