//! Names: the host's files, and name servers that answer, refuse and hang; and the agent's client
//! that uses them.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use pod_checkpointer::client::kube_client;
use pod_checkpointer::node::contact::Outcome;
use pod_checkpointer::node::host::HostRoot;
use pod_checkpointer::node::kubelet::Server;
use pod_checkpointer::node::probe::Prober;
use pod_checkpointer::node::resolve::{Error, Resolver};
use tokio::net::UdpSocket;

use crate::stub::{Mode, PATIENCE, ProbeServer};

const SHORT: Duration = Duration::from_millis(300);

/// A host root with these two files.
pub fn host(hosts: &str, resolv_conf: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("etc")).unwrap();
    std::fs::write(directory.path().join("etc/hosts"), hosts).unwrap();
    std::fs::write(directory.path().join("etc/resolv.conf"), resolv_conf).unwrap();
    directory
}

fn resolver(directory: &tempfile::TempDir, limit: Duration) -> Resolver {
    Resolver::new(HostRoot::new(directory.path()), limit)
}

/// A loopback address that no other test uses. Name servers have no other port than 53.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high | 1, low, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// How a name server answers.
#[derive(Clone, Copy)]
enum Answer {
    /// One address for every A question about this name, no other record, and no other name.
    Knows(&'static str, Ipv4Addr),
    Nothing,
}

/// A name server with its own address; `None` if the tests may not listen on port 53.
async fn name_server(answer: Answer) -> Option<Ipv4Addr> {
    let address = own_address();
    let socket = UdpSocket::bind((address, 53)).await.ok()?;
    tokio::spawn(async move {
        let mut packet = [0; 512];
        loop {
            let (length, peer) = socket.recv_from(&mut packet).await.unwrap();
            let Answer::Knows(known, address) = answer else {
                continue;
            };
            if let Some(reply) = reply(&packet[..length], known, address) {
                socket.send_to(&reply, peer).await.unwrap();
            }
        }
    });
    Some(address)
}

/// A reply by hand (RFC 1035, section 4), so that nothing under test answers itself.
fn reply(query: &[u8], known: &str, address: Ipv4Addr) -> Option<Vec<u8>> {
    let mut labels = Vec::new();
    let mut at = 12;
    while query[at] != 0 {
        let length = usize::from(query[at]);
        labels.push(
            String::from_utf8(query[at + 1..=at + length].to_vec())
                .ok()?
                .to_lowercase(),
        );
        at += length + 1;
    }
    let question = &query[12..at + 5];
    let is_known = labels.join(".") == known;
    let has_answer = is_known && query[at + 1..at + 3] == [0, 1];
    let mut reply = query[..2].to_vec();
    reply.extend([
        0x85,
        if is_known { 0x80 } else { 0x83 },
        0,
        1,
        0,
        u8::from(has_answer),
        0,
        0,
        0,
        0,
    ]);
    reply.extend(question);
    if has_answer {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(address.octets());
    }
    Some(reply)
}

#[tokio::test]
async fn an_address_and_a_name_of_the_hosts_file_need_no_name_server() {
    let directory = host("10.0.0.1 api.example api\n", "nameserver 127.0.0.1\n");
    let resolver = resolver(&directory, SHORT);
    assert_eq!(
        resolver.lookup("192.0.2.7").await.unwrap(),
        [IpAddr::from([192, 0, 2, 7])]
    );
    assert_eq!(
        resolver.lookup("API").await.unwrap(),
        [IpAddr::from([10, 0, 0, 1])]
    );
    std::fs::write(directory.path().join("etc/hosts"), "10.0.0.2 api\n").unwrap();
    assert_eq!(
        resolver.lookup("api").await.unwrap(),
        [IpAddr::from([10, 0, 0, 2])]
    );
}

#[tokio::test]
async fn a_name_server_is_asked_and_the_search_list_honoured() {
    let Some(server) = name_server(Answer::Knows(
        "api.cluster.example",
        Ipv4Addr::new(10, 0, 0, 3),
    ))
    .await
    else {
        return;
    };
    let directory = host(
        "",
        &format!("nameserver {server}\nsearch other.example cluster.example\n"),
    );
    let resolver = resolver(&directory, PATIENCE);
    assert_eq!(
        resolver.lookup("api").await.unwrap(),
        [IpAddr::from([10, 0, 0, 3])]
    );
    assert_eq!(
        resolver.lookup("api.cluster.example").await.unwrap(),
        [IpAddr::from([10, 0, 0, 3])]
    );
    let error = resolver.lookup("none").await.unwrap_err();
    assert!(matches!(error, Error::Refused(..)), "{error:?}");
}

#[tokio::test]
async fn a_changed_resolv_conf_is_read_again() {
    let Some(server) = name_server(Answer::Knows("api.example", Ipv4Addr::new(10, 0, 0, 4))).await
    else {
        return;
    };
    let nobody = own_address();
    let directory = host("", &format!("nameserver {nobody}\n"));
    let resolver = resolver(&directory, PATIENCE);
    assert!(resolver.lookup("api.example").await.is_err());
    std::fs::write(
        directory.path().join("etc/resolv.conf"),
        format!("nameserver {server}\n"),
    )
    .unwrap();
    assert_eq!(
        resolver.lookup("api.example").await.unwrap(),
        [IpAddr::from([10, 0, 0, 4])]
    );
}

#[tokio::test]
async fn a_dead_name_server_leaves_time_for_the_next() {
    let (Some(mute), Some(server)) = (
        name_server(Answer::Nothing).await,
        name_server(Answer::Knows("api.example", Ipv4Addr::new(10, 0, 0, 5))).await,
    ) else {
        return;
    };
    let directory = host("", &format!("nameserver {mute}\nnameserver {server}\n"));
    let addresses = resolver(&directory, SHORT * 4)
        .lookup("api.example")
        .await
        .unwrap();
    assert_eq!(addresses, [IpAddr::from([10, 0, 0, 5])]);
}

/// A prober of a server that only this host's name server could find.
fn prober(api: &ProbeServer, directory: &tempfile::TempDir, limit: Duration) -> Prober {
    let server = Server {
        url: format!("https://api.example:{}", api.address.port()),
        ..api.server()
    };
    Prober::new(server, HostRoot::new(directory.path()), limit).unwrap()
}

#[tokio::test]
async fn a_probe_distinguishes_a_name_that_is_refused_from_one_without_an_answer() {
    let (Some(mute), Some(other)) = (
        name_server(Answer::Nothing).await,
        name_server(Answer::Knows("other.example", Ipv4Addr::LOCALHOST)).await,
    ) else {
        return;
    };
    let nobody = own_address();
    let api = ProbeServer::start();
    for (server, limit, outcome) in [
        (mute, SHORT, Outcome::TimedOut),
        (other, PATIENCE, Outcome::Refused),
        (nobody, PATIENCE, Outcome::Refused),
    ] {
        let directory = host("", &format!("nameserver {server}\n"));
        assert_eq!(
            prober(&api, &directory, limit).probe().await,
            outcome,
            "{server}"
        );
    }
}

#[tokio::test]
async fn the_agents_client_finds_the_api_server_by_the_hosts_names_and_asks_once() {
    let api = ProbeServer::start();
    let directory = host("127.0.0.1 api.example\n", "");
    let mut config = api.config();
    config.cluster_url = format!("https://api.example:{}", api.address.port())
        .parse()
        .unwrap();
    let client = kube_client(config, HostRoot::new(directory.path())).unwrap();
    let ask = || http::Request::get("/livez").body(Vec::new()).unwrap();
    assert_eq!(client.request_text(ask()).await.unwrap(), "kk");

    api.set(Mode::Status(503)).await;
    let before = api.state.borrow().requests.len();
    assert!(client.request_text(ask()).await.is_err());
    assert_eq!(api.state.borrow().requests.len(), before + 1);
}

#[tokio::test]
async fn the_agents_client_does_not_wait_for_ever() {
    let api = ProbeServer::start();
    api.set(Mode::Hang).await;
    let mut config = api.config();
    config.read_timeout = Some(SHORT);
    let client = kube_client(config, HostRoot::new("/")).unwrap();
    let answer = client.request_text(http::Request::get("/livez").body(Vec::new()).unwrap());
    assert!(
        tokio::time::timeout(PATIENCE, answer)
            .await
            .unwrap()
            .is_err()
    );
}

#[tokio::test]
async fn the_agents_client_says_no_to_a_proxy() {
    let api = ProbeServer::start();
    let mut config = api.config();
    config.proxy_url = Some("http://127.0.0.1:1".parse().unwrap());
    assert!(matches!(
        kube_client(config, HostRoot::new("/")).err(),
        Some(kube::Error::ProxyProtocolUnsupported { .. })
    ));
}
