//! Finds out from the node's CNI configuration whether the pod network needs the API server to
//! connect a pod.

use std::path::Path;

use serde_json::Value;

use crate::node::host::HostRoot;

/// Directories in which runtimes look for CNI configurations: the default, then those of
/// distributions that use another one (k3s, OpenShift, MicroK8s).
pub const DIRECTORIES: [&str; 4] = [
    "/etc/cni/net.d",
    "/var/lib/rancher/k3s/agent/etc/cni/net.d",
    "/etc/kubernetes/cni/net.d",
    "/var/snap/microk8s/current/args/cni-network",
];

/// The most bytes of a configuration that are read; one is a few kilobytes long.
const LONGEST: u64 = 1 << 20;

/// Plugins that need only their configuration and the disk to connect a pod: those of the CNI
/// project itself (github.com/containernetworking/plugins) that have no daemon.
///
/// Not `flannel`: it reads `/run/flannel/subnet.env`, which is missing after a reboot until
/// flanneld has asked the API server. Not `dhcp`: it needs a daemon. Calico, Cilium,
/// OVN-Kubernetes, Antrea and Multus ask the API server, or an agent that does.
const OFFLINE: [&str; 17] = [
    "bandwidth",
    "bridge",
    "dummy",
    "firewall",
    "host-device",
    "host-local",
    "ipvlan",
    "loopback",
    "macvlan",
    "portmap",
    "ptp",
    "sbr",
    "static",
    "tap",
    "tuning",
    "vlan",
    "vrf",
];

/// Whether the current configuration names only plugins that work offline. No, if there is no
/// readable configuration.
pub fn works_offline(root: &HostRoot) -> bool {
    let configuration = DIRECTORIES
        .iter()
        .find_map(|directory| first(root, Path::new(directory)));
    configuration.is_some_and(|configuration| {
        let types = types(&configuration);
        !types.is_empty() && types.iter().all(|kind| OFFLINE.contains(kind))
    })
}

/// The first valid configuration by file name, which is the one that runtimes use (libcni,
/// `ConfFiles`).
fn first(root: &HostRoot, directory: &Path) -> Option<Value> {
    use std::io::Read as _;
    let mut names: Vec<_> = std::fs::read_dir(root.resolve(directory).ok()?)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .filter(|name| {
            Path::new(name)
                .extension()
                .is_some_and(|it| it == "conf" || it == "conflist" || it == "json")
        })
        .collect();
    names.sort_unstable();
    names.into_iter().find_map(|name| {
        let path = root.resolve(directory.join(name)).ok()?;
        let mut text = Vec::new();
        let file = std::fs::metadata(&path)
            .ok()
            .filter(std::fs::Metadata::is_file)
            .and_then(|_| std::fs::File::open(path).ok())?;
        file.take(LONGEST).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text)
            .ok()
            .filter(|value| !types(value).is_empty())
    })
}

/// The types of the plugins and of their address managers.
fn types(configuration: &Value) -> Vec<&str> {
    let plugins = configuration.get("plugins").and_then(Value::as_array);
    let all = plugins.map_or_else(|| vec![configuration], |plugins| plugins.iter().collect());
    all.into_iter()
        .flat_map(|plugin| [Some(plugin), plugin.get("ipam")])
        .flatten()
        .filter_map(|value| value.get("type")?.as_str())
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(files: &[(&str, &str)]) -> bool {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        works_offline(&HostRoot::new(directory.path()))
    }

    fn list(types: &[&str], ipam: &str) -> String {
        let plugins: Vec<_> = types
            .iter()
            .map(|kind| json!({"type": kind, "ipam": {"type": ipam}}))
            .collect();
        json!({"cniVersion": "1.0.0", "name": "pods", "plugins": plugins}).to_string()
    }

    #[test]
    fn a_network_works_offline_if_all_its_plugins_do() {
        for (types, ipam, works) in [
            (&["bridge", "portmap", "firewall"][..], "host-local", true),
            (&["ptp", "portmap"], "host-local", true),
            (&["bridge"], "dhcp", false),
            (&["bridge"], "whereabouts", false),
            (&["flannel", "portmap"], "host-local", false),
            (&["calico", "portmap"], "calico-ipam", false),
            (&["cilium-cni"], "host-local", false),
            (&["ptp", "cilium-cni"], "host-local", false),
            (&["a-plugin-of-the-future"], "host-local", false),
        ] {
            assert_eq!(
                node(&[("etc/cni/net.d/10-pods.conflist", &list(types, ipam))]),
                works,
                "{types:?} {ipam}"
            );
        }
        assert!(node(&[(
            "etc/cni/net.d/a.conf",
            r#"{"type": "bridge", "ipam": {"type": "host-local"}}"#
        )]));
    }

    #[test]
    fn the_first_file_that_is_a_configuration_counts() {
        let (good, bad) = (
            list(&["bridge"], "host-local"),
            list(&["calico"], "calico-ipam"),
        );
        assert!(node(&[
            ("etc/cni/net.d/10-a.conflist", &good),
            ("etc/cni/net.d/20-b.conflist", &bad)
        ]));
        assert!(!node(&[
            ("etc/cni/net.d/10-a.conflist", &bad),
            ("etc/cni/net.d/20-b.conflist", &good)
        ]));
        assert!(node(&[
            ("etc/cni/net.d/00.conflist", "torn"),
            ("etc/cni/net.d/20-b.conflist", &good)
        ]));
        assert!(node(&[
            ("etc/cni/net.d/00.conflist.bak", &bad),
            ("etc/cni/net.d/20-b.conflist", &good)
        ]));
        assert!(node(&[(
            "var/lib/rancher/k3s/agent/etc/cni/net.d/10-k3s.conflist",
            &good
        )]));
    }

    #[test]
    fn without_a_readable_configuration_the_network_counts_as_needing_the_api_server() {
        assert!(!node(&[]));
        assert!(!node(&[("etc/cni/net.d/10-a.conflist", "torn")]));
        assert!(!node(&[("etc/cni/net.d/10-a.conflist", "{}")]));
        assert!(!node(&[(
            "etc/cni/net.d/10-a.conflist",
            r#"{"plugins": []}"#
        )]));
    }
}
