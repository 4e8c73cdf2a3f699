//! A fleet of nodes against a real API server: the real agent on each, below a directory of its own
//! in memory, with a stub kubelet and a stub runtime ([`kubelet`]).
//! `tests/node/stories/35-fleet.sh` starts it, and makes and deletes pods.
//!
//! Each node takes what is bound to it. An agent's pod of the DaemonSet becomes the agent as a
//! process, with a token that is bound to this pod, as a kubelet gets it; any other pod becomes
//! what the stub runtime shows. Runs until it is killed, and its agents with it.

mod kubelet;
#[path = "../stub/mod.rs"]
mod stub;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

use anyhow::Context as _;
use clap::Parser;
use futures::stream::FuturesUnordered;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use kube_runtime::watcher;
use pod_checkpointer::client::{kube_client, kube_config};
use pod_checkpointer::node::host::HostRoot;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::sleep;

use self::kubelet::{Kubelet, PAUSE, Word};

/// Seconds after which the server ends a watch: before the client takes a silent connection for
/// dead.
const WATCH_SECONDS: u32 = 30;

/// The agents take this process for their kubelet, and read its flags: `--kubeconfig` is the
/// kubelet's as well.
#[derive(Parser)]
struct Arguments {
    /// Program whose agent runs on each node
    #[arg(long)]
    program: PathBuf,
    /// How to reach the API server, as one who may do everything
    #[arg(long)]
    kubeconfig: PathBuf,
    /// Directory in memory, which becomes the nodes' disks
    #[arg(long)]
    directory: PathBuf,
    /// How many nodes, fleet-00 being the first
    #[arg(long, default_value_t = 20)]
    nodes: u8,
}

/// One thread: the agents are set to end with the thread that started them.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fleet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments {
        program,
        kubeconfig,
        directory,
        nodes,
    } = arguments;
    let config = kube_config(Some(&kubeconfig))
        .await
        .context("the kubeconfig")?;
    let client = kube_client(config, HostRoot::new("/")).context("a client")?;
    let place = Rc::new(kubelet::Place {
        program,
        kubeconfig,
        directory,
    });
    let mut kubelets = BTreeMap::new();
    let mut work = FuturesUnordered::new();
    for number in 0..nodes {
        let kubelet = Kubelet::start(client.clone(), place.clone(), number).await?;
        let (teller, words) = unbounded_channel();
        kubelets.insert(kubelet.name().to_owned(), teller);
        work.push(kubelet.run(words));
    }
    println!("{nodes} nodes are there");
    tokio::select! {
        told = tell(client, &kubelets) => told,
        ended = work.next() => ended.context("there are no nodes")?,
    }
}

/// Passes each kubelet the pods that are bound to its node.
async fn tell(
    client: Client,
    kubelets: &BTreeMap<String, UnboundedSender<Word>>,
) -> anyhow::Result<()> {
    let config = watcher::Config::default().timeout(WATCH_SECONDS);
    let mut events = Box::pin(watcher(Api::<Pod>::all(client), config));
    loop {
        let (pod, word): (Pod, fn(Box<Pod>) -> Word) = match events.try_next().await {
            Ok(Some(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod))) => {
                (pod, Word::There)
            }
            Ok(Some(watcher::Event::Delete(pod))) => (pod, Word::Gone),
            Ok(Some(watcher::Event::Init | watcher::Event::InitDone)) => continue,
            Ok(None) => anyhow::bail!("the watch of pods ended"),
            // an outage is part of the story; a kubelet that is late afterwards would be taken for
            // an agent that is
            Err(error) => {
                eprintln!("the watch of pods: {error}");
                sleep(PAUSE).await;
                continue;
            }
        };
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
        if let Some(kubelet) = node.and_then(|node| kubelets.get(node)) {
            kubelet
                .send(word(Box::new(pod)))
                .context("a kubelet has ended")?;
        }
    }
}
