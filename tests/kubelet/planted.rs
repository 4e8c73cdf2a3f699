//! Manifests that are known to be bad: a judge that passes one of them is no judge.

use serde_json::{Value, json};

use super::NODE;
use super::expected;
use super::judge::{Answer, Judge, Request, World};
use super::trial::disagreements_of;

const UID: &str = "33333333-3333-4333-8333-333333333333";

/// How many were planted; the ones that were not noticed are failures.
pub fn check(judge: &mut Judge, failures: &mut Vec<String>) -> usize {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "till", "namespace": "shop", "uid": "11111111-1111-4111-8111-111111111111"},
        "spec": {"priority": 8, "containers": [{
            "name": "app", "image": "shop/till:1", "args": ["serve", "n"], "env": [{"name": "A", "value": "012"}],
            "securityContext": {"runAsNonRoot": true, "runAsUser": 7},
            "livenessProbe": {"httpGet": {"port": 80, "path": "/"}},
        }]},
    });
    let address = || ["10.0.0.1".to_owned(), "10.0.0.1".to_owned()];
    let world = World {
        addresses: vec![address(), address()],
        ..World::default()
    };
    let request = Request {
        id: 0,
        node: NODE,
        pod: Some(&pod),
        world: Some(&world),
        ..Request::default()
    };
    let stored = judge.ask(&[request]).pop().unwrap();
    assert_eq!(
        stored.error, "",
        "the pod that everything is made from is good"
    );
    let good = good(&stored);
    // the good one first: what notices everything notices nothing
    let text = good.to_string();
    let answer = ask(judge, &text, &world);
    for problem in disagreements_of(&stored, &answer, UID) {
        failures.push(format!(
            "{}: nothing was planted, but {problem}",
            judge.version
        ));
    }
    let bad = bad(&good);
    let count = bad.len();
    for (name, text) in bad {
        let answer = ask(judge, &text, &world);
        if disagreements_of(&stored, &answer, UID).is_empty() {
            failures.push(format!(
                "{}: planted and not noticed: {name}",
                judge.version
            ));
        }
    }
    count
}

fn ask(judge: &mut Judge, text: &str, world: &World) -> Answer {
    judge
        .ask(&[Request {
            id: 0,
            node: NODE,
            manifest: Some(text),
            world: Some(world),
            ..Request::default()
        }])
        .pop()
        .unwrap()
}

fn good(stored: &Answer) -> Value {
    let mut good = expected::twin(&stored.pod, NODE, UID, super::RUN_DIR);
    good["apiVersion"] = json!("v1");
    good["kind"] = json!("Pod");
    good["metadata"]["name"] = json!("till");
    good
}

fn bad(good: &Value) -> Vec<(&'static str, String)> {
    // a YAML 1.2 library sees no need for quotes
    let naive = serde_yaml::to_string(good).unwrap();
    let yaml = naive.replace("- n\n", "- 'n'\n");
    assert_ne!(naive, yaml);
    let edited = |from: &str, to: &str| {
        assert!(yaml.contains(from), "{from:?} is not in the manifest");
        yaml.replace(from, to)
    };
    let changed = |pointer: &str, value: Value| {
        let mut bad = good.clone();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        bad.pointer_mut(parent).unwrap()[field] = value;
        bad.to_string()
    };
    let json = good.to_string();
    vec![
        ("an n without quotes", naive.clone()),
        (
            "a number of base eight without quotes",
            edited("value: '012'", "value: 012"),
        ),
        (
            "a time without quotes",
            edited("value: '012'", "value: 12:30"),
        ),
        (
            "a priority that YAML 1.1 reads to base eight",
            edited("priority: 9", "priority: 011000"),
        ),
        ("a text that ends early", json[..json.len() / 2].to_owned()),
        (
            "a YAML text that ends early and is still a pod",
            yaml[..yaml.find("securityContext").unwrap()].to_owned(),
        ),
        ("no text", String::new()),
        (
            "a service account",
            changed("/spec/serviceAccountName", json!("default")),
        ),
        (
            "a pull secret",
            changed("/spec/imagePullSecrets", json!([{"name": "s"}])),
        ),
        (
            "a Secret's volume",
            changed(
                "/spec/volumes",
                json!([{"name": "s", "secret": {"secretName": "s"}}]),
            ),
        ),
        (
            "a token's volume",
            changed(
                "/spec/volumes",
                json!([{"name": "s", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]),
            ),
        ),
        (
            "a variable of a ConfigMap",
            changed(
                "/spec/containers/0/env",
                json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k", "optional": true}}}]),
            ),
        ),
        (
            "a claim's volume",
            changed(
                "/spec/volumes",
                json!([{"name": "s", "persistentVolumeClaim": {"claimName": "c"}}]),
            ),
        ),
        (
            "a wrong type",
            changed("/spec/containers/0/args", json!(["serve", true])),
        ),
        (
            "a field that nobody knows in place of one",
            json.replace("runAsNonRoot", "runAsNotRoot"),
        ),
        (
            "another value of a variable",
            changed("/spec/containers/0/env/0/value", json!("$$012")),
        ),
        (
            "one variable more",
            changed(
                "/spec/containers/0/env",
                json!([{"name": "A", "value": "012"}, {"name": "B"}]),
            ),
        ),
        (
            "one argument less",
            changed("/spec/containers/0/args", json!(["serve"])),
        ),
        (
            "another UID",
            changed(
                "/metadata/uid",
                json!("44444444-4444-4444-8444-444444444444"),
            ),
        ),
        (
            "a node selector",
            changed("/spec/nodeSelector", json!({"a": "b"})),
        ),
        (
            "another grace",
            changed("/spec/terminationGracePeriodSeconds", json!(31)),
        ),
        (
            "a List",
            json!({"apiVersion": "v1", "kind": "PodList", "items": [good]}).to_string(),
        ),
    ]
}
