//! Finds out whether a pod is gone. Only the API server can say so, for exactly this UID, and only
//! if it has the Node that is recorded for this node.

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::Api;
use kube::{Client, Error};

use crate::client::heard::explain;

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
    key: &str,
    uid: &str,
) -> (Answer, Option<String>) {
    let unknown = |why: String| (Answer::Unknown, Some(why));
    let Some((namespace, name)) = key.split_once('_') else { return unknown(format!("{key:?} names no pod")) };
    let Some(node_uid) = node_uid else { return unknown("the node's UID is not recorded yet".into()) };
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    match pods.get_metadata(name).await {
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
        Ok(_) => unknown(format!("node {node} is not the recorded one: its UID differs")),
        Err(error) => unknown(format!("cannot get node {node}: {}", explain(&error))),
    }
}
