//! What the operator asks of the API server: apply, look, delete. What it decides by is elsewhere.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions};
use kube::{Client, Error};
use serde_json::{Value, json};

use crate::agent::heard::explain;
use crate::api::podcheckpointer::{PodCheckpointer, PodCheckpointerStatus};
use crate::names::{
    APPLY_FAILED, COMPONENT_LABEL, FINALIZER, FOREIGN_OBJECT, IMAGE_UNKNOWN, INSTALLATION, INVALID_SETTINGS, MADE_BY,
    NAME_LABEL, OPERATOR_MANAGER, REFUSED,
};
use crate::operator::kinds::{DAEMON_SET, KINDS, Kind, NAMESPACE, POD_MONITOR, fingerprint, is_ours};
use crate::operator::objects::{self, Object, is_retiring};
use crate::operator::removal::{self, Agent, Next, Seen, Set};
use crate::operator::settings::{Checked, Invalid};
use crate::operator::status::Applied;

/// Agents in a page of their list.
const PAGE: u32 = 200;

/// Why something could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// For a condition.
    pub reason: &'static str,
    /// In words.
    pub message: String,
}

impl Failure {
    fn new(what: &str, error: &Error) -> Self {
        let reason = match error {
            // by a webhook, a policy, a quota, or for want of a right: each says so itself
            Error::Api(status) if matches!(status.code, 400 | 403 | 422) => REFUSED,
            _ => APPLY_FAILED,
        };
        Self { reason, message: format!("cannot {what}: {}", explain(error)) }
    }
}

impl From<Invalid> for Failure {
    fn from(error: Invalid) -> Self {
        Self { reason: INVALID_SETTINGS, message: format!("{error}; what runs stays as it is") }
    }
}

/// How each object was after it was applied, by kind.
pub(crate) type Fingerprints = BTreeMap<&'static str, u64>;

/// Makes everything that the settings ask for, and removes what they do not. What was applied is told even after a failure.
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

/// In their order, and none after one that failed: no agent runs without the policy that limits it.
async fn apply_each(client: &Client, wanted: &[Object], done: &mut Fingerprints) -> Result<Option<String>, Failure> {
    let mut note = None;
    for object in wanted {
        let Some(kind) = Kind::of(&object.value) else { continue };
        match apply_one(client, kind, object.value.clone()).await? {
            Some(applied) => {
                done.insert(kind.kind, fingerprint(&applied));
            }
            None => note = Some("no PodMonitor, because the Prometheus Operator is not installed".to_owned()),
        }
    }
    Ok(note)
}

/// `None`: its kind is not known to this cluster, and need not be.
async fn apply_one(client: &Client, kind: Kind, mut object: Value) -> Result<Option<DynamicObject>, Failure> {
    let what = format!("apply {}", kind.named());
    let failed = |error: Error| Failure::new(&what, &error);
    let api = kind.api(client.clone());
    let before = find(&api).await.map_err(failed)?;
    if kind == NAMESPACE {
        // of all its names, this one people make by themselves before; who made it removes it
        let made_by_us = before.as_ref().is_none_or(is_made_by_us);
        if let Some(annotations) = object.pointer_mut("/metadata/annotations").filter(|_| made_by_us) {
            annotations[MADE_BY] = OPERATOR_MANAGER.into();
        }
    } else if before.as_ref().is_some_and(|before| !is_ours(before)) {
        return Err(Failure {
            reason: FOREIGN_OBJECT,
            message: format!(
                "{} is not of this installation: it lacks the label {NAME_LABEL}: {INSTALLATION}. Delete it, or give it the \
                 label to have it taken over",
                kind.named()
            ),
        });
    }
    let parameters = PatchParams::apply(OPERATOR_MANAGER).force();
    match api.patch(INSTALLATION, &parameters, &Patch::Apply(&object)).await {
        Ok(applied) => {
            let version = |object: &DynamicObject| object.metadata.resource_version.clone();
            if before.as_ref().and_then(version) != version(&applied) {
                tracing::info!("{} {}", if before.is_some() { "changed" } else { "made" }, kind.named());
            }
            Ok(Some(applied))
        }
        Err(Error::Api(status)) if status.code == 404 && kind == POD_MONITOR => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// The object of ours of this kind. A kind that the cluster does not know answers 404 as well, in words of its own.
async fn find(api: &Api<DynamicObject>) -> Result<Option<DynamicObject>, Error> {
    match api.get(INSTALLATION).await {
        Ok(object) => Ok(Some(object)),
        Err(Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_made_by_us(namespace: &DynamicObject) -> bool {
    let annotations = namespace.metadata.annotations.as_ref();
    annotations.and_then(|annotations| annotations.get(MADE_BY)).is_some_and(|by| by == OPERATOR_MANAGER)
}

/// Removes what former settings had and these have not.
async fn prune(client: &Client, wanted: &[Object]) -> Result<(), Failure> {
    let is_wanted = |kind: Kind| wanted.iter().any(|object| Kind::of(&object.value) == Some(kind));
    for kind in KINDS.into_iter().filter(|kind| !is_wanted(*kind)) {
        delete(client, kind).await?;
    }
    Ok(())
}

/// Deletes the object of this kind, if it is ours and was not changed into another meanwhile.
async fn delete(client: &Client, kind: Kind) -> Result<(), Failure> {
    let what = format!("delete {}", kind.named());
    let failed = |error: Error| Failure::new(&what, &error);
    let api = kind.api(client.clone());
    let Some(object) = find(&api).await.map_err(failed)? else { return Ok(()) };
    let is_ending = object.metadata.deletion_timestamp.is_some();
    if is_ending || !is_ours(&object) || (kind == NAMESPACE && !is_made_by_us(&object)) {
        return Ok(());
    }
    let preconditions = Some(Preconditions { uid: object.metadata.uid, resource_version: None });
    match api.delete(INSTALLATION, &DeleteParams { preconditions, ..DeleteParams::background() }).await {
        Ok(_) => tracing::info!("deleted {}", kind.named()),
        Err(Error::Api(status)) if matches!(status.code, 404 | 409) => {}
        Err(error) => return Err(failed(error)),
    }
    Ok(())
}

/// One round of the removal. `swept` remembers that every node that had to be left was.
pub(crate) async fn remove(
    client: &Client,
    retiring: &Checked,
    checkpoints: &[(String, String)],
    swept: &mut bool,
) -> Result<Round, Failure> {
    let look = |error: Error| Failure::new("look at the agents", &error);
    let set = find(&DAEMON_SET.api(client.clone())).await.map_err(look)?;
    let is_foreign = set.as_ref().is_some_and(|set| !is_ours(set));
    let mut seen = Seen {
        set: set.filter(is_ours).map_or(Set::None, |set| state(&set)),
        // where the name is somebody else's, there are no agents of ours
        swept: *swept || is_foreign,
        agents: Vec::new(),
        reachable: BTreeMap::new(),
    };
    if matches!(seen.set, Set::Retires(_)) && !seen.swept {
        seen.agents = agents(client).await.map_err(look)?;
        for agent in seen.agents.iter().filter(|agent| !agent.is_done) {
            let reachable = is_reachable(client, &agent.node).await.map_err(look)?;
            seen.reachable.insert(agent.node.clone(), reachable);
        }
    }
    match removal::next(&seen) {
        Next::Retire => {
            // with all that the agents need for it, in case somebody deleted some of that
            apply_each(client, &objects::objects(retiring), &mut Fingerprints::new()).await?;
            Ok(Round::Waits("the agents are told to leave their nodes".into()))
        }
        Next::Wait(message) => Ok(Round::Waits(message)),
        Next::Delete(behind) => {
            if let Some(behind) = &behind {
                tracing::warn!("not waited for: {behind}");
            }
            *swept = true;
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

/// What a round of the removal came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    /// It goes on, and waits for this.
    Waits(String),
    /// Nothing is left.
    Done,
}

fn state(set: &DynamicObject) -> Set {
    let template = set.data.pointer("/spec/template");
    if !template.is_some_and(is_retiring) {
        return Set::Captures;
    }
    let number = |path: &str| set.data.pointer(path).and_then(Value::as_i64);
    let is_observed = number("/status/observedGeneration") == set.metadata.generation;
    let desired = number("/status/desiredNumberScheduled").unwrap_or_default();
    Set::Retires(i32::try_from(desired).ok().filter(|_| is_observed))
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

/// `None`: it is on no node.
fn agent(pod: &Pod) -> Option<Agent> {
    let node = pod.spec.as_ref()?.node_name.clone()?;
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let is_ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let retires = serde_json::to_value(pod).is_ok_and(|pod| is_retiring(&pod));
    Some(Agent { node, is_done: retires && is_ready && pod.metadata.deletion_timestamp.is_none() })
}

async fn is_reachable(client: &Client, node: &str) -> Result<bool, Error> {
    let node = Api::<Node>::all(client.clone()).get_opt(node).await?;
    let conditions = node.and_then(|node| node.status?.conditions).into_iter().flatten();
    Ok(conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"))
}

async fn delete_checkpoint(client: &Client, namespace: &str, name: &str) -> Result<(), Failure> {
    let api: Api<crate::api::PodCheckpoint> = Api::namespaced(client.clone(), namespace);
    match api.delete(name, &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(Failure::new(&format!("delete PodCheckpoint {namespace}/{name}"), &error)),
    }
}

/// The `PodCheckpointer`s, as JSON: one that this program does not understand is a condition, not a watch that fails.
pub(crate) fn settings(client: Client) -> Api<DynamicObject> {
    Api::all_with(client, &ApiResource::erase::<PodCheckpointer>(&()))
}

/// Puts the finalizer there, or takes it away; refused if the object changed meanwhile.
pub(crate) async fn finalize(client: &Client, object: &DynamicObject, stays: bool) -> Result<(), Failure> {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let mut all = object.metadata.finalizers.clone().unwrap_or_default();
    all.retain(|one| one != FINALIZER);
    if stays {
        all.push(FINALIZER.into());
    }
    let patch = json!({"metadata": {"finalizers": all, "resourceVersion": object.metadata.resource_version}});
    match settings(client.clone()).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(Failure::new("write the finalizer of the PodCheckpointer", &error)),
    }
}

/// Writes the status.
pub(crate) async fn report(client: &Client, name: &str, status: &PodCheckpointerStatus) -> Result<(), Failure> {
    let patch = json!({
        "apiVersion": "podcheckpointer.io/v1alpha1",
        "kind": "PodCheckpointer",
        "metadata": {"name": name},
        "status": status,
    });
    let parameters = PatchParams::apply(OPERATOR_MANAGER).force();
    match settings(client.clone()).patch_status(name, &parameters, &Patch::Apply(patch)).await {
        Ok(_) => Ok(()),
        Err(Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(Failure::new("write the status of the PodCheckpointer", &error)),
    }
}

/// The image of the operator's own pod.
pub(crate) async fn own_image(client: &Client, namespace: &str, pod: Option<&str>) -> Result<String, Failure> {
    let failed = |message: String| Failure { reason: IMAGE_UNKNOWN, message };
    let Some(name) = pod.filter(|name| !name.is_empty()) else {
        return Err(failed("which image? Give the operator --image, or POD_NAME and POD_NAMESPACE".into()));
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod = pods.get(name).await;
    let pod = pod.map_err(|error| {
        failed(format!("cannot get the operator's own pod {namespace}/{name}: {}", explain(&error)))
    })?;
    let containers = pod.spec.map(|spec| spec.containers).unwrap_or_default();
    let own = containers.iter().find(|container| container.name == "operator").or(containers.first());
    own.and_then(|container| container.image.clone()).filter(|image| !image.is_empty()).ok_or_else(|| {
        failed(format!("the operator's own pod {namespace}/{name} names no image: give the operator --image"))
    })
}
