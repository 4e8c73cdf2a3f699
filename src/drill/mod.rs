//! What a drill is made of: the manifest of a rehearsal ([`manifest`]), what is compared ([`view`], [`tree`]), and where its
//! traces are ([`place`]), which the supervisor removes when the drill does not. Holding one is the command line's.

pub mod manifest;
pub mod place;
pub mod tree;
pub mod view;
