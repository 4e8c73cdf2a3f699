//! Lists, writes and deletes `PodCheckpoints`.

use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Client, Error, Resource as _, ResourceExt as _};
use serde_json::{Value, json};

use crate::agent::published::ledger::{Done, Job, Published};
use crate::api::podcheckpoint::{PodCheckpoint, PodCheckpointStatus, label, node_selector};
use crate::client::gone;
use crate::names::{FIELD_MANAGER, NODE_LABEL};
use crate::pod::id::PodId;

/// Objects in a page of the list.
const PAGE: u32 = 50;

/// Does a job. Errors are part of the result.
pub(crate) async fn perform(client: Client, node: String, job: Job) -> Done {
    match job {
        Job::Seed => Done::Seeded(list(&client, &node).await),
        Job::Write {
            key,
            uid,
            spec,
            status,
            news,
        } => {
            let result = write(&client, &node, &key, &uid, spec, &status).await;
            let known = Box::new(Published {
                object: None,
                pod: uid,
                status: Some(*status),
                is_gone: false,
            });
            Done::Written {
                key,
                known,
                result,
                news,
            }
        }
        Job::Delete { key, uid } => {
            let result = delete(client, &key, uid).await;
            Done::Deleted(key, result)
        }
    }
}

/// Deletes one. `uid` is the UID of the object, if known; another object of this name stays.
pub(crate) async fn delete(client: Client, key: &PodId, uid: Option<String>) -> Result<(), Error> {
    let api: Api<PodCheckpoint> = Api::namespaced(client, key.namespace());
    let preconditions = Some(Preconditions {
        uid,
        resource_version: None,
    });
    let parameters = DeleteParams {
        preconditions,
        ..DeleteParams::default()
    };
    gone::delete(&api, key.name(), &parameters).await.map(drop)
}

/// All objects of this node, by pod.
pub(crate) async fn list(client: &Client, node: &str) -> Result<Vec<(PodId, Published)>, Error> {
    let api: Api<PodCheckpoint> = Api::all(client.clone());
    let mut all = Vec::new();
    let mut parameters = ListParams::default()
        .labels(&node_selector(node))
        .limit(PAGE);
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
            all.push((
                key,
                Published {
                    object,
                    pod,
                    status,
                    is_gone: false,
                },
            ));
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
        let whole = api
            .patch(
                name,
                &parameters,
                &Patch::Apply(apply_spec(node, namespace, name, uid)),
            )
            .await?;
        object = whole.uid();
    }
    let patch = json!({
        "apiVersion": PodCheckpoint::api_version(&()),
        "kind": PodCheckpoint::kind(&()),
        "metadata": {"namespace": namespace, "name": name},
        "status": status,
    });
    let whole = api
        .patch_status(name, &parameters, &Patch::Apply(patch))
        .await?;
    Ok(whole.uid().or(object))
}

fn apply_spec(node: &str, namespace: &str, name: &str, uid: &str) -> Value {
    json!({
        "apiVersion": PodCheckpoint::api_version(&()),
        "kind": PodCheckpoint::kind(&()),
        "metadata": {
            "namespace": namespace,
            "name": name,
            "labels": {NODE_LABEL: label(node)},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}],
        },
        "spec": {"nodeName": node, "podUID": uid},
    })
}
