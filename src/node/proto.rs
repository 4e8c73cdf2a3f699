//! What `build.rs` makes of `proto/`: CRI v1 and pod-resources v1, trimmed. Public only for the tests' stubs.

// Generated code, not ours to mend.
#![allow(clippy::all, clippy::pedantic, missing_docs)]

/// CRI v1.
pub mod runtime {
    tonic::include_proto!("runtime.v1");
}

/// Pod-resources v1.
pub mod podresources {
    tonic::include_proto!("v1");
}
