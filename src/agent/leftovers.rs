//! What bootkube's checkpointer left on the node. It is named and not touched: an old checkpointer that still runs would put
//! it back, and an active copy may be all that serves. `docs/migration.md` says what to do.

use std::path::{Path, PathBuf};

use crate::node::host::HostRoot;

/// Where it kept what it needed, in clear (its `pkg/checkpoint`).
const DIRECTORIES: [&str; 3] = [
    "/etc/kubernetes/inactive-manifests",
    "/etc/kubernetes/checkpoint-secrets",
    "/etc/kubernetes/checkpoint-configmaps",
];
/// Its annotation on the copy of a pod.
const COPY: &str = "checkpointer.alpha.coreos.com/checkpoint-of";
/// A longer file is no manifest of its.
const LONGEST: u64 = 1 << 20;

/// What there is to say; `manifest_dir` is the host path of the kubelet's directory, if it is known.
pub fn problem(root: &HostRoot, manifest_dir: Option<&Path>) -> Option<String> {
    let is_filled = |path: &Path| {
        let entries = root.resolve(path).and_then(std::fs::read_dir);
        entries.is_ok_and(|mut entries| entries.next().is_some())
    };
    let mut found: Vec<PathBuf> = DIRECTORIES.iter().map(PathBuf::from).filter(|path| is_filled(path)).collect();
    found.extend(manifest_dir.map(|directory| copies(root, directory)).unwrap_or_default());
    if found.is_empty() {
        return None;
    }
    let names: Vec<String> = found.iter().map(|path| path.display().to_string()).collect();
    Some(format!(
        "bootkube's checkpointer left {}: remove it when none of its copies serves any more; nothing of it is used or touched",
        names.join(", ")
    ))
}

/// Its active manifests.
fn copies(root: &HostRoot, directory: &Path) -> Vec<PathBuf> {
    let entries = root.resolve(directory).and_then(std::fs::read_dir);
    let is_copy = |path: &Path| {
        std::fs::symlink_metadata(path).is_ok_and(|file| file.is_file() && file.len() <= LONGEST)
            && std::fs::read_to_string(path).is_ok_and(|text| text.contains(COPY))
    };
    let entries = entries.into_iter().flatten().flatten().filter(|entry| is_copy(&entry.path()));
    let mut copies: Vec<PathBuf> = entries.map(|entry| directory.join(entry.file_name())).collect();
    copies.sort_unstable();
    copies
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_it_left_is_named_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = |path: &str| directory.path().join(path);
        let root = HostRoot::new(directory.path());
        let manifests = Path::new("/etc/kubernetes/manifests");
        assert_eq!(problem(&root, Some(manifests)), None, "nothing is there");
        for made in ["manifests", "inactive-manifests", "checkpoint-secrets/kube-system/api"] {
            fs::create_dir_all(path("etc/kubernetes").join(made)).unwrap();
        }
        fs::write(path("etc/kubernetes/manifests/etcd.yaml"), "kind: Pod").unwrap();
        fs::write(path("etc/kubernetes/manifests/kube-system-api.json"), format!("{{\"{COPY}\": \"api\"}}")).unwrap();
        fs::write(path("elsewhere"), COPY).unwrap();
        std::os::unix::fs::symlink(path("elsewhere"), path("etc/kubernetes/manifests/link.yaml")).unwrap();
        let named = problem(&root, Some(manifests)).unwrap();
        assert!(
            named.contains("left /etc/kubernetes/checkpoint-secrets, /etc/kubernetes/manifests/kube-system-api.json: "),
            "an empty directory, a manifest of somebody else and a link are nothing to say: {named}"
        );
        assert!(!problem(&root, None).unwrap().contains("manifests/"));
    }
}
