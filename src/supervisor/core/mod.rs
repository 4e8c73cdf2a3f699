//! The supervisor without its input and output: what it remembers, and what it concludes from what
//! is observed.
//!
//! ```text
//!   heard, sockets ──► release_at_sign ─┐
//!   rebuild                             ├─► actions ──► (the shell does them) ──► done, ended
//!   observed ──► facts ──► decide ──────┘
//!   settle, status, between_probes, between_passes
//! ```
//! No file, socket, clock or log here: observations and the time come in, actions go out, and their
//! results come back. `supervisor::shell` drives it on a node, and the model drives it in tests.
//! Everything it remembers can be rebuilt from the node ([`Core::rebuild`]).

pub mod decide;
pub mod facts;
pub mod health;
pub mod known;
pub mod observe;
pub mod outages;
pub mod pace;
pub mod sockets;
pub mod status;
pub mod stops;
pub mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::checkpoint::Policy;
use crate::names::{
    ACTIVATED, DEFAULT_START_GROUP, EARLY_NAMESPACES, REJECTED_AT_RETURN, RENEWED, TAKEN_BACK,
};
use crate::node::contact::{Class, Contact, Outcome as Probed, Tracker};
use crate::node::kubelet::Owned;
use crate::node::runtime::Detail;
use crate::node::sockets::Socket;
use crate::places::reports::{AgentReport, Outages, PodReport, Status};
use crate::reasons::Blocked;
use decide::{Action, Phase, Pod, Settings, State, decide};
use facts::{Facts, Key, Kubelet, PodFacts, Run, Seen};
use health::{Fault, Health, LookUp};
use known::{Known, Stored};
use observe::{Lists, NewContainers};
use outages::OutageLog;
use pace::Pace;
use sockets::KubeletSockets;
use stops::Stop;

/// The kubelet's answer to what it owns.
#[derive(Clone, Debug, Default)]
pub enum KubeletAnswer {
    /// It owns these pods.
    Owns(Owned),
    /// No process listens on its socket.
    Down,
    /// It did not answer.
    #[default]
    Unknown,
}

impl KubeletAnswer {
    /// What it owns, if it answered.
    pub fn owned(&self) -> Option<&Owned> {
        match self {
            Self::Owns(owned) => Some(owned),
            Self::Down | Self::Unknown => None,
        }
    }
}

/// What a look at the node found. Whatever could not be learned is `None` or unknown, never empty.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// What the store has.
    pub stored: &'a Stored,
    /// What the runtime lists; older than the kubelet's answer.
    pub lists: Option<&'a Lists>,
    /// The kubelet's answer.
    pub kubelet: &'a KubeletAnswer,
    /// What the agent last reported.
    pub agent: Option<&'a AgentReport>,
    /// The runtime refuses a second mapping of a host port.
    pub exclusive_host_ports: bool,
    /// The kubelet's manifest directory is known. Otherwise it is not known what is linked, and
    /// nothing is decided about any pod.
    pub knows_links: bool,
    /// The pods whose twins are linked; `None`: the manifest directory cannot be read.
    pub links: Option<&'a BTreeSet<Key>>,
}

/// A twin that an earlier supervisor left on the node.
#[derive(Clone, Debug)]
pub struct FoundTwin {
    /// Its pod.
    pub key: Key,
    /// Its manifest is linked.
    pub is_linked: bool,
    /// Its manifest; null if it cannot be read.
    pub manifest: Value,
}

/// Why an activation could not be prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The reason.
    pub reason: Blocked,
    /// In words, with what it is about and the chain of causes.
    pub message: String,
}

impl Refused {
    /// With this reason and message.
    pub fn new(reason: Blocked, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// The result of an action.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It is done.
    Done,
    /// A twin with this UID is linked; this is known about its checkpoint.
    Linked(String, Box<Known>),
    /// It continues in the background: [`Core::ended`] will be called.
    Started,
    /// The activation could not be prepared. It is retried after a growing pause.
    Refused(Refused),
    /// It failed. It is decided again at the next pass.
    Failed,
    /// Contact changed before it was done. It is decided again at the next pass.
    Canceled,
}

/// What is remembered, and the settings for the decision.
#[derive(Debug)]
pub struct Core {
    node_name: String,
    settings: Settings,
    pace: Pace,
    state: State,
    /// The state before the actions in progress: an action that fails is decided again from there.
    before: State,
    /// What the last pass knew.
    facts: Facts,
    known: BTreeMap<Key, Known>,
    tracker: Tracker,
    /// The kubelet process that last answered.
    kubelet_pid: Option<u32>,
    sockets: KubeletSockets,
    new_containers: NewContainers,
    health: Health,
    /// Pods of which something is being stopped: what runs of them is changing.
    busy: BTreeSet<Key>,
    outages: OutageLog,
    /// Namespaces whose pods may start before all others.
    early_namespaces: BTreeSet<String>,
    exclusive_host_ports: bool,
    knows_links: bool,
    /// The API server answers and nothing is active: passes are rare.
    is_quiet: bool,
}

impl Core {
    /// Knows nothing yet.
    pub fn new(node_name: String, settings: Settings, pace: Pace) -> Self {
        Self {
            node_name,
            settings,
            pace,
            state: State::default(),
            before: State::default(),
            facts: Facts::default(),
            known: BTreeMap::new(),
            tracker: Tracker::default(),
            kubelet_pid: None,
            sockets: KubeletSockets::default(),
            new_containers: NewContainers::default(),
            health: Health::default(),
            busy: BTreeSet::new(),
            outages: OutageLog::default(),
            early_namespaces: EARLY_NAMESPACES.map(str::to_owned).into(),
            exclusive_host_ports: false,
            knows_links: false,
            is_quiet: false,
        }
    }

    /// Names the namespaces whose pods may start before all others, in the place of the default. In
    /// any other, a start group below [`DEFAULT_START_GROUP`] counts as that.
    #[must_use]
    pub fn with_early_namespaces(mut self, namespaces: impl IntoIterator<Item = String>) -> Self {
        self.early_namespaces = namespaces.into_iter().collect();
        self
    }

    /// Continues the outages that an earlier supervisor recorded in this boot.
    pub fn go_on_with(&mut self, outages: Outages) {
        self.outages = OutageLog::new(outages);
    }

    /// Restores the state of each pod from links and unpacked files, and from the last report of an
    /// earlier supervisor. `now`: time since boot, here and below.
    pub fn rebuild(&mut self, last: &Status, twins: Vec<FoundTwin>, now: Duration) {
        self.state.locked_out = last
            .locked_out
            .map(|it| (it.kubelet_pid, Duration::from_millis(it.since)));
        // a twin that was linked although the API server answered is not released by an answer
        let is_held = |pod: &PodReport| {
            let reason = pod.reason.as_deref();
            reason.is_some_and(|reason| {
                [REJECTED_AT_RETURN, Blocked::KubeletLockedOut.as_str()].contains(&reason)
            })
        };
        let held: BTreeSet<Key> = last
            .pods
            .iter()
            .filter(|pod| is_held(pod))
            .filter_map(|pod| Key::new(&pod.namespace, &pod.name).ok())
            .collect();
        for FoundTwin {
            key,
            is_linked,
            manifest,
        } in twins
        {
            let found = Known::of_manifest(&manifest);
            let known = self
                .known
                .entry(key.clone())
                .or_insert_with(|| found.clone());
            known.twin_uid = found.twin_uid.or(known.twin_uid.take());
            let phase = if is_linked {
                let under = if held.contains(&key) {
                    Class::Answering
                } else {
                    Class::Silent
                };
                Phase::Active {
                    linked: now,
                    under,
                    nudged: None,
                    refused: 0,
                }
            } else {
                Phase::Released {
                    since: now,
                    stopping: None,
                }
            };
            self.state.pods.insert(
                key,
                Pod {
                    phase,
                    ..Pod::default()
                },
            );
        }
    }

    // --- contact
    // -------------------------------------------------------------------------------------------------

    /// A probe of the API server ended. True if the class of contact has changed, or the way in
    /// which it is silent.
    pub fn heard(&mut self, began: Duration, ended: Duration, outcome: Probed) -> bool {
        let kind =
            |contact: Option<Contact>| contact.map(|contact| (contact.class, contact.by_time_out));
        let before = kind(self.tracker.current());
        self.tracker.observe(began, ended, outcome);
        kind(self.tracker.current()) != before
    }

    /// Contact now; `None`: nothing is known yet.
    pub fn contact(&self) -> Option<Contact> {
        self.tracker.current()
    }

    /// The kubelet's own sockets to the API server; `None`: they could not be listed. True if the
    /// kubelet receives from the API server and did not before.
    pub fn sockets(&mut self, found: Option<&[Socket]>, now: Duration) -> bool {
        self.sockets.look(found, now)
    }

    /// Those of the kubelet's sockets that wait, and may be closed so that it continues.
    pub fn waiting(&self, found: Vec<Socket>, now: Duration) -> Vec<Socket> {
        let failing = self
            .contact()
            .is_some_and(|contact| contact.class == Class::Failing);
        found
            .into_iter()
            .filter(|socket| self.sockets.waits(socket, failing, now))
            .collect()
    }

    /// This many of them were closed. True if they are the first of this outage.
    pub fn closed(&mut self, sockets: usize) -> bool {
        let is_first = self.sockets.count_closed(sockets);
        if is_first {
            self.outages.unstuck();
        }
        is_first
    }

    /// This kernel cannot close sockets: it is not tried again.
    pub fn cannot_close_sockets(&mut self) {
        self.settings.unstick = false;
    }

    /// Releases by contact alone. Must be called whenever contact changed, and before the kubelet
    /// and the runtime are queried, which may take long.
    pub fn release_at_sign(&mut self, now: Duration) -> Vec<Action> {
        let (contact, kubelet_connected) = (self.contact(), self.sockets.connected());
        let facts = Facts {
            now,
            contact,
            kubelet_connected,
            ..Facts::default()
        };
        let (next, actions) = decide::release(&self.state, &facts);
        self.follow(next, actions)
    }

    // --- passes
    // --------------------------------------------------------------------------------------------------

    /// Takes in what a look at the node found, and returns what to do.
    pub fn observed(&mut self, seen: &Observation<'_>, now: Duration) -> Vec<Action> {
        let state = &self.state;
        let is_held = |key: &Key| {
            state
                .pods
                .get(key)
                .is_some_and(|pod| pod.phase != Phase::Inactive)
        };
        known::refresh(&mut self.known, seen.stored, is_held);
        self.exclusive_host_ports = seen.exclusive_host_ports;
        self.knows_links = seen.knows_links;
        let owned = seen.kubelet.owned();
        let pid = owned.map(|owned| owned.pid);
        if pid.is_some() && self.kubelet_pid != pid {
            // what is known about sockets belongs to one process
            self.kubelet_pid = pid;
            self.sockets.reset();
        }
        let mut pods = BTreeMap::new();
        if seen.knows_links {
            for (key, known) in &self.known {
                let exclusive = seen.exclusive_host_ports;
                let mut facts = observe::pod_facts(
                    key,
                    known,
                    &self.node_name,
                    seen.lists,
                    owned,
                    seen.agent,
                    exclusive,
                );
                if !self.early_namespaces.contains(key.namespace()) {
                    facts.start_group = facts.start_group.max(DEFAULT_START_GROUP);
                }
                facts.linked = seen
                    .links
                    .map_or(Seen::Unknown, |links| links.contains(key).into());
                let is_busy = self.busy.contains(key);
                pods.insert(
                    key.clone(),
                    if is_busy {
                        PodFacts {
                            parent: Run::Unknown,
                            ..facts
                        }
                    } else {
                        facts
                    },
                );
            }
        }
        let silence =
            |agent: &AgentReport| now.saturating_sub(Duration::from_millis(agent.heartbeat));
        self.facts = Facts {
            now,
            contact: self.contact(),
            kubelet: match seen.kubelet {
                KubeletAnswer::Owns(_) => Kubelet::Up,
                KubeletAnswer::Down => Kubelet::Down,
                KubeletAnswer::Unknown => Kubelet::Unknown,
            },
            kubelet_pid: pid,
            kubelet_connected: self.sockets.connected(),
            pods,
            agent_silence: seen.agent.map(silence),
            agent_retires: seen.agent.is_some_and(|agent| agent.retire),
            kubelet_synced: owned.map_or(Seen::Unknown, |owned| {
                observe::is_synced(owned, &self.node_name).into()
            }),
            kubelet_makes_containers: self.new_containers.look(seen.lists, owned, &self.node_name),
        };
        let (next, actions) = decide(&self.state, &self.facts, &self.settings);
        self.follow(next, actions)
    }

    fn follow(&mut self, next: State, actions: Vec<Action>) -> Vec<Action> {
        self.before = std::mem::replace(&mut self.state, next);
        if actions.iter().any(Action::links) && self.sockets.connected().is_yes() {
            // bytes received so far are no sign
            self.sockets.reset();
        }
        actions
    }

    /// What an action stops through the runtime, according to what the runtime listed; `None`: it
    /// stops nothing.
    pub fn stop(&self, action: &Action, lists: &Lists) -> Option<Stop> {
        let policy = |key: &Key| self.known.get(key).map(|known| &known.policy);
        let grace = |key: &Key| policy(key).map_or(Duration::from_secs(30), Policy::grace);
        match action {
            Action::StopTwin(key) => {
                // if two mappings of a host port are impossible, the parent's sandbox is about to
                // be created
                let at_once =
                    self.exclusive_host_ports && policy(key).is_some_and(|policy| policy.host_port);
                Some(Stop {
                    targets: stops::twin_targets(lists, key),
                    grace: (!at_once).then(|| grace(key)),
                })
            }
            Action::EndTwin(key) => Some(Stop {
                targets: stops::twin_targets(lists, key),
                grace: Some(Duration::ZERO),
            }),
            Action::StopParent(key) => Some(Stop {
                targets: stops::parent_targets(lists, key),
                grace: Some(grace(key)),
            }),
            _ => None,
        }
    }

    /// Takes in the result of an action.
    pub fn done(&mut self, action: &Action, outcome: Outcome, now: Duration) {
        let (key, result) = match action {
            Action::Activate(key) => (key, ACTIVATED),
            Action::Renew(key) => (key, RENEWED),
            Action::Relink(key) => (key, TAKEN_BACK),
            Action::Release(key) => {
                match outcome {
                    Outcome::Done => self.outages.released(key, now),
                    _ => self.restore(key),
                }
                return;
            }
            Action::StopParent(key) | Action::StopTwin(key) | Action::EndTwin(key) => {
                match (outcome, action) {
                    (Outcome::Started, Action::StopParent(_)) => {
                        self.busy.insert(key.clone());
                    }
                    (Outcome::Started | Outcome::Done, _) => {}
                    _ => self.restore(key),
                }
                return;
            }
            Action::Forget(key) => {
                match outcome {
                    Outcome::Done => {
                        self.known
                            .retain(|known, about| known != key || about.in_store);
                        if let Some(known) = self.known.get_mut(key) {
                            known.twin_uid = None;
                        }
                    }
                    _ => self.restore(key),
                }
                return;
            }
            Action::Nudge(_) | Action::Unstick | Action::Retire => return,
        };
        match outcome {
            Outcome::Linked(uid, known) => {
                self.known.insert(
                    key.clone(),
                    Known {
                        twin_uid: Some(uid),
                        ..*known
                    },
                );
                self.linked(key, result, now);
            }
            Outcome::Done | Outcome::Started => self.linked(key, result, now),
            Outcome::Refused(Refused { reason, message }) => {
                self.outages.refused(reason);
                self.state.blocked(key, self.facts.now, reason, message);
                // what was linked or released before still is
                let before = self.before.pods.get(key).map(|pod| pod.phase.clone());
                if let (Some(pod), Some(before)) = (self.state.pods.get_mut(key), before) {
                    pod.phase = before;
                }
            }
            Outcome::Failed => {
                self.outages.refused(Blocked::WriteFailed);
                self.restore(key);
            }
            Outcome::Canceled => self.restore(key),
        }
    }

    /// An action that continued in the background has ended, with success or not.
    pub fn ended(&mut self, action: &Action) {
        if let Action::StopParent(key) = action {
            self.busy.remove(key);
        }
    }

    /// An action that failed is decided again at the next pass.
    fn restore(&mut self, key: &Key) {
        match self.before.pods.get(key) {
            Some(pod) => drop(self.state.pods.insert(key.clone(), pod.clone())),
            // it was not known yet
            None => drop(self.state.pods.remove(key)),
        }
    }

    fn linked(&mut self, key: &Key, result: &'static str, now: Duration) {
        let parent_uid = self
            .known
            .get(key)
            .map(|known| known.parent_uid.as_str())
            .unwrap_or_default();
        self.outages
            .activated(key, parent_uid, result, &self.facts, now);
    }

    /// A pass is over: all of its actions were performed, or failed.
    pub fn settle(&mut self) {
        self.outages.observe(&self.state, &self.facts);
        if !self.is_alert() {
            self.sockets.reset();
        }
        self.is_quiet = self
            .facts
            .contact
            .is_some_and(|contact| contact.class == Class::Answering)
            && !self.is_alert()
            && self.knows_links;
    }

    // --- twins that do not keep running
    // -------------------------------------------------------------------------------

    /// Checks whether the twins that were given to the kubelet run and keep running. Returns what
    /// to look up about those that do not, with their UIDs and what was known about them before;
    /// the answers go to [`Self::container_ended`] and [`Self::has_no_sandbox`].
    pub fn examine(&mut self, lists: &Lists) -> Vec<(Key, String, LookUp, Option<String>)> {
        let is_active = |pod: &Pod| matches!(pod.phase, Phase::Active { .. });
        self.health
            .retain(|key| self.state.pods.get(key).is_some_and(is_active));
        let mut asked = Vec::new();
        for (key, pod) in &self.state.pods {
            let (Phase::Active { linked, .. }, Some(known)) = (&pod.phase, self.known.get(key))
            else {
                continue;
            };
            let Some(uid) = &known.twin_uid else { continue };
            let fault = health::find_fault(lists, uid, known);
            if matches!(fault, Some(Fault::Sandbox { .. })) && self.facts.kubelet != Kubelet::Up {
                // the kubelet that would create one is down
                continue;
            }
            let before = self.health.of(key).map(|(_, text)| text.to_owned());
            let look_up = self.health.observe(key, *linked, self.facts.now, fault);
            asked.extend(look_up.map(|look_up| (key.clone(), uid.clone(), look_up, before)));
        }
        asked
    }

    /// Takes in what the runtime reported about a container that was looked up.
    pub fn container_ended(&mut self, key: &Key, detail: &Detail) {
        self.health.container_ended(key, detail);
    }

    /// Takes in what the node shows of a twin without a sandbox, in words.
    pub fn has_no_sandbox(&mut self, key: &Key, shown: String) {
        self.health.has_no_sandbox(key, shown);
    }

    /// What is wrong with a twin; `None`: nothing, as far as is known.
    pub fn twin_fault(&self, key: &Key) -> Option<(Blocked, &str)> {
        self.health.of(key)
    }

    // --- what others need of it
    // ----------------------------------------------------------------------------------

    /// How long to wait before the next probe.
    pub fn between_probes(&self) -> Duration {
        self.pace.between_probes(self.contact(), self.is_alert())
    }

    /// How long to wait after a pass before the next one, at most.
    pub fn between_passes(&self) -> Duration {
        if self.is_quiet {
            pace::QUIET
        } else {
            pace::between_passes(&self.state, &self.facts)
        }
    }

    /// Something is active or about to be handed over: the kubelet's sockets must be listed every
    /// [`pace::LOOK`].
    pub fn is_alert(&self) -> bool {
        self.state
            .pods
            .values()
            .any(|pod| pod.phase != Phase::Inactive)
    }

    /// The API server answers and nothing is active: only a change of contact needs a pass.
    pub fn is_quiet(&self) -> bool {
        self.is_quiet
    }

    /// Whether the kubelet receives from the API server.
    pub fn kubelet_connected(&self) -> Seen {
        self.sockets.connected()
    }

    /// What the last pass knew.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The state of each pod.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The checkpoints.
    pub fn known(&self) -> &BTreeMap<Key, Known> {
        &self.known
    }

    /// The record of outages.
    pub fn outages(&mut self) -> &mut OutageLog {
        &mut self.outages
    }

    /// In words, that the kubelet is locked out, if pods of this node depend on it.
    pub fn lock_out(&self) -> Option<String> {
        let is_locked_out = self.state.is_locked_out(self.facts.now)
            && self.known.values().any(|known| known.in_store);
        let reason = Blocked::KubeletLockedOut;
        is_locked_out.then(|| format!("{reason}: {}: {}", decide::LOCKED_OUT, reason.advice()))
    }

    /// The content of `status.yaml`. `problems`: what could not be learned or done;
    /// `cannot_unstick`: why connections of the kubelet cannot be closed.
    pub fn status(&self, problems: Vec<String>, cannot_unstick: Option<String>) -> Status {
        status::status(self, problems, cannot_unstick)
    }
}

#[cfg(test)]
impl Core {
    /// A fault that the model must find: what was known about a checkpoint is lost.
    pub(super) fn lose(&mut self, key: &Key) {
        self.known.remove(key);
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
