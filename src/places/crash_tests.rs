//! No checkpoint is lost to a power cut: random histories of a store, with a power cut after every
//! call that changes the disk, in many of the ways in which pending changes may be kept, lost or
//! torn (see [`model`]).
//!
//! `STATES=1000000 SEED=7 cargo test --release --lib power_cut` tries a million states. A failure
//! names the seed of its history: with `SEED` set to it and `STATES=1`, that history runs again.

mod history;
mod model;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use self::history::{Expected, PODS, Random, Task, check, damage, is_temporary, key, numbered};
use self::model::{Change, Content, Disk, Entries, Tree};
use crate::checkpoint::testing;
use crate::files::disk::{Call, Let, watch};

/// Starts of the agent in one history; all but the last end with a power cut, after which the next
/// one goes on.
const BOOTS: usize = 3;
const STEPS: usize = 6;
/// Random states that are tried after each change, besides the fixed ones.
const DRAWN: usize = 6;

/// A call that an incorrect writer leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Omit {
    Nothing,
    /// The fsync of files.
    Sync,
    /// The fsync of directories.
    SyncDirectory,
    /// The fsync of the directory in which a pod's directory was created.
    SyncAbove,
    /// The temporary file and its rename.
    Rename,
    /// The rename of a directory before its removal.
    RenameDirectory,
}

impl Omit {
    /// The changes without that call.
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
            Some((to, from)) => path
                .strip_prefix(to)
                .map_or(path.clone(), |inner| from.join(inner)),
            None => path,
        };
        changes
            .into_iter()
            .filter_map(|change| match (self, change) {
                (Self::Sync, Change::Sync(_)) | (Self::SyncDirectory, Change::SyncDirectory(_)) => {
                    None
                }
                (Self::SyncAbove, Change::SyncDirectory(path)) if path.ends_with("checkpoints") => {
                    None
                }
                (Self::Rename, Change::Create(path, mode)) => {
                    Some(Change::Overwrite(place(path), mode))
                }
                (Self::Rename, Change::Write(path, bytes)) => {
                    Some(Change::Write(place(path), bytes))
                }
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

/// A running store with a model of its disk.
struct World {
    live: PathBuf,
    disk: Disk,
    expected: Expected,
    random: Random,
    captures: u64,
}

/// What a step did.
struct Step {
    task: Task,
    changes: Vec<Change>,
    after: Expected,
}

impl World {
    fn new(live: &Path, keys: &Path, seed: u64) -> Self {
        let tree = Tree::empty();
        reset(live, &tree);
        Self {
            live: live.to_owned(),
            disk: Disk::new(live, &tree),
            expected: Expected::new(keys),
            random: Random(seed),
            captures: 0,
        }
    }

    /// Runs something and records what it changes on the disk.
    fn watched<T>(&mut self, run: impl FnOnce() -> T) -> (T, Vec<Change>) {
        let changes = Rc::new(RefCell::new(Vec::new()));
        let (seen, mut random) = (Rc::clone(&changes), Random(self.random.next()));
        let watcher = move |call: &Call<'_>| {
            let change = Change::of(call);
            let (change, verdict) = match change {
                // the kernel may write fewer bytes than it is given
                Some(Change::Write(path, bytes)) if random.once_in(2) => {
                    let length = random.below(bytes.len()) + 1;
                    (
                        Some(Change::Write(path, bytes[..length].to_vec())),
                        Let::Short(length),
                    )
                }
                change => (change, Let::Pass),
            };
            seen.borrow_mut().extend(change);
            verdict
        };
        let result = watch(watcher, run);
        (result, changes.take())
    }

    /// Applies an event to the node.
    fn step(&mut self, task: Task) -> Step {
        let before = self.expected.clone();
        if let Task::Damage(pod) = &task {
            // not caused by the writer: it is durable and atomic
            let (path, at, byte) = damage(&before.store(&self.live), pod);
            self.disk.damage(&path, usize::try_from(at).unwrap(), byte);
        }
        let live = self.live.clone();
        let (after, changes) = self.watched(|| task.run(&live, &before));
        Step {
            task,
            changes,
            after,
        }
    }

    /// Cuts the power and boots with what is left.
    fn go_on_from(&mut self, tree: &Tree, after: &Expected) {
        reset(&self.live, tree);
        self.disk = Disk::new(&self.live, tree);
        self.expected.cut_off(after);
        let store = self.expected.store(&self.live);
        for pod in PODS {
            let newest = store.newest(&key(pod)).unwrap().0.map(numbered);
            if newest.as_ref() == after.newest(pod) {
                let lineage = after.pods.get(&key(pod)).cloned().unwrap_or_default();
                self.expected.pods.insert(key(pod), lineage);
            }
        }
        self.expected.node = store.node().unwrap();
    }
}

/// Makes a directory contain exactly this tree.
fn reset(directory: &Path, tree: &Tree) {
    let _ = fs::remove_dir_all(directory);
    tree.write(directory);
}

/// Counts of what was tried.
#[derive(Debug, Default)]
struct Tried {
    states: AtomicU64,
    cuts: AtomicU64,
    histories: AtomicU64,
}

/// Runs one history and checks the states after each change. An error contains everything needed to
/// reproduce it.
fn history(seed: u64, omit: Omit, tried: &Tried) -> Result<(), String> {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let (live, crashed) = (
        directory.path().join("live"),
        directory.path().join("crashed"),
    );
    let mut world = World::new(&live, directory.path(), seed);
    for boot in 0..BOOTS {
        for number in 0..=STEPS {
            let task = if number == 0 {
                Task::Start
            } else {
                Task::draw(&world.expected, &mut world.captures, &mut world.random)
            };
            let step = world.step(task);
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
                    // after a step, only its result must exist
                    let before = if index + 1 == changes.len() {
                        &step.after
                    } else {
                        &world.expected
                    };
                    reset(&crashed, &tree);
                    let random = &mut world.random;
                    // the others were checked when they changed
                    let pods: Vec<_> = PODS
                        .into_iter()
                        .filter(|pod| step.task.concerns(pod) || random.once_in(16))
                        .collect();
                    check(&crashed, &pods, before, &step.after, &mut world.random).map_err(
                        |error| {
                            let done = &changes[..=index];
                            format!(
                                "SEED={seed}: {error}; {}, {entries:?} {content:?} after {done:#?}",
                                step.task
                            )
                        },
                    )?;
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
        // a boot without a power cut goes on as after a restart of the agent
    }
    tried.histories.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// The ways in which the power is cut: the extreme cases, and some random ones.
fn ways(disk: &Disk, random: &mut Random) -> Vec<(Entries, Content)> {
    use Content::{All, Cut, Lost, Torn, Zeros};
    if disk.is_settled() {
        return vec![(Entries::All, All)];
    }
    let mut ways: Vec<_> = [Entries::All, Entries::Lost]
        .into_iter()
        .flat_map(|entries| [All, Lost, Zeros].map(|it| (entries, it)))
        .collect();
    for _ in 0..DRAWN {
        let end = random.next() % (disk.clock() + 1);
        ways.push((
            random.of(&[Entries::All, Entries::Any, Entries::Until(end)]),
            random.of(&[All, Cut, Torn, Torn]),
        ));
    }
    ways
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number"))
    })
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
    // printed even if test output is captured: the counts are part of the evidence
    let _ = writeln!(
        std::io::stderr(),
        "power cuts, SEED={seed}: {tried:?}, none lost, torn or mixed"
    );
    assert!(tried.states.into_inner() >= states);
}

/// The first thing that an incorrect writer loses.
fn loss_without(omit: Omit) -> String {
    let tried = Tried::default();
    (1..200)
        .find_map(|seed| history(seed, omit, &tried).err())
        .unwrap_or_else(|| panic!("{omit:?} unnoticed: {tried:?}"))
}

#[test]
fn a_writer_without_the_fsync_of_files_is_found_out() {
    let loss = loss_without(Omit::Sync);
    assert!(
        loss.contains("cannot use") || loss.contains("neither the old nor the new"),
        "{loss}"
    );
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
    assert!(
        loss.contains("cannot use") || loss.contains("neither the old nor the new"),
        "{loss}"
    );
}

#[test]
fn a_removal_file_by_file_is_found_out() {
    let loss = loss_without(Omit::RenameDirectory);
    assert!(
        loss.contains("neither the old nor the new") || loss.contains("are there"),
        "{loss}"
    );
}
