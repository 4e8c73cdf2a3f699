//! The container runtime, through CRI v1 (k8s.io/cri-api, pkg/apis/runtime/v1/api.proto) on its unix socket.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Why the runtime could not be asked, or would not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens, or the connection broke.
    #[error("cannot reach the container runtime at {}", .0.display())]
    Connect(PathBuf, #[source] tonic::transport::Error),
    /// The call took longer than it may.
    #[error("the container runtime at {} did not answer {call} within {limit:?}", .socket.display())]
    TimedOut {
        /// Its socket.
        socket: PathBuf,
        /// The CRI call.
        call: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The runtime answered with an error.
    #[error("the container runtime refused {call}")]
    Refused {
        /// The CRI call.
        call: &'static str,
        /// Its answer.
        #[source]
        status: Box<tonic::Status>,
    },
}

/// Name and version of the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// `containerd` or `cri-o`.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// A pod sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// Its id in the runtime.
    pub id: String,
    /// Namespace of its pod.
    pub namespace: String,
    /// Name of its pod.
    pub name: String,
    /// UID of its pod.
    pub uid: String,
    /// How many sandboxes the pod had before it.
    pub attempt: u32,
    /// `SANDBOX_READY`.
    pub ready: bool,
    /// Creation time, nanoseconds of the wall clock: only for order.
    pub created: i64,
    /// The pod's annotations and the kubelet's own.
    pub annotations: BTreeMap<String, String>,
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
    /// The runtime does not know.
    #[default]
    Unknown,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its id in the runtime.
    pub id: String,
    /// The sandbox it is in.
    pub sandbox: String,
    /// UID of its pod.
    pub pod_uid: String,
    /// Name in the pod.
    pub name: String,
    /// Restart count.
    pub attempt: u32,
    /// Its state.
    pub state: State,
    /// As the pod names the image.
    pub image: String,
    /// As the runtime resolved it.
    pub image_id: String,
}

/// Verbose status of a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detail {
    /// Its state.
    pub state: State,
    /// As the runtime resolved the image.
    pub image_id: String,
    /// When it was started, nanoseconds of the wall clock, 0 if never: for order only.
    pub started: i64,
    /// `info` of the verbose status: containerd has `config` (with `envs`), both have `runtimeSpec`.
    pub info: serde_json::Value,
}

/// A client of one runtime. Cheap to clone; connects at the first call and again after a failure.
#[derive(Clone, Debug)]
pub struct Runtime {
    socket: PathBuf,
    limit: Duration,
}

impl Runtime {
    /// A client of the runtime at this socket, each call within this limit.
    pub fn new(socket: PathBuf, limit: Duration) -> Self {
        Self { socket, limit }
    }

    /// Which runtime it is.
    pub async fn version(&self) -> Result<Version, Error> {
        todo!("node helper {:?} {:?}", self.socket, self.limit)
    }

    /// Every sandbox, also those that are not ready.
    pub async fn sandboxes(&self) -> Result<Vec<Sandbox>, Error> {
        todo!("node helper")
    }

    /// Every container, also those that ended.
    pub async fn containers(&self) -> Result<Vec<Container>, Error> {
        todo!("node helper")
    }

    /// The containers of one pod, by UID (a filter of the runtime's).
    pub async fn containers_of(&self, _pod_uid: &str) -> Result<Vec<Container>, Error> {
        todo!("node helper")
    }

    /// Verbose status of one container; `None`: it is gone.
    pub async fn detail(&self, _container: &str) -> Result<Option<Detail>, Error> {
        todo!("node helper")
    }

    /// The id of an image if it is on the node; `None`: it is not.
    pub async fn image(&self, _reference: &str) -> Result<Option<String>, Error> {
        todo!("node helper")
    }

    /// Stops a container, which gets this long to end by itself; gone already is success. The call may take that long.
    pub async fn stop_container(&self, _container: &str, _grace: Duration) -> Result<(), Error> {
        todo!("node helper")
    }

    /// Stops a sandbox, its network and port mappings; gone already is success.
    pub async fn stop_sandbox(&self, _sandbox: &str) -> Result<(), Error> {
        todo!("node helper")
    }

    /// Removes a stopped sandbox with its containers' records; gone already is success.
    pub async fn remove_sandbox(&self, _sandbox: &str) -> Result<(), Error> {
        todo!("node helper")
    }
}
