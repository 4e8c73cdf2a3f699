//! Finds out whether the API server answers. A probe is one `GET /livez` without credentials; the
//! cluster's CA proves the peer.
//!
//! [`Prober`] asks and returns an [`Outcome`]; [`Tracker`] (pure) turns outcomes into a class of
//! contact with the time since when it holds.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::node::host::HostRoot;
use crate::node::kubelet::Server;
use crate::node::resolve::{self, Resolver};

/// Outcome of one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A proven server answered with this HTTP status.
    Status(u16),
    /// Refused, reset or no route: an active refusal.
    Refused,
    /// Resolving the name, connecting, TLS or the answer exceeded the time limit.
    TimedOut,
    /// Something answers that cannot be proven to be the API server.
    Unproven,
}

/// Class of contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Class {
    /// The API server answers with 2xx to 4xx.
    Answering,
    /// The API server answers with 5xx.
    Failing,
    /// Nothing answers: refused, timed out, no route, or the name cannot be resolved.
    Silent,
    /// Something answers, but TLS does not prove that it is the API server.
    Unproven,
}

/// Contact as currently known.
///
/// A row is the probes since the last answer. It has two clocks, because two delays depend on them:
/// - Silent and failing count together, from their last interruption: a server that dies slowly (500, then refused) does not get the delay twice, but one refused probe after a minute of unproven ones counts as one refused probe.
/// - Unproven counts the whole row: a minute without a proven answer is a minute, whatever else
///   happened in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contact {
    /// The class of contact.
    pub class: Class,
    /// Since when, on the boot-time clock. Answering: when the first answer came. Unproven: when
    /// the first probe of the row began. Failing and silent: when the first probe after the row's
    /// last unproven one began.
    pub since: Duration,
    /// Since when all outcomes have been of exactly this class.
    pub alike: Duration,
    /// Failed probes since [`Contact::since`].
    pub failures: u32,
    /// Silent because of a time-out (a black hole), not because of a refusal.
    pub by_time_out: bool,
}

/// Turns outcomes into contact.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    current: Option<Contact>,
    /// When the last answer came.
    answered: Option<Duration>,
    /// When anything last came: an answer, a 5xx, or a certificate that proves nothing.
    heard: Option<Duration>,
    /// Every failed probe since the last answer.
    row: Option<Failed>,
    /// The failed probes of the row after its last unproven one.
    run: Option<Failed>,
}

/// Consecutive failed probes.
#[derive(Clone, Copy, Debug)]
struct Failed {
    since: Duration,
    count: u32,
}

impl Failed {
    /// Adds a probe that began at this time. Probes may overlap, so the first to begin need not be
    /// the first to end.
    fn add(failed: Option<Self>, began: Duration) -> Self {
        failed.map_or(Self { since: began, count: 1 }, |failed| Self {
            since: failed.since.min(began),
            count: failed.count.saturating_add(1),
        })
    }
}

impl Tracker {
    /// Takes the outcome of a probe that began and ended at these times, on the boot-time clock.
    ///
    /// Probes may overlap. A failed probe that began before the last answer came is ignored, and so
    /// is a silent one that began before anything came.
    pub fn observe(&mut self, began: Duration, ended: Duration, outcome: Outcome) {
        let (class, by_time_out) = match outcome {
            Outcome::Status(500..=599) => (Class::Failing, false),
            Outcome::Status(_) => (Class::Answering, false),
            Outcome::Refused => (Class::Silent, false),
            Outcome::TimedOut => (Class::Silent, true),
            Outcome::Unproven => (Class::Unproven, false),
        };
        if class == Class::Answering {
            let since = self.current.filter(|now| now.class == class).map_or(ended, |now| now.since);
            *self = Self {
                current: Some(Contact { class, since, alike: since, failures: 0, by_time_out }),
                answered: Some(ended),
                heard: Some(ended),
                row: None,
                run: None,
            };
            return;
        }
        let newer = if class == Class::Silent { self.heard } else { self.answered };
        if newer.is_some_and(|newer| began <= newer) {
            return;
        }
        let row = Failed::add(self.row, began);
        self.row = Some(row);
        let counted = if class == Class::Unproven {
            self.run = None;
            row
        } else {
            let run = Failed::add(self.run, began);
            self.run = Some(run);
            run
        };
        if class != Class::Silent {
            self.heard = Some(ended);
        }
        let alike = self.current.filter(|now| now.class == class).map_or(began, |now| now.alike);
        let Failed { since, count: failures } = counted;
        self.current = Some(Contact { class, since, alike, failures, by_time_out });
    }

    /// Contact as currently known; `None` before the end of the first probe.
    pub fn current(&self) -> Option<Contact> {
        self.current
    }
}

/// The most bytes of an answer's body that are read; a longer one closes the connection.
const MAX_BODY: usize = 64 * 1024;
/// How long to wait for the body of an answer. Only its status counts.
const BODY_LIMIT: Duration = Duration::from_millis(100);
/// Longest head of a proxy's answer, in bytes.
const MAX_PROXY_HEAD: usize = 8 * 1024;

/// Probes one API server. Clones share its connection.
#[derive(Clone)]
pub struct Prober(Arc<Inner>);

struct Inner {
    /// Where connections go: the server or its proxy.
    host: Host,
    /// `host:port` of the server, for the requests.
    authority: String,
    path: String,
    proxy: Option<Proxy>,
    tls: TlsConnector,
    tls_name: ServerName<'static>,
    resolver: Resolver,
    limit: Duration,
    addresses: Mutex<Vec<SocketAddr>>,
    idle: Mutex<Option<Connection>>,
}

/// A proxy that is asked to CONNECT.
struct Proxy {
    authorization: Option<String>,
}

/// Host and port of a URL.
struct Host {
    name: String,
    port: u16,
}

/// Why a prober cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server's URL is invalid.
    #[error("invalid API server URL {0:?}: it must be https://HOST[:PORT]")]
    Address(String),
    /// The CA has no valid certificate.
    #[error("the CA of API server {0} contains no valid certificate")]
    Ca(String),
    /// The proxy's URL is invalid, or not one of plain HTTP, which alone is supported.
    #[error("unsupported proxy {0:?}: its URL must begin with http://")]
    Proxy(String),
    /// The TLS client could not be set up.
    #[error("cannot set up TLS for API server {0}")]
    Tls(String, #[source] rustls::Error),
}

impl Prober {
    /// A prober for this server; names are resolved with the host's configuration below `root`.
    pub fn new(server: Server, root: HostRoot, limit: Duration) -> Result<Self, Error> {
        let Server { url, ca, tls_name, proxy } = server;
        let invalid = || Error::Address(url.clone());
        let uri: Uri = url.parse().map_err(|_| invalid())?;
        // without TLS the peer cannot be proven
        if uri.scheme_str() != Some("https") {
            return Err(invalid());
        }
        let target = Host::of(&uri, 443).ok_or_else(invalid)?;
        let tls_name = tls_name.unwrap_or_else(|| target.name.clone());
        let tls_name = ServerName::try_from(tls_name).map_err(|_| invalid())?;
        let tls = TlsConnector::from(Arc::new(tls_config(&url, &ca)?));
        let authority = target.authority();
        let path = format!("{}/livez", uri.path().trim_end_matches('/'));
        let (host, proxy) = match &proxy {
            None => (target, None),
            Some(proxy) => {
                let (host, proxy) = Proxy::parse(proxy).ok_or_else(|| Error::Proxy(proxy.clone()))?;
                (host, Some(proxy))
            }
        };
        let addresses = host.address().into_iter().collect();
        Ok(Self(Arc::new(Inner {
            host,
            authority,
            path,
            proxy,
            tls,
            tls_name,
            resolver: Resolver::new(root, limit),
            limit,
            addresses: Mutex::new(addresses),
            idle: Mutex::default(),
        })))
    }

    /// Probes once, within the limit. A connection that answered is kept for the next probe.
    pub async fn probe(&self) -> Outcome {
        let inner = &self.0;
        let deadline = Instant::now() + inner.limit;
        timeout_at(deadline, inner.probe(deadline)).await.unwrap_or(Outcome::TimedOut)
    }

    /// The addresses of the server (or its proxy) from the last look-up, with the port. The
    /// kubelet's sockets lead there.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A connection that answered. It is not polled while idle, so a broken one is noticed only when it
/// is used again.
struct Connection {
    sender: http1::SendRequest<Empty<Bytes>>,
    driver: http1::Connection<TokioIo<TlsStream<TcpStream>>, Empty<Bytes>>,
}

/// Why an attempt has no status.
enum Fault {
    /// The peer refused or closed the connection.
    Refused,
    /// The peer did not prove to be the API server.
    Unproven,
}

impl Inner {
    async fn probe(&self, deadline: Instant) -> Outcome {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(connection) = idle {
            // a server may close an idle connection at any time; only a failing new one means
            // something
            if let Ok(status) = self.ask(connection).await {
                return Outcome::Status(status);
            }
        }
        let addresses = match self.look_up().await {
            Ok(addresses) => addresses,
            Err(resolve::Error::TimedOut(_)) => return Outcome::TimedOut,
            Err(resolve::Error::Refused(..) | resolve::Error::Configuration(..)) => return Outcome::Refused,
        };
        let mut worst = Outcome::Refused;
        let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        for address in addresses {
            // each gets an equal part of the remaining time, so that one that hangs does not hide
            // the next
            let now = Instant::now();
            let part = now + deadline.saturating_duration_since(now) / left.max(1);
            left = left.saturating_sub(1);
            match timeout_at(part, self.attempt(address)).await {
                Ok(Ok(status)) => {
                    self.prefer(address);
                    return Outcome::Status(status);
                }
                Ok(Err(Fault::Unproven)) => worst = Outcome::Unproven,
                Err(_) if worst == Outcome::Refused => worst = Outcome::TimedOut,
                Ok(Err(Fault::Refused)) | Err(_) => {}
            }
        }
        worst
    }

    /// The addresses to try, the one that answered last first.
    async fn look_up(&self) -> Result<Vec<SocketAddr>, resolve::Error> {
        if let Some(address) = self.host.address() {
            return Ok(vec![address]);
        }
        let found = self.resolver.lookup(&self.host.name).await?;
        let mut found: Vec<_> = found.into_iter().map(|ip| SocketAddr::new(ip, self.host.port)).collect();
        let mut known = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let first = known.first().copied();
        found.sort_by_key(|address| Some(*address) != first);
        known.clone_from(&found);
        Ok(found)
    }

    fn prefer(&self, address: SocketAddr) {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).sort_by_key(|known| *known != address);
    }

    async fn attempt(&self, address: SocketAddr) -> Result<u16, Fault> {
        let mut stream = TcpStream::connect(address).await.map_err(|_| Fault::Refused)?;
        // otherwise the last part of the small request may wait for an acknowledgement
        let _ = stream.set_nodelay(true);
        if let Some(proxy) = &self.proxy {
            proxy.connect(&mut stream, &self.authority).await.map_err(|_| Fault::Refused)?;
        }
        let stream = self.tls.connect(self.tls_name.clone(), stream).await.map_err(|error| fault_of(&error))?;
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(MAX_BODY)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| fault_in(&error))?;
        self.ask(Connection { sender, driver }).await
    }

    /// Sends the request and reads the answer; keeps the connection if the server does.
    async fn ask(&self, connection: Connection) -> Result<u16, Fault> {
        let Connection { mut sender, mut driver } = connection;
        let request = Request::get(&self.path)
            .header(header::HOST, &self.authority)
            .header(header::USER_AGENT, concat!("pod-checkpointer/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, "*/*")
            .body(Empty::new())
            .map_err(|_| Fault::Refused)?;
        let (answer, is_open) = {
            let mut answer = pin!(async {
                let mut response = sender.send_request(request).await?;
                let whole = async {
                    let mut read = 0;
                    while let Some(frame) = response.frame().await {
                        read += frame?.data_ref().map_or(0, Bytes::len);
                        if read > MAX_BODY {
                            return Ok(false);
                        }
                    }
                    Ok::<_, hyper::Error>(true)
                };
                let is_whole = tokio::time::timeout(BODY_LIMIT, whole).await;
                Ok::<_, hyper::Error>((response.status().as_u16(), matches!(is_whole, Ok(Ok(true)))))
            });
            tokio::select! {
                biased;
                answer = &mut answer => (answer, true),
                // what was received before the connection ended can still be read
                _ = &mut driver => (answer.as_mut().await, false),
            }
        };
        let (status, is_whole) = answer.map_err(|error| fault_in(&error))?;
        if is_open && is_whole && !sender.is_closed() {
            let connection = Connection { sender, driver };
            *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        }
        Ok(status)
    }
}

impl Host {
    fn of(uri: &Uri, default_port: u16) -> Option<Self> {
        let name = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        Some(Self { name, port: uri.port_u16().unwrap_or(default_port) }).filter(|host| !host.name.is_empty())
    }

    /// The address, if the URL contains one instead of a name.
    fn address(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.name.parse::<IpAddr>().ok()?, self.port))
    }

    fn authority(&self) -> String {
        self.address().map_or_else(|| format!("{}:{}", self.name, self.port), |address| address.to_string())
    }
}

impl Proxy {
    fn parse(url: &str) -> Option<(Host, Self)> {
        let uri: Uri = url.parse().ok()?;
        if uri.scheme_str() != Some("http") {
            return None;
        }
        let host = Host::of(&uri, 80)?;
        let authorization = uri.authority()?.as_str().rsplit_once('@').map(|(user, _)| {
            format!("Proxy-Authorization: Basic {}\r\n", base64::engine::general_purpose::STANDARD.encode(user))
        });
        Some((host, Self { authorization }))
    }

    /// Asks for a tunnel to the server (RFC 9110, section 9.3.6).
    async fn connect(&self, stream: &mut TcpStream, authority: &str) -> io::Result<()> {
        let authorization = self.authorization.as_deref().unwrap_or_default();
        let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{authorization}\r\n");
        stream.write_all(request.as_bytes()).await?;
        // byte by byte, because what follows the head belongs to the tunnel
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() == MAX_PROXY_HEAD {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            }
            head.push(stream.read_u8().await?);
        }
        let is_ok = head.starts_with(b"HTTP/1.") && head.get(8..10) == Some(b" 2");
        if is_ok { Ok(()) } else { Err(io::Error::from(io::ErrorKind::ConnectionRefused)) }
    }
}

fn tls_config(url: &str, ca: &str) -> Result<rustls::ClientConfig, Error> {
    let mut roots = rustls::RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(ca.as_bytes()).filter_map(Result::ok);
    if roots.add_parsable_certificates(certificates).0 == 0 {
        return Err(Error::Ca(url.to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| Error::Tls(url.to_owned(), source))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // an API server closes an HTTP/2 connection after each request without credentials
    // (k8s.io/apiserver, UnauthenticatedHTTP2DOSMitigation), so each probe would cost it a
    // handshake, eight times as much
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // a resumed session would not verify the certificate again
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// rustls wraps its errors in IO errors, and hyper wraps IO errors in its own.
fn fault_of(error: &io::Error) -> Fault {
    let is_tls = error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>);
    if is_tls { Fault::Unproven } else { Fault::Refused }
}

fn fault_in(error: &hyper::Error) -> Fault {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.map_or(Fault::Refused, fault_of)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Each outcome with when its probe began and ended; then class, since, failures and whether by time-out.
    fn after(outcomes: &[(u64, u64, Outcome)]) -> Option<(Class, u64, u32, bool)> {
        let mut tracker = Tracker::default();
        for (began, ended, outcome) in outcomes {
            tracker.observe(at(*began), at(*ended), *outcome);
        }
        tracker.current().map(|contact| {
            let since = contact.since.as_millis().try_into().unwrap();
            (contact.class, since, contact.failures, contact.by_time_out)
        })
    }

    #[test]
    fn class_and_since_follow_from_the_outcomes() {
        use Class::{Answering, Failing, Silent};
        use Outcome::{Refused, Status, TimedOut, Unproven};

        for (name, outcomes, expected) in [
            ("the first answer", &[(10, 11, Status(200))][..], (Answering, 11, 0, false)),
            ("a refused credential is an answer", &[(10, 11, Status(401))], (Answering, 11, 0, false)),
            ("answers go on", &[(10, 11, Status(200)), (20, 21, Status(403))], (Answering, 11, 0, false)),
            ("the first silence", &[(10, 20, TimedOut)], (Silent, 10, 1, true)),
            (
                "a server that dies slowly",
                &[(0, 1, Status(200)), (10, 11, Status(500)), (20, 21, Refused), (30, 40, TimedOut)],
                (Silent, 10, 3, true),
            ),
            (
                "and one that begins to come back",
                &[(10, 20, TimedOut), (30, 31, Refused), (40, 41, Status(503))],
                (Failing, 10, 3, false),
            ),
            (
                "an answer ends the row",
                &[(10, 11, Refused), (20, 21, Status(200)), (30, 31, Refused)],
                (Silent, 30, 1, false),
            ),
            (
                "one refused probe after a minute of unproven ones is one refused probe",
                &[(0, 1, Unproven), (30_000, 30_001, Unproven), (59_000, 59_001, Unproven), (60_000, 60_001, Refused)],
                (Silent, 60_000, 1, false),
            ),
            (
                "unproven counts everything since the last answer",
                &[(10, 11, Refused), (20, 21, Unproven), (30, 31, Refused), (40, 41, Unproven)],
                (Class::Unproven, 10, 4, false),
            ),
            (
                "an unproven probe interrupts the silence",
                &[(10, 11, Refused), (20, 21, Unproven), (30, 31, Status(500)), (40, 41, Refused)],
                (Silent, 30, 2, false),
            ),
            (
                "a probe that began before the answer came and failed later says nothing",
                &[(10, 11, Refused), (20, 120, Status(200)), (50, 150, TimedOut), (60, 140, Status(500))],
                (Answering, 120, 0, false),
            ),
            (
                "nor does one that heard nothing while another heard a 5xx",
                &[(10, 110, TimedOut), (20, 60, Status(500)), (30, 130, TimedOut)],
                (Failing, 10, 2, false),
            ),
            (
                "an answer counts when it comes, not when it was asked for",
                &[(10, 100, Status(200)), (0, 120, Status(200)), (110, 130, Refused)],
                (Answering, 100, 0, false),
            ),
            (
                "of overlapping probes the first to begin counts",
                &[(20, 21, Refused), (10, 110, TimedOut)],
                (Silent, 10, 2, true),
            ),
        ] {
            assert_eq!(after(outcomes), Some(expected), "{name}");
        }
        assert_eq!(after(&[]), None);
    }

    fn server(url: &str) -> Server {
        let ca = rcgen::generate_simple_self_signed(vec!["api.example".to_owned()]).unwrap().cert.pem();
        Server { url: url.to_owned(), ca, tls_name: None, proxy: None }
    }

    fn new(server: Server) -> Result<Prober, Error> {
        Prober::new(server, HostRoot::new("/"), Duration::from_secs(1))
    }

    #[test]
    fn an_address_is_known_without_a_look_up() {
        for (url, addresses) in [
            ("https://10.0.0.1:6443", vec!["10.0.0.1:6443"]),
            ("https://[fd00::1]/prefix", vec!["[fd00::1]:443"]),
            ("https://api.example:6443", vec![]),
        ] {
            let known = new(server(url)).unwrap().addresses();
            assert_eq!(known.iter().map(ToString::to_string).collect::<Vec<_>>(), addresses, "{url}");
        }
    }

    #[test]
    fn behind_a_proxy_the_address_is_the_proxys() {
        let proxy = Some("http://user:pass@10.0.0.9:3128".to_owned());
        let known = new(Server { proxy, ..server("https://api.example:6443") }).unwrap().addresses();
        assert_eq!(known, ["10.0.0.9:3128".parse().unwrap()]);
    }

    #[test]
    fn what_cannot_be_proven_is_not_probed() {
        assert!(matches!(new(server("http://10.0.0.1:8080")), Err(Error::Address(_))));
        assert!(matches!(new(server("nonsense")), Err(Error::Address(_))));
        assert!(matches!(new(Server { ca: String::new(), ..server("https://10.0.0.1") }), Err(Error::Ca(_))));
        let proxy = Some("socks5://10.0.0.9".to_owned());
        assert!(matches!(new(Server { proxy, ..server("https://10.0.0.1") }), Err(Error::Proxy(_))));
    }
}
