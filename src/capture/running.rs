//! The containers of a pod as the runtime has them now.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::{Error, Sources};
use crate::node::runtime::{self, State};

/// The containers of the pod as it is now: the newest of each name, all in one sandbox.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Running {
    pub sandbox: String,
    pub records: BTreeMap<String, Record>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub id: String,
    pub image_id: String,
}

impl Running {
    pub async fn of(pod: &Pod, sources: &Sources<'_>) -> Result<Self, Error> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let mut found = sources
            .runtime
            .containers_of(uid)
            .await
            .map_err(Error::Runtime)?;
        found.retain(|container| container.pod_uid == uid);
        Self::newest(pod, &found)
    }

    fn newest(pod: &Pod, found: &[runtime::Container]) -> Result<Self, Error> {
        let spec = pod.spec.clone().unwrap_or_default();
        let inits = spec.init_containers.unwrap_or_default();
        // the current sandbox is the one in which a container runs; older ones have only ended
        // containers
        let sandbox = found
            .iter()
            .find(|it| it.state == State::Running)
            .map(|it| it.sandbox.as_str());
        let Some(sandbox) = sandbox else {
            return Err(Error::Gone("the set of running containers".into()));
        };
        if found
            .iter()
            .any(|it| it.state == State::Running && it.sandbox != sandbox)
        {
            return Err(Error::Gone("the pod's sandbox".into()));
        }
        let mut records = BTreeMap::new();
        for container in inits.iter().chain(&spec.containers) {
            let is_init = inits.iter().any(|init| init.name == container.name);
            let of_name = found
                .iter()
                .filter(|it| it.name == container.name && it.sandbox == sandbox);
            let Some(newest) = of_name.max_by_key(|it| (it.attempt, it.state == State::Running))
            else {
                // the kubelet keeps the last record of each, but an init container's may still be
                // lost
                if is_init {
                    continue;
                }
                return Err(Error::Gone(format!("container {}", container.name)));
            };
            if is_kept_running(container, is_init) && newest.state != State::Running {
                return Err(Error::Gone(format!("container {}", container.name)));
            }
            records.insert(
                container.name.clone(),
                Record {
                    id: newest.id.clone(),
                    image_id: newest.image_id.clone(),
                },
            );
        }
        Ok(Self {
            sandbox: sandbox.to_owned(),
            records,
        })
    }
}

/// Whether the container always runs in a Ready pod, unlike an init container that has completed.
fn is_kept_running(container: &Container, is_init: bool) -> bool {
    match container.restart_policy.as_deref() {
        Some(policy) => policy == "Always",
        None => !is_init,
    }
}
