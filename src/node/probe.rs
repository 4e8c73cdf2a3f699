//! Asks whether the API server answers: a probe is one `GET /livez` without credentials, and the
//! cluster's CA proves the peer. [`crate::node::contact`] derives contact from the outcomes.

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

use crate::node::contact::Outcome;
use crate::node::host::HostRoot;
use crate::node::kubelet::Server;
use crate::node::proxy::without_credentials;
use crate::node::resolve::{self, Resolver};

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
    /// The proxy's URL (without its credential) is invalid, or not one of plain HTTP, which alone is supported.
    #[error("unsupported proxy {0:?}: its URL must begin with http://")]
    Proxy(String),
    /// The TLS client could not be set up.
    #[error("cannot set up TLS for API server {0}")]
    Tls(String, #[source] rustls::Error),
}

impl Prober {
    /// A prober for this server; names are resolved with the host's configuration below `root`.
    pub fn new(server: Server, root: HostRoot, limit: Duration) -> Result<Self, Error> {
        let Server {
            url,
            ca,
            tls_name,
            proxy,
        } = server;
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
                let (host, proxy) =
                    Proxy::parse(proxy).ok_or_else(|| Error::Proxy(without_credentials(proxy)))?;
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
        timeout_at(deadline, inner.probe(deadline))
            .await
            .unwrap_or(Outcome::TimedOut)
    }

    /// The addresses of the server (or its proxy) from the last look-up, with the port. The
    /// kubelet's sockets lead there.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
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
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
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
            Err(resolve::Error::Refused(..) | resolve::Error::Configuration(..)) => {
                return Outcome::Refused;
            }
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
        let mut found: Vec<_> = found
            .into_iter()
            .map(|ip| SocketAddr::new(ip, self.host.port))
            .collect();
        let mut known = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let first = known.first().copied();
        found.sort_by_key(|address| Some(*address) != first);
        known.clone_from(&found);
        Ok(found)
    }

    fn prefer(&self, address: SocketAddr) {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .sort_by_key(|known| *known != address);
    }

    async fn attempt(&self, address: SocketAddr) -> Result<u16, Fault> {
        let mut stream = TcpStream::connect(address)
            .await
            .map_err(|_| Fault::Refused)?;
        // otherwise the last part of the small request may wait for an acknowledgement
        let _ = stream.set_nodelay(true);
        if let Some(proxy) = &self.proxy {
            proxy
                .connect(&mut stream, &self.authority)
                .await
                .map_err(|_| Fault::Refused)?;
        }
        let stream = self
            .tls
            .connect(self.tls_name.clone(), stream)
            .await
            .map_err(|error| fault_of(&error))?;
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(MAX_BODY)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| fault_in(&error))?;
        self.ask(Connection { sender, driver }).await
    }

    /// Sends the request and reads the answer; keeps the connection if the server does.
    async fn ask(&self, connection: Connection) -> Result<u16, Fault> {
        let Connection {
            mut sender,
            mut driver,
        } = connection;
        let request = Request::get(&self.path)
            .header(header::HOST, &self.authority)
            .header(
                header::USER_AGENT,
                concat!("pod-checkpointer/", env!("CARGO_PKG_VERSION")),
            )
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
                Ok::<_, hyper::Error>((
                    response.status().as_u16(),
                    matches!(is_whole, Ok(Ok(true))),
                ))
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
        let name = uri
            .host()?
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        Some(Self {
            name,
            port: uri.port_u16().unwrap_or(default_port),
        })
        .filter(|host| !host.name.is_empty())
    }

    /// The address, if the URL contains one instead of a name.
    fn address(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(
            self.name.parse::<IpAddr>().ok()?,
            self.port,
        ))
    }

    fn authority(&self) -> String {
        self.address().map_or_else(
            || format!("{}:{}", self.name, self.port),
            |address| address.to_string(),
        )
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
            format!(
                "Proxy-Authorization: Basic {}\r\n",
                base64::engine::general_purpose::STANDARD.encode(decode(user))
            )
        });
        Some((host, Self { authorization }))
    }

    /// Asks for a tunnel to the server (RFC 9110, section 9.3.6).
    async fn connect(&self, stream: &mut TcpStream, authority: &str) -> io::Result<()> {
        let authorization = self.authorization.as_deref().unwrap_or_default();
        let request =
            format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{authorization}\r\n");
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
        if is_ok {
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::ConnectionRefused))
        }
    }
}

/// User and password of a URL, which may have characters as `%` and two hexadecimal digits.
fn decode(user: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(user.len());
    let mut rest = user.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = tail
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() {
            tail.get(2..).unwrap_or_default()
        } else {
            tail
        };
    }
    bytes
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
    let is_tls = error
        .get_ref()
        .is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>);
    if is_tls {
        Fault::Unproven
    } else {
        Fault::Refused
    }
}

fn fault_in(error: &hyper::Error) -> Fault {
    let source =
        std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.map_or(Fault::Refused, fault_of)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn server(url: &str) -> Server {
        let ca = rcgen::generate_simple_self_signed(vec!["api.example".to_owned()])
            .unwrap()
            .cert
            .pem();
        Server {
            url: url.to_owned(),
            ca,
            tls_name: None,
            proxy: None,
        }
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
            assert_eq!(
                known.iter().map(ToString::to_string).collect::<Vec<_>>(),
                addresses,
                "{url}"
            );
        }
    }

    #[test]
    fn behind_a_proxy_the_address_is_the_proxys() {
        let proxy = Some("http://user:pass@10.0.0.9:3128".to_owned());
        let known = new(Server {
            proxy,
            ..server("https://api.example:6443")
        })
        .unwrap()
        .addresses();
        assert_eq!(known, ["10.0.0.9:3128".parse().unwrap()]);
    }

    #[test]
    fn what_cannot_be_proven_is_not_probed() {
        assert!(matches!(
            new(server("http://10.0.0.1:8080")),
            Err(Error::Address(_))
        ));
        assert!(matches!(new(server("nonsense")), Err(Error::Address(_))));
        assert!(matches!(
            new(Server {
                ca: String::new(),
                ..server("https://10.0.0.1")
            }),
            Err(Error::Ca(_))
        ));
        let proxy = Some("socks5://user:pass@10.0.0.9".to_owned());
        let through = Server {
            proxy,
            ..server("https://10.0.0.1")
        };
        assert!(!format!("{through:?}").contains("pass"));
        let error = new(through).err().unwrap();
        assert_eq!(
            error.to_string(),
            "unsupported proxy \"socks5://10.0.0.9\": its URL must begin with http://"
        );
    }
}
