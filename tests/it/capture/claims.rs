//! Claims, resolved from what ran.

use super::*;

const PV: &str = "pv-7f3";

/// A pod whose container mounts a claim at `/data`, and the claim's fields.
fn pod(mount: &Value, claim: &Value) -> Value {
    let mut pod = Node::pod();
    pod["metadata"]["annotations"]["podcheckpointer.io/accept"] = json!("persistent-volume");
    let mut of_claim = json!({"claimName": "orders"});
    let mut of_mount = json!({"name": "data", "mountPath": "/data"});
    for (into, from) in [(&mut of_claim, claim), (&mut of_mount, mount)] {
        into.as_object_mut()
            .unwrap()
            .extend(from.as_object().unwrap().clone());
    }
    pod["spec"]["volumes"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "data", "persistentVolumeClaim": of_claim}));
    pod["spec"]["containers"][0]["volumeMounts"]
        .as_array_mut()
        .unwrap()
        .push(of_mount);
    pod
}

/// The runtime bound this host path to `/data`.
fn bind(node: &Node, host_path: &str) {
    node.container("web", |container| {
        container.spec.mounts = vec![("/data".into(), host_path.into())];
    });
}

fn of_pod(rest: &str) -> String {
    format!("/var/lib/kubelet/pods/{UID}/{rest}")
}

fn seen() -> String {
    of_pod(&format!("volumes/kubernetes.io~local-volume/{PV}"))
}

/// A disk at `/mnt/disk`, of which the kubelet bound the directory `orders`. A link stands for the
/// second place of the same directory: a test may not mount.
fn local(node: &Node, options: &str) {
    let root = node.root.path();
    std::fs::create_dir_all(root.join(&seen()[1..])).unwrap();
    std::fs::create_dir_all(root.join("mnt/disk")).unwrap();
    let link = root.join("mnt/disk/orders");
    if !link.is_symlink() {
        std::os::unix::fs::symlink(seen(), link).unwrap();
    }
    let table = format!(
        "21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n\
         22 21 8:16 / /var/lib/kubelet/plugins/x rw - xfs /dev/sdb rw\n\
         23 21 8:16 / /mnt/disk rw,nodev - xfs /dev/sdb rw\n\
         24 21 8:16 /orders {} {options} - xfs /dev/sdb rw\n",
        seen()
    );
    node.file("proc/1/mountinfo", &table);
    bind(node, &seen());
}

async fn twin(node: &Node, pod: &Value) -> (Value, Value) {
    let spec = node.capture(pod).await.unwrap().manifest["spec"].clone();
    (
        spec["volumes"][1].clone(),
        spec["containers"][0]["volumeMounts"][1].clone(),
    )
}

async fn why(node: &Node, pod: &Value) -> String {
    let reasons = node.refused(pod).await;
    assert_eq!(
        refusals(&reasons),
        [Refusal::PersistentVolume],
        "{reasons:?}"
    );
    assert!(
        reasons[0]
            .detail
            .starts_with("spec.volumes[data].persistentVolumeClaim: orders"),
        "{reasons:?}"
    );
    reasons[0].detail.clone()
}

#[tokio::test]
async fn a_local_volume_becomes_the_directory_that_the_kubelet_bound() {
    for runtime in ["containerd", "cri-o"] {
        let node = Node::new();
        local(&node, "rw,nodev");
        node.change(|state| state.name = runtime.into());
        let mut pod = pod(&json!({"mountPropagation": "HostToContainer"}), &json!({}));
        pod["spec"]["hostname"] = json!("pod");
        // CRI-O needs a service variable behind envFrom, which the stub gives.
        let (volume, mount) = twin(&node, &pod).await;
        assert_eq!(
            volume,
            json!({"name": "data", "hostPath": {"path": "/mnt/disk/orders", "type": "Directory"}})
        );
        assert_eq!(
            mount,
            json!({"name": "data", "mountPath": "/data", "mountPropagation": "HostToContainer"})
        );
    }
}

#[tokio::test]
async fn a_local_volume_is_found_by_a_part_of_it_and_the_part_is_kept() {
    let node = Node::new();
    local(&node, "rw");
    bind(&node, &of_pod(&format!("volume-subpaths/{PV}/web/1")));
    let (volume, mount) = twin(&node, &pod(&json!({"subPath": "a/b"}), &json!({}))).await;
    assert_eq!(volume["hostPath"]["path"], "/mnt/disk/orders");
    assert_eq!(
        mount,
        json!({"name": "data", "mountPath": "/data", "subPath": "a/b"})
    );
}

#[tokio::test]
async fn a_volume_is_as_read_only_as_its_claim_and_its_mount_were() {
    let node = Node::new();
    for (options, claim, read_only) in [
        ("rw", json!({}), Value::Null),
        ("ro", json!({}), json!(true)),
        ("rw", json!({"readOnly": true}), json!(true)),
        ("rw", json!({"readOnly": false}), Value::Null),
    ] {
        local(&node, options);
        let (_, mount) = twin(&node, &pod(&json!({}), &claim)).await;
        assert_eq!(mount["readOnly"], read_only, "{options} {claim}");
    }
}

#[tokio::test]
async fn a_local_volume_that_only_the_kubelet_has_mounted_is_refused() {
    let node = Node::new();
    local(&node, "rw");
    let table = std::fs::read_to_string(node.root.path().join("proc/1/mountinfo")).unwrap();
    let without: Vec<_> = table
        .lines()
        .filter(|line| !line.contains(" /mnt/disk "))
        .collect();
    node.file("proc/1/mountinfo", &without.join("\n"));
    assert!(
        why(&node, &pod(&json!({}), &json!({})))
            .await
            .contains("only the kubelet mounts")
    );
    node.file("proc/1/mountinfo", "");
    assert!(
        why(&node, &pod(&json!({}), &json!({})))
            .await
            .contains("mount table")
    );
}

#[tokio::test]
async fn another_directory_at_the_same_path_is_not_the_volume() {
    let node = Node::new();
    local(&node, "rw");
    let place = node.root.path().join("mnt/disk/orders");
    std::fs::remove_file(&place).unwrap();
    std::fs::create_dir(&place).unwrap();
    why(&node, &pod(&json!({}), &json!({}))).await;
}

#[tokio::test]
async fn what_a_host_path_cannot_be_is_refused() {
    let node = Node::new();
    local(&node, "rw,noexec,nodev");
    assert!(
        why(&node, &pod(&json!({}), &json!({})))
            .await
            .contains("noexec")
    );
    local(&node, "rw,nodev");
    node.file("sys/fs/selinux/enforce", "1");
    let mut pod = pod(&json!({}), &json!({}));
    assert!(why(&node, &pod).await.contains("SELinux"));
    pod["spec"]["securityContext"] = json!({"seLinuxOptions": {"level": "s0:c1,c2"}});
    node.capture(&pod).await.unwrap();
}

#[tokio::test]
async fn a_host_path_volume_is_the_path_that_the_runtime_bound() {
    let node = Node::new();
    node.file("srv/orders/file", "");
    for (path, kind) in [("/srv/orders", "Directory"), ("/srv/orders/file", "File")] {
        bind(&node, path);
        let (volume, mount) = twin(&node, &pod(&json!({}), &json!({"readOnly": true}))).await;
        assert_eq!(volume["hostPath"], json!({"path": path, "type": kind}));
        assert_eq!(mount["readOnly"], true);
    }
    bind(&node, "/srv/gone");
    assert!(
        why(&node, &pod(&json!({}), &json!({})))
            .await
            .contains("/srv/gone is not on the node")
    );
}

#[tokio::test]
async fn a_host_path_volume_of_which_only_a_part_is_mounted_is_refused() {
    let node = Node::new();
    bind(&node, &of_pod(&format!("volume-subpaths/{PV}/web/1")));
    for mount in [json!({"subPath": "a"}), json!({"subPathExpr": "$(MODE)"})] {
        assert!(
            why(&node, &pod(&mount, &json!({})))
                .await
                .contains("only a subPath")
        );
    }
}

#[tokio::test]
async fn volumes_that_must_be_attached_are_refused_with_their_kind() {
    let node = Node::new();
    for plugin in [
        "kubernetes.io~csi",
        "kubernetes.io~nfs",
        "kubernetes.io~iscsi",
    ] {
        bind(&node, &of_pod(&format!("volumes/{plugin}/{PV}/mount")));
        assert!(
            why(&node, &pod(&json!({}), &json!({})))
                .await
                .contains(plugin)
        );
    }
    bind(&node, "");
    assert!(
        why(&node, &pod(&json!({}), &json!({})))
            .await
            .contains("no container that ran mounts it")
    );
}

#[tokio::test]
async fn a_claim_is_refused_unless_its_owner_accepts_it() {
    let node = Node::new();
    local(&node, "rw");
    let mut pod = pod(&json!({}), &json!({}));
    pod["metadata"]["annotations"]
        .as_object_mut()
        .unwrap()
        .remove("podcheckpointer.io/accept");
    why(&node, &pod).await;
    pod["metadata"]["annotations"]["podcheckpointer.io/accept"] = json!("stateful");
    why(&node, &pod).await;
}

#[tokio::test]
async fn two_pods_never_write_to_one_volume_unless_the_owner_says_so() {
    use pod_checkpointer::checkpoint::Handover;
    let node = Node::new();
    local(&node, "rw");
    let mut pod = pod(&json!({}), &json!({}));
    assert_eq!(
        node.capture(&pod).await.unwrap().policy.handover,
        Some(Handover::Switch)
    );
    pod["metadata"]["annotations"]["podcheckpointer.io/handover"] = json!("overlap");
    assert_eq!(
        node.capture(&pod).await.unwrap().policy.handover,
        Some(Handover::Overlap)
    );
}
