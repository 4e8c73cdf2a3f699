//! From checkpoint to twin.
