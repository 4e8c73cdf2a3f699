//! A node in memory: the runtime, the kubelet and the API server, as far as the program sees them.
//! For `cargo test` and for examples, which include it by path and do not use all of it.
//!
//! State is shared through [`tokio::sync::watch`]: change it with `send_modify`, look with
//! `borrow`, and wait for it with [`until`] instead of sleeping.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::indexing_slicing
)]

pub mod api;
pub mod authority;
pub mod kubelet;
pub mod node;
pub mod pod_resources;
pub mod probe_server;
pub mod runtime;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use pod_checkpointer::pod::id::PodId;
use tokio::net::UnixListener;
use tokio::sync::{oneshot, watch};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::server::Router;

#[allow(unused_imports)]
pub use kubelet::Kubelet;
#[allow(unused_imports)]
pub use node::{Node, Part};
#[allow(unused_imports)]
pub use pod_resources::PodResources;
#[allow(unused_imports)]
pub use probe_server::{Mode, ProbeServer};
#[allow(unused_imports)]
pub use runtime::{Pod, Runtime};

/// The pod of this file form, `<namespace>_<name>`.
pub fn id(file_form: &str) -> PodId {
    file_form.parse().unwrap()
}

/// Longest time that a test waits for something. Only a failing test waits that long.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until the state is as expected.
pub async fn until<T>(state: &watch::Sender<T>, expected: impl FnMut(&T) -> bool) {
    tokio::time::timeout(PATIENCE, state.subscribe().wait_for(expected))
        .await
        .expect("the expected state did not come")
        .expect("the state is gone");
}

/// Waits for something that is not in a stub's state, such as a file. `what` says what was
/// expected, for the message of a failure.
pub async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, wait).await.is_ok(),
        "this did not come: {what}"
    );
}

/// What a stub does with a call instead of answering it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// Accepts calls and does not answer until the fault is gone.
    Hang,
    /// Answers with an error.
    Error,
}

/// A gRPC server on a unix socket. It can be stopped, which leaves the socket's file, and
/// restarted.
pub struct Socket {
    path: PathBuf,
    stop: Mutex<Option<oneshot::Sender<()>>>,
}

impl Socket {
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            stop: Mutex::default(),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn listen(&self, router: Router) {
        std::fs::create_dir_all(self.path.parent().unwrap()).unwrap();
        let _ = std::fs::remove_file(&self.path);
        let incoming = UnixListenerStream::new(UnixListener::bind(&self.path).unwrap());
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(router.serve_with_incoming_shutdown(incoming, async move {
            let _ = stopped.await;
        }));
        *self.stop.lock().unwrap() = Some(stop);
    }

    /// Stops listening and closes open connections before it returns.
    pub async fn close(&self) {
        if self.stop.lock().unwrap().take().is_some() {
            tokio::time::timeout(PATIENCE, async {
                while tokio::net::UnixStream::connect(&self.path).await.is_ok() {
                    tokio::task::yield_now().await;
                }
            })
            .await
            .expect("the stub still listens");
        }
    }
}

/// Waits here if the fault says so.
pub async fn gate<T>(
    state: &watch::Sender<T>,
    fault: impl Fn(&T) -> Fault,
) -> Result<(), tonic::Status> {
    let _ = state
        .subscribe()
        .wait_for(|state| fault(state) != Fault::Hang)
        .await;
    match fault(&state.borrow()) {
        Fault::Error => Err(tonic::Status::internal("the stub was told to say so")),
        Fault::None | Fault::Hang => Ok(()),
    }
}
