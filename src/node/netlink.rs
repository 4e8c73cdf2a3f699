//! Requests to the kernel over netlink (netlink(7)), one at a time.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

// linux/netlink.h, linux/socket.h
const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`: the answer says whether the request succeeded.
pub const ACK: u16 = 0x4;
/// `NLM_F_DUMP`: the answer is a list.
pub const DUMP: u16 = 0x300;
/// `NLM_F_CREATE | NLM_F_EXCL`: create what does not exist yet.
pub const CREATE: u16 = 0x600;
/// `AF_INET`.
pub const AF_INET: u8 = 2;
/// `AF_INET6`.
pub const AF_INET6: u8 = 10;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Length of `struct nlmsghdr`.
pub const HEADER: usize = 16;
/// Size of the buffer in bytes; the kernel never sends more at once.
const BUFFER: usize = 32 * 1024;
/// Time limit for an answer. The kernel answers at once; this only guards against a bug.
const LIMIT: Duration = Duration::from_secs(1);

/// A socket for one request after another.
pub struct Link(OwnedFd);

impl Link {
    /// Opens a socket for this protocol; `None` is `NETLINK_ROUTE`, whose number is 0.
    pub fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        set_socket_timeout(&socket, Timeout::Recv, Some(LIMIT))?;
        Ok(Self(socket))
    }

    /// Sends a complete request.
    pub fn send(&self, request: &[u8]) -> io::Result<()> {
        send(&self.0, request, SendFlags::empty())?;
        Ok(())
    }

    /// Passes every message of an answer to `each`, without its header, until the answer is
    /// complete. If the request failed, the error has the kernel's number.
    pub fn receive(&self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let (length, _) = recv(&self.0, &mut buffer, RecvFlags::empty())?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            if rest.is_empty() {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            while let (Some(length), Some(kind)) = (u32_at(rest, 0), u16_at(rest, 4)) {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let Some(message) = rest.get(HEADER..length) else {
                    return Err(io::Error::from(io::ErrorKind::InvalidData));
                };
                match kind {
                    DONE | ERROR => {
                        return match u32_at(message, 0).map(u32::cast_signed) {
                            Some(code) if code < 0 => {
                                Err(io::Error::from_raw_os_error(code.saturating_neg()))
                            }
                            _ => Ok(()),
                        };
                    }
                    _ => each(message),
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// The header of a request with this total length. Sequence number and port are 0: there is one
/// request at a time, and the kernel fills in the port.
pub fn head(kind: u16, flags: u16, length: usize) -> Vec<u8> {
    let mut request = Vec::with_capacity(length);
    request.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend((REQUEST | flags).to_ne_bytes());
    request.extend([0; 8]);
    request
}

/// The value of one of the attributes (rtnetlink(3)); `None` if it is missing.
pub fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16_at(attributes, 0)?);
        let value = attributes.get(4..length)?;
        if u16_at(attributes, 2)? == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

/// The number at this offset.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// `AF_INET` or `AF_INET6`.
pub fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}
