//! What a pod's own JSON says: whether its owner marked it or opted out, and whether it is Ready.

use serde_json::Value;

use crate::names;

/// Whether this pod is marked by an annotation of its own.
pub fn is_marked(pod: &Value) -> bool {
    mark(pod).is_some() && !is_opted_out(pod)
}

/// The annotation that marks this pod, if it has one.
pub fn mark(pod: &Value) -> Option<&'static str> {
    [names::CHECKPOINT, names::CHECKPOINT_LEGACY]
        .into_iter()
        .find(|name| annotation(pod, name) == Some("true"))
}

/// Whether an annotation says that this pod must not be checkpointed, whatever else marks it.
pub fn is_opted_out(pod: &Value) -> bool {
    annotation(pod, names::CHECKPOINT) == Some("false")
}

/// Whether a selector that marks many pods can mean this one. Static pods come back by themselves,
/// and pods that run to completion would be refused again and again, like those of a CronJob that
/// runs every minute.
pub fn could_be_meant(pod: &Value) -> bool {
    let is_api = annotation(pod, names::CONFIG_SOURCE).is_none_or(|source| source == "api");
    let ends = pod
        .pointer("/spec/restartPolicy")
        .and_then(Value::as_str)
        .is_some_and(|policy| policy != "Always");
    is_api && annotation(pod, names::CONFIG_MIRROR).is_none() && !ends
}

fn annotation<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    pod.pointer("/metadata/annotations")?.get(name)?.as_str()
}

/// Whether the pod is Ready, Running and not being deleted. Only then is it captured.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let is = |condition: &Value, key: &str, value: &str| {
        condition.get(key).and_then(Value::as_str) == Some(value)
    };
    pod.pointer("/metadata/deletionTimestamp")
        .is_none_or(Value::is_null)
        && pod.pointer("/status/phase").and_then(Value::as_str) == Some("Running")
        && conditions
            .into_iter()
            .flatten()
            .any(|it| is(it, "type", "Ready") && is(it, "status", "True"))
}
