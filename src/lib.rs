//! pod-checkpointer.

pub mod args;
pub mod capture;
pub mod checkpoint;
pub mod names;
pub mod node;
pub mod report;
pub mod supervisor;
