//! The command line: flags and environment variables, parsed into validated settings here and
//! nowhere else.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use kube::core::Selector;

use crate::metrics::address::Address;
use crate::names::{EARLY_NAMESPACES, LOCKED_OUT_AFTER, OPERATOR, RUN_DIR, STATE_DIR};
use crate::node::host::HostRoot;
use crate::pod::selector;

/// Bring marked pods back on a Kubernetes node that restarts without its API server, and hand them
/// back
#[derive(Debug, Parser)]
#[command(
    name = "pod-checkpointer",
    version,
    about,
    propagate_version = true,
    max_term_width = 110
)]
pub struct Arguments {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
    /// Format of the log lines
    #[arg(
        long,
        env = "POD_CHECKPOINTER_LOG_FORMAT",
        default_value = "text",
        global = true,
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,
}

/// Format of the log lines
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// The commands of the program.
#[allow(
    clippy::large_enum_variant,
    reason = "a process has only one, and only briefly"
)]
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Capture the marked pods of this node, install the supervisor, and report (runs as a
    /// DaemonSet)
    Agent(AgentArguments),
    /// Bring pods back while the API server is away, and hand them back (runs as a static pod)
    Supervisor(SupervisorArguments),
    /// Install what the cluster's PodCheckpointer asks for, and keep it that way (runs as a
    /// Deployment)
    Operator(OperatorArguments),
    /// Show what is captured on this node, what is active, and why something is not
    Status(LookArguments),
    /// Show one checkpoint, without the contents of Secrets
    Show(ShowArguments),
    /// Verify every checkpoint on this node; exits with 3 if something is wrong
    Verify(VerifyArguments),
    /// Write all checkpoints of this node to one file
    Export(ExportArguments),
    /// Import the checkpoints of an exported file into this node's store, before an agent runs
    Import(ImportArguments),
    /// Check from manifests, without a cluster, whether pods will come back; exits with 3 if one
    /// will not
    Render(RenderArguments),
    /// Rehearse on this node what an outage would bring back; exits with 3 if a pod did not recover
    Drill(DrillArguments),
    /// Wait, in place of a container that is being rehearsed
    #[command(hide = true)]
    Hold(HoldArguments),
    /// Reconnect a node that a drill has cut off, even if the drill dies
    #[command(hide = true)]
    DrillSwitch(SwitchArguments),
    /// Remove everything that belongs to pod-checkpointer from this node
    Uninstall(UninstallArguments),
    /// Print the custom resource definitions, or write them to a directory
    Crd(CrdArguments),
    /// Print all objects of an installation for kubectl apply; needs no cluster
    Manifests(ManifestsArguments),
}

/// Paths on the node.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct HostArguments {
    /// Directory that holds the checkpoints
    #[arg(long, env = "POD_CHECKPOINTER_STATE_DIR", default_value = STATE_DIR, value_name = "DIR", value_parser = absolute)]
    pub state_dir: PathBuf,
    /// Memory-backed directory for everything that is currently active
    #[arg(long, env = "POD_CHECKPOINTER_RUN_DIR", default_value = RUN_DIR, value_name = "DIR", value_parser = absolute)]
    pub run_dir: PathBuf,
    /// Path to the host's root directory [default: /proc/PARENT-PID/root in a container that shares
    /// the host's PID namespace, else /]
    #[arg(long, env = "POD_CHECKPOINTER_HOST_ROOT", value_name = "DIR", value_parser = absolute)]
    pub host_root: Option<PathBuf>,
    /// The kubelet's directory of static pod manifests [default: its staticPodPath;
    /// /etc/kubernetes/manifests if it cannot be asked]
    #[arg(long, env = "POD_CHECKPOINTER_MANIFEST_DIR", value_name = "DIR", value_parser = absolute)]
    pub manifest_dir: Option<PathBuf>,
    /// File on the host with a key to seal checkpoints: 32 bytes, raw, hex or base64; owned by root
    /// and readable by root only. May be repeated: the first key seals, every key opens
    #[arg(long = "key-file", env = "POD_CHECKPOINTER_KEY_FILE", value_delimiter = ',', value_name = "FILE", value_parser = absolute)]
    pub key_files: Vec<PathBuf>,
    /// The kubelet's root directory
    #[arg(long, env = "POD_CHECKPOINTER_KUBELET_DIR", default_value = "/var/lib/kubelet", value_name = "DIR", value_parser = absolute)]
    pub kubelet_dir: PathBuf,
}

/// What agent, supervisor and drill need to know about their node.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct NodeArguments {
    /// Paths on the node.
    #[command(flatten)]
    pub host: HostArguments,
    /// Name of this node
    #[arg(long, env = "POD_CHECKPOINTER_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// Socket of the container runtime [default: the kubelet's own; if its settings cannot be read,
    /// the first that exists of the usual ones]
    #[arg(long, env = "POD_CHECKPOINTER_CRI_ENDPOINT", value_name = "unix://PATH", value_parser = endpoint)]
    pub cri_endpoint: Option<PathBuf>,
}

impl HostArguments {
    /// `--host-root`, else where the host's root directory is found to be.
    pub fn root(&self) -> std::io::Result<HostRoot> {
        self.host_root
            .clone()
            .map_or_else(HostRoot::detect, |root| Ok(HostRoot::new(root)))
    }
}

impl NodeArguments {
    /// `--node-name`, else `$NODE_NAME`; an error if both are missing or empty.
    pub fn node_name(&self) -> Result<String, Invalid> {
        self.node_name
            .clone()
            .or_else(|| std::env::var("NODE_NAME").ok())
            .filter(|name| !name.is_empty())
            .ok_or(Invalid("--node-name (or NODE_NAME) must name this node"))
    }
}

/// How the supervisor decides. The agent copies these into the supervisor's manifest.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct DecisionArguments {
    /// How long the API server must be silent before anything is activated; at least 3 probes must
    /// also have failed
    #[arg(long, env = "POD_CHECKPOINTER_ACTIVATION_DELAY", default_value = "3s", value_name = "TIME", value_parser = duration)]
    pub activation_delay: Duration,
    /// How often to probe the API server (every 250ms while something is active)
    #[arg(long, env = "POD_CHECKPOINTER_PROBE_INTERVAL", default_value = "1s", value_name = "TIME", value_parser = positive)]
    pub probe_interval: Duration,
    /// Timeout of a probe
    #[arg(long, env = "POD_CHECKPOINTER_PROBE_TIMEOUT", default_value = "1s", value_name = "TIME", value_parser = positive)]
    pub probe_timeout: Duration,
    /// Close the kubelet's connections to a silent API server while a pod waits to start
    #[arg(long, env = "POD_CHECKPOINTER_UNSTICK_KUBELET", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub unstick_kubelet: bool,
    /// Activate even though the API server answers, once it has given the kubelet nothing for this
    /// long; at least 3m [default: never, because the pods may have been deleted meanwhile]
    #[arg(long, env = "POD_CHECKPOINTER_ACTIVATE_LOCKED_OUT", value_name = "TIME", value_parser = patience)]
    pub activate_locked_out: Option<Duration>,
    /// Namespaces whose pods may start before all others: a start group below 50 counts only there
    #[arg(
        long,
        env = "POD_CHECKPOINTER_EARLY_NAMESPACES",
        value_delimiter = ',',
        default_values = EARLY_NAMESPACES,
        value_name = "NAME,…"
    )]
    pub early_namespaces: Vec<String>,
    /// URL of an API server to probe; may be repeated: one that answers is enough [default: the one
    /// that the agent recorded, else that of the kubelet's kubeconfig]
    #[arg(
        long = "apiserver",
        env = "POD_CHECKPOINTER_APISERVER",
        value_delimiter = ',',
        value_name = "URL"
    )]
    pub apiservers: Vec<String>,
    /// File with the CA certificates of these API servers
    #[arg(long, env = "POD_CHECKPOINTER_APISERVER_CA", value_name = "FILE", requires = "apiservers", value_parser = absolute)]
    pub apiserver_ca: Option<PathBuf>,
}

/// Flags of `agent`.
#[derive(Args, Clone, Debug)]
pub struct AgentArguments {
    /// Its node.
    #[command(flatten)]
    pub node: NodeArguments,
    /// Copied to the supervisor.
    #[command(flatten)]
    pub decision: DecisionArguments,
    /// Kubeconfig for the API server [default: in-cluster]
    #[arg(long, env = "POD_CHECKPOINTER_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Image of the supervisor; if empty, no supervisor is installed [default: the image of the
    /// agent's own container]
    #[arg(long, env = "POD_CHECKPOINTER_SUPERVISOR_IMAGE", value_name = "IMAGE")]
    pub supervisor_image: Option<String>,
    /// Capture marked pods in these namespaces only, whatever marks them [default: all]
    #[arg(
        long,
        env = "POD_CHECKPOINTER_NAMESPACES",
        value_delimiter = ',',
        value_name = "NAME,…"
    )]
    pub namespaces: Vec<String>,
    /// Mark every pod in namespaces with these labels, for example site=edge [default: none]
    #[arg(long, env = "POD_CHECKPOINTER_NAMESPACE_SELECTOR", value_name = "SELECTOR", value_parser = selector::parse)]
    pub namespace_selector: Option<Selector>,
    /// Mark pods with these labels, for example app=till,tier in (front,back); may be repeated: a
    /// pod needs to match only one
    #[arg(long, env = "POD_CHECKPOINTER_SELECT", value_delimiter = ';', value_name = "SELECTOR", value_parser = selector::parse)]
    pub select: Vec<Selector>,
    /// Uptime after which a checkpoint that is no longer known to be current is not activated; a
    /// pod's annotation can only set a smaller one [default: none]
    #[arg(long, env = "POD_CHECKPOINTER_MAX_AGE", value_name = "TIME", value_parser = whole_seconds)]
    pub max_age: Option<Duration>,
    /// The longest outage to plan for: warn if the kubelet's certificate expires sooner
    #[arg(long, env = "POD_CHECKPOINTER_PLANNED_OUTAGE", default_value = "168h", value_name = "TIME", value_parser = whole_seconds)]
    pub planned_outage: Duration,
    /// How long to keep the checkpoint of a deleted pod while no successor has been captured
    #[arg(long, env = "POD_CHECKPOINTER_RETENTION", default_value = "60s", value_name = "TIME", value_parser = duration)]
    pub retention: Duration,
    /// Where to serve metrics and health: IP:PORT, :PORT for all addresses, or off. The supervisor
    /// serves its own on 127.0.0.1 at the next port, or not at all if this is off
    #[arg(
        long,
        env = "POD_CHECKPOINTER_METRICS_ADDRESS",
        default_value = ":9797",
        value_name = "ADDRESS"
    )]
    pub metrics_address: Address,
    /// Capture nothing more and clean up this node: the supervisor goes once no pod needs it, then
    /// everything else is removed. The agent becomes Ready when this is done
    #[arg(long, env = "POD_CHECKPOINTER_RETIRE")]
    pub retire: bool,
    /// Name of the agent's own pod (downward API)
    #[arg(long, env = "POD_NAME", hide = true)]
    pub pod_name: Option<String>,
    /// Namespace of the agent's own pod (downward API)
    #[arg(
        long,
        env = "POD_NAMESPACE",
        hide = true,
        default_value = "pod-checkpointer"
    )]
    pub pod_namespace: String,
}

/// Flags of `supervisor`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct SupervisorArguments {
    /// Its node.
    #[command(flatten)]
    pub node: NodeArguments,
    /// How it decides.
    #[command(flatten)]
    pub decision: DecisionArguments,
    /// Where to serve metrics and health: IP:PORT, :PORT for all addresses, or off
    #[arg(
        long,
        env = "POD_CHECKPOINTER_METRICS_ADDRESS",
        default_value = "127.0.0.1:9798",
        value_name = "ADDRESS"
    )]
    pub metrics_address: Address,
}

impl AgentArguments {
    /// The flags of the supervisor that this agent installs. `manifest_dir`: the kubelet's
    /// directory of static pod manifests, a host path. The supervisor finds the host's root
    /// directory and the name of its node by itself.
    pub fn supervisor(&self, manifest_dir: PathBuf) -> SupervisorArguments {
        let NodeArguments {
            host,
            node_name: _,
            cri_endpoint,
        } = self.node.clone();
        let host = HostArguments {
            host_root: None,
            manifest_dir: Some(manifest_dir),
            ..host
        };
        SupervisorArguments {
            node: NodeArguments {
                host,
                node_name: None,
                cri_endpoint,
            },
            decision: self.decision.clone(),
            metrics_address: self.metrics_address.beside(),
        }
    }
}

impl SupervisorArguments {
    /// The flags that these settings are parsed from, each `--name=value`. Names every setting that
    /// has a value, so that defaults and the environment do not matter. Paths must be UTF-8, as all
    /// parsed ones are.
    pub fn to_flags(&self) -> Vec<String> {
        let Self {
            node,
            decision,
            metrics_address,
        } = self;
        let NodeArguments {
            host,
            node_name,
            cri_endpoint,
        } = node;
        let HostArguments {
            state_dir,
            run_dir,
            host_root,
            manifest_dir,
            key_files,
            kubelet_dir,
        } = host;
        let DecisionArguments {
            activation_delay,
            probe_interval,
            probe_timeout,
            unstick_kubelet,
            activate_locked_out,
            early_namespaces,
            apiservers,
            apiserver_ca,
        } = decision;
        let path = |path: &Path| path.display().to_string();
        let time = |time: &Duration| {
            humantime::format_duration(*time)
                .to_string()
                .replace(' ', "")
        };
        let mut flags = Vec::new();
        let mut add = |name: &str, value: String| flags.push(format!("--{name}={value}"));
        add("state-dir", path(state_dir));
        add("run-dir", path(run_dir));
        add("kubelet-dir", path(kubelet_dir));
        if let Some(root) = host_root {
            add("host-root", path(root));
        }
        if let Some(directory) = manifest_dir {
            add("manifest-dir", path(directory));
        }
        for file in key_files {
            add("key-file", path(file));
        }
        if let Some(name) = node_name {
            add("node-name", name.clone());
        }
        if let Some(socket) = cri_endpoint {
            add("cri-endpoint", format!("unix://{}", socket.display()));
        }
        add("activation-delay", time(activation_delay));
        add("probe-interval", time(probe_interval));
        add("probe-timeout", time(probe_timeout));
        add("unstick-kubelet", unstick_kubelet.to_string());
        if let Some(limit) = activate_locked_out {
            add("activate-locked-out", time(limit));
        }
        add("early-namespaces", early_namespaces.join(","));
        for server in apiservers {
            add("apiserver", server.clone());
        }
        if let Some(ca) = apiserver_ca {
            add("apiserver-ca", path(ca));
        }
        add("metrics-address", metrics_address.to_string());
        flags
    }
}

/// Flags of `operator`.
#[derive(Args, Clone, Debug)]
pub struct OperatorArguments {
    /// Kubeconfig for the API server [default: in-cluster]
    #[arg(long, env = "POD_CHECKPOINTER_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Image of agent and supervisor if the PodCheckpointer names none [default: the image of the
    /// operator's own container]
    #[arg(long, env = "POD_CHECKPOINTER_IMAGE", value_name = "IMAGE")]
    pub image: Option<String>,
    /// Where to serve metrics and health: IP:PORT, :PORT for all addresses, or off
    #[arg(
        long,
        env = "POD_CHECKPOINTER_METRICS_ADDRESS",
        default_value = ":9797",
        value_name = "ADDRESS"
    )]
    pub metrics_address: Address,
    /// Name of the operator's own pod (downward API)
    #[arg(long, env = "POD_NAME", hide = true)]
    pub pod_name: Option<String>,
    /// Namespace of the operator's own pod (downward API)
    #[arg(long, env = "POD_NAMESPACE", hide = true, default_value = OPERATOR)]
    pub pod_namespace: String,
}

/// Flags of `status`, and some of `verify`.
#[derive(Args, Clone, Debug)]
pub struct LookArguments {
    /// Paths on the node.
    #[command(flatten)]
    pub host: HostArguments,
    /// Output format
    #[arg(long, short, default_value = "table", value_name = "FORMAT")]
    pub output: Output,
}

/// Flags of `verify`.
#[derive(Args, Clone, Debug)]
pub struct VerifyArguments {
    /// The flags that `verify` shares with `status`.
    #[command(flatten)]
    pub look: LookArguments,
    /// Set damaged files aside, and remove what a crash left behind
    #[arg(long)]
    pub repair: bool,
}

/// Flags of `export`.
#[derive(Args, Clone, Debug)]
pub struct ExportArguments {
    /// Paths on the node.
    #[command(flatten)]
    pub host: HostArguments,
    /// File to write; `-` for standard output
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Write the contents of Secrets in clear text instead of sealing the file with the first key
    #[arg(long)]
    pub plain: bool,
}

/// Flags of `import`.
#[derive(Args, Clone, Debug)]
pub struct ImportArguments {
    /// Paths on the node.
    #[command(flatten)]
    pub host: HostArguments,
    /// File that `export` wrote; `-` for standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Store checkpoints in clear text, and use the keys only to open the file
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
    /// For people and programs.
    Yaml,
}

/// Flags of `show`.
#[derive(Args, Clone, Debug)]
pub struct ShowArguments {
    /// Paths on the node.
    #[command(flatten)]
    pub host: HostArguments,
    /// The pod
    #[arg(value_name = "NAMESPACE/POD")]
    pub pod: String,
    /// Also show the contents of volumes and the environment
    #[arg(long)]
    pub reveal: bool,
}

/// Flags of `render`.
#[derive(Args, Clone, Debug)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(false).args(["filename", "live"]))]
pub struct RenderArguments {
    /// File with pods, workloads or lists of them, `-` for standard input, or a directory; may be
    /// repeated
    #[arg(long, short, value_name = "FILE")]
    pub filename: Vec<PathBuf>,
    /// Also read the directories below a directory
    #[arg(long, short = 'R')]
    pub recursive: bool,
    /// Namespace of objects that do not name one
    #[arg(long, short, default_value = "default", value_name = "NAME")]
    pub namespace: String,
    /// Render a pod that runs on this node, with its real environment and images; asks the API
    /// server for the pod
    #[arg(long, value_name = "NAMESPACE/POD")]
    pub live: Option<String>,
    /// Kubeconfig for the API server, with --live [default: in-cluster]
    #[arg(long, env = "POD_CHECKPOINTER_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Also show the values of a live pod's environment variables
    #[arg(long, requires = "live", conflicts_with = "filename")]
    pub reveal: bool,
    /// List every field that changes, and why
    #[arg(long)]
    pub explain: bool,
    /// Output format: the manifests as YAML, everything known as JSON, or one verdict per line
    #[arg(long, short, default_value = "yaml", value_name = "FORMAT")]
    pub output: Output,
    /// The node; for files, only the length of its name and the run directory matter
    #[command(flatten)]
    pub node: NodeArguments,
}

/// Flags of `drill`.
#[derive(Args, Clone, Debug)]
pub struct DrillArguments {
    /// Pods to rehearse [default: all marked pods on this node]
    #[arg(value_name = "NAMESPACE/POD")]
    pub pods: Vec<String>,
    /// Cut this node off from the API server for this long (10s to 1h) and recover for real;
    /// everything is undone afterwards. Only on a node that may be cut off: the kubelet is
    /// restarted and the pods are stopped
    #[arg(long, value_name = "TIME", value_parser = outage)]
    pub outage: Option<Duration>,
    /// Do not ask for confirmation before cutting the node off
    #[arg(long, requires = "outage")]
    pub yes: bool,
    /// Command for sh -c that restarts the kubelet [default: systemctl restart kubelet, where
    /// systemd runs]
    #[arg(long, requires = "outage", value_name = "COMMAND")]
    pub restart_kubelet: Option<String>,
    /// How long a rehearsed pod may take to start
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = positive)]
    pub limit: Duration,
    /// Image on this node to run in place of the rehearsed containers' own [default: the
    /// supervisor's]
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Output format
    #[arg(long, short, default_value = "table", value_name = "FORMAT")]
    pub output: Output,
    /// Its node.
    #[command(flatten)]
    pub node: NodeArguments,
}

/// Flags of `hold`.
#[derive(Args, Clone, Debug)]
pub struct HoldArguments {
    /// How long to wait
    #[arg(value_name = "TIME", value_parser = duration)]
    pub time: Duration,
}

/// Flags of `drill-switch`.
#[derive(Args, Clone, Debug)]
pub struct SwitchArguments {
    /// The run directory with the record of the drill
    #[arg(value_name = "DIR", value_parser = absolute)]
    pub run_dir: PathBuf,
}

/// Flags of `uninstall`.
#[derive(Args, Clone, Debug)]
pub struct UninstallArguments {
    /// Paths on the node.
    #[command(flatten)]
    pub host: HostArguments,
    /// Remove even while the agent still runs or twins serve in place of their parents
    #[arg(long)]
    pub force: bool,
}

/// Flags of `crd`.
#[derive(Args, Clone, Debug)]
pub struct CrdArguments {
    /// Write one file per resource to this directory instead of printing
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

/// Flags of `manifests`.
#[derive(Args, Clone, Debug)]
pub struct ManifestsArguments {
    /// File with a PodCheckpointer, `-` for standard input [default: one with an empty spec]
    #[arg(long, short, value_name = "FILE")]
    pub filename: Option<PathBuf>,
    /// Image of agent and supervisor if the PodCheckpointer names none
    #[arg(long, default_value = concat!("pod-checkpointer:", env!("CARGO_PKG_VERSION")), value_name = "IMAGE")]
    pub image: String,
    /// Leave out the custom resource definitions
    #[arg(long)]
    pub skip_crds: bool,
    /// Print the operator instead, which installs everything else according to the cluster's
    /// PodCheckpointer
    #[arg(long, conflicts_with = "filename")]
    pub operator: bool,
}

/// Parses a command line of the program, including its name. The error is one line.
pub fn read(arguments: impl Iterator<Item = String>) -> Result<Command, String> {
    let read = Arguments::try_parse_from(arguments).map(|arguments| arguments.command);
    read.map_err(|error| {
        error
            .render()
            .to_string()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
    })
}

/// Invalid settings; the text says what to write instead.
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
    if parsed < Duration::from_secs(1) {
        Err("must be at least 1s".into())
    } else {
        Ok(parsed)
    }
}

fn positive(text: &str) -> Result<Duration, String> {
    let parsed = duration(text)?;
    if parsed < Duration::from_millis(10) {
        Err("must be at least 10ms".into())
    } else {
        Ok(parsed)
    }
}

fn patience(text: &str) -> Result<Duration, String> {
    let parsed = duration(text)?;
    if parsed < LOCKED_OUT_AFTER {
        Err("must be at least 3m, because a kubelet may take that long to start".into())
    } else {
        Ok(parsed)
    }
}

fn outage(text: &str) -> Result<Duration, String> {
    let parsed = duration(text)?;
    let bounds = Duration::from_secs(10)..=Duration::from_hours(1);
    if bounds.contains(&parsed) {
        Ok(parsed)
    } else {
        Err("must be from 10s to 1h".into())
    }
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let plain = path
        .components()
        .all(|part| !matches!(part, std::path::Component::ParentDir));
    if path.is_absolute() && plain {
        Ok(path)
    } else {
        Err("must be an absolute path without `..`".into())
    }
}

fn endpoint(text: &str) -> Result<PathBuf, String> {
    let path = text.strip_prefix("unix://").unwrap_or(text);
    absolute(path).map_err(|_| "must be unix:///path/to/socket".to_owned())
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
