//! What marks a pod: its own annotation, its labels, or its namespace. An opt-out on the pod
//! overrides all of them.
//!
//! Pure. The labels of a namespace come from a watch of their own and may come later than its pods,
//! or not at all. Until they are known, what only they could mark is [`Marked::Unknown`], which
//! neither captures nor removes anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::api::DynamicObject;
use kube::core::{Selector, SelectorExt as _};
use serde_json::Value;

use crate::agent::leftovers;
use crate::agent::observed::{self, Marked, Observed};
use crate::names::CHECKPOINT;
use crate::pod::id::PodId;
use crate::pod::mark;

/// Which marks count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    /// Namespaces whose pods can be marked; empty: all.
    pub limit: Vec<String>,
    /// Marks the pods that match any of these.
    pub select: Vec<Selector>,
    /// Marks every pod of the namespaces that match.
    pub namespaces: Option<Selector>,
    /// Namespace and name of the agent's own pod, which only its annotation can mark.
    pub own: Option<(String, String)>,
}

/// The rules, and what is known about namespaces and the pods that depend on them.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    rules: Rules,
    /// Is this namespace selected? One that is not in here is not known.
    known: BTreeMap<String, bool>,
    /// The list of namespaces that is being read.
    listing: Option<BTreeMap<String, bool>>,
    /// Pods that their namespace marks, or could mark.
    candidates: BTreeMap<PodId, Candidate>,
}

#[derive(Debug)]
struct Candidate {
    namespace: String,
    object: Arc<[u8]>,
    /// Reported since the current list of pods began.
    listed: bool,
}

impl Marks {
    /// Starts without knowing any namespace.
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            ..Self::default()
        }
    }

    /// What the index needs of a pod; `None`: it has no valid name or no UID.
    pub(crate) fn observe(&mut self, pod: DynamicObject) -> Option<Observed> {
        let (key, uid) = observed::identity(&pod)?;
        let object = observed::trim(pod);
        let namespace = key.namespace().to_owned();
        let Some(marked) = self.by_itself(&object, &namespace) else {
            let marked = self.by_namespace(&namespace);
            let bytes: Arc<[u8]> = object.to_string().into_bytes().into();
            let candidate = Candidate {
                namespace,
                object: bytes.clone(),
                listed: true,
            };
            self.candidates.insert(key.clone(), candidate);
            return Some(Observed::new(key, uid, &object, marked, bytes));
        };
        self.candidates.remove(&key);
        let bytes = if marked == Marked::No {
            Arc::from([])
        } else {
            object.to_string().into_bytes().into()
        };
        Some(Observed::new(key, uid, &object, marked, bytes))
    }

    /// A list of pods begins.
    pub(crate) fn begin_list(&mut self) {
        for candidate in self.candidates.values_mut() {
            candidate.listed = false;
        }
    }

    /// A list of pods is complete.
    pub(crate) fn end_list(&mut self) {
        self.candidates.retain(|_, candidate| candidate.listed);
    }

    /// A pod is gone.
    pub(crate) fn forget(&mut self, key: &PodId) {
        self.candidates.remove(key);
    }

    /// A list of namespaces begins.
    pub(crate) fn begin_namespaces(&mut self) {
        self.listing = Some(BTreeMap::new());
    }

    /// A namespace that the list has.
    pub(crate) fn list_namespace(&mut self, name: String, labels: &BTreeMap<String, String>) {
        let selected = self.selects(labels);
        self.listing.get_or_insert_default().insert(name, selected);
    }

    /// The list of namespaces is complete; returns the pods whose mark may have changed. A
    /// namespace that it did not name is not known any more: its pods are deleted separately, or
    /// the cluster lost its data.
    pub(crate) fn end_namespaces(&mut self) -> Vec<Observed> {
        let before = std::mem::replace(&mut self.known, self.listing.take().unwrap_or_default());
        let news = self
            .known
            .iter()
            .filter(|(name, selected)| before.get(*name) != Some(*selected));
        let news: Vec<String> = news.map(|(name, _)| name.clone()).collect();
        self.look_again(&news)
    }

    /// A namespace is new or has other labels; returns the pods whose mark may have changed.
    pub(crate) fn see_namespace(
        &mut self,
        name: String,
        labels: &BTreeMap<String, String>,
    ) -> Vec<Observed> {
        let selected = self.selects(labels);
        if self.known.insert(name.clone(), selected) == Some(selected) {
            return Vec::new();
        }
        self.look_again(&[name])
    }

    /// A namespace is gone, and nothing is known of it any more.
    pub(crate) fn forget_namespace(&mut self, name: &str) {
        self.known.remove(name);
    }

    fn look_again(&self, namespaces: &[String]) -> Vec<Observed> {
        let touched = self
            .candidates
            .iter()
            .filter(|(_, candidate)| namespaces.contains(&candidate.namespace));
        touched
            .filter_map(|(key, candidate)| {
                let object: Value = serde_json::from_slice(&candidate.object).ok()?;
                let uid = object.pointer("/metadata/uid")?.as_str()?.to_owned();
                let marked = self.by_namespace(&candidate.namespace);
                Some(Observed::new(
                    key.clone(),
                    uid,
                    &object,
                    marked,
                    candidate.object.clone(),
                ))
            })
            .collect()
    }

    /// What marks a pod regardless of its namespace's labels; `None`: these decide.
    fn by_itself(&self, pod: &Value, namespace: &str) -> Option<Marked> {
        let Rules {
            limit,
            select,
            namespaces,
            own,
        } = &self.rules;
        if !limit.is_empty() && !limit.iter().any(|name| name == namespace)
            || mark::is_opted_out(pod)
        {
            return Some(Marked::No);
        }
        let mark = mark::mark(pod);
        // it marks itself for its own use, and must not run together with this program
        if leftovers::is_checkpointer(pod) && mark != Some(CHECKPOINT) {
            return Some(Marked::No);
        }
        if let Some(annotation) = mark {
            return Some(Marked::By(format!("annotation {annotation}")));
        }
        let name = pod.pointer("/metadata/name").and_then(Value::as_str);
        let is_own = own
            .as_ref()
            .is_some_and(|(space, pod)| space == namespace && Some(pod.as_str()) == name);
        if is_own || !mark::could_be_meant(pod) {
            return Some(Marked::No);
        }
        let labels = labels(pod);
        if let Some(selector) = select.iter().find(|selector| selector.matches(&labels)) {
            return Some(Marked::By(format!("selector {selector}")));
        }
        if namespaces.is_none() {
            Some(Marked::No)
        } else {
            None
        }
    }

    fn by_namespace(&self, namespace: &str) -> Marked {
        match (self.known.get(namespace), &self.rules.namespaces) {
            (Some(true), Some(selector)) => Marked::By(format!("namespace selector {selector}")),
            (Some(_), _) => Marked::No,
            (None, _) => Marked::Unknown,
        }
    }

    fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.rules
            .namespaces
            .as_ref()
            .is_some_and(|selector| selector.matches(labels))
    }
}

fn labels(pod: &Value) -> BTreeMap<String, String> {
    let labels = pod.pointer("/metadata/labels").and_then(Value::as_object);
    let text = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
    labels.into_iter().flatten().filter_map(text).collect()
}

#[cfg(test)]
#[path = "marks_tests.rs"]
mod tests;
