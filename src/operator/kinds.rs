//! The kinds of objects that an installation consists of: one object of each, all of the same name.
//! Pure.
//!
//! An object belongs to the installation if it has the installation's label, whoever applied it. So
//! the operator takes over what `manifests` installed, as it is, and leaves alone an object of the
//! same name without the label.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use serde_json::Value;

use crate::names::{INSTALLATION, NAME_LABEL};

/// A kind of which an installation has one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    group: &'static str,
    version: &'static str,
    /// The value of an object's field `kind`.
    pub kind: &'static str,
    plural: &'static str,
    is_namespaced: bool,
}

const fn of(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
) -> Kind {
    Kind {
        group,
        version,
        kind,
        plural,
        is_namespaced: false,
    }
}

const fn namespaced(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
) -> Kind {
    Kind {
        group,
        version,
        kind,
        plural,
        is_namespaced: true,
    }
}

const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";

/// The agents.
pub(crate) const DAEMON_SET: Kind = namespaced("apps", "v1", "DaemonSet", "daemonsets");
/// The namespace of the agents.
pub(crate) const NAMESPACE: Kind = of("", "v1", "Namespace", "namespaces");
/// Known only to a cluster with the Prometheus Operator.
pub(crate) const POD_MONITOR: Kind =
    namespaced("monitoring.coreos.com", "v1", "PodMonitor", "podmonitors");

/// Every kind, in the order in which the objects are removed: first the agents, then what finds
/// them, then their rights, and after these what limits them.
pub const KINDS: [Kind; 9] = [
    DAEMON_SET,
    namespaced("", "v1", "Service", "services"),
    POD_MONITOR,
    of(RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings"),
    of(RBAC, "v1", "ClusterRole", "clusterroles"),
    of(
        ADMISSION,
        "v1",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
    ),
    of(
        ADMISSION,
        "v1",
        "ValidatingAdmissionPolicy",
        "validatingadmissionpolicies",
    ),
    namespaced("", "v1", "ServiceAccount", "serviceaccounts"),
    NAMESPACE,
];

impl Kind {
    /// The kind of an object of the installation.
    pub(crate) fn of(object: &Value) -> Option<Self> {
        KINDS
            .into_iter()
            .find(|kind| object.get("kind").and_then(Value::as_str) == Some(kind.kind))
    }

    /// API group, which is empty for the core group, and plural name, as in the rule of a role.
    pub(crate) fn resource(self) -> (&'static str, &'static str) {
        (self.group, self.plural)
    }

    /// The API of this kind, in the namespace of the installation.
    pub(crate) fn api(self, client: Client) -> Api<DynamicObject> {
        let Self {
            group,
            version,
            kind,
            plural,
            is_namespaced,
        } = self;
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        if is_namespaced {
            Api::namespaced_with(client, INSTALLATION, &resource)
        } else {
            Api::all_with(client, &resource)
        }
    }

    /// Kind and name of the installation's object, for people.
    pub(crate) fn named(self) -> String {
        if self.is_namespaced {
            format!("{} {INSTALLATION}/{INSTALLATION}", self.kind)
        } else {
            format!("{} {INSTALLATION}", self.kind)
        }
    }
}

/// Does this object belong to the installation?
pub(crate) fn is_ours(object: &DynamicObject) -> bool {
    let labels = object.metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(NAME_LABEL))
        .is_some_and(|name| name == INSTALLATION)
}

/// Fingerprints of objects, by the names of their kinds.
pub(crate) type Fingerprints = BTreeMap<&'static str, u64>;

/// A hash of everything that a client may change about an object; what controllers report in its
/// status does not count.
pub(crate) fn fingerprint(object: &DynamicObject) -> u64 {
    let mut metadata = object.metadata.clone();
    (
        metadata.managed_fields,
        metadata.resource_version,
        metadata.generation,
    ) = (None, None, None);
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(&metadata)
        .unwrap_or_default()
        .hash(&mut hasher);
    for (name, value) in object.data.as_object().into_iter().flatten() {
        if name != "status" {
            (name, value.to_string()).hash(&mut hasher);
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::podcheckpointer::{Metrics, PodCheckpointerSpec};
    use crate::operator::objects::objects;
    use crate::operator::settings::Checked;

    #[test]
    fn every_object_of_an_installation_has_a_kind_and_the_label() {
        let metrics = Some(Metrics {
            address: None,
            pod_monitor: true,
        });
        let spec = PodCheckpointerSpec {
            metrics,
            ..PodCheckpointerSpec::default()
        };
        let objects = objects(&Checked::new(spec, "x".into()).unwrap());
        assert_eq!(objects.len(), KINDS.len());
        for object in objects {
            let kind = Kind::of(&object.value).unwrap();
            let group = if kind.group.is_empty() {
                kind.version.into()
            } else {
                format!("{}/{}", kind.group, kind.version)
            };
            assert_eq!(object.value["apiVersion"], json!(group));
            assert_eq!(
                object.value["metadata"].get("namespace").is_some(),
                kind.is_namespaced,
                "{}",
                kind.kind
            );
            assert_eq!(object.value["metadata"]["name"], INSTALLATION);
            assert!(
                is_ours(&serde_json::from_value(object.value).unwrap()),
                "{}",
                kind.kind
            );
        }
    }

    #[test]
    fn a_change_by_hand_changes_the_fingerprint_and_a_status_does_not() {
        let object = |change: fn(&mut Value)| {
            let mut value = json!({"apiVersion": "v1", "kind": "Service", "spec": {"clusterIP": "None"}, "status": {"a": 1},
                "metadata": {"name": "x", "uid": "1", "resourceVersion": "1", "generation": 1, "labels": {"a": "b"}}});
            change(&mut value);
            fingerprint(&serde_json::from_value(value).unwrap())
        };
        let first = object(|_| {});
        assert_eq!(object(|it| it["status"]["a"] = json!(2)), first);
        assert_eq!(
            object(|it| it["metadata"]["resourceVersion"] = json!("2")),
            first
        );
        assert_ne!(
            object(|it| it["spec"]["clusterIP"] = json!("10.0.0.7")),
            first
        );
        assert_ne!(object(|it| it["metadata"]["labels"] = json!({})), first);
        assert_ne!(
            object(|it| it["metadata"]["uid"] = json!("2")),
            first,
            "deleted and created again by another client"
        );
    }
}
