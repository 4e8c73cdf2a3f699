use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn set(observed: i64, desired: i64, upgraded: i64, ready: i64) -> Value {
    json!({
        "metadata": {"generation": 3},
        "spec": {"template": {"spec": {"containers": [{"image": "shop/agent:2"}]}}},
        "status": {"observedGeneration": observed, "desiredNumberScheduled": desired,
            "updatedNumberScheduled": upgraded, "numberReady": ready},
    })
}

fn shown(
    applied: &Applied,
    set: Option<&Value>,
    before: &PodCheckpointerStatus,
) -> PodCheckpointerStatus {
    let seen = Observed {
        generation: Some(7),
        applied,
        daemon_set: set,
        checkpoints: None,
        unfit: None,
    };
    status(&seen, before, at(60))
}

fn reasons(status: &PodCheckpointerStatus) -> Vec<(&str, &str)> {
    status
        .conditions
        .iter()
        .take(2)
        .map(|it| (it.status.as_str(), it.reason.as_str()))
        .collect()
}

#[test]
fn ready_counts_only_agents_with_the_current_template() {
    let none = PodCheckpointerStatus::default();
    let applied = Applied::Yes(None);
    for (set, expected) in [
        (None, ("Unknown", "NotObserved")),
        (Some(set(2, 5, 5, 5)), ("Unknown", "NotObserved")),
        (Some(set(3, 5, 4, 5)), ("False", "Progressing")),
        (Some(set(3, 5, 5, 4)), ("False", "NodesNotReady")),
        (Some(set(3, 5, 5, 5)), ("True", "Ready")),
        (Some(set(3, 0, 0, 0)), ("True", "NoNodes")),
    ] {
        let status = shown(&applied, set.as_ref(), &none);
        assert_eq!(reasons(&status), [("True", "Applied"), expected]);
    }
    let status = shown(&applied, Some(&set(3, 6, 5, 4)), &none);
    assert_eq!(
        status.nodes,
        Some(Nodes {
            desired: 6,
            ready: 4,
            upgraded: 5
        })
    );
    assert_eq!(
        (status.image.as_deref(), status.observed_generation),
        (Some("shop/agent:2"), Some(7))
    );
    assert_eq!(
        shown(&applied, Some(&set(2, 6, 5, 4)), &none).nodes,
        None,
        "of an earlier template"
    );
}

#[test]
fn nodes_with_risks_are_named_each_with_its_reason() {
    let applied = Applied::Yes(None);
    let shown = |unfit: Option<&BTreeMap<String, String>>| {
        let seen = Observed {
            generation: None,
            applied: &applied,
            daemon_set: None,
            checkpoints: None,
            unfit,
        };
        let condition = status(&seen, &PodCheckpointerStatus::default(), at(0))
            .conditions
            .remove(2);
        (condition.status, condition.reason, condition.message)
    };
    assert_eq!(shown(None).0, "Unknown");
    assert_eq!(shown(Some(&BTreeMap::new())).1, "Fit");
    let nodes = (0..12)
        .map(|at| (format!("edge-{at:02}"), "StoreFull".to_owned()))
        .collect();
    let (status, reason, message) = shown(Some(&nodes));
    assert_eq!((status.as_str(), reason.as_str()), ("False", "NodesUnfit"));
    assert!(
        message.contains("on 12 nodes: edge-00 (StoreFull), edge-01 (StoreFull), "),
        "{message}"
    );
    assert!(
        message.contains("edge-09 (StoreFull) and 2 more;"),
        "{message}"
    );
}

#[test]
fn settings_that_cannot_be_applied_are_shown_with_what_still_runs() {
    let applied = Applied::No {
        reason: "Refused",
        message: "a webhook said no".into(),
    };
    let status = shown(
        &applied,
        Some(&set(3, 5, 5, 5)),
        &PodCheckpointerStatus::default(),
    );
    assert_eq!(
        reasons(&status),
        [("False", "Refused"), ("False", "Refused")]
    );
    assert_eq!(status.conditions[0].message, "a webhook said no");
    assert!(
        status.conditions[1].message.starts_with("5 of 5 nodes"),
        "{}",
        status.conditions[1].message
    );
    let removing = shown(&Applied::Removing("node-1".into()), None, &status);
    assert_eq!(
        reasons(&removing),
        [("False", "Removing"), ("False", "Removing")]
    );
    assert_eq!(removing.conditions[1].message, "node-1");
}

#[test]
fn a_condition_keeps_the_time_of_its_last_change_and_nothing_new_is_no_change() {
    let (applied, ready) = (Applied::Yes(None), set(3, 5, 5, 5));
    let seen = Observed {
        generation: Some(7),
        applied: &applied,
        daemon_set: Some(&ready),
        checkpoints: None,
        unfit: None,
    };
    let first = status(&seen, &PodCheckpointerStatus::default(), at(0));
    assert_eq!(status(&seen, &first, at(60)), first);
    let fewer = set(3, 5, 5, 4);
    let second = status(
        &Observed {
            daemon_set: Some(&fewer),
            ..seen
        },
        &first,
        at(120),
    );
    assert_eq!(second.conditions[0].last_transition_time, Time(at(0)));
    assert_eq!(second.conditions[1].last_transition_time, Time(at(120)));
}

#[test]
fn counts_that_are_not_known_yet_stay_as_they_were() {
    let counted = Checkpoints {
        total: 3,
        recoverable: 2,
        active: 1,
    };
    let before = PodCheckpointerStatus {
        checkpoints: Some(counted),
        ..PodCheckpointerStatus::default()
    };
    assert_eq!(
        shown(&Applied::Yes(None), None, &before).checkpoints,
        Some(counted)
    );
}
