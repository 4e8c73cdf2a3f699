//! What a drill is made of: the manifest of a rehearsal ([`manifest`]), what is compared ([`view`],
//! [`tree`]), and where its traces are ([`crate::places::drill`]), which the supervisor removes
//! when the drill does not. Holding one is the command line's.

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

/// What became of one pod.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    pub(crate) recovers: bool,
    /// Machine-readable, where it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
    /// From the link, or from the end of the pod itself, to all containers running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seconds: Option<f64>,
    /// From the way back to the pod itself running alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) handed_back: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) differences: Vec<String>,
    /// What of this pod a rehearsal had to leave out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) left_out: Vec<String>,
}

impl Outcome {
    /// What the supervisor would say.
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

    /// It could not be tried.
    pub(crate) fn not_tried(why: &str) -> Self {
        Self {
            reason: Some("NotTried".into()),
            message: Some(why.to_owned()),
            ..Self::default()
        }
    }
}
