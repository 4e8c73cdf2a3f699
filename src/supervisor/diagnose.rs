//! Explains in words why a twin that was given to the kubelet has no sandbox, from what the node
//! shows.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::Value;

use crate::node::host::HostRoot;

/// Why a twin has had no sandbox for a while, in words, as far as the node shows it. `manifest` is
/// the twin's.
///
/// The kubelet creates the pod's directory once it has admitted the pod, then waits for its
/// volumes, then creates the sandbox (pkg/kubelet/kubelet.go, `SyncPod`).
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
            "the kubelet created {tried} sandboxes and none is ready: the node's network may be the cause"
        );
    }
    match root.resolve(&directory).and_then(fs::symlink_metadata) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let path = directory.display();
            return format!(
                "the kubelet has not created {path}: it has not read the manifest, or refused the pod"
            );
        }
        Err(error) => {
            return format!(
                "it is not known whether the kubelet accepted it: {}: {error}",
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
            "the kubelet accepted it and waits for volume {name}: {path} {lacks}"
        ))
    });
    missing.next().unwrap_or_else(|| {
        "the kubelet accepted it but has created no sandbox: a volume or the node's network may be the cause".to_owned()
    })
}

/// What keeps a path from being of this type, as the kubelet checks it before a volume is mounted
/// (pkg/volume/hostpath/host_path.go, `checkType`); `None`: nothing, or it is not known.
fn lacks(root: &HostRoot, path: &Path, wanted: &str) -> Option<String> {
    if wanted.is_empty() || wanted.ends_with("OrCreate") {
        return None;
    }
    match root.host_path_type(path) {
        Ok(found) => (found != Some(wanted)).then(|| format!("is not a {wanted}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Some(format!("does not exist ({wanted})"))
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
            shown(2).contains("2 sandboxes and none is ready"),
            "{}",
            shown(2)
        );
        fs::create_dir_all(at("/var/lib/kubelet/pods/u")).unwrap();
        fs::create_dir_all(at("/run/ours")).unwrap();
        assert!(
            shown(0).contains("volume modem: /dev/modem does not exist (CharDevice)"),
            "{}",
            shown(0)
        );
        fs::create_dir_all(at("/dev/modem")).unwrap();
        assert!(
            shown(0).contains("volume modem: /dev/modem is not a CharDevice"),
            "{}",
            shown(0)
        );
        fs::remove_dir(at("/dev/modem")).unwrap();
        std::os::unix::fs::symlink("/made", at("/dev/modem")).unwrap();
        fs::create_dir(at("/made")).unwrap();
        assert!(
            shown(0).contains("is not a CharDevice"),
            "a link is followed, within the node: {}",
            shown(0)
        );
        fs::remove_dir_all(at("/dev")).unwrap();
        let without = json!({"spec": {"volumes": [{"name": "ours", "hostPath": {"path": "/run/ours", "type": "Directory"}}]}});
        let shown = without_sandbox(&root, Path::new("/var/lib/kubelet"), "u", &without, 0);
        assert!(shown.contains("has created no sandbox"), "{shown}");
    }
}
