//! The node as seen: its files ([`host`]), clocks ([`clock`]), the kubelet ([`kubelet`]), the container runtime
//! ([`runtime`]), what the kubelet thinks of images ([`images`]), probes of the API server ([`probe`], with names looked up by
//! [`resolve`]) and what they make of contact ([`contact`]), the kubelet's own sockets ([`sockets`]), its mounts
//! ([`mounts`]), the pod network's configuration ([`network`]) and the end of the kubelet's certificate ([`certificate`]);
//! and [`routes`], with which a drill cuts it off.
//!
//! Everything here asks; only [`runtime`], [`sockets`] and [`routes`] also act. Nothing here decides what is done; [`contact`], which
//! is pure, says what the outcomes of probes amount to. Every wait has a time
//! limit, and what could not be learned is an error, never an empty answer.

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
pub mod resolve;
pub mod routes;
pub mod runtime;
pub mod sockets;
