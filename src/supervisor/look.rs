//! One look at the node: everything that a decision may need, each queried once.

use std::collections::BTreeMap;
use std::fs;
use std::time::SystemTime;

use crate::names::CHECKPOINTS;
use crate::node::kubelet;
use crate::places::reports::{AGENT, AgentReport};
use crate::places::run::RunDir;
use crate::places::store::{self, Store};
use crate::supervisor::core::KubeletAnswer;
use crate::supervisor::core::facts::Key;
use crate::supervisor::core::known::{Known, Stored};
use crate::supervisor::core::observe::Lists;
use crate::supervisor::reach::Reach;
use crate::text::chain;

/// What a look found.
#[derive(Debug, Default)]
pub struct Found {
    /// What the store has.
    pub stored: Stored,
    /// What the runtime lists; `None`: it did not answer.
    pub lists: Option<Lists>,
    /// What the kubelet owns.
    pub kubelet: KubeletAnswer,
    /// What could not be learned, by topic.
    pub problems: [(&'static str, Option<String>); 3],
}

/// What is remembered between looks, so that nothing is read twice.
pub struct Looker {
    store: Store,
    run: RunDir,
    /// When each pod's directory in the store was last changed, as of when it was read.
    read: BTreeMap<Key, Option<SystemTime>>,
    /// Every pod that has a checkpoint, as of the last look that succeeded.
    stored: Stored,
    /// What the agent last reported.
    pub agent: Option<AgentReport>,
}

impl Looker {
    /// Has not looked at anything yet.
    pub fn new(store: Store, run: RunDir) -> Self {
        Self {
            store,
            run,
            read: BTreeMap::new(),
            stored: Stored::default(),
            agent: None,
        }
    }

    /// Asks the store, the runtime, the kubelet and the agent's file.
    pub async fn look(&mut self, reach: &mut Reach) -> Found {
        let store = self.read_store().err();
        let stored = Stored {
            keys: self.stored.keys.clone(),
            changed: std::mem::take(&mut self.stored.changed),
        };
        let lists = reach.lists().await;
        // the kubelet last: what it owns must be current when the decision is made, even if the
        // runtime hung for a while
        let (kubelet, silence) = match reach.owned().await {
            Ok(owned) => (KubeletAnswer::Owns(owned), None),
            Err(error @ kubelet::Error::Down(..)) => (KubeletAnswer::Down, Some(error)),
            Err(error) => (KubeletAnswer::Unknown, Some(error)),
        };
        match self.run.read::<AgentReport>(AGENT) {
            Ok(agent) => self.agent = agent,
            // its earlier report still counts
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the agent's report cannot be read"
                );
            }
        }
        let problems = [
            ("store", store.map(|error| chain(&error))),
            ("runtime", lists.as_ref().err().cloned()),
            ("kubelet", silence.map(|error| chain(&error))),
        ];
        Found {
            stored,
            lists: lists.ok(),
            kubelet,
            problems,
        }
    }

    /// Reads the checkpoints whose directory changed.
    fn read_store(&mut self) -> Result<(), store::Error> {
        self.stored.keys = self.store.keys()?.into_iter().collect();
        let keys = &self.stored.keys;
        self.read.retain(|key, _| keys.contains(key));
        for key in keys {
            let directory = self
                .store
                .directory()
                .join(CHECKPOINTS)
                .join(key.file_form());
            let changed = fs::metadata(&directory)
                .and_then(|metadata| metadata.modified())
                .ok();
            if self.read.get(key).is_some_and(|read| *read == changed) {
                continue;
            }
            let (newest, bad) = self.store.newest(key)?;
            for error in &bad {
                tracing::warn!(
                    error = error as &dyn std::error::Error,
                    "a checkpoint cannot be used"
                );
            }
            let clear = bad.iter().find_map(store::Error::header);
            let known = match newest {
                Some(generation) => Known::of(&generation.checkpoint),
                None => Known::unreadable(
                    clear.map(|header| (&header.policy, header.parent.uid.as_str())),
                ),
            };
            self.stored.changed.insert(key.clone(), known);
            self.read.insert(key.clone(), changed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::testing::checkpoint;
    use crate::pod::id::id;

    #[test]
    fn a_checkpoint_is_read_again_only_when_its_directory_changed() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().join("state"));
        store.create().unwrap();
        let mut looker = Looker::new(
            store.clone(),
            RunDir::new(directory.path().join("run"), "/run/pod-checkpointer"),
        );
        store.put(&checkpoint("shop", "till")).unwrap();
        let mut changed = || {
            looker.read_store().unwrap();
            let changed: Vec<Key> = std::mem::take(&mut looker.stored.changed)
                .into_keys()
                .collect();
            (looker.stored.keys.len(), changed)
        };
        assert_eq!(changed(), (1, vec![id("shop_till")]));
        assert_eq!(changed(), (1, vec![]));
        store.put(&checkpoint("shop", "ledger")).unwrap();
        assert_eq!(changed(), (2, vec![id("shop_ledger")]));
        store.remove(&id("shop_till")).unwrap();
        assert_eq!(changed(), (1, vec![]));
        store.put(&checkpoint("shop", "till")).unwrap();
        assert_eq!(
            changed(),
            (2, vec![id("shop_till")]),
            "it is removed in between"
        );
    }
}
