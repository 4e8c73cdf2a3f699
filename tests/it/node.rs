//! The node as seen, by what each question is answered with when things are well, gone, hung, or
//! say no.

mod contact;
mod kubelet;
mod names;
mod runtime;
