use crate::pod::id::id;
use std::fs;

use serde_json::json;

use super::*;

const MANIFESTS: &str = "/etc/kubernetes/manifests";

struct Node(tempfile::TempDir);

impl Node {
    fn new() -> Self {
        let node = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(node.path("manifests")).unwrap();
        node
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join("etc/kubernetes").join(below)
    }

    fn find(&self) -> Option<Found> {
        find(&self.root(), Some(Path::new(MANIFESTS)))
    }

    fn root(&self) -> HostRoot {
        HostRoot::new(self.0.path())
    }

    /// What it left of a pod.
    fn leave(&self, name: &str) {
        fs::create_dir_all(self.path("inactive-manifests")).unwrap();
        fs::create_dir_all(self.path(&format!("checkpoint-secrets/shop/{name}/tls"))).unwrap();
        fs::write(
            self.path(&format!("checkpoint-secrets/shop/{name}/tls/key")),
            "secret",
        )
        .unwrap();
        let pod =
            json!({"metadata": {"namespace": "shop", "name": name, "annotations": {COPY: name}}});
        fs::write(
            self.path(&format!("inactive-manifests/shop-{name}.json")),
            pod.to_string(),
        )
        .unwrap();
    }
}

fn unneeded() -> Neighbours {
    Neighbours {
        is_heard: true,
        copy_runs: Some(false),
        ..Neighbours::default()
    }
}

#[test]
fn what_it_left_is_named_and_nothing_else() {
    let node = Node::new();
    fs::create_dir(node.path("inactive-manifests")).unwrap();
    fs::write(node.path("manifests/etcd.yaml"), "kind: Pod").unwrap();
    fs::write(node.0.path().join("elsewhere"), COPY).unwrap();
    std::os::unix::fs::symlink(
        node.0.path().join("elsewhere"),
        node.path("manifests/link.yaml"),
    )
    .unwrap();
    assert_eq!(
        node.find(),
        None,
        "an empty directory, a foreign manifest and a link"
    );
    fs::create_dir_all(node.path("checkpoint-secrets/kube-system/api")).unwrap();
    fs::write(
        node.path("manifests/kube-system-api.json"),
        format!("{{\"{COPY}\": \"api\"}}"),
    )
    .unwrap();
    let found = node.find().unwrap();
    assert_eq!(
        found.names(),
        format!("/etc/kubernetes/checkpoint-secrets, {MANIFESTS}/kube-system-api.json")
    );
}

#[test]
fn it_stays_while_it_could_be_needed() {
    let node = Node::new();
    node.leave("till");
    let found = node.find().unwrap();
    assert_eq!(found.needed(&unneeded()), None);
    let unprotected = |key: &PodId| BTreeSet::from([key.to_owned()]);
    assert_eq!(
        found.needed(&Neighbours {
            unprotected: unprotected(&id("shop_other")),
            ..unneeded()
        }),
        None
    );
    for neighbours in [
        Neighbours {
            is_heard: false,
            ..unneeded()
        },
        Neighbours {
            copy_runs: None,
            ..unneeded()
        },
        Neighbours {
            copy_runs: Some(true),
            ..unneeded()
        },
        Neighbours {
            checkpointer: Some(id("kube-system_pod-checkpointer-x")),
            ..unneeded()
        },
        Neighbours {
            unprotected: unprotected(&id("shop_till")),
            ..unneeded()
        },
    ] {
        assert!(found.needed(&neighbours).is_some(), "{neighbours:?}");
    }
    fs::write(node.path("inactive-manifests/notes"), "by hand").unwrap();
    assert!(
        node.find()
            .unwrap()
            .needed(&unneeded())
            .unwrap()
            .contains("by hand"),
        "a foreign file"
    );
    fs::remove_file(node.path("inactive-manifests/notes")).unwrap();
    fs::write(node.path("manifests/x.json"), COPY).unwrap();
    assert!(
        node.find()
            .unwrap()
            .needed(&unneeded())
            .unwrap()
            .contains("may be serving")
    );
    let unknown = find(&node.root(), None).unwrap();
    assert!(
        unknown
            .needed(&unneeded())
            .unwrap()
            .contains("cannot be read"),
        "where the copies would be is not known"
    );
}

#[test]
fn it_is_removed_only_after_it_has_not_been_needed_for_a_while() {
    let node = Node::new();
    node.leave("till");
    fs::write(node.path("kubelet.conf"), "theirs").unwrap();
    let (found, root, mut idle, start) = (
        node.find().unwrap(),
        node.root(),
        Idle::default(),
        Instant::now(),
    );
    assert!(
        tidy(&root, &found, &unneeded(), &mut idle, start)
            .unwrap()
            .contains("no longer needed")
    );
    let away = Neighbours {
        is_heard: false,
        ..unneeded()
    };
    assert!(tidy(&root, &found, &away, &mut idle, start + QUIET).is_some());
    assert!(
        tidy(&root, &found, &unneeded(), &mut idle, start + QUIET).is_some(),
        "it starts over"
    );
    assert!(node.path("checkpoint-secrets/shop/till/tls/key").exists());
    assert_eq!(
        tidy(&root, &found, &unneeded(), &mut idle, start + QUIET * 2),
        None
    );
    assert_eq!(node.find(), None);
    assert!(!node.path("checkpoint-secrets").exists() && node.path("kubelet.conf").exists());
}

#[test]
fn a_link_in_the_place_of_a_directory_is_removed_and_what_it_leads_to_is_not() {
    let node = Node::new();
    let elsewhere = node.0.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("file"), "theirs").unwrap();
    std::os::unix::fs::symlink("/elsewhere", node.path("checkpoint-secrets")).unwrap();
    let found = node.find().unwrap();
    let mut idle = Idle(Some(Instant::now()));
    tidy(
        &node.root(),
        &found,
        &unneeded(),
        &mut idle,
        Instant::now() + QUIET,
    );
    assert!(elsewhere.join("file").exists());
    assert!(!node.path("checkpoint-secrets").is_symlink());
}

#[test]
fn its_own_pod_is_recognized_by_its_command_and_its_directory() {
    let pod = |command: &str, path: &str| {
        json!({"spec": {"containers": [{"name": "pod-checkpointer", "command": [command, "--lock-file=/x"]}],
            "volumes": [{"name": "etc", "hostPath": {"path": path}}]}})
    };
    assert!(is_checkpointer(&pod("/checkpoint", "/etc/kubernetes")));
    assert!(is_checkpointer(&pod("checkpoint", "/etc/kubernetes/")));
    assert!(!is_checkpointer(&pod("/checkpoint", "/data")));
    assert!(!is_checkpointer(&pod("/etcd", "/etc/kubernetes")));
    assert!(!is_checkpointer(&json!({})));
}
