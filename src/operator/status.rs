//! The status of the `PodCheckpointer`. Pure: from what was observed in the cluster, and never from
//! what is wanted.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::Value;

use crate::api::condition;
use crate::api::podcheckpointer::{Checkpoints, Nodes, PodCheckpointerStatus};
use crate::names::{APPLIED, FIT};
use crate::text::first_of;

/// Nodes that are named in a message; the others are counted.
const NAMED_NODES: usize = 10;

/// How far the settings are applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// Every object matches the spec; the text names an optional object that is left out, and says
    /// why.
    Yes(Option<String>),
    /// Not every object matches the spec.
    No {
        /// For the condition.
        reason: &'static str,
        /// For people.
        message: String,
    },
    /// The objects are being removed; the text says what is waited for.
    Removing(String),
}

/// What was observed in the cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed<'a> {
    /// Generation of the spec that `applied` is about.
    pub generation: Option<i64>,
    /// How far that spec is applied.
    pub applied: &'a Applied,
    /// The agents' DaemonSet as JSON.
    pub daemon_set: Option<&'a Value>,
    /// The number of PodCheckpoints; `None`: not all of them were read yet.
    pub checkpoints: Option<Checkpoints>,
    /// Nodes that would keep their pods from coming back, each with the reason; `None`: not all
    /// PodCheckpoints were read yet.
    pub unfit: Option<&'a BTreeMap<String, String>>,
}

/// The status to show. A condition of the shown status `before` keeps the time of its last
/// transition.
pub(crate) fn status(
    observed: &Observed<'_>,
    before: &PodCheckpointerStatus,
    now: Timestamp,
) -> PodCheckpointerStatus {
    let Observed {
        generation,
        applied,
        daemon_set,
        checkpoints,
        unfit,
    } = *observed;
    let nodes = daemon_set.and_then(nodes);
    let image = daemon_set.and_then(|set| set.pointer("/spec/template/spec/containers/0/image"));
    let condition = |Claim {
                         type_,
                         status,
                         reason,
                         message,
                     }: Claim| Condition {
        observed_generation: generation,
        ..condition(type_, status, reason, &message, &before.conditions, now)
    };
    PodCheckpointerStatus {
        observed_generation: generation,
        image: image.and_then(Value::as_str).map(str::to_owned),
        conditions: [
            applied_claim(applied),
            ready_claim(applied, nodes),
            fit_claim(unfit),
        ]
        .map(condition)
        .into(),
        nodes,
        checkpoints: checkpoints.or(before.checkpoints),
    }
}

/// What a condition says, without its times.
struct Claim {
    type_: &'static str,
    status: &'static str,
    reason: &'static str,
    message: String,
}

fn applied_claim(applied: &Applied) -> Claim {
    let claim = |status, reason, message| Claim {
        type_: condition::APPLIED,
        status,
        reason,
        message,
    };
    match applied {
        Applied::Yes(None) => claim("True", APPLIED, "every object matches the spec".into()),
        Applied::Yes(Some(note)) => claim(
            "True",
            APPLIED,
            format!("every object matches the spec; {note}"),
        ),
        Applied::No { reason, message } => claim("False", reason, message.clone()),
        Applied::Removing(message) => claim("False", "Removing", message.clone()),
    }
}

fn ready_claim(applied: &Applied, nodes: Option<Nodes>) -> Claim {
    let claim = |status, reason, message| Claim {
        type_: condition::READY,
        status,
        reason,
        message,
    };
    if let Applied::Removing(message) = applied {
        return claim("False", "Removing", message.clone());
    }
    let Some(Nodes {
        desired,
        ready,
        upgraded,
    }) = nodes
    else {
        let message = "the DaemonSet controller has not processed the current settings yet";
        return claim("Unknown", "NotObserved", message.into());
    };
    let ready_nodes = format!("{ready} of {desired} nodes have a ready agent");
    if let Applied::No { reason, .. } = applied {
        return claim(
            "False",
            reason,
            format!("{ready_nodes}, with earlier settings"),
        );
    }
    if upgraded < desired {
        let message =
            format!("{upgraded} of {desired} nodes have an agent with the current settings");
        return claim("False", "Progressing", message);
    }
    if ready < desired {
        let advice = "`kubectl -n pod-checkpointer get pods -o wide` lists the others; each gives its reason at /readyz";
        return claim("False", "NodesNotReady", format!("{ready_nodes}; {advice}"));
    }
    if desired == 0 {
        return claim(
            "True",
            "NoNodes",
            "no node should run an agent: see nodeSelector and tolerations".into(),
        );
    }
    claim("True", "Ready", ready_nodes)
}

fn fit_claim(unfit: Option<&BTreeMap<String, String>>) -> Claim {
    let claim = |status, reason, message| Claim {
        type_: condition::NODES_FIT,
        status,
        reason,
        message,
    };
    match unfit {
        None => claim(
            "Unknown",
            "NotObserved",
            "not all PodCheckpoints were read yet".into(),
        ),
        Some(nodes) if nodes.is_empty() => claim(
            "True",
            FIT,
            "no node with PodCheckpoints would keep its pods from coming back".into(),
        ),
        Some(nodes) => {
            let named: Vec<String> = nodes
                .iter()
                .map(|(node, reason)| format!("{node} ({reason})"))
                .collect();
            let message = format!(
                "pods may not come back on {} nodes: {}; condition NodeFit of their PodCheckpoints says what to do",
                nodes.len(),
                first_of(&named, NAMED_NODES)
            );
            claim("False", "NodesUnfit", message)
        }
    }
}

/// The nodes as the DaemonSet controller counted them; `None`: it has not counted for the current
/// template yet.
fn nodes(daemon_set: &Value) -> Option<Nodes> {
    let number = |path: &str| daemon_set.pointer(path).and_then(Value::as_i64);
    let count = |path: &str| {
        number(path)
            .and_then(|count| i32::try_from(count).ok())
            .unwrap_or_default()
    };
    let generation = number("/metadata/generation")?;
    (number("/status/observedGeneration")? == generation).then(|| Nodes {
        desired: count("/status/desiredNumberScheduled"),
        ready: count("/status/numberReady"),
        upgraded: count("/status/updatedNumberScheduled"),
    })
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
