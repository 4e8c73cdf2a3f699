use serde_json::json;

use super::*;
use crate::pod::id::{PodId, id};
use crate::pod::selector;

fn rules() -> Rules {
    Rules {
        limit: Vec::new(),
        select: vec![
            selector::parse("app=till").unwrap(),
            selector::parse("tier in (front,back)").unwrap(),
        ],
        namespaces: Some(selector::parse("site=edge").unwrap()),
        own: Some(("ours".into(), "agent-x".into())),
    }
}

fn pod(namespace: &str, labels: &Value, annotations: &Value) -> DynamicObject {
    named(namespace, "one", labels, annotations)
}

fn named(namespace: &str, name: &str, labels: &Value, annotations: &Value) -> DynamicObject {
    let value = json!({
        "metadata": {"namespace": namespace, "name": name, "uid": format!("uid-{name}"), "labels": labels, "annotations": annotations},
        "spec": {"restartPolicy": "Always", "containers": []},
        "status": {"containerStatuses": [{"name": "app", "containerID": "containerd://a", "state": {"running": {}}}]},
    });
    serde_json::from_value(value).unwrap()
}

fn edge() -> BTreeMap<String, String> {
    BTreeMap::from([("site".to_owned(), "edge".to_owned())])
}

fn marks() -> Marks {
    let mut marks = Marks::new(rules());
    marks.begin_namespaces();
    marks.list_namespace("shop".into(), &edge());
    marks.list_namespace("office".into(), &BTreeMap::new());
    marks.end_namespaces();
    marks
}

fn by(text: &str) -> Marked {
    Marked::By(text.into())
}

#[test]
fn what_marks_a_pod_is_named_and_an_opt_out_wins_over_everything() {
    let (ours, legacy) = (
        "podcheckpointer.io/checkpoint",
        "checkpointer.alpha.coreos.com/checkpoint",
    );
    let table = [
        (
            "shop",
            json!({}),
            json!({}),
            by("namespace selector site=edge"),
        ),
        (
            "shop",
            json!({"app": "till"}),
            json!({}),
            by("selector app=till"),
        ),
        (
            "office",
            json!({"tier": "back"}),
            json!({}),
            by("selector tier in (back,front)"),
        ),
        (
            "office",
            json!({"app": "other"}),
            json!({ours: "true"}),
            by("annotation podcheckpointer.io/checkpoint"),
        ),
        (
            "office",
            json!({}),
            json!({legacy: "true"}),
            by("annotation checkpointer.alpha.coreos.com/checkpoint"),
        ),
        ("office", json!({"app": "other"}), json!({}), Marked::No),
        (
            "office",
            json!({"app": "other"}),
            json!({ours: "yes"}),
            Marked::No,
        ),
        ("unheard-of", json!({}), json!({}), Marked::Unknown),
        (
            "unheard-of",
            json!({"app": "till"}),
            json!({}),
            by("selector app=till"),
        ),
        (
            "shop",
            json!({"app": "till"}),
            json!({ours: "false", legacy: "true"}),
            Marked::No,
        ),
        ("unheard-of", json!({}), json!({ours: "false"}), Marked::No),
    ];
    for (namespace, labels, annotations, marked) in table {
        let observed = marks()
            .observe(pod(namespace, &labels, &annotations))
            .unwrap();
        assert_eq!(
            observed.marked, marked,
            "{namespace} {labels} {annotations}"
        );
        assert_eq!(observed.containers.is_empty(), marked == Marked::No);
        assert!(
            marked == Marked::No || !observed.object.is_empty(),
            "what may be captured is kept"
        );
    }
}

#[test]
fn a_mark_on_many_pods_excludes_static_pods_completed_pods_and_the_agent() {
    let mut mirror = pod(
        "shop",
        &json!({"app": "till"}),
        &json!({"kubernetes.io/config.mirror": "x"}),
    );
    assert_eq!(marks().observe(mirror.clone()).unwrap().marked, Marked::No);
    mirror.metadata.annotations =
        Some([("kubernetes.io/config.source".to_owned(), "file".to_owned())].into());
    assert_eq!(marks().observe(mirror).unwrap().marked, Marked::No);
    let mut job = pod("shop", &json!({"app": "till"}), &json!({}));
    job.data["spec"]["restartPolicy"] = json!("OnFailure");
    assert_eq!(marks().observe(job.clone()).unwrap().marked, Marked::No);
    job.metadata.annotations = Some(
        [(
            "podcheckpointer.io/checkpoint".to_owned(),
            "true".to_owned(),
        )]
        .into(),
    );
    assert!(
        matches!(marks().observe(job).unwrap().marked, Marked::By(_)),
        "its owner is told why it cannot come back"
    );
    let own = named("ours", "agent-x", &json!({"app": "till"}), &json!({}));
    assert_eq!(marks().observe(own).unwrap().marked, Marked::No);
    let other = named("shop", "agent-x", &json!({"app": "till"}), &json!({}));
    assert_eq!(
        marks().observe(other).unwrap().marked,
        by("selector app=till")
    );
}

#[test]
fn nothing_marks_a_pod_in_a_namespace_that_is_not_selected() {
    let mut marks = Marks::new(Rules {
        limit: vec!["office".into()],
        ..rules()
    });
    marks.see_namespace("shop".into(), &edge());
    let annotations = json!({"podcheckpointer.io/checkpoint": "true"});
    let observed = marks
        .observe(pod("shop", &json!({"app": "till"}), &annotations))
        .unwrap();
    assert!(observed.marked == Marked::No && observed.object.is_empty());
}

#[test]
fn without_a_selector_of_namespaces_everything_is_known_at_once_and_nothing_is_kept_of_what_is_not_marked()
 {
    let mut marks = Marks::new(Rules {
        namespaces: None,
        ..rules()
    });
    let observed = marks
        .observe(pod("unheard-of", &json!({}), &json!({})))
        .unwrap();
    assert!(
        observed.marked == Marked::No && observed.object.is_empty() && marks.candidates.is_empty()
    );
}

#[test]
fn the_pods_of_a_namespace_are_checked_again_only_when_its_labels_change() {
    let mut marks = Marks::new(rules());
    assert_eq!(
        marks
            .observe(pod("shop", &json!({}), &json!({})))
            .unwrap()
            .marked,
        Marked::Unknown
    );
    marks
        .observe(named("office", "two", &json!({}), &json!({})))
        .unwrap();
    let told = |news: Vec<Observed>| -> Vec<(PodId, String, Marked)> {
        news.into_iter()
            .map(|it| (it.key, it.uid, it.marked))
            .collect()
    };
    let shop = |marked: Marked| vec![(id("shop_one"), "uid-one".to_owned(), marked)];
    assert_eq!(
        told(marks.see_namespace("shop".into(), &edge())),
        shop(by("namespace selector site=edge"))
    );
    assert_eq!(
        told(marks.see_namespace("shop".into(), &edge())),
        [],
        "nothing changed"
    );
    assert_eq!(
        told(marks.see_namespace("shop".into(), &BTreeMap::new())),
        shop(Marked::No)
    );

    marks.begin_namespaces();
    marks.list_namespace("shop".into(), &edge());
    assert_eq!(
        marks
            .observe(pod("shop", &json!({}), &json!({})))
            .unwrap()
            .marked,
        Marked::No,
        "the list is not complete"
    );
    assert_eq!(
        told(marks.end_namespaces()),
        shop(by("namespace selector site=edge"))
    );

    marks.forget(&id("shop_one"));
    assert_eq!(
        told(marks.see_namespace("shop".into(), &BTreeMap::new())),
        []
    );
    marks.begin_list();
    marks.end_list();
    assert!(
        marks.candidates.is_empty(),
        "what a list of pods does not name is not kept"
    );
}

#[test]
fn a_namespace_that_a_list_does_not_name_unmarks_nothing() {
    let mut marks = marks();
    marks.observe(pod("shop", &json!({}), &json!({}))).unwrap();
    marks.begin_namespaces();
    assert!(marks.end_namespaces().is_empty());
    assert_eq!(
        marks
            .observe(pod("shop", &json!({}), &json!({})))
            .unwrap()
            .marked,
        Marked::Unknown
    );
    marks.see_namespace("shop".into(), &edge());
    marks.forget_namespace("shop");
    assert_eq!(
        marks
            .observe(pod("shop", &json!({}), &json!({})))
            .unwrap()
            .marked,
        Marked::Unknown
    );
}

#[test]
fn bootkubes_checkpointer_is_not_marked_by_its_own_mark() {
    let seen = |annotation: &str, command: &str| {
        let pod = json!({"metadata": {"namespace": "kube-system", "name": "pod-checkpointer-x", "uid": "u",
            "annotations": {annotation: "true"}}, "spec": {"containers": [{"name": "pod-checkpointer", "command": [command]}],
            "volumes": [{"name": "etc-kubernetes", "hostPath": {"path": "/etc/kubernetes"}}]}});
        Marks::default()
            .observe(serde_json::from_value(pod).unwrap())
            .unwrap()
            .marked
    };
    assert_eq!(
        seen("checkpointer.alpha.coreos.com/checkpoint", "/checkpoint"),
        Marked::No
    );
    assert_ne!(
        seen("checkpointer.alpha.coreos.com/checkpoint", "/etcd"),
        Marked::No
    );
    assert_ne!(
        seen("podcheckpointer.io/checkpoint", "/checkpoint"),
        Marked::No,
        "its owner says so"
    );
}
