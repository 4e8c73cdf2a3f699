//! Each row of the decision by name, then every state with every combination of facts.

use std::io::Write as _;

use super::*;
use crate::pod::id::id;
use crate::supervisor::core::facts::Seen;

const SECOND: Duration = Duration::from_secs(1);
const NOW: Duration = Duration::from_secs(1000);

fn before(ago: Duration) -> Duration {
    NOW.saturating_sub(ago)
}

fn settings() -> Settings {
    Settings {
        activation_delay: SECOND * 3,
        unstick: true,
        activate_locked_out: None,
    }
}

/// Contact as in the facts.
#[allow(clippy::unnecessary_wraps)]
fn contact(class: Class, ago: u64) -> Option<Contact> {
    let failures = if class == Class::Answering { 0 } else { 3 };
    let since = before(Duration::from_secs(ago));
    Some(Contact {
        class,
        since,
        alike: since,
        failures,
        by_time_out: true,
    })
}

fn gone() -> PodFacts {
    PodFacts::gone()
}

fn facts(contact: Option<Contact>, pod: PodFacts) -> Facts {
    Facts {
        now: NOW,
        contact,
        kubelet: Kubelet::Up,
        kubelet_pid: Some(1),
        kubelet_connected: Seen::No,
        pods: BTreeMap::from([(id("shop_till"), pod)]),
        agent_silence: Some(Duration::ZERO),
        agent_retires: false,
        kubelet_synced: Seen::No,
        kubelet_makes_containers: Seen::No,
    }
}

fn state(phase: Phase) -> State {
    State {
        pods: BTreeMap::from([(
            id("shop_till"),
            Pod {
                phase,
                ..Pod::default()
            },
        )]),
        ..State::default()
    }
}

fn active(ago: Duration) -> Phase {
    Phase::Active {
        linked: before(ago),
        under: Class::Silent,
        nudged: None,
        refused: 0,
    }
}

fn released(ago: u64) -> Phase {
    Phase::Released {
        since: before(Duration::from_secs(ago)),
        stopping: None,
    }
}

fn actions(phase: Phase, facts: &Facts) -> Vec<Action> {
    decide(&state(phase), facts, &settings()).1
}

fn key() -> Key {
    id("shop_till")
}

#[test]
fn silence_for_the_activation_delay_activates_what_does_not_run() {
    assert_eq!(
        actions(Phase::Inactive, &facts(contact(Class::Silent, 3), gone())),
        [Action::Activate(key())]
    );
    assert!(
        actions(Phase::Inactive, &facts(contact(Class::Silent, 2), gone())).is_empty(),
        "too early"
    );
}

#[test]
fn a_server_that_answers_5xx_may_be_starting_and_gets_ten_seconds() {
    assert_eq!(
        actions(Phase::Inactive, &facts(contact(Class::Failing, 10), gone())),
        [Action::Activate(key())]
    );
    let mut seen = facts(contact(Class::Failing, 600), gone());
    seen.contact.as_mut().unwrap().alike = before(SECOND * 9);
    assert!(
        actions(Phase::Inactive, &seen).is_empty(),
        "silent for minutes, and now it starts"
    );
}

#[test]
fn a_released_twin_is_not_linked_again_while_the_api_server_starts() {
    let starting = facts(
        contact(Class::Failing, 59),
        serving(Handover::Overlap, false),
    );
    let none = Settings {
        activation_delay: Duration::ZERO,
        unstick: true,
        activate_locked_out: None,
    };
    assert!(decide(&state(released(900)), &starting, &none).1.is_empty());
    let silent = facts(contact(Class::Silent, 4), serving(Handover::Overlap, false));
    assert!(decide(&state(released(900)), &silent, &none).1.is_empty());
}

#[test]
fn a_released_twin_that_never_ran_gets_no_more_than_ten_seconds_of_5xx() {
    let ended = PodFacts {
        twin: Run::Stopped,
        ..gone()
    };
    assert!(actions(released(900), &facts(contact(Class::Failing, 9), ended)).is_empty());
    assert_eq!(
        actions(released(900), &facts(contact(Class::Failing, 10), ended)),
        [Action::Relink(key())]
    );
    assert!(
        actions(released(9), &facts(contact(Class::Failing, 900), ended)).is_empty(),
        "since it was released"
    );
}

#[test]
fn a_released_twin_is_not_linked_again_while_the_kubelet_receives_answers_that_probes_do_not() {
    let mut slow = facts(
        contact(Class::Silent, 59),
        serving(Handover::Overlap, false),
    );
    slow.kubelet_connected = Seen::Yes;
    assert!(actions(released(900), &slow).is_empty());
    // a server that finishes TLS and then sends nothing keeps such a connection open for ever
    slow.contact = contact(Class::Silent, 60);
    assert_eq!(actions(released(900), &slow), [Action::Relink(key())]);
    slow.pods.insert(key(), gone());
    assert_eq!(actions(Phase::Inactive, &slow), [Action::Activate(key())]);
    slow.contact = contact(Class::Silent, 59);
    assert!(
        actions(Phase::Inactive, &slow).is_empty(),
        "nor is anything else linked meanwhile"
    );
}

#[test]
fn two_failed_probes_are_not_silence_whatever_the_delay() {
    let mut seen = facts(contact(Class::Silent, 100), gone());
    seen.contact.as_mut().unwrap().failures = 2;
    let none = Settings {
        activation_delay: Duration::ZERO,
        unstick: true,
        activate_locked_out: None,
    };
    assert!(decide(&state(Phase::Inactive), &seen, &none).1.is_empty());
    seen.contact.as_mut().unwrap().failures = 3;
    assert_eq!(
        decide(&state(Phase::Inactive), &seen, &none).1,
        [Action::Activate(key())]
    );
}

#[test]
fn a_server_that_cannot_be_proven_activates_only_after_a_minute() {
    assert!(
        actions(
            Phase::Inactive,
            &facts(contact(Class::Unproven, 59), gone())
        )
        .is_empty()
    );
    assert_eq!(
        actions(
            Phase::Inactive,
            &facts(contact(Class::Unproven, 60), gone())
        ),
        [Action::Activate(key())]
    );
}

#[test]
fn what_the_kubelet_owns_is_never_activated() {
    let seen = facts(
        contact(Class::Silent, 9999),
        PodFacts {
            parent_owned: Seen::Yes,
            ..gone()
        },
    );
    assert!(actions(Phase::Inactive, &seen).is_empty());
}

#[test]
fn a_parent_that_runs_without_the_kubelet_is_left_alone() {
    let seen = facts(
        contact(Class::Silent, 9999),
        PodFacts {
            parent: Run::Running,
            ..gone()
        },
    );
    assert!(actions(Phase::Inactive, &seen).is_empty());
}

#[test]
fn what_is_left_of_a_parent_is_stopped_after_ten_seconds_and_then_its_twin_takes_over() {
    let mut seen = facts(
        contact(Class::Silent, 100),
        PodFacts {
            parent: Run::Partial,
            ..gone()
        },
    );
    let (after, first) = decide(&state(Phase::Inactive), &seen, &settings());
    assert!(first.is_empty());
    seen.now += PARTIAL;
    let (after, second) = decide(&after, &seen, &settings());
    assert_eq!(second, [Action::StopParent(key())]);
    seen.now += SECOND;
    let (after, third) = decide(&after, &seen, &settings());
    assert!(third.is_empty(), "the grace period may take its time");
    seen.pods.get_mut(&id("shop_till")).unwrap().parent = Run::Stopped;
    assert_eq!(
        decide(&after, &seen, &settings()).1,
        [Action::Activate(key())]
    );
}

#[test]
fn lower_start_groups_go_first_and_have_a_minute() {
    let mut seen = facts(
        contact(Class::Silent, 5),
        PodFacts {
            start_group: 20,
            ..gone()
        },
    );
    seen.pods.insert(
        id("kube-system_cni"),
        PodFacts {
            start_group: 10,
            ..gone()
        },
    );
    let (after, first) = decide(&State::default(), &seen, &settings());
    assert_eq!(first, [Action::Activate(id("kube-system_cni"))]);
    seen.now += SECOND * 59;
    let (after, second) = decide(&after, &seen, &settings());
    assert!(!second.contains(&Action::Activate(key())), "{second:?}");
    seen.now += SECOND;
    let (after, third) = decide(&after, &seen, &settings());
    assert!(third.contains(&Action::Activate(key())), "{third:?}");
    seen.now += SECOND;
    let (_, fourth) = decide(&after, &seen, &settings());
    assert!(!fourth.contains(&Action::Activate(key())), "{fourth:?}");
}

#[test]
fn all_start_groups_together_have_three_minutes() {
    let mut seen = facts(
        contact(Class::Silent, 5),
        PodFacts {
            start_group: 50,
            ..gone()
        },
    );
    for group in -10..0 {
        seen.pods.insert(
            id(&format!("kube-system_stuck{}", -group)),
            PodFacts {
                start_group: group,
                ..gone()
            },
        );
    }
    let (mut after, began) = (State::default(), seen.now);
    loop {
        let (next, actions) = decide(&after, &seen, &settings());
        after = next;
        if actions.contains(&Action::Activate(key())) {
            break;
        }
        seen.now += SECOND;
        assert!(seen.now <= began + GROUPS_LIMIT, "it waits for all of them");
    }
    assert!(seen.now > began + GROUP_LIMIT, "it waits for the first");
}

#[test]
fn the_next_group_starts_when_the_lower_one_runs_or_is_blocked() {
    let mut seen = facts(
        contact(Class::Silent, 5),
        PodFacts {
            start_group: 20,
            ..gone()
        },
    );
    seen.pods.insert(
        id("kube-system_cni"),
        PodFacts {
            start_group: 10,
            ..gone()
        },
    );
    let (after, _) = decide(&State::default(), &seen, &settings());
    let mut ran = seen.clone();
    let cni = ran.pods.get_mut(&id("kube-system_cni")).unwrap();
    (cni.twin, cni.twin_sandbox, cni.twin_owned) = (Run::Running, Seen::Yes, Seen::Yes);
    assert_eq!(
        decide(&after, &ran, &settings()).1,
        [Action::Activate(key())]
    );
    let mut blocked = after.clone();
    blocked.blocked(
        &id("kube-system_cni"),
        NOW,
        Blocked::ImageAbsent,
        "cni:1".into(),
    );
    assert_eq!(
        decide(&blocked, &seen, &settings()).1,
        [Action::Activate(key())]
    );
}

#[test]
fn a_blocked_checkpoint_is_retried_with_growing_pauses() {
    let mut seen = facts(contact(Class::Silent, 5), gone());
    let mut now = state(Phase::Inactive);
    let mut pauses = Vec::new();
    for _ in 0..9 {
        now.blocked(&id("shop_till"), seen.now, Blocked::Damaged, "both".into());
        let again = now.pods[&id("shop_till")].blocked.as_ref().unwrap().again;
        assert!(decide(&now, &seen, &settings()).1.is_empty());
        pauses.push(again.saturating_sub(seen.now).as_secs());
        seen.now = again;
        now = decide(&now, &seen, &settings()).0;
        assert!(matches!(
            now.pods[&id("shop_till")].phase,
            Phase::Active { .. }
        ));
    }
    assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 300]);
}

#[test]
fn the_first_answer_of_any_kind_releases() {
    for class in [Class::Answering, Class::Failing] {
        assert_eq!(
            actions(active(SECOND), &facts(contact(class, 0), gone())),
            [Action::Release(key())],
            "{class:?}"
        );
    }
}

#[test]
fn contact_alone_causes_a_release_and_nothing_else() {
    let blind = |contact| Facts {
        now: NOW,
        contact,
        ..Facts::default()
    };
    let (after, actions) = release(&state(active(SECOND)), &blind(contact(Class::Answering, 0)));
    assert_eq!(actions, [Action::Release(key())]);
    assert!(matches!(
        after.pods[&id("shop_till")].phase,
        Phase::Released { .. }
    ));
    for silent in [None, contact(Class::Silent, 900)] {
        let before = state(active(SECOND));
        assert_eq!(release(&before, &blind(silent)), (before, Vec::new()));
    }
}

#[test]
fn the_kubelets_own_connection_releases_before_any_answer() {
    let mut seen = facts(contact(Class::Silent, 9), gone());
    seen.kubelet_connected = Seen::Yes;
    assert_eq!(actions(active(SECOND), &seen), [Action::Release(key())]);
}

#[test]
fn bytes_from_a_server_that_cannot_be_proven_release_nothing() {
    let mut seen = facts(contact(Class::Unproven, 9), gone());
    seen.kubelet_connected = Seen::Yes;
    assert!(!actions(active(SECOND), &seen).contains(&Action::Release(key())));
}

#[test]
fn a_twin_activated_under_5xx_is_not_released_by_another_5xx() {
    let phase = Phase::Active {
        linked: NOW,
        under: Class::Failing,
        nudged: None,
        refused: 0,
    };
    assert!(actions(phase.clone(), &facts(contact(Class::Failing, 9), gone())).is_empty());
    assert_eq!(
        actions(phase, &facts(contact(Class::Answering, 0), gone())),
        [Action::Release(key())]
    );
}

#[test]
fn a_parent_that_the_kubelet_owns_releases_whatever_contact_says() {
    let seen = facts(
        contact(Class::Silent, 9),
        PodFacts {
            parent_owned: Seen::Yes,
            ..gone()
        },
    );
    assert_eq!(actions(active(SECOND), &seen), [Action::Release(key())]);
}

#[test]
fn the_kubelets_waiting_connections_are_closed_when_a_twin_has_no_sandbox() {
    let waits = PodFacts {
        twin_owned: Seen::Yes,
        ..gone()
    };
    let black = facts(contact(Class::Silent, 9), waits);
    assert_eq!(actions(active(UNSTICK_AFTER), &black), [Action::Unstick]);
    assert!(
        actions(active(UNSTICK_AFTER / 2), &black).is_empty(),
        "too early"
    );
    assert!(
        !actions(active(UNSTICK_LIMIT), &black).contains(&Action::Unstick),
        "too long"
    );
    let runs = facts(
        contact(Class::Silent, 9),
        PodFacts {
            twin_sandbox: Seen::Yes,
            ..waits
        },
    );
    assert!(actions(active(SECOND), &runs).is_empty());
    let mut refused = black.clone();
    refused.contact.as_mut().unwrap().by_time_out = false;
    assert!(
        actions(active(SECOND), &refused).is_empty(),
        "refused connections hold nobody up"
    );
    let failing = Phase::Active {
        linked: before(SECOND),
        under: Class::Failing,
        nudged: None,
        refused: 0,
    };
    let hangs = facts(contact(Class::Failing, 9), waits);
    assert_eq!(
        actions(failing, &hangs),
        [Action::Unstick],
        "a hung etcd: 500 of itself, and silence to the kubelet"
    );
    let off = Settings {
        unstick: false,
        ..settings()
    };
    assert!(decide(&state(active(SECOND)), &black, &off).1.is_empty());
}

#[test]
fn a_twin_that_the_kubelet_does_not_list_is_linked_again() {
    let mut seen = facts(contact(Class::Silent, 9), gone());
    seen.contact.as_mut().unwrap().by_time_out = false;
    assert_eq!(actions(active(NUDGE_AFTER), &seen), [Action::Nudge(key())]);
    let (after, _) = decide(&state(active(NUDGE_AFTER)), &seen, &settings());
    assert!(decide(&after, &seen, &settings()).1.is_empty());
    seen.now += NUDGE_AFTER * 5;
    assert_eq!(decide(&after, &seen, &settings()).1, [Action::Nudge(key())]);
}

#[test]
fn a_twin_that_the_kubelet_rejected_gets_a_new_uid_and_is_reported_as_refused() {
    let seen = facts(contact(Class::Silent, 60), gone());
    let (after, first) = decide(&state(active(RENEW_AFTER)), &seen, &settings());
    assert_eq!(first, [Action::Renew(key())]);
    let mut later = seen;
    later.now += RENEW_AFTER;
    let (after, second) = decide(&after, &later, &settings());
    assert!(second.contains(&Action::Renew(key())));
    assert_eq!(
        after.pods[&id("shop_till")]
            .blocked
            .as_ref()
            .unwrap()
            .reason,
        Blocked::KubeletRefuses
    );
}

#[test]
fn a_twin_that_the_kubelet_lists_keeps_its_uid_however_long_it_takes() {
    let seen = facts(
        contact(Class::Silent, 60),
        PodFacts {
            twin_owned: Seen::Yes,
            ..gone()
        },
    );
    for times in [1, 3, 100] {
        assert!(
            actions(active(RENEW_AFTER * times), &seen)
                .iter()
                .all(|action| *action != Action::Renew(key()))
        );
    }
}

fn serving(handover: Handover, host_network: bool) -> PodFacts {
    PodFacts {
        twin: Run::Running,
        twin_sandbox: Seen::Yes,
        handover: Some(handover),
        host_network,
        ..gone()
    }
}

#[test]
fn switch_on_the_host_network_waits_for_the_parents_container() {
    let owned = PodFacts {
        parent_owned: Seen::Yes,
        ..serving(Handover::Switch, true)
    };
    assert!(actions(released(1), &facts(contact(Class::Answering, 1), owned)).is_empty());
    let made = PodFacts {
        parent_container: Seen::Yes,
        ..owned
    };
    assert_eq!(
        actions(released(1), &facts(contact(Class::Answering, 1), made)),
        [Action::StopTwin(key())]
    );
}

#[test]
fn a_twin_that_blocks_its_parent_is_stopped_without_further_grace() {
    let told = |ago| Phase::Released {
        since: before(SECOND),
        stopping: Some(before(ago)),
    };
    let sandbox = PodFacts {
        parent_owned: Seen::Yes,
        parent_sandbox: Seen::Yes,
        ..serving(Handover::Switch, true)
    };
    let with = |pod| facts(contact(Class::Answering, 1), pod);
    assert!(
        actions(told(LEAST_GRACE), &with(sandbox)).is_empty(),
        "nothing of the parent starts yet"
    );
    let container = PodFacts {
        parent_container: Seen::Yes,
        ..sandbox
    };
    assert!(
        actions(told(LEAST_GRACE / 2), &with(container)).is_empty(),
        "it was told this moment"
    );
    let (after, ended) = decide(&state(told(LEAST_GRACE)), &with(container), &settings());
    assert_eq!(ended, [Action::EndTwin(key())]);
    assert!(
        decide(&after, &with(container), &settings()).1.is_empty(),
        "once"
    );
    let own_address = PodFacts {
        host_network: false,
        ..container
    };
    assert!(
        actions(told(SECOND), &with(own_address)).is_empty(),
        "it holds nothing that the parent needs"
    );
    let overlap = PodFacts {
        handover: Some(Handover::Overlap),
        ..container
    };
    assert!(actions(told(SECOND), &with(overlap)).is_empty());
}

#[test]
fn switch_on_the_host_network_needs_only_the_sandbox_once_the_kubelet_creates_containers() {
    let sandbox = PodFacts {
        parent_owned: Seen::Yes,
        parent_sandbox: Seen::Yes,
        ..serving(Handover::Switch, true)
    };
    let mut seen = facts(contact(Class::Answering, 1), sandbox);
    for unknown in [Seen::No, Seen::Unknown] {
        seen.kubelet_makes_containers = unknown;
        assert!(
            actions(released(1), &seen).is_empty(),
            "the twin may be the API server that the services come from"
        );
    }
    seen.kubelet_makes_containers = Seen::Yes;
    assert_eq!(actions(released(1), &seen), [Action::StopTwin(key())]);
    let slow = PodFacts {
        slow_start: true,
        ..sandbox
    };
    assert!(
        actions(
            released(1),
            &Facts {
                pods: BTreeMap::from([(key(), slow)]),
                ..seen.clone()
            }
        )
        .is_empty()
    );
    let nothing = PodFacts {
        parent_sandbox: Seen::No,
        ..sandbox
    };
    assert!(
        actions(
            released(1),
            &Facts {
                pods: BTreeMap::from([(key(), nothing)]),
                ..seen
            }
        )
        .is_empty()
    );
}

#[test]
fn switch_for_a_host_port_stops_when_the_kubelet_owns_the_parent() {
    let waits = serving(Handover::Switch, false);
    assert!(actions(released(1), &facts(contact(Class::Answering, 1), waits)).is_empty());
    let owned = PodFacts {
        parent_owned: Seen::Yes,
        ..waits
    };
    assert_eq!(
        actions(released(1), &facts(contact(Class::Answering, 1), owned)),
        [Action::StopTwin(key())]
    );
}

#[test]
fn overlap_lasts_until_the_parent_is_ready_or_ran_for_ten_seconds_or_the_sleep_is_over() {
    let starts = PodFacts {
        parent_owned: Seen::Yes,
        parent: Run::Running,
        ..serving(Handover::Overlap, false)
    };
    let mut seen = facts(contact(Class::Answering, 1), starts);
    let (after, first) = decide(&state(released(1)), &seen, &settings());
    assert!(first.is_empty());
    seen.now += TAKEN_OVER;
    assert_eq!(
        decide(&after, &seen, &settings()).1,
        [Action::StopTwin(key())]
    );
    let ready = PodFacts {
        parent_ready: Seen::Yes,
        ..starts
    };
    assert_eq!(
        actions(released(1), &facts(contact(Class::Answering, 1), ready)),
        [Action::StopTwin(key())]
    );
    let slow = PodFacts {
        parent: Run::Partial,
        ..starts
    };
    assert!(actions(released(119), &facts(contact(Class::Answering, 119), slow)).is_empty());
    assert_eq!(
        actions(released(120), &facts(contact(Class::Answering, 120), slow)),
        [Action::StopTwin(key())]
    );
}

#[test]
fn the_twin_of_a_parent_that_is_gone_ends_at_once() {
    let seen = PodFacts {
        parent_gone: true,
        ..serving(Handover::Overlap, false)
    };
    assert_eq!(
        actions(released(1), &facts(contact(Class::Answering, 1), seen)),
        [Action::StopTwin(key())]
    );
}

#[test]
fn a_twin_whose_parent_is_gone_is_not_linked_again_when_contact_is_lost_again() {
    let seen = facts(
        contact(Class::Silent, 900),
        PodFacts {
            parent_gone: true,
            ..serving(Handover::Overlap, false)
        },
    );
    let gone = PodFacts {
        parent: Run::Stopped,
        parent_owned: Seen::No,
        ..seen.pods[&id("shop_till")]
    };
    assert_eq!(
        actions(released(900), &facts(seen.contact, gone)),
        [Action::StopTwin(key())]
    );
}

#[test]
fn a_twin_is_asked_to_stop_once_and_then_its_files_go() {
    let ready = PodFacts {
        parent_ready: Seen::Yes,
        parent_owned: Seen::Yes,
        ..serving(Handover::Overlap, false)
    };
    let mut seen = facts(contact(Class::Answering, 1), ready);
    let (after, first) = decide(&state(released(1)), &seen, &settings());
    assert_eq!(first, [Action::StopTwin(key())]);
    let (after, second) = decide(&after, &seen, &settings());
    assert!(second.is_empty());
    let pod = seen.pods.get_mut(&id("shop_till")).unwrap();
    (pod.twin, pod.twin_sandbox) = (Run::Stopped, Seen::No);
    let (after, third) = decide(&after, &seen, &settings());
    assert_eq!(third, [Action::Forget(key())]);
    assert_eq!(after.pods[&id("shop_till")].phase, Phase::Inactive);
}

#[test]
fn files_of_a_twin_that_the_kubelet_may_be_creating_are_kept_for_a_while() {
    let none = |ago, kubelet_synced| {
        let seen = Facts {
            kubelet_synced,
            ..facts(contact(Class::Answering, ago), gone())
        };
        actions(released(ago), &seen)
    };
    let synced = Seen::Yes;
    assert!(
        none(4, synced).is_empty(),
        "released in the moment after its link"
    );
    assert_eq!(none(5, synced), [Action::Forget(key())]);
    assert!(
        none(500, Seen::No).is_empty(),
        "only this UID would start if contact were lost again"
    );
    let appeared = PodFacts {
        parent_owned: Seen::Yes,
        ..serving(Handover::Switch, false)
    };
    assert_eq!(
        actions(released(1), &facts(contact(Class::Answering, 1), appeared)),
        [Action::StopTwin(key())]
    );
}

#[test]
fn a_twin_is_linked_again_when_contact_is_lost_again_and_each_round_waits_twice_as_long() {
    let mut waits = Vec::new();
    let mut now = state(released(1000));
    for _ in 0..9 {
        let patience = (0..2000).find(|ago| {
            let seen = facts(
                contact(Class::Silent, *ago),
                serving(Handover::Overlap, false),
            );
            !decide(&now, &seen, &settings()).1.is_empty()
        });
        waits.push(patience.unwrap());
        let seen = facts(
            contact(Class::Silent, patience.unwrap()),
            serving(Handover::Overlap, false),
        );
        let (after, taken) = decide(&now, &seen, &settings());
        assert_eq!(taken, [Action::Relink(key())]);
        now = after;
        now.pods.get_mut(&id("shop_till")).unwrap().phase = released(1000);
    }
    assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
}

#[test]
fn a_twin_that_ended_or_was_asked_to_stop_comes_back_under_a_new_uid() {
    let mut ended = facts(contact(Class::Silent, 500), gone());
    ended.kubelet_synced = Seen::Yes;
    assert_eq!(actions(released(1000), &ended), [Action::Renew(key())]);
    ended.kubelet_synced = Seen::No;
    assert_eq!(
        actions(released(1000), &ended),
        [Action::Relink(key())],
        "a new UID would wait behind the old one"
    );
    let told = Phase::Released {
        since: Duration::ZERO,
        stopping: Some(NOW),
    };
    let seen = facts(
        contact(Class::Silent, 500),
        serving(Handover::Overlap, false),
    );
    assert_eq!(actions(told, &seen), [Action::Renew(key())]);
}

fn held(ago: Duration) -> Phase {
    Phase::Active {
        linked: before(ago),
        under: Class::Answering,
        nudged: None,
        refused: 0,
    }
}

#[test]
fn a_parent_that_the_kubelet_refused_at_its_return_gets_its_twin_back() {
    let rejected = PodFacts {
        parent_rejected: Seen::Yes,
        ..gone()
    };
    let mut seen = facts(contact(Class::Answering, 9), rejected);
    seen.kubelet_synced = Seen::Yes;
    assert_eq!(actions(Phase::Inactive, &seen), [Action::Activate(key())]);
    assert_eq!(actions(released(1), &seen), [Action::Renew(key())]);
    let serves = PodFacts {
        twin: Run::Running,
        twin_sandbox: Seen::Yes,
        twin_owned: Seen::Yes,
        ..rejected
    };
    let with = |pod| Facts {
        pods: BTreeMap::from([(key(), pod)]),
        ..seen.clone()
    };
    assert_eq!(actions(released(1), &with(serves)), [Action::Relink(key())]);
    assert!(
        actions(held(SECOND), &with(serves)).is_empty(),
        "the API server's answers end nothing"
    );
    let listed = PodFacts {
        parent_owned: Seen::Yes,
        ..rejected
    };
    assert_eq!(
        actions(Phase::Inactive, &with(listed)),
        [Action::Activate(key())],
        "older kubelets list it for good"
    );
    for unknown in [Seen::No, Seen::Unknown] {
        assert!(
            actions(
                Phase::Inactive,
                &with(PodFacts {
                    parent_rejected: unknown,
                    ..gone()
                })
            )
            .is_empty()
        );
    }
    assert!(
        actions(
            Phase::Inactive,
            &Facts {
                kubelet: Kubelet::Unknown,
                ..seen.clone()
            }
        )
        .is_empty()
    );
    assert!(
        actions(
            Phase::Inactive,
            &Facts {
                agent_silence: None,
                ..seen
            }
        )
        .is_empty(),
        "no agent has reported"
    );
}

#[test]
fn the_twin_of_a_refused_parent_ends_when_its_owner_has_replaced_it() {
    let serves = PodFacts {
        twin: Run::Running,
        twin_sandbox: Seen::Yes,
        twin_owned: Seen::Yes,
        ..gone()
    };
    let mut seen = facts(contact(Class::Answering, 9), serves);
    seen.kubelet_synced = Seen::Yes;
    assert_eq!(actions(held(SECOND), &seen), [Action::Release(key())]);
    seen.pods.insert(
        key(),
        PodFacts {
            parent_rejected: Seen::Unknown,
            ..serves
        },
    );
    assert!(
        actions(held(SECOND), &seen).is_empty(),
        "the agent's report cannot be read"
    );
    seen.kubelet = Kubelet::Unknown;
    seen.kubelet_synced = Seen::Unknown;
    seen.pods.insert(key(), serves);
    assert!(actions(held(SECOND), &seen).is_empty(), "the kubelet hangs");
    seen.pods.insert(
        key(),
        PodFacts {
            parent_gone: true,
            ..serves
        },
    );
    assert_eq!(
        actions(held(SECOND), &seen),
        [Action::Release(key())],
        "its successor need not wait for that"
    );
    seen.kubelet = Kubelet::Up;
    seen.kubelet_synced = Seen::Yes;
    seen.agent_silence = Some(RETIRE_AFTER);
    seen.pods.insert(
        key(),
        PodFacts {
            parent_rejected: Seen::Yes,
            ..serves
        },
    );
    assert!(
        actions(held(SECOND), &seen).contains(&Action::Release(key())),
        "nobody wants us here any more"
    );
}

/// The API server answers probes, and the kubelet has received nothing from it for this long.
fn locked_out(ago: Duration, pod: PodFacts) -> (State, Facts) {
    let state = State {
        locked_out: Some((Some(1), before(ago))),
        ..state(Phase::Inactive)
    };
    (state, facts(contact(Class::Answering, 900), pod))
}

#[test]
fn a_locked_out_kubelet_is_reported_and_nothing_is_activated() {
    let (before, seen) = locked_out(LOCKED_OUT_AFTER, gone());
    let (after, actions) = decide(&before, &seen, &settings());
    assert!(actions.is_empty());
    assert_eq!(
        after.pods[&id("shop_till")]
            .blocked
            .as_ref()
            .unwrap()
            .reason,
        Blocked::KubeletLockedOut
    );
    let (before, seen) = locked_out(LOCKED_OUT_AFTER.saturating_sub(SECOND), gone());
    assert!(
        decide(&before, &seen, &settings()).0.pods[&id("shop_till")]
            .blocked
            .is_none(),
        "it may be starting"
    );
    let (before, seen) = locked_out(
        LOCKED_OUT_AFTER,
        PodFacts {
            parent: Run::Running,
            ..gone()
        },
    );
    assert!(
        decide(&before, &seen, &settings()).0.pods[&id("shop_till")]
            .blocked
            .is_none(),
        "it runs"
    );
    let (before, seen) = locked_out(
        LOCKED_OUT_AFTER,
        PodFacts {
            parent_gone: true,
            ..gone()
        },
    );
    assert!(
        decide(&before, &seen, &settings()).0.pods[&id("shop_till")]
            .blocked
            .is_none(),
        "it is deleted"
    );
}

#[test]
fn a_locked_out_kubelets_pods_are_activated_after_as_long_as_the_owner_says() {
    let wanted = Settings {
        activate_locked_out: Some(SECOND * 600),
        ..settings()
    };
    let (before, seen) = locked_out(SECOND * 599, gone());
    assert!(decide(&before, &seen, &wanted).1.is_empty());
    let (before, seen) = locked_out(
        SECOND * 600,
        PodFacts {
            parent_gone: true,
            ..gone()
        },
    );
    assert!(
        decide(&before, &seen, &wanted).1.is_empty(),
        "what is deleted stays away"
    );
    let (before, seen) = locked_out(SECOND * 600, gone());
    let (after, first) = decide(&before, &seen, &wanted);
    assert_eq!(first, [Action::Activate(key())]);
    let serves = PodFacts {
        twin: Run::Running,
        twin_sandbox: Seen::Yes,
        twin_owned: Seen::Yes,
        ..gone()
    };
    let later = facts(contact(Class::Answering, 900), serves);
    let (after, second) = decide(&after, &later, &wanted);
    assert!(second.is_empty(), "an API server that answers is no news");
    for restarted in [
        Facts {
            kubelet_pid: Some(2),
            ..later.clone()
        },
        Facts {
            kubelet: Kubelet::Down,
            ..later.clone()
        },
    ] {
        assert_eq!(
            decide(&after, &restarted, &wanted).1,
            [Action::Release(key())],
            "it may hear now"
        );
    }
    let owned = Facts {
        kubelet_synced: Seen::Yes,
        ..later.clone()
    };
    assert_eq!(decide(&after, &owned, &wanted).1, [Action::Release(key())]);
    let unknown = Facts {
        kubelet: Kubelet::Unknown,
        kubelet_pid: None,
        kubelet_synced: Seen::Unknown,
        ..later.clone()
    };
    assert!(decide(&after, &unknown, &wanted).1.is_empty());
    // after a reboot the agent itself waits for the kubelet, and has reported nothing
    let wordless = PodFacts {
        parent_rejected: Seen::Unknown,
        ..serves
    };
    let alone = Facts {
        agent_silence: None,
        pods: BTreeMap::from([(key(), wordless)]),
        ..later
    };
    assert!(decide(&after, &alone, &wanted).1.is_empty());
    let restarted = Facts {
        kubelet: Kubelet::Down,
        ..alone
    };
    assert_eq!(
        decide(&after, &restarted, &wanted).1,
        [Action::Release(key())]
    );
}

#[test]
fn the_time_of_being_locked_out_restarts_with_each_kubelet_and_stops_while_nothing_is_known() {
    let (before, seen) = locked_out(SECOND * 600, gone());
    let since = |facts: &Facts| decide(&before, facts, &settings()).0.locked_out;
    assert_eq!(since(&seen), before.locked_out);
    assert_eq!(
        since(&Facts {
            kubelet_pid: Some(2),
            ..seen.clone()
        }),
        Some((Some(2), NOW))
    );
    for over in [
        Facts {
            kubelet: Kubelet::Down,
            ..seen.clone()
        },
        Facts {
            kubelet_synced: Seen::Yes,
            ..seen.clone()
        },
        Facts {
            contact: contact(Class::Silent, 1),
            ..seen.clone()
        },
    ] {
        assert_eq!(since(&over), None);
    }
    for unknown in [
        Facts {
            kubelet: Kubelet::Unknown,
            ..seen.clone()
        },
        Facts {
            kubelet_synced: Seen::Unknown,
            ..seen.clone()
        },
        Facts {
            contact: None,
            ..seen.clone()
        },
    ] {
        assert_eq!(since(&unknown), before.locked_out);
    }
}

#[test]
fn pods_of_the_highest_priority_go_first() {
    let mut seen = facts(contact(Class::Silent, 3), gone());
    seen.pods.insert(
        id("shop_a"),
        PodFacts {
            priority: -1,
            ..gone()
        },
    );
    seen.pods.insert(
        id("shop_z"),
        PodFacts {
            priority: 1000,
            ..gone()
        },
    );
    let order = ["shop_z", "shop_till", "shop_a"].map(|key| Action::Activate(id(key)));
    assert_eq!(decide(&State::default(), &seen, &settings()).1, order);
}

#[test]
fn a_node_that_the_cluster_abandoned_is_cleaned_after_an_hour() {
    let mut seen = facts(
        contact(Class::Answering, 0),
        PodFacts {
            parent_owned: Seen::Yes,
            ..gone()
        },
    );
    (seen.agent_silence, seen.kubelet_synced) = (None, Seen::Yes);
    let mut quiet = state(Phase::Inactive);
    quiet.answering_since = Some(before(SECOND * 10));
    assert!(decide(&quiet, &seen, &settings()).1.is_empty());
    seen.now = NOW + RETIRE_AFTER;
    assert_eq!(decide(&quiet, &seen, &settings()).1, [Action::Retire]);
    seen.agent_silence = Some(SECOND);
    assert!(decide(&quiet, &seen, &settings()).1.is_empty());
}

#[test]
fn a_node_is_left_when_the_agent_asks_while_the_api_server_answers_and_nothing_is_active() {
    let mut seen = facts(
        contact(Class::Answering, 0),
        PodFacts {
            parent_owned: Seen::Yes,
            ..gone()
        },
    );
    (seen.agent_retires, seen.kubelet_synced) = (true, Seen::Yes);
    let leaves = |phase, seen: &Facts| {
        decide(&state(phase), seen, &settings())
            .1
            .contains(&Action::Retire)
    };
    assert!(leaves(Phase::Inactive, &seen));
    let serves = PodFacts {
        twin: Run::Running,
        twin_sandbox: Seen::Yes,
        twin_owned: Seen::Yes,
        ..gone()
    };
    let needed = Facts {
        pods: BTreeMap::from([(key(), serves)]),
        ..seen.clone()
    };
    assert!(
        !leaves(released(1), &needed) && !leaves(active(SECOND), &needed),
        "somebody needs it"
    );
    let others = [
        Facts {
            agent_retires: false,
            ..seen.clone()
        },
        Facts {
            agent_silence: Some(RETIRE_WORD + SECOND),
            ..seen.clone()
        },
        Facts {
            agent_silence: None,
            ..seen.clone()
        },
        Facts {
            contact: contact(Class::Silent, 900),
            ..seen.clone()
        },
        Facts {
            contact: contact(Class::Failing, 900),
            ..seen.clone()
        },
        Facts {
            contact: None,
            ..seen.clone()
        },
        Facts {
            kubelet: Kubelet::Unknown,
            ..seen.clone()
        },
        Facts {
            kubelet_synced: Seen::No,
            ..seen
        },
    ];
    for (at, other) in others.iter().enumerate() {
        assert!(!leaves(Phase::Inactive, other), "{at}");
    }
}

/// Calls `check` with every phase and every combination of facts.
fn exhaustively(mut check: impl FnMut(&State, &Facts, &PodFacts)) -> usize {
    let seen = [Seen::Yes, Seen::No, Seen::Unknown];
    let runs = [Run::Running, Run::Partial, Run::Stopped, Run::Unknown];
    let classes = [
        None,
        Some(Class::Answering),
        Some(Class::Failing),
        Some(Class::Silent),
        Some(Class::Unproven),
    ];
    let phases = [
        Phase::Inactive,
        active(SECOND),
        active(RENEW_AFTER * 24),
        Phase::Active {
            linked: before(SECOND),
            under: Class::Failing,
            nudged: Some(NOW),
            refused: 3,
        },
        Phase::Active {
            linked: before(SECOND),
            under: Class::Answering,
            nudged: Some(NOW),
            refused: 0,
        },
        released(1),
        released(900),
        Phase::Released {
            since: before(SECOND * 900),
            stopping: Some(before(SECOND)),
        },
    ];
    let mut count = 0;
    for phase in phases {
        let mut start = state(phase);
        start.pods.get_mut(&id("shop_till")).unwrap().partial_since = Some(before(PARTIAL));
        for class in classes {
            for ago in [0, 900] {
                for kubelet in [Kubelet::Up, Kubelet::Down, Kubelet::Unknown] {
                    // of a refused parent only a twin exists, and an API server that reports the
                    // refusal
                    for (connected, rejected) in [
                        (Seen::Yes, Seen::No),
                        (Seen::No, Seen::No),
                        (Seen::Unknown, Seen::Unknown),
                        (Seen::No, Seen::Yes),
                    ] {
                        for parent_owned in seen {
                            for twin_owned in seen {
                                for parent in runs {
                                    for twin in runs {
                                        for sandbox in seen {
                                            for handover in [Handover::Overlap, Handover::Switch] {
                                                let pod = PodFacts {
                                                    parent_owned,
                                                    twin_owned,
                                                    parent,
                                                    twin,
                                                    twin_sandbox: sandbox,
                                                    parent_container: sandbox,
                                                    parent_sandbox: sandbox,
                                                    parent_ready: connected,
                                                    parent_rejected: rejected,
                                                    handover: Some(handover),
                                                    ..gone()
                                                };
                                                let mut all = facts(
                                                    class.and_then(|class| contact(class, ago)),
                                                    pod,
                                                );
                                                (all.kubelet, all.kubelet_connected) =
                                                    (kubelet, connected);
                                                check(&start, &all, &pod);
                                                count += 1;
                                            }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    count
}

/// Those cases of [`exhaustively`] in which something may be started at all: the kubelet is up, and
/// contact has been the same for long.
fn in_an_outage(mut check: impl FnMut(&State, &Facts, &PodFacts)) {
    exhaustively(|before, facts, pod| {
        if facts.kubelet == Kubelet::Up
            && facts
                .contact
                .is_none_or(|contact| contact.since != facts.now)
        {
            check(before, facts, pod);
        }
    });
}

#[test]
fn nothing_is_started_unless_everything_is_known_and_nothing_else_runs_it() {
    let count = exhaustively(|before, facts, pod| {
        let (_, actions) = decide(before, facts, &settings());
        if actions.iter().any(Action::links) {
            assert_eq!(facts.kubelet, Kubelet::Up, "{facts:?}");
            assert_eq!(pod.parent, Run::Stopped, "{facts:?} {before:?}");
            let answers = facts
                .contact
                .is_some_and(|contact| contact.class == Class::Answering);
            if answers && pod.parent_rejected.is_yes() {
                return;
            }
            assert!(!answers && facts.contact.is_some(), "{before:?} {facts:?}");
            assert_eq!(pod.parent_owned, Seen::No, "{facts:?}");
            assert_ne!(pod.twin, Run::Unknown, "{facts:?}");
        }
    });
    // bypasses the capture of test output: the counts are part of the proof
    let _ = writeln!(std::io::stderr(), "decide: {count} combinations");
}

#[test]
fn a_running_parent_is_never_stopped_and_a_partial_one_only_in_an_outage() {
    exhaustively(|before, facts, pod| {
        if decide(before, facts, &settings())
            .1
            .contains(&Action::StopParent(key()))
        {
            assert_eq!((pod.parent, pod.parent_owned), (Run::Partial, Seen::No));
            assert!(
                facts
                    .contact
                    .is_some_and(|contact| contact.class != Class::Answering)
            );
        }
    });
}

#[test]
fn deciding_twice_equals_deciding_once() {
    exhaustively(|before, facts, _| {
        let (once, _) = decide(before, facts, &settings());
        let (_, again) = decide(&once, facts, &settings());
        assert!(
            !again.iter().any(Action::links),
            "{before:?} {facts:?} {again:?}"
        );
    });
}

#[test]
fn silence_and_ignorance_never_release_stop_or_forget() {
    exhaustively(|before, facts, pod| {
        let silent = facts
            .contact
            .is_none_or(|contact| matches!(contact.class, Class::Silent | Class::Unproven));
        let hint = facts.kubelet_connected.is_yes()
            || pod.parent_owned.is_yes()
            || pod.parent_ready.is_yes();
        if silent && !hint && pod.parent != Run::Running && !pod.parent_container.is_yes() {
            let (_, actions) = decide(before, facts, &settings());
            let ends = |action: &Action| {
                matches!(
                    action,
                    Action::Release(_)
                        | Action::StopTwin(_)
                        | Action::EndTwin(_)
                        | Action::Forget(_)
                )
            };
            assert!(
                !actions.iter().any(ends),
                "{before:?} {facts:?} {actions:?}"
            );
        }
    });
}

#[test]
fn a_fact_that_becomes_unknown_adds_nothing_to_what_is_done() {
    let forget: [fn(&mut Facts, &mut PodFacts); 7] = [
        |facts, _| facts.contact = None,
        |facts, _| facts.kubelet = Kubelet::Unknown,
        |_, pod| pod.parent_owned = Seen::Unknown,
        |_, pod| pod.twin_owned = Seen::Unknown,
        |_, pod| pod.parent = Run::Unknown,
        |_, pod| pod.twin = Run::Unknown,
        |_, pod| pod.twin_sandbox = Seen::Unknown,
    ];
    // instead of what was decided, and each for another fact that is known
    let changes = |action: &Action| {
        !matches!(
            action,
            Action::Nudge(_) | Action::Unstick | Action::StopTwin(_)
        )
    };
    in_an_outage(|before, facts, pod| {
        let (_, known) = decide(before, facts, &settings());
        for forget in forget {
            let (mut less, mut pod) = (facts.clone(), *pod);
            forget(&mut less, &mut pod);
            less.pods.insert(key(), pod);
            let (_, actions) = decide(before, &less, &settings());
            let added: Vec<_> = actions
                .iter()
                .filter(|action| changes(action) && !known.contains(action))
                .collect();
            assert!(
                added.is_empty(),
                "{added:?} where {known:?} was decided: {before:?} {facts:?} → {less:?}"
            );
        }
    });
}

#[test]
fn an_unknown_sign_is_no_sign() {
    let signs: [fn(&mut Facts, &mut PodFacts, Seen); 4] = [
        |facts, _, sign| facts.kubelet_connected = sign,
        |facts, _, sign| facts.kubelet_makes_containers = sign,
        |_, pod, sign| (pod.parent_sandbox, pod.parent_container) = (sign, sign),
        |_, pod, sign| pod.parent_ready = sign,
    ];
    in_an_outage(|before, facts, pod| {
        for set in signs {
            let with = |sign| {
                let (mut facts, mut pod) = (facts.clone(), *pod);
                set(&mut facts, &mut pod, sign);
                facts.pods.insert(key(), pod);
                decide(before, &facts, &settings())
            };
            assert_eq!(with(Seen::Unknown), with(Seen::No), "{before:?} {facts:?}");
        }
    });
}
