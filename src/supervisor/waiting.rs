//! The kubelet's own sockets to the API server: does it hear from it, and which of them hold it up?

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;

use crate::node::host::HostRoot;
use crate::node::sockets::{self, State};
use crate::supervisor::facts::Seen;

/// Where a name is asked for.
const DNS: u16 = 53;

/// What is remembered of the kubelet's sockets while something is active.
#[derive(Debug, Default)]
pub struct Waiting {
    /// Bytes that each socket had received when something became active: a connection from before the outage may stay
    /// established for long, so only new bytes are a sign.
    baseline: Option<HashMap<[u32; 2], u64>>,
    connected: Seen,
    closed: usize,
}

impl Waiting {
    /// Forgets everything: nothing is active, or the kubelet is another process.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether the kubelet heard from the API server since something became active.
    pub fn connected(&self) -> Seen {
        self.connected
    }

    /// Sockets that were closed since something became active.
    pub fn closed(&self) -> usize {
        self.closed
    }

    /// Looks; true when the kubelet hears from the API server and did not before.
    pub fn look(&mut self, root: &HostRoot, pid: u32, servers: &[SocketAddr]) -> io::Result<bool> {
        let found = match sockets::of_process(root, pid, servers, None) {
            Ok(found) => found,
            Err(error) => {
                self.connected = Seen::Unknown;
                return Err(error);
            }
        };
        let Some(baseline) = &self.baseline else {
            self.baseline = Some(found.iter().map(|socket| (socket.cookie, socket.received)).collect());
            self.connected = Seen::No;
            return Ok(false);
        };
        let hears = found.iter().any(|socket| {
            let known = baseline.get(&socket.cookie).copied().unwrap_or_default();
            socket.state == State::Established && socket.received > known
        });
        let is_news = hears && !self.connected.is_yes();
        self.connected = hears.into();
        Ok(is_news)
    }

    /// Closes the sockets that wait on the API server, or on a name server. Unsupported kernels are an error.
    pub fn close(&mut self, root: &HostRoot, pid: u32, servers: &[SocketAddr]) -> io::Result<()> {
        let baseline = self.baseline.clone().unwrap_or_default();
        for socket in sockets::of_process(root, pid, servers, Some(DNS))? {
            if socket.received > baseline.get(&socket.cookie).copied().unwrap_or_default() {
                continue;
            }
            sockets::destroy(&socket)?;
            if self.closed == 0 {
                tracing::info!(remote = %socket.remote, "the kubelet waits for the API server: closing its waiting sockets");
            }
            self.closed += 1;
            tracing::debug!(remote = %socket.remote, state = ?socket.state, "closed a waiting socket of the kubelet");
        }
        Ok(())
    }
}
