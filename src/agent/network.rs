//! Which pods run the network of the node, and which need it. Pure. Such pods are recognized by
//! what they usually look like: nothing in the API identifies them.

use serde_json::Value;

use crate::node::network;

/// What a pod does for the pods of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Support {
    /// It sets up the pod network, or keeps up what does (CNI).
    Plugin,
    /// It routes Services to their pods (kube-proxy).
    Proxy,
    /// It resolves names in the cluster (DNS).
    Names,
}

impl Support {
    /// In words.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Plugin => "network plugin",
            Self::Proxy => "kube-proxy",
            Self::Names => "DNS",
        }
    }

    /// What a pod does for others, if anything, with the name that its message gets: its owner's,
    /// which stays while pods of a DaemonSet or of a ReplicaSet come and go.
    pub(crate) fn named(pod: &Value) -> Option<(Self, String)> {
        let support = Self::of(pod)?;
        let owners = pod
            .pointer("/metadata/ownerReferences")
            .and_then(Value::as_array);
        let owner = owners.and_then(|owners| {
            owners
                .iter()
                .find(|one| one.get("controller") == Some(&Value::Bool(true)))
        });
        let name = owner
            .and_then(|owner| owner.get("name"))
            .or_else(|| pod.pointer("/metadata/name"));
        let text =
            |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        Some((
            support,
            format!(
                "{}/{}",
                text(pod.pointer("/metadata/namespace")),
                text(name)
            ),
        ))
    }

    /// What a pod does for others, if anything.
    ///
    /// A network plugin's pod is one of the host's network that has the directory of CNI
    /// configuration mounted, as those of flannel, Calico, Cilium, Antrea, Weave, kindnet and
    /// Multus do. The other two have the labels that kubeadm and the add-ons of the Kubernetes
    /// repository (cluster/addons) give them.
    pub(crate) fn of(pod: &Value) -> Option<Self> {
        let label = |name: &str| {
            pod.pointer("/metadata/labels")
                .and_then(|all| all.get(name))
                .and_then(Value::as_str)
        };
        let labels = [
            label("k8s-app"),
            label("app.kubernetes.io/name"),
            label("component"),
        ];
        let is = |names: &[&str]| labels.iter().flatten().any(|label| names.contains(label));
        if is(&["kube-proxy"]) {
            return Some(Self::Proxy);
        }
        if is(&["kube-dns", "node-local-dns", "coredns"]) {
            return Some(Self::Names);
        }
        let volumes = pod
            .pointer("/spec/volumes")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let mut paths = volumes.filter_map(|volume| volume.pointer("/hostPath/path")?.as_str());
        let configures =
            paths.any(|path| network::DIRECTORIES.contains(&path.trim_end_matches('/')));
        (is_on_host(pod) && configures).then_some(Self::Plugin)
    }
}

/// What a pod needs of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// It has an address of its own.
    pub plugin: bool,
    /// It resolves names in the cluster, usually those of Services.
    pub names: bool,
}

impl Needs {
    /// What a pod needs.
    pub(crate) fn of(pod: &Value) -> Self {
        let policy = pod
            .pointer("/spec/dnsPolicy")
            .and_then(Value::as_str)
            .unwrap_or("ClusterFirst");
        // on the host's network the default means the host's (pkg/kubelet/network/dns,
        // getPodDNSType)
        let names = if is_on_host(pod) {
            policy == "ClusterFirstWithHostNet"
        } else {
            policy.starts_with("ClusterFirst")
        };
        Self {
            plugin: !is_on_host(pod),
            names,
        }
    }

    /// Does it need this?
    pub(crate) fn includes(self, support: Support) -> bool {
        match support {
            Support::Plugin => self.plugin,
            Support::Proxy | Support::Names => self.names,
        }
    }
}

fn is_on_host(pod: &Value) -> bool {
    pod.pointer("/spec/hostNetwork") == Some(&Value::Bool(true))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn network_pods_are_recognized_by_their_mounts_and_labels() {
        let labelled =
            |name: &str, value: &str| json!({"metadata": {"labels": {name: value}}, "spec": {}});
        let mounts = |on_host: bool, path: &str| {
            json!({"metadata": {}, "spec": {"hostNetwork": on_host, "volumes": [{"name": "x", "emptyDir": {}},
                {"name": "cni", "hostPath": {"path": path}}]}})
        };
        for (pod, support) in [
            (labelled("k8s-app", "kube-proxy"), Some(Support::Proxy)),
            (labelled("k8s-app", "kube-dns"), Some(Support::Names)),
            (
                labelled("app.kubernetes.io/name", "coredns"),
                Some(Support::Names),
            ),
            (mounts(true, "/etc/cni/net.d/"), Some(Support::Plugin)),
            (
                mounts(true, "/var/lib/rancher/k3s/agent/etc/cni/net.d"),
                Some(Support::Plugin),
            ),
            (mounts(false, "/etc/cni/net.d"), None),
            (mounts(true, "/etc"), None),
            (labelled("app", "till"), None),
            (json!({}), None),
        ] {
            assert_eq!(Support::of(&pod), support, "{pod}");
        }
    }

    #[test]
    fn it_is_named_after_what_stays() {
        let pod = |owners: Value| {
            let labels = json!({"k8s-app": "kube-dns"});
            json!({"metadata": {"namespace": "kube-system", "name": "dns-x7", "labels": labels, "ownerReferences": owners}})
        };
        let owner = json!([{"kind": "ReplicaSet", "name": "dns", "controller": true}]);
        assert_eq!(
            Support::named(&pod(owner)),
            Some((Support::Names, "kube-system/dns".into()))
        );
        assert_eq!(
            Support::named(&pod(json!([]))),
            Some((Support::Names, "kube-system/dns-x7".into()))
        );
    }

    #[test]
    fn what_a_pod_needs_follows_from_its_network_and_its_names() {
        let needs = |spec: Value| Needs::of(&json!({"spec": spec}));
        assert_eq!(
            needs(json!({})),
            Needs {
                plugin: true,
                names: true
            }
        );
        assert_eq!(
            needs(json!({"dnsPolicy": "Default"})),
            Needs {
                plugin: true,
                names: false
            }
        );
        assert_eq!(
            needs(json!({"hostNetwork": true, "dnsPolicy": "ClusterFirst"})),
            Needs::default()
        );
        let with_host = needs(json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}));
        assert_eq!(
            with_host,
            Needs {
                plugin: false,
                names: true
            }
        );
        assert!(with_host.includes(Support::Proxy) && !with_host.includes(Support::Plugin));
    }
}
