//! One schedule: what happens to a node, and what must always hold.

use std::collections::{BTreeMap, VecDeque};
use std::ops::AddAssign;
use std::time::Duration;

use super::kubelet::{Kubelet, Node, Object, Reach, Runtime};
use super::pods::Marked;
use super::random::Random;
use super::supervised::{Disk, Flaw, Supervised, View};
use crate::checkpoint::Handover;
use crate::node::contact::Class;
use crate::places::reports::{AgentReport, Status};
use crate::supervisor::core::decide::Phase;

/// Length of a step in milliseconds, while something happens and while nothing does.
const STEP: u64 = 50;
const STRIDE: u64 = 1_000;
/// How long short steps continue after each event.
const MOVING: u64 = 10_000;
/// A pod that is down runs again within this time after the last fault: five minutes is the longest
/// pause of the decision and of the kubelet's back-off, and some groups wait for others.
const BOUND: u64 = 900_000;
/// Number of events in one schedule, before the node is left alone.
const EVENTS: u64 = 60;
/// How soon the owner of a rejected pod replaces it, if a controller does, and if a person does.
const OWNER: [u64; 2] = [60_000, 3_600_000];
/// How long the agent repeats what it last heard: `FRESH` in agent/event_loop/mod.rs.
const FRESH: u64 = 75_000;

/// A healthy supervisor asks a twin to end within this time: a look may take a second and a half.
const LATE: u64 = 5_000;
/// The supervisor leaves a node within this time after the installation was removed, once nothing
/// prevents it.
const LEAVES: u64 = 4_500_000;

/// How the installation is removed from the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removal {
    /// It is not removed.
    No,
    /// The agent asks the supervisor to leave.
    ByWord,
    /// The agent is gone.
    InSilence,
}

/// Counts of what happened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) reboots: u64,
    pub(super) activations: u64,
    pub(super) handovers: u64,
    pub(super) taken: u64,
    pub(super) rejected: u64,
    /// Refused by the kubelet although no twin conflicted.
    pub(super) refused: u64,
    /// Activated because the kubelet was locked out, as the owner wanted.
    pub(super) locked_out: u64,
    /// Parents of which the rest was stopped.
    pub(super) stopped: u64,
    /// Supervisors that left their node.
    pub(super) left: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.reboots += other.reboots;
        self.activations += other.activations;
        self.handovers += other.handovers;
        self.taken += other.taken;
        self.rejected += other.rejected;
        self.refused += other.refused;
        self.locked_out += other.locked_out;
        self.stopped += other.stopped;
        self.left += other.left;
    }
}

pub(super) struct World {
    seed: u64,
    random: Random,
    pods: Vec<Marked>,
    now: u64,
    /// State of the path to the API server.
    path: Reach,
    path_until: u64,
    objects: BTreeMap<usize, Object>,
    captured: BTreeMap<usize, String>,
    uids: u64,
    kubelet: Option<Kubelet>,
    kubelet_at: Option<u64>,
    kubelet_hangs_until: u64,
    pids: u32,
    runtime: Runtime,
    runtime_hangs_until: u64,
    images_hang_until: u64,
    exclusive: bool,
    flaw: Flaw,
    supervised: Option<Supervised>,
    supervised_at: Option<u64>,
    supervised_since: u64,
    serves_since: u64,
    answers_since: u64,
    /// See [`crate::supervisor::core::decide::Settings`].
    activate_locked_out: Option<Duration>,
    /// When the agent, which runs until the node reboots, last heard from the API server; `None`:
    /// it was not started.
    heard_at: Option<u64>,
    word_at: u64,
    disk: Disk,
    events: u64,
    next_event: u64,
    moving_until: u64,
    fault_at: u64,
    owner_at: u64,
    unserved_since: BTreeMap<usize, u64>,
    /// Since when a twin should have been asked to end.
    due_since: BTreeMap<usize, u64>,
    /// Since when something is linked that is not active.
    linked_since: BTreeMap<usize, u64>,
    removal: Removal,
    trace: VecDeque<String>,
    pub(super) tally: Tally,
}

impl World {
    /// A healthy node: synced, every pod running and captured.
    pub(super) fn new(seed: u64, pods: Vec<Marked>) -> Self {
        let mut random = Random::new(seed);
        let uid = |pod: usize| format!("parent-{pod}");
        let objects: BTreeMap<usize, Object> = (0..pods.len())
            .map(|pod| {
                (
                    pod,
                    Object {
                        uid: uid(pod),
                        ready: false,
                        rejected: false,
                    },
                )
            })
            .collect();
        Self {
            seed,
            exclusive: random.one_in(2),
            activate_locked_out: random
                .one_in(2)
                .then(|| Duration::from_millis(random.between(1_000, 400_000))),
            flaw: Flaw::None,
            random,
            captured: objects
                .iter()
                .map(|(pod, object)| (*pod, object.uid.clone()))
                .collect(),
            objects,
            now: 0,
            path: Reach::Up,
            path_until: u64::MAX,
            uids: 0,
            kubelet: None,
            kubelet_at: Some(0),
            kubelet_hangs_until: 0,
            pids: 0,
            runtime: Runtime::default(),
            runtime_hangs_until: 0,
            images_hang_until: 0,
            supervised: None,
            supervised_at: Some(0),
            supervised_since: 0,
            serves_since: 0,
            answers_since: 0,
            heard_at: None,
            word_at: 0,
            disk: Disk::default(),
            events: 0,
            next_event: 120_000,
            moving_until: 120_000,
            fault_at: 0,
            owner_at: 0,
            unserved_since: BTreeMap::new(),
            due_since: BTreeMap::new(),
            linked_since: BTreeMap::new(),
            removal: Removal::No,
            trace: VecDeque::new(),
            tally: Tally::default(),
            pods,
        }
    }

    /// The same with a planted fault.
    pub(super) fn with(self, flaw: Flaw) -> Self {
        let activate_locked_out = self
            .activate_locked_out
            .filter(|_| flaw != Flaw::BlindToWill);
        Self {
            flaw,
            activate_locked_out,
            ..self
        }
    }

    /// Runs the whole schedule and returns its number of steps.
    pub(super) fn run(&mut self) -> u64 {
        let mut steps = 0;
        let end = loop {
            if self.events >= EVENTS {
                break self.now.max(self.path_until.min(self.now + 600_000)) + 2 * BOUND;
            }
            self.step();
            steps += 1;
        };
        self.say("left alone");
        self.path_until = self.path_until.min(self.now);
        // in the end the owner acts
        self.owner_at = self.owner_at.min(self.now + OWNER[0]);
        while self.now < end {
            self.step();
            steps += 1;
        }
        self.check_order();
        steps + self.leave()
    }

    /// The installation is removed from a healthy node: the supervisor leaves it.
    fn leave(&mut self) -> u64 {
        let mut steps = 0;
        let ways = [Removal::ByWord, Removal::InSilence];
        self.removal = ways[usize::from(self.random.one_in(4))];
        self.say(&format!("the installation is removed {:?}", self.removal));
        let end = self.now + LEAVES;
        while !self.disk.is_left {
            if self.now > end {
                self.fail("the supervisor does not leave");
            }
            self.step();
            steps += 1;
        }
        self.tally.left += 1;
        steps
    }

    /// A healthy node reboots in this outage; when it is over, its pods are handed back. Returns
    /// what was logged since the reboot, each with its time.
    pub(super) fn one_outage(mut self, outage: Reach) -> Vec<(u64, String)> {
        self.events = EVENTS;
        self.go_on(self.next_event);
        self.trace.clear();
        self.set_path(outage);
        self.reboot();
        let lasts = self.random.between(10_000, 30_000);
        self.go_on(lasts);
        self.set_path(Reach::Starting);
        let starting = self.random.between(200, 5_000);
        self.go_on(starting);
        self.set_path(Reach::Up);
        self.go_on(60_000);
        let said = |line: &String| {
            let (at, text) = line.trim_start().split_once(' ')?;
            Some((at.replace('.', "").parse().ok()?, text.to_owned()))
        };
        self.trace.iter().filter_map(said).collect()
    }

    /// Runs for this long, in short steps.
    fn go_on(&mut self, time: u64) {
        let end = self.now + time;
        self.moving_until = self.moving_until.max(end);
        while self.now < end {
            self.step();
        }
    }

    fn step(&mut self) {
        self.now += if self.now < self.moving_until {
            STEP
        } else {
            STRIDE
        };
        if self.now >= self.next_event && self.events < EVENTS {
            self.event();
        }
        if self.now >= self.path_until {
            self.path_until = u64::MAX;
            self.set_path(Reach::Up);
        }
        if self.kubelet_at.is_some_and(|at| at <= self.now) {
            self.kubelet_at = None;
            self.pids += 1;
            self.kubelet = Some(Kubelet::new(self.pids, self.now));
            self.say(&format!("kubelet {} starts", self.pids));
        }
        self.runtime.tick(self.now);
        let mut said = Vec::new();
        let reach = self.reach();
        if !reach.serves() {
            self.serves_since = self.now;
        }
        if !reach.answers() {
            self.answers_since = self.now;
        }
        self.tick_kubelet(reach, &mut said);
        self.tick_agent(reach);
        self.tick_supervisor(reach, &mut said);
        for line in said {
            if line.starts_with("VIOLATED") {
                self.fail(&line);
            }
            if line.starts_with("REJECTED") {
                if self.was_watched()
                    && !self.holds_for_locked_out(&line)
                    && !self.could_not_release(&line)
                {
                    self.fail(&line);
                }
                self.tally.rejected += 1;
            }
            self.tally.refused += u64::from(line.starts_with("refused"));
            self.tally.locked_out +=
                u64::from(line.starts_with("Activate") && reach == Reach::LockedOut);
            self.tally.activations += u64::from(line.starts_with("Activate"));
            self.tally.handovers += u64::from(line.starts_with("Forget"));
            self.tally.stopped += u64::from(line.starts_with("StopParent"));
            self.tally.taken += u64::from(line.contains("its port is taken"));
            self.say(&line);
        }
        self.own(reach);
        self.check_serving(reach);
        self.check_handover();
        self.check_links();
    }

    /// The owner replaces what the kubelet refused for good: deletes it, and later creates another
    /// of the same name.
    fn own(&mut self, reach: Reach) {
        if reach != Reach::Up || self.now < self.owner_at {
            return;
        }
        if let Some(pod) = (0..self.pods.len()).find(|pod| !self.objects.contains_key(pod)) {
            self.recreate(pod);
        } else if let Some(pod) = self.rejected() {
            self.say(&format!("{} is deleted", self.pods[pod].key));
            self.objects.remove(&pod);
            self.owner_at = self.now + self.random.between(3_000, 30_000);
        }
    }

    fn rejected(&self) -> Option<usize> {
        // if the API server itself is refused, no owner can learn of it
        let lost =
            |(pod, object): &(&usize, &Object)| object.rejected && !self.pods[**pod].is_api_server;
        self.objects.iter().find(lost).map(|(pod, _)| *pod)
    }

    /// What a client finds at the API server's address; on a self-hosted node, that depends on one
    /// of its own pods.
    fn reach(&self) -> Reach {
        let Some(pod) = self.pods.iter().position(|pod| pod.is_api_server) else {
            return self.path;
        };
        if self.path == Reach::BlackHole {
            // its own address belongs to another interface, which is down
            return self.path;
        }
        match self.runtime.served_for(pod, self.now) {
            None | Some(0..1_000) => Reach::Refused,
            Some(1_000..2_000) => Reach::Starting,
            Some(_) if self.path == Reach::LockedOut => self.path,
            Some(_) => Reach::Up,
        }
    }

    fn tick_kubelet(&mut self, reach: Reach, said: &mut Vec<String>) {
        let Some(kubelet) = &mut self.kubelet else {
            return;
        };
        if self.now < self.kubelet_hangs_until {
            return;
        }
        // a link whose file was in memory before the reboot is dangling
        let mut links = self.disk.links.clone();
        links.retain(|pod, _| self.disk.active.contains_key(pod));
        let mut node = Node {
            now: self.now,
            reach,
            pods: &self.pods,
            links: &links,
            objects: &mut self.objects,
            runtime: &mut self.runtime,
            random: &mut self.random,
            said,
        };
        // changes before the kubelet watches its directory are found by its poll, or when the link
        // is replaced
        for pod in std::mem::take(&mut self.disk.changed) {
            if self.now > kubelet.started + 1_000 || node.random.one_in(2) {
                kubelet.notice(pod, &mut node);
            }
        }
        kubelet.tick(&mut node);
    }

    /// The agent is started by a kubelet that has its pods, and continues without it; it sees each
    /// object and captures pods that are Ready.
    fn tick_agent(&mut self, reach: Reach) {
        if self
            .kubelet
            .as_ref()
            .is_some_and(|kubelet| kubelet.synced && kubelet.is_connected())
        {
            self.heard_at.get_or_insert(self.now);
        }
        if self.removal == Removal::InSilence {
            return;
        }
        let Some(heard_at) = &mut self.heard_at else {
            return;
        };
        if let Some(report) = &mut self.disk.agent {
            report.heartbeat = self.now;
        }
        if !reach.answers() {
            if let Some(report) = &mut self.disk.agent {
                report.unheard |= self.now > *heard_at + FRESH;
            }
            return;
        }
        *heard_at = self.now;
        if self.now < self.word_at {
            return;
        }
        // seen: four seconds from a parent running to its twin's end, mostly because of the
        // readiness probe
        let longest = if self.random.one_in(4) { 6_000 } else { 1_000 };
        self.word_at = self.now + self.random.between(100, longest);
        let retire = self.removal == Removal::ByWord;
        let mut report = AgentReport {
            heartbeat: self.now,
            retire,
            ..AgentReport::default()
        };
        for (pod, uid) in self
            .captured
            .iter()
            .filter(|(pod, _)| !self.objects.contains_key(pod))
        {
            report.gone.insert(self.pods[*pod].key.clone(), uid.clone());
        }
        for (pod, object) in &self.objects {
            let key = &self.pods[*pod].key;
            if object.ready
                && let Some(id) = self.runtime.container_id(*pod, &object.uid)
            {
                report.ready.insert(key.clone(), vec![id]);
                self.captured.insert(*pod, object.uid.clone());
            }
            if self.captured.get(pod).is_some_and(|uid| *uid != object.uid) {
                report.gone.insert(key.clone(), self.captured[pod].clone());
            } else if object.rejected {
                report.rejected.insert(key.clone(), object.uid.clone());
            }
        }
        self.disk.agent = Some(report);
    }

    fn tick_supervisor(&mut self, reach: Reach, said: &mut Vec<String>) {
        let mut view = View {
            now: self.now,
            reach,
            answers_for: Duration::from_millis(self.now - self.answers_since),
            activate_locked_out: self.activate_locked_out,
            pods: &self.pods,
            captured: &self.captured,
            kubelet: self.kubelet.as_mut(),
            kubelet_hangs: self.now < self.kubelet_hangs_until,
            runtime: &mut self.runtime,
            runtime_hangs: self.now < self.runtime_hangs_until,
            images_hang: self.now < self.images_hang_until,
            exclusive: self.exclusive,
            is_removed: self.removal != Removal::No,
            flaw: self.flaw,
            disk: &mut self.disk,
            random: &mut self.random,
            said,
        };
        if self.supervised_at.is_some_and(|at| at <= self.now) {
            self.supervised_at = None;
            self.supervised = Some(Supervised::new(&mut view));
            self.supervised_since = self.now;
        }
        if let Some(supervised) = &mut self.supervised {
            supervised.tick(&mut view);
        }
        if self.disk.is_left {
            // the kubelet ends it, because its manifest is gone
            (self.supervised, self.supervised_at) = (None, None);
        }
    }

    /// Has the supervisor been running since the API server began to answer?
    fn was_watched(&self) -> bool {
        self.supervised.is_some() && self.supervised_since < self.serves_since
    }

    /// This pod has a twin because the kubelet is locked out: nothing announces when it is accepted
    /// again.
    fn holds_for_locked_out(&self, line: &str) -> bool {
        let pods = self
            .supervised
            .iter()
            .flat_map(|it| &it.core().state().pods);
        pods.into_iter().any(|(key, pod)| {
            line.contains(&key.to_string())
                && matches!(
                    pod.phase,
                    Phase::Active {
                        under: Class::Answering,
                        ..
                    }
                )
        })
    }

    /// The link of this pod's twin could not be removed a moment ago.
    fn could_not_release(&self, line: &str) -> bool {
        let recent = |(pod, at): (&usize, &u64)| {
            line.contains(&self.pods[*pod].key.to_string()) && self.now < at + 2_000
        };
        self.disk.unreleased.iter().any(recent)
    }

    // --- what happens
    // ---------------------------------------------------------------------------------------------

    fn event(&mut self) {
        self.events += 1;
        let gap = match self.random.between(0, 4) {
            0 => self.random.between(50, 2_000),
            1 => self.random.between(2_000, 30_000),
            2 => self.random.between(30_000, 200_000),
            _ => self.random.between(200_000, 1_500_000),
        };
        // more than an hour of calm: long enough to mistake a running agent for one that is gone
        let calm = if self.random.one_in(60) {
            self.random.between(3_700_000, 5_000_000)
        } else {
            0
        };
        self.next_event = self.now + gap + calm;
        self.fault_at = self.now;
        match self.random.between(0, 16) {
            0..4 => self.outage(),
            4..7 => {
                if self.random.one_in(3) {
                    self.set_path(Reach::Up);
                } else {
                    self.outage();
                }
                self.reboot();
            }
            7 | 8 => self.kill_kubelet(),
            9 => {
                self.kubelet_hangs_until = self.now + self.random.between(200, 30_000);
                self.say("kubelet hangs");
                self.mend_before(self.kubelet_hangs_until);
            }
            10 => {
                let time = self.random.between(200, 30_000);
                self.runtime_hangs_until = self.now + time;
                // some runtimes list containers again long before images
                let longer = if time.is_multiple_of(2) { 4 } else { 1 };
                self.images_hang_until = self.now + longer * time;
                self.say("runtime hangs");
                self.mend_before(self.runtime_hangs_until);
            }
            11 | 12 => {
                self.supervised = None;
                self.supervised_at = Some(self.now + self.random.between(100, 40_000));
                self.say("supervisor is killed");
            }
            13 => {
                let pod = self.any_pod();
                self.runtime.crash(pod);
                self.say(&format!("{} crashes", self.pods[pod].key));
            }
            14 => self.replace(),
            _ => {
                self.path_until = self.now;
                self.say("the path is mended");
            }
        }
        self.moving_until = self.now + MOVING;
    }

    /// If the API server is away, it may come back before then.
    fn mend_before(&mut self, end: u64) {
        if self.path != Reach::Up && self.random.one_in(2) {
            self.path_until = self.random.between(self.now, end);
        }
    }

    fn any_pod(&mut self) -> usize {
        let count = u64::try_from(self.pods.len()).unwrap();
        usize::try_from(self.random.between(0, count)).unwrap()
    }

    fn outage(&mut self) {
        let kinds = [
            Reach::Refused,
            Reach::BlackHole,
            Reach::Broken,
            Reach::Foreign,
            Reach::Starting,
            Reach::Slow,
            Reach::LockedOut,
        ];
        let kind = kinds[usize::try_from(self.random.between(0, 7)).unwrap()];
        self.set_path(kind);
        let longest = if self.random.one_in(2) {
            20_000
        } else {
            1_000_000
        };
        self.path_until = self.now + self.random.between(200, longest);
        // a server that starts is up soon
        if kind == Reach::Starting {
            self.path_until = self.now + self.random.between(200, 5_000);
        }
        // and a new certificate takes a person's time
        if kind == Reach::LockedOut {
            self.path_until = self.now + self.random.between(200, 3_000_000);
        }
    }

    fn set_path(&mut self, path: Reach) {
        if self.path != path {
            self.say(&format!("the API server: {path:?}"));
            self.path = path;
            self.fault_at = self.now;
        }
    }

    fn reboot(&mut self) {
        self.tally.reboots += 1;
        self.say("the node reboots");
        self.runtime.power_off();
        if self.random.one_in(2) {
            // CRI-O keeps no records
            self.runtime.sandboxes.clear();
        }
        self.disk.active.clear();
        (self.disk.agent, self.disk.status, self.heard_at) = (None, Status::default(), None);
        self.kubelet = None;
        self.supervised = None;
        (self.kubelet_hangs_until, self.runtime_hangs_until) = (0, 0);
        self.images_hang_until = 0;
        let up = self.now + 2_000;
        self.kubelet_at = Some(up);
        self.supervised_at = Some(up + self.random.between(500, 3_000));
    }

    fn kill_kubelet(&mut self) {
        self.say("kubelet is killed");
        if self.random.one_in(2) {
            // the lack of memory that killed it killed a container too; and the node may be cut off
            let pod = self.any_pod();
            self.runtime.crash(pod);
            if self.random.one_in(2) {
                self.outage();
            }
        }
        self.kubelet = None;
        self.kubelet_hangs_until = 0;
        self.kubelet_at = Some(self.now + self.random.between(300, 30_000));
    }

    /// The pod is deleted, and its controller creates another of the same name.
    fn replace(&mut self) {
        let pod = self.any_pod();
        // nothing can start the successor of a deleted API server: not this program's task
        if self.reach() == Reach::Up && !self.pods[pod].is_api_server {
            self.recreate(pod);
        }
    }

    fn recreate(&mut self, pod: usize) {
        // in the end the owner replaces all of them
        let takes_long = self.random.one_in(4) && self.events < EVENTS;
        self.owner_at = self.now + OWNER[usize::from(takes_long)];
        self.uids += 1;
        let uid = format!("successor-{}", self.uids);
        self.say(&format!("{} is replaced by {uid}", self.pods[pod].key));
        self.objects.insert(
            pod,
            Object {
                uid,
                ready: false,
                rejected: false,
            },
        );
    }

    // --- what must hold
    // -------------------------------------------------------------------------------------------

    /// A pod that is down runs again in time, whatever contact is like. Except one that the kubelet
    /// accepted and could not start before contact was lost again: the kubelet may refuse a twin
    /// next to its parent, and evict other pods for it because a static pod is critical.
    fn check_serving(&mut self, reach: Reach) {
        for pod in 0..self.pods.len() {
            let owned = self
                .kubelet
                .as_ref()
                .is_some_and(|kubelet| kubelet.owns_parent(pod));
            // likewise a self-hosted API server whose twin dies by itself before the parent's
            // volumes are mounted
            let is_ours = self.pods[pod].is_api_server && self.runtime.has_sandbox(pod);
            let waits = owned && !reach.serves() && !is_ours;
            // a deleted pod, and a successor that was refused before it ever ran, have no
            // checkpoint; and while the API server answers, the predecessor's does not count
            let captured = |object: &Object| self.captured.get(&pod) == Some(&object.uid);
            let is_without = |object: &Object| object.rejected || reach == Reach::LockedOut;
            let is_lost = self
                .objects
                .get(&pod)
                .is_none_or(|object| is_without(object) && !captured(object));
            // with a kubelet that is locked out nothing can check whether the pod still exists: the
            // owner decides
            let limit = if reach == Reach::LockedOut {
                self.activate_locked_out
            } else {
                Some(Duration::ZERO)
            };
            let may_wait = limit.is_none() && !owned;
            if waits || may_wait || is_lost || self.runtime.served_for(pod, self.now).is_some() {
                self.unserved_since.remove(&pod);
                continue;
            }
            let since = *self.unserved_since.entry(pod).or_insert(self.now);
            let waited = self.now.saturating_sub(since.max(self.fault_at));
            let limit = u64::try_from(limit.unwrap_or_default().as_millis()).unwrap();
            if waited > BOUND + limit {
                self.fail(&format!(
                    "{}: it is down for {waited} ms",
                    self.pods[pod].key
                ));
            }
        }
    }

    /// A twin whose parent has taken over, or needs what it holds, is asked to end at once.
    fn check_handover(&mut self) {
        let is_well = self.kubelet.is_some()
            && self.now >= self.kubelet_hangs_until.max(self.runtime_hangs_until) + LATE
            && self.supervised.is_some();
        for pod in 0..self.pods.len() {
            let marked = &self.pods[pod];
            let phase = self
                .supervised
                .as_ref()
                .and_then(|it| it.core().state().pods.get(&marked.key));
            let is_held = phase
                .is_some_and(|pod| matches!(pod.phase, Phase::Released { stopping: None, .. }));
            let has_taken_over = match marked.policy.handover(self.exclusive) {
                Handover::Switch => marked.policy.host_network && self.runtime.has_container(pod),
                Handover::Overlap => {
                    let running = self
                        .objects
                        .get(&pod)
                        .and_then(|it| self.runtime.container_id(pod, &it.uid));
                    let ready = self
                        .disk
                        .agent
                        .as_ref()
                        .and_then(|report| report.ready.get(&marked.key));
                    running.is_some_and(|id| ready == Some(&vec![id]))
                }
            };
            if !(is_well && is_held && has_taken_over && self.runtime.twin_stays(pod)) {
                self.due_since.remove(&pod);
                continue;
            }
            let since = *self.due_since.entry(pod).or_insert(self.now);
            if self.now > since + LATE {
                self.fail(&format!(
                    "{}: its twin is not asked to end",
                    self.pods[pod].key
                ));
            }
        }
    }

    /// The linked twins are those that the supervisor considers active.
    fn check_links(&mut self) {
        for pod in 0..self.pods.len() {
            let phase = self
                .supervised
                .as_ref()
                .and_then(|it| it.core().state().pods.get(&self.pods[pod].key));
            let is_active = phase.is_none_or(|pod| matches!(pod.phase, Phase::Active { .. }));
            if is_active || !self.disk.links.contains_key(&pod) {
                self.linked_since.remove(&pod);
                continue;
            }
            let since = *self.linked_since.entry(pod).or_insert(self.now);
            if self.now > since + LATE {
                self.fail(&format!(
                    "{}: is linked although it is not active",
                    self.pods[pod].key
                ));
            }
        }
    }

    /// The API server has answered for long: parents serve, and no twin is left.
    fn check_order(&mut self) {
        for pod in 0..self.pods.len() {
            if !self.runtime.runs(pod, false) {
                self.fail(&format!(
                    "{}: its parent does not run in the end",
                    self.pods[pod].key
                ));
            }
            if self.runtime.runs(pod, true) {
                self.fail(&format!("{}: its twin runs in the end", self.pods[pod].key));
            }
        }
        let states: Vec<_> = self
            .supervised
            .iter()
            .flat_map(|it| it.core().state().pods.values())
            .collect();
        if states.is_empty() || states.iter().any(|pod| pod.phase != Phase::Inactive) {
            self.fail(&format!("not at rest in the end: {states:?}"));
        }
        if !self.disk.links.is_empty() || !self.disk.active.is_empty() {
            self.fail(&format!(
                "left in the end: {:?} {:?}",
                self.disk.links, self.disk.active
            ));
        }
    }

    fn say(&mut self, line: &str) {
        self.moving_until = self.moving_until.max(self.now + MOVING);
        if self.trace.len() >= 120 {
            self.trace.pop_front();
        }
        self.trace.push_back(format!(
            "{:>9}.{:03} {line}",
            self.now / 1000,
            self.now % 1000
        ));
    }

    fn fail(&self, what: &str) {
        let trace: Vec<&str> = self.trace.iter().map(String::as_str).collect();
        panic!(
            "seed {}, {} ms: {what}\n{}",
            self.seed,
            self.now,
            trace.join("\n")
        );
    }
}
