//! What the supervisor tells: `status.yaml` when it changes, and `outages.yaml`, which the agent publishes afterwards.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::metrics::figures::Figures;
use crate::names::TAKEN_BACK;
use crate::node::clock;
use crate::node::contact::{Class, Contact};
use crate::places::reports::{
    ContactReport, LockedOut, OUTAGES, Outage, Outages, Phase, PodOutage, PodReport, STATUS, Status,
};
use crate::places::run::{self, RunDir};
use crate::pod::id::PodId;
use crate::reasons::Blocked;
use crate::supervisor::decide::{self, State};
use crate::supervisor::facts::Key;
use crate::supervisor::facts::{Facts, Run};
use crate::supervisor::health::Health;
use crate::supervisor::observe::Index;

/// Outages that are remembered.
const REMEMBERED: usize = 20;

/// What a pass ended with, to be told.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// Where each pod stands.
    pub state: &'a State,
    /// The checkpoints.
    pub index: &'a Index,
    /// Contact; `None`: unknown.
    pub contact: Option<Contact>,
    /// What could not be learned or done.
    pub problems: &'a [String],
    /// Twins that do not stay up.
    pub health: &'a Health,
    /// Why connections cannot be closed.
    pub cannot_unstick: Option<&'a str>,
}

/// Writes the two files, each only when it changed.
#[derive(Debug, Default)]
pub struct Recorder {
    status: Option<Status>,
    outages: Outages,
    changed: bool,
    /// The files that could not be written when it was last tried.
    unwritten: BTreeSet<&'static str>,
}

impl Recorder {
    /// Goes on with the outages that a supervisor before this one recorded.
    pub fn open(run: &RunDir) -> Self {
        let outages = run.read(OUTAGES).unwrap_or_else(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "the record of outages starts anew");
            None
        });
        Self { outages: outages.unwrap_or_default(), ..Self::default() }
    }

    /// A twin was linked, as `facts` made it due; `result` is one of
    /// [`crate::names::activation_results`].
    pub fn activated(&mut self, key: &PodId, parent_uid: &str, result: &'static str, facts: &Facts, now: Duration) {
        let contact = facts.contact;
        self.count(result);
        if self.outages.outages.last().is_none_or(|outage| outage.to.is_some()) {
            let since = contact.map_or(now, |contact| contact.since);
            let from_wall = wall(now.saturating_sub(since));
            let outage = Outage { from: milliseconds(since), from_wall, ..Outage::default() };
            self.outages.outages.push(outage);
            self.outages.counts.outages += 1;
            let surplus = self.outages.outages.len().saturating_sub(REMEMBERED);
            self.outages.outages.drain(..surplus);
        }
        self.change(key, |pod| {
            let decided = pod.decided.or(Some(milliseconds(facts.now)));
            let activated = Some(milliseconds(now));
            let taken_back = pod.taken_back.saturating_add(u32::from(result == TAKEN_BACK));
            *pod = PodOutage { parent_uid: parent_uid.to_owned(), decided, activated, taken_back, ..pod.clone() };
        });
    }

    /// A twin could not be linked.
    pub fn refused(&mut self, reason: Blocked) {
        self.count(reason.as_str());
        // on a disk the record would outlive its boot
        self.changed |= reason != Blocked::RunDirNotMemory;
    }

    /// The kubelet waited for the API server, and no longer does.
    pub fn unstuck(&mut self) {
        self.outages.counts.unstuck += 1;
        self.changed = true;
    }

    fn count(&mut self, result: &'static str) {
        *self.outages.counts.activations.entry(result.to_owned()).or_default() += 1;
    }

    /// A link was removed.
    pub fn released(&mut self, key: &PodId, now: Duration) {
        self.change(key, |pod| pod.released = Some(milliseconds(now)));
    }

    /// Notes what a pass saw: twins that serve, parents that took over, twins that ended, the end of the outage.
    pub fn observe(&mut self, state: &State, facts: &Facts) {
        let Outages { outages, counts } = &mut self.outages;
        let Some(last) = outages.last_mut() else { return };
        let now = milliseconds(facts.now);
        for (key, seen) in &facts.pods {
            let phase = state.pods.get(key).map(|pod| &pod.phase);
            let Some(pod) = last.pods.get_mut(key) else { continue };
            if matches!(phase, Some(decide::Phase::Active { .. })) && seen.twin == Run::Running && pod.serving.is_none()
            {
                pod.serving = Some(now);
                counts.activation.add(now.saturating_sub(pod.decided.or(pod.activated).unwrap_or(now)));
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
        if last.to.is_none() && facts.contact.is_some_and(|contact| contact.class == Class::Answering) {
            last.to = Some(now);
            last.to_wall = Some(wall(Duration::ZERO));
            self.changed = true;
        }
    }

    /// Writes what changed, and says what is to be told in figures. A failure is tried again at the next pass, and logged
    /// once when it begins and once when it ends: passes follow each other quickly while a directory is full.
    pub fn write(&mut self, run: &RunDir, told: &Told<'_>, twins: impl Fn(&Key) -> Option<String>) -> Figures {
        let status = status(told, twins);
        let figures = Figures::new(&status, &self.outages.counts);
        if self.status.as_ref() != Some(&status) && self.is_written(STATUS, run.write(STATUS, &status)) {
            self.status = Some(status);
        }
        if self.changed && self.is_written(OUTAGES, run.write(OUTAGES, &self.outages)) {
            self.changed = false;
        }
        figures
    }

    fn is_written(&mut self, file: &'static str, result: Result<(), run::Error>) -> bool {
        match result {
            Ok(()) if self.unwritten.remove(file) => tracing::info!(file, "written again"),
            Err(error) if self.unwritten.insert(file) => {
                tracing::warn!(
                    file,
                    error = &error as &dyn std::error::Error,
                    "cannot write what the agent and `status` read"
                );
            }
            Ok(()) | Err(_) => {}
        }
        !self.unwritten.contains(file)
    }

    fn change(&mut self, key: &PodId, change: impl FnOnce(&mut PodOutage)) {
        if let Some(outage) = self.outages.outages.last_mut() {
            change(outage.pods.entry(key.to_owned()).or_default());
            self.changed = true;
        }
    }
}

fn status(told: &Told<'_>, twins: impl Fn(&Key) -> Option<String>) -> Status {
    let Told { state, index, contact, problems, health, cannot_unstick } = told;
    let pods = state.pods.iter().map(|(key, pod)| {
        let (namespace, name) = (key.namespace(), key.name());
        let blocked = pod.blocked.as_ref().map(|block| (block.reason, block.message.clone()));
        let ails = health.of(key).map(|(reason, text)| (reason, text.to_owned()));
        let blocked = match (blocked, ails) {
            // the same, and more of it
            (Some((before, _)), Some((reason, text))) if before == reason => Some((reason, text)),
            (blocked, ails) => blocked.or(ails),
        };
        let phase = match pod.phase {
            _ if blocked.is_some() => Phase::Blocked,
            decide::Phase::Inactive => Phase::Inactive,
            decide::Phase::Active { .. } => Phase::Active,
            decide::Phase::Released { .. } => Phase::Released,
        };
        PodReport {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            parent_uid: index.known.get(key).map(|known| known.parent_uid.clone()).unwrap_or_default(),
            phase,
            reason: blocked.as_ref().map(|(reason, _)| reason.as_str()).or(state.held_by(pod)).map(str::to_owned),
            message: blocked.map(|(_, message)| message),
            twin_uid: twins(key),
        }
    });
    Status {
        written_by: format!("pod-checkpointer {}", env!("CARGO_PKG_VERSION")),
        contact: contact.map(|contact| ContactReport { class: contact.class, since: milliseconds(contact.since) }),
        locked_out: state.locked_out.map(|(kubelet_pid, since)| LockedOut { kubelet_pid, since: milliseconds(since) }),
        problems: problems.to_vec(),
        cannot_unstick: cannot_unstick.map(str::to_owned),
        pods: pods.collect(),
    }
}

/// The wall clock so long ago: for people.
fn wall(ago: Duration) -> String {
    let now = jiff::Timestamp::now();
    let then = jiff::SignedDuration::try_from(ago).ok().and_then(|ago| now.checked_sub(ago).ok());
    format!("{:.3}", then.unwrap_or(now))
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since boot now, for those who compare with the files.
pub fn now() -> u64 {
    milliseconds(clock::boot_time())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::ACTIVATED;
    use crate::places::reports::Counts;
    use crate::pod::id::id;
    use crate::supervisor::decide::Pod;
    use crate::supervisor::facts::PodFacts;
    use std::collections::BTreeMap;

    #[test]
    fn an_outage_is_told_from_its_first_silence_to_the_parents_return_and_survives_a_restart() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let run = RunDir::new(directory.path(), "/run/pod-checkpointer");
        let at = Duration::from_secs;
        let silent = Contact { class: Class::Silent, since: at(10), alike: at(10), failures: 3, by_time_out: false };
        let mut recorder = Recorder::open(&run);
        let decided = Facts { now: at(12), contact: Some(silent), ..Facts::default() };
        recorder.refused(Blocked::ImageAbsent);
        recorder.activated(&id("shop_till"), "uid", ACTIVATED, &decided, at(13));
        let mut state = State::default();
        let phase = decide::Phase::Active { linked: at(13), under: Class::Silent, nudged: None, refused: 0 };
        state.pods.insert(id("shop_till"), Pod { phase, ..Pod::default() });
        let twin = PodFacts { twin: Run::Running, ..PodFacts::default() };
        let mut facts = Facts { now: at(14), contact: Some(silent), ..Facts::default() };
        facts.pods = BTreeMap::from([(id("shop_till"), twin)]);
        recorder.observe(&state, &facts);
        let (index, health) = (Index::default(), Health::default());
        let told = Told {
            state: &state,
            index: &index,
            contact: facts.contact,
            problems: &[],
            health: &health,
            cannot_unstick: None,
        };
        recorder.write(&run, &told, |_| None);

        let mut recorder = Recorder::open(&run);
        recorder.released(&id("shop_till"), at(20));
        let answering =
            Contact { class: Class::Answering, since: at(20), alike: at(20), failures: 0, by_time_out: false };
        facts.now = at(25);
        facts.contact = Some(answering);
        facts.pods = BTreeMap::from([(id("shop_till"), PodFacts { parent: Run::Running, ..twin })]);
        recorder.observe(&state, &facts);
        facts.now = at(27);
        facts.pods = BTreeMap::from([(id("shop_till"), PodFacts { parent: Run::Running, ..PodFacts::default() })]);
        recorder.observe(&state, &facts);
        facts.now = at(28);
        let gone = PodFacts { parent: Run::Running, twin: Run::Stopped, ..PodFacts::default() };
        facts.pods = BTreeMap::from([(id("shop_till"), gone)]);
        recorder.observe(&state, &facts);
        recorder.observe(&state, &facts);
        let problems = ["a problem".to_owned()];
        let told = Told {
            state: &state,
            index: &index,
            contact: facts.contact,
            problems: &problems,
            health: &health,
            cannot_unstick: None,
        };
        recorder.write(&run, &told, |_| Some("twin".into()));

        let outages: Outages = run.read(OUTAGES).unwrap().unwrap();
        let outage = &outages.outages[0];
        assert_eq!((outage.from, outage.to), (10_000, Some(25_000)));
        let pod = &outage.pods[&id("shop_till")];
        let times = [pod.decided, pod.activated, pod.serving, pod.released, pod.taken_over, pod.ended];
        assert_eq!(times, [12_000, 13_000, 14_000, 20_000, 25_000, 28_000].map(Some));
        let Counts { outages, activations, unstuck, activation, takeover, overlap } = outages.counts;
        assert_eq!((outages, unstuck), (1, 0));
        assert_eq!(activations, BTreeMap::from([(ACTIVATED.into(), 1), ("ImageAbsent".into(), 1)]));
        let sums = [activation, takeover, overlap].map(|times| (times.count, times.sum));
        assert_eq!(sums, [(1, 2_000), (1, 5_000), (1, 3_000)], "each once, though looked at twice");
        let status: Status = run.read(STATUS).unwrap().unwrap();
        assert_eq!((status.pods[0].phase, status.problems.len()), (Phase::Active, 1));
    }

    #[test]
    fn what_cannot_be_written_is_remembered_and_written_later() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = directory.path().join("run");
        std::fs::write(&path, "no directory").unwrap();
        let run = RunDir::new(&path, "/run/pod-checkpointer");
        let mut recorder = Recorder::default();
        recorder.unstuck();
        let write = |recorder: &mut Recorder| {
            let (state, index, health) = (State::default(), Index::default(), Health::default());
            let told = Told {
                state: &state,
                index: &index,
                contact: None,
                problems: &[],
                health: &health,
                cannot_unstick: None,
            };
            recorder.write(&run, &told, |_| None);
        };
        write(&mut recorder);
        write(&mut recorder);
        assert_eq!(recorder.unwritten, [OUTAGES, STATUS].into());
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        write(&mut recorder);
        assert_eq!(recorder.unwritten, [].into());
        assert!(run.read::<Status>(STATUS).unwrap().is_some());
        assert_eq!(run.read::<Outages>(OUTAGES).unwrap().unwrap().counts.unstuck, 1);
    }
}
