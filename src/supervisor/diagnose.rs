//! What the node shows of a twin that the kubelet was given and that has no sandbox, in words for
//! people.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::Value;

use crate::node::host::HostRoot;

/// What the node shows of a twin that has had no sandbox for a while, in words; `manifest` is its
/// own.
///
/// The kubelet makes the pod's directory when it has admitted it, then waits for its volumes, then
/// makes the sandbox (pkg/kubelet/kubelet.go, `SyncPod`).
pub fn without_sandbox(
    root: &HostRoot,
    kubelet_dir: &Path,
    uid: &str,
    manifest: &Value,
    tried: usize,
) -> String {
    let directory = kubelet_dir.join("pods").join(uid);
    if tried > 0 {
        return format!(
            "the kubelet made {tried} sandboxes that do not stand: the node's network may be in the way"
        );
    }
    match root.resolve(&directory).and_then(fs::symlink_metadata) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let path = directory.display();
            return format!(
                "the kubelet has made no {path}: it has not read the manifest, or refused the pod"
            );
        }
        Err(error) => {
            return format!(
                "cannot tell whether the kubelet took it: {}: {error}",
                directory.display()
            );
        }
    }
    let volumes = manifest
        .pointer("/spec/volumes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let mut missing = volumes.filter_map(|volume| {
        let text = |pointer| volume.pointer(pointer).and_then(Value::as_str);
        let (name, path, wanted) = (
            text("/name")?,
            text("/hostPath/path")?,
            text("/hostPath/type")?,
        );
        let lacks = lacks(root, Path::new(path), wanted)?;
        Some(format!(
            "the kubelet took it and waits for volume {name}: {path} {lacks}"
        ))
    });
    missing.next().unwrap_or_else(|| {
        "the kubelet took it and has made no sandbox: a volume or the node's network may be in the way".to_owned()
    })
}

/// What keeps a path from being of this type, as the kubelet checks it before a volume is mounted
/// (pkg/volume/hostpath/host_path.go, `checkType`); `None`: nothing, or that cannot be told.
fn lacks(root: &HostRoot, path: &Path, wanted: &str) -> Option<String> {
    if wanted.is_empty() || wanted.ends_with("OrCreate") {
        return None;
    }
    match root.host_path_type(path) {
        Ok(found) => (found != Some(wanted)).then(|| format!("is no {wanted}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Some(format!("is not there ({wanted})"))
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_kubelet_waits_for_is_read_from_the_node() {
        let directory = tempfile::tempdir().unwrap();
        let root = HostRoot::new(directory.path());
        let at = |path: &str| directory.path().join(path.trim_start_matches('/'));
        let manifest = json!({"spec": {"volumes": [
            {"name": "ours", "hostPath": {"path": "/run/ours", "type": "Directory"}},
            {"name": "made", "hostPath": {"path": "/made", "type": "DirectoryOrCreate"}},
            {"name": "scratch", "emptyDir": {}},
            {"name": "modem", "hostPath": {"path": "/dev/modem", "type": "CharDevice"}},
        ]}});
        let shown =
            |tried| without_sandbox(&root, Path::new("/var/lib/kubelet"), "u", &manifest, tried);
        assert!(
            shown(0).contains("/var/lib/kubelet/pods/u: it has not read"),
            "{}",
            shown(0)
        );
        assert!(
            shown(2).contains("2 sandboxes that do not stand"),
            "{}",
            shown(2)
        );
        fs::create_dir_all(at("/var/lib/kubelet/pods/u")).unwrap();
        fs::create_dir_all(at("/run/ours")).unwrap();
        assert!(
            shown(0).contains("volume modem: /dev/modem is not there (CharDevice)"),
            "{}",
            shown(0)
        );
        fs::create_dir_all(at("/dev/modem")).unwrap();
        assert!(
            shown(0).contains("volume modem: /dev/modem is no CharDevice"),
            "{}",
            shown(0)
        );
        fs::remove_dir(at("/dev/modem")).unwrap();
        std::os::unix::fs::symlink("/made", at("/dev/modem")).unwrap();
        fs::create_dir(at("/made")).unwrap();
        assert!(
            shown(0).contains("is no CharDevice"),
            "a link is followed, within the node: {}",
            shown(0)
        );
        fs::remove_dir_all(at("/dev")).unwrap();
        let without = json!({"spec": {"volumes": [{"name": "ours", "hostPath": {"path": "/run/ours", "type": "Directory"}}]}});
        let shown = without_sandbox(&root, Path::new("/var/lib/kubelet"), "u", &without, 0);
        assert!(shown.contains("has made no sandbox"), "{shown}");
    }
}
