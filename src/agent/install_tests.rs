use super::*;
use crate::args::{Arguments, Command};
use clap::Parser as _;
use k8s_openapi::api::core::v1::Pod;

fn plan() -> Plan {
    Plan {
        image: "registry.example/pod-checkpointer:0.1.0".into(),
        namespace: "pod-checkpointer".into(),
        node_name: "node-1".into(),
        state_dir: "/var/lib/state".into(),
        run_dir: "/run/run".into(),
        kubelet_dir: "/var/lib/kubelets".into(),
        manifest_dir: "/etc/manifests".into(),
        key_files: vec!["/etc/new.key".into(), "/etc/old.key".into()],
        cri_endpoint: Some("/run/cri.sock".into()),
        decision: DecisionArguments {
            activation_delay: Duration::from_millis(1500),
            probe_interval: Duration::from_millis(700),
            probe_timeout: Duration::from_secs(90),
            unstick_kubelet: false,
            activate_locked_out: Some(Duration::from_mins(10)),
            apiservers: vec!["https://api.example:6443".into(), "https://[fd00::1]:6443".into()],
            apiserver_ca: Some("/etc/ca.pem".into()),
        },
        log_format: LogFormat::Json,
        metrics_address: "[::1]:9999".parse().unwrap(),
    }
}

#[test]
fn every_setting_reaches_the_supervisor_as_its_own_flag() {
    let arguments = arguments(&plan());
    let parsed = Arguments::try_parse_from(["pod-checkpointer".to_owned()].into_iter().chain(arguments)).unwrap();
    assert_eq!(parsed.log_format, LogFormat::Json);
    let Command::Supervisor(supervisor) = parsed.command else { panic!("not the supervisor") };
    assert_eq!(supervisor.node.node_name, None, "the kubelet tells it");
    assert_eq!(supervisor.node.host.state_dir, Path::new("/var/lib/state"));
    assert_eq!(supervisor.node.host.run_dir, Path::new("/run/run"));
    assert_eq!(supervisor.node.host.kubelet_dir, Path::new("/var/lib/kubelets"));
    assert_eq!(supervisor.node.host.manifest_dir.as_deref(), Some(Path::new("/etc/manifests")));
    assert_eq!(supervisor.node.host.key_files, [Path::new("/etc/new.key"), Path::new("/etc/old.key")]);
    assert_eq!(supervisor.node.cri_endpoint.as_deref(), Some(Path::new("/run/cri.sock")));
    assert_eq!(supervisor.decision.activation_delay, Duration::from_millis(1500));
    assert_eq!(supervisor.decision.probe_interval, Duration::from_millis(700));
    assert_eq!(supervisor.decision.probe_timeout, Duration::from_secs(90));
    assert!(!supervisor.decision.unstick_kubelet);
    assert_eq!(supervisor.decision.activate_locked_out, Some(Duration::from_mins(10)));
    assert_eq!(supervisor.decision.apiservers, ["https://api.example:6443", "https://[fd00::1]:6443"]);
    assert_eq!(supervisor.decision.apiserver_ca.as_deref(), Some(Path::new("/etc/ca.pem")));
    assert_eq!(supervisor.metrics_address, plan().metrics_address);
}

#[test]
fn no_delay_at_all_is_passed_on_as_none() {
    let mut plan = plan();
    plan.decision.activation_delay = Duration::ZERO;
    let arguments = arguments(&plan);
    let parsed = Arguments::try_parse_from(["pod-checkpointer".to_owned()].into_iter().chain(arguments)).unwrap();
    let Command::Supervisor(supervisor) = parsed.command else { panic!("not the supervisor") };
    assert_eq!(supervisor.decision.activation_delay, Duration::ZERO);
}

#[test]
fn the_manifest_is_a_pod_that_a_kubelet_takes_without_the_api_server() {
    let text = manifest(&plan());
    let pod: Pod = serde_json::from_str(&text).unwrap();
    let yaml: Value = serde_yaml::from_str(&text).unwrap();
    assert_eq!(yaml, serde_json::from_str::<Value>(&text).unwrap());
    let spec = pod.spec.unwrap();
    assert!(spec.volumes.is_none() && spec.service_account_name.is_none() && pod.metadata.uid.is_none());
    assert_eq!((spec.host_pid, spec.host_network), (Some(true), Some(true)));
    let context = spec.containers[0].security_context.clone().unwrap();
    assert_eq!(context.capabilities.unwrap().drop.unwrap(), ["ALL"]);
    assert_eq!(context.privileged, Some(false));
}

#[test]
fn it_is_written_once_and_again_when_it_changed() {
    let directory = tempfile::tempdir().unwrap();
    let mut plan = plan();
    assert!(install(directory.path(), &manifest(&plan)).unwrap());
    assert!(!install(directory.path(), &manifest(&plan)).unwrap());
    plan.image = "registry.example/pod-checkpointer:0.2.0".into();
    assert!(install(directory.path(), &manifest(&plan)).unwrap());
    let path = directory.path().join("pod-checkpointer-supervisor.yaml");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert!(fs::read_to_string(&path).unwrap().contains("0.2.0"));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn what_is_not_ours_stays_and_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pod-checkpointer-supervisor.yaml");
    fs::write(&path, "somebody's").unwrap();
    let error = install(directory.path(), &manifest(&plan())).unwrap_err();
    assert!(matches!(&error, Error::Foreign(named) if *named == path), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"somebody's");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(install(directory.path(), "{}").unwrap_err(), Error::Foreign(_)));
    let error = install(&directory.path().join("absent"), "{}").unwrap_err();
    assert!(error.to_string().contains("absent"), "{error}");
}
