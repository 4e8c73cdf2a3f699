//! The kubelet's process and the container runtime. Times are milliseconds of the boot-time clock.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::pods::Marked;
use super::random::Random;
use crate::names::{CHECKPOINT_OF, CONFIG_SOURCE, HOLD_SECONDS};
use crate::node::kubelet::Owned;
use crate::node::runtime::{self, State};
use crate::node::sockets::{self, Socket, Transport};
use crate::supervisor::core::observe::{Lists, twin_name};

pub(super) const NODE: &str = "edge-1";
/// A removed static pod's container sleeps this long in its preStop hook, unless it is stopped
/// through the runtime.
const HOLD: u64 = HOLD_SECONDS.unsigned_abs() * 1000;
/// A volume from before the reboot waits for two connection attempts whose packets are dropped.
const BLACK_HOLE: u64 = 61_000;
/// Bytes of one answer of the API server.
const ANSWER: u64 = 200;
/// pkg/kubelet: the manifest directory's poll.
const POLL: u64 = 20_000;

/// What the kubelet finds at the API server's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// It answers.
    Up,
    /// It answers its health check with 500, and lists pods.
    Starting,
    /// It takes seconds for each answer: a probe counts that as silence, while the kubelet waits.
    Slow,
    /// It answers everything with 5xx.
    Broken,
    /// No process listens.
    Refused,
    /// Packets are dropped.
    BlackHole,
    /// Another server answers, or its certificate is not valid yet.
    Foreign,
    /// It answers, but no longer accepts the kubelet: an expired certificate, a deleted node.
    LockedOut,
}

impl Reach {
    pub(super) fn serves(self) -> bool {
        matches!(self, Self::Up | Self::Starting | Self::Slow)
    }

    /// It answers anonymous requests.
    pub(super) fn answers(self) -> bool {
        matches!(self, Self::Up | Self::LockedOut)
    }
}

/// A pod as the API server has it.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) uid: String,
    pub(super) ready: bool,
    /// Phase Failed: never run again.
    pub(super) rejected: bool,
}

pub(super) struct Container {
    id: u64,
    attempt: u32,
    pub(super) state: State,
    /// It was asked to stop, and will have ended at this time.
    ends_at: Option<u64>,
    since: u64,
}

pub(super) struct Sandbox {
    id: u64,
    pub(super) pod: usize,
    pub(super) uid: String,
    /// Of a twin.
    pub(super) file: bool,
    pub(super) ready: bool,
    pub(super) container: Option<Container>,
}

impl Sandbox {
    pub(super) fn is_running(&self) -> bool {
        self.container
            .as_ref()
            .is_some_and(|container| container.state == State::Running)
    }
}

#[derive(Default)]
pub(super) struct Runtime {
    pub(super) sandboxes: Vec<Sandbox>,
    ids: u64,
}

impl Runtime {
    pub(super) fn runs(&self, pod: usize, file: bool) -> bool {
        self.sandboxes
            .iter()
            .any(|sandbox| sandbox.pod == pod && sandbox.file == file && sandbox.is_running())
    }

    /// The parent has a sandbox.
    pub(super) fn has_sandbox(&self, pod: usize) -> bool {
        self.sandboxes
            .iter()
            .any(|sandbox| sandbox.pod == pod && !sandbox.file && sandbox.ready)
    }

    /// For how long something of this pod has been running.
    pub(super) fn served_for(&self, pod: usize, now: u64) -> Option<u64> {
        let running = self
            .sandboxes
            .iter()
            .filter(|sandbox| sandbox.pod == pod && sandbox.is_running());
        running
            .filter_map(|sandbox| sandbox.container.as_ref())
            .map(|container| now - container.since)
            .max()
    }

    /// SIGTERM to the containers of these sandboxes, then the sandboxes are removed.
    pub(super) fn stop(&mut self, belongs: impl Fn(&Sandbox) -> bool, ends_at: u64) {
        for sandbox in self.sandboxes.iter_mut().filter(|sandbox| belongs(sandbox)) {
            match &mut sandbox.container {
                Some(container) if container.state == State::Running => {
                    container.ends_at =
                        Some(container.ends_at.map_or(ends_at, |at| at.min(ends_at)));
                }
                _ => sandbox.ready = false,
            }
        }
    }

    /// The supervisor asks the containers of these sandboxes to end.
    pub(super) fn end_containers(&mut self, ids: &[String], ends_at: u64) {
        for sandbox in self
            .sandboxes
            .iter_mut()
            .filter(|sandbox| ids.contains(&sandbox.id.to_string()))
        {
            if let Some(container) = sandbox
                .container
                .as_mut()
                .filter(|container| container.state == State::Running)
            {
                container.ends_at = Some(container.ends_at.map_or(ends_at, |at| at.min(ends_at)));
            }
        }
    }

    /// It stops these sandboxes and everything that runs in them.
    pub(super) fn end_sandboxes(&mut self, ids: &[String]) {
        for sandbox in self
            .sandboxes
            .iter_mut()
            .filter(|sandbox| ids.contains(&sandbox.id.to_string()))
        {
            sandbox.ready = false;
            if let Some(container) = &mut sandbox.container {
                (container.state, container.ends_at) = (State::Exited, None);
            }
        }
    }

    /// A twin of this pod runs and was not asked to end.
    pub(super) fn twin_stays(&self, pod: usize) -> bool {
        let stays = |container: &Container| {
            container.state == State::Running && container.ends_at.is_none()
        };
        self.sandboxes
            .iter()
            .any(|it| it.pod == pod && it.file && it.container.as_ref().is_some_and(stays))
    }

    /// The parent has a container in a ready sandbox.
    pub(super) fn has_container(&self, pod: usize) -> bool {
        self.sandboxes
            .iter()
            .any(|it| it.pod == pod && !it.file && it.ready && it.container.is_some())
    }

    pub(super) fn tick(&mut self, now: u64) {
        for sandbox in &mut self.sandboxes {
            if let Some(container) = &mut sandbox.container
                && container.ends_at.is_some_and(|at| at <= now)
            {
                (container.state, container.ends_at) = (State::Exited, None);
                // after a container of a twin, its sandbox is stopped next
                sandbox.ready &= !sandbox.file;
            }
        }
    }

    /// The process of a container dies by itself.
    pub(super) fn crash(&mut self, pod: usize) {
        for sandbox in self
            .sandboxes
            .iter_mut()
            .filter(|sandbox| sandbox.pod == pod)
        {
            if let Some(container) = &mut sandbox.container {
                (container.state, container.ends_at) = (State::Exited, None);
            }
        }
    }

    pub(super) fn power_off(&mut self) {
        for sandbox in &mut self.sandboxes {
            sandbox.ready = false;
            if let Some(container) = &mut sandbox.container {
                (container.state, container.ends_at) = (State::Exited, None);
            }
        }
    }

    pub(super) fn lists(&self, pods: &[Marked]) -> Lists {
        let mut lists = Lists::default();
        for sandbox in &self.sandboxes {
            let (namespace, name) = (
                pods[sandbox.pod].key.namespace(),
                pods[sandbox.pod].key.name(),
            );
            let source = if sandbox.file { "file" } else { "api" };
            let mut annotations = BTreeMap::from([(CONFIG_SOURCE.to_owned(), source.to_owned())]);
            if sandbox.file {
                annotations.insert(CHECKPOINT_OF.into(), format!("{namespace}/{name}"));
            }
            let listed = if sandbox.file {
                twin_name(name, NODE)
            } else {
                name.to_owned()
            };
            lists.sandboxes.push(runtime::Sandbox {
                id: sandbox.id.to_string(),
                namespace: namespace.into(),
                name: listed,
                uid: sandbox.uid.clone(),
                ready: sandbox.ready,
                annotations,
                ..runtime::Sandbox::default()
            });
            lists
                .containers
                .extend(
                    sandbox
                        .container
                        .as_ref()
                        .map(|container| runtime::Container {
                            id: container.id.to_string(),
                            sandbox: sandbox.id.to_string(),
                            pod_uid: sandbox.uid.clone(),
                            name: "app".into(),
                            attempt: container.attempt,
                            state: container.state,
                            ..runtime::Container::default()
                        }),
                );
        }
        lists
    }

    pub(super) fn container_id(&self, pod: usize, uid: &str) -> Option<String> {
        let of_pod = |sandbox: &&Sandbox| sandbox.pod == pod && !sandbox.file && sandbox.uid == uid;
        let sandbox = self
            .sandboxes
            .iter()
            .filter(of_pod)
            .find(|sandbox| sandbox.is_running())?;
        Some(sandbox.container.as_ref()?.id.to_string())
    }

    fn id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    fn of(&mut self, uid: &str) -> Option<&mut Sandbox> {
        self.sandboxes
            .iter_mut()
            .rev()
            .find(|sandbox| sandbox.uid == uid && sandbox.ready)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Volumes(u64),
    Sandbox(u64),
    Make(u64),
    Start(u64),
    Running,
    BackOff(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removed {
    No,
    /// The API server's pods are not known yet: nothing is ended.
    RunsOn,
    /// Its preStop hook began then.
    Ends(u64),
}

struct Worker {
    pod: usize,
    uid: String,
    file: bool,
    stage: Stage,
    crashes: u32,
    rejected: bool,
    removed: Removed,
}

/// One kubelet process, from its start to its end.
pub(super) struct Kubelet {
    pub(super) pid: u32,
    pub(super) started: u64,
    /// It has listed the API server's pods.
    pub(super) synced: bool,
    services_at: Option<u64>,
    /// It has read the services: it keeps them.
    has_services: bool,
    connect_at: Option<u64>,
    list_at: Option<u64>,
    connected: bool,
    /// What arrived from the API server.
    received: u64,
    /// The same when the present connection began, and how many there were.
    connection: (u64, u32),
    files: BTreeMap<usize, String>,
    poll_at: u64,
    workers: Vec<Worker>,
}

/// The part of the node that the kubelet sees and changes.
pub(super) struct Node<'a> {
    pub(super) now: u64,
    pub(super) reach: Reach,
    pub(super) pods: &'a [Marked],
    pub(super) links: &'a BTreeMap<usize, String>,
    pub(super) objects: &'a mut BTreeMap<usize, Object>,
    pub(super) runtime: &'a mut Runtime,
    pub(super) random: &'a mut Random,
    pub(super) said: &'a mut Vec<String>,
}

impl Kubelet {
    pub(super) fn new(pid: u32, now: u64) -> Self {
        Self {
            pid,
            started: now,
            synced: false,
            services_at: None,
            has_services: false,
            connect_at: None,
            list_at: None,
            connected: false,
            received: 0,
            connection: (0, 0),
            files: BTreeMap::new(),
            poll_at: now + 1,
            workers: Vec::new(),
        }
    }

    /// What `List` of the pod-resources socket returns.
    pub(super) fn owned(&self, pods: &[Marked]) -> Owned {
        let active = self
            .workers
            .iter()
            .filter(|worker| worker.removed == Removed::No && !worker.rejected);
        let name = |worker: &Worker| {
            let (namespace, name) = (
                pods[worker.pod].key.namespace(),
                pods[worker.pod].key.name(),
            );
            (
                namespace.to_owned(),
                if worker.file {
                    twin_name(name, NODE)
                } else {
                    name.to_owned()
                },
            )
        };
        Owned {
            pid: self.pid,
            pods: active.map(name).collect(),
        }
    }

    pub(super) fn owns_parent(&self, pod: usize) -> bool {
        self.workers
            .iter()
            .any(|it| it.pod == pod && !it.file && !it.rejected && it.removed == Removed::No)
    }

    /// A twin of this pod that has no sandbox yet holds another UID back.
    pub(super) fn holds_back(&self, pod: usize) -> bool {
        let waits =
            |it: &Worker| it.pod == pod && it.file && !it.rejected && !has_sandbox(it.stage);
        !self.synced && self.workers.iter().any(waits)
    }

    /// It gets pods from the API server.
    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    /// Its socket to the API server. If the kubelet is locked out, refusals arrive on it.
    pub(super) fn socket(&self, reach: Reach) -> Socket {
        let address = SocketAddr::from(([10, 1, 0, 1], 6443));
        let (before, number) = self.connection;
        let is_established = self.connected || reach == Reach::LockedOut;
        // each connection attempt is a separate socket
        let cookie = [self.pid, number * 2 + u32::from(is_established)];
        let state = if is_established {
            sockets::State::Established
        } else {
            sockets::State::SynSent
        };
        let received = if is_established {
            (self.received - before) * ANSWER
        } else {
            0
        };
        Socket {
            transport: Transport::Tcp,
            state,
            local: address,
            remote: address,
            received,
            inode: number,
            cookie,
        }
    }

    /// Its waiting sockets were closed: whatever waited on them continues.
    pub(super) fn unstick(&mut self, now: u64) {
        for worker in self.workers.iter_mut().filter(|worker| worker.file) {
            if let Stage::Volumes(at) = &mut worker.stage {
                *at = (*at).min(now + 300);
            }
        }
    }

    pub(super) fn tick(&mut self, node: &mut Node<'_>) {
        self.contact(node);
        if node.now >= self.poll_at {
            self.poll_at = node.now + POLL;
            for pod in 0..node.pods.len() {
                self.notice(pod, node);
            }
        }
        for at in 0..self.workers.len() {
            self.work(at, node);
        }
        let now = node.now;
        let mut ended = Vec::new();
        self.workers.retain(|worker| {
            let runs = node
                .runtime
                .sandboxes
                .iter()
                .any(|it| it.uid == worker.uid && it.is_running());
            let keep = match worker.removed {
                Removed::No | Removed::RunsOn => true,
                Removed::Ends(since) => {
                    runs || (worker.stage == Stage::Running && now < since + HOLD)
                }
            };
            if !keep {
                ended.push(worker.uid.clone());
            }
            keep
        });
        node.runtime
            .stop(|sandbox| ended.contains(&sandbox.uid), now);
    }

    fn contact(&mut self, node: &mut Node<'_>) {
        let now = node.now;
        if !node.reach.serves() {
            (self.connected, self.connect_at, self.list_at) = (false, None, None);
            self.received += u64::from(node.reach == Reach::LockedOut && node.random.one_in(20));
            return;
        }
        if !self.connected {
            // client-go's back-off, which grows to a minute
            let longest = if node.random.one_in(2) { 60_000 } else { 2_000 };
            let at = *self
                .connect_at
                .get_or_insert_with(|| now + node.random.between(0, longest));
            if at <= now {
                self.connected = true;
                self.connection = (self.received, self.connection.1 + 1);
                self.received += 1;
                // seen: one to 5.7 s from the connection to the first list of pods
                let wait = if self.synced {
                    node.random.between(50, 2_000)
                } else {
                    node.random.between(500, 5_700)
                };
                let wait = if node.reach == Reach::Slow {
                    wait + node.random.between(10_000, 25_000)
                } else {
                    wait
                };
                self.list_at = Some(now + wait);
                self.services_at
                    .get_or_insert(now + wait + node.random.between(0, 1_000));
                node.said.push("kubelet hears from the API server".into());
            }
        }
        // it requests its own node and the services first, and at once (seen: each answer has some
        // hundred bytes)
        if self.connected
            && node.reach == Reach::Slow
            && self.list_at.is_some_and(|at| now + 5_000 >= at && at > now)
        {
            self.received += 1;
        }
        if self.connected && self.list_at.is_some_and(|at| at <= now) {
            self.list(node);
        }
        self.has_services |= self.connected && self.services_at.is_some_and(|at| at <= now);
    }

    /// Takes in the API server's pods, and ends what no longer belongs to any pod.
    fn list(&mut self, node: &mut Node<'_>) {
        let now = node.now;
        let first = !self.synced;
        self.synced = true;
        self.received += 1;
        for (pod, object) in node.objects.iter_mut() {
            let known = self.workers.iter().any(|worker| worker.uid == object.uid);
            if known || object.rejected {
                continue;
            }
            let twin = |worker: &Worker| {
                worker.file && worker.pod == *pod && worker.removed == Removed::No
            };
            if node.pods[*pod].excludes
                && self
                    .workers
                    .iter()
                    .any(|worker| twin(worker) && !worker.rejected)
            {
                object.rejected = true;
                node.said.push(format!(
                    "REJECTED {}: its twin holds what it needs",
                    node.pods[*pod].key
                ));
                continue;
            }
            let adopted = node
                .runtime
                .of(&object.uid)
                .map(|sandbox| sandbox.is_running());
            if adopted.is_none() && !node.pods[*pod].is_api_server && node.random.one_in(40) {
                // a taint, a device that does not exist yet, a full disk
                object.rejected = true;
                node.said.push(format!(
                    "refused {} for a reason of its own",
                    node.pods[*pod].key
                ));
                continue;
            }
            let stage = match adopted {
                Some(true) => Stage::Running,
                Some(false) => Stage::BackOff(now),
                None => Stage::Volumes(now + node.random.between(200, 400)),
            };
            node.said.push(format!(
                "kubelet takes {} up ({stage:?})",
                node.pods[*pod].key
            ));
            let (uid, rejected) = (object.uid.clone(), false);
            self.workers.push(Worker {
                pod: *pod,
                uid,
                file: false,
                stage,
                crashes: 0,
                rejected,
                removed: Removed::No,
            });
        }
        for worker in self
            .workers
            .iter_mut()
            .filter(|worker| !worker.file && worker.removed == Removed::No)
        {
            if node
                .objects
                .get(&worker.pod)
                .is_none_or(|object| object.uid != worker.uid)
            {
                let ends = now + node.pods[worker.pod].ends_in;
                node.runtime.stop(|sandbox| sandbox.uid == worker.uid, ends);
                worker.removed = Removed::Ends(now.saturating_sub(HOLD));
            }
        }
        if !first {
            return;
        }
        for worker in self
            .workers
            .iter_mut()
            .filter(|worker| worker.removed == Removed::RunsOn)
        {
            worker.removed = Removed::Ends(now);
        }
        let known: Vec<String> = self
            .workers
            .iter()
            .map(|worker| worker.uid.clone())
            .collect();
        // orphans: one second, and no hook
        node.runtime.stop(
            |sandbox| sandbox.ready && !known.contains(&sandbox.uid),
            now + 3_000,
        );
    }

    /// Looks at one name in the manifest directory.
    pub(super) fn notice(&mut self, pod: usize, node: &mut Node<'_>) {
        let (now, is) = (node.now, node.links.get(&pod));
        if self.files.get(&pod) == is {
            return;
        }
        if let Some(was) = self.files.remove(&pod) {
            let removed = if self.synced {
                Removed::Ends(now)
            } else {
                Removed::RunsOn
            };
            for worker in self
                .workers
                .iter_mut()
                .filter(|worker| worker.uid == was && worker.removed == Removed::No)
            {
                worker.removed = removed;
            }
            // what never ran is removed at once, but not before the API server's pods are known: until
            // then it holds another UID of its name back
            let synced = self.synced;
            self.workers.retain(|worker| {
                worker.uid != was || (!worker.rejected && (has_sandbox(worker.stage) || !synced))
            });
        }
        let Some(uid) = is else { return };
        self.files.insert(pod, uid.clone());
        if let Some(worker) = self
            .workers
            .iter_mut()
            .find(|it| it.uid == *uid && it.removed == Removed::RunsOn)
        {
            worker.removed = Removed::No;
            return;
        }
        let adopted = node.runtime.of(uid).map(|sandbox| sandbox.is_running());
        let stage = match adopted {
            Some(true) => Stage::Running,
            Some(false) => Stage::BackOff(now),
            None if node.reach == Reach::BlackHole && !self.synced => {
                Stage::Volumes(now + BLACK_HOLE)
            }
            // a disk that is late, a network plugin that takes its time
            None if node.random.one_in(8) => {
                Stage::Volumes(now + node.random.between(60_000, 200_000))
            }
            None => Stage::Volumes(now + node.random.between(100, 300)),
        };
        let rejected = node.pods[pod].excludes && self.owns_parent(pod);
        let (uid, removed) = (uid.clone(), Removed::No);
        self.workers.push(Worker {
            pod,
            uid,
            file: true,
            stage,
            crashes: 0,
            rejected,
            removed,
        });
    }

    fn work(&mut self, at: usize, node: &mut Node<'_>) {
        let (now, services) = (node.now, self.has_services);
        let (earlier, rest) = self.workers.split_at_mut(at);
        let Some(worker) = rest.first_mut() else {
            return;
        };
        let pod = &node.pods[worker.pod];
        if let Removed::Ends(since) = worker.removed
            && now >= since + HOLD
        {
            node.runtime
                .stop(|sandbox| sandbox.uid == worker.uid, now + pod.ends_in);
        }
        if worker.rejected || worker.removed != Removed::No {
            return;
        }
        // a static pod waits for the worker of an earlier one of its name
        let must_wait = worker.file
            && earlier
                .iter()
                .any(|it| it.file && it.pod == worker.pod && !it.rejected);
        let has_api = worker.file || self.connected;
        let other_runs = node.runtime.runs(worker.pod, !worker.file);
        let uid = worker.uid.clone();
        worker.stage = match worker.stage {
            Stage::Volumes(at) if at > now => Stage::Volumes(at),
            Stage::Volumes(_) if must_wait || !has_api => Stage::Volumes(now + 1_000),
            Stage::Volumes(_) => Stage::Sandbox(now + node.random.between(50, 200)),
            Stage::Sandbox(at) if at > now => Stage::Sandbox(at),
            Stage::Sandbox(_) => {
                let id = node.runtime.id();
                let (pod, file) = (worker.pod, worker.file);
                node.runtime
                    .sandboxes
                    .retain(|sandbox| sandbox.pod != pod || sandbox.file != file || sandbox.ready);
                node.runtime.sandboxes.push(Sandbox {
                    id,
                    pod,
                    uid,
                    file,
                    ready: true,
                    container: None,
                });
                // some have an init container to run first, or a second one to start (seen: two
                // seconds)
                let longest = if node.random.one_in(6) { 2_500 } else { 300 };
                Stage::Make(now + node.random.between(20, longest))
            }
            Stage::Make(at) if at > now => Stage::Make(at),
            Stage::Make(_)
                if !worker.file && (!services || (pod.policy.slow_start && !self.connected)) =>
            {
                Stage::Make(now + 500)
            }
            Stage::Make(_) => {
                let id = node.runtime.id();
                match node.runtime.of(&uid) {
                    Some(sandbox) => {
                        let attempt = sandbox
                            .container
                            .as_ref()
                            .map_or(0, |container| container.attempt + 1);
                        let state = State::Created;
                        sandbox.container = Some(Container {
                            id,
                            attempt,
                            state,
                            ends_at: None,
                            since: now,
                        });
                        Stage::Start(now + node.random.between(30, 150))
                    }
                    None => Stage::Sandbox(now + 100),
                }
            }
            Stage::Start(at) if at > now => Stage::Start(at),
            Stage::Start(_) => match node
                .runtime
                .of(&uid)
                .and_then(|sandbox| sandbox.container.as_mut())
            {
                Some(container) if pod.policy.host_network && other_runs => {
                    container.state = State::Exited;
                    worker.crashes += 1;
                    node.said.push(format!(
                        "{} (twin: {}): its port is taken",
                        pod.key, worker.file
                    ));
                    let pause = [1_000, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000];
                    Stage::BackOff(
                        now + pause[usize::try_from(worker.crashes).unwrap().min(pause.len()) - 1],
                    )
                }
                Some(container) => {
                    (container.state, container.since) = (State::Running, now);
                    node.said
                        .push(format!("{} (twin: {}) runs", pod.key, worker.file));
                    Stage::Running
                }
                None => Stage::Sandbox(now + 100),
            },
            Stage::Running => match node.runtime.of(&uid) {
                Some(sandbox) if sandbox.is_running() => Stage::Running,
                Some(_) => Stage::BackOff(now + 1_000),
                None => Stage::Sandbox(now + 1_000),
            },
            Stage::BackOff(at) if at > now => Stage::BackOff(at),
            Stage::BackOff(_) => Stage::Make(now),
        };
        if !worker.file && self.connected {
            let ready = node
                .runtime
                .served_for(worker.pod, now)
                .is_some_and(|since| since > 500)
                && node.runtime.runs(worker.pod, false);
            if let Some(object) = node
                .objects
                .get_mut(&worker.pod)
                .filter(|object| object.uid == worker.uid)
            {
                object.ready = ready;
            }
        }
    }
}

fn has_sandbox(stage: Stage) -> bool {
    !matches!(stage, Stage::Volumes(_) | Stage::Sandbox(_))
}
