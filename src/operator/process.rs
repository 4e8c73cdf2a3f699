//! What the operator's process is started with. What it installs is `settings`.

use crate::metrics::address::Address;

/// Settings of the operator's process, validated.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Image of agent and supervisor if the PodCheckpointer names none; `None`: the image of the
    /// operator's own container.
    pub image: Option<String>,
    /// Where metrics and health are served.
    pub metrics_address: Address,
    /// Name of the operator's own pod, if it runs in one.
    pub pod_name: Option<String>,
    /// Namespace of the operator's own pod and of its Lease.
    pub pod_namespace: String,
}
