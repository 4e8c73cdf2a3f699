//! Whether the kubelet would let a pod without pull secrets use an image on the node
//! (KubeletEnsureSecretPulledImages; pkg/kubelet/images/pullmanager/image_pull_manager.go,
//! `MustAttemptImagePull`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::node::host::HostRoot;
use crate::node::kubelet::Settings;

/// Whether an image is usable without a pull secret. `image` is its name in the pod, `image_id` its
/// ID in the runtime, and `kubelet_dir` a host path.
///
/// A record that is invalid for the kubelet makes it pull, so the answer is `false`. An error means
/// that this process could not read a record.
pub fn is_usable_without_secret(
    root: &HostRoot,
    kubelet_dir: &Path,
    settings: &Settings,
    image: &str,
    image_id: &str,
) -> io::Result<bool> {
    let Some(repository) = repository(image) else { return Ok(false) };
    // the default since the feature gate is on (pkg/kubelet/apis/config/v1beta1/defaults.go); an
    // older kubelet keeps no records, and without a record this policy allows every pod
    match settings.pull_verification.as_deref().unwrap_or("NeverVerifyPreloadedImages") {
        "NeverVerify" => return Ok(true),
        "NeverVerifyAllowlistedImages" if is_allowed(&settings.pull_allowlist, repository) => return Ok(true),
        _ => {}
    }
    let records = kubelet_dir.join("image_manager");
    let pulled = read(root, &records.join("pulled").join(record_name(image_id)))?;
    let record = match pulled.map(|text| serde_json::from_slice::<PulledRecord>(&text)) {
        None => None,
        Some(Ok(record)) if record.image_ref != image_id => None,
        Some(Ok(record)) => Some(record),
        Some(Err(_)) => return Ok(false),
    };
    if let Some(record) = record {
        return Ok(record
            .credential_mapping
            .get(repository)
            .is_some_and(|credentials| credentials.node_pods_accessible));
    }
    if settings.pull_verification.as_deref().is_some_and(|policy| policy != "NeverVerifyPreloadedImages") {
        return Ok(false);
    }
    // a pull that was started counts as a pull by the kubelet
    let pulling = read(root, &records.join("pulling").join(record_name(image)))?;
    Ok(match pulling.map(|text| serde_json::from_slice::<PullIntent>(&text)) {
        None => true,
        Some(Ok(intent)) => intent.image != image,
        Some(Err(_)) => false,
    })
}

/// `ImagePulledRecord` (k8s.io/kubelet, config/v1beta1/types.go): what matters of it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PulledRecord {
    image_ref: String,
    #[serde(default)]
    credential_mapping: BTreeMap<String, Credentials>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Credentials {
    #[serde(default)]
    node_pods_accessible: bool,
}

/// `ImagePullIntent` (the same file).
#[derive(Deserialize)]
struct PullIntent {
    image: String,
}

/// Name of a record's file (fs_pullrecords.go, `cacheFilename`).
fn record_name(key: &str) -> String {
    let mut name = "sha256-".to_owned();
    for byte in Sha256::digest(key) {
        // writing to a string cannot fail
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// The image's name without tag and digest, otherwise as given (image_pull_policies.go, `trimImageTagDigest`).
pub fn repository(image: &str) -> Option<&str> {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    let end = name.rfind('/').map_or(0, |slash| slash + 1);
    let name = name.get(end..)?.find(':').and_then(|colon| name.get(..end + colon)).unwrap_or(name);
    Some(name).filter(|name| !name.is_empty())
}

/// Whether the repository is on the list: by the same name, or below a prefix that ends in `/*`.
fn is_allowed(list: &[String], repository: &str) -> bool {
    list.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(prefix) => prefix.ends_with('/') && repository.starts_with(prefix),
        None => pattern == repository,
    })
}

fn read(root: &HostRoot, path: &Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(root.resolve(path)?) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ID: &str = "sha256:6e38f40d628db3002f5617342c8872c935de530d867d0f709a2fbda1a302a562";
    const IMAGE: &str = "registry.example:5000/team/app:v1";

    struct Node {
        directory: tempfile::TempDir,
        settings: Settings,
    }

    impl Node {
        fn new(policy: Option<&str>, allowlist: &[&str]) -> Self {
            let directory = tempfile::tempdir().unwrap();
            for kind in ["pulled", "pulling"] {
                std::fs::create_dir_all(directory.path().join("var/lib/kubelet/image_manager").join(kind)).unwrap();
            }
            let settings = Settings {
                pull_verification: policy.map(str::to_owned),
                pull_allowlist: allowlist.iter().map(|&pattern| pattern.to_owned()).collect(),
                ..Settings::default()
            };
            Self { directory, settings }
        }

        fn with(self, kind: &str, key: &str, text: &str) -> Self {
            let directory = self.directory.path().join("var/lib/kubelet/image_manager").join(kind);
            std::fs::write(directory.join(record_name(key)), text).unwrap();
            self
        }

        fn pulled(self, repository: &str, credentials: &str) -> Self {
            let text = format!(
                r#"{{"kind":"ImagePulledRecord","apiVersion":"kubelet.config.k8s.io/v1beta1",
                    "lastUpdatedTime":"2026-01-01T00:00:00Z","imageRef":"{ID}",
                    "credentialMapping":{{"{repository}":{credentials}}}}}"#
            );
            self.with("pulled", ID, &text)
        }

        fn is_usable(&self) -> bool {
            let root = HostRoot::new(self.directory.path());
            is_usable_without_secret(&root, Path::new("/var/lib/kubelet"), &self.settings, IMAGE, ID).unwrap()
        }
    }

    const SECRET: &str = r#"{"kubernetesSecrets":[{"uid":"u","namespace":"n","name":"s","credentialHash":"h"}]}"#;
    const ANYBODY: &str = r#"{"nodePodsAccessible":true}"#;
    const REPOSITORY: &str = "registry.example:5000/team/app";
    const POLICIES: [Option<&str>; 5] = [
        None,
        Some("NeverVerify"),
        Some("NeverVerifyPreloadedImages"),
        Some("NeverVerifyAllowlistedImages"),
        Some("AlwaysVerify"),
    ];

    #[test]
    fn the_record_of_an_image_is_named_after_the_hash_of_its_id() {
        // A name from the kubelet's own test data (pkg/kubelet/images/pullmanager/testdata/pulling).
        assert_eq!(
            record_name("docker.io/testing/test:latest"),
            "sha256-aef2af226629a35d5f3ef0fdbb29fdbebf038d0acd8850590e8c48e1e283aa56"
        );
    }

    #[test]
    fn an_image_that_was_pulled_with_a_secret_is_usable_only_where_nothing_is_verified() {
        let usable = POLICIES.map(|policy| Node::new(policy, &[]).pulled(REPOSITORY, SECRET).is_usable());
        assert_eq!(usable, [false, true, false, false, false]);
    }

    #[test]
    fn an_image_that_was_pulled_for_every_pod_of_the_node_is_usable() {
        let usable = POLICIES.map(|policy| Node::new(policy, &[]).pulled(REPOSITORY, ANYBODY).is_usable());
        assert_eq!(usable, [true; 5]);
    }

    #[test]
    fn a_preloaded_image_is_usable_by_default_and_not_where_it_is_verified() {
        let usable = POLICIES.map(|policy| Node::new(policy, &[]).is_usable());
        assert_eq!(usable, [true, true, true, false, false]);
    }

    #[test]
    fn an_allowed_image_is_usable_whatever_its_record() {
        for (pattern, usable) in [
            ("registry.example:5000/team/app", true),
            ("registry.example:5000/team/*", true),
            ("registry.example:5000/*", true),
            ("registry.example:5000/team/ap", false),
            ("registry.example:5000/team/ap*", false),
            ("*", false),
        ] {
            let node = Node::new(Some("NeverVerifyAllowlistedImages"), &[pattern]).pulled(REPOSITORY, SECRET);
            assert_eq!(node.is_usable(), usable, "{pattern}");
        }
    }

    #[test]
    fn a_record_of_another_repository_with_the_same_content_does_not_count() {
        assert!(!Node::new(None, &[]).pulled("registry.example:5000/other", ANYBODY).is_usable());
    }

    #[test]
    fn a_pull_that_was_begun_and_not_recorded_needs_the_secret_again() {
        let intent = format!(r#"{{"image":"{IMAGE}"}}"#);
        assert!(!Node::new(None, &[]).with("pulling", IMAGE, &intent).is_usable());
        assert!(Node::new(None, &[]).with("pulling", IMAGE, r#"{"image":"other"}"#).is_usable());
        assert!(!Node::new(None, &[]).with("pulling", IMAGE, "torn").is_usable());
    }

    #[test]
    fn a_damaged_record_makes_the_kubelet_pull() {
        assert!(!Node::new(None, &[]).with("pulled", ID, "{").is_usable());
    }

    #[test]
    fn a_record_that_names_another_id_is_no_record() {
        assert!(Node::new(None, &[]).with("pulled", ID, r#"{"imageRef":"other"}"#).is_usable());
    }

    #[test]
    fn tag_and_digest_are_no_part_of_the_repository() {
        for (image, expected) in [
            ("app", Some("app")),
            ("app:v1", Some("app")),
            ("r:5000/app", Some("r:5000/app")),
            ("r:5000/app:v1@sha256:00", Some("r:5000/app")),
            ("r/app@sha256:00", Some("r/app")),
            ("", None),
            ("@sha256:00", None),
        ] {
            assert_eq!(repository(image), expected, "{image}");
        }
    }
}
