//! The kubelet's pod-resources socket: lists what the test sets.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pod_checkpointer::node::proto::podresources as proto;
use tokio::sync::watch;
use tonic::{Request, Response, Status, async_trait};

use super::{Fault, Socket, gate};

#[derive(Clone, Debug, Default)]
pub struct State {
    /// Namespace and name.
    pub pods: BTreeSet<(String, String)>,
    pub fault: Fault,
}

#[derive(Clone)]
pub struct PodResources {
    pub state: Arc<watch::Sender<State>>,
    socket: Arc<Socket>,
}

impl PodResources {
    /// Listens at `<kubelet dir>/pod-resources/kubelet.sock`.
    pub fn start(kubelet_dir: &Path) -> Self {
        let socket: PathBuf = kubelet_dir.join("pod-resources/kubelet.sock");
        let resources = Self {
            state: Arc::default(),
            socket: Arc::new(Socket::new(socket)),
        };
        resources.resume();
        resources
    }

    pub fn socket(&self) -> &Path {
        self.socket.path()
    }

    pub async fn stop(&self) {
        self.socket.close().await;
    }

    pub fn resume(&self) {
        let service = Service(self.state.clone());
        let server = proto::pod_resources_lister_server::PodResourcesListerServer::new(service);
        self.socket
            .listen(tonic::transport::Server::builder().add_service(server));
    }
}

struct Service(Arc<watch::Sender<State>>);

#[async_trait]
impl proto::pod_resources_lister_server::PodResourcesLister for Service {
    async fn list(
        &self,
        _: Request<proto::ListPodResourcesRequest>,
    ) -> Result<Response<proto::ListPodResourcesResponse>, Status> {
        gate(&self.0, |state| state.fault).await?;
        let pods = self.0.borrow().pods.clone();
        let pod_resources = pods
            .into_iter()
            .map(|(namespace, name)| proto::PodResources { name, namespace })
            .collect();
        Ok(Response::new(proto::ListPodResourcesResponse {
            pod_resources,
        }))
    }
}
