//! A real outage of this node only, for a limited time: its path to the API server is cut, the
//! kubelet forgets its pods, the pods end, and the supervisor brings them back.

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::future::join_all;
use tokio::time::{Instant, sleep, sleep_until};

use crate::args::DrillArguments;
use crate::checkpoint::NodeCheckpoint;
use crate::console;
use crate::drill::Outcome;
use crate::drill::look::{self, Look};
use crate::drill::node::{DrillNode, parent_sandbox, running};
use crate::drill::{switch, view};
use crate::node::contact::{Class, Outcome as Probed};
use crate::node::kubelet::Server;
use crate::node::probe::Prober;
use crate::node::{clock, routes, runtime};
use crate::places::drill::Record;
use crate::places::manifests::Link;
use crate::places::reports::Phase;
use crate::reasons::Blocked;
use crate::supervisor::core::facts::{Key, Run};
use crate::supervisor::core::known::Known;
use crate::supervisor::core::observe::{self, Lists, is_twin_of};
use crate::supervisor::core::stops::{Stop, parent_targets, twin_targets};
use crate::supervisor::perform::stop_through;
use crate::text::chain;

/// Pause between checks.
const PAUSE: Duration = Duration::from_millis(100);
/// How long an API server may take to answer before the drill.
const PROBE_LIMIT: Duration = Duration::from_secs(5);
/// How long the supervisor may take to notice that the path is cut.
const NOTICE: Duration = Duration::from_secs(15);
/// How long the kubelet may take to come back.
const KUBELET: Duration = Duration::from_mins(1);
/// How long the hand-over may take: a kubelet asks again after up to a minute, and a twin is kept
/// for two.
const HAND_OVER: Duration = Duration::from_mins(6);
/// How much later than the drill itself the dead man's switch restores the path.
const SWITCH: Duration = Duration::from_secs(3);

/// A pod before its outage.
struct Before {
    checkpoint: NodeCheckpoint,
    looks: BTreeMap<String, Look>,
}

/// The result for each pod, by key.
pub type Outcomes = BTreeMap<Key, Outcome>;

/// What an outage needs, found before anything is changed.
pub struct Plan {
    addresses: Vec<IpAddr>,
    time: Duration,
    restart: String,
}

impl Plan {
    /// Fails if the cut would affect more than this node, or could not be undone.
    pub async fn make(
        node: &DrillNode,
        arguments: &DrillArguments,
        time: Duration,
    ) -> anyhow::Result<Self> {
        if node.root().path() != Path::new("/") {
            bail!(
                "--outage must run on the node itself, as root, not in a container: it restarts the kubelet"
            );
        }
        let restart = match &arguments.restart_kubelet {
            Some(command) => command.clone(),
            None if Path::new("/run/systemd/system").is_dir() => {
                "systemctl restart kubelet".to_owned()
            }
            None => bail!(
                "no systemd runs here: set the command that restarts the kubelet with --restart-kubelet"
            ),
        };
        let addresses = addresses(node).await?;
        Ok(Self {
            addresses,
            time,
            restart,
        })
    }

    /// What will be done, for people.
    pub fn describe(&self, pods: usize) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        format!(
            "This node will not reach {} for {}. The kubelet will be started again ({}), and {pods} pods will be stopped and \
             brought back without the API server. Pods that are not marked run on, but are not started again meanwhile.",
            addresses.join(", "),
            humantime::format_duration(self.time),
            self.restart,
        )
    }
}

/// Every address of the API servers that the agent recorded or that the kubelet uses. Each must
/// answer now.
async fn addresses(node: &DrillNode) -> anyhow::Result<Vec<IpAddr>> {
    let record = node.store().node()?;
    let mut servers: Vec<Server> = record
        .into_iter()
        .flat_map(|record| record.servers)
        .map(Server::from)
        .collect();
    if let Some(server) = node.kubelet_server() {
        servers.push(server?);
    }
    servers.dedup();
    let mut found = Vec::new();
    for server in servers {
        let url = server.url.clone();
        if server.proxy.is_some() {
            bail!(
                "{url} is reached through a proxy: cutting the path to the proxy would cut off more than the API server"
            );
        }
        let prober = Prober::new(server, node.root().clone(), PROBE_LIMIT)?;
        if !matches!(prober.probe().await, Probed::Status(_)) {
            bail!("{url} does not answer: this would be no drill, so nothing was changed");
        }
        found.extend(
            prober
                .addresses()
                .iter()
                .map(|address| address.ip().to_canonical()),
        );
    }
    found.sort_unstable();
    found.dedup();
    if found.is_empty() {
        bail!(
            "no API server is known: the agent has recorded none, and the kubelet's kubeconfig is not known"
        );
    }
    // only an address of this node can be bound
    if let Some(own) = found
        .iter()
        .find(|address| UdpSocket::bind((**address, 0)).is_ok())
    {
        bail!(
            "the API server is reached at {own}, an address of this node: there is no path to cut"
        );
    }
    Ok(found)
}

/// Cuts the path, watches the pods, and restores the path. Outcomes are filled in as they become
/// known, so that an early end still has some.
pub async fn run(
    node: &DrillNode,
    plan: &Plan,
    keys: &[Key],
    outcomes: &mut Outcomes,
) -> anyhow::Result<()> {
    let mut before = BTreeMap::new();
    let lists = node.lists().await?;
    for key in keys {
        match node.check(key).await {
            Ok(generation) => match parent(node, &lists, key, generation.checkpoint).await? {
                Some(known) => drop(before.insert(key.clone(), known)),
                None => {
                    drop(outcomes.insert(
                        key.clone(),
                        Outcome::not_tried("the pod itself does not run now"),
                    ));
                }
            },
            Err(refused) => drop(outcomes.insert(key.clone(), Outcome::refused(&refused))),
        }
    }
    if before.is_empty() {
        console::note(format_args!(
            "no pod could be brought back: nothing was cut"
        ));
        return Ok(());
    }
    let end = Instant::now() + plan.time;
    let until = clock::boot_time() + plan.time + SWITCH;
    let until = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
    let record = Record {
        until,
        cut: plan.addresses.clone(),
    };
    // the record before the switch, the switch before the first route
    node.place.record(&record)?;
    let mut switch = switch::arm(node.place.run.path())?;
    let result = cut_off(node, plan, &before, end, outcomes).await;
    node.place.restore(&record)?;
    console::note(format_args!("the path to the API server is restored"));
    // everything recorded is undone: the switch need not wait for its time
    let _ = switch.kill();
    let _ = switch.wait();
    node.place.clear()?;
    result?;
    hand_over(node, &before, outcomes).await
}

/// How the containers of a running pod were created, and the files that they see.
async fn parent(
    node: &DrillNode,
    lists: &Lists,
    key: &Key,
    checkpoint: NodeCheckpoint,
) -> anyhow::Result<Option<Before>> {
    let Some(sandbox) = parent_sandbox(lists, key) else {
        return Ok(None);
    };
    let looks = look::at(
        &node.runtime,
        &running(lists, sandbox),
        &checkpoint,
        &checkpoint.manifest,
    )
    .await?;
    Ok(Some(Before { checkpoint, looks }))
}

async fn cut_off(
    node: &DrillNode,
    plan: &Plan,
    before: &BTreeMap<Key, Before>,
    end: Instant,
    outcomes: &mut Outcomes,
) -> anyhow::Result<()> {
    for address in &plan.addresses {
        routes::cut(*address)
            .with_context(|| format!("cannot cut this node off from {address} by a route"))?;
    }
    console::note(format_args!(
        "cut off from the API server for {}",
        humantime::format_duration(plan.time)
    ));
    let lost = async || {
        let contact = node.status()?.contact;
        Ok(contact.is_some_and(|contact| matches!(contact.class, Class::Silent | Class::Failing)))
    };
    wait_for(
        NOTICE.min(plan.time),
        "the supervisor has not noticed that the API server is out of reach",
        lost,
    )
    .await?;

    let old = node.owned().await?.pid;
    restart(&plan.restart)?;
    // The new kubelet lists its static pods, including the supervisor's, once it has found all
    // running containers. Each container that ends before that delays it by three seconds
    // (cadvisor, "Failed to create existing container"), which does not happen after a reboot.
    let forgot = async || match node.owned().await {
        Ok(owned) => Ok(owned.pid != old
            && !owned.pods.is_empty()
            && !observe::is_synced(&owned, &node.name)),
        Err(_) => Ok(false),
    };
    wait_for(
        KUBELET.min(plan.time),
        "the kubelet did not restart without the API server's pods",
        forgot,
    )
    .await?;
    console::note(format_args!(
        "the kubelet has forgotten its pods; stopping {}",
        before.len()
    ));

    let lists = node.lists().await?;
    let stops = before.iter().map(|(key, before)| {
        let grace = Some(before.checkpoint.policy.grace());
        let (stop, runtime) = (
            Stop {
                targets: parent_targets(&lists, key),
                grace,
            },
            node.runtime.clone(),
        );
        async move {
            let stopped = stop_through(runtime, stop).await;
            (key.clone(), Instant::now(), stopped)
        }
    });
    let mut waiting: BTreeMap<Key, Instant> = BTreeMap::new();
    for (key, stopped, result) in join_all(stops).await {
        match result {
            Ok(()) => drop(waiting.insert(key, stopped)),
            Err(error) => drop(outcomes.insert(key, Outcome::not_tried(&cannot_stop(&error)))),
        }
    }
    while !waiting.is_empty() && Instant::now() < end {
        let lists = node.lists().await?;
        for (key, stopped) in waiting.clone() {
            let Some(before) = before
                .get(&key)
                .filter(|before| is_running(&lists, &key, &before.checkpoint))
            else {
                continue;
            };
            waiting.remove(&key);
            let seconds = Some(stopped.elapsed().as_secs_f64());
            let differences = compare(node, &lists, &key, before).await?;
            outcomes.insert(
                key,
                Outcome {
                    recovers: true,
                    seconds,
                    differences,
                    ..Outcome::default()
                },
            );
        }
        sleep(PAUSE).await;
    }
    let reports = node.status()?.pods;
    for key in waiting.into_keys() {
        let report = reports.iter().find(|pod| key.is(&pod.namespace, &pod.name));
        let reason = report
            .and_then(|pod| pod.reason.clone())
            .unwrap_or_else(|| Blocked::KubeletRefuses.to_string());
        let message = report.and_then(|pod| pod.message.clone());
        let message = Some(
            message.unwrap_or_else(|| "its twin did not run while the node was cut off".to_owned()),
        );
        outcomes.insert(
            key,
            Outcome {
                reason: Some(reason),
                message,
                ..Outcome::default()
            },
        );
    }
    sleep_until(end).await;
    // every twin that ran must still run
    let lists = node.lists().await?;
    for (key, before) in before {
        if let Some(outcome) = outcomes.get_mut(key).filter(|outcome| outcome.recovers)
            && !is_running(&lists, key, &before.checkpoint)
        {
            outcome.recovers = false;
            outcome.message = Some("its twin ran, and no longer did at the end".to_owned());
        }
    }
    Ok(())
}

fn cannot_stop(error: &runtime::Error) -> String {
    format!("it could not be stopped: {}", chain(error))
}

/// A new kubelet process.
fn restart(command: &str) -> anyhow::Result<()> {
    let status = Command::new("sh")
        .args(["-c", command])
        .stdin(std::process::Stdio::null())
        .status();
    let status = status.with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("the kubelet was not restarted: {command:?} ended with {status} (--restart-kubelet)");
    }
    Ok(())
}

fn is_running(lists: &Lists, key: &Key, checkpoint: &NodeCheckpoint) -> bool {
    let known = Known::of(checkpoint);
    observe::pod_facts(key, &known, "", Some(lists), None, None, false).twin == Run::Running
}

async fn compare(
    node: &DrillNode,
    lists: &Lists,
    key: &Key,
    before: &Before,
) -> anyhow::Result<Vec<String>> {
    let (namespace, name) = (key.namespace(), key.name());
    let twin = lists
        .sandboxes
        .iter()
        .find(|sandbox| sandbox.ready && is_twin_of(sandbox, namespace, name));
    let ours = twin
        .map(|sandbox| running(lists, sandbox))
        .unwrap_or_default();
    let manifest = &before.checkpoint.manifest;
    let twins = look::at(&node.runtime, &ours, &before.checkpoint, manifest).await?;
    let mut found = Vec::new();
    for (name, container) in look::containers(manifest) {
        let (Some(parent), Some(twin)) = (before.looks.get(&name), twins.get(&name)) else {
            continue;
        };
        let mut differences = look::file_differences(&parent.trees, &twin.trees);
        if let (Some(parent), Some(twin)) = (&parent.view, &twin.view) {
            differences.extend(view::differences(parent, twin, container));
        }
        found.extend(
            differences
                .into_iter()
                .map(|text| format!("{name}: {text}")),
        );
    }
    Ok(found)
}

/// Waits until every pod itself runs again and no twin is in its place.
async fn hand_over(
    node: &DrillNode,
    before: &BTreeMap<Key, Before>,
    outcomes: &mut Outcomes,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut waiting: Vec<&Key> = before.keys().collect();
    while !waiting.is_empty() && begun.elapsed() < HAND_OVER {
        let (status, lists) = (node.status()?, node.lists().await?);
        waiting.retain(|key| {
            let is_quiet = status
                .pods
                .iter()
                .any(|pod| key.is(&pod.namespace, &pod.name) && pod.phase == Phase::Inactive);
            let is_back = is_quiet
                && node.files.manifests.link(key) == Link::None
                && twin_targets(&lists, key)
                    .iter()
                    .all(|target| !target.runs())
                && parent_sandbox(&lists, key)
                    .is_some_and(|sandbox| !running(&lists, sandbox).is_empty());
            if is_back && let Some(outcome) = outcomes.get_mut(*key) {
                outcome.handed_back = Some(begun.elapsed().as_secs_f64());
            }
            !is_back
        });
        sleep(PAUSE).await;
    }
    for key in waiting {
        if let Some(outcome) = outcomes.get_mut(key) {
            outcome.recovers = false;
            outcome.message = Some(format!("not handed back within {} s", HAND_OVER.as_secs()));
        }
    }
    Ok(())
}

async fn wait_for(
    limit: Duration,
    otherwise: &str,
    is_so: impl AsyncFn() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !is_so().await? {
        if begun.elapsed() >= limit {
            bail!("{otherwise}");
        }
        sleep(PAUSE).await;
    }
    Ok(())
}
