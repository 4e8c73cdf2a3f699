//! What differs between a parent and its twin, field by field, with the rule that says so.
//!
//! Pure. Elements of a list are matched by `name` if each has a different one, as in the reasons: a
//! volume of the parent is compared with the twin's volume of the same name, whatever its position.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Map, Value};

use super::rules::{self, Rule, Segment, Verdict};

/// One difference.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The field, for example `spec.containers[app].imagePullPolicy`.
    pub path: String,
    /// What was done to the field.
    pub what: What,
    /// The parent's value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// The twin's value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
    /// Why, a sentence without its full stop.
    pub why: &'static str,
    /// The rule that says so.
    #[serde(skip)]
    pub rule: Option<&'static Rule>,
}

/// What is done to a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum What {
    /// The parent does not have it.
    Added,
    /// The twin does not have it.
    Dropped,
    /// The twin has what the parent's reference refers to.
    MadeConcrete,
    /// The twin has another value.
    Rewritten,
}

impl What {
    /// The name for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Dropped => "dropped",
            Self::MadeConcrete => "made concrete",
            Self::Rewritten => "rewritten",
        }
    }
}

/// Every difference between this twin and this parent, both as JSON.
pub fn between(parent: &Value, twin: &Value) -> Vec<Change> {
    let mut found = Vec::new();
    let mut path = Vec::new();
    compare(Some(parent), Some(twin), &mut path, &mut found);
    found
}

fn compare(
    parent: Option<&Value>,
    twin: Option<&Value>,
    path: &mut Vec<Segment>,
    found: &mut Vec<Change>,
) {
    if parent == twin {
        return;
    }
    match (parent, twin) {
        (Some(Value::Object(one)), Some(Value::Object(other))) => objects(one, other, path, found),
        (Some(Value::Array(one)), Some(Value::Array(other))) => lists(one, other, path, found),
        // a new element is one change, a new field is as many changes as it has fields
        (None, Some(Value::Object(_))) if matches!(path.last(), Some(Segment::Element(_))) => {
            found.push(change(None, twin, path));
        }
        (None, Some(Value::Object(other))) if !other.is_empty() => {
            objects(&Map::new(), other, path, found);
        }
        (None, Some(Value::Array(other))) if !other.is_empty() => lists(&[], other, path, found),
        (Some(Value::Object(one)), None) if !one.is_empty() && rules::of(path).is_none() => {
            objects(one, &Map::new(), path, found);
        }
        (Some(Value::Array(one)), None) if !one.is_empty() && rules::of(path).is_none() => {
            lists(one, &[], path, found);
        }
        _ => found.push(change(parent, twin, path)),
    }
}

fn change(parent: Option<&Value>, twin: Option<&Value>, path: &[Segment]) -> Change {
    let rule = rules::of(path).or_else(|| rules::within(path));
    let is_concrete = rule.is_some_and(|rule| rule.verdict == Verdict::Concrete);
    let what = match (parent, twin) {
        (None, _) if !is_concrete => What::Added,
        (Some(_), None) if !is_concrete => What::Dropped,
        _ if is_concrete => What::MadeConcrete,
        _ => What::Rewritten,
    };
    let why = rule.map(|rule| match (what, rule.added, rule.unless) {
        (What::Added, Some(added), _) => added,
        (_, _, Some(unless)) if rule.verdict == Verdict::Kept => unless.why,
        _ => rule.why,
    });
    Change {
        path: rules::text(path),
        what,
        from: parent.cloned(),
        to: twin.cloned(),
        why: why.unwrap_or("no rule covers this field"),
        rule,
    }
}

fn objects(
    one: &Map<String, Value>,
    other: &Map<String, Value>,
    path: &mut Vec<Segment>,
    found: &mut Vec<Change>,
) {
    let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let is_map = rules::has_free_keys(path);
    for key in keys {
        path.push(if is_map {
            Segment::Element(key.clone())
        } else {
            Segment::Field(key.clone())
        });
        compare(one.get(key), other.get(key), path, found);
        path.pop();
    }
}

fn lists(one: &[Value], other: &[Value], path: &mut Vec<Segment>, found: &mut Vec<Change>) {
    if let (Some(one), Some(other)) = (by_name(one), by_name(other)) {
        let mut names: Vec<&str> = one.keys().copied().collect();
        names.extend(other.keys().filter(|name| !one.contains_key(*name)));
        for name in names {
            path.push(Segment::Element(name.to_owned()));
            compare(
                one.get(name).copied(),
                other.get(name).copied(),
                path,
                found,
            );
            path.pop();
        }
        return;
    }
    for index in 0..one.len().max(other.len()) {
        path.push(Segment::Element(index.to_string()));
        compare(one.get(index), other.get(index), path, found);
        path.pop();
    }
}

/// The elements by name; `None` if some have no name, or the same one.
fn by_name(list: &[Value]) -> Option<BTreeMap<&str, &Value>> {
    let named: Option<BTreeMap<&str, &Value>> = list
        .iter()
        .map(|element| Some((element.get("name")?.as_str()?, element)))
        .collect();
    named.filter(|named| named.len() == list.len())
}

/// Every leaf with its path; empty objects and lists are leaves.
#[cfg(test)]
pub fn fields(value: &Value) -> Vec<(Vec<Segment>, Value)> {
    fn walk(value: &Value, path: &mut Vec<Segment>, found: &mut Vec<(Vec<Segment>, Value)>) {
        let mut below = |segment, value| {
            path.push(segment);
            walk(value, path, found);
            path.pop();
        };
        match value {
            Value::Object(object) if !object.is_empty() => {
                let is_map = rules::has_free_keys(path);
                for (key, value) in object {
                    let key = key.clone();
                    let segment = if is_map {
                        Segment::Element(key)
                    } else {
                        Segment::Field(key)
                    };
                    path.push(segment);
                    walk(value, path, found);
                    path.pop();
                }
            }
            Value::Array(list) if !list.is_empty() => match by_name(list) {
                Some(named) => {
                    for (name, value) in named {
                        below(Segment::Element(name.to_owned()), value);
                    }
                }
                None => {
                    list.iter()
                        .enumerate()
                        .for_each(|(at, value)| below(Segment::Element(at.to_string()), value));
                }
            },
            value => found.push((path.clone(), value.clone())),
        }
    }
    let mut found = Vec::new();
    walk(value, &mut Vec::new(), &mut found);
    found
}
