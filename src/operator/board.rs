//! What the operator tells of itself: metrics and health.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::api::podcheckpointer::{Checkpoints, Nodes, PodCheckpointerStatus};
use crate::metrics::catalog::Metric;
use crate::metrics::figures::add_build;
use crate::metrics::page::Page;
use crate::metrics::{Pulse, Source};
use crate::names::APPLY_RESULTS;
use crate::operator::kinds::{KINDS, Kind};

/// What is written down by who contends and who leads.
#[derive(Debug, Default)]
pub struct Board {
    /// The leader's loop turns again; `None`: another operator leads.
    leader: RefCell<Option<Pulse>>,
    /// The API server told who holds the Lease.
    is_heard: Cell<bool>,
    /// The leader has read the settings.
    is_informed: Cell<bool>,
    /// The status of the `PodCheckpointer`; `None`: there is none, or it was not looked at yet.
    shown: RefCell<Option<PodCheckpointerStatus>>,
    applied: RefCell<BTreeMap<&'static str, u64>>,
    repaired: RefCell<BTreeMap<&'static str, u64>>,
}

impl Board {
    /// The API server told who holds the Lease.
    pub fn hears(&self) {
        self.is_heard.set(true);
    }

    /// This operator leads, and its loop turns again then at the latest.
    pub fn acts(&self, then: Instant) {
        self.leader.borrow_mut().get_or_insert_default().expect(then);
    }

    /// The settings are known.
    pub fn knows(&self) {
        self.is_informed.set(true);
    }

    /// This operator does not lead any more.
    pub fn stops(&self) {
        self.leader.replace(None);
        self.is_informed.set(false);
        self.shown.replace(None);
    }

    /// This is the status of the `PodCheckpointer`; `None`: there is none.
    pub fn shows(&self, status: Option<PodCheckpointerStatus>) {
        self.shown.replace(status);
    }

    /// All objects were applied, with one of [`APPLY_RESULTS`].
    pub fn applied(&self, result: &'static str) {
        *self.applied.borrow_mut().entry(result).or_default() += 1;
    }

    /// An object of this kind is not as it was applied.
    pub fn repairs(&self, kind: Kind) {
        *self.repaired.borrow_mut().entry(kind.kind).or_default() += 1;
    }
}

impl Source for Board {
    fn page(&self) -> Page {
        let mut page = Page::default();
        add_build(&mut page, "operator");
        page.one(Metric::OperatorLeads, f64::from(u8::from(self.leader.borrow().is_some())));
        if let Some(status) = &*self.shown.borrow() {
            let conditions = status.conditions.iter().map(|it| (it.type_.as_str(), u64::from(it.status == "True")));
            page.each(Metric::OperatorCondition, conditions);
            if let Some(Nodes { desired, ready, upgraded }) = status.nodes {
                let nodes = [("desired", desired), ("ready", ready), ("upgraded", upgraded)];
                page.each(Metric::OperatorNodes, nodes.map(|(state, number)| (state, whole(number.into()))));
            }
            if let Some(Checkpoints { total, recoverable, active }) = status.checkpoints {
                let all = [("total", total), ("recoverable", recoverable), ("active", active)];
                page.each(Metric::OperatorCheckpoints, all.map(|(state, number)| (state, whole(number))));
            }
        }
        let of = |counts: &RefCell<BTreeMap<_, _>>, key| counts.borrow().get(key).copied().unwrap_or_default();
        page.each(Metric::OperatorApplies, APPLY_RESULTS.map(|result| (result, of(&self.applied, result))));
        page.each(Metric::OperatorRepairs, KINDS.map(|kind| (kind.kind, of(&self.repaired, kind.kind))));
        page
    }

    fn unhealthy(&self) -> Vec<String> {
        self.leader.borrow().as_ref().and_then(Pulse::stalled).into_iter().collect()
    }

    fn not_ready(&self) -> Vec<String> {
        let lease = (!self.is_heard.get()).then(|| "lease: the API server has not told yet who holds it".to_owned());
        let leads = self.leader.borrow().is_some();
        let settings = (leads && !self.is_informed.get()).then(|| "settings: they were not read yet".to_owned());
        lease.into_iter().chain(settings).collect()
    }
}

/// A count of a status, whose fields could be negative by their type.
fn whole(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::catalog::Of;

    #[test]
    fn the_leader_tells_every_metric_of_its_own_and_another_one_nothing_of_the_cluster() {
        let board = Board::default();
        board.acts(Instant::now());
        board.applied("Refused");
        board.repairs(KINDS[0]);
        let condition = serde_json::json!({"type": "Applied", "status": "True", "reason": "Applied", "message": "",
            "lastTransitionTime": "2026-11-22T10:00:00Z"});
        board.shows(Some(PodCheckpointerStatus {
            conditions: vec![serde_json::from_value(condition).unwrap()],
            nodes: Some(Nodes { desired: 3, ready: 2, upgraded: 1 }),
            checkpoints: Some(Checkpoints { total: 12, recoverable: 11, active: 0 }),
            ..PodCheckpointerStatus::default()
        }));
        let text = board.page().text().unwrap();
        for metric in Metric::ALL {
            let told = text.contains(&format!("# TYPE {} ", metric.name()));
            assert_eq!(told, matches!(metric.of(), Of::Operator | Of::Each), "{}", metric.name());
        }
        for line in [
            "leads 1",
            "condition{type=\"Applied\"} 1",
            "nodes{state=\"ready\"} 2",
            "checkpoints{state=\"recoverable\"} 11",
            "applies_total{result=\"Refused\"} 1",
            "applies_total{result=\"Applied\"} 0",
            "repairs_total{kind=\"DaemonSet\"} 1",
        ] {
            assert!(text.contains(&format!("\npod_checkpointer_operator_{line}\n")), "{line} is not in {text}");
        }
        board.stops();
        let text = board.page().text().unwrap();
        assert!(text.contains("operator_leads 0\n") && !text.contains("operator_nodes"), "{text}");
    }

    #[test]
    fn an_operator_is_ready_when_it_knows_who_leads_and_the_leader_when_it_knows_the_settings() {
        let board = Board::default();
        assert_eq!(board.not_ready().len(), 1);
        board.hears();
        assert!(board.not_ready().is_empty(), "another one leads");
        board.acts(Instant::now());
        assert_eq!(board.not_ready().len(), 1);
        board.knows();
        assert!(board.not_ready().is_empty() && board.unhealthy().is_empty());
        board.stops();
        board.acts(Instant::now());
        assert_eq!(board.not_ready().len(), 1, "they are read anew");
    }
}
