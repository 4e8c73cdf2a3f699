//! The table covers every field of the newest API, and is correct: pods with each field set, alone,
//! under relevant conditions, and many together, are rendered, and the differences must be those in
//! the table.

use std::collections::BTreeSet;
use std::io::Write as _;

use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::capture::changes::{self, What};
use crate::capture::manifest::{self, Live};
use crate::capture::offline::{self, Subject};
use crate::capture::schema;

/// A part of a path through the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    List,
    Map,
}

/// A field without subfields.
#[derive(Clone, Debug)]
struct Leaf {
    path: Vec<Step>,
    kind: String,
}

impl Leaf {
    fn segments(&self) -> Vec<Segment> {
        let segment = |step: &Step| match step {
            Step::Field(name) => Segment::Field(name.clone()),
            Step::List | Step::Map => Segment::Element("*".into()),
        };
        self.path.iter().map(segment).collect()
    }

    /// Values that some rule distinguishes.
    fn samples(&self) -> Vec<Value> {
        let path = text(&self.segments());
        match self.kind.as_str() {
            "integer" => vec![json!(1)],
            "boolean" => vec![json!(true), json!(false)],
            "date-time" => vec![json!("2026-11-21T10:00:00Z")],
            "object" => vec![json!({})],
            _ if path.rsplit('.').next() == Some("name") => vec![json!("n")],
            _ if path.ends_with("resources.limits[*]")
                || path.ends_with("resources.requests[*]") =>
            {
                vec![json!("1")]
            }
            "string" => ["x", "Always", "Recursive", "status.podIP", "$(x)"]
                .map(Value::from)
                .to_vec(),
            // a port: number or name
            _ => vec![json!("x"), json!(80)],
        }
    }
}

fn leaves() -> Vec<Leaf> {
    fn walk(schema: &Value, root: &Value, path: &mut Vec<Step>, found: &mut Vec<Leaf>) {
        let mut schema = schema;
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            schema = root.pointer(reference.trim_start_matches('#')).unwrap();
        }
        for choice in ["allOf", "anyOf", "oneOf"] {
            if let Some(first) = schema
                .get(choice)
                .and_then(Value::as_array)
                .and_then(|all| {
                    all.iter()
                        .find(|it| it.get("$ref").is_some() || it.get("properties").is_some())
                })
            {
                return walk(first, root, path, found);
            }
        }
        let mut below = |step, schema: &Value| {
            path.push(step);
            walk(schema, root, path, found);
            path.pop();
        };
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            for (name, schema) in properties {
                below(Step::Field(name.clone()), schema);
            }
        } else if let Some(items) = schema.get("items") {
            below(Step::List, items);
        } else if let Some(values) = schema
            .get("additionalProperties")
            .filter(|values| values.is_object())
        {
            below(Step::Map, values);
        } else {
            let kind = match (schema.get("format"), schema.get("type")) {
                (Some(Value::String(format)), _) if format == "date-time" => "date-time",
                (_, Some(Value::String(kind))) => kind,
                (_, Some(Value::Array(kinds))) => kinds[0].as_str().unwrap(),
                _ => "",
            };
            found.push(Leaf {
                path: path.clone(),
                kind: kind.to_owned(),
            });
        }
    }
    let root = schemars::schema_for!(Pod).to_value();
    let mut found = Vec::new();
    walk(&root, &root, &mut Vec::new(), &mut found);
    assert!(found.len() > 900, "only {} fields were found", found.len());
    found
}

/// Sets a field and what it requires; a map gets this key.
fn set(pod: &mut Value, path: &[Step], key: &str, value: Value) {
    let mut at = pod;
    for (index, step) in path.iter().enumerate() {
        at = match step {
            Step::Field(name) => {
                let next = match path.get(index + 1) {
                    Some(Step::List) => json!([]),
                    Some(_) => json!({}),
                    None => Value::Null,
                };
                at.as_object_mut().unwrap().entry(name).or_insert(next)
            }
            Step::Map => at
                .as_object_mut()
                .unwrap()
                .entry(key)
                .or_insert(Value::Null),
            Step::List => {
                let list = at.as_array_mut().unwrap();
                if list.is_empty() {
                    list.push(if index + 1 < path.len() {
                        json!({})
                    } else {
                        Value::Null
                    });
                }
                &mut list[0]
            }
        };
        let is_named = matches!(
            (step, path.get(index + 1)),
            (Step::List, Some(Step::Field(_)))
        );
        let has_names = [
            "env",
            "volumes",
            "containers",
            "initContainers",
            "ephemeralContainers",
        ];
        if is_named
            && matches!(&path[index - 1], Step::Field(list) if has_names.contains(&list.as_str()))
        {
            at.as_object_mut()
                .unwrap()
                .entry("name")
                .or_insert(json!("n"));
        }
    }
    *at = value;
}

fn bare() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": [{"name": "app", "image": "i"}]}})
}

/// Which cases of each rule occurred: itself, its exception, its addition.
type Seen = BTreeSet<(&'static str, &'static str)>;

/// Renders, and compares the result with the table.
fn check(object: &Value, seen: &mut Seen) {
    let subject = offline::subjects(object, "shop")
        .remove(0)
        .unwrap_or_else(|error| panic!("{error}: {object}"));
    let Subject::Pod(candidate) = subject else {
        panic!("not a pod: {object}")
    };
    let rendered = offline::render(
        &candidate,
        std::path::Path::new("/run/pod-checkpointer"),
        "node",
    );
    let (parent, _) = schema::read(&candidate.pod);
    let mut parent = serde_json::to_value(parent.unwrap()).unwrap();
    let fields = fields(&parent);
    if let Some(twin) = &rendered.manifest {
        parent.as_object_mut().unwrap().remove("status");
        compare(&parent, twin, seen);
        if fields
            .iter()
            .any(|(path, _)| path[0] == Segment::Field("status".into()))
        {
            seen.insert((rule("status.phase").paths, "itself"));
        }
        return;
    }
    for reason in &rendered.reasons {
        let refuses = |verdict: Verdict| matches!(verdict, Verdict::Refused(all) if all.contains(&reason.refusal));
        let mut is_explained = false;
        for rule in fields.iter().filter_map(|(path, _)| of(path)) {
            let exception = rule.unless.is_some_and(|unless| refuses(unless.verdict));
            for (what, holds) in [("itself", refuses(rule.verdict)), ("exception", exception)] {
                if holds {
                    seen.insert((rule.paths, what));
                    is_explained = true;
                }
            }
        }
        assert!(is_explained, "no rule refuses for {reason}: {object}");
    }
}

fn compare(parent: &Value, twin: &Value, seen: &mut Seen) {
    let changes = changes::between(parent, twin);
    for change in &changes {
        let about = || format!("{}: {:?} -> {:?}", change.path, change.from, change.to);
        let rule = change
            .rule
            .unwrap_or_else(|| panic!("no rule for {}", about()));
        let fits = |verdict: Verdict| match verdict {
            Verdict::Kept | Verdict::Refused(_) => false,
            Verdict::Rewritten => change.what == What::Rewritten,
            Verdict::Concrete => change.to.is_none(),
            Verdict::Dropped => change.what == What::Dropped,
        };
        let what = if change.from.is_none() && rule.added.is_some() {
            "addition"
        } else if change.from.is_some() && fits(rule.verdict) {
            "itself"
        } else if change.from.is_some() && rule.unless.is_some_and(|unless| fits(unless.verdict)) {
            "exception"
        } else {
            panic!("{}: the rule of {} does not say so", about(), rule.paths);
        };
        seen.insert((rule.paths, what));
    }
    // what did not change had to be kept
    for (path, value) in fields(parent) {
        let is_below = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
        let path_text = text(&path);
        let is_changed = changes
            .iter()
            .any(|change| path_text.strip_prefix(&change.path).is_some_and(is_below));
        // empty values mean nothing
        if is_changed || value == json!({}) || value == json!([]) {
            continue;
        }
        let Some(rule) = of(&path) else {
            panic!("no rule for {}", text(&path))
        };
        let what = match (rule.verdict, rule.unless.map(|unless| unless.verdict)) {
            (Verdict::Kept | Verdict::Rewritten, _) => "itself",
            (_, Some(Verdict::Kept)) => "exception",
            (verdict, _) => panic!("{} is kept, and its rule says {verdict:?}", text(&path)),
        };
        seen.insert((rule.paths, what));
    }
}

/// Every leaf; elements by their names, as in the changes.
fn fields(value: &Value) -> Vec<(Vec<Segment>, Value)> {
    changes::fields(value)
}

fn rule(path: &str) -> &'static Rule {
    of(&parse(path)).unwrap()
}

#[test]
fn every_field_of_a_pod_has_a_rule_and_every_rule_a_field() {
    let mut without = Vec::new();
    let mut used = BTreeSet::new();
    for leaf in leaves() {
        match of(&leaf.segments()) {
            Some(rule) => drop(used.insert(rule.paths)),
            None => without.push(text(&leaf.segments())),
        }
    }
    assert!(without.is_empty(), "add a rule for {without:#?}");
    // these keys of maps have rules of their own
    for key in [
        "podcheckpointer.io/x",
        "checkpointer.alpha.coreos.com/x",
        "kubernetes.io/config.x",
        "kubectl.kubernetes.io/last-applied-configuration",
        "k8s.ovn.org/pod-networks",
        "seccomp.security.alpha.kubernetes.io/pod",
    ] {
        used.insert(rule(&format!("metadata.annotations[{key}]")).paths);
    }
    used.insert(rule("spec.resources.limits[hugepages-2Mi]").paths);
    let unused: Vec<&str> = RULES
        .iter()
        .map(|rule| rule.paths)
        .filter(|paths| !used.contains(paths))
        .collect();
    assert!(unused.is_empty(), "no field has this rule: {unused:#?}");
    let known: BTreeSet<String> = leaves().iter().map(|leaf| text(&leaf.segments())).collect();
    for pattern in RULES.iter().flat_map(Rule::patterns) {
        let of_key = pattern.contains('[')
            && pattern
                .split(['[', ']'])
                .skip(1)
                .step_by(2)
                .any(|key| key != "*");
        let begin = pattern.strip_suffix(".**").unwrap_or(&pattern);
        let is_known = known.contains(begin)
            || pattern.ends_with(".**")
                && known.iter().any(|path| {
                    path.starts_with(&format!("{begin}.")) || path.starts_with(&format!("{begin}["))
                });
        assert!(of_key || is_known, "{pattern} is no field of a pod");
    }
}

#[test]
fn no_field_has_two_rules() {
    let mut seen = BTreeSet::new();
    for pattern in RULES.iter().flat_map(Rule::patterns) {
        assert!(seen.insert(pattern.clone()), "{pattern} stands twice");
    }
}

#[test]
fn only_what_is_not_carried_over_is_said_of_whole_subtrees() {
    for rule in RULES.iter().filter(|rule| rule.paths.ends_with("**")) {
        assert!(
            !matches!(rule.verdict, Verdict::Kept | Verdict::Rewritten),
            "{}",
            rule.paths
        );
    }
}

#[test]
fn a_field_of_the_future_has_no_rule_wherever_something_is_kept() {
    for path in [
        "spec.x",
        "spec.containers[a].x",
        "spec.containers[a].securityContext.capabilities.x",
        "metadata.x",
        "spec.volumes[a].hostPath.x",
        "spec.volumes[a].x",
        "spec.containers[a].volumeMounts[0].x",
        "spec.dnsConfig.x",
        "x",
    ] {
        assert!(of(&parse(path)).is_none(), "{path}");
    }
    assert_eq!(rule("spec.affinity.x.y[3].z").verdict, Verdict::Dropped);
}

/// Pods in which the exceptions of rules apply.
fn exceptions() -> Vec<Value> {
    let with = |at: &str, value: Value| {
        let mut pod = bare();
        let (object, key) = at.rsplit_once('/').unwrap();
        if pod.pointer(object).is_none() {
            let (outer, inner) = object.rsplit_once('/').unwrap();
            pod.pointer_mut(outer).unwrap()[inner] = json!({});
        }
        pod.pointer_mut(object).unwrap()[key] = value;
        pod
    };
    let annotation = |key: &str, value: &str| with("/metadata/annotations", json!({key: value}));
    let mut pods = vec![
        with("/metadata/name", json!("a.".repeat(126) + "b")),
        annotation("podcheckpointer.io/start-group", "soon"),
        annotation("podcheckpointer.io/checkpoint", "true"),
        annotation("checkpointer.alpha.coreos.com/checkpoint", "true"),
        annotation("kubernetes.io/config.mirror", "x"),
        annotation("kubernetes.io/config.source", "file"),
        annotation("kubernetes.io/config.source", "api"),
        annotation("kubernetes.io/config.hash", "x"),
        annotation("kubectl.kubernetes.io/last-applied-configuration", "{}"),
        annotation("k8s.v1.cni.cncf.io/network-status", "[]"),
        annotation("cni.projectcalico.org/podIP", "10.0.0.1"),
        annotation(
            "seccomp.security.alpha.kubernetes.io/pod",
            "runtime/default",
        ),
        with(
            "/metadata/ownerReferences",
            json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "n", "uid": "u", "controller": true}]),
        ),
        with(
            "/metadata/ownerReferences",
            json!([{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u", "controller": true}]),
        ),
        with("/spec/restartPolicy", json!("Never")),
        with("/spec/hostname", json!("")),
        with(
            "/spec/resources",
            json!({"limits": {"hugepages-2Mi": "4Mi"}}),
        ),
        with("/spec/resources", json!({"limits": {"hugepages-2Mi": "0"}})),
        with(
            "/spec/resources",
            json!({"limits": {"example.org/gpu": "1"}}),
        ),
        with("/spec/volumes", json!([{"name": "..", "emptyDir": {}}])),
        with("/status", json!({"phase": "Failed"})),
        with("/status", json!({"phase": "Running"})),
    ];
    let mut pod = annotation(
        "seccomp.security.alpha.kubernetes.io/pod",
        "runtime/default",
    );
    pod["spec"]["securityContext"] = json!({"seccompProfile": {"type": "RuntimeDefault"}});
    pods.push(pod);
    for subdomain in [Value::Null, json!("s")] {
        let mut pod = with("/metadata/name", json!("a.b"));
        pod["spec"]["setHostnameAsFQDN"] = json!(true);
        pod["spec"]["subdomain"] = subdomain;
        pods.push(pod);
    }
    let mut pod = bare();
    let get = json!({"httpGet": {"port": "web"}});
    pod["spec"]["hostNetwork"] = json!(true);
    pod["spec"]["containers"][0]["ports"] = json!([{"name": "web", "containerPort": 80}]);
    pod["spec"]["containers"][0]["livenessProbe"] = get;
    pods.push(pod);
    // another container's variable contains the address; the probe's command is expanded
    let mut pod = bare();
    let address = json!({"fieldRef": {"fieldPath": "status.podIP"}});
    pod["spec"]["containers"][0]["env"] = json!([
        {"name": "IP", "valueFrom": address}, {"name": "URL", "value": "http://$(IP)"}, {"name": "IP", "value": "later"}]);
    pod["spec"]["containers"][0]["startupProbe"] = json!({"exec": {"command": ["$(IP)"]}});
    pods.push(pod);
    let mut pod = bare();
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/v", "readOnly": false}, {"name": "v", "mountPath": "/w"}]);
    pod["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "s"}}]);
    pods.push(pod);
    pods.extend(["everything", "web", "node-agent"].map(|name| {
        let path = format!(
            "{}/tests/fixtures/pods/{name}.json",
            env!("CARGO_MANIFEST_DIR")
        );
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }));
    pods
}

fn cases() -> Vec<(Leaf, Value)> {
    let settable = |leaf: &Leaf| {
        let path = text(&leaf.segments());
        !["apiVersion", "kind", "metadata.name", "metadata.namespace"].contains(&path.as_str())
            && !path.starts_with("status")
    };
    leaves()
        .into_iter()
        .filter(settable)
        .flat_map(|leaf| {
            leaf.samples()
                .into_iter()
                .map(move |value| (leaf.clone(), value))
        })
        .collect()
}

#[test]
fn the_table_says_what_is_done_to_every_single_field() {
    let mut seen = Seen::new();
    let mut count = 0;
    for (leaf, value) in cases() {
        for key in ["cpu", "hugepages-1Gi", "example.org/x"] {
            if key != "cpu" && !leaf.path.contains(&Step::Map) {
                continue;
            }
            let mut pod = bare();
            set(&mut pod, &leaf.path, key, value.clone());
            check(&pod, &mut seen);
            count += 1;
        }
    }
    for pod in exceptions() {
        check(&pod, &mut seen);
        count += 1;
    }
    // a moved tag is reported by the runtime
    let Some(Ok(Subject::Pod(candidate))) = offline::subjects(&bare(), "shop").pop() else {
        panic!("no pod")
    };
    let typed = schema::read(&candidate.pod).0.unwrap();
    let live = Live {
        images: BTreeMap::from([("app".into(), "sha256:1".into())]),
        ..Live::default()
    };
    let (twin, _) = manifest::render(&typed, std::path::Path::new("/run/x"), &live);
    compare(
        &serde_json::to_value(&typed).unwrap(),
        &serde_json::to_value(twin).unwrap(),
        &mut seen,
    );

    let mut wanted = Seen::new();
    for rule in RULES {
        wanted.insert((rule.paths, "itself"));
        wanted.extend(rule.added.map(|_| (rule.paths, "addition")));
        wanted.extend(rule.unless.map(|_| (rule.paths, "exception")));
    }
    let unproven: Vec<_> = wanted.difference(&seen).collect();
    assert!(unproven.is_empty(), "no pod showed {unproven:#?}");
    // printed even if test output is captured: the counts are part of the evidence
    let _ = writeln!(
        std::io::stderr(),
        "rules: {count} pods, {} rules, {} fields",
        RULES.len(),
        leaves().len()
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn the_table_says_what_is_done_to_many_fields_at_once(chosen in proptest::collection::vec((any::<proptest::sample::Index>(), 0..3usize), 1..24)) {
        static CASES: LazyLock<Vec<(Leaf, Value)>> = LazyLock::new(cases);
        let mut pod = bare();
        for (index, key) in chosen {
            let (leaf, value) = index.get(&CASES);
            // a volume has one source; with two, the kubelet and the API server refuse it
            let is_source = matches!(leaf.path.as_slice(), [_, Step::Field(list), Step::List, Step::Field(field), ..] if list == "volumes" && field != "name");
            if is_source && pod.pointer("/spec/volumes/0").is_some_and(|volume| volume.as_object().unwrap().keys().any(|key| key != "name" && !leaf.path.contains(&Step::Field(key.clone())))) {
                continue;
            }
            // the value of a variable has only one source, too
            let from = leaf.path.iter().position(|step| *step == Step::Field("valueFrom".into()));
            if let Some((from, Some(Step::Field(source)))) = from.map(|from| (from, leaf.path.get(from + 1))) {
                let step = |step: &Step| if let Step::Field(name) = step { format!("/{name}") } else { "/0".to_owned() };
                let there: String = leaf.path[..=from].iter().map(step).collect();
                if pod.pointer(&there).and_then(Value::as_object).is_some_and(|known| known.keys().any(|key| key != source)) {
                    continue;
                }
            }
            set(&mut pod, &leaf.path, ["cpu", "memory", "example.org/x"][key], value.clone());
        }
        // no two containers have the same name
        if let Some(init) = pod.pointer_mut("/spec/initContainers/0") {
            init["name"] = json!("init");
        }
        check(&pod, &mut Seen::new());
    }
}
