//! Objects that the API server does not have, or no longer has.
//!
//! [`ask`] finds out whether a *pod* is gone, because then its checkpoint is removed. Only the API
//! server can say so, for exactly this UID, and only if it has the Node that is recorded for this
//! node.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams};
use kube::{Client, Error};
use serde::de::DeserializeOwned;

use crate::client::heard::explain;
use crate::pod::id::PodId;

/// Whether the error says that the API server has no such object, or no such kind.
pub fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 404)
}

/// Turns the error that the API server has no such object into `None`.
pub fn found<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(object) => Ok(Some(object)),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Deletes an object. True if the API server deleted it; false if it has no such object, or if the
/// preconditions do not hold because another object has this name by now.
pub async fn delete<K>(api: &Api<K>, name: &str, parameters: &DeleteParams) -> Result<bool, Error>
where
    K: Clone + Debug + DeserializeOwned,
{
    match api.delete(name, parameters).await {
        Ok(_) => Ok(true),
        Err(Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What the API server said when asked for a pod by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The API server has no pod with this UID, and it has the recorded Node.
    Gone,
    /// The API server has the pod.
    There,
    /// The API server did not answer, or its answer proves nothing.
    Unknown,
}

/// Asks for the pod by name, and for the Node. Anything but a clear answer is [`Answer::Unknown`],
/// with the reason.
///
/// With an empty UID, which stands for a checkpoint that cannot be read, any pod with this name
/// counts as the pod.
///
/// A 404 counts only with the API server's own reason `NotFound`, because a proxy or load balancer
/// in between may also answer 404. The UID of the Node reveals another cluster behind the same
/// address.
pub async fn ask(
    client: &Client,
    node: &str,
    node_uid: Option<&str>,
    pod: &PodId,
    uid: &str,
) -> (Answer, Option<String>) {
    let unknown = |why: String| (Answer::Unknown, Some(why));
    let Some(node_uid) = node_uid else {
        return unknown("the node's UID is not recorded yet".into());
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), pod.namespace());
    match pods.get_metadata(pod.name()).await {
        Ok(pod) if pod.metadata.uid.as_deref() == Some(uid) => return (Answer::There, None),
        Ok(_) if uid.is_empty() => return (Answer::There, None),
        Ok(pod) if pod.metadata.uid.is_none() => return unknown("the answer names no UID".into()),
        Ok(_) => {}
        Err(Error::Api(status)) if status.code == 404 && status.reason == "NotFound" => {}
        Err(error) => return unknown(format!("cannot get the pod: {}", explain(&error))),
    }
    let nodes: Api<Node> = Api::all(client.clone());
    match nodes.get_metadata(node).await {
        Ok(object) if object.metadata.uid.as_deref() == Some(node_uid) => (Answer::Gone, None),
        Ok(_) => unknown(format!(
            "node {node} is not the recorded one: its UID differs"
        )),
        Err(error) => unknown(format!("cannot get node {node}: {}", explain(&error))),
    }
}
