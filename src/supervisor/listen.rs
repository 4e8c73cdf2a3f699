//! Contact with the API server between two looks at the node: probes, and the kubelet's own
//! connections to it.

use std::io;

use tokio::time::{Instant, sleep_until};

use crate::node::host::HostRoot;
use crate::node::{clock, sockets};
use crate::supervisor::core::Core;
use crate::supervisor::core::pace::LOOK;
use crate::supervisor::probes::{Probe, Probes};

/// Port of a name server.
const DNS: u16 = 53;

/// Listens for the API server.
pub struct Listener {
    /// The probes.
    pub probes: Probes,
    /// The kubelet's process; `None`: not known yet.
    pub kubelet: Option<u32>,
    /// Why the kubelet's sockets cannot be listed.
    pub problem: Option<String>,
    root: HostRoot,
    next_probe: Instant,
    next_look: Instant,
}

/// What was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Contact has changed, or the kubelet now receives from the API server.
    News,
    /// A probe ended with the same result as the one before.
    Same,
}

impl Listener {
    /// The next probe begins at once.
    pub fn new(probes: Probes, root: HostRoot) -> Self {
        let now = Instant::now();
        Self {
            probes,
            kubelet: None,
            problem: None,
            root,
            next_probe: now,
            next_look: now,
        }
    }

    /// When the next probe begins.
    pub fn next_probe(&self) -> Instant {
        self.next_probe
    }

    /// Begins probes and lists sockets when they are due, and waits until something is heard, which
    /// `core` has taken in by then. May be dropped and called again.
    pub async fn heard(&mut self, core: &mut Core) -> Heard {
        loop {
            // the pace may have changed since
            self.next_probe = self.next_probe.min(Instant::now() + core.between_probes());
            tokio::select! {
                biased;
                ended = self.probes.ended() => {
                    let is_news = hear(core, ended) | self.catch_up(core);
                    return if is_news { Heard::News } else { Heard::Same };
                }
                () = sleep_until(self.next_look), if core.is_alert() => {
                    self.next_look = Instant::now() + LOOK;
                    if self.look(core) {
                        return Heard::News;
                    }
                }
                () = sleep_until(self.next_probe) => {
                    self.probes.begin();
                    self.next_probe = Instant::now() + core.between_probes();
                }
            }
        }
    }

    /// Takes in the results of probes that ended meanwhile. True if contact has changed.
    pub fn catch_up(&mut self, core: &mut Core) -> bool {
        let mut is_news = false;
        while let Some(ended) = self.probes.try_ended() {
            is_news |= hear(core, ended);
        }
        is_news
    }

    fn look(&mut self, core: &mut Core) -> bool {
        let Some(pid) = self.kubelet else {
            return false;
        };
        let found = sockets::of_process(&self.root, pid, &self.probes.addresses(), None);
        let is_news = core.sockets(found.as_deref().ok(), clock::boot_time());
        self.problem = found
            .err()
            .map(|error| format!("cannot list the kubelet's sockets: {error}"));
        is_news
    }

    /// Closes the sockets of the kubelet's process that wait for the API server or a name server.
    /// An error if the kernel does not support this.
    pub fn unstick(&self, core: &mut Core) -> io::Result<()> {
        let Some(pid) = self.kubelet else {
            return Ok(());
        };
        let found = sockets::of_process(&self.root, pid, &self.probes.addresses(), Some(DNS))?;
        for socket in core.waiting(found, clock::boot_time()) {
            sockets::destroy(&socket)?;
            if core.closed(1) {
                tracing::info!(remote = %socket.remote, "the kubelet waits for the API server: closing its waiting sockets");
            }
            tracing::debug!(remote = %socket.remote, state = ?socket.state, "closed a waiting socket of the kubelet");
        }
        Ok(())
    }
}

fn hear(
    core: &mut Core,
    Probe {
        began,
        ended,
        outcome,
    }: Probe,
) -> bool {
    let is_news = core.heard(began, ended, outcome);
    if let Some(contact) = core.contact().filter(|_| is_news) {
        tracing::info!(class = ?contact.class, by_time_out = contact.by_time_out, "contact with the API server");
    }
    is_news
}
