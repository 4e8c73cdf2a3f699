//! The part that recovers.

pub mod decide;
pub mod facts;
