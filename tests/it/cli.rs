//! The program's commands on a node that is a directory.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::stub::id;
use pod_checkpointer::checkpoint::encoding;
use pod_checkpointer::checkpoint::keys::KeyFiles;
use pod_checkpointer::checkpoint::{Captured, Entry, NodeCheckpoint, Parent, Policy, Volume};
use pod_checkpointer::files::lock::lock;
use pod_checkpointer::node::host::HostRoot;
use pod_checkpointer::places::reports::{AGENT, AgentReport, Phase, PodReport, STATUS, Status};
use pod_checkpointer::places::run::RunDir;
use pod_checkpointer::places::store::Store;
use pod_checkpointer::reasons::Warning;
use serde_json::{Value, json};

const SECRET: &[u8] = b"correct horse";

struct Node(tempfile::TempDir);

impl Node {
    fn new() -> Self {
        let node = Self(tempfile::tempdir_in("/dev/shm").unwrap());
        fs::create_dir_all(node.path("etc/kubernetes/manifests")).unwrap();
        fs::write(
            node.path("etc/kubernetes/manifests/somebodys.yaml"),
            "kind: Pod\n",
        )
        .unwrap();
        node
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn store(&self) -> Store {
        let store = Store::new(self.path("var/lib/pod-checkpointer"));
        store.create().unwrap();
        store
    }

    fn run_dir(&self) -> RunDir {
        let run = RunDir::new(self.path("run/pod-checkpointer"), "/run/pod-checkpointer");
        run.open("boot-1").unwrap();
        run
    }

    fn manifest(&self, name: &str) -> PathBuf {
        self.path("etc/kubernetes/manifests").join(name)
    }

    /// A supervisor's manifest, as an agent leaves it.
    fn install(&self) -> PathBuf {
        let path = self.manifest("pod-checkpointer-supervisor.yaml");
        fs::write(
            &path,
            json!({"metadata": {"name": "pod-checkpointer-supervisor"}}).to_string(),
        )
        .unwrap();
        path
    }

    /// What a supervisor leaves when it has activated a pod.
    fn link(&self, key: &str) -> PathBuf {
        let run = self.run_dir();
        fs::write(run.active(&id(key)), "{}").unwrap();
        let link = self.manifest(&format!("pod-checkpointer_{key}.yaml"));
        symlink(run.link_target(&id(key)), &link).unwrap();
        link
    }

    fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pod-checkpointer"));
        command
            .args(arguments)
            .arg("--host-root")
            .arg(self.0.path());
        command.args(["--manifest-dir", "/etc/kubernetes/manifests"]);
        command.env_clear().output().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.command(&[arguments, &["--output", "json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Every file and link on the node, to compare before and after.
    fn files(&self) -> Vec<PathBuf> {
        fn walk(directory: PathBuf, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(directory).unwrap().flatten() {
                found.push(entry.path());
                if entry.file_type().unwrap().is_dir() {
                    walk(entry.path(), found);
                }
            }
        }
        let mut found = Vec::new();
        walk(self.0.path().to_owned(), &mut found);
        found.retain(|path| {
            !path.ends_with("var") && !path.ends_with("var/lib") && !path.ends_with("run")
        });
        found.sort();
        found
    }
}

pub fn checkpoint(name: &str) -> NodeCheckpoint {
    let entry = |path: &str, data: Option<&[u8]>| Entry {
        path: path.into(),
        mode: "0700".into(),
        uid: 0,
        gid: 0,
        data: data.map(encoding::encode),
        link: None,
    };
    let parent = Parent {
        namespace: "shop".into(),
        name: name.into(),
        uid: "u1".into(),
        resource_version: "1".into(),
        owner: None,
        node_uid: None,
    };
    let captured = Captured {
        wall: "2026-11-21T10:00:00Z".into(),
        boot_id: "boot-1".into(),
        uptime_seconds: 100,
    };
    let manifest = json!({"kind": "Pod", "spec": {"containers": [{"name": "app", "env": [{"name": "KEY", "value": "tr0ub4dor"}]}]}});
    let mut checkpoint = NodeCheckpoint::new(parent, captured, Policy::default(), manifest);
    checkpoint.warnings = vec![Warning::MayBeRescheduled];
    checkpoint.volumes = BTreeMap::from([(
        "keys".to_owned(),
        Volume {
            entries: vec![entry("", None), entry("key", Some(SECRET))],
        },
    )]);
    checkpoint.with_digest()
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn every_command_works_where_nothing_is_installed() {
    let node = Node::new();
    let before = node.files();
    let status = node.command(&["status"]);
    assert_eq!(status.status.code(), Some(0), "{}", text(&status));
    assert!(
        text(&status).contains("Nothing is captured on this node"),
        "{}",
        text(&status)
    );
    assert!(
        text(&status).contains("not installed in /etc/kubernetes/manifests"),
        "{}",
        text(&status)
    );
    assert_eq!(node.command(&["verify"]).status.code(), Some(0));
    assert_eq!(node.command(&["uninstall"]).status.code(), Some(0));
    let show = node.command(&["show", "shop/till"]);
    assert_eq!(show.status.code(), Some(1));
    assert!(
        text(&show).contains("no checkpoint of pod shop/till"),
        "{}",
        text(&show)
    );
    assert_eq!(node.files(), before, "looking changes nothing");
}

#[test]
fn status_shows_what_is_captured_what_is_active_and_why_not() {
    let node = Node::new();
    for name in ["till", "radio"] {
        node.store().put(&checkpoint(name)).unwrap();
    }
    let run = node.run_dir();
    let pod = PodReport {
        namespace: "shop".into(),
        name: "till".into(),
        parent_uid: "u1".into(),
        phase: Phase::Blocked,
        reason: Some("ImageAbsent".into()),
        message: Some("image till:1 of container app is not on the node".into()),
        ..PodReport::default()
    };
    let problems = vec!["the disk is slow".to_owned()];
    run.write(
        STATUS,
        &Status {
            pods: vec![pod],
            problems,
            ..Status::default()
        },
    )
    .unwrap();
    let refused = BTreeMap::from([(
        id("shop_ledger"),
        vec!["PersistentVolume: volume books".to_owned()],
    )]);
    let problems = vec!["the shelf is full".to_owned()];
    let marked = BTreeMap::from([(id("shop_till"), "selector app=till".to_owned())]);
    run.write(
        AGENT,
        &AgentReport {
            heartbeat: 1,
            marked,
            refused,
            problems,
            ..AgentReport::default()
        },
    )
    .unwrap();
    node.install();
    let _agent = node.store().lock("agent.lock").unwrap();
    let table = text(&node.command(&["status"]));
    assert!(
        table.contains("Risk:        NoSupervisor: the supervisor does not run"),
        "{table}"
    );
    let shown = node.json(&["status"]);
    assert!(shown["risks"]["NoSupervisor"].is_string(), "{shown}");
    for pod in shown["pods"].as_array().unwrap() {
        assert_eq!(pod["recoverable"], "No", "nothing would bring it back");
    }
    assert_eq!(shown["pods"][1]["reasons"], json!(["NoSupervisor"]));

    let _supervisor = lock(&run.path().join("supervisor.lock")).unwrap();
    let shown = node.json(&["status"]);
    assert_eq!(shown.get("risks"), None);
    let pods: Vec<(&str, &str, &str)> = shown["pods"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| {
            (
                pod["name"].as_str().unwrap(),
                pod["recoverable"].as_str().unwrap(),
                pod["phase"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        pods,
        [
            ("ledger", "No", "Inactive"),
            ("radio", "Yes", "Inactive"),
            ("till", "Yes", "Blocked")
        ]
    );
    assert_eq!(
        shown["pods"][2]["reasons"],
        json!(["ImageAbsent: image till:1 of container app is not on the node"])
    );
    assert_eq!(shown["pods"][2]["markedBy"], "selector app=till");
    assert_eq!(
        shown["pods"][1].get("markedBy"),
        None,
        "the agent has not said what marks it"
    );
    assert_eq!(
        shown["problems"],
        json!(["the disk is slow", "the shelf is full"])
    );
    assert_eq!(
        (
            &shown["supervisor"]["installed"],
            &shown["supervisor"]["running"]
        ),
        (&json!(true), &json!(true))
    );
    assert_eq!(shown["agent"]["running"], true);

    let table = text(&node.command(&["status"]));
    let line = |name: &str| {
        table
            .lines()
            .find(|line| line.contains(name))
            .unwrap()
            .to_owned()
    };
    assert!(
        line("ledger").contains("PersistentVolume: volume books"),
        "{table}"
    );
    assert!(line("radio").contains("MayBeRescheduled"), "{table}");
    assert!(table.contains("Problem:     the disk is slow"), "{table}");
    assert!(line("till").contains("selector app=till"), "{table}");
    assert!(text(&node.command(&["show", "shop/till"])).contains("markedBy: selector app=till"));
    let yaml: Value =
        serde_yaml::from_slice(&node.command(&["status", "-o", "yaml"]).stdout).unwrap();
    // ages go on meanwhile
    let ageless = |pods: &Value| {
        let mut pods = pods.as_array().unwrap().clone();
        for pod in &mut pods {
            pod["capturedAgeSeconds"] = Value::Null;
        }
        pods
    };
    assert_eq!(ageless(&yaml["pods"]), ageless(&shown["pods"]));
}

#[test]
fn show_reveals_no_secret_unless_asked_to() {
    let node = Node::new();
    node.store().put(&checkpoint("till")).unwrap();
    let shown = text(&node.command(&["show", "shop/till"]));
    assert!(
        !shown.contains("tr0ub4dor") && !shown.contains(&encoding::encode(SECRET)),
        "{shown}"
    );
    assert!(
        shown.contains("<13 bytes>") && shown.contains("<9 bytes>"),
        "{shown}"
    );
    let revealed = node.command(&["show", "shop/till", "--reveal"]);
    let is_root = rustix::process::geteuid().is_root();
    assert_eq!(revealed.status.success(), is_root);
    assert_eq!(text(&revealed).contains("tr0ub4dor"), is_root);
    assert_eq!(node.command(&["show", "till"]).status.code(), Some(1));
}

#[test]
fn verify_says_no_to_each_thing_that_is_wrong_and_names_it() {
    type Damage = fn(&Node) -> PathBuf;
    let damages: [(&str, Damage); 9] = [
        ("Damaged", |node| {
            let path = node.path("var/lib/pod-checkpointer/checkpoints/shop_till/0000000001.yaml");
            let text = fs::read_to_string(&path)
                .unwrap()
                .replace("boot-1", "boot-2");
            fs::write(&path, text).unwrap();
            path
        }),
        ("Foreign", |node| {
            let path = node.path("var/lib/pod-checkpointer/checkpoints/shop_till/0000000001.yaml");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            path
        }),
        ("Foreign", |node| {
            let path = node.path("var/lib/pod-checkpointer/checkpoints/README");
            fs::write(&path, "x").unwrap();
            path
        }),
        ("Leftover", |node| {
            let path =
                node.path("var/lib/pod-checkpointer/checkpoints/shop_till/.pod-checkpointer-tmp-x");
            fs::write(&path, "x").unwrap();
            path
        }),
        ("Damaged", |node| {
            let path = node.path("var/lib/pod-checkpointer/node.yaml");
            fs::write(&path, "nodeName: [").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            path
        }),
        ("Permissions", |node| {
            let path = node.path("var/lib/pod-checkpointer/checkpoints");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path
        }),
        ("Link", |node| {
            let path = node.manifest("pod-checkpointer_shop_till.yaml");
            symlink("/run/pod-checkpointer/active/shop_till.yaml", &path).unwrap();
            path
        }),
        ("Foreign", |node| {
            let path = node.manifest("pod-checkpointer_shop_till.yaml");
            symlink("/etc/passwd", &path).unwrap();
            path
        }),
        ("Foreign", |node| {
            let path = node.manifest("pod-checkpointer-supervisor.yaml");
            fs::write(&path, "somebody's").unwrap();
            path
        }),
    ];
    for (kind, damage) in damages {
        let node = Node::new();
        node.store().put(&checkpoint("till")).unwrap();
        let good = node.command(&["verify"]);
        assert_eq!(good.status.code(), Some(0), "{}", text(&good));
        assert!(text(&good).contains("1 good, 0 wrong"), "{}", text(&good));
        let path = damage(&node);
        let path = std::path::Path::new("/").join(path.strip_prefix(node.0.path()).unwrap());
        let found = node.json(&["verify"]);
        let bad = found["bad"].as_array().unwrap();
        assert_eq!(bad.len(), 1, "{kind}: {found}");
        assert_eq!(
            (&bad[0]["kind"], &bad[0]["file"]),
            (&json!(kind), &json!(path)),
            "{found}"
        );
        let no = node.command(&["verify"]);
        assert_eq!(no.status.code(), Some(3), "{}", text(&no));
        assert!(text(&no).contains(path.to_str().unwrap()), "{}", text(&no));
    }
}

impl Node {
    /// A key file on the host.
    fn key(&self, name: &str, byte: u8) -> String {
        let path = self.path(name);
        fs::write(&path, format!("{byte:02x}{}\n", "5a".repeat(31))).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        format!("--key-file=/{name}")
    }

    /// The store, with a key that was made before.
    fn sealed(&self, name: &str) -> Store {
        let keys = KeyFiles::new(
            HostRoot::new(self.0.path()),
            vec![std::path::Path::new("/").join(name)],
        );
        self.store().with_keys(keys)
    }

    fn generation(&self, number: u64) -> PathBuf {
        self.path(&format!(
            "var/lib/pod-checkpointer/checkpoints/shop_till/{number:010}.yaml"
        ))
    }
}

fn kinds(found: &Value) -> Vec<&str> {
    found["bad"]
        .as_array()
        .unwrap()
        .iter()
        .map(|bad| bad["kind"].as_str().unwrap())
        .collect()
}

#[test]
fn verify_repairs_what_it_can_and_says_what_it_did() {
    let node = Node::new();
    let mut newer = checkpoint("till");
    newer.manifest["spec"]["hostNetwork"] = json!(true);
    node.store().put(&checkpoint("till")).unwrap();
    node.store().put(&newer.with_digest()).unwrap();
    let torn = fs::read(node.generation(2)).unwrap();
    fs::write(node.generation(2), &torn[..torn.len() / 2]).unwrap();
    let leftover = node.generation(2).with_file_name(".pod-checkpointer-tmp-x");
    fs::write(&leftover, "x").unwrap();
    let stranger = node.generation(2).with_file_name("notes");
    fs::write(&stranger, "somebody's").unwrap();
    let dangling = node.manifest("pod-checkpointer_shop_till.yaml");
    symlink("/run/pod-checkpointer/active/shop_till.yaml", &dangling).unwrap();
    assert_eq!(
        kinds(&node.json(&["verify"])),
        ["Damaged", "Leftover", "Foreign", "Link"]
    );

    // while an agent runs, files that may be its own stay
    let agent = node.store().lock("agent.lock").unwrap();
    assert_eq!(
        kinds(&node.json(&["verify", "--repair"])),
        ["Leftover", "Foreign"]
    );
    assert!(leftover.exists());
    drop(agent);
    let found = node.json(&["verify", "--repair"]);
    assert_eq!(kinds(&found), ["Foreign"], "{found}");
    assert!(!leftover.exists() && !dangling.is_symlink() && stranger.exists());
    assert!(
        node.generation(2).with_extension("yaml.damaged").exists() && !node.generation(2).exists()
    );
    assert!(text(&node.command(&["status"])).contains("Damaged: 1 set aside"));
    fs::remove_file(stranger).unwrap();
    let whole = node.command(&["verify"]);
    assert_eq!(whole.status.code(), Some(0), "{}", text(&whole));
    assert!(
        text(&whole).contains("0000000002.yaml.damaged"),
        "{}",
        text(&whole)
    );

    fs::write(node.generation(1), "torn").unwrap();
    let found = node.json(&["verify", "--repair"]);
    assert_eq!(kinds(&found), ["NoneLeft"], "{found}");
    assert_eq!(node.command(&["verify"]).status.code(), Some(3));
}

#[test]
fn what_is_sealed_is_shown_with_its_key_alone() {
    let node = Node::new();
    let (one, two) = (node.key("one.key", 1), node.key("two.key", 2));
    node.sealed("one.key").put(&checkpoint("till")).unwrap();
    let before = fs::read(node.generation(1)).unwrap();
    assert!(!String::from_utf8_lossy(&before).contains("tr0ub4dor"));
    assert_eq!(kinds(&node.json(&["verify"])), ["KeyMissing"]);
    assert_eq!(
        kinds(&node.json(&["verify", "--repair", &two])),
        ["KeyWrong"]
    );
    assert_eq!(kinds(&node.json(&["verify", &one])), Vec::<&str>::new());
    assert_eq!(fs::read(node.generation(1)).unwrap(), before);
    let _supervisor = lock(&node.run_dir().path().join("supervisor.lock")).unwrap();
    let unknown = node.json(&["status"]);
    assert_eq!(unknown["pods"][0]["recoverable"], "Unknown");
    assert_eq!(unknown["pods"][0]["captured"], "2026-11-21T10:00:00Z");
    assert_eq!(
        node.json(&["status", &two, &one])["pods"][0]["recoverable"],
        "Yes"
    );
    let refused = node.command(&["show", "shop/till"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text(&refused).contains("no usable key was given"),
        "{}",
        text(&refused)
    );
    assert!(text(&node.command(&["show", "shop/till", &one])).contains("<9 bytes>"));
    fs::set_permissions(node.path("one.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let open = node.json(&["verify", &one]);
    assert_eq!(kinds(&open), ["Key", "KeyMissing"]);
    assert!(
        open["bad"][0]["message"].as_str().unwrap().contains("0644"),
        "{open}"
    );
}

#[test]
fn a_bad_name_in_the_store_keeps_no_other_pod_from_being_shown_and_exported() {
    let node = Node::new();
    let store = node.store();
    store.put(&checkpoint("till")).unwrap();
    fs::write(store.directory().join("checkpoints/aaa_file"), "").unwrap();
    let status = node.command(&["status"]);
    assert_eq!(status.status.code(), Some(0), "{}", text(&status));
    assert!(
        text(&status).contains("till") && text(&status).contains("checkpoints/aaa_file"),
        "{}",
        text(&status)
    );
    let exported = node.command(&["export", "-", "--plain"]);
    let said = String::from_utf8_lossy(&exported.stderr);
    assert_eq!(exported.status.code(), Some(3), "{said}");
    assert!(
        said.contains("checkpoints/aaa_file") && said.contains("exported 1 generations of 1 pods"),
        "{said}"
    );
}

#[test]
fn an_exported_node_seeds_another_and_nothing_newer_is_written_over() {
    let (old, new) = (Node::new(), Node::new());
    let (one, two) = (old.key("one.key", 1), new.key("two.key", 2));
    let transfer = old.key("transfer.key", 3);
    new.key("transfer.key", 3);
    for name in ["till", "radio"] {
        old.sealed("one.key").put(&checkpoint(name)).unwrap();
    }
    let file = old.path("node.export");
    let file = file.to_str().unwrap();
    let refused = old.command(&["export", file]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(text(&refused).contains("--plain") && !old.path("node.export").exists());
    let exported = old.command(&["export", file, &transfer, &one]);
    assert_eq!(exported.status.code(), Some(0), "{}", text(&exported));
    assert_eq!(
        fs::metadata(file).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    assert!(!String::from_utf8_lossy(&fs::read(file).unwrap()).contains("till"));

    let before = new.files();
    let wrong = new.command(&["import", file, &two]);
    assert_eq!(wrong.status.code(), Some(1), "{}", text(&wrong));
    let whole = fs::read(file).unwrap();
    fs::write(file, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(
        new.command(&["import", file, &two, &transfer])
            .status
            .code(),
        Some(1)
    );
    fs::write(file, &whole).unwrap();
    assert_eq!(
        new.files(),
        before,
        "nothing is written before all is verified"
    );
    for times in 0..2 {
        let imported = new.command(&["import", file, &two, &transfer]);
        assert_eq!(imported.status.code(), Some(0), "{}", text(&imported));
        assert!(
            text(&imported).contains(if times == 0 {
                "imported 2"
            } else {
                "imported 0"
            }),
            "{}",
            text(&imported)
        );
    }
    let newest = new
        .sealed("two.key")
        .newest(&id("shop_till"))
        .unwrap()
        .0
        .unwrap();
    assert_eq!(
        (newest.number, newest.checkpoint.manifest.clone()),
        (1, checkpoint("till").manifest.clone())
    );
    assert_eq!(new.command(&["verify", &two]).status.code(), Some(0));

    let mut newer = checkpoint("radio");
    newer.manifest["spec"]["hostNetwork"] = json!(true);
    let busy = Node::new();
    busy.store().put(&newer.with_digest()).unwrap();
    busy.key("transfer.key", 3);
    let before = busy.files();
    let refused = busy.command(&["import", file, &transfer, "--plain"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text(&refused).contains("shop/radio") && !text(&refused).contains("shop/till"),
        "{}",
        text(&refused)
    );
    assert_eq!(busy.files(), before, "all or nothing");

    // plain, through pipes
    let plain = old.command(&["export", "-", "--plain", &one]);
    let mut import = Command::new(env!("CARGO_BIN_EXE_pod-checkpointer"));
    let third = Node::new();
    import
        .args([
            "import",
            "-",
            "--manifest-dir",
            "/etc/kubernetes/manifests",
            "--host-root",
        ])
        .arg(third.0.path());
    let mut import = import
        .env_clear()
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut import.stdin.take().unwrap(), &plain.stdout).unwrap();
    assert!(import.wait().unwrap().success());
    assert_eq!(
        third.store().keys().unwrap(),
        [id("shop_radio"), id("shop_till")]
    );
}

#[test]
fn uninstall_leaves_the_node_as_it_was_and_can_be_run_again() {
    let node = Node::new();
    let before = node.files();
    node.store().put(&checkpoint("till")).unwrap();
    node.run_dir()
        .write(AGENT, &AgentReport::default())
        .unwrap();
    node.install();
    let dangling = node.manifest("pod-checkpointer_shop_till.yaml");
    symlink("/run/pod-checkpointer/active/shop_till.yaml", &dangling).unwrap();
    fs::write(node.manifest(".pod-checkpointer-tmp-x"), "x").unwrap();
    for _ in 0..2 {
        let output = node.command(&["uninstall"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        assert_eq!(node.files(), before);
    }
}

#[test]
fn a_reader_that_is_gone_stops_no_command() {
    let node = Node::new();
    let run = |arguments: &[&str]| {
        let closed = || std::io::pipe().unwrap().1;
        Command::new(env!("CARGO_BIN_EXE_pod-checkpointer"))
            .args(arguments)
            .arg("--host-root")
            .arg(node.0.path())
            .args(["--manifest-dir", "/etc/kubernetes/manifests"])
            .env_clear()
            .stdout(closed())
            .stderr(closed())
            .status()
            .unwrap()
            .code()
    };
    node.store().put(&checkpoint("till")).unwrap();
    node.run_dir();
    node.install();
    for arguments in [&["status"][..], &["verify"], &["show", "shop/till"]] {
        assert_eq!(run(arguments), Some(0), "{arguments:?}");
    }
    assert_eq!(run(&["show", "shop/none"]), Some(1));
    assert_eq!(run(&["export", "/nowhere/file", "--plain"]), Some(1));
    assert_eq!(run(&["uninstall"]), Some(0));
    assert!(!node.path("var/lib/pod-checkpointer").exists());
    assert!(!node.path("run/pod-checkpointer").exists());
}

#[test]
fn uninstall_refuses_while_an_agent_or_a_twin_runs() {
    let node = Node::new();
    node.store().put(&checkpoint("till")).unwrap();
    let manifest = node.install();
    let agent = node.store().lock("agent.lock").unwrap();
    let output = node.command(&["uninstall"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("delete the DaemonSet first"),
        "{}",
        text(&output)
    );
    drop(agent);
    let link = node.link("shop_till");
    let output = node.command(&["uninstall"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("shop/till"), "{}", text(&output));
    assert!(
        manifest.exists() && link.is_symlink(),
        "nothing was changed"
    );
    let output = node.command(&["uninstall", "--force"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(!manifest.exists() && !link.is_symlink());
}

#[test]
fn uninstall_waits_for_the_supervisor_to_end() {
    let node = Node::new();
    node.install();
    let held = lock(&{
        node.run_dir();
        node.path("run/pod-checkpointer/supervisor.lock")
    })
    .unwrap();
    let manifest = node.manifest("pod-checkpointer-supervisor.yaml");
    std::thread::scope(|scope| {
        let command = scope.spawn(|| node.command(&["uninstall"]));
        while manifest.exists() {
            std::thread::yield_now();
        }
        assert!(
            node.path("run/pod-checkpointer").exists(),
            "a supervisor that runs keeps its directory"
        );
        drop(held);
        let output = command.join().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    });
    assert!(!node.path("run/pod-checkpointer").exists());
}

#[test]
fn uninstall_does_not_touch_files_of_others() {
    let node = Node::new();
    node.store().put(&checkpoint("till")).unwrap();
    fs::write(node.path("var/lib/pod-checkpointer/notes"), "mine").unwrap();
    let foreign = node.manifest("pod-checkpointer_shop_till.yaml");
    fs::write(&foreign, "kind: Pod").unwrap();
    let output = node.command(&["uninstall"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(foreign.exists() && node.path("var/lib/pod-checkpointer/notes").exists());
    assert!(!node.path("var/lib/pod-checkpointer/checkpoints").exists());
    assert_eq!(
        text(&output)
            .matches("does not belong to pod-checkpointer")
            .count(),
        2,
        "{}",
        text(&output)
    );
}

#[test]
fn manifests_prints_an_installation_with_the_settings_that_it_is_given_or_says_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("settings.yaml");
    let printed = |spec: &str, flags: &[&str]| {
        let text = format!(
            "apiVersion: podcheckpointer.io/v1alpha1\nkind: PodCheckpointer\nspec: {spec}\n"
        );
        fs::write(&path, text).unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_pod-checkpointer"));
        program
            .args(["manifests", "--image", "shop/own:1", "-f"])
            .arg(&path)
            .args(flags)
            .output()
            .unwrap()
    };
    let kinds = |output: &Output| -> Vec<String> {
        let text = text(output);
        text.lines()
            .filter_map(|line| line.strip_prefix("kind: "))
            .map(str::to_owned)
            .collect()
    };
    let all = printed("{retention: 5m}", &[]);
    assert_eq!(
        kinds(&all),
        [
            "CustomResourceDefinition",
            "CustomResourceDefinition",
            "Namespace",
            "ServiceAccount",
            "ClusterRole",
            "ClusterRoleBinding",
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding",
            "DaemonSet",
            "Service",
        ]
    );
    assert!(
        text(&all).contains("- --retention=5m\n") && text(&all).contains("image: shop/own:1\n")
    );
    assert_eq!(kinds(&printed("{}", &["--skip-crds"]))[0], "Namespace");
    for (spec, hint) in [
        ("{retenton: 5m}", "spec.retenton"),
        ("{retention: soon}", "--retention"),
    ] {
        let output = printed(spec, &[]);
        assert_eq!(
            (output.status.code(), output.stdout.len()),
            (Some(1), 0),
            "nothing that could be applied by a pipe"
        );
        assert!(text(&output).contains(hint), "{}", text(&output));
    }
}

#[test]
fn crd_prints_what_it_writes() {
    let directory = tempfile::tempdir().unwrap();
    let program = || Command::new(env!("CARGO_BIN_EXE_pod-checkpointer"));
    let printed = program().arg("crd").output().unwrap();
    let written = program()
        .args(["crd", "--directory"])
        .arg(directory.path())
        .status()
        .unwrap();
    assert!(written.success());
    let file = |kind: &str| {
        fs::read_to_string(
            directory
                .path()
                .join(format!("{kind}.podcheckpointer.io.yaml")),
        )
        .unwrap()
    };
    let (file, other) = (file("podcheckpoints"), file("podcheckpointers"));
    assert_eq!(text(&printed), format!("{file}---\n{other}"));
    let crd: Value = serde_yaml::from_str(&file).unwrap();
    assert_eq!(crd["spec"]["names"]["shortNames"], json!(["pckpt"]));
    assert_eq!(
        crd["spec"]["versions"][0]["subresources"],
        json!({"status": {}})
    );
}

#[test]
fn wrong_usage_ends_with_2_and_a_failure_with_1() {
    let program = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_pod-checkpointer"))
            .args(arguments)
            .env_clear()
            .output()
            .unwrap()
    };
    for arguments in [
        &["status", "--output", "xml"][..],
        &["agent", "--retention", "long"],
        &["show"],
        &[],
    ] {
        assert_eq!(program(arguments).status.code(), Some(2), "{arguments:?}");
    }
    let output = program(&[
        "agent",
        "--kubeconfig",
        "/nowhere/kubeconfig",
        "--node-name",
        "node-1",
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("/nowhere/kubeconfig"),
        "{}",
        text(&output)
    );
    let output = program(&["agent", "--node-name", "node-1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("how to reach the API server"),
        "{}",
        text(&output)
    );
    assert_eq!(
        text(&output).lines().count(),
        1,
        "said once: {}",
        text(&output)
    );
}

#[test]
fn uninstall_removes_what_a_killed_drill_left_and_waits_for_one_that_runs() {
    let node = Node::new();
    let run = node.run_dir();
    fs::create_dir_all(run.path().join("drill/shop_till")).unwrap();
    fs::write(run.path().join("drill/shop_till/pod.yaml"), "{}").unwrap();
    run.write("drill.yaml", &json!({"until": 0, "cut": []}))
        .unwrap();
    let link = node.manifest("pod-checkpointer-drill_shop_till.yaml");
    symlink("/run/pod-checkpointer/drill/shop_till/pod.yaml", &link).unwrap();
    let running = lock(&run.path().join("drill.lock")).unwrap();
    let output = node.command(&["uninstall"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("a drill runs on this node") && link.is_symlink(),
        "{}",
        text(&output)
    );
    drop(running);
    let output = node.command(&["uninstall"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(!link.is_symlink() && !run.path().exists());
}
