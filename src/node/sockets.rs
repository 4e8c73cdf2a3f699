//! The sockets of another process, through `sock_diag` (sock_diag(7)) and its `/proc/<pid>/fd`.

use std::io;
use std::net::SocketAddr;

use crate::node::host::HostRoot;

/// State of a TCP socket that matters here (net/tcp_states.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// `TCP_ESTABLISHED`.
    Established,
    /// `TCP_SYN_SENT`: dialling.
    SynSent,
    /// Any other.
    Other,
}

/// Transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP, connected.
    Udp,
}

/// One socket of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// TCP or UDP.
    pub transport: Transport,
    /// Its state; `Other` for UDP.
    pub state: State,
    /// Its own address.
    pub local: SocketAddr,
    /// Where it goes.
    pub remote: SocketAddr,
    /// Bytes that came in (`tcpi_bytes_received`); 0 for UDP.
    pub received: u64,
    /// Inode, as in `/proc/<pid>/fd`.
    pub inode: u32,
    /// The kernel's cookie for it.
    pub cookie: [u32; 2],
}

/// The TCP and connected UDP sockets, IPv4 and IPv6, of the process with this id that go to one of `remotes` or, with
/// `port`, to any address at that port. In the network namespace that we are in.
pub fn of_process(_root: &HostRoot, _pid: u32, _remotes: &[SocketAddr], _port: Option<u16>) -> io::Result<Vec<Socket>> {
    todo!("node helper")
}

/// Closes a socket from outside (`SOCK_DESTROY`, what `ss -K` does): its owner sees ECONNABORTED. Needs CAP_NET_ADMIN and
/// CONFIG_INET_DIAG_DESTROY; without it the error is `Unsupported`. Gone already is success.
pub fn destroy(_socket: &Socket) -> io::Result<()> {
    todo!("node helper")
}
