//! The loop around the [`Core`]: it listens, looks at the node, performs what the core decides, and
//! reports.

use std::collections::BTreeSet;
use std::fs;
use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;

use tokio::time::{Instant, sleep_until};

use crate::args::SupervisorArguments;
use crate::node::host::HostRoot;
use crate::node::kubelet::Server;
use crate::node::{clock, sockets};
use crate::places::manifests::ManifestDir;
use crate::places::reports::{STATUS, Status};
use crate::places::run::RunDir;
use crate::places::store::Store;
use crate::problems::Problems;
use crate::reasons::Risk;
use crate::supervisor::core::decide::{self, Action};
use crate::supervisor::core::facts::Key;
use crate::supervisor::core::health::LookUp;
use crate::supervisor::core::observe::Lists;
use crate::supervisor::core::pace::Pace;
use crate::supervisor::core::{Core, Observation, Outcome};
use crate::supervisor::diagnose;
use crate::supervisor::error::Error;
use crate::supervisor::listen::{Heard, Listener};
use crate::supervisor::look::{Found, Looker};
use crate::supervisor::metrics_source::MetricsSource;
use crate::supervisor::perform::{self, PassContext, Performer, Settings};
use crate::supervisor::preconditions::Findings;
use crate::supervisor::probes::Probes;
use crate::supervisor::reach::Reach;
use crate::supervisor::record::{self, Recorder};
use crate::supervisor::twin_files::{self, TwinFiles};
use crate::supervisor::upkeep::Upkeep;
use crate::text::chain;

/// A supervisor on its node.
pub(super) struct Shell {
    settings: Settings,
    core: Core,
    listener: Listener,
    reach: Reach,
    looker: Looker,
    performer: Performer,
    upkeep: Upkeep,
    recorder: Recorder,
    metrics: Rc<MetricsSource>,
    run: RunDir,
    /// The run directory is in memory and belongs to this boot.
    is_memory: bool,
    /// Twins' files, once the manifest directory is known and its contents were read.
    files: Option<TwinFiles>,
    /// The API servers were given by a flag.
    servers_are_given: bool,
    problems: Problems,
    /// Why connections of the kubelet that should be closed cannot be.
    cannot_unstick: Option<String>,
}

impl Shell {
    pub(super) fn new(
        arguments: SupervisorArguments,
        node_name: String,
        root: HostRoot,
        boot_id: String,
        store: Store,
        run: RunDir,
        metrics: Rc<MetricsSource>,
    ) -> Result<Self, Error> {
        let SupervisorArguments { node, decision, .. } = arguments;
        let servers = given_servers(&root, &decision.apiservers, decision.apiserver_ca)?;
        let host = node.host;
        let reach = Reach::new(
            root.clone(),
            &host.kubelet_dir,
            node.cri_endpoint,
            host.manifest_dir,
        );
        let cannot_unstick = decision
            .unstick_kubelet
            .then(|| cannot_unstick(&root))
            .flatten();
        let decide = decide::Settings {
            activation_delay: decision.activation_delay,
            unstick: decision.unstick_kubelet,
            activate_locked_out: decision.activate_locked_out,
        };
        let pace = Pace {
            interval: decision.probe_interval,
            delay: decision.activation_delay,
        };
        let mut this = Self {
            core: Core::new(node_name.clone(), decide, pace)
                .with_early_namespaces(decision.early_namespaces),
            listener: Listener::new(
                Probes::new(root.clone(), decision.probe_timeout),
                root.clone(),
            ),
            reach,
            looker: Looker::new(store.clone(), run.clone()),
            performer: Performer::default(),
            upkeep: Upkeep::new(),
            recorder: Recorder::default(),
            metrics,
            run,
            is_memory: false,
            files: None,
            servers_are_given: !servers.is_empty(),
            problems: Problems::default(),
            cannot_unstick,
            settings: Settings {
                root,
                boot_id,
                node_name,
                kubelet_dir: host.kubelet_dir,
                store,
            },
        };
        if this.servers_are_given {
            this.probe(servers);
        }
        Ok(this)
    }

    pub(super) async fn run(
        mut self,
        mut stop: impl Future<Output = ()> + Unpin,
    ) -> Result<(), Error> {
        self.open_run_dir();
        self.core.go_on_with(record::read_outages(&self.run));
        self.find_servers().await;
        let mut next_pass = Instant::now();
        loop {
            self.metrics
                .pulse
                .expect(next_pass.min(self.listener.next_probe()));
            tokio::select! {
                biased;
                () = &mut stop => return Ok(()),
                heard = self.listener.heard(&mut self.core) => {
                    if heard == Heard::News || !self.core.is_quiet() {
                        next_pass = Instant::now();
                    }
                }
                action = self.performer.stopped() => {
                    self.core.ended(&action);
                    next_pass = Instant::now();
                }
                () = sleep_until(next_pass) => {}
            }
            if next_pass <= Instant::now() {
                self.pass().await;
                next_pass = Instant::now() + self.core.between_passes();
            }
        }
    }

    /// One pass: looks at the node, performs what is decided, and reports.
    async fn pass(&mut self) {
        self.find_servers().await;
        if !self.is_memory {
            self.open_run_dir();
        }
        self.release();
        if let Some(files) = self.files.as_ref().filter(|_| self.is_memory) {
            self.upkeep.sweep(files, &mut self.problems);
        }
        let found = self.look().await;
        self.listener.kubelet = self.reach.process.as_ref().map(|process| process.pid);
        self.find_files();
        if let Some(files) = self.files.as_ref().filter(|_| self.is_memory) {
            self.upkeep.tidy_drill(files, &mut self.problems);
        }
        self.listener.catch_up(&mut self.core);
        let links = self.links();
        let seen = Observation {
            stored: &found.stored,
            lists: found.lists.as_ref(),
            kubelet: &found.kubelet,
            agent: self.looker.agent.as_ref(),
            exclusive_host_ports: self.reach.exclusive_host_ports.unwrap_or_default(),
            knows_links: self.files.is_some(),
            links: links.as_ref(),
        };
        let actions = self.core.observed(&seen, clock::boot_time());
        self.perform(actions, found.lists.as_ref()).await;
        self.core.settle();
        if let Some(lists) = &found.lists {
            self.examine_twins(lists).await;
        }
        self.report();
    }

    /// The pods whose twins are linked; `None`: that cannot be read.
    fn links(&mut self) -> Option<BTreeSet<Key>> {
        let read = self.files.as_ref()?.manifests.linked();
        let problem = read.as_ref().err().map(|error| chain(error));
        self.problems.set("links", problem);
        read.ok()
    }

    /// Releases by contact alone, which needs neither the kubelet nor the runtime.
    fn release(&mut self) {
        release(&mut self.core, self.files.as_ref());
    }

    /// Looks at the node. Contact that returns meanwhile releases at once, so that a kubelet or
    /// runtime that hangs delays no release.
    async fn look(&mut self) -> Found {
        let Self {
            core,
            listener,
            reach,
            looker,
            files,
            problems,
            ..
        } = self;
        let mut look = pin!(looker.look(reach));
        let found = loop {
            tokio::select! {
                biased;
                heard = listener.heard(core) => {
                    if heard == Heard::News {
                        release(core, files.as_ref());
                    }
                }
                found = &mut look => break found,
            }
        };
        for (about, problem) in &found.problems {
            problems.set(about, problem.clone());
        }
        problems.set("sockets", listener.problem.clone());
        found
    }

    async fn perform(&mut self, actions: Vec<Action>, lists: Option<&Lists>) {
        let not_memory =
            (!self.is_memory).then(|| self.problems.texts_of("run directory").join("; "));
        let mut findings = Findings::default();
        let (mut unstick, mut is_news) = (false, false);
        let Self {
            core,
            listener,
            performer,
            settings,
            files,
            reach,
            looker,
            ..
        } = self;
        let with = PassContext {
            settings,
            files: files.as_ref(),
            reach,
            lists,
            agent: looker.agent.as_ref(),
            not_memory: not_memory.as_deref(),
        };
        for action in actions {
            let outcome = if action == Action::Unstick {
                unstick = true;
                continue;
            } else if !action.links() {
                performer.perform(&action, core, &with)
            } else if is_news {
                Outcome::Canceled
            } else {
                let synced = core.facts().kubelet_synced;
                let mut linked = pin!(performer.link(&action, synced, &with, &mut findings));
                loop {
                    tokio::select! {
                        biased;
                        heard = listener.heard(core) => {
                            if heard == Heard::News {
                                // what was decided may not hold any more: the next pass decides
                                is_news = true;
                                break Outcome::Canceled;
                            }
                        }
                        outcome = &mut linked => break outcome,
                    }
                }
            };
            if matches!((&action, &outcome), (Action::Forget(_), Outcome::Done)) {
                self.upkeep.hasten();
            }
            core.done(&action, outcome, clock::boot_time());
        }
        if is_news {
            self.release();
        }
        if unstick {
            self.unstick();
        }
    }

    /// Closes the kubelet's sockets that wait for the API server.
    fn unstick(&mut self) {
        let Err(error) = self.listener.unstick(&mut self.core) else {
            return;
        };
        let advice = Risk::CannotUnstick.advice();
        let text = format!("cannot close the kubelet's waiting connections: {error} ({advice})");
        self.problems.set("unsticking", Some(text));
        if error.kind() == std::io::ErrorKind::Unsupported {
            self.core.cannot_close_sockets();
            self.cannot_unstick = Some(error.to_string());
        }
    }

    /// Asks the runtime and the node about twins that do not run as they should.
    async fn examine_twins(&mut self, lists: &Lists) {
        let Some(runtime) = self.reach.runtime.clone() else {
            return;
        };
        for (key, uid, ask, before) in self.core.examine(lists) {
            match ask {
                LookUp::Container(id) => {
                    if let Ok(Some(detail)) = runtime.detail(&id).await {
                        self.core.container_ended(&key, &detail);
                    }
                }
                LookUp::Node { tried } => {
                    let manifest = twin_files::read_manifest(&self.run.active(&key))
                        .ok()
                        .flatten();
                    let Settings {
                        root, kubelet_dir, ..
                    } = &self.settings;
                    let manifest = manifest.unwrap_or_default();
                    let shown =
                        diagnose::without_sandbox(root, kubelet_dir, &uid, &manifest, tried);
                    self.core.has_no_sandbox(&key, shown);
                }
            }
            if let Some((reason, text)) = self
                .core
                .twin_fault(&key)
                .filter(|(_, text)| before.as_deref() != Some(text))
            {
                tracing::warn!(pod = %key, reason = reason.as_str(), "{text}");
            }
        }
    }

    fn report(&mut self) {
        self.problems.set("kubelet's contact", self.core.lock_out());
        let blind = ["runtime", "kubelet"]
            .into_iter()
            .find_map(|about| self.problems.texts_of(about).first());
        let status = Status {
            blind: blind.cloned(),
            ..self
                .core
                .status(self.problems.texts(), self.cannot_unstick.clone())
        };
        let figures = self.recorder.write(&self.run, status, self.core.outages());
        self.metrics.passed(figures);
    }

    // --- found when first needed
    // --------------------------------------------------------------------------------------

    /// The API servers: what the flag says, else what the agent recorded, else the kubelet's own
    /// kubeconfig. Looks again when the record changed.
    async fn find_servers(&mut self) {
        let is_known = self.servers_are_given || !self.listener.probes.is_idle();
        let servers = self
            .reach
            .servers(&self.settings.store, is_known, &mut self.problems)
            .await;
        if self.servers_are_given {
            return;
        }
        if let Some(servers) = servers.filter(|servers| !servers.is_empty()) {
            self.probe(servers);
        }
        if self.listener.probes.is_idle() && !self.problems.has("API server") {
            let hint = "no API server is known: the agent has recorded none, and the kubelet's kubeconfig is not known";
            self.problems.set("API server", Some(hint.to_owned()));
        }
    }

    fn probe(&mut self, servers: Vec<Server>) {
        let errors = self.listener.probes.probe(servers);
        self.problems
            .set("API server", errors.first().map(|error| chain(error)));
    }

    fn open_run_dir(&mut self) {
        let opened = self.run.open(&self.settings.boot_id);
        if opened.is_ok() {
            self.is_memory = true;
            // linked manifests could not be read before
            self.files = None;
        }
        self.problems
            .set("run directory", opened.err().map(|error| chain(&error)));
    }

    /// Finds the kubelet's manifest directory, and reads what an earlier supervisor left in it.
    fn find_files(&mut self) {
        if self.files.is_some() {
            return;
        }
        let Some(directory) = self.reach.manifest_dir() else {
            return;
        };
        let found = directory.map_err(|error| chain(&error)).and_then(|path| {
            let manifests = ManifestDir::new(path, self.run.clone());
            let files = TwinFiles::new(manifests, self.settings.root.clone());
            // without memory nothing can be linked, and each activation is refused with this reason
            if self.is_memory {
                let twins = files.find().map_err(|error| chain(&error))?;
                let last = self
                    .run
                    .read::<Status>(STATUS)
                    .unwrap_or_default()
                    .unwrap_or_default();
                self.core.rebuild(&last, twins, clock::boot_time());
            }
            Ok(files)
        });
        self.problems
            .set("manifest directory", found.as_ref().err().cloned());
        self.files = found.ok();
    }
}

fn release(core: &mut Core, files: Option<&TwinFiles>) {
    for action in core.release_at_sign(clock::boot_time()) {
        let outcome = match (&action, files) {
            (Action::Release(key), Some(files)) => perform::release(files, key, core),
            _ => Outcome::Failed,
        };
        core.done(&action, outcome, clock::boot_time());
    }
}

fn given_servers(
    root: &HostRoot,
    urls: &[String],
    ca: Option<PathBuf>,
) -> Result<Vec<Server>, Error> {
    if urls.is_empty() {
        return Ok(Vec::new());
    }
    let path = ca.unwrap_or_else(|| PathBuf::from("/etc/kubernetes/pki/ca.crt"));
    let real = root
        .resolve(&path)
        .map_err(|error| Error::Path(path.clone(), error))?;
    let ca = fs::read_to_string(real).map_err(|error| Error::Ca(path, error))?;
    let server = |url: &String| Server {
        url: url.clone(),
        ca: ca.clone(),
        tls_name: None,
        proxy: None,
    };
    Ok(urls.iter().map(server).collect())
}

/// Why connections of the kubelet cannot be closed; `None`: they can, or it is not known.
fn cannot_unstick(root: &HostRoot) -> Option<String> {
    let error = sockets::try_destroy(root)
        .err()
        .filter(|error| error.kind() == std::io::ErrorKind::Unsupported)?;
    tracing::warn!(%error, "cannot close connections: a kubelet that waits for the API server is left waiting");
    Some(error.to_string())
}
