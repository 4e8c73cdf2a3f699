//! Where metrics are served: `IP:PORT`, `:PORT` for all addresses, or `off`.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use rustix::net::sockopt::set_ipv6_v6only;
use tokio::net::{TcpListener, TcpSocket};

/// Connections that may wait in the kernel to be accepted. It drops what exceeds this, and the
/// client then retries only after a second.
const BACKLOG: u32 = 128;

/// Where metrics are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// Nowhere.
    Off,
    /// At this port of all addresses, those of IPv6 included if the node has IPv6.
    All(u16),
    /// At this address.
    At(SocketAddr),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = match text.strip_prefix(':') {
            _ if matches!(text, "" | "off") => Some(Self::Off),
            Some(port) => port.parse().ok().map(Self::All),
            None => text.parse().ok().map(Self::At),
        };
        let is_real = |address: &Self| {
            !matches!(address, Self::All(0)) && !matches!(address, Self::At(at) if at.port() == 0)
        };
        parsed.filter(is_real).ok_or_else(|| {
            "write IP:PORT, :PORT or off, for example 127.0.0.1:9798, :9798 or off".to_owned()
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::All(port) => write!(f, ":{port}"),
            Self::At(address) => address.fmt(f),
        }
    }
}

impl Address {
    /// The address of the supervisor whose agent has this one: the next port, on 127.0.0.1.
    /// Scrapers get the supervisor's metrics from the agent, so it need not be reachable from
    /// outside the node.
    #[must_use]
    pub fn beside(self) -> Self {
        let port = match self {
            Self::Off => return Self::Off,
            Self::All(port) => port,
            Self::At(address) => address.port(),
        };
        let next = port.checked_add(1).unwrap_or(port - 1);
        Self::At(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), next))
    }

    /// Listens at the address; `None` if metrics are off.
    pub fn listen(self) -> io::Result<Option<TcpListener>> {
        let address = match self {
            Self::Off => return Ok(None),
            Self::At(address) => address,
            Self::All(port) => match listen((Ipv6Addr::UNSPECIFIED, port).into()) {
                // without IPv6 the protocol or its address is missing; a port in use is in use for
                // both
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                    (Ipv4Addr::UNSPECIFIED, port).into()
                }
                listener => return listener.map(Some),
            },
        };
        listen(address).map(Some)
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // connections that an earlier process left in TIME-WAIT must not keep the port in use
    socket.set_reuseaddr(true)?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        // accept IPv4 as well, whatever the node's default is
        set_ipv6_v6only(&socket, false)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Address, String> {
        text.parse()
    }

    #[test]
    fn an_address_is_parsed_as_it_is_displayed() {
        for text in [
            ":9797",
            "127.0.0.1:9798",
            "[::1]:9798",
            "[::]:9798",
            "0.0.0.0:1",
            "off",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        assert_eq!(parse("").unwrap(), Address::Off);
        for text in [
            ":",
            ":0",
            "127.0.0.1:0",
            "9797",
            ":65536",
            "127.0.0.1",
            "localhost:9797",
            "::1:9797",
            "OFF",
            " :9797",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_supervisor_serves_at_the_port_after_its_agents_and_only_its_own_node() {
        for (agent, supervisor) in [
            (":9797", "127.0.0.1:9798"),
            ("10.0.0.1:80", "127.0.0.1:81"),
            ("[::1]:65535", "127.0.0.1:65534"),
            ("off", "off"),
        ] {
            assert_eq!(parse(agent).unwrap().beside().to_string(), supervisor);
        }
    }

    #[tokio::test]
    async fn all_addresses_are_those_of_ipv4_and_of_ipv6() {
        let free = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = free.local_addr().unwrap().port();
        let taken = Address::All(port).listen().unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        drop(free);
        let _listener = Address::All(port).listen().unwrap().unwrap();
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        if std::net::TcpListener::bind("[::1]:0").is_ok() {
            std::net::TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        }
        assert!(Address::Off.listen().unwrap().is_none());
    }
}
