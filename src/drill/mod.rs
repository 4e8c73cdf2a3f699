//! The parts of a drill: the manifest of a rehearsal ([`manifest`]) and what is compared ([`view`],
//! [`tree`]). Its files on the node are in [`crate::places::drill`]; the supervisor removes them if
//! the drill does not. The command line runs a drill.

mod look;
pub mod manifest;
pub(crate) mod node;
pub(crate) mod outage;
pub(crate) mod rehearse;
pub mod switch;
pub mod tree;
pub mod view;

use serde::Serialize;

use crate::supervisor::core::Refused;

/// Result of the drill for one pod.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    pub(crate) recovers: bool,
    /// Machine-readable reason, if it does not recover.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
    /// From the link, or from the end of the pod itself, until all containers run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seconds: Option<f64>,
    /// From the restored path to the API server until only the pod itself runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) handed_back: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) differences: Vec<String>,
    /// Which parts of this pod a rehearsal had to leave out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) left_out: Vec<String>,
}

impl Outcome {
    /// The supervisor would refuse the pod, for this reason.
    pub(crate) fn refused(refused: &Refused) -> Self {
        let (reason, message) = (
            Some(refused.reason.to_string()),
            Some(refused.message.clone()),
        );
        Self {
            reason,
            message,
            ..Self::default()
        }
    }

    /// The pod could not be tried.
    pub(crate) fn not_tried(why: &str) -> Self {
        Self {
            reason: Some("NotTried".into()),
            message: Some(why.to_owned()),
            ..Self::default()
        }
    }
}
