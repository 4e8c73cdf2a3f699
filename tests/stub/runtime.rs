//! A container runtime: CRI on a unix socket, everything in memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pod_checkpointer::node::proto::runtime as cri;
use serde_json::{Value, json};
use tokio::sync::watch;
use tonic::{Request, Response, Status, async_trait};

use super::{Fault, Socket, gate};

/// A pod as the runtime is told to run it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub annotations: BTreeMap<String, String>,
    /// Handler of its runtime class.
    pub handler: String,
    pub containers: Vec<Spec>,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    pub name: String,
    pub image: String,
    /// ID of the image that it runs; `None` for the one that the name refers to.
    pub image_id: Option<String>,
    pub env: Vec<(String, String)>,
    /// Container path and host path.
    pub mounts: Vec<(String, String)>,
    /// Container path and ID of the image that is mounted there.
    pub image_mounts: Vec<(String, String)>,
    /// Ends at once with success.
    pub is_init: bool,
    /// How long it takes to end when it is stopped.
    pub ends_after: Duration,
    /// How long its `preStop` hook keeps it alive when the kubelet stops its pod.
    pub holds: Duration,
}

impl Pod {
    /// A pod of the API server with one container of this image.
    pub fn new(namespace: &str, name: &str, uid: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            uid: uid.into(),
            annotations: BTreeMap::new(),
            handler: String::new(),
            containers: vec![Spec::new("main", "registry.example/app:v1")],
        }
        .with_source("api")
    }

    /// The kubelet's annotation of the pod's source.
    #[must_use]
    pub fn with_source(mut self, source: &str) -> Self {
        self.annotations
            .insert("kubernetes.io/config.source".into(), source.into());
        self
    }
}

impl Spec {
    pub fn new(name: &str, image: &str) -> Self {
        Self {
            name: name.into(),
            image: image.into(),
            ..Self::default()
        }
    }
}

#[derive(Clone, Debug)]
pub struct Sandbox {
    pub pod: Pod,
    pub ready: bool,
    pub attempt: u32,
    pub created: i64,
}

#[derive(Clone, Debug)]
pub struct Container {
    pub sandbox: String,
    pub pod_uid: String,
    pub spec: Spec,
    pub attempt: u32,
    pub state: cri::ContainerState,
    pub started: i64,
}

/// A call that acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Container and grace in seconds.
    StopContainer(String, i64),
    StopSandbox(String),
    RemoveSandbox(String),
}

#[derive(Clone, Debug, Default)]
pub struct State {
    /// `containerd` or `cri-o`; also decides the format of verbose status.
    pub name: String,
    pub version: String,
    pub sandboxes: BTreeMap<String, Sandbox>,
    pub containers: BTreeMap<String, Container>,
    /// IDs of images by reference.
    pub images: BTreeMap<String, String>,
    /// Directory of the images; `None` if the runtime does not report it.
    pub image_directory: Option<String>,
    /// `<repository>@<digest>` by ID.
    pub digests: BTreeMap<String, String>,
    pub calls: Vec<Call>,
    /// Number of calls of any kind.
    pub taken: u32,
    pub fault: Fault,
    /// Clock and counter for IDs.
    serial: i64,
}

impl State {
    /// Starts a pod, or what is missing of it: a ready sandbox is kept, and ended containers are
    /// restarted.
    pub fn run(&mut self, pod: &Pod) -> String {
        let known = self
            .sandboxes
            .iter()
            .find(|(_, sandbox)| sandbox.ready && sandbox.pod.uid == pod.uid);
        let sandbox = if let Some((id, _)) = known {
            id.clone()
        } else {
            let attempt = self
                .sandboxes
                .values()
                .filter(|sandbox| sandbox.pod.uid == pod.uid)
                .count();
            let (id, created) = self.next("sandbox");
            let attempt = attempt.try_into().unwrap();
            self.sandboxes.insert(
                id.clone(),
                Sandbox {
                    pod: pod.clone(),
                    ready: true,
                    attempt,
                    created,
                },
            );
            id
        };
        for spec in &pod.containers {
            let former = self
                .containers
                .values()
                .filter(|one| one.sandbox == sandbox && one.spec.name == spec.name);
            let attempt = match former.max_by_key(|one| one.attempt) {
                None => 0,
                Some(last)
                    if spec.is_init || last.state == cri::ContainerState::ContainerRunning =>
                {
                    continue;
                }
                Some(last) => last.attempt + 1,
            };
            let (id, started) = self.next("container");
            let ended = spec.is_init;
            self.containers.insert(
                id,
                Container {
                    sandbox: sandbox.clone(),
                    pod_uid: pod.uid.clone(),
                    spec: spec.clone(),
                    attempt,
                    state: if ended {
                        cri::ContainerState::ContainerExited
                    } else {
                        cri::ContainerState::ContainerRunning
                    },
                    started,
                },
            );
        }
        sandbox
    }

    /// Stops the containers of a pod; its sandbox stays ready.
    pub fn kill(&mut self, uid: &str) {
        for container in self
            .containers
            .values_mut()
            .filter(|container| container.pod_uid == uid)
        {
            container.state = cri::ContainerState::ContainerExited;
        }
    }

    /// Stops a pod and removes it.
    pub fn remove(&mut self, uid: &str) {
        self.sandboxes.retain(|_, sandbox| sandbox.pod.uid != uid);
        self.containers
            .retain(|_, container| container.pod_uid != uid);
    }

    /// What containerd shows after a reboot: everything is still listed, and nothing runs.
    pub fn reboot(&mut self) {
        for sandbox in self.sandboxes.values_mut() {
            sandbox.ready = false;
        }
        for container in self.containers.values_mut() {
            container.state = cri::ContainerState::ContainerExited;
        }
    }

    /// Whether its sandbox is ready and every container except init containers runs.
    pub fn is_running(&self, uid: &str) -> bool {
        self.sandboxes.iter().any(|(id, sandbox)| {
            sandbox.pod.uid == uid
                && sandbox.ready
                && sandbox
                    .pod
                    .containers
                    .iter()
                    .filter(|spec| !spec.is_init)
                    .all(|spec| {
                        self.containers.values().any(|container| {
                            container.sandbox == *id
                                && container.spec.name == spec.name
                                && container.state == cri::ContainerState::ContainerRunning
                        })
                    })
        })
    }

    fn next(&mut self, kind: &str) -> (String, i64) {
        self.serial += 1;
        (format!("{kind}-{}", self.serial), self.serial)
    }
}

/// The runtime. Clones share it; it listens until the last one is dropped or [`Runtime::stop`] is
/// called.
#[derive(Clone)]
pub struct Runtime {
    pub state: Arc<watch::Sender<State>>,
    socket: Arc<Socket>,
    directory: Option<Arc<tempfile::TempDir>>,
}

impl Runtime {
    /// A containerd in a directory of its own.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut runtime = Self::start_at(directory.path().join("runtime.sock"));
        runtime.directory = Some(Arc::new(directory));
        runtime
    }

    /// A containerd at this socket.
    pub fn start_at(socket: impl Into<PathBuf>) -> Self {
        let state = State {
            name: "containerd".into(),
            version: "2.4.2".into(),
            ..State::default()
        };
        let runtime = Self {
            state: Arc::new(watch::Sender::new(state)),
            socket: Arc::new(Socket::new(socket.into())),
            directory: None,
        };
        runtime.resume();
        runtime
    }

    pub fn socket(&self) -> &Path {
        self.socket.path()
    }

    pub fn client(&self, limit: Duration) -> pod_checkpointer::node::runtime::Runtime {
        pod_checkpointer::node::runtime::Runtime::new(self.socket().to_owned(), limit)
    }

    /// Changes the state and wakes tests that wait for it.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut result = None;
        self.state.send_modify(|state| result = Some(change(state)));
        result.unwrap()
    }

    /// Refuses connections from now on; the pods run on.
    pub async fn stop(&self) {
        self.socket.close().await;
    }

    /// Listens again.
    pub fn resume(&self) {
        let service = Service(self.state.clone());
        self.socket.listen(
            tonic::transport::Server::builder()
                .add_service(cri::runtime_service_server::RuntimeServiceServer::new(
                    service.clone(),
                ))
                .add_service(cri::image_service_server::ImageServiceServer::new(service)),
        );
    }
}

#[derive(Clone)]
struct Service(Arc<watch::Sender<State>>);

impl Service {
    async fn enter(&self) -> Result<(), Status> {
        self.0.send_modify(|state| state.taken += 1);
        gate(&self.0, |state| state.fault).await
    }

    fn record(&self, call: Call) {
        self.0.send_modify(|state| state.calls.push(call));
    }
}

#[async_trait]
impl cri::runtime_service_server::RuntimeService for Service {
    async fn version(
        &self,
        _: Request<cri::VersionRequest>,
    ) -> Result<Response<cri::VersionResponse>, Status> {
        self.enter().await?;
        let state = self.0.borrow();
        Ok(Response::new(cri::VersionResponse {
            version: "0.1.0".into(),
            runtime_name: state.name.clone(),
            runtime_version: state.version.clone(),
            runtime_api_version: "v1".into(),
        }))
    }

    async fn status(
        &self,
        request: Request<cri::StatusRequest>,
    ) -> Result<Response<cri::StatusResponse>, Status> {
        self.enter().await?;
        let ready = |kind: &str| cri::RuntimeCondition {
            r#type: kind.into(),
            status: true,
            ..Default::default()
        };
        let conditions = vec![ready("RuntimeReady"), ready("NetworkReady")];
        let mut info = BTreeMap::new();
        if request.into_inner().verbose && self.0.borrow().name == "containerd" {
            info.insert(
                "config".to_owned(),
                json!({"containerd": {"defaultRuntimeName": "runc"}}).to_string(),
            );
        }
        Ok(Response::new(cri::StatusResponse {
            status: Some(cri::RuntimeStatus { conditions }),
            info,
        }))
    }

    async fn list_pod_sandbox(
        &self,
        _: Request<cri::ListPodSandboxRequest>,
    ) -> Result<Response<cri::ListPodSandboxResponse>, Status> {
        self.enter().await?;
        let items = self
            .0
            .borrow()
            .sandboxes
            .iter()
            .map(|(id, sandbox)| listed_sandbox(id, sandbox))
            .collect();
        Ok(Response::new(cri::ListPodSandboxResponse { items }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<cri::StopPodSandboxRequest>,
    ) -> Result<Response<cri::StopPodSandboxResponse>, Status> {
        self.enter().await?;
        let id = request.into_inner().pod_sandbox_id;
        self.record(Call::StopSandbox(id.clone()));
        self.0.send_modify(|state| {
            if let Some(sandbox) = state.sandboxes.get_mut(&id) {
                sandbox.ready = false;
            }
            for container in state
                .containers
                .values_mut()
                .filter(|container| container.sandbox == id)
            {
                container.state = cri::ContainerState::ContainerExited;
            }
        });
        Ok(Response::new(cri::StopPodSandboxResponse::default()))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<cri::RemovePodSandboxRequest>,
    ) -> Result<Response<cri::RemovePodSandboxResponse>, Status> {
        self.enter().await?;
        let id = request.into_inner().pod_sandbox_id;
        self.record(Call::RemoveSandbox(id.clone()));
        self.0.send_modify(|state| {
            state.sandboxes.remove(&id);
            state
                .containers
                .retain(|_, container| container.sandbox != id);
        });
        Ok(Response::new(cri::RemovePodSandboxResponse::default()))
    }

    async fn list_containers(
        &self,
        request: Request<cri::ListContainersRequest>,
    ) -> Result<Response<cri::ListContainersResponse>, Status> {
        self.enter().await?;
        let wanted = request
            .into_inner()
            .filter
            .unwrap_or_default()
            .label_selector;
        let state = self.0.borrow();
        let containers = state
            .containers
            .iter()
            .map(|(id, container)| listed_container(&state, id, container));
        let containers = containers.filter(|one| {
            wanted
                .iter()
                .all(|(key, value)| one.labels.get(key) == Some(value))
        });
        Ok(Response::new(cri::ListContainersResponse {
            containers: containers.collect(),
        }))
    }

    async fn container_status(
        &self,
        request: Request<cri::ContainerStatusRequest>,
    ) -> Result<Response<cri::ContainerStatusResponse>, Status> {
        self.enter().await?;
        let request = request.into_inner();
        let state = self.0.borrow();
        let id = request.container_id;
        let container = state
            .containers
            .get(&id)
            .ok_or_else(|| Status::not_found(format!("no container {id}")))?;
        let listed = listed_container(&state, &id, container);
        let status = cri::ContainerStatus {
            id: listed.id,
            metadata: listed.metadata,
            state: listed.state,
            created_at: listed.created_at,
            started_at: container.started,
            image: listed.image,
            image_id: listed.image_id.clone(),
            image_ref: listed.image_id,
            ..Default::default()
        };
        let mut info = BTreeMap::new();
        if request.verbose {
            info.insert(
                "info".to_owned(),
                verbose(&state.name, container).to_string(),
            );
        }
        Ok(Response::new(cri::ContainerStatusResponse {
            status: Some(status),
            info,
        }))
    }

    async fn stop_container(
        &self,
        request: Request<cri::StopContainerRequest>,
    ) -> Result<Response<cri::StopContainerResponse>, Status> {
        self.enter().await?;
        let cri::StopContainerRequest {
            container_id: id,
            timeout,
        } = request.into_inner();
        self.record(Call::StopContainer(id.clone(), timeout));
        let ends_after = match self.0.borrow().containers.get(&id) {
            None => return Err(Status::not_found(format!("no container {id}"))),
            Some(container) => container.spec.ends_after,
        };
        if !ends_after.is_zero() {
            tokio::time::sleep(ends_after.min(Duration::from_secs(timeout.try_into().unwrap())))
                .await;
        }
        self.0.send_modify(|state| {
            if let Some(container) = state.containers.get_mut(&id) {
                container.state = cri::ContainerState::ContainerExited;
            }
        });
        Ok(Response::new(cri::StopContainerResponse::default()))
    }
}

#[async_trait]
impl cri::image_service_server::ImageService for Service {
    async fn image_status(
        &self,
        request: Request<cri::ImageStatusRequest>,
    ) -> Result<Response<cri::ImageStatusResponse>, Status> {
        self.enter().await?;
        let reference = request.into_inner().image.unwrap_or_default().image;
        let id = self.0.borrow().images.get(&reference).cloned();
        let image = id.map(|id| {
            let repo_digests = self
                .0
                .borrow()
                .digests
                .get(&id)
                .cloned()
                .into_iter()
                .collect();
            cri::Image {
                id,
                repo_tags: vec![reference],
                repo_digests,
            }
        });
        Ok(Response::new(cri::ImageStatusResponse { image }))
    }

    async fn image_fs_info(
        &self,
        _: Request<cri::ImageFsInfoRequest>,
    ) -> Result<Response<cri::ImageFsInfoResponse>, Status> {
        self.enter().await?;
        let mountpoint = self.0.borrow().image_directory.clone();
        let usage = |mountpoint| cri::FilesystemUsage {
            fs_id: Some(cri::FilesystemIdentifier { mountpoint }),
        };
        Ok(Response::new(cri::ImageFsInfoResponse {
            image_filesystems: mountpoint.map(usage).into_iter().collect(),
        }))
    }
}

fn listed_sandbox(id: &str, sandbox: &Sandbox) -> cri::PodSandbox {
    let Pod {
        namespace,
        name,
        uid,
        annotations,
        handler,
        containers: _,
    } = sandbox.pod.clone();
    cri::PodSandbox {
        id: id.to_owned(),
        metadata: Some(cri::PodSandboxMetadata {
            name,
            uid,
            namespace,
            attempt: sandbox.attempt,
        }),
        state: i32::from(!sandbox.ready),
        created_at: sandbox.created,
        annotations,
        runtime_handler: handler,
    }
}

fn listed_container(state: &State, id: &str, container: &Container) -> cri::Container {
    let now = || {
        state
            .images
            .get(&container.spec.image)
            .cloned()
            .unwrap_or_default()
    };
    let image_id = container.spec.image_id.clone().unwrap_or_else(now);
    cri::Container {
        id: id.to_owned(),
        pod_sandbox_id: container.sandbox.clone(),
        metadata: Some(cri::ContainerMetadata {
            name: container.spec.name.clone(),
            attempt: container.attempt,
        }),
        // as the kubelet does: the ID, and the name from the pod
        image: Some(cri::ImageSpec {
            image: image_id.clone(),
            user_specified_image: container.spec.image.clone(),
        }),
        image_ref: image_id.clone(),
        state: container.state.into(),
        created_at: container.started,
        labels: BTreeMap::from([
            (
                "io.kubernetes.pod.uid".to_owned(),
                container.pod_uid.clone(),
            ),
            (
                "io.kubernetes.container.name".to_owned(),
                container.spec.name.clone(),
            ),
        ]),
        image_id,
    }
}

/// What the two runtimes report: containerd exactly what the kubelet passed, CRI-O only what the
/// process got.
fn verbose(name: &str, container: &Container) -> Value {
    let Spec {
        env,
        mounts,
        image_mounts,
        ..
    } = &container.spec;
    let passed = env.iter().map(|(key, value)| format!("{key}={value}"));
    if name == "cri-o" {
        let own = [
            "PATH=/usr/local/sbin:/usr/sbin:/sbin",
            "TERM=xterm",
            "HOSTNAME=pod",
        ]
        .map(str::to_owned);
        let env: Vec<_> = own
            .into_iter()
            .chain(passed)
            .chain(["PATH=/usr/local/bin:/bin".to_owned()])
            .collect();
        let mounts: Vec<_> = mounts
            .iter()
            .map(|(to, from)| json!({"destination": to, "source": from}))
            .collect();
        return json!({
            "sandboxID": container.sandbox,
            "pid": 0,
            "runtimeSpec": {"process": {"env": env}, "mounts": mounts},
            "privileged": false,
        });
    }
    let envs: Vec<_> = env
        .iter()
        .map(|(key, value)| json!({"key": key, "value": value}))
        .collect();
    let mounts = mounts
        .iter()
        .map(|(to, from)| json!({"container_path": to, "host_path": from, "readonly": true}));
    let images = image_mounts
        .iter()
        .map(|(to, image)| json!({"container_path": to, "image": {"image": image}}));
    let mounts: Vec<_> = mounts.chain(images).collect();
    json!({
        "sandboxID": container.sandbox,
        "pid": 0,
        "config": {
            "metadata": {"name": container.spec.name},
            "image": {"image": container.spec.image},
            "envs": envs,
            "mounts": mounts,
        },
        "runtimeSpec": {"process": {"env": passed.collect::<Vec<_>>()}},
    })
}
