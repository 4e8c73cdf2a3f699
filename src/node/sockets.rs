//! The sockets of another process, found through `sock_diag` (sock_diag(7)) and its
//! `/proc/<pid>/fd`.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::net::netlink;

use crate::node::host::HostRoot;
use crate::node::netlink::{
    ACK, AF_INET, AF_INET6, DUMP, HEADER, Link, attribute, family, head, u32_at,
};

/// State of a TCP socket, as far as it matters here (net/tcp_states.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// `TCP_ESTABLISHED`.
    Established,
    /// `TCP_SYN_SENT`: connecting.
    SynSent,
    /// Any other.
    Other,
}

/// Transport protocol of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// Connected UDP.
    Udp,
}

/// One socket of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// TCP or UDP.
    pub transport: Transport,
    /// State of the socket; `Other` for UDP.
    pub state: State,
    /// Local address.
    pub local: SocketAddr,
    /// Remote address.
    pub remote: SocketAddr,
    /// Received bytes (`tcpi_bytes_received`); 0 for UDP.
    pub received: u64,
    /// Inode, as in `/proc/<pid>/fd`.
    pub inode: u32,
    /// The kernel's cookie of the socket.
    pub cookie: [u32; 2],
}

/// The TCP sockets, IPv4 and IPv6, of the process with this ID that lead to one of `remotes`. With
/// `port`, also its TCP and connected UDP sockets that lead to any address at that port. All in the
/// current network namespace.
///
/// Cheap enough to run every 50 ms: the kernel is asked only for the sockets in question, and the
/// process's descriptors are read only if there are any.
pub fn of_process(
    _root: &HostRoot,
    pid: u32,
    remotes: &[SocketAddr],
    port: Option<u16>,
) -> io::Result<Vec<Socket>> {
    let remotes: Vec<_> = remotes.iter().copied().map(normal).collect();
    // a query walks the kernel's whole table, which takes a third of a millisecond, so only useful
    // ones are made; Go connects to an IPv4 address with an IPv4 socket, so the other family is not
    // queried for it
    let of_remotes = remotes
        .iter()
        .map(|remote| (Transport::Tcp, family(remote.ip()), remote.port()));
    let of_port = port.into_iter().flat_map(|port| {
        [Transport::Tcp, Transport::Udp]
            .into_iter()
            .flat_map(move |transport| {
                [AF_INET, AF_INET6]
                    .into_iter()
                    .map(move |family| (transport, family, port))
            })
    });
    let questions: BTreeSet<_> = of_remotes.chain(of_port).collect();
    let diag = Diag::open()?;
    let mut sockets = Vec::new();
    for (transport, family, remote_port) in questions {
        match diag.dump(family, transport, remote_port, &mut sockets) {
            // a kernel without UDP_DIAG, which could not close such sockets either
            Err(error)
                if transport == Transport::Udp && error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    sockets.retain(|socket| Some(socket.remote.port()) == port || remotes.contains(&socket.remote));
    if sockets.is_empty() {
        return Ok(sockets);
    }
    let owned = inodes(pid)?;
    sockets.retain(|socket| owned.contains(&socket.inode));
    Ok(sockets)
}

/// Closes a socket of another process (`SOCK_DESTROY`, like `ss -K`), which gets ECONNABORTED.
/// Needs CAP_NET_ADMIN and CONFIG_INET_DIAG_DESTROY; without either the error is `Unsupported`.
/// Success if the socket is already gone.
pub fn destroy(socket: &Socket) -> io::Result<()> {
    let diag = Diag::open()?;
    let id = Id {
        local: Some(socket.local),
        remote: Some(socket.remote),
        remote_port: 0,
        cookie: socket.cookie,
    };
    diag.0.send(&request(
        SOCK_DESTROY,
        ACK,
        family(socket.local.ip()),
        socket.transport,
        &id,
    ))?;
    match diag.0.receive(|_| {}) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported
            ) =>
        {
            Err(io::Error::new(io::ErrorKind::Unsupported, error))
        }
        result => result,
    }
}

/// Finds out whether this process can close connections of others, by trying it on one of its own.
/// The error `Unsupported` means no; other errors mean nothing.
pub fn try_destroy(root: &HostRoot) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let remote = listener.local_addr()?;
    let _client = TcpStream::connect_timeout(&remote, Duration::from_secs(1))?;
    let sockets = of_process(root, std::process::id(), &[remote], None).map_err(|error| {
        match error.kind() {
            // a kernel without sock_diag, or without that of TCP
            io::ErrorKind::NotFound | io::ErrorKind::Unsupported => {
                io::Error::new(io::ErrorKind::Unsupported, error)
            }
            _ => error,
        }
    })?;
    sockets.iter().try_for_each(destroy)
}

// linux/sock_diag.h, linux/inet_diag.h, linux/tcp.h, net/tcp_states.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const INET_DIAG_INFO: u16 = 2;
const TCP_ESTABLISHED: u8 = 1;
const TCP_SYN_SENT: u8 = 2;
/// Offset of `tcpi_bytes_received` in `struct tcp_info` (since Linux 4.1).
const BYTES_RECEIVED: usize = 128;
/// Length of `struct inet_diag_msg`.
const MESSAGE: usize = 72;

/// `struct inet_diag_sockid`.
struct Id {
    local: Option<SocketAddr>,
    remote: Option<SocketAddr>,
    /// For a dump: only the sockets that go to this port.
    remote_port: u16,
    cookie: [u32; 2],
}

/// Queries about sockets.
struct Diag(Link);

impl Diag {
    fn open() -> io::Result<Self> {
        Link::open(Some(netlink::SOCK_DIAG)).map(Self)
    }

    /// Adds the established and connecting sockets that lead to this port.
    fn dump(
        &self,
        family: u8,
        transport: Transport,
        remote_port: u16,
        to: &mut Vec<Socket>,
    ) -> io::Result<()> {
        let id = Id {
            local: None,
            remote: None,
            remote_port,
            cookie: [u32::MAX; 2],
        };
        self.0
            .send(&request(SOCK_DIAG_BY_FAMILY, DUMP, family, transport, &id))?;
        self.0
            .receive(|message| to.extend(parse(message, transport)))
    }
}

/// A `struct inet_diag_req_v2` with its header, 72 bytes.
fn request(kind: u16, flags: u16, family: u8, transport: Transport, id: &Id) -> Vec<u8> {
    let (protocol, extensions) = match transport {
        Transport::Tcp => (IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1)),
        Transport::Udp => (IPPROTO_UDP, 0),
    };
    let mut request = head(kind, flags, HEADER + 56);
    request.extend([family, protocol, extensions, 0]);
    request.extend((1_u32 << TCP_ESTABLISHED | 1 << TCP_SYN_SENT).to_ne_bytes());
    request.extend(id.local.map_or(0, |local| local.port()).to_be_bytes());
    request.extend(
        id.remote
            .map_or(id.remote_port, |remote| remote.port())
            .to_be_bytes(),
    );
    for address in [id.local, id.remote] {
        request.extend(match address.map(|address| address.ip()) {
            Some(IpAddr::V4(address)) => {
                let [a, b, c, d] = address.octets();
                [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
            }
            Some(IpAddr::V6(address)) => address.octets(),
            None => [0; 16],
        });
    }
    // any interface
    request.extend([0; 4]);
    request.extend(id.cookie.iter().flat_map(|half| half.to_ne_bytes()));
    request
}

/// A `struct inet_diag_msg` and its attributes.
fn parse(message: &[u8], transport: Transport) -> Option<Socket> {
    let family = *message.first()?;
    let state = match (transport, *message.get(1)?) {
        (Transport::Tcp, TCP_ESTABLISHED) => State::Established,
        (Transport::Tcp, TCP_SYN_SENT) => State::SynSent,
        _ => State::Other,
    };
    let port = |at| {
        Some(u16::from_be_bytes(
            message.get(at..at + 2)?.try_into().ok()?,
        ))
    };
    let address = |at| {
        let bytes: [u8; 16] = message.get(at..at + 16)?.try_into().ok()?;
        let [a, b, c, d, ..] = bytes;
        match family {
            AF_INET => Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d))),
            AF_INET6 => Some(IpAddr::V6(Ipv6Addr::from(bytes))),
            _ => None,
        }
    };
    let received = attribute(message.get(MESSAGE..)?, INET_DIAG_INFO)
        .and_then(|info| info.get(BYTES_RECEIVED..BYTES_RECEIVED + 8))
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_ne_bytes);
    Some(Socket {
        transport,
        state,
        local: normal(SocketAddr::new(address(8)?, port(4)?)),
        remote: normal(SocketAddr::new(address(24)?, port(6)?)),
        received,
        inode: u32_at(message, 68)?,
        cookie: [u32_at(message, 44)?, u32_at(message, 48)?],
    })
}

/// Turns an IPv4-mapped IPv6 address into the IPv4 address.
fn normal(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Inodes of the sockets that a process has open. A descriptor that was closed meanwhile is left
/// out.
fn inodes(pid: u32) -> io::Result<HashSet<u32>> {
    let mut inodes = HashSet::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let Ok(target) = std::fs::read_link(entry?.path()) else {
            continue;
        };
        let inode = target.to_str().and_then(|target| {
            target
                .strip_prefix("socket:[")?
                .strip_suffix("]")?
                .parse::<u32>()
                .ok()
        });
        inodes.extend(inode);
    }
    Ok(inodes)
}

#[cfg(test)]
#[path = "sockets_tests.rs"]
mod tests;
