//! Metrics and health of the operator.

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

/// What metrics and health are answered from. The loops write it, and the server reads it without
/// asking them.
#[derive(Debug, Default)]
pub(crate) struct Telemetry {
    /// When the leader's loop is expected to turn again; `None`: another operator leads.
    leader: RefCell<Option<Pulse>>,
    /// The Lease was read, so the operator knows whether it leads.
    is_lease_known: Cell<bool>,
    /// The leader has read whether there is a `PodCheckpointer`, and its settings.
    are_settings_known: Cell<bool>,
    /// The status of the `PodCheckpointer`; `None`: there is none, or it was not read yet.
    status: RefCell<Option<PodCheckpointerStatus>>,
    applies: RefCell<BTreeMap<&'static str, u64>>,
    repairs: RefCell<BTreeMap<&'static str, u64>>,
}

impl Telemetry {
    /// The API server has answered who holds the Lease.
    pub(crate) fn lease_is_known(&self) {
        self.is_lease_known.set(true);
    }

    /// This operator leads, and its loop turns again at this time at the latest.
    pub(crate) fn leads_until(&self, next_turn: Instant) {
        self.leader
            .borrow_mut()
            .get_or_insert_default()
            .expect(next_turn);
    }

    /// The settings, or their absence, were read.
    pub(crate) fn settings_are_known(&self) {
        self.are_settings_known.set(true);
    }

    /// This operator does not lead any more.
    pub(crate) fn leads_no_more(&self) {
        self.leader.replace(None);
        self.are_settings_known.set(false);
        self.status.replace(None);
    }

    /// Sets the status of the `PodCheckpointer`; `None`: there is none.
    pub(crate) fn set_status(&self, status: Option<PodCheckpointerStatus>) {
        self.status.replace(status);
    }

    /// Counts an attempt to apply all objects, by its result, one of [`APPLY_RESULTS`].
    pub(crate) fn count_apply(&self, result: &'static str) {
        *self.applies.borrow_mut().entry(result).or_default() += 1;
    }

    /// Counts an object of this kind that is not as it was applied.
    pub(crate) fn count_repair(&self, kind: Kind) {
        *self.repairs.borrow_mut().entry(kind.kind).or_default() += 1;
    }
}

impl Source for Telemetry {
    fn page(&self) -> Page {
        let mut page = Page::default();
        add_build(&mut page, "operator");
        page.one(
            Metric::OperatorLeads,
            f64::from(u8::from(self.leader.borrow().is_some())),
        );
        if let Some(status) = &*self.status.borrow() {
            let conditions = status
                .conditions
                .iter()
                .map(|it| (it.type_.as_str(), u64::from(it.status == "True")));
            page.each(Metric::OperatorCondition, conditions);
            if let Some(Nodes {
                desired,
                ready,
                upgraded,
            }) = status.nodes
            {
                let nodes = [
                    ("desired", desired),
                    ("ready", ready),
                    ("upgraded", upgraded),
                ];
                page.each(
                    Metric::OperatorNodes,
                    nodes.map(|(state, number)| (state, whole(number.into()))),
                );
            }
            if let Some(Checkpoints {
                total,
                recoverable,
                active,
            }) = status.checkpoints
            {
                let all = [
                    ("total", total),
                    ("recoverable", recoverable),
                    ("active", active),
                ];
                page.each(
                    Metric::OperatorCheckpoints,
                    all.map(|(state, number)| (state, whole(number))),
                );
            }
        }
        let of = |counts: &RefCell<BTreeMap<_, _>>, key| {
            counts.borrow().get(key).copied().unwrap_or_default()
        };
        page.each(
            Metric::OperatorApplies,
            APPLY_RESULTS.map(|result| (result, of(&self.applies, result))),
        );
        page.each(
            Metric::OperatorRepairs,
            KINDS.map(|kind| (kind.kind, of(&self.repairs, kind.kind))),
        );
        page
    }

    fn unhealthy(&self) -> Vec<String> {
        self.leader
            .borrow()
            .as_ref()
            .and_then(Pulse::stalled)
            .into_iter()
            .collect()
    }

    fn not_ready(&self) -> Vec<String> {
        let lease = (!self.is_lease_known.get())
            .then(|| "lease: the API server has not answered yet who holds it".to_owned());
        let leads = self.leader.borrow().is_some();
        let settings =
            (leads && !self.are_settings_known.get()).then(|| "settings: not read yet".to_owned());
        lease.into_iter().chain(settings).collect()
    }
}

/// A count from the status, where the type allows negative numbers.
fn whole(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::catalog::Of;

    #[test]
    fn the_leader_exports_every_metric_of_the_operator_and_another_one_nothing_about_the_cluster() {
        let telemetry = Telemetry::default();
        telemetry.leads_until(Instant::now());
        telemetry.count_apply("Refused");
        telemetry.count_repair(KINDS[0]);
        let condition = serde_json::json!({"type": "Applied", "status": "True", "reason": "Applied", "message": "",
            "lastTransitionTime": "2026-11-22T10:00:00Z"});
        telemetry.set_status(Some(PodCheckpointerStatus {
            conditions: vec![serde_json::from_value(condition).unwrap()],
            nodes: Some(Nodes {
                desired: 3,
                ready: 2,
                upgraded: 1,
            }),
            checkpoints: Some(Checkpoints {
                total: 12,
                recoverable: 11,
                active: 0,
            }),
            ..PodCheckpointerStatus::default()
        }));
        let text = telemetry.page().text().unwrap();
        for metric in Metric::ALL {
            let is_exported = text.contains(&format!("# TYPE {} ", metric.name()));
            assert_eq!(
                is_exported,
                matches!(metric.of(), Of::Operator | Of::Each),
                "{}",
                metric.name()
            );
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
            assert!(
                text.contains(&format!("\npod_checkpointer_operator_{line}\n")),
                "{line} is not in {text}"
            );
        }
        telemetry.leads_no_more();
        let text = telemetry.page().text().unwrap();
        assert!(
            text.contains("operator_leads 0\n") && !text.contains("operator_nodes"),
            "{text}"
        );
    }

    #[test]
    fn an_operator_is_ready_when_it_knows_who_leads_and_the_leader_when_it_knows_the_settings() {
        let telemetry = Telemetry::default();
        assert_eq!(telemetry.not_ready().len(), 1);
        telemetry.lease_is_known();
        assert!(telemetry.not_ready().is_empty(), "another one leads");
        telemetry.leads_until(Instant::now());
        assert_eq!(telemetry.not_ready().len(), 1);
        telemetry.settings_are_known();
        assert!(telemetry.not_ready().is_empty() && telemetry.unhealthy().is_empty());
        telemetry.leads_no_more();
        telemetry.leads_until(Instant::now());
        assert_eq!(telemetry.not_ready().len(), 1, "they are read again");
    }
}
