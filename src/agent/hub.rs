//! The loop that owns all that the agent knows: it takes what comes in, begins what is due, and waits.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{Namespace, ObjectReference};
use kube::api::{DynamicObject, PartialObjectMeta};
use kube::{Client, ResourceExt as _};
use kube_runtime::events::{EventType, Recorder, Reporter as Author};
use kube_runtime::watcher;
use serde_json::Value;
use tokio::time::{Instant, sleep_until, timeout};

use crate::agent::board::Board;
use crate::agent::echo::Echo;
use crate::agent::index::{Action, Captured, Index, Marked, Observed};
use crate::agent::marks::{Marks, Rules};
use crate::agent::report::{self, Done, News, Reporter, Supervisor};
use crate::agent::risks::{self, Risks};
use crate::agent::survey::{self, Kept, Memory, Surroundings};
use crate::agent::swap::{Change, Swaps};
use crate::agent::work::{self, Finished};
use crate::agent::{Error, Settings, record, watch};
use crate::client::gone::{self, Answer};
use crate::client::heard::{Heard, explain, explain_watch};
use crate::client::retry::Retry;
use crate::names::{FIELD_MANAGER, REJECTED_AT_RETURN, REJECTED_AT_RETURN_ADVICE, STORE_FAILED};
use crate::node::clock;
use crate::places::reports as files;
use crate::places::reports::AgentWord;
use crate::places::run::{self, RunDir};
use crate::places::store::{self, Store, Tidied};
use crate::reasons::{Refusal, Risk};
use crate::text::chain;
use crate::{capture, client};

/// How old the API server's word on who is Ready may be. It is heard with every watch, each half a minute.
const FRESH: Duration = Duration::from_secs(75);
/// How often the agent says that it lives, if it has nothing else to say. The supervisor waits for an hour.
const HEARTBEAT: Duration = Duration::from_mins(10);
/// How often the store is put in order.
const TIDY: Duration = Duration::from_hours(1);
/// How often the node is looked at again.
const SURVEY: Duration = Duration::from_mins(10);
/// How often a pod is captured whose volumes cannot be followed.
const UNFOLLOWED: Duration = Duration::from_mins(1);
/// How long the watch of namespaces must not fail to be well again: longer than its pauses.
const NAMESPACES_WELL: Duration = Duration::from_mins(2);
/// How long work in progress may take to end when the agent must.
const DRAIN: Duration = Duration::from_secs(5);

/// The agent at work.
pub struct Agent {
    settings: Rc<Settings>,
    client: Client,
    heard: Heard,
    store: Store,
    run: RunDir,
    board: Rc<Board>,
    start: Instant,
    index: Index,
    marks: Marks,
    reporter: Reporter,
    recorder: Recorder,
    supervisor: Supervisor,
    swaps: Swaps,
    /// Pods with a volume that cannot be followed, and when they are captured again.
    unfollowed: BTreeSet<String>,
    unfollowed_due: Option<Duration>,
    surroundings: Option<Rc<Surroundings>>,
    /// When the store is put in order; `None`: that is being done.
    tidy: Option<Duration>,
    /// When the node is looked at again; `None`: it is being looked at.
    survey: Option<Duration>,
    survey_retry: Retry,
    memory: Memory,
    /// The node was asked for once, well or not: checkpoints name its UID.
    is_recorded: bool,
    problems: Problems,
    /// What the last look at the node found, and what else is known of the node, as it was last told.
    risks: Risks,
    /// The run directory is on a disk.
    run_on_disk: bool,
    /// Pods whose newest checkpoint is damaged; `None`: the store was not put in order yet.
    damaged: Option<BTreeSet<String>>,
    word: Option<(AgentWord, Duration)>,
    /// When the watch last failed; it does not say when it is well again.
    watch_failed: Duration,
    /// The same of the watch of namespaces.
    namespaces_failed: Duration,
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
    namespaces: Option<String>,
    follow: Option<String>,
    store: Vec<String>,
    known: BTreeSet<String>,
}

impl Problems {
    fn iter(&self) -> impl Iterator<Item = &String> {
        let Self { run, look, keep, watch, namespaces, follow, store, known: _ } = self;
        run.iter().chain(look).chain(keep).chain(watch).chain(namespaces).chain(follow).chain(store)
    }

    fn all(&self) -> Vec<String> {
        self.iter().cloned().collect()
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
    /// Begins with what the store holds.
    pub fn new(
        settings: Settings,
        client: Client,
        heard: Heard,
        store: Store,
        run: RunDir,
        board: Rc<Board>,
    ) -> Result<Self, Error> {
        let index = Index::new(settings.retention, work::load(&store)?);
        let rules = Rules {
            limit: settings.namespaces.clone(),
            select: settings.select.clone(),
            namespaces: settings.namespace_selector.clone(),
            own: settings.pod_name.clone().map(|name| (settings.pod_namespace.clone(), name)),
        };
        let author = Author { controller: FIELD_MANAGER.into(), instance: Some(settings.node_name.clone()) };
        Ok(Self {
            recorder: Recorder::new(client.clone(), author),
            settings: Rc::new(settings),
            client,
            heard,
            store,
            run,
            board,
            start: Instant::now(),
            index,
            marks: Marks::new(rules),
            reporter: Reporter::default(),
            supervisor: Supervisor::default(),
            swaps: Swaps::new(),
            unfollowed: BTreeSet::new(),
            unfollowed_due: None,
            surroundings: None,
            tidy: Some(Duration::ZERO),
            survey: Some(Duration::ZERO),
            survey_retry: Retry::new(Duration::from_secs(2), SURVEY),
            memory: Memory::default(),
            is_recorded: false,
            problems: Problems::default(),
            risks: Risks::new(),
            run_on_disk: false,
            damaged: None,
            word: None,
            watch_failed: Duration::ZERO,
            namespaces_failed: Duration::ZERO,
            silent: false,
            work: FuturesUnordered::new(),
        })
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Works until `stop`; then what is being written is written to its end.
    pub async fn run(mut self, echoes: impl Stream<Item = Echo>, stop: impl Future<Output = ()>) -> Result<(), Error> {
        self.open_run_dir();
        let mut stop = pin!(stop);
        let mut watch = pin!(watch::pods(self.client.clone(), &self.settings.node_name));
        let mut echoes = pin!(echoes);
        let mut namespaces = match &self.settings.namespace_selector {
            Some(_) => watch::namespaces(self.client.clone()).boxed_local(),
            None => futures::stream::pending().boxed_local(),
        };
        loop {
            self.begin();
            let wake = self.start + self.wake();
            self.board.turned(&self.index, self.problems.iter().count(), &self.risks);
            self.board.pulse.expect(wake);
            tokio::select! {
                () = &mut stop => break,
                event = watch.next() => self.take(event.ok_or(Error::Ended)?),
                Some(echo) = echoes.next() => {
                    let now = self.now();
                    self.reporter.hear(echo, now);
                }
                event = namespaces.next() => self.take_namespace(event.ok_or(Error::Ended)?),
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
        if self.tidy.is_some_and(|due| due <= now) {
            self.tidy = None;
            let store = self.store.clone();
            let tidy = async move {
                // one that panicked has said so
                let tidied = tokio::task::spawn_blocking(move || store.tidy()).await;
                Finished::Tidied(tidied.unwrap_or_else(|_| Ok(Tidied::default())))
            };
            self.work.push(tidy.boxed_local());
        }
        if self.unfollowed_due.is_some_and(|due| due <= now) {
            self.unfollowed_due = None;
            for key in std::mem::take(&mut self.unfollowed) {
                self.index.swapped(&key);
            }
            self.read_reports();
        }
        if let Some(surroundings) = self.surroundings.clone().filter(|_| self.is_recorded) {
            for action in self.index.decide(now) {
                self.perform(action, &surroundings);
            }
        }
        if !self.heard.is_within(FRESH) || self.index.bootkubes().is_some() {
            self.memory.is_needed();
        }
        // before that, what an earlier agent reported of the node is the better word
        let is_known = self.is_recorded && self.damaged.is_some();
        if is_known {
            self.weigh();
        }
        if self.index.is_complete() && is_known {
            let keeps = |key: &str, uid: &str| self.index.has_stored(key, uid) || self.index.is_undecided(key, uid);
            let wall = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap_or_default();
            if let Some(job) = self.reporter.next(self.index.views(), keeps, &self.supervisor, &self.risks, now, wall) {
                let (client, node) = (self.client.clone(), self.settings.node_name.clone());
                let write = async move { Finished::Reported(Box::new(report::perform(client, node, job).await)) };
                self.work.push(write.boxed_local());
            }
        }
        self.listen();
        self.problems.log();
        self.say(now);
    }

    /// Puts together what of the node would keep its pods from coming back, and tells what is new of that.
    fn weigh(&mut self) {
        let mut risks = self.memory.risks.clone();
        let mut add = |risk, seen: Option<String>| {
            if let Some(seen) = seen {
                risks.insert(risk, seen);
            }
        };
        let on_disk = || format!("{} is not on a tmpfs", self.settings.run_dir.display());
        add(Risk::RunDirNotMemory, self.run_on_disk.then(on_disk));
        add(Risk::StoreDamaged, self.damaged.as_ref().and_then(risks::of_damage));
        let works_offline = self.surroundings.as_ref().is_some_and(|known| known.network_works_offline);
        let network = self.surroundings.as_ref().and_then(|_| risks::of_network(&self.index.lacking(), works_offline));
        add(Risk::NetworkNotCheckpointed, network);
        let status = self.supervisor.status.as_ref();
        add(Risk::CannotUnstick, status.and_then(|status| status.cannot_unstick.clone()));
        if risks == self.risks {
            return;
        }
        let before = std::mem::replace(&mut self.risks, risks);
        for (risk, seen) in &self.risks.clone() {
            if !before.contains_key(risk) {
                tracing::warn!(risk = risk.as_str(), "{}", risks::told(*risk, seen));
                self.publish_of_node(*risk, seen);
            }
        }
        for risk in before.keys().filter(|risk| !self.risks.contains_key(risk)) {
            tracing::info!(risk = risk.as_str(), "no longer so");
        }
    }

    /// When something is due at the latest.
    fn wake(&self) -> Duration {
        let now = self.now();
        let index = self.surroundings.as_ref().filter(|_| self.is_recorded).and_then(|_| self.index.wake(now));
        let heartbeat = self.word.as_ref().map(|(_, written)| written.saturating_add(HEARTBEAT));
        let times = [
            index,
            self.reporter.wake(now),
            self.survey,
            self.tidy,
            self.unfollowed_due,
            heartbeat,
            Some(now.saturating_add(FRESH)),
        ];
        times.into_iter().flatten().min().unwrap_or(now).max(now.saturating_add(Duration::from_millis(1)))
    }

    /// The watch said something.
    fn take(&mut self, event: Result<watcher::Event<DynamicObject>, watcher::Error>) {
        let now = self.now();
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                self.problems.watch = Some(format!("the watch of pods: {}", explain_watch(&error)));
                self.watch_failed = now;
                return;
            }
        };
        self.problems.watch = None;
        match event {
            watcher::Event::Init => {
                self.index.begin_list();
                self.marks.begin_list();
            }
            watcher::Event::InitApply(pod) | watcher::Event::Apply(pod) => {
                let Some(observed) = self.marks.observe(pod) else { return };
                self.see(observed, now);
            }
            watcher::Event::Delete(pod) => {
                let Some((key, uid)) = watch::identity(&pod) else { return };
                self.marks.forget(&key);
                self.index.delete(&key, &uid, now);
                self.swaps.retain(|_, other| other != uid);
            }
            watcher::Event::InitDone => {
                self.index.end_list(now);
                self.marks.end_list();
                let index = &self.index;
                self.swaps.retain(|key, uid| index.has(key, uid));
            }
        }
    }

    fn see(&mut self, observed: Observed, now: Duration) {
        let (key, lost) = (observed.key.clone(), observed.marked == Marked::No);
        self.index.see(observed, now);
        if lost {
            self.swaps.retain(|other, _| other != key);
        }
    }

    /// The watch of namespaces said something.
    fn take_namespace(&mut self, event: Result<watcher::Event<PartialObjectMeta<Namespace>>, watcher::Error>) {
        let now = self.now();
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                self.problems.namespaces = Some(format!(
                    "the watch of namespaces: {}; pods of namespaces that it has not told of are neither marked nor unmarked",
                    explain_watch(&error)
                ));
                self.namespaces_failed = now;
                return;
            }
        };
        self.problems.namespaces = None;
        let news = match event {
            watcher::Event::Init => {
                self.marks.begin_namespaces();
                Vec::new()
            }
            watcher::Event::InitApply(namespace) => {
                self.marks.list_namespace(namespace.name_any(), namespace.labels());
                Vec::new()
            }
            watcher::Event::InitDone => self.marks.end_namespaces(),
            watcher::Event::Apply(namespace) => self.marks.see_namespace(namespace.name_any(), namespace.labels()),
            watcher::Event::Delete(namespace) => {
                self.marks.forget_namespace(&namespace.name_any());
                Vec::new()
            }
        };
        for observed in news {
            self.see(observed, now);
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
                    let begun = Instant::now();
                    let captured = work::capture(&settings, &surroundings, store, &pod).await;
                    Finished::Captured { key, captured, took: begun.elapsed() }
                };
                self.work.push(capture.boxed_local());
            }
            Action::Ask { key, uid } => {
                let (client, node) = (self.client.clone(), self.settings.node_name.clone());
                let recorded = record::node_uid(&self.store);
                let ask = async move {
                    let (answer, why) = gone::ask(&client, &node, recorded.as_deref(), &key, &uid).await;
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
                        Ok(result) => result.map_err(|error| (error.reason(), chain(&error))),
                        Err(error) => Err((STORE_FAILED, error.to_string())),
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
                 fs.inotify.max_user_watches and max_user_instances"
            ));
            self.unfollowed.insert(key.to_owned());
            self.unfollowed_due.get_or_insert(self.start.elapsed().saturating_add(UNFOLLOWED));
        }
    }

    /// Work ended.
    fn finish(&mut self, finished: Finished) {
        let now = self.now();
        match finished {
            Finished::Captured { key, captured, took } => {
                let new = self.is_new(&key, &captured);
                self.board.captured(&captured, new, took);
                if matches!(captured, Captured::Stored(_)) {
                    self.mend(&key);
                }
                self.tell(&key, &captured, new);
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
                    Err((kind, error)) => {
                        self.board.store_failed(kind);
                        tracing::warn!(pod, error, "cannot remove the checkpoint");
                    }
                }
                if result.is_ok() {
                    self.mend(&key);
                }
                self.index.removed(&key, &uid, result.is_ok(), now);
            }
            Finished::Reported(done) => {
                if let Done::Written { key, known, result: Ok(_), news } = &*done {
                    for News { reason, note } in news {
                        self.publish(key, &known.pod, EventType::Normal, reason, note);
                    }
                }
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
                let memory = self.memory.clone();
                let mut neighbours = self.index.neighbours();
                neighbours.is_heard &= self.heard.is_within(FRESH);
                let keep = async move {
                    Finished::Kept(survey::keep(&settings, &found, &client, &store, neighbours, memory).await)
                };
                self.work.push(keep.boxed_local());
            }
            Finished::Kept(Kept { absent, problems, memory, is_another }) => {
                if is_another && self.is_recorded {
                    self.index.swapped_all();
                }
                self.is_recorded = true;
                self.open_run_dir();
                self.memory = memory;
                self.problems.keep = problems;
                self.supervisor.absent = absent;
                let well = self.problems.look.is_empty() && self.problems.keep.is_empty();
                if well {
                    self.survey_retry.reset();
                }
                let pause = if well { SURVEY } else { self.survey_retry.pause() };
                self.survey = Some(now.saturating_add(pause));
            }
            Finished::Tidied(tidied) => {
                self.tidy = Some(now.saturating_add(TIDY));
                self.tidied(tidied);
            }
            Finished::Told(Ok(())) => {}
            Finished::Told(Err(error)) => tracing::debug!("cannot write an Event: {}", explain(&error)),
        }
    }

    /// No checkpoint of this pod is damaged any more.
    fn mend(&mut self, key: &str) {
        if let Some(damaged) = &mut self.damaged {
            damaged.remove(key);
        }
    }

    /// The store was put in order. A pod with a damaged checkpoint is captured anew.
    fn tidied(&mut self, tidied: Result<Tidied, store::Error>) {
        let tidied = tidied.unwrap_or_else(|error| Tidied { failed: vec![error], ..Tidied::default() });
        let Tidied { removed, aside, damaged, resealed, failed } = tidied;
        let known = self.damaged.get_or_insert_default();
        // one that did not see all of the store says nothing of the rest
        if failed.is_empty() && damaged.is_some() {
            known.clear();
        }
        known.extend(damaged.into_iter().flatten());
        for path in removed {
            tracing::info!(path = %path.display(), "removed: nobody needs it any more");
        }
        self.board.damaged(aside.len());
        for error in &failed {
            self.board.store_failed(error.reason());
        }
        for (key, path) in aside {
            let pod = key.replace('_', "/");
            tracing::warn!(pod, file = %path.display(), "a checkpoint is damaged and was set aside; the pod is captured anew");
            self.index.swapped(&key);
        }
        if resealed > 0 {
            tracing::info!(generations = resealed, "sealed with the first key");
        }
        let keys = self.store.keys_given().load();
        let problems = failed.iter().map(|error| chain(error)).chain(keys.errors().map(|error| chain(error)));
        self.problems.store = problems.collect();
    }

    /// Is this a generation that the store did not have?
    fn is_new(&self, key: &str, captured: &Captured) -> bool {
        let Captured::Stored(stored) = captured else { return false };
        let before = self.index.stored(key);
        before.is_none_or(|before| before.generation != stored.generation || before.uid != stored.uid)
    }

    /// Tells people what a capture came to: in the log, and a refusal beside the pod as well.
    fn tell(&mut self, key: &str, captured: &Captured, new: bool) {
        let pod = key.replace('_', "/");
        match captured {
            Captured::Stored(stored) if new => {
                tracing::info!(pod, generation = stored.generation, bytes = stored.size, "captured");
            }
            Captured::Stored(_) => {}
            Captured::Refused(reasons) => {
                let text = reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                tracing::warn!(pod, reasons = text, "would not come back on this node without the API server");
                let uid = self.index.views().find(|view| view.key == key).map(|view| view.uid.to_owned());
                let first = reasons.first().map(|reason| reason.refusal);
                let (name, advice) = (first.map(|it| it.to_string()), first.map(Refusal::advice));
                let note = format!("Not recoverable: {text} ({})", advice.unwrap_or_default());
                let (uid, name) = (uid.unwrap_or_default(), name.unwrap_or_default());
                self.publish(key, &uid, EventType::Warning, &name, &note);
            }
            Captured::Failed { reason, message } => {
                tracing::warn!(pod, reason, message, "capture failed; it is tried again");
            }
        }
    }

    /// Tells it beside the node, where `kubectl describe node` shows it.
    fn publish_of_node(&mut self, risk: Risk, seen: &str) {
        let regarding = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(self.settings.node_name.clone()),
            uid: record::current_uid(&self.store),
            ..ObjectReference::default()
        };
        self.tell_of(regarding, EventType::Warning, risk.as_str(), &risks::told(risk, seen));
    }

    /// Tells it beside the pod.
    fn publish(&mut self, key: &str, uid: &str, type_: EventType, reason: &str, note: &str) {
        let Some((namespace, name)) = key.split_once('_') else { return };
        let regarding = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(namespace.into()),
            name: Some(name.into()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        self.tell_of(regarding, type_, reason, note);
    }

    /// Writes an Event. The recorder makes a series of what is told again.
    fn tell_of(&mut self, regarding: ObjectReference, type_: EventType, reason: &str, note: &str) {
        let event = client::event(type_, reason, note, "Checkpoint");
        let recorder = self.recorder.clone();
        let publish = async move { Finished::Told(recorder.publish(&event, &regarding).await) };
        self.work.push(publish.boxed_local());
    }

    /// Logs when the API server falls silent and when it is heard again.
    fn listen(&mut self) {
        let now = self.now();
        if self.heard.is_within(now.saturating_sub(self.watch_failed)) {
            self.problems.watch = None;
        }
        if now.saturating_sub(self.namespaces_failed) > NAMESPACES_WELL {
            self.problems.namespaces = None;
        }
        let silent = !self.heard.is_within(FRESH) && now > FRESH;
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
        let opened = clock::boot_id().map_err(|error| format!("cannot tell which boot this is: {error}"));
        self.run_on_disk = false;
        let opened = opened.and_then(|boot| {
            self.run.open(&boot).map_err(|error| {
                self.run_on_disk = matches!(error, run::Error::NotMemory(_));
                chain(&error)
            })
        });
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
                self.board.supervised(&self.supervisor);
            }
            (Err(error), _) | (_, Err(error)) => tracing::warn!("{}", chain(&error)),
        }
    }

    /// Writes `agent.yaml` if it says something new, or if it is time to show that the agent lives.
    fn say(&mut self, now: Duration) {
        if self.problems.run.is_some() || !self.index.is_complete() && self.problems.all().is_empty() {
            return;
        }
        let rejected = self.rejected();
        let fresh = self.heard.is_within(FRESH);
        let risks = self.risks.iter().map(|(risk, seen)| (risk.to_string(), risks::told(*risk, seen))).collect();
        let problems = self.problems.all();
        let word = AgentWord { problems, risks, rejected, unheard: !fresh, ..self.index.word(fresh) };
        if self.word.as_ref().is_some_and(|(said, at)| *said == word && now.saturating_sub(*at) < HEARTBEAT) {
            return;
        }
        let heartbeat = u64::try_from(clock::boot_time().as_millis()).unwrap_or_default();
        if let Err(error) = self.run.write(files::AGENT, &AgentWord { heartbeat, ..word.clone() }) {
            self.problems.run = Some(chain(&error));
        }
        let before = self.word.replace((word, now)).map(|(word, _)| word.rejected).unwrap_or_default();
        for (key, uid) in self.rejected() {
            if before.get(&key) != Some(&uid) {
                tracing::error!(
                    pod = key.replace('_', "/"),
                    "the kubelet refused it when it came back; its twin stands in"
                );
                let note =
                    format!("Its kubelet refused it when it came back from an outage: {REJECTED_AT_RETURN_ADVICE}");
                self.publish(&key, &uid, EventType::Warning, REJECTED_AT_RETURN, &note);
            }
        }
    }

    /// Marked pods that came back from an outage and were refused by the kubelet for good: key and UID.
    fn rejected(&self) -> BTreeMap<String, String> {
        let outages = &self.supervisor.outages.outages;
        let in_this_boot = |key: &str, uid: &str| {
            outages.iter().any(|outage| outage.pods.get(key).is_some_and(|pod| pod.parent_uid == uid))
        };
        let came_back = |(key, uid): &(&str, &str)| in_this_boot(key, uid) || self.reporter.had_outage(key, uid);
        self.index.rejected().filter(came_back).map(|(key, uid)| (key.to_owned(), uid.to_owned())).collect()
    }
}
