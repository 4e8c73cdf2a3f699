//! A client for the container runtime: CRI v1 (k8s.io/cri-api, pkg/apis/runtime/v1/api.proto) on
//! its unix socket.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::Code;

use crate::node::grpc::{Connection, Fault, Link, MAX_MESSAGE};
use crate::node::host::HostRoot;
use crate::node::kubelet::Settings;
use crate::node::proto::runtime as cri;
use cri::image_service_client::ImageServiceClient;
use cri::runtime_service_client::RuntimeServiceClient;

/// Label that the kubelet sets on every container (k8s.io/kubelet, pkg/types/labels.go).
const POD_UID: &str = "io.kubernetes.pod.uid";

/// Usual sockets of runtimes, of which the first that exists is used if the kubelet's settings are
/// not known. Those of distributions that bring their own containerd come first: on such a node
/// another containerd may run too, which does not have the kubelet's pods.
pub const SOCKETS: [&str; 5] = [
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
];

/// No runtime listens where one may.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no container runtime listens at {}: give --cri-endpoint", .0.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or "))]
pub struct NotFound(pub Vec<PathBuf>);

impl NotFound {
    /// Where a runtime may still begin to listen, as a real path.
    pub fn expected(&self, root: &HostRoot) -> PathBuf {
        let first = self.0.first().cloned().unwrap_or_default();
        root.resolve(&first).unwrap_or(first)
    }
}

/// The runtime's socket, as a real path: the one that is `given`, a host path; else the kubelet's
/// own, according to its settings; else the first of [`SOCKETS`] that exists. `None`: the kubelet's
/// settings cannot be read.
///
/// If the kubelet's own does not exist, no other one takes its place: that another runtime runs
/// nothing says nothing about the kubelet's pods.
pub fn find(
    root: &HostRoot,
    given: Option<&Path>,
    kubelet: Option<&Settings>,
) -> Result<PathBuf, NotFound> {
    let of_kubelet = kubelet.and_then(|kubelet| kubelet.runtime_endpoint.as_deref());
    let candidates = match (given, of_kubelet) {
        (Some(given), _) => vec![given.to_owned()],
        (None, Some(endpoint)) => vec![socket_of(endpoint)],
        (None, None) => SOCKETS.map(PathBuf::from).to_vec(),
    };
    let found = candidates
        .iter()
        .find_map(|path| root.resolve(path).ok().filter(|real| real.exists()));
    found.ok_or(NotFound(candidates))
}

/// The path in an endpoint of the kubelet. It takes only unix sockets, and one without a scheme
/// (k8s.io/cri-client, pkg/util/util_unix.go).
fn socket_of(endpoint: &str) -> PathBuf {
    let path = endpoint.strip_prefix("unix:").unwrap_or(endpoint);
    let is_absolute = path.starts_with('/');
    PathBuf::from(if is_absolute {
        format!("/{}", path.trim_start_matches('/'))
    } else {
        path.to_owned()
    })
}

/// Why a call to the runtime failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No process listens at the socket, or the connection broke.
    #[error("cannot reach the container runtime at {}", .0.display())]
    Connect(PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// The call exceeded its time limit.
    #[error("the container runtime at {} did not answer {call} within {limit:?}", .socket.display())]
    TimedOut {
        /// The runtime's socket.
        socket: PathBuf,
        /// The CRI call.
        call: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The runtime answered with an error.
    #[error("the container runtime answered {call} with an error")]
    Refused {
        /// The CRI call.
        call: &'static str,
        /// The runtime's answer.
        #[source]
        status: Box<tonic::Status>,
    },
}

/// Name and version of the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// `containerd` or `cri-o`.
    pub name: String,
    /// Version of the runtime.
    pub version: String,
}

/// A pod sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// ID in the runtime.
    pub id: String,
    /// Namespace of its pod.
    pub namespace: String,
    /// Name of its pod.
    pub name: String,
    /// UID of its pod.
    pub uid: String,
    /// How many sandboxes the pod had before this one.
    pub attempt: u32,
    /// Whether its state is `SANDBOX_READY`.
    pub ready: bool,
    /// Creation as wall-clock time in nanoseconds; only for ordering.
    pub created: i64,
    /// The annotations of the pod and of the kubelet.
    pub annotations: BTreeMap<String, String>,
    /// The handler of its runtime class; empty without a runtime class.
    pub handler: String,
}

/// State of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Created, never started.
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited,
    /// The runtime does not know the state.
    #[default]
    Unknown,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// ID in the runtime.
    pub id: String,
    /// ID of its sandbox.
    pub sandbox: String,
    /// UID of its pod.
    pub pod_uid: String,
    /// Name within its pod.
    pub name: String,
    /// Restart count.
    pub attempt: u32,
    /// State of the container.
    pub state: State,
    /// The image's name in the pod.
    pub image: String,
    /// The image's ID in the runtime.
    pub image_id: String,
}

/// Verbose status of a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detail {
    /// State of the container.
    pub state: State,
    /// The image's ID in the runtime.
    pub image_id: String,
    /// When it was started, as wall-clock time in nanoseconds, 0 if never; only for ordering.
    pub started: i64,
    /// Exit code, once the container has ended.
    pub exit_code: i32,
    /// Why it ended, in one word: `Error`, `OOMKilled`. The runtime's message is not kept, because
    /// it may quote arguments.
    pub reason: String,
    /// `info` of the verbose status: containerd has `config` (with `envs`), both have
    /// `runtimeSpec`.
    pub info: serde_json::Value,
}

/// An image on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// ID in the runtime.
    pub id: String,
    /// `<repository>@<digest>` of every repository that it was pulled from.
    pub digests: Vec<String>,
}

/// A client for one runtime. Cheap to clone; connects at the first call, and again after a failure.
#[derive(Clone, Debug)]
pub struct Runtime {
    connection: Connection,
    limit: Duration,
}

impl Runtime {
    /// A client for the runtime at this socket, with a time limit for each call.
    pub fn new(socket: PathBuf, limit: Duration) -> Self {
        Self {
            connection: Connection::new(socket),
            limit,
        }
    }

    /// Name and version of the runtime.
    pub async fn version(&self) -> Result<Version, Error> {
        let answer = self
            .call("Version", self.limit, async |link| {
                let request = cri::VersionRequest {
                    version: "v1".to_owned(),
                };
                Ok(runtime(link).version(request).await?.into_inner())
            })
            .await?;
        Ok(Version {
            name: answer.runtime_name,
            version: answer.runtime_version,
        })
    }

    /// The handler of a sandbox whose pod has no runtime class. containerd reports it in its
    /// verbose status (`config` is its own configuration); other runtimes do not, which is `None`.
    pub async fn default_handler(&self) -> Result<Option<String>, Error> {
        let answer = self.call("Status", self.limit, async |link| {
            Ok(runtime(link)
                .status(cri::StatusRequest { verbose: true })
                .await?
                .into_inner())
        });
        let info = answer.await?.info;
        let config: Option<serde_json::Value> = info
            .get("config")
            .and_then(|text| serde_json::from_str(text).ok());
        let name = config
            .as_ref()
            .and_then(|config| config.pointer("/containerd/defaultRuntimeName")?.as_str());
        Ok(name.filter(|name| !name.is_empty()).map(str::to_owned))
    }

    /// Every sandbox, including those that are not ready.
    pub async fn sandboxes(&self) -> Result<Vec<Sandbox>, Error> {
        let answer = self
            .call("ListPodSandbox", self.limit, async |link| {
                Ok(runtime(link)
                    .list_pod_sandbox(cri::ListPodSandboxRequest::default())
                    .await?
                    .into_inner())
            })
            .await?;
        Ok(answer.items.into_iter().map(Sandbox::from).collect())
    }

    /// Every container, including those that have ended.
    pub async fn containers(&self) -> Result<Vec<Container>, Error> {
        self.list_containers(cri::ContainerFilter::default()).await
    }

    /// The containers of the pod with this UID; the runtime filters them.
    pub async fn containers_of(&self, pod_uid: &str) -> Result<Vec<Container>, Error> {
        let label_selector = BTreeMap::from([(POD_UID.to_owned(), pod_uid.to_owned())]);
        self.list_containers(cri::ContainerFilter {
            label_selector,
            ..Default::default()
        })
        .await
    }

    /// Verbose status of one container; `None` if it is gone.
    pub async fn detail(&self, container: &str) -> Result<Option<Detail>, Error> {
        const CALL: &str = "ContainerStatus";
        let answer = self.call(CALL, self.limit, async |link| {
            let request = cri::ContainerStatusRequest {
                container_id: container.to_owned(),
                verbose: true,
            };
            Ok(runtime(link).container_status(request).await?.into_inner())
        });
        let Some(answer) = none_if_gone(answer.await)? else {
            return Ok(None);
        };
        let Some(status) = answer.status else {
            return Ok(None);
        };
        // invalid JSON is not the same as no info: it must not be taken for an empty environment
        let info = match answer.info.get("info") {
            None => serde_json::Value::Null,
            Some(text) => serde_json::from_str(text).map_err(|error| Error::Refused {
                call: CALL,
                status: Box::new(tonic::Status::data_loss(format!(
                    "verbose info is not JSON: {error}"
                ))),
            })?,
        };
        Ok(Some(Detail {
            state: state(status.state),
            image_id: first_filled([status.image_id, status.image_ref]),
            started: status.started_at,
            exit_code: status.exit_code,
            reason: status.reason,
            info,
        }))
    }

    /// The ID of an image; `None` if it is not on the node.
    pub async fn image(&self, reference: &str) -> Result<Option<String>, Error> {
        Ok(self.image_detail(reference).await?.map(|image| image.id))
    }

    /// What the runtime knows about an image; `None` if it is not on the node.
    pub async fn image_detail(&self, reference: &str) -> Result<Option<Image>, Error> {
        let answer = self.call("ImageStatus", self.limit, async |link| {
            let image = cri::ImageSpec {
                image: reference.to_owned(),
                ..Default::default()
            };
            let request = cri::ImageStatusRequest {
                image: Some(image),
                verbose: false,
            };
            let mut client =
                ImageServiceClient::new(link.channel).max_decoding_message_size(MAX_MESSAGE);
            Ok(client.image_status(request).await?.into_inner())
        });
        let image = none_if_gone(answer.await)?.and_then(|answer| answer.image);
        let known = |cri::Image {
                         id,
                         repo_tags: _,
                         repo_digests,
                     }| Image {
            id,
            digests: repo_digests,
        };
        Ok(image.map(known).filter(|image| !image.id.is_empty()))
    }

    /// The directory of the file system with the images, a host path; `None` if the runtime does
    /// not report it.
    pub async fn image_directory(&self) -> Result<Option<PathBuf>, Error> {
        let answer = self.call("ImageFsInfo", self.limit, async |link| {
            let mut client =
                ImageServiceClient::new(link.channel).max_decoding_message_size(MAX_MESSAGE);
            Ok(client
                .image_fs_info(cri::ImageFsInfoRequest {})
                .await?
                .into_inner())
        });
        let first = answer
            .await?
            .image_filesystems
            .into_iter()
            .next()
            .and_then(|usage| usage.fs_id);
        Ok(first
            .map(|id| PathBuf::from(id.mountpoint))
            .filter(|path| path.is_absolute()))
    }

    /// Stops a container, which gets this long to end by itself. The call may take that long.
    /// Success if it is already gone.
    pub async fn stop_container(&self, container: &str, grace: Duration) -> Result<(), Error> {
        let timeout = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let timeout = i64::try_from(timeout).unwrap_or(i64::MAX);
        let answer = self.call(
            "StopContainer",
            self.limit.saturating_add(grace),
            async |link| {
                let request = cri::StopContainerRequest {
                    container_id: container.to_owned(),
                    timeout,
                };
                runtime(link).stop_container(request).await
            },
        );
        none_if_gone(answer.await).map(|_| ())
    }

    /// Stops a sandbox and removes its network and port mappings. Success if it is already gone.
    pub async fn stop_sandbox(&self, sandbox: &str) -> Result<(), Error> {
        let answer = self.call("StopPodSandbox", self.limit, async |link| {
            let request = cri::StopPodSandboxRequest {
                pod_sandbox_id: sandbox.to_owned(),
            };
            runtime(link).stop_pod_sandbox(request).await
        });
        none_if_gone(answer.await).map(|_| ())
    }

    /// Removes a stopped sandbox with the records of its containers. Success if it is already gone.
    pub async fn remove_sandbox(&self, sandbox: &str) -> Result<(), Error> {
        let answer = self.call("RemovePodSandbox", self.limit, async |link| {
            let request = cri::RemovePodSandboxRequest {
                pod_sandbox_id: sandbox.to_owned(),
            };
            runtime(link).remove_pod_sandbox(request).await
        });
        none_if_gone(answer.await).map(|_| ())
    }

    async fn list_containers(&self, filter: cri::ContainerFilter) -> Result<Vec<Container>, Error> {
        let answer = self
            .call("ListContainers", self.limit, async |link| {
                let request = cri::ListContainersRequest {
                    filter: Some(filter.clone()),
                };
                Ok(runtime(link).list_containers(request).await?.into_inner())
            })
            .await?;
        Ok(answer.containers.into_iter().map(Container::from).collect())
    }

    async fn call<T>(
        &self,
        call: &'static str,
        limit: Duration,
        ask: impl AsyncFn(Link) -> Result<T, tonic::Status>,
    ) -> Result<T, Error> {
        let socket = || self.connection.socket().to_owned();
        self.connection
            .call(limit, ask)
            .await
            .map_err(|fault| match fault {
                Fault::Unreachable(source) => Error::Connect(socket(), source.into()),
                Fault::Broken(source) => Error::Connect(socket(), source),
                Fault::TimedOut => Error::TimedOut {
                    socket: socket(),
                    call,
                    limit,
                },
                Fault::Status(status) => Error::Refused { call, status },
            })
    }
}

fn runtime(link: Link) -> RuntimeServiceClient<tonic::transport::Channel> {
    RuntimeServiceClient::new(link.channel).max_decoding_message_size(MAX_MESSAGE)
}

/// Takes `NotFound` as `None`: for a query or a removal it is not a failure.
fn none_if_gone<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Error::Refused { status, .. }) if status.code() == Code::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn first_filled<const N: usize>(texts: [String; N]) -> String {
    texts
        .into_iter()
        .find(|text| !text.is_empty())
        .unwrap_or_default()
}

/// A number without a name in this version of the protocol is unknown, not the protocol's first
/// state.
fn state(number: i32) -> State {
    match cri::ContainerState::try_from(number) {
        Ok(cri::ContainerState::ContainerCreated) => State::Created,
        Ok(cri::ContainerState::ContainerRunning) => State::Running,
        Ok(cri::ContainerState::ContainerExited) => State::Exited,
        Ok(cri::ContainerState::ContainerUnknown) | Err(_) => State::Unknown,
    }
}

impl From<cri::PodSandbox> for Sandbox {
    fn from(sandbox: cri::PodSandbox) -> Self {
        let cri::PodSandbox {
            id,
            metadata,
            state,
            created_at,
            annotations,
            runtime_handler: handler,
        } = sandbox;
        let cri::PodSandboxMetadata {
            name,
            uid,
            namespace,
            attempt,
        } = metadata.unwrap_or_default();
        let ready = state == i32::from(cri::PodSandboxState::SandboxReady);
        Self {
            id,
            namespace,
            name,
            uid,
            attempt,
            ready,
            created: created_at,
            annotations,
            handler,
        }
    }
}

impl From<cri::Container> for Container {
    fn from(container: cri::Container) -> Self {
        let cri::Container {
            id,
            pod_sandbox_id,
            metadata,
            image,
            image_ref,
            state: number,
            created_at: _,
            mut labels,
            image_id,
        } = container;
        let cri::ContainerMetadata { name, attempt } = metadata.unwrap_or_default();
        let cri::ImageSpec {
            image,
            user_specified_image,
        } = image.unwrap_or_default();
        Self {
            id,
            sandbox: pod_sandbox_id,
            pod_uid: labels.remove(POD_UID).unwrap_or_default(),
            name,
            attempt,
            state: state(number),
            // the runtime may have been given the ID; the name from the pod is then in another
            // field
            image: first_filled([user_specified_image, image]),
            image_id: first_filled([image_id, image_ref]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host with a file at each of these paths.
    fn host(sockets: &[&str]) -> (tempfile::TempDir, HostRoot) {
        let directory = tempfile::tempdir().unwrap();
        for path in sockets {
            let real = directory.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(real.parent().unwrap()).unwrap();
            std::fs::write(&real, "").unwrap();
        }
        let root = HostRoot::new(directory.path());
        (directory, root)
    }

    #[test]
    fn the_usual_sockets_are_only_for_a_kubelet_whose_settings_are_not_known() {
        let (_directory, root) = host(&[]);
        let missing = find(&root, None, None).unwrap_err();
        assert_eq!(missing, NotFound(SOCKETS.map(PathBuf::from).to_vec()));
        assert_eq!(missing.expected(&root), root.resolve(SOCKETS[0]).unwrap());
        for (at, path) in SOCKETS.iter().enumerate() {
            let (_directory, root) = host(&SOCKETS[at..]);
            let found = find(&root, None, None).unwrap();
            assert_eq!(found, root.resolve(path).unwrap());
        }
    }

    #[test]
    fn the_kubelets_own_runtime_is_the_one_and_a_given_one_goes_before() {
        let (_directory, root) =
            host(&[SOCKETS[3], SOCKETS[4], "/srv/own.sock", "/run/other.sock"]);
        let real = |path: &str| root.resolve(path).unwrap();
        let kubelet = |endpoint: &str| Settings {
            runtime_endpoint: Some(endpoint.to_owned()),
            ..Settings::default()
        };
        for endpoint in [
            "unix:///srv/own.sock",
            "/srv/own.sock",
            "unix:/srv/own.sock",
        ] {
            let found = find(&root, None, Some(&kubelet(endpoint)));
            assert_eq!(found, Ok(real("/srv/own.sock")), "{endpoint}");
        }
        let other = Some(Path::new("/run/other.sock"));
        let own = kubelet("unix:///srv/own.sock");
        assert_eq!(find(&root, other, Some(&own)), Ok(real("/run/other.sock")));
        // another runtime that is there does not have the kubelet's pods
        for endpoint in ["unix:///srv/none.sock", "tcp://10.0.0.1:3735"] {
            assert!(
                find(&root, None, Some(&kubelet(endpoint))).is_err(),
                "{endpoint}"
            );
        }
        let missing = find(&root, Some(Path::new("/run/none.sock")), Some(&own)).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "no container runtime listens at /run/none.sock: give --cri-endpoint"
        );
    }
}
