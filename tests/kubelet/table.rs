//! docs/compatibility.md: written from what was observed, and compared with it in every long enough
//! run.

use std::fmt::Write as _;
use std::path::Path;

use super::judge::Judge;
use super::trial::Tally;

const BEGIN: &str = "<!-- seen by tests/kubelet/run.sh: begin -->";
const END: &str = "<!-- seen by tests/kubelet/run.sh: end -->";

/// Fields that are asked for in no pod, with what is in them.
const NOT_ASKED: &[&str] = &[
    // refused by an API server in a new pod, or dropped with the gate's default
    "spec.ephemeralContainers",
    "spec.resources.claims",
    "spec.schedulingGroup",
    "spec.containers[].lifecycle.stopSignal",
    "spec.initContainers[].lifecycle.stopSignal",
    "spec.containers[].readinessProbe.terminationGracePeriodSeconds",
    "spec.initContainers[].readinessProbe.terminationGracePeriodSeconds",
    // not made yet
    "spec.initContainers[].restartPolicyRules",
    // a pod that has the field above is refused, whatever is in it
    "spec.containers[].resources.claims[].request",
    "spec.initContainers[].resources.claims[].request",
    "spec.initContainers[].volumeDevices",
];

/// Kinds of volumes of which each field must come up; the others are captured whole or refused
/// whole.
const VOLUMES: &[&str] = &["name", "emptyDir", "hostPath", "image", "nfs"];

/// May this field of a pod's spec be missing from a run?
pub fn is_not_asked(path: &str) -> bool {
    let is_below = |field: &&str| {
        path == *field
            || path
                .strip_prefix(*field)
                .is_some_and(|rest| rest.starts_with(['.', '[']))
    };
    let volume = path
        .strip_prefix("spec.volumes[].")
        .and_then(|rest| rest.split_once('.'));
    NOT_ASKED.iter().any(is_below) || volume.is_some_and(|(kind, _)| !VOLUMES.contains(&kind))
}

/// Where the kubelet and this program do not agree, and why it stays so: a pod's object does not
/// show the kubelet's version.
const DOCUMENTED: &[(&[&str], &str, &str)] = &[
    (
        &["v1.33.", "v1.34."],
        "recoverable, but the kubelet says: spec.containers[].env[].name: Invalid value",
        "Names of variables must be letters, digits, `_`, `-` and `.` and not begin with a digit: these kubelets validate \
         static pods without the relaxed rules (`PodValidationOptions{}` in pkg/kubelet/config/common.go). Keys that `envFrom` \
         brings count as well",
    ),
    (
        &["v1.33.", "v1.34."],
        "recoverable, but the kubelet says: spec.initContainers[].env[].name: Invalid value",
        "The same",
    ),
    (
        &["v1.33."],
        ".spec.hostnameOverride: lost",
        "A pod whose name has dots and that sets no hostname gets another hostname; so it does with v1.34, which knows the \
         field but has the gate off",
    ),
    (
        &["v1.33."],
        "written, not read: spec.hostnameOverride: lost",
        "The same",
    ),
];

/// What a field needs, where a kubelet that reads it may still ignore it.
const GATED: &[(&str, &str)] = &[
    (
        "containers[].lifecycle.preStop.sleep",
        "PodLifecycleSleepAction",
    ),
    ("containers[].lifecycle.stopSignal", "ContainerStopSignals"),
    (
        "containers[].restartPolicy, restartPolicyRules",
        "ContainerRestartRules",
    ),
    ("containers[].env[].valueFrom.fileKeyRef", "EnvFiles"),
    ("hostnameOverride", "HostnameOverride"),
    ("hostUsers", "UserNamespacesSupport"),
    ("resources", "PodLevelResources"),
    (
        "securityContext.supplementalGroupsPolicy",
        "SupplementalGroupsPolicy",
    ),
    ("securityContext.seLinuxChangePolicy", "SELinuxChangePolicy"),
    ("volumes[].image", "ImageVolume"),
    (
        "references to the API are refused",
        "PreventStaticPodAPIReferences",
    ),
];

pub fn is_documented(version: &str, problem: &str) -> bool {
    DOCUMENTED.iter().any(|(versions, text, _)| {
        *text == problem && versions.iter().any(|it| version.starts_with(it))
    })
}

/// Does the document match what was observed? `UPDATE=1` writes it instead.
pub fn check(sides: &[(Judge, Tally)], failures: &mut Vec<String>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/compatibility.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = document
        .split_once(BEGIN)
        .expect("docs/compatibility.md has a beginning mark");
    let (_, after) = rest
        .split_once(END)
        .expect("docs/compatibility.md has an end mark");
    let wanted = format!("{before}{BEGIN}\n{}{END}{after}", seen(sides));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, wanted).unwrap();
    } else if document != wanted {
        failures
            .push("docs/compatibility.md is not what was seen: look at it after UPDATE=1 tests/kubelet/run.sh".into());
    }
}

fn seen(sides: &[(Judge, Tally)]) -> String {
    let versions: Vec<&str> = sides
        .iter()
        .map(|(judge, _)| judge.version.as_str())
        .collect();
    let mut text = String::from(
        "\n## Pods of an API server of the same version\n\n| kubelet | differs | why |\n| --- | --- | --- |\n",
    );
    for (judge, tally) in sides {
        if tally.documented.is_empty() {
            let _ = writeln!(text, "| {} | nothing | |", judge.version);
        }
        for (_, problem, why) in DOCUMENTED
            .iter()
            .filter(|(_, problem, _)| tally.documented.contains_key(*problem))
        {
            let _ = writeln!(text, "| {} | `{problem}` | {why} |", judge.version);
        }
    }
    let newest = versions.last().unwrap();
    let _ = write!(
        text,
        "\n## Pods of an API server {newest}\n\n| kubelet | does not know | refuses |\n| --- | --- | --- |\n"
    );
    for (judge, tally) in sides {
        let cell = |list: Vec<&String>| match list.as_slice() {
            [] => "nothing".to_owned(),
            list => list
                .iter()
                .map(|it| format!("`{it}`"))
                .collect::<Vec<_>>()
                .join("<br>"),
        };
        let (unknown, against) = (
            tally.unknown.keys().collect(),
            tally.against.keys().collect(),
        );
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            judge.version,
            cell(unknown),
            cell(against)
        );
    }
    let _ = write!(
        text,
        "\n## Features, by default\n\n| field or rule | gate | {} |\n| --- | --- |{}\n",
        versions.join(" | "),
        " --- |".repeat(versions.len())
    );
    for (field, gate) in GATED {
        let state = |tally: &Tally| match tally.gates.get(*gate) {
            Some(true) => "on",
            Some(false) => "off",
            None => "–",
        };
        let states: Vec<&str> = sides.iter().map(|(_, tally)| state(tally)).collect();
        let _ = writeln!(text, "| {field} | {gate} | {} |", states.join(" | "));
    }
    text.push('\n');
    text
}
