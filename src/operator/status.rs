//! What a `PodCheckpointer` shows. Pure: from what was seen in the cluster, and never from what is wanted.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::Value;

use crate::api::podcheckpointer::{Checkpoints, Nodes, PodCheckpointerStatus};
use crate::names::{APPLIED, FIT};
use crate::report::first_of;

/// What became of the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// The objects are there; in words, what is not, because it is not needed.
    Yes(Option<String>),
    /// They are not all as the spec asks for.
    No {
        /// For the condition.
        reason: &'static str,
        /// In words.
        message: String,
    },
    /// They are being removed, and this is waited for.
    Removing(String),
}

/// What was seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    /// Generation of the spec that `applied` is about.
    pub generation: Option<i64>,
    /// What became of it.
    pub applied: &'a Applied,
    /// The agents' DaemonSet, as JSON.
    pub daemon_set: Option<&'a Value>,
    /// Marked pods; `None`: not all of them were told of yet.
    pub checkpoints: Option<Checkpoints>,
    /// Nodes where something is in the way of their pods' return, with what; `None`: not all of them told yet.
    pub unfit: Option<&'a BTreeMap<String, String>>,
}

/// The status; `before` is the one that is shown, so that a condition keeps the time of its last change.
pub(crate) fn status(seen: &Seen<'_>, before: &PodCheckpointerStatus, now: Timestamp) -> PodCheckpointerStatus {
    let Seen { generation, applied, daemon_set, checkpoints, unfit } = *seen;
    let nodes = daemon_set.and_then(nodes);
    let image = daemon_set.and_then(|set| set.pointer("/spec/template/spec/containers/0/image"));
    let condition = |(kind, status, reason, message): (&str, &str, &str, String)| {
        let known = before.conditions.iter().find(|known| known.type_ == kind && known.status == status);
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.chars().take(MESSAGE_LIMIT).collect(),
            last_transition_time: known.map_or(Time(now), |known| known.last_transition_time.clone()),
            observed_generation: generation,
        }
    };
    PodCheckpointerStatus {
        observed_generation: generation,
        image: image.and_then(Value::as_str).map(str::to_owned),
        conditions: [applied_condition(applied), ready_condition(applied, nodes), fit_condition(unfit)]
            .map(condition)
            .into(),
        nodes,
        checkpoints: checkpoints.or(before.checkpoints),
    }
}

/// Longest message of a condition (apimachinery, meta/v1 `Condition`).
const MESSAGE_LIMIT: usize = 32_768;

type Claim = (&'static str, &'static str, &'static str, String);

fn applied_condition(applied: &Applied) -> Claim {
    match applied {
        Applied::Yes(note) => {
            let note = note.as_ref().map(|note| format!("; {note}")).unwrap_or_default();
            ("Applied", "True", APPLIED, format!("every object is as the spec asks for{note}"))
        }
        Applied::No { reason, message } => ("Applied", "False", reason, message.clone()),
        Applied::Removing(message) => ("Applied", "False", "Removing", message.clone()),
    }
}

fn ready_condition(applied: &Applied, nodes: Option<Nodes>) -> Claim {
    let claim = |status, reason, message: String| ("Ready", status, reason, message);
    if let Applied::Removing(message) = applied {
        return claim("False", "Removing", message.clone());
    }
    let Some(Nodes { desired, ready, upgraded }) = nodes else {
        let message = "the controller of DaemonSets has not told yet of these settings";
        return claim("Unknown", "NotObserved", message.into());
    };
    if let Applied::No { reason, .. } = applied {
        let message = format!("{ready} of {desired} nodes have an agent that is ready, of earlier settings");
        return claim("False", reason, message);
    }
    if upgraded < desired {
        return claim("False", "Progressing", format!("{upgraded} of {desired} nodes have an agent of these settings"));
    }
    if ready < desired {
        let advice = "`kubectl -n pod-checkpointer get pods -o wide` names the others, and each says why at /readyz";
        return claim(
            "False",
            "NodesNotReady",
            format!("{ready} of {desired} nodes have an agent that is ready; {advice}"),
        );
    }
    if desired == 0 {
        return claim("True", "NoNodes", "no node should have an agent: see nodeSelector and tolerations".into());
    }
    claim("True", "Ready", format!("{ready} of {desired} nodes have an agent that is ready"))
}

/// Nodes that are named in a message.
const NAMED: usize = 10;

fn fit_condition(unfit: Option<&BTreeMap<String, String>>) -> Claim {
    let claim = |status, reason, message: String| ("NodesFit", status, reason, message);
    match unfit {
        None => claim("Unknown", "NotObserved", "not all PodCheckpoints were told of yet".into()),
        Some(nodes) if nodes.is_empty() => {
            claim("True", FIT, "nothing of the nodes with PodCheckpoints is in their pods' way".into())
        }
        Some(nodes) => {
            let named: Vec<String> = nodes.iter().map(|(node, why)| format!("{node} ({why})")).collect();
            let message = format!(
                "pods may not come back on {} nodes: {}; condition NodeFit of their PodCheckpoints says what to do",
                nodes.len(),
                first_of(&named, NAMED)
            );
            claim("False", "NodesUnfit", message)
        }
    }
}

/// Counted by the controller of DaemonSets; `None`: not yet of the template of now.
pub(crate) fn nodes(daemon_set: &Value) -> Option<Nodes> {
    let number = |path: &str| daemon_set.pointer(path).and_then(Value::as_i64);
    let count = |path: &str| number(path).and_then(|count| i32::try_from(count).ok()).unwrap_or_default();
    let generation = number("/metadata/generation")?;
    (number("/status/observedGeneration")? == generation).then(|| Nodes {
        desired: count("/status/desiredNumberScheduled"),
        ready: count("/status/numberReady"),
        upgraded: count("/status/updatedNumberScheduled"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn set(observed: i64, desired: i64, upgraded: i64, ready: i64) -> Value {
        json!({
            "metadata": {"generation": 3},
            "spec": {"template": {"spec": {"containers": [{"image": "shop/agent:2"}]}}},
            "status": {"observedGeneration": observed, "desiredNumberScheduled": desired,
                "updatedNumberScheduled": upgraded, "numberReady": ready},
        })
    }

    fn shown(applied: &Applied, set: Option<&Value>, before: &PodCheckpointerStatus) -> PodCheckpointerStatus {
        let seen = Seen { generation: Some(7), applied, daemon_set: set, checkpoints: None, unfit: None };
        status(&seen, before, at(60))
    }

    fn reasons(status: &PodCheckpointerStatus) -> Vec<(&str, &str)> {
        status.conditions.iter().take(2).map(|it| (it.status.as_str(), it.reason.as_str())).collect()
    }

    #[test]
    fn ready_is_what_the_daemon_sets_controller_counted_of_the_template_of_now() {
        let none = PodCheckpointerStatus::default();
        let applied = Applied::Yes(None);
        for (set, expected) in [
            (None, ("Unknown", "NotObserved")),
            (Some(set(2, 5, 5, 5)), ("Unknown", "NotObserved")),
            (Some(set(3, 5, 4, 5)), ("False", "Progressing")),
            (Some(set(3, 5, 5, 4)), ("False", "NodesNotReady")),
            (Some(set(3, 5, 5, 5)), ("True", "Ready")),
            (Some(set(3, 0, 0, 0)), ("True", "NoNodes")),
        ] {
            let status = shown(&applied, set.as_ref(), &none);
            assert_eq!(reasons(&status), [("True", "Applied"), expected]);
        }
        let status = shown(&applied, Some(&set(3, 6, 5, 4)), &none);
        assert_eq!(status.nodes, Some(Nodes { desired: 6, ready: 4, upgraded: 5 }));
        assert_eq!((status.image.as_deref(), status.observed_generation), (Some("shop/agent:2"), Some(7)));
        assert_eq!(shown(&applied, Some(&set(2, 6, 5, 4)), &none).nodes, None, "of an earlier template");
    }

    #[test]
    fn nodes_that_are_in_their_pods_way_are_named() {
        let applied = Applied::Yes(None);
        let shown = |unfit: Option<&BTreeMap<String, String>>| {
            let seen = Seen { generation: None, applied: &applied, daemon_set: None, checkpoints: None, unfit };
            let condition = status(&seen, &PodCheckpointerStatus::default(), at(0)).conditions.remove(2);
            (condition.status, condition.reason, condition.message)
        };
        assert_eq!(shown(None).0, "Unknown");
        assert_eq!(shown(Some(&BTreeMap::new())).1, "Fit");
        let nodes = (0..12).map(|at| (format!("edge-{at:02}"), "StoreFull".to_owned())).collect();
        let (status, reason, message) = shown(Some(&nodes));
        assert_eq!((status.as_str(), reason.as_str()), ("False", "NodesUnfit"));
        assert!(message.contains("on 12 nodes: edge-00 (StoreFull), edge-01 (StoreFull), "), "{message}");
        assert!(message.contains("edge-09 (StoreFull) and 2 more;"), "{message}");
    }

    #[test]
    fn settings_that_cannot_be_applied_are_shown_with_what_still_runs() {
        let applied = Applied::No { reason: "Refused", message: "a webhook said no".into() };
        let status = shown(&applied, Some(&set(3, 5, 5, 5)), &PodCheckpointerStatus::default());
        assert_eq!(reasons(&status), [("False", "Refused"), ("False", "Refused")]);
        assert_eq!(status.conditions[0].message, "a webhook said no");
        assert!(status.conditions[1].message.starts_with("5 of 5 nodes"), "{}", status.conditions[1].message);
        let removing = shown(&Applied::Removing("node-1".into()), None, &status);
        assert_eq!(reasons(&removing), [("False", "Removing"), ("False", "Removing")]);
        assert_eq!(removing.conditions[1].message, "node-1");
    }

    #[test]
    fn a_condition_keeps_the_time_of_its_last_change_and_nothing_new_is_no_change() {
        let (applied, ready) = (Applied::Yes(None), set(3, 5, 5, 5));
        let seen =
            Seen { generation: Some(7), applied: &applied, daemon_set: Some(&ready), checkpoints: None, unfit: None };
        let first = status(&seen, &PodCheckpointerStatus::default(), at(0));
        assert_eq!(status(&seen, &first, at(60)), first);
        let fewer = set(3, 5, 5, 4);
        let second = status(&Seen { daemon_set: Some(&fewer), ..seen }, &first, at(120));
        assert_eq!(second.conditions[0].last_transition_time, Time(at(0)));
        assert_eq!(second.conditions[1].last_transition_time, Time(at(120)));
    }

    #[test]
    fn counts_that_are_not_known_yet_stay_as_they_were() {
        let counted = Checkpoints { total: 3, recoverable: 2, active: 1 };
        let before = PodCheckpointerStatus { checkpoints: Some(counted), ..PodCheckpointerStatus::default() };
        assert_eq!(shown(&Applied::Yes(None), None, &before).checkpoints, Some(counted));
    }
}
