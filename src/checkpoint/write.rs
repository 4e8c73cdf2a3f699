//! The one way to write what must last.
