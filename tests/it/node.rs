//! Each query to the node, when what is queried works, is gone, hangs, or refuses.

mod contact;
mod kubelet;
mod names;
mod runtime;
