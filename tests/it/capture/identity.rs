//! What a pod is besides its processes: runtime class, profiles.

use super::*;

fn with_class(node: &Node, handler: &str) -> Value {
    node.change(|state| {
        for sandbox in state.sandboxes.values_mut() {
            sandbox.pod.handler = handler.into();
        }
    });
    let mut pod = Node::pod();
    pod["spec"]["runtimeClassName"] = json!("ours");
    pod["spec"]["overhead"] = json!({"cpu": "10m", "memory": "16Mi"});
    pod
}

#[tokio::test]
async fn a_runtime_class_that_leads_to_the_default_handler_is_dropped_and_its_overhead_stays() {
    for (runtime, handler) in [("containerd", "runc"), ("containerd", ""), ("cri-o", "")] {
        let node = Node::new();
        let mut pod = with_class(&node, handler);
        pod["spec"]["hostname"] = json!("pod");
        node.change(|state| state.name = runtime.into());
        let spec = node.capture(&pod).await.unwrap().manifest["spec"].clone();
        assert_eq!(
            spec["runtimeClassName"],
            Value::Null,
            "{runtime} {handler:?}"
        );
        assert_eq!(spec["overhead"], pod["spec"]["overhead"]);
    }
}

#[tokio::test]
async fn a_runtime_class_with_another_or_an_unknown_handler_is_refused_with_that_handler() {
    for (runtime, handler) in [("containerd", "kata-qemu"), ("cri-o", "runc")] {
        let node = Node::new();
        let mut pod = with_class(&node, handler);
        pod["spec"]["hostname"] = json!("pod");
        node.change(|state| state.name = runtime.into());
        let reasons = node.refused(&pod).await;
        assert_eq!(refusals(&reasons), [Refusal::RuntimeClass]);
        assert!(
            reasons[0].detail.contains("ours") && reasons[0].detail.contains(handler),
            "{reasons:?}"
        );
    }
}

#[tokio::test]
async fn an_absent_profile_is_a_reason_and_an_unknown_one_is_not() {
    let node = Node::new();
    let mut pod = Node::pod();
    pod["spec"]["securityContext"] = json!({
        "seccompProfile": {"type": "Localhost", "localhostProfile": "profiles/web.json"},
        "appArmorProfile": {"type": "Localhost", "localhostProfile": "web (strict)"},
    });
    let reasons = node.refused(&pod).await;
    assert_eq!(
        refusals(&reasons),
        [Refusal::RejectedByKubeletRules],
        "no AppArmor to ask: {reasons:?}"
    );
    assert!(
        reasons[0].detail.contains("profiles/web.json")
            && reasons[0].detail.contains("prepare, web"),
        "{reasons:?}"
    );

    node.file("var/lib/kubelet/seccomp/profiles/web.json", "{}");
    node.capture(&pod).await.unwrap();

    node.file(
        "sys/kernel/security/apparmor/profiles",
        "other (enforce)\nweb (complain)\n",
    );
    let reasons = node.refused(&pod).await;
    assert_eq!(refusals(&reasons), [Refusal::RejectedByKubeletRules]);
    assert!(reasons[0].detail.contains("web (strict)"), "{reasons:?}");
    node.file(
        "sys/kernel/security/apparmor/profiles",
        "web (strict) (enforce)\n",
    );
    node.capture(&pod).await.unwrap();
}
