//! Conditions in the status of the custom resources.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Type of a PodCheckpoint's condition: there is a checkpoint of the pod as it is now.
pub const CAPTURED: &str = "Captured";
/// Type of a PodCheckpoint's condition: the pod would come back without the API server.
pub const RECOVERABLE: &str = "Recoverable";
/// Type of a PodCheckpoint's condition: a twin runs in the pod's place.
pub const ACTIVE: &str = "Active";
/// Type of a PodCheckpoint's condition: nothing about its node prevents recovery.
pub const NODE_FIT: &str = "NodeFit";
/// Type of a `PodCheckpointer`'s condition: every object that it asks for exists.
pub const APPLIED: &str = "Applied";
/// Type of a `PodCheckpointer`'s condition: the agent of every node is ready. Also that of a pod or
/// a node.
pub const READY: &str = "Ready";
/// Type of a `PodCheckpointer`'s condition: no node has a risk.
pub const NODES_FIT: &str = "NodesFit";

/// Longest message that the API server takes, in characters (apimachinery, meta/v1 `Condition`).
const MESSAGE_LIMIT: usize = 32_768;

/// A condition of this type, without a generation. Of those that are shown `before`, the one of the
/// same type and status gives it the time of its last transition, which is `now` otherwise. A
/// message that is too long is cut.
pub fn condition(
    type_: &str,
    status: &str,
    reason: &str,
    message: &str,
    before: &[Condition],
    now: Timestamp,
) -> Condition {
    let same = before
        .iter()
        .find(|known| known.type_ == type_ && known.status == status);
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.chars().take(MESSAGE_LIMIT).collect(),
        last_transition_time: same.map_or(Time(now), |same| same.last_transition_time.clone()),
        observed_generation: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn the_time_is_that_of_the_last_change_of_the_status_and_not_of_the_reason() {
        let first = condition("Ready", "False", "Progressing", "1 of 2", &[], at(0));
        let other = condition("Applied", "True", "Applied", "", &[], at(1));
        let before = [other, first];
        let same = condition("Ready", "False", "NodesNotReady", "2 of 2", &before, at(2));
        assert_eq!(
            (same.last_transition_time, same.reason.as_str()),
            (Time(at(0)), "NodesNotReady")
        );
        assert_eq!(
            condition("Ready", "True", "Ready", "", &before, at(3)).last_transition_time,
            Time(at(3))
        );
    }

    #[test]
    fn a_message_that_is_too_long_is_cut_between_characters() {
        let long = condition("Ready", "True", "Ready", &"é".repeat(40_000), &[], at(0));
        assert_eq!(long.message.chars().count(), MESSAGE_LIMIT);
    }
}
