//! One look at the node: everything that a decision may need, each queried once.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

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

/// When a directory was last changed, its owner and mode included: seconds and nanoseconds. `None`:
/// unknown.
type Changed = Option<(i64, i64)>;

/// What is remembered between looks, so that nothing is read twice.
pub struct Looker {
    store: Store,
    run: RunDir,
    /// When each pod's directory in the store was last changed, as of when it was read.
    read: BTreeMap<Key, Changed>,
    /// Every pod that has a checkpoint, as of the last look that could list the store.
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
        let store = self.read_store();
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
            ("store", (!store.is_empty()).then(|| store.join("; "))),
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

    /// Reads the checkpoints whose directory changed. Returns what could not be read: it concerns
    /// one pod each, and every other pod is read.
    fn read_store(&mut self) -> Vec<String> {
        match self.store.keys() {
            Ok(keys) => self.stored.keys = keys.into_iter().collect(),
            Err(error) => return vec![chain(&error)],
        }
        let mut problems = Vec::new();
        self.read.retain(|key, _| self.stored.keys.contains(key));
        for key in self.stored.keys.clone() {
            let directory = self
                .store
                .directory()
                .join(CHECKPOINTS)
                .join(key.file_form());
            let changed = changed(&directory);
            if self.read.get(&key).is_some_and(|read| *read == changed) {
                continue;
            }
            let (newest, bad) = match self.store.newest(&key) {
                Ok(found) => found,
                Err(error) => {
                    problems.push(chain(&error));
                    self.cannot_read(&key, &directory);
                    continue;
                }
            };
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
            self.read.insert(key, changed);
        }
        problems
    }

    /// A pod's directory cannot be read. What was known of its checkpoint stays known, and without
    /// that it has one that cannot be read. A regular file with the name of a pod is no checkpoint.
    fn cannot_read(&mut self, key: &Key, directory: &Path) {
        if fs::symlink_metadata(directory).is_ok_and(|metadata| metadata.is_file()) {
            self.stored.keys.remove(key);
            self.read.remove(key);
        } else if self.read.insert(key.clone(), None).is_none() {
            self.stored
                .changed
                .insert(key.clone(), Known::unreadable(None));
        }
    }
}

fn changed(directory: &Path) -> Changed {
    let metadata = fs::symlink_metadata(directory).ok()?;
    Some((metadata.ctime(), metadata.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::checkpoint::testing::checkpoint;
    use crate::pod::id::id;

    /// An empty store in this directory, and what looks at it.
    fn empty(directory: &Path) -> (Store, Looker) {
        let store = Store::new(directory.join("state"));
        store.create().unwrap();
        let run = RunDir::new(directory.join("run"), "/run/pod-checkpointer");
        (store.clone(), Looker::new(store, run))
    }

    #[test]
    fn a_checkpoint_is_read_again_only_when_its_directory_changed() {
        let directory = tempfile::tempdir().unwrap();
        let (store, mut looker) = empty(directory.path());
        store.put(&checkpoint("shop", "till")).unwrap();
        let mut changed = || {
            assert_eq!(looker.read_store(), [""; 0]);
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

    #[test]
    fn a_bad_name_in_the_store_hides_no_other_pod_and_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let (store, mut looker) = empty(directory.path());
        let at = |name: &str| store.directory().join(CHECKPOINTS).join(name);
        let mode = |name: &str, mode| {
            fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        fs::write(at("aaa_file"), "").unwrap();
        fs::create_dir(at("aab_open")).unwrap();
        mode("aab_open", 0o777);
        fs::write(at("no pod's name"), "").unwrap();
        store.put(&checkpoint("shop", "till")).unwrap();
        let problems = looker.read_store();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(
            problems[0].contains("checkpoints/aaa_file") && problems[0].contains("move it"),
            "{problems:?}"
        );
        assert!(
            problems[1].contains("checkpoints/aab_open") && problems[1].contains("0700"),
            "{problems:?}"
        );
        let keys = [id("aab_open"), id("shop_till")];
        assert_eq!(
            looker.stored.keys,
            keys.clone().into(),
            "a file is no checkpoint"
        );
        let changed = std::mem::take(&mut looker.stored.changed);
        assert!(changed.keys().eq(&keys), "{changed:?}");
        assert!(changed[&keys[1]].parent_uid != changed[&keys[0]].parent_uid);

        mode("shop_till", 0o777);
        assert_eq!(looker.read_store().len(), 3);
        assert!(
            looker.stored.changed.is_empty() && looker.stored.keys.contains(&keys[1]),
            "what was known stays known"
        );
        mode("shop_till", 0o700);
        fs::remove_file(at("aaa_file")).unwrap();
        fs::remove_dir(at("aab_open")).unwrap();
        assert_eq!(looker.read_store(), [""; 0]);
        assert!(looker.stored.changed.keys().eq(&keys[1..]));
    }
}
