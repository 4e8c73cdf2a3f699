//! The supervisor: what the pass does around the real decision, with links and stops done to the model.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;

use super::kubelet::{Kubelet, NODE, Reach, Runtime};
use super::pods::Marked;
use super::random::Random;
use crate::names::{LOCKED_OUT_AFTER, PARENT_UID};
use crate::node::contact::{Class, Outcome, Tracker};
use crate::places::reports::AgentWord;
use crate::reasons::Blocked;
use crate::supervisor::decide::{self, Action, Phase, Settings, State, decide};
use crate::supervisor::facts::{self, Facts, Run, Seen};
use crate::supervisor::observe::{self, Known, Lists, Made};

/// What of the node outlives a supervisor.
#[derive(Default)]
pub(super) struct Disk {
    /// Links in the manifest directory, by pod: the UID behind each, empty where the file behind it is gone.
    pub(super) links: BTreeMap<usize, String>,
    /// Unpacked twins (memory: gone after a reboot).
    pub(super) active: BTreeMap<usize, String>,
    /// Names that changed in the manifest directory since the kubelet looked.
    pub(super) changed: BTreeSet<usize>,
    /// What the agent last said.
    pub(super) word: Option<AgentWord>,
    /// What the supervisor last said of a kubelet that is locked out.
    pub(super) locked_out: Option<(Option<u32>, Duration)>,
    /// How often a twin was linked, ever: the UIDs are made of it.
    pub(super) linked: u64,
}

/// What a decision must not do without: blind to it, the model must find it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blind {
    /// Sees everything.
    No,
    /// To what the kubelet owns.
    Owner,
    /// To the API server's answers and to the kubelet's own connection: bootkube's checkpointer waited for the parent.
    Answers,
    /// To the parent's containers.
    Parent,
    /// To the kubelet having read no services yet.
    Services,
    /// To the owner's will: as if pods of a kubelet that is locked out were to be activated.
    Will,
}

/// The node, as a pass sees it.
pub(super) struct View<'a> {
    pub(super) now: u64,
    pub(super) reach: Reach,
    /// For how long the API server has been answering.
    pub(super) answers_for: Duration,
    /// See [`Settings::activate_locked_out`].
    pub(super) activate_locked_out: Option<Duration>,
    pub(super) pods: &'a [Marked],
    pub(super) captured: &'a BTreeMap<usize, String>,
    pub(super) kubelet: Option<&'a mut Kubelet>,
    pub(super) kubelet_hangs: bool,
    pub(super) runtime: &'a mut Runtime,
    pub(super) runtime_hangs: bool,
    pub(super) exclusive: bool,
    pub(super) blind: Blind,
    pub(super) disk: &'a mut Disk,
    pub(super) random: &'a mut Random,
    pub(super) said: &'a mut Vec<String>,
}

pub(super) struct Supervised {
    pub(super) state: State,
    tracker: Tracker,
    made: Made,
    twins: BTreeMap<String, String>,
    last: Option<Lists>,
    pid: Option<u32>,
    baseline: Option<u64>,
    connected: Seen,
    probes: Vec<(u64, u64, Outcome)>,
    next_probe: u64,
    next_pass: u64,
}

impl Supervised {
    /// Rebuilt from the node.
    pub(super) fn new(view: &mut View<'_>) -> Self {
        let now = Duration::from_millis(view.now);
        let (mut state, mut twins) = (State::default(), BTreeMap::new());
        let disk = &mut *view.disk;
        state.locked_out = disk.locked_out;
        let dangling: Vec<usize> = disk.links.keys().filter(|pod| !disk.active.contains_key(pod)).copied().collect();
        for pod in dangling {
            disk.links.remove(&pod);
            disk.changed.insert(pod);
        }
        for (pod, uid) in &disk.active {
            let key = view.pods[*pod].key.clone();
            let phase = if disk.links.contains_key(pod) {
                Phase::Active { linked: now, under: Class::Silent, nudged: None, refused: 0 }
            } else {
                Phase::Released { since: now, stopping: None }
            };
            twins.insert(key.clone(), uid.clone());
            state.pods.insert(key, decide::Pod { phase, ..decide::Pod::default() });
        }
        Self {
            state,
            tracker: Tracker::default(),
            made: Made::default(),
            twins,
            last: None,
            pid: None,
            baseline: None,
            connected: Seen::Unknown,
            probes: Vec::new(),
            next_probe: view.now,
            next_pass: view.now,
        }
    }

    fn is_alert(&self) -> bool {
        self.state.pods.values().any(|pod| pod.phase != Phase::Inactive)
    }

    pub(super) fn tick(&mut self, view: &mut View<'_>) {
        if self.probe(view) || self.look(view) || view.now >= self.next_pass {
            self.pass(view);
            let calm = self.tracker.current().is_some_and(|contact| contact.class == Class::Answering);
            self.next_pass = view.now
                + match (self.is_alert(), calm) {
                    (true, _) => 50,
                    (false, true) => 60_000,
                    (false, false) => 250,
                };
        }
    }

    /// Begins and ends probes; true when contact changed.
    fn probe(&mut self, view: &mut View<'_>) -> bool {
        let now = view.now;
        if now >= self.next_probe && self.probes.len() < 4 {
            let (wait, outcome) = match view.reach {
                Reach::Up | Reach::Starting | Reach::Broken | Reach::LockedOut if view.blind == Blind::Answers => {
                    (1, Outcome::Refused)
                }
                Reach::Up | Reach::LockedOut => (10, Outcome::Status(401)),
                Reach::Starting | Reach::Broken => (10, Outcome::Status(500)),
                Reach::Refused => (1, Outcome::Refused),
                Reach::BlackHole | Reach::Slow => (1_000, Outcome::TimedOut),
                Reach::Foreign => (20, Outcome::Unproven),
            };
            self.probes.push((now, now + wait, outcome));
            let answering = self.tracker.current().is_some_and(|contact| contact.class == Class::Answering);
            self.next_probe = now + if answering && !self.is_alert() { 1_000 } else { 250 };
        }
        let before = self.tracker.current().map(|contact| contact.class);
        let ms = Duration::from_millis;
        for (began, ended, outcome) in self.probes.extract_if(.., |(_, ended, _)| *ended <= now) {
            self.tracker.observe(ms(began), ms(ended), outcome);
        }
        self.tracker.current().map(|contact| contact.class) != before
    }

    /// Looks at the kubelet's sockets; true when it hears from the API server.
    fn look(&mut self, view: &View<'_>) -> bool {
        let Some(kubelet) = view.kubelet.as_ref().filter(|_| self.is_alert()) else { return false };
        if self.pid != Some(kubelet.pid) {
            // known only after it was asked
            return false;
        }
        let Some(baseline) = self.baseline else {
            (self.baseline, self.connected) = (Some(kubelet.received), Seen::No);
            return false;
        };
        let hears = kubelet.hears(view.reach) && kubelet.received > baseline && view.blind != Blind::Answers;
        let is_news = hears && !self.connected.is_yes();
        self.connected = hears.into();
        is_news
    }

    fn pass(&mut self, view: &mut View<'_>) {
        let now = Duration::from_millis(view.now);
        let (contact, kubelet_connected) = (self.tracker.current(), self.connected);
        let early = Facts { now, contact, kubelet_connected, ..Facts::default() };
        let (next, actions) = decide::release(&self.state, &early);
        self.follow(next, actions, view);

        let fresh = (!view.runtime_hangs).then(|| view.runtime.lists(view.pods));
        // a runtime that takes its time: what it lists is older than what the kubelet then says
        let old = view.random.one_in(50);
        let lists = if old { self.last.take() } else { fresh.clone() };
        self.last = fresh;
        let owned = view.kubelet.as_ref().filter(|_| !view.kubelet_hangs).map(|kubelet| kubelet.owned(view.pods));
        let kubelet = match (&owned, view.kubelet.is_some()) {
            (Some(owned), _) => {
                if self.pid != Some(owned.pid) {
                    (self.pid, self.baseline, self.connected) = (Some(owned.pid), None, Seen::Unknown);
                }
                facts::Kubelet::Up
            }
            (None, true) => facts::Kubelet::Unknown,
            (None, false) => facts::Kubelet::Down,
        };
        let kubelet_makes_containers = self.made.look(lists.as_ref(), owned.as_ref(), NODE);
        let mut pods = BTreeMap::new();
        for (pod, uid) in view.captured {
            let marked = &view.pods[*pod];
            let manifest = json!({
                "metadata": {"annotations": {PARENT_UID: uid}},
                "spec": {"containers": [{"name": "app"}]},
            });
            let mut known = Known::of_manifest(&manifest);
            (known.policy, known.in_store) = (marked.policy.clone(), true);
            let twin = self.twins.get(&marked.key).map(String::as_str);
            let word = view.disk.word.as_ref();
            let (lists, owned) = (lists.as_ref(), owned.as_ref());
            let mut seen = observe::pod_facts(&marked.key, &known, NODE, lists, owned, word, twin, view.exclusive);
            match view.blind {
                Blind::Owner => seen.parent_owned = Seen::No,
                Blind::Parent if twin.is_none() => seen.parent = Run::Stopped,
                Blind::Services => seen.parent_container = seen.parent_sandbox,
                Blind::No | Blind::Answers | Blind::Parent | Blind::Will => {}
            }
            pods.insert(marked.key.clone(), seen);
        }
        let facts = Facts {
            now,
            contact: self.tracker.current(),
            kubelet,
            kubelet_connected: self.connected,
            pods,
            agent_silence: Some(Duration::ZERO),
            agent_retires: false,
            kubelet_pid: owned.as_ref().map(|owned| owned.pid),
            kubelet_synced: owned.map_or(Seen::Unknown, |owned| observe::is_synced(&owned, NODE).into()),
            kubelet_makes_containers,
        };
        let activation_delay = Duration::from_secs(3);
        let activate_locked_out =
            if view.blind == Blind::Will { Some(LOCKED_OUT_AFTER) } else { view.activate_locked_out };
        let settings = Settings { activation_delay, unstick: true, activate_locked_out };
        let (next, actions) = decide(&self.state, &facts, &settings);
        for action in &actions {
            if let Action::StopTwin(key) = action {
                let seen = &facts.pods[key];
                let is_early = seen.handover == Some(crate::checkpoint::Handover::Overlap)
                    && seen.parent != Run::Running
                    && !seen.parent_gone
                    && !old;
                let released = matches!(self.state.pods[key].phase, Phase::Released { since, .. }
                    if now.saturating_sub(since) < Duration::from_secs(crate::names::HOLD_SECONDS.unsigned_abs()));
                if is_early && released {
                    view.said.push(format!("VIOLATED {key}: its twin is stopped before its parent runs: {seen:?}"));
                }
            }
        }
        self.follow(next, actions, view);
        view.disk.locked_out = self.state.locked_out;
        if !self.is_alert() {
            (self.baseline, self.connected) = (None, Seen::Unknown);
        }
    }

    fn follow(&mut self, next: State, actions: Vec<Action>, view: &mut View<'_>) {
        self.state = next;
        if actions.iter().any(Action::links) && self.connected.is_yes() {
            (self.baseline, self.connected) = (None, Seen::Unknown);
        }
        let index = |key: &str| view.pods.iter().position(|pod| pod.key == key).unwrap();
        for action in actions {
            if action != Action::Unstick {
                view.said.push(format!("{action:?}"));
            }
            match action {
                Action::Activate(key) | Action::Renew(key) if view.random.one_in(20) => {
                    // a full run directory, a missing image, a damaged file
                    let pod = index(&key);
                    if view.disk.links.remove(&pod).is_some() {
                        view.disk.changed.insert(pod);
                    }
                    let now = Duration::from_millis(view.now);
                    self.state.blocked(&key, now, Blocked::WriteFailed, "chance".into());
                }
                Action::Activate(key) | Action::Renew(key) => {
                    let pod = index(&key);
                    view.disk.linked += 1;
                    let uid = format!("{key}-{}", view.disk.linked);
                    self.link(pod, uid, view);
                }
                Action::Relink(key) => {
                    let pod = index(&key);
                    let uid = view.disk.active.get(&pod).cloned();
                    let uid = uid.unwrap_or_else(|| format!("{key}-re{}", view.now));
                    self.link(pod, uid, view);
                }
                Action::Nudge(key) => {
                    view.disk.changed.insert(index(&key));
                }
                Action::Unstick => {
                    if let Some(kubelet) = &mut view.kubelet {
                        kubelet.unstick(view.now);
                    }
                }
                Action::Release(key) => {
                    let pod = index(&key);
                    view.disk.links.remove(&pod);
                    view.disk.changed.insert(pod);
                }
                Action::StopTwin(key) => {
                    let pod = index(&key);
                    let at_once = view.pods[pod].policy.host_port && view.exclusive;
                    let ends = view.now + if at_once { 200 } else { view.pods[pod].ends_in };
                    view.runtime.stop(|sandbox| sandbox.pod == pod && sandbox.file, ends);
                }
                Action::EndTwin(key) => {
                    let pod = index(&key);
                    view.runtime.stop(|sandbox| sandbox.pod == pod && sandbox.file, view.now);
                }
                Action::StopParent(key) => {
                    let pod = index(&key);
                    let ends = view.now + view.pods[pod].ends_in;
                    view.runtime.stop(|sandbox| sandbox.pod == pod && !sandbox.file, ends);
                    for sandbox in view.runtime.sandboxes.iter_mut().filter(|it| it.pod == pod && !it.file) {
                        sandbox.ready &= sandbox.is_running();
                    }
                }
                Action::Forget(key) => {
                    view.disk.active.remove(&index(&key));
                    self.twins.remove(&key);
                }
                Action::Retire => panic!("left the node though the agent lives"),
            }
        }
    }

    fn link(&mut self, pod: usize, uid: String, view: &mut View<'_>) {
        let key = &view.pods[pod].key;
        let owned = view.kubelet.as_ref().is_some_and(|kubelet| kubelet.owns_parent(pod));
        if owned {
            view.said.push(format!("VIOLATED {key}: linked while the kubelet owns its parent"));
        } else if view.runtime.runs(pod, false) {
            view.said.push(format!("VIOLATED {key}: linked while its parent runs"));
        }
        let answers = self.tracker.current().is_some_and(|contact| contact.class == Class::Answering);
        let is_rejected = view.disk.word.as_ref().is_some_and(|word| word.rejected.contains_key(key));
        let has_nothing = view.kubelet.as_ref().is_some_and(|kubelet| !kubelet.synced);
        let is_locked_out = has_nothing && view.activate_locked_out.is_some_and(|limit| view.answers_for >= limit);
        if answers && !is_rejected && !is_locked_out {
            view.said.push(format!("VIOLATED {key}: linked while the API server answers"));
        }
        self.twins.insert(key.clone(), uid.clone());
        view.disk.active.insert(pod, uid.clone());
        view.disk.links.insert(pod, uid);
        view.disk.changed.insert(pod);
    }
}
