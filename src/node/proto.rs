//! What `build.rs` generates from `proto/`: CRI v1 and pod-resources v1, trimmed. Public only for
//! the stubs of tests.

// generated code
#![allow(clippy::all, clippy::pedantic, missing_docs)]

/// CRI v1.
pub mod runtime {
    tonic::include_proto!("runtime.v1");
}

/// Pod-resources v1.
pub mod podresources {
    tonic::include_proto!("v1");
}
