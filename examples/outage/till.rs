//! The pod of the example, as the API server, the kubelet and the runtime have it, and what its
//! process sees.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use pod_checkpointer::pod::id::PodId;
use serde_json::{Value, json};

use crate::stub::kubelet::write_volume;
use crate::stub::node::{IMAGE, NAME};
use crate::stub::runtime::Spec;
use crate::stub::{self, Node, Pod};

pub const UID: &str = "3f0c6a1e-7a5d-4c7e-9b1a-0d6a2f8b4e11";
pub const KEY: &str = "shop_till";

/// The same, parsed.
pub fn id() -> PodId {
    stub::id(KEY)
}

/// Name of a volume, its mount path, and the kubelet's name for its kind.
const VOLUMES: [(&str, &str, &str); 3] = [
    ("credentials", "/etc/till/credentials", "secret"),
    ("features", "/etc/till/features", "configmap"),
    (
        "token",
        "/var/run/secrets/kubernetes.io/serviceaccount",
        "projected",
    ),
];

/// What the kubelet passed: `env`, then `envFrom`, then the variables of Services.
const ENVIRONMENT: [(&str, &str); 7] = [
    ("CURRENCY", "EUR"),
    ("PASSWORD", "s3cret $(CURRENCY)\nsecond line"),
    ("GREETING", "pay in EUR"),
    ("DISCOUNT", "no"),
    ("ROUNDING", "012"),
    ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
    ("KUBERNETES_SERVICE_PORT", "443"),
];

fn volume(node: &Node, (name, _, kind): (&str, &str, &str)) -> PathBuf {
    node.path(&format!(
        "var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~{kind}/{name}"
    ))
}

/// Writes the pod's volumes as the kubelet does before it starts the pod.
pub fn write_volumes(node: &Node) {
    let [credentials, features, token] = VOLUMES.map(|it| volume(node, it));
    write_volume(
        &credentials,
        &[
            ("password", 0o440, b"s3cret\n"),
            ("key.der", 0o440, &[0x30, 0x82, 0, 0xff]),
        ],
    );
    write_volume(
        &features,
        &[("prices.csv", 0o644, b"tea,2.10\ncoffee,2.60\n")],
    );
    write_volume(
        &token,
        &[
            ("namespace", 0o644, b"shop"),
            ("token", 0o640, b"eyJhbGciOiJSUzI1NiJ9.e30.c2ln"),
        ],
    );
}

/// The pod as the kubelet passes it to the runtime.
pub fn pod(node: &Node) -> Pod {
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let mut app = Spec::new("app", IMAGE);
    app.env = ENVIRONMENT
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
    app.mounts = VOLUMES
        .iter()
        .map(|it| (it.1.to_owned(), text(volume(node, *it))))
        .collect();
    let mut pod = Pod::new("shop", "till", UID);
    pod.containers = vec![app];
    pod
}

/// The pod in the API server, with the status of what runs now.
pub fn object(node: &Node, is_ready: bool) -> Value {
    let state = node.runtime.state.borrow();
    let started = state
        .containers
        .iter()
        .filter(|(_, container)| container.pod_uid == UID);
    let id = started
        .max_by_key(|(_, container)| container.started)
        .map(|(id, _)| format!("containerd://{id}"));
    let mounts =
        VOLUMES.map(|(name, path, _)| json!({"name": name, "mountPath": path, "readOnly": true}));
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": "shop", "name": "till", "uid": UID,
            "annotations": {"podcheckpointer.io/checkpoint": "true"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "till", "uid": "till", "controller": true}],
        },
        "spec": {
            "nodeName": NAME, "restartPolicy": "Always", "serviceAccountName": "till",
            "containers": [{
                "name": "app", "image": IMAGE, "volumeMounts": mounts,
                "env": [
                    {"name": "CURRENCY", "value": "EUR"},
                    {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "credentials", "key": "line"}}},
                    {"name": "GREETING", "value": "pay in $(CURRENCY)"},
                ],
                "envFrom": [{"configMapRef": {"name": "features-env"}}],
            }],
            "volumes": [
                {"name": "credentials", "secret": {"secretName": "credentials", "defaultMode": 0o440}},
                {"name": "features", "configMap": {"name": "features", "defaultMode": 0o644}},
                {"name": "token", "projected": {"defaultMode": 0o644, "sources": [
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                    {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
                ]}},
            ],
        },
        "status": {
            "phase": "Running", "podIP": "10.1.0.5", "podIPs": [{"ip": "10.1.0.5"}], "hostIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": if is_ready { "True" } else { "False" },
                "lastTransitionTime": "2026-11-21T10:00:00Z"}],
            "containerStatuses": [{"name": "app", "image": IMAGE, "imageID": "sha256:0123456789abcdef", "ready": is_ready,
                "restartCount": 0, "containerID": id, "state": {"running": {}}}],
        },
    })
}

/// A file as a process sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    mode: u32,
    owner: (u32, u32),
    content: Vec<u8>,
}

/// What a pod's process sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    environment: BTreeMap<String, String>,
    /// By path in the container.
    files: BTreeMap<String, File>,
}

impl View {
    /// Reads it through the mounts of the running container.
    pub fn of(node: &Node, uid: &str) -> anyhow::Result<Self> {
        let state = node.runtime.state.borrow();
        let of_pod = state
            .containers
            .values()
            .filter(|container| container.pod_uid == uid);
        let last = of_pod.max_by_key(|container| container.started);
        let spec = last
            .map(|container| container.spec.clone())
            .unwrap_or_default();
        let mut files = BTreeMap::new();
        for (inside, outside) in &spec.mounts {
            for entry in std::fs::read_dir(outside)? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                if name.starts_with("..") {
                    continue;
                }
                let path = PathBuf::from(outside).join(&name);
                let about = std::fs::metadata(&path)?;
                let owner = (about.uid(), about.gid());
                let file = File {
                    mode: about.mode() & 0o7777,
                    owner,
                    content: std::fs::read(&path)?,
                };
                files.insert(format!("{inside}/{name}"), file);
            }
        }
        Ok(Self {
            environment: spec.env.into_iter().collect(),
            files,
        })
    }

    /// One line per file or variable that either has, and whether both are the same.
    pub fn compare(&self, other: &Self) -> Vec<(String, bool)> {
        let mut lines = Vec::new();
        let paths: BTreeMap<_, _> = other.files.iter().chain(&self.files).collect();
        for (
            path,
            File {
                mode,
                owner: (uid, gid),
                content,
            },
        ) in paths
        {
            let line = format!(
                "{path:<55} {mode:04o} {uid}:{gid} {:>3} bytes",
                content.len()
            );
            lines.push((line, self.files.get(path) == other.files.get(path)));
        }
        let names: BTreeMap<_, _> = other.environment.iter().chain(&self.environment).collect();
        for name in names.into_keys() {
            let is_same = self.environment.get(name) == other.environment.get(name);
            lines.push((format!("${name}"), is_same));
        }
        lines
    }
}
