//! What a pod's own JSON says: whether its owner marked it, opted out, and whether it is Ready.

use serde_json::Value;

use crate::names;

/// Did its owner mark this pod by an annotation?
pub fn is_marked(pod: &Value) -> bool {
    mark(pod).is_some() && !is_opted_out(pod)
}

/// The annotation that marks this pod.
pub fn mark(pod: &Value) -> Option<&'static str> {
    [names::CHECKPOINT, names::CHECKPOINT_LEGACY].into_iter().find(|name| annotation(pod, name) == Some("true"))
}

/// Did its owner say that this pod is not to be checkpointed, whatever else marks it?
pub fn is_opted_out(pod: &Value) -> bool {
    annotation(pod, names::CHECKPOINT) == Some("false")
}

/// Could it be meant by a mark that is on many pods? Not one that the kubelet has from a file, which comes back by itself, and
/// not one that ends: a job of each minute would be refused each minute.
pub fn could_be_meant(pod: &Value) -> bool {
    let is_api = annotation(pod, names::CONFIG_SOURCE).is_none_or(|source| source == "api");
    let ends = pod.pointer("/spec/restartPolicy").and_then(Value::as_str).is_some_and(|policy| policy != "Always");
    is_api && annotation(pod, names::CONFIG_MIRROR).is_none() && !ends
}

fn annotation<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    pod.pointer("/metadata/annotations")?.get(name)?.as_str()
}

/// Is it known to be good now? Only then is it captured.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let is = |condition: &Value, key: &str, value: &str| condition.get(key).and_then(Value::as_str) == Some(value);
    pod.pointer("/metadata/deletionTimestamp").is_none_or(Value::is_null)
        && pod.pointer("/status/phase").and_then(Value::as_str) == Some("Running")
        && conditions.into_iter().flatten().any(|it| is(it, "type", "Ready") && is(it, "status", "True"))
}
