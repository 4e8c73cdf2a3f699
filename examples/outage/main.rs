//! Shows the whole life of one checkpoint as it happens: the capture while all is well, a power cut
//! without an API server, the twin, and the hand-over. Needs neither a cluster nor root: `cargo run
//! --example outage`.
//!
//! Agent and supervisor are the real ones. API server, kubelet and runtime are the stubs of the
//! tests: no container runs, but they answer everything that the program asks, and every file
//! exists, in memory, below one directory. `RUST_LOG=info` shows what agent and supervisor log. The
//! exit code is 0 if every step happened, else 1, and the output says which one is missing.

#[path = "../../tests/stub/mod.rs"]
mod stub;
mod till;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Parser as _;
use pod_checkpointer::agent::Settings;
use pod_checkpointer::args::{Arguments, Command, DecisionArguments, SupervisorArguments};
use pod_checkpointer::node::contact::Class;
use pod_checkpointer::places::reports::{OUTAGES, Outages, Phase};
use serde_json::Value;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use stub::api::Mood;
use stub::node::{NAME, listing};
use stub::{Mode, Node, Part, Pod};
use till::View;

/// How long the API server is silent before anything is activated. The default of 3 s would make
/// this example slow.
const ACTIVATION_DELAY: Duration = Duration::from_millis(500);
/// How long each step may take; only a failing one takes that long.
const PATIENCE: Duration = Duration::from_secs(15);
const SUPERVISOR: &str = "pod-checkpointer-supervisor";

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map(|runtime| {
            let parts = LocalSet::new();
            let story = parts.spawn_local(Story::run());
            parts.block_on(&runtime, story)
        });
    match result {
        Ok(Ok(Ok(()))) => return ExitCode::SUCCESS,
        Ok(Ok(Err(missing))) => {
            eprintln!("\nMissing: {missing:#}. RUST_LOG=info shows what the parts log.");
        }
        // a stub found something impossible, and printed what
        Ok(Err(_)) => eprintln!("\nThe example was aborted."),
        Err(error) => eprintln!("\nThe example cannot start: {error}"),
    }
    ExitCode::FAILURE
}

struct Story {
    began: Instant,
    node: Node,
}

impl Story {
    async fn run() -> anyhow::Result<()> {
        let story = Self {
            began: Instant::now(),
            node: Node::start(),
        };
        println!("All files are below {}.\n", story.node.path("").display());
        story.boot_with_the_api_server().await?;
        let (agent, supervisor) = story.begin().await?;
        let parent = story.capture().await?;
        story.cut_power(agent, supervisor).await;
        let supervisor = story.boot_alone().await?;
        let twin = story.activate(&parent).await?;
        story.release(&twin).await?;
        let agent = story.hand_over(&twin, &parent).await?;
        agent.end().await;
        supervisor.end().await;
        story.check_leftovers(&twin)
    }

    async fn boot_with_the_api_server(&self) -> anyhow::Result<()> {
        self.say(
            "API server",
            format!("answers at {}", self.node.server.server().url),
        );
        till::write_volumes(&self.node);
        self.node.kubelet.sync_api(&[till::pod(&self.node)]);
        self.wait("the pod runs", || self.runs(till::UID)).await?;
        self.say(
            "kubelet",
            "runs shop/till, which uses a Secret (mode 0440), a ConfigMap, a token, and variables from both",
        );
        self.node.api.put_pod(till::object(&self.node, false));
        Ok(())
    }

    /// The agent starts and installs the supervisor, which the kubelet starts.
    async fn begin(&self) -> anyhow::Result<(Part, Part)> {
        let agent = Part::agent(self.settings()?, self.node.api.client());
        self.wait("the supervisor's manifest", || self.manifest().is_file())
            .await?;
        self.say(
            "agent",
            format!("watches the pods of {NAME}; has installed {SUPERVISOR}.yaml"),
        );
        let supervisor = self.start_supervisor().await?;
        let hears = || {
            self.node
                .status()
                .contact
                .is_some_and(|contact| contact.class == Class::Answering)
        };
        self.wait("the supervisor has contact with the API server", hears)
            .await?;
        self.say(
            "supervisor",
            "started by the kubelet from that file; the API server answers, so it waits",
        );
        Ok((agent, supervisor))
    }

    async fn capture(&self) -> anyhow::Result<View> {
        let ready = Instant::now();
        self.node.api.put_pod(till::object(&self.node, true));
        self.say("kubelet", "shop/till is Ready");
        let store = self.node.store();
        let newest = || {
            store
                .newest(&till::id())
                .ok()
                .and_then(|(newest, _)| newest)
        };
        self.wait("a checkpoint", || newest().is_some()).await?;
        let took = ready.elapsed();
        let generation = newest().context("a checkpoint")?;
        let file = generation
            .path
            .strip_prefix(self.node.path(""))
            .unwrap_or(&generation.path);
        self.say(
            "agent",
            format!(
                "captured the pod, {} ms after it was Ready:",
                took.as_millis()
            ),
        );
        add(format!("/{}", file.display()));
        add(format!(
            "{} bytes, {:.23}…",
            generation.size, generation.checkpoint.digest
        ));
        self.wait("PodCheckpoint shop/till is Recoverable", || {
            self.is_recoverable()
        })
        .await?;
        self.say(
            "API server",
            "has PodCheckpoint shop/till: Recoverable=True",
        );
        View::of(&self.node, till::UID).context("what the pod sees")
    }

    async fn cut_power(&self, agent: Part, supervisor: Part) {
        agent.kill().await;
        supervisor.kill().await;
        self.node.api.change(|state| state.mood = Mood::Silent);
        self.node.server.set(Mode::Refuse).await;
        self.node.cut_power().await;
        println!();
        self.say(
            "power",
            "fails, and the API server is gone too: the node will boot without it",
        );
        add("lost: every process, the kubelet's state, the run directory, the pod's volumes");
        println!();
    }

    async fn boot_alone(&self) -> anyhow::Result<Part> {
        self.say("power", "is back");
        self.node.kubelet.restart().await;
        let supervisor = self.start_supervisor().await?;
        ensure!(!self.runs(till::UID), "that the pod stays down");
        self.say("kubelet", "starts its static pods: only the supervisor");
        Ok(supervisor)
    }

    async fn activate(&self, parent: &View) -> anyhow::Result<String> {
        let silent = || {
            self.node
                .status()
                .contact
                .is_some_and(|contact| contact.class == Class::Silent)
        };
        self.wait("silence", silent).await?;
        self.say(
            "supervisor",
            "the API server is silent, and shop/till neither runs nor belongs to the kubelet",
        );
        let active =
            || self.node.report(till::KEY).phase == Phase::Active && self.node.is_linked(till::KEY);
        self.wait("a linked twin", active).await?;
        let uid = self
            .node
            .report(till::KEY)
            .twin_uid
            .context("the twin's UID")?;
        let unpacked = self.node.run_dir().path().join("volumes");
        self.say(
            "supervisor",
            format!(
                "silence has lasted {} ms (default 3 s): activates",
                ACTIVATION_DELAY.as_millis()
            ),
        );
        add(format!(
            "unpacked {} files and links to memory",
            listing(&unpacked).len()
        ));
        let link = self.node.link(till::KEY);
        add(format!(
            "linked {}, UID {uid:.8}…",
            link.file_name().unwrap_or_default().display()
        ));
        self.wait("the twin runs", || self.runs(&uid)).await?;
        self.say(
            "kubelet",
            format!("runs the twin, shop/till-{NAME}. Compared with the pod:"),
        );
        let twin = View::of(&self.node, &uid).context("what the twin sees")?;
        let lines = parent.compare(&twin);
        let width = lines
            .iter()
            .map(|(line, _)| line.len())
            .max()
            .unwrap_or_default();
        for (line, is_same) in lines {
            add(format!(
                "{line:<width$}  {}",
                if is_same { "same" } else { "DIFFERS" }
            ));
        }
        ensure!(*parent == twin, "a twin that sees what the pod saw");
        let outages = || {
            self.node
                .run_dir()
                .read::<Outages>(OUTAGES)
                .ok()
                .flatten()
                .unwrap_or_default()
                .outages
        };
        let serves = || outages().last()?.pods.get(&till::id())?.serving;
        self.wait("the record of when it served", || serves().is_some())
            .await?;
        Ok(uid)
    }

    async fn release(&self, twin: &str) -> anyhow::Result<()> {
        println!();
        let answers = Instant::now();
        self.node.api.change(|state| state.mood = Mood::Well);
        self.node.server.set(Mode::Status(200)).await;
        self.say("API server", "answers again");
        self.wait("the release", || !self.node.link(till::KEY).is_symlink())
            .await?;
        let took = answers.elapsed().as_millis();
        self.say(
            "supervisor",
            format!("{took} ms after the first answer: removes the link, before the kubelet lists its pods"),
        );
        self.node.kubelet.settle().await;
        ensure!(self.runs(twin), "a twin that serves on after its release");
        Ok(())
    }

    /// The kubelet gets the pods of the API server, including the agent's, which runs again as a
    /// process of this example.
    async fn hand_over(&self, twin: &str, parent: &View) -> anyhow::Result<Part> {
        till::write_volumes(&self.node);
        self.node.api.put_pod(till::object(&self.node, false));
        self.node.kubelet.sync_api(&[
            till::pod(&self.node),
            Pod::new("pod-checkpointer", "pod-checkpointer-x7k2p", "agent-uid"),
        ]);
        self.wait("the pod and the agent run", || {
            self.runs(till::UID) && self.runs("agent-uid")
        })
        .await?;
        ensure!(self.runs(twin), "pod and twin side by side");
        self.say(
            "kubelet",
            "gets its pods: starts shop/till while the twin runs, and the agent; rejects none",
        );
        let overlap = Instant::now();
        let agent = Part::agent(self.settings()?, self.node.api.client());
        // a pod needs a moment until it is Ready
        sleep(Duration::from_millis(300)).await;
        ensure!(self.runs(twin), "a twin that serves until the pod is Ready");
        self.node.api.put_pod(till::object(&self.node, true));
        self.say("kubelet", "shop/till is Ready");
        self.wait("the end of the twin", || !self.runs(twin))
            .await?;
        ensure!(self.runs(till::UID), "the pod, when its twin ended");
        let took = overlap.elapsed().as_millis();
        self.say(
            "supervisor",
            format!("learns that from the agent: stops the twin; both served for {took} ms"),
        );
        let again = View::of(&self.node, till::UID).context("what the pod sees")?;
        ensure!(*parent == again, "a pod that sees what it saw before");
        let forgotten = || self.node.run_dir().keys().is_ok_and(|keys| keys.is_empty());
        self.wait("the end of the unpacked files", forgotten)
            .await?;
        let twin_is_listed = || {
            self.node
                .runtime
                .state
                .borrow()
                .sandboxes
                .values()
                .any(|one| one.pod.uid == twin)
        };
        self.wait("the end of the twin's sandbox", || !twin_is_listed())
            .await?;
        self.say("supervisor", "has deleted the unpacked files: Inactive");
        let is_published = || self.published("/status/lastOutage/takenOver").is_some();
        self.wait("the outage on the PodCheckpoint", is_published)
            .await?;
        self.say(
            "agent",
            "has reported the outage as lastOutage of PodCheckpoint shop/till:",
        );
        for what in ["from", "activated", "serving", "released", "takenOver"] {
            let time = self.published(&format!("/status/lastOutage/{what}"));
            add(format!("{what:<10} {}", time.as_deref().unwrap_or("-")));
        }
        let is_inactive = || {
            self.published("/status/phase")
                .is_some_and(|phase| phase == "Inactive")
        };
        self.wait("an inactive PodCheckpoint", is_inactive).await?;
        Ok(agent)
    }

    fn check_leftovers(&self, twin: &str) -> anyhow::Result<()> {
        println!();
        self.say(
            "node",
            "nothing is left of the twin. Files of pod-checkpointer:",
        );
        let mut found = Vec::new();
        for directory in [
            "etc/kubernetes/manifests",
            "run/pod-checkpointer",
            "var/lib/pod-checkpointer",
        ] {
            let files = listing(&self.node.path(directory));
            found.extend(
                files
                    .iter()
                    .map(|file| format!("/{directory}/{}", file.display())),
            );
        }
        for file in &found {
            add(file);
        }
        let kept = ["active/", "volumes/", "pod-checkpointer_"];
        let remains: Vec<_> = found
            .iter()
            .filter(|file| kept.iter().any(|part| file.contains(part)))
            .collect();
        ensure!(remains.is_empty(), "an end without {remains:?}");
        let state = self.node.runtime.state.borrow();
        ensure!(
            state
                .sandboxes
                .values()
                .all(|sandbox| sandbox.pod.uid != twin),
            "a runtime without the twin"
        );
        let is_pod = |path: &&String| path.contains("/pods/");
        let pods = self
            .node
            .api
            .state
            .borrow()
            .objects
            .keys()
            .filter(is_pod)
            .count();
        ensure!(pods == 1, "an API server that never heard of the twin");
        self.say(
            "API server",
            "has one pod, shop/till; no mirror pod was ever created",
        );
        println!(
            "\nEvery step succeeded, in {:.1} s.",
            self.began.elapsed().as_secs_f32()
        );
        Ok(())
    }

    /// Waits until the kubelet runs the supervisor's static pod, then starts the process with the
    /// arguments of its manifest.
    async fn start_supervisor(&self) -> anyhow::Result<Part> {
        self.wait("the supervisor's pod runs", || {
            let state = self.node.runtime.state.borrow();
            state
                .sandboxes
                .values()
                .any(|one| one.ready && one.pod.name.starts_with(SUPERVISOR))
        })
        .await?;
        let manifest: Value = serde_json::from_slice(&std::fs::read(self.manifest())?)?;
        let arguments = manifest
            .pointer("/spec/containers/0/args")
            .and_then(Value::as_array);
        let arguments = arguments.into_iter().flatten().filter_map(Value::as_str);
        // without a container there is no other host root, and no variable with the node's name
        // from the kubelet
        let node_name = format!("--node-name={NAME}");
        let given = ["--host-root=/", node_name.as_str()];
        let line = ["pod-checkpointer"]
            .into_iter()
            .chain(arguments)
            .chain(given);
        match Arguments::try_parse_from(line)?.command {
            Command::Supervisor(arguments) => Ok(Part::supervisor(arguments)),
            other => bail!("a supervisor's manifest that runs the supervisor, not {other:?}"),
        }
    }

    fn settings(&self) -> anyhow::Result<Settings> {
        let node = self.node.arguments();
        let decision = DecisionArguments {
            activation_delay: ACTIVATION_DELAY,
            ..node.decision.clone()
        };
        let flags = SupervisorArguments { decision, ..node }.to_flags();
        let line = ["pod-checkpointer".to_owned(), "agent".to_owned()]
            .into_iter()
            .chain(flags);
        let image = "--supervisor-image=registry.example/pod-checkpointer:v1".to_owned();
        let arguments = Arguments::try_parse_from(line.chain([image]))?;
        match arguments.command {
            Command::Agent(agent) => Ok(Settings::new(agent, arguments.log_format)?),
            other => bail!("the agent's flags, not {other:?}"),
        }
    }

    fn manifest(&self) -> std::path::PathBuf {
        self.node
            .kubelet
            .manifests
            .join(Path::new(SUPERVISOR).with_extension("yaml"))
    }

    fn runs(&self, uid: &str) -> bool {
        self.node.runtime.state.borrow().is_running(uid)
    }

    async fn wait(&self, what: &str, mut is_so: impl FnMut() -> bool) -> anyhow::Result<()> {
        let wait = async {
            while !is_so() {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, wait)
            .await
            .with_context(|| what.to_owned())
    }

    fn say(&self, who: &str, what: impl std::fmt::Display) {
        println!(
            "{:7.3} s  {who:<11} {what}",
            self.began.elapsed().as_secs_f32()
        );
    }

    /// A field of the PodCheckpoint, by JSON pointer.
    fn published(&self, pointer: &str) -> Option<String> {
        let checkpoint = self.node.api.checkpoint("shop", "till")?;
        Some(checkpoint.pointer(pointer)?.as_str()?.to_owned())
    }

    fn is_recoverable(&self) -> bool {
        let checkpoint = self.node.api.checkpoint("shop", "till").unwrap_or_default();
        let conditions = checkpoint
            .pointer("/status/conditions")
            .and_then(Value::as_array);
        let is = |condition: &Value, name: &str, value: &str| {
            condition.get(name).and_then(Value::as_str) == Some(value)
        };
        let mut all = conditions.into_iter().flatten();
        all.any(|condition| is(condition, "type", "Recoverable") && is(condition, "status", "True"))
    }
}

/// Prints another line of the last message.
fn add(what: impl std::fmt::Display) {
    println!("{:25}{what}", "");
}
