//! The kubelet judges the form: pods over the whole schema, what this program makes of them, and
//! what API servers and kubelets of several versions say. Started by `run.sh`, which builds the
//! other side;
//! see README.md.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod expected;
mod generate;
mod judge;
mod planted;
mod random;
mod table;
mod trial;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use generate::{Pods, Schema};
use judge::{Judge, Request};
use trial::{Case, Tally};

/// Asked in one go.
const BATCH: usize = 250;
/// Pods of which the manifests are also listed by the kubelet's whole file source.
const LISTED: usize = BATCH;
/// With fewer pods some fields and differences may not have come up, so what depends on all of them
/// is not judged.
const ENOUGH: usize = 10_000;
/// Share of pods that API servers may refuse, in a hundred: those prove nothing.
const MOST_REFUSED: usize = 30;
/// The node's name.
pub const NODE: &str = "node-1.example.com";
/// Where twins find their volumes.
pub const RUN_DIR: &str = "/run/pod-checkpointer";

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name}={value:?} is not a number")),
    )
}

fn main() -> ExitCode {
    let judges = PathBuf::from(
        std::env::var_os("JUDGES").expect("JUDGES names the directory of the judges: start run.sh"),
    );
    let pods = usize::try_from(setting("PODS").unwrap_or(20_000)).unwrap();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .subsec_nanos();
    let seed = setting("SEED").unwrap_or_else(|| now.into());
    let mut programs: Vec<PathBuf> = std::fs::read_dir(judges)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    programs.sort();
    let mut sides: Vec<(Judge, Tally)> = programs
        .iter()
        .map(|program| (Judge::start(program), Tally::default()))
        .collect();
    println!(
        "seed {seed}, {pods} pods, kubelets {}",
        sides
            .iter()
            .map(|(judge, _)| judge.version.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    );

    let mut failures = Vec::new();
    let mut planted = 0;
    for (judge, tally) in &mut sides {
        let request = Request {
            gates: true,
            node: NODE,
            ..Request::default()
        };
        tally.gates = judge.ask(&[request]).pop().unwrap().gates;
        planted += planted::check(judge, &mut failures);
    }
    println!(
        "planted: {planted} manifests that are bad, {} of them not noticed",
        failures.len()
    );

    let schema = Schema::new();
    let begin = Instant::now();
    let mut seen = BTreeSet::new();
    let mut first = setting("ONLY").unwrap_or(0);
    let end = setting("ONLY").map_or(u64::try_from(pods).unwrap(), |only| only + 1);
    while first < end {
        let last = end.min(first + u64::try_from(BATCH).unwrap());
        let cases: Vec<Case> = (first..last)
            .map(|number| Case::new(number, Pods::pod(&schema, NODE, seed, number), seed))
            .collect();
        let lists = usize::try_from(first).unwrap() < LISTED;
        std::thread::scope(|scope| {
            for (judge, tally) in &mut sides {
                let cases = &cases;
                scope.spawn(move || tally.batch(judge, cases, lists));
            }
        });
        let (newest, older) = sides.split_last_mut().unwrap();
        std::thread::scope(|scope| {
            for (judge, tally) in older {
                let manifests = &newest.1.manifests;
                scope.spawn(move || tally.skew(judge, manifests));
            }
        });
        seen.append(&mut newest.1.paths);
        first = last;
    }
    println!("{:.0} s", begin.elapsed().as_secs_f64());

    for (judge, tally) in &sides {
        tally.print(&judge.version);
        for (why, (number, count)) in &tally.failures {
            failures.push(format!(
                "{} × {count}, as in pod {number}: {why}",
                judge.version
            ));
        }
        if tally.refused_by_api * 100 > tally.pods * MOST_REFUSED {
            failures.push(format!(
                "{}: its API server refused more than {MOST_REFUSED} % of the pods",
                judge.version
            ));
        }
    }
    if pods >= ENOUGH && setting("ONLY").is_none() {
        let all = schema.paths();
        let absent: Vec<&String> = all
            .difference(&seen)
            .filter(|path| !table::is_not_asked(path))
            .collect();
        println!(
            "fields of a pod's spec: {}, of which {} were in pods that were accepted",
            all.len(),
            all.intersection(&seen).count()
        );
        failures.extend(
            absent
                .iter()
                .map(|path| format!("{path} was in no pod that was accepted")),
        );
        table::check(&sides, &mut failures);
    }
    for failure in failures.iter().take(40) {
        println!("DISAGREEMENT {failure}");
    }
    println!("{} disagreements", failures.len());
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
