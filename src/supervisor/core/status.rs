//! Builds `status.yaml` from what is remembered. Pure.

use crate::node::clock::milliseconds;
use crate::places::reports::{ContactReport, LockedOut, Phase, PodReport, Status};
use crate::supervisor::core::Core;
use crate::supervisor::core::decide::{self, Pod};
use crate::supervisor::core::facts::Key;

/// See [`Core::status`].
pub(super) fn status(core: &Core, problems: Vec<String>, cannot_unstick: Option<String>) -> Status {
    let contact = core.contact();
    let locked_out = core.state.locked_out;
    Status {
        written_by: format!("pod-checkpointer {}", env!("CARGO_PKG_VERSION")),
        contact: contact.map(|contact| ContactReport {
            class: contact.class,
            since: milliseconds(contact.since),
        }),
        locked_out: locked_out.map(|(kubelet_pid, since)| LockedOut {
            kubelet_pid,
            since: milliseconds(since),
        }),
        problems,
        cannot_unstick,
        blind: None,
        pods: core
            .state
            .pods
            .iter()
            .map(|(key, pod)| report(core, key, pod))
            .collect(),
    }
}

fn report(core: &Core, key: &Key, pod: &Pod) -> PodReport {
    let (namespace, name) = (key.namespace(), key.name());
    let known = core.known.get(key);
    let blocked = pod
        .blocked
        .as_ref()
        .map(|block| (block.reason, block.message.clone()));
    let ails = core
        .health
        .of(key)
        .map(|(reason, text)| (reason, text.to_owned()));
    let blocked = match (blocked, ails) {
        // the same fault, explained in more detail
        (Some((before, _)), Some((reason, text))) if before == reason => Some((reason, text)),
        (blocked, ails) => blocked.or(ails),
    };
    let phase = match pod.phase {
        _ if blocked.is_some() => Phase::Blocked,
        decide::Phase::Inactive => Phase::Inactive,
        decide::Phase::Active { .. } => Phase::Active,
        decide::Phase::Released { .. } => Phase::Released,
    };
    let reason = blocked
        .as_ref()
        .map(|(reason, _)| reason.as_str())
        .or(core.state.held_by(pod));
    PodReport {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        parent_uid: known
            .map(|known| known.parent_uid.clone())
            .unwrap_or_default(),
        phase,
        reason: reason.map(str::to_owned),
        message: blocked.map(|(_, message)| message),
        twin_uid: known.and_then(|known| known.twin_uid.clone()),
    }
}
