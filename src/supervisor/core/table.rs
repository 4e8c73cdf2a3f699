//! The decision as a table, made by asking it: every combination of answers goes through
//! [`decide`], and answers that change nothing share a row. So the table in the documentation
//! cannot say anything else than the program does.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::checkpoint::Handover;
use crate::node::contact::{Class, Contact};
use crate::reasons::Blocked;
use crate::supervisor::core::decide::{Action, Block, Phase, Pod, Settings, State, decide};
use crate::supervisor::core::facts::Key;
use crate::supervisor::core::facts::{Facts, Kubelet, PodFacts, Run, Seen};

fn key() -> Key {
    pod("pod")
}

fn pod(name: &str) -> Key {
    #[allow(clippy::expect_used)] // two literals of this file
    Key::new("namespace", name).expect("a name")
}
const NOW: Duration = Duration::from_hours(1);
/// Long enough for everything that waits.
const LONG: Duration = Duration::from_mins(30);

/// One checkpoint's pod, and all that is known.
#[derive(Clone)]
struct Case {
    pod: Pod,
    seen: PodFacts,
    facts: Facts,
    /// A pod of a lower start group that does not run yet.
    lower_group_waits: bool,
    /// How long the kubelet has been getting nothing from an API server that answers.
    locked_out: Option<Duration>,
}

/// What an answer means.
type Apply = fn(&mut Case);

/// A column: a question, and what may be answered.
struct Question {
    title: &'static str,
    answers: &'static [(&'static str, Apply)],
}

/// A row: the answers by column, and what is done.
#[derive(Clone, PartialEq, Eq)]
struct Row {
    cells: Vec<String>,
    outcome: String,
}

/// The tables of all states, as Markdown.
pub fn markdown() -> String {
    let mut text = String::new();
    for (title, words, case, questions) in [
        (
            "Inactive",
            "Only the checkpoint is on the node.",
            case(Phase::Inactive, Run::Stopped),
            &[KUBELET, OWNED, CONTACT, PARENT, TWIN_LEFT, DUE][..],
        ),
        (
            "Inactive, and the API server answers",
            "It is of no help where the kubelet refused the parent for good, or gets nothing from it itself.",
            locked_in(answering(case(Phase::Inactive, Run::Stopped))),
            &[REFUSED, PARENT_LEFT, LOCKED_OUT, OWNED][..],
        ),
        (
            "Active",
            "The twin is linked; contact was silent when that was done.",
            case(active(SECOND), Run::Stopped),
            &[SIGN, NOBODY, SANDBOX, KUBELET, LINKED_SINCE, TWIN_OWNED][..],
        ),
        (
            "Active, and the API server answered when the twin was linked",
            "The kubelet refused the parent for good, or was locked out.",
            locked_in(answering(serving(case(held(), Run::Running)))),
            &[REFUSED, OWNED, KUBELET_HEARS][..],
        ),
        (
            "Released: taken back?",
            "The link is gone, the twin runs on, and contact is lost once more. Each round doubles the patience.",
            case(
                Phase::Released {
                    since: NOW.saturating_sub(SECOND * 5),
                    stopping: None,
                },
                Run::Running,
            ),
            &[GONE, OWNED, RETURN, PARENT_LEFT, TWIN_OWNED, TWIN][..],
        ),
        (
            "Released: handed over?",
            "The link is gone, the twin runs on, and is not taken back.",
            answering(case(
                Phase::Released {
                    since: NOW.saturating_sub(SECOND * 5),
                    stopping: None,
                },
                Run::Running,
            )),
            &[TWIN, HANDOVER, PROGRESS][..],
        ),
        (
            "Released, and the kubelet refused the parent",
            "The API server says of this very UID that it has Failed, and nobody but its owner replaces it.",
            refused(answering(case(
                Phase::Released {
                    since: NOW.saturating_sub(SECOND * 5),
                    stopping: None,
                },
                Run::Running,
            ))),
            &[KUBELET, PARENT_LEFT, TWIN][..],
        ),
    ] {
        let _ = write!(text, "## {title}\n\n{words}\n\n|");
        for question in questions {
            let _ = write!(text, " {} |", question.title);
        }
        let _ = write!(
            text,
            " what is done |\n|{}\n",
            " --- |".repeat(questions.len() + 1)
        );
        let mut above: Vec<String> = Vec::new();
        for Row { cells, outcome } in rows(&case, questions) {
            let same = cells
                .iter()
                .zip(&above)
                .take_while(|(cell, above)| cell == above)
                .count();
            let shown = cells.iter().enumerate().map(|(column, cell)| {
                if column < same && !cell.is_empty() {
                    "″"
                } else {
                    cell.as_str()
                }
            });
            let _ = writeln!(
                text,
                "| {} | {outcome} |",
                shown.collect::<Vec<_>>().join(" | ")
            );
            above = cells;
        }
        text.push('\n');
    }
    text.trim_end().to_owned() + "\n"
}

/// Answers the questions in every way; answers after which all is the same become one row.
fn rows(case: &Case, questions: &[Question]) -> Vec<Row> {
    let Some((first, rest)) = questions.split_first() else {
        return vec![Row {
            cells: Vec::new(),
            outcome: outcome(case),
        }];
    };
    let mut groups: Vec<(Vec<&str>, Vec<Row>)> = Vec::new();
    for (name, apply) in first.answers {
        let mut case = case.clone();
        apply(&mut case);
        let below = rows(&case, rest);
        match groups.iter_mut().find(|(_, known)| *known == below) {
            Some((names, _)) => names.push(name),
            None => groups.push((vec![name], below)),
        }
    }
    let alone = groups.len() == 1;
    let label = |names: Vec<&str>| {
        if alone {
            String::new()
        } else {
            names.join("; ")
        }
    };
    let each = groups
        .into_iter()
        .map(|(names, below)| (label(names), below));
    each.flat_map(|(label, below)| {
        below.into_iter().map(move |mut row| {
            row.cells.insert(0, label.clone());
            row
        })
    })
    .collect()
}

/// What is done, in words.
fn outcome(case: &Case) -> String {
    let settings = Settings {
        activation_delay: Duration::from_secs(3),
        unstick: true,
        activate_locked_out: Some(Duration::from_mins(10)),
    };
    let mut facts = case.facts.clone();
    facts.pods.insert(key(), case.seen);
    if case.lower_group_waits {
        facts.pods.insert(
            pod("another"),
            PodFacts {
                start_group: -1,
                ..PodFacts::gone()
            },
        );
    }
    let locked_out = case.locked_out.map(|time| (PID, NOW.saturating_sub(time)));
    let state = State {
        pods: BTreeMap::from([(key(), case.pod.clone())]),
        locked_out,
        ..State::default()
    };
    let (next, actions) = decide(&state, &facts, &settings);
    let mut words: Vec<&str> = actions.iter().filter_map(said).collect();
    if words.is_empty() {
        let is_released = matches!(
            next.pods.get(&key()).map(|pod| &pod.phase),
            Some(Phase::Released { .. })
        );
        let was_inactive = case.pod.phase == Phase::Inactive;
        let blocked = next
            .pods
            .get(&key())
            .and_then(|pod| pod.blocked.as_ref())
            .map(|block| block.reason);
        words.push(match blocked {
            _ if is_released && was_inactive => "handed over as if released now",
            Some(Blocked::KubeletLockedOut) => "shown as `KubeletLockedOut`",
            _ => "–",
        });
    }
    words.join(", ")
}

/// An action on the pod that the table is about.
fn said(action: &Action) -> Option<&'static str> {
    let (key, words) = match action {
        Action::StopParent(key) => (key, "**what is left of the parent is stopped**"),
        Action::Activate(key) => (key, "**activated**"),
        Action::Relink(key) => (key, "**linked again**, same UID"),
        Action::Nudge(key) => (key, "nudged"),
        Action::Renew(key) => (key, "**activated** with a new UID"),
        Action::Release(key) => (key, "**released**"),
        Action::StopTwin(key) => (key, "**the twin is stopped**"),
        Action::EndTwin(key) => (key, "**the twin is ended** without more grace"),
        Action::Forget(key) => (key, "**the unpacked files go**"),
        Action::Unstick => return Some("the kubelet is unstuck"),
        Action::Retire => return None,
    };
    (*key == self::key()).then_some(words)
}

fn case(phase: Phase, twin: Run) -> Case {
    let facts = Facts {
        now: NOW,
        contact: contact(Class::Silent, LONG, false),
        kubelet: Kubelet::Up,
        kubelet_pid: PID,
        kubelet_connected: Seen::No,
        pods: BTreeMap::new(),
        agent_silence: Some(Duration::ZERO),
        agent_retires: false,
        kubelet_synced: Seen::Yes,
        kubelet_makes_containers: Seen::Yes,
    };
    let seen = PodFacts {
        twin,
        ..PodFacts::gone()
    };
    Case {
        pod: Pod {
            phase,
            ..Pod::default()
        },
        seen,
        facts,
        lower_group_waits: false,
        locked_out: None,
    }
}

fn active(age: Duration) -> Phase {
    Phase::Active {
        linked: NOW.saturating_sub(age),
        under: Class::Silent,
        nudged: None,
        refused: 0,
    }
}

/// As the facts hold it.
#[allow(clippy::unnecessary_wraps)]
fn contact(class: Class, age: Duration, by_time_out: bool) -> Option<Contact> {
    let since = NOW.saturating_sub(age);
    let failures = if class == Class::Answering { 0 } else { 3 };
    Some(Contact {
        class,
        since,
        alike: since,
        failures,
        by_time_out,
    })
}

const SECOND: Duration = Duration::from_secs(1);
const PID: Option<u32> = Some(1);

const KUBELET: Question = Question {
    title: "kubelet",
    answers: &[
        ("up", |case| case.facts.kubelet = Kubelet::Up),
        ("down", |case| case.facts.kubelet = Kubelet::Down),
        ("unknown", |case| case.facts.kubelet = Kubelet::Unknown),
    ],
};
const OWNED: Question = Question {
    title: "it owns the parent",
    answers: &[
        ("no", |case| case.seen.parent_owned = Seen::No),
        ("yes", |case| case.seen.parent_owned = Seen::Yes),
        ("unknown", |case| case.seen.parent_owned = Seen::Unknown),
    ],
};
const CONTACT: Question = Question {
    title: "contact",
    answers: &[
        ("answering", |case| {
            case.facts.contact = contact(Class::Answering, LONG, false);
        }),
        ("silent, shorter than the activation delay", |case| {
            case.facts.contact = contact(Class::Silent, SECOND, false);
        }),
        ("silent for it", |case| {
            case.facts.contact = contact(Class::Silent, SECOND * 3, false);
        }),
        ("failing, below 10 s", |case| {
            case.facts.contact = contact(Class::Failing, SECOND * 9, false);
        }),
        ("failing for 10 s", |case| {
            case.facts.contact = contact(Class::Failing, SECOND * 10, false);
        }),
        ("unproven, below 60 s", |case| {
            case.facts.contact = contact(Class::Unproven, SECOND * 59, false);
        }),
        ("unproven for 60 s", |case| {
            case.facts.contact = contact(Class::Unproven, SECOND * 60, false);
        }),
        ("unknown", |case| case.facts.contact = None),
    ],
};
const PARENT: Question = Question {
    title: "parent",
    answers: &[
        ("stopped", |case| case.seen.parent = Run::Stopped),
        ("running", |case| case.seen.parent = Run::Running),
        ("partial, below 10 s", |case| {
            case.seen.parent = Run::Partial;
        }),
        ("partial for 10 s", |case| {
            case.seen.parent = Run::Partial;
            case.pod.partial_since = Some(NOW.saturating_sub(SECOND * 10));
        }),
        ("unknown", |case| case.seen.parent = Run::Unknown),
    ],
};
const TWIN_LEFT: Question = Question {
    title: "a twin without a link",
    answers: &[
        ("none", |case| case.seen.twin = Run::Stopped),
        ("runs", |case| case.seen.twin = Run::Running),
        ("partial", |case| case.seen.twin = Run::Partial),
        ("unknown", |case| case.seen.twin = Run::Unknown),
    ],
};
const DUE: Question = Question {
    title: "its turn",
    answers: &[
        ("yes", |_| {}),
        ("a lower start group does not run yet", |case| {
            case.lower_group_waits = true;
        }),
        ("the pause after a failed attempt", |case| {
            let (reason, message) = (Blocked::NoRoom, String::new());
            case.pod.blocked = Some(Block {
                reason,
                message,
                attempts: 1,
                again: NOW + SECOND,
            });
        }),
        ("no checkpoint of it any more", |case| {
            case.seen.in_store = false;
        }),
    ],
};
const SIGN: Question = Question {
    title: "sign of the API server",
    answers: &[
        ("none: silence by refusal", |_| {}),
        ("none: silence by time-out", |case| {
            case.facts.contact = contact(Class::Silent, LONG, true);
        }),
        ("unknown", |case| case.facts.contact = None),
        ("it answers", |case| {
            case.facts.contact = contact(Class::Answering, Duration::ZERO, false);
        }),
        ("it answers 5xx", |case| {
            case.facts.contact = contact(Class::Failing, Duration::ZERO, false);
        }),
        ("it answers 5xx, as it did when linked", |case| {
            case.facts.contact = contact(Class::Failing, LONG, false);
            if let Phase::Active { under, .. } = &mut case.pod.phase {
                *under = Class::Failing;
            }
        }),
        ("bytes on the kubelet's connection", |case| {
            case.facts.kubelet_connected = Seen::Yes;
        }),
        ("bytes from a server that cannot be proven", |case| {
            case.facts.kubelet_connected = Seen::Yes;
            case.facts.contact = contact(Class::Unproven, LONG, false);
        }),
    ],
};
const SANDBOX: Question = Question {
    title: "the twin's sandbox",
    answers: &[
        ("none", |case| case.seen.twin_sandbox = Seen::No),
        ("there", |case| {
            case.seen.twin_sandbox = Seen::Yes;
            case.seen.twin = Run::Running;
        }),
        ("unknown", |case| {
            case.seen.twin_sandbox = Seen::Unknown;
            case.seen.twin = Run::Unknown;
        }),
    ],
};
const LINKED_SINCE: Question = Question {
    title: "linked since",
    answers: &[
        ("0.2 s", |case| set_age(case, Duration::from_millis(200))),
        ("0.5 s", |case| set_age(case, Duration::from_millis(500))),
        ("1 s", |case| set_age(case, SECOND)),
        ("30 s", |case| set_age(case, SECOND * 30)),
        ("90 s", |case| set_age(case, SECOND * 90)),
    ],
};
const TWIN_OWNED: Question = Question {
    title: "the kubelet lists the twin",
    answers: &[
        ("no", |case| case.seen.twin_owned = Seen::No),
        ("yes", |case| case.seen.twin_owned = Seen::Yes),
        ("unknown", |case| case.seen.twin_owned = Seen::Unknown),
    ],
};
const NOBODY: Question = Question {
    title: "parent",
    answers: &[
        ("owned by the kubelet", |case| {
            case.seen.parent_owned = Seen::Yes;
        }),
        ("not owned, stopped", |case| case.seen.parent = Run::Stopped),
        ("not owned, running", |case| case.seen.parent = Run::Running),
        ("not owned, partial", |case| case.seen.parent = Run::Partial),
        ("not owned, unknown", |case| case.seen.parent = Run::Unknown),
        ("stopped, unknown whether owned", |case| {
            case.seen.parent_owned = Seen::Unknown;
        }),
    ],
};
const RETURN: Question = Question {
    title: "contact",
    answers: &[
        ("silent, below 5 s", |case| {
            case.facts.contact = contact(Class::Silent, SECOND * 4, false);
        }),
        ("silent for 5 s", |case| {
            case.facts.contact = contact(Class::Silent, SECOND * 5, false);
        }),
        ("silent below 60 s, but the kubelet hears it", |case| {
            set_released(case, SECOND * 59);
            case.facts.contact = contact(Class::Silent, SECOND * 59, false);
            case.facts.kubelet_connected = Seen::Yes;
        }),
        ("silent for 60 s, but the kubelet hears it", |case| {
            set_released(case, SECOND * 60);
            case.facts.contact = contact(Class::Silent, SECOND * 60, false);
            case.facts.kubelet_connected = Seen::Yes;
        }),
        ("failing, below 10 s", |case| {
            set_released(case, SECOND * 9);
            case.facts.contact = contact(Class::Failing, SECOND * 9, false);
        }),
        ("failing, below 60 s", |case| {
            set_released(case, SECOND * 59);
            case.facts.contact = contact(Class::Failing, SECOND * 59, false);
        }),
        ("failing for 60 s", |case| {
            set_released(case, SECOND * 60);
            case.facts.contact = contact(Class::Failing, SECOND * 60, false);
        }),
        ("unproven for 60 s", |case| {
            set_released(case, SECOND * 60);
            case.facts.contact = contact(Class::Unproven, SECOND * 60, false);
        }),
        ("unknown", |case| case.facts.contact = None),
    ],
};
const GONE: Question = Question {
    title: "the parent is gone, by the API server's word on its UID",
    answers: &[("no", |_| {}), ("yes", |case| case.seen.parent_gone = true)],
};
const PARENT_LEFT: Question = Question {
    title: "parent",
    answers: &[
        ("stopped", |case| case.seen.parent = Run::Stopped),
        ("running", |case| case.seen.parent = Run::Running),
        ("partial", |case| case.seen.parent = Run::Partial),
        ("unknown", |case| case.seen.parent = Run::Unknown),
    ],
};
const TWIN: Question = Question {
    title: "twin",
    answers: &[
        ("runs", |case| case.seen.twin = Run::Running),
        ("partial", |case| case.seen.twin = Run::Partial),
        ("stopped", |case| case.seen.twin = Run::Stopped),
        ("unknown", |case| case.seen.twin = Run::Unknown),
    ],
};
const HANDOVER: Question = Question {
    title: "handover",
    answers: &[
        ("overlap", |case| {
            case.seen.handover = Some(Handover::Overlap);
        }),
        ("switch, host port", |case| {
            case.seen.handover = Some(Handover::Switch);
        }),
        ("switch, host network", |case| {
            case.seen.handover = Some(Handover::Switch);
            case.seen.host_network = true;
        }),
        ("switch, host network, slow to start", |case| {
            case.seen.handover = Some(Handover::Switch);
            case.seen.host_network = true;
            case.seen.slow_start = true;
        }),
    ],
};

const PROGRESS: Question = Question {
    title: "the parent",
    answers: &[
        ("is not owned by the kubelet", |_| {}),
        ("is owned", |case| case.seen.parent_owned = Seen::Yes),
        ("is owned, and the hold of 120 s is over", |case| {
            case.seen.parent_owned = Seen::Yes;
            set_released(case, SECOND * 120);
        }),
        (
            "has a sandbox, and the kubelet makes no containers yet",
            |case| {
                has_sandbox(case);
                case.facts.kubelet_makes_containers = Seen::No;
            },
        ),
        ("has a sandbox", has_sandbox),
        ("has a container", has_container),
        ("ran for 10 s", |case| {
            has_container(case);
            case.seen.parent = Run::Running;
            case.pod.parent_running_since = Some(NOW.saturating_sub(SECOND * 10));
        }),
        ("is Ready", |case| {
            has_container(case);
            case.seen.parent = Run::Running;
            case.seen.parent_ready = Seen::Yes;
        }),
        ("is gone, by the API server's word on its UID", |case| {
            case.seen.parent_gone = true;
        }),
    ],
};

const REFUSED: Question = Question {
    title: "the kubelet refused the parent for good, by the API server's word on its UID",
    answers: &[
        ("no", |_| {}),
        ("yes", |case| case.seen.parent_rejected = Seen::Yes),
        ("yes, and no agent for an hour", |case| {
            case.seen.parent_rejected = Seen::Yes;
            case.facts.agent_silence = None;
        }),
        ("unknown", |case| case.seen.parent_rejected = Seen::Unknown),
    ],
};
const LOCKED_OUT: Question = Question {
    title: "the kubelet got nothing from the API server",
    answers: &[
        ("below 3 minutes", |case| {
            case.locked_out = Some(SECOND * 179);
        }),
        ("for 3 minutes", |case| case.locked_out = Some(SECOND * 180)),
        ("for `--activate-locked-out`", |case| {
            case.locked_out = Some(SECOND * 600);
        }),
        ("for it, but by a process before this one", |case| {
            case.locked_out = Some(SECOND * 600);
            case.facts.kubelet_pid = Some(2);
        }),
    ],
};
const KUBELET_HEARS: Question = Question {
    title: "kubelet",
    answers: &[
        ("the same, and gets nothing", |_| {}),
        ("another process", |case| case.facts.kubelet_pid = Some(2)),
        ("down", |case| case.facts.kubelet = Kubelet::Down),
        ("has pods of the API server", |case| {
            case.facts.kubelet_synced = Seen::Yes;
        }),
        ("unknown", |case| {
            (case.facts.kubelet, case.facts.kubelet_pid) = (Kubelet::Unknown, None);
            case.facts.kubelet_synced = Seen::Unknown;
        }),
    ],
};

fn held() -> Phase {
    Phase::Active {
        linked: NOW.saturating_sub(LONG),
        under: Class::Answering,
        nudged: None,
        refused: 0,
    }
}

/// The kubelet has no pod of the API server.
fn locked_in(mut case: Case) -> Case {
    (case.facts.kubelet_synced, case.locked_out) = (Seen::No, Some(LONG));
    case
}

fn serving(mut case: Case) -> Case {
    (case.seen.twin_owned, case.seen.twin_sandbox) = (Seen::Yes, Seen::Yes);
    case
}

fn refused(mut case: Case) -> Case {
    case.seen.parent_rejected = Seen::Yes;
    case
}

fn has_sandbox(case: &mut Case) {
    (case.seen.parent_owned, case.seen.parent_sandbox) = (Seen::Yes, Seen::Yes);
}

fn has_container(case: &mut Case) {
    has_sandbox(case);
    case.seen.parent_container = Seen::Yes;
}

fn answering(mut case: Case) -> Case {
    case.facts.contact = contact(Class::Answering, SECOND, false);
    case
}

fn set_age(case: &mut Case, age: Duration) {
    if let Phase::Active { linked, .. } = &mut case.pod.phase {
        *linked = NOW.saturating_sub(age);
    }
}

fn set_released(case: &mut Case, age: Duration) {
    if let Phase::Released { since, .. } = &mut case.pod.phase {
        *since = NOW.saturating_sub(age);
    }
}
