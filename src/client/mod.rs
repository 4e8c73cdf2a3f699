//! The program's client for the API server: kube's, assembled in a way that suits a node. Names are
//! resolved as on the host, nothing is retried silently, and no read waits forever.

pub mod gone;
pub mod heard;
pub mod own_pod;
pub mod retry;

use std::path::Path;
use std::time::Duration;

use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt as _};
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube_runtime::events::{Event, EventType};
use tower::{Layer as _, ServiceExt as _};

use crate::node::host::HostRoot;
use crate::node::resolve::Resolver;

/// How long connecting may take, including resolving the name and TLS.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Longest silence on a connection. A watch asks the server to end it after 30 s, so a connection
/// that is silent for longer is dead.
const READ_LIMIT: Duration = Duration::from_secs(40);

/// Why there is no configuration to reach the API server.
#[derive(Debug, thiserror::Error)]
pub enum Unknown {
    /// The kubeconfig cannot be read.
    #[error(transparent)]
    Read(KubeconfigError),
    /// The content of the kubeconfig cannot be used.
    #[error(transparent)]
    Use(KubeconfigError),
    /// No kubeconfig is given, and the program does not run in a pod of a cluster.
    #[error(transparent)]
    NotInCluster(InClusterError),
}

/// An Event. The note is cut to 1000 characters, because the API server refuses more than 1 KiB.
pub fn event(type_: EventType, reason: &str, note: &str, action: &str) -> Event {
    let note = Some(note.chars().take(1000).collect());
    Event {
        type_,
        reason: reason.to_owned(),
        note,
        action: action.to_owned(),
        secondary: None,
    }
}

/// How to reach the API server: from this kubeconfig, else as a pod of the cluster.
pub async fn kube_config(kubeconfig: Option<&Path>) -> Result<kube::Config, Unknown> {
    let Some(path) = kubeconfig else {
        return kube::Config::incluster().map_err(Unknown::NotInCluster);
    };
    let kubeconfig = Kubeconfig::read_from(path).map_err(Unknown::Read)?;
    kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(Unknown::Use)
}

/// A client for the API server of this configuration; names are resolved with the host's files
/// below `root`.
///
/// kube's own [`kube::Client::try_from`] would need NSS for names, retries up to 15 times before it
/// reports an error, and reads without a limit. Proxies are not supported: an agent talks to its
/// cluster directly.
pub fn kube_client(config: kube::Config, root: HostRoot) -> Result<kube::Client, kube::Error> {
    if let Some(proxy) = &config.proxy_url {
        return Err(kube::Error::ProxyProtocolUnsupported {
            proxy_url: Box::new(proxy.clone()),
        });
    }
    let mut connector = HttpConnector::new_with_resolver(Resolver::new(root, CONNECT_LIMIT));
    connector.enforce_http(false);
    connector.set_nodelay(true);
    let mut connector =
        TimeoutConnector::new(config.rustls_https_connector_with_connector(connector)?);
    connector.set_connect_timeout(Some(CONNECT_LIMIT));
    connector.set_read_timeout(Some(config.read_timeout.unwrap_or(READ_LIMIT)));
    connector.set_write_timeout(Some(config.write_timeout.unwrap_or(READ_LIMIT)));

    let client: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new())
        .pool_idle_timeout(READ_LIMIT / 2)
        .pool_max_idle_per_host(2)
        .build(connector);
    let service = config
        .extra_headers_layer()?
        .layer(client.map_err(tower::BoxError::from));
    let service = tower::util::option_layer(config.auth_layer()?).layer(service);
    let service = config
        .base_uri_layer()
        .layer(service.map_err(tower::BoxError::from));
    Ok(kube::Client::new(service, config.default_namespace))
}
