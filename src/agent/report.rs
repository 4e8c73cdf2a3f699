//! What the API shows: one `PodCheckpoint` per marked pod, written when something in it changed and at no other time.
//!
//! [`status`] (pure) says what one should show; [`Reporter`] (pure) remembers what was written and says what to write next;
//! [`perform`] does it. All are read once at the start, in pages, to know what an earlier agent wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Client, Error, ResourceExt as _};
use serde_json::{Value, json};

use crate::agent::echo::Echo;
use crate::agent::index::{Outcome, View};
use crate::agent::risks::{self, Risks};
use crate::api;
use crate::api::podcheckpoint::{LastOutage, PodCheckpoint, PodCheckpointStatus};
use crate::checkpoint::encoding::sha256;
use crate::client::heard::explain;
use crate::client::retry::Retry;
use crate::names::{FIELD_MANAGER, FIT, NODE_LABEL, NOT_CAPTURED, RECOVERABLE, REJECTED_AT_RETURN_ADVICE};
use crate::places::reports::{Outage, Outages, Phase, PodReport, Status};
use crate::pod::id::PodId;
use crate::reasons::Blocked;

/// Objects in a page of the one list.
const PAGE: u32 = 50;
/// Longest value of a label (apimachinery, pkg/util/validation).
const LABEL_LIMIT: usize = 63;

/// What the supervisor says.
#[derive(Clone, Debug, Default)]
pub struct Supervisor {
    /// `status.yaml`; `None`: it has not written any.
    pub status: Option<Status>,
    /// `outages.yaml`.
    pub outages: Outages,
    /// Why there is none, if the agent knows.
    pub absent: Option<String>,
}

/// What a `PodCheckpoint` should show; `risks` are those of its node, `before` is what it shows, so that a condition keeps the
/// time of its last change.
pub fn status(
    view: &View<'_>,
    supervisor: &Supervisor,
    risks: &Risks,
    before: Option<&PodCheckpointStatus>,
    now: Timestamp,
) -> PodCheckpointStatus {
    let report = find(view, supervisor);
    let conditions = [captured(view), recoverable(view), active(report, supervisor), node_fit(risks)];
    let stored = view.stored;
    PodCheckpointStatus {
        phase: supervisor.status.as_ref().map(|_| report.map(|report| report.phase).unwrap_or_default()),
        conditions: conditions.into_iter().map(|claim| claim.condition(before, now)).collect(),
        generation: stored.and_then(|stored| stored.generation.try_into().ok()),
        digest: stored.map(|stored| stored.digest.clone()),
        size_bytes: stored.and_then(|stored| stored.size.try_into().ok()),
        captured_at: stored.map(|stored| stored.captured.clone()),
        marked_by: Some(view.marked.to_owned()),
        warnings: stored.map(|stored| stored.warnings.iter().map(ToString::to_string).collect()).unwrap_or_default(),
        last_outage: last_outage(view, &supervisor.outages)
            // one of an earlier boot is remembered here only
            .or_else(|| before.and_then(|before| before.last_outage.clone())),
    }
}

struct Claim {
    kind: &'static str,
    status: &'static str,
    reason: String,
    message: String,
}

impl Claim {
    fn new(kind: &'static str, status: &'static str, reason: &str, message: String) -> Self {
        Self { kind, status, reason: reason.to_owned(), message }
    }

    fn condition(self, before: Option<&PodCheckpointStatus>, now: Timestamp) -> Condition {
        let before = before.map_or(&[][..], |before| &before.conditions);
        api::condition(self.kind, self.status, &self.reason, &self.message, before, now)
    }
}

fn captured(view: &View<'_>) -> Claim {
    let claim = |status, reason: &str, message: String| Claim::new("Captured", status, reason, message);
    let kept = view.stored.map(|stored| format!("; generation {}, of an earlier form, is kept", stored.generation));
    let kept = kept.unwrap_or_default();
    match (view.outcome, view.stored) {
        (Outcome::Refused(reasons), _) => {
            let names: Vec<&str> = reasons.iter().map(|reason| reason.refusal.as_str()).collect();
            claim("False", "Refused", format!("{}: see condition Recoverable{kept}", names.join(", ")))
        }
        (Outcome::Failed { reason, message }, _) => claim("False", reason, format!("{message}; tried again{kept}")),
        (_, Some(stored)) => {
            claim("True", "Captured", format!("generation {} holds the pod as it runs", stored.generation))
        }
        (_, None) => claim("False", "WaitingForReady", "a pod is captured when it is Ready".into()),
    }
}

/// The reason of the condition `Recoverable`, in one word: one of a closed set.
pub fn verdict(view: &View<'_>) -> &'static str {
    match (view.outcome, view.stored) {
        (Outcome::Refused(reasons), _) => reasons.first().map_or("Refused", |reason| reason.refusal.as_str()),
        (_, Some(_)) => RECOVERABLE,
        (_, None) => NOT_CAPTURED,
    }
}

fn recoverable(view: &View<'_>) -> Claim {
    let claim = |status, message: String| Claim::new("Recoverable", status, verdict(view), message);
    match (view.outcome, view.stored) {
        (Outcome::Refused(reasons), stored) => {
            let each: Vec<String> =
                reasons.iter().map(|reason| format!("{reason} ({})", reason.refusal.advice())).collect();
            let kept = stored.map(|stored| {
                format!(
                    " Generation {}, captured {} of an earlier form of this pod, would be used.",
                    stored.generation, stored.captured
                )
            });
            claim("False", format!("{}.{}", each.join("; "), kept.unwrap_or_default()))
        }
        (_, Some(stored)) if stored.warnings.is_empty() => {
            claim("True", "it comes back on this node without the API server".into())
        }
        (_, Some(stored)) => {
            let each: Vec<String> =
                stored.warnings.iter().map(|warning| format!("{warning} ({})", warning.advice())).collect();
            claim("True", format!("it comes back on this node; note {}", each.join("; ")))
        }
        (_, None) => claim("Unknown", "nothing was captured yet".into()),
    }
}

fn active(report: Option<&PodReport>, supervisor: &Supervisor) -> Claim {
    let claim = |status, reason: &str, message: String| Claim::new("Active", status, reason, message);
    if supervisor.status.is_none() {
        let why = supervisor.absent.clone().unwrap_or_else(|| "the supervisor has not reported yet".into());
        return claim("Unknown", "NoSupervisor", why);
    }
    match report.map(|report| (report.phase, report)) {
        Some((Phase::Active, report)) if report.reason.is_some() => {
            let reason = report.reason.as_deref().unwrap_or_default();
            let advice = Blocked::ALL.iter().find(|known| known.as_str() == reason).map(|known| known.advice());
            let message = "its twin runs in its place although the API server answers";
            claim("True", reason, format!("{message} ({})", advice.unwrap_or(REJECTED_AT_RETURN_ADVICE)))
        }
        None | Some((Phase::Inactive, _)) => claim("False", "Inactive", "nothing of it runs".into()),
        Some((Phase::Active, _)) => claim("True", "Active", "its twin runs in its place".into()),
        Some((Phase::Released, _)) => {
            claim("True", "Released", "its twin serves on until the pod has taken over".into())
        }
        Some((Phase::Blocked, report)) => {
            let reason = report.reason.clone().unwrap_or_else(|| "Blocked".into());
            let advice = Blocked::ALL.iter().find(|known| known.as_str() == reason).map(|known| known.advice());
            let mut message = report.message.clone().unwrap_or_else(|| "it should be active and cannot be".into());
            if let Some(advice) = advice {
                message = format!("{message} ({advice})");
            }
            claim("False", &reason, message)
        }
    }
}

fn node_fit(risks: &Risks) -> Claim {
    let each: Vec<String> = risks.iter().map(|(risk, seen)| format!("{risk}: {}", risks::told(*risk, seen))).collect();
    match risks.keys().next() {
        None => Claim::new("NodeFit", "True", FIT, "nothing of the node is in the way".into()),
        // those that are in the way come first
        Some(first) if first.is_mild() => Claim::new("NodeFit", "True", FIT, format!("note {}", each.join("; "))),
        Some(first) => Claim::new("NodeFit", "False", first.as_str(), each.join("; ")),
    }
}

fn find<'a>(view: &View<'_>, supervisor: &'a Supervisor) -> Option<&'a PodReport> {
    supervisor
        .status
        .as_ref()?
        .pods
        .iter()
        .find(|report| view.key.is(&report.namespace, &report.name) && report.parent_uid == view.uid)
}

fn last_outage(view: &View<'_>, outages: &Outages) -> Option<LastOutage> {
    let (outage, pod) = outages.outages.iter().rev().find_map(|outage| {
        outage.pods.get(view.key).filter(|pod| pod.parent_uid == view.uid).map(|pod| (outage, pod))
    })?;
    let wall = |time: Option<u64>| time.and_then(|time| wall(outage, time));
    Some(LastOutage {
        from: outage.from_wall.clone(),
        to: outage.to_wall.clone().or_else(|| wall(outage.to)),
        activated: wall(pod.activated),
        serving: wall(pod.serving),
        taken_back: i32::try_from(pod.taken_back).ok().filter(|times| *times > 0),
        released: wall(pod.released),
        taken_over: wall(pod.taken_over),
    })
}

/// A time of the boot-time clock on the wall clock of the outage's begin: the same at every look, whatever was set since.
fn wall(outage: &Outage, time: u64) -> Option<String> {
    let begin: Timestamp = outage.from_wall.parse().ok()?;
    let passed = i64::try_from(time).ok()?.checked_sub(i64::try_from(outage.from).ok()?)?;
    Some(begin.checked_add(SignedDuration::from_millis(passed)).ok()?.to_string())
}

/// What to ask of the API server next.
#[derive(Clone, Debug, PartialEq)]
pub enum Job {
    /// Read what an earlier agent of this node wrote.
    Seed,
    /// Write one.
    Write {
        /// `<namespace>_<name>`.
        key: PodId,
        /// UID of the pod.
        uid: String,
        /// Metadata and spec are to be written first.
        spec: bool,
        /// What it should show.
        status: Box<PodCheckpointStatus>,
        /// What is to be told beside the pod when that is written.
        news: Vec<News>,
    },
    /// Remove one whose pod is no longer marked, or is another pod of the same name.
    Delete {
        /// `<namespace>_<name>`.
        key: PodId,
        /// UID of the object, if known.
        uid: Option<String>,
    },
}

/// Something that a person who looks at the pod should see. Told once, because it is compared with what was written before,
/// by an earlier agent too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// For an Event.
    pub reason: &'static str,
    /// The same in words.
    pub note: String,
}

/// What is new in a status.
fn news(before: Option<&PodCheckpointStatus>, status: &PodCheckpointStatus) -> Vec<News> {
    let mut news = Vec::new();
    // each generation is one more; that there is one at all is what matters
    if let Some(generation) = status.generation.filter(|_| before.is_none_or(|before| before.generation.is_none())) {
        let note =
            format!("Captured as generation {generation}: it would come back on this node without the API server");
        news.push(News { reason: "Captured", note });
    }
    let Some(outage) = &status.last_outage else { return news };
    let known = before.and_then(|before| before.last_outage.as_ref()).filter(|known| known.from == outage.from);
    if let Some(at) = outage.activated.as_ref().filter(|_| known.is_none_or(|known| known.activated.is_none())) {
        let note = format!("Brought back at {at}, while the API server was away since {}", outage.from);
        news.push(News { reason: "Activated", note });
    }
    if let Some(times) = outage.taken_back.filter(|times| known.and_then(|known| known.taken_back) < Some(*times)) {
        let note = format!(
            "The API server was lost again before the pod had taken over, {times} times since {}: brought back anew, and each \
             time later than before, up to 5 minutes",
            outage.from
        );
        news.push(News { reason: "RateLimited", note });
    }
    if let Some(at) = outage.released.as_ref().filter(|_| known.is_none_or(|known| known.released.is_none())) {
        let note = format!("Its stand-in was released at {at}, when the API server answered again");
        news.push(News { reason: "Released", note });
    }
    news
}

/// What came of a [`Job`].
#[derive(Debug)]
pub enum Done {
    /// Of [`Job::Seed`].
    Seeded(Result<Vec<(PodId, Known)>, Error>),
    /// Of [`Job::Write`], with the UID of the object if it was learned.
    Written {
        /// `<namespace>_<name>`.
        key: PodId,
        /// What was written.
        known: Box<Known>,
        /// Whether it went well.
        result: Result<Option<String>, Error>,
        /// As in the job.
        news: Vec<News>,
    },
    /// Of [`Job::Delete`].
    Deleted(PodId, Result<(), Error>),
}

/// One `PodCheckpoint` as the API server has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// UID of the object.
    pub object: Option<String>,
    /// UID of the pod it is of.
    pub pod: String,
    /// What it shows; `None`: perhaps something else than we know.
    pub status: Option<PodCheckpointStatus>,
    /// The API server does not have it any more; what it showed is remembered here only.
    pub is_gone: bool,
}

impl Known {
    fn lose(&mut self) {
        (self.object, self.is_gone) = (None, true);
    }
}

/// What was written, and what is to be written next.
#[derive(Debug)]
pub struct Reporter {
    seeded: bool,
    busy: bool,
    known: BTreeMap<PodId, Known>,
    waiting: BTreeMap<PodId, (Retry, Duration)>,
    seed: (Retry, Duration),
    trouble: Option<String>,
    /// Those that a look at all of them has not found yet, and when it is over.
    missing: Option<(BTreeSet<PodId>, Duration)>,
    /// Deleted while something was being asked of the API server: its answer may be older.
    unheard: Vec<(PodId, Option<String>)>,
    /// How often each was deleted lately, and when it was last.
    deletions: BTreeMap<PodId, (Retry, Duration)>,
}

/// How long a look at all of them takes at most.
const LOOK: Duration = Duration::from_secs(30);
/// How soon one that was deleted is written again, and how late where that happens again and again. Not at once: its pod may
/// be gone, too, as is told in a moment.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(5));
/// Deletions that far apart have nothing to do with each other.
const CALM: Duration = Duration::from_mins(10);

impl Default for Reporter {
    fn default() -> Self {
        let retry = Retry::new(Duration::from_secs(2), Duration::from_mins(5));
        Self {
            seeded: false,
            busy: false,
            known: BTreeMap::new(),
            waiting: BTreeMap::new(),
            seed: (retry, Duration::ZERO),
            trouble: None,
            missing: None,
            unheard: Vec::new(),
            deletions: BTreeMap::new(),
        }
    }
}

impl Reporter {
    /// What the API server has was told of. One that is not there any more is written again, whole and with what it showed;
    /// that one which was only not told of is written once more does no harm.
    pub fn hear(&mut self, echo: Echo, now: Duration) {
        match echo {
            Echo::Begins => {
                // there is such a kind
                self.seed.1 = self.seed.1.min(now);
                self.missing = Some((self.known.keys().cloned().collect(), now.saturating_add(LOOK)));
            }
            Echo::There(key) => {
                if let Some((missing, _)) = &mut self.missing {
                    missing.remove(&key);
                }
            }
            Echo::Gone(key, uid) => {
                if self.busy {
                    self.unheard.push((key.clone(), uid.clone()));
                }
                self.forget(&key, uid.as_ref(), now);
            }
        }
    }

    /// This object was deleted.
    fn forget(&mut self, key: &PodId, object: Option<&String>, now: Duration) {
        let is_this =
            |known: &&mut Known| !known.is_gone && (known.object.is_none() || known.object.as_ref() == object);
        let Some(known) = self.known.get_mut(key).filter(is_this) else { return };
        known.lose();
        let again = self.deletions.get_mut(key).filter(|(_, last)| now.saturating_sub(*last) <= CALM);
        let pause = if let Some((retry, last)) = again {
            *last = now;
            retry.pause().max(PATIENCE.0)
        } else {
            self.deletions.insert(key.clone(), (Retry::new(PATIENCE.0, PATIENCE.1), now));
            PATIENCE.0
        };
        self.waiting.insert(key.clone(), (Retry::default(), now.saturating_add(pause)));
    }

    /// Those that a look at all of them did not find are not there.
    fn look(&mut self, now: Duration) {
        if let Some((missing, _)) = self.missing.take_if(|(_, end)| *end <= now) {
            for key in missing {
                if let Some(known) = self.known.get_mut(&key) {
                    known.lose();
                }
            }
        }
    }

    /// The next thing to do, if nothing is being done. `views` are the marked pods once a list of them was complete;
    /// `keeps` tells of a pod
    /// that is none of them whether the store still has a checkpoint of it, or it may be marked yet.
    pub fn next<'a>(
        &mut self,
        views: impl Iterator<Item = View<'a>>,
        keeps: impl Fn(&PodId, &str) -> bool,
        supervisor: &Supervisor,
        risks: &Risks,
        now: Duration,
        wall: Timestamp,
    ) -> Option<Job> {
        if self.busy {
            return None;
        }
        if !self.seeded {
            self.busy = self.seed.1 <= now;
            return self.busy.then_some(Job::Seed);
        }
        self.look(now);
        let is_waiting = |key: &PodId| self.waiting.get(key).is_some_and(|(_, until)| *until > now);
        let mut wanted = BTreeSet::new();
        let mut job = None;
        for view in views {
            wanted.insert(view.key);
            if job.is_some() || is_waiting(view.key) {
                continue;
            }
            let known = self.known.get(view.key);
            job = match known {
                // its owner is gone, and the API server's garbage collector may take it at any moment
                Some(known) if known.pod != view.uid && !known.is_gone => {
                    Some(Job::Delete { key: view.key.clone(), uid: known.object.clone() })
                }
                known => {
                    let known = known.filter(|known| known.pod == view.uid);
                    let is_new = known.is_none_or(|known| known.is_gone);
                    let before = known.and_then(|known| known.status.as_ref());
                    let status = status(&view, supervisor, risks, before, wall);
                    (is_new || before != Some(&status)).then(|| Job::Write {
                        key: view.key.clone(),
                        uid: view.uid.to_owned(),
                        spec: is_new,
                        news: news(before, &status),
                        status: Box::new(status),
                    })
                }
            };
        }
        let unwanted = || {
            let (key, known) = self.known.iter().find(|(key, known)| {
                !known.is_gone && !wanted.contains(key) && !keeps(key, &known.pod) && !is_waiting(key)
            })?;
            Some(Job::Delete { key: key.clone(), uid: known.object.clone() })
        };
        let job = job.or_else(unwanted);
        let is_wanted = |key: &PodId, known: &Known| wanted.contains(key) || keeps(key, &known.pod);
        self.known.retain(|key, known| !known.is_gone || is_wanted(key, known));
        self.deletions.retain(|key, _| self.known.contains_key(key));
        self.waiting.retain(|key, _| wanted.contains(key) || self.known.contains_key(key));
        self.busy = job.is_some();
        job
    }

    /// Has this very pod been activated in an outage, by what its object shows?
    pub fn had_outage(&self, key: &PodId, uid: &str) -> bool {
        let status = self.known.get(key).filter(|known| known.pod == uid).and_then(|known| known.status.as_ref());
        status.is_some_and(|status| status.last_outage.is_some())
    }

    /// When [`Reporter::next`] has something to do that it has not now.
    pub fn wake(&self, now: Duration) -> Option<Duration> {
        let seed = (!self.seeded).then_some(self.seed.1);
        let waiting = self.waiting.values().map(|(_, until)| *until);
        let look = self.missing.as_ref().map(|(_, end)| *end);
        seed.into_iter().chain(waiting).chain(look).filter(|time| *time > now).min()
    }

    /// Something was done, well or not. Says what there is to tell about it, once and not at every attempt.
    pub fn done(&mut self, done: Done, now: Duration) -> Option<String> {
        self.busy = false;
        let trouble = match done {
            Done::Seeded(Ok(known)) => {
                self.seeded = true;
                let before = std::mem::replace(&mut self.known, known.into_iter().collect());
                for (key, mut known) in before {
                    // not there any more, and nobody else remembers what it showed
                    known.lose();
                    self.known.entry(key).or_insert(known);
                }
                None
            }
            Done::Seeded(Err(error)) => {
                self.seed.1 = now.saturating_add(self.seed.0.pause());
                Some(match &error {
                    Error::Api(status) if status.code == 404 => {
                        "the resource PodCheckpoint is not installed (kubectl apply -k crds): nothing is reported through \
                         the API, everything else goes on"
                            .to_owned()
                    }
                    error => format!("cannot list PodCheckpoints: {}", explain(error)),
                })
            }
            Done::Written { key, known, result: Ok(object), news: _ } => {
                let object = object.or_else(|| self.known.get(&key).and_then(|known| known.object.clone()));
                self.waiting.remove(&key);
                self.known.insert(key, Known { object, ..*known });
                None
            }
            Done::Written { key, result: Err(error), .. } => {
                // somebody removed it, or its namespace, or the kind: it is written whole the next time, and if it was new,
                // what there is must be learned anew
                if matches!(&error, Error::Api(status) if status.code == 404) {
                    if let Some(known) = self.known.get_mut(&key).filter(|known| !known.is_gone) {
                        known.lose();
                    } else {
                        self.seeded = false;
                        self.seed.1 = now.saturating_add(self.seed.0.pause());
                    }
                }
                self.wait(&key, now);
                Some(format!("cannot write PodCheckpoint {key}: {}", explain(&error)))
            }
            Done::Deleted(key, Ok(())) => {
                self.waiting.remove(&key);
                self.known.remove(&key);
                None
            }
            Done::Deleted(key, Err(error)) => {
                self.wait(&key, now);
                Some(format!("cannot delete PodCheckpoint {key}: {}", explain(&error)))
            }
        };
        for (key, object) in std::mem::take(&mut self.unheard) {
            self.forget(&key, object.as_ref(), now);
        }
        let news = trouble.clone().filter(|_| self.trouble != trouble);
        self.trouble = trouble;
        news
    }

    fn wait(&mut self, key: &PodId, now: Duration) {
        let (retry, until) = self.waiting.entry(key.clone()).or_default();
        *until = now.saturating_add(retry.pause());
    }
}

/// Does a job.
pub async fn perform(client: Client, node: String, job: Job) -> Done {
    match job {
        Job::Seed => Done::Seeded(list(&client, &node).await),
        Job::Write { key, uid, spec, status, news } => {
            let result = write(&client, &node, &key, &uid, spec, &status).await;
            let known = Box::new(Known { object: None, pod: uid, status: Some(*status), is_gone: false });
            Done::Written { key, known, result, news }
        }
        Job::Delete { key, uid } => {
            let (namespace, name) = (key.namespace(), key.name());
            let api: Api<PodCheckpoint> = Api::namespaced(client, namespace);
            let preconditions = Some(Preconditions { uid, resource_version: None });
            let result = match api.delete(name, &DeleteParams { preconditions, ..DeleteParams::default() }).await {
                Ok(_) => Ok(()),
                // not there, or another object by now
                Err(Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
                Err(error) => Err(error),
            };
            Done::Deleted(key, result)
        }
    }
}

/// All of this node.
pub async fn list(client: &Client, node: &str) -> Result<Vec<(PodId, Known)>, Error> {
    let api: Api<PodCheckpoint> = Api::all(client.clone());
    let mut all = Vec::new();
    let mut parameters = ListParams::default().labels(&node_selector(node)).limit(PAGE);
    loop {
        let page = api.list(&parameters).await?;
        for object in page.items {
            if object.spec.node_name != node {
                continue;
            }
            let id = PodId::new(&object.namespace().unwrap_or_default(), &object.name_any());
            // no agent wrote it: no pod has such a name
            let Ok(key) = id else { continue };
            let (object, pod, status) = (object.uid(), object.spec.pod_uid, object.status);
            all.push((key, Known { object, pod, status, is_gone: false }));
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters.continue_token = Some(token),
            None => return Ok(all),
        }
    }
}

async fn write(
    client: &Client,
    node: &str,
    key: &PodId,
    uid: &str,
    spec: bool,
    status: &PodCheckpointStatus,
) -> Result<Option<String>, Error> {
    let (namespace, name) = (key.namespace(), key.name());
    let api: Api<PodCheckpoint> = Api::namespaced(client.clone(), namespace);
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let mut object = None;
    if spec {
        let whole = api.patch(name, &parameters, &Patch::Apply(apply_spec(node, namespace, name, uid))).await?;
        object = whole.uid();
    }
    let patch = json!({
        "apiVersion": "podcheckpointer.io/v1alpha1",
        "kind": "PodCheckpoint",
        "metadata": {"namespace": namespace, "name": name},
        "status": status,
    });
    let whole = api.patch_status(name, &parameters, &Patch::Apply(patch)).await?;
    Ok(whole.uid().or(object))
}

fn apply_spec(node: &str, namespace: &str, name: &str, uid: &str) -> Value {
    json!({
        "apiVersion": "podcheckpointer.io/v1alpha1",
        "kind": "PodCheckpoint",
        "metadata": {
            "namespace": namespace,
            "name": name,
            "labels": {NODE_LABEL: label(node)},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}],
        },
        "spec": {"nodeName": node, "podUID": uid},
    })
}

/// The label of those of this node.
pub fn node_selector(node: &str) -> String {
    format!("{NODE_LABEL}={}", label(node))
}

/// The node's name as a label's value: a long one is cut, with a digest that keeps it apart from its like.
fn label(node: &str) -> String {
    if node.len() <= LABEL_LIMIT {
        return node.to_owned();
    }
    let digest = sha256(node.as_bytes());
    let head: String = node.chars().take(50).collect();
    let tail: String = digest.chars().skip("sha256:".len()).take(12).collect();
    format!("{head}-{tail}")
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
