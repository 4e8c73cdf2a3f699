//! The integration tests, one binary. A test goes into the module of the part that it is about, and uses the least of the
//! node in memory (`tests/stub`) that can show it. What needs no node at all is beside the code.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../stub/mod.rs"]
mod stub;

mod agent;
mod capture;
mod charts;
mod cli;
mod drill;
mod fuzz;
mod life;
mod metrics;
mod node;
mod operator;
mod render;
