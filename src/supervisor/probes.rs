//! Probes of the API servers: all of them at once, and the best outcome counts.

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::task::JoinSet;

use crate::node::clock;
use crate::node::contact::Outcome;
use crate::node::host::HostRoot;
use crate::node::kubelet::Server;
use crate::node::probe::{self, Prober};

/// Most probes in progress at once: if packets are dropped silently, each takes its whole limit.
pub const AT_ONCE: usize = 4;

/// A probe that ended.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// When it began, since boot.
    pub began: Duration,
    /// When it ended, since boot.
    pub ended: Duration,
    /// Its result.
    pub outcome: Outcome,
}

/// The API servers, and the probes of them that are in progress.
pub struct Probes {
    root: HostRoot,
    limit: Duration,
    servers: Vec<Server>,
    probers: Vec<Prober>,
    under_way: JoinSet<Probe>,
}

impl Probes {
    /// Knows no server yet. `limit`: how long an answer may take.
    pub fn new(root: HostRoot, limit: Duration) -> Self {
        Self {
            root,
            limit,
            servers: Vec::new(),
            probers: Vec::new(),
            under_way: JoinSet::new(),
        }
    }

    /// Probes these servers from now on. Returns an error for each that cannot be probed.
    pub fn probe(&mut self, servers: Vec<Server>) -> Vec<probe::Error> {
        if servers == self.servers {
            return Vec::new();
        }
        self.servers.clone_from(&servers);
        self.probers.clear();
        let mut errors = Vec::new();
        for server in servers {
            let url = server.url.clone();
            match Prober::new(server, self.root.clone(), self.limit) {
                Ok(prober) => {
                    tracing::info!(server = url, "asking this API server");
                    self.probers.push(prober);
                }
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    /// No server that could be probed is known.
    pub fn is_idle(&self) -> bool {
        self.probers.is_empty()
    }

    /// The addresses that the servers' names had at the last look-up.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.probers.iter().flat_map(Prober::addresses).collect()
    }

    /// Begins a probe of all servers. A server that does not answer does not delay the answer of
    /// another. Does nothing while too many probes are in progress.
    pub fn begin(&mut self) {
        if self.probers.is_empty() || self.under_way.len() >= AT_ONCE {
            return;
        }
        let probers = self.probers.clone();
        let began = clock::boot_time();
        self.under_way.spawn(async move {
            let mut outcomes: FuturesUnordered<_> = probers.iter().map(Prober::probe).collect();
            let mut outcome = Outcome::Refused;
            while let Some(next) = outcomes.next().await {
                outcome = outcome.or(next);
                if outcome.is_answer() {
                    break;
                }
            }
            Probe {
                began,
                ended: clock::boot_time(),
                outcome,
            }
        });
    }

    /// Waits for a probe to end; forever if none is in progress. May be dropped and called again.
    pub async fn ended(&mut self) -> Probe {
        loop {
            match self.under_way.join_next().await {
                Some(Ok(ended)) => return ended,
                Some(Err(_)) => {}
                None => return std::future::pending().await,
            }
        }
    }

    /// A probe that has already ended, if there is one.
    pub fn try_ended(&mut self) -> Option<Probe> {
        self.under_way.try_join_next()?.ok()
    }
}
