//! The images that ran: are they on the node, and would the kubelet use them for a pod without pull secrets?

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use super::{Error, Reason, Sources};
use crate::checkpoint::Image;
use crate::names::Refusal;
use crate::node::images::is_usable_without_secret;

/// What is known of a pod's images.
#[derive(Debug, Default)]
pub struct Images {
    /// By container: what ran.
    pub ran: BTreeMap<String, Image>,
    /// By container: what the twin names, so that it runs the same.
    pub named: BTreeMap<String, String>,
    /// What stands against it.
    pub reasons: Vec<Reason>,
}

/// Looks the images of a pod up. `resolved` is what each container ran, as the runtime names it.
///
/// A tag may have moved since: then the twin names what ran.
pub async fn look_up(pod: &Pod, resolved: &BTreeMap<String, String>, sources: &Sources<'_>) -> Result<Images, Error> {
    let mut images = Images::default();
    let Some(spec) = &pod.spec else { return Ok(images) };
    let mut node = Node { sources, known: BTreeMap::new() };
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        let name = container.image.clone().unwrap_or_default();
        let of_name = node.id(&name).await?;
        let ran = resolved.get(&container.name).filter(|id| !id.is_empty());
        let of_ran = match ran {
            Some(id) => node.id(id).await?,
            None => None,
        };
        let is_same = |id: &String| ran.is_none_or(|ran| bare(ran) == bare(id)) || of_ran.as_deref() == Some(id);
        let (named, id) = match (of_name.filter(is_same), ran.zip(of_ran.clone())) {
            (Some(id), _) => (name.clone(), id),
            (None, Some((ran, id))) => (ran.clone(), id),
            (None, None) => {
                let detail = format!("container {}: {name}", container.name);
                images.reasons.push(Reason { refusal: Refusal::ImageAbsent, detail });
                continue;
            }
        };
        if !node.is_usable(&named, &id)? {
            let detail = format!("container {}: {name}", container.name);
            images.reasons.push(Reason { refusal: Refusal::ImageNeedsPullSecret, detail });
        }
        images.named.insert(container.name.clone(), named);
        images.ran.insert(container.name.clone(), Image { name, id });
    }
    for volume in spec.volumes.iter().flatten() {
        let Some(reference) = volume.image.as_ref().and_then(|image| image.reference.as_deref()) else { continue };
        let refusal = match node.id(reference).await? {
            None => Refusal::ImageAbsent,
            Some(id) if !node.is_usable(reference, &id)? => Refusal::ImageNeedsPullSecret,
            Some(_) => continue,
        };
        images.reasons.push(Reason { refusal, detail: format!("volume {}: {reference}", volume.name) });
    }
    Ok(images)
}

/// An id without the name of its hash: CRI-O leaves that out in some places.
fn bare(id: &str) -> &str {
    id.strip_prefix("sha256:").unwrap_or(id)
}

/// Asks the runtime once for each reference.
struct Node<'a> {
    sources: &'a Sources<'a>,
    known: BTreeMap<String, Option<String>>,
}

impl Node<'_> {
    async fn id(&mut self, reference: &str) -> Result<Option<String>, Error> {
        if let Some(known) = self.known.get(reference) {
            return Ok(known.clone());
        }
        let id = self.sources.runtime.image(reference).await.map_err(Error::Runtime)?;
        self.known.insert(reference.to_owned(), id.clone());
        Ok(id)
    }

    fn is_usable(&self, named: &str, id: &str) -> Result<bool, Error> {
        let Sources { root, kubelet_dir, settings, .. } = self.sources;
        is_usable_without_secret(root, kubelet_dir, settings, named, id)
            .map_err(|source| Error::Io { doing: format!("look up the kubelet's pull record of {named}"), source })
    }
}
