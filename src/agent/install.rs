//! The supervisor's own static pod: what it says, and how it gets into the kubelet's directory.
//!
//! It is written as JSON, which a YAML 1.1 reader cannot misread. It names no UID: the kubelet derives one from the
//! content, so a changed manifest is another pod and the old one ends first (pkg/kubelet/config/common.go).

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::args::{DecisionArguments, LogFormat};
use crate::files::write;
use crate::metrics::address::Address;
use crate::names::SUPERVISOR;
use crate::pod::container;

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
            "securityContext": container::host_security_context(),
            "containers": [{
                "name": "supervisor",
                "image": plan.image,
                "imagePullPolicy": "IfNotPresent",
                "args": arguments(plan),
                // the kubelet's own word: after it was renamed, nothing of the node before is activated
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
    let mut add = |flag: &str, value: String| arguments.push(container::flag(flag, &value));
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
            if !is_ours(&known) {
                return Err(Error::Foreign(path));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(Error::Read(path, source)),
    }
    write::file(&path, text.as_bytes(), 0o600)?;
    Ok(true)
}

/// Is this a manifest of the supervisor, of whatever version?
pub fn is_ours(text: &[u8]) -> bool {
    let pod: Value = serde_yaml::from_slice(text).unwrap_or_default();
    pod.pointer("/metadata/name").and_then(Value::as_str) == Some(SUPERVISOR)
}

#[cfg(test)]
#[path = "install_tests.rs"]
mod tests;
