//! The `PodCheckpoints` of this node: what the API shows of each marked pod. One is written when
//! something in it changed and at no other time.
//!
//! [`shown`] (pure) says what one should show. [`ledger`] (pure) remembers what was written and
//! says what to write next, and [`write`] does that. [`echo`] watches which of them exist, so that
//! a deleted one is written again. All are listed once at the start, in pages, to learn what an
//! earlier agent wrote.

pub(crate) mod echo;
pub(crate) mod ledger;
pub(crate) mod shown;
pub(crate) mod write;
