//! The supervisor's own static pod: what it says, and how it gets into the kubelet's directory.
//!
//! It is written as JSON, which a YAML 1.1 reader cannot misread. It names no UID: the kubelet derives one from the
//! content, so a changed manifest is another pod and the old one ends first (pkg/kubelet/config/common.go).

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::args::{DecisionArguments, LogFormat};
use crate::files::write;
use crate::metrics::address::Address;
use crate::names::SUPERVISOR;
use crate::places::manifests::is_supervisor;

/// What the supervisor may do beyond an ordinary process of user 0, and what for.
const CAPABILITIES: [&str; 6] = [
    // the host's files are reached through /proc/<pid>/root, and the kubelet's sockets through /proc/<pid>/fd
    "SYS_PTRACE",
    // closes the kubelet's waiting sockets (SOCK_DESTROY)
    "NET_ADMIN",
    // unpacks into directories of other users that they alone may write to
    "DAC_OVERRIDE",
    // gives unpacked files to the users that the parent's files belong to …
    "CHOWN",
    // … and sets their modes afterwards …
    "FOWNER",
    // … with the set-group-id bit that fsGroup puts on directories, which chmod clears without it
    "FSETID",
];

/// Why the supervisor could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubelet starts no static pods.
    #[error(
        "the kubelet has no staticPodPath, so nothing can be started on this node without the API server: set it in the \
         kubelet's configuration, for example to /etc/kubernetes/manifests, or give --manifest-dir"
    )]
    NoStaticPods,
    /// There is no such directory.
    #[error("the kubelet's manifest directory {} is not a directory: create it, or give --manifest-dir", .0.display())]
    NoDirectory(PathBuf),
    /// Something else has the manifest's name.
    #[error("{} is not a file of ours: move it away", .0.display())]
    Foreign(PathBuf),
    /// It could not be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] write::Error),
}

/// What a supervisor's manifest depends on. Paths are host paths.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its image.
    pub image: String,
    /// The agent's namespace.
    pub namespace: String,
    /// This node.
    pub node_name: String,
    /// `--state-dir`.
    pub state_dir: PathBuf,
    /// `--run-dir`.
    pub run_dir: PathBuf,
    /// `--kubelet-dir`.
    pub kubelet_dir: PathBuf,
    /// The kubelet's directory of static pod manifests.
    pub manifest_dir: PathBuf,
    /// `--key-file`, each.
    pub key_files: Vec<PathBuf>,
    /// `--cri-endpoint`, if given.
    pub cri_endpoint: Option<PathBuf>,
    /// How it decides.
    pub decision: DecisionArguments,
    /// `--log-format`.
    pub log_format: LogFormat,
    /// `--metrics-address`, the supervisor's own.
    pub metrics_address: Address,
}

/// The manifest's text.
pub fn manifest(plan: &Plan) -> String {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": SUPERVISOR,
            "namespace": plan.namespace,
            "labels": {
                "app.kubernetes.io/name": "pod-checkpointer",
                "app.kubernetes.io/component": "supervisor",
                "app.kubernetes.io/managed-by": "pod-checkpointer",
            },
        },
        "spec": {
            "hostPID": true,
            "hostNetwork": true,
            "priorityClassName": "system-node-critical",
            "priority": 2_000_001_000,
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 5,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "tolerations": [{"operator": "Exists"}],
            "securityContext": {
                // the runtime's default profile allows what is needed: openat2, netlink sockets, reading /proc
                "seccompProfile": {"type": "RuntimeDefault"},
                // AppArmor's default profile denies ptrace, and with it every look through /proc/<pid>/root
                "appArmorProfile": {"type": "Unconfined"},
                // the type of containers that manage their host
                "seLinuxOptions": {"type": "spc_t"},
            },
            "containers": [{
                "name": "supervisor",
                "image": plan.image,
                "imagePullPolicy": "IfNotPresent",
                "args": arguments(plan),
                // the kubelet's own word: after it was renamed, nothing of the node before is activated
                "env": [{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
                "securityContext": {
                    "privileged": false,
                    "runAsUser": 0,
                    "runAsGroup": 0,
                    "readOnlyRootFilesystem": true,
                    "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"], "add": CAPABILITIES},
                },
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
                "terminationMessagePolicy": "FallbackToLogsOnError",
            }],
        },
    });
    let text = serde_json::to_string_pretty(&pod).unwrap_or_default();
    text + "\n"
}

fn arguments(plan: &Plan) -> Vec<String> {
    let Plan {
        image: _,
        namespace: _,
        node_name: _,
        state_dir,
        run_dir,
        kubelet_dir,
        manifest_dir,
        key_files,
        cri_endpoint,
        decision,
        log_format,
        metrics_address,
    } = plan;
    let DecisionArguments {
        activation_delay,
        probe_interval,
        probe_timeout,
        unstick_kubelet,
        activate_locked_out,
        apiservers,
        apiserver_ca,
    } = decision;
    let time = |time: &Duration| humantime::format_duration(*time).to_string().replace(' ', "");
    let mut arguments = vec!["supervisor".to_owned()];
    let mut add = |flag: &str, value: String| {
        // the kubelet expands $(NAME) in arguments, and `$$` is a dollar sign
        arguments.push(format!("--{flag}={}", value.replace('$', "$$")));
    };
    let path = |path: &Path| path.display().to_string();
    add("state-dir", path(state_dir));
    add("run-dir", path(run_dir));
    add("kubelet-dir", path(kubelet_dir));
    add("manifest-dir", path(manifest_dir));
    for file in key_files {
        add("key-file", path(file));
    }
    if let Some(endpoint) = cri_endpoint {
        add("cri-endpoint", format!("unix://{}", endpoint.display()));
    }
    add("activation-delay", time(activation_delay));
    add("probe-interval", time(probe_interval));
    add("probe-timeout", time(probe_timeout));
    add("unstick-kubelet", unstick_kubelet.to_string());
    if let Some(limit) = activate_locked_out {
        add("activate-locked-out", time(limit));
    }
    for server in apiservers {
        add("apiserver", server.clone());
    }
    if let Some(ca) = apiserver_ca {
        add("apiserver-ca", path(ca));
    }
    let format = match log_format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    add("log-format", format.to_owned());
    add("metrics-address", metrics_address.to_string());
    arguments
}

/// Writes the manifest if it is not there with this text. `directory` is the real path. Says whether it wrote.
pub fn install(directory: &Path, text: &str) -> Result<bool, Error> {
    if !directory.is_dir() {
        return Err(Error::NoDirectory(directory.to_owned()));
    }
    let path = directory.join(format!("{SUPERVISOR}.yaml"));
    match fs::symlink_metadata(&path) {
        Ok(metadata) if !metadata.is_file() => return Err(Error::Foreign(path)),
        Ok(metadata) => {
            let known = fs::read(&path).map_err(|source| Error::Read(path.clone(), source))?;
            if known == text.as_bytes() && metadata.permissions().mode() & 0o7777 == 0o600 {
                return Ok(false);
            }
            if !is_supervisor(&known) {
                return Err(Error::Foreign(path));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(Error::Read(path, source)),
    }
    write::file(&path, text.as_bytes(), 0o600)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Arguments, Command};
    use clap::Parser as _;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::Value;

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
}
