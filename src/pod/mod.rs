//! Pods, as every part of the program needs them.

pub mod container;
