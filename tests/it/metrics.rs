//! What the parts export over HTTP, and that no client can block them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::id;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use fs2::FileExt as _;
use pod_checkpointer::agent::Settings;
use pod_checkpointer::args::SupervisorArguments;
use pod_checkpointer::metrics::address::Address;
use pod_checkpointer::names::SUPERVISOR_LOCK;
use pod_checkpointer::node::contact::Class;
use pod_checkpointer::operator;
use pod_checkpointer::places::reports::{
    ContactReport, Counts, OUTAGES, Outages, Phase, PodReport, STATUS, Status,
};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::operator::{DAEMON_SET, SETTINGS, count, settings, wanted, with_settings};
use crate::stub::api::{Api, Mood};
use crate::stub::node::story;
use crate::stub::{Mode, Node, PATIENCE, Part, until};
use crate::supervisor::{TILL, checkpoint, parent};

/// An address that no other test has: every 127.x.y.z is this machine, and this process has one for
/// each of its tests.
fn free() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., second, last] = id().to_be_bytes();
    let ip = IpAddr::V4(Ipv4Addr::new(
        127,
        second.max(1),
        last,
        NEXT.fetch_add(1, Ordering::Relaxed),
    ));
    std::net::TcpListener::bind((ip, 0))
        .unwrap()
        .local_addr()
        .unwrap()
}

/// Sends this and reads all that is answered, until the server closes.
async fn exchange(address: SocketAddr, request: &str) -> String {
    let whole = async {
        // the part may have been started a moment ago
        let mut stream = loop {
            match TcpStream::connect(address).await {
                Ok(stream) => break stream,
                Err(_) => sleep(Duration::from_millis(5)).await,
            }
        };
        let mut answer = Vec::new();
        // a server that has seen enough may close before it has all
        let _ = stream.write_all(request.as_bytes()).await;
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    };
    let answer = timeout(PATIENCE, whole).await;
    answer.unwrap_or_else(|_| {
        panic!(
            "no answer to {:?}",
            request.chars().take(60).collect::<String>()
        )
    })
}

/// Status and body.
async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let answer = exchange(
        address,
        &format!("GET {path} HTTP/1.1\r\nHost: node\r\n\r\n"),
    )
    .await;
    let (head, body) = answer.split_once("\r\n\r\n").expect(&answer);
    (
        head.split(' ').nth(1).unwrap().parse().unwrap(),
        body.to_owned(),
    )
}

/// The value of a series, given without the program's prefix.
async fn value(address: SocketAddr, series: &str) -> Option<f64> {
    let (status, page) = get(address, "/metrics").await;
    assert_eq!(status, 200, "{page}");
    let line = page.lines().find_map(|line| {
        line.strip_prefix("pod_checkpointer_")?
            .strip_prefix(series)?
            .strip_prefix(' ')
    });
    line.map(|value| value.parse().unwrap())
}

async fn becomes(address: SocketAddr, series: &str, expected: f64) {
    let mut last = None;
    let wait = async {
        loop {
            last = value(address, series).await;
            if last == Some(expected) {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let came = timeout(PATIENCE, wait).await.is_ok();
    assert!(came, "{series} is {last:?} and not {expected}");
}

async fn all_are(address: SocketAddr, expected: &[(&str, f64)]) {
    for (series, expected) in expected {
        assert_eq!(value(address, series).await, Some(*expected), "{series}");
    }
}

fn supervise(node: &Node, address: SocketAddr) -> Part {
    Part::supervisor(SupervisorArguments {
        metrics_address: Address::At(address),
        ..node.arguments()
    })
}

fn served(node: &Node, address: SocketAddr) -> Settings {
    node.settings_with(|flags| flags.metrics_address = Address::At(address))
}

#[test]
fn an_outage_is_counted_from_its_activations_to_its_hand_over_and_through_a_restart() {
    story(async {
        let mut other = checkpoint("other");
        other.images.get_mut("app").unwrap().name = "registry.example/absent:v1".into();
        let node = Node::rebooted_with(&[other.with_digest(), checkpoint("till")]).await;
        let address = free();
        let supervisor = supervise(&node, address);
        let twin = node.serves(TILL).await;
        node.is_told("shop_other", Phase::Blocked, Some("ImageAbsent"))
            .await;
        becomes(address, "activation_seconds_count", 1.0).await;
        all_are(
            address,
            &[
                ("checkpoints{phase=\"Active\"}", 1.0),
                ("checkpoints{phase=\"Blocked\"}", 1.0),
                ("api_contact", 0.0),
                ("outages_total", 1.0),
                ("activations_total{result=\"Activated\"}", 1.0),
                ("activations_total{result=\"Damaged\"}", 0.0),
                ("takeover_seconds_count", 0.0),
            ],
        )
        .await;
        assert!(
            value(address, "activations_total{result=\"ImageAbsent\"}")
                .await
                .unwrap()
                >= 1.0
        );
        assert!(value(address, "api_silence_seconds").await.unwrap() > 0.0);
        assert!(value(address, "pass_age_seconds").await.unwrap() < 10.0);
        let (_, page) = get(address, "/metrics").await;
        assert!(
            !["shop", "till", "registry.example", "s3cret"]
                .iter()
                .any(|word| page.contains(word)),
            "{page}"
        );

        supervisor.kill().await;
        let supervisor = supervise(&node, address);
        node.server.set(Mode::Status(200)).await;
        node.is_told(TILL, Phase::Released, None).await;
        node.kubelet.settle().await;
        node.kubelet.sync_api(&[parent("till")]);
        until(&node.runtime.state, |state| state.is_running("parent-till")).await;
        becomes(address, "takeover_seconds_count", 1.0).await;
        node.agent_says_ready("till");
        node.is_handed_over("till", &twin).await;
        becomes(address, "overlap_seconds_count", 1.0).await;
        all_are(
            address,
            &[
                ("checkpoints{phase=\"Active\"}", 0.0),
                ("checkpoints{phase=\"Inactive\"}", 2.0),
                ("api_contact", 1.0),
                ("api_silence_seconds", 0.0),
                ("outages_total", 1.0),
                ("activations_total{result=\"Activated\"}", 1.0),
                ("activation_seconds_count", 1.0),
            ],
        )
        .await;
        assert_eq!(get(address, "/healthz").await, (200, "ok\n".into()));
        assert_eq!(get(address, "/readyz").await, (200, "ok\n".into()));
        supervisor.end().await;
    });
}

#[tokio::test]
async fn captures_refusals_and_errors_of_the_store_are_counted() {
    let node = Node::start();
    let in_the_way = node.path("var/lib/pod-checkpointer/checkpoints/shop_blocked");
    node.api.put_pod(node.run_pod("till", "uid-1"));
    let mut refused = node.run_pod("refused", "uid-2");
    refused["spec"]["volumes"] =
        json!([{"name": "prices", "persistentVolumeClaim": {"claimName": "prices"}}]);
    node.api.put_pod(refused);
    let address = free();
    node.with_agent(served(&node, address), async {
        node.captured("till", 1).await;
        node.swap("uid-1", "2");
        node.captured("till", 2).await;
        becomes(address, "recoverable{reason=\"PersistentVolume\"}", 1.0).await;
        all_are(
            address,
            &[
                ("captures_total{result=\"Stored\"}", 2.0),
                ("captures_total{result=\"Refused\"}", 1.0),
                ("captures_total{result=\"Failed\"}", 0.0),
                ("capture_seconds_count", 2.0),
                ("recoverable{reason=\"Recoverable\"}", 1.0),
                ("store_errors_total{kind=\"StoreFailed\"}", 0.0),
                ("checkpoints{phase=\"Inactive\"}", 1.0),
                ("supervisor_up", 0.0),
            ],
        )
        .await;
        assert!(value(address, "checkpoint_age_seconds").await.unwrap() < 60.0);
        assert_eq!(get(address, "/readyz").await, (200, "ok\n".into()));

        std::fs::write(&in_the_way, "a file").unwrap();
        node.api.put_pod(node.run_pod("blocked", "uid-3"));
        node.api
            .until_condition("shop", "blocked", "Captured", "False", "StoreFailed")
            .await;
        assert!(
            value(address, "store_errors_total{kind=\"StoreFailed\"}")
                .await
                .unwrap()
                >= 1.0
        );
        assert!(
            value(address, "captures_total{result=\"Failed\"}")
                .await
                .unwrap()
                >= 1.0
        );
        let hindrance = "store: checkpoints cannot be written (StoreFailed)\n".to_owned();
        assert_eq!(get(address, "/readyz").await, (503, hindrance));
        assert_eq!(get(address, "/healthz").await.0, 200);

        std::fs::remove_file(&in_the_way).unwrap();
        node.captured("blocked", 1).await;
        assert_eq!(get(address, "/readyz").await.0, 200);
        let (_, page) = get(address, "/metrics").await;
        assert!(
            !["shop", "till", "uid-1"]
                .iter()
                .any(|word| page.contains(word)),
            "{page}"
        );
    })
    .await;
}

#[tokio::test]
async fn an_agent_is_not_ready_before_the_first_list_and_lives_all_the_same() {
    let node = Node::start();
    node.api.change(|state| state.mood = Mood::Silent);
    node.api.put_pod(node.run_pod("till", "uid-1"));
    let address = free();
    node.with_agent(served(&node, address), async {
        assert_eq!(
            get(address, "/readyz").await,
            (
                503,
                "pods: the first list has not been worked through yet\n".into()
            )
        );
        assert_eq!(get(address, "/healthz").await, (200, "ok\n".into()));
    })
    .await;
}

#[tokio::test]
async fn an_agent_exports_the_record_of_a_supervisor_and_its_contact_only_while_that_runs() {
    let node = Node::start();
    let address = free();
    let contact = ContactReport {
        class: Class::Silent,
        since: 1,
    };
    let pod = PodReport {
        phase: Phase::Released,
        ..PodReport::default()
    };
    let status = Status {
        contact: Some(contact),
        problems: vec!["one".into(), "two".into()],
        pods: vec![pod.clone(), pod],
        ..Status::default()
    };
    let mut counts = Counts {
        outages: 3,
        unstuck: 2,
        ..Counts::default()
    };
    counts.activations = [("Activated".to_owned(), 5), ("till".to_owned(), 7)].into();
    counts.takeover.add(1500);
    node.with_agent(served(&node, address), async {
        assert_eq!(get(address, "/healthz").await.0, 200);
        let run = node.run_dir();
        let lock = std::fs::File::create(run.path().join(SUPERVISOR_LOCK)).unwrap();
        lock.try_lock_exclusive().unwrap();
        run.write(
            OUTAGES,
            &Outages {
                counts,
                ..Outages::default()
            },
        )
        .unwrap();
        run.write(STATUS, &status).unwrap();
        becomes(address, "checkpoints{phase=\"Released\"}", 2.0).await;
        becomes(address, "outages_total", 3.0).await;
        all_are(
            address,
            &[
                ("supervisor_up", 1.0),
                ("problems{part=\"supervisor\"}", 2.0),
                ("api_contact", 0.0),
                ("activations_total{result=\"Activated\"}", 5.0),
                ("kubelet_unstuck_total", 2.0),
                ("takeover_seconds_sum", 1.5),
                ("takeover_seconds_bucket{le=\"1\"}", 0.0),
                ("takeover_seconds_bucket{le=\"2.5\"}", 1.0),
            ],
        )
        .await;
        assert!(value(address, "api_silence_seconds").await.unwrap() > 1.0);
        let (_, page) = get(address, "/metrics").await;
        assert!(
            !page.contains("\"till\""),
            "a label of no closed set: {page}"
        );
        drop(lock);
        all_are(address, &[("supervisor_up", 0.0), ("outages_total", 3.0)]).await;
        assert_eq!(value(address, "api_contact").await, None, "nobody asks");
    })
    .await;
}

#[test]
fn whatever_clients_do_a_scrape_is_answered_and_recovery_goes_on() {
    story(async {
        let node = Node::rebooted_with(&[checkpoint("till")]).await;
        let address = free();
        let supervisor = supervise(&node, address);
        assert_eq!(get(address, "/healthz").await.0, 200);

        let mut slow = Vec::new();
        for _ in 0..100 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream
                .write_all(b"GET /metrics HTTP/1.1\r\nX-Slow: ")
                .await
                .unwrap();
            slow.push(stream);
        }
        assert_eq!(
            get(address, "/metrics").await.0,
            200,
            "a hundred clients wait"
        );
        let huge = format!(
            "GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n",
            "a".repeat(1 << 20)
        );
        assert!(!exchange(address, &huge).await.starts_with("HTTP/1.1 200"));
        let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(500));
        assert!(!exchange(address, &many).await.starts_with("HTTP/1.1 200"));
        assert!(
            !exchange(address, "\0\u{1}nonsense\r\n\r\n")
                .await
                .starts_with("HTTP/1.1 200")
        );

        let posted = exchange(
            address,
            "POST /metrics HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n",
        )
        .await;
        assert!(
            posted.starts_with("HTTP/1.1 405 ") && posted.contains("allow: GET, HEAD\r\n"),
            "{posted}"
        );
        let head = exchange(address, "HEAD /healthz HTTP/1.1\r\n\r\n").await;
        assert!(
            head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"),
            "{head}"
        );
        assert_eq!(get(address, "/").await.0, 404);
        assert_eq!(get(address, "/metrics/../secret").await.0, 404);
        let metrics = exchange(address, "GET /metrics?x=y HTTP/1.1\r\n\r\n").await;
        assert!(
            metrics.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
            "{metrics}"
        );

        // those that only wait are let go
        let mut last = slow.pop().unwrap();
        let mut rest = Vec::new();
        let ended = timeout(PATIENCE, last.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "a slow client is kept for ever");
        node.serves(TILL).await;
        supervisor.end().await;
    });
}

#[test]
fn a_taken_port_hinders_nothing_and_is_taken_when_it_is_free() {
    story(async {
        let node = Node::rebooted_with(&[checkpoint("till")]).await;
        let address = free();
        let other = std::net::TcpListener::bind(address).unwrap();
        let supervisor = supervise(&node, address);
        node.serves(TILL).await;
        assert!(!supervisor.has_ended());
        drop(other);
        becomes(address, "outages_total", 1.0).await;
        supervisor.end().await;
    });
}

#[tokio::test]
async fn the_leading_operator_exports_what_it_shows_and_what_it_did() {
    let (cluster, address) = (Api::default(), free());
    cluster.put(SETTINGS, wanted(&json!({})));
    let settings = operator::Settings {
        metrics_address: Address::At(address),
        ..settings("one")
    };
    with_settings(&cluster, settings, async {
        becomes(address, "operator_condition{type=\"Applied\"}", 1.0).await;
        let of_now = [
            ("operator_leads", 1.0),
            ("operator_applies_total{result=\"Applied\"}", 1.0),
            ("operator_applies_total{result=\"Refused\"}", 0.0),
            ("operator_repairs_total{kind=\"DaemonSet\"}", 0.0),
        ];
        all_are(address, &of_now).await;
        assert_eq!(
            value(address, "operator_nodes{state=\"ready\"}").await,
            None,
            "nobody has counted yet"
        );
        count(&cluster, 3, 2);
        becomes(address, "operator_nodes{state=\"ready\"}", 2.0).await;
        cluster.delete(DAEMON_SET);
        becomes(address, "operator_repairs_total{kind=\"DaemonSet\"}", 1.0).await;
        becomes(address, "operator_applies_total{result=\"Applied\"}", 2.0).await;
        cluster.delete(SETTINGS);
        // its finalizer is removed at the end of all
        becomes(address, "operator_condition{type=\"Applied\"}", 0.0).await;
        assert_eq!(get(address, "/readyz").await.0, 200);
    })
    .await;
}
