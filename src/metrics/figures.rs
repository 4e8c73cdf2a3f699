//! The supervisor's report as metrics: served by the supervisor, and by the agent, which reads the
//! report from the run directory.

use crate::metrics::catalog::Metric;
use crate::metrics::page::{Page, count, seconds};
use crate::names::activation_results;
use crate::node::contact::Class;
use crate::places::reports::{ContactReport, Counts, Phase, Status};

/// Value of the label `part`.
const SUPERVISOR: &str = "supervisor";

/// The supervisor's report as metrics.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    phases: [(&'static str, u64); 4],
    problems: usize,
    contact: Option<ContactReport>,
    counts: Counts,
}

impl Figures {
    /// Takes what the supervisor writes to its report.
    pub fn new(status: &Status, counts: &Counts) -> Self {
        let of = |phase| {
            status
                .pods
                .iter()
                .filter(|pod| pod.phase == phase)
                .map(|_| 1)
                .sum()
        };
        Self {
            phases: [
                ("Inactive", of(Phase::Inactive)),
                ("Active", of(Phase::Active)),
                ("Released", of(Phase::Released)),
                ("Blocked", of(Phase::Blocked)),
            ],
            problems: status.problems.len(),
            contact: status.contact.clone(),
            counts: counts.clone(),
        }
    }

    /// The same with this number of inactive checkpoints.
    #[must_use]
    pub fn with_inactive(mut self, checkpoints: u64) -> Self {
        if let Some((_, inactive)) = self.phases.first_mut() {
            *inactive = checkpoints;
        }
        self
    }

    /// Adds everything to `page`. `now` is on the clock of the report, in milliseconds. `lives`
    /// says whether the supervisor runs: if not, nothing probes the API server, and the last known
    /// contact is not exported as if it were current.
    pub fn add_to(&self, page: &mut Page, now: u64, lives: bool) {
        let Self {
            phases,
            problems,
            contact,
            counts,
        } = self;
        let Counts {
            outages,
            activations,
            unstuck,
            activation,
            takeover,
            overlap,
        } = counts;
        page.each(Metric::Checkpoints, *phases);
        if lives {
            page.each(
                Metric::Problems,
                [(SUPERVISOR, u64::try_from(*problems).unwrap_or(u64::MAX))],
            );
        }
        if let Some(contact) = contact.as_ref().filter(|_| lives) {
            let answers = contact.class == Class::Answering;
            let silence = if answers {
                0
            } else {
                now.saturating_sub(contact.since)
            };
            page.one(Metric::ApiContact, f64::from(u8::from(answers)));
            page.one(Metric::ApiSilence, seconds(silence));
        }
        page.one(Metric::Outages, count(*outages));
        let results = activation_results()
            .map(|result| (result, activations.get(result).copied().unwrap_or_default()));
        page.each(Metric::Activations, results);
        page.times(Metric::ActivationTime, activation);
        page.times(Metric::TakeoverTime, takeover);
        page.times(Metric::OverlapTime, overlap);
        page.one(Metric::KubeletUnstuck, count(*unstuck));
    }
}

/// Adds the metric with the program's version and part.
pub fn add_build(page: &mut Page, part: &'static str) {
    page.sample(Metric::BuildInfo, &[env!("CARGO_PKG_VERSION"), part], 1.0);
}
