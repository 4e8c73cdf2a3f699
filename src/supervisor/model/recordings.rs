//! Compares what a real node did with what the model's node can do.
//!
//! tests/fixtures/recordings holds `outages.yaml` files as supervisors wrote them on a real node,
//! named `<runtime>-<outage>.yaml`. How long a twin took to run, how long its parent took to take
//! over, and how long both ran together, must be times that the model's node can take as well:
//! otherwise its schedules miss what really happens.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::kubelet::Reach;
use super::pods;
use super::world::World;
use crate::files::yaml;
use crate::places::reports::{Outages, PodOutage};
use crate::supervisor::core::facts::Key;

/// Number of schedules from which the model's times are taken.
const SCHEDULES: u64 = 200;
/// The supervisor records a time at its next pass, and the model's clock moves in steps of 50 ms.
const TOLERANCE: i64 = 300;

/// One duration that depends on the kubelet, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// From the link to the twin running.
    Starts,
    /// From the release to the parent running.
    TakesOver,
    /// From the parent running to nothing of the twin running; negative if the twin ends first.
    Ends,
}

/// The pod of the model that stands for one of the node's stories.
fn stands_for(key: &str) -> Option<&'static str> {
    let pods = [
        ("web", "shop_web"),
        ("proxy", "shop_proxy"),
        ("radio", "shop_radio"),
        ("ledger", "shop_store"),
    ];
    let name = key.split_once('_')?.1;
    pods.into_iter()
        .find(|(story, _)| name.starts_with(story))
        .map(|(_, model)| model)
}

fn signed(time: u64) -> i64 {
    i64::try_from(time).unwrap()
}

fn ways(pod: &PodOutage) -> Vec<(Way, i64)> {
    let between = |from: Option<u64>, to: Option<u64>| Some(signed(to?) - signed(from?));
    [
        (Way::Starts, between(pod.activated, pod.serving)),
        (Way::TakesOver, between(pod.released, pod.taken_over)),
        (Way::Ends, between(pod.taken_over, pod.ended)),
    ]
    .into_iter()
    .filter_map(|(way, time)| Some((way, time?)))
    .collect()
}

/// The same from the model's log.
fn times(lines: &[(u64, String)], key: &str) -> PodOutage {
    let key: Key = key.parse().unwrap();
    let at = |text: String| {
        lines
            .iter()
            .find(|(_, line)| *line == text)
            .map(|(at, _)| *at)
    };
    let released = at(format!("Release({key:?})"));
    let after = |text: String| {
        lines
            .iter()
            .find(|(at, line)| Some(*at) >= released && *line == text)
            .map(|(at, _)| *at)
    };
    PodOutage {
        activated: at(format!("Activate({key:?})")),
        serving: at(format!("{key} (twin: true) runs")),
        released,
        taken_over: after(format!("{key} (twin: false) runs")),
        ended: after(format!("Forget({key:?})")),
        ..PodOutage::default()
    }
}

/// The shortest and the longest time that the model takes.
fn model(outage: Reach) -> BTreeMap<(&'static str, Way), (i64, i64)> {
    let mut ranges = BTreeMap::new();
    for seed in 0..SCHEDULES {
        let lines = World::new(seed, pods::ordinary()).one_outage(outage);
        for key in ["shop_web", "shop_proxy", "shop_radio", "shop_store"] {
            for (way, time) in ways(&times(&lines, key)) {
                let range = ranges.entry((key, way)).or_insert((time, time));
                *range = (range.0.min(time), range.1.max(time));
            }
        }
    }
    ranges
}

#[test]
fn the_model_can_reproduce_what_real_nodes_did() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/recordings");
    let models = [Reach::Refused, Reach::BlackHole].map(model);
    let (mut wrong, mut compared, mut kinds) = (Vec::new(), 0, BTreeSet::new());
    for entry in fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let kind = name
            .split('-')
            .nth(1)
            .unwrap_or_else(|| panic!("{name} is not <runtime>-<outage>"));
        let model = match kind {
            "refused" => &models[0],
            // a parent that waits for it takes longer
            "blackhole" | "dead" | "hang" => &models[1],
            _ => panic!("{name}: the model has no outage of that kind"),
        };
        kinds.insert(kind.to_owned());
        let recorded: Outages =
            serde_json::from_value(yaml::parse(&fs::read(&path).unwrap()).unwrap()).unwrap();
        for (key, pod) in recorded.outages.iter().flat_map(|outage| &outage.pods) {
            let Some(model_key) = stands_for(key.file_form()) else {
                continue;
            };
            for (way, time) in ways(pod) {
                let (least, most) = model[&(model_key, way)];
                compared += 1;
                if !(least - TOLERANCE..=most + TOLERANCE).contains(&time) {
                    wrong.push(format!(
                        "{name}: {key}: {way:?} {time} ms, in the model {least} to {most}"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "of {compared}:\n{}", wrong.join("\n"));
    assert!(
        compared >= 30
            && ["refused", "blackhole"]
                .iter()
                .all(|kind| kinds.contains(*kind)),
        "{compared} times of {kinds:?} is not much"
    );
}
