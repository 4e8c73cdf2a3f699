//! pod-checkpointer.

pub mod capture;
pub mod checkpoint;
pub mod names;
pub mod node;
