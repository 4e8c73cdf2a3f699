//! `node.yaml`: what the supervisor must know and only the API server and the kubelet can provide.

use std::time::Duration;

use tokio::time::Instant;

use crate::checkpoint::format::API_VERSION;
use crate::node::kubelet::Server;
use crate::places::node_record::{NodeRecord, ServerRecord};
use crate::places::store::Store;
use crate::pod::room::Amounts;

/// How long a node object with another UID must be seen before it is recorded as this node. No
/// checkpoint is removed until then: otherwise a cluster that was set up again at the same address,
/// which knows none of the pods, would cause the loss of every checkpoint within a minute.
const PATIENCE: Duration = Duration::from_hours(1);

/// A node object with another UID than the recorded one, and since when it is there.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReplacedNode(Option<(String, Instant)>);

impl ReplacedNode {
    /// The UID to record, given what is recorded and what the API server says.
    pub(crate) fn choose(&mut self, recorded: Option<&str>, seen: &str, now: Instant) -> String {
        let Some(recorded) = recorded.filter(|recorded| *recorded != seen && !recorded.is_empty())
        else {
            self.0 = None;
            return seen.to_owned();
        };
        match &self.0 {
            Some((uid, since)) if uid == seen => {
                if now.duration_since(*since) < PATIENCE {
                    return recorded.to_owned();
                }
                self.0 = None;
                seen.to_owned()
            }
            _ => {
                self.0 = Some((seen.to_owned(), now));
                recorded.to_owned()
            }
        }
    }
}

/// What could be learned about the node this time.
#[derive(Debug, Default)]
pub(crate) struct Learned {
    /// UID to record, and the UID of its object now.
    pub uid: Option<(String, String)>,
    /// What the kubelet may give to pods.
    pub allocatable: Option<Amounts>,
    /// API servers.
    pub servers: Option<Vec<Server>>,
}

/// Makes the record from what is known: what could not be learned this time stays as it was.
pub(crate) fn make(name: &str, learned: Learned, before: Option<NodeRecord>) -> NodeRecord {
    let before = before.unwrap_or_else(|| NodeRecord {
        api_version: API_VERSION.into(),
        kind: "NodeRecord".into(),
        node_name: name.into(),
        node_uid: String::new(),
        current_uid: None,
        allocatable: None,
        servers: Vec::new(),
    });
    let (node_uid, current_uid) = match learned.uid {
        Some((recorded, current)) => (recorded.clone(), (current != recorded).then_some(current)),
        None => (before.node_uid, before.current_uid),
    };
    NodeRecord {
        api_version: API_VERSION.into(),
        node_name: name.into(),
        node_uid,
        current_uid,
        allocatable: learned.allocatable.or(before.allocatable),
        servers: learned.servers.map_or(before.servers, |servers| {
            servers.into_iter().map(ServerRecord::from).collect()
        }),
        kind: before.kind,
    }
}

/// The UID of the node object as the API server last named it, if it ever did.
pub(crate) fn current_uid(store: &Store) -> Option<String> {
    store
        .node()
        .ok()
        .flatten()
        .and_then(|record| record.current_uid().map(str::to_owned))
}

/// The UID that is recorded, if any.
pub(crate) fn node_uid(store: &Store) -> Option<String> {
    store
        .node()
        .ok()
        .flatten()
        .map(|record| record.node_uid)
        .filter(|uid| !uid.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_object_with_another_uid_is_recorded_only_after_an_uninterrupted_hour() {
        let mut replaced = ReplacedNode::default();
        let start = Instant::now();
        let at = |minutes: u64| start + Duration::from_secs(minutes * 60);
        assert_eq!(replaced.choose(None, "old", at(0)), "old");
        assert_eq!(replaced.choose(Some("old"), "new", at(10)), "old");
        assert_eq!(replaced.choose(Some("old"), "old", at(20)), "old");
        assert_eq!(replaced.choose(Some("old"), "new", at(30)), "old");
        assert_eq!(replaced.choose(Some("old"), "new", at(89)), "old");
        assert_eq!(replaced.choose(Some("old"), "new", at(90)), "new");
    }

    #[test]
    fn what_could_not_be_learned_stays_as_it_was() {
        let server = |url: &str| Server {
            url: url.into(),
            ca: "ca".into(),
            tls_name: None,
            proxy: None,
        };
        let uid = |recorded: &str, current: &str| Some((recorded.to_owned(), current.to_owned()));
        let allocatable = Some(Amounts {
            cpu: 1,
            memory: 2,
            ephemeral_storage: 3,
            pods: 4,
        });
        let all = Learned {
            uid: uid("uid-1", "uid-1"),
            allocatable,
            servers: Some(vec![server("https://one")]),
        };
        let first = make("node-1", all, None);
        assert_eq!(
            make("node-1", Learned::default(), Some(first.clone())),
            first
        );
        let other = Learned {
            servers: Some(vec![server("https://two")]),
            ..Learned::default()
        };
        let second = make("node-1", other, Some(first));
        assert_eq!(
            (second.node_uid.as_str(), second.servers[0].url.as_str()),
            ("uid-1", "https://two")
        );
        assert_eq!(
            (second.current_uid(), second.allocatable),
            (Some("uid-1"), allocatable)
        );
        let replaced = Learned {
            uid: uid("uid-1", "uid-2"),
            ..Learned::default()
        };
        let third = make("node-1", replaced, Some(second));
        assert_eq!(
            (third.node_uid.as_str(), third.current_uid()),
            ("uid-1", Some("uid-2"))
        );
        assert_eq!(
            make("node-1", Learned::default(), Some(third.clone())),
            third,
            "no newer answer"
        );
    }
}
