//! Finds fields of a pod that the program does not know.
//!
//! Deserializing into types drops unknown fields. So the object is read into them and written out
//! again, and every path that is then missing is a field without a rule.

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Reason;
use crate::reasons::Refusal;

/// The typed pod, and a reason for each unknown field. `status` is not checked, because nothing of
/// it is carried over.
pub fn read(pod: &Value) -> (Option<Pod>, Vec<Reason>) {
    let mut wanted = pod.clone();
    if let Some(object) = wanted.as_object_mut() {
        object.remove("status");
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    }
    let Ok(mut typed) = serde_json::from_value::<Pod>(wanted.clone()) else {
        // the deserializer's own message may quote a value
        let detail = "the object is not a valid v1 Pod".to_owned();
        return (
            None,
            vec![Reason {
                refusal: Refusal::UnknownField,
                detail,
            }],
        );
    };
    let known = serde_json::to_value(&typed).unwrap_or_default();
    let mut paths = Vec::new();
    missing(&wanted, &known, &mut String::new(), &mut paths);
    typed.status = pod.get("status").map(status);
    let reasons = paths
        .into_iter()
        .map(|detail| Reason {
            refusal: Refusal::UnknownField,
            detail,
        })
        .collect();
    (Some(typed), reasons)
}

/// Only the fields of the status that the rules use; one that does not have the expected type is
/// left out.
fn status(status: &Value) -> PodStatus {
    fn field<T: DeserializeOwned>(status: &Value, name: &str) -> Option<T> {
        serde_json::from_value(status.get(name)?.clone()).ok()
    }
    PodStatus {
        phase: field(status, "phase"),
        pod_ip: field(status, "podIP"),
        pod_ips: field(status, "podIPs"),
        conditions: field(status, "conditions"),
        container_statuses: field(status, "containerStatuses"),
        init_container_statuses: field(status, "initContainerStatuses"),
        ..PodStatus::default()
    }
}

fn missing(wanted: &Value, known: &Value, path: &mut String, paths: &mut Vec<String>) {
    let length = path.len();
    match (wanted, known) {
        (Value::Object(wanted), _) => {
            for (key, value) in wanted.iter().filter(|(_, value)| !value.is_null()) {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
                match known.get(key) {
                    Some(known) => missing(value, known, path, paths),
                    // the types leave out a required list when it is empty
                    None if value.as_array().is_some_and(Vec::is_empty)
                        && path == "spec.containers" => {}
                    None => paths.push(path.clone()),
                }
                path.truncate(length);
            }
        }
        (Value::Array(wanted), _) => {
            for (index, value) in wanted.iter().enumerate() {
                let _ = write!(path, "[{index}]");
                match known.get(index) {
                    Some(known) => missing(value, known, path, paths),
                    None => paths.push(path.clone()),
                }
                path.truncate(length);
            }
        }
        _ => {}
    }
}
