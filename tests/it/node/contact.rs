//! What a probe of the API server sees.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use pod_checkpointer::node::contact::Outcome;
use pod_checkpointer::node::host::HostRoot;
use pod_checkpointer::node::kubelet::Server;
use pod_checkpointer::node::probe::Prober;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::names::host;
use crate::stub::{Mode, PATIENCE, ProbeServer, until};

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn every_status_of_a_proven_server_is_its_answer() {
    let api = ProbeServer::start();
    let prober = api.prober(PATIENCE);
    for status in [200, 401, 403, 429, 500, 503] {
        api.set(Mode::Status(status)).await;
        assert_eq!(prober.probe().await, Outcome::Status(status));
    }
}

#[tokio::test]
async fn what_says_no_is_refused_and_does_not_take_the_limit() {
    let api = ProbeServer::start();
    let prober = api.prober(PATIENCE);
    for mode in [Mode::Refuse, Mode::Close] {
        api.set(mode).await;
        let began = Instant::now();
        assert_eq!(prober.probe().await, Outcome::Refused, "{mode:?}");
        assert!(began.elapsed() < PATIENCE / 2);
    }
}

#[tokio::test]
async fn what_hangs_is_timed_out_wherever_it_hangs() {
    let api = ProbeServer::start();
    let prober = api.prober(SHORT);
    for mode in [Mode::Hang, Mode::HangBeforeTls] {
        api.set(mode).await;
        let began = Instant::now();
        assert_eq!(prober.probe().await, Outcome::TimedOut, "{mode:?}");
        assert!(began.elapsed() < PATIENCE / 2);
    }
}

#[tokio::test]
async fn what_answers_without_proof_is_unproven() {
    let api = ProbeServer::start();
    let prober = api.prober(PATIENCE);
    for mode in [
        Mode::Foreign,
        Mode::Expired,
        Mode::NotYetValid,
        Mode::Misnamed,
        Mode::Plain,
    ] {
        api.set(mode).await;
        assert_eq!(prober.probe().await, Outcome::Unproven, "{mode:?}");
    }
    api.set(Mode::Status(200)).await;
    assert_eq!(prober.probe().await, Outcome::Status(200));
}

#[tokio::test]
async fn a_probe_carries_no_credential_and_says_who_asks() {
    let api = ProbeServer::start();
    assert_eq!(api.prober(PATIENCE).probe().await, Outcome::Status(200));
    let requests = api.state.borrow().requests.clone();
    let [(method, path, agent, has_credential)] = requests.as_slice() else {
        unreachable!("{requests:?}")
    };
    assert_eq!(
        (method.as_str(), path.as_str(), *has_credential),
        ("GET", "/livez", false)
    );
    assert!(agent.starts_with("pod-checkpointer/"));
}

#[tokio::test]
async fn a_connection_that_answered_is_used_again() {
    let api = ProbeServer::start();
    let prober = api.prober(PATIENCE);
    for status in [200, 500, 200] {
        api.state
            .send_modify(|state| state.mode = Mode::Status(status));
        assert_eq!(prober.probe().await, Outcome::Status(status));
    }
    assert_eq!(api.state.borrow().connections, 1);
}

#[tokio::test]
async fn an_idle_connection_that_the_server_closed_is_replaced_and_says_nothing() {
    let api = ProbeServer::start();
    let prober = api.prober(PATIENCE);
    assert_eq!(prober.probe().await, Outcome::Status(200));
    // Ends every connection, and listens again.
    api.set(Mode::Refuse).await;
    api.set(Mode::Status(200)).await;
    assert_eq!(prober.probe().await, Outcome::Status(200));
}

#[tokio::test]
async fn a_connection_that_hung_is_not_used_again() {
    let api = ProbeServer::start();
    let prober = api.prober(SHORT);
    assert_eq!(prober.probe().await, Outcome::Status(200));
    let before = api.state.borrow().connections;
    api.state.send_modify(|state| state.mode = Mode::Hang);
    assert_eq!(prober.probe().await, Outcome::TimedOut);
    api.state
        .send_modify(|state| state.mode = Mode::Status(200));
    assert_eq!(prober.probe().await, Outcome::Status(200));
    assert_eq!(api.state.borrow().connections, before + 1);
}

#[tokio::test]
async fn an_answer_that_ends_the_connection_counts() {
    let api = ProbeServer::start();
    api.state.send_modify(|state| state.closes = true);
    let prober = api.prober(PATIENCE);
    for _ in 0..3 {
        assert_eq!(prober.probe().await, Outcome::Status(200));
    }
    assert_eq!(api.state.borrow().connections, 3);
}

#[tokio::test]
async fn an_endless_body_costs_the_connection_and_not_the_answer() {
    let api = ProbeServer::start();
    api.state.send_modify(|state| state.body = 4 * 1024 * 1024);
    let prober = api.prober(PATIENCE);
    assert_eq!(prober.probe().await, Outcome::Status(200));
    assert_eq!(prober.probe().await, Outcome::Status(200));
    assert_eq!(api.state.borrow().connections, 2);
}

#[tokio::test]
async fn probes_may_overlap() {
    let api = ProbeServer::start();
    let prober = api.prober(PATIENCE);
    api.state.send_modify(|state| state.mode = Mode::Hang);
    let first = tokio::spawn({
        let prober = prober.clone();
        async move { prober.probe().await }
    });
    until(&api.state, |state| state.requests.len() == 1).await;
    let second = tokio::spawn(async move { prober.probe().await });
    until(&api.state, |state| state.requests.len() == 2).await;
    api.state
        .send_modify(|state| state.mode = Mode::Status(200));
    assert_eq!(
        (first.await.unwrap(), second.await.unwrap()),
        (Outcome::Status(200), Outcome::Status(200))
    );
}

#[tokio::test]
async fn the_path_of_the_servers_url_is_kept() {
    let api = ProbeServer::start();
    let url = format!("{}/k8s/clusters/one/", api.server().url);
    let prober = Prober::new(
        Server {
            url,
            ..api.server()
        },
        HostRoot::new("/"),
        PATIENCE,
    )
    .unwrap();
    assert_eq!(prober.probe().await, Outcome::Status(404));
    assert_eq!(api.state.borrow().requests[0].1, "/k8s/clusters/one/livez");
}

fn named(api: &ProbeServer, hosts: &str, limit: Duration) -> (tempfile::TempDir, Prober) {
    let directory = host(hosts, "");
    let server = Server {
        url: format!("https://api.example:{}", api.address.port()),
        ..api.server()
    };
    let prober = Prober::new(server, HostRoot::new(directory.path()), limit).unwrap();
    (directory, prober)
}

#[tokio::test]
async fn every_address_of_a_name_is_tried_and_the_one_that_answers_goes_first() {
    let api = ProbeServer::start();
    // Nothing listens at the first, and the second accepts connections and sends nothing.
    let dead = Ipv4Addr::new(127, 0, 0, 2);
    let _mute = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 3), api.address.port()))
        .await
        .unwrap();
    let (_directory, prober) = named(
        &api,
        "127.0.0.2 api.example\n127.0.0.3 api.example\n127.0.0.1 api.example\n",
        SHORT * 5,
    );
    assert_eq!(prober.addresses(), []);
    assert_eq!(prober.probe().await, Outcome::Status(200));
    let addresses = prober.addresses();
    assert_eq!(addresses.len(), 3);
    assert_eq!(addresses[0], api.address);
    assert!(addresses.contains(&SocketAddr::from((dead, api.address.port()))));
}

#[tokio::test]
async fn of_several_addresses_a_hang_counts_more_than_a_refusal() {
    let api = ProbeServer::start();
    api.set(Mode::HangBeforeTls).await;
    let (_directory, prober) = named(
        &api,
        "127.0.0.1 api.example\n127.0.0.2 api.example\n",
        SHORT,
    );
    assert_eq!(prober.probe().await, Outcome::TimedOut);
}

#[tokio::test]
async fn the_servers_tls_name_is_what_its_certificate_must_be_for() {
    let api = ProbeServer::start();
    for (name, outcome) in [
        ("api.example", Outcome::Status(200)),
        ("elsewhere.example", Outcome::Unproven),
    ] {
        let server = Server {
            tls_name: Some(name.into()),
            ..api.server()
        };
        assert_eq!(
            Prober::new(server, HostRoot::new("/"), PATIENCE)
                .unwrap()
                .probe()
                .await,
            outcome,
            "{name}"
        );
    }
}

/// A proxy for one tunnel, and the request that it was asked with.
async fn proxy(answer: &'static str) -> (SocketAddr, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let target = head.split(' ').nth(1).unwrap().to_owned();
        client.write_all(answer.as_bytes()).await.unwrap();
        if answer.contains(" 200 ") {
            let mut server = TcpStream::connect(target).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        }
        head
    });
    (address, task)
}

#[tokio::test]
async fn a_proxy_is_asked_for_a_tunnel_with_its_credential() {
    let api = ProbeServer::start();
    let (address, task) = proxy("HTTP/1.1 200 Connection established\r\n\r\n").await;
    let server = Server {
        proxy: Some(format!("http://user:p%61ss@{address}")),
        ..api.server()
    };
    let prober = Prober::new(server, HostRoot::new("/"), PATIENCE).unwrap();
    assert_eq!(prober.probe().await, Outcome::Status(200));
    assert_eq!(prober.addresses(), [address]);
    drop(prober);
    let head = task.await.unwrap();
    assert!(
        head.starts_with(&format!("CONNECT {} HTTP/1.1\r\n", api.address)),
        "{head}"
    );
    assert!(
        head.contains("\r\nProxy-Authorization: Basic dXNlcjpwYXNz\r\n"),
        "{head}"
    );
}

#[tokio::test]
async fn a_proxy_that_finds_no_server_is_a_refusal() {
    let api = ProbeServer::start();
    let (address, _task) = proxy("HTTP/1.1 502 Bad Gateway\r\n\r\n").await;
    let server = Server {
        proxy: Some(format!("http://{address}")),
        ..api.server()
    };
    assert_eq!(
        Prober::new(server, HostRoot::new("/"), PATIENCE)
            .unwrap()
            .probe()
            .await,
        Outcome::Refused
    );
}
