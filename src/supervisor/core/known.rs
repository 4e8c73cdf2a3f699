//! What is kept in memory about a checkpoint: enough to decide, nothing secret. Pure;
//! `supervisor::look` reads the store.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::checkpoint::{NodeCheckpoint, Policy};
use crate::names::{DEFAULT_START_GROUP, PARENT_UID};
use crate::supervisor::core::facts::Key;

/// What is known about one checkpoint.
#[derive(Clone, Debug)]
pub struct Known {
    /// How it is activated and handed over.
    pub policy: Policy,
    /// UID of the parent.
    pub parent_uid: String,
    /// Its priority, which decides if not all fit.
    pub priority: i32,
    /// Names of its containers that are not init containers.
    pub containers: Vec<String>,
    /// Names of its init containers, in order.
    pub init_containers: Vec<String>,
    /// It is in the store; otherwise only its twin is on the node.
    pub in_store: bool,
    /// UID of the twin that is linked, or was linked and is still on the node.
    pub twin_uid: Option<String>,
}

impl Known {
    /// From a checkpoint in the store.
    pub fn of(checkpoint: &NodeCheckpoint) -> Self {
        Self {
            policy: checkpoint.policy.clone(),
            parent_uid: checkpoint.parent.uid.clone(),
            in_store: true,
            ..Self::of_containers(&checkpoint.manifest)
        }
    }

    /// For a checkpoint in the store that cannot be read. If only its key is missing, its policy
    /// and its parent's UID are known, because they are not encrypted; otherwise assumes what is
    /// least likely to do harm.
    pub fn unreadable(clear: Option<(&Policy, &str)>) -> Self {
        let (policy, uid) = clear.unzip();
        Self {
            policy: policy.cloned().unwrap_or_else(unknown_policy),
            parent_uid: uid.unwrap_or_default().to_owned(),
            in_store: true,
            ..Self::of_containers(&Value::Null)
        }
    }

    /// For a twin on the node, from its linked manifest.
    pub fn of_manifest(manifest: &Value) -> Self {
        let text = |pointer: &str| {
            manifest
                .pointer(pointer)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let host_network = manifest
            .pointer("/spec/hostNetwork")
            .and_then(Value::as_bool)
            .unwrap_or_default();
        Self {
            policy: Policy {
                host_network,
                ..unknown_policy()
            },
            parent_uid: text(&format!(
                "/metadata/annotations/{}",
                PARENT_UID.replace('/', "~1")
            ))
            .unwrap_or_default(),
            twin_uid: text("/metadata/uid"),
            ..Self::of_containers(manifest)
        }
    }

    fn of_containers(manifest: &Value) -> Self {
        let priority = manifest.pointer("/spec/priority").and_then(Value::as_i64);
        Self {
            policy: unknown_policy(),
            parent_uid: String::new(),
            priority: priority
                .and_then(|priority| priority.try_into().ok())
                .unwrap_or_default(),
            containers: container_names(manifest, "containers"),
            init_containers: container_names(manifest, "initContainers"),
            in_store: false,
            twin_uid: None,
        }
    }
}

fn unknown_policy() -> Policy {
    Policy {
        start_group: DEFAULT_START_GROUP,
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
    let containers = manifest
        .get("spec")
        .and_then(|spec| spec.get(list))
        .and_then(Value::as_array);
    let name = |container: &Value| {
        container
            .get("name")
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    containers.into_iter().flatten().filter_map(name).collect()
}

/// What a look at the store found.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Every pod that has a checkpoint.
    pub keys: BTreeSet<Key>,
    /// Those whose checkpoints changed since the previous look.
    pub changed: BTreeMap<Key, Known>,
}

/// Takes in a look at the store. A checkpoint that was removed from it stays known while its twin
/// `is_held` on the node.
pub fn refresh(known: &mut BTreeMap<Key, Known>, stored: &Stored, is_held: impl Fn(&Key) -> bool) {
    known.retain(|key, about| {
        about.in_store &= stored.keys.contains(key);
        about.in_store || is_held(key)
    });
    for (key, changed) in &stored.changed {
        let twin_uid = known.get(key).and_then(|before| before.twin_uid.clone());
        known.insert(
            key.clone(),
            Known {
                twin_uid,
                ..changed.clone()
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::testing::checkpoint;
    use crate::pod::id::id;

    #[test]
    fn a_checkpoint_removed_from_the_store_is_known_as_long_as_its_twin_is_on_the_node() {
        let key: Key = id("shop_till");
        let twin_uid = Some("twin".to_owned());
        let before = Known {
            twin_uid: twin_uid.clone(),
            ..Known::of(&checkpoint("shop", "till"))
        };
        let mut known = BTreeMap::from([(key.clone(), before)]);
        let changed = BTreeMap::from([(key.clone(), Known::of(&checkpoint("shop", "till")))]);
        refresh(
            &mut known,
            &Stored {
                keys: [key.clone()].into(),
                changed,
            },
            |_| true,
        );
        assert_eq!(
            known[&key].twin_uid, twin_uid,
            "a new generation does not change the twin"
        );
        refresh(&mut known, &Stored::default(), |_| true);
        assert!(!known[&key].in_store);
        refresh(&mut known, &Stored::default(), |_| false);
        assert!(known.is_empty());
    }

    #[test]
    fn the_unencrypted_part_of_an_unreadable_checkpoint_is_known() {
        let policy = checkpoint("shop", "till").policy.clone();
        let sealed = Known::unreadable(Some((&policy, "uid")));
        assert_eq!(
            (sealed.policy.start_group, sealed.parent_uid.as_str()),
            (policy.start_group, "uid")
        );
        let damaged = Known::unreadable(None);
        assert!(damaged.in_store && damaged.policy.slow_start && damaged.containers.is_empty());
    }
}
