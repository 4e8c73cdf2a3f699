//! Parent pod to checkpoint.
