//! The rehearsal of one pod in normal operation: the kubelet runs a static pod made from the
//! checkpoint, in which this program waits in place of the workload.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

use crate::checkpoint::twin;
use crate::drill::Outcome;
use crate::drill::node::{DrillNode, parent_sandbox, running};
use crate::drill::{look, manifest, tree, view};
use crate::files::write;
use crate::node::clock;
use crate::node::runtime::State;
use crate::places::drill::Record;
use crate::places::store::Generation;
use crate::reasons::Blocked;
use crate::supervisor::core::facts::Key;
use crate::supervisor::core::observe::twin_name;

/// Pause between queries of the runtime.
const PAUSE: Duration = Duration::from_millis(50);
/// If the kubelet has not seen the link by then, the link is created again: its own poll comes
/// only after 20 s.
const NUDGE: Duration = Duration::from_secs(1);
/// How long the end of a rehearsal may take.
const END: Duration = Duration::from_secs(30);

/// Rehearses a pod and leaves nothing behind.
pub async fn rehearse(
    node: &DrillNode,
    key: &Key,
    image: &str,
    limit: Duration,
) -> anyhow::Result<Outcome> {
    let generation = match node.check(key).await {
        Ok(generation) => generation,
        Err(refused) => return Ok(Outcome::refused(&refused)),
    };
    node.has_room().await?;
    let outcome = run(node, key, &generation, image, limit).await;
    let ended = end(node).await;
    let outcome = outcome?;
    ended?;
    Ok(outcome)
}

/// Restores the path to the API server, if it was cut, and removes links and files of rehearsals.
/// Their containers end first, so that no file is removed while it is mounted.
pub async fn end(node: &DrillNode) -> anyhow::Result<()> {
    if let Some(record) = node.place.recorded()? {
        node.place.restore(&record)?;
    }
    for link in node.place.links()? {
        write::remove(&link)?;
    }
    let begun = Instant::now();
    let ended = loop {
        match node.is_rehearsing().await {
            Ok(false) => break Ok(()),
            Ok(true) if begun.elapsed() < END => sleep(PAUSE * 2).await,
            Ok(true) => {
                break Err(anyhow::anyhow!(
                    "the kubelet has not ended a rehearsal {} s after its end",
                    END.as_secs()
                ));
            }
            Err(error) => break Err(error),
        }
    };
    node.place.clear()?;
    ended
}

async fn run(
    node: &DrillNode,
    key: &Key,
    generation: &Generation,
    image: &str,
    limit: Duration,
) -> anyhow::Result<Outcome> {
    let checkpoint = &generation.checkpoint;
    let until = clock::boot_time() + limit + END * 2;
    let until = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
    node.place.record(&Record {
        until,
        cut: Vec::new(),
    })?;
    let directory = node.place.directory(key);
    let volumes = directory.join("volumes");
    write::directory(&directory)?;
    let unpacked = node.files.unpack(checkpoint, &volumes);
    let unpacked = unpacked.map_err(|refused| anyhow::Error::msg(refused.message));
    unpacked.context(
        "cannot unpack the volumes (in a container this needs the same rights as the supervisor's)",
    )?;
    let uid = twin::make(checkpoint, key, &node.nonce(), node.place.run.host_path()).uid;
    let made = manifest::make(&manifest::Plan {
        checkpoint,
        uid: &uid,
        node: &node.name,
        volumes: &node.place.host_directory(key).join("volumes"),
        image,
        hold: limit + END,
        exists: &|path: &Path| node.root().resolve(path).is_ok_and(|real| real.exists()),
    });
    write::file(
        &directory.join("pod.yaml"),
        made.manifest.to_string().as_bytes(),
        0o600,
    )?;
    let mut outcome = Outcome {
        left_out: made.left_out.clone(),
        ..Outcome::default()
    };
    let begun = Instant::now();
    write::link(&node.place.target(key), &node.place.link(key))?;
    if let Err(why) = wait(node, key, checkpoint, &uid, &made, begun, limit).await? {
        return Ok(Outcome {
            reason: Some(Blocked::KubeletRefuses.to_string()),
            message: Some(why),
            ..outcome
        });
    }
    outcome.seconds = Some(begun.elapsed().as_secs_f64());
    outcome.recovers = true;
    outcome.differences = compare(node, key, checkpoint, &uid, &made, &volumes).await?;
    Ok(outcome)
}

/// Waits until every container of it runs. The inner error explains why they do not.
async fn wait(
    node: &DrillNode,
    key: &Key,
    checkpoint: &crate::checkpoint::NodeCheckpoint,
    uid: &str,
    made: &manifest::Rehearsal,
    begun: Instant,
    limit: Duration,
) -> anyhow::Result<Result<(), String>> {
    let parent = &checkpoint.parent;
    let name = twin_name(&manifest::name(&parent.name, &node.name), &node.name);
    let expected = manifest::main_containers(&made.manifest);
    let listed = (parent.namespace.clone(), name.clone());
    let mut is_nudged = false;
    loop {
        let containers = node.runtime.containers_of(uid).await?;
        let runs = |name: &String| {
            containers
                .iter()
                .any(|it| it.name == *name && it.state == State::Running)
        };
        if expected.iter().all(runs) {
            return Ok(Ok(()));
        }
        let waited = begun.elapsed();
        if waited > NUDGE && !is_nudged {
            is_nudged = true;
            if !node.owned().await?.pods.contains(&listed) {
                write::link(&node.place.target(key), &node.place.link(key))?;
            }
        }
        if waited > limit {
            let seconds = limit.as_secs();
            let has_sandbox = node
                .lists()
                .await?
                .sandboxes
                .iter()
                .any(|sandbox| sandbox.uid == uid);
            let missing: Vec<&str> = expected
                .iter()
                .filter(|name| !runs(name))
                .map(String::as_str)
                .collect();
            return Ok(Err(if !node.owned().await?.pods.contains(&listed) {
                format!(
                    "the kubelet did not take the pod within {seconds} s: look for {name} in its log"
                )
            } else if has_sandbox {
                format!(
                    "not running after {seconds} s: {}; look for {name} in the kubelet's log",
                    missing.join(", ")
                )
            } else {
                format!("no sandbox after {seconds} s: look for {name} in the kubelet's log")
            }));
        }
        sleep(PAUSE).await;
    }
}

/// How the containers were created and what they see, compared with the checkpoint and, if it
/// runs, with the pod itself.
async fn compare(
    node: &DrillNode,
    key: &Key,
    checkpoint: &crate::checkpoint::NodeCheckpoint,
    uid: &str,
    made: &manifest::Rehearsal,
    volumes: &Path,
) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for (name, volume) in &checkpoint.volumes {
        let expected = tree::of_volume(volume);
        match tree::read(&volumes.join(name)) {
            Ok(seen) => found.extend(tree::differences(
                &expected,
                &seen,
                &format!("unpacked volume {name}"),
            )),
            Err(error) => found.push(format!("unpacked volume {name} cannot be read: {error}")),
        }
    }
    let lists = node.lists().await?;
    let ours: Vec<_> = lists
        .containers
        .iter()
        .filter(|it| it.pod_uid == uid && it.state == State::Running)
        .collect();
    let theirs = parent_sandbox(&lists, key)
        .map(|sandbox| running(&lists, sandbox))
        .unwrap_or_default();
    let rehearsed = look::at(&node.runtime, &ours, checkpoint, &made.manifest).await?;
    let parents = look::at(&node.runtime, &theirs, checkpoint, &checkpoint.manifest).await?;
    for (name, container) in look::containers(&made.manifest) {
        let Some(seen) = rehearsed.get(&name) else {
            continue;
        };
        let mut differences = Vec::new();
        // without a process whose files can be read, only the runtime's report is compared
        if seen.view.as_ref().is_some_and(|view| view.pid.is_some()) {
            let expected = look::unpacked(checkpoint, container, volumes);
            differences.extend(look::file_differences(&expected, &seen.trees));
        }
        if let Some(parent) = parents.get(&name) {
            if let (Some(parent), Some(seen)) = (&parent.view, &seen.view) {
                let own = |volume: &str| checkpoint.volumes.contains_key(volume);
                differences.extend(view::rehearsed(parent, seen, container, own));
            }
            let newer = look::file_differences(&parent.trees, &seen.trees);
            differences.extend(
                newer
                    .into_iter()
                    .map(|text| format!("unlike the pod that runs now, {text}")),
            );
        }
        found.extend(
            differences
                .into_iter()
                .map(|text| format!("{name}: {text}")),
        );
    }
    Ok(found)
}
