//! Is the API server there? One probe is one `GET /livez`, without a credential, the peer proven by the cluster's CA.
//!
//! [`Prober`] asks and says what came back ([`Outcome`]); [`Tracker`] (pure) makes of the outcomes a class with the time
//! since when it holds.

use std::time::Duration;

use crate::node::host::HostRoot;
use crate::node::kubelet::Server;

/// What one probe saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A proven server answered with this HTTP status.
    Status(u16),
    /// Refused, reset, no route: somebody or something said no.
    Refused,
    /// Nothing came within the time limit: connecting, TLS, answer, or the name look-up.
    TimedOut,
    /// Something answers that could not be proven to be the API server.
    Unproven,
}

/// Class of contact, see the design, section 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Class {
    /// 2xx to 4xx.
    Answering,
    /// 5xx.
    Failing,
    /// Refused, timed out, no route, no name.
    Silent,
    /// TLS does not prove the peer.
    Unproven,
}

/// Contact as known now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Its class.
    pub class: Class,
    /// Since when, on the boot-time clock: for other classes than answering, since the first probe without an answer began.
    pub since: Duration,
    /// Failed probes in a row.
    pub failures: u32,
    /// Silent because nothing came in time (a black hole), not because something said no.
    pub by_time_out: bool,
}

/// Makes a class of contact from outcomes.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    current: Option<Contact>,
    last_answer: Option<Duration>,
}

impl Tracker {
    /// Takes the outcome of a probe that began and ended at these times (boot-time clock). Probes may overlap: one that
    /// began before the last answer came and failed later says nothing.
    pub fn observe(&mut self, began: Duration, ended: Duration, outcome: Outcome) {
        let (class, by_time_out) = match outcome {
            Outcome::Status(500..=599) => (Class::Failing, false),
            Outcome::Status(_) => (Class::Answering, false),
            Outcome::Refused => (Class::Silent, false),
            Outcome::TimedOut => (Class::Silent, true),
            Outcome::Unproven => (Class::Unproven, false),
        };
        if class == Class::Answering {
            self.last_answer = Some(ended);
            let since = self.current.filter(|now| now.class == class).map_or(ended, |now| now.since);
            self.current = Some(Contact { class, since, failures: 0, by_time_out });
            return;
        }
        if self.last_answer.is_some_and(|answer| began <= answer) {
            return;
        }
        // Without an answer, `since` is when the first probe of the row began, whatever its kind of failure: a server
        // that dies slowly (500, then refused) is not given the delay twice. Unproven and Failing keep their own.
        let row = self.current.filter(|now| now.class != Class::Answering);
        let since = match row {
            Some(now) if now.class == class || class == Class::Silent || now.class != Class::Unproven => now.since,
            _ => began,
        };
        let failures = row.map_or(0, |now| now.failures).saturating_add(1);
        self.current = Some(Contact { class, since, failures, by_time_out });
    }

    /// Contact as known now; `None` before the first probe ended.
    pub fn current(&self) -> Option<Contact> {
        self.current
    }
}

/// Asks one API server.
#[derive(Clone)]
pub struct Prober {
    server: Server,
    root: HostRoot,
    limit: Duration,
}

/// A prober that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server's address means nothing.
    #[error("invalid API server address {0:?}")]
    Address(String),
    /// No certificate of the CA could be read.
    #[error("the CA of API server {0} holds no certificate")]
    Ca(String),
}

impl Prober {
    /// A prober of this server; names are looked up with the host's resolver configuration below `root`.
    pub fn new(server: Server, root: HostRoot, limit: Duration) -> Result<Self, Error> {
        Ok(Self { server, root, limit })
    }

    /// Asks once, within the limit. Keeps a connection that answered for the next time.
    pub async fn probe(&self) -> Outcome {
        todo!("node helper {:?} {:?} {:?}", self.server, self.root, self.limit)
    }

    /// The addresses that the server's name had at the last look-up, with the port: what the kubelet's sockets go to.
    pub fn addresses(&self) -> Vec<std::net::SocketAddr> {
        todo!("node helper")
    }
}
