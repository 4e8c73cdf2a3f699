//! In which order an installation is removed. Pure: what is seen in the API becomes what to do next.
//!
//! The agents are told to leave their nodes first, and they are waited for on every node that can be reached. A node that is
//! cut off is not waited for: its supervisor may be what keeps it serving, and it leaves by itself once the API server has
//! answered for an hour without an agent. The rights of the agents go last, so that each can say that it is done.

use std::collections::BTreeMap;

use crate::report::first_of;

/// The agents' DaemonSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Set {
    /// There is none, or somebody else's.
    None,
    /// Ours, and its agents do not all leave yet.
    Captures,
    /// Ours, with the number of nodes that should have an agent; `None`: its controller has not counted yet.
    Retires(Option<i32>),
}

/// One agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Agent {
    /// Its node.
    pub node: String,
    /// It leaves the node, and nothing of ours is there any more.
    pub is_done: bool,
}

/// What is seen.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The DaemonSet.
    pub set: Set,
    /// Every node that had to be left was, by an earlier look: nothing of it is asked again.
    pub swept: bool,
    /// All agents.
    pub agents: Vec<Agent>,
    /// Nodes of agents that are not done: is the node's Ready condition true?
    pub reachable: BTreeMap<String, bool>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Tell the agents to leave.
    Retire,
    /// Wait; in words for what.
    Wait(String),
    /// Delete everything; in words, what is left behind.
    Delete(Option<String>),
}

/// Nodes that are named in a message.
const NAMED: usize = 5;

/// Decides.
pub(crate) fn next(seen: &Seen) -> Next {
    let Seen { set, swept, agents, reachable } = seen;
    let desired = match set {
        _ if *swept => return Next::Delete(None),
        // also where it was deleted by hand: the nodes are to be left all the same
        Set::None | Set::Captures => return Next::Retire,
        Set::Retires(None) => return Next::Wait("the controller of DaemonSets has not taken notice yet".into()),
        Set::Retires(Some(desired)) => usize::try_from(*desired).unwrap_or_default(),
    };
    let open = || agents.iter().filter(|agent| !agent.is_done).map(|agent| agent.node.as_str());
    let is_reachable = |node: &&str| reachable.get(*node).copied().unwrap_or_default();
    let (mut waited, mut cut_off): (Vec<&str>, Vec<&str>) = open().partition(is_reachable);
    for nodes in [&mut waited, &mut cut_off] {
        nodes.sort_unstable();
        nodes.dedup();
    }
    let behind = (!cut_off.is_empty())
        .then(|| format!("cut off, and left by their supervisors an hour after they are back: {}", named(&cut_off)));
    if !waited.is_empty() {
        let behind = behind.map(|behind| format!("; not waited for: {behind}")).unwrap_or_default();
        return Next::Wait(format!("{} of {desired} nodes are not left yet: {}{behind}", waited.len(), named(&waited)));
    }
    if agents.len() < desired {
        return Next::Wait(format!(
            "{} of {desired} nodes have no agent at the moment that would leave them",
            desired - agents.len()
        ));
    }
    Next::Delete(behind)
}

fn named(nodes: &[&str]) -> String {
    first_of(nodes, NAMED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(agents: &[(&str, bool, bool)]) -> Seen {
        Seen {
            set: Set::Retires(i32::try_from(agents.len()).ok()),
            swept: false,
            agents: agents.iter().map(|(node, is_done, _)| Agent { node: (*node).into(), is_done: *is_done }).collect(),
            reachable: agents.iter().map(|(node, _, reachable)| ((*node).into(), *reachable)).collect(),
        }
    }

    #[test]
    fn agents_are_told_to_leave_before_anything_is_deleted_even_where_the_daemon_set_is_gone() {
        let first = seen(&[("a", true, true)]);
        for set in [Set::None, Set::Captures] {
            assert_eq!(next(&Seen { set, ..first.clone() }), Next::Retire);
        }
        assert!(matches!(next(&Seen { set: Set::Retires(None), ..first.clone() }), Next::Wait(_)));
        assert_eq!(next(&first), Next::Delete(None));
        assert_eq!(next(&Seen { set: Set::None, swept: true, ..first }), Next::Delete(None));
    }

    #[test]
    fn a_node_that_can_be_reached_is_waited_for_and_one_that_is_cut_off_is_not() {
        let Next::Wait(message) = next(&seen(&[("a", false, true), ("b", false, false), ("c", true, true)])) else {
            panic!("does not wait")
        };
        assert_eq!(
            message,
            "1 of 3 nodes are not left yet: a; not waited for: cut off, and left by their supervisors an hour after they are back: b"
        );
        let Next::Delete(Some(behind)) = next(&seen(&[("b", false, false), ("c", true, true)])) else {
            panic!("waits for a node that is cut off")
        };
        assert!(behind.ends_with(": b"), "{behind}");
        let unknown = Seen { reachable: BTreeMap::new(), ..seen(&[("a", false, true)]) };
        assert!(matches!(next(&unknown), Next::Delete(Some(_))), "a node object that is gone");
    }

    #[test]
    fn a_node_whose_agent_is_just_being_replaced_is_waited_for() {
        let replaced = Seen { set: Set::Retires(Some(2)), ..seen(&[("a", true, true)]) };
        assert!(matches!(next(&replaced), Next::Wait(_)));
        assert_eq!(next(&Seen { set: Set::Retires(Some(0)), ..seen(&[]) }), Next::Delete(None), "no nodes at all");
    }

    #[test]
    fn many_nodes_are_not_all_named() {
        let nodes: Vec<String> = (0..30).map(|at| format!("node-{at:02}")).collect();
        let agents: Vec<_> = nodes.iter().map(|node| (node.as_str(), false, true)).collect();
        let Next::Wait(message) = next(&seen(&agents)) else { panic!("does not wait") };
        assert!(message.contains("30 of 30") && message.ends_with("node-04 and 25 more"), "{message}");
    }
}
