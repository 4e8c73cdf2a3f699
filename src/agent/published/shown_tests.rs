use std::sync::LazyLock;

use super::*;
use crate::agent::outcome::Stored;
use crate::capture::Reason;
use crate::places::reports::PodOutage;
use crate::pod::id::{PodId, id};
use crate::reasons::{Refusal, Risk, Warning};

pub(crate) const KEY: &str = "shop_till";

pub(crate) fn stored() -> Stored {
    Stored {
        key: id(KEY),
        uid: "u1".into(),
        owner: None,
        generation: 7,
        digest: "sha256:aa".into(),
        size: 1234,
        captured: "2026-11-21T10:00:00Z".into(),
        max_age: None,
        warnings: vec![Warning::ServiceAccountToken],
    }
}

pub(crate) fn view<'a>(outcome: &'a Outcome, stored: Option<&'a Stored>) -> View<'a> {
    static POD: LazyLock<PodId> = LazyLock::new(|| id(KEY));
    View {
        key: &POD,
        uid: "u1",
        marked: "annotation",
        outcome,
        stored,
    }
}

pub(crate) fn time(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

pub(crate) fn reporting(phase: Phase) -> SupervisorReports {
    let pod = |uid: &str, phase| PodReport {
        namespace: "shop".into(),
        name: "till".into(),
        parent_uid: uid.into(),
        phase,
        reason: (phase == Phase::Blocked).then(|| "ImageAbsent".into()),
        ..PodReport::default()
    };
    let pods = vec![pod("another", Phase::Released), pod("u1", phase)];
    SupervisorReports {
        status: Some(Status {
            pods,
            ..Status::default()
        }),
        ..SupervisorReports::default()
    }
}

pub(crate) fn condition<'a>(
    status: &'a PodCheckpointStatus,
    kind: &str,
) -> (&'a str, &'a str, &'a str) {
    let found = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind)
        .unwrap();
    (&found.status, &found.reason, &found.message)
}

/// What a capture came to, what the store has, and the two conditions that follow.
type Row<'a> = (
    &'a Outcome,
    Option<&'a Stored>,
    (&'a str, &'a str),
    (&'a str, &'a str),
);

#[test]
fn each_outcome_has_its_reasons() {
    let good = stored();
    let refused = Outcome::Refused(vec![
        Reason {
            refusal: Refusal::CsiVolume,
            detail: "volume keys".into(),
        },
        Reason {
            refusal: Refusal::HugePages,
            detail: "container app".into(),
        },
    ]);
    let failed = Outcome::Failed {
        reason: "StoreFull",
        message: "no space".into(),
    };
    let table: [Row<'_>; 8] = [
        (
            &Outcome::Waiting,
            None,
            ("False", "WaitingForReady"),
            ("Unknown", "NotCaptured"),
        ),
        (
            &Outcome::Waiting,
            Some(&good),
            ("True", "Captured"),
            ("True", "Recoverable"),
        ),
        (
            &Outcome::Captured,
            Some(&good),
            ("True", "Captured"),
            ("True", "Recoverable"),
        ),
        (
            &failed,
            None,
            ("False", "StoreFull"),
            ("Unknown", "NotCaptured"),
        ),
        (
            &failed,
            Some(&good),
            ("False", "StoreFull"),
            ("True", "Recoverable"),
        ),
        (&refused, None, ("False", "Refused"), ("False", "CsiVolume")),
        (
            &refused,
            Some(&good),
            ("False", "Refused"),
            ("False", "CsiVolume"),
        ),
        (
            &Outcome::Captured,
            None,
            ("False", "WaitingForReady"),
            ("Unknown", "NotCaptured"),
        ),
    ];
    for (outcome, stored, captured, recoverable) in table {
        let status = status(
            &view(outcome, stored),
            &SupervisorReports::default(),
            &Risks::new(),
            None,
            time(0),
        );
        let (is, reason, message) = condition(&status, "Captured");
        assert_eq!((is, reason), captured, "{outcome:?}");
        let kept = stored.is_some() && (is == "False");
        assert_eq!(
            message.contains("generation 7, of an earlier state of the pod, is kept"),
            kept,
            "{message}"
        );
        let (is, reason, message) = condition(&status, "Recoverable");
        assert_eq!((is, reason), recoverable, "{outcome:?}");
        if reason == "CsiVolume" {
            assert!(
                message.contains("HugePages: container app"),
                "every reason is named: {message}"
            );
            assert!(
                message.contains(Refusal::CsiVolume.advice()),
                "with what to do about it: {message}"
            );
            assert_eq!(message.contains("Generation 7"), stored.is_some());
        }
        assert_eq!(status.generation, stored.map(|_| 7));
        assert_eq!(
            status.warnings,
            stored.map_or(vec![], |_| vec!["ServiceAccountToken".to_owned()])
        );
    }
}

#[test]
fn the_supervisors_report_counts_only_for_this_very_pod() {
    let good = stored();
    for (phase, active) in [
        (Phase::Inactive, ("False", "Inactive")),
        (Phase::Active, ("True", "Active")),
        (Phase::Released, ("True", "Released")),
        (Phase::Blocked, ("False", "ImageAbsent")),
    ] {
        let status = status(
            &view(&Outcome::Captured, Some(&good)),
            &reporting(phase),
            &Risks::new(),
            None,
            time(0),
        );
        let (is, reason, _) = condition(&status, "Active");
        assert_eq!(
            (is, reason, status.phase),
            (active.0, active.1, Some(phase))
        );
    }
    let absent = SupervisorReports {
        absent: Some("no staticPodPath".into()),
        ..SupervisorReports::default()
    };
    let status = status(
        &view(&Outcome::Captured, Some(&good)),
        &absent,
        &Risks::new(),
        None,
        time(0),
    );
    assert_eq!(
        condition(&status, "Active"),
        ("Unknown", "NoSupervisor", "no staticPodPath")
    );
    assert_eq!(status.phase, None);
}

#[test]
fn a_condition_keeps_the_time_of_its_last_change_of_status() {
    let good = stored();
    let first = status(
        &view(&Outcome::Waiting, None),
        &SupervisorReports::default(),
        &Risks::new(),
        None,
        time(0),
    );
    let second = status(
        &view(&Outcome::Captured, Some(&good)),
        &SupervisorReports::default(),
        &Risks::new(),
        Some(&first),
        time(10),
    );
    let third = status(
        &view(&Outcome::Captured, Some(&good)),
        &reporting(Phase::Inactive),
        &Risks::new(),
        Some(&second),
        time(20),
    );
    let since = |status: &PodCheckpointStatus, kind: &str| {
        let found = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == kind);
        found.unwrap().last_transition_time.0
    };
    assert_eq!(
        ["Captured", "Recoverable", "Active"].map(|kind| since(&third, kind)),
        [time(10), time(10), time(20)]
    );
    let again = status(
        &view(&Outcome::Captured, Some(&good)),
        &reporting(Phase::Inactive),
        &Risks::new(),
        Some(&third),
        time(30),
    );
    assert_eq!(again, third, "nothing changed: nothing to write");
}

#[test]
fn times_of_an_outage_are_the_same_at_every_look_and_an_old_outage_stays() {
    let good = stored();
    let pod = PodOutage {
        parent_uid: "u1".into(),
        serving: Some(6_250),
        ..PodOutage::default()
    };
    let outage = |uid: &str, from_wall: &str| Outage {
        from: 1_000,
        from_wall: from_wall.into(),
        to: Some(3_601_000),
        to_wall: None,
        pods: [(
            id(KEY),
            PodOutage {
                parent_uid: uid.into(),
                ..pod.clone()
            },
        )]
        .into(),
    };
    let outages = vec![
        outage("u1", "2026-11-21T10:00:00Z"),
        outage("another", "2026-11-21T12:00:00Z"),
    ];
    let supervisor = SupervisorReports {
        outages: Outages {
            outages,
            ..Outages::default()
        },
        ..SupervisorReports::default()
    };
    let first = status(
        &view(&Outcome::Captured, Some(&good)),
        &supervisor,
        &Risks::new(),
        None,
        time(0),
    );
    let last = first.last_outage.clone().unwrap();
    assert_eq!(
        (last.from.as_str(), last.to.as_deref()),
        ("2026-11-21T10:00:00Z", Some("2026-11-21T11:00:00Z"))
    );
    assert_eq!(last.serving.as_deref(), Some("2026-11-21T10:00:05.25Z"));
    assert_eq!(last.activated, None);
    let rebooted = status(
        &view(&Outcome::Captured, Some(&good)),
        &SupervisorReports::default(),
        &Risks::new(),
        Some(&first),
        time(9),
    );
    assert_eq!(rebooted.last_outage, first.last_outage);
}

/// A ledger that knows of these, and its supervisor.

#[test]
fn a_risk_of_the_node_is_a_condition_of_each_of_its_pods() {
    let shown = |risks: &[(Risk, &str)]| {
        let risks: Risks = risks
            .iter()
            .map(|(risk, seen)| (*risk, (*seen).to_owned()))
            .collect();
        let good = stored();
        let status = status(
            &view(&Outcome::Captured, Some(&good)),
            &SupervisorReports::default(),
            &risks,
            None,
            time(0),
        );
        let (status, reason, message) = condition(&status, "NodeFit");
        (status.to_owned(), reason.to_owned(), message.to_owned())
    };
    assert_eq!(
        shown(&[]),
        (
            "True".into(),
            "Fit".into(),
            "nothing on the node would prevent recovery".into()
        )
    );
    let (status, reason, message) = shown(&[(Risk::ServerNamedByDNS, "the API server is api")]);
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("True", "Fit"),
        "it comes back all the same"
    );
    assert!(
        message.starts_with("note: ServerNamedByDNS: the API server is api ("),
        "{message}"
    );
    let (status, reason, message) =
        shown(&[(Risk::ServerNamedByDNS, "api"), (Risk::StoreFull, "none")]);
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "StoreFull"),
        "the worst first"
    );
    assert!(message.contains("ServerNamedByDNS"), "{message}");
}

#[test]
fn news_is_recorded_once_and_again_for_each_outage() {
    let outage = |from: &str, activated: Option<&str>, released: Option<&str>| LastOutage {
        from: from.into(),
        activated: activated.map(str::to_owned),
        released: released.map(str::to_owned),
        ..LastOutage::default()
    };
    let shown = |generation, last_outage| PodCheckpointStatus {
        generation,
        last_outage,
        ..PodCheckpointStatus::default()
    };
    let [bare, first, second] = [None, Some(1), Some(2)].map(|generation| shown(generation, None));
    let active = shown(Some(2), Some(outage("t0", Some("t1"), None)));
    let released = shown(Some(2), Some(outage("t0", Some("t1"), Some("t2"))));
    let again = shown(Some(2), Some(outage("t3", Some("t4"), Some("t5"))));
    let lost = |times| {
        let taken_back = Some(times);
        shown(
            Some(2),
            Some(LastOutage {
                taken_back,
                ..outage("t0", Some("t1"), Some("t2"))
            }),
        )
    };
    for (before, after, reasons) in [
        (None, &bare, &[][..]),
        (None, &first, &["Captured"]),
        (Some(&bare), &first, &["Captured"]),
        (Some(&first), &second, &[]),
        (Some(&second), &active, &["Activated"]),
        (Some(&active), &active, &[]),
        (Some(&active), &released, &["Released"]),
        (Some(&second), &released, &["Activated", "Released"]),
        (Some(&released), &released, &[]),
        (Some(&released), &again, &["Activated", "Released"]),
        (Some(&released), &lost(1), &["RateLimited"]),
        (Some(&lost(1)), &lost(1), &[]),
        (Some(&lost(1)), &lost(2), &["RateLimited"]),
    ] {
        let told: Vec<&str> = news(before, after).iter().map(|news| news.reason).collect();
        assert_eq!(told, reasons, "{before:?} {after:?}");
    }
    assert!(
        news(Some(&second), &active)[0]
            .note
            .contains("at t1; the API server had been unreachable since t0")
    );
}

#[test]
fn a_captured_pod_is_not_recoverable_while_no_supervisor_works() {
    let risks = Risks::from([(Risk::NoSupervisor, "the supervisor does not run".into())]);
    let reports = reporting(Phase::Inactive);
    let good = stored();
    let shown =
        |outcome: &Outcome, stored| status(&view(outcome, stored), &reports, &risks, None, time(0));
    let captured = shown(&Outcome::Captured, Some(&good));
    let (is, reason, message) = condition(&captured, "Recoverable");
    assert_eq!((is, reason), ("False", "NoSupervisor"));
    assert!(message.contains("does not run (look for"), "{message}");
    let (is, reason, _) = condition(&captured, "NodeFit");
    assert_eq!((is, reason), ("False", "NoSupervisor"));
    let waiting = shown(&Outcome::Waiting, None);
    let (is, reason, _) = condition(&waiting, "Recoverable");
    assert_eq!((is, reason), ("Unknown", "NotCaptured"));
    let refused = Outcome::Refused(vec![Reason {
        refusal: Refusal::CsiVolume,
        detail: "volume keys".into(),
    }]);
    let refused = shown(&refused, Some(&good));
    let (is, reason, _) = condition(&refused, "Recoverable");
    assert_eq!((is, reason), ("False", "CsiVolume"));
}
