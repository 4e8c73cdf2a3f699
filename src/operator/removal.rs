//! In which order an installation is removed. Pure: from what is seen in the API it follows what to
//! do next.
//!
//! First the agents leave their nodes, and every node that can be reached is waited for. A node
//! that is cut off is not: its supervisor may be all that keeps it serving, and leaves the node by
//! itself once the API server has answered for an hour without an agent. The agents' rights are
//! removed last, so that each agent can report that it is done.

use std::collections::BTreeMap;

use crate::text::first_of;

/// Nodes that are named in a message; the others are counted.
const NAMED_NODES: usize = 5;

/// The agents' DaemonSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AgentSet {
    /// There is none, or the object of this name does not belong to this installation.
    Absent,
    /// Not all of its agents are asked to leave their nodes yet.
    Captures,
    /// Its agents are asked to leave their nodes. The number is that of the nodes that should have
    /// an agent; `None`: the DaemonSet controller has not counted them yet.
    Retires(Option<i32>),
}

/// An agent on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Agent {
    /// Name of the node.
    pub node: String,
    /// It was asked to leave the node, and nothing of the program is there any more but this agent.
    pub is_done: bool,
}

/// How far the removal is.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// The DaemonSet.
    pub set: AgentSet,
    /// In an earlier round every node that has to be waited for was left: the nodes are not looked
    /// at again.
    pub nodes_left: bool,
    /// All agents.
    pub agents: Vec<Agent>,
    /// The nodes of agents that are not done: is the node's condition Ready true?
    pub reachable: BTreeMap<String, bool>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Ask the agents to leave their nodes.
    Retire,
    /// Wait; the text says for what.
    Wait(String),
    /// Delete every object; the text says which nodes are not waited for.
    Delete(Option<String>),
}

/// What to do next, with the removal this far.
pub(crate) fn next(progress: &Progress) -> Next {
    let Progress {
        set,
        nodes_left,
        agents,
        reachable,
    } = progress;
    let desired = match set {
        _ if *nodes_left => return Next::Delete(None),
        // also where it was deleted by hand: its agents have not left their nodes
        AgentSet::Absent | AgentSet::Captures => return Next::Retire,
        AgentSet::Retires(None) => {
            return Next::Wait("the DaemonSet controller has not counted the nodes yet".into());
        }
        AgentSet::Retires(Some(desired)) => usize::try_from(*desired).unwrap_or_default(),
    };
    let open = agents
        .iter()
        .filter(|agent| !agent.is_done)
        .map(|agent| agent.node.as_str());
    let is_reachable = |node: &&str| reachable.get(*node).copied().unwrap_or_default();
    let (mut waited, mut cut_off): (Vec<&str>, Vec<&str>) = open.partition(is_reachable);
    for nodes in [&mut waited, &mut cut_off] {
        nodes.sort_unstable();
        nodes.dedup();
    }
    let not_waited = (!cut_off.is_empty()).then(|| {
        let nodes = first_of(&cut_off, NAMED_NODES);
        format!(
            "nodes that are cut off, which their supervisors leave an hour after the API server answers again: {nodes}"
        )
    });
    if !waited.is_empty() {
        let (number, nodes) = (waited.len(), first_of(&waited, NAMED_NODES));
        let not_waited = not_waited
            .map(|nodes| format!("; not waiting for {nodes}"))
            .unwrap_or_default();
        return Next::Wait(format!(
            "waiting for agents to leave {number} of {desired} nodes: {nodes}{not_waited}"
        ));
    }
    if agents.len() < desired {
        let missing = desired - agents.len();
        return Next::Wait(format!(
            "waiting for an agent to start on {missing} of {desired} nodes, to leave them"
        ));
    }
    Next::Delete(not_waited)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(agents: &[(&str, bool, bool)]) -> Progress {
        Progress {
            set: AgentSet::Retires(i32::try_from(agents.len()).ok()),
            nodes_left: false,
            agents: agents
                .iter()
                .map(|(node, is_done, _)| Agent {
                    node: (*node).into(),
                    is_done: *is_done,
                })
                .collect(),
            reachable: agents
                .iter()
                .map(|(node, _, reachable)| ((*node).into(), *reachable))
                .collect(),
        }
    }

    #[test]
    fn agents_are_asked_to_leave_before_anything_is_deleted_even_where_the_daemon_set_is_gone() {
        let first = progress(&[("a", true, true)]);
        for set in [AgentSet::Absent, AgentSet::Captures] {
            assert_eq!(
                next(&Progress {
                    set,
                    ..first.clone()
                }),
                Next::Retire
            );
        }
        assert!(matches!(
            next(&Progress {
                set: AgentSet::Retires(None),
                ..first.clone()
            }),
            Next::Wait(_)
        ));
        assert_eq!(next(&first), Next::Delete(None));
        assert_eq!(
            next(&Progress {
                set: AgentSet::Absent,
                nodes_left: true,
                ..first
            }),
            Next::Delete(None)
        );
    }

    #[test]
    fn a_node_that_can_be_reached_is_waited_for_and_one_that_is_cut_off_is_not() {
        let Next::Wait(message) = next(&progress(&[
            ("a", false, true),
            ("b", false, false),
            ("c", true, true),
        ])) else {
            panic!("does not wait")
        };
        assert_eq!(
            message,
            "waiting for agents to leave 1 of 3 nodes: a; not waiting for nodes that are cut off, which their supervisors \
             leave an hour after the API server answers again: b"
        );
        let Next::Delete(Some(behind)) = next(&progress(&[("b", false, false), ("c", true, true)]))
        else {
            panic!("waits for a node that is cut off")
        };
        assert!(behind.ends_with(": b"), "{behind}");
        let unknown = Progress {
            reachable: BTreeMap::new(),
            ..progress(&[("a", false, true)])
        };
        assert!(
            matches!(next(&unknown), Next::Delete(Some(_))),
            "a node object that is gone"
        );
    }

    #[test]
    fn a_node_whose_agent_is_just_being_replaced_is_waited_for() {
        let replaced = Progress {
            set: AgentSet::Retires(Some(2)),
            ..progress(&[("a", true, true)])
        };
        assert!(matches!(next(&replaced), Next::Wait(_)));
        assert_eq!(
            next(&Progress {
                set: AgentSet::Retires(Some(0)),
                ..progress(&[])
            }),
            Next::Delete(None),
            "no nodes at all"
        );
    }

    #[test]
    fn many_nodes_are_not_all_named() {
        let nodes: Vec<String> = (0..30).map(|at| format!("node-{at:02}")).collect();
        let agents: Vec<_> = nodes
            .iter()
            .map(|node| (node.as_str(), false, true))
            .collect();
        let Next::Wait(message) = next(&progress(&agents)) else {
            panic!("does not wait")
        };
        assert!(
            message.contains("30 of 30") && message.ends_with("node-04 and 25 more"),
            "{message}"
        );
    }
}
