//! The agent: captures the marked pods of its node while all is well, so that the supervisor can bring them back when
//! nothing is.
//!
//! ```text
//!   watch ─────┐                       ┌─► capture ─► store
//!   swaps ─────┼─► index (pure) ───────┼─► ask, remove
//!   results ───┘         │             └─► …whose results come back
//!                        ├─► agent.yaml (for the supervisor and the command line)
//!                        └─► report (pure) ─► PodCheckpoints, Events
//! ```
//! One loop owns all of it. Work runs beside it and comes back as a [`Finished`]; nothing is spawned that nobody waits
//! for. The API server's silence stops captures of what it does not tell, and removes nothing.

pub mod collect;
pub mod heard;
pub mod index;
pub mod install;
pub mod record;
pub mod report;
pub mod retry;
pub mod survey;
pub mod swap;
pub mod watch;

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::api::DynamicObject;
use kube_runtime::events::{Event, EventType, Recorder, Reporter as Author};
use kube_runtime::watcher;
use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::agent::heard::Heard;
use crate::agent::index::{Action, Answer, Captured, Index, Stored};
use crate::agent::record::Stranger;
use crate::agent::report::{Done, Reporter, Supervisor};
use crate::agent::retry::Retry;
use crate::agent::survey::{Kept, Surroundings, chain};
use crate::agent::swap::{Change, Swaps};
use crate::args::{AgentArguments, DecisionArguments, Invalid, LogFormat};
use crate::capture::{self, Reason, Sources};
use crate::checkpoint::NodeCheckpoint;
use crate::checkpoint::run::RunDir;
use crate::checkpoint::store::{self, Generation, Put, Store};
use crate::names::FIELD_MANAGER;
use crate::node::api::kube_client;
use crate::node::clock;
use crate::node::host::HostRoot;
use crate::report::{self as files, AgentWord};

/// How long one capture may take, all its waits together.
const CAPTURE_LIMIT: Duration = Duration::from_mins(1);
/// How old the API server's word on who is Ready may be. It is heard with every watch, each half a minute.
const FRESH: Duration = Duration::from_secs(75);
/// How often the agent says that it lives, if it has nothing else to say. The supervisor waits for an hour.
const HEARTBEAT: Duration = Duration::from_mins(10);
/// How often the node is looked at again.
const SURVEY: Duration = Duration::from_mins(10);
/// How often a pod is captured whose volumes cannot be followed.
const UNFOLLOWED: Duration = Duration::from_mins(1);
/// How long work in progress may take to end when the agent must.
const DRAIN: Duration = Duration::from_secs(5);

/// Why the agent cannot start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Settings that mean nothing.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The host's files cannot be reached.
    #[error("cannot reach the host's files")]
    Host(#[source] io::Error),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// How to reach the API server is not known.
    #[error("cannot tell how to reach the API server")]
    Credentials(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A client of the API server cannot be made.
    #[error("cannot make a client of the API server")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Changes of files cannot be followed.
    #[error("cannot follow changes of files (inotify)")]
    Follow(#[source] io::Error),
    /// What must go on for ever has ended.
    #[error("the watch of pods ended")]
    Ended,
}

/// Settings of the agent, validated. Paths are host paths.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The host's files.
    pub root: HostRoot,
    /// This node.
    pub node_name: String,
    /// Directory of the checkpoints.
    pub state_dir: PathBuf,
    /// Memory-backed directory of what is in force.
    pub run_dir: PathBuf,
    /// The kubelet's root directory.
    pub kubelet_dir: PathBuf,
    /// The kubelet's directory of static pod manifests, if given.
    pub manifest_dir: Option<PathBuf>,
    /// Socket of the container runtime, if given.
    pub cri_endpoint: Option<PathBuf>,
    /// Passed on to the supervisor.
    pub decision: DecisionArguments,
    /// Passed on to the supervisor.
    pub log_format: LogFormat,
    /// Image of the supervisor, if given; empty: none is installed.
    pub supervisor_image: Option<String>,
    /// Namespaces that we look after; none: all.
    pub namespaces: Vec<String>,
    /// How long a checkpoint outlives its deleted parent when no successor was captured.
    pub retention: Duration,
    /// Name of the agent's own pod.
    pub pod_name: Option<String>,
    /// Namespace of the agent's own pod.
    pub pod_namespace: String,
}

impl Settings {
    /// From flags and environment.
    pub fn new(arguments: AgentArguments, log_format: LogFormat) -> Result<Self, Error> {
        let AgentArguments {
            node,
            decision,
            kubeconfig: _,
            supervisor_image,
            namespaces,
            retention,
            pod_name,
            pod_namespace,
        } = arguments;
        let node_name = node.node_name()?;
        let root = node.host.host_root.clone().map_or_else(HostRoot::detect, |root| Ok(HostRoot::new(root)));
        Ok(Self {
            root: root.map_err(Error::Host)?,
            node_name,
            state_dir: node.host.state_dir,
            run_dir: node.host.run_dir,
            kubelet_dir: node.host.kubelet_dir,
            manifest_dir: node.host.manifest_dir,
            cri_endpoint: node.cri_endpoint,
            decision,
            log_format,
            supervisor_image,
            namespaces: namespaces.into_iter().filter(|name| !name.is_empty()).collect(),
            retention,
            pod_name,
            pod_namespace,
        })
    }
}

/// Runs with these flags until `stop`.
pub async fn start(
    arguments: AgentArguments,
    log_format: LogFormat,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let config = match &arguments.kubeconfig {
        Some(path) => {
            let kubeconfig =
                kube::config::Kubeconfig::read_from(path).map_err(|error| Error::Credentials(error.into()))?;
            let options = kube::config::KubeConfigOptions::default();
            kube::Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .map_err(|error| Error::Credentials(error.into()))?
        }
        None => kube::Config::incluster().map_err(|error| Error::Credentials(error.into()))?,
    };
    let settings = Settings::new(arguments, log_format)?;
    let client = kube_client(config, settings.root.clone()).map_err(|error| Error::Client(error.into()))?;
    run(settings, client, stop).await
}

/// Runs with this client until `stop`.
pub async fn run(settings: Settings, client: Client, stop: impl Future<Output = ()>) -> Result<(), Error> {
    let resolve = |path: &PathBuf| settings.root.resolve(path).map_err(Error::Host);
    let store = Store::new(resolve(&settings.state_dir)?);
    store.create()?;
    let _lock = store.lock("agent.lock")?;
    store.clean()?;
    let run = RunDir::new(resolve(&settings.run_dir)?, &settings.run_dir);
    let (client, heard) = heard::listen(client);
    tracing::info!(node = settings.node_name, root = %settings.root.path().display(), "watching");
    Agent::new(settings, client, heard, store, run)?.run(stop).await
}

/// What came of work.
enum Finished {
    Captured(String, Captured),
    Answered {
        key: String,
        uid: String,
        answer: Answer,
        why: Option<String>,
    },
    Removed {
        key: String,
        uid: String,
        result: Result<(), String>,
    },
    Reported(Box<Done>),
    Looked(Surroundings),
    Kept(Kept),
    /// A pod whose volumes cannot be followed is captured again.
    Again(String),
    Told(Result<(), kube::Error>),
}

struct Agent {
    settings: Rc<Settings>,
    client: Client,
    heard: Heard,
    store: Store,
    run: RunDir,
    start: Instant,
    index: Index,
    reporter: Reporter,
    recorder: Recorder,
    supervisor: Supervisor,
    swaps: Swaps,
    surroundings: Option<Rc<Surroundings>>,
    /// When the node is looked at again; `None`: it is being looked at.
    survey: Option<Duration>,
    survey_retry: Retry,
    stranger: Stranger,
    problems: Problems,
    word: Option<(AgentWord, Duration)>,
    silent: bool,
    work: FuturesUnordered<LocalBoxFuture<'static, Finished>>,
}

/// What is not in order, by where it was noticed; each is logged when it appears.
#[derive(Debug, Default)]
struct Problems {
    run: Option<String>,
    look: Vec<String>,
    keep: Vec<String>,
    watch: Option<String>,
    follow: Option<String>,
    known: BTreeSet<String>,
}

impl Problems {
    fn all(&self) -> Vec<String> {
        let Self { run, look, keep, watch, follow, known: _ } = self;
        run.iter().chain(look).chain(keep).chain(watch).chain(follow).cloned().collect()
    }

    fn log(&mut self) {
        let now: BTreeSet<String> = self.all().into_iter().collect();
        for problem in now.difference(&self.known) {
            tracing::warn!("{problem}");
        }
        self.known = now;
    }
}

impl Agent {
    fn new(settings: Settings, client: Client, heard: Heard, store: Store, run: RunDir) -> Result<Self, Error> {
        let index = Index::new(settings.retention, load(&store)?);
        let author = Author { controller: FIELD_MANAGER.into(), instance: Some(settings.node_name.clone()) };
        Ok(Self {
            recorder: Recorder::new(client.clone(), author),
            settings: Rc::new(settings),
            client,
            heard,
            store,
            run,
            start: Instant::now(),
            index,
            reporter: Reporter::default(),
            supervisor: Supervisor::default(),
            swaps: Swaps::new().map_err(Error::Follow)?,
            surroundings: None,
            survey: Some(Duration::ZERO),
            survey_retry: Retry::new(Duration::from_secs(2), SURVEY),
            stranger: Stranger::default(),
            problems: Problems::default(),
            word: None,
            silent: false,
            work: FuturesUnordered::new(),
        })
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        self.open_run_dir();
        let mut stop = pin!(stop);
        let mut watch = pin!(watch::pods(self.client.clone(), &self.settings.node_name));
        loop {
            self.begin();
            let wake = self.start + self.wake();
            tokio::select! {
                () = &mut stop => break,
                event = watch.next() => self.take(event.ok_or(Error::Ended)?),
                Some(finished) = self.work.next() => self.finish(finished),
                change = self.swaps.next() => self.change(&change.map_err(Error::Follow)?),
                () = sleep_until(wake) => {}
            }
        }
        tracing::info!("ending: what is being written is written to its end");
        let rest = async { while self.work.next().await.is_some() {} };
        // what only waits (retries, a silent API server) is of no use to a later agent
        let _ = timeout(DRAIN, rest).await;
        Ok(())
    }

    /// Begins all that is due.
    fn begin(&mut self) {
        let now = self.now();
        if self.survey.is_some_and(|due| due <= now) {
            self.survey = None;
            let (settings, before) = (self.settings.clone(), self.surroundings.clone());
            let look = async move { Finished::Looked(survey::look(&settings, before.as_deref()).await) };
            self.work.push(look.boxed_local());
        }
        if let Some(surroundings) = self.surroundings.clone() {
            for action in self.index.decide(now) {
                self.perform(action, &surroundings);
            }
        }
        if self.index.is_complete() {
            let has_stored = |key: &str, uid: &str| self.index.stored(key).is_some_and(|stored| stored.uid == uid);
            let wall = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap_or_default();
            if let Some(job) = self.reporter.next(self.index.views(), has_stored, &self.supervisor, now, wall) {
                let (client, node) = (self.client.clone(), self.settings.node_name.clone());
                let write = async move { Finished::Reported(Box::new(report::perform(client, node, job).await)) };
                self.work.push(write.boxed_local());
            }
        }
        self.listen();
        self.problems.log();
        self.say(now);
    }

    /// When something is due at the latest.
    fn wake(&self) -> Duration {
        let now = self.now();
        let index = self.surroundings.as_ref().and_then(|_| self.index.wake(now));
        let heartbeat = self.word.as_ref().map(|(_, written)| written.saturating_add(HEARTBEAT));
        let times = [index, self.reporter.wake(now), self.survey, heartbeat, Some(now.saturating_add(FRESH))];
        times.into_iter().flatten().min().unwrap_or(now).max(now.saturating_add(Duration::from_millis(1)))
    }

    /// The watch said something.
    fn take(&mut self, event: Result<watcher::Event<DynamicObject>, watcher::Error>) {
        let now = self.now();
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                self.problems.watch = Some(format!("the watch of pods: {}", chain(&error)));
                return;
            }
        };
        self.problems.watch = None;
        match event {
            watcher::Event::Init => self.index.begin_list(),
            watcher::Event::InitApply(pod) | watcher::Event::Apply(pod) => {
                let Some(observed) = watch::observe(pod, &self.settings.namespaces) else { return };
                let (key, lost) = (observed.key.clone(), !observed.marked);
                self.index.see(observed, now);
                if lost {
                    self.swaps.retain(|other, _| other != key);
                }
            }
            watcher::Event::Delete(pod) => {
                let Some((key, uid)) = watch::identity(&pod) else { return };
                self.index.delete(&key, &uid, now);
                self.swaps.retain(|_, other| other != uid);
            }
            watcher::Event::InitDone => {
                self.index.end_list(now);
                let index = &self.index;
                self.swaps.retain(|key, uid| index.has(key, uid));
            }
        }
    }

    /// A file changed.
    fn change(&mut self, change: &Change) {
        match change {
            Change::Volume(key) => self.index.swapped(key),
            Change::Reports => self.read_reports(),
            Change::All => {
                self.index.swapped_all();
                self.read_reports();
            }
        }
    }

    fn perform(&mut self, action: Action, surroundings: &Rc<Surroundings>) {
        match action {
            Action::Capture { key, object } => {
                let pod = serde_json::from_slice(&object).unwrap_or(Value::Null);
                self.follow(&key, &pod);
                let (settings, surroundings) = (self.settings.clone(), surroundings.clone());
                let store = self.store.clone();
                let capture = async move {
                    let captured = capture(&settings, &surroundings, store, &pod).await;
                    Finished::Captured(key, captured)
                };
                self.work.push(capture.boxed_local());
            }
            Action::Ask { key, uid } => {
                let (client, node) = (self.client.clone(), self.settings.node_name.clone());
                let recorded = record::node_uid(&self.store);
                let ask = async move {
                    let (answer, why) = collect::ask(&client, &node, recorded.as_deref(), &key, &uid).await;
                    Finished::Answered { key, uid, answer, why }
                };
                self.work.push(ask.boxed_local());
            }
            Action::Remove { key, uid } => {
                let store = self.store.clone();
                let remove = async move {
                    let name = key.clone();
                    let removal = tokio::task::spawn_blocking(move || store.remove(&name)).await;
                    let result = match removal {
                        Ok(result) => result.map_err(|error| chain(&error)),
                        Err(error) => Err(error.to_string()),
                    };
                    Finished::Removed { key, uid, result }
                };
                self.work.push(remove.boxed_local());
            }
        }
    }

    /// Follows the volumes of a pod, before they are read: a swap during the capture is noticed.
    fn follow(&mut self, key: &str, pod: &Value) {
        let uid = pod.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
        let volumes = capture::volume_dirs(pod, &self.settings.kubelet_dir);
        let real: Vec<PathBuf> = volumes.iter().filter_map(|(_, path)| self.settings.root.resolve(path).ok()).collect();
        if let Err(error) = self.swaps.follow(key, uid, &real) {
            self.problems.follow = Some(format!(
                "cannot follow the volumes of every pod, so some are captured once a minute ({error}): raise \
                 fs.inotify.max_user_watches"
            ));
            let key = key.to_owned();
            let again = async move {
                sleep(UNFOLLOWED).await;
                Finished::Again(key)
            };
            self.work.push(again.boxed_local());
        }
    }

    /// Work ended.
    fn finish(&mut self, finished: Finished) {
        let now = self.now();
        match finished {
            Finished::Captured(key, captured) => {
                self.tell(&key, &captured);
                self.index.captured(&key, captured, now);
            }
            Finished::Answered { key, uid, answer, why } => {
                let pod = key.replace('_', "/");
                match (answer, why) {
                    (Answer::Gone, _) => tracing::info!(pod, uid, "the API server says that the pod is gone"),
                    (_, Some(why)) => tracing::debug!(pod, uid, why, "not known whether the pod is gone"),
                    _ => {}
                }
                self.index.answered(&key, &uid, answer, now);
            }
            Finished::Removed { key, uid, result } => {
                let pod = key.replace('_', "/");
                match &result {
                    Ok(()) => tracing::info!(pod, uid, "removed the checkpoint"),
                    Err(error) => tracing::warn!(pod, error, "cannot remove the checkpoint"),
                }
                self.index.removed(&key, &uid, result.is_ok(), now);
            }
            Finished::Reported(done) => {
                if let Some(trouble) = self.reporter.done(*done, now) {
                    tracing::warn!("{trouble}");
                }
            }
            Finished::Looked(found) => {
                self.problems.look.clone_from(&found.problems);
                let differs = self.surroundings.as_ref().is_some_and(|known| known.kubelet != found.kubelet);
                if differs {
                    self.index.swapped_all();
                }
                let found = Rc::new(found);
                self.surroundings = Some(found.clone());
                let (settings, client, store) = (self.settings.clone(), self.client.clone(), self.store.clone());
                let stranger = std::mem::take(&mut self.stranger);
                let keep =
                    async move { Finished::Kept(survey::keep(&settings, &found, &client, &store, stranger).await) };
                self.work.push(keep.boxed_local());
            }
            Finished::Kept(Kept { absent, problems, stranger }) => {
                self.open_run_dir();
                self.stranger = stranger;
                self.problems.keep = problems;
                self.supervisor.absent = absent;
                let well = self.problems.look.is_empty() && self.problems.keep.is_empty();
                if well {
                    self.survey_retry.reset();
                }
                let pause = if well { SURVEY } else { self.survey_retry.pause() };
                self.survey = Some(now.saturating_add(pause));
            }
            Finished::Again(key) => self.index.swapped(&key),
            Finished::Told(Ok(())) => {}
            Finished::Told(Err(error)) => tracing::debug!(%error, "cannot write an Event"),
        }
    }

    /// Tells people what a capture came to: in the log, and a refusal beside the pod as well.
    fn tell(&mut self, key: &str, captured: &Captured) {
        let pod = key.replace('_', "/");
        match captured {
            Captured::Stored(stored) => {
                let before = self.index.stored(key);
                if before.is_none_or(|before| before.generation != stored.generation || before.uid != stored.uid) {
                    tracing::info!(pod, generation = stored.generation, bytes = stored.size, "captured");
                }
            }
            Captured::Refused(reasons) => {
                let text = reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                tracing::warn!(pod, reasons = text, "would not come back on this node without the API server");
                self.publish(key, reasons, &text);
            }
            Captured::Failed { reason, message } => {
                tracing::warn!(pod, reason, message, "capture failed; it is tried again");
            }
        }
    }

    fn publish(&mut self, key: &str, reasons: &[Reason], text: &str) {
        let Some((namespace, name)) = key.split_once('_') else { return };
        let uid = self.index.views().find(|view| view.key == key).map(|view| view.uid.to_owned());
        let regarding = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(namespace.into()),
            name: Some(name.into()),
            uid,
            ..ObjectReference::default()
        };
        let advice = reasons.first().map(|reason| reason.refusal.advice()).unwrap_or_default();
        let event = Event {
            type_: EventType::Warning,
            reason: reasons.first().map(|reason| reason.refusal.to_string()).unwrap_or_default(),
            // the API server refuses a note of more than a kibibyte
            note: Some(format!("Not recoverable: {text} ({advice})").chars().take(1000).collect()),
            action: "Capture".into(),
            secondary: None,
        };
        let recorder = self.recorder.clone();
        let publish = async move { Finished::Told(recorder.publish(&event, &regarding).await) };
        self.work.push(publish.boxed_local());
    }

    /// Logs when the API server falls silent and when it is heard again.
    fn listen(&mut self) {
        let silent = !self.heard.is_within(FRESH) && self.now() > FRESH;
        if silent != self.silent {
            self.silent = silent;
            if silent {
                let age = self.heard.age().map(|age| age.as_secs());
                tracing::warn!(
                    seconds = age,
                    "the API server is silent: nothing is removed, nothing is taken for Ready"
                );
            } else {
                tracing::info!("the API server is heard again");
            }
        }
    }

    /// Opens the run directory, or opens it again: somebody may have unmounted or removed it.
    fn open_run_dir(&mut self) {
        let opened =
            clock::boot_id(&self.settings.root).map_err(|error| format!("cannot tell which boot this is: {error}"));
        let opened = opened.and_then(|boot| self.run.open(&boot).map_err(|error| chain(&error)));
        if opened.is_ok()
            && let Err(error) = self.swaps.follow_reports(self.run.path())
        {
            self.problems.follow = Some(format!("cannot follow what the supervisor reports: {error}"));
        }
        self.problems.run = opened.err();
        self.read_reports();
    }

    fn read_reports(&mut self) {
        if self.problems.run.is_some() {
            return;
        }
        match (self.run.read(files::STATUS), self.run.read(files::OUTAGES)) {
            (Ok(status), Ok(outages)) => {
                self.supervisor.status = status;
                self.supervisor.outages = outages.unwrap_or_default();
            }
            (Err(error), _) | (_, Err(error)) => tracing::warn!("{}", chain(&error)),
        }
    }

    /// Writes `agent.yaml` if it says something new, or if it is time to show that the agent lives.
    fn say(&mut self, now: Duration) {
        if self.problems.run.is_some() || !self.index.is_complete() && self.problems.all().is_empty() {
            return;
        }
        let word = AgentWord { problems: self.problems.all(), ..self.index.word(self.heard.is_within(FRESH)) };
        if self.word.as_ref().is_some_and(|(said, at)| *said == word && now.saturating_sub(*at) < HEARTBEAT) {
            return;
        }
        let heartbeat = u64::try_from(clock::boot_time().as_millis()).unwrap_or_default();
        if let Err(error) = self.run.write(files::AGENT, &AgentWord { heartbeat, ..word.clone() }) {
            self.problems.run = Some(chain(&error));
        }
        self.word = Some((word, now));
    }
}

/// The newest generation of every pod in the store.
fn load(store: &Store) -> Result<Vec<Stored>, Error> {
    let mut all = Vec::new();
    for key in store.keys()? {
        let (newest, bad) = store.newest(&key)?;
        for error in bad {
            tracing::warn!("{}", chain(&error));
        }
        all.extend(newest.as_ref().map(stored));
    }
    Ok(all)
}

fn stored(generation: &Generation) -> Stored {
    describe(&generation.checkpoint, generation.number, generation.size)
}

fn describe(checkpoint: &NodeCheckpoint, generation: u64, size: u64) -> Stored {
    Stored {
        key: checkpoint.key(),
        uid: checkpoint.parent.uid.clone(),
        owner: checkpoint.parent.owner.as_ref().map(|owner| owner.uid.clone()),
        generation,
        digest: checkpoint.digest.clone(),
        size,
        captured: checkpoint.captured.wall.clone(),
        warnings: checkpoint.warnings.clone(),
    }
}

/// Captures a pod and stores what came of it.
async fn capture(settings: &Settings, surroundings: &Surroundings, store: Store, pod: &Value) -> Captured {
    let sources = Sources {
        root: &settings.root,
        kubelet_dir: &settings.kubelet_dir,
        run_dir: &settings.run_dir,
        node_name: &settings.node_name,
        runtime: &surroundings.runtime,
        settings: &surroundings.kubelet,
    };
    let failed = |reason: &'static str, message: String| Captured::Failed { reason, message };
    let checkpoint = match timeout(CAPTURE_LIMIT, capture::capture(pod, &sources)).await {
        Ok(Ok(checkpoint)) => checkpoint,
        Ok(Err(capture::Error::Refused(reasons))) => return Captured::Refused(reasons),
        Ok(Err(error)) => return failed("CaptureFailed", chain(&error)),
        Err(_) => return failed("CaptureFailed", format!("not done within {CAPTURE_LIMIT:?}")),
    };
    let put = tokio::task::spawn_blocking(move || put(&store, &checkpoint)).await;
    match put {
        Ok(Ok(stored)) => Captured::Stored(stored),
        Ok(Err(error)) => failed(if error.is_full() { "StoreFull" } else { "StoreFailed" }, chain(&error)),
        Err(error) => failed("StoreFailed", error.to_string()),
    }
}

fn put(store: &Store, checkpoint: &NodeCheckpoint) -> Result<Stored, store::Error> {
    match store.put(checkpoint)? {
        Put::Written(generation, size) => Ok(describe(checkpoint, generation, size)),
        // what the store has, not what would have been written: the digest covers the time of capture
        Put::Unchanged(number) => {
            let (newest, _) = store.newest(&checkpoint.key())?;
            Ok(newest.as_ref().map_or_else(|| describe(checkpoint, number, 0), stored))
        }
    }
}
