//! Metrics and health of every part: what is exported ([`catalog`], [`figures`]), its text format
//! ([`page`]), and the small HTTP server ([`server`]).
//!
//! A part's loop writes what it knows to a board of its own, and the server reads it there. The
//! server never asks the loop, so a scrape delays nothing, and a loop that hangs is reported as
//! hanging. Metrics never stop recovery: a port in use is retried, and a client can hold at most
//! one of a handful of connections, and only for a few seconds.

pub mod address;
pub mod catalog;
pub mod figures;
pub mod page;
pub mod server;

use std::cell::Cell;
use std::convert::Infallible;
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::page::Page;
pub use server::serve;

/// What a part exports. Nothing in it may name a pod, a path or a secret.
pub trait Source {
    /// The metrics as they are now.
    fn page(&self) -> Page;

    /// Why `/healthz` fails, one line per cause; empty: healthy.
    fn unhealthy(&self) -> Vec<String>;

    /// Why `/readyz` fails although `/healthz` may not, one line per cause; empty: it does its
    /// work.
    fn not_ready(&self) -> Vec<String>;
}

/// How late a loop may be before it counts as hanging. A pass takes a few seconds while the runtime
/// hangs.
const LATE: Duration = Duration::from_secs(30);

/// The pulse of a loop: when its next turn is due at the latest.
#[derive(Debug)]
pub struct Pulse(Cell<Instant>);

impl Default for Pulse {
    fn default() -> Self {
        Self(Cell::new(Instant::now()))
    }
}

impl Pulse {
    /// The loop now waits until `then` at the latest. The time that its next turn takes counts from
    /// then.
    pub fn expect(&self, then: Instant) {
        self.0.set(then);
    }

    /// Says that the loop hangs, if it does.
    pub fn stalled(&self) -> Option<String> {
        let late = self.0.get().elapsed();
        (late > LATE).then(|| format!("loop: its next turn has been due for {} s", late.as_secs()))
    }
}

/// Runs a part and its server, which never ends. The part comes first whenever both can make
/// progress.
pub async fn beside<T>(
    part: impl Future<Output = T>,
    server: impl Future<Output = Infallible>,
) -> T {
    tokio::select! {
        biased;
        ended = part => ended,
        never = server => match never {},
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_hangs_when_it_is_late_and_not_while_it_waits() {
        let pulse = Pulse::default();
        pulse.expect(Instant::now() + Duration::from_mins(1));
        tokio::time::advance(Duration::from_secs(89)).await;
        assert_eq!(pulse.stalled(), None);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(
            pulse.stalled().as_deref(),
            Some("loop: its next turn has been due for 31 s")
        );
        pulse.expect(Instant::now());
        assert_eq!(pulse.stalled(), None);
    }
}
