//! How Prometheus finds the agents.

use serde_json::json;

use crate::names::INSTALLATION;
use crate::operator::objects::{Object, agent_labels, labels};

pub(super) fn service(port: u16) -> Object {
    Object {
        why: "Lets Prometheus find the agents by name; each serves its metrics on the network of its node.",
        value: json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": INSTALLATION, "namespace": INSTALLATION, "labels": agent_labels()},
            "spec": {
                "clusterIP": "None",
                "selector": agent_labels(),
                // an agent that is not ready exports the reason
                "publishNotReadyAddresses": true,
                "ports": [{"name": "metrics", "port": port, "targetPort": port, "protocol": "TCP"}],
            },
        }),
    }
}

pub(super) fn pod_monitor(port: u16) -> Object {
    // the DaemonSet declares no port, so the address is put together here
    let relabel = |regex: &str, replacement: String| {
        json!({"sourceLabels": ["__meta_kubernetes_pod_ip"], "regex": regex, "targetLabel": "__address__",
            "replacement": replacement})
    };
    Object {
        why: "For the Prometheus Operator: scrapes each agent, which also exports what its supervisor recorded.",
        value: json!({
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PodMonitor",
            "metadata": {"name": INSTALLATION, "namespace": INSTALLATION, "labels": labels()},
            "spec": {
                "selector": {"matchLabels": agent_labels()},
                "podMetricsEndpoints": [{
                    "path": "/metrics",
                    "interval": "30s",
                    "relabelings": [
                        relabel("(.*:.*)", format!("[$1]:{port}")),
                        relabel("([^:]+)", format!("$1:{port}")),
                        json!({"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"}),
                    ],
                }],
            },
        }),
    }
}
