//! What a checkpoint is: its format and digest ([`format`]), the twin made from it ([`twin`]), and where it is kept
//! ([`store`], by way of the one function that writes what must last, [`write`]).
//!
//! Nothing here talks to the API server, the kubelet or the runtime.

pub mod format;
pub mod store;
pub mod twin;
pub mod write;

pub use format::{Captured, Entry, Handover, Image, NodeCheckpoint, Owner, Parent, Policy, Volume};
