//! The PodCheckpoints of the cluster, of which only what the status shows is kept. Pure.

use std::collections::BTreeMap;

use kube::api::DynamicObject;
use kube_runtime::watcher;
use serde_json::Value;

use crate::api::condition;
use crate::api::podcheckpointer::Checkpoints;

/// What is kept of a PodCheckpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Summary {
    /// The pod would come back.
    is_recoverable: bool,
    /// The pod's twin runs.
    is_active: bool,
    /// The node would keep its pods from coming back: name of the node, and the reason.
    unfit: Option<(String, String)>,
}

/// All PodCheckpoints, as their watch shows them.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// By namespace and name.
    all: BTreeMap<(String, String), Summary>,
    /// Those of a list that is still being read.
    listed: BTreeMap<(String, String), Summary>,
    is_complete: bool,
}

impl Counts {
    /// Takes an event in. True: the counts may differ from those before.
    pub(crate) fn take(&mut self, event: &watcher::Event<DynamicObject>) -> bool {
        match event {
            watcher::Event::Init => {
                self.listed.clear();
                false
            }
            watcher::Event::InitApply(object) => {
                self.listed.insert(key(object), summary(&object.data));
                false
            }
            watcher::Event::InitDone => {
                self.is_complete = true;
                self.all = std::mem::take(&mut self.listed);
                true
            }
            watcher::Event::Apply(object) => {
                let summary = summary(&object.data);
                self.all.insert(key(object), summary.clone()) != Some(summary)
            }
            watcher::Event::Delete(object) => self.all.remove(&key(object)).is_some(),
        }
    }

    /// Were all PodCheckpoints read?
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Namespace and name of each PodCheckpoint that was read.
    pub(crate) fn names(&self) -> Vec<(String, String)> {
        self.all.keys().cloned().collect()
    }

    /// Their numbers; `None`: not all were read yet.
    pub(crate) fn totals(&self) -> Option<Checkpoints> {
        let count = |is_counted: fn(&Summary) -> bool| {
            i64::try_from(self.all.values().filter(|one| is_counted(one)).count())
                .unwrap_or(i64::MAX)
        };
        let totals = || Checkpoints {
            total: count(|_| true),
            recoverable: count(|one| one.is_recoverable),
            active: count(|one| one.is_active),
        };
        self.is_complete.then(totals)
    }

    /// Nodes that would keep their pods from coming back, each with the reason that its agent
    /// gives; `None`: not all PodCheckpoints were read yet.
    pub(crate) fn unfit_nodes(&self) -> Option<BTreeMap<String, String>> {
        self.is_complete.then(|| {
            self.all
                .values()
                .filter_map(|one| one.unfit.clone())
                .collect()
        })
    }
}

fn key(object: &DynamicObject) -> (String, String) {
    let metadata = &object.metadata;
    (
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}

fn summary(object: &Value) -> Summary {
    let text = |path: &str| {
        object
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let conditions = object
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    let find = |type_: &str, status: &str| {
        let mut found = conditions
            .into_iter()
            .flatten()
            .filter(|one| one.get("type").is_some_and(|it| it == type_));
        found.find(|one| one.get("status").is_some_and(|it| it == status))
    };
    let reason = |condition: &Value| {
        condition
            .get("reason")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    Summary {
        is_recoverable: find(condition::RECOVERABLE, "True").is_some(),
        is_active: matches!(text("/status/phase"), "Active" | "Released"),
        unfit: find(condition::NODE_FIT, "False")
            .map(|condition| (text("/spec/nodeName").to_owned(), reason(condition))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checkpoint(name: &str, recoverable: &str, phase: &str) -> DynamicObject {
        serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": name},
            "status": {"phase": phase, "conditions": [{"type": "Recoverable", "status": recoverable}]},
        }))
        .unwrap()
    }

    #[test]
    fn checkpoints_are_counted_once_all_are_known_and_a_new_list_replaces_them() {
        let mut counts = Counts::default();
        let listed = |counts: &mut Counts, objects: &[DynamicObject]| {
            counts.take(&watcher::Event::Init);
            for object in objects {
                counts.take(&watcher::Event::InitApply(object.clone()));
            }
            assert_eq!(counts.totals().is_some(), counts.is_complete);
            assert!(counts.take(&watcher::Event::InitDone));
        };
        let all = [
            ("a", "True", "Inactive"),
            ("b", "False", "Blocked"),
            ("c", "True", "Active"),
            ("d", "True", "Released"),
        ];
        let all = all.map(|(name, recoverable, phase)| checkpoint(name, recoverable, phase));
        listed(&mut counts, &all);
        assert_eq!(
            counts.totals(),
            Some(Checkpoints {
                total: 4,
                recoverable: 3,
                active: 2
            })
        );
        assert!(
            !counts.take(&watcher::Event::Apply(all[0].clone())),
            "nothing that counts"
        );
        assert!(counts.take(&watcher::Event::Apply(checkpoint("c", "True", "Inactive"))));
        assert!(counts.take(&watcher::Event::Delete(all[3].clone())));
        assert_eq!(
            counts.totals(),
            Some(Checkpoints {
                total: 3,
                recoverable: 2,
                active: 0
            })
        );
        listed(&mut counts, &all[1..2]);
        assert_eq!(
            counts.totals(),
            Some(Checkpoints {
                total: 1,
                recoverable: 0,
                active: 0
            })
        );
    }
}
