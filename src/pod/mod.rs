//! Facts about pods that need neither the node nor the API server.

pub mod container;
pub mod id;
pub mod mark;
pub mod names;
pub mod room;
pub mod selector;
