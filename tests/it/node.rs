//! The node as seen.
