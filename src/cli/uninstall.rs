//! `uninstall`: restores the node to what it was before. Can be repeated at any point.
//!
//! The order matters: links first, so that no more twins are started; then the supervisor's
//! manifest, waiting for the supervisor to end, because it would create files again; then the
//! directories. Files of other programs are not touched.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::args::UninstallArguments;
use crate::cli::Answer;
use crate::console;
use crate::files::write;
use crate::names::DRILL_LOCK;
use crate::places::drill::Place;
use crate::places::manifests::{ManifestDir, Manifests};
use crate::places::reports::{Phase, STATUS, Status};
use crate::places::{Places, run, store};

/// How long the kubelet may take to stop the supervisor, whose grace period is 5 s.
const END: Duration = Duration::from_secs(30);

/// Runs `uninstall`.
pub fn uninstall(arguments: &UninstallArguments) -> anyhow::Result<Answer> {
    let node = Places::find(&arguments.host)?;
    let manifests = node.manifests()?;
    if !arguments.force {
        refuse(&node, &manifests)?;
    }
    clear(&node.manifests)?;
    for link in &manifests.links {
        write::remove(&link.path)?;
        console::say(format_args!("removed {}", node.shown(&link.path).display()));
    }
    for path in &manifests.leftovers {
        write::remove(path)?;
    }
    if manifests.supervisor {
        let path = node.manifests.supervisor_path();
        write::remove(&path)?;
        console::say(format_args!("removed {}", node.shown(&path).display()));
    }
    wait_for_supervisor(&node)?;
    // a supervisor that was just ending may have created another link
    for link in node.manifests()?.links {
        write::remove(&link.path)?;
    }
    remove_ours(&node, node.store.directory(), store::NAMES)?;
    remove_ours(&node, node.run.path(), run::NAMES)?;
    for path in &manifests.foreign {
        console::say(format_args!(
            "not removed: {} does not belong to pod-checkpointer",
            node.shown(path).display()
        ));
    }
    Ok(Answer::Yes)
}

/// Fails if something on the node is still needed, or would be created again.
fn refuse(node: &Places, manifests: &Manifests) -> anyhow::Result<()> {
    if Places::is_locked(&node.agent_lock())? {
        bail!(
            "the agent runs on this node and would reinstall everything: delete the DaemonSet first (or --force)"
        );
    }
    if Places::is_locked(&node.run.path().join(DRILL_LOCK))? {
        bail!("a drill runs on this node: wait until it ends (or --force)");
    }
    let status: Option<Status> = node.run.read(STATUS)?;
    let mut serving: Vec<String> = status
        .iter()
        .flat_map(|status| &status.pods)
        .filter(|pod| matches!(pod.phase, Phase::Active | Phase::Released))
        .map(|pod| format!("{}/{}", pod.namespace, pod.name))
        .collect();
    // a link that leads to a manifest is a twin that runs or is about to, whatever was reported
    // last
    serving.extend(node.in_force(manifests));
    serving.sort_unstable();
    serving.dedup();
    if !serving.is_empty() {
        bail!(
            "twins serve in place of {}: wait until the API server answers and the pods are back (or --force)",
            serving.join(", ")
        );
    }
    Ok(())
}

/// Removes what a drill left behind, its routes first.
fn clear(manifests: &ManifestDir) -> anyhow::Result<()> {
    if manifests.path().is_dir() && manifests.run().path().is_dir() {
        Place::new(manifests.clone())
            .clear()
            .context("cannot remove what a drill left behind")?;
    }
    Ok(())
}

/// Removes the program's files in a directory, then the directory.
fn remove_ours(node: &Places, directory: &Path, names: &[&str]) -> anyhow::Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    let others = write::remove_named(directory, names)?;
    for path in &others {
        console::say(format_args!(
            "not removed: {} does not belong to pod-checkpointer",
            node.shown(path).display()
        ));
    }
    if others.is_empty() {
        // it may be a mount point, which existed before
        let done = if directory.exists() {
            "emptied"
        } else {
            "removed"
        };
        console::say(format_args!("{done} {}", node.shown(directory).display()));
    }
    Ok(())
}

fn wait_for_supervisor(node: &Places) -> anyhow::Result<()> {
    let lock = node.supervisor_lock();
    let begin = Instant::now();
    while Places::is_locked(&lock)? {
        if begin.elapsed() >= END {
            bail!(
                "the supervisor still runs {} s after its manifest was removed (a kubelet that has not reached its API \
                server since it started does not stop pods): stop its container, then run this again",
                END.as_secs()
            );
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
