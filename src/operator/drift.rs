//! Objects that are no longer as they were applied, because another client changed or deleted them.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::api::DynamicObject;
use tokio::time::Instant;

use crate::client::retry::Retry;
use crate::operator::kinds::{Fingerprints, Kind, fingerprint};

/// Between repairs of objects that are changed again and again: the first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_mins(1));
/// A repair this long after the last one waits the first pause again.
const CALM: Duration = Duration::from_mins(2);

/// Compares the objects that the watches show with those that were applied.
#[derive(Debug)]
pub(crate) struct Drift {
    /// Each object as it was after it was last applied.
    applied: Fingerprints,
    /// Each object as a watch showed it since; `None`: deleted.
    watched: BTreeMap<&'static str, Option<u64>>,
    /// Objects are being applied, so what the watches show is most likely the operator's own doing.
    is_applying: bool,
    pauses: Retry,
    last_repair: Option<Instant>,
}

impl Drift {
    /// Nothing was applied yet.
    pub(crate) fn new() -> Self {
        Self {
            applied: Fingerprints::new(),
            watched: BTreeMap::new(),
            is_applying: false,
            pauses: Retry::new(PAUSES.0, PAUSES.1),
            last_repair: None,
        }
    }

    /// The objects are about to be applied.
    pub(crate) fn begin_apply(&mut self) {
        self.is_applying = true;
        self.watched.clear();
    }

    /// These objects were applied; `are_all`: they are all that the settings ask for.
    pub(crate) fn end_apply(&mut self, fingerprints: Fingerprints, are_all: bool) {
        self.is_applying = false;
        if are_all {
            self.applied.clear();
        }
        self.applied.extend(fingerprints);
    }

    /// A watch shows the object of this kind; `None`: it was deleted.
    pub(crate) fn watched(&mut self, kind: Kind, object: Option<&DynamicObject>) {
        self.watched.insert(kind.kind, object.map(fingerprint));
    }

    /// Was the object of this kind changed or deleted since it was applied?
    pub(crate) fn is_changed(&self, kind: Kind) -> bool {
        let applied = self.applied.get(kind.kind).filter(|_| !self.is_applying);
        let watched = self.watched.get(kind.kind);
        applied
            .zip(watched)
            .is_some_and(|(applied, watched)| watched.as_ref() != Some(applied))
    }

    /// How long to wait before a repair: not long, and longer each time if objects are changed
    /// again and again.
    pub(crate) fn pause(&mut self, now: Instant) -> Duration {
        if self
            .last_repair
            .is_none_or(|last| now.duration_since(last) > CALM)
        {
            self.pauses.reset();
        }
        self.last_repair = Some(now);
        self.pauses.pause()
    }

    /// Nothing is to be applied any more.
    pub(crate) fn forget(&mut self) {
        self.is_applying = false;
        self.applied.clear();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::operator::kinds::{DAEMON_SET, NAMESPACE};

    fn object(image: &str) -> DynamicObject {
        serde_json::from_value(json!({"metadata": {"name": "x"}, "spec": {"image": image}}))
            .unwrap()
    }

    fn applied(image: &str) -> Fingerprints {
        Fingerprints::from([(DAEMON_SET.kind, fingerprint(&object(image)))])
    }

    #[test]
    fn an_object_that_another_client_changed_or_deleted_is_noticed() {
        let mut drift = Drift::new();
        drift.watched(DAEMON_SET, Some(&object("other:1")));
        assert!(!drift.is_changed(DAEMON_SET), "it was not applied yet");
        drift.begin_apply();
        drift.end_apply(applied("agent:1"), true);
        assert!(!drift.is_changed(DAEMON_SET), "no watch has shown it since");
        drift.watched(DAEMON_SET, Some(&object("agent:1")));
        drift.watched(NAMESPACE, None);
        assert!(!drift.is_changed(DAEMON_SET) && !drift.is_changed(NAMESPACE));
        drift.watched(DAEMON_SET, Some(&object("other:1")));
        assert!(drift.is_changed(DAEMON_SET));
        drift.watched(DAEMON_SET, None);
        assert!(drift.is_changed(DAEMON_SET));
        drift.forget();
        assert!(!drift.is_changed(DAEMON_SET));
    }

    #[test]
    fn what_is_watched_while_objects_are_applied_is_compared_afterwards() {
        let mut drift = Drift::new();
        drift.end_apply(applied("agent:1"), true);
        drift.begin_apply();
        drift.watched(DAEMON_SET, Some(&object("agent:2")));
        assert!(!drift.is_changed(DAEMON_SET));
        drift.end_apply(applied("agent:2"), true);
        assert!(!drift.is_changed(DAEMON_SET));
        drift.begin_apply();
        drift.watched(DAEMON_SET, Some(&object("other:1")));
        drift.end_apply(Fingerprints::new(), false);
        assert!(
            drift.is_changed(DAEMON_SET),
            "the apply failed before this object: what was applied before counts"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn repeated_repairs_wait_longer_until_changes_stop() {
        let mut drift = Drift::new();
        let now = Instant::now();
        assert!(drift.pause(now) < Duration::from_secs(1));
        let later = (0..20).map(|_| drift.pause(now)).last().unwrap();
        assert!(later >= Duration::from_secs(30), "{later:?}");
        assert!(drift.pause(now + CALM + Duration::from_secs(1)) < Duration::from_secs(1));
    }
}
