//! Nobody loses a checkpoint to a power cut: random histories of a store, with the power cut after every call that changes
//! the disk, in many of the ways in which what is pending may be kept, lost or torn (see [`model`]).
//!
//! `STATES=1000000 SEED=7 cargo test --release --lib power_cut` tries a million states. What fails names the seed of its
//! history: with `SEED` set to it and `STATES=1` that one runs again.

mod model;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use self::model::{Change, Content, Disk, Entries, Random, Tree};
use crate::checkpoint::disk::{Call, Let, watch};
use crate::checkpoint::format::{API_VERSION, NodeCheckpoint, encode};
use crate::checkpoint::store::{NodeRecord, Put, ServerRecord, Store};
use crate::checkpoint::testing;
use crate::checkpoint::write::TEMPORARY;

const PODS: [&str; 3] = ["till", "printer", "scale"];
/// Starts of the agent in one history; all but the last end with a power cut from which the next one goes on.
const BOOTS: usize = 3;
const STEPS: usize = 6;
/// States that are drawn after each change, besides the fixed ones.
const DRAWN: usize = 6;

/// A call that a careless writer leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Omit {
    Nothing,
    /// The fsync of files.
    Sync,
    /// The fsync of directories.
    SyncDirectory,
    /// The fsync of the directory in which a pod's directory was made.
    SyncAbove,
    /// The temporary file and its rename.
    Rename,
    /// The rename of a directory that is to be removed.
    RenameDirectory,
}

impl Omit {
    /// The changes as they would be without that call.
    fn apply(self, changes: Vec<Change>) -> Vec<Change> {
        let renames: BTreeMap<PathBuf, PathBuf> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Rename(from, to) if is_temporary(from) => Some((from.clone(), to.clone())),
                _ => None,
            })
            .collect();
        let removed = changes.iter().find_map(|change| match change {
            Change::Rename(from, to) if is_temporary(to) => Some((to.clone(), from.clone())),
            _ => None,
        });
        let place = |path: PathBuf| renames.get(&path).cloned().unwrap_or(path);
        let back = |path: PathBuf| match &removed {
            Some((to, from)) => path.strip_prefix(to).map_or(path.clone(), |inner| from.join(inner)),
            None => path,
        };
        changes
            .into_iter()
            .filter_map(|change| match (self, change) {
                (Self::Sync, Change::Sync(_)) | (Self::SyncDirectory, Change::SyncDirectory(_)) => None,
                (Self::SyncAbove, Change::SyncDirectory(path)) if path.ends_with("checkpoints") => None,
                (Self::Rename, Change::Create(path, mode)) => Some(Change::Overwrite(place(path), mode)),
                (Self::Rename, Change::Write(path, bytes)) => Some(Change::Write(place(path), bytes)),
                (Self::Rename, Change::Chmod(path, mode)) => Some(Change::Chmod(place(path), mode)),
                (Self::Rename, Change::Sync(path)) => Some(Change::Sync(place(path))),
                (Self::Rename, Change::Rename(from, _)) if is_temporary(&from) => None,
                (Self::RenameDirectory, Change::Rename(_, to)) if is_temporary(&to) => None,
                (Self::RenameDirectory, Change::Unlink(path)) => Some(Change::Unlink(back(path))),
                (Self::RenameDirectory, Change::Rmdir(path)) => Some(Change::Rmdir(back(path))),
                (_, change) => Some(change),
            })
            .collect()
    }
}

fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TEMPORARY))
}

/// What must be found.
#[derive(Clone, Debug, Default)]
struct Expected {
    pods: BTreeMap<String, Lineage>,
    node: Option<NodeRecord>,
}

/// What was captured of a pod since it was last removed.
#[derive(Clone, Debug, Default)]
struct Lineage {
    /// Good generations that must be there, newest first.
    kept: Vec<(u64, NodeCheckpoint)>,
    /// Good ones that may be there still.
    older: Vec<(u64, NodeCheckpoint)>,
    /// Numbers of those that a bad disk damaged.
    damaged: BTreeSet<u64>,
}

/// A running store with a model of the disk that it is on.
struct World {
    live: PathBuf,
    disk: Disk,
    expected: Expected,
    random: Random,
    captures: u64,
}

/// What a step did.
struct Step {
    what: String,
    changes: Vec<Change>,
    after: Expected,
}

fn key(pod: &str) -> String {
    format!("shop_{pod}")
}

fn store_at(directory: &Path) -> Store {
    Store::new(directory.join("state"))
}

/// A checkpoint of up to some pages, with a content of its own for each number.
fn capture(pod: &str, number: u64, random: &mut Random) -> NodeCheckpoint {
    let mut made = testing::checkpoint("shop", pod);
    made.manifest["spec"]["containers"][0]["args"] = serde_json::json!([format!("capture {number}")]);
    made.captured.uptime_seconds = number;
    let size = random.of(&[0, 100, 400, 3000, 7000]);
    let bytes: Vec<u8> = (0..size).map(|_| random.next().to_le_bytes()[0]).collect();
    made.volumes.get_mut("credentials").unwrap().entries[2].data = Some(encode(&bytes));
    made.with_digest()
}

fn record(number: u64, random: &mut Random) -> NodeRecord {
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
        servers: vec![server],
    }
}

impl World {
    fn new(live: &Path, seed: u64) -> Self {
        let tree = Tree::empty();
        reset(live, &tree);
        Self {
            live: live.to_owned(),
            disk: Disk::new(live, &tree),
            expected: Expected::default(),
            random: Random(seed),
            captures: 0,
        }
    }

    /// Runs something on the store and records what it changes on the disk.
    fn watched<T>(&mut self, run: impl FnOnce(&Store) -> T) -> (T, Vec<Change>) {
        let changes = Rc::new(RefCell::new(Vec::new()));
        let (seen, mut random) = (Rc::clone(&changes), Random(self.random.next()));
        let watcher = move |call: &Call<'_>| {
            let change = Change::of(call);
            let (change, verdict) = match change {
                // the kernel may take less than it is given
                Some(Change::Write(path, bytes)) if random.once_in(2) => {
                    let length = random.below(bytes.len()) + 1;
                    (Some(Change::Write(path, bytes[..length].to_vec())), Let::Short(length))
                }
                change => (change, Let::Pass),
            };
            seen.borrow_mut().extend(change);
            verdict
        };
        let store = store_at(&self.live);
        let result = watch(watcher, || run(&store));
        (result, changes.take())
    }

    /// The agent starts.
    fn start(&mut self) -> Step {
        let (result, changes) = self.watched(|store| store.create().and_then(|()| store.clean()));
        result.unwrap();
        Step { what: "start".into(), changes, after: self.expected.clone() }
    }

    /// Something that happens to a node.
    fn step(&mut self) -> Step {
        let pod = self.random.of(&PODS);
        let mut after = self.expected.clone();
        let lineage = after.pods.entry(key(pod)).or_default();
        match self.random.below(10) {
            0 => {
                let (result, changes) = self.watched(|store| store.remove(&key(pod)));
                result.unwrap();
                after.pods.remove(&key(pod));
                Step { what: format!("remove {pod}"), changes, after }
            }
            1 => {
                self.captures += 1;
                let node = record(self.captures, &mut self.random);
                let (result, changes) = self.watched(|store| store.put_node(&node));
                assert!(result.unwrap());
                after.node = Some(node);
                Step { what: "record the node".into(), changes, after }
            }
            2 if lineage.kept.len() > 1 => {
                let (number, _) = lineage.kept.remove(0);
                lineage.damaged.insert(number);
                let newest = store_at(&self.live).newest(&key(pod)).unwrap().0.unwrap();
                assert_eq!(newest.number, number);
                let mut bytes = fs::read(&newest.path).unwrap();
                let at = bytes.windows(7).position(|part| part == b"sha256:").unwrap() + 10;
                bytes[at] ^= 1;
                fs::write(&newest.path, bytes).unwrap();
                self.disk.damage(&newest.path, at);
                self.expected = after.clone();
                Step { what: format!("damage {pod}"), changes: Vec::new(), after }
            }
            choice => {
                let same = lineage.kept.first().filter(|_| choice == 3).map(|(_, newest)| newest.clone());
                let checkpoint = same.unwrap_or_else(|| {
                    self.captures += 1;
                    capture(pod, self.captures, &mut self.random)
                });
                let (result, changes) = self.watched(|store| store.put(&checkpoint));
                let result = result.unwrap();
                if let Put::Written(number, _) = result {
                    lineage.older.extend(lineage.kept.drain(1.min(lineage.kept.len())..));
                    lineage.kept.insert(0, (number, checkpoint));
                }
                Step { what: format!("capture {pod}: {result:?}"), changes, after }
            }
        }
    }

    /// The power is cut, and the machine starts on what is left.
    fn go_on_from(&mut self, tree: &Tree, after: &Expected) {
        reset(&self.live, tree);
        self.disk = Disk::new(&self.live, tree);
        let store = store_at(&self.live);
        for pod in PODS.map(key) {
            let newest = store.newest(&pod).unwrap().0.map(|newest| (newest.number, newest.checkpoint));
            let is_after = newest.as_ref() == after.pods.get(&pod).and_then(|lineage| lineage.kept.first());
            match after.pods.get(&pod).filter(|_| is_after) {
                Some(lineage) => self.expected.pods.insert(pod, lineage.clone()),
                None if newest.is_none() => self.expected.pods.remove(&pod),
                None => None,
            };
        }
        self.expected.node = store.node().unwrap();
    }
}

/// Makes a directory hold this and nothing else.
fn reset(directory: &Path, tree: &Tree) {
    let _ = fs::remove_dir_all(directory);
    tree.write(directory);
}

/// What a node finds in a directory after a power cut in the middle of a step: all that the readers do, then all that an
/// agent does that starts there.
fn check(directory: &Path, before: &Expected, after: &Expected, random: &mut Random) -> Result<(), String> {
    let store = store_at(directory);
    let node = store.node().map_err(|error| format!("the node's record: {error}"))?;
    if node != before.node && node != after.node {
        return Err("the node's record is neither the old nor the new one".into());
    }
    for pod in PODS.map(key) {
        let (newest, bad) = store.newest(&pod).map_err(|error| error.to_string())?;
        let newest = newest.map(|newest| (newest.number, newest.checkpoint));
        let mut expected = [before, after].into_iter().map(|expected| expected.pods.get(&pod));
        if !expected.any(|lineage| lineage.and_then(|lineage| lineage.kept.first()) == newest.as_ref()) {
            let found = newest.map(|(number, _)| number);
            return Err(format!("{pod}: generation {found:?} is neither the old nor the new one; bad: {bad:?}"));
        }
    }

    store.create().and_then(|()| store.clean()).map_err(|error| format!("start: {error}"))?;
    no_leftover(directory)?;
    for pod in PODS.map(key) {
        let found = store.find(&pod).map_err(|error| error.to_string())?;
        let good: Vec<_> = found.good.into_iter().map(|good| (good.number, good.checkpoint)).collect();
        let none = Lineage::default();
        let of = |expected: &Expected| expected.pods.get(&pod).unwrap_or(&none).clone();
        if ![of(before), of(after)].iter().any(|lineage| {
            good.starts_with(&lineage.kept)
                && good[lineage.kept.len()..].iter().all(|more| {
                    !lineage.kept.is_empty() && lineage.older.iter().chain(&of(before).kept).any(|older| older == more)
                })
        }) {
            let found: Vec<u64> = good.iter().map(|(number, _)| *number).collect();
            return Err(format!("{pod}: generations {found:?} are there"));
        }
        let damaged = &of(before).damaged;
        for error in &found.bad {
            let name = error.damaged().and_then(|path| path.file_stem()).and_then(|stem| stem.to_str());
            if !name.and_then(|name| name.parse().ok()).is_some_and(|number: u64| damaged.contains(&number)) {
                return Err(format!("{pod}: {error}: {}", std::error::Error::source(error).unwrap_or(error)));
            }
        }
    }

    let pod = random.of(&PODS);
    let fresh = capture(pod, u64::MAX, random);
    match store.put(&fresh) {
        Ok(Put::Written(..)) => {}
        other => return Err(format!("a further capture of {pod}: {other:?}")),
    }
    let found = store.find(&key(pod)).map_err(|error| error.to_string())?;
    if found.good.first().is_none_or(|good| good.checkpoint != fresh) || found.good.len() > 2 || !found.bad.is_empty() {
        return Err(format!("after a further capture of {pod}: {} good, bad {:?}", found.good.len(), found.bad));
    }
    no_leftover(directory)
}

fn no_leftover(directory: &Path) -> Result<(), String> {
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

/// What was tried.
#[derive(Debug, Default)]
struct Tried {
    states: AtomicU64,
    cuts: AtomicU64,
    histories: AtomicU64,
}

/// Runs one history and looks at the states after each change. An error tells all that is needed to see why.
fn history(seed: u64, omit: Omit, tried: &Tried) -> Result<(), String> {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let (live, crashed) = (directory.path().join("live"), directory.path().join("crashed"));
    let mut world = World::new(&live, seed);
    for boot in 0..BOOTS {
        for number in 0..=STEPS {
            let step = if number == 0 { world.start() } else { world.step() };
            let changes = omit.apply(step.changes);
            let last = (number == STEPS && boot + 1 < BOOTS && !changes.is_empty())
                .then(|| world.random.below(changes.len()));
            let mut seen = HashSet::new();
            let mut next = None;
            for (index, change) in changes.iter().enumerate() {
                world.disk.apply(change);
                tried.cuts.fetch_add(1, Ordering::Relaxed);
                for (entries, content) in ways(&world.disk, &mut world.random) {
                    let tree = world.disk.cut(entries, content, &mut world.random);
                    let mut hasher = DefaultHasher::new();
                    tree.hash(&mut hasher);
                    if !seen.insert(hasher.finish()) {
                        continue;
                    }
                    // what must be there once a step is over is only what it made
                    let before = if index + 1 == changes.len() { &step.after } else { &world.expected };
                    reset(&crashed, &tree);
                    check(&crashed, before, &step.after, &mut world.random).map_err(|error| {
                        let done = &changes[..=index];
                        format!("SEED={seed}: {error}; {}, {entries:?} {content:?} after {done:#?}", step.what)
                    })?;
                    tried.states.fetch_add(1, Ordering::Relaxed);
                    if last == Some(index) {
                        next = Some(tree);
                    }
                }
                if let Some(tree) = &next {
                    world.go_on_from(tree, &step.after);
                    break;
                }
            }
            if next.is_none() {
                world.expected = step.after;
            }
        }
        // a boot that ended without a cut goes on as after a restart of the agent
    }
    tried.histories.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// The ways in which the power is cut: the corners, and some drawn ones.
fn ways(disk: &Disk, random: &mut Random) -> Vec<(Entries, Content)> {
    use Content::{All, Cut, Lost, Torn, Zeros};
    if disk.is_settled() {
        return vec![(Entries::All, All)];
    }
    let mut ways: Vec<_> =
        [Entries::All, Entries::Lost].into_iter().flat_map(|entries| [All, Lost, Zeros].map(|it| (entries, it))).collect();
    for _ in 0..DRAWN {
        let end = random.next() % (disk.clock() + 1);
        ways.push((random.of(&[Entries::All, Entries::Any, Entries::Until(end)]), random.of(&[All, Cut, Torn, Torn])));
    }
    ways
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn a_power_cut_after_any_call_leaves_the_old_or_the_new_generation_of_everything() {
    let (states, seed) = (setting("STATES", 10_000), setting("SEED", 1));
    let tried = Tried::default();
    let next = AtomicU64::new(seed);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while tried.states.load(Ordering::Relaxed) < states {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    history(seed, Omit::Nothing, &tried).unwrap_or_else(|error| panic!("{error}"));
                }
            });
        }
    });
    // past the capture of test output: the counts are part of the proof
    let _ = writeln!(std::io::stderr(), "power cuts, SEED={seed}: {tried:?}, none lost, torn or mixed");
    assert!(tried.states.into_inner() >= states);
}

/// The first thing that a careless writer loses.
fn loss_without(omit: Omit) -> String {
    let tried = Tried::default();
    (1..200).find_map(|seed| history(seed, omit, &tried).err()).unwrap_or_else(|| panic!("{omit:?} unnoticed: {tried:?}"))
}

#[test]
fn a_writer_without_the_fsync_of_files_is_found_out() {
    let loss = loss_without(Omit::Sync);
    assert!(loss.contains("is damaged") || loss.contains("neither the old nor the new"), "{loss}");
}

#[test]
fn a_writer_without_the_fsync_of_directories_is_found_out() {
    let loss = loss_without(Omit::SyncDirectory);
    assert!(loss.contains("neither the old nor the new"), "{loss}");
}

#[test]
fn a_writer_that_syncs_only_the_directory_of_the_file_is_found_out() {
    let loss = loss_without(Omit::SyncAbove);
    assert!(loss.contains("neither the old nor the new"), "{loss}");
}

#[test]
fn a_writer_without_temporary_files_is_found_out() {
    let loss = loss_without(Omit::Rename);
    assert!(loss.contains("damaged") || loss.contains("neither the old nor the new"), "{loss}");
}

#[test]
fn a_removal_file_by_file_is_found_out() {
    let loss = loss_without(Omit::RenameDirectory);
    assert!(loss.contains("neither the old nor the new") || loss.contains("are there"), "{loss}");
}
