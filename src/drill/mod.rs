//! Rehearsals.

pub mod manifest;
pub mod place;
pub mod tree;
pub mod view;
