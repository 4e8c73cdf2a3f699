//! The node as seen: its files ([`host`]), clocks ([`clock`]), the kubelet ([`kubelet`]), the container runtime
//! ([`runtime`]), what the kubelet thinks of images ([`images`]), contact with the API server ([`contact`], with names
//! looked up by [`resolve`]), the kubelet's own sockets ([`sockets`]), its mounts
//! ([`mounts`]), the pod network's configuration ([`network`]) and the end of the kubelet's certificate ([`certificate`]);
//! and [`routes`], with which a drill cuts it off.
//!
//! Everything here asks; only [`runtime`], [`sockets`] and [`routes`] also act. Nothing here decides. Every wait has a time
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
pub mod process;
#[doc(hidden)]
pub mod proto;
pub mod resolve;
pub mod routes;
pub mod runtime;
pub mod sockets;
