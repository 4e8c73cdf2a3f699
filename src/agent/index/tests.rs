use crate::pod::id::id;
use crate::pod::room::Demand;
use proptest::prelude::*;

use super::*;

use crate::agent::network::{Needs, Support};
use crate::capture::Reason;
use crate::reasons::Refusal;

const RETENTION: Duration = Duration::from_mins(1);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn pod(key: &str, uid: &str) -> Observed {
    Observed {
        rejected: false,
        demand: Some(Demand::default()),
        key: id(key),
        uid: uid.into(),
        marked: marked(),
        ready: true,
        ending: false,
        support: None,
        needs: Needs::default(),
        is_bootkubes: false,
        containers: vec![format!("container-of-{uid}")],
        fingerprint: 1,
        object: Arc::from([]),
    }
}

fn marked() -> Marked {
    Marked::By("annotation".into())
}

fn stored(key: &str, uid: &str, owner: Option<&str>) -> Stored {
    Stored {
        key: id(key),
        uid: uid.into(),
        owner: owner.map(str::to_owned),
        generation: 1,
        ..Stored::unread(id("shop_till"))
    }
}

/// After a complete list of nothing, with this in the store.
fn listed(kept: Vec<Stored>) -> Index {
    let mut index = Index::new(RETENTION, kept);
    index.begin_list();
    index.end_list(at(0));
    index
}

fn names(actions: &[Action]) -> Vec<String> {
    let name = |action: &Action| match action {
        Action::Capture { key, .. } => format!("capture {key}"),
        Action::Ask { key, uid } => format!("ask {key} {uid}"),
        Action::Remove { key, uid } => format!("remove {key} {uid}"),
    };
    actions.iter().map(name).collect()
}

fn decide(index: &mut Index, seconds: u64) -> Vec<String> {
    names(&index.decide(at(seconds)))
}

/// A minute in which every pod of namespace `aaa` changes each second, as if its owner annotated it,
/// and a capture takes two seconds. `shop/till` changes once, after ten seconds.
#[test]
fn pods_that_change_all_the_time_keep_no_other_waiting_and_are_captured_seldom() {
    let mut index = listed(Vec::new());
    let busy: Vec<String> = (0..8).map(|number| format!("aaa_{number}")).collect();
    let mut running: Vec<(PodId, u64)> = Vec::new();
    let mut begun: Vec<(u64, PodId)> = Vec::new();
    for second in 0..60 {
        let (ended, rest) = running
            .into_iter()
            .partition(|(_, begun)| second >= begun + 2);
        running = rest;
        let ended: Vec<(PodId, u64)> = ended;
        for (key, _) in ended {
            let captured = Captured::Stored(stored(key.file_form(), "u1", None));
            index.captured(&key, captured, at(second));
        }
        for key in &busy {
            let changed = Observed {
                fingerprint: second,
                ..pod(key, "u1")
            };
            index.see(changed, at(second));
        }
        if second == 10 {
            index.see(pod("shop_till", "u1"), at(second));
        }
        for action in index.decide(at(second)) {
            let Action::Capture { key, .. } = action else {
                panic!("{action:?}")
            };
            begun.push((second, key.clone()));
            running.push((key, second));
        }
    }
    let of = |key: &str| -> Vec<u64> {
        let key = id(key);
        let of = begun.iter().filter(|(_, begun)| *begun == key);
        of.map(|(second, _)| *second).collect()
    };
    let till = of("shop_till");
    assert!(matches!(till[..], [10..=12]), "{till:?}");
    for key in &busy {
        let begun = of(key);
        assert!(begun.len() >= 5, "{key}: {begun:?}");
        let pauses = begun.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(pauses.min() >= Some(2 + REST.as_secs()), "{key}: {begun:?}");
    }
}

#[test]
fn a_pod_that_waits_for_its_turn_keeps_it_when_it_changes_and_the_first_change_waits_for_nothing() {
    let mut index = listed(Vec::new());
    for (second, key) in (0..6).map(|number| (number, format!("shop_{number}"))) {
        index.see(pod(&key, "u1"), at(second));
    }
    assert_eq!(decide(&mut index, 6).len(), CONCURRENT);
    let changed = Observed {
        fingerprint: 2,
        ..pod("shop_4", "u1")
    };
    index.see(changed, at(7));
    let captured = |index: &mut Index, key: &str, second| {
        let captured = Captured::Stored(stored(key, "u1", None));
        index.captured(&id(key), captured, at(second));
    };
    captured(&mut index, "shop_0", 8);
    assert_eq!(decide(&mut index, 8), ["capture shop/4"]);
    captured(&mut index, "shop_1", 8);
    assert_eq!(decide(&mut index, 8), ["capture shop/5"]);
    for key in ["shop_2", "shop_3", "shop_4", "shop_5"] {
        captured(&mut index, key, 9);
    }
    index.swapped(&id("shop_2"));
    assert_eq!(decide(&mut index, 10), [""; 0], "it rests");
    assert_eq!(index.wake(at(10)), Some(at(9) + REST));
    assert_eq!(decide(&mut index, 14), ["capture shop/2"]);
    index.swapped(&id("shop_3"));
    assert_eq!(decide(&mut index, 60), ["capture shop/3"]);
}

#[test]
fn a_pod_is_captured_once_until_it_changes() {
    let mut index = listed(Vec::new());
    index.see(pod("shop_till", "u1"), at(1));
    assert_eq!(decide(&mut index, 1), ["capture shop/till"]);
    assert_eq!(decide(&mut index, 1), [""; 0], "it is being captured");
    index.captured(
        &id("shop_till"),
        Captured::Stored(stored("shop_till", "u1", None)),
        at(2),
    );
    index.see(pod("shop_till", "u1"), at(3));
    assert_eq!(decide(&mut index, 3), [""; 0], "nothing changed");
    index.see(
        Observed {
            fingerprint: 2,
            ..pod("shop_till", "u1")
        },
        at(8),
    );
    assert_eq!(decide(&mut index, 8), ["capture shop/till"]);
}

#[test]
fn what_changes_during_a_capture_is_captured_after_it() {
    for swap in [true, false] {
        let mut index = listed(Vec::new());
        index.see(pod("shop_till", "u1"), at(1));
        index.decide(at(1));
        if swap {
            index.swapped(&id("shop_till"));
        } else {
            index.see(
                Observed {
                    fingerprint: 2,
                    ..pod("shop_till", "u1")
                },
                at(1),
            );
        }
        assert_eq!(decide(&mut index, 1), [""; 0]);
        index.captured(
            &id("shop_till"),
            Captured::Stored(stored("shop_till", "u1", None)),
            at(2),
        );
        assert_eq!(decide(&mut index, 6), [""; 0], "it rests");
        assert_eq!(decide(&mut index, 7), ["capture shop/till"], "swap: {swap}");
    }
}

#[test]
fn a_pod_that_is_not_ready_or_being_deleted_is_not_captured_whatever_changes() {
    for observed in [
        Observed {
            ready: false,
            ..pod("shop_till", "u1")
        },
        Observed {
            ending: true,
            ..pod("shop_till", "u1")
        },
        Observed {
            marked: Marked::No,
            ..pod("shop_till", "u1")
        },
    ] {
        let mut index = listed(Vec::new());
        index.see(observed, at(1));
        index.swapped(&id("shop_till"));
        index.swapped_all();
        assert_eq!(decide(&mut index, 1), [""; 0]);
        assert!(index.wake(at(1)).is_none());
    }
}

#[test]
fn a_temporary_fault_is_retried_later_and_a_refusal_only_after_a_change() {
    let mut index = listed(Vec::new());
    index.see(pod("shop_till", "u1"), at(1));
    index.decide(at(1));
    let fault = || Captured::Failed {
        reason: "CaptureFailed",
        message: "the runtime is away".into(),
    };
    index.captured(&id("shop_till"), fault(), at(1));
    assert_eq!(decide(&mut index, 1), [""; 0]);
    let due = index.wake(at(1)).unwrap();
    assert!(due > at(1) && due < at(3));
    assert_eq!(names(&index.decide(due)), ["capture shop/till"]);
    let reasons = vec![Reason {
        refusal: Refusal::CsiVolume,
        detail: "volume data".into(),
    }];
    index.captured(&id("shop_till"), Captured::Refused(reasons), at(3));
    assert_eq!(decide(&mut index, 3600), [""; 0]);
    assert_eq!(index.wake(at(3)), None);
    assert_eq!(
        index.report(true).refused[&id("shop_till")],
        ["CsiVolume: volume data"]
    );
    index.see(
        Observed {
            fingerprint: 2,
            ..pod("shop_till", "u1")
        },
        at(3601),
    );
    assert_eq!(decide(&mut index, 3601), ["capture shop/till"]);
}

#[test]
fn a_change_ends_the_wait_after_a_fault() {
    let mut index = listed(Vec::new());
    index.see(pod("shop_till", "u1"), at(1));
    for _ in 0..10 {
        index.decide(index.wake(at(1)).unwrap_or(at(1)));
        let fault = Captured::Failed {
            reason: "CaptureFailed",
            message: String::new(),
        };
        index.captured(&id("shop_till"), fault, at(100));
    }
    assert_eq!(decide(&mut index, 100), [""; 0]);
    index.see(
        Observed {
            fingerprint: 2,
            ..pod("shop_till", "u1")
        },
        at(100),
    );
    assert_eq!(decide(&mut index, 105), ["capture shop/till"]);
}

#[test]
fn a_checkpoint_is_current_while_the_api_server_reports_its_pod_as_it_was_captured() {
    let limited = || Stored {
        max_age: Some(at(3600)),
        ..stored("shop_till", "u1", None)
    };
    let mut index = Index::new(
        RETENTION,
        vec![limited(), stored("shop_unlimited", "u2", None)],
    );
    let current = |index: &Index, fresh| -> Vec<bool> {
        let aging = index.aging(fresh);
        aging.iter().map(|it| it.is_current).collect()
    };
    assert_eq!(current(&index, true), [false], "not reported yet");
    index.begin_list();
    index.see(pod("shop_till", "u1"), at(0));
    index.end_list(at(0));
    index.decide(at(0));
    assert_eq!(current(&index, true), [false], "not compared yet");
    index.captured(&id("shop_till"), Captured::Stored(limited()), at(1));
    assert_eq!(current(&index, true), [true]);
    assert_eq!(current(&index, false), [false], "the API server is silent");
    index.swapped(&id("shop_till"));
    assert_eq!(current(&index, true), [false], "it changed");
    index.decide(at(100));
    index.captured(&id("shop_till"), Captured::Stored(limited()), at(101));
    assert_eq!(current(&index, true), [true]);
    index.delete(&id("shop_till"), "u1", at(102));
    assert_eq!(current(&index, true), [false], "it is gone");
}

#[test]
fn only_a_few_captures_run_at_a_time_and_the_rest_follow() {
    let mut index = listed(Vec::new());
    for number in 0..10 {
        index.see(pod(&format!("shop_{number}"), &format!("u{number}")), at(1));
    }
    assert_eq!(decide(&mut index, 1).len(), CONCURRENT);
    assert_eq!(decide(&mut index, 1).len(), 0);
    assert_eq!(index.wake(at(1)), None, "no timer spins while they run");
    index.captured(
        &id("shop_0"),
        Captured::Stored(stored("shop_0", "u0", None)),
        at(1),
    );
    assert_eq!(decide(&mut index, 1), ["capture shop/4"]);
}

#[test]
fn captures_at_the_same_time_stay_within_a_budget_of_bytes_and_a_larger_one_runs_alone() {
    let sized = |key: &str, size| Stored {
        size,
        ..stored(key, "u1", None)
    };
    let kept = vec![
        sized("a_small", 1000),
        sized("b_half", BUDGET / 2),
        sized("c_huge", BUDGET * 2),
        sized("d_small", 1000),
    ];
    let mut index = Index::new(RETENTION, kept.clone());
    index.begin_list();
    for stored in &kept {
        index.see(pod(stored.key.file_form(), "u1"), at(1));
    }
    index.end_list(at(1));
    assert_eq!(decide(&mut index, 1), ["capture a/small", "capture b/half"]);
    let mut end = |key: &str| {
        let of = kept.iter().find(|stored| stored.key == id(key)).unwrap();
        index.captured(&id(key), Captured::Stored(of.clone()), at(1));
        decide(&mut index, 1)
    };
    assert_eq!(end("a_small"), [""; 0], "nothing overtakes the next one");
    assert_eq!(end("b_half"), ["capture c/huge"]);
    assert_eq!(end("c_huge"), ["capture d/small"]);
}

#[test]
fn nothing_is_asked_or_removed_before_a_list_is_complete() {
    let mut index = Index::new(RETENTION, vec![stored("shop_till", "u1", None)]);
    index.begin_list();
    assert_eq!(decide(&mut index, 3600), [""; 0]);
    assert_eq!(index.views().count(), 0);
    index.end_list(at(3600));
    assert_eq!(decide(&mut index, 3600), ["ask shop/till u1"]);
}

#[test]
fn a_pod_that_a_list_or_the_watch_no_longer_has_is_asked_for_until_there_is_an_answer() {
    let mut index = listed(vec![stored("shop_till", "u1", None)]);
    assert_eq!(decide(&mut index, 1), ["ask shop/till u1"]);
    assert_eq!(decide(&mut index, 1), [""; 0]);
    index.answered(&id("shop_till"), "u1", Answer::Unknown, at(2));
    assert_eq!(decide(&mut index, 2), [""; 0], "after a pause");
    assert_eq!(decide(&mut index, 100), ["ask shop/till u1"]);
    index.answered(&id("shop_till"), "u1", Answer::There, at(101));
    assert_eq!(decide(&mut index, 300), ["ask shop/till u1"]);
    assert!(index.report(true).gone.is_empty());
}

#[test]
fn a_pod_that_is_gone_keeps_its_checkpoint_for_the_retention() {
    let mut index = listed(vec![stored("shop_till", "u1", Some("owner"))]);
    index.decide(at(1));
    index.answered(&id("shop_till"), "u1", Answer::Gone, at(2));
    assert_eq!(index.wake(at(2)), Some(at(62)));
    assert_eq!(decide(&mut index, 61), [""; 0]);
    assert_eq!(index.report(true).gone[&id("shop_till")], "u1");
    assert_eq!(decide(&mut index, 62), ["remove shop/till u1"]);
    index.removed(&id("shop_till"), "u1", false, at(62));
    assert_eq!(decide(&mut index, 62), [""; 0], "after a pause");
    assert_eq!(decide(&mut index, 200), ["remove shop/till u1"]);
    index.removed(&id("shop_till"), "u1", true, at(200));
    assert!(index.stored(&id("shop_till")).is_none());
    assert!(
        index.report(true).gone.contains_key(&id("shop_till")),
        "the supervisor is told for a while"
    );
    index.decide(at(2 + 3601));
    assert!(index.report(true).gone.is_empty());
}

#[test]
fn only_a_captured_successor_of_the_same_controller_ends_the_retention() {
    let lost = || stored("shop_till-a", "u1", Some("owner"));
    for (other, ends) in [
        (stored("shop_till-b", "u2", Some("owner")), true),
        (stored("shop_till-b", "u2", Some("another")), false),
        (stored("shop_till-b", "u2", None), false),
    ] {
        let mut index = Index::new(RETENTION, vec![lost()]);
        index.begin_list();
        index.see(pod("shop_till-b", "u2"), at(0));
        index.end_list(at(0));
        index.decide(at(0));
        index.answered(&id("shop_till-a"), "u1", Answer::Gone, at(1));
        assert_eq!(decide(&mut index, 1), [""; 0]);
        index.captured(&id("shop_till-b"), Captured::Stored(other.clone()), at(2));
        assert_eq!(
            decide(&mut index, 2) == ["remove shop/till-a u1"],
            ends,
            "{other:?}"
        );
    }
    // a pod that is gone itself is no successor, and pods without a controller have none
    let mut index = listed(vec![lost(), stored("shop_till-b", "u2", Some("owner"))]);
    index.decide(at(0));
    index.answered(&id("shop_till-a"), "u1", Answer::Gone, at(1));
    index.answered(&id("shop_till-b"), "u2", Answer::Gone, at(1));
    assert_eq!(decide(&mut index, 2), [""; 0]);
}

#[test]
fn a_pod_counts_as_unmarked_only_if_the_watch_reports_its_very_uid() {
    let mut index = listed(Vec::new());
    index.see(pod("shop_till", "u1"), at(1));
    index.decide(at(1));
    index.captured(
        &id("shop_till"),
        Captured::Stored(stored("shop_till", "u1", None)),
        at(1),
    );
    index.see(
        Observed {
            marked: Marked::No,
            ..pod("shop_till", "u1")
        },
        at(2),
    );
    assert_eq!(decide(&mut index, 2), ["remove shop/till u1"]);
    assert_eq!(index.views().count(), 0);

    let mut index = listed(vec![stored("shop_till", "u1", None)]);
    index.see(
        Observed {
            marked: Marked::No,
            ..pod("shop_till", "u2")
        },
        at(2),
    );
    assert_eq!(
        decide(&mut index, 2),
        ["ask shop/till u1"],
        "another pod of that name says nothing of this one"
    );
}

#[test]
fn a_pod_that_is_unmarked_while_it_is_captured_is_removed_when_the_capture_ends() {
    let mut index = listed(Vec::new());
    index.see(pod("shop_till", "u1"), at(1));
    index.decide(at(1));
    index.see(
        Observed {
            marked: Marked::No,
            ..pod("shop_till", "u1")
        },
        at(1),
    );
    assert_eq!(decide(&mut index, 1), [""; 0]);
    index.captured(
        &id("shop_till"),
        Captured::Stored(stored("shop_till", "u1", None)),
        at(2),
    );
    assert_eq!(decide(&mut index, 2), ["remove shop/till u1"]);
}

#[test]
fn a_pod_that_is_deleted_while_it_is_captured_is_asked_for_when_the_capture_ends() {
    let mut index = listed(Vec::new());
    index.see(pod("shop_till", "u1"), at(1));
    index.decide(at(1));
    index.delete(&id("shop_till"), "u1", at(1));
    index.captured(
        &id("shop_till"),
        Captured::Stored(stored("shop_till", "u1", None)),
        at(2),
    );
    assert_eq!(decide(&mut index, 2), ["ask shop/till u1"]);
}

#[test]
fn a_checkpoint_is_not_captured_and_removed_at_the_same_time() {
    let mut index = listed(vec![stored("shop_till", "u1", None)]);
    index.decide(at(0));
    index.answered(&id("shop_till"), "u1", Answer::Gone, at(0));
    index.see(pod("shop_till", "u2"), at(100));
    let first = decide(&mut index, 100);
    assert_eq!(first, ["capture shop/till"]);
    assert_eq!(
        decide(&mut index, 200),
        [""; 0],
        "the removal waits for the capture"
    );
    index.captured(
        &id("shop_till"),
        Captured::Stored(stored("shop_till", "u2", None)),
        at(201),
    );
    assert_eq!(
        decide(&mut index, 300),
        [""; 0],
        "the new pod has taken the place"
    );

    let mut index = listed(vec![stored("shop_till", "u1", None)]);
    index.decide(at(0));
    index.answered(&id("shop_till"), "u1", Answer::Gone, at(0));
    assert_eq!(decide(&mut index, 100), ["remove shop/till u1"]);
    index.see(pod("shop_till", "u2"), at(100));
    assert_eq!(
        decide(&mut index, 100),
        [""; 0],
        "the capture waits for the removal"
    );
    index.removed(&id("shop_till"), "u1", true, at(101));
    assert_eq!(decide(&mut index, 101), ["capture shop/till"]);
}

#[test]
fn a_pod_that_comes_back_into_the_watch_is_not_asked_for() {
    let mut index = listed(vec![stored("shop_till", "u1", None)]);
    assert_eq!(decide(&mut index, 0), ["ask shop/till u1"]);
    index.see(
        Observed {
            ready: false,
            ..pod("shop_till", "u1")
        },
        at(1),
    );
    index.answered(&id("shop_till"), "u1", Answer::Gone, at(1));
    assert_eq!(
        decide(&mut index, 3600),
        [""; 0],
        "the watch is newer than the question"
    );
}

#[test]
fn a_second_list_finds_out_what_was_deleted_meanwhile() {
    let mut index = listed(Vec::new());
    for (key, uid) in [("shop_a", "u1"), ("shop_b", "u2")] {
        index.see(pod(key, uid), at(1));
        index.decide(at(1));
        index.captured(&id(key), Captured::Stored(stored(key, uid, None)), at(1));
    }
    index.begin_list();
    index.see(pod("shop_b", "u2"), at(2));
    assert_eq!(decide(&mut index, 2), [""; 0], "not before its end");
    index.end_list(at(3));
    assert_eq!(decide(&mut index, 3), ["ask shop/a u1"]);
    assert_eq!(
        index
            .views()
            .map(|view| view.key.to_owned())
            .collect::<Vec<_>>(),
        [id("shop_b")]
    );
}

#[test]
fn only_a_fresh_report_calls_a_parent_ready() {
    let mut index = listed(Vec::new());
    index.see(pod("shop_a", "u1"), at(1));
    index.see(
        Observed {
            ready: false,
            ..pod("shop_b", "u2")
        },
        at(1),
    );
    index.see(
        Observed {
            ending: true,
            ..pod("shop_c", "u3")
        },
        at(1),
    );
    assert_eq!(
        index.report(true).ready,
        BTreeMap::from([(id("shop_a"), vec!["container-of-u1".to_owned()])])
    );
    assert!(index.report(false).ready.is_empty());
}

#[test]
fn a_pod_that_may_be_marked_is_neither_captured_nor_unmarked() {
    let undecided = || Observed {
        marked: Marked::Unknown,
        ..pod("shop_till", "u1")
    };
    let mut index = Index::new(RETENTION, vec![stored("shop_till", "u1", None)]);
    index.begin_list();
    index.see(undecided(), at(0));
    index.end_list(at(0));
    assert_eq!(decide(&mut index, 3600), [""; 0]);
    assert!(
        index.is_undecided(&id("shop_till"), "u1") && !index.is_undecided(&id("shop_till"), "u2")
    );
    assert!(!index.is_settled(), "it may have to be captured yet");
    assert_eq!(index.views().count(), 0, "nothing is said of it");
    assert!(index.report(true).marked.is_empty());

    index.see(pod("shop_till", "u1"), at(3601));
    assert_eq!(decide(&mut index, 3601), ["capture shop/till"]);
    index.captured(
        &id("shop_till"),
        Captured::Stored(stored("shop_till", "u1", None)),
        at(3602),
    );
    assert_eq!(index.report(true).marked[&id("shop_till")], "annotation");

    index.see(
        Observed {
            fingerprint: 2,
            ..undecided()
        },
        at(3607),
    );
    assert_eq!(
        decide(&mut index, 3607),
        ["capture shop/till"],
        "what marked it marks it until something else is known"
    );
    assert!(!index.is_undecided(&id("shop_till"), "u1"));
}

#[derive(Clone, Debug)]
enum Step {
    BeginList,
    EndList,
    See {
        key: u8,
        uid: u8,
        mark: u8,
        ready: bool,
        fingerprint: u8,
    },
    Delete {
        key: u8,
        uid: u8,
    },
    Swap {
        key: u8,
    },
    Finish {
        which: u8,
        how: u8,
    },
    Pass {
        seconds: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::BeginList),
        Just(Step::EndList),
        (0..3u8, 0..3u8, 0..3u8, any::<bool>(), 0..3u8).prop_map(
            |(key, uid, mark, ready, fingerprint)| Step::See {
                key,
                uid,
                mark,
                ready,
                fingerprint
            }
        ),
        (0..3u8, 0..3u8).prop_map(|(key, uid)| Step::Delete { key, uid }),
        (0..3u8).prop_map(|key| Step::Swap { key }),
        (any::<u8>(), 0..4u8).prop_map(|(which, how)| Step::Finish { which, how }),
        any::<u8>().prop_map(|seconds| Step::Pass { seconds }),
    ]
}

proptest! {
    /// Whatever happens in whatever order: a checkpoint is removed only if the API server reported
    /// exactly this pod as gone, or the watch reported it without a mark; and only one thing is
    /// done for a pod at a time.
    #[test]
    fn nothing_is_removed_without_a_word_for_its_uid(steps in proptest::collection::vec(step(), 1..80)) {
        let (key, uid) = (|key: u8| format!("shop_{key}"), |key: u8, uid: u8| format!("uid-{key}-{uid}"));
        let mut index = Index::new(RETENTION, vec![stored(&key(0), &uid(0, 0), Some("owner")), stored(&key(1), &uid(1, 0), None)]);
        let mut proven = std::collections::BTreeSet::new();
        let mut running: Vec<(Action, String)> = Vec::new();
        let mut now = Duration::ZERO;
        for step in steps {
            match step {
                Step::BeginList => index.begin_list(),
                Step::EndList => index.end_list(now),
                Step::See { key: k, uid: u, mark, ready, fingerprint } => {
                    let marked = [marked(), Marked::No, Marked::Unknown][usize::from(mark)].clone();
                    let unmarked = marked == Marked::No;
                    let observed = Observed { marked, ready, fingerprint: fingerprint.into(), ..pod(&key(k), &uid(k, u)) };
                    if unmarked {
                        proven.insert(uid(k, u));
                    }
                    index.see(observed, now);
                }
                Step::Delete { key: k, uid: u } => index.delete(&id(&key(k)), &uid(k, u), now),
                Step::Swap { key: k } => index.swapped(&id(&key(k))),
                Step::Pass { seconds } => now += Duration::from_secs(seconds.into()),
                Step::Finish { which, how } if !running.is_empty() => {
                    let (action, captured_uid) = running.remove(usize::from(which) % running.len());
                    match (action, how) {
                        (Action::Capture { key, .. }, 0 | 1) => {
                            index.captured(&key, Captured::Stored(stored(key.file_form(), &captured_uid, Some("owner"))), now);
                        }
                        (Action::Capture { key, .. }, 2) => index.captured(&key, Captured::Refused(Vec::new()), now),
                        (Action::Capture { key, .. }, _) => {
                            index.captured(&key, Captured::Failed { reason: "CaptureFailed", message: String::new() }, now);
                        }
                        (Action::Ask { key, uid }, 0 | 1) => {
                            proven.insert(uid.clone());
                            index.answered(&key, &uid, Answer::Gone, now);
                        }
                        (Action::Ask { key, uid }, 2) => index.answered(&key, &uid, Answer::There, now),
                        (Action::Ask { key, uid }, _) => index.answered(&key, &uid, Answer::Unknown, now),
                        (Action::Remove { key, uid }, how) => index.removed(&key, &uid, how < 3, now),
                    }
                }
                Step::Finish { .. } => {}
            }
            for action in index.decide(now) {
                let (key, captured_uid) = match &action {
                    Action::Capture { key, .. } => (key.clone(), index.running[key].uid.clone()),
                    Action::Ask { key, .. } => (key.clone(), String::new()),
                    Action::Remove { key, uid } => {
                        prop_assert!(proven.contains(uid), "{uid} was removed");
                        (key.clone(), String::new())
                    }
                };
                let writes = |action: &Action| !matches!(action, Action::Ask { .. });
                let of_key = |other: &Action| match other {
                    Action::Capture { key: other, .. } | Action::Ask { key: other, .. } | Action::Remove { key: other, .. } => *other == key,
                };
                let clash = writes(&action) && running.iter().any(|(other, _)| writes(other) && of_key(other));
                prop_assert!(!clash, "two at once: {action:?}");
                running.push((action, captured_uid));
            }
            prop_assert!(index.wake(now).is_none_or(|due| due > now), "a timer in the past spins");
        }
    }
}

#[test]
fn what_pods_take_is_known_once_a_list_was_complete_and_follows_changes() {
    let takes = |key: &str, cpu: u64| {
        let requests = crate::pod::room::Amounts {
            cpu,
            pods: 1,
            ..crate::pod::room::Amounts::default()
        };
        Observed {
            marked: Marked::No,
            demand: Some(Demand {
                requests,
                ports: Vec::new(),
            }),
            ..pod(key, key)
        }
    };
    let mut index = Index::new(Duration::ZERO, Vec::new());
    index.begin_list();
    index.see(takes("shop_a", 100), at(0));
    index.see(takes("shop_b", 10), at(0));
    assert_eq!(index.taken(), None, "the rest is not known yet");
    index.end_list(at(0));
    let cpu = |index: &Index| index.taken().unwrap().requests.cpu;
    assert_eq!(cpu(&index), 110);
    index.see(
        Observed {
            demand: None,
            ..takes("shop_b", 0)
        },
        at(1),
    );
    assert_eq!(cpu(&index), 100, "it has ended");
    index.delete(&id("shop_a"), "another", at(2));
    assert_eq!(cpu(&index), 100);
    index.delete(&id("shop_a"), "shop_a", at(2));
    assert_eq!(cpu(&index), 0);
    index.see(takes("shop_c", 7), at(3));
    index.begin_list();
    index.end_list(at(4));
    assert_eq!(cpu(&index), 0, "the list did not name it");
}

#[test]
fn a_rejected_pod_is_reported_while_the_store_has_it_and_its_owner_has_not_deleted_it() {
    let stored = Stored {
        key: id("shop_till"),
        uid: "u1".into(),
        generation: 1,
        ..Stored::unread(id("shop_till"))
    };
    let mut index = Index::new(Duration::ZERO, vec![stored]);
    let rejected = |index: &Index| {
        index
            .rejected()
            .map(|(key, uid)| format!("{} {uid}", key.file_form()))
            .collect::<Vec<_>>()
    };
    index.see(
        Observed {
            rejected: true,
            ready: false,
            ..pod("shop_till", "u1")
        },
        at(0),
    );
    index.see(
        Observed {
            rejected: true,
            ready: false,
            ..pod("shop_new", "u2")
        },
        at(0),
    );
    assert_eq!(rejected(&index), ["shop_till u1"]);
    index.see(
        Observed {
            rejected: true,
            ready: false,
            ending: true,
            ..pod("shop_till", "u1")
        },
        at(1),
    );
    assert!(rejected(&index).is_empty());
}

#[test]
fn pods_that_run_the_network_lack_a_checkpoint_only_while_others_that_have_one_need_it() {
    let named = |support, name: &str| Some((support, format!("kube-system/{name}")));
    let plugin = Observed {
        marked: Marked::No,
        support: named(Support::Plugin, "cni"),
        ..pod("kube-system_cni", "u-cni")
    };
    let dns = Observed {
        marked: Marked::No,
        support: named(Support::Names, "dns"),
        ..pod("kube-system_dns", "u-dns")
    };
    let till = Observed {
        needs: Needs {
            plugin: true,
            names: false,
        },
        ..pod("shop_till", "u-till")
    };
    let mut index = listed(vec![stored("shop_till", "u-till", None)]);
    index.see(plugin.clone(), at(1));
    index.see(dns.clone(), at(1));
    assert!(
        index.lacking().is_empty(),
        "the pod that has a checkpoint is not there yet"
    );
    index.see(till.clone(), at(2));
    assert_eq!(
        index.lacking(),
        [(Support::Plugin, "kube-system/cni")].into(),
        "nobody needs names"
    );
    index.see(
        Observed {
            needs: Needs {
                plugin: false,
                names: true,
            },
            ..till.clone()
        },
        at(3),
    );
    assert_eq!(
        index.lacking(),
        [(Support::Names, "kube-system/dns")].into()
    );
    index.see(
        Observed {
            marked: marked(),
            ..dns.clone()
        },
        at(4),
    );
    assert!(index.lacking().is_empty(), "it may be captured in a moment");
    index.see(
        Observed {
            demand: None,
            ..dns
        },
        at(4),
    );
    assert!(
        index.lacking().is_empty(),
        "a static pod, or one that has ended"
    );
    index.see(till, at(5));
    index.delete(&id("kube-system_cni"), "u-cni", at(6));
    assert!(index.lacking().is_empty());
    let mut captured = listed(vec![
        stored("kube-system_cni", "u-cni", None),
        stored("shop_till", "u-till", None),
    ]);
    captured.see(
        Observed {
            marked: marked(),
            ..plugin
        },
        at(1),
    );
    captured.see(
        Observed {
            needs: Needs {
                plugin: true,
                names: true,
            },
            ..pod("shop_till", "u-till")
        },
        at(1),
    );
    assert!(captured.lacking().is_empty(), "it has one");
}
