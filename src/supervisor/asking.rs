//! Asking the API servers whether they are there: which ones, how often, and what contact that makes.

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::task::JoinSet;

use crate::node::clock;
use crate::node::contact::{Class, Contact, Outcome, Tracker};
use crate::node::host::HostRoot;
use crate::node::kubelet::Server;
use crate::node::probe::{self, Prober};
use crate::supervisor::decide::FAILED_PROBES;

/// Least distance of two probes.
const LEAST_PAUSE: Duration = Duration::from_millis(50);
/// Between probes while something is active, or once silence is proven.
const ALERT: Duration = Duration::from_millis(250);
/// Probes under way at once: a black hole holds each for its whole limit.
const AT_ONCE: usize = 4;

/// How often is asked, and how long an answer may take.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// `--probe-interval`.
    pub interval: Duration,
    /// `--probe-timeout`.
    pub limit: Duration,
    /// `--activation-delay`: within it, silence must be proven.
    pub delay: Duration,
}

/// The API servers and what is known of them.
pub struct Asking {
    root: HostRoot,
    pace: Pace,
    servers: Vec<Server>,
    probers: Vec<Prober>,
    under_way: JoinSet<(Duration, Outcome)>,
    tracker: Tracker,
}

impl Asking {
    /// Knows no server yet.
    pub fn new(root: HostRoot, pace: Pace) -> Self {
        Self {
            root,
            pace,
            servers: Vec::new(),
            probers: Vec::new(),
            under_way: JoinSet::new(),
            tracker: Tracker::default(),
        }
    }

    /// Asks these servers from now on; contact stays as it is known. Those that cannot be asked are errors.
    pub fn ask(&mut self, servers: Vec<Server>) -> Vec<probe::Error> {
        if servers == self.servers {
            return Vec::new();
        }
        self.servers.clone_from(&servers);
        self.probers.clear();
        let mut errors = Vec::new();
        for server in servers {
            let url = server.url.clone();
            match Prober::new(server, self.root.clone(), self.pace.limit) {
                Ok(prober) => {
                    tracing::info!(server = url, "asking this API server");
                    self.probers.push(prober);
                }
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    /// No server is known that could be asked.
    pub fn is_idle(&self) -> bool {
        self.probers.is_empty()
    }

    /// Contact as known now; `None`: nothing is known yet.
    pub fn contact(&self) -> Option<Contact> {
        self.tracker.current()
    }

    /// The addresses that the servers' names had at the last look-up.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.probers.iter().flat_map(Prober::addresses).collect()
    }

    /// Begins a probe: all servers at once, and the best outcome counts; the first answer is not held up by a server that
    /// says nothing. Does nothing while too many are under way.
    pub fn begin(&mut self) {
        if self.probers.is_empty() || self.under_way.len() >= AT_ONCE {
            return;
        }
        let probers = self.probers.clone();
        let began = clock::boot_time();
        self.under_way.spawn(async move {
            let mut outcomes: FuturesUnordered<_> = probers.iter().map(Prober::probe).collect();
            let mut best = Outcome::Refused;
            while let Some(outcome) = outcomes.next().await {
                best = best.or(outcome);
                if best.is_answer() {
                    break;
                }
            }
            (began, best)
        });
    }

    /// Waits for a probe to end and takes its outcome; says whether contact changed. Never ends while no probe is under
    /// way.
    pub async fn end(&mut self) -> bool {
        let Some(ended) = self.under_way.join_next().await else { return std::future::pending().await };
        let before = self.kind();
        self.take(ended.ok());
        self.catch_up();
        self.kind() != before
    }

    /// Takes the outcomes of the probes that ended already.
    pub fn catch_up(&mut self) {
        while let Some(ended) = self.under_way.try_join_next() {
            self.take(ended.ok());
        }
    }

    fn take(&mut self, ended: Option<(Duration, Outcome)>) {
        let before = self.kind();
        if let Some((began, outcome)) = ended {
            self.tracker.observe(began, clock::boot_time(), outcome);
        }
        if let Some((class, by_time_out)) = self.kind().filter(|_| self.kind() != before) {
            tracing::info!(?class, by_time_out, "contact with the API server");
        }
    }

    fn kind(&self) -> Option<(Class, bool)> {
        self.contact().map(|contact| (contact.class, contact.by_time_out))
    }

    /// How long to wait between two probes. `alert`: something is active or about to be handed over.
    pub fn pause(&self, alert: bool) -> Duration {
        let Pace { interval, delay, .. } = self.pace;
        match self.contact() {
            Some(contact) if contact.class == Class::Answering && !alert => interval,
            Some(contact) if contact.class == Class::Answering => ALERT.min(interval),
            // silence is not proven yet: as often as the delay needs
            Some(contact) if contact.failures >= FAILED_PROBES => ALERT.min(interval),
            Some(_) | None => (delay / FAILED_PROBES).clamp(LEAST_PAUSE, interval.max(LEAST_PAUSE)),
        }
    }
}
