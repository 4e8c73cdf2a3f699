//! Answers requests.

use std::collections::BTreeMap;
use std::convert::Infallible;

use futures::Stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Body, Bytes, Frame};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, timeout_at};

use super::objects::Refusal;
use super::path::Resource;
use super::{Api, Mood, State};

/// An answer's body.
pub type Answer = UnsyncBoxBody<Bytes, Infallible>;

impl Api {
    pub async fn serve(self, request: Request<impl Body>) -> Result<Response<Answer>, Infallible> {
        let (parts, body) = request.into_parts();
        let body = body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
        let path = parts.uri.path().to_owned();
        let Some(resource) = Resource::parse(&path) else {
            return Ok(absent());
        };
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        self.change(|state| {
            *state
                .counts
                .entry(title(&parts.method, &resource, &query))
                .or_default() += 1;
        });

        let _ = self
            .state
            .subscribe()
            .wait_for(|state| state.mood != Mood::Silent)
            .await;
        if self.state.borrow().mood == Mood::Failing {
            return Ok(failure(
                StatusCode::INTERNAL_SERVER_ERROR,
                "InternalError",
                "the stub was set to fail",
            ));
        }
        if self.state.borrow().lacks.contains(resource.group()) {
            return Ok(absent());
        }
        if query.watches {
            return Ok(Response::new(
                StreamBody::new(self.watch(&path, query)).boxed_unsync(),
            ));
        }
        if parts.method == Method::GET {
            return Ok(self.read(&path, &resource, &query));
        }
        let is_apply = parts
            .headers
            .get("content-type")
            .is_some_and(|kind| kind == "application/apply-patch+yaml");
        Ok(self.change(|state| state.write(&parts.method, &path, sent, is_apply)))
    }

    fn read(&self, path: &str, resource: &Resource<'_>, query: &Query) -> Response<Answer> {
        let state = self.state.borrow();
        if resource.name.is_some() {
            return state
                .objects
                .get(path)
                .map_or_else(|| refusal(Refusal::NotFound), answer);
        }
        let is_listed =
            |at: &str| state.mood != Mood::Empty && resource.contains(at) && query.selects(at);
        let items: Vec<&Value> = state
            .objects
            .iter()
            .filter(|(at, _)| is_listed(at))
            .map(|(_, object)| object)
            .collect();
        let metadata = json!({"resourceVersion": state.version.to_string()});
        answer(&json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}))
    }

    /// The changes of a collection from a resource version on, until the watch ends.
    fn watch(
        &self,
        path: &str,
        query: Query,
    ) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + use<> {
        let mut changes = self.state.subscribe();
        changes.mark_changed();
        let ended = changes.borrow().ended;
        let end = Instant::now() + query.limit;
        let (path, from) = (path.to_owned(), query.from);
        futures::stream::unfold((changes, from), move |(mut changes, mut from)| {
            let (path, query) = (path.clone(), query.clone());
            async move {
                timeout_at(end, changes.changed()).await.ok()?.ok()?;
                let mut lines = String::new();
                {
                    let state = changes.borrow_and_update();
                    if state.ended > ended {
                        return None;
                    }
                    let collection = Resource::parse(&path)?;
                    for change in state.history.iter().filter(|change| change.version > from) {
                        if collection.contains(&change.path) && query.selects(&change.path) {
                            lines +=
                                &json!({"type": change.kind, "object": change.object}).to_string();
                            lines.push('\n');
                        }
                    }
                    from = from.max(state.version);
                }
                Some((Ok(Frame::data(Bytes::from(lines))), (changes, from)))
            }
        })
    }
}

impl State {
    fn write(
        &mut self,
        method: &Method,
        path: &str,
        sent: Value,
        is_apply: bool,
    ) -> Response<Answer> {
        self.writes.push(format!("{method} {path}"));
        if let Some((part, message)) = &self.refuses
            && path.contains(part.as_str())
        {
            return failure(StatusCode::FORBIDDEN, "Forbidden", message);
        }
        let done = match *method {
            Method::POST => Ok(self.create(path, sent)),
            Method::PUT => self.replace(path, sent),
            Method::PATCH if is_apply => self.apply(path, sent),
            Method::PATCH => self.merge(path, &sent),
            Method::DELETE => self
                .delete_if(path, sent["preconditions"]["uid"].as_str())
                .map(|()| json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})),
            _ => return failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "no"),
        };
        done.map_or_else(refusal, |object| answer(&object))
    }

    fn create(&mut self, collection: &str, sent: Value) -> Value {
        if collection.ends_with("/events") {
            self.events.push(sent.clone());
        }
        let at = format!(
            "{collection}/{}",
            sent["metadata"]["name"].as_str().unwrap()
        );
        self.put(&at, sent);
        self.objects[&at].clone()
    }
}

/// The parts of a request's query that are supported.
#[derive(Clone, Debug)]
struct Query {
    watches: bool,
    /// The resource version after which a watch begins.
    from: u64,
    /// How long a watch lasts.
    limit: Duration,
    /// The only object to return.
    name: Option<String>,
}

impl Query {
    fn parse(query: &str) -> Self {
        let query = query.replace("%3D", "=");
        let fields: BTreeMap<&str, &str> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .collect();
        let number = |field: &str| fields.get(field).and_then(|value| value.parse().ok());
        let name = fields
            .get("fieldSelector")
            .and_then(|selector| selector.strip_prefix("metadata.name="));
        Self {
            watches: fields
                .get("watch")
                .is_some_and(|value| *value == "true" || *value == "1"),
            from: number("resourceVersion").unwrap_or_default(),
            limit: Duration::from_secs(number("timeoutSeconds").unwrap_or(300)),
            name: name.map(str::to_owned),
        }
    }

    fn selects(&self, path: &str) -> bool {
        self.name
            .as_deref()
            .is_none_or(|name| path.rsplit('/').next() == Some(name))
    }
}

/// The kind of a request, without names: `LIST pods`, `GET nodes`, `PATCH podcheckpoints/status`.
fn title(method: &Method, resource: &Resource<'_>, query: &Query) -> String {
    let verb = match (method.as_str(), query.watches, resource.name) {
        ("GET", true, _) => "WATCH",
        ("GET", false, None) => "LIST",
        (other, _, _) => other,
    };
    let plural = resource.plural;
    resource.subresource.map_or_else(
        || format!("{verb} {plural}"),
        |sub| format!("{verb} {plural}/{sub}"),
    )
}

fn answer(object: &Value) -> Response<Answer> {
    let body = Full::new(Bytes::from(object.to_string())).boxed_unsync();
    Response::builder()
        .header("content-type", "application/json")
        .body(body)
        .unwrap()
}

fn refusal(refusal: Refusal) -> Response<Answer> {
    match refusal {
        Refusal::NotFound => failure(StatusCode::NOT_FOUND, "NotFound", "not found"),
        Refusal::Conflict => failure(
            StatusCode::CONFLICT,
            "Conflict",
            "the object has been modified",
        ),
    }
}

fn failure(status: StatusCode, reason: &str, message: &str) -> Response<Answer> {
    let mut response = answer(
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": status.as_u16()}),
    );
    *response.status_mut() = status;
    response
}

/// The answer for a path that the server does not have.
fn absent() -> Response<Answer> {
    let body = Full::new(Bytes::from_static(b"404 page not found\n")).boxed_unsync();
    Response::builder()
        .status(StatusCode::NOT_FOUND)
        .body(body)
        .unwrap()
}
