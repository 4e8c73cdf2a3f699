//! What an installation is made of in the API: one object of each kind, all of one name.
//!
//! Pure. What is ours is told by its label, whoever applied it: an installation by `manifests` is taken over as it stands, and
//! an object of somebody else that has our name is not touched.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use serde_json::Value;

use crate::names::{INSTALLATION, NAME_LABEL};

/// A kind of object that an installation has one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    group: &'static str,
    version: &'static str,
    /// As in the field of this name.
    pub kind: &'static str,
    plural: &'static str,
    is_namespaced: bool,
}

const fn of(group: &'static str, version: &'static str, kind: &'static str, plural: &'static str) -> Kind {
    Kind { group, version, kind, plural, is_namespaced: false }
}

const fn namespaced(group: &'static str, version: &'static str, kind: &'static str, plural: &'static str) -> Kind {
    Kind { group, version, kind, plural, is_namespaced: true }
}

const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";

/// The agents.
pub const DAEMON_SET: Kind = namespaced("apps", "v1", "DaemonSet", "daemonsets");
/// Where they live.
pub const NAMESPACE: Kind = of("", "v1", "Namespace", "namespaces");
/// Of the Prometheus Operator, where that is installed.
pub const POD_MONITOR: Kind = namespaced("monitoring.coreos.com", "v1", "PodMonitor", "podmonitors");

/// Every kind, in the order in which they are removed: the agents first, then what finds them, then their rights, and what
/// limits these after them.
pub const KINDS: [Kind; 9] = [
    DAEMON_SET,
    namespaced("", "v1", "Service", "services"),
    POD_MONITOR,
    of(RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings"),
    of(RBAC, "v1", "ClusterRole", "clusterroles"),
    of(ADMISSION, "v1", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"),
    of(ADMISSION, "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
    namespaced("", "v1", "ServiceAccount", "serviceaccounts"),
    NAMESPACE,
];

impl Kind {
    /// The kind of an object of ours.
    pub fn of(object: &Value) -> Option<Self> {
        KINDS.into_iter().find(|kind| object.get("kind").and_then(Value::as_str) == Some(kind.kind))
    }

    /// Its group, empty for the core's, and its plural: as a role names them.
    pub fn resource(self) -> (&'static str, &'static str) {
        (self.group, self.plural)
    }

    /// Where objects of it are asked for.
    pub fn api(self, client: Client) -> Api<DynamicObject> {
        let Self { group, version, kind, plural, is_namespaced } = self;
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        if is_namespaced {
            Api::namespaced_with(client, INSTALLATION, &resource)
        } else {
            Api::all_with(client, &resource)
        }
    }

    /// The object of it, for people.
    pub fn named(self) -> String {
        if self.is_namespaced {
            format!("{} {INSTALLATION}/{INSTALLATION}", self.kind)
        } else {
            format!("{} {INSTALLATION}", self.kind)
        }
    }
}

/// Is this object of our installation?
pub fn is_ours(object: &DynamicObject) -> bool {
    let labels = object.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(NAME_LABEL)).is_some_and(|name| name == INSTALLATION)
}

/// Of all that somebody could have changed about an object; what controllers report in its status is not in it.
pub fn fingerprint(object: &DynamicObject) -> u64 {
    let mut metadata = object.metadata.clone();
    (metadata.managed_fields, metadata.resource_version, metadata.generation) = (None, None, None);
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(&metadata).unwrap_or_default().hash(&mut hasher);
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
    fn every_object_of_an_installation_has_a_kind_and_our_label() {
        let metrics = Some(Metrics { address: None, pod_monitor: true });
        let spec = PodCheckpointerSpec { metrics, ..PodCheckpointerSpec::default() };
        let objects = objects(&Checked::new(spec, "x".into()).unwrap());
        assert_eq!(objects.len(), KINDS.len());
        for object in objects {
            let kind = Kind::of(&object.value).unwrap();
            let group =
                if kind.group.is_empty() { kind.version.into() } else { format!("{}/{}", kind.group, kind.version) };
            assert_eq!(object.value["apiVersion"], json!(group));
            assert_eq!(object.value["metadata"].get("namespace").is_some(), kind.is_namespaced, "{}", kind.kind);
            assert_eq!(object.value["metadata"]["name"], INSTALLATION);
            assert!(is_ours(&serde_json::from_value(object.value).unwrap()), "{}", kind.kind);
        }
    }

    #[test]
    fn a_change_by_hand_is_one_and_a_status_is_none() {
        let object = |change: fn(&mut Value)| {
            let mut value = json!({"apiVersion": "v1", "kind": "Service", "spec": {"clusterIP": "None"}, "status": {"a": 1},
                "metadata": {"name": "x", "uid": "1", "resourceVersion": "1", "generation": 1, "labels": {"a": "b"}}});
            change(&mut value);
            fingerprint(&serde_json::from_value(value).unwrap())
        };
        let first = object(|_| {});
        assert_eq!(object(|it| it["status"]["a"] = json!(2)), first);
        assert_eq!(object(|it| it["metadata"]["resourceVersion"] = json!("2")), first);
        assert_ne!(object(|it| it["spec"]["clusterIP"] = json!("10.0.0.7")), first);
        assert_ne!(object(|it| it["metadata"]["labels"] = json!({})), first);
        assert_ne!(object(|it| it["metadata"]["uid"] = json!("2")), first, "deleted and made anew by somebody else");
    }
}
