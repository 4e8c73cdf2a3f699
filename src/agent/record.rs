//! `node.yaml`: what the supervisor must know and only the API server and the kubelet can tell.

use std::time::Duration;

use tokio::time::Instant;

use crate::checkpoint::format::API_VERSION;
use crate::checkpoint::store::{NodeRecord, ServerRecord, Store};
use crate::node::kubelet::Server;

/// How long a node object with another UID must be seen before it is taken for this node. Until then nothing is removed:
/// a cluster that was put up anew behind the same address would otherwise have every checkpoint thrown away, within the
/// minute, by an answer that knows none of the pods.
const PATIENCE: Duration = Duration::from_hours(1);

/// The node object with another UID than the recorded one.
#[derive(Debug, Default)]
pub struct Stranger(Option<(String, Instant)>);

impl Stranger {
    /// The UID to record, given what is recorded and what the API server says.
    pub fn choose(&mut self, recorded: Option<&str>, seen: &str, now: Instant) -> String {
        let Some(recorded) = recorded.filter(|recorded| *recorded != seen && !recorded.is_empty()) else {
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

/// Makes the record from what is known: what could not be learned this time stays as it was.
pub fn make(name: &str, uid: Option<String>, servers: Option<Vec<Server>>, before: Option<NodeRecord>) -> NodeRecord {
    let (known_uid, known_servers) = before.map(|record| (record.node_uid, record.servers)).unwrap_or_default();
    let servers = servers.map_or(known_servers, |servers| servers.into_iter().map(server).collect());
    NodeRecord {
        api_version: API_VERSION.into(),
        kind: "NodeRecord".into(),
        node_name: name.into(),
        node_uid: uid.unwrap_or(known_uid),
        servers,
    }
}

/// The UID that is recorded, if any.
pub fn node_uid(store: &Store) -> Option<String> {
    store.node().ok().flatten().map(|record| record.node_uid).filter(|uid| !uid.is_empty())
}

fn server(server: Server) -> ServerRecord {
    let Server { url, ca, tls_name, proxy } = server;
    ServerRecord { url, ca, tls_name, proxy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_object_with_another_uid_is_believed_only_after_an_hour_without_a_break() {
        let mut stranger = Stranger::default();
        let start = Instant::now();
        let at = |minutes: u64| start + Duration::from_secs(minutes * 60);
        assert_eq!(stranger.choose(None, "old", at(0)), "old");
        assert_eq!(stranger.choose(Some("old"), "new", at(10)), "old");
        assert_eq!(stranger.choose(Some("old"), "old", at(20)), "old");
        assert_eq!(stranger.choose(Some("old"), "new", at(30)), "old");
        assert_eq!(stranger.choose(Some("old"), "new", at(89)), "old");
        assert_eq!(stranger.choose(Some("old"), "new", at(90)), "new");
    }

    #[test]
    fn what_could_not_be_learned_stays_as_it_was() {
        let server = |url: &str| Server { url: url.into(), ca: "ca".into(), tls_name: None, proxy: None };
        let first = make("node-1", Some("uid-1".into()), Some(vec![server("https://one")]), None);
        assert_eq!(make("node-1", None, None, Some(first.clone())), first);
        let second = make("node-1", None, Some(vec![server("https://two")]), Some(first));
        assert_eq!((second.node_uid.as_str(), second.servers[0].url.as_str()), ("uid-1", "https://two"));
    }
}
