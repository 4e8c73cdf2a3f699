use super::*;
use crate::agent::outcome::Outcome;
use crate::agent::published::shown::tests::{KEY, stored, time, view};
use crate::api::podcheckpoint::LastOutage;
use crate::pod::id::id;

fn seeded(known: Vec<(PodId, Published)>) -> Ledger {
    let mut ledger = Ledger::default();
    assert_eq!(next(&mut ledger, None, false, 0), Some(Job::Seed));
    assert_eq!(ledger.done(Done::Seeded(Ok(known)), Duration::ZERO), None);
    ledger
}

fn next(
    ledger: &mut Ledger,
    outcome: Option<&Outcome>,
    has_stored: bool,
    seconds: u64,
) -> Option<Job> {
    let good = stored();
    let views = outcome.map(|outcome| {
        view(
            outcome,
            matches!(outcome, Outcome::Captured).then_some(&good),
        )
    });
    ledger.next(
        views.into_iter(),
        |_, _| has_stored,
        &SupervisorReports::default(),
        &Risks::new(),
        Duration::from_secs(seconds),
        time(seconds.try_into().unwrap()),
    )
}

fn failure(code: u16) -> Error {
    Error::Api(Box::new(kube::core::Status {
        code,
        ..kube::core::Status::default()
    }))
}

#[test]
fn it_is_written_when_it_changed_and_at_no_other_time() {
    let mut ledger = seeded(Vec::new());
    let Some(Job::Write {
        key,
        uid,
        spec: true,
        status,
        news: _,
    }) = next(&mut ledger, Some(&Outcome::Waiting), false, 1)
    else {
        panic!("the whole is written first")
    };
    assert_eq!(
        next(&mut ledger, Some(&Outcome::Captured), false, 1),
        None,
        "one at a time"
    );
    let known = Box::new(Published {
        object: None,
        pod: uid,
        status: Some(*status),
        is_gone: false,
    });
    ledger.done(
        Done::Written {
            key,
            known,
            result: Ok(Some("o1".into())),
            news: Vec::new(),
        },
        Duration::ZERO,
    );
    assert_eq!(next(&mut ledger, Some(&Outcome::Waiting), false, 2), None);
    assert!(matches!(
        next(&mut ledger, Some(&Outcome::Captured), false, 3),
        Some(Job::Write { spec: false, .. })
    ));
}

#[test]
fn one_of_an_earlier_agent_is_taken_over_and_one_of_an_earlier_pod_is_replaced() {
    let shown = shown::status(
        &view(&Outcome::Waiting, None),
        &SupervisorReports::default(),
        &Risks::new(),
        None,
        time(0),
    );
    let known = |pod: &str| Published {
        object: Some("o1".into()),
        pod: pod.into(),
        status: Some(shown.clone()),
        is_gone: false,
    };
    let mut ledger = seeded(vec![(id(KEY), known("u1"))]);
    assert_eq!(next(&mut ledger, Some(&Outcome::Waiting), false, 1), None);
    let mut ledger = seeded(vec![(id(KEY), known("u0"))]);
    let delete = Job::Delete {
        key: id(KEY),
        uid: Some("o1".into()),
    };
    assert_eq!(
        next(&mut ledger, Some(&Outcome::Waiting), false, 1),
        Some(delete)
    );
    ledger.done(Done::Deleted(id(KEY), Ok(())), Duration::ZERO);
    assert!(matches!(
        next(&mut ledger, Some(&Outcome::Waiting), false, 1),
        Some(Job::Write { spec: true, .. })
    ));
}

#[test]
fn it_is_deleted_only_when_the_store_has_nothing_of_the_pod_any_more() {
    let known = Published {
        object: Some("o1".into()),
        pod: "u1".into(),
        status: None,
        is_gone: false,
    };
    let mut ledger = seeded(vec![(id(KEY), known)]);
    assert_eq!(next(&mut ledger, None, true, 1), None);
    assert!(matches!(
        next(&mut ledger, None, false, 1),
        Some(Job::Delete { .. })
    ));
}

#[test]
fn a_failed_write_is_reported_once_waits_and_does_not_delay_others() {
    let mut ledger = seeded(Vec::new());
    let mut told = 0;
    for second in [1, 100, 200] {
        let Some(Job::Write { key, .. }) =
            next(&mut ledger, Some(&Outcome::Waiting), false, second)
        else {
            panic!("tried again")
        };
        let result = Err(failure(403));
        let done = Done::Written {
            key,
            known: Box::default(),
            result,
            news: Vec::new(),
        };
        told += usize::from(ledger.done(done, Duration::from_secs(second)).is_some());
        assert_eq!(
            next(&mut ledger, Some(&Outcome::Waiting), false, second),
            None
        );
        let due = ledger.wake(Duration::from_secs(second)).unwrap();
        assert!(due > Duration::from_secs(second) && due < Duration::from_secs(second + 60));
    }
    assert_eq!(told, 1);
}

#[test]
fn a_deleted_object_is_written_again_in_full() {
    let known = Published {
        object: Some("o1".into()),
        pod: "u1".into(),
        status: None,
        is_gone: false,
    };
    let mut ledger = seeded(vec![(id(KEY), known)]);
    let Some(Job::Write {
        key, spec: false, ..
    }) = next(&mut ledger, Some(&Outcome::Waiting), false, 1)
    else {
        panic!("its status is written")
    };
    let done = Done::Written {
        key,
        known: Box::default(),
        result: Err(failure(404)),
        news: Vec::new(),
    };
    ledger.done(done, Duration::from_secs(1));
    assert!(matches!(
        next(&mut ledger, Some(&Outcome::Waiting), false, 100),
        Some(Job::Write { spec: true, .. })
    ));
}

#[test]
fn a_missing_resource_is_reported_once_and_requested_again() {
    let mut ledger = Ledger::default();
    let mut told = Vec::new();
    for second in [0, 1000, 2000] {
        assert_eq!(
            next(&mut ledger, Some(&Outcome::Waiting), false, second),
            Some(Job::Seed)
        );
        told.extend(ledger.done(Done::Seeded(Err(failure(404))), Duration::from_secs(second)));
        assert_eq!(
            next(&mut ledger, Some(&Outcome::Waiting), false, second),
            None
        );
    }
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("kubectl apply -k crds"), "{told:?}");
}

#[test]
fn the_status_of_a_deleted_object_is_not_lost() {
    let outage = LastOutage {
        from: "t0".into(),
        activated: Some("t1".into()),
        ..LastOutage::default()
    };
    let shown = shown::status(
        &view(&Outcome::Captured, Some(&stored())),
        &SupervisorReports::default(),
        &Risks::new(),
        None,
        time(0),
    );
    let shown = PodCheckpointStatus {
        last_outage: Some(outage.clone()),
        ..shown
    };
    let known = Published {
        object: Some("o1".into()),
        pod: "u1".into(),
        status: Some(shown),
        is_gone: false,
    };
    let mut ledger = seeded(vec![(id(KEY), known)]);
    ledger.hear(Echo::Gone(id(KEY), Some("o1".into())), Duration::ZERO);
    assert!(
        ledger.had_outage(&id(KEY), "u1"),
        "the supervisor is told of it"
    );
    let Some(Job::Write {
        spec: true,
        status,
        news,
        key,
        uid,
    }) = next(&mut ledger, Some(&Outcome::Captured), true, 9)
    else {
        panic!("it is written whole")
    };
    assert_eq!(
        (status.last_outage.as_ref(), news.as_slice()),
        (Some(&outage), &[][..])
    );
    // deleted once more, before the answer came
    ledger.hear(
        Echo::Gone(id(KEY), Some("o2".into())),
        Duration::from_secs(9),
    );
    let known = Box::new(Published {
        object: None,
        pod: uid,
        status: Some(*status),
        is_gone: false,
    });
    ledger.done(
        Done::Written {
            key,
            known,
            result: Ok(Some("o2".into())),
            news,
        },
        Duration::from_secs(9),
    );
    assert!(matches!(
        next(&mut ledger, Some(&Outcome::Captured), true, 60),
        Some(Job::Write { spec: true, .. })
    ));
    let mut gone = seeded(Vec::new());
    gone.hear(Echo::Gone(id(KEY), None), Duration::ZERO);
    assert_eq!(
        next(&mut gone, None, false, 9),
        None,
        "nothing is deleted that is not there"
    );
}

#[test]
fn an_object_that_is_gone_is_written_again_after_a_moment() {
    let shown = shown::status(
        &view(&Outcome::Waiting, None),
        &SupervisorReports::default(),
        &Risks::new(),
        None,
        time(0),
    );
    let known = Published {
        object: Some("o1".into()),
        pod: "u1".into(),
        status: Some(shown),
        is_gone: false,
    };
    let whole = |ledger: &mut Ledger, seconds| {
        matches!(
            next(ledger, Some(&Outcome::Waiting), false, seconds),
            Some(Job::Write { spec: true, .. })
        )
    };
    let at = Duration::from_secs;
    let mut ledger = seeded(vec![(id(KEY), known.clone())]);
    ledger.hear(Echo::Gone(id(KEY), Some("o0".into())), at(1));
    assert!(!whole(&mut ledger, 9), "another object of that name");
    ledger.hear(Echo::Gone(id(KEY), Some("o1".into())), at(10));
    assert!(!whole(&mut ledger, 11), "its pod may be gone, too");
    assert_eq!(ledger.wake(at(11)), Some(at(12)));
    assert!(whole(&mut ledger, 12));

    let mut ledger = seeded(vec![(id(KEY), known.clone())]);
    ledger.hear(Echo::Begins, at(1));
    ledger.hear(Echo::There(id(KEY)), at(2));
    assert!(!whole(&mut ledger, 60), "it was found");
    ledger.hear(Echo::Begins, at(60));
    assert!(!whole(&mut ledger, 89), "it may be told of yet");
    assert!(whole(&mut ledger, 90));
}
