//! The record of outages: what was done for each pod, and when. Pure; [`crate::supervisor::record`]
//! writes it and adds wall-clock times for people.

use std::time::Duration;

use crate::names::TAKEN_BACK;
use crate::node::clock::milliseconds;
use crate::node::contact::Class;
use crate::places::reports::{Outage, Outages, PodOutage};
use crate::reasons::Blocked;
use crate::supervisor::core::decide::{Phase, State};
use crate::supervisor::core::facts::{Facts, Key, Run};

/// How many outages are remembered.
const REMEMBERED: usize = 20;

/// The outages of this boot.
#[derive(Debug, Default)]
pub struct OutageLog {
    outages: Outages,
    changed: bool,
}

impl OutageLog {
    /// Continues what an earlier supervisor recorded.
    pub fn new(outages: Outages) -> Self {
        Self {
            outages,
            changed: false,
        }
    }

    /// The whole record.
    pub fn outages(&self) -> &Outages {
        &self.outages
    }

    /// The record to write, if it changed since the last write. The caller adds the wall-clock
    /// times, writes it, and calls [`Self::written`].
    pub fn unwritten(&mut self) -> Option<&mut Outages> {
        self.changed.then_some(&mut self.outages)
    }

    /// The record was written.
    pub fn written(&mut self) {
        self.changed = false;
    }

    /// A twin was linked because of `facts`; `result` is one of
    /// [`crate::names::activation_results`].
    pub fn activated(
        &mut self,
        key: &Key,
        parent_uid: &str,
        result: &'static str,
        facts: &Facts,
        now: Duration,
    ) {
        self.count(result);
        if self
            .outages
            .outages
            .last()
            .is_none_or(|outage| outage.to.is_some())
        {
            let since = facts.contact.map_or(now, |contact| contact.since);
            self.outages.outages.push(Outage {
                from: milliseconds(since),
                ..Outage::default()
            });
            self.outages.counts.outages += 1;
            let surplus = self.outages.outages.len().saturating_sub(REMEMBERED);
            self.outages.outages.drain(..surplus);
        }
        self.change(key, |pod| {
            let decided = pod.decided.or(Some(milliseconds(facts.now)));
            let activated = Some(milliseconds(now));
            let taken_back = pod
                .taken_back
                .saturating_add(u32::from(result == TAKEN_BACK));
            *pod = PodOutage {
                parent_uid: parent_uid.to_owned(),
                decided,
                activated,
                taken_back,
                ..pod.clone()
            };
        });
    }

    /// A twin could not be linked.
    pub fn refused(&mut self, reason: Blocked) {
        self.count(reason.as_str());
        // on a disk the record would survive a reboot
        self.changed |= reason != Blocked::RunDirNotMemory;
    }

    /// The kubelet waited for the API server, and no longer does.
    pub fn unstuck(&mut self) {
        self.outages.counts.unstuck += 1;
        self.changed = true;
    }

    fn count(&mut self, result: &'static str) {
        *self
            .outages
            .counts
            .activations
            .entry(result.to_owned())
            .or_default() += 1;
    }

    /// A link was removed.
    pub fn released(&mut self, key: &Key, now: Duration) {
        self.change(key, |pod| pod.released = Some(milliseconds(now)));
    }

    /// Records what a pass saw: twins that serve, parents that took over, twins that ended, the end
    /// of the outage.
    pub fn observe(&mut self, state: &State, facts: &Facts) {
        let Outages { outages, counts } = &mut self.outages;
        let Some(last) = outages.last_mut() else {
            return;
        };
        let now = milliseconds(facts.now);
        for (key, seen) in &facts.pods {
            let phase = state.pods.get(key).map(|pod| &pod.phase);
            let Some(pod) = last.pods.get_mut(key) else {
                continue;
            };
            if matches!(phase, Some(Phase::Active { .. }))
                && seen.twin == Run::Running
                && pod.serving.is_none()
            {
                pod.serving = Some(now);
                counts
                    .activation
                    .add(now.saturating_sub(pod.decided.or(pod.activated).unwrap_or(now)));
                self.changed = true;
            }
            if let Some(released) = pod.released
                && seen.parent == Run::Running
                && pod.taken_over.is_none()
            {
                pod.taken_over = Some(now);
                counts.takeover.add(now.saturating_sub(released));
                self.changed = true;
            }
            if let Some(taken_over) = pod.taken_over
                && seen.twin == Run::Stopped
                && pod.ended.is_none()
            {
                pod.ended = Some(now);
                counts.overlap.add(now.saturating_sub(taken_over));
                self.changed = true;
            }
        }
        if last.to.is_none()
            && facts
                .contact
                .is_some_and(|contact| contact.class == Class::Answering)
        {
            last.to = Some(now);
            self.changed = true;
        }
    }

    fn change(&mut self, key: &Key, change: impl FnOnce(&mut PodOutage)) {
        if let Some(outage) = self.outages.outages.last_mut() {
            change(outage.pods.entry(key.clone()).or_default());
            self.changed = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::pod::id::id;
    use std::collections::BTreeMap;

    use super::*;
    use crate::names::ACTIVATED;
    use crate::node::contact::Contact;
    use crate::places::reports::Counts;
    use crate::supervisor::core::decide::Pod;
    use crate::supervisor::core::facts::PodFacts;

    #[test]
    fn an_outage_is_recorded_from_its_first_silence_to_the_parents_return_and_survives_a_restart() {
        let at = Duration::from_secs;
        let key: Key = id("shop_till");
        let silent = Contact {
            class: Class::Silent,
            since: at(10),
            alike: at(10),
            failures: 3,
            by_time_out: false,
        };
        let mut log = OutageLog::default();
        let decided = Facts {
            now: at(12),
            contact: Some(silent),
            ..Facts::default()
        };
        log.refused(Blocked::ImageAbsent);
        log.activated(&key, "uid", ACTIVATED, &decided, at(13));
        let mut state = State::default();
        let phase = Phase::Active {
            linked: at(13),
            under: Class::Silent,
            nudged: None,
            refused: 0,
        };
        state.pods.insert(
            key.clone(),
            Pod {
                phase,
                ..Pod::default()
            },
        );
        let twin = PodFacts {
            twin: Run::Running,
            ..PodFacts::default()
        };
        let mut facts = Facts {
            now: at(14),
            contact: Some(silent),
            ..Facts::default()
        };
        facts.pods = BTreeMap::from([(key.clone(), twin)]);
        log.observe(&state, &facts);

        let mut log = OutageLog::new(log.outages().clone());
        assert!(log.unwritten().is_none());
        log.released(&key, at(20));
        let answering = Contact {
            class: Class::Answering,
            since: at(20),
            alike: at(20),
            failures: 0,
            by_time_out: false,
        };
        facts.now = at(25);
        facts.contact = Some(answering);
        facts.pods = BTreeMap::from([(
            key.clone(),
            PodFacts {
                parent: Run::Running,
                ..twin
            },
        )]);
        log.observe(&state, &facts);
        facts.now = at(27);
        facts.pods = BTreeMap::from([(
            key.clone(),
            PodFacts {
                parent: Run::Running,
                ..PodFacts::default()
            },
        )]);
        log.observe(&state, &facts);
        facts.now = at(28);
        let gone = PodFacts {
            parent: Run::Running,
            twin: Run::Stopped,
            ..PodFacts::default()
        };
        facts.pods = BTreeMap::from([(key.clone(), gone)]);
        log.observe(&state, &facts);
        log.observe(&state, &facts);

        let outages = log.unwritten().unwrap().clone();
        log.written();
        assert!(log.unwritten().is_none());
        let outage = &outages.outages[0];
        assert_eq!((outage.from, outage.to), (10_000, Some(25_000)));
        let pod = &outage.pods[&key];
        let times = [
            pod.decided,
            pod.activated,
            pod.serving,
            pod.released,
            pod.taken_over,
            pod.ended,
        ];
        assert_eq!(
            times,
            [12_000, 13_000, 14_000, 20_000, 25_000, 28_000].map(Some)
        );
        let Counts {
            outages,
            activations,
            unstuck,
            activation,
            takeover,
            overlap,
        } = outages.counts;
        assert_eq!((outages, unstuck), (1, 0));
        assert_eq!(
            activations,
            BTreeMap::from([(ACTIVATED.into(), 1), ("ImageAbsent".into(), 1)])
        );
        let sums = [activation, takeover, overlap].map(|times| (times.count, times.sum));
        assert_eq!(
            sums,
            [(1, 2_000), (1, 5_000), (1, 3_000)],
            "each once, although seen twice"
        );
    }

    #[test]
    fn without_memory_nothing_is_recorded_that_would_outlive_the_boot() {
        let mut log = OutageLog::default();
        log.refused(Blocked::RunDirNotMemory);
        assert!(log.unwritten().is_none());
        log.refused(Blocked::Damaged);
        assert!(log.unwritten().is_some());
    }
}
