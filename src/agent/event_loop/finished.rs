//! What work beside the loop ends with.

use std::time::Duration;

use crate::agent::outcome::Captured;
use crate::agent::published::ledger::Done;
use crate::agent::surroundings::Surroundings;
use crate::agent::upkeep::Findings;
use crate::client::gone::Answer;
use crate::places::store::{self, Tidied};
use crate::pod::id::PodId;

/// The result of work.
pub(super) enum Finished {
    Captured {
        key: PodId,
        captured: Captured,
        took: Duration,
    },
    Answered {
        key: PodId,
        uid: String,
        answer: Answer,
        why: Option<String>,
    },
    /// With the kind and the text of an error.
    Removed {
        key: PodId,
        uid: String,
        result: Result<(), (&'static str, String)>,
    },
    Reported(Box<Done>),
    Surveyed(Surroundings),
    Upkept(Findings),
    Tidied(Result<Tidied, store::Error>),
    /// With what failed.
    Aged(Option<String>),
    EventRecorded(Result<(), kube::Error>),
}
