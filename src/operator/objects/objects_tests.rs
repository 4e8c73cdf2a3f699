use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::*;
use crate::api::podcheckpointer::{
    Encryption, LabelSelector, Metrics, Operator, PodCheckpointerSpec, Requirement, Resources,
    Toleration, TolerationOperator,
};
use crate::operator::settings;

fn made(spec: &PodCheckpointerSpec, kind: &str) -> Option<Value> {
    let image = settings::image(spec, Some("shop/pod-checkpointer:1")).unwrap();
    let checked = Checked::new(spec.clone(), image.into()).unwrap();
    objects(&checked)
        .into_iter()
        .map(|it| it.value)
        .find(|it| it["kind"] == kind)
}

fn agent(spec: &PodCheckpointerSpec) -> Value {
    made(spec, "DaemonSet").unwrap()["spec"]["template"].clone()
}

fn metrics(address: &str, pod_monitor: bool) -> PodCheckpointerSpec {
    let metrics = Some(Metrics {
        address: Some(address.into()),
        pod_monitor,
    });
    PodCheckpointerSpec {
        metrics,
        ..PodCheckpointerSpec::default()
    }
}

#[test]
fn the_kustomize_base_is_what_manifests_prints() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples/deploy/pod-checkpointer.yaml");
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let image = concat!("pod-checkpointer:", env!("CARGO_PKG_VERSION"));
    let printed = yaml(&objects(
        &Checked::new(PodCheckpointerSpec::default(), image.into()).unwrap(),
    ))
    .unwrap();
    assert_eq!(
        kept, printed,
        "run `pod-checkpointer manifests --skip-crds >examples/deploy/pod-checkpointer.yaml`"
    );
}

#[test]
fn every_setting_reaches_the_agents() {
    let label = |name: &str, value: &str| LabelSelector {
        match_labels: BTreeMap::from([(name.to_owned(), value.to_owned())]),
        match_expressions: Vec::new(),
    };
    let requirement = Requirement {
        key: "tier".into(),
        operator: Operator::In,
        values: vec!["b".into(), "a".into()],
    };
    let quantities = |memory: &str| {
        BTreeMap::from([("memory".to_owned(), IntOrString::String(memory.to_owned()))])
    };
    let spec = PodCheckpointerSpec {
        image: Some("shop/own:2".into()),
        node_selector: BTreeMap::from([("site".to_owned(), "edge".to_owned())]),
        tolerations: Some(vec![Toleration {
            key: Some("edge".into()),
            operator: Some(TolerationOperator::Exists),
            ..Toleration::default()
        }]),
        namespace_selector: Some(label("kind", "edge")),
        select: vec![
            label("app", "till"),
            LabelSelector {
                match_expressions: vec![requirement],
                ..label("app", "radio")
            },
        ],
        namespaces: vec!["shop".into(), "edge".into()],
        early_namespaces: Some(vec!["kube-system".into(), "edge".into()]),
        activation_delay: Some("5s".into()),
        retention: Some("2m".into()),
        max_age: Some("72h".into()),
        planned_outage: Some("720h".into()),
        encryption: Some(Encryption {
            key_file: "/etc/$(HOME)/key".into(),
        }),
        metrics: Some(Metrics {
            address: Some(":1234".into()),
            pod_monitor: true,
        }),
        resources: Some(Resources {
            requests: quantities("33Mi"),
            limits: quantities("66Mi"),
        }),
        max_unavailable: Some(IntOrString::String("7".into())),
    };
    let template = agent(&spec);
    let container = &template["spec"]["containers"][0];
    assert_eq!(container["image"], "shop/own:2");
    assert_eq!(
        container["args"],
        json!([
            "agent",
            "--namespaces=shop,edge",
            "--early-namespaces=kube-system,edge",
            "--namespace-selector=kind=edge",
            "--select=app=till",
            "--select=app=radio,tier in (a,b)",
            "--activation-delay=5s",
            "--retention=2m",
            "--max-age=72h",
            "--planned-outage=720h",
            "--key-file=/etc/$$(HOME)/key",
            "--metrics-address=:1234",
        ])
    );
    assert_eq!(
        container["resources"],
        json!({"requests": {"memory": "33Mi"}, "limits": {"memory": "66Mi"}})
    );
    assert_eq!(
        container["readinessProbe"]["httpGet"],
        json!({"host": "127.0.0.1", "port": 1234, "path": "/readyz"})
    );
    assert_eq!(
        template["metadata"]["annotations"]["prometheus.io/port"],
        "1234"
    );
    assert_eq!(template["spec"]["nodeSelector"], json!({"site": "edge"}));
    assert_eq!(
        template["spec"]["tolerations"],
        json!([{"key": "edge", "operator": "Exists"}])
    );
    let set = made(&spec, "DaemonSet").unwrap();
    assert_eq!(
        set["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"],
        7
    );
    assert_eq!(
        made(&spec, "Service").unwrap()["spec"]["ports"][0]["port"],
        1234
    );
    let monitor = made(&spec, "PodMonitor").unwrap();
    assert_eq!(
        monitor["spec"]["podMetricsEndpoints"][0]["relabelings"][1]["replacement"],
        "$1:1234"
    );
}

#[test]
fn metrics_that_only_the_node_can_reach_have_no_service_and_health_is_still_probed() {
    for (address, host, reachable) in [
        ("off", None, false),
        ("127.0.0.1:1", Some(json!("127.0.0.1")), false),
        ("[::1]:1", Some(json!("::1")), false),
        ("10.1.0.2:1", Some(json!("10.1.0.2")), true),
        (":1", Some(json!("127.0.0.1")), true),
    ] {
        let spec = metrics(address, true);
        let template = agent(&spec);
        let probed = template
            .pointer("/spec/containers/0/readinessProbe/httpGet/host")
            .cloned();
        assert_eq!(probed, host, "{address}");
        assert_eq!(made(&spec, "Service").is_some(), reachable, "{address}");
        assert_eq!(made(&spec, "PodMonitor").is_some(), reachable, "{address}");
        assert_eq!(
            template["metadata"]["annotations"]
                .get("prometheus.io/scrape")
                .is_some(),
            reachable,
            "{address}"
        );
    }
    assert_eq!(
        made(&metrics(":1", false), "PodMonitor"),
        None,
        "only on request"
    );
}

#[test]
fn namespaces_are_read_only_where_they_can_mark_pods() {
    let may = |spec: &PodCheckpointerSpec| {
        made(spec, "ClusterRole")
            .unwrap()
            .to_string()
            .contains("namespaces")
    };
    let selector = LabelSelector {
        match_labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        ..LabelSelector::default()
    };
    assert!(!may(&PodCheckpointerSpec::default()));
    assert!(may(&PodCheckpointerSpec {
        namespace_selector: Some(selector),
        ..PodCheckpointerSpec::default()
    }));
}

#[test]
fn an_agent_may_not_read_secrets_or_create_pods() {
    let role = made(&PodCheckpointerSpec::default(), "ClusterRole").unwrap();
    for rule in role["rules"].as_array().unwrap() {
        let text = rule.to_string();
        assert!(
            !text.contains("secrets") && !text.contains("configmaps") && !text.contains('*'),
            "{text}"
        );
        let writes = ["create", "update", "patch", "delete"]
            .iter()
            .any(|verb| text.contains(verb));
        assert!(
            !writes || !text.contains("\"pods\"") && !text.contains("\"nodes\""),
            "{text}"
        );
    }
}
