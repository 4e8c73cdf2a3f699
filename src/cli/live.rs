//! `render --live`: what would come back of a pod that runs on this node, with the same capture as
//! the agent's.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::args::RenderArguments;
use crate::capture::{self, Error, Sources, changes};
use crate::cli::Answer;
use crate::cli::render::{Item, Report, print_report};
use crate::cli::show::redact_environment;
use crate::cli::table::size;
use crate::client::{Unknown, kube_client, kube_config};
use crate::console;
use crate::names::EARLY_NAMESPACES;
use crate::node::host::HostRoot;
use crate::node::kubelet;
use crate::node::runtime::{self, Runtime};
use crate::pod::names::is_name;

/// How long the API server may take to return the pod.
const API_LIMIT: Duration = Duration::from_secs(10);
/// How long the kubelet may take to say what it owns.
const KUBELET_LIMIT: Duration = Duration::from_secs(5);
/// How long each call to the runtime may take.
const RUNTIME_LIMIT: Duration = Duration::from_secs(10);
/// How long the whole capture may take.
const CAPTURE_LIMIT: Duration = Duration::from_mins(1);

/// Runs `render --live` for `NAMESPACE/POD`.
pub async fn render_live(arguments: &RenderArguments, pod: &str) -> anyhow::Result<Answer> {
    let Some((namespace, name)) = pod.split_once('/') else {
        bail!("{pod:?} is not NAMESPACE/POD")
    };
    if arguments.reveal && !rustix::process::geteuid().is_root() {
        bail!("--reveal is for root only");
    }
    for part in [namespace, name] {
        if !is_name(part) {
            bail!("{part:?} in {pod:?} is not a valid name");
        }
    }
    let host = &arguments.node.host;
    let root = host
        .root()
        .context("cannot find the host's root directory; see --host-root")?;
    let client = client(arguments.kubeconfig.as_deref(), root.clone()).await?;
    let object = get(&client, namespace, name).await?;
    let field = |path: &str| {
        object
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let node_name = field("/spec/nodeName");
    if let Some(here) = arguments
        .node
        .node_name
        .as_deref()
        .filter(|here| *here != node_name)
    {
        bail!("pod {namespace}/{name} is on node {node_name:?}, not on {here}");
    }

    let settings = match kubelet::find(&root, &host.kubelet_dir, KUBELET_LIMIT).await {
        Ok((_, settings)) => Some(settings),
        Err(error) => {
            console::note(format_args!(
                "pod-checkpointer: {}; assuming the kubelet's defaults",
                crate::text::chain(&error)
            ));
            None
        }
    };
    let endpoint = arguments.node.cri_endpoint.as_deref();
    let socket = runtime::find(&root, endpoint, settings.as_ref())?;
    let settings = settings.unwrap_or_default();
    let sources = Sources {
        node_uid: None,
        root: &root,
        kubelet_dir: &host.kubelet_dir,
        run_dir: &host.run_dir,
        node_name,
        runtime: &Runtime::new(socket, RUNTIME_LIMIT),
        settings: &settings,
        planned_outage: capture::PLANNED_OUTAGE,
        early_namespaces: &EARLY_NAMESPACES.map(str::to_owned),
    };
    let captured = tokio::time::timeout(CAPTURE_LIMIT, capture::capture(&object, &sources)).await;
    let item = match captured.context("the capture took longer than a minute")? {
        Ok(checkpoint) => {
            let mut manifest = checkpoint.manifest.clone();
            if !arguments.reveal {
                redact_environment(&mut manifest);
            }
            let (parent, _) = capture::schema::read(&object);
            let parent = parent.map(|pod| k8s_openapi::api::core::v1::Pod {
                status: None,
                ..pod
            });
            let parent = serde_json::to_value(parent).unwrap_or_default();
            let changes = changes::between(&parent, &manifest);
            let notes = checkpoint.volumes.iter().map(|(name, volume)| {
                let files = volume
                    .entries
                    .iter()
                    .filter_map(|entry| entry.data.as_ref());
                let (count, bytes) = files.fold((0, 0), |(count, bytes), data| {
                    (count + 1, bytes + data.len() / 4 * 3)
                });
                format!(
                    "volume {name}: {count} files captured, about {}",
                    size(bytes as u64)
                )
            });
            let notes = notes.collect();
            Item {
                notes,
                changes,
                ..Item::live(
                    &object,
                    Vec::new(),
                    checkpoint.warnings.clone(),
                    Some(manifest),
                )
            }
        }
        Err(Error::Refused(reasons)) => Item::live(&object, reasons, Vec::new(), None),
        Err(error) => {
            return Err(
                anyhow::Error::new(error).context(format!("cannot render pod {namespace}/{name}"))
            );
        }
    };
    print_report(
        arguments,
        &Report {
            items: vec![item],
            ..Report::default()
        },
    )
}

async fn client(kubeconfig: Option<&Path>, root: HostRoot) -> anyhow::Result<kube::Client> {
    let config = kube_config(kubeconfig).await.map_err(|error| {
        let what = match error {
            Unknown::Read(_) => "cannot read the kubeconfig",
            Unknown::Use(_) => "cannot use the kubeconfig",
            Unknown::NotInCluster(_) => {
                "cannot find the API server outside a cluster: give --kubeconfig"
            }
        };
        anyhow::Error::new(error).context(what)
    })?;
    kube_client(config, root).context("cannot create a client for the API server")
}

async fn get(client: &kube::Client, namespace: &str, name: &str) -> anyhow::Result<Value> {
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
    let request = http::Request::get(path)
        .body(Vec::new())
        .context("cannot ask for the pod")?;
    match tokio::time::timeout(API_LIMIT, client.request::<Value>(request)).await {
        Ok(Ok(pod)) => Ok(pod),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
            bail!("there is no pod {namespace}/{name}")
        }
        Ok(Err(kube::Error::Api(status))) => {
            bail!(
                "cannot get pod {namespace}/{name}: the API server says {}: {}",
                status.code,
                status.message
            )
        }
        failed => {
            let show = format!("pod-checkpointer show {namespace}/{name}");
            let hint =
                format!("the API server does not answer; `{show}` shows the checkpoint without it");
            match failed {
                Ok(Err(error)) => Err(anyhow::Error::new(error).context(hint)),
                _ => bail!(hint),
            }
        }
    }
}
