//! The initial corpus of fuzzing, as names and bytes: manifests written by people, and checkpoints
//! in every form.

use std::collections::BTreeMap;
use std::path::Path;

use pod_checkpointer::checkpoint::encoding;
use pod_checkpointer::checkpoint::seal::Key;
use pod_checkpointer::checkpoint::{
    Captured, Entry, Handover, Image, NodeCheckpoint, Owner, Parent, Policy, Volume, format,
};
use pod_checkpointer::reasons::Warning;
use serde_json::{Value, json};

/// The checkout's directory for the fuzz targets.
#[allow(dead_code)]
pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Writes seeds to the directory in `SEEDS`, if that is set.
#[allow(dead_code)]
pub fn write(seeds: Vec<(String, Vec<u8>)>) {
    let Some(directory) = std::env::var_os("SEEDS") else {
        return;
    };
    for (name, bytes) in seeds {
        std::fs::write(Path::new(&directory).join(name), bytes).expect("a directory for seeds");
    }
}

/// Manifests of this checkout.
pub fn manifests(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for directory in [
        "tests/fixtures/pods",
        "examples",
        "tests/node/pods",
        "tests/charts",
    ] {
        for entry in std::fs::read_dir(root.join(directory)).expect("a directory of the checkout") {
            let path = entry.expect("an entry").path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if [".json", ".yaml"]
                .iter()
                .any(|ending| name.ends_with(ending))
            {
                found.push((name, std::fs::read(&path).expect("a file of the checkout")));
            }
        }
    }
    found.sort();
    found
}

/// Checkpoints: complete, without checksum, sealed, of other versions, truncated, and with aliases
/// that expand.
pub fn checkpoints(root: &Path, key: &Key) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for (name, twin) in manifests(root)
        .into_iter()
        .filter(|(name, _)| name.ends_with(".twin.json"))
    {
        let twin = serde_json::from_slice(&twin).expect("JSON");
        found.push((name + ".body", body(&checkpoint(twin))));
    }
    let small = checkpoint(json!({"kind": "Pod", "metadata": {}, "spec": {
        "containers": [{"name": "app", "env": [{"name": "A", "value": "b"}]}],
        "volumes": [{"name": "keys", "hostPath": {"path": "/nil"}}],
    }}));
    let clear = small.to_yaml().expect("a checkpoint");
    let text = String::from_utf8_lossy(&clear).into_owned();
    for version in [
        "podcheckpointer.io/v1alpha0",
        "podcheckpointer.io/v1beta1",
        "v1",
    ] {
        found.push((
            version.replace('/', "_"),
            text.replace(format::API_VERSION, version).into_bytes(),
        ));
    }
    let mut content = serde_json::to_value(&small).expect("a checkpoint");
    if let Some(fields) = content.as_object_mut() {
        fields.retain(|name, _| ["images", "manifest", "volumes"].contains(&name.as_str()));
    }
    found.push((
        "cut".into(),
        clear.get(..clear.len() / 2).unwrap_or_default().to_vec(),
    ));
    found.push(("clear".into(), clear));
    found.push(("clear.body".into(), body(&small)));
    found.push((
        "sealed".into(),
        small.write(Some(key)).expect("a checkpoint"),
    ));
    found.push(("sealed.content".into(), content.to_string().into_bytes()));
    found.push((
        "aliases".into(),
        b"a: &a [x, x]\nb: &b [*a, *a]\nc: {<<: *b, d: *b}\n".to_vec(),
    ));
    found
}

/// The lines above the checksum, which fuzzing may change.
fn body(checkpoint: &NodeCheckpoint) -> Vec<u8> {
    let mut bytes = checkpoint.to_yaml().expect("a checkpoint");
    bytes.truncate(
        bytes
            .trim_ascii_end()
            .iter()
            .rposition(|byte| *byte == b'\n')
            .unwrap_or_default(),
    );
    bytes
}

fn checkpoint(manifest: Value) -> NodeCheckpoint {
    let entry = |path: &str, data: Option<&[u8]>, link: Option<&str>| Entry {
        path: path.into(),
        mode: "0750".into(),
        uid: 1,
        gid: 2,
        data: data.map(encoding::encode),
        link: link.map(str::to_owned),
    };
    let entries = vec![
        entry("", None, None),
        entry("key", Some(b"s3cret"), None),
        entry("link", None, Some("key")),
    ];
    let parent = Parent {
        namespace: "shop".into(),
        name: "till".into(),
        uid: "u1".into(),
        resource_version: "3".into(),
        owner: Some(Owner {
            kind: "DaemonSet".into(),
            name: "till".into(),
            uid: "u2".into(),
        }),
        node_uid: Some("u3".into()),
    };
    let captured = Captured {
        wall: "2026-11-21T10:00:00Z".into(),
        boot_id: "b1".into(),
        uptime_seconds: 100,
    };
    let policy = Policy {
        max_age_seconds: Some(3600),
        handover: Some(Handover::Switch),
        host_port: true,
        ..Policy::default()
    };
    let mut checkpoint = NodeCheckpoint::new(parent, captured, policy, manifest);
    checkpoint.images = BTreeMap::from([(
        "app".into(),
        Image {
            name: "till:1".into(),
            id: "sha256:aa".into(),
        },
    )]);
    checkpoint.warnings = vec![Warning::MayBeRescheduled];
    checkpoint.volumes = BTreeMap::from([("keys".into(), Volume { entries })]);
    checkpoint.with_digest()
}
