//! Brings marked pods back on a Kubernetes node that restarts without its API server, and hands
//! them back.
//!
//! ```text
//!              API server
//!                  │ watch pods of this node · PodCheckpoint status · Events
//!           ┌──────▼──────┐   capture    ┌─────────────────────────────┐
//!           │    agent    │◄─────────────│ kubelet volumes, runtime env │
//!           │ (DaemonSet) │              └─────────────────────────────┘
//!           └──────┬──────┘
//!                  │ writes checkpoints, installs the supervisor
//!           ┌──────▼──────┐
//!           │ checkpoint  │  one file per generation, with a digest
//!           └──────┬──────┘
//!                  │ reads
//!           ┌──────▼──────┐   asks: does the API server answer? what does the
//!           │ supervisor  │         kubelet own? what runs in the runtime?
//!           │ (static pod)│
//!           └──────┬──────┘
//!                  │ links / unlinks manifests
//!           kubelet's static pod directory
//! ```
//!
//! `docs/architecture.md` is the map: what each folder owns, what may import what, four walks
//! through the code, and the invariants that a change keeps. `CONTRIBUTING.md` says how to test and
//! send a change.
//!
//! Input and output are at the ends ([`node`], [`agent`], `supervisor::shell`); what decides
//! ([`supervisor::core`], `agent::index`) and what turns a pod into a manifest
//! ([`capture::manifest`], [`capture::environment`]) is pure and takes the time as an argument.
//!
//! # Words
//!
//! - **parent**: a pod in the API server that its owner has marked.
//! - **checkpoint**: everything needed to run the parent again, in one file. A **generation** is
//!   one version of it.
//! - **twin**: the static pod made from a checkpoint, with a UID of its own.
//! - **capture**: make a checkpoint of a parent that is Ready.
//! - **contact**: what is known about the API server: a class, such as "answering" or "silent", and
//!   the time since when.
//! - **owned**: managed by the kubelet process that runs now, according to that kubelet.
//! - **activate**: unpack a checkpoint to memory and link its twin into the kubelet's manifest
//!   directory.
//! - **release**: remove that link and let the twin serve on. **take over**: the parent serves
//!   again.
//! - **pass**: one round of the supervisor: ask, decide, act, report. **facts**: what a pass knows;
//!   unknown is never absent.
//! - **retire**: leave the node as it was before.

// a closed pipe must stop no command: see `console`
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

pub mod agent;
pub mod api;
pub mod args;
pub mod capture;
pub mod checkpoint;
pub mod cli;
pub mod client;
pub mod console;
pub mod drill;
pub mod files;
pub mod metrics;
pub mod names;
pub mod node;
pub mod operator;
pub mod places;
pub mod pod;
pub mod problems;
pub mod reasons;
pub mod supervisor;
pub mod text;
