//! Contact with the API server, derived from the outcomes of probes: a class, with the time since
//! when it holds. Pure; [`crate::node::probe`] asks.

use std::time::Duration;

/// Outcome of one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A proven server answered with this HTTP status.
    Status(u16),
    /// Refused, reset or no route: an active refusal.
    Refused,
    /// Resolving the name, connecting, TLS or the answer exceeded the time limit.
    TimedOut,
    /// Something answers that cannot be proven to be the API server.
    Unproven,
}

impl Outcome {
    /// The better of two outcomes: of several API servers, the one that says most counts.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        std::cmp::min_by_key(self, other, |outcome| outcome.rank())
    }

    /// Whether no outcome is better than this one.
    pub fn is_answer(self) -> bool {
        self.rank() == 0
    }

    /// Lower is better.
    fn rank(self) -> u8 {
        match self.class() {
            (Class::Answering, _) => 0,
            (Class::Failing, _) => 1,
            (Class::Unproven, _) => 2,
            (Class::Silent, true) => 3,
            (Class::Silent, false) => 4,
        }
    }

    /// The class of contact that it indicates, and whether it was a time-out.
    fn class(self) -> (Class, bool) {
        match self {
            Self::Status(500..=599) => (Class::Failing, false),
            Self::Status(_) => (Class::Answering, false),
            Self::Refused => (Class::Silent, false),
            Self::TimedOut => (Class::Silent, true),
            Self::Unproven => (Class::Unproven, false),
        }
    }
}

/// Class of contact: what the API server does.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum Class {
    /// The API server answers with 2xx to 4xx.
    Answering,
    /// The API server answers with 5xx.
    Failing,
    /// Nothing answers: refused, timed out, no route, or the name cannot be resolved.
    Silent,
    /// Something answers, but TLS does not prove that it is the API server.
    Unproven,
}

/// Contact as currently known.
///
/// A row is the probes since the last answer. It has two clocks, because two delays depend on them:
/// - Silent and failing count together, from their last interruption: a server that dies slowly
///   (500, then refused) does not get the delay twice, but one refused probe after a minute of
///   unproven ones counts as one refused probe.
/// - Unproven counts the whole row: a minute without a proven answer is a minute, whatever else
///   happened in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contact {
    /// The class of contact.
    pub class: Class,
    /// Since when, on the boot-time clock. Answering: when the first answer came. Unproven: when
    /// the first probe of the row began. Failing and silent: when the first probe after the row's
    /// last unproven one began.
    pub since: Duration,
    /// Since when all outcomes have been of exactly this class.
    pub alike: Duration,
    /// Failed probes since [`Contact::since`].
    pub failures: u32,
    /// Silent because of a time-out (a black hole), not because of a refusal.
    pub by_time_out: bool,
}

/// Turns outcomes into contact.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    current: Option<Contact>,
    /// When the last answer came.
    answered: Option<Duration>,
    /// When anything last came: an answer, a 5xx, or a certificate that proves nothing.
    heard: Option<Duration>,
    /// Every failed probe since the last answer.
    row: Option<Failed>,
    /// The failed probes of the row after its last unproven one.
    run: Option<Failed>,
}

/// Consecutive failed probes.
#[derive(Clone, Copy, Debug)]
struct Failed {
    since: Duration,
    count: u32,
}

impl Failed {
    /// Adds a probe that began at this time. Probes may overlap, so the first to begin need not be
    /// the first to end.
    fn add(failed: Option<Self>, began: Duration) -> Self {
        failed.map_or(
            Self {
                since: began,
                count: 1,
            },
            |failed| Self {
                since: failed.since.min(began),
                count: failed.count.saturating_add(1),
            },
        )
    }
}

impl Tracker {
    /// Takes the outcome of a probe that began and ended at these times, on the boot-time clock.
    ///
    /// Probes may overlap. A failed probe that began before the last answer came is ignored, and so
    /// is a silent one that began before anything came.
    pub fn observe(&mut self, began: Duration, ended: Duration, outcome: Outcome) {
        let (class, by_time_out) = outcome.class();
        if class == Class::Answering {
            let since = self
                .current
                .filter(|now| now.class == class)
                .map_or(ended, |now| now.since);
            *self = Self {
                current: Some(Contact {
                    class,
                    since,
                    alike: since,
                    failures: 0,
                    by_time_out,
                }),
                answered: Some(ended),
                heard: Some(ended),
                row: None,
                run: None,
            };
            return;
        }
        let newer = if class == Class::Silent {
            self.heard
        } else {
            self.answered
        };
        if newer.is_some_and(|newer| began <= newer) {
            return;
        }
        let row = Failed::add(self.row, began);
        self.row = Some(row);
        let counted = if class == Class::Unproven {
            self.run = None;
            row
        } else {
            let run = Failed::add(self.run, began);
            self.run = Some(run);
            run
        };
        if class != Class::Silent {
            self.heard = Some(ended);
        }
        let alike = self
            .current
            .filter(|now| now.class == class)
            .map_or(began, |now| now.alike);
        let Failed {
            since,
            count: failures,
        } = counted;
        self.current = Some(Contact {
            class,
            since,
            alike,
            failures,
            by_time_out,
        });
    }

    /// Contact as currently known; `None` before the end of the first probe.
    pub fn current(&self) -> Option<Contact> {
        self.current
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Each outcome with when its probe began and ended; then class, since, failures and whether by
    /// time-out.
    fn after(outcomes: &[(u64, u64, Outcome)]) -> Option<(Class, u64, u32, bool)> {
        let mut tracker = Tracker::default();
        for (began, ended, outcome) in outcomes {
            tracker.observe(at(*began), at(*ended), *outcome);
        }
        tracker.current().map(|contact| {
            let since = contact.since.as_millis().try_into().unwrap();
            (contact.class, since, contact.failures, contact.by_time_out)
        })
    }

    #[test]
    fn class_and_since_follow_from_the_outcomes() {
        use Class::{Answering, Failing, Silent};
        use Outcome::{Refused, Status, TimedOut, Unproven};

        for (name, outcomes, expected) in [
            (
                "the first answer",
                &[(10, 11, Status(200))][..],
                (Answering, 11, 0, false),
            ),
            (
                "a refused credential is an answer",
                &[(10, 11, Status(401))],
                (Answering, 11, 0, false),
            ),
            (
                "answers go on",
                &[(10, 11, Status(200)), (20, 21, Status(403))],
                (Answering, 11, 0, false),
            ),
            (
                "the first silence",
                &[(10, 20, TimedOut)],
                (Silent, 10, 1, true),
            ),
            (
                "a server that dies slowly",
                &[
                    (0, 1, Status(200)),
                    (10, 11, Status(500)),
                    (20, 21, Refused),
                    (30, 40, TimedOut),
                ],
                (Silent, 10, 3, true),
            ),
            (
                "and one that begins to come back",
                &[(10, 20, TimedOut), (30, 31, Refused), (40, 41, Status(503))],
                (Failing, 10, 3, false),
            ),
            (
                "an answer ends the row",
                &[(10, 11, Refused), (20, 21, Status(200)), (30, 31, Refused)],
                (Silent, 30, 1, false),
            ),
            (
                "one refused probe after a minute of unproven ones is one refused probe",
                &[
                    (0, 1, Unproven),
                    (30_000, 30_001, Unproven),
                    (59_000, 59_001, Unproven),
                    (60_000, 60_001, Refused),
                ],
                (Silent, 60_000, 1, false),
            ),
            (
                "unproven counts everything since the last answer",
                &[
                    (10, 11, Refused),
                    (20, 21, Unproven),
                    (30, 31, Refused),
                    (40, 41, Unproven),
                ],
                (Class::Unproven, 10, 4, false),
            ),
            (
                "an unproven probe interrupts the silence",
                &[
                    (10, 11, Refused),
                    (20, 21, Unproven),
                    (30, 31, Status(500)),
                    (40, 41, Refused),
                ],
                (Silent, 30, 2, false),
            ),
            (
                "a probe that began before the answer came and failed later says nothing",
                &[
                    (10, 11, Refused),
                    (20, 120, Status(200)),
                    (50, 150, TimedOut),
                    (60, 140, Status(500)),
                ],
                (Answering, 120, 0, false),
            ),
            (
                "nor does one that heard nothing while another heard a 5xx",
                &[
                    (10, 110, TimedOut),
                    (20, 60, Status(500)),
                    (30, 130, TimedOut),
                ],
                (Failing, 10, 2, false),
            ),
            (
                "an answer counts when it comes, not when it was asked for",
                &[
                    (10, 100, Status(200)),
                    (0, 120, Status(200)),
                    (110, 130, Refused),
                ],
                (Answering, 100, 0, false),
            ),
            (
                "of overlapping probes the first to begin counts",
                &[(20, 21, Refused), (10, 110, TimedOut)],
                (Silent, 10, 2, true),
            ),
        ] {
            assert_eq!(after(outcomes), Some(expected), "{name}");
        }
        assert_eq!(after(&[]), None);
    }

    #[test]
    fn the_best_of_several_servers_answers_counts() {
        use Outcome::{Refused, Status, TimedOut, Unproven};
        let order = [Status(401), Status(503), Unproven, TimedOut, Refused];
        for (at, better) in order.iter().enumerate() {
            for worse in order.iter().skip(at + 1) {
                assert_eq!((better.or(*worse), worse.or(*better)), (*better, *better));
            }
        }
        assert!(Status(401).is_answer() && !Status(503).is_answer() && !Refused.is_answer());
    }
}
