//! docs/compatibility.md: written from what was seen, and compared with it in every long enough run.

use std::fmt::Write as _;
use std::path::Path;

use super::judge::Judge;
use super::trial::Tally;

const BEGIN: &str = "<!-- seen by tests/kubelet/run.sh: begin -->";
const END: &str = "<!-- seen by tests/kubelet/run.sh: end -->";

/// Fields that no API server with default settings stores in a new pod.
const NEVER_STORED: &[&str] = &[
    // set through the ephemeralcontainers subresource
    "spec.ephemeralContainers",
];

pub fn is_never_stored(path: &str) -> bool {
    NEVER_STORED.iter().any(|field| path == *field || path.strip_prefix(field).is_some_and(|rest| rest.starts_with(['.', '['])))
}

/// Is what stands in the document what was seen? `UPDATE=1` writes it instead.
pub fn check(sides: &[(Judge, Tally)], failures: &mut Vec<String>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/compatibility.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(BEGIN).expect("docs/compatibility.md has a beginning mark");
    let (_, after) = rest.split_once(END).expect("docs/compatibility.md has an end mark");
    let wanted = format!("{before}{BEGIN}\n{}{END}{after}", seen(sides));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, wanted).unwrap();
    } else if document != wanted {
        failures.push("docs/compatibility.md is not what was seen: look at it after UPDATE=1 tests/kubelet/run.sh".into());
    }
}

fn seen(sides: &[(Judge, Tally)]) -> String {
    let mut text = String::from("\n| kubelet | does not know | refuses |\n| --- | --- | --- |\n");
    for (judge, tally) in sides {
        let unknown: Vec<String> = tally.unknown.keys().map(|path| format!("`{path}`")).collect();
        let against: Vec<String> = tally.against.keys().map(|error| format!("`{error}`")).collect();
        let or_nothing = |list: Vec<String>| if list.is_empty() { "nothing".to_owned() } else { list.join("<br>") };
        let _ = writeln!(text, "| {} | {} | {} |", judge.version, or_nothing(unknown), or_nothing(against));
    }
    text.push('\n');
    text
}
