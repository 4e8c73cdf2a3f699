//! The run directory: `agent.yaml`, which the supervisor and the command line read, and the reports
//! of the supervisor.

use std::collections::BTreeMap;
use std::time::Duration;

use kube_runtime::events::EventType;

use crate::agent::event_loop::{Agent, FRESH, REPORT_CHANGES, RUN_DIRECTORY};
use crate::agent::risks;
use crate::names::{REJECTED_AT_RETURN, REJECTED_AT_RETURN_ADVICE};
use crate::node::clock;
use crate::places::reports::{self, AgentReport};
use crate::places::run;
use crate::pod::id::PodId;
use crate::text::chain;

/// How often the agent renews its heartbeat when nothing else changes. The supervisor waits for an
/// hour.
pub(super) const HEARTBEAT: Duration = Duration::from_mins(10);

impl Agent {
    /// Opens the run directory, or opens it again in case it was unmounted or removed.
    pub(super) fn open_run_dir(&mut self) {
        let opened = clock::boot_id().map_err(|error| format!("cannot read the boot ID: {error}"));
        self.run_on_disk = false;
        let opened = opened.and_then(|boot| {
            self.run.open(&boot).map_err(|error| {
                self.run_on_disk = matches!(error, run::Error::NotMemory(_));
                chain(&error)
            })
        });
        if opened.is_ok() {
            let followed = self.swaps.follow_reports(self.run.path());
            let problem = followed
                .err()
                .map(|error| format!("cannot watch for reports of the supervisor: {error}"));
            self.problems.set(REPORT_CHANGES, problem);
        }
        self.problems.set(RUN_DIRECTORY, opened.err());
        self.read_reports();
    }

    pub(super) fn read_reports(&mut self) {
        if self.problems.has(RUN_DIRECTORY) {
            return;
        }
        match (
            self.run.read(reports::STATUS),
            self.run.read(reports::OUTAGES),
        ) {
            (Ok(status), Ok(outages)) => {
                self.supervisor.status = status;
                self.supervisor.outages = outages.unwrap_or_default();
                self.telemetry.supervised(&self.supervisor);
            }
            (Err(error), _) | (_, Err(error)) => tracing::warn!("{}", chain(&error)),
        }
    }

    /// Writes `agent.yaml` if its content changed, or if the heartbeat is due.
    pub(super) fn write_agent_file(&mut self, now: Duration) {
        if self.problems.has(RUN_DIRECTORY) || !self.index.is_complete() && self.problems.is_empty()
        {
            return;
        }
        let rejected = self.rejected();
        let fresh = self.heard.is_within(FRESH);
        let risks = self
            .risks
            .iter()
            .map(|(risk, seen)| (risk.to_string(), risks::message(*risk, seen)))
            .collect();
        let problems = self.problems.texts();
        let report = AgentReport {
            problems,
            risks,
            rejected,
            unheard: !fresh,
            ..self.index.report(fresh)
        };
        if self
            .written
            .as_ref()
            .is_some_and(|(said, at)| *said == report && now.saturating_sub(*at) < HEARTBEAT)
        {
            return;
        }
        let heartbeat = u64::try_from(clock::boot_time().as_millis()).unwrap_or_default();
        if let Err(error) = self.run.write(
            reports::AGENT,
            &AgentReport {
                heartbeat,
                ..report.clone()
            },
        ) {
            self.problems.set(RUN_DIRECTORY, Some(chain(&error)));
        }
        let before = self
            .written
            .replace((report, now))
            .map(|(report, _)| report.rejected)
            .unwrap_or_default();
        for (key, uid) in self.rejected() {
            if before.get(&key) != Some(&uid) {
                tracing::error!(
                    pod = key.to_string(),
                    "the kubelet rejected the pod when it came back; its twin continues to serve"
                );
                let note = format!(
                    "The kubelet rejected the pod when it came back from an outage: {REJECTED_AT_RETURN_ADVICE}"
                );
                self.record_pod_event(&key, &uid, EventType::Warning, REJECTED_AT_RETURN, &note);
            }
        }
    }

    /// Marked pods, with UIDs, that the kubelet rejected for good when they came back from an
    /// outage.
    fn rejected(&self) -> BTreeMap<PodId, String> {
        let outages = &self.supervisor.outages.outages;
        let in_this_boot = |key: &PodId, uid: &str| {
            outages.iter().any(|outage| {
                outage
                    .pods
                    .get(key)
                    .is_some_and(|pod| pod.parent_uid == uid)
            })
        };
        let came_back = |(key, uid): &(&PodId, &str)| {
            in_this_boot(key, uid) || self.ledger.had_outage(key, uid)
        };
        self.index
            .rejected()
            .filter(came_back)
            .map(|(key, uid)| (key.clone(), (*uid).to_owned()))
            .collect()
    }
}
