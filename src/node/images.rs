//! Whether the kubelet would let a pod without pull secrets use an image that is on the node
//! (KubeletEnsureSecretPulledImages; pkg/kubelet/images/pullmanager/image_pull_manager.go).

use std::io;
use std::path::Path;

use crate::node::host::HostRoot;
use crate::node::kubelet::Settings;

/// Is the image (as the pod names it, and its id in the runtime) usable without a pull secret? `kubelet_dir` is a host path.
pub fn is_usable_without_secret(
    _root: &HostRoot,
    _kubelet_dir: &Path,
    _settings: &Settings,
    _image: &str,
    _image_id: &str,
) -> io::Result<bool> {
    todo!("node helper")
}
