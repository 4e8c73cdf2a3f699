//! The supervisor on the model's node: the real [`Core`], driven as `shell` drives it. Looks and
//! stops take time here, and actions sometimes fail.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::kubelet::{Kubelet, NODE, Reach, Runtime};
use super::pods::Marked;
use super::random::Random;
use crate::checkpoint::Handover;
use crate::names::{HOLD_SECONDS, LOCKED_OUT_AFTER, PARENT_UID};
use crate::node::contact::{Class, Outcome as Probed};
use crate::node::runtime::{Container, State};
use crate::places::reports::{AgentReport, Status};
use crate::reasons::Blocked;
use crate::supervisor::core::decide::{Action, Phase, Settings};
use crate::supervisor::core::facts::{Key, Run};
use crate::supervisor::core::known::{Known, Stored};
use crate::supervisor::core::observe::Lists;
use crate::supervisor::core::pace::{LOOK, Pace, QUIET};
use crate::supervisor::core::{Core, FoundTwin, KubeletAnswer, Observation, Outcome, Refused};
use crate::supervisor::probes::AT_ONCE;

/// How long a call to a kubelet or runtime that hangs takes.
const CALL_LIMIT: u64 = 2_000;

/// A twin that is unpacked.
#[derive(Clone, Debug)]
pub(super) struct Unpacked {
    uid: String,
    parent_uid: String,
}

/// The part of the node that outlives a supervisor.
#[derive(Default)]
pub(super) struct Disk {
    /// Links in the manifest directory, by pod, with the UID in the linked file; empty if that file
    /// is gone.
    pub(super) links: BTreeMap<usize, String>,
    /// Unpacked twins (memory: gone after a reboot).
    pub(super) active: BTreeMap<usize, Unpacked>,
    /// Names that changed in the manifest directory since the kubelet looked.
    pub(super) changed: BTreeSet<usize>,
    /// What the agent last reported.
    pub(super) agent: Option<AgentReport>,
    /// What the supervisor last reported.
    pub(super) status: Status,
    /// How often a twin was ever linked: UIDs are built from it.
    pub(super) linked: u64,
    /// When the removal of a link last failed, by pod.
    pub(super) unreleased: BTreeMap<usize, u64>,
    /// The supervisor left the node.
    pub(super) is_left: bool,
}

/// A planted fault, which the model must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// There is none.
    None,
    /// The decision does not see what the kubelet owns.
    BlindToOwner,
    /// It does not see the API server's answers and the kubelet's own connection: bootkube's
    /// checkpointer waited for the parent.
    BlindToAnswers,
    /// It does not see the parent's containers.
    BlindToParent,
    /// It does not see that the kubelet has read no services yet.
    BlindToServices,
    /// It ignores the owner's setting: pods of a kubelet that is locked out are activated.
    BlindToWill,
    /// An action that failed counts as done, and the manifest directory is not looked at.
    ForgetsFailures,
    /// A stop in the background counts as over at once.
    ForgetsStops,
    /// A checkpoint is forgotten with its twin.
    ForgetsCheckpoints,
    /// Passes are always rare.
    Sleeps,
    /// Nothing is released before the kubelet and the runtime have answered.
    ReleasesLate,
    /// A restart forgets which twins were linked although the API server answers.
    ForgetsReasons,
    /// The agent's heartbeat is not seen, unless it reports a rejected parent.
    DeafToAgent,
}

/// The node as the supervisor sees it.
#[allow(clippy::struct_excessive_bools)] // what is so of a node, each by itself
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
    /// The runtime lists what runs, and does not answer when it is asked for images.
    pub(super) images_hang: bool,
    pub(super) exclusive: bool,
    /// The installation is being removed.
    pub(super) is_removed: bool,
    pub(super) flaw: Flaw,
    pub(super) disk: &'a mut Disk,
    pub(super) random: &'a mut Random,
    pub(super) said: &'a mut Vec<String>,
}

impl View<'_> {
    fn time(&self) -> Duration {
        Duration::from_millis(self.now)
    }

    fn pod(&self, key: &Key) -> usize {
        self.pods.iter().position(|pod| pod.key == *key).unwrap()
    }
}

/// A look at the node in progress.
struct Look {
    lists: Option<Lists>,
    /// When the runtime has answered or the call has timed out.
    kubelet_asked: u64,
}

/// A stop in the background.
struct Stop {
    action: Action,
    sandboxes: Vec<String>,
    ends: u64,
}

pub(super) struct Supervised {
    core: Core,
    /// The kubelet that last answered.
    kubelet: Option<u32>,
    probes: Vec<(u64, u64, Probed)>,
    next_probe: u64,
    next_look: u64,
    next_pass: u64,
    look: Option<Look>,
    /// Parents' UIDs in the checkpoints that were read.
    read: BTreeMap<Key, String>,
    stops: Vec<Stop>,
    /// The action that failed last: none fails twice in a row.
    failed: Option<Action>,
}

impl Supervised {
    /// Rebuilt from the node.
    pub(super) fn new(view: &mut View<'_>) -> Self {
        let activate_locked_out = match view.flaw {
            Flaw::BlindToWill => Some(LOCKED_OUT_AFTER),
            _ => view.activate_locked_out,
        };
        let settings = Settings {
            activation_delay: Duration::from_secs(3),
            unstick: true,
            activate_locked_out,
        };
        let pace = Pace {
            interval: Duration::from_secs(1),
            delay: settings.activation_delay,
        };
        let mut core =
            Core::new(NODE.into(), settings, pace).with_early_namespaces(["shop".into()]);
        let disk = &mut *view.disk;
        let dangling: Vec<usize> = disk
            .links
            .keys()
            .filter(|pod| !disk.active.contains_key(pod))
            .copied()
            .collect();
        for pod in dangling {
            disk.links.remove(&pod);
            disk.changed.insert(pod);
        }
        let found = |(pod, twin): (&usize, &Unpacked)| FoundTwin {
            key: view.pods[*pod].key.clone(),
            is_linked: disk.links.contains_key(pod),
            manifest: manifest(&twin.uid, &twin.parent_uid),
        };
        let twins = disk.active.iter().map(found).collect();
        let status = if view.flaw == Flaw::ForgetsReasons {
            Status::default()
        } else {
            disk.status.clone()
        };
        core.rebuild(&status, twins, Duration::from_millis(view.now));
        Self {
            core,
            kubelet: None,
            probes: Vec::new(),
            next_probe: view.now,
            next_look: view.now,
            next_pass: view.now,
            look: None,
            read: BTreeMap::new(),
            stops: Vec::new(),
            failed: None,
        }
    }

    pub(super) fn core(&self) -> &Core {
        &self.core
    }

    pub(super) fn tick(&mut self, view: &mut View<'_>) {
        let (heard, is_news) = self.listen(view);
        if is_news || heard && !self.core.is_quiet() {
            self.next_pass = view.now;
        }
        if is_news && self.look.is_some() {
            self.release(view);
        }
        self.end_stops(view);
        if self.look.is_none() && self.next_pass <= view.now {
            self.release(view);
            self.begin_look(view);
        }
        if let Some(kubelet) = self.look.as_ref().and_then(|look| ask_kubelet(look, view)) {
            let lists = self.look.take().and_then(|look| look.lists);
            self.pass(lists, kubelet, view);
            let wait = if view.flaw == Flaw::Sleeps {
                QUIET
            } else {
                self.core.between_passes()
            };
            self.next_pass = view.now + u64::try_from(wait.as_millis()).unwrap();
        }
    }

    // --- what is heard
    // ---------------------------------------------------------------------------------------------

    /// Begins and ends probes, and lists the kubelet's sockets. Returns whether anything was heard,
    /// and whether it changed anything.
    fn listen(&mut self, view: &mut View<'_>) -> (bool, bool) {
        let now = view.now;
        let pause = |core: &Core| u64::try_from(core.between_probes().as_millis()).unwrap();
        self.next_probe = self.next_probe.min(now + pause(&self.core));
        if now >= self.next_probe {
            if self.probes.len() < AT_ONCE {
                let (wait, outcome) = probe(view);
                self.probes.push((now, now + wait, outcome));
            }
            self.next_probe = now + pause(&self.core);
        }
        let (mut heard, mut is_news) = (false, false);
        let ms = Duration::from_millis;
        for (began, ended, outcome) in self.probes.extract_if(.., |(_, ended, _)| *ended <= now) {
            heard = true;
            is_news |= self.core.heard(ms(began), ms(ended), outcome);
        }
        if self.core.is_alert() && now >= self.next_look {
            self.next_look = now + u64::try_from(LOOK.as_millis()).unwrap();
            // known only after it was asked
            if let Some(kubelet) = view
                .kubelet
                .as_ref()
                .filter(|kubelet| self.kubelet == Some(kubelet.pid))
            {
                let socket = kubelet.socket(view.reach);
                let seen = if view.flaw == Flaw::BlindToAnswers {
                    Vec::new()
                } else {
                    vec![socket]
                };
                is_news |= self.core.sockets(Some(&seen), view.time());
            }
        }
        (heard && view.flaw != Flaw::Sleeps, is_news)
    }

    fn release(&mut self, view: &mut View<'_>) {
        if view.flaw != Flaw::ReleasesLate {
            for action in self.core.release_at_sign(view.time()) {
                self.perform(&action, None, view);
            }
        }
    }

    // --- passes
    // ----------------------------------------------------------------------------------------------------

    fn begin_look(&mut self, view: &mut View<'_>) {
        let lists = (!view.runtime_hangs).then(|| view.runtime.lists(view.pods));
        // a slow runtime: its lists are older than the kubelet's later answer
        let takes = match lists {
            None => CALL_LIMIT,
            Some(_) if view.random.one_in(50) => view.random.between(50, 1_500),
            Some(_) => 0,
        };
        self.look = Some(Look {
            lists,
            kubelet_asked: view.now + takes,
        });
    }

    fn pass(&mut self, lists: Option<Lists>, kubelet: KubeletAnswer, view: &mut View<'_>) {
        let stored = self.stored(view);
        let (lists, kubelet) = (
            lists.map(|lists| self.seen(lists, view)),
            seen_owned(kubelet, view.flaw),
        );
        self.kubelet = kubelet.owned().map(|owned| owned.pid).or(self.kubelet);
        let mut agent = view.disk.agent.clone();
        if let Some(report) = agent
            .as_mut()
            .filter(|report| view.flaw == Flaw::DeafToAgent && report.rejected.is_empty())
        {
            report.heartbeat = 0;
        }
        let links = view.disk.links.keys();
        let links = links.map(|pod| view.pods[*pod].key.clone()).collect();
        let seen = Observation {
            stored: &stored,
            lists: lists.as_ref(),
            kubelet: &kubelet,
            agent: agent.as_ref(),
            exclusive_host_ports: view.exclusive,
            knows_links: true,
            links: (view.flaw != Flaw::ForgetsFailures).then_some(&links),
        };
        let actions = self.core.observed(&seen, view.time());
        for action in actions {
            self.check_early_stop(&action, view);
            if action == Action::Unstick {
                self.unstick(view);
            } else {
                self.perform(&action, lists.as_ref(), view);
            }
        }
        self.core.settle();
        view.disk.status = self.core.status(Vec::new(), None);
    }

    /// What the store has, and what changed in it.
    fn stored(&mut self, view: &View<'_>) -> Stored {
        let mut stored = Stored::default();
        for (pod, uid) in view.captured {
            let key = view.pods[*pod].key.clone();
            if self.read.get(&key) != Some(uid) {
                self.read.insert(key.clone(), uid.clone());
                stored
                    .changed
                    .insert(key.clone(), known(&view.pods[*pod], uid));
            }
            stored.keys.insert(key);
        }
        stored
    }

    /// What the runtime lists, without what a planted fault hides.
    fn seen(&self, mut lists: Lists, view: &View<'_>) -> Lists {
        let is_api = |source: Option<&String>| source.is_some_and(|source| source == "api");
        match view.flaw {
            Flaw::BlindToParent => lists.sandboxes.retain(|sandbox| {
                let known = self
                    .core
                    .known()
                    .get(&Key::new(&sandbox.namespace, &sandbox.name).unwrap());
                let is_parent = is_api(sandbox.annotations.get(crate::names::CONFIG_SOURCE));
                !is_parent || known.is_some_and(|known| known.twin_uid.is_some())
            }),
            Flaw::BlindToServices => {
                let parents = lists.sandboxes.iter();
                for sandbox in parents.filter(|it| {
                    is_api(it.annotations.get(crate::names::CONFIG_SOURCE)) && it.ready
                }) {
                    let (id, name) = (format!("no container of {}", sandbox.id), "app".to_owned());
                    let (sandbox, state) = (sandbox.id.clone(), State::Created);
                    lists.containers.push(Container {
                        id,
                        sandbox,
                        name,
                        state,
                        ..Container::default()
                    });
                }
            }
            _ => {}
        }
        lists
    }

    /// The twin of a pod with overlap serves until the parent serves, or until its hold is over.
    fn check_early_stop(&self, action: &Action, view: &mut View<'_>) {
        let Action::StopTwin(key) = action else {
            return;
        };
        let (now, seen) = (view.time(), &self.core.facts().pods[key]);
        let is_early = seen.handover == Some(Handover::Overlap)
            && seen.parent != Run::Running
            && !seen.parent_gone;
        let hold = Duration::from_secs(HOLD_SECONDS.unsigned_abs());
        let is_held = matches!(self.core.state().pods[key].phase, Phase::Released { since, .. }
            if now.saturating_sub(since) < hold);
        if is_early && is_held {
            view.said.push(format!(
                "VIOLATED {key}: its twin is stopped before its parent runs: {seen:?}"
            ));
        }
    }

    fn unstick(&mut self, view: &mut View<'_>) {
        let now = view.time();
        if let Some(kubelet) = &mut view.kubelet {
            let waiting = self.core.waiting(vec![kubelet.socket(view.reach)], now);
            if !waiting.is_empty() {
                kubelet.unstick(view.now);
                self.core.closed(waiting.len());
            }
        }
    }

    // --- actions
    // ---------------------------------------------------------------------------------------------------

    fn perform(&mut self, action: &Action, lists: Option<&Lists>, view: &mut View<'_>) {
        // a full run directory, a missing image, a damaged file
        let fails = self.failed.as_ref() != Some(action) && view.random.one_in(20);
        self.failed = fails.then(|| action.clone());
        let outcome = self.attempt(action, lists, fails, view);
        let is_done = matches!(
            outcome,
            Outcome::Done | Outcome::Linked(..) | Outcome::Started
        );
        view.said.push(if is_done {
            format!("{action:?}")
        } else {
            format!("failed: {action:?}")
        });
        let outcome = match outcome {
            Outcome::Failed if view.flaw == Flaw::ForgetsFailures => Outcome::Done,
            outcome => outcome,
        };
        let is_started = matches!(outcome, Outcome::Started);
        self.core.done(action, outcome, view.time());
        match action {
            Action::StopParent(_) if is_started && view.flaw == Flaw::ForgetsStops => {
                self.core.ended(action);
            }
            Action::Forget(key) if is_done && view.flaw == Flaw::ForgetsCheckpoints => {
                self.core.lose(key);
            }
            _ => {}
        }
    }

    fn attempt(
        &mut self,
        action: &Action,
        lists: Option<&Lists>,
        fails: bool,
        view: &mut View<'_>,
    ) -> Outcome {
        if let Action::Renew(key) = action
            && let (pod, Some(kubelet)) = (view.pod(key), &view.kubelet)
            && kubelet.holds_back(pod)
        {
            view.said.push(format!(
                "VIOLATED {key}: renewed while the kubelet holds a new UID back"
            ));
        }
        match action {
            Action::Activate(key) | Action::Renew(key) => self.activate(key, fails, view),
            Action::Relink(key) => match view.disk.active.get(&view.pod(key)).cloned() {
                Some(_) if fails => Outcome::Failed,
                Some(twin) => {
                    self.link(key, twin, view);
                    Outcome::Done
                }
                None => self.activate(key, fails, view),
            },
            Action::Nudge(key) => {
                view.disk.changed.insert(view.pod(key));
                Outcome::Done
            }
            Action::Release(key) => {
                let pod = view.pod(key);
                if fails {
                    view.disk.unreleased.insert(pod, view.now);
                    return Outcome::Failed;
                }
                view.disk.links.remove(&pod);
                view.disk.changed.insert(pod);
                Outcome::Done
            }
            Action::StopTwin(key) | Action::EndTwin(key) | Action::StopParent(key) => {
                lists.map_or(Outcome::Failed, |lists| self.stop(action, key, lists, view))
            }
            Action::Forget(_) if fails => Outcome::Failed,
            Action::Forget(key) => {
                view.disk.active.remove(&view.pod(key));
                Outcome::Done
            }
            Action::Retire => {
                Self::retire(view);
                Outcome::Done
            }
            Action::Unstick => Outcome::Done,
        }
    }

    fn activate(&mut self, key: &Key, fails: bool, view: &mut View<'_>) -> Outcome {
        let pod = view.pod(key);
        if view.images_hang {
            // a precondition that is not known to hold: an earlier link stays
            return Outcome::Refused(Refused::new(Blocked::ImageUnknown, "no answer"));
        }
        if fails {
            if view.disk.links.remove(&pod).is_some() {
                view.disk.changed.insert(pod);
            }
            return Outcome::Refused(Refused::new(Blocked::WriteFailed, "chance"));
        }
        let parent_uid = view.captured[&pod].clone();
        view.disk.linked += 1;
        let uid = format!("{key}-{}", view.disk.linked);
        let known = known(&view.pods[pod], &parent_uid);
        self.link(
            key,
            Unpacked {
                uid: uid.clone(),
                parent_uid,
            },
            view,
        );
        Outcome::Linked(uid, Box::new(known))
    }

    fn link(&self, key: &Key, twin: Unpacked, view: &mut View<'_>) {
        let pod = view.pod(key);
        let owned = view
            .kubelet
            .as_ref()
            .is_some_and(|kubelet| kubelet.owns_parent(pod));
        if owned {
            view.said.push(format!(
                "VIOLATED {key}: linked while the kubelet owns its parent"
            ));
        } else if view.runtime.runs(pod, false) {
            view.said
                .push(format!("VIOLATED {key}: linked while its parent runs"));
        } else if self.stops_parent(key) {
            view.said.push(format!(
                "VIOLATED {key}: linked while its parent is being stopped"
            ));
        }
        let answers = self
            .core
            .contact()
            .is_some_and(|contact| contact.class == Class::Answering);
        let is_rejected = view
            .disk
            .agent
            .as_ref()
            .is_some_and(|report| report.rejected.contains_key(key));
        let has_nothing = view.kubelet.as_ref().is_some_and(|kubelet| !kubelet.synced);
        let is_locked_out = has_nothing
            && view
                .activate_locked_out
                .is_some_and(|limit| view.answers_for >= limit);
        if answers && !is_rejected && !is_locked_out {
            view.said.push(format!(
                "VIOLATED {key}: linked while the API server answers"
            ));
        }
        view.disk.links.insert(pod, twin.uid.clone());
        view.disk.active.insert(pod, twin);
        view.disk.changed.insert(pod);
    }

    fn stops_parent(&self, key: &Key) -> bool {
        self.stops
            .iter()
            .any(|stop| stop.action == Action::StopParent(key.clone()))
    }

    /// Asks the containers to end; the sandboxes follow when the stop ends, which a slow runtime
    /// delays.
    fn stop(&mut self, action: &Action, key: &Key, lists: &Lists, view: &mut View<'_>) -> Outcome {
        if matches!(action, Action::StopParent(_)) && self.stops_parent(key) {
            view.said.push(format!(
                "VIOLATED {key}: its parent is stopped twice at once"
            ));
        }
        let stop = self.core.stop(action, lists).unwrap();
        let sandboxes: Vec<String> = stop
            .targets
            .iter()
            .map(|target| target.sandbox.clone())
            .collect();
        let runs = stop
            .targets
            .iter()
            .any(|target| !target.containers.is_empty());
        let ends_in = view.pods[view.pod(key)].ends_in;
        let grace = stop
            .grace
            .map(|grace| u64::try_from(grace.as_millis()).unwrap());
        let takes = grace.map_or(200, |grace| if runs { ends_in.min(grace) } else { 0 });
        view.runtime.end_containers(&sandboxes, view.now + takes);
        let late = if view.random.one_in(3) {
            view.random.between(0, 30_000)
        } else {
            0
        };
        self.stops.push(Stop {
            action: action.clone(),
            sandboxes,
            ends: view.now + takes + late,
        });
        Outcome::Started
    }

    fn end_stops(&mut self, view: &mut View<'_>) {
        for stop in self.stops.extract_if(.., |stop| stop.ends <= view.now) {
            view.runtime.end_sandboxes(&stop.sandboxes);
            self.core.ended(&stop.action);
            self.next_pass = view.now;
        }
    }

    fn retire(view: &mut View<'_>) {
        let twins = (0..view.pods.len())
            .filter(|pod| view.runtime.runs(*pod, true))
            .count();
        if !view.is_removed {
            view.said
                .push("VIOLATED: left the node though the agent lives".into());
        } else if twins > 0 || !view.disk.links.is_empty() || !view.reach.answers() {
            view.said.push(format!(
                "VIOLATED: left the node while it was needed: {twins} twins run"
            ));
        }
        view.disk.is_left = true;
    }
}

/// How long a probe takes, and its result.
fn probe(view: &View<'_>) -> (u64, Probed) {
    match view.reach {
        Reach::Up | Reach::Starting | Reach::Broken | Reach::LockedOut
            if view.flaw == Flaw::BlindToAnswers =>
        {
            (1, Probed::Refused)
        }
        Reach::Up | Reach::LockedOut => (10, Probed::Status(401)),
        Reach::Starting | Reach::Broken => (10, Probed::Status(500)),
        Reach::Refused => (1, Probed::Refused),
        Reach::BlackHole | Reach::Slow => (1_000, Probed::TimedOut),
        Reach::Foreign => (20, Probed::Unproven),
    }
}

/// The kubelet's answer; `None`: it has not answered yet.
fn ask_kubelet(look: &Look, view: &View<'_>) -> Option<KubeletAnswer> {
    if view.now < look.kubelet_asked {
        return None;
    }
    match &view.kubelet {
        None => Some(KubeletAnswer::Down),
        Some(kubelet) if !view.kubelet_hangs => Some(KubeletAnswer::Owns(kubelet.owned(view.pods))),
        Some(_) => (view.now >= look.kubelet_asked + CALL_LIMIT).then_some(KubeletAnswer::Unknown),
    }
}

/// What the kubelet owns, without what a planted fault hides.
fn seen_owned(kubelet: KubeletAnswer, flaw: Flaw) -> KubeletAnswer {
    match kubelet {
        KubeletAnswer::Owns(mut owned) if flaw == Flaw::BlindToOwner => {
            let all = owned.pods.len();
            owned.pods.retain(|(_, name)| name.ends_with(NODE));
            if owned.pods.len() < all {
                owned
                    .pods
                    .insert(("kube-system".into(), "one-that-is-not-marked".into()));
            }
            KubeletAnswer::Owns(owned)
        }
        kubelet => kubelet,
    }
}

fn manifest(uid: &str, parent_uid: &str) -> Value {
    json!({
        "metadata": {"uid": uid, "annotations": {PARENT_UID: parent_uid}},
        "spec": {"containers": [{"name": "app"}]},
    })
}

/// For a checkpoint in the store.
fn known(pod: &Marked, parent_uid: &str) -> Known {
    let found = Known::of_manifest(&manifest("", parent_uid));
    Known {
        policy: pod.policy.clone(),
        in_store: true,
        twin_uid: None,
        ..found
    }
}
