//! What the operator does while it leads: one loop takes the events of the watches, and starts
//! whatever is due, one thing at a time. It is dropped, along with anything in progress, the moment
//! the Lease is lost.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use kube::Client;
use kube::api::DynamicObject;
use kube_runtime::events::{Recorder, Reporter};
use kube_runtime::watcher;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use crate::api::podcheckpointer::PodCheckpointerStatus;
use crate::client::heard::{explain, explain_watch};
use crate::client::retry::Retry;
use crate::names::{APPLIED, FINALIZER, OPERATOR_MANAGER};
use crate::operator::apply::{Failure, Round};
use crate::operator::counts::Counts;
use crate::operator::drift::Drift;
use crate::operator::kinds::{DAEMON_SET, Fingerprints, KINDS, Kind};
use crate::operator::process::Settings;
use crate::operator::status::{self, Applied};
use crate::operator::telemetry::Telemetry;
use crate::operator::watches::{Event, watches};
use crate::operator::work::{self, Outcome};
use crate::problems::Problems;

/// About how often everything is applied again: for kinds that are not watched, and for whatever
/// was missed.
const RESYNC: Duration = Duration::from_mins(10);
/// After a failure: the first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(5));
/// Changes of what the status shows within this time are written together.
const GATHER: Duration = Duration::from_secs(1);
/// About how long to wait between rounds of a removal.
const ROUND: Duration = Duration::from_secs(3);
/// The longest wait of the loop, so that its pulse goes on.
const TURN: Duration = Duration::from_mins(1);
/// Topic of the problems with the watch of the `PodCheckpointer`.
const SETTINGS_WATCH: &str = "PodCheckpointer";
/// Topic of the problems with the watch of the PodCheckpoints.
const CHECKPOINTS_WATCH: &str = "PodCheckpoint";

/// The operator that leads.
pub(crate) struct Leader {
    settings: Rc<Settings>,
    client: Client,
    recorder: Recorder,
    telemetry: Rc<Telemetry>,
    /// The `PodCheckpointer`; `None`: there is none, or it was not read yet.
    wanted: Option<DynamicObject>,
    /// The list of PodCheckpointers that is being read has not had it so far.
    is_unlisted: bool,
    drift: Drift,
    /// How far the settings are applied, with the generation of these settings; `None`: nothing was
    /// tried yet.
    applied: Option<(Option<i64>, Applied)>,
    /// The agents' DaemonSet as JSON.
    daemon_set: Option<Value>,
    checkpoints: Counts,
    /// When everything is applied again; `None`: there is nothing to apply.
    apply_due: Option<Instant>,
    /// Pauses after an apply or a round of a removal that failed.
    failures: Retry,
    /// When the next round of the removal is due.
    remove_due: Instant,
    rounds: Retry,
    /// A round of the removal found every node left that has to be waited for.
    nodes_left: bool,
    /// When the status is written; `None`: it is up to date.
    report_due: Option<Instant>,
    /// Pauses after a status that could not be written.
    reports: Retry,
    /// Watches that fail.
    problems: Problems,
    work: FuturesUnordered<LocalBoxFuture<'static, Outcome>>,
}

impl Leader {
    /// A leader that has read nothing yet.
    pub(crate) fn new(settings: Rc<Settings>, client: Client, telemetry: Rc<Telemetry>) -> Self {
        let now = Instant::now();
        let author = Reporter {
            controller: OPERATOR_MANAGER.into(),
            instance: settings.pod_name.clone(),
        };
        Self {
            settings,
            recorder: Recorder::new(client.clone(), author),
            client,
            telemetry,
            wanted: None,
            is_unlisted: false,
            drift: Drift::new(),
            applied: None,
            daemon_set: None,
            checkpoints: Counts::default(),
            apply_due: None,
            failures: Retry::new(PAUSES.0, PAUSES.1),
            remove_due: now,
            rounds: Retry::new(ROUND, ROUND),
            nodes_left: false,
            report_due: None,
            reports: Retry::new(PAUSES.0, PAUSES.1),
            problems: Problems::default(),
            work: FuturesUnordered::new(),
        }
    }

    /// Leads until it is dropped.
    pub(crate) async fn run(mut self) -> Infallible {
        let mut events = watches(&self.client);
        loop {
            self.begin();
            let now = Instant::now();
            let wake = self
                .wake()
                .min(now + TURN)
                .max(now + Duration::from_millis(1));
            self.telemetry.leads_until(wake);
            tokio::select! {
                Some(event) = events.next() => self.take(event),
                Some(outcome) = self.work.next(), if !self.work.is_empty() => self.finish(outcome),
                () = sleep_until(wake) => {}
            }
        }
    }

    /// When something is due next.
    fn wake(&self) -> Instant {
        let far = Instant::now() + TURN;
        // one thing at a time: nothing is due before the work in progress has ended
        if !self.work.is_empty() || self.wanted.is_none() {
            return far;
        }
        let removal = || self.has_finalizer().then_some(self.remove_due);
        let work = if self.is_ending() {
            removal()
        } else {
            self.apply_due
        };
        [work, self.report_due]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(far)
    }

    fn is_ending(&self) -> bool {
        self.wanted
            .as_ref()
            .is_some_and(|wanted| wanted.metadata.deletion_timestamp.is_some())
    }

    fn has_finalizer(&self) -> bool {
        let finalizers = self
            .wanted
            .as_ref()
            .and_then(|wanted| wanted.metadata.finalizers.as_ref());
        finalizers.into_iter().flatten().any(|one| one == FINALIZER)
    }

    fn generation(&self) -> Option<i64> {
        self.wanted
            .as_ref()
            .and_then(|wanted| wanted.metadata.generation)
    }

    /// Begins what is due, one thing at a time. The status comes first: it is short.
    fn begin(&mut self) {
        let Some(wanted) = self.wanted.clone().filter(|_| self.work.is_empty()) else {
            return;
        };
        let now = Instant::now();
        let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        if is_due(self.report_due) {
            self.report_due = None;
            self.report(&wanted);
        } else if self.is_ending() {
            // the removal deletes the PodCheckpoints, so it waits until they are read, unless they
            // cannot be
            let is_known = self.checkpoints.is_complete() || self.problems.has(CHECKPOINTS_WATCH);
            if self.has_finalizer() && self.remove_due <= now && is_known {
                self.remove(wanted);
            } else if !is_known {
                self.remove_due = now + GATHER;
            }
        } else if is_due(self.apply_due) {
            self.apply_due = None;
            self.apply(wanted);
        }
    }

    fn apply(&mut self, wanted: DynamicObject) {
        let (client, settings) = (self.client.clone(), self.settings.clone());
        if self.has_finalizer() {
            self.drift.begin_apply();
            self.work
                .push(work::apply(client, settings, wanted).boxed_local());
        } else {
            self.work
                .push(work::add_finalizer(client, wanted).boxed_local());
        }
    }

    fn remove(&mut self, wanted: DynamicObject) {
        let (client, settings) = (self.client.clone(), self.settings.clone());
        let round = work::remove(
            client,
            settings,
            wanted,
            self.checkpoints.names(),
            self.nodes_left,
        );
        self.work.push(round.boxed_local());
    }

    /// Writes the status, if it is not as it is shown.
    fn report(&mut self, wanted: &DynamicObject) {
        let Some((generation, applied)) = &self.applied else {
            return;
        };
        let before = wanted.data.get("status").cloned().unwrap_or_default();
        let before: PodCheckpointerStatus = serde_json::from_value(before).unwrap_or_default();
        let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
        let unfit = self.checkpoints.unfit_nodes();
        let observed = status::Observed {
            generation: *generation,
            applied,
            daemon_set: self.daemon_set.as_ref(),
            checkpoints: self.checkpoints.totals(),
            unfit: unfit.as_ref(),
        };
        let status = status::status(&observed, &before, now);
        self.telemetry.set_status(Some(status.clone()));
        if status != before {
            self.work
                .push(work::write_status(self.client.clone(), status).boxed_local());
        }
    }

    /// From now on the status shows this. What is new is logged and recorded as an Event.
    fn show(&mut self, applied: Applied, generation: Option<i64>) {
        if self
            .applied
            .as_ref()
            .is_none_or(|(_, shown)| *shown != applied)
        {
            match &applied {
                Applied::Yes(_) => tracing::info!("every object matches the spec"),
                Applied::No { reason, message } => tracing::warn!(reason, "{message}"),
                Applied::Removing(message) => tracing::info!("removing: {message}"),
            }
            if let Some(wanted) = self.wanted.clone() {
                let event = work::record(self.recorder.clone(), wanted, applied.clone());
                self.work.push(event.boxed_local());
            }
        }
        self.applied = Some((generation, applied));
        self.report_due = Some(Instant::now());
    }

    fn finish(&mut self, outcome: Outcome) {
        let now = Instant::now();
        match outcome {
            Outcome::Applied {
                generation,
                fingerprints,
                applied,
            } => {
                self.finish_apply(generation, fingerprints, applied, now);
            }
            Outcome::Removal { nodes_left, result } => {
                self.nodes_left = nodes_left;
                self.finish_removal(result, now);
            }
            // the watch shows the object with its finalizer, and everything else follows from that
            Outcome::Finalizer(Ok(())) | Outcome::Event(Ok(())) => {}
            Outcome::Finalizer(Err(Failure { reason, message })) => {
                self.apply_due = Some(now + self.failures.pause());
                self.show(Applied::No { reason, message }, self.generation());
            }
            Outcome::Status(Ok(())) => self.reports.reset(),
            Outcome::Status(Err(Failure { message, .. })) => {
                tracing::warn!("{message}");
                self.report_due = Some(now + self.reports.pause());
            }
            Outcome::Event(Err(error)) => {
                tracing::debug!("cannot record an Event: {}", explain(&error));
            }
        }
    }

    fn finish_apply(
        &mut self,
        generation: Option<i64>,
        fingerprints: Fingerprints,
        applied: Applied,
        now: Instant,
    ) {
        self.drift
            .end_apply(fingerprints, matches!(applied, Applied::Yes(_)));
        for kind in KINDS {
            self.repair(kind);
        }
        let pause = match &applied {
            Applied::No { reason, .. } => {
                self.telemetry.count_apply(reason);
                self.failures.pause()
            }
            Applied::Yes(_) | Applied::Removing(_) => {
                self.telemetry.count_apply(APPLIED);
                self.failures.reset();
                Retry::new(RESYNC, RESYNC).pause()
            }
        };
        self.apply_by(now + pause);
        self.show(applied, generation);
    }

    fn finish_removal(&mut self, result: Result<Round, Failure>, now: Instant) {
        let message = match result {
            Ok(Round::Done) => {
                tracing::info!("everything that belongs to the PodCheckpointer is removed");
                self.remove_due = now + PAUSES.1;
                return;
            }
            Ok(Round::Waits(message)) => {
                self.failures.reset();
                self.remove_due = now + self.rounds.pause();
                message
            }
            Err(Failure { reason: _, message }) => {
                self.remove_due = now + self.failures.pause();
                message
            }
        };
        self.show(Applied::Removing(message), self.generation());
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Settings(event) => {
                if let Some(event) = self.watched(SETTINGS_WATCH, event) {
                    self.take_settings(event);
                }
            }
            Event::Object(kind, event) => {
                if let Some(event) = self.watched(kind.kind, event) {
                    self.take_object(kind, event);
                }
            }
            Event::Checkpoint(event) => {
                let event = self.watched(CHECKPOINTS_WATCH, event);
                if event.is_some_and(|event| self.checkpoints.take(&event)) {
                    self.report_soon();
                }
            }
        }
    }

    /// The event, unless the watch failed.
    fn watched<E>(&mut self, about: &'static str, event: Result<E, watcher::Error>) -> Option<E> {
        let problem = event
            .as_ref()
            .err()
            .map(|error| format!("cannot be watched: {}", explain_watch(error)));
        self.problems.set(about, problem);
        event.ok()
    }

    /// Something that the status shows may have changed.
    fn report_soon(&mut self) {
        let due = Instant::now() + GATHER;
        self.report_due = Some(self.report_due.map_or(due, |earlier| earlier.min(due)));
    }

    /// Everything is applied again then, if not earlier.
    fn apply_by(&mut self, due: Instant) {
        self.apply_due = Some(self.apply_due.map_or(due, |earlier| earlier.min(due)));
    }

    fn take_settings(&mut self, event: watcher::Event<DynamicObject>) {
        match event {
            watcher::Event::Init => self.is_unlisted = true,
            watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
                self.is_unlisted = false;
                let key = |object: &DynamicObject| {
                    let metadata = &object.metadata;
                    let is_ending = metadata.deletion_timestamp.is_some();
                    (
                        metadata.uid.clone(),
                        metadata.generation,
                        is_ending,
                        metadata.finalizers.clone(),
                    )
                };
                if self
                    .wanted
                    .as_ref()
                    .is_none_or(|known| key(known) != key(&object))
                {
                    // what failed before may succeed with these settings
                    self.failures.reset();
                    let now = Instant::now();
                    (self.apply_due, self.remove_due) = (Some(now), now);
                }
                self.wanted = Some(object);
            }
            watcher::Event::Delete(_) => self.forget(),
            watcher::Event::InitDone => {
                if self.is_unlisted {
                    self.forget();
                }
                self.telemetry.settings_are_known();
            }
        }
    }

    /// There is no `PodCheckpointer`.
    fn forget(&mut self) {
        if self.wanted.take().is_some() {
            tracing::info!("the PodCheckpointer is gone: there is nothing to do");
        }
        self.telemetry.set_status(None);
        (self.applied, self.apply_due, self.report_due) = (None, None, None);
        self.nodes_left = false;
        self.drift.forget();
    }

    fn take_object(&mut self, kind: Kind, event: watcher::Event<DynamicObject>) {
        let object = match event {
            watcher::Event::Apply(object) | watcher::Event::InitApply(object) => Some(object),
            watcher::Event::Delete(_) => None,
            watcher::Event::Init | watcher::Event::InitDone => return,
        };
        self.drift.watched(kind, object.as_ref());
        if kind == DAEMON_SET {
            self.daemon_set = object.and_then(|set| serde_json::to_value(set).ok());
            self.report_soon();
        }
        if !self.is_ending() {
            self.repair(kind);
        }
    }

    /// Has everything applied again soon, if the object of this kind is not as it was applied.
    fn repair(&mut self, kind: Kind) {
        if !self.drift.is_changed(kind) {
            return;
        }
        let now = Instant::now();
        let pause = self.drift.pause(now);
        self.apply_by(now + pause);
        self.telemetry.count_repair(kind);
        tracing::info!(
            "{} was changed or deleted by another client: it is applied again",
            kind.named()
        );
    }
}
