//! Every pod of this node that the API server knows, marked or not, and what it means to the
//! others: what it takes of the node, what it does for the network, whether it is bootkube's
//! checkpointer. Pure.

use std::collections::BTreeMap;

use crate::agent::network::Support;
use crate::agent::observed::Observed;
use crate::pod::id::PodId;
use crate::pod::room::Demand;

/// The pods of the node that may run.
#[derive(Debug, Default)]
pub(crate) struct Census {
    pods: BTreeMap<PodId, Resident>,
}

#[derive(Debug)]
struct Resident {
    uid: String,
    /// Reported since the list began that is being read.
    is_listed: bool,
    demand: Demand,
    support: Option<(Support, String)>,
    is_bootkubes: bool,
}

impl Census {
    /// A list begins: a pod that it does not name is not on the node any more.
    pub(crate) fn begin_list(&mut self) {
        for pod in self.pods.values_mut() {
            pod.is_listed = false;
        }
    }

    /// The list is complete.
    pub(crate) fn end_list(&mut self) {
        self.pods.retain(|_, pod| pod.is_listed);
    }

    /// The watch reported a pod.
    pub(crate) fn see(&mut self, observed: &Observed) {
        let Some(demand) = observed.demand.clone() else {
            self.pods.remove(&observed.key);
            return;
        };
        let resident = Resident {
            uid: observed.uid.clone(),
            is_listed: true,
            demand,
            support: observed.support.clone(),
            is_bootkubes: observed.is_bootkubes,
        };
        self.pods.insert(observed.key.clone(), resident);
    }

    /// The watch reported that this very pod was deleted.
    pub(crate) fn delete(&mut self, key: &PodId, uid: &str) {
        if self.pods.get(key).is_some_and(|pod| pod.uid == uid) {
            self.pods.remove(key);
        }
    }

    /// Every pod, with its UID.
    pub(crate) fn pods(&self) -> impl Iterator<Item = (&PodId, &str)> {
        self.pods.iter().map(|(key, pod)| (key, pod.uid.as_str()))
    }

    /// What all pods together take of the node.
    pub(crate) fn demand(&self) -> Demand {
        self.pods.values().fold(Demand::default(), |mut all, pod| {
            all.add(&pod.demand);
            all
        })
    }

    /// What the pods for which `is_so` holds do for others, each with the name of its owner.
    pub(crate) fn supporting(
        &self,
        is_so: impl Fn(&PodId, &str) -> bool,
    ) -> impl Iterator<Item = (Support, &str)> {
        let pods = self
            .pods
            .iter()
            .filter(move |(key, pod)| is_so(key, &pod.uid));
        pods.filter_map(|(_, pod)| {
            pod.support
                .as_ref()
                .map(|(support, name)| (*support, name.as_str()))
        })
    }

    /// Bootkube's checkpointer on this node.
    pub(crate) fn bootkube_checkpointer(&self) -> Option<&PodId> {
        self.pods
            .iter()
            .find_map(|(key, pod)| pod.is_bootkubes.then_some(key))
    }
}
