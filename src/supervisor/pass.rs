//! One pass after the other: ask the node, decide, do, tell.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::args::SupervisorArguments;
use crate::checkpoint::Handover;
use crate::checkpoint::format::Parent;
use crate::files::write;
use crate::names::{ACTIVATED, REJECTED_AT_RETURN, RENEWED, TAKEN_BACK};
use crate::node::contact::Class;
use crate::node::host::HostRoot;
use crate::node::kubelet::{self, Kubelet, Server};
use crate::node::runtime::{self, Runtime};
use crate::node::{clock, sockets};
use crate::places::drill::Place;
use crate::places::node_record::NodeRecord;
use crate::places::reports::{AGENT, AgentWord, PodReport, STATUS, Status};
use crate::places::run::RunDir;
use crate::places::store::Store;
use crate::pod::id::PodId;
use crate::pod::room::{Demand, Room};
use crate::reasons::{Blocked, Risk};
use crate::supervisor::act::{self, Hands, Preconditions, Refused};
use crate::supervisor::asking::{Asking, Pace};
use crate::supervisor::board::Board;
use crate::supervisor::decide::{self, Action, Phase, State, decide};
use crate::supervisor::facts::{self, Facts, Key, Run, Seen};
use crate::supervisor::health::{self, Ask, Fallen, Health};
use crate::supervisor::observe::{self, Index, Known, Lists, Made};
use crate::supervisor::waiting::Waiting;
use crate::supervisor::{Error, record};
use crate::text::chain;

/// Limit of one call to the runtime or the kubelet: a hung one counts as unknown.
const CALL_LIMIT: Duration = Duration::from_secs(2);
/// How often the kubelet's sockets are looked at while something is active or about to be handed over.
const LOOK: Duration = Duration::from_millis(50);
/// Between passes while a twin waits for its sandbox, or a parent is about to take over.
const BUSY: Duration = Duration::from_millis(100);
/// Between passes while a twin must go the moment its parent has a container.
const SWITCH: Duration = Duration::from_millis(20);
/// Between passes, and between probes, while something is active or contact is lost.
const ALERT: Duration = Duration::from_millis(250);
/// Between looks at the whole node while all is quiet.
const QUIET: Duration = Duration::from_mins(1);
/// Between looks for what a crash left.
const SWEEP: Duration = Duration::from_hours(1);

/// What a job in the background ended with.
struct Done {
    key: Key,
    what: &'static str,
    result: Result<(), runtime::Error>,
}

/// How the kubelet and the runtime are reached; found out when first needed, and again when the kubelet is another process.
struct Ways {
    pid: u32,
    settings: kubelet::Settings,
}

/// The state of a supervisor.
pub(super) struct Supervisor {
    arguments: SupervisorArguments,
    settings: decide::Settings,
    node_name: String,
    root: HostRoot,
    boot_id: String,
    run_dir: RunDir,
    store: Store,
    board: Rc<Board>,

    kubelet: Kubelet,
    ways: Option<Ways>,
    runtime: Option<Runtime>,
    exclusive_host_ports: Option<bool>,
    hands: Option<Hands>,

    asking: Asking,
    /// When the record of the API servers was last changed.
    recorded: Option<SystemTime>,
    waiting: Waiting,

    index: Index,
    made: Made,
    /// What the runtime listed in the last pass.
    listed: Option<Lists>,
    /// Twins whose containers do not stay up.
    health: Health,
    /// What the agent said, as of the last pass.
    agent: Option<AgentWord>,
    /// What the agent recorded of the node.
    node: Option<NodeRecord>,
    /// What is left for twins on the node, once somebody asked in this pass.
    room: Option<Room>,
    /// What was found out of images in this pass.
    images: act::Images,
    state: State,
    twins: BTreeMap<Key, String>,
    activations: u64,

    jobs: JoinSet<Done>,
    busy: BTreeSet<Key>,
    recorder: record::Recorder,
    /// What cannot be learned or done, by what it is about: said once when it begins and once when it ends.
    problems: BTreeMap<&'static str, String>,
    /// Why connections cannot be closed, though they should be.
    cannot_unstick: Option<String>,
    memory: bool,
    next_sweep: Instant,
    /// What the last sweep saw and left, because somebody may have been writing it.
    swept: Option<Vec<PathBuf>>,
    /// The API server answers and nothing is active: passes are rare.
    quiet: bool,
}

impl Supervisor {
    pub(super) fn new(
        arguments: SupervisorArguments,
        node_name: String,
        root: HostRoot,
        boot_id: String,
        store: Store,
        run_dir: RunDir,
        board: Rc<Board>,
    ) -> Result<Self, Error> {
        let decision = &arguments.decision;
        let settings = decide::Settings {
            activation_delay: decision.activation_delay,
            unstick: decision.unstick_kubelet,
            activate_locked_out: decision.activate_locked_out,
        };
        let mut servers = Vec::new();
        if !decision.apiservers.is_empty() {
            let path = decision.apiserver_ca.clone().unwrap_or_else(|| PathBuf::from("/etc/kubernetes/pki/ca.crt"));
            let real = root.resolve(&path).map_err(|error| Error::Path(path.clone(), error))?;
            let ca = fs::read_to_string(real).map_err(|error| Error::Ca(path, error))?;
            let server = |url: &String| Server { url: url.clone(), ca: ca.clone(), tls_name: None, proxy: None };
            servers.extend(decision.apiservers.iter().map(server));
        }
        let pace =
            Pace { interval: decision.probe_interval, limit: decision.probe_timeout, delay: decision.activation_delay };
        let asking = Asking::new(root.clone(), pace);
        let cannot_unstick = decision.unstick_kubelet.then(|| cannot_unstick(&root)).flatten();
        let kubelet = Kubelet::new(kubelet_socket(&root, &arguments.node.host.kubelet_dir), CALL_LIMIT);
        let mut this = Self {
            settings,
            node_name,
            root,
            boot_id,
            run_dir,
            store,
            board,
            kubelet,
            ways: None,
            runtime: None,
            exclusive_host_ports: None,
            hands: None,
            asking,
            recorded: None,
            waiting: Waiting::default(),
            index: Index::default(),
            made: Made::default(),
            listed: None,
            health: Health::default(),
            agent: None,
            node: None,
            room: None,
            images: act::Images::default(),
            state: State::default(),
            twins: BTreeMap::new(),
            activations: 0,
            jobs: JoinSet::new(),
            busy: BTreeSet::new(),
            recorder: record::Recorder::default(),
            problems: BTreeMap::new(),
            cannot_unstick,
            memory: false,
            next_sweep: Instant::now(),
            swept: None,
            quiet: false,
            arguments,
        };
        if !servers.is_empty() {
            this.ask_servers(servers);
        }
        Ok(this)
    }

    pub(super) async fn run(mut self, mut stop: impl Future<Output = ()> + Unpin) -> Result<(), Error> {
        self.open_run_dir();
        self.recorder = record::Recorder::open(&self.run_dir);
        self.find_servers().await;

        let mut next_probe = Instant::now();
        let mut next_pass = Instant::now();
        let mut next_look = Instant::now();
        loop {
            let look = self.is_alert();
            self.board.pulse.expect(next_pass.min(next_probe));
            tokio::select! {
                biased;
                () = &mut stop => return Ok(()),
                changed = self.asking.end() => {
                    next_probe = next_probe.min(Instant::now() + self.asking.pause(self.is_alert()));
                    if changed || !self.quiet {
                        next_pass = Instant::now();
                    }
                }
                Some(done) = self.jobs.join_next() => {
                    if let Ok(done) = done {
                        self.finish(done);
                    }
                    next_pass = Instant::now();
                }
                () = sleep_until(next_look), if look => {
                    next_look = Instant::now() + LOOK;
                    if self.look_at_sockets() {
                        next_pass = Instant::now();
                    }
                }
                () = sleep_until(next_probe) => {
                    self.asking.begin();
                    next_probe = Instant::now() + self.asking.pause(self.is_alert());
                }
                () = sleep_until(next_pass) => {}
            }
            if next_pass <= Instant::now() {
                let wait = self.pass().await;
                next_pass = Instant::now() + wait;
                next_probe = next_probe.min(Instant::now() + self.asking.pause(self.is_alert()));
            }
        }
    }

    /// Asks, decides, does and tells; says how long until the next pass at the latest.
    async fn pass(&mut self) -> Duration {
        self.find_servers().await;
        if !self.memory {
            self.open_run_dir();
        }
        self.release().await;
        self.sweep();
        let facts = self.facts().await;
        self.tidy_drill();
        self.follow(decide(&self.state, &facts, &self.settings), &facts).await;
        let locked_out = self.state.is_locked_out(facts.now) && self.index.known.values().any(|known| known.in_store);
        let reason = Blocked::KubeletLockedOut;
        let text = || format!("{reason}: {}: {}", decide::LOCKED_OUT, reason.advice());
        self.problem("kubelet's contact", locked_out.then(text));
        let contact = facts.contact;
        self.quiet = contact.is_some_and(|contact| contact.class == Class::Answering)
            && !self.is_alert()
            && self.hands.is_some();
        self.recorder.observe(&self.state, &facts);
        self.look_at_twins(&facts).await;
        let problems: Vec<String> = self.problems.values().cloned().collect();
        let twins = &self.twins;
        let twin = |key: &PodId| twins.get(key).cloned();
        let (state, index, health) = (&self.state, &self.index, &self.health);
        let cannot_unstick = self.cannot_unstick.as_deref();
        let told = record::Told { state, index, contact, problems: &problems, health, cannot_unstick };
        let figures = self.recorder.write(&self.run_dir, &told, twin);
        self.board.passed(figures);
        if !self.is_alert() {
            self.waiting.reset();
        }
        if self.quiet { QUIET } else { self.pause(&facts) }
    }

    /// Sees whether what the kubelet was given runs and stays up.
    async fn look_at_twins(&mut self, facts: &Facts) {
        let Some(lists) = &self.listed else { return };
        let is_active = |pod: &decide::Pod| matches!(pod.phase, Phase::Active { .. });
        self.health.retain(|key| self.state.pods.get(key).is_some_and(is_active));
        let mut asked = Vec::new();
        for (key, pod) in &self.state.pods {
            let (Phase::Active { linked, .. }, Some(known), Some(uid)) =
                (&pod.phase, self.index.known.get(key), self.twins.get(key))
            else {
                continue;
            };
            let fallen = health::fallen(lists, uid, known);
            if matches!(fallen, Some(Fallen::Sandbox { .. })) && facts.kubelet != facts::Kubelet::Up {
                // nobody is there to make one
                continue;
            }
            let before = self.health.of(key).map(|(_, text)| text.to_owned());
            let ask = self.health.observe(key, *linked, facts.now, fallen);
            asked.extend(ask.map(|ask| (key.clone(), uid.clone(), ask, before)));
        }
        let Some(runtime) = self.runtime.clone() else { return };
        for (key, uid, ask, before) in asked {
            match ask {
                Ask::Container(id) => {
                    if let Ok(Some(detail)) = runtime.detail(&id).await {
                        self.health.told(&key, &detail);
                    }
                }
                Ask::Node { tried } => {
                    let manifest = observe::read_manifest(&self.run_dir.active(&key)).ok().flatten();
                    let kubelet_dir = &self.arguments.node.host.kubelet_dir;
                    let shown =
                        health::without_sandbox(&self.root, kubelet_dir, &uid, &manifest.unwrap_or_default(), tried);
                    self.health.shown(&key, shown);
                }
            }
            if let Some((reason, text)) = self.health.of(&key).filter(|(_, text)| before.as_deref() != Some(text)) {
                tracing::warn!(pod = %key, reason = reason.as_str(), "{text}");
            }
        }
    }

    /// Takes over what was decided, and does it.
    async fn follow(&mut self, (next, actions): (State, Vec<Action>), facts: &Facts) {
        let before = std::mem::replace(&mut self.state, next);
        self.room = None;
        self.images = act::Images::default();
        if actions.iter().any(Action::links) && self.waiting.connected().is_yes() {
            self.waiting.reset();
        }
        for action in actions {
            self.act(action, &before, facts).await;
        }
    }

    /// Removes what a crash left, at the start, a minute later, and then every hour.
    fn sweep(&mut self) {
        let Some(hands) = self.hands.as_ref().filter(|_| self.memory && Instant::now() >= self.next_sweep) else {
            return;
        };
        let pause = if self.swept.is_none() { QUIET } else { SWEEP };
        self.next_sweep = Instant::now() + pause;
        match hands.sweep(self.swept.as_deref().unwrap_or_default()) {
            Ok(seen) => {
                self.swept = Some(seen);
                self.problem("leftovers", None);
            }
            Err(error) => self.problem("leftovers", Some(chain(&error))),
        }
    }

    /// Removes what a drill left that is gone or whose time is over: its routes above all.
    fn tidy_drill(&mut self) {
        let Some(hands) = self.hands.as_ref().filter(|_| self.memory) else { return };
        let place = Place { run: hands.run.clone(), manifests: hands.manifest_dir.clone() };
        let tidied = place.tidy(clock::boot_time(), self.swept.is_none());
        self.problem("drill", tidied.err().map(|error| chain(&error)));
    }

    /// Releases by contact alone, before the kubelet and the runtime are asked, which may take their time.
    async fn release(&mut self) {
        let (contact, kubelet_connected) = (self.asking.contact(), self.waiting.connected());
        let facts = Facts { now: clock::boot_time(), contact, kubelet_connected, ..Facts::default() };
        self.follow(decide::release(&self.state, &facts), &facts).await;
    }

    fn pause(&self, facts: &Facts) -> Duration {
        let mut pause = ALERT;
        for (key, pod) in &self.state.pods {
            let seen = facts.pods.get(key).copied().unwrap_or_default();
            match pod.phase {
                Phase::Active { .. } if !seen.twin_sandbox.is_yes() => pause = pause.min(BUSY),
                Phase::Released { .. } => {
                    // between making the parent's container and starting it lies a tenth of a second
                    let soon = seen.handover == Some(Handover::Switch) && seen.parent_owned.is_yes();
                    pause = pause.min(if soon { SWITCH } else { LOOK });
                }
                Phase::Active { .. } | Phase::Inactive => {}
            }
        }
        pause
    }

    /// Asks everything that the decision may need.
    async fn facts(&mut self) -> Facts {
        let state = &self.state;
        let held = |key: &PodId| state.pods.get(key).is_some_and(|pod| pod.phase != Phase::Inactive);
        if let Err(error) = self.index.refresh(&self.store, held) {
            self.problem("store", Some(chain(&error)));
        } else {
            self.problem("store", None);
        }
        // the kubelet last: what it owns may be no older than the decision, also when the runtime hung for a while
        let lists = self.lists().await;
        let (kubelet, owned) = match self.kubelet.owned().await {
            Ok(owned) => {
                self.problem("kubelet", None);
                self.learn_ways(owned.pid);
                (facts::Kubelet::Up, Some(owned))
            }
            Err(error) => {
                let down = matches!(error, kubelet::Error::Down(..));
                self.problem("kubelet", Some(chain(&error)));
                (if down { facts::Kubelet::Down } else { facts::Kubelet::Unknown }, None)
            }
        };
        self.find_hands();
        match self.run_dir.read::<AgentWord>(AGENT) {
            Ok(agent) => self.agent = agent,
            // what it said before holds
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the agent's word cannot be read");
            }
        }
        let exclusive = self.exclusive_host_ports.unwrap_or_default();
        let mut pods = BTreeMap::new();
        // without the manifest directory it is not known what is linked, and so nothing is decided of any pod
        if self.hands.is_some() {
            for (key, known) in &self.index.known {
                let twin = self.twins.get(key).map(String::as_str);
                let (lists, owned, agent) = (lists.as_ref(), owned.as_ref(), self.agent.as_ref());
                let seen = observe::pod_facts(key, known, &self.node_name, lists, owned, agent, twin, exclusive);
                // a job on it is under way: what runs of it is changing
                let busy = self.busy.contains(key);
                pods.insert(key.clone(), if busy { facts::PodFacts { parent: Run::Unknown, ..seen } } else { seen });
            }
        }
        let kubelet_makes_containers = self.made.look(lists.as_ref(), owned.as_ref(), &self.node_name);
        self.listed = lists;
        // and what came of probes meanwhile
        self.asking.catch_up();
        let now = clock::boot_time();
        Facts {
            now,
            contact: self.asking.contact(),
            kubelet,
            kubelet_pid: owned.as_ref().map(|owned| owned.pid),
            kubelet_connected: self.waiting.connected(),
            pods,
            agent_silence: self.agent.as_ref().map(|agent| now.saturating_sub(Duration::from_millis(agent.heartbeat))),
            agent_retires: self.agent.as_ref().is_some_and(|agent| agent.retire),
            kubelet_synced: owned.map_or(Seen::Unknown, |owned| observe::is_synced(&owned, &self.node_name).into()),
            kubelet_makes_containers,
        }
    }

    async fn lists(&mut self) -> Option<Lists> {
        if self.runtime.is_none() {
            self.find_runtime();
        }
        let runtime = self.runtime.clone()?;
        if self.exclusive_host_ports.is_none()
            && let Ok(version) = runtime.version().await
        {
            // CRI-O refuses a second mapping of a host port; containerd's portmap plugin accepts it
            self.exclusive_host_ports = Some(version.name.eq_ignore_ascii_case("cri-o"));
            tracing::info!(runtime = version.name, version = version.version, "found the container runtime");
        }
        let (sandboxes, containers) = tokio::join!(runtime.sandboxes(), runtime.containers());
        match (sandboxes, containers) {
            (Ok(sandboxes), Ok(containers)) => {
                self.problem("runtime", None);
                Some(Lists { sandboxes, containers })
            }
            (Err(error), _) | (_, Err(error)) => {
                self.problem("runtime", Some(chain(&error)));
                self.runtime = None;
                None
            }
        }
    }

    async fn act(&mut self, action: Action, before: &State, facts: &Facts) {
        let Some(hands) = self.hands.clone() else { return };
        tracing::debug!(?action, "acting");
        match action {
            Action::Activate(key) => self.activate(&hands, &key, ACTIVATED, facts).await,
            Action::Renew(key) => self.activate(&hands, &key, RENEWED, facts).await,
            Action::Relink(key) => {
                if hands.run.active(&key).exists() {
                    self.relink(&hands, &key, facts, before);
                } else {
                    self.activate(&hands, &key, TAKEN_BACK, facts).await;
                }
            }
            Action::Nudge(key) => {
                tracing::info!(pod = %key, "the kubelet does not list the twin yet: linking it afresh");
                if hands.link(&key) == act::Link::Ours
                    && let Err(error) = hands.relink(&key)
                {
                    tracing::warn!(pod = %key, error = &error as &dyn std::error::Error, "cannot link afresh");
                }
            }
            Action::Unstick => self.unstick(),
            Action::Release(key) => match hands.release(&key) {
                Ok(()) => {
                    tracing::info!(pod = %key, kubelet_connected = ?facts.kubelet_connected, "released");
                    self.recorder.released(&key, clock::boot_time());
                }
                Err(error) => {
                    tracing::error!(pod = %key, error = &error as &dyn std::error::Error, "cannot release");
                    self.restore(&key, before);
                }
            },
            Action::StopTwin(key) | Action::EndTwin(key) | Action::StopParent(key) if self.listed.is_none() => {
                self.restore(&key, before);
            }
            Action::StopTwin(key) => self.stop_twin(&key),
            Action::EndTwin(key) => self.end_twin(&key),
            Action::StopParent(key) => self.stop_parent(&key),
            Action::Forget(key) => match hands.forget(&key) {
                Ok(()) => {
                    tracing::info!(pod = %key, "handed over");
                    self.next_sweep = self.next_sweep.min(Instant::now() + QUIET);
                    self.twins.remove(&key);
                    self.index.known.retain(|known, about| *known != key || about.in_store);
                }
                Err(error) => {
                    tracing::error!(
                        pod = %key,
                        error = &error as &dyn std::error::Error,
                        "cannot remove unpacked files"
                    );
                    self.restore(&key, before);
                }
            },
            Action::Retire => {
                if facts.agent_retires {
                    tracing::info!("the installation is being removed: leaving the node");
                } else {
                    tracing::warn!("the API server answers and no agent was heard of for an hour: leaving the node");
                }
                if let Err(error) = hands.retire() {
                    tracing::error!(error = &error as &dyn std::error::Error, "cannot remove everything of ours");
                }
            }
        }
    }

    /// What could not be done is decided again at the next pass.
    fn restore(&mut self, key: &PodId, before: &State) {
        if let Some(pod) = before.pods.get(key) {
            self.state.pods.insert(key.to_owned(), pod.clone());
        }
    }

    async fn activate(&mut self, hands: &Hands, key: &PodId, result: &'static str, facts: &Facts) {
        match self.prepare(hands, key, facts).await {
            Ok(uid) => {
                let parent = self.index.known.get(key).map(|known| known.parent_uid.clone()).unwrap_or_default();
                tracing::info!(pod = %key, uid, parent, "activated");
                self.recorder.activated(key, &parent, result, facts, clock::boot_time());
                self.twins.insert(key.to_owned(), uid);
            }
            Err(Refused { reason, message }) => {
                tracing::error!(pod = %key, %reason, message, advice = reason.advice(), "cannot be activated");
                self.recorder.refused(reason);
                self.state.blocked(key, facts.now, reason, message);
            }
        }
    }

    async fn prepare(&mut self, hands: &Hands, key: &PodId, facts: &Facts) -> Result<String, Refused> {
        if !self.memory {
            let message = self.problems.get("run directory").cloned().unwrap_or_default();
            return Err(Refused { reason: Blocked::RunDirNotMemory, message });
        }
        let (Some(runtime), Some(ways)) = (&self.runtime, &self.ways) else {
            return Err(Refused {
                reason: Blocked::WriteFailed,
                message: "kubelet and runtime are not known yet".into(),
            });
        };
        let against = Preconditions {
            now: clock::boot_time(),
            boot_id: &self.boot_id,
            runtime,
            settings: &ways.settings,
            kubelet_dir: &self.arguments.node.host.kubelet_dir,
            root: &self.root,
        };
        let generation = hands.verify(key, &against, &mut self.images).await?;
        self.check_node(&generation.checkpoint.parent)?;
        let demand = generation.checkpoint.manifest.get("spec").map(Demand::of).unwrap_or_default();
        self.check_room(hands, key, &demand, facts)?;
        self.activations += 1;
        let nonce = format!("{}/{}/{}", self.boot_id, clock::boot_time().as_nanos(), self.activations);
        let uid = hands.activate(&generation.checkpoint, key, &nonce)?;
        self.index.learn(key, &generation.checkpoint);
        if let Some(room) = &mut self.room {
            room.taken.add(&demand);
        }
        Ok(uid)
    }

    /// A checkpoint of another node is not activated: one renamed, or removed and made anew, is another.
    fn check_node(&self, parent: &Parent) -> Result<(), Refused> {
        let Some(record) = &self.node else { return Ok(()) };
        if !record.node_name.eq_ignore_ascii_case(&self.node_name) {
            let message = format!("captured on node {}, and this is {}", record.node_name, self.node_name);
            return Err(Refused::new(Blocked::OtherNode, message));
        }
        match (&parent.node_uid, record.current_uid()) {
            (Some(of), Some(now)) if of != now => {
                let message = format!("captured on the node object {of}, and that of {} is {now} now", self.node_name);
                Err(Refused::new(Blocked::OtherNode, message))
            }
            _ => Ok(()),
        }
    }

    /// What does not fit beside the kubelet's pods is not given to it: it would end some of them for a static pod.
    fn check_room(&mut self, hands: &Hands, key: &PodId, demand: &Demand, facts: &Facts) -> Result<(), Refused> {
        // one that is linked anew has its place already, but not its own
        if self.room.is_none() || hands.link(key) == act::Link::Ours {
            let taken = hands.taken(key);
            let mut taken = taken.map_err(|error| Refused::new(Blocked::NoRoom, format!("cannot tell: {error}")))?;
            if !facts.kubelet_synced.is_no() {
                let Some(of_others) = self.agent.as_ref().and_then(|agent| agent.taken.as_ref()) else {
                    let message = "the kubelet has pods of the API server, and what they take is not known";
                    return Err(Refused::new(Blocked::NoRoom, message));
                };
                taken.add(of_others);
            }
            let allocatable = self.node.as_ref().and_then(|node| node.allocatable);
            self.room = Some(Room { allocatable, taken });
        }
        let lacks = self.room.as_ref().and_then(|room| room.lacks(demand));
        lacks.map_or(Ok(()), |lacks| Err(Refused::new(Blocked::NoRoom, lacks)))
    }

    fn relink(&mut self, hands: &Hands, key: &PodId, facts: &Facts, before: &State) {
        match hands.relink(key) {
            Ok(()) => {
                tracing::info!(pod = %key, "contact is lost again: taken back");
                let parent = self.index.known.get(key).map(|known| known.parent_uid.clone()).unwrap_or_default();
                self.recorder.activated(key, &parent, TAKEN_BACK, facts, clock::boot_time());
            }
            Err(error) => {
                tracing::error!(pod = %key, error = &error as &dyn std::error::Error, "cannot take back");
                self.recorder.refused(Blocked::WriteFailed);
                self.restore(key, before);
            }
        }
    }

    /// Stops the twin through the runtime, in the background: grace periods take their time, passes do not. Where two
    /// mappings of a host port cannot be, its sandbox goes at once: the parent's is about to be made.
    fn stop_twin(&mut self, key: &Key) {
        let Some(lists) = &self.listed else { return };
        let policy = self.index.known.get(key).map(|known| known.policy.clone());
        let exclusive = self.exclusive_host_ports.unwrap_or_default();
        let at_once = policy.as_ref().is_some_and(|policy| policy.host_port && exclusive);
        let grace = policy.map_or(Duration::from_secs(30), |policy| policy.grace());
        self.stop(key, "stopping the twin", act::twin_targets(lists, key), (!at_once).then_some(grace));
    }

    /// Ends a twin that its parent waits for.
    fn end_twin(&mut self, key: &Key) {
        let Some(lists) = &self.listed else { return };
        self.stop(key, "ending the twin", act::twin_targets(lists, key), Some(Duration::ZERO));
    }

    /// Stops what is left of the parent, likewise.
    fn stop_parent(&mut self, key: &Key) {
        let Some(lists) = &self.listed else { return };
        let grace = self.index.known.get(key).map(|known| known.policy.grace());
        self.busy.insert(key.clone());
        self.stop(key, "stopping what is left of the parent", act::parent_targets(lists, key), grace);
    }

    fn stop(&mut self, key: &Key, what: &'static str, targets: Vec<act::Target>, grace: Option<Duration>) {
        let Some(runtime) = self.runtime.clone() else { return };
        tracing::info!(pod = %key, "{what}");
        let key = key.clone();
        self.jobs.spawn_local(async move { Done { key, what, result: act::stop(runtime, targets, grace).await } });
    }

    fn finish(&mut self, done: Done) {
        self.busy.remove(&done.key);
        if let Err(error) = done.result {
            tracing::warn!(pod = %done.key, what = done.what, error = &error as &dyn std::error::Error, "did not work");
        }
    }

    // --- contact -------------------------------------------------------------------------------------------------

    /// The API servers: what the flag says, else what the agent recorded, else the kubelet's own kubeconfig. Looks again
    /// when the record changed.
    async fn find_servers(&mut self) {
        let recorded = self.store.node_changed();
        if recorded != self.recorded {
            match self.store.node() {
                Ok(record) => {
                    self.node = record;
                    self.problem("node record", None);
                }
                Err(error) => self.problem("node record", Some(chain(&error))),
            }
        }
        let known = !self.asking.is_idle() && recorded == self.recorded;
        self.recorded = recorded;
        if !self.arguments.decision.apiservers.is_empty() || known {
            return;
        }
        let recorded = self.node.as_ref().map(|node| node.servers.clone());
        let mut servers: Vec<Server> = recorded.into_iter().flatten().map(Server::from).collect();
        if servers.is_empty()
            && let Ok(owned) = self.kubelet.owned().await
        {
            self.learn_ways(owned.pid);
            let kubeconfig = self.ways.as_ref().and_then(|ways| ways.settings.kubeconfig.clone());
            match kubeconfig.map(|path| kubelet::server(&self.root, &path)) {
                Some(Ok(server)) => servers.push(server),
                Some(Err(error)) => self.problem("API server", Some(chain(&error))),
                None => {}
            }
        }
        if !servers.is_empty() {
            self.ask_servers(servers);
        }
        if self.asking.is_idle() {
            let hint = "no API server is known: the agent has recorded none, and the kubelet's kubeconfig is not known";
            self.problems.entry("API server").or_insert_with(|| hint.to_owned());
        }
    }

    fn ask_servers(&mut self, servers: Vec<Server>) {
        let errors = self.asking.ask(servers);
        self.problem("API server", errors.first().map(|error| chain(error)));
    }

    // --- the kubelet's own sockets -------------------------------------------------------------------------------

    /// Looks whether the kubelet hears from the API server; true when that is news.
    fn look_at_sockets(&mut self) -> bool {
        let Some(pid) = self.ways.as_ref().map(|ways| ways.pid) else { return false };
        match self.waiting.look(&self.root, pid, &self.asking.addresses(), clock::boot_time()) {
            Ok(news) => {
                self.problem("sockets", None);
                news
            }
            Err(error) => {
                self.problem("sockets", Some(format!("cannot look at the kubelet's sockets: {error}")));
                false
            }
        }
    }

    /// Closes the sockets of the kubelet's process that wait on the API server, or on a name server.
    fn unstick(&mut self) {
        let Some(pid) = self.ways.as_ref().map(|ways| ways.pid) else { return };
        let before = self.waiting.closed();
        let failing = self.asking.contact().is_some_and(|contact| contact.class == Class::Failing);
        let (servers, now) = (self.asking.addresses(), clock::boot_time());
        let closed = self.waiting.close(&self.root, pid, &servers, failing, now);
        if before == 0 && self.waiting.closed() > 0 {
            self.recorder.unstuck();
        }
        if let Err(error) = closed {
            let advice = Risk::CannotUnstick.advice();
            let text = format!("cannot close the kubelet's waiting connections: {error} ({advice})");
            self.problem("unsticking", Some(text));
            if error.kind() == io::ErrorKind::Unsupported {
                self.settings.unstick = false;
                self.cannot_unstick = Some(error.to_string());
            }
        }
    }

    // --- ways ----------------------------------------------------------------------------------------------------

    /// Something is active or about to be handed over.
    fn is_alert(&self) -> bool {
        self.state.pods.values().any(|pod| pod.phase != Phase::Inactive)
    }

    fn open_run_dir(&mut self) {
        match self.run_dir.open(&self.boot_id) {
            Ok(()) => {
                self.memory = true;
                // what is in force could not be read before
                self.hands = None;
                self.problem("run directory", None);
            }
            Err(error) => self.problem("run directory", Some(chain(&error))),
        }
    }

    /// How the kubelet with this process id was started.
    fn learn_ways(&mut self, pid: u32) {
        if self.ways.as_ref().is_some_and(|ways| ways.pid == pid) {
            return;
        }
        let settings = kubelet::settings(&self.root, pid).unwrap_or_else(|error| {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the kubelet's settings are taken to be the defaults"
            );
            kubelet::Settings::default()
        });
        tracing::info!(pid, "found the kubelet");
        self.ways = Some(Ways { pid, settings });
        self.waiting.reset();
    }

    fn find_runtime(&mut self) {
        let candidates = match &self.arguments.node.cri_endpoint {
            Some(path) => vec![path.clone()],
            None => runtime::SOCKETS.map(PathBuf::from).to_vec(),
        };
        for path in &candidates {
            if let Ok(real) = self.root.resolve(path)
                && real.exists()
            {
                self.runtime = Some(Runtime::new(real, CALL_LIMIT));
                return;
            }
        }
        let names: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        self.problem("runtime", Some(format!("no container runtime at {}", names.join(" or "))));
    }

    /// Finds the kubelet's manifest directory, and rebuilds the state from what is on the node.
    fn find_hands(&mut self) {
        if self.hands.is_some() {
            return;
        }
        let given = self.arguments.node.host.manifest_dir.clone();
        let Some(path) = given.or_else(|| {
            self.ways.as_ref().map(|ways| {
                ways.settings.static_pod_path.clone().unwrap_or_else(|| PathBuf::from(kubelet::MANIFEST_DIR))
            })
        }) else {
            return;
        };
        let real = self.root.resolve(&path).ok().filter(|real| real.is_dir());
        let Some(manifest_dir) = real else {
            let text = format!("the kubelet's manifest directory {} is not there: set staticPodPath", path.display());
            self.problem("manifest directory", Some(text));
            return;
        };
        self.problem("manifest directory", None);
        let selinux = Path::new("/sys/fs/selinux/enforce").exists();
        let hands = Hands { store: self.store.clone(), run: self.run_dir.clone(), manifest_dir, selinux };
        // without memory nothing of ours is in force, and what should be is refused with that reason
        if self.memory
            && let Err(error) = self.rebuild(&hands)
        {
            self.problem("manifest directory", Some(format!("cannot read {}: {error}", hands.manifest_dir.display())));
            return;
        }
        self.hands = Some(hands);
    }

    /// Where each pod stands, from links and unpacked files: all that a supervisor before this one knew.
    fn rebuild(&mut self, hands: &Hands) -> std::io::Result<()> {
        let now = clock::boot_time();
        // before anything is linked: what no manifest names was being unpacked when the one before us ended
        self.run_dir.sweep().map_err(std::io::Error::other)?;
        let linked = hands.links()?;
        // what was linked although the API server answered is not released by its answer
        let told = self.run_dir.read::<Status>(STATUS).unwrap_or_default().unwrap_or_default();
        self.state.locked_out = told.locked_out.map(|it| (it.kubelet_pid, Duration::from_millis(it.since)));
        let held = |key: &PodId| {
            let is_it = |pod: &&PodReport| key.is(&pod.namespace, &pod.name);
            let reason = told.pods.iter().find(is_it).and_then(|pod| pod.reason.as_deref());
            reason.is_some_and(|reason| [REJECTED_AT_RETURN, Blocked::KubeletLockedOut.as_str()].contains(&reason))
        };
        let mut keys: BTreeSet<Key> = linked.iter().cloned().collect();
        keys.extend(self.run_dir.keys().map_err(std::io::Error::other)?);
        for key in keys {
            let manifest = observe::read_manifest(&hands.run.active(&key));
            let is_linked = linked.contains(&key);
            let manifest = match manifest {
                Ok(Some(manifest)) => manifest,
                Ok(None) if is_linked => {
                    // of another boot: its file was in memory
                    tracing::info!(pod = %key, "removing a link of before the reboot");
                    write::remove(&hands.link_path(&key)).map_err(std::io::Error::other)?;
                    continue;
                }
                Ok(None) | Err(_) => serde_json::Value::Null,
            };
            if let Some(uid) = observe::manifest_uid(&manifest) {
                self.twins.insert(key.clone(), uid);
            }
            self.index.known.entry(key.clone()).or_insert_with(|| Known::of_manifest(&manifest));
            let phase = if is_linked {
                let under = if held(&key) { Class::Answering } else { Class::Silent };
                Phase::Active { linked: now, under, nudged: None, refused: 0 }
            } else {
                Phase::Released { since: now, stopping: None }
            };
            tracing::info!(pod = %key, linked = is_linked, "found a twin of a supervisor before this one");
            self.state.pods.insert(key, decide::Pod { phase, ..decide::Pod::default() });
        }
        Ok(())
    }

    /// Says a problem when it begins or changes, and when it is over.
    fn problem(&mut self, about: &'static str, text: Option<String>) {
        match text {
            Some(text) => {
                if self.problems.get(about) != Some(&text) {
                    tracing::warn!(problem = text, "{about}");
                    self.problems.insert(about, text);
                }
            }
            None => {
                if self.problems.remove(about).is_some() {
                    tracing::info!("{about}: no longer a problem");
                }
            }
        }
    }
}

/// Why connections of the kubelet cannot be closed; `None`: they can, or it cannot be told.
fn cannot_unstick(root: &HostRoot) -> Option<String> {
    let error = sockets::try_destroy(root).err().filter(|error| error.kind() == io::ErrorKind::Unsupported)?;
    tracing::warn!(%error, "cannot close connections: a kubelet that waits for the API server is left waiting");
    Some(error.to_string())
}

/// The pod-resources socket of a kubelet with this root directory (pkg/kubelet/apis/podresources/constants.go).
fn kubelet_socket(root: &HostRoot, kubelet_dir: &Path) -> PathBuf {
    let path = kubelet_dir.join("pod-resources/kubelet.sock");
    root.resolve(&path).unwrap_or(path)
}
