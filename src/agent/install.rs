//! The static pod of the supervisor: its manifest, and how it is written into the kubelet's
//! directory.
//!
//! It is written as JSON, which a YAML 1.1 reader cannot misread. It names no UID: the kubelet
//! derives one from the content, so a changed manifest is another pod and the old one ends first
//! (pkg/kubelet/config/common.go).

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::args::{LogFormat, SupervisorArguments};
use crate::files::write;
use crate::names::SUPERVISOR;
use crate::places::manifests::is_supervisor;
use crate::pod::container;

/// What the supervisor may do beyond an ordinary process of user 0, and what for.
const CAPABILITIES: [&str; 6] = [
    // the host's files are reached through /proc/<pid>/root, and the kubelet's sockets through
    // /proc/<pid>/fd
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
pub(crate) enum Error {
    /// The kubelet runs no static pods.
    #[error(
        "the kubelet has no staticPodPath, so nothing can be started on this node without the API server: set it in the \
         kubelet's configuration, for example to /etc/kubernetes/manifests, or give --manifest-dir"
    )]
    NoStaticPods,
    /// There is no such directory.
    #[error("the kubelet's manifest directory {} is not a directory: create it, or give --manifest-dir", .0.display())]
    NoDirectory(PathBuf),
    /// Something else has the manifest's name.
    #[error("{} is not a manifest of the supervisor: move it away", .0.display())]
    Foreign(PathBuf),
    /// It could not be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] write::Error),
}

/// What a supervisor's manifest depends on.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Its image.
    pub image: String,
    /// The agent's namespace.
    pub namespace: String,
    /// Its flags.
    pub arguments: SupervisorArguments,
    /// How its log lines look.
    pub log_format: LogFormat,
}

/// The manifest's text.
pub(crate) fn manifest(plan: &Plan) -> String {
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
            "securityContext": container::host_security_context(),
            "containers": [{
                "name": "supervisor",
                "image": plan.image,
                "imagePullPolicy": "IfNotPresent",
                "args": arguments(plan),
                // as the kubelet knows it: once the node is renamed, pods of the old node are not
                // activated
                "env": [container::field_variable("NODE_NAME", "spec.nodeName")],
                "securityContext": container::root_security_context(&CAPABILITIES),
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
                "terminationMessagePolicy": "FallbackToLogsOnError",
            }],
        },
    });
    let text = serde_json::to_string_pretty(&pod).unwrap_or_default();
    text + "\n"
}

fn arguments(plan: &Plan) -> Vec<String> {
    let flags = plan.arguments.to_flags();
    let format = format!("--log-format={}", plan.log_format);
    let all = ["supervisor".to_owned()]
        .into_iter()
        .chain(flags)
        .chain([format]);
    all.map(|argument| container::escaped(&argument)).collect()
}

/// Writes the manifest unless it is there with this text. `directory` is a real path. True if it
/// was written.
pub(crate) fn install(directory: &Path, text: &str) -> Result<bool, Error> {
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

    fn parsed(arguments: Vec<String>) -> (SupervisorArguments, LogFormat) {
        let line = ["pod-checkpointer".to_owned()].into_iter().chain(arguments);
        let parsed = Arguments::try_parse_from(line).unwrap();
        let Command::Supervisor(supervisor) = parsed.command else {
            panic!("not the supervisor")
        };
        (supervisor, parsed.log_format)
    }

    fn plan() -> Plan {
        let flags = [
            "supervisor",
            "--manifest-dir=/etc/manifests",
            "--activation-delay=0",
            "--key-file=/etc/new.key",
        ];
        let (arguments, _) = parsed(flags.map(str::to_owned).to_vec());
        Plan {
            image: "registry.example/pod-checkpointer:0.1.0".into(),
            namespace: "pod-checkpointer".into(),
            arguments,
            log_format: LogFormat::Json,
        }
    }

    #[test]
    fn the_supervisor_gets_its_flags_and_the_format_of_the_log() {
        assert_eq!(
            parsed(arguments(&plan())),
            (plan().arguments, LogFormat::Json)
        );
    }

    #[test]
    fn the_kubelet_does_not_expand_variables_in_flags() {
        let mut plan = plan();
        plan.arguments.node.host.key_files = vec!["/etc/$(HOME)/key".into()];
        assert!(arguments(&plan).contains(&"--key-file=/etc/$$(HOME)/key".to_owned()));
    }

    #[test]
    fn the_manifest_is_a_pod_that_a_kubelet_accepts_without_the_api_server() {
        let text = manifest(&plan());
        let pod: Pod = serde_json::from_str(&text).unwrap();
        let yaml: Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(yaml, serde_json::from_str::<Value>(&text).unwrap());
        let spec = pod.spec.unwrap();
        assert!(
            spec.volumes.is_none()
                && spec.service_account_name.is_none()
                && pod.metadata.uid.is_none()
        );
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
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
            0o600
        );
        assert!(fs::read_to_string(&path).unwrap().contains("0.2.0"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn files_of_others_stay_and_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pod-checkpointer-supervisor.yaml");
        fs::write(&path, "somebody's").unwrap();
        let error = install(directory.path(), &manifest(&plan())).unwrap_err();
        assert!(
            matches!(&error, Error::Foreign(named) if *named == path),
            "{error}"
        );
        assert_eq!(fs::read(&path).unwrap(), b"somebody's");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(
            install(directory.path(), "{}").unwrap_err(),
            Error::Foreign(_)
        ));
        let error = install(&directory.path().join("absent"), "{}").unwrap_err();
        assert!(error.to_string().contains("absent"), "{error}");
    }
}
