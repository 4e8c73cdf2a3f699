//! Inspects running containers: how the runtime created them, and the files that they see.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::checkpoint::NodeCheckpoint;
use crate::drill::tree::{self, Tree};
use crate::drill::view::View;
use crate::node::host::HostRoot;
use crate::node::runtime::{Container, Runtime};

/// What is known about one container.
pub struct Look {
    /// How it was created; `None`: the runtime does not report it.
    pub view: Option<View>,
    /// The captured volumes that it sees, by mount path. A volume that cannot be read is left out.
    pub trees: BTreeMap<String, Tree>,
}

/// The containers of a manifest by name, including init containers.
pub fn containers(manifest: &Value) -> BTreeMap<String, &Value> {
    let list = |field: &str| {
        manifest
            .pointer(field)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
    };
    let all = list("/spec/initContainers").chain(list("/spec/containers"));
    all.filter_map(|container| Some((container.get("name")?.as_str()?.to_owned(), container)))
        .collect()
}

/// Where a container of the manifest mounts captured volumes: mount path, volume, and subpath.
pub fn captured_mounts<'a>(
    checkpoint: &NodeCheckpoint,
    container: &'a Value,
) -> Vec<(&'a str, &'a str, &'a str)> {
    let mounts = container
        .get("volumeMounts")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let text = |mount: &'a Value, field: &str| mount.get(field).and_then(Value::as_str);
    mounts
        // only the kubelet can expand an expression
        .filter(|mount| mount.get("subPathExpr").is_none())
        .filter_map(|mount| {
            Some((
                text(mount, "mountPath")?,
                text(mount, "name")?,
                text(mount, "subPath").unwrap_or_default(),
            ))
        })
        .filter(|(_, volume, _)| checkpoint.volumes.contains_key(*volume))
        .collect()
}

/// Inspects the running containers that the manifest names. Returns them by name.
pub async fn at(
    runtime: &Runtime,
    running: &[&Container],
    checkpoint: &NodeCheckpoint,
    manifest: &Value,
) -> anyhow::Result<BTreeMap<String, Look>> {
    let mut looks = BTreeMap::new();
    let described = containers(manifest);
    for container in running {
        let Some(description) = described.get(&container.name) else {
            continue;
        };
        let Some(detail) = runtime.detail(&container.id).await? else {
            continue;
        };
        let view = View::of(&detail.info);
        let mut trees = BTreeMap::new();
        if let Some(pid) = view.as_ref().and_then(|view| view.pid) {
            let root = HostRoot::new(format!("/proc/{pid}/root"));
            for (path, _, _) in captured_mounts(checkpoint, description) {
                if let Ok(tree) = root.resolve(path).and_then(|real| tree::read(&real)) {
                    trees.insert(path.to_owned(), tree);
                }
            }
        }
        looks.insert(container.name.clone(), Look { view, trees });
    }
    Ok(looks)
}

/// How the files of one container differ from those of another, both seen in the same way.
pub fn file_differences(
    expected: &BTreeMap<String, Tree>,
    seen: &BTreeMap<String, Tree>,
) -> Vec<String> {
    let mut found = Vec::new();
    for (path, tree) in expected {
        match seen.get(path) {
            Some(other) => found.extend(tree::differences(tree, other, path)),
            None => found.push(format!("{path} cannot be read")),
        }
    }
    found
}

/// What a container should see of the volumes that were unpacked into a directory.
pub fn unpacked(
    checkpoint: &NodeCheckpoint,
    container: &Value,
    volumes: &Path,
) -> BTreeMap<String, Tree> {
    let mounts = captured_mounts(checkpoint, container);
    let tree = |volume: &str, below: &str| {
        HostRoot::new(volumes.join(volume))
            .resolve(below)
            .and_then(|real| tree::read(&real))
            .unwrap_or_default()
    };
    mounts
        .into_iter()
        .map(|(path, volume, below)| (path.to_owned(), tree(volume, below)))
        .collect()
}
