//! `status`: shows what is captured on this node, what is active, and why something is not.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use crate::args::LookArguments;
use crate::cli::table::{age, columns, size};
use crate::cli::{Answer, answer};
use crate::node::clock;
use crate::places::Places;
use crate::places::reports::{AGENT, AgentReport, Phase, STATUS, Status};
use crate::places::run::RunDir;
use crate::reasons::Risk;
use crate::text::chain;

/// What `status` shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    supervisor: Supervisor,
    agent: Agent,
    contact: Option<Contact>,
    problems: Vec<String>,
    /// What is wrong with the node itself and would keep its pods from coming back or slow them
    /// down, according to the agent.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    risks: BTreeMap<String, String>,
    pods: Vec<Pod>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Supervisor {
    /// Whether its manifest is in the kubelet's manifest directory.
    installed: bool,
    /// Whether it holds its lock.
    running: bool,
    manifest_dir: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Agent {
    /// Whether it holds its lock.
    running: bool,
    /// Seconds since its last heartbeat.
    #[serde(skip_serializing_if = "Option::is_none")]
    heartbeat_age_seconds: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Contact {
    class: String,
    for_seconds: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pod {
    namespace: String,
    name: String,
    /// `Yes`, `No`, or `Unknown`.
    recoverable: &'static str,
    phase: Phase,
    #[serde(skip_serializing_if = "Option::is_none")]
    captured: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    captured_age_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_bytes: Option<u64>,
    /// What marks it, if the agent has reported it since boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    marked_by: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Runs `status`.
pub fn status(arguments: &LookArguments) -> anyhow::Result<Answer> {
    let node = Places::find(&arguments.host)?;
    let shown = look(&node)?;
    answer(arguments.output, &shown, || text(&shown))
}

fn look(node: &Places) -> anyhow::Result<Shown> {
    let mut problems = Vec::new();
    let report: Status = read(&node.run, STATUS, &mut problems);
    let word: AgentReport = read(&node.run, AGENT, &mut problems);
    let manifests = node.manifests()?;
    problems.extend(node.key_problems());
    problems.extend(node.no_static_pods.iter().map(|error| chain(error)));
    problems.extend(report.problems.iter().chain(&word.problems).cloned());
    problems.extend(manifests.foreign.iter().map(|path| {
        format!(
            "{} has a name of pod-checkpointer but does not belong to it: move it elsewhere",
            node.shown(path).display()
        )
    }));
    let is_running = Places::is_locked(&node.supervisor_lock())?;
    let mut risks = word.risks.clone();
    if !is_running {
        let risk = Risk::NoSupervisor;
        let text = || format!("the supervisor does not run ({})", risk.advice());
        risks.entry(risk.to_string()).or_insert_with(text);
    }
    let works = !risks.contains_key(Risk::NoSupervisor.as_str());
    let now = clock::boot_time();
    let since = |time: u64| now.saturating_sub(Duration::from_millis(time)).as_secs();
    Ok(Shown {
        supervisor: Supervisor {
            installed: manifests.supervisor,
            running: is_running,
            manifest_dir: node.manifests_host_path.display().to_string(),
        },
        agent: Agent {
            running: Places::is_locked(&node.agent_lock())?,
            heartbeat_age_seconds: (word.heartbeat > 0).then(|| since(word.heartbeat)),
        },
        contact: report.contact.as_ref().map(|contact| Contact {
            class: format!("{:?}", contact.class),
            for_seconds: since(contact.since),
        }),
        problems,
        pods: pods(node, &report, &word, works)?,
        risks,
    })
}

/// Reads one of the run directory's files; if that fails, it is added to the problems.
fn read<T: serde::de::DeserializeOwned + Default>(
    run: &RunDir,
    name: &str,
    problems: &mut Vec<String>,
) -> T {
    match run.read(name) {
        Ok(value) => value.unwrap_or_default(),
        Err(error) => {
            problems.push(chain(&error));
            T::default()
        }
    }
}

/// The pods of the node. `works`: a supervisor could bring them back.
fn pods(
    node: &Places,
    report: &Status,
    word: &AgentReport,
    works: bool,
) -> anyhow::Result<Vec<Pod>> {
    let mut keys = node.store.keys().context("cannot list the checkpoints")?;
    keys.extend(word.refused.keys().cloned());
    keys.sort_unstable();
    keys.dedup();
    let mut pods = Vec::new();
    for key in keys {
        let (namespace, name) = (key.namespace(), key.name());
        // one pod's directory that cannot be read hides no other pod
        let (newest, bad) = node
            .store
            .newest(&key)
            .unwrap_or_else(|error| (None, vec![error]));
        let header = bad.iter().find_map(|error| error.header());
        let aside = node
            .store
            .find(&key)
            .map(|found| found.aside.len())
            .unwrap_or_default();
        let reported = report
            .pods
            .iter()
            .find(|pod| pod.namespace == namespace && pod.name == name);
        let mut reasons: Vec<String> = word.refused.get(&key).cloned().unwrap_or_default();
        let refused = !reasons.is_empty();
        reasons.extend(reported.and_then(|pod| match (&pod.reason, &pod.message) {
            (Some(reason), Some(message)) => Some(format!("{reason}: {message}")),
            (reason, _) => reason.clone(),
        }));
        reasons.extend(bad.iter().map(|error| chain(error)));
        if aside > 0 {
            reasons.push(format!("Damaged: {aside} set aside"));
        }
        if !works && !refused && newest.is_some() {
            reasons.push(Risk::NoSupervisor.to_string());
        }
        let recoverable = match (&newest, header) {
            (_, _) if refused || !works => "No",
            (Some(_), _) => "Yes",
            // the supervisor may have the key
            (None, Some(_)) => "Unknown",
            (None, None) => "No",
        };
        let captured = newest
            .as_ref()
            .map(|newest| &newest.checkpoint.captured.wall);
        let captured = captured
            .or(header.map(|header| &header.captured.wall))
            .cloned();
        pods.push(Pod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            recoverable,
            phase: reported.map(|pod| pod.phase).unwrap_or_default(),
            captured_age_seconds: captured.as_deref().and_then(captured_age),
            captured,
            generation: newest.as_ref().map(|newest| newest.number),
            size_bytes: newest.as_ref().map(|newest| newest.size),
            warnings: newest
                .map(|newest| {
                    newest
                        .checkpoint
                        .warnings
                        .iter()
                        .map(ToString::to_string)
                        .collect()
                })
                .unwrap_or_default(),
            marked_by: word.marked.get(&key).cloned(),
            reasons,
        });
    }
    Ok(pods)
}

/// Age in seconds by the wall clock, which is what people compare it with.
fn captured_age(wall: &str) -> Option<u64> {
    let captured: jiff::Timestamp = wall.parse().ok()?;
    u64::try_from(jiff::Timestamp::now().duration_since(captured).as_secs()).ok()
}

fn text(shown: &Shown) -> String {
    let Shown {
        supervisor,
        agent,
        contact,
        problems,
        risks,
        pods,
    } = shown;
    let seconds = |seconds: u64| age(Duration::from_secs(seconds));
    let contact = contact.as_ref().map_or("unknown".to_owned(), |contact| {
        format!(
            "{} for {}",
            contact.class.to_lowercase(),
            seconds(contact.for_seconds)
        )
    });
    let supervisor = match (supervisor.installed, supervisor.running) {
        (true, true) => format!("running, installed in {}", supervisor.manifest_dir),
        (true, false) => format!("installed in {}, not running", supervisor.manifest_dir),
        (false, true) => format!("running, but not installed in {}", supervisor.manifest_dir),
        (false, false) => format!("not installed in {}", supervisor.manifest_dir),
    };
    let running = if agent.running {
        "running"
    } else {
        "not running"
    };
    let heartbeat = agent
        .heartbeat_age_seconds
        .map(|age| format!(", last heard {} ago", seconds(age)));
    let mut text = format!(
        "API server:  {contact}\nSupervisor:  {supervisor}\nAgent:       {running}{}\n",
        heartbeat.unwrap_or_default()
    );
    for problem in problems {
        let _ = writeln!(text, "Problem:     {problem}");
    }
    for (risk, seen) in risks {
        let _ = writeln!(text, "Risk:        {risk}: {seen}");
    }
    if pods.is_empty() {
        text.push_str("\nNothing is captured on this node.\n");
        return text;
    }
    let heads = [
        "NAMESPACE",
        "POD",
        "RECOVERABLE?",
        "PHASE",
        "CAPTURED",
        "GENERATION",
        "SIZE",
        "MARKED BY",
        "REASON",
    ];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(pods.iter().map(|pod| {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        let reason = if pod.reasons.is_empty() {
            pod.warnings.join(", ")
        } else {
            pod.reasons.join("; ")
        };
        vec![
            pod.namespace.clone(),
            pod.name.clone(),
            pod.recoverable.to_owned(),
            format!("{:?}", pod.phase),
            or_dash(pod.captured_age_seconds.map(seconds)),
            or_dash(pod.generation.map(|number| number.to_string())),
            or_dash(pod.size_bytes.map(size)),
            or_dash(pod.marked_by.clone()),
            reason,
        ]
    }));
    text.push('\n');
    text.push_str(&columns(&rows));
    text
}
