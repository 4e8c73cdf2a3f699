//! The loop that owns the state of the agent: it takes in events and results, starts what is due,
//! and waits.

mod events;
mod finished;
mod run_dir;
mod work;

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DynamicObject, PartialObjectMeta};
use kube::{Client, ResourceExt as _};
use kube_runtime::events::{Recorder, Reporter as Author};
use kube_runtime::watcher;
use tokio::time::{Instant, sleep_until, timeout};

use crate::agent::error::Error;
use crate::agent::event_loop::finished::Finished;
use crate::agent::index::Index;
use crate::agent::marks::{Marks, Rules};
use crate::agent::observed::{self, Marked, Observed};
use crate::agent::published::echo::Echo;
use crate::agent::published::ledger::Ledger;
use crate::agent::published::shown::SupervisorReports;
use crate::agent::risks::{self, Risks};
use crate::agent::settings::Settings;
use crate::agent::supervision::{self, Supervision};
use crate::agent::surroundings::Surroundings;
use crate::agent::swap::{Change, Swaps};
use crate::agent::telemetry::Telemetry;
use crate::agent::upkeep::Memory;
use crate::agent::{captures, watch};
use crate::client::heard::{Heard, explain_watch};
use crate::client::retry::Retry;
use crate::files::lock;
use crate::names::{FIELD_MANAGER, SUPERVISOR_LOCK};
use crate::places::reports::{AGENT, AgentReport};
use crate::places::run::RunDir;
use crate::places::store::Store;
use crate::pod::id::PodId;
use crate::problems::Problems;
use crate::reasons::Risk;

/// How old the API server's report on which pods are Ready may be. Every watch renews it, about
/// each half minute.
const FRESH: Duration = Duration::from_secs(75);
/// How often the store is put in order.
const TIDY: Duration = Duration::from_hours(1);
/// How often the node is surveyed again.
const SURVEY: Duration = Duration::from_mins(10);
/// When the ages of checkpoints are first recorded: by then the pods are captured.
const FIRST_AGES: Duration = Duration::from_mins(2);
/// How long work in progress may take to finish when the agent stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Topics of problems.
const RUN_DIRECTORY: &str = "run directory";
const SURROUNDINGS: &str = "kubelet and runtime";
const UPKEEP: &str = "upkeep of the node";
const POD_WATCH: &str = "watch of pods";
const NAMESPACE_WATCH: &str = "watch of namespaces";
const VOLUME_CHANGES: &str = "changes of volumes";
const REPORT_CHANGES: &str = "changes of reports";
const STORE: &str = "store";
const AGE: &str = "ages of checkpoints";

/// The running agent.
pub(crate) struct Agent {
    settings: Rc<Settings>,
    client: Client,
    heard: Heard,
    store: Store,
    run: RunDir,
    telemetry: Rc<Telemetry>,
    start: Instant,
    index: Index,
    marks: Marks,
    ledger: Ledger,
    recorder: Recorder,
    supervisor: SupervisorReports,
    supervision: Supervision,
    swaps: Swaps,
    /// Pods with a volume that cannot be followed, and when they are captured again.
    unfollowed: BTreeSet<PodId>,
    unfollowed_due: Option<Duration>,
    surroundings: Option<Rc<Surroundings>>,
    /// When the store is put in order next; `None`: in progress.
    tidy: Option<Duration>,
    /// When the ages of checkpoints are recorded next.
    ages: Option<Duration>,
    /// When the node is surveyed next; `None`: in progress.
    survey: Option<Duration>,
    survey_retry: Retry,
    memory: Memory,
    /// The node object was requested once, with or without success: checkpoints name its UID.
    is_recorded: bool,
    problems: Problems,
    /// The risks of the node, as they were last reported.
    risks: Risks,
    /// The run directory is on a disk, not in memory.
    run_on_disk: bool,
    /// Pods whose newest checkpoint is damaged; `None`: the store was not put in order yet.
    damaged: Option<BTreeSet<PodId>>,
    written: Option<(AgentReport, Duration)>,
    /// When the watch of pods last failed. Nothing reports when it has recovered.
    watch_failed: Duration,
    /// The same of the watch of namespaces.
    namespaces_failed: Duration,
    silent: bool,
    work: FuturesUnordered<LocalBoxFuture<'static, Finished>>,
}

impl Agent {
    /// Starts with what the store holds.
    pub(crate) fn new(
        settings: Settings,
        client: Client,
        heard: Heard,
        store: Store,
        run: RunDir,
        telemetry: Rc<Telemetry>,
    ) -> Result<Self, Error> {
        let index = Index::new(settings.arguments.retention, captures::load(&store)?);
        let rules = Rules {
            limit: settings
                .arguments
                .namespaces
                .iter()
                .filter(|name| !name.is_empty())
                .cloned()
                .collect(),
            select: settings.arguments.select.clone(),
            namespaces: settings.arguments.namespace_selector.clone(),
            own: settings
                .arguments
                .pod_name
                .clone()
                .map(|name| (settings.arguments.pod_namespace.clone(), name)),
        };
        // of this boot: the run directory is in memory
        let before = run.read::<AgentReport>(AGENT).ok().flatten();
        let author = Author {
            controller: FIELD_MANAGER.into(),
            instance: Some(settings.node_name.clone()),
        };
        Ok(Self {
            recorder: Recorder::new(client.clone(), author),
            settings: Rc::new(settings),
            client,
            heard,
            store,
            run,
            telemetry,
            start: Instant::now(),
            index,
            marks: Marks::new(rules),
            ledger: Ledger::default(),
            supervisor: SupervisorReports::default(),
            supervision: Supervision::after(before.as_ref()),
            swaps: Swaps::new(),
            unfollowed: BTreeSet::new(),
            unfollowed_due: None,
            surroundings: None,
            tidy: Some(Duration::ZERO),
            ages: Some(FIRST_AGES),
            survey: Some(Duration::ZERO),
            survey_retry: Retry::new(Duration::from_secs(2), SURVEY),
            memory: Memory::default(),
            is_recorded: false,
            problems: Problems::default(),
            risks: Risks::new(),
            run_on_disk: false,
            damaged: None,
            written: None,
            watch_failed: Duration::ZERO,
            namespaces_failed: Duration::ZERO,
            silent: false,
            work: FuturesUnordered::new(),
        })
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Runs until `stop`; then finishes what is being written.
    pub(crate) async fn run(
        mut self,
        echoes: impl Stream<Item = Echo>,
        stop: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        self.open_run_dir();
        let mut stop = pin!(stop);
        let mut watch = pin!(watch::pods(self.client.clone(), &self.settings.node_name));
        let mut echoes = pin!(echoes);
        let mut namespaces = match &self.settings.arguments.namespace_selector {
            Some(_) => watch::namespaces(self.client.clone()).boxed_local(),
            None => futures::stream::pending().boxed_local(),
        };
        loop {
            self.begin();
            let wake = self.start + self.wake();
            self.telemetry
                .turned(&self.index, self.problems.texts().len(), &self.risks);
            self.telemetry.pulse.expect(wake);
            tokio::select! {
                () = &mut stop => break,
                event = watch.next() => self.take(event.ok_or(Error::Ended)?),
                Some(echo) = echoes.next() => {
                    let now = self.now();
                    self.ledger.hear(echo, now);
                }
                event = namespaces.next() => self.take_namespace(event.ok_or(Error::Ended)?),
                Some(finished) = self.work.next() => self.finish(finished),
                change = self.swaps.next() => self.change(&change.map_err(Error::Follow)?),
                () = sleep_until(wake) => {}
            }
        }
        tracing::info!("stopping: finishing what is being written");
        let rest = async { while self.work.next().await.is_some() {} };
        // requests that only wait (retries, a silent API server) are of no use to a later agent
        let _ = timeout(DRAIN, rest).await;
        Ok(())
    }

    /// Starts everything that is due.
    fn begin(&mut self) {
        let now = self.now();
        if self.survey.take_if(|due| *due <= now).is_some() {
            self.survey_node();
        }
        if self.tidy.take_if(|due| *due <= now).is_some() {
            self.tidy_store();
        }
        if self.ages.take_if(|due| *due <= now).is_some() {
            self.record_ages(now);
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
        if !self.heard.is_within(FRESH) || self.index.census().bootkube_checkpointer().is_some() {
            self.memory.keep_leftovers();
        }
        // until then, what an earlier agent reported about the node is more complete
        let is_known = self.is_recorded && self.damaged.is_some();
        if is_known {
            self.check_supervisor(now);
            self.assess_risks();
        }
        if self.index.is_complete() && is_known {
            let keeps = |key: &PodId, uid: &str| {
                self.index.has_stored(key, uid) || self.index.is_undecided(key, uid)
            };
            let wall = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second())
                .unwrap_or_default();
            if let Some(job) = self.ledger.next(
                self.index.views(),
                keeps,
                &self.supervisor,
                &self.risks,
                now,
                wall,
            ) {
                self.write(job);
            }
        }
        self.note_silence();
        self.write_agent_file(now);
    }

    /// Looks whether a supervisor works. What cannot be learned changes nothing.
    fn check_supervisor(&mut self, now: Duration) {
        if !self.supervision.is_due(now) {
            return;
        }
        if let Ok(is_running) = lock::is_locked(&self.run.path().join(SUPERVISOR_LOCK)) {
            let fault = supervision::fault(is_running, &self.supervisor);
            self.supervision.see(fault, now);
        }
    }

    /// Collects what on the node would prevent the recovery of its pods. Logs changes, and records
    /// an Event for each new risk.
    fn assess_risks(&mut self) {
        let mut risks = self.memory.risks.clone();
        let mut add = |risk, seen: Option<String>| {
            if let Some(seen) = seen {
                risks.insert(risk, seen);
            }
        };
        let on_disk = || {
            format!(
                "{} is not on a tmpfs",
                self.settings.host().run_dir.display()
            )
        };
        add(Risk::NoSupervisor, self.supervision.risk());
        add(Risk::RunDirNotMemory, self.run_on_disk.then(on_disk));
        add(
            Risk::StoreDamaged,
            self.damaged.as_ref().and_then(risks::of_damage),
        );
        let works_offline = self
            .surroundings
            .as_ref()
            .is_some_and(|known| known.network_works_offline);
        let network = self
            .surroundings
            .as_ref()
            .and_then(|_| risks::of_network(&self.index.lacking(), works_offline));
        add(Risk::NetworkNotCheckpointed, network);
        let status = self.supervisor.status.as_ref();
        add(
            Risk::CannotUnstick,
            status.and_then(|status| status.cannot_unstick.clone()),
        );
        if risks == self.risks {
            return;
        }
        let before = std::mem::replace(&mut self.risks, risks);
        for (risk, seen) in &self.risks.clone() {
            if !before.contains_key(risk) {
                tracing::warn!(risk = risk.as_str(), "{}", risks::message(*risk, seen));
                self.record_node_event(*risk, seen);
            }
        }
        for risk in before.keys().filter(|risk| !self.risks.contains_key(risk)) {
            tracing::info!(risk = risk.as_str(), "no longer a risk");
        }
    }

    /// The latest time at which something is due.
    fn wake(&self) -> Duration {
        let now = self.now();
        let index = self
            .surroundings
            .as_ref()
            .filter(|_| self.is_recorded)
            .and_then(|_| self.index.wake(now));
        let heartbeat = self
            .written
            .as_ref()
            .map(|(_, written)| written.saturating_add(run_dir::HEARTBEAT));
        let times = [
            index,
            self.ledger.wake(now),
            self.survey,
            self.tidy,
            self.ages,
            self.unfollowed_due,
            heartbeat,
            self.supervision.wake(),
            Some(now.saturating_add(FRESH)),
        ];
        times
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(now)
            .max(now.saturating_add(Duration::from_millis(1)))
    }

    /// Takes in an event of the watch of pods.
    fn take(&mut self, event: Result<watcher::Event<DynamicObject>, watcher::Error>) {
        let now = self.now();
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                self.problems.set(
                    POD_WATCH,
                    Some(format!("the watch of pods: {}", explain_watch(&error))),
                );
                self.watch_failed = now;
                return;
            }
        };
        self.problems.set(POD_WATCH, None);
        match event {
            watcher::Event::Init => {
                self.index.begin_list();
                self.marks.begin_list();
            }
            watcher::Event::InitApply(pod) | watcher::Event::Apply(pod) => {
                let Some(observed) = self.marks.observe(pod) else {
                    return;
                };
                self.see(observed, now);
            }
            watcher::Event::Delete(pod) => {
                let Some((key, uid)) = observed::identity(&pod) else {
                    return;
                };
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
            self.swaps.retain(|other, _| *other != key);
        }
    }

    /// Takes in an event of the watch of namespaces.
    fn take_namespace(
        &mut self,
        event: Result<watcher::Event<PartialObjectMeta<Namespace>>, watcher::Error>,
    ) {
        let now = self.now();
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                let problem = format!(
                    "the watch of namespaces: {}; pods in namespaces that it has not reported are neither marked nor unmarked",
                    explain_watch(&error)
                );
                self.problems.set(NAMESPACE_WATCH, Some(problem));
                self.namespaces_failed = now;
                return;
            }
        };
        self.problems.set(NAMESPACE_WATCH, None);
        let news = match event {
            watcher::Event::Init => {
                self.marks.begin_namespaces();
                Vec::new()
            }
            watcher::Event::InitApply(namespace) => {
                self.marks
                    .list_namespace(namespace.name_any(), namespace.labels());
                Vec::new()
            }
            watcher::Event::InitDone => self.marks.end_namespaces(),
            watcher::Event::Apply(namespace) => self
                .marks
                .see_namespace(namespace.name_any(), namespace.labels()),
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
}
