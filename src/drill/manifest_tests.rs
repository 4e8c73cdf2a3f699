use super::*;
use crate::checkpoint::testing::checkpoint;

fn rehearsal(spec: &Value) -> Rehearsal {
    let mut checkpoint = checkpoint("shop", "till");
    let own = checkpoint.manifest["spec"]["volumes"][0].clone();
    checkpoint.manifest["spec"] = spec.clone();
    if let Some(volumes) = checkpoint.manifest["spec"]["volumes"].as_array_mut() {
        volumes.push(own);
    }
    checkpoint.manifest["metadata"]["labels"] = json!({"app": "till"});
    checkpoint.manifest["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"] = json!("vlan7");
    make(&Plan {
        checkpoint: &checkpoint,
        uid: "drill-uid",
        node: "node-1",
        volumes: Path::new("/run/drill/volumes"),
        image: "supervisor:1",
        hold: Duration::from_mins(2),
        exists: &|path| !path.to_string_lossy().contains("absent"),
    })
}

fn web() -> Value {
    let twin = include_str!("../../tests/fixtures/pods/web.twin.json");
    serde_json::from_str::<Value>(twin).unwrap()["spec"].clone()
}

#[test]
fn a_rehearsal_contains_nothing_of_the_workload() {
    for twin in ["web", "everything", "node-agent"] {
        let path = format!(
            "{}/tests/fixtures/pods/{twin}.twin.json",
            env!("CARGO_MANIFEST_DIR")
        );
        let twin: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let made = rehearsal(&twin["spec"]).manifest;
        for field in ["containers", "initContainers"] {
            for container in made["spec"][field].as_array().into_iter().flatten() {
                assert_eq!(container["image"], "supervisor:1");
                assert_eq!(container["args"][0], "hold");
                for gone in [
                    "command",
                    "lifecycle",
                    "livenessProbe",
                    "readinessProbe",
                    "startupProbe",
                    "ports",
                ] {
                    assert!(container.get(gone).is_none(), "{gone}");
                }
            }
        }
    }
}

#[test]
fn a_rehearsal_takes_nothing_from_running_pods() {
    let mut spec = web();
    spec["priorityClassName"] = json!("system-node-critical");
    spec["resources"] = json!({"requests": {"cpu": "4"}});
    let made = rehearsal(&spec).manifest;
    assert!(
        made["spec"].get("priorityClassName").is_none() && made["spec"].get("resources").is_none()
    );
    assert_eq!(made["spec"]["priority"], PRIORITY);
    for container in made["spec"]["containers"].as_array().unwrap() {
        assert_eq!(
            container["resources"]["requests"],
            json!({"cpu": "0", "memory": "0"})
        );
    }
    let metadata = &made["metadata"];
    assert!(metadata.get("labels").is_none(), "no Service selects it");
    assert_eq!(
        metadata["annotations"],
        json!({DRILL_OF: "shop/till"}),
        "no twin, and no network of its own"
    );
    assert_eq!(
        (metadata["name"].as_str(), metadata["uid"].as_str()),
        (Some("till-drill"), Some("drill-uid"))
    );
}

#[test]
fn init_containers_end_and_all_others_wait() {
    let mut spec = web();
    spec["initContainers"][0]["restartPolicy"] = json!("Always");
    let mut second = spec["initContainers"][0].clone();
    second["name"] = json!("second");
    second.as_object_mut().unwrap().remove("restartPolicy");
    spec["initContainers"].as_array_mut().unwrap().push(second);
    let made = rehearsal(&spec).manifest;
    let hold = |list: &str, index: usize| made["spec"][list][index]["args"][1].clone();
    assert_eq!(
        [hold("initContainers", 0), hold("initContainers", 1)],
        ["120s", "0s"]
    );
    assert_eq!(hold("containers", 0), "120s");
    assert_eq!(main_containers(&made), ["web", "side", "prepare"]);
}

#[test]
fn captured_volumes_are_mounted_from_the_drills_own_directory() {
    let made = rehearsal(&json!({"containers": [], "volumes": []}));
    assert_eq!(
        made.manifest["spec"]["volumes"][0]["hostPath"]["path"],
        "/run/drill/volumes/credentials"
    );
    assert_eq!(made.left_out, [""; 0]);
}

#[test]
fn data_of_the_owner_is_mounted_read_only_or_not_at_all() {
    let spec = json!({
        "containers": [{"name": "db", "securityContext": {"runAsUser": 7}, "volumeDevices": [{"name": "raw"}],
            "volumeMounts": [
                {"name": "data", "mountPath": "/data", "mountPropagation": "Bidirectional"},
                {"name": "data", "mountPath": "/sub", "subPath": "absent"},
                {"name": "data", "mountPath": "/expr", "subPathExpr": "$(POD_IP)"},
                {"name": "made", "mountPath": "/made"},
                {"name": "far", "mountPath": "/far"},
                {"name": "scratch", "mountPath": "/scratch"}]}],
        "volumes": [
            {"name": "data", "hostPath": {"path": "/srv/data", "type": "DirectoryOrCreate"}},
            {"name": "made", "hostPath": {"path": "/srv/absent", "type": "DirectoryOrCreate"}},
            {"name": "far", "nfs": {"server": "nas", "path": "/x"}},
            {"name": "scratch", "emptyDir": {}}],
    });
    let Rehearsal { manifest, left_out } = rehearsal(&spec);
    let container = &manifest["spec"]["containers"][0];
    assert_eq!(
        container["volumeMounts"],
        json!([
            {"name": "data", "mountPath": "/data", "readOnly": true},
            {"name": "made", "mountPath": "/made"},
            {"name": "far", "mountPath": "/far"},
            {"name": "scratch", "mountPath": "/scratch"}])
    );
    assert_eq!(
        manifest["spec"]["volumes"][1],
        json!({"name": "made", "emptyDir": {}})
    );
    assert_eq!(
        manifest["spec"]["volumes"][2],
        json!({"name": "far", "emptyDir": {}})
    );
    assert!(container.get("volumeDevices").is_none());
    let told: Vec<&str> = left_out
        .iter()
        .map(|text| text.split(':').next().unwrap())
        .collect();
    assert_eq!(
        told,
        [
            "block devices of db",
            "mount /expr of db",
            "mount /sub of db",
            "volume far",
            "volume made"
        ]
    );
}

#[test]
fn profiles_and_users_of_the_workload_do_not_keep_this_program_from_running() {
    let spec = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "Localhost", "localhostProfile": "x"}},
        "containers": [
            {"name": "one", "env": [{"name": "A", "valueFrom": {"fileKeyRef": {"key": "k"}}}, {"name": "B"}]},
            {"name": "two", "securityContext": {"runAsUser": 7, "appArmorProfile": {"type": "Localhost"}}}],
    });
    let Rehearsal { manifest, left_out } = rehearsal(&spec);
    let spec = &manifest["spec"];
    assert_eq!(
        spec["securityContext"]["seccompProfile"],
        json!({"type": "RuntimeDefault"})
    );
    assert_eq!(
        spec["containers"][0]["securityContext"],
        json!({"runAsNonRoot": false})
    );
    assert_eq!(spec["containers"][0]["env"], json!([{"name": "B"}]));
    assert_eq!(
        spec["containers"][1]["securityContext"],
        json!({"runAsUser": 7, "appArmorProfile": {"type": "RuntimeDefault"}})
    );
    assert_eq!(
        left_out,
        [
            "environment of one from files",
            "its own appArmorProfile",
            "its own seccompProfile"
        ]
    );
}

#[test]
fn a_name_never_gets_too_long() {
    assert_eq!(name("till", "node-1"), "till-drill");
    let long = format!("{}.b", "a".repeat(239));
    let made = name(&long, "node-1");
    assert_eq!(made, format!("{}-drill", "a".repeat(239)));
    assert!(made.len() + 1 + "node-1".len() <= LONGEST_NAME);
}
