//! The part that recovers.

pub mod act;
pub mod decide;
pub mod facts;
pub mod observe;
