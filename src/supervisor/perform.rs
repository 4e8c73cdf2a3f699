//! Performs what was decided: files and links, and stops through the runtime, which continue in the
//! background. The result of each action goes back to the core.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::node::clock;
use crate::node::host::HostRoot;
use crate::node::kubelet;
use crate::node::runtime::{self, Runtime};
use crate::places::manifests::Link;
use crate::places::reports::AgentReport;
use crate::places::store::Store;
use crate::reasons::Blocked;
use crate::supervisor::core::decide::Action;
use crate::supervisor::core::facts::{Key, Seen};
use crate::supervisor::core::known::Known;
use crate::supervisor::core::observe::Lists;
use crate::supervisor::core::stops::Stop;
use crate::supervisor::core::{Core, Outcome, Refused};
use crate::supervisor::preconditions::{ApiPods, Checked, Findings, Preconditions};
use crate::supervisor::reach::Reach;
use crate::supervisor::twin_files::TwinFiles;

/// What does not change while a supervisor runs.
#[derive(Debug)]
pub struct Settings {
    /// The host's files.
    pub root: HostRoot,
    /// Id of this boot.
    pub boot_id: String,
    /// Name of this node.
    pub node_name: String,
    /// The kubelet's root directory, a host path.
    pub kubelet_dir: std::path::PathBuf,
    /// The checkpoints.
    pub store: Store,
}

/// What actions need in one pass.
#[derive(Clone, Copy)]
pub struct PassContext<'a> {
    /// What does not change.
    pub settings: &'a Settings,
    /// Twins' files; `None`: the manifest directory is not known yet.
    pub files: Option<&'a TwinFiles>,
    /// Kubelet and runtime.
    pub reach: &'a Reach,
    /// What the runtime listed.
    pub lists: Option<&'a Lists>,
    /// What the agent last reported.
    pub agent: Option<&'a AgentReport>,
    /// Why the run directory cannot hold clear text.
    pub not_memory: Option<&'a str>,
}

/// A stop that has ended.
struct Stopped {
    action: Action,
    result: Result<(), runtime::Error>,
}

/// Performs actions.
#[derive(Default)]
pub struct Performer {
    /// Stops in progress: a pass does not wait for grace periods.
    stops: JoinSet<Stopped>,
    /// Twins that were activated: no UID is used twice.
    activations: u64,
}

impl Performer {
    /// Performs an action that links a twin. `synced`: whether the kubelet has pods from the API
    /// server. If this is dropped before it ends, nothing was changed.
    pub async fn link(
        &mut self,
        action: &Action,
        synced: Seen,
        with: &PassContext<'_>,
        findings: &mut Findings,
    ) -> Outcome {
        tracing::debug!(?action, "acting");
        let (Some(files), Some(key)) = (with.files, action.key()) else {
            return Outcome::Failed;
        };
        if matches!(action, Action::Relink(_)) && files.manifests.run().active(key).exists() {
            return relink(files, key);
        }
        self.activate(key, synced, files, with, findings).await
    }

    /// Performs any other action, which waits for nothing.
    pub fn perform(&mut self, action: &Action, core: &Core, with: &PassContext<'_>) -> Outcome {
        tracing::debug!(?action, "acting");
        let Some(files) = with.files else {
            return Outcome::Failed;
        };
        match action {
            Action::Nudge(key) => {
                tracing::info!(pod = %key, "the kubelet does not list the twin yet: linking it again");
                let result = match files.manifests.link(key) {
                    Link::Ours => files.relink(key),
                    Link::None | Link::Foreign => Ok(()),
                };
                outcome(key, result, "cannot link again")
            }
            Action::Release(key) => release(files, key, core),
            Action::StopTwin(_) | Action::EndTwin(_) | Action::StopParent(_) => {
                self.stop(action, core, with)
            }
            Action::Forget(key) => {
                let outcome = outcome(key, files.forget(key), "cannot remove unpacked files");
                if matches!(outcome, Outcome::Done) {
                    tracing::info!(pod = %key, "handed over");
                }
                outcome
            }
            Action::Retire => {
                if core.facts().agent_retires {
                    tracing::info!("the installation is being removed: leaving the node");
                } else {
                    tracing::warn!(
                        "the API server answers, but no agent has run for an hour: leaving the node"
                    );
                }
                match files.retire(&with.settings.store) {
                    Ok(()) => Outcome::Done,
                    Err(error) => {
                        tracing::error!(
                            error = &error as &dyn std::error::Error,
                            "cannot remove all of this program's files"
                        );
                        Outcome::Failed
                    }
                }
            }
            // The listener knows the sockets; links are made by `link`.
            Action::Unstick | Action::Activate(_) | Action::Renew(_) | Action::Relink(_) => {
                Outcome::Done
            }
        }
    }

    async fn activate(
        &mut self,
        key: &Key,
        synced: Seen,
        files: &TwinFiles,
        with: &PassContext<'_>,
        findings: &mut Findings,
    ) -> Outcome {
        match self.prepare(key, synced, files, with, findings).await {
            Ok((uid, known)) => {
                tracing::info!(pod = %key, uid, parent = known.parent_uid, "activated");
                Outcome::Linked(uid, Box::new(known))
            }
            Err(refused) => {
                let Refused { reason, message } = &refused;
                tracing::error!(pod = %key, %reason, message, advice = reason.advice(), "cannot be activated");
                Outcome::Refused(refused)
            }
        }
    }

    async fn prepare(
        &mut self,
        key: &Key,
        synced: Seen,
        files: &TwinFiles,
        with: &PassContext<'_>,
        findings: &mut Findings,
    ) -> Result<(String, Known), Refused> {
        let PassContext {
            settings, reach, ..
        } = with;
        let (Some(runtime), Some(process)) = (&reach.runtime, &reach.process) else {
            return Err(Refused::new(
                Blocked::WriteFailed,
                "kubelet and runtime are not known yet",
            ));
        };
        let taken = with.agent.and_then(|agent| agent.taken.as_ref());
        let (now, defaults) = (clock::boot_time(), kubelet::Settings::default());
        let against = Preconditions {
            now,
            boot_id: &settings.boot_id,
            root: &settings.root,
            store: &settings.store,
            manifests: &files.manifests,
            not_memory: with.not_memory,
            runtime,
            settings: process.settings.as_ref().unwrap_or(&defaults),
            kubelet_dir: &settings.kubelet_dir,
            node_name: &settings.node_name,
            record: reach.node.as_ref(),
            api_pods: if synced.is_no() {
                ApiPods::None
            } else {
                ApiPods::Take(taken)
            },
        };
        let Checked { generation, demand } = against.check(key, findings).await?;
        self.activations += 1;
        let nonce = format!(
            "{}/{}/{}",
            settings.boot_id,
            now.as_nanos(),
            self.activations
        );
        let uid = files.activate(&generation.checkpoint, key, &nonce)?;
        findings.take(&demand);
        Ok((uid, Known::of(&generation.checkpoint)))
    }

    fn stop(&mut self, action: &Action, core: &Core, with: &PassContext<'_>) -> Outcome {
        let (Some(lists), Some(runtime)) = (with.lists, with.reach.runtime.clone()) else {
            return Outcome::Failed;
        };
        let Some(stop) = core.stop(action, lists) else {
            return Outcome::Done;
        };
        let what = match action {
            Action::StopTwin(_) => "stopping the twin",
            Action::EndTwin(_) => "ending the twin",
            _ => "stopping what is left of the parent",
        };
        tracing::info!(pod = action.key().map(tracing::field::display), "{what}");
        let action = action.clone();
        self.stops.spawn_local(async move {
            Stopped {
                action,
                result: stop_through(runtime, stop).await,
            }
        });
        Outcome::Started
    }

    /// Waits for a stop to end; forever if none is in progress. May be dropped and called again.
    pub async fn stopped(&mut self) -> Action {
        loop {
            match self.stops.join_next().await {
                Some(Ok(Stopped { action, result })) => {
                    if let Err(error) = result {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(
                            pod = action.key().map(tracing::field::display),
                            ?action,
                            error,
                            "did not work"
                        );
                    }
                    return action;
                }
                Some(Err(_)) => {}
                None => return std::future::pending().await,
            }
        }
    }
}

/// Removes the link of a twin.
pub fn release(files: &TwinFiles, key: &Key, core: &Core) -> Outcome {
    let outcome = outcome(key, files.release(key), "cannot release");
    if matches!(outcome, Outcome::Done) {
        tracing::info!(pod = %key, kubelet_connected = ?core.kubelet_connected(), "released");
    }
    outcome
}

fn relink(files: &TwinFiles, key: &Key) -> Outcome {
    if files.manifests.link(key) == Link::Foreign {
        // created after the twin was released
        let path = files.manifests.link_path(key);
        return Outcome::Refused(Refused::new(
            Blocked::ForeignManifest,
            format!("{} was not created by this program", path.display()),
        ));
    }
    let outcome = outcome(key, files.relink(key), "cannot link the twin again");
    if matches!(outcome, Outcome::Done) {
        tracing::info!(pod = %key, "contact is lost again: the twin is linked again");
    }
    outcome
}

fn outcome<E: std::error::Error + 'static>(
    key: &Key,
    result: Result<(), E>,
    otherwise: &str,
) -> Outcome {
    match result {
        Ok(()) => Outcome::Done,
        Err(error) => {
            tracing::error!(pod = %key, error = &error as &dyn std::error::Error, "{otherwise}");
            Outcome::Failed
        }
    }
}

/// Stops the containers of each sandbox, which get the grace period to end by themselves, then the
/// sandbox. Without a grace period the sandbox is stopped at once, and the runtime ends what runs
/// in it.
pub async fn stop_through(runtime: Runtime, stop: Stop) -> Result<(), runtime::Error> {
    let Stop { targets, grace } = stop;
    for target in targets {
        if let Some(grace) = grace {
            let grace: Duration = grace;
            let stops = target
                .containers
                .iter()
                .map(|container| runtime.stop_container(container, grace));
            for stopped in futures::future::join_all(stops).await {
                stopped?;
            }
        }
        if target.ready {
            runtime.stop_sandbox(&target.sandbox).await?;
        }
    }
    Ok(())
}
