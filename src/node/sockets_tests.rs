use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};

use super::*;

fn ours(remote: SocketAddr, port: Option<u16>) -> Vec<Socket> {
    of_process(&HostRoot::new("/"), std::process::id(), &[remote], port).unwrap()
}

/// A listener, a connection to it and the accepted end, with `sent` bytes on the way to the client.
fn connected(address: &str, sent: &[u8]) -> (SocketAddr, TcpStream, TcpStream) {
    let listener = TcpListener::bind(address).unwrap();
    let remote = listener.local_addr().unwrap();
    let mut client = TcpStream::connect(remote).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.write_all(sent).unwrap();
    client.read_exact(&mut vec![0; sent.len()]).unwrap();
    (remote, client, server)
}

#[test]
fn a_connection_is_found_with_the_bytes_that_arrived_on_it() {
    for (address, sent) in [("127.0.0.1:0", &b"hello"[..]), ("[::1]:0", b"")] {
        let (remote, client, _server) = connected(address, sent);
        let found = ours(remote, None);
        let [socket] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert_eq!(socket.transport, Transport::Tcp);
        assert_eq!(socket.state, State::Established);
        assert_eq!(socket.local, client.local_addr().unwrap());
        assert_eq!(socket.remote, remote);
        assert_eq!(socket.received, sent.len() as u64);
    }
}

#[test]
fn an_ipv4_address_used_by_an_ipv6_socket_is_found_as_ipv4() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut client =
        TcpStream::connect(SocketAddr::new("::ffff:127.0.0.1".parse().unwrap(), port)).unwrap();
    let found = ours(listener.local_addr().unwrap(), Some(port));
    let [socket] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(socket.remote, listener.local_addr().unwrap());
    match destroy(socket) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
        result => {
            result.unwrap();
            assert_eq!(
                client.read(&mut [0]).unwrap_err().kind(),
                io::ErrorKind::ConnectionAborted
            );
        }
    }
}

#[test]
fn another_process_and_another_remote_have_no_part_in_it() {
    let (remote, _client, _server) = connected("127.0.0.1:0", b"");
    let other = SocketAddr::new("127.0.0.2".parse().unwrap(), remote.port());
    assert_eq!(ours(other, None), []);
    let parent = rustix::process::getppid()
        .unwrap()
        .as_raw_nonzero()
        .get()
        .unsigned_abs();
    assert_eq!(
        of_process(&HostRoot::new("/"), parent, &[remote], None).unwrap(),
        []
    );
}

#[test]
fn with_a_port_connected_udp_sockets_are_found_too() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let remote = server.local_addr().unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(remote).unwrap();
    let nowhere = "127.0.0.1:1".parse().unwrap();
    let found = ours(nowhere, Some(remote.port()));
    let [socket] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(
        (socket.transport, socket.state),
        (Transport::Udp, State::Other)
    );
    assert_eq!(socket.local, client.local_addr().unwrap());
    assert_eq!(ours(remote, None), []);
}

#[test]
fn a_dead_process_is_an_error_and_not_one_without_sockets() {
    let (remote, _client, _server) = connected("127.0.0.1:0", b"");
    assert!(of_process(&HostRoot::new("/"), u32::MAX, &[remote], None).is_err());
}

#[test]
fn trying_says_what_closing_a_connection_says() {
    let (remote, _client, _server) = connected("127.0.0.1:0", b"");
    let closed = destroy(&ours(remote, None).remove(0));
    let tried = try_destroy(&HostRoot::new("/"));
    assert_eq!(
        tried.map_err(|error| error.kind()),
        closed.map_err(|error| error.kind())
    );
}

#[test]
fn a_destroyed_connection_is_aborted_and_destroying_it_again_is_no_error() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (remote, mut client, _server) = connected(address, b"");
        let socket = ours(remote, None).remove(0);
        match destroy(&socket) {
            // not every user may do this, and not every kernel can
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                return eprintln!("not tested: {error}");
            }
            result => result.unwrap(),
        }
        assert_eq!(
            client.read(&mut [0]).unwrap_err().kind(),
            io::ErrorKind::ConnectionAborted
        );
        destroy(&socket).unwrap();
    }
}

/// A listener whose queue is full does not answer: clients wait as with a black hole.
#[test]
fn a_dialling_socket_is_found_and_closing_it_ends_the_dial() {
    use std::time::Duration;

    use rustix::net::{AddressFamily, SocketType, bind, getsockname, ipproto, listen, socket};

    let listener = socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::TCP)).unwrap();
    bind(&listener, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    listen(&listener, 0).unwrap();
    let remote = SocketAddr::try_from(getsockname(&listener).unwrap()).unwrap();
    let _first = TcpStream::connect(remote).unwrap();
    let dial =
        std::thread::spawn(move || TcpStream::connect_timeout(&remote, Duration::from_secs(10)));
    let dialling = loop {
        match ours(remote, None)
            .into_iter()
            .find(|socket| socket.state == State::SynSent)
        {
            Some(socket) => break socket,
            None => std::thread::yield_now(),
        }
    };
    assert_eq!((dialling.remote, dialling.received), (remote, 0));
    match destroy(&dialling) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            eprintln!("not tested: {error}");
        }
        result => {
            result.unwrap();
            assert_eq!(
                dial.join().unwrap().unwrap_err().kind(),
                io::ErrorKind::ConnectionAborted
            );
        }
    }
}

#[test]
fn a_request_is_as_long_as_it_says() {
    let id = Id {
        local: None,
        remote: Some("[::1]:443".parse().unwrap()),
        remote_port: 0,
        cookie: [1, 2],
    };
    let request = request(SOCK_DESTROY, ACK, AF_INET6, Transport::Tcp, &id);
    assert_eq!(request.len(), 72);
    assert_eq!(u32_at(&request, 0), Some(72));
}

#[test]
fn a_torn_message_is_no_socket() {
    let whole = [AF_INET, TCP_ESTABLISHED]
        .into_iter()
        .chain([0; MESSAGE - 2])
        .collect::<Vec<_>>();
    assert!(parse(&whole, Transport::Tcp).is_some());
    for length in 0..MESSAGE {
        assert_eq!(parse(&whole[..length], Transport::Tcp), None);
    }
}
