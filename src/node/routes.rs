//! Blackhole routes to single hosts (rtnetlink(7)), in the current network namespace: how a drill
//! cuts a node off from its API server.
//!
//! They have a protocol number of their own, so that no other route is ever removed, and they do
//! not survive a reboot.

use std::io;
use std::net::IpAddr;

use rustix::io::Errno;

use crate::node::netlink::{ACK, CREATE, HEADER, Link, family, head};

// linux/rtnetlink.h
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RT_TABLE_MAIN: u8 = 254;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RTN_BLACKHOLE: u8 = 6;
const RTA_DST: u16 = 1;
const RTA_PRIORITY: u16 = 6;
/// Length of `struct rtmsg`.
const MESSAGE: usize = 12;
/// Protocol number, which says which program made a route. The kernel assigns no meaning above 4,
/// and no known program uses this one.
const PROTOCOL: u8 = 221;
/// Takes precedence over other routes to the same host; the kernel's default is 1024 for IPv6.
const PRIORITY: u32 = 1;

/// Cuts off a host, from this node and through it: new connections fail at once with `EINVAL`,
/// existing ones wait. The error is `AlreadyExists` if such a route exists already, from this
/// program or another. Needs CAP_NET_ADMIN.
pub fn cut(address: IpAddr) -> io::Result<()> {
    ask(RTM_NEWROUTE, CREATE, address)
}

/// Removes the drill's route to this host. Returns whether there was one.
pub fn restore(address: IpAddr) -> io::Result<bool> {
    match ask(RTM_DELROUTE, 0, address) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(false),
        Err(error) => Err(error),
    }
}

fn ask(kind: u16, flags: u16, address: IpAddr) -> io::Result<()> {
    let link = Link::open(None)?;
    link.send(&request(kind, flags | ACK, address.to_canonical()))?;
    link.receive(|_| {})
}

/// A `struct rtmsg` with its header, the host and the priority.
fn request(kind: u16, flags: u16, address: IpAddr) -> Vec<u8> {
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let mut request = head(kind, flags, HEADER + MESSAGE + 4 + octets.len() + 8);
    let bits = u8::try_from(octets.len() * 8).unwrap_or(u8::MAX);
    request.extend([
        family(address),
        bits,
        0,
        0,
        RT_TABLE_MAIN,
        PROTOCOL,
        RT_SCOPE_UNIVERSE,
        RTN_BLACKHOLE,
        0,
        0,
        0,
        0,
    ]);
    let mut attribute = |kind: u16, value: &[u8]| {
        request.extend(
            u16::try_from(4 + value.len())
                .unwrap_or(u16::MAX)
                .to_ne_bytes(),
        );
        request.extend(kind.to_ne_bytes());
        request.extend(value);
    };
    attribute(RTA_DST, &octets);
    attribute(RTA_PRIORITY, &PRIORITY.to_ne_bytes());
    request
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::node::netlink::u32_at;

    #[test]
    fn a_request_is_as_long_as_it_says() {
        for (address, length) in [("192.0.2.1", 44), ("2001:db8::1", 56)] {
            let request = request(RTM_NEWROUTE, CREATE, address.parse().unwrap());
            assert_eq!(
                (request.len(), u32_at(&request, 0)),
                (length, Some(u32::try_from(length).unwrap()))
            );
        }
    }

    /// Runs in a network namespace of its own (unshare(1)), so that no route of this machine
    /// changes.
    #[test]
    fn a_host_is_cut_off_and_restored_and_only_the_drills_route_is_removed() {
        const INSIDE: &str = "POD_CHECKPOINTER_TEST_IN_A_NETWORK_OF_ITS_OWN";
        if std::env::var_os(INSIDE).is_some() {
            return cut_and_restore();
        }
        let name = "node::routes::tests::a_host_is_cut_off_and_restored_and_only_the_drills_route_is_removed";
        let mut alone = std::process::Command::new("unshare");
        alone.args(["--net", "true"]);
        if !alone.status().is_ok_and(|status| status.success()) {
            // not every user may create a network namespace
            return eprintln!("not tested: cannot create a network namespace");
        }
        let mut again = std::process::Command::new("unshare");
        again
            .arg("--net")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(INSIDE, "1");
        let again = again.output().unwrap();
        let said = String::from_utf8_lossy(&again.stdout).into_owned();
        assert!(
            again.status.success() && said.contains("1 passed"),
            "{said}"
        );
    }

    fn cut_and_restore() {
        // loopback is down in a new network, and with it every IPv6 address: only IPv4 can be
        // dialled
        for address in ["192.0.2.77", "2001:db8::77"] {
            let address: IpAddr = address.parse().unwrap();
            match cut(address) {
                // not every machine has IPv6
                Err(error) if address.is_ipv6() && error.kind() != io::ErrorKind::AlreadyExists => {
                    eprintln!("not tested: {error}");
                    continue;
                }
                result => result.unwrap(),
            }
            assert_eq!(
                cut(address).unwrap_err().kind(),
                io::ErrorKind::AlreadyExists
            );
            let dialled =
                TcpStream::connect_timeout(&SocketAddr::new(address, 9), Duration::from_secs(5));
            assert!(restore(address).unwrap());
            assert!(!restore(address).unwrap());
            if address.is_ipv4() {
                assert_eq!(
                    dialled.unwrap_err().raw_os_error(),
                    Some(Errno::INVAL.raw_os_error())
                );
            }
        }
    }
}
