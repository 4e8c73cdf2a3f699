//! What the store has of a pod, and the result of its last capture.

use std::time::Duration;

use crate::capture::Reason;
use crate::pod::id::PodId;
use crate::reasons::Warning;

/// The newest generation of one pod in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The pod.
    pub key: PodId,
    /// UID of its parent; empty: not known, because no generation can be read.
    pub uid: String,
    /// UID of its parent's controller.
    pub owner: Option<String>,
    /// Number of the generation; 0: none can be read.
    pub generation: u64,
    /// Its digest.
    pub digest: String,
    /// Size of its file.
    pub size: u64,
    /// When it was captured, RFC 3339.
    pub captured: String,
    /// Its maximum age.
    pub max_age: Option<Duration>,
    /// Warnings of the capture.
    pub warnings: Vec<Warning>,
}

impl Stored {
    /// For a pod of which no checkpoint can be read.
    pub(crate) fn unread(key: PodId) -> Self {
        Self {
            key,
            uid: String::new(),
            owner: None,
            generation: 0,
            digest: String::new(),
            size: 0,
            captured: String::new(),
            max_age: None,
            warnings: Vec::new(),
        }
    }
}

/// Result of the last capture of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There was none since the agent started.
    #[default]
    Waiting,
    /// The store has it.
    Captured,
    /// It cannot come back correctly.
    Refused(Vec<Reason>),
    /// A temporary fault; the capture is retried.
    Failed {
        /// For the condition.
        reason: &'static str,
        /// What went wrong.
        message: String,
    },
}

/// Result of a capture.
#[derive(Clone, Debug)]
pub(crate) enum Captured {
    /// The store has this generation, new or the same as before.
    Stored(Stored),
    /// As [`Outcome::Refused`].
    Refused(Vec<Reason>),
    /// As [`Outcome::Failed`].
    Failed {
        /// For the condition.
        reason: &'static str,
        /// What went wrong.
        message: String,
    },
}
