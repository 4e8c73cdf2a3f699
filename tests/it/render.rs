//! `render` as it is run: what it prints, how it ends, and that nothing that it is given makes it
//! do more than that.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use pod_checkpointer::cli::input;
use serde_json::{Value, json};

const POD: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: till
  annotations: {podcheckpointer.io/checkpoint: \"true\"}
spec:
  automountServiceAccountToken: false
  containers:
  - name: app
    image: till:1
    env: [{name: KEY, valueFrom: {secretKeyRef: {name: till, key: key}}}]
    volumeMounts: [{name: files, mountPath: /files}]
  volumes: [{name: files, configMap: {name: till, defaultMode: 0440}}]
";
const REFUSED: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: disk, namespace: shop}
spec:
  restartPolicy: Never
  containers: [{name: app, image: i}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: books}}]
";

struct Files(tempfile::TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            directory.write(name, text.as_bytes());
        }
        directory
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), bytes).unwrap();
    }

    /// Within 2 GiB of addresses and 60 s of the processor, which no input may need.
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("/bin/sh");
        command.args([
            "-c",
            "ulimit -v 2097152; ulimit -t 60; exec \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_pod-checkpointer"),
            "render",
        ]);
        command
            .args(arguments)
            .current_dir(self.0.path())
            .env_clear();
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["-o", "json"]].concat());
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", errors(&output)))
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn printed(output: &Output) -> Vec<Value> {
    input::parse(&output.stdout)
        .unwrap()
        .into_iter()
        .map(|document| document.content.unwrap())
        .collect()
}

#[test]
fn a_pod_that_will_come_back_is_printed_as_it_would_be_linked() {
    let files = Files::new(&[("pod.yaml", POD)]);
    let output = files.run(&["-f", "pod.yaml"]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let manifests = printed(&output);
    assert_eq!(manifests.len(), 1);
    let spec = &manifests[0]["spec"];
    assert_eq!(manifests[0]["metadata"]["namespace"], "default");
    let path =
        "/run/pod-checkpointer/volumes/default_till/00000000-0000-0000-0000-000000000000/files";
    assert_eq!(
        spec["volumes"],
        json!([{"name": "files", "hostPath": {"path": path, "type": "Directory"}}])
    );
    let env = spec["containers"][0]["env"].as_array().unwrap();
    assert!(
        env.contains(&json!({"name": "KEY", "value": "<captured: key key of Secret till>"})),
        "{env:?}"
    );
    assert_eq!(errors(&output), "");
    let moved = files.run(&[
        "-f",
        "pod.yaml",
        "-n",
        "shop",
        "--run-dir",
        "/run/x",
        "-o",
        "json",
    ]);
    let moved: Value = serde_json::from_slice(&moved.stdout).unwrap();
    let path = &moved["items"][0]["manifest"]["spec"]["volumes"][0]["hostPath"]["path"];
    assert_eq!(
        path,
        "/run/x/volumes/shop_till/00000000-0000-0000-0000-000000000000/files"
    );
}

#[test]
fn a_pod_that_would_not_come_back_is_listed_with_every_reason_and_exit_code_3() {
    let files = Files::new(&[("pod.yaml", REFUSED)]);
    let output = files.run(&["-f", "pod.yaml"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(3), 0));
    let errors = errors(&output);
    let lines: Vec<&str> = errors.lines().collect();
    assert!(
        lines[0].starts_with(
            "pod.yaml: Pod shop/disk: not recoverable: RestartPolicy: spec.restartPolicy is Never"
        ),
        "{errors}"
    );
    assert!(
        lines[1].contains("PersistentVolume: spec.volumes[data].persistentVolumeClaim: books")
            && lines[1].contains("What to do"),
        "{errors}"
    );
    assert!(lines[2].contains("note: not marked"), "{errors}");
    let told = files.json(&["-f", "pod.yaml"]);
    let item = &told["items"][0];
    assert_eq!(
        (&item["recoverable"], &item["marked"], &item["manifest"]),
        (&json!(false), &json!(false), &Value::Null)
    );
    let reasons: Vec<&str> = item["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["reason"].as_str().unwrap())
        .collect();
    assert_eq!(reasons, ["RestartPolicy", "PersistentVolume"]);
    for key in ["detail", "advice", "explanation"] {
        assert!(
            item["reasons"][0][key].as_str().unwrap().len() > 10,
            "{item}"
        );
    }
}

#[test]
fn what_cannot_be_read_hides_nothing_else_and_outweighs_the_rest() {
    let text = format!(
        "{POD}---\nkind: [\n---\n{REFUSED}---\napiVersion: v1\nkind: Service\nmetadata: {{name: s}}\n---\n5\n"
    );
    let files = Files::new(&[("all.yaml", &text)]);
    let output = files.run(&["-f", "all.yaml", "-f", "absent.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(printed(&output).len(), 1);
    let errors = errors(&output);
    for line in [
        "all.yaml#2: error: line 15: invalid YAML",
        "all.yaml#3: Pod shop/disk: not recoverable",
        "all.yaml#4: Service s: skipped",
        "all.yaml#5: error: not a Kubernetes object",
        "absent.yaml: error: cannot read: No such file",
        "pod-checkpointer: 3 objects or files could not be read",
    ] {
        assert!(
            errors.lines().any(|it| it.starts_with(line)),
            "{line}: {errors}"
        );
    }
}

#[test]
fn nothing_to_render_is_a_failure_and_wrong_flags_are_usage() {
    let files = Files::new(&[
        ("service.yaml", "apiVersion: v1\nkind: Service\n"),
        ("pod.yaml", POD),
    ]);
    let output = files.run(&["-f", "service.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        errors(&output).contains("neither a pod"),
        "{}",
        errors(&output)
    );
    for arguments in [
        &[][..],
        &["-f", "pod.yaml", "--live", "a/b"],
        &["-f", "pod.yaml", "--reveal"],
        &["-f", "pod.yaml", "-o", "xml"],
        &["-f", "pod.yaml", "--run-dir", "relative"],
    ] {
        assert_eq!(files.run(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn directories_are_read_in_order_and_recursively_only_when_asked() {
    let pod = |name: &str| POD.replace("till", name);
    let (a, b, c) = (pod("a"), pod("b"), pod("c"));
    let files = Files::new(&[
        ("d/2.yml", &a),
        (
            "d/1.json",
            &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "j"}, "spec": {"containers": []}})
                .to_string(),
        ),
        ("d/notes.txt", "no: ["),
        ("d/3.yaml", &b),
        ("d/more/4.yaml", &c),
    ]);
    let names = |told: Value| {
        told["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(files.json(&["-f", "d"])), ["j", "a", "b"]);
    assert_eq!(names(files.json(&["-f", "d", "-R"])), ["j", "a", "b", "c"]);
    assert_eq!(
        names(files.json(&["-f", "d/3.yaml", "-f", "d/2.yml"])),
        ["b", "a"]
    );
}

#[test]
fn standard_input_is_read() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pod-checkpointer"));
    let mut child = command
        .args(["render", "-f", "-", "-o", "table"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), POD.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(
        table
            .lines()
            .nth(1)
            .unwrap()
            .starts_with("default    till  Pod   yes          yes"),
        "{table}"
    );
}

#[test]
fn every_change_is_explained_next_to_the_manifest() {
    let files = Files::new(&[("pod.yaml", POD)]);
    let output = files.run(&["-f", "pod.yaml", "--explain"]);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    for line in [
        "# spec.containers[app].imagePullPolicy: added \"IfNotPresent\": ",
        "# spec.containers[app].env[KEY].valueFrom.secretKeyRef: made concrete: ",
        "# spec.volumes[files].configMap: made concrete: ",
        "# spec.serviceAccountName: dropped: ",
        "# spec.terminationGracePeriodSeconds: rewritten 150: ",
    ] {
        assert!(
            text.lines()
                .any(|it| it.starts_with(line) && it.len() > line.len() + 10),
            "{line}: {text}"
        );
    }
    assert_eq!(
        printed(&output),
        printed(&files.run(&["-f", "pod.yaml"])),
        "comments change nothing"
    );
    let changes = files.json(&["-f", "pod.yaml"])["items"][0]["changes"].clone();
    let one = changes
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["path"] == "spec.serviceAccountName")
        .unwrap();
    assert_eq!(
        (&one["what"], &one["from"], &one["to"]),
        (&json!("dropped"), &json!("default"), &Value::Null)
    );
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for (field, name) in [
        ("name", ".."),
        ("name", "a/../../etc"),
        ("namespace", "../x"),
        ("name", "a\u{1b}[2J"),
        ("name", ""),
    ] {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "n"}, "spec": {"containers": []}});
        pod["metadata"][field] = json!(name);
        let files = Files::new(&[("pod.json", &pod.to_string())]);
        let output = files.run(&["-f", "pod.json"]);
        assert_eq!(
            (output.status.code(), output.stdout.len()),
            (Some(3), 0),
            "{name:?}: {}",
            errors(&output)
        );
        assert!(
            !errors(&output).contains('\u{1b}'),
            "a terminal is not to be told what to do"
        );
    }
    for name in ["..", "a/b", "."] {
        let pod = POD.replace("name: files", &format!("name: \"{name}\""));
        let files = Files::new(&[("pod.yaml", &pod)]);
        let told = files.json(&["-f", "pod.yaml"]);
        assert_eq!(
            told["items"][0]["reasons"][0]["reason"], "RejectedByKubeletRules",
            "{told}"
        );
    }
}

#[test]
fn bad_files_end_in_an_error_in_bounded_time_and_memory() {
    let bomb: String = (1..30).fold("a0: &a0 [x,x]\n".to_owned(), |text, level| {
        text + &format!(
            "a{level}: &a{level} [{}]\n",
            vec![format!("*a{}", level - 1); 20].join(",")
        )
    });
    for (what, bytes, message) in [
        ("not YAML", b"a: b: c".to_vec(), "invalid YAML"),
        ("not a pod", b"hello".to_vec(), "not a Kubernetes object"),
        ("invalid UTF-8", b"a: \xff".to_vec(), "not UTF-8"),
        ("binary", vec![0; 4096], "invalid YAML"),
        (
            "a key twice",
            b"kind: Pod\nkind: Pod\n".to_vec(),
            "duplicate key \"kind\"",
        ),
        ("a bomb", bomb.into_bytes(), "aliases make it larger"),
        (
            "deep YAML",
            "[".repeat(1 << 20).into_bytes(),
            "invalid YAML",
        ),
        ("deep JSON", "{\"a\":".repeat(1 << 20).into_bytes(), "n"),
        (
            "10 MiB and one",
            vec![b'#'; (10 << 20) + 1],
            "larger than 10 MiB",
        ),
        (
            "many values",
            "- {a: 1}\n".repeat(1 << 20).into_bytes(),
            "larger than an object can be",
        ),
    ] {
        let files = Files::new(&[]);
        files.write("bad.yaml", &bytes);
        let output = files.run(&["-f", "bad.yaml"]);
        assert_eq!(
            (output.status.code(), output.stdout.len()),
            (Some(1), 0),
            "{what}: {}",
            errors(&output)
        );
        let errors = errors(&output);
        assert!(
            errors.starts_with("bad.yaml: error: ")
                && errors.contains(message)
                && errors.len() < 1000,
            "{what}: {errors}"
        );
    }
}

#[test]
fn ten_thousand_containers_are_rendered() {
    let container = |at: usize| json!({"name": format!("c{at}"), "image": "i", "env": [{"name": "A", "value": "b"}], "ports": [{"containerPort": 80}]});
    let containers: Vec<Value> = (0..10_000).map(container).collect();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "n"}, "spec": {"containers": containers}});
    let files = Files::new(&[("pod.json", &pod.to_string())]);
    let output = files.run(&["-f", "pod.json"]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert_eq!(
        printed(&output)[0]["spec"]["containers"]
            .as_array()
            .unwrap()
            .len(),
        10_000
    );
}

#[test]
fn a_file_just_below_the_limit_is_read() {
    let files = Files::new(&[(
        "pod.yaml",
        &format!("{POD}# {}\n", "x".repeat((10 << 20) - POD.len() - 3)),
    )]);
    let output = files.run(&["-f", "pod.yaml"]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
}

mod live {
    use super::*;
    use crate::stub::api::{Api, pod_path};
    use crate::stub::runtime::{Pod, Runtime, Spec};
    use crate::stub::{Mode, ProbeServer};

    const UID: &str = "2f1e6d1c-6a3a-4f0e-9f6b-0a6b7c8d9e0f";

    struct Node {
        files: Files,
        server: ProbeServer,
        _runtime: Runtime,
    }

    impl Node {
        fn start(spec: &Value) -> Self {
            let files = Files::new(&[]);
            let runtime = Runtime::start_at(files.path("runtime.sock"));
            let mut pod = Pod::new("shop", "till", UID);
            pod.containers = vec![Spec {
                env: vec![("KEY".into(), "tr0ub4dor".into())],
                ..Spec::new("app", "till:1")
            }];
            runtime.change(|state| {
                state.images.insert("till:1".into(), "sha256:1".into());
                state.run(&pod);
            });
            let api = Api::new("edge-1", "node-uid");
            let metadata = json!({"name": "till", "namespace": "shop", "uid": UID});
            let status = json!({"phase": "Running", "podIP": "10.0.0.7"});
            api.put(
                &pod_path("shop", "till"),
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}),
            );
            let server = ProbeServer::before(api);
            server.write_kubeconfig(&files.path("kubeconfig"));
            Self {
                files,
                server,
                _runtime: runtime,
            }
        }

        async fn render(&self, arguments: &[&str]) -> Output {
            let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_pod-checkpointer"));
            command
                .arg("render")
                .args(arguments)
                .env_clear()
                .current_dir(self.files.0.path());
            command
                .arg("--kubeconfig")
                .arg(self.files.path("kubeconfig"))
                .arg("--host-root")
                .arg("/");
            command.arg("--cri-endpoint").arg(format!(
                "unix://{}",
                self.files.path("runtime.sock").display()
            ));
            command
                .arg("--kubelet-dir")
                .arg(self.files.path("kubelet"))
                .output()
                .await
                .unwrap()
        }
    }

    fn spec() -> Value {
        let key =
            json!({"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "till", "key": "key"}}});
        json!({"nodeName": "edge-1", "restartPolicy": "Always", "containers": [{"name": "app", "image": "till:1", "env": [key]}]})
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_runs_is_rendered_without_the_values_of_its_environment() {
        let node = Node::start(&spec());
        let output = node.render(&["--live", "shop/till"]).await;
        assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
        let env = &printed(&output)[0]["spec"]["containers"][0]["env"];
        assert_eq!(*env, json!([{"name": "KEY", "value": "<9 bytes>"}]));
        let explained = node
            .render(&["--live", "shop/till", "--explain", "-o", "json"])
            .await;
        for shown in [&output, &explained] {
            let text = format!(
                "{}{}",
                String::from_utf8_lossy(&shown.stdout),
                errors(shown)
            );
            assert!(!text.contains("tr0ub4dor"), "{text}");
        }
        let revealed = node.render(&["--live", "shop/till", "--reveal"]).await;
        let is_root = rustix::process::geteuid().is_root();
        assert_eq!(
            String::from_utf8_lossy(&revealed.stdout).contains("tr0ub4dor"),
            is_root
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn reasons_of_node_and_object_end_in_3_and_what_is_not_there_in_1() {
        let mut refused = spec();
        refused["containers"][0]["image"] = json!("gone:1");
        refused["resourceClaims"] = json!([{"name": "gpu"}]);
        let node = Node::start(&refused);
        let output = node.render(&["--live", "shop/till"]).await;
        assert_eq!(output.status.code(), Some(3), "{}", errors(&output));
        assert!(
            errors(&output).contains("ResourceClaim: "),
            "{}",
            errors(&output)
        );
        for (pod, message) in [
            ("shop/other", "there is no pod shop/other"),
            ("till", "is not NAMESPACE/POD"),
            ("../x/y", "is not a valid name"),
        ] {
            let output = node.render(&["--live", pod]).await;
            assert_eq!(output.status.code(), Some(1));
            assert!(errors(&output).contains(message), "{}", errors(&output));
        }
        let output = node
            .render(&["--live", "shop/till", "--node-name", "edge-2"])
            .await;
        assert!(
            errors(&output).contains("not on edge-2"),
            "{}",
            errors(&output)
        );
        node.server.set(Mode::Refuse).await;
        let output = node.render(&["--live", "shop/till"]).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(
            errors(&output).contains("pod-checkpointer show shop/till"),
            "{}",
            errors(&output)
        );
    }
}
