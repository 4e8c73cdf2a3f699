//! Everything that is asked of the node: its files ([`host`]), clocks ([`clock`]), mounts
//! ([`mounts`]), SELinux ([`selinux`]) and network configuration ([`network`]); the kubelet ([`kubelet`]), its sockets
//! ([`sockets`]), its rules for images ([`images`]), its proxies ([`proxy`]) and the expiry of its certificate
//! ([`certificate`]); the container runtime ([`runtime`]); probes of the API server ([`probe`],
//! whose names [`resolve`] looks up) and the contact that follows from them ([`contact`]); and
//! [`routes`], with which a drill cuts the node off.
//!
//! Everything here asks; only [`runtime`], [`sockets`] and [`routes`] also act. Nothing here
//! decides what is done; [`contact`] is pure and turns the outcomes of probes into a class. Every
//! wait has a time limit, and what could not be found out is an error, never an empty answer.

pub mod certificate;
pub mod clock;
pub mod contact;
mod grpc;
pub mod host;
pub mod images;
pub mod kubelet;
pub mod mounts;
mod netlink;
pub mod network;
pub mod probe;
pub mod process;
#[doc(hidden)]
pub mod proto;
pub mod proxy;
pub mod resolve;
pub mod routes;
pub mod runtime;
pub mod selinux;
pub mod sockets;
