//! Bytes as a checkpoint file. With `SEEDS`, what it begins with is written to that directory first.
#![no_main]

#[allow(dead_code)] // what the other target is about
#[path = "../properties.rs"]
mod properties;
#[allow(dead_code)]
#[path = "../seeds.rs"]
mod seeds;

libfuzzer_sys::fuzz_target!(
    init: seeds::write(seeds::checkpoints(seeds::ROOT.as_ref(), &properties::key())),
    |bytes: &[u8]| properties::checkpoint(bytes)
);
