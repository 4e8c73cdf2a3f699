//! Work that runs concurrently with the loop: how it is started, and what is done with its result.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt as _;
use kube_runtime::events::EventType;
use serde_json::Value;
use tokio::time::Instant;

use crate::agent::event_loop::finished::Finished;
use crate::agent::event_loop::{
    AGE, Agent, FRESH, STORE, SURROUNDINGS, SURVEY, TIDY, UPKEEP, VOLUME_CHANGES,
};
use crate::agent::index::Action;
use crate::agent::outcome::Captured;
use crate::agent::published::ledger::{Done, Job};
use crate::agent::published::shown::News;
use crate::agent::published::write;
use crate::agent::surroundings::{self, Surroundings};
use crate::agent::upkeep::{self, Findings};
use crate::agent::{captures, record};
use crate::capture;
use crate::client::gone::{self, Answer};
use crate::client::heard::explain;
use crate::names::STORE_FAILED;
use crate::node::clock;
use crate::places::ages;
use crate::places::store::{self, Tidied};
use crate::pod::id::PodId;
use crate::text::chain;

/// How often to look whether a checkpoint has a maximum age, while none has.
const NO_AGES: Duration = Duration::from_mins(1);
/// How often a pod is captured whose volumes cannot be watched.
const UNFOLLOWED: Duration = Duration::from_mins(1);

impl Agent {
    /// Starts to learn what captures need of the node.
    pub(super) fn survey_node(&mut self) {
        let (settings, before) = (self.settings.clone(), self.surroundings.clone());
        let look = async move {
            Finished::Surveyed(surroundings::look(&settings, before.as_deref()).await)
        };
        self.work.push(look.boxed_local());
    }

    /// Starts to put the store in order.
    pub(super) fn tidy_store(&mut self) {
        let store = self.store.clone();
        let tidy = async move {
            // a panic has logged itself
            let tidied = tokio::task::spawn_blocking(move || store.tidy()).await;
            Finished::Tidied(tidied.unwrap_or_else(|_| Ok(Tidied::default())))
        };
        self.work.push(tidy.boxed_local());
    }

    /// Starts to record the ages of checkpoints, if any has a maximum age.
    pub(super) fn record_ages(&mut self, now: Duration) {
        let aging = self.index.aging(self.heard.is_within(FRESH));
        let Some(pause) = ages::interval(&aging) else {
            self.ages = Some(now.saturating_add(NO_AGES));
            return;
        };
        let store = self.store.clone();
        let record = async move {
            let record = move || {
                let boot = clock::boot_id().map_err(|error| error.to_string())?;
                let recorded = store.renew_ages(&aging, &boot, clock::boot_time());
                recorded.map_err(|error| chain(&error))
            };
            let recorded = tokio::task::spawn_blocking(record).await;
            Finished::Aged(match recorded {
                Ok(recorded) => recorded.err(),
                Err(error) => Some(error.to_string()),
            })
        };
        self.work.push(record.boxed_local());
        // the next time, whatever comes of this one
        self.ages = Some(now.saturating_add(pause));
    }

    /// Starts to write a PodCheckpoint.
    pub(super) fn write(&mut self, job: Job) {
        let (client, node) = (self.client.clone(), self.settings.node_name.clone());
        let write =
            async move { Finished::Reported(Box::new(write::perform(client, node, job).await)) };
        self.work.push(write.boxed_local());
    }

    /// Starts an action of the index.
    pub(super) fn perform(&mut self, action: Action, surroundings: &Rc<Surroundings>) {
        match action {
            Action::Capture { key, object } => {
                let pod = serde_json::from_slice(&object).unwrap_or(Value::Null);
                self.follow(&key, &pod);
                let (settings, surroundings) = (self.settings.clone(), surroundings.clone());
                let store = self.store.clone();
                let capture = async move {
                    let begun = Instant::now();
                    let captured = captures::capture(&settings, &surroundings, store, &pod).await;
                    Finished::Captured {
                        key,
                        captured,
                        took: begun.elapsed(),
                    }
                };
                self.work.push(capture.boxed_local());
            }
            Action::Ask { key, uid } => {
                let (client, node) = (self.client.clone(), self.settings.node_name.clone());
                let recorded = record::node_uid(&self.store);
                let ask = async move {
                    let (answer, why) =
                        gone::ask(&client, &node, recorded.as_deref(), &key, &uid).await;
                    Finished::Answered {
                        key,
                        uid,
                        answer,
                        why,
                    }
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

    /// Watches the volumes of a pod before they are read, so that a swap during the capture is
    /// noticed.
    fn follow(&mut self, key: &PodId, pod: &Value) {
        let uid = pod
            .pointer("/metadata/uid")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let volumes = capture::volume_dirs(pod, &self.settings.host().kubelet_dir);
        let real: Vec<PathBuf> = volumes
            .iter()
            .filter_map(|(_, path)| self.settings.root.resolve(path).ok())
            .collect();
        if let Err(error) = self.swaps.follow(key, uid, &real) {
            let problem = format!(
                "cannot watch the volumes of every pod, so some pods are captured once a minute ({error}): raise \
                 fs.inotify.max_user_watches and max_user_instances"
            );
            self.problems.set(VOLUME_CHANGES, Some(problem));
            self.unfollowed.insert(key.clone());
            self.unfollowed_due
                .get_or_insert(self.start.elapsed().saturating_add(UNFOLLOWED));
        }
    }

    /// Work ended.
    pub(super) fn finish(&mut self, finished: Finished) {
        let now = self.now();
        match finished {
            Finished::Captured {
                key,
                captured,
                took,
            } => {
                let new = self.is_new(&key, &captured);
                self.telemetry.captured(&captured, new, took);
                if matches!(captured, Captured::Stored(_)) {
                    self.mend(&key);
                }
                self.report_capture(&key, &captured, new);
                self.index.captured(&key, captured, now);
            }
            Finished::Answered {
                key,
                uid,
                answer,
                why,
            } => {
                let pod = key.to_string();
                match (answer, why) {
                    (Answer::Gone, _) => {
                        tracing::info!(pod, uid, "the API server says that the pod is gone");
                    }
                    (_, Some(why)) => {
                        tracing::debug!(pod, uid, why, "cannot tell whether the pod is gone");
                    }
                    _ => {}
                }
                self.index.answered(&key, &uid, answer, now);
            }
            Finished::Removed { key, uid, result } => {
                let pod = key.to_string();
                match &result {
                    Ok(()) => tracing::info!(pod, uid, "removed the checkpoint"),
                    Err((kind, error)) => {
                        self.telemetry.store_failed(kind);
                        tracing::warn!(pod, error, "cannot remove the checkpoint");
                    }
                }
                if result.is_ok() {
                    self.mend(&key);
                }
                self.index.removed(&key, &uid, result.is_ok(), now);
            }
            Finished::Reported(done) => {
                if let Done::Written {
                    key,
                    known,
                    result: Ok(_),
                    news,
                } = &*done
                {
                    for News { reason, note } in news {
                        self.record_pod_event(key, &known.pod, EventType::Normal, reason, note);
                    }
                }
                if let Some(trouble) = self.ledger.done(*done, now) {
                    tracing::warn!("{trouble}");
                }
            }
            Finished::Surveyed(found) => {
                self.problems.set(SURROUNDINGS, found.problems.clone());
                let differs = self
                    .surroundings
                    .as_ref()
                    .is_some_and(|known| known.kubelet != found.kubelet);
                if differs {
                    self.index.swapped_all();
                }
                let found = Rc::new(found);
                self.surroundings = Some(found.clone());
                let (settings, client, store) = (
                    self.settings.clone(),
                    self.client.clone(),
                    self.store.clone(),
                );
                let memory = self.memory.clone();
                let mut neighbours = self.index.neighbours();
                neighbours.is_heard &= self.heard.is_within(FRESH);
                let keep = async move {
                    Finished::Upkept(
                        upkeep::keep(&settings, &found, &client, &store, neighbours, memory).await,
                    )
                };
                self.work.push(keep.boxed_local());
            }
            Finished::Upkept(Findings {
                absent,
                problems,
                memory,
                is_another,
            }) => {
                if is_another && self.is_recorded {
                    self.index.swapped_all();
                }
                self.is_recorded = true;
                self.open_run_dir();
                self.memory = memory;
                self.problems.set(UPKEEP, problems);
                self.supervisor.absent = absent;
                let well = !self.problems.has(SURROUNDINGS) && !self.problems.has(UPKEEP);
                if well {
                    self.survey_retry.reset();
                }
                let pause = if well {
                    SURVEY
                } else {
                    self.survey_retry.pause()
                };
                self.survey = Some(now.saturating_add(pause));
            }
            Finished::Tidied(tidied) => {
                self.tidy = Some(now.saturating_add(TIDY));
                self.tidied(tidied);
            }
            Finished::Aged(failed) => {
                if failed.is_some() {
                    self.telemetry.store_failed(STORE_FAILED);
                }
                let problem = failed
                    .map(|error| format!("cannot record how old the checkpoints are: {error}"));
                self.problems.set(AGE, problem);
            }
            Finished::EventRecorded(Ok(())) => {}
            Finished::EventRecorded(Err(error)) => {
                tracing::debug!("cannot write an Event: {}", explain(&error));
            }
        }
    }

    /// The pod has no damaged checkpoint any more.
    fn mend(&mut self, key: &PodId) {
        if let Some(damaged) = &mut self.damaged {
            damaged.remove(key);
        }
    }

    /// The store was put in order. A pod with a damaged checkpoint is captured again.
    fn tidied(&mut self, tidied: Result<Tidied, store::Error>) {
        let tidied = tidied.unwrap_or_else(|error| Tidied {
            failed: vec![error],
            ..Tidied::default()
        });
        let Tidied {
            removed,
            aside,
            damaged,
            resealed,
            failed,
        } = tidied;
        let known = self.damaged.get_or_insert_default();
        // if not all of the store was read, nothing is known about the rest
        if failed.is_empty() && damaged.is_some() {
            known.clear();
        }
        known.extend(damaged.into_iter().flatten());
        for path in removed {
            tracing::info!(path = %path.display(), "removed a file that is no longer needed");
        }
        self.telemetry.damaged(aside.len());
        for error in &failed {
            self.telemetry.store_failed(error.reason());
        }
        for (key, path) in aside {
            let pod = key.to_string();
            tracing::warn!(pod, file = %path.display(), "a checkpoint is damaged and was set aside; the pod is captured again");
            self.index.swapped(&key);
        }
        if resealed > 0 {
            tracing::info!(generations = resealed, "sealed with the first key");
        }
        let keys = self.store.keys_given().load();
        let problems = failed
            .iter()
            .map(|error| chain(error))
            .chain(keys.errors().map(|error| chain(error)));
        self.problems.set(STORE, problems.collect::<Vec<_>>());
    }

    /// Did the store not have this generation before?
    fn is_new(&self, key: &PodId, captured: &Captured) -> bool {
        let Captured::Stored(stored) = captured else {
            return false;
        };
        let before = self.index.stored(key);
        before
            .is_none_or(|before| before.generation != stored.generation || before.uid != stored.uid)
    }
}
