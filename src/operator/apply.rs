//! What the operator asks of the API server: to apply, to read, to delete. It decides nothing:
//! [`super::objects`], [`super::removal`] and [`super::status`] do.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions,
};
use kube::{Client, Error, Resource as _};
use serde_json::{Value, json};

use crate::api::condition;
use crate::api::podcheckpointer::{PodCheckpointer, PodCheckpointerStatus};
use crate::client::heard::explain;
use crate::client::{gone, own_pod};
use crate::names::{
    APPLY_FAILED, COMPONENT_LABEL, FINALIZER, FOREIGN_OBJECT, IMAGE_UNKNOWN, INSTALLATION,
    INVALID_SETTINGS, MADE_BY, NAME_LABEL, OPERATOR_MANAGER, REFUSED,
};
use crate::operator::kinds::{
    DAEMON_SET, Fingerprints, KINDS, Kind, NAMESPACE, POD_MONITOR, fingerprint, is_ours,
};
use crate::operator::objects::{self, Object, is_retiring};
use crate::operator::removal::{self, Agent, AgentSet, Next, Progress};
use crate::operator::settings::{Checked, Invalid};
use crate::operator::status::Applied;

/// Agents in a page of their list.
const PAGE: u32 = 200;

/// Why the API server did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The reason for a condition.
    pub reason: &'static str,
    /// The message for people.
    pub message: String,
}

impl Failure {
    fn new(what: &str, error: &Error) -> Self {
        let reason = match error {
            // by a webhook, a policy, a quota, or because a right is missing: the server's message
            // says which
            Error::Api(status) if matches!(status.code, 400 | 403 | 422) => REFUSED,
            _ => APPLY_FAILED,
        };
        Self {
            reason,
            message: format!("cannot {what}: {}", explain(error)),
        }
    }
}

impl From<Invalid> for Failure {
    fn from(error: Invalid) -> Self {
        Self {
            reason: INVALID_SETTINGS,
            message: format!("{error}; what runs stays as it is"),
        }
    }
}

/// Applies everything that the settings ask for, and deletes the objects that they do not. Gives
/// the fingerprints of the objects that were applied, also after a failure.
pub(crate) async fn apply(client: &Client, settings: &Checked) -> (Fingerprints, Applied) {
    let mut done = Fingerprints::new();
    let wanted = objects::objects(settings);
    let result = match apply_each(client, &wanted, &mut done).await {
        Ok(note) => prune(client, &wanted).await.map(|()| note),
        failed => failed,
    };
    match result {
        Ok(note) => (done, Applied::Yes(note)),
        Err(Failure { reason, message }) => (done, Applied::No { reason, message }),
    }
}

/// Applies these objects in their order, and none after one that failed: no agent runs without the
/// policy that limits it. Gives the note for [`Applied::Yes`].
async fn apply_each(
    client: &Client,
    wanted: &[Object],
    done: &mut Fingerprints,
) -> Result<Option<String>, Failure> {
    let mut note = None;
    for object in wanted {
        let Some(kind) = Kind::of(&object.value) else {
            continue;
        };
        match apply_one(client, kind, object.value.clone()).await? {
            Some(applied) => {
                done.insert(kind.kind, fingerprint(&applied));
            }
            None => {
                note = Some(
                    "no PodMonitor, because the Prometheus Operator is not installed".to_owned(),
                );
            }
        }
    }
    Ok(note)
}

/// Applies an object. `None`: the cluster does not know the kind, and need not.
async fn apply_one(
    client: &Client,
    kind: Kind,
    mut object: Value,
) -> Result<Option<DynamicObject>, Failure> {
    let what = format!("apply {}", kind.named());
    let failed = |error: Error| Failure::new(&what, &error);
    let api = kind.api(client.clone());
    let before = find(&api).await.map_err(failed)?;
    if kind == NAMESPACE {
        // people may create the namespace before; it is deleted only if the operator created it
        let is_own = before.as_ref().is_none_or(is_created_by_operator);
        if let Some(annotations) = object
            .pointer_mut("/metadata/annotations")
            .filter(|_| is_own)
        {
            annotations[MADE_BY] = OPERATOR_MANAGER.into();
        }
    } else if before.as_ref().is_some_and(|before| !is_ours(before)) {
        return Err(Failure {
            reason: FOREIGN_OBJECT,
            message: format!(
                "{} does not belong to this installation: it lacks the label {NAME_LABEL}: {INSTALLATION}. Delete it, or \
                 add the label to let the operator take it over",
                kind.named()
            ),
        });
    }
    let parameters = PatchParams::apply(OPERATOR_MANAGER).force();
    match api
        .patch(INSTALLATION, &parameters, &Patch::Apply(&object))
        .await
    {
        Ok(applied) => {
            let version = |object: &DynamicObject| object.metadata.resource_version.clone();
            if before.as_ref().and_then(version) != version(&applied) {
                tracing::info!(
                    "{} {}",
                    if before.is_some() {
                        "changed"
                    } else {
                        "created"
                    },
                    kind.named()
                );
            }
            Ok(Some(applied))
        }
        Err(error) if gone::is_not_found(&error) && kind == POD_MONITOR => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// The object with the name of the installation, if there is one. A cluster that does not know the
/// kind answers 404 as well.
async fn find(api: &Api<DynamicObject>) -> Result<Option<DynamicObject>, Error> {
    gone::found(api.get(INSTALLATION).await)
}

fn is_created_by_operator(namespace: &DynamicObject) -> bool {
    let annotations = namespace.metadata.annotations.as_ref();
    annotations
        .and_then(|annotations| annotations.get(MADE_BY))
        .is_some_and(|by| by == OPERATOR_MANAGER)
}

/// Deletes the objects that earlier settings asked for and these do not.
async fn prune(client: &Client, wanted: &[Object]) -> Result<(), Failure> {
    let is_wanted = |kind: Kind| {
        wanted
            .iter()
            .any(|object| Kind::of(&object.value) == Some(kind))
    };
    for kind in KINDS.into_iter().filter(|kind| !is_wanted(*kind)) {
        delete(client, kind).await?;
    }
    Ok(())
}

/// Deletes the object of this kind, if it belongs to the installation and was not replaced by
/// another one meanwhile.
async fn delete(client: &Client, kind: Kind) -> Result<(), Failure> {
    let what = format!("delete {}", kind.named());
    let failed = |error: Error| Failure::new(&what, &error);
    let api = kind.api(client.clone());
    let Some(object) = find(&api).await.map_err(failed)? else {
        return Ok(());
    };
    let is_ending = object.metadata.deletion_timestamp.is_some();
    if is_ending || !is_ours(&object) || (kind == NAMESPACE && !is_created_by_operator(&object)) {
        return Ok(());
    }
    let preconditions = Some(Preconditions {
        uid: object.metadata.uid,
        resource_version: None,
    });
    let parameters = DeleteParams {
        preconditions,
        ..DeleteParams::background()
    };
    if gone::delete(&api, INSTALLATION, &parameters)
        .await
        .map_err(failed)?
    {
        tracing::info!("deleted {}", kind.named());
    }
    Ok(())
}

/// A round of the removal: looks how far it is, and takes the next step. `nodes_left` is kept
/// between the rounds: every node that has to be waited for was left.
pub(crate) async fn remove(
    client: &Client,
    retiring: &Checked,
    checkpoints: &[(String, String)],
    nodes_left: &mut bool,
) -> Result<Round, Failure> {
    let look = |error: Error| Failure::new("look at the agents", &error);
    let set = find(&DAEMON_SET.api(client.clone())).await.map_err(look)?;
    let is_foreign = set.as_ref().is_some_and(|set| !is_ours(set));
    let mut progress = Progress {
        set: set
            .filter(is_ours)
            .map_or(AgentSet::Absent, |set| agent_set(&set)),
        // a foreign DaemonSet of this name means that there are no agents
        nodes_left: *nodes_left || is_foreign,
        agents: Vec::new(),
        reachable: BTreeMap::new(),
    };
    if matches!(progress.set, AgentSet::Retires(_)) && !progress.nodes_left {
        progress.agents = agents(client).await.map_err(look)?;
        for agent in progress.agents.iter().filter(|agent| !agent.is_done) {
            let reachable = is_reachable(client, &agent.node).await.map_err(look)?;
            progress.reachable.insert(agent.node.clone(), reachable);
        }
    }
    match removal::next(&progress) {
        Next::Retire => {
            // with everything that the agents need for it, in case some of that was deleted by hand
            apply_each(
                client,
                &objects::objects(retiring),
                &mut Fingerprints::new(),
            )
            .await?;
            Ok(Round::Waits(
                "the agents are being asked to leave their nodes".into(),
            ))
        }
        Next::Wait(message) => Ok(Round::Waits(message)),
        Next::Delete(not_waited) => {
            if let Some(nodes) = &not_waited {
                tracing::warn!("not waiting for {nodes}");
            }
            *nodes_left = true;
            delete(client, DAEMON_SET).await?;
            for (namespace, name) in checkpoints {
                delete_checkpoint(client, namespace, name).await?;
            }
            for kind in KINDS {
                delete(client, kind).await?;
            }
            Ok(Round::Done)
        }
    }
}

/// How far the removal is after a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    /// It is not done; the text says what is waited for.
    Waits(String),
    /// Every object is deleted.
    Done,
}

fn agent_set(set: &DynamicObject) -> AgentSet {
    let template = set.data.pointer("/spec/template");
    if !template.is_some_and(is_retiring) {
        return AgentSet::Captures;
    }
    let number = |path: &str| set.data.pointer(path).and_then(Value::as_i64);
    let is_observed = number("/status/observedGeneration") == set.metadata.generation;
    let desired = number("/status/desiredNumberScheduled").unwrap_or_default();
    AgentSet::Retires(i32::try_from(desired).ok().filter(|_| is_observed))
}

async fn agents(client: &Client) -> Result<Vec<Agent>, Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), INSTALLATION);
    let labels = format!("{NAME_LABEL}={INSTALLATION},{COMPONENT_LABEL}=agent");
    let mut parameters = ListParams::default().labels(&labels).limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = api.list(&parameters).await?;
        all.extend(page.items.iter().filter_map(agent));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters.continue_token = Some(token),
            None => return Ok(all),
        }
    }
}

/// `None`: the pod is on no node yet.
fn agent(pod: &Pod) -> Option<Agent> {
    let node = pod.spec.as_ref()?.node_name.clone()?;
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref())
        .into_iter()
        .flatten();
    let is_ready = conditions
        .into_iter()
        .any(|condition| condition.type_ == condition::READY && condition.status == "True");
    let retires = serde_json::to_value(pod).is_ok_and(|pod| is_retiring(&pod));
    Some(Agent {
        node,
        is_done: retires && is_ready && pod.metadata.deletion_timestamp.is_none(),
    })
}

async fn is_reachable(client: &Client, node: &str) -> Result<bool, Error> {
    let node = Api::<Node>::all(client.clone()).get_opt(node).await?;
    let conditions = node
        .and_then(|node| node.status?.conditions)
        .into_iter()
        .flatten();
    Ok(conditions
        .into_iter()
        .any(|condition| condition.type_ == condition::READY && condition.status == "True"))
}

async fn delete_checkpoint(client: &Client, namespace: &str, name: &str) -> Result<(), Failure> {
    let api: Api<crate::api::PodCheckpoint> = Api::namespaced(client.clone(), namespace);
    let deleted = gone::delete(&api, name, &DeleteParams::default()).await;
    deleted
        .map(drop)
        .map_err(|error| Failure::new(&format!("delete PodCheckpoint {namespace}/{name}"), &error))
}

/// The API of `PodCheckpointer`s, as JSON: one that this program cannot read becomes a condition,
/// and not a watch that fails.
pub(crate) fn podcheckpointers(client: Client) -> Api<DynamicObject> {
    Api::all_with(client, &ApiResource::erase::<PodCheckpointer>(&()))
}

/// Adds the finalizer to the `PodCheckpointer`, or removes it. The API server refuses it if the
/// object changed meanwhile.
pub(crate) async fn set_finalizer(
    client: &Client,
    object: &DynamicObject,
    is_set: bool,
) -> Result<(), Failure> {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let mut all = object.metadata.finalizers.clone().unwrap_or_default();
    all.retain(|one| one != FINALIZER);
    if is_set {
        all.push(FINALIZER.into());
    }
    let patch = json!({"metadata": {"finalizers": all, "resourceVersion": object.metadata.resource_version}});
    let written = gone::found(
        podcheckpointers(client.clone())
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await,
    );
    written
        .map(drop)
        .map_err(|error| Failure::new("write the finalizer of the PodCheckpointer", &error))
}

/// Writes the status of the `PodCheckpointer`.
pub(crate) async fn write_status(
    client: &Client,
    name: &str,
    status: &PodCheckpointerStatus,
) -> Result<(), Failure> {
    let patch = json!({
        "apiVersion": PodCheckpointer::api_version(&()),
        "kind": PodCheckpointer::kind(&()),
        "metadata": {"name": name},
        "status": status,
    });
    let parameters = PatchParams::apply(OPERATOR_MANAGER).force();
    let written = gone::found(
        podcheckpointers(client.clone())
            .patch_status(name, &parameters, &Patch::Apply(patch))
            .await,
    );
    written
        .map(drop)
        .map_err(|error| Failure::new("write the status of the PodCheckpointer", &error))
}

/// The image of the operator's own pod.
pub(crate) async fn own_image(
    client: &Client,
    namespace: &str,
    pod: Option<&str>,
) -> Result<String, Failure> {
    let image = own_pod::image(client, namespace, pod, "operator", "--image").await;
    image.map_err(|error| Failure {
        reason: IMAGE_UNKNOWN,
        message: error.to_string(),
    })
}
