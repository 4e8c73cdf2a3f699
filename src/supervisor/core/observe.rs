//! Turns what was listed into facts. Pure.

use std::collections::BTreeSet;

use crate::names::{CHECKPOINT_OF, CONFIG_SOURCE};
use crate::node::kubelet::Owned;
use crate::node::runtime::{Container, Sandbox, State};
use crate::places::reports::AgentReport;
use crate::supervisor::core::facts::{Key, PodFacts, Run, Seen};
use crate::supervisor::core::known::Known;

/// What the runtime listed in one pass.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    /// Every sandbox.
    pub sandboxes: Vec<Sandbox>,
    /// Every container.
    pub containers: Vec<Container>,
}

/// Whether this kubelet process has created a container for a pod of the API server, that is, one
/// that did not exist when it owned no such pod. A supervisor that starts after the kubelet has its
/// first pods does not know.
#[derive(Debug, Default)]
pub struct NewContainers {
    before: Option<BTreeSet<String>>,
    seen: bool,
}

impl NewContainers {
    /// Takes in what a pass listed. `owned`: what the kubelet owns, listed after that; `None`: it
    /// did not answer.
    pub fn look(&mut self, lists: Option<&Lists>, owned: Option<&Owned>, node_name: &str) -> Seen {
        let Some(owned) = owned else {
            // the next answer may come from another process
            *self = Self::default();
            return Seen::Unknown;
        };
        let Some(lists) = lists else {
            return self.answer();
        };
        let api = |sandbox: &&Sandbox| sandbox.ready && source(sandbox) == Some("api");
        let sandboxes: BTreeSet<&str> = lists
            .sandboxes
            .iter()
            .filter(api)
            .map(|it| it.id.as_str())
            .collect();
        let containers = lists
            .containers
            .iter()
            .filter(|it| sandboxes.contains(it.sandbox.as_str()));
        let ids: BTreeSet<String> = containers.map(|it| it.id.clone()).collect();
        if !is_synced(owned, node_name) {
            *self = Self {
                before: Some(ids),
                seen: false,
            };
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

/// What is known about one pod, from what was listed.
pub fn pod_facts(
    key: &Key,
    known: &Known,
    node_name: &str,
    lists: Option<&Lists>,
    owned: Option<&Owned>,
    agent: Option<&AgentReport>,
    exclusive_host_ports: bool,
) -> PodFacts {
    let (namespace, name) = (key.namespace(), key.name());
    let owns = |pod: String| {
        owned.map_or(Seen::Unknown, |owned| {
            owned.pods.contains(&(namespace.to_owned(), pod)).into()
        })
    };
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
        facts.parent_sandbox = lists
            .sandboxes
            .iter()
            .any(|sandbox| sandbox.ready && is_parent(&sandbox))
            .into();
        let ours =
            |sandbox: &Sandbox| sandbox.ready && Some(&sandbox.uid) == known.twin_uid.as_ref();
        facts.twin_sandbox = lists.sandboxes.iter().any(ours).into();
    }
    if let Some(agent) = agent {
        facts.parent_ready = is_ready(agent.ready.get(key), lists, namespace, name).into();
        let is_rejected = agent
            .rejected
            .get(key)
            .is_some_and(|uid| *uid == known.parent_uid);
        // its owner may have replaced it since
        facts.parent_rejected = if agent.unheard {
            Seen::Unknown
        } else {
            is_rejected.into()
        };
        facts.parent_gone = agent
            .gone
            .get(key)
            .is_some_and(|uid| *uid == known.parent_uid);
    }
    facts
}

/// The agent's report that a pod is Ready counts only for the containers that run now, so a report
/// from before the outage does not count.
fn is_ready(
    ready: Option<&Vec<String>>,
    lists: Option<&Lists>,
    namespace: &str,
    name: &str,
) -> bool {
    let (Some(ready), Some(lists)) = (ready, lists) else {
        return false;
    };
    let parent = |sandbox: &&Sandbox| sandbox.ready && is_parent_of(sandbox, namespace, name);
    lists.sandboxes.iter().filter(parent).any(|sandbox| {
        let mut ids = ready.iter();
        !ready.is_empty()
            && ids.all(|id| {
                lists.containers.iter().any(|container| {
                    container.id == *id
                        && container.sandbox == sandbox.id
                        && container.state == State::Running
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
    let of = sandbox
        .annotations
        .get(CHECKPOINT_OF)
        .and_then(|of| of.split_once('/'));
    of == Some((namespace, name))
        && sandbox.namespace == namespace
        && source(sandbox) == Some("file")
}

/// A sandbox of the pod itself, whatever its UID: it has the pod's name and is not from a file.
pub fn is_parent_of(sandbox: &Sandbox, namespace: &str, name: &str) -> bool {
    sandbox.namespace == namespace && sandbox.name == name && source(sandbox) != Some("file")
}

/// Does the kubelet own a pod that did not come from a file? Its name does not end in the node's.
pub fn is_synced(owned: &Owned, node_name: &str) -> bool {
    let suffix = format!("-{}", node_name.to_lowercase());
    owned.pods.iter().any(|(_, name)| !name.ends_with(&suffix))
}

/// A ready sandbox has a container that is not an init container.
fn has_container(lists: &Lists, expected: &[String], belongs: impl Fn(&&Sandbox) -> bool) -> bool {
    let ready: Vec<&Sandbox> = lists
        .sandboxes
        .iter()
        .filter(belongs)
        .filter(|sandbox| sandbox.ready)
        .collect();
    lists.containers.iter().any(|container| {
        expected.contains(&container.name)
            && ready.iter().any(|sandbox| sandbox.id == container.sandbox)
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
        .filter(|container| {
            sandboxes
                .iter()
                .any(|sandbox| sandbox.id == container.sandbox)
        })
        .collect();
    if containers
        .iter()
        .any(|container| container.state == State::Unknown)
    {
        return Run::Unknown;
    }
    let running = |name: &String| {
        containers
            .iter()
            .any(|container| container.name == *name && container.state == State::Running)
    };
    let ready = sandboxes.iter().any(|sandbox| sandbox.ready);
    if ready && !expected.is_empty() && expected.iter().all(running) {
        Run::Running
    } else if ready
        || containers
            .iter()
            .any(|container| container.state == State::Running)
    {
        Run::Partial
    } else {
        Run::Stopped
    }
}

#[cfg(test)]
#[path = "observe_tests.rs"]
mod tests;
