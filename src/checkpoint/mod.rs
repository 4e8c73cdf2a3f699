//! What a checkpoint is: its format and digest ([`mod@format`]), its encoding of bytes
//! ([`encoding`]), how it is sealed ([`seal`]) and with which keys ([`keys`]), and the twin made
//! from it ([`twin`]).
//!
//! Nothing here talks to the API server, the kubelet or the runtime, and nothing here knows where a
//! checkpoint is kept; that is [`crate::places`]'s task.

pub mod encoding;
pub mod format;
pub mod keys;
pub mod seal;
#[cfg(test)]
pub mod testing;
pub mod twin;

pub use format::{Captured, Entry, Handover, Image, NodeCheckpoint, Owner, Parent, Policy, Volume};
