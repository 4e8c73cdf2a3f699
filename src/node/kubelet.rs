//! The kubelet: which pods it owns (according to its pod-resources socket, which needs no API
//! server), and its settings.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use serde::Deserialize;
use serde_json::Value;

use crate::node::grpc::{Connection, Fault, MAX_MESSAGE};
use crate::node::host::HostRoot;
use crate::node::proto::podresources::ListPodResourcesRequest;
use crate::node::proto::podresources::pod_resources_lister_client::PodResourcesListerClient;
use crate::node::proxy::{Proxies, without_credentials};

/// Directory of static pod manifests if a kubelet does not name one (kubeadm's default).
pub const MANIFEST_DIR: &str = "/etc/kubernetes/manifests";

/// The pods that a kubelet process manages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    /// Process ID of the kubelet, which listens on the socket; 0 if it is in another PID namespace.
    pub pid: u32,
    /// Namespace and name of every pod that it owns; a static pod's name ends in `-<node name>`.
    pub pods: BTreeSet<(String, String)>,
}

/// Why the kubelet could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket does not exist or no process listens on it: no kubelet runs.
    #[error("no kubelet listens at {}", .0.display())]
    Down(PathBuf, #[source] std::io::Error),
    /// The kubelet is there but did not answer.
    #[error("the kubelet did not answer at {}", .0.display())]
    Silent(PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// The kubelet's configuration cannot be read.
    #[error("cannot read the kubelet's configuration {}", .0.display())]
    Configuration(PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// The kubelet's kubeconfig does not name an API server.
    #[error("the kubelet's kubeconfig {} names no server", .0.display())]
    NoServer(PathBuf),
    /// The kubelet's environment cannot be read.
    #[error("cannot read the kubelet's environment, which may name a proxy")]
    Environment,
}

/// A client for the pod-resources socket (k8s.io/kubelet, pkg/apis/podresources/v1).
#[derive(Clone, Debug)]
pub struct Kubelet {
    connection: Connection,
    limit: Duration,
}

impl Kubelet {
    /// A client for this socket (`<kubelet dir>/pod-resources/kubelet.sock`), with a time limit for
    /// each call.
    pub fn new(socket: PathBuf, limit: Duration) -> Self {
        Self {
            connection: Connection::new(socket),
            limit,
        }
    }

    /// The pods that this kubelet process owns.
    pub async fn owned(&self) -> Result<Owned, Error> {
        let answer = self.connection.call(self.limit, async |link| {
            let mut client =
                PodResourcesListerClient::new(link.channel).max_decoding_message_size(MAX_MESSAGE);
            Ok((
                link.pid,
                client.list(ListPodResourcesRequest {}).await?.into_inner(),
            ))
        });
        let socket = || self.connection.socket().to_owned();
        match answer.await {
            Ok((pid, list)) => {
                let pods = list
                    .pod_resources
                    .into_iter()
                    .map(|pod| (pod.namespace, pod.name))
                    .collect();
                Ok(Owned { pid, pods })
            }
            Err(Fault::Unreachable(source))
                if matches!(
                    source.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Err(Error::Down(socket(), source))
            }
            Err(Fault::Unreachable(source)) => Err(Error::Silent(socket(), source.into())),
            Err(Fault::Broken(status) | Fault::Status(status)) => {
                Err(Error::Silent(socket(), status))
            }
            Err(Fault::TimedOut) => Err(Error::Silent(
                socket(),
                io::Error::from(io::ErrorKind::TimedOut).into(),
            )),
        }
    }
}

/// The pod-resources socket of a kubelet with this root directory
/// (pkg/kubelet/apis/podresources/constants.go), as a real path where the directory exists.
pub fn socket(root: &HostRoot, kubelet_dir: &Path) -> PathBuf {
    let path = kubelet_dir.join("pod-resources/kubelet.sock");
    root.resolve(&path).unwrap_or(path)
}

/// Finds the kubelet that runs, and how it was started.
pub async fn find(
    root: &HostRoot,
    kubelet_dir: &Path,
    limit: Duration,
) -> Result<(Kubelet, Settings), Error> {
    let kubelet = Kubelet::new(socket(root, kubelet_dir), limit);
    let owned = kubelet.owned().await?;
    Ok((kubelet, settings(root, owned.pid)?))
}

/// The settings of a kubelet: its flags, which override its configuration files, which override the
/// defaults (cmd/kubelet/app/server.go).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `--root-dir`.
    pub root_dir: Option<PathBuf>,
    /// `staticPodPath`.
    pub static_pod_path: Option<PathBuf>,
    /// `containerRuntimeEndpoint`, as given; the default of a kubelet that is not given one. `None`
    /// for a kubelet within another program that does not say.
    pub runtime_endpoint: Option<String>,
    /// `--kubeconfig`.
    pub kubeconfig: Option<PathBuf>,
    /// `imagePullCredentialsVerificationPolicy`.
    pub pull_verification: Option<String>,
    /// `preloadedImagesVerificationAllowlist`.
    pub pull_allowlist: Vec<String>,
    /// `maxPods`.
    pub max_pods: Option<u32>,
    /// `podsPerCore`, if it is set and not 0.
    pub pods_per_core: Option<u32>,
    /// `imageGCHighThresholdPercent`.
    pub image_gc_high: Option<u8>,
    /// The proxies in its environment; `None`: that cannot be read.
    pub proxies: Option<Proxies>,
}

/// The kubelet's default of `containerRuntimeEndpoint` (the same file as below).
const RUNTIME_ENDPOINT: &str = "unix:///run/containerd/containerd.sock";
/// The kubelet's default of `maxPods` (pkg/kubelet/apis/config/v1beta1/defaults.go).
const MAX_PODS: u32 = 110;
/// The kubelet's default of `imageGCHighThresholdPercent` (the same file).
const IMAGE_GC_HIGH: u8 = 85;

impl Settings {
    /// How full the file system of the images may be, in percent, before the kubelet removes unused
    /// images (pkg/kubelet/images/image_gc_manager.go); `None` if it never does.
    pub fn images_may_fill(&self) -> Option<u8> {
        Some(self.image_gc_high.unwrap_or(IMAGE_GC_HIGH)).filter(|percent| *percent < 100)
    }

    /// The API server that the kubelet uses, and the proxy through which it reaches it: that of its
    /// kubeconfig, else that of its environment, as in client-go. `None` if the kubelet does not
    /// say which kubeconfig it uses.
    pub fn server(&self, root: &HostRoot) -> Option<Result<Server, Error>> {
        let server = server(root, self.kubeconfig.as_deref()?);
        Some(server.and_then(|server| self.through_proxy(server)))
    }

    fn through_proxy(&self, server: Server) -> Result<Server, Error> {
        if server.proxy.is_some() {
            return Ok(server);
        }
        let proxies = self.proxies.as_ref().ok_or(Error::Environment)?;
        let uri: Option<http::Uri> = server.url.parse().ok();
        let proxy = uri.as_ref().and_then(|uri| {
            let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
            proxies.of(host, uri.port_u16().unwrap_or(443))
        });
        Ok(Server { proxy, ..server })
    }

    /// How many pods the kubelet accepts on a node with this many cores
    /// (pkg/kubelet/nodestatus/setters.go).
    pub fn most_pods(&self, cores: u32) -> u32 {
        let most = self.max_pods.unwrap_or(MAX_PODS);
        self.pods_per_core
            .map_or(most, |each| most.min(each.saturating_mul(cores)))
    }
}

/// Reads the settings of the kubelet with this process ID.
///
/// The command line of a kubelet within another program (k3s, kubelite) says little; what it does
/// not say is `None`.
pub fn settings(root: &HostRoot, pid: u32) -> Result<Settings, Error> {
    let process = Path::new("/proc").join(pid.to_string());
    let file = process.join("cmdline");
    // it is empty for a process that has ended or is just starting
    let line = std::fs::read(&file).and_then(|line| {
        if line.is_empty() {
            Err(io::Error::from(io::ErrorKind::UnexpectedEof))
        } else {
            Ok(line)
        }
    });
    let line = line.map_err(|source| Error::Configuration(file, source.into()))?;
    let arguments: Vec<_> = line
        .split(|byte| *byte == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect();
    let flags = flags(&arguments);
    let environment = std::fs::read(process.join("environ")).ok();
    let proxies = environment.as_deref().map(Proxies::of_environment);
    let is_relative = [
        &flags.config,
        &flags.config_dir,
        &flags.root_dir,
        &flags.kubeconfig,
        &flags.static_pod_path,
    ]
    .into_iter()
    .flatten()
    .any(|path| path.is_relative());
    let directory = if is_relative {
        let link = process.join("cwd");
        std::fs::read_link(&link).map_err(|source| Error::Configuration(link, source.into()))?
    } else {
        PathBuf::from("/")
    };
    let settings = configure(root, flags, &directory)?;
    Ok(Settings {
        proxies,
        ..settings
    })
}

/// The flags that matter here (cmd/kubelet/app/options/options.go).
#[derive(Debug, Default)]
struct Flags {
    config: Option<PathBuf>,
    config_dir: Option<PathBuf>,
    root_dir: Option<PathBuf>,
    kubeconfig: Option<PathBuf>,
    static_pod_path: Option<PathBuf>,
    runtime_endpoint: Option<String>,
    /// The program is the kubelet itself, so that its defaults hold.
    is_plain: bool,
    feature_gates: BTreeMap<String, bool>,
    max_pods: Option<u32>,
    pods_per_core: Option<u32>,
    image_gc_high: Option<u8>,
}

/// Parses the flags as pflag does: `--flag=value`, `--flag value`, `_` for `-`, the last one
/// counts, and nothing after `--`. An empty value is the default.
fn flags(arguments: &[String]) -> Flags {
    let program = arguments.first().map(Path::new).and_then(Path::file_name);
    let mut flags = Flags {
        is_plain: program == Some(OsStr::new("kubelet")),
        ..Flags::default()
    };
    let mut arguments = arguments.iter().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            break;
        }
        let Some(flag) = argument.strip_prefix("--") else {
            continue;
        };
        let (name, value) = flag
            .split_once('=')
            .map_or((flag, None), |(name, value)| (name, Some(value.to_owned())));
        let name = name.replace('_', "-");
        let mut value = || {
            value
                .clone()
                .or_else(|| arguments.next().cloned())
                .filter(|value| !value.is_empty())
        };
        match name.as_str() {
            "config" => flags.config = value().map(PathBuf::from),
            "config-dir" => flags.config_dir = value().map(PathBuf::from),
            "root-dir" => flags.root_dir = value().map(PathBuf::from),
            "kubeconfig" => flags.kubeconfig = value().map(PathBuf::from),
            "pod-manifest-path" => flags.static_pod_path = value().map(PathBuf::from),
            "container-runtime-endpoint" => flags.runtime_endpoint = value(),
            "max-pods" => flags.max_pods = value().and_then(|number| number.parse().ok()),
            "pods-per-core" => flags.pods_per_core = value().and_then(|number| number.parse().ok()),
            "image-gc-high-threshold" => {
                flags.image_gc_high = value().and_then(|number| number.parse().ok());
            }
            "feature-gates" => {
                flags.feature_gates.extend(
                    value()
                        .iter()
                        .flat_map(|gates| gates.split(','))
                        .filter_map(|gate| {
                            let (name, value) = gate.split_once('=')?;
                            Some((name.trim().to_owned(), value.trim().parse().ok()?))
                        }),
                );
            }
            _ => {}
        }
    }
    flags
}

/// Merges the settings: flags override drop-ins, which override the file.
fn configure(root: &HostRoot, flags: Flags, directory: &Path) -> Result<Settings, Error> {
    // joining an absolute path gives just that path
    let absolute = |path: PathBuf| directory.join(path);
    let mut merged = Value::Null;
    if let Some(file) = flags.config.map(absolute) {
        merged = read_configuration(root, &file)?;
        // only in this file a relative path starts at the file's directory
        // (pkg/kubelet/kubeletconfig/configfiles)
        if let (Some(Value::String(path)), Some(parent)) =
            (merged.get_mut("staticPodPath"), file.parent())
            && !path.is_empty()
        {
            *path = parent.join(&*path).to_string_lossy().into_owned();
        }
    }
    if let Some(drop_ins) = flags.config_dir.map(absolute) {
        for file in drop_in_files(root, &drop_ins)
            .map_err(|source| Error::Configuration(drop_ins, source.into()))?
        {
            merge(&mut merged, read_configuration(root, &file)?);
        }
    }
    let Configuration {
        static_pod_path,
        container_runtime_endpoint,
        image_pull_credentials_verification_policy,
        preloaded_images_verification_allowlist,
        feature_gates,
        max_pods,
        pods_per_core,
        image_gc_high_threshold_percent,
    } = if merged.is_null() {
        Configuration::default()
    } else {
        serde_json::from_value(merged)
            .map_err(|source| Error::Configuration("KubeletConfiguration".into(), source.into()))?
    };
    let feature_gates = feature_gates.unwrap_or_default();
    let ensures_secrets = flags
        .feature_gates
        .get(ENSURE_SECRET_PULLED)
        .or(feature_gates.get(ENSURE_SECRET_PULLED));
    Ok(Settings {
        root_dir: flags.root_dir.map(absolute),
        static_pod_path: flags
            .static_pod_path
            .or(filled(static_pod_path).map(PathBuf::from))
            .map(absolute),
        runtime_endpoint: flags
            .runtime_endpoint
            .or(filled(container_runtime_endpoint))
            .or(flags.is_plain.then(|| RUNTIME_ENDPOINT.to_owned())),
        kubeconfig: flags.kubeconfig.map(absolute),
        // with the feature gate off, the kubelet neither keeps nor reads records
        pull_verification: if ensures_secrets == Some(&false) {
            Some("NeverVerify".to_owned())
        } else {
            filled(image_pull_credentials_verification_policy)
        },
        pull_allowlist: preloaded_images_verification_allowlist.unwrap_or_default(),
        max_pods: flags.max_pods.or(max_pods).filter(|number| *number > 0),
        pods_per_core: flags
            .pods_per_core
            .or(pods_per_core)
            .filter(|number| *number > 0),
        image_gc_high: flags.image_gc_high.or(image_gc_high_threshold_percent),
        proxies: None,
    })
}

/// The feature gate of `imagePullCredentialsVerificationPolicy` (pkg/features/kube_features.go).
const ENSURE_SECRET_PULLED: &str = "KubeletEnsureSecretPulledImages";

/// The relevant fields of a `KubeletConfiguration` (k8s.io/kubelet, config/v1beta1/types.go).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Configuration {
    static_pod_path: Option<String>,
    container_runtime_endpoint: Option<String>,
    image_pull_credentials_verification_policy: Option<String>,
    preloaded_images_verification_allowlist: Option<Vec<String>>,
    feature_gates: Option<BTreeMap<String, bool>>,
    max_pods: Option<u32>,
    pods_per_core: Option<u32>,
    #[serde(rename = "imageGCHighThresholdPercent")]
    image_gc_high_threshold_percent: Option<u8>,
}

fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// A configuration file as JSON; null if it is of another kind, like the file that k3s gets with
/// `--config`.
fn read_configuration(root: &HostRoot, file: &Path) -> Result<Value, Error> {
    let value: Value = read_yaml(root, file)?;
    let is_configuration =
        value.get("kind").and_then(Value::as_str) == Some("KubeletConfiguration");
    Ok(if is_configuration { value } else { Value::Null })
}

fn read_yaml<T: for<'de> Deserialize<'de>>(root: &HostRoot, file: &Path) -> Result<T, Error> {
    let text =
        read(root, file).map_err(|source| Error::Configuration(file.to_owned(), source.into()))?;
    serde_yaml::from_slice(&text)
        .map_err(|source| Error::Configuration(file.to_owned(), source.into()))
}

fn read(root: &HostRoot, file: &Path) -> io::Result<Vec<u8>> {
    std::fs::read(root.resolve(file)?)
}

/// Every `*.conf` below a directory in the order of Go's `filepath.WalkDir`: sorted by name, with
/// the content of a directory at the position of its name.
fn drop_in_files(root: &HostRoot, directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries =
        std::fs::read_dir(root.resolve(directory)?)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    let mut files = Vec::new();
    for entry in entries {
        let path = directory.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            files.extend(drop_in_files(root, &path)?);
        } else if path.extension() == Some(OsStr::new("conf")) {
            files.push(path);
        }
    }
    Ok(files)
}

/// Applies a JSON merge patch (RFC 7396).
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        // a drop-in that is not an object was of another kind
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(target) = target else {
        return;
    };
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.remove(&key);
            }
            Value::Object(_) => merge(target.entry(key).or_insert(Value::Null), value),
            value => {
                target.insert(key, value);
            }
        }
    }
}

/// An API server. Its debug form shows no credential.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    /// Its URL, for example `https://10.0.0.1:6443`.
    pub url: String,
    /// `certificate-authority(-data)`, PEM.
    pub ca: String,
    /// `tls-server-name`.
    pub tls_name: Option<String>,
    /// URL of the proxy through which it is reached; may contain a password.
    pub proxy: Option<String>,
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            url,
            ca,
            tls_name,
            proxy,
        } = self;
        formatter
            .debug_struct("Server")
            .field("url", url)
            .field("ca", ca)
            .field("tls_name", tls_name)
            .field("proxy", &proxy.as_deref().map(without_credentials))
            .finish()
    }
}

/// The server of the current context of a kubeconfig (a host path).
///
/// An inline certificate takes precedence over a file, and a relative path starts at the
/// kubeconfig's directory (k8s.io/client-go, tools/clientcmd). Without any, `ca` is empty.
pub fn server(root: &HostRoot, kubeconfig: &Path) -> Result<Server, Error> {
    let Kubeconfig {
        current_context,
        contexts,
        clusters,
    } = read_yaml(root, kubeconfig)?;
    let none = || Error::NoServer(kubeconfig.to_owned());
    let context = contexts
        .into_iter()
        .find(|context| context.name == current_context)
        .ok_or_else(none)?;
    let cluster = clusters
        .into_iter()
        .find(|cluster| cluster.name == context.context.cluster)
        .ok_or_else(none)?;
    let cluster = cluster.cluster;
    let url = filled(cluster.server).ok_or_else(none)?;
    let wrong = |source| Error::Configuration(kubeconfig.to_owned(), source);
    let ca = if let Some(data) = filled(cluster.certificate_authority_data) {
        let data: String = data.split_whitespace().collect();
        base64::engine::general_purpose::STANDARD
            .decode(data)
            .map_err(|source| wrong(source.into()))?
    } else if let Some(file) = filled(cluster.certificate_authority) {
        let file = kubeconfig.parent().unwrap_or(Path::new("/")).join(file);
        read(root, &file).map_err(|source| Error::Configuration(file, source.into()))?
    } else {
        Vec::new()
    };
    let ca = String::from_utf8(ca).map_err(|source| wrong(source.into()))?;
    Ok(Server {
        url,
        ca,
        tls_name: filled(cluster.tls_server_name),
        proxy: filled(cluster.proxy_url),
    })
}

/// The relevant fields of a kubeconfig (k8s.io/client-go, tools/clientcmd/api/v1/types.go).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
}

#[derive(Debug, Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Debug, Deserialize)]
struct Context {
    cluster: String,
}

#[derive(Debug, Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: Option<String>,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[cfg(test)]
#[path = "kubelet_tests.rs"]
mod tests;
