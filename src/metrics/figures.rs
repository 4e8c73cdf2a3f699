//! The supervisor's record in figures: served by the supervisor, and by the agent, which reads it.

use crate::metrics::catalog::Metric;
use crate::metrics::page::{Page, count, seconds};
use crate::names::activation_results;
use crate::node::contact::Class;
use crate::places::reports::{ContactReport, Counts, Phase, Status};

/// Of which part a problem is.
const SUPERVISOR: &str = "supervisor";

/// The supervisor's record in figures.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    phases: [(&'static str, u64); 4],
    problems: usize,
    contact: Option<ContactReport>,
    counts: Counts,
}

impl Figures {
    /// From what the supervisor writes.
    pub fn new(status: &Status, counts: &Counts) -> Self {
        let of = |phase| status.pods.iter().filter(|pod| pod.phase == phase).map(|_| 1).sum();
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

    /// The same with so many checkpoints that are inactive.
    #[must_use]
    pub fn with_inactive(mut self, checkpoints: u64) -> Self {
        if let Some((_, inactive)) = self.phases.first_mut() {
            *inactive = checkpoints;
        }
        self
    }

    /// Adds all of it. `now` is on the clock of the record; `lives` tells whether the supervisor does: without it nobody
    /// asks the API server, and what was last heard is not told as if it were so.
    pub fn add_to(&self, page: &mut Page, now: u64, lives: bool) {
        let Self { phases, problems, contact, counts } = self;
        let Counts { outages, activations, unstuck, activation, takeover, overlap } = counts;
        page.each(Metric::Checkpoints, *phases);
        if lives {
            page.each(Metric::Problems, [(SUPERVISOR, u64::try_from(*problems).unwrap_or(u64::MAX))]);
        }
        if let Some(contact) = contact.as_ref().filter(|_| lives) {
            let answers = contact.class == Class::Answering;
            let silence = if answers { 0 } else { now.saturating_sub(contact.since) };
            page.one(Metric::ApiContact, f64::from(u8::from(answers)));
            page.one(Metric::ApiSilence, seconds(silence));
        }
        page.one(Metric::Outages, count(*outages));
        let results = activation_results().map(|result| (result, activations.get(result).copied().unwrap_or_default()));
        page.each(Metric::Activations, results);
        page.times(Metric::ActivationTime, activation);
        page.times(Metric::TakeoverTime, takeover);
        page.times(Metric::OverlapTime, overlap);
        page.one(Metric::KubeletUnstuck, count(*unstuck));
    }
}

/// Adds what program this is.
pub fn add_build(page: &mut Page, part: &'static str) {
    page.sample(Metric::BuildInfo, &[env!("CARGO_PKG_VERSION"), part], 1.0);
}
