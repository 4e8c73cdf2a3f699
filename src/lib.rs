//! pod-checkpointer.

pub mod agent;
pub mod api;
pub mod args;
pub mod capture;
pub mod checkpoint;
pub mod cli;
pub mod names;
pub mod node;
pub mod report;
pub mod supervisor;
