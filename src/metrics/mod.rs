//! Metrics and health of both parts: what is told in figures ([`figures`]), its text ([`page`]), and the small HTTP server
//! that gives it out ([`server`]).
//!
//! A part's loop writes what it knows on a board of its own, and the server reads it there: it never asks the loop, so a
//! scrape holds nothing up, and a loop that hangs is told as such. Metrics never stop recovery: a taken port is tried again,
//! and a client can cost no more than one of few connections, for few seconds.

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

/// What a part tells. Nothing in it names a pod, a path or a secret.
pub trait Source {
    /// Its metrics.
    fn page(&self) -> Page;

    /// Why it is not healthy, a line each: it should be started again, or somebody should look.
    fn ailments(&self) -> Vec<String>;

    /// Why it cannot do its work, though it may be healthy, a line each.
    fn hindrances(&self) -> Vec<String>;
}

/// How late a loop may be before it is said to hang. A pass with a runtime that hangs takes a few seconds.
const LATE: Duration = Duration::from_secs(30);

/// The pulse of a loop: when it turns again at the latest.
#[derive(Debug)]
pub struct Pulse(Cell<Instant>);

impl Default for Pulse {
    fn default() -> Self {
        Self(Cell::new(Instant::now()))
    }
}

impl Pulse {
    /// The loop waits now, until then at the latest. What it does afterwards counts from then.
    pub fn expect(&self, then: Instant) {
        self.0.set(then);
    }

    /// That it hangs, if it does.
    pub fn ailment(&self) -> Option<String> {
        let late = self.0.get().elapsed();
        (late > LATE).then(|| format!("loop: it should have turned {} s ago", late.as_secs()))
    }
}

/// Runs a part with its server beside it, which never ends. The part comes first whenever both can go on.
pub async fn beside<T>(part: impl Future<Output = T>, server: impl Future<Output = Infallible>) -> T {
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
        assert_eq!(pulse.ailment(), None);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(pulse.ailment().as_deref(), Some("loop: it should have turned 31 s ago"));
        pulse.expect(Instant::now());
        assert_eq!(pulse.ailment(), None);
    }
}
