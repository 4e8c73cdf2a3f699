//! What people read: Events on Pods and on the Node, and log lines.

use std::time::Duration;

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::ObjectReference;
use kube_runtime::events::EventType;

use crate::agent::event_loop::finished::Finished;
use crate::agent::event_loop::{Agent, FRESH, NAMESPACE_WATCH, POD_WATCH};
use crate::agent::outcome::Captured;
use crate::agent::{record, risks};
use crate::client;
use crate::pod::id::PodId;
use crate::reasons::{Refusal, Risk};

/// How long the namespace watch must run without an error to count as healthy again: longer than
/// its pauses.
const NAMESPACES_WELL: Duration = Duration::from_mins(2);

impl Agent {
    /// Logs the result of a capture, and records an Event on the pod if it was refused.
    pub(super) fn report_capture(&mut self, key: &PodId, captured: &Captured, new: bool) {
        let pod = key.to_string();
        match captured {
            Captured::Stored(stored) if new => {
                tracing::info!(
                    pod,
                    generation = stored.generation,
                    bytes = stored.size,
                    "captured"
                );
            }
            Captured::Stored(_) => {}
            Captured::Refused(reasons) => {
                let text = reasons
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("; ");
                tracing::warn!(
                    pod,
                    reasons = text,
                    "the pod would not come back on this node without the API server"
                );
                let uid = self
                    .index
                    .views()
                    .find(|view| view.key == key)
                    .map(|view| view.uid.to_owned());
                let first = reasons.first().map(|reason| reason.refusal);
                let (name, advice) = (first.map(|it| it.to_string()), first.map(Refusal::advice));
                let note = format!("Not recoverable: {text} ({})", advice.unwrap_or_default());
                let (uid, name) = (uid.unwrap_or_default(), name.unwrap_or_default());
                self.record_pod_event(key, &uid, EventType::Warning, &name, &note);
            }
            Captured::Failed { reason, message } => {
                tracing::warn!(pod, reason, message, "capture failed; retrying");
            }
        }
    }

    /// Records an Event on the Node, where `kubectl describe node` shows it.
    pub(super) fn record_node_event(&mut self, risk: Risk, seen: &str) {
        let regarding = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(self.settings.node_name.clone()),
            uid: record::current_uid(&self.store),
            ..ObjectReference::default()
        };
        self.record_event(
            regarding,
            EventType::Warning,
            risk.as_str(),
            &risks::message(risk, seen),
        );
    }

    /// Records an Event on the Pod.
    pub(super) fn record_pod_event(
        &mut self,
        key: &PodId,
        uid: &str,
        type_: EventType,
        reason: &str,
        note: &str,
    ) {
        let regarding = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(key.namespace().into()),
            name: Some(key.name().into()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        self.record_event(regarding, type_, reason, note);
    }

    /// Records an Event. The recorder makes a series of repeated ones.
    fn record_event(
        &mut self,
        regarding: ObjectReference,
        type_: EventType,
        reason: &str,
        note: &str,
    ) {
        let event = client::event(type_, reason, note, "Checkpoint");
        let recorder = self.recorder.clone();
        let publish =
            async move { Finished::EventRecorded(recorder.publish(&event, &regarding).await) };
        self.work.push(publish.boxed_local());
    }

    /// Logs when the API server falls silent and when it answers again, and drops problems of
    /// watches that have recovered.
    pub(super) fn note_silence(&mut self) {
        let now = self.now();
        if self.heard.is_within(now.saturating_sub(self.watch_failed)) {
            self.problems.set(POD_WATCH, None);
        }
        if now.saturating_sub(self.namespaces_failed) > NAMESPACES_WELL {
            self.problems.set(NAMESPACE_WATCH, None);
        }
        let silent = !self.heard.is_within(FRESH) && now > FRESH;
        if silent != self.silent {
            self.silent = silent;
            if silent {
                let age = self.heard.age().map(|age| age.as_secs());
                tracing::warn!(
                    seconds = age,
                    "the API server is silent: no checkpoint is removed, and no pod counts as Ready"
                );
            } else {
                tracing::info!("the API server answers again");
            }
        }
    }
}
