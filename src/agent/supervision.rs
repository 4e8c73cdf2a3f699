//! Whether a supervisor works on this node, judged by its lock and its report: pure.
//!
//! A supervisor that is being installed, upgraded or restarted is away for a moment, and one that
//! keeps crashing is there for a moment. So a fault counts once it has been seen for [`GRACE`], and
//! is over once none has been seen for [`STABLE`]: the answer does not go back and forth.

use std::time::Duration;

use crate::agent::published::shown::SupervisorReports;
use crate::places::reports::AgentReport;
use crate::reasons::Risk;

/// How long a fault must last before it is a risk: longer than it takes the kubelet to start a
/// supervisor, with its image on the node.
const GRACE: Duration = Duration::from_mins(2);
/// How long a supervisor must work without a fault, while one is counted, until that is over.
const STABLE: Duration = Duration::from_mins(1);
/// Time between two checks while the answer may change soon.
const PAUSE: Duration = Duration::from_secs(10);

/// Why the supervisor could bring no pod back at this moment; `None`: it could, as far as the agent
/// can learn.
pub(crate) fn fault(is_running: bool, supervisor: &SupervisorReports) -> Option<String> {
    let absent = supervisor.absent.clone();
    if !is_running {
        return Some(absent.unwrap_or_else(|| "the supervisor does not run".into()));
    }
    let Some(status) = &supervisor.status else {
        return Some("the supervisor runs, but has reported nothing".into());
    };
    if status.contact.is_none() {
        return Some("the supervisor does not know which API server to watch".into());
    }
    let blind = status.blind.as_ref();
    blind.map(|why| format!("the supervisor cannot tell what runs on the node: {why}"))
}

/// What was seen of the supervisor so far.
#[derive(Debug, Default)]
pub(crate) struct Supervision {
    checked: Option<Duration>,
    /// Since when there has been a fault, with interruptions of less than [`STABLE`].
    fault_since: Option<Duration>,
    /// Since when there has been none.
    well_since: Option<Duration>,
    risk: Option<String>,
}

impl Supervision {
    /// Starts with what an earlier agent of the same boot reported, so that a new agent does not
    /// take back for [`GRACE`] what still holds.
    pub(crate) fn after(before: Option<&AgentReport>) -> Self {
        let is_known =
            before.is_some_and(|word| word.risks.contains_key(Risk::NoSupervisor.as_str()));
        Self {
            fault_since: is_known.then_some(Duration::ZERO),
            risk: is_known.then(|| "the supervisor does not run".into()),
            ..Self::default()
        }
    }

    /// Whether to check again.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        self.checked
            .is_none_or(|checked| now.saturating_sub(checked) >= PAUSE)
    }

    /// When to check again at the latest, if the answer may change soon.
    pub(crate) fn wake(&self) -> Option<Duration> {
        let is_open = self.fault_since.is_some() && self.risk.is_none()
            || self.risk.is_some() && self.well_since.is_some();
        self.checked
            .filter(|_| is_open)
            .map(|checked| checked.saturating_add(PAUSE))
    }

    /// Takes in the result of a check.
    pub(crate) fn see(&mut self, fault: Option<String>, now: Duration) {
        self.checked = Some(now);
        match fault {
            None => {
                let well_since = *self.well_since.get_or_insert(now);
                if now.saturating_sub(well_since) >= STABLE {
                    self.fault_since = None;
                    self.risk = None;
                }
            }
            Some(fault) => {
                self.well_since = None;
                let since = *self.fault_since.get_or_insert(now);
                // the first text stays: a supervisor that keeps crashing shows several faults
                if now.saturating_sub(since) >= GRACE {
                    self.risk.get_or_insert(fault);
                }
            }
        }
    }

    /// Why no supervisor works, if that is certain.
    pub(crate) fn risk(&self) -> Option<String> {
        self.risk.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::contact::Class;
    use crate::places::reports::{ContactReport, Status};

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_supervisor_works_if_it_runs_watches_a_server_and_sees_the_node() {
        let contact = Some(ContactReport {
            class: Class::Answering,
            since: 1,
        });
        let of = |status: Option<Status>| SupervisorReports {
            status,
            ..SupervisorReports::default()
        };
        let works = Status {
            contact,
            ..Status::default()
        };
        assert_eq!(fault(true, &of(Some(works.clone()))), None);
        let blind = Status {
            blind: Some("the runtime hangs".into()),
            ..works.clone()
        };
        for (is_running, status, text) in [
            (false, Some(works), "does not run"),
            (true, None, "reported nothing"),
            (true, Some(Status::default()), "which API server"),
            (true, Some(blind), "the runtime hangs"),
        ] {
            let fault = fault(is_running, &of(status)).unwrap();
            assert!(fault.contains(text), "{fault}");
        }
        let absent = SupervisorReports {
            absent: Some("--supervisor-image is empty".into()),
            ..SupervisorReports::default()
        };
        assert_eq!(fault(false, &absent), absent.absent);
    }

    #[test]
    fn a_short_absence_is_no_risk_and_a_crash_loop_is_one_all_along() {
        let mut seen = Supervision::default();
        // being upgraded
        for second in [0, 60, 119] {
            seen.see(Some("away".into()), seconds(second));
        }
        assert_eq!(seen.risk(), None);
        assert_eq!(seen.wake(), Some(seconds(129)), "this may change soon");
        for second in [130, 190] {
            seen.see(None, seconds(second));
        }
        assert_eq!((seen.risk(), seen.wake()), (None, None));
        // crashing: up for half a minute, away for two
        let mut shown = Vec::new();
        for second in (200..1400).step_by(10) {
            let is_up = second % 150 < 30;
            seen.see((!is_up).then(|| "crashed".into()), seconds(second));
            shown.push(seen.risk().is_some());
        }
        let first = shown.iter().position(|shown| *shown).unwrap();
        assert!(first <= 16, "{first}");
        assert!(shown[first..].iter().all(|shown| *shown), "{shown:?}");
        seen.see(None, seconds(1500));
        assert!(seen.risk().is_some());
        seen.see(None, seconds(1560));
        assert_eq!(seen.risk(), None);
    }

    #[test]
    fn a_new_agent_goes_on_with_what_the_one_before_it_reported() {
        let risks = [(Risk::NoSupervisor.to_string(), "away".to_owned())].into();
        let word = AgentReport {
            risks,
            ..AgentReport::default()
        };
        let mut seen = Supervision::after(Some(&word));
        seen.see(Some("away".into()), seconds(1));
        assert!(seen.risk().is_some());
        assert!(Supervision::after(None).risk().is_none());
    }
}
