//! From a parent pod to its checkpoint: what actually ran, not what the API server would resolve
//! now.
//!
//! ```text
//! pod's JSON ──► schema ──► eligibility ──► manifest (pure, all reasons at once)
//! runtime ─────► environment, images, claims ─▲
//! host's files ► claims, profiles ────────────┘
//! kubelet's directory ──► volumes
//! ```
//!
//! Reading takes a moment, in which the kubelet may restart a container or swap a volume. Both are
//! therefore checked again at the end, and a capture that would mix two states is [`Error::Gone`],
//! to be retried.

pub mod changes;
pub mod claims;
pub mod eligibility;
pub mod environment;
mod identity;
mod images;
pub mod manifest;
pub mod offline;
mod profiles;
pub mod rules;
mod running;
pub mod schema;
pub mod volumes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, io};

use k8s_openapi::api::core::v1::{EnvVar, Pod};
use serde_json::Value;

use crate::checkpoint::{Captured, NodeCheckpoint, Parent};
use crate::names::DEFAULT_START_GROUP;
use crate::node::host::HostRoot;
use crate::node::runtime::{self, Runtime};
use crate::node::{certificate, clock, kubelet, network};
use crate::pod::names::is_name;
use crate::reasons::{Refusal, Warning};
use manifest::{Answers, Live};
use running::Running;

/// The longest manifest in bytes; the kubelet's own limit is 10 MiB (pkg/kubelet/config/common.go).
const LONGEST_MANIFEST: usize = 9 << 20;

/// One reason why a pod is refused, with what it is about: a field's path, a volume or a container.
/// It never contains a value of a Secret or of the environment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Reason {
    /// The kind of reason.
    pub refusal: Refusal,
    /// What the reason is about.
    pub detail: String,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.refusal, self.detail)
    }
}

/// Name and host directory of every captured volume; in these directories the kubelet swaps
/// `..data`.
pub fn volume_dirs(pod: &Value, kubelet_dir: &Path) -> Vec<(String, PathBuf)> {
    let (pod, _) = schema::read(pod);
    pod.map(|pod| directories(&pod, kubelet_dir))
        .unwrap_or_default()
}

fn directories(pod: &Pod, kubelet_dir: &Path) -> Vec<(String, PathBuf)> {
    let Some(uid) = pod.metadata.uid.as_deref().filter(|uid| is_name(uid)) else {
        return Vec::new();
    };
    let volumes = kubelet_dir.join("pods").join(uid).join("volumes");
    let captured = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    captured
        .filter(|volume| is_name(&volume.name))
        .filter_map(|volume| {
            let plugin = manifest::captured_directory(volume)?;
            Some((volume.name.clone(), volumes.join(plugin).join(&volume.name)))
        })
        .collect()
}

/// What a capture reads from.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The host's file system.
    pub root: &'a HostRoot,
    /// The kubelet's directory, a host path.
    pub kubelet_dir: &'a Path,
    /// The run directory, where a supervisor will unpack volumes, a host path.
    pub run_dir: &'a Path,
    /// Name of this node.
    pub node_name: &'a str,
    /// UID of its Node object, if known.
    pub node_uid: Option<&'a str>,
    /// The container runtime.
    pub runtime: &'a Runtime,
    /// The settings that the kubelet runs with.
    pub settings: &'a kubelet::Settings,
    /// The longest planned outage.
    pub planned_outage: Duration,
    /// Namespaces whose pods may start before all others.
    pub early_namespaces: &'a [String],
}

/// Default of the longest planned outage. A kubelet renews its certificate when a tenth to a third
/// of its lifetime is left (client-go, util/certificate), so one with less time left than this is
/// either not renewed or very short-lived.
pub const PLANNED_OUTAGE: Duration = Duration::from_hours(7 * 24);

/// Why there is no checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pod could not come back correctly; its owner must be told why.
    #[error("the pod cannot be checkpointed: {}", list(.0))]
    Refused(Vec<Reason>),
    /// Something changed during the capture.
    #[error("{0} changed during the capture")]
    Gone(String),
    /// The runtime did not answer.
    #[error("cannot ask the container runtime what runs")]
    Runtime(#[source] runtime::Error),
    /// A file could not be read.
    #[error("cannot {doing}")]
    Io {
        /// The operation and the path.
        doing: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Whether it is worth retrying without a change to the pod.
    pub fn is_passing(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

fn list(reasons: &[Reason]) -> String {
    reasons
        .iter()
        .map(Reason::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// Why a pod would be refused, from its object alone. Whatever only the node knows (where a claim's
/// volume is, what a runtime class means) counts as a reason.
pub fn judge(pod: &Value, run_dir: &Path, node_name: &str) -> Vec<Reason> {
    let (pod, mut reasons) = schema::read(pod);
    if let Some(pod) = pod {
        reasons.extend(judge_with(&pod, run_dir, node_name, &Live::default()));
    }
    reasons
}

fn judge_with(pod: &Pod, run_dir: &Path, node_name: &str, live: &Live) -> Vec<Reason> {
    let mut reasons = eligibility::reasons(pod, node_name);
    reasons.extend(manifest::render(pod, run_dir, live).1);
    reasons
}

/// Captures a Ready pod: its object as JSON, unknown fields included. The checkpoint has its digest
/// filled in.
pub async fn capture(pod: &Value, sources: &Sources<'_>) -> Result<NodeCheckpoint, Error> {
    let (pod, mut reasons) = schema::read(pod);
    let Some(pod) = pod else {
        return Err(Error::Refused(reasons));
    };
    let judge = |live: &Live| judge_with(&pod, sources.run_dir, sources.node_name, live);
    let mut found_reasons = Vec::new();
    let (running, live) = match inspect(&pod, sources, &mut found_reasons).await {
        Ok(found) => found,
        // a pod that is refused anyway is reported as refused, whatever else fails at the moment
        Err(error) => {
            reasons.extend(judge(&Live {
                answers: Answers::Later,
                ..Live::default()
            }));
            return Err(if reasons.is_empty() {
                error
            } else {
                Error::Refused(reasons)
            });
        }
    };
    reasons.extend(judge(&live.live));
    reasons.extend(found_reasons);
    if !reasons.is_empty() {
        return Err(Error::Refused(reasons));
    }
    let directories = directories(&pod, sources.kubelet_dir);
    let (volumes, stamps) = copy(&directories, sources)?;
    let (twin, _) = manifest::render(&pod, sources.run_dir, &live.live);
    let manifest = serde_json::to_value(&twin).unwrap_or_default();
    if manifest.to_string().len() > LONGEST_MANIFEST {
        let detail = "the manifest is longer than the kubelet accepts".to_owned();
        return Err(Error::Refused(vec![Reason {
            refusal: Refusal::TooLarge,
            detail,
        }]));
    }
    // check both again: if they are the same before and after, what was read belongs together
    if Running::of(&pod, sources).await? != running {
        return Err(Error::Gone("a container".into()));
    }
    for (name, path) in &directories {
        let now =
            volumes::stamp(&resolve(path, sources)?).map_err(|error| volume_error(name, error))?;
        if stamps.get(name) != Some(&now) {
            return Err(Error::Gone(format!("volume {name}")));
        }
    }
    let policy = eligibility::policy(&pod).map_err(Error::Refused)?;
    let mut checkpoint = NodeCheckpoint::new(
        parent(&pod, sources.node_uid),
        captured_now()?,
        policy,
        manifest,
    );
    checkpoint.images = live.images;
    checkpoint.warnings = warnings(&pod, sources);
    checkpoint.volumes = volumes;
    Ok(checkpoint.with_digest())
}

/// The warnings of the pod's object and those of the node: a pod on the pod network needs the
/// network's plugins, and every pod needs a kubelet that starts.
fn warnings(pod: &Pod, sources: &Sources<'_>) -> Vec<Warning> {
    let mut warnings = eligibility::warnings(pod);
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let is_early =
        eligibility::policy(pod).is_ok_and(|policy| policy.start_group < DEFAULT_START_GROUP);
    if is_early
        && !sources
            .early_namespaces
            .iter()
            .any(|name| name == namespace)
    {
        warnings.push(Warning::StartGroupIgnored);
    }
    let is_on_host = pod
        .spec
        .as_ref()
        .is_some_and(|spec| spec.host_network == Some(true));
    if !is_on_host && !network::works_offline(sources.root) {
        warnings.push(Warning::NetworkNeedsAPI);
    }
    let expiry = sources
        .settings
        .kubeconfig
        .as_ref()
        .and_then(|file| certificate::expiry(sources.root, file));
    let planned =
        jiff::SignedDuration::try_from(sources.planned_outage).unwrap_or(jiff::SignedDuration::MAX);
    if expiry.is_some_and(|expiry| expiry.duration_since(jiff::Timestamp::now()) < planned) {
        warnings.push(Warning::KubeletCertificateExpires);
    }
    warnings
}

fn captured_now() -> Result<Captured, Error> {
    let boot_id = clock::boot_id().map_err(|source| Error::Io {
        doing: "read the ID of this boot".into(),
        source,
    })?;
    Ok(Captured {
        wall: jiff::Timestamp::now().to_string(),
        boot_id,
        uptime_seconds: clock::boot_time().as_secs(),
    })
}

fn parent(pod: &Pod, node_uid: Option<&str>) -> Parent {
    let metadata = &pod.metadata;
    Parent {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        resource_version: metadata.resource_version.clone().unwrap_or_default(),
        owner: eligibility::owner(pod),
        node_uid: node_uid.map(str::to_owned),
    }
}

/// What the node knows about a pod.
struct Found {
    live: Live,
    images: BTreeMap<String, crate::checkpoint::Image>,
}

/// Asks the node for environments, images, claims and profiles, and adds the reasons to refuse the
/// pod.
async fn inspect(
    pod: &Pod,
    sources: &Sources<'_>,
    reasons: &mut Vec<Reason>,
) -> Result<(Running, Found), Error> {
    let running = Running::of(pod, sources).await?;
    let mut details = BTreeMap::new();
    for (name, record) in &running.records {
        let detail = sources
            .runtime
            .detail(&record.id)
            .await
            .map_err(Error::Runtime)?;
        details.insert(
            name.as_str(),
            detail.ok_or_else(|| Error::Gone(format!("container {name}")))?,
        );
    }
    let resolved = running.records.iter().filter_map(|(name, record)| {
        let detail = details.get(name.as_str())?;
        let image = if detail.image_id.is_empty() {
            &record.image_id
        } else {
            &detail.image_id
        };
        Some((name.clone(), image.clone()))
    });
    let resolved = resolved.collect();
    let bound = details
        .iter()
        .map(|(name, detail)| ((*name).to_owned(), claims::bound(&detail.info)))
        .collect();

    let images = images::look_up(pod, &resolved, &bound, sources).await?;
    let live = Live {
        environments: environments(pod, &details, reasons),
        images: images.named,
        image_volumes: images.mounted,
        answers: Answers::All {
            claims: claims::look_up(pod, &bound, sources)?,
            handler: handler(pod, &running, sources).await?,
        },
    };
    reasons.extend(images.reasons);
    reasons.extend(profiles::reasons(pod, sources));
    Ok((
        running,
        Found {
            live,
            images: images.ran,
        },
    ))
}

/// The environment of each container: from the runtime's record or, without one, computed if that
/// is possible.
fn environments(
    pod: &Pod,
    details: &BTreeMap<&str, runtime::Detail>,
    reasons: &mut Vec<Reason>,
) -> BTreeMap<String, Vec<EnvVar>> {
    let Some(spec) = &pod.spec else {
        return BTreeMap::new();
    };
    let host_network = spec.host_network.unwrap_or_default();
    let (hostname, addresses) = (identity::hostname(pod), identity::addresses(pod));
    let containers = || {
        spec.init_containers
            .iter()
            .flatten()
            .chain(&spec.containers)
    };
    let captured: BTreeMap<&str, Result<environment::Environment, environment::Error>> =
        containers()
            .filter_map(|container| {
                let detail = details.get(container.name.as_str())?;
                Some((
                    container.name.as_str(),
                    environment::captured(&detail.info, container, hostname.as_deref()),
                ))
            })
            .collect();
    // the variables of Services: the first container that shows them is as good as any other
    let services = containers().find_map(|container| {
        environment::services(
            container,
            captured.get(container.name.as_str())?.as_ref().ok()?,
        )
    });
    let mut environments = BTreeMap::new();
    for container in containers() {
        let known = captured
            .get(container.name.as_str())
            .cloned()
            .unwrap_or_else(|| {
                let computed = services.as_ref().and_then(|services| {
                    environment::computed(
                        container,
                        &identity::fields(pod, host_network),
                        &addresses,
                        services,
                    )
                });
                computed.ok_or_else(|| {
                    environment::Error::Unknown("the runtime has no record of the container".into())
                })
            });
        let rendered = known
            .and_then(|known| environment::render(container, &known, host_network, &addresses));
        match rendered {
            Ok(environment) => {
                environments.insert(container.name.clone(), environment);
            }
            Err(error) => {
                let detail = format!("container {}: {error}", container.name);
                reasons.push(Reason {
                    refusal: error.refusal(),
                    detail,
                });
            }
        }
    }
    environments
}

/// Whether the pod's runtime class leads to the handler of a pod without a class; the inner error
/// says why not.
async fn handler(
    pod: &Pod,
    running: &Running,
    sources: &Sources<'_>,
) -> Result<Result<(), String>, Error> {
    let class = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.runtime_class_name.as_deref())
        .unwrap_or_default();
    if class.is_empty() {
        return Ok(Ok(()));
    }
    let sandboxes = sources.runtime.sandboxes().await.map_err(Error::Runtime)?;
    let sandbox = sandboxes
        .into_iter()
        .find(|sandbox| sandbox.id == running.sandbox);
    let handler = sandbox
        .ok_or_else(|| Error::Gone("the pod's sandbox".into()))?
        .handler;
    if handler.is_empty() {
        return Ok(Ok(()));
    }
    let default = sources
        .runtime
        .default_handler()
        .await
        .map_err(Error::Runtime)?;
    Ok(match default {
        Some(default) if default == handler => Ok(()),
        Some(default) => Err(format!(
            "its handler is {handler:?}, the runtime's default {default:?}"
        )),
        None => Err(format!(
            "its handler is {handler:?}, and the runtime does not report its default"
        )),
    })
}

fn resolve(path: &Path, sources: &Sources<'_>) -> Result<PathBuf, Error> {
    let resolved = sources.root.resolve(path);
    resolved.map_err(|source| Error::Io {
        doing: format!("look up {}", path.display()),
        source,
    })
}

type Copied = (
    BTreeMap<String, crate::checkpoint::Volume>,
    BTreeMap<String, volumes::Stamp>,
);

fn copy(directories: &[(String, PathBuf)], sources: &Sources<'_>) -> Result<Copied, Error> {
    let mut budget = volumes::Budget::default();
    let (mut copies, mut stamps) = Copied::default();
    let mut reasons = Vec::new();
    for (name, path) in directories {
        match volumes::copy(&resolve(path, sources)?, &mut budget)
            .map_err(|error| volume_error(name, error))
        {
            Ok((volume, stamp)) => {
                copies.insert(name.clone(), volume);
                stamps.insert(name.clone(), stamp);
            }
            Err(Error::Refused(more)) => reasons.extend(more),
            Err(error) => return Err(error),
        }
    }
    if reasons.is_empty() {
        Ok((copies, stamps))
    } else {
        Err(Error::Refused(reasons))
    }
}

fn volume_error(name: &str, error: volumes::Error) -> Error {
    let refused = |refusal, detail| Error::Refused(vec![Reason { refusal, detail }]);
    match error {
        volumes::Error::Gone => Error::Gone(format!("volume {name}")),
        volumes::Error::TooLarge => refused(Refusal::TooLarge, format!("volume {name}: {error}")),
        volumes::Error::Foreign { .. } => refused(
            Refusal::RejectedByKubeletRules,
            format!("volume {name}: {error}"),
        ),
        volumes::Error::Io { path, source } => Error::Io {
            doing: format!("read {path:?} of volume {name}"),
            source,
        },
    }
}
