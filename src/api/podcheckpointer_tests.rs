use kube::CustomResourceExt as _;
use kube_cel::Validator;
use serde_json::{Value, json};

use super::*;
use crate::pod::selector;

fn fixtures() -> Value {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/podcheckpointers.yaml"
    );
    serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn schema() -> Value {
    let definition = serde_json::to_value(PodCheckpointer::crd()).unwrap();
    definition
        .pointer("/spec/versions/0/schema/openAPIV3Schema")
        .unwrap()
        .clone()
}

/// What the rules say to an object of this name and spec.
fn judge(schema: &Value, name: &str, spec: &Value) -> String {
    let object = json!({"apiVersion": "podcheckpointer.io/v1alpha1", "kind": "PodCheckpointer",
        "metadata": {"name": name}, "spec": spec});
    match Validator::new().validate(schema, &object, None) {
        Ok(()) => String::new(),
        Err(errors) => errors
            .into_iter()
            .map(|error| error.message + "\n")
            .collect(),
    }
}

#[test]
fn what_can_work_is_taken_and_what_cannot_is_refused_with_what_to_write() {
    let (schema, fixtures) = (schema(), fixtures());
    for spec in fixtures["good"].as_array().unwrap() {
        assert_eq!(judge(&schema, "default", spec), "", "{spec}");
        let read: PodCheckpointerSpec = serde_json::from_value(spec.clone()).unwrap();
        let again = serde_json::to_value(&read).unwrap();
        assert_eq!(
            serde_json::from_value::<PodCheckpointerSpec>(again).unwrap(),
            read
        );
    }
    for bad in fixtures["bad"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|bad| bad.get("schema").is_none())
    {
        let name = bad.get("name").and_then(Value::as_str).unwrap_or("default");
        let said = judge(&schema, name, &bad["spec"]);
        assert!(
            said.contains(bad["says"].as_str().unwrap()),
            "{} gets {said:?}",
            bad["spec"]
        );
    }
}

/// Every rule is there because something would go wrong without it: each refuses something in the
/// fixtures.
#[test]
fn each_rule_refuses_something() {
    fn messages(schema: &Value, found: &mut Vec<String>) {
        match schema {
            Value::Object(fields) => {
                for rule in fields
                    .get("x-kubernetes-validations")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                {
                    found.push(rule["message"].as_str().unwrap().to_owned());
                }
                fields.values().for_each(|value| messages(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| messages(value, found)),
            _ => {}
        }
    }
    let (schema, fixtures) = (schema(), fixtures());
    let bad = fixtures["bad"].as_array().unwrap();
    let said: String = bad
        .iter()
        .map(|bad| {
            judge(
                &schema,
                bad.get("name").and_then(Value::as_str).unwrap_or("default"),
                &bad["spec"],
            )
        })
        .collect();
    let mut rules = Vec::new();
    messages(&schema, &mut rules);
    assert!(rules.len() > 20, "{rules:?}");
    for message in rules {
        assert!(
            said.contains(&message),
            "nothing in the fixtures is refused with: {message}"
        );
    }
}

#[test]
fn a_selector_of_the_resource_is_one_that_the_agent_reads() {
    let selector = LabelSelector {
        match_labels: BTreeMap::from([("app".to_owned(), "till".to_owned())]),
        match_expressions: vec![
            Requirement {
                key: "tier".into(),
                operator: Operator::In,
                values: vec!["front".into(), "back".into()],
            },
            Requirement {
                key: "site".into(),
                operator: Operator::NotIn,
                values: vec!["centre".into()],
            },
            Requirement {
                key: "a".into(),
                operator: Operator::Exists,
                values: Vec::new(),
            },
            Requirement {
                key: "b".into(),
                operator: Operator::DoesNotExist,
                values: Vec::new(),
            },
        ],
    };
    let text = selector.selector().to_string();
    assert_eq!(
        text,
        "app=till,tier in (back,front),site notin (centre),a,!b"
    );
    assert_eq!(selector::parse(&text).unwrap(), selector.selector());
}
