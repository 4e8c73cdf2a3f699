//! What the operator does while it leads: one loop that takes what the watches tell, decides what is due, and does one thing
//! at a time beside it. It is dropped, with whatever it was doing, in the moment the Lease is lost.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use futures::stream::{FuturesUnordered, LocalBoxStream, SelectAll};
use futures::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::{Client, Resource as _};
use kube_runtime::events::{EventType, Recorder, Reporter};
use kube_runtime::{WatchStreamExt as _, watcher};
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use crate::agent::heard::{explain, explain_watch};
use crate::agent::retry::Retry;
use crate::api::PodCheckpoint;
use crate::api::podcheckpointer::{Checkpoints, PodCheckpointer, PodCheckpointerSpec, PodCheckpointerStatus};
use crate::names::{APPLIED, FINALIZER, INSTALLATION, OPERATOR_MANAGER};
use crate::node::api;
use crate::operator::Settings;
use crate::operator::apply::{self, Failure, Fingerprints, Round};
use crate::operator::board::Board;
use crate::operator::kinds::{DAEMON_SET, KINDS, Kind, POD_MONITOR, fingerprint};
use crate::operator::settings::{self, Checked};
use crate::operator::status::{self, Applied};

/// The one `PodCheckpointer`.
const DEFAULT: &str = "default";
/// Seconds after which the server ends a watch and it goes on from where it was: a dead connection is noticed by then.
const WATCH_SECONDS: u32 = 240;
/// PodCheckpoints in a page of the first list.
const PAGE: u32 = 100;
/// Everything is applied again so often, about: for kinds that are not watched, and for whatever was missed.
const RESYNC: Duration = Duration::from_mins(10);
/// After a failure: the first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(5));
/// Between repairs of what somebody else changes again and again: the first pause, and the longest.
const REPAIRS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_mins(1));
/// Repairs that far apart have nothing to do with each other.
const CALM: Duration = Duration::from_mins(2);
/// What changes within this time is shown at once.
const GATHER: Duration = Duration::from_secs(1);
/// Between rounds of a removal, about.
const ROUND: Duration = Duration::from_secs(3);
/// How long the loop may wait at most, for its pulse.
const TURN: Duration = Duration::from_mins(1);

enum Event {
    Settings(Result<watcher::Event<DynamicObject>, watcher::Error>),
    Owned(Kind, Result<watcher::Event<DynamicObject>, watcher::Error>),
    Checkpoint(Result<watcher::Event<DynamicObject>, watcher::Error>),
}

/// What came of work.
enum Done {
    Applied { generation: Option<i64>, fingerprints: Fingerprints, applied: Applied },
    Finalized(Result<(), Failure>),
    Removed { swept: bool, result: Result<Round, Failure> },
    Reported(Result<(), Failure>),
    Told(Result<(), kube::Error>),
}

/// The leader.
pub(crate) struct Leader {
    settings: Rc<Settings>,
    client: Client,
    recorder: Recorder,
    board: Rc<Board>,
    /// The `PodCheckpointer`; `None`: there is none, or it is not known yet.
    wanted: Option<DynamicObject>,
    /// It was not told of since the list began that is being read.
    unlisted: bool,
    /// Each object as it was after it was last applied.
    made: Fingerprints,
    /// Each object as it was last told of.
    found: BTreeMap<&'static str, Option<u64>>,
    /// It is being applied: what is told of meanwhile is most likely that.
    applying: bool,
    applied: Option<(Option<i64>, Applied)>,
    daemon_set: Option<Value>,
    checkpoints: Counts,
    /// When everything is applied again; `None`: there is nothing to apply.
    apply_due: Option<Instant>,
    failures: Retry,
    repairs: Retry,
    repaired: Option<Instant>,
    /// When the removal goes on.
    remove_due: Instant,
    rounds: Retry,
    /// Every node that had to be left was.
    swept: bool,
    report_due: Option<Instant>,
    reports: Retry,
    /// What was told of watches that fail.
    told: BTreeMap<&'static str, String>,
    work: FuturesUnordered<LocalBoxFuture<'static, Done>>,
}

impl Leader {
    /// Knows nothing yet.
    pub(crate) fn new(settings: Rc<Settings>, client: Client, board: Rc<Board>) -> Self {
        let now = Instant::now();
        let author = Reporter { controller: OPERATOR_MANAGER.into(), instance: settings.pod_name.clone() };
        Self {
            settings,
            recorder: Recorder::new(client.clone(), author),
            client,
            board,
            wanted: None,
            unlisted: false,
            made: Fingerprints::new(),
            found: BTreeMap::new(),
            applying: false,
            applied: None,
            daemon_set: None,
            checkpoints: Counts::default(),
            apply_due: None,
            failures: Retry::new(PAUSES.0, PAUSES.1),
            repairs: Retry::new(REPAIRS.0, REPAIRS.1),
            repaired: None,
            remove_due: now,
            rounds: Retry::new(ROUND, ROUND),
            swept: false,
            report_due: None,
            reports: Retry::new(PAUSES.0, PAUSES.1),
            told: BTreeMap::new(),
            work: FuturesUnordered::new(),
        }
    }

    /// Acts for ever.
    pub(crate) async fn run(mut self) -> Infallible {
        let mut events = watches(&self.client);
        loop {
            self.begin();
            let now = Instant::now();
            let wake = self.wake().min(now + TURN).max(now + Duration::from_millis(1));
            self.board.acts(wake);
            tokio::select! {
                Some(event) = events.next() => self.take(event),
                Some(done) = self.work.next(), if !self.work.is_empty() => self.finish(done),
                () = sleep_until(wake) => {}
            }
        }
    }

    fn wake(&self) -> Instant {
        let far = Instant::now() + TURN;
        // while something is being done, its end is waited for
        if !self.work.is_empty() || self.wanted.is_none() {
            return far;
        }
        let removal = || self.is_finalized().then_some(self.remove_due);
        let work = if self.is_ending() { removal() } else { self.apply_due };
        [work, self.report_due].into_iter().flatten().min().unwrap_or(far)
    }

    fn is_ending(&self) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| wanted.metadata.deletion_timestamp.is_some())
    }

    fn is_finalized(&self) -> bool {
        let finalizers = self.wanted.as_ref().and_then(|wanted| wanted.metadata.finalizers.as_ref());
        finalizers.into_iter().flatten().any(|one| one == FINALIZER)
    }

    /// Begins what is due, one thing at a time. The status comes first: it is short.
    fn begin(&mut self) {
        let Some(wanted) = self.wanted.clone().filter(|_| self.work.is_empty()) else { return };
        let now = Instant::now();
        let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        if is_due(self.report_due) {
            self.report_due = None;
            self.report(&wanted);
        } else if self.is_ending() {
            // which PodCheckpoints there are must be known, if it can be
            let is_known = self.checkpoints.is_complete || self.told.contains_key("PodCheckpoint");
            if self.is_finalized() && self.remove_due <= now && is_known {
                self.remove(&wanted);
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
        if !self.is_finalized() {
            let work = async move { Done::Finalized(apply::finalize(&client, &wanted, true).await) };
            self.work.push(work.boxed_local());
            return;
        }
        let generation = wanted.metadata.generation;
        self.applying = true;
        self.found.clear();
        let work = async move {
            let (fingerprints, applied) = match checked(&client, &settings, &wanted).await {
                Err(Failure { reason, message }) => (Fingerprints::new(), Applied::No { reason, message }),
                Ok(checked) => apply::apply(&client, &checked).await,
            };
            Done::Applied { generation, fingerprints, applied }
        };
        self.work.push(work.boxed_local());
    }

    fn remove(&mut self, wanted: &DynamicObject) {
        let (client, settings, wanted) = (self.client.clone(), self.settings.clone(), wanted.clone());
        let checkpoints = self.checkpoints.names();
        let mut swept = self.swept;
        let work = async move {
            let round = async {
                // a spec that cannot be read says nothing of where the agents are
                let spec = settings::spec(&wanted).unwrap_or_default();
                let image = image(&client, &settings, &spec).await?;
                let retiring = Checked::retiring(spec, image);
                let round = apply::remove(&client, &retiring, &checkpoints, &mut swept).await?;
                if round == Round::Done {
                    apply::finalize(&client, &wanted, false).await?;
                }
                Ok(round)
            };
            let result = round.await;
            Done::Removed { swept, result }
        };
        self.work.push(work.boxed_local());
    }

    fn report(&mut self, wanted: &DynamicObject) {
        let Some((generation, applied)) = &self.applied else { return };
        let before = wanted.data.get("status").cloned().unwrap_or_default();
        let before: PodCheckpointerStatus = serde_json::from_value(before).unwrap_or_default();
        let wall = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
        let unfit = self.checkpoints.unfit();
        let seen = status::Seen {
            generation: *generation,
            applied,
            daemon_set: self.daemon_set.as_ref(),
            checkpoints: self.checkpoints.known(),
            unfit: unfit.as_ref(),
        };
        let status = status::status(&seen, &before, wall);
        self.board.shows(Some(status.clone()));
        if status == before {
            return;
        }
        let client = self.client.clone();
        let work = async move { Done::Reported(apply::report(&client, DEFAULT, &status).await) };
        self.work.push(work.boxed_local());
    }

    fn show(&mut self, applied: Applied, generation: Option<i64>) {
        if self.applied.as_ref().is_none_or(|(_, known)| *known != applied) {
            match &applied {
                Applied::Yes(_) => tracing::info!("every object is as the spec asks for"),
                Applied::No { reason, message } => tracing::warn!(reason, "{message}"),
                Applied::Removing(message) => tracing::info!("removing: {message}"),
            }
            self.tell(&applied);
        }
        self.applied = Some((generation, applied));
        self.report_due = Some(Instant::now());
    }

    /// Writes an Event beside the PodCheckpointer.
    fn tell(&mut self, applied: &Applied) {
        let Some(wanted) = &self.wanted else { return };
        let (type_, reason, message) = match applied {
            Applied::Yes(_) => (EventType::Normal, APPLIED, "every object is as the spec asks for"),
            Applied::No { reason, message } => (EventType::Warning, *reason, message.as_str()),
            Applied::Removing(message) => (EventType::Normal, "Removing", message.as_str()),
        };
        let event = api::event(type_, reason, message, "Apply");
        let resource = ApiResource::erase::<PodCheckpointer>(&());
        let (recorder, regarding) = (self.recorder.clone(), wanted.object_ref(&resource));
        let publish = async move { Done::Told(recorder.publish(&event, &regarding).await) };
        self.work.push(publish.boxed_local());
    }

    fn finish(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            Done::Applied { generation, fingerprints, applied } => {
                self.applying = false;
                if matches!(applied, Applied::Yes(_)) {
                    self.made.clear();
                }
                self.made.extend(fingerprints);
                for kind in KINDS {
                    self.compare(kind);
                }
                let pause = match &applied {
                    Applied::No { reason, .. } => {
                        self.board.applied(reason);
                        self.failures.pause()
                    }
                    Applied::Yes(_) | Applied::Removing(_) => {
                        self.board.applied(APPLIED);
                        self.failures.reset();
                        Retry::new(RESYNC, RESYNC).pause()
                    }
                };
                let due = now + pause;
                self.apply_due = Some(self.apply_due.map_or(due, |earlier| earlier.min(due)));
                self.show(applied, generation);
            }
            // the watch tells of it, and everything else follows
            Done::Finalized(Ok(())) | Done::Told(Ok(())) => {}
            Done::Finalized(Err(Failure { reason, message })) => {
                self.apply_due = Some(now + self.failures.pause());
                let generation = self.wanted.as_ref().and_then(|wanted| wanted.metadata.generation);
                self.show(Applied::No { reason, message }, generation);
            }
            Done::Removed { swept, result } => {
                self.swept = swept;
                let generation = self.wanted.as_ref().and_then(|wanted| wanted.metadata.generation);
                let message = match result {
                    Ok(Round::Done) => {
                        tracing::info!("everything of the PodCheckpointer is removed");
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
                self.show(Applied::Removing(message), generation);
            }
            Done::Reported(Ok(())) => self.reports.reset(),
            Done::Told(Err(error)) => tracing::debug!("cannot write an Event: {}", explain(&error)),
            Done::Reported(Err(Failure { message, .. })) => {
                tracing::warn!("{message}");
                self.report_due = Some(now + self.reports.pause());
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Settings(Ok(event)) => {
                self.told.remove("PodCheckpointer");
                self.take_settings(event);
            }
            Event::Owned(kind, Ok(event)) => {
                self.told.remove(kind.kind);
                self.take_owned(kind, event);
            }
            Event::Checkpoint(Ok(event)) => {
                self.told.remove("PodCheckpoint");
                if self.checkpoints.take(&event) {
                    self.gather();
                }
            }
            Event::Settings(Err(error)) => self.complain("PodCheckpointer", &error),
            Event::Owned(kind, Err(error)) => self.complain(kind.kind, &error),
            Event::Checkpoint(Err(error)) => self.complain("PodCheckpoint", &error),
        }
    }

    fn complain(&mut self, kind: &'static str, error: &watcher::Error) {
        let text = explain_watch(error);
        if self.told.get(kind) != Some(&text) {
            tracing::warn!("the watch of {kind}: {text}");
            self.told.insert(kind, text);
        }
    }

    /// Something that the status shows may have changed.
    fn gather(&mut self) {
        let due = Instant::now() + GATHER;
        self.report_due = Some(self.report_due.map_or(due, |earlier| earlier.min(due)));
    }

    fn take_settings(&mut self, event: watcher::Event<DynamicObject>) {
        match event {
            watcher::Event::Init => self.unlisted = true,
            watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
                self.unlisted = false;
                let now = Instant::now();
                let key = |object: &DynamicObject| {
                    let metadata = &object.metadata;
                    let ending = metadata.deletion_timestamp.is_some();
                    (metadata.uid.clone(), metadata.generation, ending, metadata.finalizers.clone())
                };
                let is_news = self.wanted.as_ref().is_none_or(|known| key(known) != key(&object));
                if is_news {
                    // what failed before may go well with these settings
                    self.failures.reset();
                    (self.apply_due, self.remove_due) = (Some(now), now);
                }
                self.wanted = Some(object);
            }
            watcher::Event::Delete(_) => self.forget(),
            watcher::Event::InitDone => {
                if self.unlisted {
                    self.forget();
                }
                self.board.knows();
            }
        }
    }

    fn forget(&mut self) {
        if self.wanted.take().is_some() {
            tracing::info!("there is no PodCheckpointer any more: nothing is done");
        }
        self.board.shows(None);
        (self.applied, self.apply_due, self.report_due) = (None, None, None);
        (self.swept, self.applying) = (false, false);
        self.made.clear();
    }

    fn take_owned(&mut self, kind: Kind, event: watcher::Event<DynamicObject>) {
        let found = match event {
            watcher::Event::Apply(object) | watcher::Event::InitApply(object) => Some(object),
            watcher::Event::Delete(_) => None,
            watcher::Event::Init | watcher::Event::InitDone => return,
        };
        self.found.insert(kind.kind, found.as_ref().map(fingerprint));
        if kind == DAEMON_SET {
            self.daemon_set = found.and_then(|set| serde_json::to_value(set).ok());
            self.gather();
        }
        if !self.applying && !self.is_ending() {
            self.compare(kind);
        }
    }

    /// Somebody else changed or deleted it: it is repaired, soon, and less soon where that happens again and again.
    fn compare(&mut self, kind: Kind) {
        let (made, found) = (self.made.get(kind.kind), self.found.get(kind.kind));
        if made.is_none() || found.is_none_or(|found| found.as_ref() == made) {
            return;
        }
        let now = Instant::now();
        if self.repaired.is_none_or(|last| now.duration_since(last) > CALM) {
            self.repairs.reset();
        }
        self.repaired = Some(now);
        let due = now + self.repairs.pause();
        self.apply_due = Some(self.apply_due.map_or(due, |earlier| earlier.min(due)));
        self.board.repairs(kind);
        tracing::info!("{} is not as it was applied: it is looked at", kind.named());
    }
}

async fn checked(client: &Client, settings: &Settings, wanted: &DynamicObject) -> Result<Checked, Failure> {
    let spec = settings::spec(wanted)?;
    let image = image(client, settings, &spec).await?;
    Ok(Checked::new(spec, image)?)
}

/// The image that agents run; where neither the spec nor the flag names one, that of the operator's own pod.
async fn image(client: &Client, settings: &Settings, spec: &PodCheckpointerSpec) -> Result<String, Failure> {
    match settings::image(spec, settings.image.as_deref()) {
        Some(image) => Ok(image.to_owned()),
        None => apply::own_image(client, &settings.pod_namespace, settings.pod_name.as_deref()).await,
    }
}

/// Everything that is watched. Each object of ours by its name: nothing else of its kind is told of.
fn watches(client: &Client) -> SelectAll<LocalBoxStream<'static, Event>> {
    let named = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}")).timeout(WATCH_SECONDS);
    let settings = watcher(apply::settings(client.clone()), named(DEFAULT)).default_backoff();
    let mut all: Vec<LocalBoxStream<'static, Event>> = vec![settings.map(Event::Settings).boxed_local()];
    // its kind may not be there at all
    for kind in KINDS.into_iter().filter(|kind| *kind != POD_MONITOR) {
        let watch = watcher(kind.api(client.clone()), named(INSTALLATION)).default_backoff();
        all.push(watch.map(move |event| Event::Owned(kind, event)).boxed_local());
    }
    let checkpoints = Api::<DynamicObject>::all_with(client.clone(), &ApiResource::erase::<PodCheckpoint>(&()));
    let config = watcher::Config::default().page_size(PAGE).timeout(WATCH_SECONDS);
    all.push(watcher(checkpoints, config).default_backoff().map(Event::Checkpoint).boxed_local());
    all.into_iter().collect()
}

/// What is counted of a PodCheckpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Verdict {
    /// It would come back.
    is_recoverable: bool,
    /// Its twin runs.
    is_active: bool,
    /// Its node is not fit: the node, and why.
    unfit: Option<(String, String)>,
}

/// The PodCheckpoints, of which no more is kept than is counted.
#[derive(Debug, Default)]
struct Counts {
    /// By namespace and name.
    all: BTreeMap<(String, String), Verdict>,
    /// The list that is being read.
    listing: BTreeMap<(String, String), Verdict>,
    is_complete: bool,
}

impl Counts {
    /// Takes it in; true: something may count otherwise than before.
    fn take(&mut self, event: &watcher::Event<DynamicObject>) -> bool {
        match event {
            watcher::Event::Init => {
                self.listing.clear();
                false
            }
            watcher::Event::InitApply(object) => {
                self.listing.insert(name(object), verdict(&object.data));
                false
            }
            watcher::Event::InitDone => {
                self.is_complete = true;
                self.all = std::mem::take(&mut self.listing);
                true
            }
            watcher::Event::Apply(object) => {
                let verdict = verdict(&object.data);
                self.all.insert(name(object), verdict.clone()) != Some(verdict)
            }
            watcher::Event::Delete(object) => self.all.remove(&name(object)).is_some(),
        }
    }

    fn names(&self) -> Vec<(String, String)> {
        self.all.keys().cloned().collect()
    }

    fn known(&self) -> Option<Checkpoints> {
        let count = |is_so: fn(&Verdict) -> bool| {
            i64::try_from(self.all.values().filter(|one| is_so(one)).count()).unwrap_or(i64::MAX)
        };
        let counted = || Checkpoints {
            total: count(|_| true),
            recoverable: count(|one| one.is_recoverable),
            active: count(|one| one.is_active),
        };
        self.is_complete.then(counted)
    }

    /// Nodes that are not fit, as their agents say, with the reason; `None`: not all is known yet.
    fn unfit(&self) -> Option<BTreeMap<String, String>> {
        self.is_complete.then(|| self.all.values().filter_map(|one| one.unfit.clone()).collect())
    }
}

fn name(object: &DynamicObject) -> (String, String) {
    let metadata = &object.metadata;
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

fn verdict(object: &Value) -> Verdict {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let is = |kind: &str, status: &str| {
        let mut found = conditions.into_iter().flatten().filter(|one| one.get("type").is_some_and(|it| it == kind));
        found.find(|one| one.get("status").is_some_and(|it| it == status))
    };
    let reason = |condition: &Value| condition.get("reason").and_then(Value::as_str).unwrap_or_default().to_owned();
    Verdict {
        is_recoverable: is("Recoverable", "True").is_some(),
        is_active: matches!(text("/status/phase"), "Active" | "Released"),
        unfit: is("NodeFit", "False").map(|condition| (text("/spec/nodeName").to_owned(), reason(condition))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checkpoint(name: &str, recoverable: &str, phase: &str) -> DynamicObject {
        serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": name},
            "status": {"phase": phase, "conditions": [{"type": "Recoverable", "status": recoverable}]},
        }))
        .unwrap()
    }

    #[test]
    fn checkpoints_are_counted_once_all_are_known_and_a_new_list_replaces_them() {
        let mut counts = Counts::default();
        let listed = |counts: &mut Counts, objects: &[DynamicObject]| {
            counts.take(&watcher::Event::Init);
            for object in objects {
                counts.take(&watcher::Event::InitApply(object.clone()));
            }
            assert_eq!(counts.known().is_some(), counts.is_complete);
            assert!(counts.take(&watcher::Event::InitDone));
        };
        let all =
            [("a", "True", "Inactive"), ("b", "False", "Blocked"), ("c", "True", "Active"), ("d", "True", "Released")];
        let all = all.map(|(name, recoverable, phase)| checkpoint(name, recoverable, phase));
        listed(&mut counts, &all);
        assert_eq!(counts.known(), Some(Checkpoints { total: 4, recoverable: 3, active: 2 }));
        assert!(!counts.take(&watcher::Event::Apply(all[0].clone())), "nothing that counts");
        assert!(counts.take(&watcher::Event::Apply(checkpoint("c", "True", "Inactive"))));
        assert!(counts.take(&watcher::Event::Delete(all[3].clone())));
        assert_eq!(counts.known(), Some(Checkpoints { total: 3, recoverable: 2, active: 0 }));
        listed(&mut counts, &all[1..2]);
        assert_eq!(counts.known(), Some(Checkpoints { total: 1, recoverable: 0, active: 0 }));
    }
}
