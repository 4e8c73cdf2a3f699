//! The only way to read and write files: trusted reads ([`mod@read`], [`yaml`]), durable writes
//! ([`mod@write`], whose system calls are in `disk`), and locks ([`lock`]).

pub(crate) mod disk;
pub mod lock;
pub mod read;
pub mod write;
pub mod yaml;
