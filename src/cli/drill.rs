//! `drill`: rehearses on this node what an outage would bring back. The one command that needs a
//! node that is well.
//!
//! While all is well nothing that serves is touched: the kubelet runs each pod once more, with this
//! program in the place of the workload (`rehearse`). With `--outage` the node is really cut off
//! for a time (`outage`).

use std::fmt::Write as _;
use std::future::Future;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Serialize;

use crate::args::{DrillArguments, HoldArguments, HostArguments, SwitchArguments};
use crate::cli::table::columns;
use crate::cli::{Answer, answer};
use crate::drill::node::DrillNode;
use crate::drill::{Outcome, outage, rehearse, switch};
use crate::places::Places;
use crate::pod::id::PodId;

/// How long somebody else's look at the lock is waited for.
const LOCK: Duration = Duration::from_secs(2);

/// What a rehearsal does not show, whatever its outcome.
const NOT_REHEARSED: [&str; 6] = [
    "the workload itself: its program, init containers, probes and hooks did not run, nor did the image's user",
    "binding of host ports, and limits and priority in effect (whether requests and host ports fit was checked)",
    "networks and addresses that annotations or labels ask for",
    "writing to hostPath volumes and claims, which were mounted read-only",
    "kubelet and runtime after a reboot, and a CNI plugin that needs the API server then",
    "the outage itself: its detection, start order, release and hand-over (drill --outage covers these)",
];
/// The same of an outage.
const NOT_CUT: [&str; 5] = [
    "a reboot: runtime, network and mounts of this node stayed as they were",
    "dropped packets: connections failed at once, so the kubelet never waited a minute for volumes",
    "an outage of name servers and load balancers",
    "what the API server would have done if the node had been away for longer than its pods tolerate",
    "pods that are not marked",
];

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    /// `Rehearsal` or `Outage`.
    kind: &'static str,
    pods: Vec<Pod>,
    not_covered: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct Pod {
    namespace: String,
    name: String,
    #[serde(flatten)]
    outcome: Outcome,
}

/// A node to hold a drill on. Before anything asynchronous: it asks the kubelet by itself.
pub fn find(arguments: &HostArguments) -> anyhow::Result<Places> {
    Ok(Places::find(arguments)?)
}

/// Runs `drill`; `stop` ends it early, with nothing left behind.
pub async fn drill(
    arguments: &DrillArguments,
    node: Places,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<Answer> {
    let node = DrillNode::find(&arguments.node, node).await?;
    node.is_quiet().await?;
    let chosen = node.keys(&arguments.pods)?;
    let mut outcomes = outage::Outcomes::new();
    let mut keys = Vec::new();
    for (key, reasons) in chosen {
        if reasons.is_empty() {
            keys.push(key);
        } else {
            let message = Some("the agent refuses to capture it".to_owned());
            outcomes.insert(
                key,
                Outcome {
                    reason: Some(reasons.join("; ")),
                    message,
                    ..Outcome::default()
                },
            );
        }
    }
    let plan = match arguments.outage {
        Some(time) => Some(outage::Plan::make(&node, arguments, time).await?),
        None => None,
    };
    if let Some(plan) = &plan
        && !arguments.yes
    {
        confirm(&plan.describe(keys.len()))?;
    }
    let _lock = lock(&node).await?;
    // of a drill before this one that was killed
    rehearse::end(&node).await?;
    let work = async {
        if let Some(plan) = &plan {
            return outage::run(&node, plan, &keys, &mut outcomes).await;
        }
        let image = node.image(arguments.image.as_deref()).await?;
        for key in &keys {
            let outcome = rehearse::rehearse(&node, key, &image, arguments.limit).await?;
            outcomes.insert(key.clone(), outcome);
        }
        Ok(())
    };
    let worked = tokio::select! {
        worked = work => worked,
        () = stop => Err(anyhow::anyhow!("the drill was stopped early; everything is undone")),
    };
    // whatever happened: the way back, links, files
    let ended = rehearse::end(&node).await;
    worked?;
    ended?;
    let shown = Shown {
        kind: if plan.is_some() {
            "Outage"
        } else {
            "Rehearsal"
        },
        pods: outcomes.into_iter().map(pod).collect(),
        not_covered: if plan.is_some() {
            NOT_CUT.to_vec()
        } else {
            NOT_REHEARSED.to_vec()
        },
    };
    answer(arguments.output, &shown, || text(&shown))?;
    Ok(if shown.pods.iter().all(|pod| pod.outcome.recovers) {
        Answer::Yes
    } else {
        Answer::No
    })
}

/// Runs `drill-switch`.
pub async fn switch(arguments: &SwitchArguments) -> anyhow::Result<Answer> {
    switch::run(&arguments.run_dir).await?;
    Ok(Answer::Yes)
}

/// Runs `hold`: waits, or ends at once when told to. It ends well only where its time is over, as
/// an init container's is.
pub async fn hold(arguments: &HoldArguments, stop: impl Future<Output = ()>) -> Answer {
    tokio::select! {
        () = tokio::time::sleep(arguments.time) => Answer::Yes,
        () = stop => Answer::Yes,
    }
}

async fn lock(node: &DrillNode) -> anyhow::Result<std::fs::File> {
    let begun = tokio::time::Instant::now();
    loop {
        match node.place.lock()? {
            Some(lock) => return Ok(lock),
            // the supervisor may be looking whether somebody holds it
            None if begun.elapsed() < LOCK => tokio::time::sleep(LOCK / 20).await,
            None => bail!("another drill runs on this node"),
        }
    }
}

fn confirm(what: &str) -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() {
        bail!("{what} Give --yes to do it");
    }
    let mut error = std::io::stderr().lock();
    write!(error, "{what}\nContinue? Type yes: ")?;
    error.flush()?;
    drop(error);
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .context("cannot read the answer")?;
    if line.trim() != "yes" {
        bail!("nothing was done");
    }
    Ok(())
}

fn pod((key, outcome): (PodId, Outcome)) -> Pod {
    Pod {
        namespace: key.namespace().to_owned(),
        name: key.name().to_owned(),
        outcome,
    }
}

fn text(shown: &Shown) -> String {
    let Shown {
        kind,
        pods,
        not_covered,
    } = shown;
    if pods.is_empty() {
        return "Nothing is captured on this node.\n".into();
    }
    let is_outage = *kind == "Outage";
    let mut heads = vec!["NAMESPACE", "POD", "RECOVERS", "SECONDS"];
    if is_outage {
        heads.push("HANDED BACK");
    }
    heads.extend(["DIFFERENCES", "REASON"]);
    let mut rows = vec![heads.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    let seconds = |time: Option<f64>| time.map_or("-".to_owned(), |time| format!("{time:.1}"));
    for Pod {
        namespace,
        name,
        outcome,
    } in pods
    {
        let mut row = vec![namespace.clone(), name.clone()];
        row.push(if outcome.recovers { "yes" } else { "no" }.into());
        row.push(seconds(outcome.seconds));
        if is_outage {
            row.push(seconds(outcome.handed_back));
        }
        row.push(outcome.differences.len().to_string());
        let reason = [&outcome.reason, &outcome.message]
            .into_iter()
            .flatten()
            .map(String::as_str);
        row.push(reason.collect::<Vec<_>>().join(": "));
        rows.push(row);
    }
    let mut text = columns(&rows);
    for Pod {
        namespace,
        name,
        outcome,
    } in pods
    {
        for difference in &outcome.differences {
            let _ = writeln!(text, "{namespace}/{name} differs: {difference}");
        }
        for left_out in &outcome.left_out {
            let _ = writeln!(text, "{namespace}/{name} was rehearsed without {left_out}");
        }
    }
    text.push_str("\nNot covered:\n");
    for what in not_covered {
        let _ = writeln!(text, "- {what}");
    }
    text
}
