//! An API server as a tower service: pods, nodes, namespaces, PodCheckpoints and Events, in memory, without a socket.
//!
//! `LIST`, `WATCH` with resource versions, `GET`, `CREATE`, server-side apply (an object is always
//! what was last applied) and `DELETE`. It can be silent, fail, lose its custom resource, or list
//! nothing; requests are counted by kind.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Duration, Instant, Sleep, sleep_until};

use super::until;

/// How the server answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    #[default]
    Well,
    /// Accepts requests and does not answer until the mood changes; events of watches that were
    /// already sent still arrive.
    Silent,
    /// Answers every request with 500.
    Failing,
    /// Lists no pods but answers everything else, like a server whose storage was lost.
    Empty,
}

#[derive(Clone, Debug, Default)]
pub struct State {
    pub mood: Mood,
    /// The custom resource is not installed.
    pub lacks_crd: bool,
    /// Objects by path.
    pub objects: BTreeMap<String, Value>,
    /// Events of pods, namespaces and PodCheckpoints: resource version, type, object.
    pub events: Vec<(u64, String, Value)>,
    pub version: u64,
    /// Number of requests by kind: `LIST pods`, `WATCH pods`, `GET pod`, `PATCH
    /// podcheckpoints/status` …
    pub counts: BTreeMap<String, u32>,
    /// Increased to end all open watches, as a server does now and then.
    pub ended: u32,
    /// Bodies of the created Events.
    pub told: Vec<Value>,
}

/// The server. Clones share it.
#[derive(Clone, Default)]
pub struct Api {
    pub state: Arc<watch::Sender<State>>,
}

const NAMESPACES: &str = "/api/v1/namespaces";

fn is_namespaces(path: &str) -> bool {
    path == NAMESPACES
}

fn is_namespace(path: &str) -> bool {
    path.strip_prefix(NAMESPACES).and_then(|rest| rest.strip_prefix('/')).is_some_and(|name| !name.contains('/'))
}

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
        api.put(&format!("/api/v1/nodes/{node}"), json!({"metadata": {"name": node, "uid": uid}}));
        api
    }

    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        kube::Client::new(tower::service_fn(move |request| api.clone().serve(request)), "default")
    }

    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut result = None;
        self.state.send_modify(|state| result = Some(change(state)));
        result.unwrap()
    }

    /// Creates or replaces any object.
    pub fn put(&self, path: &str, object: Value) {
        self.change(|state| state.put(path, object));
    }

    /// Creates or replaces a pod, and sends the event to watches.
    pub fn put_pod(&self, pod: Value) {
        let path = pod_path(pod["metadata"]["namespace"].as_str().unwrap(), pod["metadata"]["name"].as_str().unwrap());
        self.put(&path, pod);
    }

    /// Creates or replaces a namespace, and sends the event to watches.
    pub fn put_namespace(&self, name: &str, labels: &Value) {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": name, "labels": labels}});
        self.put(&format!("{NAMESPACES}/{name}"), namespace);
    }

    pub fn delete_pod(&self, namespace: &str, name: &str) {
        self.change(|state| state.delete(&pod_path(namespace, name)));
    }

    pub fn checkpoint(&self, namespace: &str, name: &str) -> Option<Value> {
        self.state.borrow().objects.get(&checkpoint_path(namespace, name)).cloned()
    }

    pub fn count(&self, what: &str) -> u32 {
        self.state.borrow().counts.get(what).copied().unwrap_or_default()
    }

    /// Waits until a PodCheckpoint has this condition.
    pub async fn until_condition(&self, namespace: &str, name: &str, kind: &str, status: &str, reason: &str) {
        let path = checkpoint_path(namespace, name);
        until(&self.state, |state| {
            state.objects.get(&path).is_some_and(|object| {
                let all = object["status"]["conditions"].as_array();
                all.into_iter()
                    .flatten()
                    .any(|it| it["type"] == kind && it["status"] == status && it["reason"] == reason)
            })
        })
        .await;
    }

    pub async fn serve(self, request: Request<Body>) -> Result<Response<Answer>, std::convert::Infallible> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let path = parts.uri.path().to_owned();
        let query: BTreeMap<String, String> = parts
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let watches = query.get("watch").is_some_and(|value| value == "true" || value == "1");
        let what = name(&parts.method, &path, watches);
        self.change(|state| *state.counts.entry(what).or_default() += 1);
        let _ = self.state.subscribe().wait_for(|state| state.mood != Mood::Silent).await;
        if self.state.borrow().mood == Mood::Failing {
            return Ok(failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"));
        }
        if path.contains("podcheckpointer.io") && self.state.borrow().lacks_crd {
            let body = Answer::Whole(Some(Bytes::from_static(b"404 page not found\n")));
            return Ok(Response::builder().status(StatusCode::NOT_FOUND).body(body).unwrap());
        }
        if watches {
            let from = query.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or_default();
            let seconds = query.get("timeoutSeconds").and_then(|seconds| seconds.parse().ok()).unwrap_or(300);
            return Ok(Response::new(Answer::Watch(Box::pin(StreamBody::new(Watch::new(
                &self,
                watched(&path),
                from,
                seconds,
            ))))));
        }
        Ok(self.answer(&parts.method, &path, &body))
    }

    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> Response<Answer> {
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        let is_list = path.ends_with("/pods") || path.ends_with("/podcheckpoints") || is_namespaces(path);
        let not_found = || failure(StatusCode::NOT_FOUND, "NotFound");
        match *method {
            Method::GET if is_list => self.change(|state| {
                let is_wanted = |at: &str| match path {
                    NAMESPACES => is_namespace(at),
                    path if path.ends_with("/pods") => at.contains("/pods/"),
                    _ => at.contains("/podcheckpoints/"),
                };
                let nothing = state.mood == Mood::Empty;
                let of_kind = state.objects.iter().filter(|(at, _)| is_wanted(at) && !nothing);
                let items: Vec<Value> = of_kind.map(|(_, object)| object.clone()).collect();
                let version = state.version.to_string();
                answer(StatusCode::OK, &json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items}))
            }),
            Method::GET => match self.state.borrow().objects.get(path) {
                Some(object) => answer(StatusCode::OK, object),
                None => not_found(),
            },
            Method::POST => self.change(|state| {
                state.told.push(sent.clone());
                answer(StatusCode::CREATED, &sent)
            }),
            Method::PATCH => self.change(|state| state.apply(path, sent)),
            Method::DELETE => self.change(|state| {
                let wanted = sent["preconditions"]["uid"].as_str();
                let known = state.objects.get(path).and_then(|object| object["metadata"]["uid"].as_str());
                match (known, wanted) {
                    (None, _) => not_found(),
                    (Some(known), Some(wanted)) if known != wanted => failure(StatusCode::CONFLICT, "Conflict"),
                    _ => {
                        state.delete(path);
                        answer(StatusCode::OK, &json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
                    }
                }
            }),
            _ => failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }
}

impl State {
    fn put(&mut self, path: &str, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let kind = if self.objects.contains_key(path) { "MODIFIED" } else { "ADDED" };
        if path.contains("/pods/") || path.contains("/podcheckpoints/") || is_namespace(path) {
            self.events.push((self.version, kind.into(), object.clone()));
        }
        self.objects.insert(path.to_owned(), object);
    }

    fn apply(&mut self, path: &str, mut sent: Value) -> Response<Answer> {
        if let Some(whole) = path.strip_suffix("/status") {
            let Some(object) = self.objects.get_mut(whole) else { return failure(StatusCode::NOT_FOUND, "NotFound") };
            object["status"] = sent["status"].clone();
            return answer(StatusCode::OK, object);
        }
        let known = self.objects.get(path);
        let uid = known.map_or_else(|| json!(format!("object-{}", self.version)), |it| it["metadata"]["uid"].clone());
        if let Some(status) = known.map(|it| it["status"].clone()).filter(|status| !status.is_null()) {
            sent["status"] = status;
        }
        sent["metadata"]["uid"] = uid;
        self.put(path, sent.clone());
        answer(StatusCode::OK, &sent)
    }

    pub fn delete(&mut self, path: &str) {
        self.version += 1;
        let Some(mut object) = self.objects.remove(path) else { return };
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if path.contains("/pods/") || path.contains("/podcheckpoints/") {
            self.events.push((self.version, "DELETED".into(), object));
        }
    }
}

/// The kind that is watched at this path.
fn watched(path: &str) -> &'static str {
    match path {
        path if is_namespaces(path) => "Namespace",
        path if path.ends_with("/podcheckpoints") => "PodCheckpoint",
        _ => "Pod",
    }
}

/// The kind of a request, without names: `LIST pods`, `GET node`, `PATCH podcheckpoints/status`.
fn name(method: &Method, path: &str, watches: bool) -> String {
    let parts: Vec<&str> = path.split('/').collect();
    let kinds = ["pods", "nodes", "podcheckpoints", "events", "namespaces"];
    let at = parts.iter().rposition(|part| kinds.contains(part)).unwrap_or_default();
    let (kind, named, sub) = (parts[at], parts.get(at + 1).is_some(), parts.get(at + 2));
    let verb = match (method.as_str(), watches, named) {
        ("GET", true, _) => "WATCH",
        ("GET", false, false) => "LIST",
        (other, _, _) => other,
    };
    sub.map_or_else(|| format!("{verb} {kind}"), |sub| format!("{verb} {kind}/{sub}"))
}

fn answer(status: StatusCode, object: &Value) -> Response<Answer> {
    let body = Answer::Whole(Some(object.to_string().into()));
    Response::builder().status(status).header("content-type", "application/json").body(body).unwrap()
}

fn failure(status: StatusCode, reason: &str) -> Response<Answer> {
    answer(
        status,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": reason,
            "reason": reason, "code": status.as_u16()}),
    )
}

/// An answer's body.
pub enum Answer {
    Whole(Option<Bytes>),
    Watch(Pin<Box<StreamBody<Watch>>>),
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Watch(stream) => stream.as_mut().poll_frame(context),
        }
    }
}

/// The events of one kind from a resource version on, until the watch ends.
pub struct Watch {
    changes: Pin<Box<dyn Stream<Item = ()> + Send>>,
    end: Pin<Box<Sleep>>,
    state: Arc<watch::Sender<State>>,
    kind: &'static str,
    from: u64,
    ended: u32,
    pending: VecDeque<Bytes>,
}

impl Watch {
    fn new(api: &Api, kind: &'static str, from: u64, seconds: u64) -> Self {
        let mut receiver = api.state.subscribe();
        receiver.mark_changed();
        let changes = futures::stream::unfold(receiver, |mut receiver| async {
            receiver.changed().await.ok().map(|()| ((), receiver))
        });
        Self {
            changes: Box::pin(changes),
            end: Box::pin(sleep_until(Instant::now() + Duration::from_secs(seconds))),
            state: api.state.clone(),
            kind,
            from,
            ended: api.state.borrow().ended,
            pending: VecDeque::new(),
        }
    }
}

impl Stream for Watch {
    type Item = Result<Frame<Bytes>, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(line) = self.pending.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(line))));
            }
            if self.end.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            if self.changes.as_mut().poll_next(context).is_pending() {
                return Poll::Pending;
            }
            let state = self.state.clone();
            let state = state.borrow();
            if state.ended > self.ended {
                return Poll::Ready(None);
            }
            let from = self.from;
            for (version, kind, object) in state.events.iter().filter(|(version, _, _)| *version > from) {
                if object["kind"].as_str().unwrap_or("Pod") == self.kind {
                    self.pending.push_back(format!("{}\n", json!({"type": kind, "object": object})).into());
                }
                self.from = *version;
            }
        }
    }
}
