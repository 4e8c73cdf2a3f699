//! Where checkpoints are kept.
