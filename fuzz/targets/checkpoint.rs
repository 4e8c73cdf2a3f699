//! Parses bytes as a checkpoint file. If `SEEDS` is set, the seeds are written to that directory
//! first.
#![no_main]

#[allow(dead_code)] // used by the other target
#[path = "../properties.rs"]
mod properties;
#[allow(dead_code)]
#[path = "../seeds.rs"]
mod seeds;

libfuzzer_sys::fuzz_target!(
    init: seeds::write(seeds::checkpoints(seeds::ROOT.as_ref(), &properties::key())),
    |bytes: &[u8]| properties::checkpoint(bytes)
);
