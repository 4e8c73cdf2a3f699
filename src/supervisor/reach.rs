//! Finds the kubelet, the runtime, the API servers and the manifest directory. Each is found when
//! it is first needed, which may be long after the supervisor starts, and again when it is replaced
//! by another.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::node::host::HostRoot;
use crate::node::kubelet::{self, Kubelet, Owned, Server};
use crate::node::runtime::{self, Runtime};
use crate::places::manifests;
use crate::places::node_record::NodeRecord;
use crate::places::store::Store;
use crate::problems::Problems;
use crate::supervisor::core::observe::Lists;
use crate::text::chain;

/// Time limit of one call to the runtime or the kubelet. After that the answer is unknown.
const CALL_LIMIT: Duration = Duration::from_secs(2);

/// The kubelet that runs.
#[derive(Debug)]
pub struct KubeletProcess {
    /// Its process id.
    pub pid: u32,
    /// How it was started; `None`: it cannot be learned.
    pub settings: Option<kubelet::Settings>,
}

/// What was found on the node so far.
pub struct Reach {
    root: HostRoot,
    cri_endpoint: Option<PathBuf>,
    manifest_dir: Option<PathBuf>,
    kubelet: Kubelet,
    /// The kubelet that last answered.
    pub process: Option<KubeletProcess>,
    /// The runtime, from its first answer until it fails to answer.
    pub runtime: Option<Runtime>,
    /// Whether the runtime refuses a second mapping of a host port; `None`: not known yet.
    pub exclusive_host_ports: Option<bool>,
    /// What the agent recorded about the node.
    pub node: Option<NodeRecord>,
    /// When that record was last changed.
    recorded: Option<SystemTime>,
}

impl Reach {
    /// Has found nothing yet. Paths are host paths; `None`: to be found.
    pub fn new(
        root: HostRoot,
        kubelet_dir: &Path,
        cri_endpoint: Option<PathBuf>,
        manifest_dir: Option<PathBuf>,
    ) -> Self {
        let kubelet = Kubelet::new(kubelet::socket(&root, kubelet_dir), CALL_LIMIT);
        Self {
            root,
            cri_endpoint,
            manifest_dir,
            kubelet,
            process: None,
            runtime: None,
            exclusive_host_ports: None,
            node: None,
            recorded: None,
        }
    }

    /// What the kubelet owns. A kubelet that answers for the first time is also asked how it was
    /// started.
    pub async fn owned(&mut self) -> Result<Owned, kubelet::Error> {
        let owned = self.kubelet.owned().await?;
        if self
            .process
            .as_ref()
            .is_none_or(|process| process.pid != owned.pid)
        {
            let settings = kubelet::settings(&self.root, owned.pid).inspect_err(|error| {
                let error = error as &dyn std::error::Error;
                tracing::warn!(
                    error,
                    "the kubelet's settings are not known: assuming the defaults"
                );
            });
            tracing::info!(pid = owned.pid, "found the kubelet");
            // this one may use another runtime
            self.runtime = None;
            self.exclusive_host_ports = None;
            self.process = Some(KubeletProcess {
                pid: owned.pid,
                settings: settings.ok(),
            });
        }
        Ok(owned)
    }

    fn kubelet_settings(&self) -> Option<&kubelet::Settings> {
        self.process.as_ref()?.settings.as_ref()
    }

    /// What the runtime lists; the error is in words.
    pub async fn lists(&mut self) -> Result<Lists, String> {
        let lists = self.ask_runtime().await;
        if lists.is_err() {
            self.runtime = None;
        }
        lists
    }

    async fn ask_runtime(&mut self) -> Result<Lists, String> {
        let runtime = if let Some(runtime) = &self.runtime {
            runtime.clone()
        } else {
            let given = self.cri_endpoint.as_deref();
            let socket = if given.is_none() && self.process.is_none() {
                // it is the kubelet's runtime that counts
                let asked = self.owned().await.map(|_| ());
                asked.map_err(|error| {
                    format!(
                        "the kubelet's container runtime is not known: {}",
                        chain(&error)
                    )
                })?;
                runtime::find(&self.root, None, self.kubelet_settings())
            } else {
                runtime::find(&self.root, given, self.kubelet_settings())
            };
            let runtime = Runtime::new(socket.map_err(|error| chain(&error))?, CALL_LIMIT);
            self.runtime.insert(runtime).clone()
        };
        if self.exclusive_host_ports.is_none()
            && let Ok(version) = runtime.version().await
        {
            // CRI-O refuses a second mapping of a host port; containerd's portmap plugin accepts it
            self.exclusive_host_ports = Some(version.name.eq_ignore_ascii_case("cri-o"));
            tracing::info!(
                runtime = version.name,
                version = version.version,
                "found the container runtime"
            );
        }
        let (sandboxes, containers) = tokio::join!(runtime.sandboxes(), runtime.containers());
        let failed = |error: runtime::Error| chain(&error);
        Ok(Lists {
            sandboxes: sandboxes.map_err(failed)?,
            containers: containers.map_err(failed)?,
        })
    }

    /// The kubelet's manifest directory, a real path. `None`: the kubelet has not reported it yet.
    pub fn manifest_dir(&self) -> Option<Result<PathBuf, manifests::Error>> {
        let given = self.manifest_dir.as_deref();
        if given.is_none() && self.process.is_none() {
            return None;
        }
        let settings = self.kubelet_settings();
        Some(manifests::find(given, settings).and_then(|path| {
            let real = self.root.resolve(&path).ok().filter(|real| real.is_dir());
            real.ok_or(manifests::Error::NoDirectory(path))
        }))
    }

    /// The API servers to probe: those that the agent recorded, else those in the kubelet's own
    /// kubeconfig. `None`: the servers are known (`is_known`) and the record has not changed.
    pub async fn servers(
        &mut self,
        store: &Store,
        is_known: bool,
        problems: &mut Problems,
    ) -> Option<Vec<Server>> {
        let recorded = store.node_changed();
        let is_changed = recorded != self.recorded;
        if is_changed {
            match store.node() {
                Ok(record) => {
                    self.node = record;
                    problems.set("node record", None);
                }
                Err(error) => problems.set("node record", Some(chain(&error))),
            }
            self.recorded = recorded;
        }
        if is_known && !is_changed {
            return None;
        }
        let recorded = self.node.as_ref().map(|node| node.servers.clone());
        let mut servers: Vec<Server> = recorded.into_iter().flatten().map(Server::from).collect();
        if servers.is_empty() && self.owned().await.is_ok() {
            match self
                .kubelet_settings()
                .and_then(|settings| settings.server(&self.root))
            {
                Some(Ok(server)) => servers.push(server),
                Some(Err(error)) => problems.set("API server", Some(chain(&error))),
                None => {}
            }
        }
        Some(servers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_runtime_of_the_kubelet_is_asked() {
        let directory = tempfile::tempdir().unwrap();
        // of another runtime, for example Docker's beside that of k3s
        for path in runtime::SOCKETS {
            let path = directory.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let root = HostRoot::new(directory.path());
        let mut reach = Reach::new(root, Path::new("/var/lib/kubelet"), None, None);
        let unknown = reach.lists().await.unwrap_err();
        assert!(unknown.contains("no kubelet listens"), "{unknown}");

        let settings = kubelet::Settings {
            runtime_endpoint: Some("unix:///srv/own.sock".to_owned()),
            ..kubelet::Settings::default()
        };
        reach.process = Some(KubeletProcess {
            pid: 1,
            settings: Some(settings),
        });
        let own = reach.lists().await.unwrap_err();
        assert!(own.contains("/srv/own.sock"), "{own}");
    }
}
