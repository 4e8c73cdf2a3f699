//! From a `PodCheckpointer` to everything that it asks for.

pub mod objects;
