//! One node: its object and lease, the kubelet's part towards the API server, and the sockets that
//! its agent asks.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Container, Node, Pod, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt as _};
use pod_checkpointer::files::lock::lock;
use pod_checkpointer::names::SUPERVISOR_LOCK;
use pod_checkpointer::node::clock;
use pod_checkpointer::node::contact::Class;
use pod_checkpointer::places::reports::{ContactReport, STATUS, Status};
use pod_checkpointer::places::run::RunDir;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep, sleep_until};

use crate::stub::kubelet::write_volume;
use crate::stub::runtime::{Spec, State};
use crate::stub::{self, PodResources, Runtime};

/// Namespace and service account of the agents.
const AGENT: &str = "pod-checkpointer";
/// The ID of every image.
const IMAGE_ID: &str = "sha256:0123456789abcdef";
/// How often a lease is renewed, as kubelets do it.
const LEASE: Duration = Duration::from_secs(10);
/// Pause after a failure.
pub const PAUSE: Duration = Duration::from_secs(1);
/// How long an agent's token is good, in seconds: longer than any story.
const TOKEN: u32 = 6 * 60 * 60;

/// What all nodes have in common.
pub struct Place {
    pub program: PathBuf,
    pub kubeconfig: PathBuf,
    pub directory: PathBuf,
}

/// What the API server says of a pod of this node.
pub enum Word {
    There(Box<Pod>),
    Gone(Box<Pod>),
}

pub struct Kubelet {
    name: String,
    number: u8,
    place: Rc<Place>,
    client: Client,
    runtime: Runtime,
    resources: PodResources,
    /// By the UID of their pods.
    agents: BTreeMap<String, Child>,
    /// The lock of its supervisor.
    _supervisor: File,
    /// Makes the next pod's address.
    addresses: u8,
}

impl Kubelet {
    /// A node that has just joined.
    pub async fn start(client: Client, place: Rc<Place>, number: u8) -> anyhow::Result<Self> {
        let name = format!("fleet-{number:02}");
        let path = |below: &str| place.directory.join(&name).join(below);
        for below in [
            "etc/kubernetes/manifests",
            "var/lib/kubelet/pods",
            "var/lib/pod-checkpointer",
            "run",
        ] {
            fs::create_dir_all(path(below))
                .with_context(|| format!("directory {below} of {name}"))?;
        }
        let runtime = Runtime::start_at(path("run/containerd.sock"));
        let resources = PodResources::start(&path("var/lib/kubelet"));
        let supervisor = supervise(&path("run/pod-checkpointer"))
            .with_context(|| format!("the supervisor of {name}"))?;
        let node = Api::<Node>::all(client.clone());
        let node = node
            .create(
                &PostParams::default(),
                &serde_json::from_value(object(&name, number))?,
            )
            .await;
        let node = node.with_context(|| format!("node {name}"))?;
        let lease = json!({
            "metadata": {"name": name, "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node.metadata.uid}]},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": micro_time()},
        });
        let leases = Api::<Lease>::namespaced(client.clone(), "kube-node-lease");
        leases
            .create(&PostParams::default(), &serde_json::from_value(lease)?)
            .await
            .context("a lease")?;
        Ok(Self {
            name,
            number,
            place,
            client,
            runtime,
            resources,
            agents: BTreeMap::new(),
            _supervisor: supervisor,
            addresses: 1,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs the pods of its node, and keeps the node Ready.
    pub async fn run(mut self, mut words: UnboundedReceiver<Word>) -> anyhow::Result<()> {
        let mut renewal = Instant::now() + LEASE;
        loop {
            tokio::select! {
                word = words.recv() => match word.context("nobody tells of pods any more")? {
                    Word::Gone(pod) => self.forget(&pod.uid().unwrap_or_default()).await,
                    Word::There(pod) if pod.metadata.deletion_timestamp.is_some() => self.end(&pod).await,
                    Word::There(pod) => self.run_pod(&pod).await?,
                },
                () = sleep_until(renewal) => {
                    let pause = self.renew().await.map_or(PAUSE, |()| LEASE);
                    renewal = Instant::now() + pause;
                }
            }
        }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.place.directory.join(&self.name).join(below)
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Lease and status: a node that was away was called unknown meanwhile. Once: after its end
    /// there is nothing to renew.
    async fn renew(&self) -> kube::Result<()> {
        let leases = Api::<Lease>::namespaced(self.client.clone(), "kube-node-lease");
        let renewed = Patch::Merge(json!({"spec": {"renewTime": micro_time()}}));
        leases
            .patch(&self.name, &PatchParams::default(), &renewed)
            .await?;
        let ready = Patch::Strategic(json!({"status": {"conditions": [ready()]}}));
        let nodes = Api::<Node>::all(self.client.clone());
        nodes
            .patch_status(&self.name, &PatchParams::default(), &ready)
            .await?;
        Ok(())
    }

    /// Starts what does not run yet, and shows it.
    async fn run_pod(&mut self, pod: &Pod) -> anyhow::Result<()> {
        let uid = pod.uid().unwrap_or_default();
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        if !self.runtime.state.borrow().is_running(&uid) {
            let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
            let mut runs = stub::Pod::new(&namespace, &name, &uid);
            runs.containers = containers
                .map(|container| self.container(pod, container))
                .collect();
            self.write_volumes(pod);
            self.runtime.change(|state| {
                state.images.extend(
                    runs.containers
                        .iter()
                        .map(|one| (one.image.clone(), IMAGE_ID.to_owned())),
                );
                state.run(&runs);
            });
            self.resources
                .state
                .send_modify(|state| _ = state.pods.insert((namespace.clone(), name.clone())));
        }
        if namespace == AGENT && !self.agents.contains_key(&uid) {
            let token = self.insist("a token", || self.token(&name, &uid)).await;
            if let Some(token) = token {
                let agent = self.start_agent(&name, &token)?;
                self.agents.insert(uid.clone(), agent);
            }
        }
        if is_shown_ready(pod) {
            return Ok(());
        }
        self.addresses = self.addresses.wrapping_add(1);
        let status = Patch::Merge(json!({"status": self.status(pod, &uid)}));
        let (pods, with) = (self.pods(&namespace), PatchParams::default());
        self.insist("a pod's status", || {
            pods.patch_status(&name, &with, &status)
        })
        .await;
        Ok(())
    }

    /// Ends a pod that is being deleted, and lets it go.
    async fn end(&mut self, pod: &Pod) {
        let uid = pod.uid().unwrap_or_default();
        self.forget(&uid).await;
        let preconditions = Some(Preconditions {
            uid: Some(uid),
            resource_version: None,
        });
        let with = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions,
            ..DeleteParams::default()
        };
        let (pods, name) = (
            self.pods(&pod.namespace().unwrap_or_default()),
            pod.name_any(),
        );
        self.insist("the end of a pod", || pods.delete(&name, &with))
            .await;
    }

    async fn forget(&mut self, uid: &str) {
        if let Some(mut agent) = self.agents.remove(uid) {
            let _ = agent.kill().await;
        }
        self.runtime.change(|state| state.remove(uid));
        // what still runs is owned: a pod of the same name may be there already
        let runs = |state: &State| {
            state
                .sandboxes
                .values()
                .map(|sandbox| (sandbox.pod.namespace.clone(), sandbox.pod.name.clone()))
                .collect()
        };
        let pods = runs(&self.runtime.state.borrow());
        self.resources.state.send_modify(|state| state.pods = pods);
        let _ = fs::remove_dir_all(self.path("var/lib/kubelet/pods").join(uid));
    }

    /// Does it until it is done, or is of no use any more.
    async fn insist<T, F: Future<Output = kube::Result<T>>>(
        &self,
        what: &str,
        act: impl Fn() -> F,
    ) -> Option<T> {
        loop {
            match act().await {
                Ok(done) => return Some(done),
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return None,
                Err(error) => eprintln!("{}: {what}: {error}", self.name),
            }
            sleep(PAUSE).await;
        }
    }

    fn volume_dir(&self, pod: &Pod, kind: &str, name: &str) -> PathBuf {
        let uid = pod.uid().unwrap_or_default();
        self.path("var/lib/kubelet/pods")
            .join(uid)
            .join(format!("volumes/kubernetes.io~{kind}"))
            .join(name)
    }

    /// Directories of ConfigMaps, Secrets and tokens. What is in them does not matter here.
    fn volumes(&self, pod: &Pod) -> BTreeMap<String, PathBuf> {
        let volumes = pod
            .spec
            .iter()
            .flat_map(|spec| spec.volumes.iter().flatten());
        let known = volumes.filter_map(|volume| {
            let kind = match (&volume.config_map, &volume.secret, &volume.projected) {
                (Some(_), None, None) => "configmap",
                (None, Some(_), None) => "secret",
                (None, None, Some(_)) => "projected",
                _ => return None,
            };
            Some((
                volume.name.clone(),
                self.volume_dir(pod, kind, &volume.name),
            ))
        });
        known.collect()
    }

    fn write_volumes(&self, pod: &Pod) {
        for (name, directory) in self.volumes(pod) {
            let content = format!("{name} on {}\n", self.name);
            write_volume(
                &directory,
                &["token", "ca.crt", "prices.csv"].map(|file| (file, 0o644, content.as_bytes())),
            );
        }
    }

    /// As a kubelet hands it to the runtime.
    fn container(&self, pod: &Pod, container: &Container) -> Spec {
        let volumes = self.volumes(pod);
        let env = container.env.iter().flatten();
        let env = env.map(|env| (env.name.clone(), env.value.clone().unwrap_or_default()));
        let service = [
            ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
            ("KUBERNETES_SERVICE_PORT", "443"),
        ];
        let service = service.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mounts = container
            .volume_mounts
            .iter()
            .flatten()
            .filter_map(|mount| {
                let path = volumes.get(&mount.name)?.to_string_lossy().into_owned();
                Some((mount.mount_path.clone(), path))
            });
        let mut spec = Spec::new(
            &container.name,
            container.image.as_deref().unwrap_or_default(),
        );
        spec.env = env.chain(service).collect();
        spec.mounts = mounts.collect();
        spec
    }

    /// What runs now.
    fn status(&self, pod: &Pod, uid: &str) -> Value {
        let now = Timestamp::now();
        let state = self.runtime.state.borrow();
        let running = state
            .containers
            .iter()
            .filter(|(_, container)| container.pod_uid == uid);
        let containers: Vec<Value> = running
            .map(|(id, container)| {
                json!({"name": container.spec.name, "image": container.spec.image, "imageID": IMAGE_ID, "ready": true,
                    "started": true, "restartCount": 0, "containerID": format!("containerd://{id}"),
                    "state": {"running": {"startedAt": now}}})
            })
            .collect();
        let is_on_host = pod
            .spec
            .as_ref()
            .is_some_and(|spec| spec.host_network == Some(true));
        let host = address(self.number);
        let ip = if is_on_host {
            host.clone()
        } else {
            format!("10.250.{}.{}", self.number, self.addresses)
        };
        let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"];
        let conditions = conditions
            .map(|kind| json!({"type": kind, "status": "True", "lastTransitionTime": now}));
        json!({"phase": "Running", "startTime": now, "hostIP": host, "hostIPs": [{"ip": host}], "podIP": ip,
            "podIPs": [{"ip": ip}], "conditions": conditions, "containerStatuses": containers})
    }

    /// Bound to the agent's pod, as what a kubelet puts into its volume: the policy reads the node
    /// from it.
    async fn token(&self, name: &str, uid: &str) -> kube::Result<String> {
        let request = json!({"spec": {"audiences": [], "expirationSeconds": TOKEN,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}}});
        let request: TokenRequest =
            serde_json::from_value(request).map_err(kube::Error::SerdeError)?;
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), AGENT);
        let answer = accounts
            .create_token_request(AGENT, &PostParams::default(), &request)
            .await?;
        Ok(answer
            .status
            .and_then(|status| status.token)
            .unwrap_or_default())
    }

    /// The real one, with the paths of this node in the place of the usual ones. Ends with this
    /// process.
    fn start_agent(&self, pod: &str, token: &str) -> anyhow::Result<Child> {
        let kubeconfig = self.path("agent.conf");
        fs::write(&kubeconfig, with_token(&self.place.kubeconfig, token)?)?;
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("agent.log"))?;
        let flag = |name: &str, below: &str| format!("--{name}={}", self.path(below).display());
        let agent = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(&self.place.program)
            .args([
                "agent",
                "--host-root=/",
                &format!("--node-name={}", self.name),
            ])
            .arg(format!(
                "--metrics-address=127.0.0.1:{}",
                10000 + 2 * u16::from(self.number)
            ))
            .args([
                flag("kubeconfig", "agent.conf"),
                flag("state-dir", "var/lib/pod-checkpointer"),
            ])
            .args([
                flag("run-dir", "run/pod-checkpointer"),
                flag("kubelet-dir", "var/lib/kubelet"),
            ])
            .args([
                flag("manifest-dir", "etc/kubernetes/manifests"),
                flag("cri-endpoint", "run/containerd.sock"),
            ])
            .env("POD_NAME", pod)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("the agent does not start")?;
        fs::write(
            self.path("agent.pid"),
            agent.id().unwrap_or_default().to_string(),
        )?;
        Ok(agent)
    }
}

/// What a supervisor that works leaves in its run directory. Returns its lock.
fn supervise(run: &Path) -> anyhow::Result<File> {
    let run = RunDir::new(run, run);
    run.open(&clock::boot_id()?)?;
    let contact = Some(ContactReport {
        class: Class::Answering,
        since: 1,
    });
    run.write(
        STATUS,
        &Status {
            contact,
            ..Status::default()
        },
    )?;
    Ok(lock(&run.path().join(SUPERVISOR_LOCK))?)
}

/// The same API server, with this token as the only credential.
fn with_token(kubeconfig: &Path, token: &str) -> anyhow::Result<String> {
    let mut config: Value = serde_yaml::from_slice(&fs::read(kubeconfig)?)?;
    let users = config
        .pointer_mut("/users/0/user")
        .context("a user in the kubeconfig")?;
    *users = json!({"token": token});
    Ok(config.to_string())
}

fn is_shown_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn ready() -> Value {
    json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "", "lastHeartbeatTime": Timestamp::now()})
}

fn address(number: u8) -> String {
    format!("10.249.0.{}", u16::from(number) + 1)
}

fn micro_time() -> String {
    format!("{:.6}", Timestamp::now())
}

/// Only pods that tolerate everything are scheduled to it.
fn object(name: &str, number: u8) -> Value {
    let amounts = json!({"cpu": "8", "memory": "16Gi", "ephemeral-storage": "50Gi", "pods": "110"});
    json!({
        "metadata": {"name": name, "labels": {"fleet": "yes", "kubernetes.io/hostname": name}},
        "spec": {"taints": [{"key": "fleet", "effect": "NoSchedule"}]},
        "status": {"capacity": amounts, "allocatable": amounts, "conditions": [ready()],
            "addresses": [{"type": "InternalIP", "address": address(number)}, {"type": "Hostname", "address": name}]},
    })
}
