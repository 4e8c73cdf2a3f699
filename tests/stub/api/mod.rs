//! An API server as a tower service, without a socket: objects of any kind, in memory.
//!
//! `LIST` and `WATCH` with resource versions, with or without a name, `GET`, `CREATE`, `PUT` with a
//! resource version, server-side apply (an object is always what was last applied), merge patches,
//! and `DELETE` with preconditions and finalizers. It can be silent, fail, list nothing, lack an
//! API group, or refuse writes; requests are counted by kind.
//!
//! `objects` changes objects, `requests` answers requests, and `path` parses paths.

mod objects;
mod path;
mod requests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;

#[allow(unused_imports)]
pub use requests::Answer;

use super::until;

/// How the server answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    #[default]
    Well,
    /// Accepts requests and does not answer until the mood changes; open watches go on.
    Silent,
    /// Answers every request with 500.
    Failing,
    /// Returns empty lists and answers everything else, like a server whose storage was lost.
    Empty,
}

#[derive(Clone, Debug)]
pub struct State {
    pub mood: Mood,
    /// API groups that are not installed.
    pub lacks: BTreeSet<String>,
    /// Objects by path.
    pub objects: BTreeMap<String, Value>,
    /// Changes of objects, for watches.
    history: Vec<Change>,
    /// Resource version of the last change.
    version: u64,
    /// Number of requests by kind: `LIST pods`, `WATCH pods`, `GET pods`, `PATCH
    /// podcheckpoints/status` …
    pub counts: BTreeMap<String, u32>,
    /// Increased to end all open watches, as a server does now and then.
    pub ended: u32,
    /// Writes to paths with this in them are refused with this message, as a webhook does.
    pub refuses: Option<(String, String)>,
    /// Method and path of every requested write.
    pub writes: Vec<String>,
    /// The Events that were created, in this order.
    pub events: Vec<Value>,
}

impl Default for State {
    /// An empty cluster, without the Prometheus operator.
    fn default() -> Self {
        Self {
            mood: Mood::default(),
            lacks: BTreeSet::from(["monitoring.coreos.com".to_owned()]),
            objects: BTreeMap::new(),
            history: Vec::new(),
            version: 0,
            counts: BTreeMap::new(),
            ended: 0,
            refuses: None,
            writes: Vec::new(),
            events: Vec::new(),
        }
    }
}

/// A line of a watch.
#[derive(Clone, Debug)]
struct Change {
    version: u64,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    kind: &'static str,
    path: String,
    object: Value,
}

/// The server. Clones share it.
#[derive(Clone, Default)]
pub struct Api {
    pub state: Arc<watch::Sender<State>>,
}

/// The API group of this program's custom resources.
pub const GROUP: &str = "podcheckpointer.io";

/// Path of a pod.
pub fn pod_path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods/{name}")
}

/// Path of a PodCheckpoint.
pub fn checkpoint_path(namespace: &str, name: &str) -> String {
    format!("/apis/podcheckpointer.io/v1alpha1/namespaces/{namespace}/podcheckpoints/{name}")
}

impl Api {
    /// A server with this Node.
    pub fn new(node: &str, uid: &str) -> Self {
        let api = Self::default();
        api.put(
            &format!("/api/v1/nodes/{node}"),
            json!({"metadata": {"name": node, "uid": uid}}),
        );
        api
    }

    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        kube::Client::new(
            tower::service_fn(move |request| api.clone().serve(request)),
            "default",
        )
    }

    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut result = None;
        self.state.send_modify(|state| result = Some(change(state)));
        result.unwrap()
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.state.borrow().objects.get(path).cloned()
    }

    /// Creates or replaces an object, as another client would.
    pub fn put(&self, path: &str, object: Value) {
        self.change(|state| state.put(path, object));
    }

    /// Changes an object as another client would.
    pub fn edit(&self, path: &str, edit: impl FnOnce(&mut Value)) {
        self.change(|state| {
            let mut object = state.objects[path].clone();
            edit(&mut object);
            state.put(path, object);
        });
    }

    pub fn delete(&self, path: &str) {
        self.change(|state| state.delete(path));
    }

    pub fn put_pod(&self, pod: Value) {
        let path = pod_path(
            pod["metadata"]["namespace"].as_str().unwrap(),
            pod["metadata"]["name"].as_str().unwrap(),
        );
        self.put(&path, pod);
    }

    pub fn delete_pod(&self, namespace: &str, name: &str) {
        self.delete(&pod_path(namespace, name));
    }

    pub fn put_namespace(&self, name: &str, labels: &Value) {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": name, "labels": labels}});
        self.put(&format!("/api/v1/namespaces/{name}"), namespace);
    }

    pub fn checkpoint(&self, namespace: &str, name: &str) -> Option<Value> {
        self.get(&checkpoint_path(namespace, name))
    }

    /// Number of requests of this kind: see [`State::counts`].
    pub fn count(&self, what: &str) -> u32 {
        self.state
            .borrow()
            .counts
            .get(what)
            .copied()
            .unwrap_or_default()
    }

    /// Waits until this number of requests of this kind.
    pub async fn until_asked(&self, what: &str, times: u32) {
        until(&self.state, |state| {
            state.counts.get(what).is_some_and(|count| *count >= times)
        })
        .await;
    }

    /// Waits until a PodCheckpoint has this condition.
    pub async fn until_condition(
        &self,
        namespace: &str,
        name: &str,
        kind: &str,
        status: &str,
        reason: &str,
    ) {
        let path = checkpoint_path(namespace, name);
        until(&self.state, |state| {
            state.objects.get(&path).is_some_and(|object| {
                let all = object["status"]["conditions"].as_array();
                all.into_iter().flatten().any(|it| {
                    it["type"] == kind && it["status"] == status && it["reason"] == reason
                })
            })
        })
        .await;
    }
}
