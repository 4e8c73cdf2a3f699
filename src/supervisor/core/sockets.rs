//! The kubelet's own sockets to the API server: does the kubelet receive answers, and which sockets
//! block it? Pure.

use std::collections::HashMap;
use std::time::Duration;

use crate::node::sockets::{Socket, State};
use crate::supervisor::core::facts::Seen;

/// The most bytes that a server sends before any request: its side of TLS, with its certificates
/// and the names of the CAs that it trusts, and the settings of HTTP/2.
const LONGEST_GREETING: u64 = 16 * 1024;
/// Fewer bytes than this are no answer. The reply to an HTTP/2 ping, which also comes from a server
/// that answers no request, has 39 bytes.
const LEAST_ANSWER: u64 = 128;
/// A connection that received nothing for this long counts as waiting, whatever it received before:
/// an API server whose etcd hangs answers some requests with 5xx at once, and others after a
/// minute.
const IDLE: Duration = Duration::from_secs(1);

/// What is remembered about the kubelet's sockets while something is active or about to be handed
/// over.
#[derive(Debug, Default)]
pub struct KubeletSockets {
    /// Each socket at the last look: a connection from before the outage may stay established for
    /// long, so only new bytes are a sign. `None`: not looked yet.
    before: Option<HashMap<[u32; 2], Before>>,
    /// How many bytes a connection received although the server answers nothing: a server can
    /// finish TLS and then stay silent, for example without its etcd. Every connection to it begins
    /// with this many, and they are no sign. 0: there was no such connection.
    greeting: u64,
    connected: Seen,
    closed: usize,
}

/// One socket at the last look.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    received: u64,
    /// When the last of these bytes came, or were first seen.
    changed: Duration,
    /// It received an answer since something was linked.
    has_answered: bool,
}

impl KubeletSockets {
    /// Forgets everything: nothing is linked, bytes received so far must not count as a sign, or
    /// the kubelet is another process.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether the kubelet received from the API server since something was linked.
    pub fn connected(&self) -> Seen {
        self.connected
    }

    /// Takes in the sockets of a look; `None`: they could not be listed. True if the kubelet
    /// receives from the API server and did not before.
    pub fn look(&mut self, found: Option<&[Socket]>, now: Duration) -> bool {
        let Some(found) = found else {
            self.connected = Seen::Unknown;
            return false;
        };
        if self.before.is_none() {
            let greetings = found
                .iter()
                .map(|socket| socket.received)
                .filter(|received| *received <= LONGEST_GREETING);
            self.greeting = greetings.max().unwrap_or_default();
        }
        let seen: HashMap<_, _> = found
            .iter()
            .map(|socket| {
                let has_answered = self.before.is_some() && self.has_answered(socket);
                let known = self
                    .known(socket)
                    .filter(|known| known.received == socket.received);
                let changed = known.map_or(now, |known| known.changed);
                (
                    socket.cookie,
                    Before {
                        received: socket.received,
                        changed,
                        has_answered,
                    },
                )
            })
            .collect();
        let hears = seen.values().any(|socket| socket.has_answered);
        let is_news = hears && !self.connected.is_yes();
        self.connected = hears.into();
        self.before = Some(seen);
        is_news
    }

    /// Whether this connection received an answer since something was linked.
    fn has_answered(&self, socket: &Socket) -> bool {
        let before = self.known(socket).unwrap_or_default();
        let known = before.received.max(self.greeting);
        // if no connection received anything before, the first byte is a sign
        let least = if known == 0 { 1 } else { LEAST_ANSWER };
        let is_new = socket.received.saturating_sub(known) >= least;
        socket.state == State::Established && (before.has_answered || is_new)
    }

    fn known(&self, socket: &Socket) -> Option<Before> {
        self.before
            .as_ref()
            .and_then(|before| before.get(&socket.cookie))
            .copied()
    }

    /// Whether it waits for an answer. If the API server answers 5xx (`failing`), bytes received
    /// earlier do not count.
    pub fn waits(&self, socket: &Socket, failing: bool, now: Duration) -> bool {
        if failing {
            self.known(socket).is_some_and(|known| {
                known.received == socket.received && now.saturating_sub(known.changed) >= IDLE
            })
        } else {
            !self.has_answered(socket)
        }
    }

    /// This many waiting sockets were closed. True if they are the first since something was
    /// linked.
    pub fn count_closed(&mut self, closed: usize) -> bool {
        let is_first = self.closed == 0 && closed > 0;
        self.closed += closed;
        is_first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    use crate::node::sockets::Transport;

    const NOW: Duration = Duration::from_mins(1);

    fn socket(number: u32, state: State, received: u64) -> Socket {
        let address = SocketAddr::from(([10, 1, 0, 1], 6443));
        let (local, remote) = (address, address);
        Socket {
            transport: Transport::Tcp,
            state,
            local,
            remote,
            received,
            inode: number,
            cookie: [number, 0],
        }
    }

    fn established(number: u32, received: u64) -> Socket {
        socket(number, State::Established, received)
    }

    #[test]
    fn the_first_byte_is_a_sign_if_nothing_came_before() {
        let mut sockets = KubeletSockets::default();
        assert!(
            !sockets.look(Some(&[socket(1, State::SynSent, 0)]), NOW),
            "bytes received before something becomes active are no sign"
        );
        assert_eq!(sockets.connected(), Seen::No);
        assert!(sockets.look(Some(&[established(1, 1)]), NOW));
        assert!(!sockets.look(Some(&[established(1, 1)]), NOW), "no news");
        assert_eq!(sockets.connected(), Seen::Yes);
    }

    #[test]
    fn a_server_that_finishes_tls_and_then_sends_nothing_is_no_sign() {
        let mut sockets = KubeletSockets::default();
        sockets.look(Some(&[established(1, 2_400)]), NOW);
        assert!(
            !sockets.look(Some(&[established(1, 2_439)]), NOW),
            "a ping's reply"
        );
        assert!(
            !sockets.look(Some(&[established(2, 900)]), NOW),
            "another connection, in the middle of TLS"
        );
        assert!(!sockets.look(Some(&[established(2, 2_410)]), NOW));
        for pings in 1..100 {
            assert!(
                !sockets.look(Some(&[established(2, 2_410 + pings * 39)]), NOW),
                "{pings} replies to pings"
            );
        }
        assert!(
            !sockets.has_answered(&established(3, 2_400)),
            "so it may be closed"
        );
        assert!(
            sockets.look(Some(&[established(3, 2_900)]), NOW),
            "an answer"
        );
        assert!(
            sockets.has_answered(&established(3, 2_900)),
            "so it may not"
        );
        assert_eq!(sockets.connected(), Seen::Yes);
    }

    #[test]
    fn a_connection_from_before_the_outage_is_a_sign_once_it_receives_more() {
        let mut sockets = KubeletSockets::default();
        sockets.look(Some(&[established(1, 5_000_000)]), NOW);
        assert!(!sockets.look(Some(&[established(1, 5_000_000)]), NOW));
        assert!(sockets.look(Some(&[established(1, 5_000_700)]), NOW));
        sockets.reset();
        sockets.look(
            Some(&[established(1, 5_000_000), socket(2, State::SynSent, 0)]),
            NOW,
        );
        assert!(
            sockets.look(Some(&[established(1, 5_000_000), established(2, 10)]), NOW),
            "the old connection is not a new greeting"
        );
    }

    #[test]
    fn if_the_server_answers_5xx_a_connection_waits_once_nothing_came_for_a_second() {
        let (mut sockets, at) = (KubeletSockets::default(), Duration::from_millis);
        assert!(
            !sockets.waits(&established(1, 2_400), true, at(0)),
            "never seen"
        );
        sockets.look(Some(&[established(1, 2_400)]), at(0));
        sockets.look(Some(&[established(1, 2_900)]), at(500));
        sockets.look(Some(&[established(1, 2_900)]), at(1_400));
        assert!(
            !sockets.waits(&established(1, 2_900), true, at(1_400)),
            "0.9 s"
        );
        assert!(sockets.waits(&established(1, 2_900), true, at(1_500)));
        assert!(
            !sockets.waits(&established(1, 2_901), true, at(1_500)),
            "something came at this moment"
        );
        assert!(
            !sockets.waits(&established(1, 2_900), false, at(1_500)),
            "it received an answer, which counts elsewhere"
        );
    }

    #[test]
    fn a_connection_that_ended_is_no_sign() {
        let mut sockets = KubeletSockets::default();
        sockets.look(Some(&[]), NOW);
        assert!(!sockets.look(Some(&[socket(1, State::Other, 700)]), NOW));
        assert!(sockets.look(Some(&[established(2, 700)]), NOW));
        sockets.look(Some(&[socket(2, State::Other, 700)]), NOW);
        assert_eq!(sockets.connected(), Seen::No);
    }
}
