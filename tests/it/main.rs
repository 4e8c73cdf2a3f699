//! The integration tests, one binary. Where a new test goes:
//!
//! * What needs no node at all is tested next to the code: in its file, or above 100 lines in
//!   `<module>_tests.rs`.
//! * `capture`: what a checkpoint has in it, given a pod and what runs; one file a theme.
//! * `agent`: when the agent captures, removes and publishes, against an API server; one file a
//!   theme.
//! * `supervisor`: stories of outages, from a boot without the API server to the hand-over; one
//!   file a theme.
//! * `operator`: what becomes of a PodCheckpointer.
//! * `node`: each query to the node, when what is queried works, is gone, hangs, or refuses.
//! * `cli`, `render`, `drill`: commands, run as processes.
//! * `metrics`: what the parts export, and their health, over HTTP.
//! * `charts`: pods as well-known projects ship them, and the verdict on each.
//! * `fuzz`: readers of untrusted input, on mutations of the seeds of `fuzz/`.
//! * What only a real kubelet, kernel or container runtime can show is a story of `tests/node`.
//!
//! A test uses the least of the node in memory (`tests/stub`) that can show it, waits with `until`
//! or `eventually` and never by sleeping, and takes no fixed port. Its name is the sentence that it
//! proves.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "../stub/mod.rs"]
mod stub;

mod agent;
mod capture;
mod charts;
mod cli;
mod drill;
mod fuzz;
mod metrics;
mod node;
mod operator;
mod render;
mod supervisor;
