//! Metrics and health of the supervisor.

use std::cell::{Cell, RefCell};

use tokio::time::Instant;

use crate::metrics::catalog::Metric;
use crate::metrics::figures::{self, Figures};
use crate::metrics::page::Page;
use crate::metrics::{Pulse, Source};
use crate::node::clock::{self, milliseconds};

/// What the loop last recorded.
#[derive(Debug, Default)]
pub struct MetricsSource {
    /// When the loop is expected to turn again.
    pub pulse: Pulse,
    figures: RefCell<Figures>,
    /// When the last pass ended.
    passed: Cell<Option<Instant>>,
}

impl MetricsSource {
    /// A pass ended.
    pub fn passed(&self, figures: Figures) {
        self.figures.replace(figures);
        self.passed.set(Some(Instant::now()));
    }
}

impl Source for MetricsSource {
    fn page(&self) -> Page {
        let mut page = Page::default();
        figures::add_build(&mut page, "supervisor");
        if let Some(passed) = self.passed.get() {
            self.figures
                .borrow()
                .add_to(&mut page, milliseconds(clock::boot_time()), true);
            page.one(Metric::PassAge, passed.elapsed().as_secs_f64());
        }
        page
    }

    fn unhealthy(&self) -> Vec<String> {
        self.pulse.stalled().into_iter().collect()
    }

    fn not_ready(&self) -> Vec<String> {
        let waits = self.passed.get().is_none();
        waits
            .then(|| "pass: none has ended yet".to_owned())
            .into_iter()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::catalog::Of;
    use crate::node::contact::Class;
    use crate::places::reports::{ContactReport, Counts, Status};

    #[test]
    fn a_supervisor_exports_all_of_its_metrics_after_its_first_pass() {
        let source = MetricsSource::default();
        assert_eq!(source.not_ready(), ["pass: none has ended yet"]);
        assert!(
            !source.page().text().unwrap().contains("api_contact"),
            "nothing is known yet"
        );
        let contact = Some(ContactReport {
            class: Class::Failing,
            since: 0,
        });
        source.passed(Figures::new(
            &Status {
                contact,
                ..Status::default()
            },
            &Counts::default(),
        ));
        let text = source.page().text().unwrap();
        for metric in Metric::ALL {
            let told = text.contains(&format!("# TYPE {} ", metric.name()));
            assert_eq!(
                told,
                !matches!(metric.of(), Of::Agent | Of::Operator),
                "{}",
                metric.name()
            );
        }
        assert!(source.unhealthy().is_empty() && source.not_ready().is_empty());
    }
}
