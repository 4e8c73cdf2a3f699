//! The one way to read and to write files: trusted reads ([`mod@read`], [`yaml`]), durable writes ([`mod@write`], with the system
//! calls that it makes in `disk`), and locks ([`lock`]).

pub(crate) mod disk;
pub mod lock;
pub mod read;
pub mod write;
pub mod yaml;
