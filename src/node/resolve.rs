//! Resolves names without glibc's NSS, which a static binary does not have: with the host's
//! `/etc/hosts`, then the name servers of the host's `resolv.conf`. Both are read again when they
//! have changed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hickory_resolver::config::{
    LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::{DnsUdpSocket, RuntimeProvider, TokioRuntimeProvider};
use hickory_resolver::system_conf::parse_resolv_conf;
use hyper_util::client::legacy::connect::dns::Name;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::node::host::HostRoot;

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name server reported that there is no address, or no name server listens at its address.
    #[error("no address for {0}")]
    Refused(String, #[source] Box<NetError>),
    /// No name server answered in time.
    #[error("no name server answered for {0} in time")]
    TimedOut(String),
    /// The host's configuration cannot be read.
    #[error("cannot read the host's {0}")]
    Configuration(&'static str, #[source] io::Error),
}

/// Resolves names as the host would. Clones share connections and cache.
#[derive(Clone)]
pub struct Resolver {
    root: HostRoot,
    limit: Duration,
    servers: Arc<Mutex<Option<Servers>>>,
}

/// The resolver for a `resolv.conf` with this text.
struct Servers {
    text: Vec<u8>,
    resolver: hickory_resolver::Resolver<Sockets>,
}

impl Resolver {
    /// A resolver with the host's configuration, and a time limit for each look-up.
    pub fn new(root: HostRoot, limit: Duration) -> Self {
        Self {
            root,
            limit,
            servers: Arc::default(),
        }
    }

    /// The addresses of a name, at least one.
    pub async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, Error> {
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        let hosts = self
            .read("/etc/hosts")
            .map_err(|source| Error::Configuration("/etc/hosts", source))?;
        let addresses = addresses_in_hosts(&String::from_utf8_lossy(&hosts), name);
        if !addresses.is_empty() {
            return Ok(addresses);
        }
        let resolver = self.resolver()?;
        match tokio::time::timeout(self.limit, resolver.lookup_ip(name)).await {
            Ok(Ok(answer)) => Ok(answer.iter().collect()),
            Ok(Err(NetError::Timeout)) | Err(_) => Err(Error::TimedOut(name.to_owned())),
            Ok(Err(error)) => Err(Error::Refused(name.to_owned(), Box::new(error))),
        }
    }

    /// Compares the file's text, not its modification time, to find out whether it has changed:
    /// look-ups are rare, and so no change within one tick of the clock is missed.
    fn resolver(&self) -> Result<hickory_resolver::Resolver<Sockets>, Error> {
        let wrong = |source| Error::Configuration("/etc/resolv.conf", source);
        let text = self.read("/etc/resolv.conf").map_err(wrong)?;
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(servers) = servers.as_ref().filter(|servers| servers.text == text) {
            return Ok(servers.resolver.clone());
        }
        let (config, options) = configure(&text, self.limit);
        let resolver = hickory_resolver::Resolver::builder_with_config(config, Sockets::default())
            .with_options(options)
            .build()
            .map_err(|error| wrong(io::Error::other(error)))?;
        *servers = Some(Servers {
            text,
            resolver: resolver.clone(),
        });
        Ok(resolver)
    }

    /// Reads a file of the host; a missing one counts as empty.
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        match std::fs::read(self.root.resolve(Path::new(path))?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            result => result,
        }
    }
}

/// hickory's sockets, except for [`Udp`].
#[derive(Clone, Default)]
struct Sockets(TokioRuntimeProvider);

/// A UDP socket that is connected to its name server. Only then does the kernel report that nothing
/// listens there, as it does to the kubelet, so that a name server that is down is not taken for
/// one behind a black hole.
struct Udp(UdpSocket);

#[tonic::async_trait]
impl DnsUdpSocket for Udp {
    type Time = <UdpSocket as DnsUdpSocket>::Time;

    fn poll_recv_from(
        &self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        DnsUdpSocket::poll_recv_from(&self.0, context, buffer)
    }

    /// Also waits for errors, which alone do not wake a reader that waits for data.
    async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        loop {
            let ready = self.0.ready(Interest::READABLE | Interest::ERROR).await?;
            if ready.is_error() {
                let pending = self
                    .0
                    .try_io(Interest::ERROR, || match self.0.take_error()? {
                        Some(error) => Ok(error),
                        None => Err(io::Error::from(io::ErrorKind::WouldBlock)),
                    });
                if let Ok(error) = pending {
                    return Err(error);
                }
            }
            match self.0.try_recv_from(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }

    fn poll_send_to(
        &self,
        context: &mut Context<'_>,
        buffer: &[u8],
        target: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        DnsUdpSocket::poll_send_to(&self.0, context, buffer, target)
    }
}

impl RuntimeProvider for Sockets {
    type Handle = <TokioRuntimeProvider as RuntimeProvider>::Handle;
    type Timer = <TokioRuntimeProvider as RuntimeProvider>::Timer;
    type Udp = Udp;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Self::Handle {
        self.0.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        local: Option<SocketAddr>,
        limit: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Tcp>>>> {
        self.0.connect_tcp(server, local, limit)
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        server: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Udp>>>> {
        Box::pin(async move {
            let socket = UdpSocket::bind(local).await?;
            socket.connect(server).await?;
            Ok(Udp(socket))
        })
    }
}

/// Whether the name is in the host's `/etc/hosts`, so that no name server is needed for it.
pub fn is_in_hosts(root: &HostRoot, name: &str) -> bool {
    let hosts = root.resolve("/etc/hosts").and_then(std::fs::read);
    hosts.is_ok_and(|hosts| !addresses_in_hosts(&String::from_utf8_lossy(&hosts), name).is_empty())
}

/// The addresses of a name in a hosts file (hosts(5)).
fn addresses_in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let name = name.trim_end_matches('.');
    text.lines()
        .filter_map(|line| {
            let mut words = line.split('#').next()?.split_ascii_whitespace();
            let address = words.next()?.parse().ok()?;
            words
                .any(|word| word.trim_end_matches('.').eq_ignore_ascii_case(name))
                .then_some(address)
        })
        .collect()
}

/// Parses a `resolv.conf`. Without a name server it means the host itself, as for glibc
/// (resolv.conf(5)).
fn configure(text: &[u8], limit: Duration) -> (ResolverConfig, ResolverOpts) {
    let (config, mut options) = parse_resolv_conf(text).unwrap_or_else(|_| {
        let local = NameServerConfig::udp_and_tcp(IpAddr::V4(Ipv4Addr::LOCALHOST));
        (
            ResolverConfig::from_name_servers(vec![local]),
            ResolverOpts::default(),
        )
    });
    // a dead name server must not use up the time in which the next one would answer
    let asked = u32::try_from(config.name_servers().len())
        .unwrap_or(u32::MAX)
        .saturating_add(1);
    options.timeout = options.timeout.min(limit / asked);
    options.use_hosts_file = ResolveHosts::Never;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // only a handful of names are resolved
    options.cache_size = 16;
    (config, options)
}

/// For hyper's connector: a client of the API server resolves names with it, without NSS.
impl tower::Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolver = self.clone();
        Box::pin(async move {
            let addresses = resolver.lookup(name.as_str()).await?;
            // the connector sets the port
            Ok(addresses
                .into_iter()
                .map(|address| SocketAddr::new(address, 0))
                .collect::<Vec<_>>()
                .into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_file_gives_every_address_of_a_name_whatever_its_case() {
        let text = "127.0.0.1 localhost\n# 10.9.9.9 api\n10.0.0.1\tapi.example api # first\nfd00::1 API.example.\nx api\n";
        let found = |name| {
            addresses_in_hosts(text, name)
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(found("api.example"), ["10.0.0.1", "fd00::1"]);
        assert_eq!(found("Api."), ["10.0.0.1"]);
        assert_eq!(found("first"), [""; 0]);
    }

    #[test]
    fn search_list_and_ndots_are_those_of_the_host() {
        let (config, options) = configure(
            b"search a.example b.example\nnameserver 10.0.0.53\noptions ndots:3\n",
            Duration::from_secs(1),
        );
        assert_eq!(config.search().len(), 2);
        assert_eq!(options.ndots, 3);
        assert_eq!(options.timeout, Duration::from_millis(500));
    }

    #[test]
    fn without_a_name_server_the_host_itself_is_asked() {
        let (config, _) = configure(b"", Duration::from_secs(1));
        assert_eq!(
            config
                .name_servers()
                .iter()
                .map(|server| server.ip)
                .collect::<Vec<_>>(),
            [IpAddr::from([127, 0, 0, 1])]
        );
    }
}
