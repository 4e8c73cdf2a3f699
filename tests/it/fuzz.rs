//! Readers of what others wrote, on mutations of what is right and on what fuzzing with coverage
//! has kept (`fuzz/`): whatever they are given, they say something about it. `FUZZ_RUNS` tells how
//! many mutations of each.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;

use crate::stub::id;
use pod_checkpointer::checkpoint::{NodeCheckpoint, twin};
use pod_checkpointer::cli::render::Report;
use pod_checkpointer::places::store::Store;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;

#[path = "../../fuzz/properties.rs"]
mod properties;
#[path = "../../fuzz/seeds.rs"]
mod seeds;

/// One change of bytes.
#[derive(Clone, Debug)]
enum Mutation {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Cut(Index, Index),
    Copy(Index, Index, Index),
}

/// Values that are known to confuse readers.
const WORDS: [&str; 16] = [
    "\n---\n",
    "..",
    "&a",
    "*a",
    "<<: *a",
    "{",
    "}",
    "[",
    "]",
    "null",
    "!!binary x",
    "0o777",
    "99999999999999999999",
    "\0",
    "\"\\ud800\"",
    "\r",
];

fn mutation() -> impl Strategy<Value = Mutation> {
    let word = proptest::sample::select(&WORDS[..]).prop_map(|word| word.as_bytes().to_vec());
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (any::<Index>(), word).prop_map(|(at, word)| Mutation::Insert(at, word)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Mutation::Cut(from, to)),
        (any::<Index>(), any::<Index>(), any::<Index>())
            .prop_map(|(from, to, at)| Mutation::Copy(from, to, at)),
    ]
}

fn mutated(original: &[u8], mutations: &[Mutation]) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for mutation in mutations {
        let size = bytes.len() + 1;
        let range = |one: &Index, other: &Index| {
            let (one, other) = (one.index(size), other.index(size));
            one.min(other)..one.max(other).min(one.min(other) + 200)
        };
        match mutation {
            Mutation::Set(at, byte) => {
                if let Some(found) = bytes.get_mut(at.index(size)) {
                    *found = *byte;
                }
            }
            Mutation::Insert(at, word) => {
                drop(bytes.splice(at.index(size)..at.index(size), word.iter().copied()));
            }
            Mutation::Cut(from, to) => drop(bytes.drain(range(from, to))),
            Mutation::Copy(from, to, at) => {
                let copy = bytes[range(from, to)].to_vec();
                bytes.splice(at.index(size)..at.index(size), copy);
            }
        }
    }
    bytes
}

fn run(name: &str, corpus: &[Vec<u8>], test: impl Fn(&[u8])) {
    let cases = std::env::var("FUZZ_RUNS")
        .ok()
        .and_then(|runs| runs.parse().ok())
        .unwrap_or(200);
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let inputs = (any::<Index>(), proptest::collection::vec(mutation(), 0..8));
    TestRunner::new(config)
        .run(&inputs, |(which, mutations)| {
            test(&mutated(which.get::<Vec<u8>>(corpus), &mutations));
            Ok(())
        })
        .unwrap();
    // bypasses the capture of test output: the counts are part of the proof
    let _ = writeln!(std::io::stderr(), "{name}: {cases} mutated inputs");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn bytes(seeds: Vec<(String, Vec<u8>)>) -> Vec<Vec<u8>> {
    seeds.into_iter().map(|(_, bytes)| bytes).collect()
}

/// Every file of a directory, in the order of their names.
fn files(directory: &str) -> Vec<Vec<u8>> {
    let mut files: Vec<_> = std::fs::read_dir(root().join(directory))
        .unwrap()
        .map(|it| it.unwrap().path())
        .collect();
    files.sort();
    files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect()
}

#[test]
fn what_fuzzing_has_kept_of_checkpoints_is_read_or_refused() {
    let corpus = files("fuzz/corpus/checkpoint");
    for bytes in &corpus {
        properties::checkpoint(bytes);
    }
    let _ = writeln!(
        std::io::stderr(),
        "checkpoint: {} inputs of the corpus",
        corpus.len()
    );
    // the corpus gets to where a checkpoint is whole, and is not the empty file alone
    let keys = properties::key().into();
    let said: BTreeSet<String> = corpus
        .iter()
        .map(|bytes| match NodeCheckpoint::open(bytes, &keys) {
            Ok(_) => "whole".into(),
            Err(error) => format!("{error:?}")
                .split(|c: char| !c.is_alphanumeric())
                .next()
                .unwrap()
                .to_owned(),
        })
        .collect();
    for wanted in ["whole", "Checksum", "Version"] {
        assert!(said.contains(wanted), "{wanted} is not in {said:?}");
    }
    assert!(
        corpus.iter().any(|bytes| bytes.starts_with(b"{\"")),
        "nothing to be sealed"
    );
}

#[test]
fn what_fuzzing_has_kept_of_manifests_is_rendered_or_refused() {
    let corpus = files("fuzz/corpus/render");
    for bytes in &corpus {
        properties::render(bytes);
    }
    let _ = writeln!(
        std::io::stderr(),
        "render: {} inputs of the corpus",
        corpus.len()
    );
    let reports: Vec<Report> = corpus.iter().map(|bytes| Report::of(bytes)).collect();
    assert!(
        reports
            .iter()
            .any(|report| report.items.iter().any(|item| item.recoverable))
    );
    assert!(
        reports
            .iter()
            .any(|report| report.items.iter().any(|item| !item.recoverable))
    );
    assert!(reports.iter().any(|report| !report.errors.is_empty()));
}

#[test]
fn render_says_something_of_whatever_it_is_given() {
    run(
        "render",
        &bytes(seeds::manifests(root())),
        properties::render,
    );
}

#[test]
fn any_file_is_either_a_usable_checkpoint_or_refused() {
    run(
        "checkpoint",
        &bytes(seeds::checkpoints(root(), &properties::key())),
        properties::checkpoint,
    );
}

#[test]
fn a_checkpoint_is_complete_or_refused() {
    let checkpoint = super::cli::checkpoint("till");
    let good = checkpoint.to_yaml().unwrap();
    assert_eq!(NodeCheckpoint::from_yaml(&good).unwrap(), checkpoint);
    run("checkpoint as it is", &[good], |bytes| {
        // Only a mutation that does not change the content may pass.
        if let Ok(read) = NodeCheckpoint::from_yaml(bytes) {
            assert_eq!(read, checkpoint);
        }
    });
}

#[test]
fn a_store_with_a_damaged_file_gives_what_is_whole() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let store = Store::new(directory.path().join("store"));
    store.create().unwrap();
    let checkpoint = super::cli::checkpoint("till");
    store.put(&checkpoint).unwrap();
    let path = store.find(&id("shop_till")).unwrap().good[0].path.clone();
    let good = std::fs::read(&path).unwrap();
    run("store", &[good], |bytes| {
        std::fs::write(&path, bytes).unwrap();
        let found = store.find(&id("shop_till")).unwrap();
        assert_eq!(found.good.len() + found.bad.len(), 1);
        for generation in &found.good {
            assert_eq!(generation.checkpoint, checkpoint);
            twin::make(
                &generation.checkpoint,
                &generation.pod,
                "boot/1",
                Path::new("/run/pod-checkpointer"),
            );
        }
    });
}
