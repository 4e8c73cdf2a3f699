//! Checkpoints for tests: every value is different, so that swapped values fail a test.

use std::collections::BTreeMap;

use crate::checkpoint::encoding::encode;
use crate::checkpoint::format::{Captured, Entry, Image, NodeCheckpoint, Parent, Policy, Volume};

/// A checkpoint of a pod with one container and one Secret volume as the kubelet writes it.
pub fn checkpoint(namespace: &str, name: &str) -> NodeCheckpoint {
    let entry = |path: &str, mode: &str, data: Option<&[u8]>, link: Option<&str>| Entry {
        path: path.into(),
        mode: mode.into(),
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        data: data.map(encode),
        link: link.map(str::to_owned),
    };
    let volume = Volume {
        entries: vec![
            entry("", "0755", None, None),
            entry("..2026_11_21", "0755", None, None),
            entry(
                "..2026_11_21/password",
                "0440",
                Some(b"s3cret\n\0\xff"),
                None,
            ),
            entry("..data", "0777", None, Some("..2026_11_21")),
            entry("password", "0777", None, Some("..data/password")),
        ],
    };
    let parent = Parent {
        namespace: namespace.into(),
        name: name.into(),
        uid: "11111111-1111-4111-8111-111111111111".into(),
        resource_version: "42".into(),
        owner: None,
        node_uid: None,
    };
    let captured = Captured {
        wall: "2026-11-21T10:00:00Z".into(),
        boot_id: "boot-1".into(),
        uptime_seconds: 100,
    };
    let manifest = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "uid": "00000000-0000-0000-0000-000000000000",
            "annotations": {"podcheckpointer.io/checkpoint-of": format!("{namespace}/{name}"),
                "podcheckpointer.io/parent-uid": "11111111-1111-4111-8111-111111111111"}},
        "spec": {
            "containers": [{"name": "app", "image": "shop/till:1", "args": ["serve"],
                "volumeMounts": [{"name": "credentials", "mountPath": "/credentials", "readOnly": true}]}],
            "volumes": [{"name": "credentials", "hostPath": {"type": "Directory",
                "path": format!("/run/pod-checkpointer/volumes/{namespace}_{name}/00000000-0000-0000-0000-000000000000/credentials")}}],
        },
    });
    let mut checkpoint = NodeCheckpoint::new(parent, captured, Policy::default(), manifest);
    checkpoint.images = BTreeMap::from([(
        "app".into(),
        Image {
            name: "shop/till:1".into(),
            id: "sha256:aa".into(),
        },
    )]);
    checkpoint.volumes = BTreeMap::from([("credentials".into(), volume)]);
    checkpoint.with_digest()
}
