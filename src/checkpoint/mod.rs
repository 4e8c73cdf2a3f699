//! What a checkpoint is: its format and digest ([`mod@format`]), the twin made from it ([`twin`]), where it is kept
//! ([`store`]), what is in force ([`run`]), the one function by which all of them write ([`mod@write`]), and the system calls that it makes (`disk`).
//!
//! Nothing here talks to the API server, the kubelet or the runtime.

#[cfg(test)]
mod crash_tests;
mod disk;
#[cfg(test)]
mod fault_tests;
pub mod format;
pub mod run;
pub mod store;
#[cfg(test)]
pub mod testing;
pub mod twin;
pub mod write;

pub use format::{Captured, Entry, Handover, Image, NodeCheckpoint, Owner, Parent, Policy, Volume};
