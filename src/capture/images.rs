//! The images that ran: whether they are on the node, and whether the kubelet would use them for a
//! pod without pull secrets.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;

use super::claims::{self, Bound};
use super::{Error, Reason, Sources};
use crate::checkpoint::Image;
use crate::node::images::{is_usable_without_secret, repository};
use crate::node::runtime;
use crate::reasons::Refusal;

/// What is known about a pod's images.
#[derive(Debug, Default)]
pub struct Images {
    /// By container, or `volume <name>`: the image that ran.
    pub ran: BTreeMap<String, Image>,
    /// By container: the name under which the twin runs the same image.
    pub named: BTreeMap<String, String>,
    /// By volume: the name under which the twin mounts the same image.
    pub mounted: BTreeMap<String, String>,
    /// Images that are a reason to refuse the pod.
    pub reasons: Vec<Reason>,
}

/// Looks up the images of a pod. `resolved` is the image that each container ran, as the runtime
/// names it, and `bound` what each container mounted.
///
/// If a tag has been moved to another image since, the twin names the image that ran.
pub async fn look_up(
    pod: &Pod,
    resolved: &BTreeMap<String, String>,
    bound: &BTreeMap<String, Vec<Bound>>,
    sources: &Sources<'_>,
) -> Result<Images, Error> {
    let mut images = Images::default();
    let Some(spec) = &pod.spec else {
        return Ok(images);
    };
    let mut node = Node {
        sources,
        known: BTreeMap::new(),
    };
    for container in spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
    {
        let name = container.image.as_deref().unwrap_or_default();
        let who = format!("container {}", container.name);
        let ran = resolved.get(&container.name).map(String::as_str);
        if let Some((named, image)) = images.accept(&who, name, node.choose(name, ran).await?) {
            images.named.insert(container.name.clone(), named);
            images.ran.insert(container.name.clone(), image);
        }
    }
    for volume in spec.volumes.iter().flatten() {
        let Some(reference) = volume
            .image
            .as_ref()
            .and_then(|image| image.reference.as_deref())
        else {
            continue;
        };
        let who = format!("volume {}", volume.name);
        let mounts = claims::of_volume(spec, &volume.name, bound);
        let ran = mounts.iter().find_map(|(_, bound)| bound.image.as_deref());
        if let Some((named, image)) =
            images.accept(&who, reference, node.choose(reference, ran).await?)
        {
            images.mounted.insert(volume.name.clone(), named);
            images.ran.insert(who, image);
        }
    }
    Ok(images)
}

impl Images {
    /// The name to use and the image behind it; `None`, with a reason added, if there is none.
    fn accept(&mut self, who: &str, name: &str, choice: Option<Choice>) -> Option<(String, Image)> {
        let mut refuse = |refusal| {
            self.reasons.push(Reason {
                refusal,
                detail: format!("{who}: {name}"),
            });
        };
        let Some(Choice {
            named,
            id,
            needs_secret,
        }) = choice
        else {
            refuse(Refusal::ImageAbsent);
            return None;
        };
        if needs_secret {
            refuse(Refusal::ImageNeedsPullSecret);
        }
        let image = Image {
            name: named.clone(),
            id,
        };
        Some((named, image))
    }
}

/// A name by which a twin runs the same image.
#[derive(Debug)]
struct Choice {
    named: String,
    id: String,
    needs_secret: bool,
}

/// An ID without the prefix of its hash, which CRI-O omits in some places.
fn bare(id: &str) -> &str {
    id.strip_prefix("sha256:").unwrap_or(id)
}

/// Asks the runtime, once per reference.
struct Node<'a> {
    sources: &'a Sources<'a>,
    known: BTreeMap<String, Option<runtime::Image>>,
}

impl Node<'_> {
    /// The pod's own name if it still refers to the image that ran; else its digest in the same
    /// repository, because the kubelet's pull records know only repositories; else its ID. Of
    /// these, the first that needs no secret. `None` if the node has the image under none of these
    /// names.
    async fn choose(&mut self, name: &str, ran: Option<&str>) -> Result<Option<Choice>, Error> {
        let ran = ran.filter(|id| !id.is_empty());
        let of_name = self.image(name).await?;
        let of_ran = match ran {
            Some(ran) => self.image(ran).await?,
            None => None,
        };
        let is_same = |id: &str| {
            ran.is_none_or(|ran| bare(ran) == bare(id))
                || of_ran.as_ref().is_some_and(|of_ran| of_ran.id == id)
        };
        let mut candidates = Vec::new();
        candidates.extend(
            of_name
                .filter(|image| is_same(&image.id))
                .map(|image| (name.to_owned(), image.id)),
        );
        if let (true, Some(image), Some(ran)) = (candidates.is_empty(), &of_ran, ran) {
            // the repository as the pod spells it: a runtime adds the registry, the pull records do
            // not
            let digests = image
                .digests
                .iter()
                .filter_map(|digest| digest.split_once('@'));
            let spelt = |(_, digest)| Some(format!("{}@{digest}", repository(name)?));
            for digest in digests.filter_map(spelt).collect::<BTreeSet<_>>() {
                if self
                    .image(&digest)
                    .await?
                    .is_some_and(|found| found.id == image.id)
                {
                    candidates.push((digest, image.id.clone()));
                }
            }
            candidates.push((ran.to_owned(), image.id.clone()));
        }
        let mut first = None;
        for (named, id) in candidates {
            if self.is_usable(&named, &id)? {
                return Ok(Some(Choice {
                    named,
                    id,
                    needs_secret: false,
                }));
            }
            first.get_or_insert(Choice {
                named,
                id,
                needs_secret: true,
            });
        }
        Ok(first)
    }

    async fn image(&mut self, reference: &str) -> Result<Option<runtime::Image>, Error> {
        if let Some(known) = self.known.get(reference) {
            return Ok(known.clone());
        }
        let image = self
            .sources
            .runtime
            .image_detail(reference)
            .await
            .map_err(Error::Runtime)?;
        self.known.insert(reference.to_owned(), image.clone());
        Ok(image)
    }

    fn is_usable(&self, named: &str, id: &str) -> Result<bool, Error> {
        let Sources {
            root,
            kubelet_dir,
            settings,
            ..
        } = self.sources;
        is_usable_without_secret(root, kubelet_dir, settings, named, id).map_err(|source| {
            Error::Io {
                doing: format!("look up the kubelet's pull record of {named}"),
                source,
            }
        })
    }
}
