//! An API server as a tower service for objects of any kind, in memory, without a socket: `LIST`
//! and `WATCH` with or without a name, `GET`, `CREATE`, `PUT` with a resource version, server-side
//! apply (an object is always what was last applied), merge patches of metadata, and `DELETE` with
//! finalizers. It can refuse writes below a path, with an error like a server's.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Frame};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;

#[derive(Clone, Debug, Default)]
pub struct State {
    /// Objects by path.
    pub objects: BTreeMap<String, Value>,
    /// Events: version, type, path and object.
    events: Vec<(u64, &'static str, String, Value)>,
    version: u64,
    /// Writes to paths with this in them are refused with this message, as a webhook does.
    pub refuses: Option<(String, String)>,
    /// Method and path of every requested write.
    pub writes: Vec<String>,
}

/// The server. Clones share it.
#[derive(Clone, Default)]
pub struct Cluster {
    pub state: Arc<watch::Sender<State>>,
}

type Answer = UnsyncBoxBody<Bytes, Infallible>;

impl Cluster {
    pub fn client(&self) -> kube::Client {
        let cluster = self.clone();
        kube::Client::new(tower::service_fn(move |request| cluster.clone().serve(request)), "default")
    }

    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut result = None;
        self.state.send_modify(|state| result = Some(change(state)));
        result.unwrap()
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.state.borrow().objects.get(path).cloned()
    }

    /// Replaces an object, as another client would.
    pub fn put(&self, path: &str, object: Value) {
        self.change(|state| state.put(path, object));
    }

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

    async fn serve(self, request: Request<Body>) -> Result<Response<Answer>, Infallible> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().replace("%3D", "=");
        let name = query.split('&').find_map(|pair| pair.strip_prefix("fieldSelector=metadata.name="));
        let name = name.map(str::to_owned);
        let is_wanted =
            |at: &str| is_in(&path, at) && name.as_ref().is_none_or(|name| at.ends_with(&format!("/{name}")));
        if query.contains("watch=") {
            let from = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion="));
            let from = from.and_then(|version| version.parse().ok()).unwrap_or_default();
            return Ok(Response::new(StreamBody::new(self.events(path.clone(), name, from)).boxed_unsync()));
        }
        if path.contains("/monitoring.coreos.com/") {
            // a kind that is not installed
            let body = Full::new(Bytes::from_static(b"404 page not found\n")).boxed_unsync();
            return Ok(Response::builder().status(StatusCode::NOT_FOUND).body(body).unwrap());
        }
        if parts.method != Method::GET {
            let refused = self.change(|state| {
                state.writes.push(format!("{} {path}", parts.method));
                state.refuses.clone().filter(|(part, _)| path.contains(part.as_str()))
            });
            if let Some((_, message)) = refused {
                return Ok(failure(StatusCode::FORBIDDEN, "Forbidden", &message));
            }
        }
        Ok(match parts.method {
            Method::GET if is_collection(&path) => {
                let state = self.state.borrow();
                let items: Vec<&Value> =
                    state.objects.iter().filter(|(at, _)| is_wanted(at)).map(|(_, object)| object).collect();
                let version = state.version.to_string();
                answer(
                    &json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items}),
                )
            }
            Method::GET => self.get(&path).map_or_else(not_found, |object| answer(&object)),
            Method::POST => {
                let at = format!("{path}/{}", sent["metadata"]["name"].as_str().unwrap());
                self.change(|state| state.put(&at, sent));
                answer(&self.get(&at).unwrap())
            }
            Method::PUT => {
                let known = self.get(&path).map(|object| object["metadata"]["resourceVersion"].clone());
                match known {
                    None => not_found(),
                    Some(version) if version != sent["metadata"]["resourceVersion"] => conflict(),
                    Some(_) => {
                        self.put(&path, sent);
                        answer(&self.get(&path).unwrap())
                    }
                }
            }
            Method::PATCH => {
                let is_apply = parts.headers["content-type"].to_str().unwrap().contains("apply-patch");
                if is_apply { self.change(|state| state.apply(&path, sent)) } else { self.merge(&path, &sent) }
            }
            Method::DELETE if self.get(&path).is_none() => not_found(),
            Method::DELETE => {
                self.delete(&path);
                answer(&json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
            }
            _ => failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "no"),
        })
    }

    fn merge(&self, path: &str, sent: &Value) -> Response<Answer> {
        let Some(mut object) = self.get(path) else { return not_found() };
        let version = &sent["metadata"]["resourceVersion"];
        if !version.is_null() && *version != object["metadata"]["resourceVersion"] {
            return conflict();
        }
        for (field, value) in sent["metadata"].as_object().unwrap() {
            object["metadata"][field] = value.clone();
        }
        self.put(path, object.clone());
        let done = object["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty);
        if done && object["metadata"]["deletionTimestamp"].is_string() {
            self.delete(path);
        }
        answer(&object)
    }

    fn events(
        &self,
        path: String,
        name: Option<String>,
        from: u64,
    ) -> Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>> {
        let mut changes = self.state.subscribe();
        changes.mark_changed();
        let is_wanted =
            move |at: &str| is_in(&path, at) && name.as_ref().is_none_or(|name| at.ends_with(&format!("/{name}")));
        Box::pin(futures::stream::unfold((changes, from, is_wanted), |(mut changes, mut from, is_wanted)| async move {
            changes.changed().await.ok()?;
            let mut text = String::new();
            for (version, kind, at, object) in &changes.borrow_and_update().events {
                if *version > from {
                    if is_wanted(at) {
                        text += &json!({"type": kind, "object": object}).to_string();
                        text.push('\n');
                    }
                    from = *version;
                }
            }
            Some((Ok(Frame::data(Bytes::from(text))), (changes, from, is_wanted)))
        }))
    }
}

/// Whether the object at this path belongs to the collection at the other path, of one namespace or
/// of all.
fn is_in(collection: &str, at: &str) -> bool {
    let (base, plural) = collection.rsplit_once('/').unwrap();
    let parent = at.rsplit_once('/').map_or("", |(parent, _)| parent);
    at.starts_with(base) && parent.ends_with(&format!("/{plural}"))
}

fn is_collection(path: &str) -> bool {
    // no object in these tests is named like its kind
    path.ends_with('s') && !path.ends_with("/status")
}

impl State {
    fn put(&mut self, path: &str, mut object: Value) {
        let known = self.objects.get(path);
        let kind = if known.is_some() { "MODIFIED" } else { "ADDED" };
        let old = known.map(|known| (known["spec"].clone(), known["metadata"]["generation"].as_i64().unwrap_or(1)));
        let generation = old.map_or(1, |(spec, generation)| generation + i64::from(spec != object["spec"]));
        self.version += 1;
        let name = path.rsplit('/').next().unwrap();
        let metadata = &mut object["metadata"];
        metadata["name"] = json!(name);
        metadata["resourceVersion"] = json!(self.version.to_string());
        metadata["generation"] = json!(generation);
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(format!("uid-{}", self.version));
        }
        self.events.push((self.version, kind, path.to_owned(), object.clone()));
        self.objects.insert(path.to_owned(), object);
    }

    fn apply(&mut self, path: &str, mut sent: Value) -> Response<Answer> {
        if let Some(whole) = path.strip_suffix("/status") {
            let Some(mut object) = self.objects.get(whole).cloned() else { return not_found() };
            object["status"] = sent["status"].clone();
            self.put(whole, object);
            return answer(&self.objects[whole]);
        }
        if let Some(known) = self.objects.get(path) {
            for field in ["uid", "resourceVersion", "generation", "finalizers", "deletionTimestamp"] {
                if let Some(value) = known["metadata"].get(field) {
                    sent["metadata"][field] = value.clone();
                }
            }
            if let Some(status) = known.get("status") {
                sent["status"] = status.clone();
            }
            if *known == sent {
                return answer(&sent);
            }
        }
        self.put(path, sent);
        answer(&self.objects[path])
    }

    fn delete(&mut self, path: &str) {
        let Some(mut object) = self.objects.get(path).cloned() else { return };
        let finalizers = object["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty());
        if finalizers {
            object["metadata"]["deletionTimestamp"] = json!("2026-11-22T01:00:00Z");
            self.put(path, object);
            return;
        }
        self.version += 1;
        self.objects.remove(path);
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.events.push((self.version, "DELETED", path.to_owned(), object));
    }
}

fn answer(object: &Value) -> Response<Answer> {
    let body = Full::new(Bytes::from(object.to_string())).boxed_unsync();
    Response::builder().header("content-type", "application/json").body(body).unwrap()
}

fn not_found() -> Response<Answer> {
    failure(StatusCode::NOT_FOUND, "NotFound", "not found")
}

fn conflict() -> Response<Answer> {
    failure(StatusCode::CONFLICT, "Conflict", "the object has been modified")
}

fn failure(status: StatusCode, reason: &str, message: &str) -> Response<Answer> {
    let mut response = answer(&json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": status.as_u16()}));
    *response.status_mut() = status;
    response
}
