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
    let Some(repository) = repository(image) else {
        return Ok(false);
    };
    // the default since the feature gate is on (pkg/kubelet/apis/config/v1beta1/defaults.go); an
    // older kubelet keeps no records, and without a record this policy allows every pod
    match settings
        .pull_verification
        .as_deref()
        .unwrap_or("NeverVerifyPreloadedImages")
    {
        "NeverVerify" => return Ok(true),
        "NeverVerifyAllowlistedImages" if is_allowed(&settings.pull_allowlist, repository) => {
            return Ok(true);
        }
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
    if settings
        .pull_verification
        .as_deref()
        .is_some_and(|policy| policy != "NeverVerifyPreloadedImages")
    {
        return Ok(false);
    }
    // a pull that was started counts as a pull by the kubelet
    let pulling = read(root, &records.join("pulling").join(record_name(image)))?;
    Ok(
        match pulling.map(|text| serde_json::from_slice::<PullIntent>(&text)) {
            None => true,
            Some(Ok(intent)) => intent.image != image,
            Some(Err(_)) => false,
        },
    )
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

/// The image's name without tag and digest, otherwise as given (image_pull_policies.go,
/// `trimImageTagDigest`).
pub fn repository(image: &str) -> Option<&str> {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    let end = name.rfind('/').map_or(0, |slash| slash + 1);
    let name = name
        .get(end..)?
        .find(':')
        .and_then(|colon| name.get(..end + colon))
        .unwrap_or(name);
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
#[path = "images_tests.rs"]
mod tests;
