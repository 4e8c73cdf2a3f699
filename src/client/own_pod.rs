//! The program's own pod, as the API server has it.

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::Api;

use crate::client::heard::explain;

/// Why the image of the program's own container is not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name of the pod is not known.
    #[error("which image? Give {flag}, or POD_NAME and POD_NAMESPACE")]
    Unnamed {
        /// The flag that names the image.
        flag: &'static str,
    },
    /// The API server did not give the pod.
    #[error("cannot get the {part}'s own pod {pod}: {}", explain(.source))]
    Unread {
        /// Agent or operator.
        part: &'static str,
        /// `<namespace>/<name>`.
        pod: String,
        /// What the API server said.
        source: kube::Error,
    },
    /// The pod names no image.
    #[error("the {part}'s own pod {pod} names no image: give {flag}")]
    NoImage {
        /// Agent or operator.
        part: &'static str,
        /// `<namespace>/<name>`.
        pod: String,
        /// The flag that names the image.
        flag: &'static str,
    },
}

/// The image of the program's own container: the one with the name of the `part`, `agent` or
/// `operator`, else the first. `flag` names an image in its place, and occurs in errors.
pub async fn image(
    client: &Client,
    namespace: &str,
    name: Option<&str>,
    part: &'static str,
    flag: &'static str,
) -> Result<String, Error> {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Err(Error::Unnamed { flag });
    };
    let named = || format!("{namespace}/{name}");
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod = pods.get(name).await.map_err(|source| Error::Unread {
        part,
        pod: named(),
        source,
    })?;
    let containers = pod.spec.map(|spec| spec.containers).unwrap_or_default();
    let own = containers
        .iter()
        .find(|container| container.name == part)
        .or(containers.first());
    let image = own
        .and_then(|container| container.image.clone())
        .filter(|image| !image.is_empty());
    image.ok_or_else(|| Error::NoImage {
        part,
        pod: named(),
        flag,
    })
}
