//! One gRPC connection over a unix socket, as [`runtime`](super::runtime) and
//! [`kubelet`](super::kubelet) need it: opened at the first call, kept while it works, closed at
//! the first fault, with a time limit for each call.
//!
//! tonic's own lazy channel would reconnect too, but reports neither the error of connecting nor
//! the peer process. So the stream is opened here, and a channel only runs over it.

use std::future::ready;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};

use crate::node::host;

/// Largest message in bytes that is read. The list of all containers of a node is less than a tenth
/// of it.
pub(super) const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// Why a call failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// No process listens at the socket, or it cannot be opened.
    Unreachable(io::Error),
    /// The connection broke.
    Broken(Box<tonic::Status>),
    /// No answer within the limit.
    TimedOut,
    /// The peer answered with an error.
    Status(Box<tonic::Status>),
}

/// A channel and the process ID of its peer; 0 if that is in another PID namespace.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) channel: Channel,
    pub(super) pid: u32,
}

/// A connection, opened when it is needed. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    socket: PathBuf,
    link: Arc<Mutex<Option<Link>>>,
}

impl Connection {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            link: Arc::default(),
        }
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Makes one call within the limit. If the peer of a kept connection is gone, as after its
    /// restart, the call is repeated on a new one, so that every call may be made twice.
    pub(super) async fn call<T>(
        &self,
        limit: Duration,
        call: impl AsyncFn(Link) -> Result<T, tonic::Status>,
    ) -> Result<T, Fault> {
        let attempt = async {
            if let Some(link) = self.kept() {
                match call(link).await.map_err(classify) {
                    Err(Fault::Broken(_)) => self.drop_link(),
                    result => return result,
                }
            }
            let link = self.open().await.map_err(Fault::Unreachable)?;
            call(link).await.map_err(classify)
        };
        let result = tokio::time::timeout(limit, attempt)
            .await
            .unwrap_or(Err(Fault::TimedOut));
        if let Err(Fault::Broken(_) | Fault::TimedOut) = result {
            self.drop_link();
        }
        result
    }

    async fn open(&self) -> io::Result<Link> {
        let stream = host::connect(&self.socket).await?;
        let pid = stream
            .peer_cred()?
            .pid()
            .and_then(|pid| pid.try_into().ok())
            .unwrap_or_default();
        let mut once = Some(TokioIo::new(stream));
        // only this one stream: a channel that reconnects by itself would not notice another peer
        let connector = tower::service_fn(move |_| {
            ready(
                once.take()
                    .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)),
            )
        });
        let channel = Endpoint::from_static("http://localhost")
            .buffer_size(16)
            .connect_with_connector(connector)
            .await
            .map_err(io::Error::other)?;
        let link = Link { channel, pid };
        *self.link.lock().unwrap_or_else(PoisonError::into_inner) = Some(link.clone());
        Ok(link)
    }

    fn kept(&self) -> Option<Link> {
        self.link
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn drop_link(&self) {
        *self.link.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// A status from the peer has no source; one that was made locally from an error of the transport
/// has.
fn classify(status: tonic::Status) -> Fault {
    let status = Box::new(status);
    if std::error::Error::source(status.as_ref()).is_some() {
        Fault::Broken(status)
    } else {
        Fault::Status(status)
    }
}
