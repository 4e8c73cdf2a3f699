//! What the operator tells of itself: metrics and health.

use std::cell::{Cell, RefCell};

use tokio::time::Instant;

use crate::metrics::figures::add_build;
use crate::metrics::page::Page;
use crate::metrics::{Pulse, Source};

/// What is written down by who contends and who leads.
#[derive(Debug, Default)]
pub struct Board {
    /// The leader's loop turns again; `None`: another operator leads.
    leader: RefCell<Option<Pulse>>,
    /// The API server told who holds the Lease.
    is_heard: Cell<bool>,
    /// The leader has read the settings.
    is_informed: Cell<bool>,
}

impl Board {
    /// The API server told who holds the Lease.
    pub fn hears(&self) {
        self.is_heard.set(true);
    }

    /// This operator leads, and its loop turns again then at the latest.
    pub fn acts(&self, then: Instant) {
        self.leader.borrow_mut().get_or_insert_default().expect(then);
    }

    /// The settings are known.
    pub fn knows(&self) {
        self.is_informed.set(true);
    }

    /// This operator does not lead any more.
    pub fn stops(&self) {
        self.leader.replace(None);
        self.is_informed.set(false);
    }
}

impl Source for Board {
    fn page(&self) -> Page {
        let mut page = Page::default();
        add_build(&mut page, "operator");
        page
    }

    fn ailments(&self) -> Vec<String> {
        self.leader.borrow().as_ref().and_then(Pulse::ailment).into_iter().collect()
    }

    fn hindrances(&self) -> Vec<String> {
        let lease = (!self.is_heard.get()).then(|| "lease: the API server has not told yet who holds it".to_owned());
        let leads = self.leader.borrow().is_some();
        let settings = (leads && !self.is_informed.get()).then(|| "settings: they were not read yet".to_owned());
        lease.into_iter().chain(settings).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_is_ready_when_it_knows_who_leads_and_the_leader_when_it_knows_the_settings() {
        let board = Board::default();
        assert_eq!(board.hindrances().len(), 1);
        board.hears();
        assert!(board.hindrances().is_empty(), "another one leads");
        board.acts(Instant::now());
        assert_eq!(board.hindrances().len(), 1);
        board.knows();
        assert!(board.hindrances().is_empty() && board.ailments().is_empty());
        board.stops();
        board.acts(Instant::now());
        assert_eq!(board.hindrances().len(), 1, "they are read anew");
    }
}
