//! The kubelet's semantics as tables; then the kubelet's code, reimplemented here line by line, as
//! the reference for generated pods.

#![allow(clippy::needless_pass_by_value)]
#![allow(clippy::single_match_else)]

use k8s_openapi::api::core::v1::{ConfigMapEnvSource, EnvFromSource, SecretEnvSource};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const PARENT: &str = "10.1.2.3";
const TWIN: &str = "10.9.8.7";

fn addresses(one: &str) -> Addresses {
    Addresses {
        one: one.into(),
        all: format!("{one},fd00::{}", one.len()),
    }
}

fn container(env: serde_json::Value) -> Container {
    serde_json::from_value(json!({"name": "app", "env": env})).unwrap()
}

fn given(pairs: &[(&str, &str)]) -> Environment {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn field(path: &str) -> serde_json::Value {
    json!({"fieldRef": {"fieldPath": path}})
}

/// Name and value, or name and `<path>` of a field.
fn written(env: &[EnvVar]) -> Vec<(String, String)> {
    env.iter()
        .map(|entry| {
            let from = entry
                .value_from
                .as_ref()
                .and_then(|from| from.field_ref.as_ref());
            let value = entry
                .value
                .clone()
                .or(from.map(|field| format!("<{}>", field.field_path)));
            (entry.name.clone(), value.unwrap())
        })
        .collect()
}

fn rendered(container: &Container, captured: &Environment) -> Vec<(String, String)> {
    written(&render(container, captured, false, &addresses(PARENT)).unwrap())
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn expansion_is_the_kubelets() {
    let value = |name: &str| match name {
        "A" => Some("alpha"),
        "EMPTY" => Some(""),
        "" => Some("nameless"),
        _ => None,
    };
    // from third_party/forked/golang/expansion/expand_test.go.
    for (input, wanted) in [
        ("", ""),
        ("$", "$"),
        ("$$", "$"),
        ("$$$", "$$"),
        ("$(A)", "alpha"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$alpha"),
        ("$(A)$(A)", "alphaalpha"),
        ("$(EMPTY)", ""),
        ("$(NONE)", "$(NONE)"),
        ("$()", "nameless"),
        ("$(A", "$(A"),
        ("$((A)", "$((A)"),
        ("$($(A))", "$($(A))"),
        ("x$A", "x$A"),
        ("$\u{e9}(A)", "$\u{e9}(A)"),
        ("\\$(A)", "\\alpha"),
        ("$(A)$", "alpha$"),
        ("$$$$(A)", "$$(A)"),
        ("f$(A", "f$(A"),
        ("$-(A)", "$-(A)"),
    ] {
        assert_eq!(expand(input, value), wanted, "{input:?}");
        assert_eq!(expand(&escape(input), value), input, "escaped {input:?}");
    }
}

#[test]
fn what_was_captured_becomes_literals_whatever_was_declared() {
    let container = container(json!([
        {"name": "PLAIN", "value": "y"},
        {"name": "FROM", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "NODE", "valueFrom": field("spec.nodeName")},
        {"name": "HOST", "valueFrom": field("status.hostIP")},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        {"name": "FILE", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "p", "key": "k"}}},
        {"name": "MISSING", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k", "optional": true}}},
    ]));
    let captured = given(&[
        ("PLAIN", "y"),
        ("FROM", "p$(PLAIN)$$\nq"),
        ("NODE", "edge-1"),
        ("HOST", "192.168.0.1"),
        ("CPU", "2"),
        ("FILE", "f"),
        ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
    ]);
    let wanted = pairs(&[
        ("CPU", "2"),
        ("FILE", "f"),
        ("FROM", "p$$(PLAIN)$$$$\nq"),
        ("HOST", "192.168.0.1"),
        ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
        ("NODE", "edge-1"),
        ("PLAIN", "y"),
    ]);
    assert_eq!(rendered(&container, &captured), wanted);
}

#[test]
fn what_hangs_on_the_pods_address_stays_a_reference_and_everything_else_in_it_does_not() {
    let container = container(json!([
        {"name": "POD_IP", "valueFrom": field("status.podIP")},
        {"name": "NAME", "valueFrom": field("metadata.name")},
        {"name": "URL", "value": "http://$(POD_IP):8080/$(NAME)?$$(NAME)&$(NOT_THERE)"},
        {"name": "DEEPER", "value": "<$(URL)>"},
        {"name": "ALL", "valueFrom": field("status.podIPs")},
    ]));
    let url = format!("http://{PARENT}:8080/web?$(NAME)&$(NOT_THERE)");
    let captured = given(&[
        ("ALL", &addresses(PARENT).all),
        ("DEEPER", &format!("<{url}>")),
        ("NAME", "web"),
        ("POD_IP", PARENT),
        ("URL", &url),
    ]);
    let wanted = pairs(&[
        ("NAME", "web"),
        ("POD_IP", "<status.podIP>"),
        ("URL", "http://$(POD_IP):8080/web?$$(NAME)&$$(NOT_THERE)"),
        (
            "DEEPER",
            "<http://$(POD_IP):8080/web?$$(NAME)&$$(NOT_THERE)>",
        ),
        ("ALL", "<status.podIPs>"),
    ]);
    assert_eq!(rendered(&container, &captured), wanted);
}

#[test]
fn on_the_host_network_the_address_is_the_nodes_and_a_literal() {
    let container = container(json!([
        {"name": "POD_IP", "valueFrom": field("status.podIP")},
        {"name": "URL", "value": "http://$(POD_IP)"},
    ]));
    let captured = given(&[("POD_IP", "192.168.0.1"), ("URL", "http://192.168.0.1")]);
    let env = render(&container, &captured, true, &addresses("192.168.0.1")).unwrap();
    assert_eq!(
        written(&env),
        pairs(&[("POD_IP", "192.168.0.1"), ("URL", "http://192.168.0.1")])
    );
}

#[test]
fn an_address_that_is_named_before_it_is_known_is_no_reference() {
    let container = container(json!([
        {"name": "EARLY", "value": "$(POD_IP)"},
        {"name": "POD_IP", "valueFrom": field("status.podIP")},
    ]));
    let captured = given(&[("EARLY", "$(POD_IP)"), ("POD_IP", PARENT)]);
    assert_eq!(
        rendered(&container, &captured),
        pairs(&[("EARLY", "$$(POD_IP)"), ("POD_IP", "<status.podIP>")])
    );
}

#[test]
fn a_name_that_is_overridden_later_means_what_it_was_at_the_time() {
    let container = container(json!([
        {"name": "IP", "valueFrom": field("status.podIP")},
        {"name": "URL", "value": "http://$(IP)"},
        {"name": "IP", "value": "none"},
    ]));
    let captured = given(&[("IP", "none"), ("URL", &format!("http://{PARENT}"))]);
    let wanted = pairs(&[
        ("IP", "<status.podIP>"),
        ("URL", "http://$(IP)"),
        ("IP", "none"),
    ]);
    assert_eq!(rendered(&container, &captured), wanted);
}

#[test]
fn a_variable_of_env_from_that_is_overridden_later_is_read_off_what_ran() {
    let mut container = container(json!([
        {"name": "IP", "valueFrom": field("status.podIP")},
        {"name": "DEP", "value": "$(IP)/$(LEVEL)/end"},
        {"name": "LEVEL", "value": "debug"},
    ]));
    container.env_from = Some(vec![EnvFromSource::default()]);
    let captured = given(&[
        ("IP", PARENT),
        ("LEVEL", "debug"),
        ("DEP", &format!("{PARENT}/in$fo/end")),
    ]);
    let wanted = pairs(&[
        ("LEVEL", "debug"),
        ("IP", "<status.podIP>"),
        ("DEP", "$(IP)/in$$fo/end"),
    ]);
    assert_eq!(rendered(&container, &captured), wanted);
}

#[test]
fn what_cannot_be_explained_is_unknown() {
    let ip = json!({"name": "IP", "valueFrom": field("status.podIP")});
    let optional = json!({"configMapKeyRef": {"name": "c", "key": "k", "optional": true}});
    let url = json!({"name": "URL", "value": "http://$(IP)"});
    for (env, captured) in [
        // declared but missing
        (json!([{"name": "A", "value": "x"}]), given(&[])),
        // an optional key that may have overridden the address
        (
            json!([ip, {"name": "IP", "valueFrom": optional}]),
            given(&[("IP", PARENT)]),
        ),
        // the same, one step further, and with a later entry that counts
        (
            json!([ip, {"name": "IP", "valueFrom": optional}, {"name": "A", "value": "$(IP)"}, {"name": "IP", "value": "x"}]),
            given(&[("IP", "x"), ("A", PARENT)]),
        ),
        // not the pod's address
        (
            json!([ip, url]),
            given(&[("IP", PARENT), ("URL", "http://10.0.0.1")]),
        ),
        // two unknown parts
        (
            json!([
                ip,
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                {"name": "B", "value": "$(A)$(IP)$(A)"},
                {"name": "A", "value": "x"},
            ]),
            given(&[("IP", PARENT), ("A", "x"), ("B", &format!("q{PARENT}q"))]),
        ),
    ] {
        let error = render(
            &container(env.clone()),
            &captured,
            false,
            &addresses(PARENT),
        )
        .unwrap_err();
        assert_eq!(error.refusal(), Refusal::EnvironmentUnknown, "{env}");
    }
}

#[test]
fn a_chain_that_doubles_itself_ends() {
    let mut env = vec![json!({"name": "V0", "valueFrom": field("status.podIP")})];
    env.extend(
        (1..64)
            .map(|n| json!({"name": format!("V{n}"), "value": format!("$(V{0})$(V{0})", n - 1)})),
    );
    let captured = (0..64).map(|n| (format!("V{n}"), String::new())).collect();
    assert!(render(&container(json!(env)), &captured, false, &addresses(PARENT)).is_err());
}

#[test]
fn containerd_tells_exactly_what_it_was_asked() {
    let info = json!({"config": {"envs": [{"key": "A", "value": "1"}, {"key": "EMPTY"}]}, "runtimeSpec": {"process": {"env": ["X=1"]}}});
    assert_eq!(
        captured(&info, &container(json!([])), None).unwrap(),
        given(&[("A", "1"), ("EMPTY", "")])
    );
    assert_eq!(
        captured(&json!({"config": {}}), &container(json!([])), None).unwrap(),
        Environment::new()
    );
}

/// The record of CRI-O 1.37: defaults, the kubelet's variables, the image's own.
fn crio(given: &[&str], own: &[&str]) -> serde_json::Value {
    let defaults = ["PATH=/usr/bin:/bin", "TERM=xterm", "HOSTNAME=web-1"];
    let env: Vec<&str> = defaults.iter().chain(given).chain(own).copied().collect();
    json!({"sandboxID": "s", "pid": 1, "privileged": false, "runtimeSpec": {"process": {"env": env}}})
}

const SERVICES: [&str; 2] = [
    "KUBERNETES_SERVICE_HOST=10.0.0.1",
    "KUBERNETES_PORT_443_TCP_ADDR=10.0.0.1",
];

#[test]
fn on_crio_the_images_own_variables_are_left_to_the_image() {
    let container = container(json!([{"name": "MODE", "value": "fast"}]));
    let info = crio(
        &["MODE=fast", SERVICES[0], SERVICES[1]],
        &["PATH=/opt/bin", "LANG=C", "GIT_PORT=9"],
    );
    let wanted = given(&[
        ("KUBERNETES_PORT_443_TCP_ADDR", "10.0.0.1"),
        ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
        ("MODE", "fast"),
    ]);
    assert_eq!(captured(&info, &container, Some("web-1")).unwrap(), wanted);
}

#[test]
fn on_crio_env_from_is_what_stands_between_the_runtimes_defaults_and_the_service_variables() {
    let mut container = container(json!([{"name": "MODE", "value": "fast"}]));
    container.env_from = Some(vec![EnvFromSource::default()]);
    let info = crio(
        &["user=me", "MODE=fast", "a.b=c=d", SERVICES[0], SERVICES[1]],
        &["PATH=/opt/bin", "LANG=C"],
    );
    let wanted = given(&[
        ("KUBERNETES_PORT_443_TCP_ADDR", "10.0.0.1"),
        ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
        ("MODE", "fast"),
        ("a.b", "c=d"),
        ("user", "me"),
    ]);
    assert_eq!(captured(&info, &container, Some("web-1")).unwrap(), wanted);
}

#[test]
fn on_crio_env_from_without_a_service_variable_behind_it_is_unknown() {
    let mut container = container(json!([]));
    container.env_from = Some(vec![EnvFromSource::default()]);
    let error = captured(&crio(&["user=me"], &["LANG=C"]), &container, Some("web-1")).unwrap_err();
    assert_eq!(error.refusal(), Refusal::EnvironmentUnknown);
}

#[test]
fn on_crio_a_default_that_env_from_changed_in_place_is_taken() {
    let mut container = container(json!([{"name": "PATH", "value": "/mine"}]));
    container.env_from = Some(vec![EnvFromSource::default()]);
    let info = json!({"runtimeSpec": {"process": {"env":
        ["PATH=/mine", "TERM=dumb", "HOSTNAME=other", SERVICES[0], "LANG=C"]}}});
    let wanted = given(&[
        ("HOSTNAME", "other"),
        ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
        ("PATH", "/mine"),
        ("TERM", "dumb"),
    ]);
    assert_eq!(captured(&info, &container, Some("web-1")).unwrap(), wanted);
}

#[test]
fn a_record_that_does_not_tell_is_unknown_and_bytes_are_not_text() {
    let app = container(json!([]));
    for info in [
        json!(null),
        json!({}),
        json!({"config": {"envs": "A=1"}}),
        json!({"config": {"envs": [{"value": "1"}]}}),
        json!({"config": {"envs": [{"key": "A", "value": 1}]}}),
        json!({"runtimeSpec": {"process": {"env": ["no equals sign"]}}}),
        json!({"runtimeSpec": {"process": {"env": [1]}}}),
    ] {
        assert_eq!(
            captured(&info, &app, None).unwrap_err().refusal(),
            Refusal::EnvironmentUnknown,
            "{info}"
        );
    }
    for value in ["a\u{0}b", "a\u{fffd}b"] {
        let info = json!({"config": {"envs": [{"key": "A", "value": value}]}});
        let error = captured(&info, &app, None).unwrap_err();
        assert_eq!(error, Error::NotText("A".into()));
        assert!(
            !error.to_string().contains(value),
            "the error contains a value: {error}"
        );
    }
}

#[test]
fn service_variables_are_known_from_a_container_that_hides_none() {
    let services = given(&[
        ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
        ("KUBERNETES_PORT", "tcp://10.0.0.1:443"),
    ]);
    let with = |name: &str| {
        let mut captured = services.clone();
        captured.insert(name.to_owned(), "x".into());
        captured
    };
    let of =
        |env: serde_json::Value, captured: &Environment| super::services(&container(env), captured);
    assert_eq!(of(json!([]), &services), Some(services.clone()));
    assert_eq!(
        of(json!([{"name": "A", "value": "x"}]), &with("A")),
        Some(services.clone())
    );
    // a declared name may hide a Service's variable
    assert_eq!(
        of(
            json!([{"name": "KUBERNETES_SERVICE_HOST", "value": "x"}]),
            &services
        ),
        None
    );
    assert_eq!(
        of(
            json!([{"name": "WEB_PORT", "value": "x"}]),
            &with("WEB_PORT")
        ),
        None
    );
    // a variable that is neither declared nor a Service's
    assert_eq!(of(json!([]), &with("A")), None);
    let mut from = container(json!([]));
    from.env_from = Some(vec![EnvFromSource::default()]);
    assert_eq!(super::services(&from, &services), None);
}

#[test]
fn an_environment_that_could_start_no_process_is_not_computed() {
    let mut env = vec![json!({"name": "V0", "value": "x".repeat(1000)})];
    env.extend(
        (1..64)
            .map(|n| json!({"name": format!("V{n}"), "value": format!("$(V{0})$(V{0})", n - 1)})),
    );
    let fields = Environment::new();
    assert_eq!(
        computed(&container(json!(env)), &fields, &addresses(PARENT), &fields),
        None
    );
}

/// `makeEnvironmentVariables` of pkg/kubelet/kubelet_pods.go, with the objects it would fetch.
struct Kubelet {
    objects: BTreeMap<String, BTreeMap<String, String>>,
    services: BTreeMap<String, String>,
    address: Addresses,
}

impl Kubelet {
    fn environment(&self, container: &Container) -> Environment {
        let mut temporary = BTreeMap::new();
        for source in container.env_from.iter().flatten() {
            let name = source.config_map_ref.as_ref().map(|it| &it.name);
            let name = name
                .or(source.secret_ref.as_ref().map(|it| &it.name))
                .unwrap();
            let prefix = source.prefix.clone().unwrap_or_default();
            for (key, value) in self.objects.get(name).into_iter().flatten() {
                temporary.insert(format!("{prefix}{key}"), value.clone());
            }
        }
        for entry in container.env.iter().flatten() {
            let text = entry.value.clone().unwrap_or_default();
            let value = if text.is_empty() {
                match &entry.value_from {
                    None => String::new(),
                    Some(EnvVarSource {
                        field_ref: Some(field),
                        ..
                    }) => match field.field_path.as_str() {
                        "status.podIP" => self.address.one.clone(),
                        "status.podIPs" => self.address.all.clone(),
                        path => format!("field {path}"),
                    },
                    Some(from) => {
                        let key = from.config_map_key_ref.as_ref().unwrap();
                        match self
                            .objects
                            .get(&key.name)
                            .and_then(|object| object.get(&key.key))
                        {
                            Some(value) => value.clone(),
                            None if key.optional == Some(true) => continue,
                            None => panic!("the container would not have started"),
                        }
                    }
                }
            } else {
                expand_by_the_letter(&text, &|name| {
                    temporary
                        .get(name)
                        .or_else(|| self.services.get(name))
                        .cloned()
                })
            };
            temporary.insert(entry.name.clone(), value);
        }
        for (name, value) in &self.services {
            temporary
                .entry(name.clone())
                .or_insert_with(|| value.clone());
        }
        temporary
    }
}

/// third_party/forked/golang/expansion/expand.go, line by line.
fn expand_by_the_letter(input: &str, mapping: &dyn Fn(&str) -> Option<String>) -> String {
    let bytes = input.as_bytes();
    let mut buffer = Vec::new();
    let (mut checkpoint, mut cursor) = (0, 0);
    while cursor < bytes.len() {
        if bytes[cursor] == b'$' && cursor + 1 < bytes.len() {
            buffer.extend_from_slice(&bytes[checkpoint..cursor]);
            let rest = &input[cursor + 1..];
            let first = rest.chars().next().unwrap();
            let advance = match first {
                '$' => {
                    buffer.push(b'$');
                    1
                }
                '(' => match rest.find(')') {
                    Some(end) => {
                        let name = &rest[1..end];
                        buffer.extend(
                            mapping(name)
                                .unwrap_or_else(|| format!("$({name})"))
                                .bytes(),
                        );
                        end + 1
                    }
                    None => {
                        buffer.extend_from_slice(b"$(");
                        1
                    }
                },
                other => {
                    buffer.extend(format!("${other}").bytes());
                    other.len_utf8()
                }
            };
            cursor += advance;
            checkpoint = cursor + 1;
        }
        cursor += 1;
    }
    buffer.extend_from_slice(&bytes[checkpoint..]);
    String::from_utf8(buffer).unwrap()
}

const NAMES: [&str; 7] = [
    "A",
    "B",
    "C",
    "IP",
    "X_SERVICE_HOST",
    "X_SERVICE_PORT",
    "PATH",
];

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(NAMES.to_vec()).prop_map(str::to_owned)
}

fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        2 => name().prop_map(|name| format!("$({name})")),
        1 => prop::sample::select(vec!["$", "$$", "(", ")", "$(", "x", "\u{e9}", "", "\n", "$()", "$(NONE)", PARENT])
            .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

fn entry() -> impl Strategy<Value = EnvVar> {
    let from = prop_oneof![
        3 => prop::sample::select(vec!["status.podIP", "status.podIPs", "metadata.name"]).prop_map(field),
        1 => Just(json!({"configMapKeyRef": {"name": "one", "key": "A"}})),
        1 => prop::sample::select(NAMES.to_vec())
            .prop_map(|key| json!({"configMapKeyRef": {"name": "two", "key": key, "optional": true}})),
    ];
    let value = prop_oneof![
        3 => text().prop_map(|text| json!({"value": text})),
        2 => from.prop_map(|from| json!({"valueFrom": from})),
    ];
    (name(), value).prop_map(|(name, mut value)| {
        value["name"] = json!(name);
        serde_json::from_value(value).unwrap()
    })
}

fn objects() -> impl Strategy<Value = BTreeMap<String, BTreeMap<String, String>>> {
    let object = || prop::collection::btree_map(name(), text(), 0..4);
    (object(), object()).prop_map(|(mut one, two)| {
        one.entry("A".into()).or_insert_with(|| "a$(B)".into());
        BTreeMap::from([("one".into(), one), ("two".into(), two)])
    })
}

fn sources() -> impl Strategy<Value = Vec<EnvFromSource>> {
    let source = (
        prop::bool::ANY,
        prop::sample::select(vec!["one", "two"]),
        prop::sample::select(vec!["", "X_"]),
    )
        .prop_map(|(secret, name, prefix)| EnvFromSource {
            config_map_ref: (!secret).then(|| ConfigMapEnvSource {
                name: name.into(),
                optional: None,
            }),
            secret_ref: secret.then(|| SecretEnvSource {
                name: name.into(),
                optional: None,
            }),
            prefix: Some(prefix.into()),
        });
    prop::collection::vec(source, 0..3)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is declared, the twin gets at its new address what the parent would get there.
    #[test]
    fn a_twin_gets_what_the_parent_would_get_at_the_new_address(
        env in prop::collection::vec(entry(), 0..6),
        env_from in sources(),
        objects in objects(),
        services in prop::sample::select(vec![vec![], vec!["X_SERVICE_HOST"], vec!["X_SERVICE_HOST", "X_SERVICE_PORT"]]),
    ) {
        let services: BTreeMap<_, _> = services.iter().map(|name| ((*name).to_owned(), "10.0.0.9".to_owned())).collect();
        let parent = Container { env: Some(env), env_from: Some(env_from), ..Container::default() };
        let mut kubelet = Kubelet { objects, services, address: addresses(PARENT) };
        let captured = kubelet.environment(&parent);
        match render(&parent, &captured, false, &kubelet.address) {
            Ok(env) => {
                kubelet.address = addresses(TWIN);
                let wanted = kubelet.environment(&parent);
                let twin = Container { env: Some(env), ..Container::default() };
                prop_assert_eq!(kubelet_without_objects().environment(&twin), wanted);
            }
            // refused only if the address is involved at all
            Err(_) => prop_assert!(parent.env.iter().flatten().any(|entry| matches!(source(entry, false), Source::Address(_)))),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// What is computed without a record is what the kubelet would have given, or nothing.
    #[test]
    fn what_is_computed_is_what_the_kubelet_would_give(
        env in prop::collection::vec(entry(), 0..6),
        services in prop::sample::select(vec![vec![], vec!["X_SERVICE_HOST"], vec!["X_SERVICE_HOST", "X_SERVICE_PORT"]]),
    ) {
        let services: BTreeMap<_, _> = services.iter().map(|name| ((*name).to_owned(), "10.0.0.9".to_owned())).collect();
        let container = Container { env: Some(env), ..Container::default() };
        let address = addresses(PARENT);
        let fields = given(&[("metadata.name", "field metadata.name"), ("status.podIP", ""), ("status.podIPs", "")]);
        if let Some(computed) = computed(&container, &fields, &address, &services) {
            let kubelet = Kubelet { objects: BTreeMap::new(), services, address };
            prop_assert_eq!(computed, kubelet.environment(&container));
        } else {
            let is_object = |entry: &EnvVar| entry.value_from.as_ref().is_some_and(|from| from.config_map_key_ref.is_some());
            prop_assert!(container.env.iter().flatten().any(is_object));
        }
    }
}

/// The kubelet as it is at activation: no objects and no services.
fn kubelet_without_objects() -> Kubelet {
    Kubelet {
        objects: BTreeMap::new(),
        services: BTreeMap::new(),
        address: addresses(TWIN),
    }
}
