//! Brings marked pods back on a Kubernetes node that restarts without its API server, and hands them over again.
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
//!           │ checkpoint  │  one file a generation, with a digest
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
//! Input and output are at the ends ([`node`], [`agent`], `supervisor::shell`); what decides ([`supervisor::core`],
//! [`agent::index`]) and what turns a pod into a manifest ([`capture::manifest`], [`capture::environment`]) is pure and
//! takes the time as an argument.
//!
//! # Words
//!
//! - **parent**: the pod of the API server that its owner marked.
//! - **checkpoint**: all that is needed to run it again, in one file; a **generation** is one state of it.
//! - **twin**: the static pod made from a checkpoint, with a UID of its own.
//! - **capture**: make a checkpoint of a parent that is Ready.
//! - **contact**: what is known of the API server, as a class with the time since when.
//! - **owned**: managed by the kubelet process that runs now, by its own word.
//! - **activate**: unpack a checkpoint to memory and link its twin; **release**: remove the link and let the twin serve on;
//!   **take over**: the parent serves again.
//! - **pass**: ask, decide, do, tell; **facts**: what a pass knows, where unknown is never absent.
//! - **retire**: leave the node as it was before.

pub mod agent;
pub mod api;
pub mod args;
pub mod capture;
pub mod checkpoint;
pub mod cli;
pub mod client;
pub mod drill;
pub mod files;
pub mod metrics;
pub mod names;
pub mod node;
pub mod operator;
pub mod places;
pub mod pod;
pub mod reasons;
pub mod supervisor;
pub mod text;
