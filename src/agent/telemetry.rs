//! Metrics and health of the agent, with the metrics of the supervisor.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use crate::agent::index::Index;
use crate::agent::outcome::{Captured, Outcome};
use crate::agent::published::shown::{self, SupervisorReports};
use crate::agent::risks::Risks;
use crate::files::lock;
use crate::metrics::catalog::Metric;
use crate::metrics::figures::{self, Figures};
use crate::metrics::page::{Page, count};
use crate::metrics::{Pulse, Source};
use crate::names::{CAPTURE_RESULTS, NOT_CAPTURED, RECOVERABLE, STORE_ERRORS};
use crate::node::clock::{self, milliseconds};
use crate::places::reports::{Counts, Status, Times};
use crate::reasons::Risk;

/// What metrics and health are answered from. The loop writes it, and the server reads it without
/// asking the loop.
#[derive(Debug)]
pub(crate) struct Telemetry {
    /// When the loop is expected to turn again.
    pub pulse: Pulse,
    /// Locked by the supervisor as long as it runs.
    supervisor_lock: PathBuf,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    captures: BTreeMap<&'static str, u64>,
    capture: Times,
    store_errors: BTreeMap<&'static str, u64>,
    damaged: u64,
    problems: usize,
    risks: BTreeSet<Risk>,
    verdicts: BTreeMap<&'static str, u64>,
    checkpoints: u64,
    /// When the oldest checkpoint was captured.
    oldest: Option<String>,
    /// Why a capture cannot be stored.
    store: Option<&'static str>,
    /// All pods of the first list were captured, or cannot be.
    settled: bool,
    supervisor: Option<Figures>,
}

impl Telemetry {
    /// Starts without any figures. `supervisor_lock`: path of the file that the supervisor locks
    /// while it runs.
    pub(crate) fn new(supervisor_lock: PathBuf) -> Self {
        Self {
            pulse: Pulse::default(),
            supervisor_lock,
            state: RefCell::default(),
        }
    }

    /// A capture ended, after this time; `new`: the store had no such generation.
    pub(crate) fn captured(&self, captured: &Captured, new: bool, took: Duration) {
        let [stored, unchanged, refused, failed] = CAPTURE_RESULTS;
        let result = match captured {
            Captured::Stored(_) if new => stored,
            Captured::Stored(_) => unchanged,
            Captured::Refused(_) => refused,
            Captured::Failed { .. } => failed,
        };
        *self.state.borrow_mut().captures.entry(result).or_default() += 1;
        match captured {
            Captured::Stored(_) => {
                self.state
                    .borrow_mut()
                    .capture
                    .add(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
            }
            Captured::Failed { reason, .. } => self.store_failed(reason),
            Captured::Refused(_) => {}
        }
    }

    /// Something failed; counted if it is an error of the store.
    pub(crate) fn store_failed(&self, reason: &str) {
        if let Some(kind) = STORE_ERRORS.into_iter().find(|kind| *kind == reason) {
            *self
                .state
                .borrow_mut()
                .store_errors
                .entry(kind)
                .or_default() += 1;
        }
    }

    /// Damaged files were set aside.
    pub(crate) fn damaged(&self, files: usize) {
        self.state.borrow_mut().damaged += u64::try_from(files).unwrap_or_default();
    }

    /// Takes in the state of the loop after a turn.
    pub(crate) fn turned(&self, index: &Index, problems: usize, risks: &Risks) {
        let mut state = self.state.borrow_mut();
        state.problems = problems;
        state.risks = risks.keys().copied().collect();
        state.settled |= index.is_settled();
        state.verdicts = BTreeMap::from([(RECOVERABLE, 0), (NOT_CAPTURED, 0)]);
        state.store = None;
        for view in index.views() {
            *state
                .verdicts
                .entry(shown::verdict(&view, risks))
                .or_default() += 1;
            if let Outcome::Failed { reason, .. } = view.outcome
                && STORE_ERRORS.contains(reason)
            {
                state.store = Some(reason);
            }
        }
        state.checkpoints = u64::try_from(index.all_stored().count()).unwrap_or_default();
        // all are of one form, so the first in the alphabet is the oldest
        let captured = index
            .all_stored()
            .map(|stored| &stored.captured)
            .filter(|captured| !captured.is_empty());
        let oldest = captured.min();
        if state.oldest.as_ref() != oldest {
            state.oldest = oldest.cloned();
        }
    }

    /// Takes in what the supervisor reported.
    pub(crate) fn supervised(&self, supervisor: &SupervisorReports) {
        let counts = &supervisor.outages.counts;
        self.state.borrow_mut().supervisor = supervisor
            .status
            .as_ref()
            .map(|status| Figures::new(status, counts));
    }
}

impl Source for Telemetry {
    fn page(&self) -> Page {
        let state = self.state.borrow();
        let mut page = Page::default();
        figures::add_build(&mut page, "agent");
        page.each(
            Metric::Recoverable,
            state.verdicts.iter().map(|(reason, pods)| (*reason, *pods)),
        );
        let oldest = state
            .oldest
            .as_ref()
            .and_then(|oldest| oldest.parse::<Timestamp>().ok());
        if let Some(oldest) = oldest {
            page.one(
                Metric::CheckpointAge,
                Timestamp::now()
                    .duration_since(oldest)
                    .as_secs_f64()
                    .max(0.0),
            );
        }
        let of = |counts: &BTreeMap<&'static str, u64>, name| {
            (name, counts.get(name).copied().unwrap_or_default())
        };
        page.each(
            Metric::Captures,
            CAPTURE_RESULTS.map(|result| of(&state.captures, result)),
        );
        page.times(Metric::CaptureTime, &state.capture);
        page.each(
            Metric::StoreErrors,
            STORE_ERRORS.map(|kind| of(&state.store_errors, kind)),
        );
        page.one(Metric::DamagedFiles, count(state.damaged));
        page.each(
            Metric::Problems,
            [("agent", u64::try_from(state.problems).unwrap_or(u64::MAX))],
        );
        page.each(
            Metric::NodeRisk,
            Risk::ALL
                .iter()
                .map(|risk| (risk.as_str(), u64::from(state.risks.contains(risk)))),
        );
        let lives = lock::is_locked(&self.supervisor_lock).unwrap_or_default();
        page.one(Metric::SupervisorUp, f64::from(u8::from(lives)));
        if let Some(supervisor) = &state.supervisor {
            supervisor.add_to(&mut page, milliseconds(clock::boot_time()), lives);
        } else {
            // without a supervisor every checkpoint is inactive
            let inactive = Figures::new(&Status::default(), &Counts::default())
                .with_inactive(state.checkpoints);
            inactive.add_to(&mut page, milliseconds(clock::boot_time()), false);
        }
        page
    }

    fn unhealthy(&self) -> Vec<String> {
        self.pulse.stalled().into_iter().collect()
    }

    fn not_ready(&self) -> Vec<String> {
        let state = self.state.borrow();
        let pods = (!state.settled)
            .then(|| "pods: the first list has not been worked through yet".to_owned());
        let store = state
            .store
            .map(|reason| format!("store: checkpoints cannot be written ({reason})"));
        pods.into_iter().chain(store).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::outcome::Stored;
    use crate::metrics::catalog::Of;
    use crate::node::contact::Class;
    use crate::places::reports::{ContactReport, Outages};
    use crate::pod::id::id;

    #[test]
    fn an_agent_exports_every_metric_of_its_own_and_of_its_supervisor() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("supervisor.lock");
        let _lock = lock::lock(&path).unwrap();
        let telemetry = Telemetry::new(path);
        let captured = |key: &str, captured: &str| Stored {
            key: id(key),
            generation: 1,
            captured: captured.into(),
            ..Stored::unread(id("shop_till"))
        };
        let stored = vec![
            captured("shop_new", "2026-11-21T10:00:00.000Z"),
            captured("shop_old", "2026-11-20T10:00:00.000Z"),
        ];
        telemetry.turned(
            &Index::new(Duration::ZERO, stored),
            3,
            &Risks::from([(Risk::StoreFull, "none".into())]),
        );
        telemetry.store_failed("StoreFull");
        telemetry.store_failed("CaptureFailed");
        let contact = Some(ContactReport {
            class: Class::Silent,
            since: 0,
        });
        let status = Some(Status {
            contact,
            ..Status::default()
        });
        telemetry.supervised(&SupervisorReports {
            status,
            outages: Outages::default(),
            absent: None,
        });
        let text = telemetry.page().text().unwrap();
        for metric in Metric::ALL {
            let told = text.contains(&format!("# TYPE {} ", metric.name()));
            assert_eq!(
                told,
                !matches!(metric.of(), Of::Supervisor | Of::Operator),
                "{}",
                metric.name()
            );
        }
        for line in [
            "problems{part=\"agent\"} 3",
            "store_errors_total{kind=\"StoreFull\"} 1",
            "node_risk{risk=\"StoreFull\"} 1",
            "node_risk{risk=\"StoreDamaged\"} 0",
        ] {
            assert!(
                text.contains(&format!("\npod_checkpointer_{line}\n")),
                "{line} is not in {text}"
            );
        }
        assert_eq!(
            telemetry.state.borrow().oldest.as_deref(),
            Some("2026-11-20T10:00:00.000Z")
        );
    }

    #[test]
    fn without_a_supervisor_every_checkpoint_is_inactive_and_contact_is_not_exported() {
        let telemetry = Telemetry::new("/nowhere".into());
        let stored = Stored {
            key: id("shop_till"),
            generation: 1,
            ..Stored::unread(id("shop_till"))
        };
        telemetry.turned(&Index::new(Duration::ZERO, vec![stored]), 0, &Risks::new());
        let text = telemetry.page().text().unwrap();
        assert!(
            text.contains("checkpoints{phase=\"Inactive\"} 1\n"),
            "{text}"
        );
        assert!(
            text.contains("supervisor_up 0\n") && !text.contains("api_contact"),
            "{text}"
        );
    }
}
