//! Parses bytes as a file for `render`. If `SEEDS` is set, the seeds are written to that directory
//! first.
#![no_main]

#[allow(dead_code)] // used by the other target
#[path = "../properties.rs"]
mod properties;
#[allow(dead_code)]
#[path = "../seeds.rs"]
mod seeds;

libfuzzer_sys::fuzz_target!(
    init: seeds::write(seeds::manifests(seeds::ROOT.as_ref())),
    |bytes: &[u8]| properties::render(bytes)
);
