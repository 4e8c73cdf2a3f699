use std::sync::LazyLock;

use super::*;
use crate::agent::index::Stored;
use crate::capture::Reason;
use crate::places::reports::PodOutage;
use crate::pod::id::{PodId, id};
use crate::reasons::{Refusal, Risk, Warning};

const KEY: &str = "shop_till";

fn stored() -> Stored {
    Stored {
        key: id(KEY),
        uid: "u1".into(),
        owner: None,
        generation: 7,
        digest: "sha256:aa".into(),
        size: 1234,
        captured: "2026-11-21T10:00:00Z".into(),
        warnings: vec![Warning::ServiceAccountToken],
    }
}

fn view<'a>(outcome: &'a Outcome, stored: Option<&'a Stored>) -> View<'a> {
    static POD: LazyLock<PodId> = LazyLock::new(|| id(KEY));
    View { key: &POD, uid: "u1", marked: "annotation", outcome, stored }
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn reporting(phase: Phase) -> Supervisor {
    let pod = |uid: &str, phase| PodReport {
        namespace: "shop".into(),
        name: "till".into(),
        parent_uid: uid.into(),
        phase,
        reason: (phase == Phase::Blocked).then(|| "ImageAbsent".into()),
        ..PodReport::default()
    };
    let pods = vec![pod("another", Phase::Released), pod("u1", phase)];
    Supervisor { status: Some(Status { pods, ..Status::default() }), ..Supervisor::default() }
}

fn condition<'a>(status: &'a PodCheckpointStatus, kind: &str) -> (&'a str, &'a str, &'a str) {
    let found = status.conditions.iter().find(|condition| condition.type_ == kind).unwrap();
    (&found.status, &found.reason, &found.message)
}

/// What a capture came to, what the store has, and the two conditions that follow.
type Row<'a> = (&'a Outcome, Option<&'a Stored>, (&'a str, &'a str), (&'a str, &'a str));

#[test]
fn each_outcome_has_its_reasons() {
    let good = stored();
    let refused = Outcome::Refused(vec![
        Reason { refusal: Refusal::CsiVolume, detail: "volume keys".into() },
        Reason { refusal: Refusal::HugePages, detail: "container app".into() },
    ]);
    let failed = Outcome::Failed { reason: "StoreFull", message: "no space".into() };
    let table: [Row<'_>; 8] = [
        (&Outcome::Waiting, None, ("False", "WaitingForReady"), ("Unknown", "NotCaptured")),
        (&Outcome::Waiting, Some(&good), ("True", "Captured"), ("True", "Recoverable")),
        (&Outcome::Captured, Some(&good), ("True", "Captured"), ("True", "Recoverable")),
        (&failed, None, ("False", "StoreFull"), ("Unknown", "NotCaptured")),
        (&failed, Some(&good), ("False", "StoreFull"), ("True", "Recoverable")),
        (&refused, None, ("False", "Refused"), ("False", "CsiVolume")),
        (&refused, Some(&good), ("False", "Refused"), ("False", "CsiVolume")),
        (&Outcome::Captured, None, ("False", "WaitingForReady"), ("Unknown", "NotCaptured")),
    ];
    for (outcome, stored, captured, recoverable) in table {
        let status = status(&view(outcome, stored), &Supervisor::default(), &Risks::new(), None, time(0));
        let (is, reason, message) = condition(&status, "Captured");
        assert_eq!((is, reason), captured, "{outcome:?}");
        let kept = stored.is_some() && (is == "False");
        assert_eq!(message.contains("generation 7, of an earlier form, is kept"), kept, "{message}");
        let (is, reason, message) = condition(&status, "Recoverable");
        assert_eq!((is, reason), recoverable, "{outcome:?}");
        if reason == "CsiVolume" {
            assert!(message.contains("HugePages: container app"), "every reason is named: {message}");
            assert!(message.contains(Refusal::CsiVolume.advice()), "with what to do about it: {message}");
            assert_eq!(message.contains("Generation 7"), stored.is_some());
        }
        assert_eq!(status.generation, stored.map(|_| 7));
        assert_eq!(status.warnings, stored.map_or(vec![], |_| vec!["ServiceAccountToken".to_owned()]));
    }
}

#[test]
fn the_supervisors_word_counts_for_this_very_pod() {
    let good = stored();
    for (phase, active) in [
        (Phase::Inactive, ("False", "Inactive")),
        (Phase::Active, ("True", "Active")),
        (Phase::Released, ("True", "Released")),
        (Phase::Blocked, ("False", "ImageAbsent")),
    ] {
        let status = status(&view(&Outcome::Captured, Some(&good)), &reporting(phase), &Risks::new(), None, time(0));
        let (is, reason, _) = condition(&status, "Active");
        assert_eq!((is, reason, status.phase), (active.0, active.1, Some(phase)));
    }
    let absent = Supervisor { absent: Some("no staticPodPath".into()), ..Supervisor::default() };
    let status = status(&view(&Outcome::Captured, Some(&good)), &absent, &Risks::new(), None, time(0));
    assert_eq!(condition(&status, "Active"), ("Unknown", "NoSupervisor", "no staticPodPath"));
    assert_eq!(status.phase, None);
}

#[test]
fn a_condition_keeps_the_time_of_its_last_change_of_status() {
    let good = stored();
    let first = status(&view(&Outcome::Waiting, None), &Supervisor::default(), &Risks::new(), None, time(0));
    let second =
        status(&view(&Outcome::Captured, Some(&good)), &Supervisor::default(), &Risks::new(), Some(&first), time(10));
    let third = status(
        &view(&Outcome::Captured, Some(&good)),
        &reporting(Phase::Inactive),
        &Risks::new(),
        Some(&second),
        time(20),
    );
    let since = |status: &PodCheckpointStatus, kind: &str| {
        let found = status.conditions.iter().find(|condition| condition.type_ == kind);
        found.unwrap().last_transition_time.0
    };
    assert_eq!(["Captured", "Recoverable", "Active"].map(|kind| since(&third, kind)), [time(10), time(10), time(20)]);
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
    let pod = PodOutage { parent_uid: "u1".into(), serving: Some(6_250), ..PodOutage::default() };
    let outage = |uid: &str, from_wall: &str| Outage {
        from: 1_000,
        from_wall: from_wall.into(),
        to: Some(3_601_000),
        to_wall: None,
        pods: [(id(KEY), PodOutage { parent_uid: uid.into(), ..pod.clone() })].into(),
    };
    let outages = vec![outage("u1", "2026-11-21T10:00:00Z"), outage("another", "2026-11-21T12:00:00Z")];
    let supervisor = Supervisor { outages: Outages { outages, ..Outages::default() }, ..Supervisor::default() };
    let first = status(&view(&Outcome::Captured, Some(&good)), &supervisor, &Risks::new(), None, time(0));
    let last = first.last_outage.clone().unwrap();
    assert_eq!((last.from.as_str(), last.to.as_deref()), ("2026-11-21T10:00:00Z", Some("2026-11-21T11:00:00Z")));
    assert_eq!(last.serving.as_deref(), Some("2026-11-21T10:00:05.25Z"));
    assert_eq!(last.activated, None);
    let rebooted =
        status(&view(&Outcome::Captured, Some(&good)), &Supervisor::default(), &Risks::new(), Some(&first), time(9));
    assert_eq!(rebooted.last_outage, first.last_outage);
}

/// A reporter that knows of these, and its supervisor.
fn seeded(known: Vec<(PodId, Known)>) -> Reporter {
    let mut reporter = Reporter::default();
    assert_eq!(next(&mut reporter, None, false, 0), Some(Job::Seed));
    assert_eq!(reporter.done(Done::Seeded(Ok(known)), Duration::ZERO), None);
    reporter
}

fn next(reporter: &mut Reporter, outcome: Option<&Outcome>, has_stored: bool, seconds: u64) -> Option<Job> {
    let good = stored();
    let views = outcome.map(|outcome| view(outcome, matches!(outcome, Outcome::Captured).then_some(&good)));
    reporter.next(
        views.into_iter(),
        |_, _| has_stored,
        &Supervisor::default(),
        &Risks::new(),
        Duration::from_secs(seconds),
        time(seconds.try_into().unwrap()),
    )
}

fn failure(code: u16) -> Error {
    Error::Api(Box::new(kube::core::Status { code, ..kube::core::Status::default() }))
}

#[test]
fn it_is_written_when_it_changed_and_at_no_other_time() {
    let mut reporter = seeded(Vec::new());
    let Some(Job::Write { key, uid, spec: true, status, news: _ }) =
        next(&mut reporter, Some(&Outcome::Waiting), false, 1)
    else {
        panic!("the whole is written first")
    };
    assert_eq!(next(&mut reporter, Some(&Outcome::Captured), false, 1), None, "one at a time");
    let known = Box::new(Known { object: None, pod: uid, status: Some(*status), is_gone: false });
    reporter.done(Done::Written { key, known, result: Ok(Some("o1".into())), news: Vec::new() }, Duration::ZERO);
    assert_eq!(next(&mut reporter, Some(&Outcome::Waiting), false, 2), None);
    assert!(matches!(next(&mut reporter, Some(&Outcome::Captured), false, 3), Some(Job::Write { spec: false, .. })));
}

#[test]
fn one_of_an_earlier_agent_is_taken_over_and_one_of_an_earlier_pod_is_replaced() {
    let shown = status(&view(&Outcome::Waiting, None), &Supervisor::default(), &Risks::new(), None, time(0));
    let known =
        |pod: &str| Known { object: Some("o1".into()), pod: pod.into(), status: Some(shown.clone()), is_gone: false };
    let mut reporter = seeded(vec![(id(KEY), known("u1"))]);
    assert_eq!(next(&mut reporter, Some(&Outcome::Waiting), false, 1), None);
    let mut reporter = seeded(vec![(id(KEY), known("u0"))]);
    let delete = Job::Delete { key: id(KEY), uid: Some("o1".into()) };
    assert_eq!(next(&mut reporter, Some(&Outcome::Waiting), false, 1), Some(delete));
    reporter.done(Done::Deleted(id(KEY), Ok(())), Duration::ZERO);
    assert!(matches!(next(&mut reporter, Some(&Outcome::Waiting), false, 1), Some(Job::Write { spec: true, .. })));
}

#[test]
fn it_is_deleted_only_when_the_store_has_nothing_of_the_pod_any_more() {
    let known = Known { object: Some("o1".into()), pod: "u1".into(), status: None, is_gone: false };
    let mut reporter = seeded(vec![(id(KEY), known)]);
    assert_eq!(next(&mut reporter, None, true, 1), None);
    assert!(matches!(next(&mut reporter, None, false, 1), Some(Job::Delete { .. })));
}

#[test]
fn a_failed_write_is_told_once_waits_and_does_not_hold_others_up() {
    let mut reporter = seeded(Vec::new());
    let mut told = 0;
    for second in [1, 100, 200] {
        let Some(Job::Write { key, .. }) = next(&mut reporter, Some(&Outcome::Waiting), false, second) else {
            panic!("tried again")
        };
        let result = Err(failure(403));
        let done = Done::Written { key, known: Box::default(), result, news: Vec::new() };
        told += usize::from(reporter.done(done, Duration::from_secs(second)).is_some());
        assert_eq!(next(&mut reporter, Some(&Outcome::Waiting), false, second), None);
        let due = reporter.wake(Duration::from_secs(second)).unwrap();
        assert!(due > Duration::from_secs(second) && due < Duration::from_secs(second + 60));
    }
    assert_eq!(told, 1);
}

#[test]
fn one_that_somebody_deleted_is_written_whole_again() {
    let known = Known { object: Some("o1".into()), pod: "u1".into(), status: None, is_gone: false };
    let mut reporter = seeded(vec![(id(KEY), known)]);
    let Some(Job::Write { key, spec: false, .. }) = next(&mut reporter, Some(&Outcome::Waiting), false, 1) else {
        panic!("its status is written")
    };
    let done = Done::Written { key, known: Box::default(), result: Err(failure(404)), news: Vec::new() };
    reporter.done(done, Duration::from_secs(1));
    assert!(matches!(next(&mut reporter, Some(&Outcome::Waiting), false, 100), Some(Job::Write { spec: true, .. })));
}

#[test]
fn a_missing_resource_is_told_once_and_asked_for_again() {
    let mut reporter = Reporter::default();
    let mut told = Vec::new();
    for second in [0, 1000, 2000] {
        assert_eq!(next(&mut reporter, Some(&Outcome::Waiting), false, second), Some(Job::Seed));
        told.extend(reporter.done(Done::Seeded(Err(failure(404))), Duration::from_secs(second)));
        assert_eq!(next(&mut reporter, Some(&Outcome::Waiting), false, second), None);
    }
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("kubectl apply -k crds"), "{told:?}");
}

#[test]
fn a_nodes_long_name_fits_a_label_and_stays_its_own() {
    let (one, two) = ("n".repeat(100), format!("{}m", "n".repeat(99)));
    assert_eq!(label("node-1"), "node-1");
    assert_eq!(label(&one).len(), 63);
    assert_ne!(label(&one), label(&two));
}

#[test]
fn what_is_new_is_told_once_and_again_for_each_outage() {
    let outage = |from: &str, activated: Option<&str>, released: Option<&str>| LastOutage {
        from: from.into(),
        activated: activated.map(str::to_owned),
        released: released.map(str::to_owned),
        ..LastOutage::default()
    };
    let shown =
        |generation, last_outage| PodCheckpointStatus { generation, last_outage, ..PodCheckpointStatus::default() };
    let [bare, first, second] = [None, Some(1), Some(2)].map(|generation| shown(generation, None));
    let active = shown(Some(2), Some(outage("t0", Some("t1"), None)));
    let released = shown(Some(2), Some(outage("t0", Some("t1"), Some("t2"))));
    let again = shown(Some(2), Some(outage("t3", Some("t4"), Some("t5"))));
    let lost = |times| {
        let taken_back = Some(times);
        shown(Some(2), Some(LastOutage { taken_back, ..outage("t0", Some("t1"), Some("t2")) }))
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
    assert!(news(Some(&second), &active)[0].note.contains("at t1, while the API server was away since t0"));
}

#[test]
fn what_one_showed_is_not_lost_with_it() {
    let outage = LastOutage { from: "t0".into(), activated: Some("t1".into()), ..LastOutage::default() };
    let shown =
        status(&view(&Outcome::Captured, Some(&stored())), &Supervisor::default(), &Risks::new(), None, time(0));
    let shown = PodCheckpointStatus { last_outage: Some(outage.clone()), ..shown };
    let known = Known { object: Some("o1".into()), pod: "u1".into(), status: Some(shown), is_gone: false };
    let mut reporter = seeded(vec![(id(KEY), known)]);
    reporter.hear(Echo::Gone(id(KEY), Some("o1".into())), Duration::ZERO);
    assert!(reporter.had_outage(&id(KEY), "u1"), "the supervisor is told of it");
    let Some(Job::Write { spec: true, status, news, key, uid }) =
        next(&mut reporter, Some(&Outcome::Captured), true, 9)
    else {
        panic!("it is written whole")
    };
    assert_eq!((status.last_outage.as_ref(), news.as_slice()), (Some(&outage), &[][..]));
    // deleted once more, before the answer came
    reporter.hear(Echo::Gone(id(KEY), Some("o2".into())), Duration::from_secs(9));
    let known = Box::new(Known { object: None, pod: uid, status: Some(*status), is_gone: false });
    reporter.done(Done::Written { key, known, result: Ok(Some("o2".into())), news }, Duration::from_secs(9));
    assert!(matches!(next(&mut reporter, Some(&Outcome::Captured), true, 60), Some(Job::Write { spec: true, .. })));
    let mut gone = seeded(Vec::new());
    gone.hear(Echo::Gone(id(KEY), None), Duration::ZERO);
    assert_eq!(next(&mut gone, None, false, 9), None, "nothing is deleted that is not there");
}

#[test]
fn one_that_is_not_there_any_more_is_written_again_after_a_moment() {
    let shown = status(&view(&Outcome::Waiting, None), &Supervisor::default(), &Risks::new(), None, time(0));
    let known = Known { object: Some("o1".into()), pod: "u1".into(), status: Some(shown), is_gone: false };
    let whole = |reporter: &mut Reporter, seconds| {
        matches!(next(reporter, Some(&Outcome::Waiting), false, seconds), Some(Job::Write { spec: true, .. }))
    };
    let at = Duration::from_secs;
    let mut reporter = seeded(vec![(id(KEY), known.clone())]);
    reporter.hear(Echo::Gone(id(KEY), Some("o0".into())), at(1));
    assert!(!whole(&mut reporter, 9), "another object of that name");
    reporter.hear(Echo::Gone(id(KEY), Some("o1".into())), at(10));
    assert!(!whole(&mut reporter, 11), "its pod may be gone, too");
    assert_eq!(reporter.wake(at(11)), Some(at(12)));
    assert!(whole(&mut reporter, 12));

    let mut reporter = seeded(vec![(id(KEY), known.clone())]);
    reporter.hear(Echo::Begins, at(1));
    reporter.hear(Echo::There(id(KEY)), at(2));
    assert!(!whole(&mut reporter, 60), "it was found");
    reporter.hear(Echo::Begins, at(60));
    assert!(!whole(&mut reporter, 89), "it may be told of yet");
    assert!(whole(&mut reporter, 90));
}

#[test]
fn what_is_in_the_way_at_the_node_is_a_condition_of_each_of_its_pods() {
    let shown = |risks: &[(Risk, &str)]| {
        let risks: Risks = risks.iter().map(|(risk, seen)| (*risk, (*seen).to_owned())).collect();
        let good = stored();
        let status = status(&view(&Outcome::Captured, Some(&good)), &Supervisor::default(), &risks, None, time(0));
        let (status, reason, message) = condition(&status, "NodeFit");
        (status.to_owned(), reason.to_owned(), message.to_owned())
    };
    assert_eq!(shown(&[]), ("True".into(), "Fit".into(), "nothing of the node is in the way".into()));
    let (status, reason, message) = shown(&[(Risk::ServerNamedByDNS, "the API server is api")]);
    assert_eq!((status.as_str(), reason.as_str()), ("True", "Fit"), "it comes back all the same");
    assert!(message.starts_with("note ServerNamedByDNS: the API server is api ("), "{message}");
    let (status, reason, message) = shown(&[(Risk::ServerNamedByDNS, "api"), (Risk::StoreFull, "none")]);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "StoreFull"), "the worst first");
    assert!(message.contains("ServerNamedByDNS"), "{message}");
}
