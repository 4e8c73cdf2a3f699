//! Compiles `proto/` in pure Rust, so that nobody needs `protoc` to build.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The servers are for the tests' stubs. What nobody calls is dropped by the linker.
    let descriptors = protox::compile(
        ["proto/runtime.proto", "proto/podresources.proto"],
        ["proto"],
    )?;
    tonic_prost_build::configure()
        .btree_map(".")
        .compile_fds(descriptors)?;
    println!("cargo::rerun-if-changed=proto");
    Ok(())
}
