//! The decision: (state, facts) → (state, actions). Pure; docs/decision.md is this function as a
//! table.
//!
//! It never waits and never fails. The result of an action comes back as a fact of a later pass, or
//! through [`State::blocked`] if an activation could not be prepared.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::checkpoint::Handover;
use crate::names::{HOLD_SECONDS, LOCKED_OUT_AFTER, REJECTED_AT_RETURN};
use crate::node::contact::{Class, Contact};
use crate::reasons::Blocked;
use crate::supervisor::core::facts::{Facts, Key, Kubelet, PodFacts, Run, Seen};

/// How many probes must fail before the API server counts as silent.
pub const FAILED_PROBES: u32 = 3;
/// How long something that cannot be proven to be the API server must answer before anything is
/// activated: a board without a clock cannot verify certificates until its time is set.
pub const UNPROVEN_DELAY: Duration = Duration::from_mins(1);
/// How long an API server must answer 5xx before anything is activated: a starting one answers 500
/// for a while, and the kubelet may list its pods at any moment. If a twin is linked then, the
/// kubelet rejects the parent (seen on a node: `NodePorts`).
pub const FAILING_DELAY: Duration = Duration::from_secs(10);
/// The shortest silence, or time of 5xx answers, after which a released twin is linked again. Its
/// containers continue without the kubelet, so haste gains little, and a parent that is admitted
/// while its twin is linked again is rejected for good. Under 5xx, a twin of which nothing runs
/// waits only for [`FAILING_DELAY`], like one that was never linked.
pub const TAKE_BACK: Duration = Duration::from_secs(5);
/// See [`TAKE_BACK`].
pub const TAKE_BACK_FAILING: Duration = Duration::from_mins(1);
/// The shortest silence after which anything is linked while the kubelet's own connection still
/// receives answers: an API server that takes seconds for each answer is silent to the probes, yet
/// the kubelet lists its pods (seen on a node: `NodePorts`).
pub const HEARD_DELAY: Duration = Duration::from_mins(1);
/// The same for a parent that the kubelet refused: its owner may have replaced the pod since the
/// agent reported it.
pub const TAKE_BACK_REJECTED: Duration = Duration::from_secs(1);
/// How long a parent that runs only in part is left alone.
pub const PARTIAL: Duration = Duration::from_secs(10);
/// How long a start group may take before the next one starts anyway.
pub const GROUP_LIMIT: Duration = Duration::from_mins(1);
/// How long all start groups together may take before every other one starts anyway.
pub const GROUPS_LIMIT: Duration = Duration::from_mins(3);
/// If a twin has no sandbox after this, the kubelet's waiting connections are closed.
pub const UNSTICK_AFTER: Duration = Duration::from_millis(500);
/// They are closed no later than this after linking.
pub const UNSTICK_LIMIT: Duration = Duration::from_mins(1);
/// If the kubelet does not list a twin after this, its link is replaced, and again after each five
/// times this.
pub const NUDGE_AFTER: Duration = Duration::from_secs(1);
/// If a twin without a sandbox is not listed by the kubelet after this, the kubelet rejected it: it
/// gets a new UID. A twin that the kubelet lists never does, however long it takes: until the kubelet
/// has listed the API server's pods, it holds a new UID back behind the one that waits
/// (pkg/kubelet/pod_workers.go, `startedStaticPodsByFullname`).
pub const RENEW_AFTER: Duration = Duration::from_secs(30);
/// A twin rejected this often is reported.
pub const REFUSED_AFTER: u32 = 2;
/// How long the files of a released twin of which nothing runs are kept: the kubelet may be
/// creating it, and a container created after its files are gone leaves empty directories in their
/// place (seen: released a quarter of a second after its link, and running a second later).
pub const SETTLED: Duration = Duration::from_secs(5);
/// A twin on the host network that was asked to stop this long ago, and still exists when its
/// parent has a container, is stopped without further grace: the parent is about to bind the same
/// ports, and a failure costs ten seconds or more of the kubelet's back-off (seen: etcd, which
/// waits five seconds for its clients).
pub const LEAST_GRACE: Duration = Duration::from_millis(50);
/// A parent that has run this long has taken over, even if it is not reported as Ready.
pub const TAKEN_OVER: Duration = Duration::from_secs(10);
/// The longest pause before a released twin is linked again, and between attempts of a blocked one.
pub const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// The message for a kubelet that received nothing for [`LOCKED_OUT_AFTER`].
pub const LOCKED_OUT: &str =
    "the API server answers this node, but the kubelet has received no pods from it for minutes";
/// Without a sign of the agent for this long, while the API server answers, this program counts as
/// removed from the cluster.
pub const RETIRE_AFTER: Duration = Duration::from_hours(1);
/// How old the agent's request to leave the node may be: more than the interval of quiet passes,
/// and short enough that a request from before an outage does not count after it.
pub const RETIRE_WORD: Duration = Duration::from_mins(2);

/// The owner's settings for the decision.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Silence before anything is activated.
    pub activation_delay: Duration,
    /// Whether the kubelet's waiting sockets may be closed.
    pub unstick: bool,
    /// How long a kubelet must have been locked out before its pods are activated anyway; `None`:
    /// never, because nothing can check whether they still exist.
    pub activate_locked_out: Option<Duration>,
}

/// The state of one checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Only the checkpoint is on the node.
    #[default]
    Inactive,
    /// Its twin is linked.
    Active {
        /// Since when.
        linked: Duration,
        /// Contact when it was linked: the twin is released when contact gets better.
        /// [`Class::Answering`]: an answer does not help, because the kubelet refused the parent
        /// for good or is locked out.
        under: Class,
        /// When its link was last replaced.
        nudged: Option<Duration>,
        /// UIDs that the kubelet did not run.
        refused: u32,
    },
    /// Its link is removed; its twin continues to run.
    Released {
        /// Since when.
        since: Duration,
        /// When its twin was asked to stop.
        stopping: Option<Duration>,
    },
}

/// What is remembered about the pod of one checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its state.
    pub phase: Phase,
    /// Since when the parent runs only in part.
    pub partial_since: Option<Duration>,
    /// Since when the parent runs.
    pub parent_running_since: Option<Duration>,
    /// Its twin was stopped without further grace.
    pub ended: bool,
    /// How often its twin was linked again in this outage.
    pub rounds: u32,
    /// Why it could not be activated, how often, and when it is tried again.
    pub blocked: Option<Block>,
}

/// Why a checkpoint could not be activated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The reason.
    pub reason: Blocked,
    /// The same in words, with what it is about.
    pub message: String,
    /// Attempts so far.
    pub attempts: u32,
    /// Next attempt.
    pub again: Duration,
}

/// What is remembered between passes. All of it can be rebuilt from the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// By pod.
    pub pods: BTreeMap<Key, Pod>,
    /// Since when some start group has been waited for.
    pub groups_since: Option<Duration>,
    /// The start group that the next ones wait for, and since when.
    pub group: Option<(i32, Duration)>,
    /// The highest start group whose time is over; later groups no longer wait for it.
    pub passed: Option<i32>,
    /// Since when the API server answers without interruption.
    pub answering_since: Option<Duration>,
    /// Since when this kubelet process has received nothing although the API server answers probes.
    pub locked_out: Option<(Option<u32>, Duration)>,
}

impl State {
    /// Records that an activation could not be prepared; it is retried after a growing pause.
    pub fn blocked(&mut self, key: &Key, now: Duration, reason: Blocked, message: String) {
        let pod = self.pods.entry(key.clone()).or_default();
        let attempts = pod
            .blocked
            .as_ref()
            .map_or(0, |block| block.attempts)
            .saturating_add(1);
        let again = now.saturating_add(pause(Duration::from_secs(2), attempts.saturating_sub(1)));
        pod.phase = Phase::Inactive;
        pod.blocked = Some(Block {
            reason,
            message,
            attempts,
            again,
        });
    }

    /// How long the kubelet has received nothing although the API server answers probes.
    fn locked_out_for(&self, now: Duration) -> Option<Duration> {
        self.locked_out.map(|(_, since)| now.saturating_sub(since))
    }

    /// The kubelet is locked out: the API server has answered probes for minutes, and this kubelet
    /// process has no pod from it.
    pub fn is_locked_out(&self, now: Duration) -> bool {
        self.locked_out_for(now)
            .is_some_and(|time| time >= LOCKED_OUT_AFTER)
    }

    /// Why there is a twin although the API server answers; `None`: it did not answer when the twin
    /// was linked.
    pub fn held_by(&self, pod: &Pod) -> Option<&'static str> {
        let Phase::Active {
            under: Class::Answering,
            ..
        } = pod.phase
        else {
            return None;
        };
        Some(if self.locked_out.is_some() {
            Blocked::KubeletLockedOut.as_str()
        } else {
            REJECTED_AT_RETURN
        })
    }

    /// Takes in whether the kubelet receives anything while the API server answers probes. Counts
    /// again from zero for another kubelet process.
    fn observe_lock_out(&mut self, facts: &Facts) {
        let Some(contact) = facts.contact else { return };
        match (facts.kubelet, facts.kubelet_synced) {
            _ if contact.class != Class::Answering => self.locked_out = None,
            (Kubelet::Down, _) | (_, Seen::Yes) => self.locked_out = None,
            (Kubelet::Up, Seen::No) => {
                let known = self.locked_out.filter(|(pid, _)| *pid == facts.kubelet_pid);
                self.locked_out = known.or(Some((facts.kubelet_pid, facts.now)));
            }
            (Kubelet::Unknown, _) | (_, Seen::Unknown) => {}
        }
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Stop the rest of the parent through the runtime, with its grace period.
    StopParent(Key),
    /// Verify, unpack and link a twin with a new UID.
    Activate(Key),
    /// Link the twin that is already unpacked, under its UID.
    Relink(Key),
    /// Replace the link, so that the kubelet notices it.
    Nudge(Key),
    /// As [`Action::Activate`], for a twin that the kubelet did not run.
    Renew(Key),
    /// Close the kubelet's own sockets that wait for the API server.
    Unstick,
    /// Remove the link, keep the files.
    Release(Key),
    /// Stop the twin through the runtime with its grace period, then its sandbox.
    StopTwin(Key),
    /// As [`Action::StopTwin`], at once.
    EndTwin(Key),
    /// Delete the unpacked files.
    Forget(Key),
    /// Remove everything of this program from the node, the supervisor last.
    Retire,
}

impl Action {
    /// The pod that it is about.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::StopParent(key)
            | Self::Activate(key)
            | Self::Relink(key)
            | Self::Nudge(key)
            | Self::Renew(key)
            | Self::Release(key)
            | Self::StopTwin(key)
            | Self::EndTwin(key)
            | Self::Forget(key) => Some(key),
            Self::Unstick | Self::Retire => None,
        }
    }

    /// The kubelet is given something to run: from then on, only new bytes are a sign of the API
    /// server.
    pub fn links(&self) -> bool {
        matches!(self, Self::Activate(_) | Self::Relink(_) | Self::Renew(_))
    }
}

/// Decides one pass.
pub fn decide(state: &State, facts: &Facts, settings: &Settings) -> (State, Vec<Action>) {
    let mut next = state.clone();
    let mut actions = Vec::new();
    next.answering_since = match facts.contact {
        Some(contact) if contact.class == Class::Answering => {
            Some(state.answering_since.unwrap_or(facts.now))
        }
        Some(_) => None,
        None => state.answering_since,
    };
    next.observe_lock_out(facts);
    next.pods
        .retain(|key, pod| facts.pods.contains_key(key) || pod.phase != Phase::Inactive);
    for key in facts.pods.keys() {
        next.pods.entry(key.clone()).or_default();
    }
    let look = Look::new(state, &next, facts, settings);
    let open = open_groups(&mut next, &look);
    for (key, pod) in &mut next.pods {
        // a pod that the facts do not name is left as it is
        if let Some(seen) = facts.pods.get(key) {
            observe(pod, seen, facts.now);
            step(key, pod, seen, &look, open, &mut actions);
        }
    }
    // if not all fit, the highest priority goes first
    actions.sort_by_key(|action| match action {
        Action::Activate(key) => std::cmp::Reverse(facts.pods.get(key).map(|seen| seen.priority)),
        _ => std::cmp::Reverse(None),
    });
    if actions.contains(&Action::Unstick) {
        actions.retain(|action| *action != Action::Unstick);
        actions.push(Action::Unstick);
    }
    if is_abandoned(&next, facts) {
        actions.push(Action::Retire);
    }
    (next, actions)
}

/// The part of a decision that needs only contact, so that a hung runtime or kubelet delays no
/// release.
pub fn release(state: &State, facts: &Facts) -> (State, Vec<Action>) {
    let mut next = state.clone();
    let mut actions = Vec::new();
    for (key, pod) in &mut next.pods {
        if let Phase::Active { under, .. } = pod.phase
            && is_first_sign(facts, under)
        {
            release_one(key, pod, facts.now, &mut actions);
        }
    }
    (next, actions)
}

/// What holds for every pod in a pass.
struct Look<'a> {
    facts: &'a Facts,
    settings: &'a Settings,
    /// The kubelet is locked out.
    locked_out: bool,
    /// It has been locked out for so long that the owner wants its pods activated.
    given_up: bool,
    /// The kubelet may receive from the API server again: it is another process, or has pods from
    /// it.
    kubelet_is_back: bool,
}

impl<'a> Look<'a> {
    fn new(before: &State, next: &State, facts: &'a Facts, settings: &'a Settings) -> Self {
        let pid = |state: &State| state.locked_out.and_then(|(pid, _)| pid);
        let is_another = pid(before).is_some() && pid(next).is_some() && pid(before) != pid(next);
        let locked_out = next.is_locked_out(facts.now);
        let limit = settings.activate_locked_out;
        let given_up = limit.is_some_and(|limit| {
            next.locked_out_for(facts.now)
                .is_some_and(|time| time >= limit)
        });
        let kubelet_is_back =
            is_another || facts.kubelet == Kubelet::Down || facts.kubelet_synced.is_yes();
        Self {
            facts,
            settings,
            locked_out,
            given_up: locked_out && given_up,
            kubelet_is_back,
        }
    }

    /// Contact has been lost for long enough, or is of no use to the kubelet: pods that the kubelet
    /// does not own will not be started.
    fn is_lost(&self, delay: Duration) -> bool {
        let heard = self.facts.kubelet_connected.is_yes();
        let delay = if heard { delay.max(HEARD_DELAY) } else { delay };
        self.given_up || is_lost(self.facts.contact, delay, self.facts.now)
    }

    fn answers(&self) -> bool {
        self.facts
            .contact
            .is_some_and(|contact| contact.class == Class::Answering)
    }

    /// The kubelet refused the parent for good, according to an agent that runs.
    fn is_rejected(&self, seen: &PodFacts) -> bool {
        self.answers() && seen.parent_rejected.is_yes() && !self.is_agent_gone()
    }

    fn is_agent_gone(&self) -> bool {
        self.facts
            .agent_silence
            .is_none_or(|silence| silence >= RETIRE_AFTER)
    }

    /// The kubelet is about to run the parent again.
    fn is_back(&self, seen: &PodFacts, under: Class) -> bool {
        if under != Class::Answering {
            return is_first_sign(self.facts, under) || seen.parent_owned.is_yes();
        }
        if !self.answers() || self.is_rejected(seen) {
            return false;
        }
        if seen.parent_gone {
            // its successor may come at any moment, and a kubelet that hangs does not report it
            return true;
        }
        match seen.parent_rejected {
            // the twin of a refused parent; if no agent has run in this boot, no refusal was
            // reported
            Seen::Unknown if !self.is_agent_gone() => seen.parent_owned.is_yes(),
            Seen::Unknown | Seen::Yes | Seen::No => {
                self.kubelet_is_back || seen.parent_owned.is_yes()
            }
        }
    }
}

fn release_one(key: &Key, pod: &mut Pod, now: Duration, actions: &mut Vec<Action>) {
    pod.phase = Phase::Released {
        since: now,
        stopping: None,
    };
    pod.blocked = None;
    actions.push(Action::Release(key.clone()));
}

/// The manifest directory says what is linked, whatever was meant: an action may have failed after a
/// part of it was done.
fn follow_link(
    key: &Key,
    pod: &mut Pod,
    seen: &PodFacts,
    facts: &Facts,
    actions: &mut Vec<Action>,
) {
    match (&pod.phase, seen.linked) {
        // the first answer releases it
        (Phase::Inactive, Seen::Yes) => {
            let under = match facts.contact.map(|contact| contact.class) {
                None | Some(Class::Answering) => Class::Silent,
                Some(class) => class,
            };
            pod.phase = Phase::Active {
                linked: facts.now,
                under,
                nudged: None,
                refused: 0,
            };
        }
        (Phase::Released { .. }, Seen::Yes) => actions.push(Action::Release(key.clone())),
        (Phase::Active { .. }, Seen::No) => {
            pod.phase = match seen.twin {
                Run::Stopped => Phase::Inactive,
                Run::Running | Run::Partial | Run::Unknown => Phase::Released {
                    since: facts.now,
                    stopping: None,
                },
            };
        }
        _ => {}
    }
}

/// Remembers since when the parent runs, or runs in part.
fn observe(pod: &mut Pod, seen: &PodFacts, now: Duration) {
    match seen.parent {
        Run::Partial => pod.partial_since = Some(pod.partial_since.unwrap_or(now)),
        Run::Unknown => {}
        Run::Running | Run::Stopped => pod.partial_since = None,
    }
    match seen.parent {
        Run::Running => pod.parent_running_since = Some(pod.parent_running_since.unwrap_or(now)),
        Run::Unknown => {}
        Run::Partial | Run::Stopped => pod.parent_running_since = None,
    }
}

fn step(
    key: &Key,
    pod: &mut Pod,
    seen: &PodFacts,
    look: &Look<'_>,
    open: i32,
    actions: &mut Vec<Action>,
) {
    let (facts, settings, now) = (look.facts, look.settings, look.facts.now);
    follow_link(key, pod, seen, facts, actions);
    let due = pod.blocked.as_ref().is_none_or(|block| block.again <= now);
    match &mut pod.phase {
        Phase::Inactive => {
            if matches!(seen.twin, Run::Running | Run::Partial) {
                // found running without a link: a restart of the supervisor lost its state, so it
                // is handed over as if released now
                pod.phase = Phase::Released {
                    since: now,
                    stopping: None,
                };
                return;
            }
            let is_rejected = look.is_rejected(seen)
                && facts.kubelet == Kubelet::Up
                && seen.parent == Run::Stopped;
            // the kubelet does not run it, and it is not deleted as far as is known
            let is_orphan = nobody_runs(facts, seen) && !(look.answers() && seen.parent_gone);
            if look.answers() && !look.given_up && !is_rejected {
                pod.rounds = 0;
                pod.blocked =
                    (look.locked_out && seen.in_store && is_orphan).then(|| locked_out(now));
                return;
            }
            let is_nobodys = look.is_lost(settings.activation_delay) && is_orphan;
            if !(is_rejected || is_nobodys) || seen.twin == Run::Unknown {
                return;
            }
            if seen.parent == Run::Partial {
                if pod
                    .partial_since
                    .is_some_and(|since| now.saturating_sub(since) >= PARTIAL)
                {
                    // asked again only after the same time, because the grace period may be long
                    pod.partial_since = Some(now);
                    actions.push(Action::StopParent(key.clone()));
                }
                return;
            }
            if seen.in_store && seen.start_group <= open && due {
                pod.phase = linked(facts, 0);
                actions.push(Action::Activate(key.clone()));
            }
        }
        Phase::Active {
            linked: since,
            under,
            nudged,
            refused,
        } => {
            if look.is_back(seen, *under) {
                release_one(key, pod, now, actions);
                return;
            }
            if let Some(contact) = facts.contact {
                *under = contact.class;
            }
            if seen.twin_sandbox.is_yes() {
                *refused = 0;
                pod.blocked = None;
                return;
            }
            if !seen.twin_sandbox.is_no() || facts.kubelet != Kubelet::Up {
                return;
            }
            let age = now.saturating_sub(*since);
            let refused_again = seen.twin_owned.is_no()
                && age >= pause(RENEW_AFTER, refused.saturating_sub(REFUSED_AFTER));
            let is_due = due
                && facts.contact.is_some()
                && nobody_runs(facts, seen)
                && seen.parent == Run::Stopped
                && seen.twin == Run::Stopped;
            if is_due && refused_again {
                let refused = refused.saturating_add(1);
                if refused >= REFUSED_AFTER {
                    let message =
                        "the kubelet accepted the manifest but created no sandbox".to_owned();
                    pod.blocked = Some(Block {
                        reason: Blocked::KubeletRefuses,
                        message,
                        attempts: refused,
                        again: now,
                    });
                }
                pod.phase = linked(facts, refused);
                actions.push(Action::Renew(key.clone()));
                return;
            }
            let pause = if nudged.is_none() {
                NUDGE_AFTER
            } else {
                NUDGE_AFTER * 5
            };
            if seen.twin_owned.is_no() && now.saturating_sub(nudged.unwrap_or(*since)) >= pause {
                *nudged = Some(now);
                actions.push(Action::Nudge(key.clone()));
            }
            // an API server whose etcd hangs answers only with 500
            let hangs = facts.contact.is_some_and(|contact| match contact.class {
                Class::Silent => contact.by_time_out,
                Class::Failing => true,
                Class::Answering | Class::Unproven => false,
            });
            if settings.unstick && hangs && (UNSTICK_AFTER..UNSTICK_LIMIT).contains(&age) {
                actions.push(Action::Unstick);
            }
        }
        Phase::Released { since, stopping } => {
            let back = look.answers() && !look.given_up;
            let failing = facts
                .contact
                .is_some_and(|contact| contact.class == Class::Failing);
            let shortest = match seen.twin {
                _ if !failing => TAKE_BACK,
                Run::Stopped => FAILING_DELAY,
                Run::Running | Run::Partial | Run::Unknown => TAKE_BACK_FAILING,
            };
            let patience = pause(settings.activation_delay.max(shortest), pod.rounds);
            let is_lost_again = look.is_lost(patience)
                && now.saturating_sub(*since) >= patience
                && nobody_runs(facts, seen);
            // nothing starts a pod that the kubelet refused for good, whether it still lists it or
            // not
            let is_rejected = look.is_rejected(seen)
                && facts.kubelet == Kubelet::Up
                && now.saturating_sub(*since) >= TAKE_BACK_REJECTED;
            if (is_lost_again && seen.twin_owned.is_no() || is_rejected)
                && seen.parent == Run::Stopped
                && seen.twin != Run::Unknown
                && !seen.parent_gone
                && due
            {
                pod.rounds = pod.rounds.saturating_add(u32::from(is_lost_again));
                // a twin that was asked to stop must not be started again under the same UID; but until
                // the kubelet has the API server's pods it holds a new UID back behind the old one
                let is_held_back = facts.kubelet_synced.is_no();
                let again = seen.twin == Run::Stopped && !is_held_back || stopping.is_some();
                pod.phase = linked(facts, 0);
                actions.push(if again {
                    Action::Renew(key.clone())
                } else {
                    Action::Relink(key.clone())
                });
                return;
            }
            if seen.twin == Run::Stopped {
                let is_awaited = seen.parent_rejected.is_yes() && !look.is_agent_gone();
                let is_over = stopping.is_some() || now.saturating_sub(*since) >= SETTLED;
                // A kubelet that has not listed the API server's pods still holds this UID: should contact
                // be lost again, only a twin with the same UID would start.
                let is_let_go = back && !facts.kubelet_synced.is_no();
                if (is_let_go || seen.parent_owned.is_yes() || seen.parent_gone)
                    && is_over
                    && !is_awaited
                    && !facts.is_blind()
                {
                    pod.phase = Phase::Inactive;
                    pod.blocked = None;
                    actions.push(Action::Forget(key.clone()));
                }
                return;
            }
            let again = stopping.is_none_or(|asked| now.saturating_sub(asked) >= GROUP_LIMIT);
            if again && has_taken_over(seen, facts, pod.parent_running_since, *since) {
                *stopping = Some(now);
                pod.ended = false;
                actions.push(Action::StopTwin(key.clone()));
            } else if !pod.ended
                && stopping.is_some_and(|asked| now.saturating_sub(asked) >= LEAST_GRACE)
                && is_in_the_way(seen)
            {
                pod.ended = true;
                actions.push(Action::EndTwin(key.clone()));
            }
        }
    }
}

impl Facts {
    /// Nothing is known about the kubelet.
    fn is_blind(&self) -> bool {
        self.kubelet == Kubelet::Unknown
    }
}

/// Contact has been lost for long enough to act.
fn is_lost(contact: Option<Contact>, delay: Duration, now: Duration) -> bool {
    let Some(contact) = contact else { return false };
    let (since, delay) = match contact.class {
        Class::Answering => return false,
        Class::Silent => (contact.since, delay),
        Class::Failing => (contact.alike, delay.max(FAILING_DELAY)),
        Class::Unproven => (contact.since, delay.max(UNPROVEN_DELAY)),
    };
    contact.failures >= FAILED_PROBES && now.saturating_sub(since) >= delay
}

/// The first sign of the API server: contact is better than when the twin was linked. If the API
/// server answered then, contact alone is no sign.
fn is_first_sign(facts: &Facts, under: Class) -> bool {
    let answered = facts.contact.is_some_and(|contact| match contact.class {
        Class::Answering => under != Class::Answering,
        // if a 5xx is why it was activated, another 5xx says nothing new
        Class::Failing => under != Class::Failing,
        Class::Silent | Class::Unproven => false,
    });
    // unproven servers and servers that answer 5xx also send bytes
    let may_be_proven = facts
        .contact
        .is_some_and(|contact| contact.class != Class::Unproven);
    answered || (facts.kubelet_connected.is_yes() && under == Class::Silent && may_be_proven)
}

/// The kubelet is up and does not own the parent, and the parent does not run.
fn nobody_runs(facts: &Facts, seen: &PodFacts) -> bool {
    facts.kubelet == Kubelet::Up
        && seen.parent_owned.is_no()
        && matches!(seen.parent, Run::Stopped | Run::Partial)
}

/// The parent serves, or is about to serve and needs ports that the twin holds.
fn has_taken_over(
    seen: &PodFacts,
    facts: &Facts,
    running_since: Option<Duration>,
    released: Duration,
) -> bool {
    let now = facts.now;
    if seen.parent_gone {
        return true;
    }
    match seen.handover {
        // Not before the parent's sandbox exists: the twin may be the API server from which the
        // kubelet reads the parent's volumes. And not before its container exists, unless creating
        // that is all that is left to do: the twin may be where the kubelet reads the services
        // from.
        Some(Handover::Switch) if seen.host_network => {
            let is_next = seen.parent_sandbox.is_yes()
                && !seen.slow_start
                && facts.kubelet_makes_containers.is_yes();
            is_next || seen.parent_container.is_yes()
        }
        Some(Handover::Switch) => seen.parent_owned.is_yes(),
        Some(Handover::Overlap) | None => {
            let ran = seen.parent == Run::Running
                && running_since.is_some_and(|since| now.saturating_sub(since) >= TAKEN_OVER);
            let hold = Duration::from_secs(HOLD_SECONDS.unsigned_abs());
            let waited = seen.parent_owned.is_yes() && now.saturating_sub(released) >= hold;
            seen.parent_ready.is_yes() || ran || waited
        }
    }
}

/// The twin holds ports that the parent's process needs now.
fn is_in_the_way(seen: &PodFacts) -> bool {
    seen.handover == Some(Handover::Switch) && seen.host_network && seen.parent_container.is_yes()
}

/// The highest start group that may be activated now: the lowest one with a pod that should run and
/// does not run yet, unless the time of that group is over.
fn open_groups(state: &mut State, look: &Look<'_>) -> i32 {
    let facts = look.facts;
    if !look.is_lost(look.settings.activation_delay) {
        state.groups_since = None;
        state.group = None;
        state.passed = None;
        return i32::MAX;
    }
    let mut groups: Vec<i32> = facts
        .pods
        .iter()
        .filter(|(key, seen)| {
            let pod = state.pods.get(*key);
            let waits = match pod.map(|pod| &pod.phase) {
                Some(Phase::Active { .. }) => seen.twin != Run::Running,
                Some(Phase::Inactive) | None => seen.in_store && nobody_runs(facts, seen),
                Some(Phase::Released { .. }) => false,
            };
            waits && pod.is_none_or(|pod| pod.blocked.is_none())
        })
        .map(|(_, seen)| seen.start_group)
        .collect();
    groups.sort_unstable();
    groups.dedup();
    if groups.is_empty() {
        state.groups_since = None;
        return i32::MAX;
    }
    let since = *state.groups_since.get_or_insert(facts.now);
    if facts.now.saturating_sub(since) >= GROUPS_LIMIT {
        return i32::MAX;
    }
    if let Some((group, since)) = state.group
        && facts.now.saturating_sub(since) >= GROUP_LIMIT
    {
        state.passed = state.passed.max(Some(group));
    }
    let Some(lowest) = groups
        .into_iter()
        .find(|group| state.passed.is_none_or(|passed| *group > passed))
    else {
        return i32::MAX;
    };
    if state.group.is_none_or(|(waited, _)| waited != lowest) {
        state.group = Some((lowest, facts.now));
    }
    lowest
}

/// The cluster no longer wants this program on the node.
fn is_abandoned(state: &State, facts: &Facts) -> bool {
    let quiet = state.pods.values().all(|pod| pod.phase == Phase::Inactive);
    let answering = state
        .answering_since
        .map(|since| facts.now.saturating_sub(since))
        .unwrap_or_default();
    let silence = facts
        .agent_silence
        .map_or(answering, |silence| silence.min(answering));
    let answers = facts
        .contact
        .is_some_and(|contact| contact.class == Class::Answering);
    let told = answers
        && facts.agent_retires
        && facts
            .agent_silence
            .is_some_and(|silence| silence <= RETIRE_WORD);
    quiet
        && facts.kubelet == Kubelet::Up
        && facts.kubelet_synced.is_yes()
        && (told || silence >= RETIRE_AFTER)
}

/// The message for a pod that does not run because its kubelet is locked out.
fn locked_out(now: Duration) -> Block {
    Block {
        reason: Blocked::KubeletLockedOut,
        message: LOCKED_OUT.to_owned(),
        attempts: 0,
        again: now,
    }
}

fn linked(facts: &Facts, refused: u32) -> Phase {
    let under = facts.contact.map_or(Class::Silent, |contact| contact.class);
    Phase::Active {
        linked: facts.now,
        under,
        nudged: None,
        refused,
    }
}

/// `first` doubled this often, and at most [`LONGEST_PAUSE`].
fn pause(first: Duration, doubled: u32) -> Duration {
    first
        .saturating_mul(1_u32.checked_shl(doubled.min(16)).unwrap_or(u32::MAX))
        .min(LONGEST_PAUSE)
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
