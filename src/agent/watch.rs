//! The watch of the pods of this node, as JSON, so that fields newer than our types survive; and, only where namespaces can
//! mark pods, one of the namespaces' labels.
//!
//! A list comes in pages, once; afterwards the server ends each watch after half a minute and it goes on from where it was,
//! so a connection that died without a word is noticed, and nothing is listed again unless the server forgot where we were.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _, future};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ApiResource, DynamicObject, PartialObjectMeta};
use kube_runtime::{WatchStreamExt as _, watcher};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::agent::index::{Marked, Observed};
use crate::agent::leftovers;
use crate::agent::network::{Needs, Support};
use crate::names::CONFIG_MIRROR;
use crate::pod::id::PodId;
use crate::pod::mark;
use crate::pod::room::Demand;

/// Seconds after which the server ends a watch; the watcher gives up on a silent one 5 s later.
const WATCH_SECONDS: u32 = 30;
/// Pods in a page of the list: what is in memory parsed at a time, and what the heap keeps of it afterwards. Pages of 16
/// cost 3 MB more with 110 pods than pages of 4.
const PAGE: u32 = 4;
/// Namespaces in a page; each is small.
const NAMESPACE_PAGE: u32 = 100;

/// How soon the server may forget where we were once more before that is a fault like any other.
const FORGOTTEN_AGAIN: Duration = Duration::from_mins(1);

/// The type of pods, without a type.
pub fn resource() -> ApiResource {
    ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&())
}

/// Everything that happens to the pods of this node; after a fault it pauses and goes on.
pub fn pods(
    client: kube::Client,
    node: &str,
) -> impl Stream<Item = Result<watcher::Event<DynamicObject>, watcher::Error>> + use<> {
    let api: Api<DynamicObject> = Api::all_with(client, &resource());
    let config =
        watcher::Config::default().fields(&format!("spec.nodeName={node}")).page_size(PAGE).timeout(WATCH_SECONDS);
    listed_at_once(watcher(api, config)).default_backoff()
}

/// Everything that happens to namespaces, of which only names and labels are sent.
pub fn namespaces(
    client: kube::Client,
) -> impl Stream<Item = Result<watcher::Event<PartialObjectMeta<Namespace>>, watcher::Error>> + use<> {
    let config = watcher::Config::default().page_size(NAMESPACE_PAGE).timeout(WATCH_SECONDS);
    listed_at_once(watcher(Api::<PartialObjectMeta<Namespace>>::all(client), config)).default_backoff()
}

/// Without the word that the server has forgotten where we were: the watcher lists at once then.
///
/// That is what an API server says that was away, after it let the watch begin, and the pause that is made after a fault is
/// by then the long one of the outage: up to a minute in which we would know nothing and seem to have been heard. A server
/// that forgets again and again is met with pauses.
fn listed_at_once<T>(
    events: impl Stream<Item = Result<watcher::Event<T>, watcher::Error>>,
) -> impl Stream<Item = Result<watcher::Event<T>, watcher::Error>> {
    let mut forgotten: Option<Instant> = None;
    events.filter(move |event| {
        let is_forgotten = matches!(event, Err(watcher::Error::WatchError(status)) if status.code == 410);
        let is_again = is_forgotten && forgotten.is_some_and(|last| last.elapsed() < FORGOTTEN_AGAIN);
        if is_forgotten {
            forgotten = Some(Instant::now());
        }
        future::ready(!is_forgotten || is_again)
    })
}

/// What the index needs of a pod, trimmed; `kept` are its bytes.
pub fn observed(key: PodId, uid: String, object: &Value, marked: Marked, kept: Arc<[u8]>) -> Observed {
    Observed {
        key,
        uid,
        ready: mark::is_ready(object),
        ending: object.pointer("/metadata/deletionTimestamp").is_some(),
        rejected: is_rejected(object),
        demand: demand(object),
        support: Support::named(object),
        needs: Needs::of(object),
        is_bootkubes: leftovers::is_checkpointer(object),
        containers: if marked == Marked::No { Vec::new() } else { containers(object) },
        fingerprint: fingerprint(object),
        marked,
        object: kept,
    }
}

/// `<namespace>_<name>` and UID.
pub fn identity(pod: &DynamicObject) -> Option<(PodId, String)> {
    let metadata = &pod.metadata;
    let key = PodId::new(metadata.namespace.as_deref()?, metadata.name.as_deref()?).ok()?;
    Some((key, metadata.uid.clone().filter(|uid| !uid.is_empty())?))
}

/// What the kubelet counts for it; `None`: it has ended, or it is the mirror of a static pod, which is counted from its
/// manifest.
fn demand(pod: &Value) -> Option<Demand> {
    let is_mirror = pod.pointer("/metadata/annotations").is_some_and(|all| all.get(CONFIG_MIRROR).is_some());
    let phase = pod.pointer("/status/phase").and_then(Value::as_str);
    let counts = !is_mirror && !matches!(phase, Some("Failed" | "Succeeded"));
    pod.get("spec").filter(|_| counts).map(Demand::of)
}

/// How the status of a pod begins that its kubelet refused for good (pkg/kubelet/kubelet.go, `rejectPod`).
const REJECTED: &str = "Pod was rejected";

/// Its kubelet refused it for good, and no controller replaces it.
fn is_rejected(pod: &Value) -> bool {
    let text = |path: &str| pod.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array).into_iter().flatten();
    let is_alone = !owners.into_iter().any(|owner| owner.get("controller") == Some(&Value::Bool(true)));
    is_alone && text("/status/phase") == "Failed" && text("/status/message") == REJECTED
}

/// The pod without what no capture looks at and what would be kept in memory for every pod.
pub fn trim(mut pod: DynamicObject) -> Value {
    pod.metadata.managed_fields = None;
    let mut data = pod.data;
    let status = data.get_mut("status").and_then(Value::as_object_mut).map(std::mem::take).unwrap_or_default();
    let kept: Map<String, Value> = status
        .into_iter()
        .filter_map(|(name, value)| match name.as_str() {
            "conditions" => Some((name, conditions(value))),
            "message" if value.as_str().is_some_and(|text| text.starts_with(REJECTED)) => {
                Some((name, Value::from(REJECTED)))
            }
            "phase"
            | "hostIP"
            | "hostIPs"
            | "podIP"
            | "podIPs"
            | "qosClass"
            | "containerStatuses"
            | "initContainerStatuses" => Some((name, value)),
            _ => None,
        })
        .collect();
    let mut object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": pod.metadata});
    if let (Some(object), Value::Object(data)) = (object.as_object_mut(), data) {
        object.extend(data);
        object.insert("status".into(), Value::Object(kept));
    }
    object
}

/// Types and status only: times and messages change without meaning anything here.
fn conditions(conditions: Value) -> Value {
    let Value::Array(conditions) = conditions else { return Value::Null };
    conditions
        .into_iter()
        .map(|condition| json!({"type": condition.get("type"), "status": condition.get("status")}))
        .collect()
}

/// Ids of the running containers, without the runtime's name before them.
fn containers(pod: &Value) -> Vec<String> {
    let statuses = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
    let running = statuses.into_iter().flatten().filter(|status| status.pointer("/state/running").is_some());
    let id = |status: &Value| {
        let id = status.get("containerID")?.as_str()?;
        Some(id.split_once("://").map_or(id, |(_, id)| id).to_owned())
    };
    running.filter_map(id).collect()
}

/// Of everything that a checkpoint is made from and the watch tells: a heartbeat of the status is not in it.
fn fingerprint(pod: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    for part in ["/spec", "/metadata/labels", "/metadata/annotations", "/metadata/ownerReferences"] {
        pod.pointer(part).map(Value::to_string).hash(&mut hasher);
    }
    for part in ["/status/initContainerStatuses", "/status/containerStatuses"] {
        for container in pod.pointer(part).and_then(Value::as_array).into_iter().flatten() {
            for field in ["name", "containerID", "restartCount"] {
                container.get(field).map(Value::to_string).hash(&mut hasher);
            }
        }
    }
    hasher.finish()
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
