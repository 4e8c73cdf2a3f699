//! Flags and environment, read here and nowhere else, into validated settings.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use kube::core::Selector;

use crate::metrics::address::Address;
use crate::names::{LOCKED_OUT_AFTER, OPERATOR, RUN_DIR, STATE_DIR};
use crate::node::host::HostRoot;
use crate::pod::selector;

/// Brings marked pods back on a Kubernetes node that restarts without its API server, and hands them over again.
#[derive(Debug, Parser)]
#[command(name = "pod-checkpointer", version, about, propagate_version = true, max_term_width = 110)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How log lines look.
    #[arg(long, env = "POD_CHECKPOINTER_LOG_FORMAT", default_value = "text", global = true, value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What the program can be told to do.
#[allow(clippy::large_enum_variant, reason = "there is one, and not for long")]
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Capture the marked pods of this node, install the supervisor, report (runs as a DaemonSet)
    Agent(AgentArguments),
    /// Observe, decide, activate and release (runs as a static pod)
    Supervisor(SupervisorArguments),
    /// Make what the PodCheckpointer of the cluster asks for, and keep it so (runs as a Deployment)
    Operator(OperatorArguments),
    /// Show what is captured on this node, what is active, and why not
    Status(LookArguments),
    /// Show one checkpoint, without the content of Secrets
    Show(ShowArguments),
    /// Verify every checkpoint of this node; exits with 3 when something is wrong
    Verify(VerifyArguments),
    /// Write all checkpoints of this node into one file
    Export(ExportArguments),
    /// Put the checkpoints of an exported file into this node's store, before an agent runs
    Import(ImportArguments),
    /// Tell whether pods will come back, from their manifests and without a cluster; exits with 3 when one will not
    Render(RenderArguments),
    /// Rehearse on this node what an outage would bring back; exits with 3 when a pod did not recover
    Drill(DrillArguments),
    /// Wait, in the place of a workload that is rehearsed
    #[command(hide = true)]
    Hold(HoldArguments),
    /// Give a node that a drill cut off its way back, whatever becomes of the drill
    #[command(hide = true)]
    DrillSwitch(SwitchArguments),
    /// Remove everything of ours from this node
    Uninstall(UninstallArguments),
    /// Print the custom resource definitions, or write them to a directory
    Crd(CrdArguments),
    /// Print all objects of an installation, for kubectl apply; needs no cluster
    Manifests(ManifestsArguments),
}

/// Where things are on the node.
#[derive(Args, Clone, Debug)]
pub struct HostArguments {
    /// Directory of the checkpoints
    #[arg(long, env = "POD_CHECKPOINTER_STATE_DIR", default_value = STATE_DIR, value_name = "DIR", value_parser = absolute)]
    pub state_dir: PathBuf,
    /// Memory-backed directory of what is in force
    #[arg(long, env = "POD_CHECKPOINTER_RUN_DIR", default_value = RUN_DIR, value_name = "DIR", value_parser = absolute)]
    pub run_dir: PathBuf,
    /// Where the host's root directory is [default: /proc/PARENT-PID/root in a container with the host's processes, else /]
    #[arg(long, env = "POD_CHECKPOINTER_HOST_ROOT", value_name = "DIR", value_parser = absolute)]
    pub host_root: Option<PathBuf>,
    /// The kubelet's directory of static pod manifests [default: its staticPodPath; /etc/kubernetes/manifests if it cannot be asked]
    #[arg(long, env = "POD_CHECKPOINTER_MANIFEST_DIR", value_name = "DIR", value_parser = absolute)]
    pub manifest_dir: Option<PathBuf>,
    /// File on the host with the key that checkpoints are sealed with: 32 bytes, as they are, in hexadecimal or in base64,
    /// of root's and for nobody else. May be given again: the first seals, all open
    #[arg(long = "key-file", env = "POD_CHECKPOINTER_KEY_FILE", value_delimiter = ',', value_name = "FILE", value_parser = absolute)]
    pub key_files: Vec<PathBuf>,
    /// The kubelet's root directory
    #[arg(long, env = "POD_CHECKPOINTER_KUBELET_DIR", default_value = "/var/lib/kubelet", value_name = "DIR", value_parser = absolute)]
    pub kubelet_dir: PathBuf,
}

/// What both parts need to know of their node.
#[derive(Args, Clone, Debug)]
pub struct NodeArguments {
    /// Where things are.
    #[command(flatten)]
    pub host: HostArguments,
    /// Name of this node
    #[arg(long, env = "POD_CHECKPOINTER_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// Socket of the container runtime [default: first that exists of unix:///run/containerd/containerd.sock,
    /// unix:///run/crio/crio.sock]
    #[arg(long, env = "POD_CHECKPOINTER_CRI_ENDPOINT", value_name = "unix://PATH", value_parser = endpoint)]
    pub cri_endpoint: Option<PathBuf>,
}

impl HostArguments {
    /// `--host-root`, else where the host's root directory is found to be.
    pub fn root(&self) -> std::io::Result<HostRoot> {
        self.host_root.clone().map_or_else(HostRoot::detect, |root| Ok(HostRoot::new(root)))
    }
}

impl NodeArguments {
    /// `--node-name`, else `$NODE_NAME`.
    pub fn node_name(&self) -> Result<String, Invalid> {
        self.node_name
            .clone()
            .or_else(|| std::env::var("NODE_NAME").ok())
            .filter(|name| !name.is_empty())
            .ok_or(Invalid("--node-name (or NODE_NAME) must name this node"))
    }
}

/// How the supervisor decides; the agent passes these on into its manifest.
#[derive(Args, Clone, Debug)]
pub struct DecisionArguments {
    /// Silence of the API server before anything is activated; at least 3 probes must have failed
    #[arg(long, env = "POD_CHECKPOINTER_ACTIVATION_DELAY", default_value = "3s", value_name = "TIME", value_parser = duration)]
    pub activation_delay: Duration,
    /// How often the API server is asked (250ms while something is active)
    #[arg(long, env = "POD_CHECKPOINTER_PROBE_INTERVAL", default_value = "1s", value_name = "TIME", value_parser = positive)]
    pub probe_interval: Duration,
    /// How long the API server has to answer a probe
    #[arg(long, env = "POD_CHECKPOINTER_PROBE_TIMEOUT", default_value = "1s", value_name = "TIME", value_parser = positive)]
    pub probe_timeout: Duration,
    /// Close the kubelet's own connections that wait on a silent API server while a pod waits to start
    #[arg(long, env = "POD_CHECKPOINTER_UNSTICK_KUBELET", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub unstick_kubelet: bool,
    /// How long a kubelet must get nothing from an API server that answers before its pods are activated all the same, 3m at
    /// least [default: never, because nobody can ask whether they still exist]
    #[arg(long, env = "POD_CHECKPOINTER_ACTIVATE_LOCKED_OUT", value_name = "TIME", value_parser = patience)]
    pub activate_locked_out: Option<Duration>,
    /// API server to ask, several times for several: contact is there while one answers [default: what the agent recorded, the server of the kubelet's own kubeconfig]
    #[arg(long = "apiserver", env = "POD_CHECKPOINTER_APISERVER", value_delimiter = ',', value_name = "URL")]
    pub apiservers: Vec<String>,
    /// File with the CA of these API servers, or with several CAs
    #[arg(long, env = "POD_CHECKPOINTER_APISERVER_CA", value_name = "FILE", requires = "apiservers", value_parser = absolute)]
    pub apiserver_ca: Option<PathBuf>,
}

/// Of the agent.
#[derive(Args, Clone, Debug)]
pub struct AgentArguments {
    /// Of its node.
    #[command(flatten)]
    pub node: NodeArguments,
    /// Passed on to the supervisor.
    #[command(flatten)]
    pub decision: DecisionArguments,
    /// Kubeconfig to reach the API server with [default: in-cluster]
    #[arg(long, env = "POD_CHECKPOINTER_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Image of the supervisor [default: that of the agent's own container]; empty: install no supervisor
    #[arg(long, env = "POD_CHECKPOINTER_SUPERVISOR_IMAGE", value_name = "IMAGE")]
    pub supervisor_image: Option<String>,
    /// Namespaces whose marked pods are captured, however they are marked [default: all]
    #[arg(long, env = "POD_CHECKPOINTER_NAMESPACES", value_delimiter = ',', value_name = "NAME,…")]
    pub namespaces: Vec<String>,
    /// Marks every pod of the namespaces with these labels, for example site=edge [default: none]
    #[arg(long, env = "POD_CHECKPOINTER_NAMESPACE_SELECTOR", value_name = "SELECTOR", value_parser = selector::parse)]
    pub namespace_selector: Option<Selector>,
    /// Marks the pods with these labels, for example app=till,tier in (front,back); may be given again, one is enough
    #[arg(long, env = "POD_CHECKPOINTER_SELECT", value_delimiter = ';', value_name = "SELECTOR", value_parser = selector::parse)]
    pub select: Vec<Selector>,
    /// Age at which a checkpoint is not activated any more, where the pod's own annotation does not say [default: none]
    #[arg(long, env = "POD_CHECKPOINTER_MAX_AGE", value_name = "TIME", value_parser = whole_seconds)]
    pub max_age: Option<Duration>,
    /// The longest outage that is planned for: a kubelet certificate that expires sooner is warned of
    #[arg(long, env = "POD_CHECKPOINTER_PLANNED_OUTAGE", default_value = "168h", value_name = "TIME", value_parser = whole_seconds)]
    pub planned_outage: Duration,
    /// How long a checkpoint outlives its deleted parent when no successor was captured
    #[arg(long, env = "POD_CHECKPOINTER_RETENTION", default_value = "60s", value_name = "TIME", value_parser = duration)]
    pub retention: Duration,
    /// Where metrics and health are served: IP:PORT, :PORT for all addresses, or off. The supervisor is given the port
    /// after it on 127.0.0.1, or off as well
    #[arg(long, env = "POD_CHECKPOINTER_METRICS_ADDRESS", default_value = ":9797", value_name = "ADDRESS")]
    pub metrics_address: Address,
    /// Capture nothing more, and leave this node: its supervisor is told to go as soon as nobody needs it, and what is left
    /// of ours is removed. Ready means that it is done
    #[arg(long, env = "POD_CHECKPOINTER_RETIRE")]
    pub retire: bool,
    /// Name of the agent's own pod (downward API)
    #[arg(long, env = "POD_NAME", hide = true)]
    pub pod_name: Option<String>,
    /// Namespace of the agent's own pod (downward API)
    #[arg(long, env = "POD_NAMESPACE", hide = true, default_value = "pod-checkpointer")]
    pub pod_namespace: String,
}

/// Of the supervisor.
#[derive(Args, Clone, Debug)]
pub struct SupervisorArguments {
    /// Of its node.
    #[command(flatten)]
    pub node: NodeArguments,
    /// How it decides.
    #[command(flatten)]
    pub decision: DecisionArguments,
    /// Where metrics and health are served: IP:PORT, :PORT for all addresses, or off
    #[arg(long, env = "POD_CHECKPOINTER_METRICS_ADDRESS", default_value = "127.0.0.1:9798", value_name = "ADDRESS")]
    pub metrics_address: Address,
}

/// Of the operator.
#[derive(Args, Clone, Debug)]
pub struct OperatorArguments {
    /// Kubeconfig to reach the API server with [default: in-cluster]
    #[arg(long, env = "POD_CHECKPOINTER_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Image of agent and supervisor, where the PodCheckpointer names none [default: that of the operator's own container]
    #[arg(long, env = "POD_CHECKPOINTER_IMAGE", value_name = "IMAGE")]
    pub image: Option<String>,
    /// Where metrics and health are served: IP:PORT, :PORT for all addresses, or off
    #[arg(long, env = "POD_CHECKPOINTER_METRICS_ADDRESS", default_value = ":9797", value_name = "ADDRESS")]
    pub metrics_address: Address,
    /// Name of the operator's own pod (downward API)
    #[arg(long, env = "POD_NAME", hide = true)]
    pub pod_name: Option<String>,
    /// Namespace of the operator's own pod (downward API)
    #[arg(long, env = "POD_NAMESPACE", hide = true, default_value = OPERATOR)]
    pub pod_namespace: String,
}

/// Of the commands that only look.
#[derive(Args, Clone, Debug)]
pub struct LookArguments {
    /// Where things are.
    #[command(flatten)]
    pub host: HostArguments,
    /// How the answer looks
    #[arg(long, short, default_value = "table", value_name = "FORMAT")]
    pub output: Output,
}

/// Of `verify`.
#[derive(Args, Clone, Debug)]
pub struct VerifyArguments {
    /// As those of the other commands that look.
    #[command(flatten)]
    pub look: LookArguments,
    /// Set damaged files aside, and remove what a crash left
    #[arg(long)]
    pub repair: bool,
}

/// Of `export`.
#[derive(Args, Clone, Debug)]
pub struct ExportArguments {
    /// Where things are.
    #[command(flatten)]
    pub host: HostArguments,
    /// Where to; `-`: standard output
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Write the content of Secrets in clear, instead of sealing the file with the first key
    #[arg(long)]
    pub plain: bool,
}

/// Of `import`.
#[derive(Args, Clone, Debug)]
pub struct ImportArguments {
    /// Where things are.
    #[command(flatten)]
    pub host: HostArguments,
    /// What `export` wrote; `-`: standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Store in clear, and use the keys only to open the file
    #[arg(long)]
    pub plain: bool,
}

/// How an answer looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For both.
    Yaml,
}

/// Of `show`.
#[derive(Args, Clone, Debug)]
pub struct ShowArguments {
    /// Where things are.
    #[command(flatten)]
    pub host: HostArguments,
    /// Which pod
    #[arg(value_name = "NAMESPACE/POD")]
    pub pod: String,
    /// Show the content of volumes and the environment as well
    #[arg(long)]
    pub reveal: bool,
}

/// Of `render`.
#[derive(Args, Clone, Debug)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(false).args(["filename", "live"]))]
pub struct RenderArguments {
    /// File of pods, workloads or lists of them, `-` for standard input, or a directory; may be given more than once
    #[arg(long, short, value_name = "FILE")]
    pub filename: Vec<PathBuf>,
    /// Look into the directories below a directory as well
    #[arg(long, short = 'R')]
    pub recursive: bool,
    /// Namespace of objects that name none
    #[arg(long, short, default_value = "default", value_name = "NAME")]
    pub namespace: String,
    /// Render what runs on this node instead: its own environment and images; asks the API server for the pod
    #[arg(long, value_name = "NAMESPACE/POD")]
    pub live: Option<String>,
    /// Kubeconfig to reach the API server with for --live [default: in-cluster]
    #[arg(long, env = "POD_CHECKPOINTER_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Show the values of a live pod's environment as well
    #[arg(long, requires = "live", conflicts_with = "filename")]
    pub reveal: bool,
    /// Tell every field that changes, and why
    #[arg(long)]
    pub explain: bool,
    /// How the answer looks: the manifests as YAML, all that is known as JSON, or a verdict a line
    #[arg(long, short, default_value = "yaml", value_name = "FORMAT")]
    pub output: Output,
    /// Of the node; for files, only the length of its name and the run directory matter
    #[command(flatten)]
    pub node: NodeArguments,
}

/// Of `drill`.
#[derive(Args, Clone, Debug)]
pub struct DrillArguments {
    /// Which pods [default: all that are marked on this node]
    #[arg(value_name = "NAMESPACE/POD")]
    pub pods: Vec<String>,
    /// Really cut this node's own path to the API server for so long, 10s to 1h, and recover for real; all of it is undone
    /// then. Only on a node that may be cut off: the kubelet is started again, and the pods are stopped
    #[arg(long, value_name = "TIME", value_parser = outage)]
    pub outage: Option<Duration>,
    /// Do not ask whether the node may be cut off
    #[arg(long, requires = "outage")]
    pub yes: bool,
    /// How the kubelet is started again, for sh -c [default: systemctl restart kubelet, where systemd runs]
    #[arg(long, requires = "outage", value_name = "COMMAND")]
    pub restart_kubelet: Option<String>,
    /// How long a rehearsed pod may take to run
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = positive)]
    pub limit: Duration,
    /// Image on this node that rehearsed containers run instead of theirs [default: the supervisor's]
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// How the answer looks
    #[arg(long, short, default_value = "table", value_name = "FORMAT")]
    pub output: Output,
    /// Of its node.
    #[command(flatten)]
    pub node: NodeArguments,
}

/// Of `hold`.
#[derive(Args, Clone, Debug)]
pub struct HoldArguments {
    /// How long
    #[arg(value_name = "TIME", value_parser = duration)]
    pub time: Duration,
}

/// Of `drill-switch`.
#[derive(Args, Clone, Debug)]
pub struct SwitchArguments {
    /// The run directory with the record of the drill
    #[arg(value_name = "DIR", value_parser = absolute)]
    pub run_dir: PathBuf,
}

/// Of `uninstall`.
#[derive(Args, Clone, Debug)]
pub struct UninstallArguments {
    /// Where things are.
    #[command(flatten)]
    pub host: HostArguments,
    /// Remove also while the agent still runs or twins serve in place of their parents
    #[arg(long)]
    pub force: bool,
}

/// Of `crd`.
#[derive(Args, Clone, Debug)]
pub struct CrdArguments {
    /// Write one file a resource into this directory instead of printing
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

/// Of `manifests`.
#[derive(Args, Clone, Debug)]
pub struct ManifestsArguments {
    /// File with a PodCheckpointer, `-` for standard input [default: one with an empty spec]
    #[arg(long, short, value_name = "FILE")]
    pub filename: Option<PathBuf>,
    /// Image of agent and supervisor, where the PodCheckpointer names none
    #[arg(long, default_value = concat!("pod-checkpointer:", env!("CARGO_PKG_VERSION")), value_name = "IMAGE")]
    pub image: String,
    /// Leave the custom resource definitions out
    #[arg(long)]
    pub skip_crds: bool,
    /// Print the operator instead, which makes all else of the PodCheckpointer in the cluster
    #[arg(long, conflicts_with = "filename")]
    pub operator: bool,
}

/// Reads a command line of the program, its name first, and says what is wrong with it in one line.
pub fn read(arguments: impl Iterator<Item = String>) -> Result<Command, String> {
    let read = Arguments::try_parse_from(arguments).map(|arguments| arguments.command);
    read.map_err(|error| error.render().to_string().lines().next().unwrap_or_default().to_owned())
}

/// Settings that mean nothing; the text says what to write instead.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub &'static str);

fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text)
        .map_err(|_| "write a number with a unit, for example 250ms, 3s, 10m or 72h".to_owned())
}

fn whole_seconds(text: &str) -> Result<Duration, String> {
    let parsed = duration(text)?;
    if parsed < Duration::from_secs(1) { Err("must be at least 1s".into()) } else { Ok(parsed) }
}

fn positive(text: &str) -> Result<Duration, String> {
    let parsed = duration(text)?;
    if parsed < Duration::from_millis(10) { Err("must be at least 10ms".into()) } else { Ok(parsed) }
}

fn patience(text: &str) -> Result<Duration, String> {
    let parsed = duration(text)?;
    if parsed < LOCKED_OUT_AFTER {
        Err("must be at least 3m: a kubelet may take as long to start".into())
    } else {
        Ok(parsed)
    }
}

fn outage(text: &str) -> Result<Duration, String> {
    let parsed = duration(text)?;
    let bounds = Duration::from_secs(10)..=Duration::from_hours(1);
    if bounds.contains(&parsed) { Ok(parsed) } else { Err("must be from 10s to 1h".into()) }
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let plain = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
    if path.is_absolute() && plain { Ok(path) } else { Err("must be an absolute path without `..`".into()) }
}

fn endpoint(text: &str) -> Result<PathBuf, String> {
    let path = text.strip_prefix("unix://").unwrap_or(text);
    absolute(path).map_err(|_| "must be unix:///path/to/socket".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_flags_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_wrong_flag_is_said_with_what_to_write() {
        for (flags, hint) in [
            (vec!["--activation-delay", "soon"], "3s"),
            (vec!["--probe-interval", "0s"], "10ms"),
            (vec!["--state-dir", "here"], "absolute"),
            (vec!["--cri-endpoint", "tcp://x"], "unix://"),
            (vec!["--metrics-address", "localhost:9798"], "127.0.0.1:9798, :9798 or off"),
            (vec!["--unheard-of"], "--unheard-of"),
        ] {
            let error =
                Arguments::try_parse_from(["pod-checkpointer", "supervisor"].into_iter().chain(flags)).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(hint), "{error}");
        }
    }

    #[test]
    fn an_outage_has_bounds_and_nothing_of_it_goes_without() {
        for (flags, hint) in [
            (vec!["--outage", "9s"], "from 10s to 1h"),
            (vec!["--outage", "61m"], "from 10s to 1h"),
            (vec!["--yes"], "--outage"),
            (vec!["--restart-kubelet", "true"], "--outage"),
        ] {
            let error = Arguments::try_parse_from(["pod-checkpointer", "drill"].into_iter().chain(flags)).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(hint), "{error}");
        }
    }
}
