//! Pauses between probes of the API server, and between passes. Pure.

use std::time::Duration;

use crate::checkpoint::Handover;
use crate::node::contact::{Class, Contact};
use crate::supervisor::core::decide::{FAILED_PROBES, Phase, State};
use crate::supervisor::core::facts::Facts;

/// Shortest pause between two probes.
const LEAST_PAUSE: Duration = Duration::from_millis(50);
/// Pause between passes, and between probes, while something is active or contact is lost.
const ALERT: Duration = Duration::from_millis(250);
/// How often the kubelet's sockets are listed while something is active or about to be handed over.
/// Also the pause between passes while a twin waits for its parent to take over.
pub const LOOK: Duration = Duration::from_millis(50);
/// Pause between passes while a twin waits for its sandbox.
const BUSY: Duration = Duration::from_millis(100);
/// Pause between passes while a twin must end the moment its parent has a container.
const SWITCH: Duration = Duration::from_millis(20);
/// Pause between passes in normal operation.
pub const QUIET: Duration = Duration::from_mins(1);

/// How often API servers are probed.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// `--probe-interval`.
    pub interval: Duration,
    /// `--activation-delay`: the time within which enough probes must fail to count as silence.
    pub delay: Duration,
}

impl Pace {
    /// How long to wait between two probes. `alert`: something is active or about to be handed
    /// over.
    pub fn between_probes(&self, contact: Option<Contact>, alert: bool) -> Duration {
        let Self { interval, delay } = *self;
        match contact {
            Some(contact) if contact.class == Class::Answering && !alert => interval,
            Some(contact) if contact.class == Class::Answering => ALERT.min(interval),
            // too few probes have failed yet: as often as the delay needs
            Some(contact) if contact.failures >= FAILED_PROBES => ALERT.min(interval),
            Some(_) | None => (delay / FAILED_PROBES).clamp(LEAST_PAUSE, interval.max(LEAST_PAUSE)),
        }
    }
}

/// How long to wait between two passes at most, when not in normal operation.
pub fn between_passes(state: &State, facts: &Facts) -> Duration {
    let mut pause = ALERT;
    for (key, pod) in &state.pods {
        let seen = facts.pods.get(key).copied().unwrap_or_default();
        match pod.phase {
            Phase::Active { .. } if !seen.twin_sandbox.is_yes() => pause = pause.min(BUSY),
            Phase::Released { .. } => {
                // the parent's container starts a tenth of a second after it is created
                let soon = seen.handover == Some(Handover::Switch) && seen.parent_owned.is_yes();
                pause = pause.min(if soon { SWITCH } else { LOOK });
            }
            Phase::Active { .. } | Phase::Inactive => {}
        }
    }
    pause
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::id::id;
    use crate::supervisor::core::decide::Pod;
    use crate::supervisor::core::facts::{PodFacts, Seen};

    #[test]
    fn silence_is_established_within_the_activation_delay_and_then_the_pace_is_that_of_an_outage() {
        let pace = Pace {
            interval: Duration::from_secs(1),
            delay: Duration::from_secs(3),
        };
        let contact = |class, failures| {
            Some(Contact {
                class,
                since: Duration::ZERO,
                alike: Duration::ZERO,
                failures,
                by_time_out: false,
            })
        };
        let answering = contact(Class::Answering, 0);
        assert_eq!(
            pace.between_probes(answering, false),
            Duration::from_secs(1)
        );
        assert_eq!(pace.between_probes(answering, true), ALERT);
        assert_eq!(
            pace.between_probes(contact(Class::Silent, 1), false),
            Duration::from_secs(1)
        );
        assert_eq!(pace.between_probes(contact(Class::Silent, 3), false), ALERT);
        let hasty = Pace {
            delay: Duration::ZERO,
            ..pace
        };
        assert_eq!(hasty.between_probes(None, false), LEAST_PAUSE);
    }

    #[test]
    fn a_pass_follows_the_sooner_the_less_time_there_is() {
        let pause = |phase, seen| {
            let key = id("shop_till");
            let state = State {
                pods: [(
                    key.clone(),
                    Pod {
                        phase,
                        ..Pod::default()
                    },
                )]
                .into(),
                ..State::default()
            };
            between_passes(
                &state,
                &Facts {
                    pods: [(key, seen)].into(),
                    ..Facts::default()
                },
            )
        };
        let active = || Phase::Active {
            linked: Duration::ZERO,
            under: Class::Silent,
            nudged: None,
            refused: 0,
        };
        let released = || Phase::Released {
            since: Duration::ZERO,
            stopping: None,
        };
        assert_eq!(pause(Phase::Inactive, PodFacts::gone()), ALERT);
        assert_eq!(pause(active(), PodFacts::gone()), BUSY);
        assert_eq!(
            pause(
                active(),
                PodFacts {
                    twin_sandbox: Seen::Yes,
                    ..PodFacts::gone()
                }
            ),
            ALERT
        );
        assert_eq!(pause(released(), PodFacts::gone()), LOOK);
        let switch = PodFacts {
            handover: Some(Handover::Switch),
            parent_owned: Seen::Yes,
            ..PodFacts::gone()
        };
        assert_eq!(pause(released(), switch), SWITCH);
    }
}
