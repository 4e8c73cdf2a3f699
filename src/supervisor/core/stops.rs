//! What is stopped through the runtime, and with which grace period. Pure.

use std::time::Duration;

use crate::node::runtime::{Sandbox, State};
use crate::supervisor::core::facts::Key;
use crate::supervisor::core::observe::{Lists, is_parent_of, is_twin_of};

/// Sandboxes to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The sandboxes.
    pub targets: Vec<Target>,
    /// How long containers get to end by themselves; `None`: their sandbox is stopped at once, and
    /// they end with it.
    pub grace: Option<Duration>,
}

/// A sandbox to stop, with its running containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Id of the sandbox.
    pub sandbox: String,
    /// It is ready.
    pub ready: bool,
    /// Ids of its running containers.
    pub containers: Vec<String>,
}

impl Target {
    /// Something of it runs.
    pub fn runs(&self) -> bool {
        self.ready || !self.containers.is_empty()
    }
}

/// The sandboxes of a pod's twins, whatever their UID.
pub fn twin_targets(lists: &Lists, key: &Key) -> Vec<Target> {
    let (namespace, name) = (key.namespace(), key.name());
    targets(lists, |sandbox| is_twin_of(sandbox, namespace, name))
}

/// The sandboxes of a pod itself.
pub fn parent_targets(lists: &Lists, key: &Key) -> Vec<Target> {
    let (namespace, name) = (key.namespace(), key.name());
    targets(lists, |sandbox| is_parent_of(sandbox, namespace, name))
}

fn targets(lists: &Lists, belongs: impl Fn(&Sandbox) -> bool) -> Vec<Target> {
    let running = |sandbox: &Sandbox| {
        let containers = lists.containers.iter();
        let ours = containers.filter(|container| {
            container.sandbox == sandbox.id && container.state == State::Running
        });
        ours.map(|container| container.id.clone()).collect()
    };
    let target = |sandbox: &Sandbox| Target {
        sandbox: sandbox.id.clone(),
        ready: sandbox.ready,
        containers: running(sandbox),
    };
    lists
        .sandboxes
        .iter()
        .filter(|sandbox| belongs(sandbox))
        .map(target)
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::pod::id::id;
    use std::collections::BTreeMap;

    use super::*;
    use crate::names::{CHECKPOINT_OF, CONFIG_SOURCE};
    use crate::node::runtime::Container;

    #[test]
    fn a_parent_is_stopped_without_its_twin_and_a_twin_without_its_parent() {
        let sandbox = |id: &str, name: &str, annotations: &[(&str, &str)]| Sandbox {
            id: id.into(),
            namespace: "shop".into(),
            name: name.into(),
            ready: true,
            annotations: annotations
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..Sandbox::default()
        };
        let container = |sandbox: &str, state| Container {
            id: format!("of-{sandbox}"),
            sandbox: sandbox.into(),
            name: "app".into(),
            state,
            ..Container::default()
        };
        let twin = [(CONFIG_SOURCE, "file"), (CHECKPOINT_OF, "shop/till")];
        let lists = Lists {
            sandboxes: vec![
                sandbox("parent", "till", &[(CONFIG_SOURCE, "api")]),
                sandbox("twin", "till-node-1", &twin),
                sandbox("static", "till", &[(CONFIG_SOURCE, "file")]),
            ],
            containers: vec![
                container("parent", State::Exited),
                container("twin", State::Running),
            ],
        };
        let ids = |targets: Vec<Target>| -> BTreeMap<String, Vec<String>> {
            targets
                .into_iter()
                .map(|target| (target.sandbox, target.containers))
                .collect()
        };
        let key = id("shop_till");
        assert_eq!(
            ids(parent_targets(&lists, &key)),
            [("parent".into(), vec![])].into(),
            "a static pod belongs to its own file"
        );
        assert_eq!(
            ids(twin_targets(&lists, &key)),
            [("twin".into(), vec!["of-twin".into()])].into()
        );
    }
}
