//! What a `PodCheckpoint` should show: pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::agent::index::View;
use crate::agent::outcome::Outcome;
use crate::agent::risks::{self, Risks};
use crate::api::podcheckpoint::{LastOutage, PodCheckpointStatus};
use crate::api::{self, condition};
use crate::names::{FIT, NOT_CAPTURED, RECOVERABLE, REJECTED_AT_RETURN_ADVICE};
use crate::places::reports::{Outage, Outages, Phase, PodReport, Status};
use crate::reasons::{Blocked, Risk};

/// What the supervisor last reported.
#[derive(Clone, Debug, Default)]
pub(crate) struct SupervisorReports {
    /// `status.yaml`; `None`: the supervisor has not written one.
    pub status: Option<Status>,
    /// `outages.yaml`.
    pub outages: Outages,
    /// Why there is no supervisor, if the agent knows.
    pub absent: Option<String>,
}

/// What a `PodCheckpoint` should show. `risks` are those of the node. `before` is what the object
/// shows now, so that a condition keeps the time of its last change.
pub(crate) fn status(
    view: &View<'_>,
    supervisor: &SupervisorReports,
    risks: &Risks,
    before: Option<&PodCheckpointStatus>,
    now: Timestamp,
) -> PodCheckpointStatus {
    let report = find(view, supervisor);
    let conditions = [
        captured(view),
        recoverable(view, risks),
        active(report, supervisor),
        node_fit(risks),
    ];
    let stored = view.stored;
    PodCheckpointStatus {
        phase: supervisor
            .status
            .as_ref()
            .map(|_| report.map(|report| report.phase).unwrap_or_default()),
        conditions: conditions
            .into_iter()
            .map(|claim| claim.condition(before, now))
            .collect(),
        generation: stored.and_then(|stored| stored.generation.try_into().ok()),
        digest: stored.map(|stored| stored.digest.clone()),
        size_bytes: stored.and_then(|stored| stored.size.try_into().ok()),
        captured_at: stored.map(|stored| stored.captured.clone()),
        marked_by: Some(view.marked.to_owned()),
        warnings: stored
            .map(|stored| stored.warnings.iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
        last_outage: last_outage(view, &supervisor.outages)
            // an outage of an earlier boot is recorded only here
            .or_else(|| before.and_then(|before| before.last_outage.clone())),
    }
}

struct Claim {
    kind: &'static str,
    status: &'static str,
    reason: String,
    message: String,
}

impl Claim {
    fn new(kind: &'static str, status: &'static str, reason: &str, message: String) -> Self {
        Self {
            kind,
            status,
            reason: reason.to_owned(),
            message,
        }
    }

    fn condition(self, before: Option<&PodCheckpointStatus>, now: Timestamp) -> Condition {
        let before = before.map_or(&[][..], |before| &before.conditions);
        api::condition(
            self.kind,
            self.status,
            &self.reason,
            &self.message,
            before,
            now,
        )
    }
}

fn captured(view: &View<'_>) -> Claim {
    let claim = |status, reason: &str, message: String| {
        Claim::new(condition::CAPTURED, status, reason, message)
    };
    let kept = view.stored.map(|stored| {
        format!(
            "; generation {}, of an earlier state of the pod, is kept",
            stored.generation
        )
    });
    let kept = kept.unwrap_or_default();
    match (view.outcome, view.stored) {
        (Outcome::Refused(reasons), _) => {
            let names: Vec<&str> = reasons
                .iter()
                .map(|reason| reason.refusal.as_str())
                .collect();
            claim(
                "False",
                "Refused",
                format!("{}: see condition Recoverable{kept}", names.join(", ")),
            )
        }
        (Outcome::Failed { reason, message }, _) => {
            claim("False", reason, format!("{message}; retrying{kept}"))
        }
        (_, Some(stored)) => claim(
            "True",
            "Captured",
            format!("generation {} matches the running pod", stored.generation),
        ),
        (_, None) => claim(
            "False",
            "WaitingForReady",
            "the pod is captured as soon as it is Ready".into(),
        ),
    }
}

/// The reason of the condition `Recoverable`: one of a closed set.
pub(crate) fn verdict(view: &View<'_>, risks: &Risks) -> &'static str {
    match (view.outcome, view.stored) {
        (Outcome::Refused(reasons), _) => reasons
            .first()
            .map_or("Refused", |reason| reason.refusal.as_str()),
        (_, Some(_)) if risks.contains_key(&Risk::NoSupervisor) => Risk::NoSupervisor.as_str(),
        (_, Some(_)) => RECOVERABLE,
        (_, None) => NOT_CAPTURED,
    }
}

fn recoverable(view: &View<'_>, risks: &Risks) -> Claim {
    let claim = |status, message: String| {
        Claim::new(
            condition::RECOVERABLE,
            status,
            verdict(view, risks),
            message,
        )
    };
    if !matches!(view.outcome, Outcome::Refused(_))
        && view.stored.is_some()
        && let Some(seen) = risks.get(&Risk::NoSupervisor)
    {
        return claim(
            "False",
            format!(
                "the pod is captured, but nothing would bring it back: {}",
                risks::message(Risk::NoSupervisor, seen)
            ),
        );
    }
    match (view.outcome, view.stored) {
        (Outcome::Refused(reasons), stored) => {
            let each: Vec<String> = reasons
                .iter()
                .map(|reason| format!("{reason} ({})", reason.refusal.advice()))
                .collect();
            let kept = stored.map(|stored| {
                format!(
                    " Generation {}, captured {} from an earlier state of this pod, would be used.",
                    stored.generation, stored.captured
                )
            });
            claim(
                "False",
                format!("{}.{}", each.join("; "), kept.unwrap_or_default()),
            )
        }
        (_, Some(stored)) if stored.warnings.is_empty() => claim(
            "True",
            "the pod would come back on this node without the API server".into(),
        ),
        (_, Some(stored)) => {
            let each: Vec<String> = stored
                .warnings
                .iter()
                .map(|warning| format!("{warning} ({})", warning.advice()))
                .collect();
            claim(
                "True",
                format!(
                    "the pod would come back on this node; note: {}",
                    each.join("; ")
                ),
            )
        }
        (_, None) => claim("Unknown", "the pod has not been captured yet".into()),
    }
}

fn active(report: Option<&PodReport>, supervisor: &SupervisorReports) -> Claim {
    let claim = |status, reason: &str, message: String| {
        Claim::new(condition::ACTIVE, status, reason, message)
    };
    if supervisor.status.is_none() {
        let why = supervisor
            .absent
            .clone()
            .unwrap_or_else(|| "the supervisor has not reported yet".into());
        return claim("Unknown", "NoSupervisor", why);
    }
    match report.map(|report| (report.phase, report)) {
        Some((Phase::Active, report)) if report.reason.is_some() => {
            let reason = report.reason.as_deref().unwrap_or_default();
            let advice = Blocked::ALL
                .iter()
                .find(|known| known.as_str() == reason)
                .map(|known| known.advice());
            let message = "the twin still runs in the pod's place although the API server answers";
            claim(
                "True",
                reason,
                format!(
                    "{message} ({})",
                    advice.unwrap_or(REJECTED_AT_RETURN_ADVICE)
                ),
            )
        }
        None | Some((Phase::Inactive, _)) => claim("False", "Inactive", "no twin runs".into()),
        Some((Phase::Active, _)) => {
            claim("True", "Active", "the twin runs in the pod's place".into())
        }
        Some((Phase::Released, _)) => claim(
            "True",
            "Released",
            "the twin keeps serving until the pod has taken over".into(),
        ),
        Some((Phase::Blocked, report)) => {
            let reason = report.reason.clone().unwrap_or_else(|| "Blocked".into());
            let advice = Blocked::ALL
                .iter()
                .find(|known| known.as_str() == reason)
                .map(|known| known.advice());
            let mut message = report
                .message
                .clone()
                .unwrap_or_else(|| "the twin should run but cannot".into());
            if let Some(advice) = advice {
                message = format!("{message} ({advice})");
            }
            claim("False", &reason, message)
        }
    }
}

fn node_fit(risks: &Risks) -> Claim {
    let each: Vec<String> = risks
        .iter()
        .map(|(risk, seen)| format!("{risk}: {}", risks::message(*risk, seen)))
        .collect();
    match risks.keys().next() {
        None => Claim::new(
            condition::NODE_FIT,
            "True",
            FIT,
            "nothing on the node would prevent recovery".into(),
        ),
        // risks that prevent recovery come first
        Some(first) if first.is_mild() => Claim::new(
            condition::NODE_FIT,
            "True",
            FIT,
            format!("note: {}", each.join("; ")),
        ),
        Some(first) => Claim::new(
            condition::NODE_FIT,
            "False",
            first.as_str(),
            each.join("; "),
        ),
    }
}

fn find<'a>(view: &View<'_>, supervisor: &'a SupervisorReports) -> Option<&'a PodReport> {
    supervisor.status.as_ref()?.pods.iter().find(|report| {
        view.key.is(&report.namespace, &report.name) && report.parent_uid == view.uid
    })
}

fn last_outage(view: &View<'_>, outages: &Outages) -> Option<LastOutage> {
    let (outage, pod) = outages.outages.iter().rev().find_map(|outage| {
        outage
            .pods
            .get(view.key)
            .filter(|pod| pod.parent_uid == view.uid)
            .map(|pod| (outage, pod))
    })?;
    let wall = |time: Option<u64>| time.and_then(|time| wall(outage, time));
    Some(LastOutage {
        from: outage.from_wall.clone(),
        to: outage.to_wall.clone().or_else(|| wall(outage.to)),
        activated: wall(pod.activated),
        serving: wall(pod.serving),
        taken_back: i32::try_from(pod.taken_back)
            .ok()
            .filter(|times| *times > 0),
        released: wall(pod.released),
        taken_over: wall(pod.taken_over),
    })
}

/// Converts a time of the boot-time clock, in milliseconds, to wall-clock time, counted from the
/// start of the outage: the result does not change when the clock is set later.
fn wall(outage: &Outage, time: u64) -> Option<String> {
    let begin: Timestamp = outage.from_wall.parse().ok()?;
    let passed = i64::try_from(time)
        .ok()?
        .checked_sub(i64::try_from(outage.from).ok()?)?;
    Some(
        begin
            .checked_add(SignedDuration::from_millis(passed))
            .ok()?
            .to_string(),
    )
}

/// Something that a person who looks at the pod should see, as an Event. Recorded once: it follows
/// from the difference to what was written before, also by an earlier agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct News {
    /// Reason of the Event.
    pub reason: &'static str,
    /// Note of the Event.
    pub note: String,
}

/// What is new in a status, compared with the one before.
pub(crate) fn news(
    before: Option<&PodCheckpointStatus>,
    status: &PodCheckpointStatus,
) -> Vec<News> {
    let mut news = Vec::new();
    // only the first generation is news
    if let Some(generation) = status
        .generation
        .filter(|_| before.is_none_or(|before| before.generation.is_none()))
    {
        let note = format!(
            "Captured as generation {generation}: the pod would come back on this node without the API server"
        );
        news.push(News {
            reason: "Captured",
            note,
        });
    }
    let Some(outage) = &status.last_outage else {
        return news;
    };
    let known = before
        .and_then(|before| before.last_outage.as_ref())
        .filter(|known| known.from == outage.from);
    if let Some(at) = outage
        .activated
        .as_ref()
        .filter(|_| known.is_none_or(|known| known.activated.is_none()))
    {
        let note = format!(
            "Brought back at {at}; the API server had been unreachable since {}",
            outage.from
        );
        news.push(News {
            reason: "Activated",
            note,
        });
    }
    if let Some(times) = outage
        .taken_back
        .filter(|times| known.and_then(|known| known.taken_back) < Some(*times))
    {
        let note = format!(
            "The API server was lost again before the pod had taken over, {times} times since {}: brought back again each \
             time, after a longer delay, up to 5 minutes",
            outage.from
        );
        news.push(News {
            reason: "RateLimited",
            note,
        });
    }
    if let Some(at) = outage
        .released
        .as_ref()
        .filter(|_| known.is_none_or(|known| known.released.is_none()))
    {
        let note = format!("The twin was released at {at}, when the API server answered again");
        news.push(News {
            reason: "Released",
            note,
        });
    }
    news
}

#[cfg(test)]
#[path = "shown_tests.rs"]
pub(crate) mod tests;
