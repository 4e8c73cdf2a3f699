//! `uninstall`: the node is as it was before. Can be run again at any point.
//!
//! The order matters: links first, so that no twin is started any more; then the supervisor's manifest, and its end is
//! waited for, because it would put things back; then the directories. What is not ours is not touched.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::args::UninstallArguments;
use crate::checkpoint::write;
use crate::cli::Answer;
use crate::cli::node::{Manifests, Node};
use crate::names::SUPERVISOR;
use crate::report::{AGENT, OUTAGES, Phase, STATUS, Status};

/// How long the kubelet may take to end the supervisor: it gets 5 s to stop.
const END: Duration = Duration::from_secs(30);

/// Runs `uninstall`.
pub fn uninstall(arguments: &UninstallArguments) -> anyhow::Result<Answer> {
    let node = Node::find(&arguments.host)?;
    let manifests = node.manifests()?;
    if !arguments.force {
        refuse(&node, &manifests)?;
    }
    for link in &manifests.links {
        write::remove(&link.path)?;
        println!("removed {}", node.shown(&link.path).display());
    }
    for path in &manifests.leftovers {
        write::remove(path)?;
    }
    if manifests.supervisor {
        let path = node.manifests.join(format!("{SUPERVISOR}.yaml"));
        write::remove(&path)?;
        println!("removed {}", node.shown(&path).display());
    }
    wait_for_supervisor(&node)?;
    // A supervisor that was just ending may have linked once more.
    for link in node.manifests()?.links {
        write::remove(&link.path)?;
    }
    remove_ours(&node, node.store.directory(), &["checkpoints", "node.yaml", "agent.lock"])?;
    remove_ours(&node, node.run.path(), &["active", "volumes", "boot", AGENT, STATUS, OUTAGES, "supervisor.lock"])?;
    for path in &manifests.foreign {
        println!("left {}: it is not ours", node.shown(path).display());
    }
    Ok(Answer::Yes)
}

/// Nothing is taken from a node where it is needed, or where it would be put back.
fn refuse(node: &Node, manifests: &Manifests) -> anyhow::Result<()> {
    if Node::is_locked(&node.agent_lock())? {
        bail!("the agent runs on this node and would put everything back: delete the DaemonSet first (or --force)");
    }
    let status: Option<Status> = node.run.read(STATUS)?;
    let mut serving: Vec<String> = status
        .iter()
        .flat_map(|status| &status.pods)
        .filter(|pod| matches!(pod.phase, Phase::Active | Phase::Released))
        .map(|pod| format!("{}/{}", pod.namespace, pod.name))
        .collect();
    // a link to something is a twin that runs or is about to, whatever was reported last
    let linked = manifests.links.iter().filter(|link| node.run.active(&link.key).is_file());
    serving.extend(linked.map(|link| link.key.replace('_', "/")));
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

/// Removes what has these names in a directory, then the directory. Whatever else is in it is somebody's, and both stay: a
/// mistyped `--state-dir` must not cost anybody a file.
fn remove_ours(node: &Node, directory: &Path, names: &[&str]) -> anyhow::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("cannot read {}", directory.display()))?,
    };
    let mut others = 0;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", directory.display()))?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if !names.contains(&name.as_str()) && !name.starts_with(write::TEMPORARY) {
            println!("left {}: it is not ours", node.shown(&path).display());
            others += 1;
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            write::remove_tree(&path)?;
        } else {
            write::remove(&path)?;
        }
    }
    if others > 0 {
        return Ok(());
    }
    match fs::remove_dir(directory) {
        Ok(()) => println!("removed {}", node.shown(directory).display()),
        // a file system of its own is mounted there, and was before us
        Err(error) if error.kind() == ErrorKind::ResourceBusy => {
            println!("emptied {}", node.shown(directory).display());
        }
        Err(error) => return Err(error).with_context(|| format!("cannot remove {}", directory.display())),
    }
    Ok(())
}

fn wait_for_supervisor(node: &Node) -> anyhow::Result<()> {
    let lock = node.supervisor_lock();
    let begin = Instant::now();
    while Node::is_locked(&lock)? {
        if begin.elapsed() >= END {
            bail!(
                "the supervisor still runs {} s after its manifest was removed (a kubelet that has not reached its API \
                 server since it started does not end pods): stop its container, then run this again",
                END.as_secs()
            );
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
