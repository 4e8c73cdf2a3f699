//! Power cuts on real file systems: the histories of `src/places/crash_tests` run on a loop device
//! whose disk ([`image`]) knows what was flushed. For many moments it makes what a cut would have
//! left, mounts that as a machine does that starts again, and looks whether each thing is there
//! that the store had called kept, and no other.
//!
//! `run.sh` builds and starts it. Needs root, loop devices and FUSE.

// anything that is not as expected ends a proof
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "../../src/places/crash_tests/history.rs"]
#[allow(dead_code)]
mod history;
mod image;
#[path = "../../src/checkpoint/testing.rs"]
mod testing;

use std::fs;
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use pod_checkpointer::{checkpoint, files, node, places, pod};

use self::history::{Expected, PODS, Random, Task, check};
use self::image::{Cache, Event, Log, Replay};

/// Steps of a history; each history is cut in many places.
const STEPS: usize = 60;
/// Cuts of a history.
const CUTS: usize = 25;

/// A file system that is tried.
struct Kind {
    name: &'static str,
    size: u64,
    make: &'static [&'static str],
    options: &'static str,
    /// Before it is mounted after a cut; the exit codes that let a machine go on.
    repair: Option<(&'static [&'static str], Range<i32>)>,
    /// How many bytes its disk writes at once.
    unit: usize,
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "ext4",
        size: 64 << 20,
        make: &["mkfs.ext4", "-q", "-F", "-E", "nodiscard"],
        options: "loop",
        repair: Some((&["e2fsck", "-p"], 0..2)),
        unit: 512,
    },
    // as most who left the journal's order out have it
    Kind {
        name: "ext4-writeback",
        size: 64 << 20,
        make: &["mkfs.ext4", "-q", "-F", "-E", "nodiscard"],
        options: "loop,data=writeback,noauto_da_alloc",
        repair: Some((&["e2fsck", "-p"], 0..2)),
        unit: 512,
    },
    Kind {
        name: "xfs",
        size: 320 << 20,
        make: &["mkfs.xfs", "-q", "-K"],
        options: "loop",
        repair: None,
        unit: 512,
    },
    // it trusts a disk to write its super block of 4 KiB at once
    Kind {
        name: "btrfs",
        size: 160 << 20,
        make: &["mkfs.btrfs", "-q", "--nodiscard"],
        options: "loop",
        repair: None,
        unit: 4096,
    },
];

/// What a step of a history did, and which events the disk saw meanwhile.
struct Step {
    task: Task,
    events: Range<usize>,
    after: Expected,
}

/// What the cuts of a file system showed.
#[derive(Debug, Default)]
struct Shown {
    cuts: usize,
    /// With something in the disk's cache.
    with_cache: usize,
    in_a_step: usize,
    /// Of those, where the old state was found, and the new one was another.
    old: usize,
    /// Where the new one was found, though the step was not over.
    new: usize,
    /// Where `verify` was run and found nothing: no bad disk had damaged anything.
    verified: usize,
}

fn run(program: &str, arguments: &[&str]) -> i32 {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let code = output.status.code().unwrap_or(-1);
    if code != 0 && !program.contains("fsck") {
        eprintln!(
            "{program} {arguments:?}: exit code {code}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    code
}

fn must(program: &str, arguments: &[&str]) {
    assert_eq!(run(program, arguments), 0, "{program} {arguments:?}");
}

impl Kind {
    fn make(&self, disk: &str) {
        let (program, arguments) = self.make.split_first().unwrap();
        must(program, &[arguments, &[disk]].concat());
    }

    fn mount(&self, disk: &str, at: &str) {
        let kind = self.name.split('-').next().unwrap();
        must("mount", &["-t", kind, "-o", self.options, disk, at]);
    }

    /// Runs a history, and returns everything written to the disk since the file system was
    /// created.
    fn write(&self, directory: &Path, random: &mut Random) -> (Vec<Event>, Vec<Step>) {
        let (served, mounted) = (directory.join("served"), directory.join("mounted"));
        let log = Log::default();
        let session = image::serve(&served, self.size, &log).expect("FUSE");
        let (disk, at) = (served.join("disk"), mounted.to_str().unwrap());
        let disk = disk.to_str().unwrap();
        self.make(disk);
        self.mount(disk, at);
        let (mut expected, mut number, mut steps) = (Expected::new(directory), 0, Vec::new());
        for index in 0..=STEPS {
            let task = if index == 0 {
                Task::Start
            } else {
                Task::draw(&expected, &mut number, random)
            };
            // others write too, and sync nothing
            fs::write(
                mounted.join(format!("noise-{}", random.below(8))),
                vec![1; random.below(20_000)],
            )
            .unwrap();
            let begin = log.len();
            let after = task.run(&mounted, &expected);
            steps.push(Step {
                task,
                events: begin..log.len(),
                after: after.clone(),
            });
            expected = after;
        }
        must("umount", &[at]);
        drop(session);
        (log.take(), steps)
    }

    /// Starts a machine on what a cut left, and inspects it.
    fn start(
        &self,
        directory: &Path,
        may_be: [&Expected; 2],
        shown: &mut Shown,
        random: &mut Random,
    ) -> Result<(), String> {
        let (disk, at) = (directory.join("cut"), directory.join("mounted"));
        let (disk, at) = (disk.to_str().unwrap(), at.to_str().unwrap());
        if let Some((repair, healthy)) = &self.repair {
            let (program, arguments) = repair.split_first().unwrap();
            let code = run(program, &[arguments, &[disk][..]].concat());
            assert!(healthy.contains(&code), "{program}: exit code {code}");
        }
        self.mount(disk, at);
        let [before, after] = may_be;
        for pod in PODS {
            let newest = after
                .store(Path::new(at))
                .newest(&history::key(pod))
                .ok()
                .and_then(|(newest, _)| newest);
            let newest = newest.map(history::numbered);
            if before.newest(pod) != after.newest(pod) {
                shown.old += usize::from(newest.as_ref() == before.newest(pod));
                shown.new += usize::from(newest.as_ref() == after.newest(pod));
            }
        }
        let mut result = check(Path::new(at), &PODS, before, after, random);
        // it would rightly complain about what a bad disk damaged
        let is_damaged = |expected: &Expected| {
            expected
                .pods
                .values()
                .any(|lineage| !lineage.damaged.is_empty())
        };
        if result.is_ok() && !is_damaged(before) && !is_damaged(after) {
            result = verify(Path::new(at), after);
            shown.verified += 1;
        }
        must("umount", &[at]);
        result
    }

    /// Runs histories until there were so many cuts.
    fn prove(&self, directory: &Path, cuts: usize, seed: u64) -> Result<Shown, String> {
        let mut shown = Shown::default();
        let mut random = Random(seed);
        while shown.cuts < cuts {
            let (log, steps) = self.write(directory, &mut random);
            let mut moments: Vec<usize> = (0..CUTS.min(cuts - shown.cuts))
                .map(|_| moment(&steps, &mut random))
                .collect();
            moments.sort_unstable();
            let mut replay = Replay::new(&log);
            for events in moments {
                let cache = random.of(&[
                    Cache::Kept,
                    Cache::Lost,
                    Cache::Any,
                    Cache::Torn,
                    Cache::Torn,
                ]);
                let (pages, pending) = replay.cut(events, cache, self.unit, &mut random);
                pages.save(&directory.join("cut"), self.size).unwrap();
                let index = steps
                    .iter()
                    .rposition(|step| step.events.start <= events && !step.events.is_empty())
                    .unwrap();
                let step = &steps[index];
                let is_over = events >= step.events.end;
                let before = if is_over {
                    &step.after
                } else {
                    &steps[index - 1].after
                };
                shown.cuts += 1;
                shown.with_cache += usize::from(pending > 0);
                shown.in_a_step += usize::from(!is_over);
                self.start(directory, [before, &step.after], &mut shown, &mut random).map_err(|error| {
                    let place = if is_over { "after" } else { "in" };
                    format!("SEED={seed}, {place} step {index} ({}), event {events}, {cache:?}: {error}", step.task)
                })?;
            }
        }
        Ok(shown)
    }
}

/// A moment of a history, after the first start: the one in which a step is over, one shortly
/// before it, or any of it.
fn moment(steps: &[Step], random: &mut Random) -> usize {
    let Range { start, end } = steps[1 + random.below(steps.len() - 1)].events;
    let back = match random.below(3) {
        0 => 0,
        1 => random.below(6),
        _ => random.below(end - start + 1),
    };
    start.max(end.saturating_sub(back))
}

/// `verify` of the program that `PROGRAM` names has nothing to complain of.
fn verify(directory: &Path, expected: &Expected) -> Result<(), String> {
    let Some(program) = std::env::var_os("PROGRAM") else {
        return Ok(());
    };
    let path = |name: &str| directory.join(name);
    let output = Command::new(program)
        .arg("verify")
        .args(["--host-root", "/"])
        .args([Path::new("--state-dir"), &path("state")])
        .args([Path::new("--run-dir"), &path("run")])
        .args([Path::new("--manifest-dir"), &path("manifests")])
        .args(
            expected
                .key_files()
                .iter()
                .flat_map(|file| [Path::new("--key-file"), file]),
        )
        .output()
        .unwrap();
    if output.status.success() {
        return Ok(());
    }
    let (text, error) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    Err(format!("verify: {}: {text}{error}", output.status))
}

fn main() -> ExitCode {
    let setting = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect(name))
    };
    let cuts = usize::try_from(setting("CUTS", 50)).unwrap();
    let seed = setting("SEED", 1);
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    for name in ["served", "mounted"] {
        fs::create_dir(directory.path().join(name)).unwrap();
    }
    let mut failed = false;
    for kind in KINDS
        .iter()
        .filter(|kind| wanted.is_empty() || wanted.iter().any(|name| name == kind.name))
    {
        let begun = Instant::now();
        match kind.prove(directory.path(), cuts, seed) {
            Ok(shown) => {
                // cuts that never hit anything prove nothing
                let is_proof = shown.with_cache > 0 && shown.old > 0 && shown.new > 0;
                failed |= !is_proof && cuts >= 50;
                println!(
                    "{}: SEED={seed} {shown:?}, nothing lost, torn or mixed, {:.0?}",
                    kind.name,
                    begun.elapsed()
                );
            }
            Err(error) => {
                failed = true;
                println!("{}: {error}", kind.name);
            }
        }
        let _ = std::io::stdout().flush();
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
