//! Random histories of a store, and the check of what is found after a power cut in the middle of
//! one.
//!
//! Uses only the library's public API: `tests/disk` runs the same on real file systems.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::testing;
use crate::checkpoint::encoding::encode;
use crate::checkpoint::format::{API_VERSION, NodeCheckpoint};
use crate::checkpoint::keys::KeyFiles;
use crate::checkpoint::seal::Key;
use crate::files::write::TEMPORARY;
use crate::node::host::HostRoot;
use crate::places::node_record::{NodeRecord, ServerRecord};
use crate::places::store::{Generation, Put, Store};
use crate::pod::id::PodId;

/// The pods of a history.
pub const PODS: [&str; 3] = ["till", "printer", "scale"];
/// The most keys of a node.
const KEYS: usize = 3;

/// Pseudo-random numbers, reproducible by their seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap()
    }

    /// True once in `times` on average.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn of<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())].clone()
    }
}

/// What must be found on the disk.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// By key.
    pub pods: BTreeMap<PodId, Lineage>,
    /// The node's record.
    pub node: Option<NodeRecord>,
    /// Directory of the keys, which is not on the failing disk.
    key_directory: PathBuf,
    /// Number of keys; with none, everything is in clear text. The last one seals, all open.
    keys: usize,
    /// Resealing was interrupted: not everything is sealed with the last key.
    is_partly_sealed: bool,
}

impl Expected {
    /// A node without captures, whose keys will be created in this directory.
    pub fn new(key_directory: &Path) -> Self {
        Self {
            key_directory: key_directory.to_owned(),
            ..Self::default()
        }
    }

    /// The key files, the one that seals first.
    pub fn key_files(&self) -> Vec<PathBuf> {
        (0..self.keys)
            .rev()
            .map(|number| self.key_directory.join(format!("key-{number}")))
            .collect()
    }

    /// The store of a history that runs in this directory.
    pub fn store(&self, directory: &Path) -> Store {
        let keys = KeyFiles::new(HostRoot::new("/"), self.key_files());
        Store::new(directory.join("state")).with_keys(keys)
    }

    /// What is known about keys after a power cut in the middle of a step.
    pub fn cut_off(&mut self, after: &Self) {
        self.is_partly_sealed |= self.keys != after.keys;
        self.keys = after.keys;
    }

    /// The newest good generation of a pod.
    pub fn newest(&self, pod: &str) -> Option<&(u64, NodeCheckpoint)> {
        self.pods
            .get(&key(pod))
            .and_then(|lineage| lineage.kept.first())
    }
}

/// What has been captured of a pod since it was last removed.
#[derive(Clone, Debug, Default)]
pub struct Lineage {
    /// Good generations that must exist, newest first.
    pub kept: Vec<(u64, NodeCheckpoint)>,
    /// Good generations that may still exist.
    pub older: Vec<(u64, NodeCheckpoint)>,
    /// Numbers of generations that a bad disk damaged.
    pub damaged: BTreeSet<u64>,
}

/// An event on a node.
#[derive(Clone, Debug)]
pub enum Task {
    /// The agent starts.
    Start,
    /// A pod is captured.
    Capture(Box<NodeCheckpoint>),
    /// A pod is gone.
    Remove(&'static str),
    /// The node's record changes.
    Record(NodeRecord),
    /// A bad disk changes the newest generation of a pod.
    Damage(&'static str),
    /// The agent starts with a new key and reseals everything.
    Reseal,
}

impl std::fmt::Display for Task {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Start => formatter.write_str("start"),
            Self::Capture(checkpoint) => write!(formatter, "capture {}", checkpoint.parent.name),
            Self::Remove(pod) => write!(formatter, "remove {pod}"),
            Self::Record(_) => formatter.write_str("record the node"),
            Self::Damage(pod) => write!(formatter, "damage {pod}"),
            Self::Reseal => formatter.write_str("reseal"),
        }
    }
}

impl Task {
    /// The next event of a history. `number` is that of the last content.
    pub fn draw(expected: &Expected, number: &mut u64, random: &mut Random) -> Self {
        let pod = random.of(&PODS);
        let kept = expected
            .pods
            .get(&key(pod))
            .map(|lineage| lineage.kept.as_slice())
            .unwrap_or_default();
        match (random.below(11), kept) {
            (0, _) => Self::Remove(pod),
            (1, _) => {
                *number += 1;
                Self::Record(record(*number, random))
            }
            (2, [_, _, ..]) => Self::Damage(pod),
            (3, [(_, newest), ..]) => Self::Capture(Box::new(newest.clone())),
            (4, [_, ..]) if expected.keys < KEYS => Self::Reseal,
            _ => {
                *number += 1;
                Self::Capture(Box::new(capture(pod, *number, random)))
            }
        }
    }

    /// Whether a power cut during or right after the event can affect this pod.
    pub fn concerns(&self, pod: &str) -> bool {
        match self {
            Self::Start | Self::Reseal => true,
            Self::Record(_) => false,
            Self::Capture(checkpoint) => checkpoint.parent.name == pod,
            Self::Remove(name) | Self::Damage(name) => *name == pod,
        }
    }

    /// Applies the event in a directory, and returns what must be found from then on.
    pub fn run(&self, directory: &Path, before: &Expected) -> Expected {
        let mut after = before.clone();
        let store = &before.store(directory);
        match self {
            Self::Start => store.create().and_then(|()| store.clean()).unwrap(),
            Self::Capture(checkpoint) => {
                if let Put::Written(number, _) = store.put(checkpoint).unwrap() {
                    let lineage = after.pods.entry(checkpoint.pod().unwrap()).or_default();
                    lineage
                        .older
                        .extend(lineage.kept.drain(1.min(lineage.kept.len())..));
                    lineage.kept.insert(0, (number, (**checkpoint).clone()));
                }
            }
            Self::Remove(pod) => {
                store.remove(&key(pod)).unwrap();
                after.pods.remove(&key(pod));
            }
            Self::Record(node) => {
                assert!(store.put_node(node).unwrap());
                after.node = Some(node.clone());
            }
            Self::Damage(pod) => {
                let (path, at, byte) = damage(store, pod);
                let file = File::options().write(true).open(path).unwrap();
                file.write_all_at(&[byte], at).unwrap();
                file.sync_all().unwrap();
                let lineage = after.pods.get_mut(&key(pod)).unwrap();
                let (number, _) = lineage.kept.remove(0);
                lineage.damaged.insert(number);
            }
            Self::Reseal => {
                after.keys += 1;
                after.is_partly_sealed = false;
                if let Some(path) = after.key_files().first() {
                    make_key(path, after.keys);
                }
                let tidied = after.store(directory).tidy().unwrap();
                assert!(tidied.failed.is_empty(), "{:?}", tidied.failed);
            }
        }
        after
    }
}

/// Position of the damage in the newest generation of a pod, and the new byte.
pub fn damage(store: &Store, pod: &str) -> (PathBuf, u64, u8) {
    let path = store.newest(&key(pod)).unwrap().0.unwrap().path;
    let bytes = fs::read(&path).unwrap();
    let at = bytes
        .windows(7)
        .position(|part| part == b"sha256:")
        .unwrap()
        + 10;
    (path, at as u64, bytes[at] ^ 1)
}

/// A generation with its number, without its digest, which differs for sealed ones.
pub fn numbered(generation: Generation) -> (u64, NodeCheckpoint) {
    (generation.number, generation.checkpoint.with_digest())
}

/// The pod of this name in the namespace of all of them.
pub fn key(pod: &str) -> PodId {
    PodId::new("shop", pod).unwrap()
}

/// A different key for each number.
fn make_key(path: &Path, number: usize) {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
    let _ = fs::remove_file(path);
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .unwrap();
    file.write_all(&bytes).unwrap();
}

/// A checkpoint of up to a few pages, with different content for each number.
pub fn capture(pod: &str, number: u64, random: &mut Random) -> NodeCheckpoint {
    let mut made = testing::checkpoint("shop", pod);
    made.manifest["spec"]["containers"][0]["args"] =
        serde_json::json!([format!("capture {number}")]);
    made.captured.uptime_seconds = number;
    let size = random.of(&[0, 100, 400, 1500, 5000]);
    let bytes: Vec<u8> = (0..size).map(|_| random.next().to_le_bytes()[0]).collect();
    made.volumes.get_mut("credentials").unwrap().entries[2].data = Some(encode(&bytes));
    made.with_digest()
}

/// A different record of the node for each number.
pub fn record(number: u64, random: &mut Random) -> NodeRecord {
    let server = ServerRecord {
        url: format!("https://10.0.0.1:{number}"),
        ca: "certificate ".repeat(random.below(200)),
        tls_name: None,
        proxy: None,
    };
    NodeRecord {
        api_version: API_VERSION.into(),
        kind: "NodeRecord".into(),
        node_name: "till-1".into(),
        node_uid: "22222222-2222-4222-8222-222222222222".into(),
        current_uid: None,
        allocatable: None,
        servers: vec![server],
    }
}

/// Whether this is the name of something unfinished.
pub fn is_temporary(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with(TEMPORARY))
}

/// Checks a directory after a power cut: everything that readers do, then everything that a
/// starting agent does. For each thing of these pods, either `before` or `after` may be found.
pub fn check(
    directory: &Path,
    pods: &[&str],
    before: &Expected,
    after: &Expected,
    random: &mut Random,
) -> Result<(), String> {
    let store = after.store(directory);
    let node = store
        .node()
        .map_err(|error| format!("the node's record: {error}"))?;
    if node != before.node && node != after.node {
        return Err("the node's record is neither the old nor the new one".into());
    }
    for pod in pods {
        let (newest, bad) = store.newest(&key(pod)).map_err(|error| error.to_string())?;
        let newest = newest.map(numbered);
        if ![before, after]
            .iter()
            .any(|expected| expected.newest(pod) == newest.as_ref())
        {
            let found = newest.map(|(number, _)| number);
            return Err(format!(
                "{pod}: generation {found:?} is neither the old nor the new one; bad: {bad:?}"
            ));
        }
    }

    store
        .create()
        .and_then(|()| store.clean())
        .map_err(|error| format!("start: {error}"))?;
    no_leftover(directory)?;
    for pod in pods {
        check_generations(&store, pod, before, after)?;
    }

    let pod = random.of(&PODS);
    let fresh = capture(pod, u64::MAX, random);
    match store.put(&fresh) {
        Ok(Put::Written(..)) => {}
        other => return Err(format!("a further capture of {pod}: {other:?}")),
    }
    let found = store.find(&key(pod)).map_err(|error| error.to_string())?;
    if found
        .good
        .first()
        .is_none_or(|good| good.checkpoint.clone().with_digest() != fresh)
        || found.good.len() > 2
        || !found.bad.is_empty()
    {
        return Err(format!(
            "after a further capture of {pod}: {} good, bad {:?}",
            found.good.len(),
            found.bad
        ));
    }
    no_leftover(directory)
}

/// Checks that the expected generations exist, in order, and are sealed with the last key once
/// resealing was done. There may be no others except older ones that had been removed, and only
/// what a bad disk damaged may be bad.
fn check_generations(
    store: &Store,
    pod: &str,
    before: &Expected,
    after: &Expected,
) -> Result<(), String> {
    let found = store.find(&key(pod)).map_err(|error| error.to_string())?;
    let keys = store.keys_given().load();
    let seals = keys.sealing().ok().flatten().map(Key::id);
    if before.keys == after.keys
        && !before.is_partly_sealed
        && let Some(other) = found
            .good
            .iter()
            .find(|good| good.sealed.as_deref() != seals)
    {
        return Err(format!(
            "{pod}: generation {} is sealed with {:?}, not {seals:?}",
            other.number, other.sealed
        ));
    }
    let good: Vec<_> = found.good.into_iter().map(numbered).collect();
    let [before, after] =
        [before, after].map(|expected| expected.pods.get(&key(pod)).cloned().unwrap_or_default());
    let is_right = |lineage: &Lineage| {
        let older = || lineage.older.iter().chain(&before.kept);
        good.strip_prefix(lineage.kept.as_slice())
            .is_some_and(|more| {
                more.iter()
                    .all(|more| !lineage.kept.is_empty() && older().any(|older| older == more))
            })
    };
    if !is_right(&before) && !is_right(&after) {
        let numbers: Vec<u64> = good.iter().map(|(number, _)| *number).collect();
        return Err(format!("{pod}: generations {numbers:?} are there"));
    }
    for error in &found.bad {
        let name = error
            .damaged()
            .and_then(|path| path.file_stem())
            .and_then(|stem| stem.to_str());
        let number = name.and_then(|name| name.parse().ok());
        if !number.is_some_and(|number| {
            before.damaged.contains(&number) || after.damaged.contains(&number)
        }) {
            return Err(format!(
                "{pod}: {error}: {}",
                std::error::Error::source(error).unwrap_or(error)
            ));
        }
    }
    Ok(())
}

/// Checks that there is no unfinished file or directory, at any depth.
pub fn no_leftover(directory: &Path) -> Result<(), String> {
    for entry in fs::read_dir(directory).map_err(|error| error.to_string())? {
        let path = entry.map_err(|error| error.to_string())?.path();
        if is_temporary(&path) {
            return Err(format!("{} stays", path.display()));
        }
        if path.is_dir() {
            no_leftover(&path)?;
        }
    }
    Ok(())
}
